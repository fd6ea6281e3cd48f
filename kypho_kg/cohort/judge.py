"""From the facts of a chunk to truths, causes and verdicts of all its cases (compare ``inference.py``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kypho_kg.cohort.findings import Added
from kypho_kg.cohort.layout import LESIONS, LOWEST, PATIENTS, PROCEDURES, Bytes, Flags, Ints, Layout, scaled
from kypho_kg.cohort.logic import MET, UNKNOWN, Logic
from kypho_kg.cohort.rows import DAY, PRESENT, rows_of
from kypho_kg.cohort.series import CONFLICTING, NOT_RECORDED
from kypho_kg.cohort.snapshot import Chunk, Snapshot, newest, put
from kypho_kg.cohort.subjects import Subjects, subjects_of
from kypho_kg.criteria import ATOMS, Criterion, Op
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.knowledge import Bridge, Policy
from kypho_kg.scores import Item, Score
from kypho_kg.vocabulary import LESION, PATIENT, PROCEDURE

_BLOCKS = {PATIENT: PATIENTS, PROCEDURE: PROCEDURES, LESION: LESIONS}


@dataclass(slots=True)
class Judged:
    """The snapshot of a chunk with all that rules added, ready to be asked."""

    subjects: Subjects
    snapshot: Snapshot
    logic: Logic
    rejected: Flags
    """By case: whether a fact of its patient is malformed, so that nothing can be said on the rest."""
    reasons: dict[str, Ints]
    """The patients of whom facts are malformed, by reason."""


def judge(
    facts: pa.Table, cases: pa.Table, layout: Layout, *, bridges: bool = True, policies: Sequence[Policy] = ()
) -> Judged:
    """Resolve the facts of some patients on the as-of dates of their cases.

    :param facts: sorted by patient, with the columns of docs/fact-table.md.
    :param cases: sorted by patient and as-of date.
    """
    subjects = subjects_of(cases)
    return _Inference(facts, subjects, layout, bridges).run(policies)


class _Inference:
    def __init__(self, facts: pa.Table, subjects: Subjects, layout: Layout, bridges: bool) -> None:
        self.layout, self.subjects = layout, subjects
        self.bridges: tuple[Bridge, ...] = tuple(layout.k.bridges.values()) if bridges else ()
        self.conditions = [layout.shared(b.condition) for b in self.bridges]
        atoms = {a.term for c in self.conditions for a in c.walk() if a.op in ATOMS}
        timed = np.array(sorted(layout.place[t] for t in atoms), np.int32)
        found = rows_of(facts, subjects, layout)
        self.reasons = found.rejected
        self.chunk = Chunk(found, subjects, layout, timed)
        self.added = Added.none()

    def run(self, policies: Sequence[Policy]) -> Judged:
        snapshot = self._scored()
        held = [np.zeros(self.subjects.size, bool) for _ in self.bridges]
        while True:
            logic = Logic(snapshot)
            new = [self._bridged(logic, i, held[i]) for i in range(len(self.bridges))]
            if not any(len(n) for n in new):
                break
            for n in new:
                self.added = self.added.plus(n)
            snapshot = self._scored()
        snapshot = self._close_values(snapshot)
        for policy in policies:
            for n in self._assumed(Logic(snapshot), policy):
                self.added = self.added.plus(n)
            snapshot = self._close_values(self._scored())
        patients = np.zeros(len(self.subjects.patients), bool)
        for some in self.reasons.values():
            patients[some] = True
        rejected = patients[self.subjects.owner]
        return Judged(self.subjects, snapshot, Logic(snapshot), rejected, self.reasons)

    def _block(self, bearer: str) -> tuple[int, slice]:
        block = _BLOCKS[bearer]
        return block, self.subjects.block(block)

    def _there(self, block: int) -> Flags:
        """Which subjects of a block there are: of procedures only those that are proposed."""
        return self.subjects.has_procedure if block == PROCEDURES else np.ones(1, bool)

    def _lacking(self, subject: Ints, finding: str, *, timeless: bool = False) -> Added:
        """That some subjects lack a finding, as on their as-of day."""
        day = self.subjects.as_of[self.subjects.owners()[subject]] * DAY
        slot = int(self.layout.slot[self.layout.place[finding]])
        return Added.of(subject, slot, day, day + DAY - 1, timeless=timeless)

    # -- bridges

    def _bridged(self, logic: Logic, index: int, held: Flags) -> Added:
        bridge, condition = self.bridges[index], self.conditions[index]
        block, at = self._block(bridge.bearer)
        fresh = np.flatnonzero((logic.truth(condition, block) == MET) & self._there(block) & ~held[at])
        if not len(fresh):
            return Added.none()
        held[fresh + at.start] = True
        start, end = self._premises(logic, condition, block, MET)
        slot = int(self.layout.slot[self.layout.place[bridge.conclusion]])
        return Added.of(fresh + at.start, slot, start[fresh], end[fresh], absent=bridge.rules_out)

    def _premises(self, logic: Logic, c: Criterion, block: int, wanted: int) -> tuple[Ints, Ints]:
        """When the newest of the facts was recorded on which the truth of a criterion rests."""
        if c.op is Op.NOT:
            wanted = 2 - wanted
        if c.children:
            times = [self._premises(logic, child, block, wanted) for child in c.children]
        else:
            truth = logic.truth(c, block) == wanted
            times = [(np.where(truth, a, LOWEST), np.where(truth, b, LOWEST)) for a, b in self._times(logic, c, block)]
        start, end = times[0]
        for more_start, more_end in times[1:]:
            later = (more_end > end) | ((more_end == end) & (more_start > start))
            start, end = np.where(later, more_start, start), np.where(later, more_end, end)
        return start, end

    def _times(self, logic: Logic, c: Criterion, block: int) -> list[tuple[Ints, Ints]]:
        at, s = self.subjects.block(block), logic.s
        if c.op is not Op.FINDING:
            feature = self.layout.place[c.term]
            kept = [s.series.time[feature], s.series.time_out[feature]]
            if c.op is Op.CATEGORY:
                known = s.series.has(self.layout, feature)
                kept[1] = (np.where(known, LOWEST, kept[1][0]), np.where(known, LOWEST, kept[1][1]))
            return [(start[at], end[at]) for start, end in kept]
        rows = s.recorded.rows
        chosen = s.recorded.among(self.layout.kinds_of(c.term), PRESENT, s.findings)
        start, end = newest(rows.subject[chosen], rows.start[chosen], rows.end[chosen], self.subjects.size)
        return [(start[at], end[at])]

    # -- closures of values

    def _close_values(self, snapshot: Snapshot) -> Snapshot:
        layout, barred, logic = self.layout, [], Logic(snapshot)
        new = Added.none()
        for axiom in layout.k.value_closures:
            feature = layout.place[axiom.choice]
            block, at = self._block(layout.features[feature].bearer)
            bit = np.uint64(layout.bits(feature, [axiom.value]))
            exactly = snapshot.series.bits[layout.slot[feature], at] == bit
            barred.append((feature, at, bit, logic.supported(Criterion(Op.FINDING, term=axiom.finding), block)))
            one = self._lacking(np.flatnonzero(exactly & self._there(block)) + at.start, axiom.finding, timeless=True)
            slot = layout.slot[layout.place[axiom.finding]]
            known = np.isin(one.subject, self.added.subject[(self.added.finding == slot) & self.added.timeless])
            new = new.plus(one.where(~known))
        if len(new):
            self.added = self.added.plus(new)
            snapshot = self._scored()
        for feature, at, bit, present in barred:
            slot, series = layout.slot[feature], snapshot.series
            bits, out = series.bits[slot, at], series.out[slot, at]
            clash = present & (bits == bit)
            series.why(layout, feature)[at][clash] = CONFLICTING
            series.out[slot, at] = np.where(clash, np.uint64(0), np.where(present, out | bit, out))
            series.bits[slot, at] = np.where(present, bits & ~bit, bits)
        return snapshot

    # -- assumptions

    def _assumed(self, logic: Logic, policy: Policy) -> Iterator[Added]:
        for closure in policy.closures:
            block, at = self._block(closure.bearer)
            holds = logic.truth(self.layout.shared(closure.condition), block) == MET
            for cls in closure.closes:
                c = self.layout.shared(Criterion(Op.FINDING, term=cls))
                silent = (logic.truth(c, block) == UNKNOWN) & (logic.cause(c, block) == NOT_RECORDED)
                yield self._lacking(np.flatnonzero(holds & silent & self._there(block)) + at.start, cls)

    # -- scores

    def _scored(self) -> Snapshot:
        snapshot = self.chunk.snapshot(self.added)
        logic = Logic(snapshot)
        totals = [(score, self._total(logic, score)) for score in self.layout.scores]
        for score, (block, where, low, high) in totals:
            at = self.subjects.block(block)
            feature = self.layout.place[score.quantity]
            every = np.zeros(self.subjects.size, bool)
            every[at] = where
            lows, highs = np.zeros(self.subjects.size, np.int64), np.zeros(self.subjects.size, np.int64)
            lows[at], highs[at] = low, high
            put(snapshot, feature, every & self.chunk.open_for(feature), lows, highs)
        return snapshot

    def _total(self, logic: Logic, score: Score) -> tuple[int, Flags, Ints, Ints]:
        bearer = self.layout.k.features[score.quantity].bearer
        block, at = self._block(bearer)
        if block == PROCEDURES:
            raise KnowledgeBaseError(f"{score.label}: a score of a procedure is not known to a cohort")
        where = logic.truth(self.layout.shared(score.scope), block) == MET
        n = at.stop - at.start
        low, high, any_met = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, bool)
        for item in score.items:
            truths = []
            for option in item.options:
                own = _BLOCKS[option.bearer]
                truth = logic.truth(self.layout.shared(option.condition), own)
                truths.append(truth[self.subjects.owner] if own == PATIENTS and block == LESIONS else truth)
            fewest, most = _points(item, truths)
            low, high = low + fewest, high + most
            for truth in truths:
                any_met |= truth == MET
        return block, where & any_met, low, high


def _points(item: Item, truths: Sequence[Bytes]) -> tuple[Ints, Ints]:
    """The fewest and the most points that an item contributes."""
    points = [scaled(o.points) for o in item.options]
    met = np.array([t == MET for t in truths])
    unknown = np.array([t == UNKNOWN for t in truths])
    column = np.array(points, np.int64)[:, None]
    if item.additive:
        sure = np.where(met, column, 0).sum(axis=0)
        fewest = _within(item, sure + np.where(unknown, np.minimum(column, 0), 0).sum(axis=0))
        most = _within(item, sure + np.where(unknown, np.maximum(column, 0), 0).sum(axis=0))
    else:
        any_met, any_unknown = met.any(axis=0), unknown.any(axis=0)
        possible = np.where(any_met, met, np.where(any_unknown, unknown, True))
        fewest = np.where(possible, column, 2**60).min(axis=0)
        most = np.where(possible, column, -(2**60)).max(axis=0)
    if item.if_unknown is not None:
        by_rule = unknown.any(axis=0) & (fewest != most)
        each = scaled(item.if_unknown)
        counted = _within(item, sure + unknown.sum(axis=0) * each) if item.additive else np.full(len(fewest), each)
        fewest, most = np.where(by_rule, counted, fewest), np.where(by_rule, counted, most)
    return fewest, most


def _within(item: Item, points: Ints) -> Ints:
    low = scaled(item.floor) if item.floor is not None else None
    high = scaled(item.cap) if item.cap is not None else None
    return points if low is None and high is None else np.clip(points, low, high)
