"""Scores as data: items, options with conditions and points; the total is a quantity like any other.

A one-of item contributes the points of the option that is met. Where none is met, it contributes an interval: over the
options that can still be met, or over all of them where the source defines none for the recorded value. A group adds
the points of every option that is met, down to its floor or up to its cap. Where the source itself says what an
unknown counts, that replaces the interval, and the total says which items were counted so.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from decimal import Decimal

from kypho_kg.criteria import Criterion, Op
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
class Item:
    """A part of a score: one of its options counts, or the sum of them within limits."""

    label: str
    options: tuple[Option, ...]
    additive: bool = False
    floor: Decimal | None = None
    cap: Decimal | None = None
    if_unknown: Decimal | None = None
    """Points that the source itself gives for an unknown; ``None`` where it has no such rule."""

    def within(self, points: Decimal) -> Decimal:
        """A sum of points, held within the limits of the item."""
        if self.floor is not None:
            points = max(points, self.floor)
        return points if self.cap is None else min(points, self.cap)

    def extremes(self) -> tuple[Decimal, Decimal]:
        """The fewest and the most points that the item can contribute."""
        points = [o.points for o in self.options]
        if not self.additive:
            return min(points), max(points)
        low, high = (sum((pick(p, Decimal(0)) for p in points), Decimal(0)) for pick in (min, max))
        return self.within(low), self.within(high)


@dataclass(frozen=True, slots=True)
class Score:
    """A score with its items."""

    iri: str
    label: str
    quantity: str
    scope: Criterion
    items: tuple[Item, ...]


@functools.cache
def read_scores(k: Knowledge) -> tuple[Score, ...]:
    """The scores of the ontology.

    :raises KnowledgeBaseError: when a score has no quantity, no scope or an item without options, or when its items
        do not add up to the range that it states.
    """
    return tuple(_score(k, iri) for iri in k.triples.subjects(TYPE, KYPHO + "Score"))


def _score(k: Knowledge, iri: str) -> Score:
    t = k.triples
    quantity = t.resource(iri, KYPHO + "scoreQuantity") or ""
    scope = t.resource(iri, KYPHO + "scoreScope") or ""
    if quantity not in k.features or not scope:
        raise KnowledgeBaseError(f"{local(iri)}: a score needs a quantity and a scope")
    bearer = k.features[quantity].bearer
    items = tuple(_item(k, item, bearer) for item in t.resources(iri, KYPHO + "hasScoreItem"))
    if not items or not all(item.options for item in items):
        raise KnowledgeBaseError(f"{local(iri)}: a score needs items, and each item options")
    extremes = [item.extremes() for item in items]
    stated = tuple(_points_of(k, iri, name) for name in ("minimumTotal", "maximumTotal"))
    found = tuple(sum(ends, Decimal(0)) for ends in zip(*extremes, strict=True))
    if stated != found:
        said, add_up = (" to ".join("nothing" if p is None else str(p) for p in ends) for ends in (stated, found))
        raise KnowledgeBaseError(f"{local(iri)}: its range is stated as {said}, its items add up to {add_up}")
    return Score(iri, k.label(iri), quantity, k.criterion(scope, bearer), items)


def _points_of(k: Knowledge, node: str, name: str) -> Decimal | None:
    text = k.triples.text(node, KYPHO + name)
    return Decimal(text) if text else None


def _item(k: Knowledge, node: str, bearer: str) -> Item:
    options = tuple(_option(k, option, bearer) for option in k.triples.resources(node, KYPHO + "hasScoreOption"))
    additive = k.triples.text(node, KYPHO + "additive") == "true"
    limits = (_points_of(k, node, name) for name in ("minimumPoints", "maximumPoints", "pointsIfUnknown"))
    return Item(k.label(node), options, additive, *limits)


def _option(k: Knowledge, node: str, bearer: str) -> Option:
    inside = k.triples.resource(node, KYPHO + "optionCondition") or ""
    outside = k.triples.resource(node, KYPHO + "holdsOutside") or ""
    points = k.triples.text(node, KYPHO + "points")
    if bool(inside) == bool(outside) or not points:
        raise KnowledgeBaseError(
            f"{local(node)}: an option needs points and one condition, inside or outside of a class"
        )
    try:
        condition = k.criterion(inside or outside, bearer)
    except KnowledgeBaseError:
        bearer = PATIENT_CLASS
        condition = k.criterion(inside or outside, bearer)
    return Option(Criterion(Op.NOT, (condition,)) if outside else condition, bearer, Decimal(points))


def with_scores(snapshot: Snapshot, scores: tuple[Score, ...]) -> Snapshot:
    """The snapshot with the total of each score that applies and that nobody stated."""
    values: dict[tuple[str, str], Resolved] = {}
    subjects = snapshot.subjects()
    evaluator = Evaluator(snapshot, "", has_procedure=False)
    for score in scores:
        bearer = snapshot.knowledge.features[score.quantity].bearer
        for subject in subjects[:1] if bearer == PATIENT_CLASS else subjects[1:]:
            if not snapshot.values.get((subject, score.quantity), Resolved()).open_to_derivation:
                continue
            if evaluator.evaluate(score.scope, subject).truth is Truth.MET:
                total = _total(evaluator, score, subject, snapshot)
                if total is not None:
                    values[subject, score.quantity] = total
    return replace(snapshot, values={**snapshot.values, **values}) if values else snapshot


def _total(evaluator: Evaluator, score: Score, subject: str, snapshot: Snapshot) -> Resolved | None:
    low = high = Decimal(0)
    premises: dict[int, Fact] = {}
    counted: list[str] = []
    for item in score.items:
        proofs = [
            (o, evaluator.evaluate(o.condition, subject if o.bearer != PATIENT_CLASS else PATIENT))
            for o in item.options
        ]
        fewest, most = (_sum if item.additive else _one)(item, proofs)
        if item.if_unknown is not None and any(p.truth is Truth.UNKNOWN for _, p in proofs) and fewest != most:
            fewest = most = _by_rule(item, proofs)
            counted.append(item.label)
        low, high = low + fewest, high + most
        for _, proof in proofs:
            if proof.truth is Truth.MET:
                premises.update({id(f): f for leaf in proof.leaves() for f in leaf.facts})
    if not premises:
        return None
    said = f"; unknown, counted by the rule of the source: {', '.join(counted)}" if counted else ""
    fact = Fact(
        subject,
        score.quantity,
        Range(low, high),
        unit=snapshot.knowledge.features[score.quantity].unit,
        time=TimeSpan.of(snapshot.as_of),
        rule=KYPHO + "ScoreTotal",
        premises=tuple(premises.values()),
        source=Source(f"derived: {score.label}{said}"),
    )
    return Resolved(fact.value, (fact,))


_Proofs = list[tuple[Option, Proof]]


def _one(item: Item, proofs: _Proofs) -> tuple[Decimal, Decimal]:
    met = [o.points for o, p in proofs if p.truth is Truth.MET]
    possible = met or [o.points for o, p in proofs if p.truth is Truth.UNKNOWN] or [o.points for o in item.options]
    return min(possible), max(possible)


def _sum(item: Item, proofs: _Proofs) -> tuple[Decimal, Decimal]:
    sure = _met(proofs)
    open_ = [o.points for o, p in proofs if p.truth is Truth.UNKNOWN]
    low, high = (sum((pick(p, Decimal(0)) for p in open_), sure) for pick in (min, max))
    return item.within(low), item.within(high)


def _by_rule(item: Item, proofs: _Proofs) -> Decimal:
    """What the source counts: in a group, the sure points and its rule for each unknown one."""
    assert item.if_unknown is not None
    if not item.additive:
        return item.if_unknown
    unknown = sum(p.truth is Truth.UNKNOWN for _, p in proofs)
    return item.within(_met(proofs) + unknown * item.if_unknown)


def _met(proofs: _Proofs) -> Decimal:
    return sum((o.points for o, p in proofs if p.truth is Truth.MET), Decimal(0))
