"""Where sources disagree: topics of conflict as knowledge, and those that fire on one case.

A topic names the features on which it turns and the clauses on each side. On a case, each clause of the topic takes a
stand: what its condition says of those features alone, where it speaks of the case at all. A conflict fires where two
guidelines stand apart; thresholds and values are read off the proofs, so that nothing is said twice.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kypho_kg.candidacy import Assessment, CaseAnswer, ClauseResult
from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Evaluator, Proof, Truth, lesion_subject
from kypho_kg.guidelines import (
    ABSOLUTE,
    ADVISES,
    EXCLUDES,
    INDICATES,
    RATES,
    RELATIVE,
    REQUIRES,
    SCOPE,
    WITHIN,
)
from kypho_kg.knowledge import Knowledge
from kypho_kg.vocabulary import DEFINITION, KYPHO, LABEL, SKOS, TYPE, local


class Stance(StrEnum):
    """What a clause says of the topic in one case."""

    SUPPORTS = "supports"
    ACCEPTS = "does not object"
    CAUTIONS = "cautions"
    OPPOSES = "opposes"
    OPEN = "cannot say yet"


_OBJECTION = (Stance.OPPOSES, Stance.CAUTIONS, Stance.SUPPORTS, Stance.ACCEPTS, Stance.OPEN)
"""What a guideline says by several clauses is the strongest objection among them."""


@dataclass(frozen=True, slots=True)
class Position:
    """One side of a conflict."""

    iri: str
    label: str
    text: str
    clauses: frozenset[str]
    """Ids of the clauses that take it."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A topic on which sources disagree."""

    iri: str
    id: str
    label: str
    plain: str
    text: str
    kind: str
    """Local name: opposite answers for one patient, narrower scope, or a matter of degree."""
    features: frozenset[str]
    positions: tuple[Position, ...]
    cases: Criterion | None = None
    """The cases on which it can show; all where none is named."""

    def position_of(self, clause: str) -> Position | None:
        """The side on which a clause stands."""
        return next((p for p in self.positions if clause in p.clauses), None)


@dataclass(frozen=True, slots=True)
class Turn:
    """An atom on which a clause turns."""

    proof: Proof
    negated: bool
    """Whether the clause asks that it does not hold."""


@dataclass(frozen=True, slots=True)
class Stand:
    """What one clause says of a topic in one case."""

    guideline: str
    clause: ClauseResult
    position: Position
    stance: Stance
    turns_on: tuple[Turn, ...]
    """The atoms of the clause that ask for the features of the topic."""


@dataclass(frozen=True, slots=True)
class Firing:
    """A conflict that shows in one case."""

    conflict: Conflict
    opposed: bool
    """Whether one source objects to what another accepts, if with caution; otherwise they differ in degree."""
    stands: tuple[Stand, ...]

    def taking(self, *stances: Stance) -> tuple[Stand, ...]:
        """The stands of the given stances."""
        return tuple(s for s in self.stands if s.stance in stances)


@functools.cache
def read_conflicts(k: Knowledge) -> tuple[Conflict, ...]:
    """The topics of conflict of a knowledge base, in the order of their numbers."""
    t = k.triples
    ids = {r.iri: r.id for g in k.guidelines.values() for r in g.recommendations}
    found = []
    for iri in t.subjects(TYPE, KYPHO + "Conflict"):
        positions = tuple(
            Position(
                p,
                t.text(p, LABEL),
                t.text(p, DEFINITION),
                frozenset(ids[c] for c in t.resources(p, KYPHO + "holdsClause") if c in ids),
            )
            for p in sorted(t.resources(iri, KYPHO + "hasPosition"))
        )
        found.append(
            Conflict(
                iri,
                t.text(iri, SKOS + "notation"),
                t.text(iri, LABEL),
                k.plain(iri),
                t.text(iri, DEFINITION),
                local(t.resource(iri, KYPHO + "conflictKind") or ""),
                frozenset(t.resources(iri, KYPHO + "onFeature")),
                positions,
                k.criterion(cases) if (cases := t.resource(iri, KYPHO + "onCases")) else None,
            )
        )
    return tuple(sorted(found, key=lambda c: (len(c.id), c.id)))


def conflicts_of(k: Knowledge, case: CaseAnswer) -> tuple[Firing, ...]:
    """The conflicts that show among the guidelines that were asked about a case; hard ones first."""
    population = frozenset(
        f for s in k.triples.subjects(TYPE, KYPHO + "ComparisonSetting")
        for f in k.triples.resources(s, KYPHO + "populationFeature")
    )  # fmt: skip
    evaluator = Evaluator(case.snapshot, lesion_subject(case.lesion.id), case.in_session)
    fired = [
        firing
        for c in read_conflicts(k)
        if c.cases is None or evaluator.evaluate(c.cases).truth is Truth.MET
        if (firing := _fire(c, case.assessments, _Topic(k, c.features, population)))
    ]
    return tuple(sorted(fired, key=lambda f: not f.opposed))


