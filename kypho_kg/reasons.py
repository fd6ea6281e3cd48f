"""Why a clause has its truth: every independent reason, near misses, and what of the record nobody read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from kypho_kg.candidacy import Assessment, CaseAnswer, ClauseResult
from kypho_kg.criteria import Op
from kypho_kg.evaluation import Evaluator, Proof, Truth
from kypho_kg.guidelines import ABSOLUTE, DECIDING, EXCLUDES, INDICATES, RELATIVE, REQUIRES, SCOPE
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Cause, Fact, Polarity
from kypho_kg.snapshot import Snapshot, resolve
from kypho_kg.verdicts import UNDETERMINED

MOST_REASONS = 24
"""Reasons that are told of one clause; of more, those with the fewest facts."""
NEAR = Decimal("0.25")
"""The share of a limit within which a number counts as close to it."""
Reason = frozenset[Fact]


def deciding(proof: Proof) -> Iterator[Proof]:
    """The leaves by which a node has the truth it has; every one of them, not the first."""
    op, truth = proof.criterion.op, proof.truth
    if not proof.children:
        yield proof
        return
    if op is Op.OPEN:
        # Strict and lenient hold the same atoms; where the band is open the lenient one shows what is at stake.
        children: Sequence[Proof] = proof.children[:1] if truth is Truth.MET else proof.children[1:]
        wanted = {c.truth for c in children}
    elif op in {Op.NOT, Op.LINK} or (op is Op.AND and truth is Truth.MET) or (op is Op.OR and truth is Truth.NOT_MET):
        children, wanted = proof.children, set(Truth)
    else:
        children, wanted = proof.children, {truth}
    for child in children:
        if child.truth in wanted:
            yield from deciding(child)


def no_candidate_either_way(assessment: Assessment) -> bool:
    """Whether an open verdict can no longer become any kind of candidate."""
    ends = assessment.conclusion.reachable
    return assessment.verdict == UNDETERMINED and not any(v.startswith("Candidate") for v in ends)


def decisive_clauses(assessment: Assessment) -> tuple[ClauseResult, ...]:
    """The clauses that make the verdict what it is."""
    having = assessment.having
    verdict = assessment.verdict
    if verdict == "NotApplicable":
        return having(SCOPE, Truth.NOT_MET)
    if verdict == "Contraindicated":
        return having(ABSOLUTE, Truth.MET)
    if verdict == "NotIndicated":
        indications = having(INDICATES)
        none_met = indications if all(c.truth is Truth.NOT_MET for c in indications) else ()
        return (*having(EXCLUDES, Truth.MET), *having(REQUIRES, Truth.NOT_MET), *none_met)
    if verdict == UNDETERMINED:
        against = (*having(ABSOLUTE, Truth.MET), *having(EXCLUDES, Truth.MET), *having(REQUIRES, Truth.NOT_MET))
        if no_candidate_either_way(assessment) and against:
            return (*against, *having(SCOPE, Truth.UNKNOWN))
        open_ = tuple(c for e in DECIDING if e not in {RELATIVE, INDICATES} for c in having(e, Truth.UNKNOWN))
        indicated = having(INDICATES, Truth.MET)
        return (*open_, *(() if indicated else having(INDICATES, Truth.UNKNOWN)))
    if verdict == "CandidateWithCaution":
        return having(RELATIVE, Truth.MET)
    if verdict == "CandidateScreeningOpen":
        return having(RELATIVE, Truth.UNKNOWN)
    return (*having(REQUIRES, Truth.MET), *having(INDICATES, Truth.MET))


class Standing(StrEnum):
    """How a fact came about."""

    ASSERTED = "asserted"
    DERIVED = "derived"
    BRIDGED = "bridged"
    ASSUMED = "assumed"


def standing(k: Knowledge, fact: Fact) -> Standing:
    """Whether a fact was recorded, follows from others by a closure or a computation, was bridged or was assumed."""
    if not fact.rule:
        return Standing.ASSERTED
    if any(fact.rule == b.iri for b in k.bridges.values()):
        return Standing.BRIDGED
    assumed = any(fact.rule == c.iri for p in k.policies.values() for c in p.closures)
    return Standing.ASSUMED if assumed else Standing.DERIVED


@dataclass(frozen=True, slots=True)
class Reasons:
    """The smallest sets of facts by each of which alone a clause has its truth."""

    sets: tuple[tuple[Fact, ...], ...]
    complete: bool
    """Whether these are all."""


def reasons_of(snapshot: Snapshot, clause: ClauseResult) -> Reasons:
    """Every independent reason for the truth of a clause; none while it is unknown."""
    if clause.truth is Truth.UNKNOWN:
        return Reasons((), True)
    search = _Search(snapshot)
    found = search.reasons(clause.proof)
    order = {fact: i for i, fact in enumerate(dict.fromkeys(f for leaf in clause.proof.leaves() for f in leaf.facts))}
    rows = (tuple(sorted(r, key=order.__getitem__)) for r in found)
    return Reasons(tuple(sorted(rows, key=lambda r: (len(r), [order[f] for f in r]))), search.complete)


class _Search:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.complete = True

    def reasons(self, proof: Proof) -> list[Reason]:
        op, truth, children = proof.criterion.op, proof.truth, proof.children
        if not children:
            return self._of_leaf(proof)
        if op is Op.OPEN:
            return self.reasons(children[0] if truth is Truth.MET else children[1])
        if op in {Op.NOT, Op.LINK}:
            return self.reasons(children[0])
        same = [self.reasons(c) for c in children if c.truth is truth]
        if op is Op.AT_LEAST:
            n = proof.criterion.n if truth is Truth.MET else len(children) - proof.criterion.n + 1
            return self._kept(r for some in itertools.combinations(same, n) for r in self._together(some))
        if (op is Op.AND) is (truth is Truth.MET):
            return self._together(same)
        return self._kept(itertools.chain.from_iterable(same))

    def _together(self, parts: Sequence[list[Reason]]) -> list[Reason]:
        found: list[Reason] = [frozenset()]
        for part in parts:
            found = self._kept(a | b for a in found for b in part)
        return found

    def _kept(self, reasons: Iterable[Reason]) -> list[Reason]:
        """Without those that hold another one."""
        kept: list[Reason] = []
        for reason in sorted(set(reasons), key=len):
            if not any(other <= reason for other in kept):
                kept.append(reason)
        if len(kept) > MOST_REASONS:
            self.complete = False
        return kept[:MOST_REASONS]

    def _of_leaf(self, leaf: Proof) -> list[Reason]:
        facts = tuple(dict.fromkeys(leaf.facts))
        if leaf.criterion.op is Op.FINDING:
            return [frozenset({f}) for f in facts]
        if len(facts) < 2:
            return [frozenset(facts)]
        sizes = range(1, len(facts) + 1)
        subsets = (frozenset(some) for n in sizes for some in itertools.combinations(facts, n))
        return self._kept(some for some in subsets if self._suffices(leaf, some))

    def _suffices(self, leaf: Proof, facts: Reason) -> bool:
        """Whether a value read from some of the facts alone gives the atom the same truth."""
        s = self._snapshot
        alone = resolve(replace(s.record, facts=()), s.knowledge, s.as_of, tuple(replace(f, rule="") for f in facts))
        return Evaluator(alone, "", has_procedure=True).evaluate(leaf.criterion, leaf.subject).truth is leaf.truth


def near_misses(proof: Proof) -> Iterator[Proof]:
    """The numbers that lie on the wrong side of a limit, and no further from it than a quarter of it."""
    for leaf in proof.leaves():
        limits = (leaf.criterion.range.low, leaf.criterion.range.high) if leaf.criterion.range else ()
        if leaf.truth is Truth.NOT_MET and leaf.distance is not None:
            near = (abs(limit) * NEAR for limit in limits if limit is not None)
            if any(abs(leaf.distance) <= share for share in near):
                yield leaf


def unread_facts(case: CaseAnswer) -> tuple[Fact, ...]:
    """Recorded facts of the case that count and that no clause of the assessed guidelines read."""
    mine = {PATIENT, PROCEDURE, LESION + case.lesion.id}
    read: set[tuple[object, ...]] = set()
    for a in case.assessments:
        for clause in a.clauses:
            for leaf in clause.proof.leaves():
                for fact in (*leaf.facts, *(leaf.gap.facts if leaf.gap else ())):
                    _visit(fact, read)
    left_out = {_like(f) for f in (*case.snapshot.stale, *(f for f, _ in case.snapshot.ignored))}
    facts = (f for f in case.record.facts if f.subject in mine)
    unread = [f for f in facts if _like(f) not in read and _like(f) not in left_out]
    return tuple(
        sorted(unread, key=lambda f: (f.subject, f.feature, str(f.time or ""), str(f.polarity), str(f.source)))
    )


def _visit(fact: Fact, read: set[tuple[object, ...]]) -> None:
    read.add(_like(fact))
    for premise in fact.premises:
        _visit(premise, read)


def _like(fact: Fact) -> tuple[object, ...]:
    """A fact without what the snapshot changes in it."""
    return fact.subject, fact.feature, fact.time, fact.source, fact.words, fact.polarity is Polarity.ABSENT


def untouched_clauses(assessment: Assessment) -> tuple[ClauseResult, ...]:
    """Clauses of whose atoms nothing at all is recorded."""

    def silent(leaf: Proof) -> bool:
        return leaf.gap is not None and leaf.gap.cause is Cause.NOT_RECORDED and not leaf.facts

    return tuple(c for c in assessment.counted if all(map(silent, c.proof.leaves())))
