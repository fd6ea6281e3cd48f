"""Truths of criterion trees over all cases of a chunk: the algebra of ``evaluation.py`` on arrays.

A truth is 0 (not met), 1 (unknown) or 2 (met), so that *and* is the minimum and *or* the maximum. A cause is the place
in ``layout.CAUSES`` of the one that says most, and ``NO_CAUSE`` where nothing is unknown.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import numpy as np

from kypho_kg.cohort.layout import (
    CODE,
    LESIONS,
    NO_CAUSE,
    PATIENTS,
    PROCEDURES,
    STATED,
    Bytes,
    Flags,
    Ints,
    scaled_range,
)
from kypho_kg.cohort.series import BY_RANK, NOT_RECORDED
from kypho_kg.cohort.snapshot import Snapshot
from kypho_kg.criteria import ATOMS, Criterion, Op
from kypho_kg.record import Cause
from kypho_kg.vocabulary import KYPHO

CASES = 3
"""Beside the blocks of subjects: the cases themselves, one for each lesion."""
NOT_MET, UNKNOWN, MET = range(3)
BLOCKS = {KYPHO + "concernsPatient": PATIENTS, KYPHO + "indexLesion": LESIONS, KYPHO + "forProcedure": PROCEDURES}
_IMPRECISE, _IN_WORDS = CODE[Cause.IMPRECISE], CODE[Cause.IN_WORDS_ONLY]
_NOT_ATTRIBUTED, _LEFT_OPEN = CODE[Cause.NOT_ATTRIBUTED], CODE[Cause.LEFT_OPEN]


class Logic:
    """Truths and causes over one snapshot, each part of a tree judged once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.s = snapshot
        self.layout = snapshot.layout
        self._truths: dict[tuple[int, int], Bytes] = {}
        self._causes: dict[tuple[int, int], Bytes] = {}

    # -- truths

    def truth(self, c: Criterion, block: int = CASES) -> Bytes:
        """The truth of a criterion for every case, or for every subject of a block."""
        key = id(c), block
        found = self._truths.get(key)
        if found is None:
            found = self._truths[key] = self._truth(c, block)
        return found

    def _truth(self, c: Criterion, block: int) -> Bytes:
        if c.op is Op.LINK:
            return self.linked(self.truth(c.children[0], BLOCKS[c.term]), c.term, UNKNOWN)
        if c.op in ATOMS:
            return _ATOMS[c.op](self, c, block)
        truths = [self.truth(child, block) for child in c.children]
        if c.op is Op.AND:
            return functools.reduce(np.minimum, truths)
        if c.op is Op.OR:
            return functools.reduce(np.maximum, truths)
        if c.op is Op.NOT:
            return np.uint8(2) - truths[0]
        if c.op is Op.AT_LEAST:
            met = _count(t == MET for t in truths)
            possible = _count(t != NOT_MET for t in truths)
            return _truths(met >= c.n, possible < c.n)
        strict, lenient = truths
        return _truths(strict == MET, (lenient == NOT_MET) & (strict != MET))

    def linked(self, found: Bytes, link: str, without: int) -> Bytes:
        """What holds of patients, lesions or procedures, for the cases that are linked to them."""
        subjects = self.s.subjects
        if BLOCKS[link] == LESIONS:
            return found
        of_case = found[subjects.owner]
        if BLOCKS[link] == PATIENTS:
            return of_case
        return np.where(subjects.in_session, of_case, np.uint8(without))

    # -- atoms

    def _finding(self, c: Criterion, block: int) -> Bytes:
        return _truths(self.supported(c, block), self._refuted(c, block))

    def supported(self, c: Criterion, block: int) -> Flags:
        """Whether the subjects of a block have a finding of a class."""
        slots, table = self.layout.kinds_of(c.term), self.s.findings.present
        if block == PATIENTS:
            return self.s.recorded.of_patients(table, slots)
        return self._any(table, slots, block)

    def _refuted(self, c: Criterion, block: int) -> Flags:
        slots, table = self.layout.wider(c.term), self.s.findings.absent
        own = self._any(table, slots, block)
        return own | self._any(table, slots, PATIENTS)[self.s.subjects.owner] if block == LESIONS else own

    def _any(self, table: Flags, slots: Ints, block: int) -> Flags:
        part = table[:, self.s.subjects.block(block)]
        return functools.reduce(np.logical_or, (part[slot] for slot in slots))

    def _quantity(self, c: Criterion, block: int) -> Bytes:
        assert c.range is not None
        at = self.s.subjects.block(block)
        slot = self.layout.slot[self.layout.place[c.term]]
        low, high = self.s.series.low[slot, at], self.s.series.high[slot, at]
        asked_low, asked_high = scaled_range(c.range)
        known = low <= high
        within = known & (low >= asked_low) & (high <= asked_high)
        return _truths(within, known & ((low > asked_high) | (high < asked_low)))

    def _choice(self, c: Criterion, block: int) -> Bytes:
        at = self.s.subjects.block(block)
        feature = self.layout.place[c.term]
        slot = self.layout.slot[feature]
        bits, out = self.s.series.bits[slot, at], self.s.series.out[slot, at]
        asked = np.uint64(self.layout.bits(feature, c.values))
        known = bits != 0
        met = known & ((bits & ~asked) == 0)
        return _truths(met, ~met & ((known & ((bits & asked) == 0)) | ((out & asked) == asked)))

    def _category(self, c: Criterion, block: int) -> Bytes:
        at = self.s.subjects.block(block)
        feature = self.layout.place[c.term]
        slot, categories, k = self.layout.slot[feature], self.layout.categories[feature], self.layout.k
        asked = next(iter(c.values))
        table = [
            MET if k.subsumes(asked, x) else NOT_MET if k.disjoint(asked, x) else UNKNOWN for x in categories.classes
        ]
        truth = np.array([*table, UNKNOWN], np.uint8)[self.s.series.cls[slot, at]]
        ruled_out = (self.s.series.cls_out[slot, at] & categories.upward[categories.place[asked]]) != 0
        return np.where((truth == UNKNOWN) & ruled_out, np.uint8(NOT_MET), truth)

    # -- causes of unknown

    def cause(self, c: Criterion, block: int = CASES) -> Bytes:
        """The cause of an unknown that says most, for every case or subject of a block."""
        key = id(c), block
        found = self._causes.get(key)
        if found is None:
            found = self._causes[key] = self._cause(c, block)
        return found

    def _cause(self, c: Criterion, block: int) -> Bytes:
        if c.op is Op.LINK:
            return self.linked(self.cause(c.children[0], BLOCKS[c.term]), c.term, NOT_RECORDED)
        unknown = self.truth(c, block) == UNKNOWN
        if c.op in ATOMS:
            if not unknown.any():
                return np.full(len(unknown), NO_CAUSE, np.uint8)
            found = self._why_finding(c, block) if c.op is Op.FINDING else self._why_value(c, block)
            found = np.where(found == STATED, np.uint8(NOT_RECORDED), found)
        else:
            causes = [self.cause(child, block) for child in c.children]
            if c.op is Op.OPEN:
                strict, lenient = (self.truth(child, block) for child in c.children)
                left_open = (strict == NOT_MET) | (lenient == MET)
                causes.append(np.where(left_open, np.uint8(_LEFT_OPEN), np.uint8(NO_CAUSE)))
            found = functools.reduce(np.minimum, causes)
        return np.where(unknown, found, np.uint8(NO_CAUSE))

    def _why_value(self, c: Criterion, block: int) -> Bytes:
        return self.state(self.layout.place[c.term], block, _IMPRECISE)

    def state(self, feature: int, block: int, known: int) -> Bytes:
        """Why a feature that is no finding is unknown of the subjects of a block, or ``known`` where it has a value."""
        layout, series, subjects = self.layout, self.s.series, self.s.subjects
        at = subjects.block(block)
        gap = series.why(layout, feature)[at]
        has = series.has(layout, feature)
        if block == LESIONS:
            elsewhere = has[subjects.block(PATIENTS)][subjects.owner] & ~series.entry(layout, feature)[at]
            gap = np.where(elsewhere, np.uint8(_NOT_ATTRIBUTED), gap)
        counterpart = layout.features[feature].counterpart
        if counterpart:
            words = series.has(layout, layout.place[counterpart])[at]
            silent = (gap == NOT_RECORDED) | (gap == STATED)
            gap = np.where(silent & words, np.uint8(_IN_WORDS), gap)
        return np.where(has[at], np.uint8(known), gap)

    def _why_finding(self, c: Criterion, block: int) -> Bytes:
        layout, subjects, gaps = self.layout, self.s.subjects, self.s.findings.gap
        own_slot = layout.slot[layout.place[c.term]]
        related = np.flatnonzero(layout.narrower[own_slot] | layout.narrower[:, own_slot])

        def least(of: int) -> Bytes:
            part = gaps[:, subjects.block(of)]
            return functools.reduce(np.minimum, (part[slot] for slot in related))

        exact, rank = gaps[own_slot, subjects.block(block)], least(block)
        if block == LESIONS:
            rank = np.minimum(rank, least(PATIENTS)[subjects.owner])
        elif block == PATIENTS:
            rank = np.minimum(rank, np.minimum.reduceat(least(LESIONS), subjects.first))
        rank = np.where(exact != 255, exact, rank)
        found = BY_RANK[np.minimum(rank, len(BY_RANK) - 1)]
        if block == LESIONS:
            loose = self._any(self.s.findings.present, layout.kinds_of(c.term), PATIENTS)[subjects.owner]
            found = np.where((rank == 255) & loose, np.uint8(_NOT_ATTRIBUTED), found)
        return found


def _truths(met: Flags, not_met: Flags) -> Bytes:
    return np.where(met, np.uint8(MET), np.where(not_met, np.uint8(NOT_MET), np.uint8(UNKNOWN)))


def _count(flags: Iterable[Flags]) -> Bytes:
    return functools.reduce(np.add, (one.astype(np.uint8) for one in flags))


_ATOMS: dict[Op, Callable[[Logic, Criterion, int], Bytes]] = {
    Op.FINDING: Logic._finding,
    Op.CATEGORY: Logic._category,
    Op.CHOICE: Logic._choice,
    Op.QUANTITY: Logic._quantity,
}
