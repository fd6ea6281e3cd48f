"""Scores as data: items, options with conditions and points; the total is a quantity like any other.

An item contributes the points of the option that is met. Where none is met, it contributes an interval: over the
options that can still be met, or over all of them where the source defines none for the recorded value.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from decimal import Decimal

from kypho_kg.criteria import Criterion
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.evaluation import Evaluator, Proof, Truth
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import PATIENT, Fact, Range, Source, TimeSpan
from kypho_kg.snapshot import Snapshot
from kypho_kg.state import Resolved
from kypho_kg.vocabulary import KYPHO, TYPE, local
from kypho_kg.vocabulary import PATIENT as PATIENT_CLASS


@dataclass(frozen=True, slots=True)
class Option:
    """A condition and its points."""

    condition: Criterion
    bearer: str
    points: Decimal


@dataclass(frozen=True, slots=True)
class Score:
    """A score with its items."""

    iri: str
    label: str
    quantity: str
    scope: Criterion
    items: tuple[tuple[Option, ...], ...]


@functools.cache
def read_scores(k: Knowledge) -> tuple[Score, ...]:
    """The scores of the ontology.

    :raises KnowledgeBaseError: when a score has no quantity, no scope or an item without options.
    """
    t = k.triples
    scores = []
    for iri in t.subjects(TYPE, KYPHO + "Score"):
        quantity = t.resource(iri, KYPHO + "scoreQuantity") or ""
        scope = t.resource(iri, KYPHO + "scoreScope") or ""
        if quantity not in k.features or not scope:
            raise KnowledgeBaseError(f"{local(iri)}: a score needs a quantity and a scope")
        bearer = k.features[quantity].bearer
        items = tuple(
            tuple(_option(k, node, bearer) for node in t.resources(item, KYPHO + "hasScoreOption"))
            for item in t.resources(iri, KYPHO + "hasScoreItem")
        )
        if not items or not all(items):
            raise KnowledgeBaseError(f"{local(iri)}: a score needs items, and each item options")
        scores.append(Score(iri, k.label(iri), quantity, k.criterion(scope, bearer), items))
    return tuple(scores)


def _option(k: Knowledge, node: str, bearer: str) -> Option:
    condition = k.triples.resource(node, KYPHO + "optionCondition") or ""
    points = k.triples.text(node, KYPHO + "points")
    if not condition or not points:
        raise KnowledgeBaseError(f"{local(node)}: an option needs a condition and points")
    try:
        return Option(k.criterion(condition, bearer), bearer, Decimal(points))
    except KnowledgeBaseError:
        return Option(k.criterion(condition, PATIENT_CLASS), PATIENT_CLASS, Decimal(points))


def with_scores(snapshot: Snapshot, scores: tuple[Score, ...]) -> Snapshot:
    """The snapshot with the total of each score that applies and that nobody stated."""
    values: dict[tuple[str, str], Resolved] = {}
    subjects = snapshot.subjects()
    evaluator = Evaluator(snapshot, "", has_procedure=False)
    for score in scores:
        bearer = snapshot.knowledge.features[score.quantity].bearer
        for subject in subjects[:1] if bearer == PATIENT_CLASS else subjects[1:]:
            stated = snapshot.values.get((subject, score.quantity))
            if stated is not None and (stated.facts or stated.gap.facts):
                continue
            if evaluator.evaluate(score.scope, subject).truth is Truth.MET:
                total = _total(evaluator, score, subject, snapshot)
                if total is not None:
                    values[subject, score.quantity] = total
    return replace(snapshot, values={**snapshot.values, **values}) if values else snapshot


def _total(evaluator: Evaluator, score: Score, subject: str, snapshot: Snapshot) -> Resolved | None:
    low = high = Decimal(0)
    premises: dict[int, Fact] = {}
    for item in score.items:
        proofs = [(o, evaluator.evaluate(o.condition, subject if o.bearer != PATIENT_CLASS else PATIENT)) for o in item]
        fewest, most = _points(proofs)
        low, high = low + fewest, high + most
        for _, proof in proofs:
            if proof.truth is Truth.MET:
                premises.update({id(f): f for leaf in proof.leaves() for f in leaf.facts})
    if not premises:
        return None
    fact = Fact(
        subject,
        score.quantity,
        Range(low, high),
        unit=snapshot.knowledge.features[score.quantity].unit,
        time=TimeSpan.of(snapshot.as_of),
        rule=KYPHO + "ScoreTotal",
        premises=tuple(premises.values()),
        source=Source(f"derived: {score.label}"),
    )
    return Resolved(fact.value, (fact,))


def _points(proofs: list[tuple[Option, Proof]]) -> tuple[Decimal, Decimal]:
    met = [o.points for o, p in proofs if p.truth is Truth.MET]
    possible = met or [o.points for o, p in proofs if p.truth is Truth.UNKNOWN] or [o.points for o, _ in proofs]
    return min(possible), max(possible)