def _fire(conflict: Conflict, assessments: Sequence[Assessment], topic: _Topic) -> Firing | None:
    stands = [s for a in assessments for s in _stands(conflict, a, topic)]
    said: dict[str, Stance] = {}
    for s in sorted(stands, key=lambda s: _OBJECTION.index(s.stance)):
        if s.stance is not Stance.OPEN:
            said.setdefault(s.guideline, s.stance)
    stances = set(said.values())
    if len(stances) < 2 or stances.isdisjoint({Stance.OPPOSES, Stance.CAUTIONS}):
        return None
    opposed = Stance.OPPOSES in stances
    return Firing(conflict, opposed, tuple(sorted(stands, key=lambda s: list(Stance).index(s.stance))))


def _stands(conflict: Conflict, assessment: Assessment, topic: _Topic) -> Iterator[Stand]:
    """The stands that one guideline takes; a pathway that fails is no objection where another one may be taken."""
    if assessment.having(SCOPE, Truth.NOT_MET):
        return
    ways_left = assessment.having(INDICATES, Truth.MET, Truth.UNKNOWN)
    for clause in assessment.counted:
        position = conflict.position_of(clause.recommendation.id)
        turn = topic.turn(clause.proof) if position else None
        stance = _stance(clause, turn) if turn is not None else None
        if position and stance and not (stance is Stance.OPPOSES and _elsewhere(clause, ways_left)):
            turns = tuple(t for t in _turns(clause.proof) if topic.asks(t.proof))
            yield Stand(assessment.guideline.id, clause, position, stance, turns)


def _turns(proof: Proof, negated: bool = False) -> Iterator[Turn]:
    if not proof.children:
        yield Turn(proof, negated)
    for child in proof.children:
        yield from _turns(child, negated is not (proof.criterion.op is Op.NOT))


def _elsewhere(clause: ClauseResult, ways_left: Sequence[ClauseResult]) -> bool:
    """Whether a clause is, or belongs to, one pathway among others that are still open."""
    r = clause.recommendation
    pathway = {INDICATES: r.id, WITHIN: r.conjunct_of}.get(r.effect)
    return pathway is not None and any(w.recommendation.id != pathway for w in ways_left)


def _stance(clause: ClauseResult, turn: Truth) -> Stance | None:
    """From the effect of a clause and what it says of the topic."""
    effect = clause.recommendation.effect
    if effect == RATES:
        return _rated(clause) if turn is Truth.MET else None
    if turn is Truth.UNKNOWN:
        return Stance.OPEN
    if effect in {REQUIRES, INDICATES, WITHIN, SCOPE}:
        return Stance.SUPPORTS if turn is Truth.MET else Stance.OPPOSES
    if turn is Truth.NOT_MET:
        return Stance.ACCEPTS
    return {
        EXCLUDES: Stance.OPPOSES,
        ABSOLUTE: Stance.OPPOSES,
        RELATIVE: Stance.CAUTIONS,
        ADVISES: Stance.CAUTIONS,
    }.get(effect)


def _rated(clause: ClauseResult) -> Stance | None:
    said = {r.stance for r in clause.recommendation.ratings if r.is_proposed}
    if clause.truth is not Truth.MET or not said:
        return None
    return {"SupportsOption": Stance.SUPPORTS, "OpposesOption": Stance.OPPOSES}.get(
        said.pop() if len(said) == 1 else "", Stance.CAUTIONS
    )


@dataclass(frozen=True, slots=True)
class _Topic:
    """What a proof says of some features alone."""

    knowledge: Knowledge
    features: frozenset[str]
    population: frozenset[str]
    """Features that say whom a clause speaks of; a clause that speaks of others is silent."""

    def asks(self, leaf: Proof) -> bool:
        """Whether an atom asks for a feature of the topic, or for a finding below or above one."""
        term = leaf.criterion.term
        if leaf.criterion.op is not Op.FINDING:
            return term in self.features
        k = self.knowledge
        return any(f in k.features and (k.subsumes(f, term) or k.subsumes(term, f)) for f in self.features)

    def turn(self, proof: Proof, *, branch: bool = False) -> Truth | None:
        """The truth of a condition with all that is not of the topic left out; ``None`` where nothing is left.

        :param branch: within an alternative, which is dropped when something else in it is not met.
        """
        op, children = proof.criterion.op, proof.children
        if not children:
            return proof.truth if self.asks(proof) else None
        parts = [self.turn(c, branch=branch or op in {Op.OR, Op.AT_LEAST}) for c in children]
        mine = [p for p in parts if p is not None]
        if not mine:
            return None
        if op is Op.NOT:
            return Truth(2 - mine[0])
        if op is Op.LINK:
            return mine[0]
        if op is Op.AND:
            others = [c for c, p in zip(children, parts, strict=True) if p is None and c.truth is Truth.NOT_MET]
            return None if any(branch or self._of_population(c) for c in others) else min(mine)
        if op is Op.OPEN:
            return proof.truth if len(set(parts)) > 1 else mine[0]
        return max(mine)

    def _of_population(self, proof: Proof) -> bool:
        terms = {leaf.criterion.term for leaf in proof.leaves()}
        return terms <= self.population
