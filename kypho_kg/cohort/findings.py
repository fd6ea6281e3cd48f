"""Findings of all subjects at once: what is present, ruled out or withheld (compare ``snapshot.py``).

Whether anything contradicts is looked up in tables of classes and subjects; only the facts of such patients are then
compared with one another, as pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kypho_kg.cohort.layout import CODE, FINDING, LESIONS, PATIENTS, Bytes, Flags, Ints, Layout
from kypho_kg.cohort.rows import ABSENT, DAY, PRESENT, UNCLEAR, Late, Rows
from kypho_kg.cohort.series import CONFLICTING, RANK
from kypho_kg.cohort.subjects import Subjects
from kypho_kg.record import Cause

NO_GAP = 255


@dataclass(slots=True)
class Added:
    """Findings that rules yielded, as arrays of one length."""

    subject: Ints
    finding: Ints
    """Slots."""
    absent: Flags
    start: Ints
    end: Ints
    timeless: Flags

    @classmethod
    def of(
        cls, subject: Ints, slot: int, start: Ints, end: Ints, *, absent: bool = True, timeless: bool = False
    ) -> Added:
        """One finding of several subjects."""
        n = len(subject)
        return cls(subject, np.full(n, slot), np.full(n, absent), start, end, np.full(n, timeless))

    @classmethod
    def none(cls) -> Added:
        """Nothing yet."""
        ints, flags = np.empty(0, np.int64), np.empty(0, bool)
        return cls(ints, ints, flags, ints, ints, flags)

    def plus(self, other: Added) -> Added:
        """Both together."""
        pairs = ((getattr(self, n), getattr(other, n)) for n in Added.__slots__)
        return Added(*(np.concatenate(p) for p in pairs))

    def where(self, chosen: Flags) -> Added:
        """Some of them."""
        return Added(*(getattr(self, n)[chosen] for n in Added.__slots__))

    def __len__(self) -> int:
        return len(self.subject)


@dataclass(slots=True)
class State:
    """Findings by slot and subject."""

    present: Flags
    absent: Flags
    gap: Bytes
    """The rank of the cause by which a finding is unknown."""
    alive: Flags
    """Which recorded facts were not dropped."""


class Findings:
    """The recorded findings of a chunk, resolved once; what rules add is compared with them alone."""

    def __init__(self, rows: Rows, late: Late, layout: Layout, subjects: Subjects) -> None:
        self.layout = layout
        self.subjects = subjects
        self.owners = subjects.owners()
        self.windows = layout.conflict_window[layout.kind == FINDING].astype(np.int64)
        self.rows = rows
        self.slots = layout.slot[rows.feature].astype(np.int64)
        shape = layout.count[FINDING], subjects.size
        self.present, self.absent = np.zeros(shape, bool), np.zeros(shape, bool)
        self.gap = np.full(shape, NO_GAP, np.uint8)
        for (feature, subject), cause in ((late.old, Cause.STALE), (late.pending, Cause.PENDING)):
            self.gap[layout.slot[feature], subject] = RANK[CODE[cause]]
        self.unclear = np.flatnonzero(rows.polarity == UNCLEAR)
        no, yes = np.flatnonzero(rows.polarity == ABSENT), np.flatnonzero(rows.polarity == PRESENT)
        self.present[self.slots[yes], rows.subject[yes]] = True
        self.absent[self.slots[no], rows.subject[no]] = True
        self.dropped = np.zeros(len(rows), bool)
        self.renewed = np.zeros(len(rows), bool)
        left = np.concatenate((self.unclear, no[self._suspicious(no)]))
        if len(left):
            facts = _Facts.of(rows, self.slots)
            effect = self._settle(facts, left, 0)
            self.dropped[effect.dropped] = True
            self.renewed[effect.renewed] = True
            effect.note(self.gap, facts)
            gone = np.flatnonzero(self.dropped)
            self._show(self.present, self.absent, facts, gone, np.flatnonzero(~self.dropped))

    def resolve(self, added: Added) -> State:
        """What holds after contradictions, with the facts of rules among the recorded ones."""
        present, absent, gap = self.present.copy(), self.absent.copy(), self.gap.copy()
        dropped, renewed = self.dropped, self.renewed
        added = self._recent(added, gap)
        if len(added):
            # Only recorded facts of the same patients count here whose class is wider or narrower than an added one.
            either = self.layout.narrower | self.layout.narrower.T
            related: Flags = np.logical_or.reduce(either[np.unique(added.finding)], axis=0)
            mine = np.zeros(len(self.subjects.patients), bool)
            mine[self.owners[added.subject]] = True
            near = np.flatnonzero(related[self.slots] & mine[self.owners[self.rows.subject]])
            facts = _Facts.of(self.rows.where(near), self.slots[near]).plus(added)
            left = np.flatnonzero(facts.polarity != PRESENT)
            effect = self._settle(facts, left, len(near))
            effect.note(gap, facts)
            gone = np.zeros(len(facts.subject), bool)
            gone[effect.dropped] = True
            gone[: len(near)] |= dropped[near]
            dropped, renewed = dropped.copy(), renewed.copy()
            dropped[near] |= gone[: len(near)]
            renewed[near[effect.renewed[effect.renewed < len(near)]]] = True
            self._show(present, absent, facts, np.flatnonzero(gone), np.flatnonzero(~gone))
        open_ = self.unclear[~renewed[self.unclear]]
        np.minimum.at(gap, (self.slots[open_], self.rows.subject[open_]), RANK[self.rows.cause[open_]])
        return State(present, absent, gap, ~dropped)

    @staticmethod
    def _show(
        present: Flags, absent: Flags, facts: _Facts, gone: npt.NDArray[np.intp], alive: npt.NDArray[np.intp]
    ) -> None:
        """Take out what was dropped; another fact may say the same."""
        present[facts.slot[gone], facts.subject[gone]] = False
        absent[facts.slot[gone], facts.subject[gone]] = False
        for polarity, table in ((PRESENT, present), (ABSENT, absent)):
            i = alive[facts.polarity[alive] == polarity]
            table[facts.slot[i], facts.subject[i]] = True

    def _recent(self, added: Added, gap: Bytes) -> Added:
        """Those that rest on facts recent enough for what they yield; of the others, that they are too old."""
        lookback = self.layout.lookback[self.layout.kind == FINDING][added.finding]
        day = self.subjects.as_of[self.owners[added.subject]]
        old = (lookback >= 0) & (day - added.start // DAY > lookback)
        np.minimum.at(gap, (added.finding[old], added.subject[old]), RANK[CODE[Cause.STALE]])
        return added.where(~old) if old.any() else added

    def _suspicious(self, absent: npt.NDArray[np.intp]) -> Flags:
        """Of each absent fact, whether its subject, or a lesion of it, has a finding that it rules out."""
        slot, subject = self.slots[absent], self.rows.subject[absent]
        held = np.zeros_like(self.present)
        patients, lesions = (self.subjects.block(b) for b in (PATIENTS, LESIONS))
        for cls in np.flatnonzero(np.bincount(slot, minlength=len(held))):
            row = held[cls]
            for kind in np.flatnonzero(self.layout.narrower[cls]):
                row |= self.present[kind]
            row[patients] |= np.logical_or.reduceat(row[lesions], self.subjects.first)
        return held[slot, subject]

    def _pairs(self, facts: _Facts, left: npt.NDArray[np.intp], fresh: int) -> tuple[Ints, Ints]:
        """Each of the chosen facts with every present or absent fact of its patient that is wider or narrower.

        :param fresh: the number of the first fact that is new; pairs of older ones are left out. 0 for all.
        """
        families = int(self.layout.family.max(initial=0)) + 1
        key = self.owners[facts.subject] * families + self.layout.family[facts.slot]
        wanted = np.zeros(len(self.subjects.patients) * families, bool)
        wanted[key[left]] = True
        right = np.flatnonzero((facts.polarity != UNCLEAR) & wanted[key])
        right = right[np.argsort(key[right], kind="stable")]
        starts = np.searchsorted(key[right], key[left], "left")
        counts = np.searchsorted(key[right], key[left], "right") - starts
        a = np.repeat(left, counts)
        within = np.arange(len(a)) - np.repeat(np.cumsum(counts) - counts, counts)
        b = right[np.repeat(starts, counts) + within]
        near = self.layout.narrower[facts.slot[a], facts.slot[b]] | self.layout.narrower[facts.slot[b], facts.slot[a]]
        near &= (a >= fresh) | (b >= fresh)
        return a[near], b[near]

    def _settle(self, facts: _Facts, left: npt.NDArray[np.intp], fresh: int) -> _Effect:
        """What is contradicted or hidden, and why it is unknown then."""
        f, narrower = facts, self.layout.narrower
        a, b = self._pairs(f, left, fresh)
        same = f.subject[a] == f.subject[b]
        patients, lesions = (self.subjects.block(x) for x in (PATIENTS, LESIONS))

        def after(x: Ints, y: Ints, days: Ints | int) -> Flags:
            return (f.start[x] > f.end[y]) & ((days == 0) | (f.start[x] // DAY - f.end[y] // DAY > days))

        # A present finding and an absent one that is wider, of the subject or of its patient.
        down = same | ((f.subject[a] < patients.stop) & (f.subject[b] >= lesions.start))
        clash = (f.polarity[a] == ABSENT) & (f.polarity[b] == PRESENT) & down & narrower[f.slot[a], f.slot[b]]
        no, yes = a[clash], b[clash]
        window = np.maximum(self.windows[f.slot[no]], self.windows[f.slot[yes]])
        timeless = f.timeless[no] | f.timeless[yes]
        yes_wins, no_wins = ~timeless & after(yes, no, window), ~timeless & after(no, yes, window)
        both = ~yes_wins & ~no_wins

        # An unclear finding hides what one of its readings would contradict, unless that lies later.
        vague = f.polarity[a] == UNCLEAR
        up = same | ((f.subject[b] < patients.stop) & (f.subject[a] >= lesions.start))
        touches = np.where(
            f.polarity[b] == PRESENT,
            same & narrower[f.slot[a], f.slot[b]],
            up & narrower[f.slot[b], f.slot[a]],
        )
        newer = after(b, a, 0)
        hidden = vague & touches & ~newer
        conflicting = np.concatenate((no[both], yes[both]))
        return _Effect(
            np.concatenate((no[~no_wins], yes[~yes_wins], b[hidden])),
            a[vague & same & (f.slot[a] == f.slot[b]) & newer],
            np.concatenate((conflicting, b[hidden])),
            np.concatenate((np.full(len(conflicting), RANK[CONFLICTING]), RANK[f.cause[a[hidden]]])),
        )

    def among(self, slots: npt.NDArray[np.intp], polarity: int, state: State) -> Flags:
        """Of each recorded fact, whether it says so of one of some findings and was not dropped."""
        wanted = np.zeros(len(self.present), bool)
        wanted[slots] = True
        return wanted[self.slots] & (self.rows.polarity == polarity) & state.alive

    # -- what a criterion asks

    def of_patients(self, table: Flags, slots: npt.NDArray[np.intp]) -> Flags:
        """Whether a patient, or any lesion of it, has one of some findings."""
        held: Flags = np.logical_or.reduce(table[slots], axis=0)
        own = held[self.subjects.block(PATIENTS)]
        return own | np.logical_or.reduceat(held[self.subjects.block(LESIONS)], self.subjects.first)


@dataclass(slots=True)
class _Facts:
    """Recorded facts, and after them those that rules added."""

    subject: Ints
    slot: Ints
    polarity: Bytes
    start: Ints
    end: Ints
    timeless: Flags
    cause: Bytes

    @classmethod
    def of(cls, rows: Rows, slots: Ints) -> _Facts:
        """Recorded facts."""
        return cls(rows.subject, slots, rows.polarity, rows.start, rows.end, np.zeros(len(rows), bool), rows.cause)

    def plus(self, added: Added) -> _Facts:
        """These and those of rules."""
        polarity = np.where(added.absent, ABSENT, PRESENT).astype(np.uint8)
        more = _Facts(
            added.subject, added.finding, polarity, added.start, added.end, added.timeless,
            np.zeros(len(added), np.uint8),
        )  # fmt: skip
        return _Facts(*(np.concatenate((getattr(self, n), getattr(more, n))) for n in _Facts.__slots__))


@dataclass(slots=True)
class _Effect:
    """What comparing facts yields: numbers of those dropped and renewed, and ranks of causes to note at some."""

    dropped: Ints
    renewed: Ints
    noted: Ints
    ranks: Bytes

    def note(self, gap: Bytes, facts: _Facts) -> None:
        """Write the causes down."""
        np.minimum.at(gap, (facts.slot[self.noted], facts.subject[self.noted]), self.ranks)
