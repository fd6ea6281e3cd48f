"""Findings of all subjects at once: what is present, ruled out or withheld (compare ``snapshot.py``).

Whether anything contradicts is looked up in tables of classes and subjects; only the facts of such patients are then
compared with one another, as pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kypho_kg.cohort.layout import CODE, FINDING, LESIONS, PATIENTS, Bytes, Flags, Ints, Layout
from kypho_kg.cohort.rows import ABSENT, DAY, OLD, PENDING, PRESENT, UNCLEAR, USED, Rows
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
    """The recorded findings of a chunk; resolved again with whatever rules add."""

    def __init__(self, rows: Rows, layout: Layout, subjects: Subjects) -> None:
        self.layout = layout
        self.subjects = subjects
        self.owners = subjects.owners()
        rows = rows.where(layout.kind[rows.feature] == FINDING)
        self.late = np.full((layout.count[FINDING], subjects.size), NO_GAP, np.uint8)
        for use, cause in ((OLD, Cause.STALE), (PENDING, Cause.PENDING)):
            late = rows.where(rows.use == use)
            self.late[layout.slot[late.feature], late.subject] = RANK[CODE[cause]]
        self.rows = rows.where(rows.use == USED)
        self.slots = layout.slot[self.rows.feature].astype(np.int64)
        self.windows = layout.conflict_window[layout.kind == FINDING].astype(np.int64)
        self._by_owner = np.argsort(self.owners[self.rows.subject], kind="stable")

    def resolve(self, added: Added) -> State:
        """What holds after contradictions, with the facts of rules among the recorded ones."""
        rows, slots = self.rows, self.slots
        shape = self.late.shape
        gap = self.late.copy()
        added = self._recent(added, gap)
        subject = np.concatenate((rows.subject, added.subject))
        slot = np.concatenate((slots, added.finding))
        polarity = np.concatenate((rows.polarity, np.where(added.absent, ABSENT, PRESENT).astype(np.uint8)))
        present, absent = np.zeros(shape, bool), np.zeros(shape, bool)
        i, o, u = polarity == PRESENT, polarity == ABSENT, polarity == UNCLEAR
        present[slot[i], subject[i]] = True
        absent[slot[o], subject[o]] = True
        left = np.flatnonzero(u | (o & self._suspicious(present, subject, slot, o)))
        dropped = np.zeros(len(subject), bool)
        if len(left):
            start, end = np.concatenate((rows.start, added.start)), np.concatenate((rows.end, added.end))
            timeless = np.concatenate((np.zeros(len(rows), bool), added.timeless))
            cause = np.concatenate((rows.cause, np.zeros(len(added), np.uint8)))
            facts = _Facts(subject, slot, polarity, start, end, timeless, cause)
            dropped = self._settle(facts, left, gap)
            i &= ~dropped
            o &= ~dropped
            gone = np.flatnonzero(dropped)
            present[slot[gone], subject[gone]] = False
            absent[slot[gone], subject[gone]] = False
            present[slot[i], subject[i]] = True  # another fact may say the same
            absent[slot[o], subject[o]] = True
        return State(present, absent, gap, ~dropped[: len(rows)])

    def _recent(self, added: Added, gap: Bytes) -> Added:
        """Those that rest on facts recent enough for what they yield; of the others, that they are too old."""
        lookback = self.layout.lookback[self.layout.kind == FINDING][added.finding]
        day = self.subjects.as_of[self.owners[added.subject]]
        old = (lookback >= 0) & (day - added.start // DAY > lookback)
        np.minimum.at(gap, (added.finding[old], added.subject[old]), RANK[CODE[Cause.STALE]])
        return added.where(~old) if old.any() else added

    def _suspicious(self, present: Flags, subject: Ints, slot: Ints, absent: Flags) -> Flags:
        """Of each absent fact, whether its subject, or a lesion of it, has a finding that it rules out."""
        found = np.zeros(len(subject), bool)
        n = len(self.subjects.patients)
        lesions = self.subjects.block(LESIONS)
        for cls in np.unique(slot[absent]):
            here = np.flatnonzero(absent & (slot == cls))
            held: Flags = np.logical_or.reduce(present[np.flatnonzero(self.layout.narrower[cls])], axis=0)
            held[:n] |= np.logical_or.reduceat(held[lesions], self.subjects.first)
            found[here] = held[subject[here]]
        return found

    def _pairs(self, facts: _Facts, left: npt.NDArray[np.intp]) -> tuple[Ints, Ints]:
        """Each of the chosen facts with every present or absent fact of its patient."""
        owner = self.owners[facts.subject]
        wanted = np.zeros(len(self.subjects.patients), bool)
        wanted[owner[left]] = True
        right = np.flatnonzero((facts.polarity != UNCLEAR) & wanted[owner])
        right = right[np.argsort(owner[right], kind="stable")]
        starts = np.searchsorted(owner[right], owner[left], "left")
        counts = np.searchsorted(owner[right], owner[left], "right") - starts
        a = np.repeat(left, counts)
        within = np.arange(len(a)) - np.repeat(np.cumsum(counts) - counts, counts)
        return a, right[np.repeat(starts, counts) + within]

    def _settle(self, facts: _Facts, left: npt.NDArray[np.intp], gap: Bytes) -> Flags:
        """Drop what is contradicted or hidden, and note why it is unknown."""
        f, narrower = facts, self.layout.narrower
        dropped = np.zeros(len(f.subject), bool)
        a, b = self._pairs(f, left)
        same = f.subject[a] == f.subject[b]
        patients, lesions = (self.subjects.block(b) for b in (PATIENTS, LESIONS))

        def note(rows: Ints, ranks: Bytes | int) -> None:
            np.minimum.at(gap, (f.slot[rows], f.subject[rows]), ranks)

        def after(x: Ints, y: Ints, days: Ints | int) -> Flags:
            return (f.start[x] > f.end[y]) & ((days == 0) | (f.start[x] // DAY - f.end[y] // DAY > days))

        # A present finding and an absent one that is wider, of the subject or of its patient.
        down = same | ((f.subject[a] < patients.stop) & (f.subject[b] >= lesions.start))
        clash = (f.polarity[a] == ABSENT) & (f.polarity[b] == PRESENT) & down & narrower[f.slot[a], f.slot[b]]
        no, yes = a[clash], b[clash]
        window = np.maximum(self.windows[f.slot[no]], self.windows[f.slot[yes]])
        timeless = f.timeless[no] | f.timeless[yes]
        yes_wins, no_wins = ~timeless & after(yes, no, window), ~timeless & after(no, yes, window)
        dropped[no[~no_wins]] = True
        dropped[yes[~yes_wins]] = True
        both = ~yes_wins & ~no_wins
        for side in (no, yes):
            note(side[both], RANK[CONFLICTING])

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
        dropped[b[hidden]] = True
        note(b[hidden], RANK[f.cause[a[hidden]]])
        renewed = np.zeros(len(f.subject), bool)
        renewed[a[vague & same & (f.slot[a] == f.slot[b]) & newer]] = True
        open_ = left[(f.polarity[left] == UNCLEAR) & ~renewed[left]]
        note(open_, RANK[f.cause[open_]])
        return dropped

    # -- what a criterion asks

    def of_patients(self, table: Flags, slots: npt.NDArray[np.intp]) -> Flags:
        """Whether a patient, or any lesion of it, has one of some findings."""
        held: Flags = np.logical_or.reduce(table[slots], axis=0)
        own = held[self.subjects.block(PATIENTS)]
        return own | np.logical_or.reduceat(held[self.subjects.block(LESIONS)], self.subjects.first)


@dataclass(slots=True)
class _Facts:
    subject: Ints
    slot: Ints
    polarity: Bytes
    start: Ints
    end: Ints
    timeless: Flags
    cause: Bytes
