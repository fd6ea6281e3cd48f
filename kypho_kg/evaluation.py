"""A criterion tree and a snapshot give a truth with its proof.

Kleene's strong three-valued logic: ``and`` is the minimum, ``or`` the maximum, ``not`` the reversal, *at least n* is
met if n are met and not met if fewer than n still can be. Every node keeps its truth, every leaf its facts or the
cause of the unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum

from kypho_kg.criteria import Criterion, Op
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Cause, Fact, Range
from kypho_kg.snapshot import Snapshot
from kypho_kg.state import Gap
from kypho_kg.vocabulary import KYPHO


class Truth(IntEnum):
    """The truth of a condition; the order is Kleene's."""

    NOT_MET = 0
    UNKNOWN = 1
    MET = 2

    @property
    def words(self) -> str:
        """``met``, ``not met`` or ``unknown``."""
        return ("not met", "unknown", "met")[self]


@dataclass(frozen=True, slots=True)
class Proof:
    """The truth of one node of a criterion tree, with everything that decides it."""

    criterion: Criterion
    truth: Truth
    children: tuple[Proof, ...] = ()
    subject: str = ""
    facts: tuple[Fact, ...] = ()
    gap: Gap | None = None
    """Of an unknown leaf or an open band: the cause."""
    distance: Decimal | None = None
    """Of a quantity: how far its value, or the nearest end of its range, is on the right (positive) or wrong side."""

    def leaves(self) -> Iterator[Proof]:
        """The atoms of the tree."""
        if self.children:
            for child in self.children:
                yield from child.leaves()
        else:
            yield self

    def unknown_leaves(self) -> Iterator[Proof]:
        """The unknown atoms that keep an unknown node unknown, and bands left open."""
        if self.truth is not Truth.UNKNOWN:
            return
        if self.gap is not None:
            yield self
        for child in self.children:
            yield from child.unknown_leaves()


@dataclass(slots=True)
class Evaluator:
    """Evaluates criteria for one case: a patient, an index lesion and, where proposed, a procedure."""

    snapshot: Snapshot
    lesion: str
    """Subject of the index lesion, empty where there is none."""
    has_procedure: bool
    _memo: dict[tuple[int, str], Proof] = field(default_factory=dict)

    def evaluate(self, criterion: Criterion, subject: str = "") -> Proof:
        """The proof of a criterion for the case, or for one of its subjects."""
        key = (id(criterion), subject)
        proof = self._memo.get(key)
        if proof is None:
            proof = self._memo[key] = self._evaluate(criterion, subject)
        return proof

    def _evaluate(self, c: Criterion, subject: str) -> Proof:
        if c.op is Op.LINK:
            return self._link(c)
        if not c.children:
            return self._atom(c, subject)
        children = tuple(self.evaluate(child, subject) for child in c.children)
        truths = [p.truth for p in children]
        gap = None
        if c.op is Op.AND:
            truth = min(truths)
        elif c.op is Op.OR:
            truth = max(truths)
        elif c.op is Op.NOT:
            truth = Truth(2 - truths[0])
        elif c.op is Op.AT_LEAST:
            met, possible = truths.count(Truth.MET), len(truths) - truths.count(Truth.NOT_MET)
            truth = Truth.MET if met >= c.n else Truth.UNKNOWN if possible >= c.n else Truth.NOT_MET
        else:
            strict, lenient = truths
            truth = Truth.MET if strict is Truth.MET else Truth.NOT_MET if lenient is Truth.NOT_MET else Truth.UNKNOWN
            if truth is Truth.UNKNOWN and (strict is Truth.NOT_MET or lenient is Truth.MET):
                gap = Gap(Cause.LEFT_OPEN)
        return Proof(c, truth, children, subject, gap=gap)

    def _link(self, c: Criterion) -> Proof:
        target = {
            KYPHO + "concernsPatient": PATIENT,
            KYPHO + "indexLesion": self.lesion,
            KYPHO + "forProcedure": PROCEDURE if self.has_procedure else "",
        }[c.term]
        if not target:
            return Proof(c, Truth.UNKNOWN, gap=Gap(Cause.NOT_RECORDED))
        inner = self.evaluate(c.children[0], target)
        return Proof(c, inner.truth, (inner,), target)

    # -- atoms

    def _atom(self, c: Criterion, subject: str) -> Proof:
        if c.op is Op.FINDING:
            return self._finding(c, subject)
        state = self.snapshot.value(subject, c.term)
        if c.op is Op.QUANTITY:
            return self._quantity(c, subject)
        asked = next(iter(c.values))
        if c.op is Op.CATEGORY:
            k = self.snapshot.knowledge
            if isinstance(state.value, str):
                if k.subsumes(asked, state.value):
                    return Proof(c, Truth.MET, subject=subject, facts=state.facts)
                if k.disjoint(asked, state.value):
                    return Proof(c, Truth.NOT_MET, subject=subject, facts=state.facts)
            out = tuple(f for cls, f in state.ruled_out.items() if k.subsumes(cls, asked))
        else:
            if isinstance(state.value, frozenset) and state.value:
                if state.value <= c.values:
                    return Proof(c, Truth.MET, subject=subject, facts=(*state.facts, *state.ruled_out.values()))
                if not state.value & c.values:
                    return Proof(c, Truth.NOT_MET, subject=subject, facts=(*state.facts, *state.ruled_out.values()))
            excluded = c.values <= state.ruled_out.keys()
            out = tuple(state.ruled_out[v] for v in sorted(c.values)) if excluded else ()
        if out:
            return Proof(c, Truth.NOT_MET, subject=subject, facts=out)
        gap = Gap(Cause.IMPRECISE, state.facts) if state.facts else state.gap
        return Proof(c, Truth.UNKNOWN, subject=subject, facts=gap.facts, gap=gap)

    def _finding(self, c: Criterion, subject: str) -> Proof:
        present = self.snapshot.supports(subject, c.term)
        if present:
            return Proof(c, Truth.MET, subject=subject, facts=present)
        absent = self.snapshot.refutations(subject, c.term)
        if absent:
            return Proof(c, Truth.NOT_MET, subject=subject, facts=absent)
        gap = self.snapshot.finding_gap(subject, c.term)
        return Proof(c, Truth.UNKNOWN, subject=subject, facts=gap.facts, gap=gap)

    def _quantity(self, c: Criterion, subject: str) -> Proof:
        state = self.snapshot.value(subject, c.term)
        asked, value = c.range, state.value
        assert asked is not None
        if isinstance(value, Range):
            if value.within(asked):
                return Proof(c, Truth.MET, subject=subject, facts=state.facts, distance=_margin(value, asked))
            if value.intersection(asked) is None:
                return Proof(c, Truth.NOT_MET, subject=subject, facts=state.facts, distance=_lack(value, asked))
            return Proof(c, Truth.UNKNOWN, subject=subject, facts=state.facts, gap=Gap(Cause.IMPRECISE, state.facts))
        gap = state.gap
        counterpart = self.snapshot.knowledge.features[c.term].counterpart
        if gap.cause is Cause.NOT_RECORDED and counterpart:
            words = self.snapshot.value(subject, counterpart)
            if words.facts:
                gap = Gap(Cause.IN_WORDS_ONLY, words.facts)
        return Proof(c, Truth.UNKNOWN, subject=subject, facts=gap.facts, gap=gap)


def _margin(value: Range, asked: Range) -> Decimal | None:
    """How far all of a value lies inside of the nearest limit, where there is one."""
    margins = [] if asked.low is None or value.low is None else [value.low - asked.low]
    if asked.high is not None and value.high is not None:
        margins.append(asked.high - value.high)
    return min(margins, default=None)


def _lack(value: Range, asked: Range) -> Decimal | None:
    """How far a value lies outside of the nearest limit, as a negative number or 0 at a limit that does not count."""
    if asked.low is not None and value.high is not None and value.high <= asked.low:
        return value.high - asked.low
    if asked.high is not None and value.low is not None and value.low >= asked.high:
        return asked.high - value.low
    return None


def lesion_subject(id_: str) -> str:
    """The subject of a lesion."""
    return LESION + id_
