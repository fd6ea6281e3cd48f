"""Rules on guidelines: what their author, or who relies on them, should look at. docs/lint.md explains each code."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from kypho_kg.criteria import Criterion, Op
from kypho_kg.guidelines import (
    ABSOLUTE,
    ADVISES,
    EXCLUDES,
    INDICATES,
    RELATIVE,
    REQUIRES,
    SCOPE,
    WITHIN,
    Guideline,
)
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.lint.diagram import CutOffError
from kypho_kg.lint.gaps import Kind, gaps_of
from kypho_kg.lint.logic import both, either, equivalent, implied, no, points, possible
from kypho_kg.mappings import load_mappings
from kypho_kg.record import Range
from kypho_kg.store import Triples
from kypho_kg.vocabulary import DCTERMS, KYPHO, TYPE, local


class Severity(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a rule found in a guideline."""

    code: str
    severity: Severity
    subject: str
    """Id of the clause or guideline."""
    message: str

    def __str__(self) -> str:
        return f"{self.severity} {self.code} {self.subject}: {self.message}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that looks at one guideline at a time."""

    code: str
    severity: Severity
    explanation: str
    check: Callable[[Knowledge, Guideline], Iterable[tuple[str, str]]]
    """Yields the subject and what is wrong."""


def _contradictory(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    for r in g.recommendations:
        if not possible(k, r.criterion):
            yield r.id, "no case can meet the condition"


def _always_met(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    for r in g.recommendations:
        if not possible(k, no(r.criterion)):
            yield r.id, "no case can fail the condition"


def _unreachable(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    """A clause that never speaks: outside the scope, or a pathway that no candidate can take."""
    scope, requires, against = _conditions(g, SCOPE), _conditions(g, REQUIRES), _conditions(g, EXCLUDES, ABSOLUTE)
    for r in g.recommendations:
        others = scope
        if r.effect in {INDICATES, WITHIN}:
            others = (*scope, *requires, *map(no, against))
        elif r.effect == SCOPE:
            continue
        if possible(k, r.criterion) and others and not possible(k, r.criterion, *others):
            yield r.id, "no case that meets it is in scope, or meets the requirements without an exclusion"


def _nobody_eligible(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    for iri in (g.eligible, g.eligible_and_clear):
        if iri and not possible(k, k.criterion(iri)):
            yield g.id, f"no case belongs to {local(iri)}"


def _eligibility_differs(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    judges = _conditions(g, REQUIRES, INDICATES)
    if not judges:
        if g.eligible or g.eligible_and_clear:
            yield g.id, "has an eligibility class although no clause requires or indicates"
        return
    indications = _conditions(g, INDICATES)
    eligible = both(
        *_conditions(g, SCOPE, REQUIRES),
        *((either(*indications),) if indications else ()),
        *map(no, _conditions(g, EXCLUDES, ABSOLUTE)),
    )
    clear = both(eligible, *map(no, _conditions(g, RELATIVE)))
    for iri, wanted in ((g.eligible, eligible), (g.eligible_and_clear, clear)):
        if not iri:
            yield g.id, "has no eligibility class for what its clauses make a candidate"
        elif not equivalent(k, k.criterion(iri), wanted):
            yield g.id, f"{local(iri)} is not what the effects of the clauses make of them"


def _duplicate(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    for a, b in itertools.combinations(g.recommendations, 2):
        same = a.effect == b.effect and a.reading == b.reading and _terms(a.criterion) == _terms(b.criterion)
        if same and equivalent(k, a.criterion, b.criterion):
            yield b.id, f"says the same as {a.id}"


def _readings_crossed(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    for r in g.recommendations:
        for node in r.criterion.walk():
            if node.op is Op.OPEN and not implied(k, *node.children):
                yield r.id, f"a case can meet the strict reading of {local(node.name)} and not the lenient one"


def _kleene_weaker(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    for r in g.recommendations:
        for found in gaps_of(k, r.criterion.name, r.criterion):
            if found.kind is Kind.GAP:
                yield r.id, found.message


def _threshold(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    """Values of a quantity on which clauses of one guideline are silent, or pull both ways."""
    for feature in k.features.values():
        if feature.kind is not Op.QUANTITY:
            continue
        for_it = _limits(g, feature, (REQUIRES, INDICATES, WITHIN), sufficient=False)
        against = _limits(g, feature, (EXCLUDES, ABSOLUTE), sufficient=True)
        told = _limits(g, feature, (ADVISES, RELATIVE), sufficient=True)
        if not (for_it and against):
            continue
        marks = points([*for_it, *against, *told])
        sides = [(_within(p, for_it), _within(p, against), _within(p, told)) for p in marks]
        edge = [i for i, (yes, objects, _) in enumerate(sides) if yes or objects]
        for i, (p, (yes, objects, advised)) in enumerate(zip(marks, sides, strict=True)):
            if yes and objects:
                yield g.id, f"{feature.name} {p} both supports and excludes"
            elif not (yes or objects or advised) and edge[0] < i < edge[-1]:
                yield g.id, f"{feature.name} {p} neither supports nor excludes"


def _by_hand_only(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    mappings, bridged, names = load_mappings(k), {b.conclusion for b in k.bridges.values()}, []
    for term in sorted({t for r in g.recommendations for t in _terms(r.criterion)} - bridged):
        feature = k.features[term]
        reached = k.descendants(term) if feature.kind is Op.FINDING else {term, *feature.values}
        if not feature.derived_by and not any(mappings.of_term(iri) for iri in reached):
            names.append(feature.name)
    if names:
        yield g.id, f"no code is mapped to {', '.join(names)}: only a patient file or a table can fill them"


def _short_lookback(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    """An age of something is limited to more days than a record of that thing counts."""
    for r in g.recommendations:
        for node in r.criterion.walk():
            feature = k.features.get(node.term)
            limit = node.range.high if node.range else None
            if feature is None or limit is None or not feature.derived_from:
                continue
            days = limit * _days(feature)
            for f in (k.features[c] for c in k.descendants(feature.derived_from) if c in k.features):
                if f.lookback is not None and f.lookback < days:
                    yield r.id, f"allows {feature.name} up to {days:f} days, but {f.name} counts for {f.lookback} only"


RULES = (
    Rule("contradictory", Severity.ERROR, "A condition that no case can meet.", _contradictory),
    Rule("always-met", Severity.ERROR, "A condition that no case can fail: the clause decides nothing.", _always_met),
    Rule("unreachable", Severity.ERROR, "A clause that no case in scope can meet, or a pathway that the requirements "
         "and exclusions close for every case.", _unreachable),
    Rule("nobody-eligible", Severity.ERROR, "An eligibility class that is empty: the guideline can make nobody a "
         "candidate.", _nobody_eligible),
    Rule("eligibility-differs", Severity.ERROR, "An eligibility class that disagrees with the recommendations: what a "
         "reasoner or Protégé says would differ from the verdict.", _eligibility_differs),
    Rule("readings-crossed", Severity.ERROR, "A strict reading that does not lie within the lenient one.",
         _readings_crossed),
    Rule("kleene-weaker", Severity.ERROR, "A condition for which the evaluation leaves unknown what the reasoner "
         "settles.", _kleene_weaker),
    Rule("threshold", Severity.WARNING, "Values at which the clauses of one guideline leave a gap or overlap.",
         _threshold),
    Rule("duplicate", Severity.WARNING, "Two clauses with the same effect and the same cases.", _duplicate),
    Rule("short-lookback", Severity.ERROR, "A fact goes stale before the limit that the source itself sets on its age.",
         _short_lookback),
    Rule("by-hand-only", Severity.NOTE, "A feature to which no code is mapped, so that no record system fills it.",
         _by_hand_only),
)  # fmt: skip

LOAD_CODES = {
    "missing-mark": "A clause that does not say how its text was verified.",
    "missing-citation": "A clause without a citation.",
    "refused": "What loading refuses: outside the profiles, or a clause that is not whole.",
    "not-checked": "A rule that could not be decided because the search grew too large.",
}
"""Codes that no rule on a loaded guideline gives, with their explanation."""


def lint_guideline(k: Knowledge, g: Guideline) -> Iterator[Finding]:
    """What the rules find in one guideline."""
    for rule in RULES:
        try:
            found = sorted(set(rule.check(k, g)))
        except CutOffError as reason:
            yield Finding("not-checked", Severity.NOTE, g.id, f"{rule.code}: {reason}")
            continue
        for subject, message in found:
            yield Finding(rule.code, rule.severity, subject, message)


# -- what the rules share


def _conditions(g: Guideline, *effects: str) -> tuple[Criterion, ...]:
    return tuple(r.criterion for r in g.recommendations if r.effect in effects and not r.reading)


def _terms(c: Criterion) -> frozenset[str]:
    return frozenset(node.term for node in c.walk() if not node.children)


def _limits(g: Guideline, feature: Feature, effects: tuple[str, ...], *, sufficient: bool) -> list[Range]:
    """Ranges of a quantity by which clauses of some effects hold: alone, or as something they need."""
    passes = Op.OR if sufficient else Op.AND
    found: list[Range] = []

    def visit(c: Criterion) -> None:
        if c.term == feature.iri and c.range:
            found.append(c.range)
        if c.op in {passes, Op.LINK} or (c.op in {Op.AND, Op.OR} and len(c.children) == 1):
            for child in c.children:
                visit(child)

    for r in g.recommendations:
        if r.effect in effects and not r.reading:
            visit(r.criterion)
    return found


def _within(value: Decimal, ranges: Iterable[Range]) -> bool:
    return any(Range.exactly(value).within(r) for r in ranges)


def _days(feature: Feature) -> Decimal:
    return {"d": Decimal(1), "wk": Decimal(7), "mo": Decimal(30), "a": Decimal(365)}.get(feature.unit, Decimal(0))


def unread_clauses(t: Triples) -> Iterator[Finding]:
    """Clauses of which loading would refuse that they lack a mark or a citation, found in the triples alone."""
    for iri in t.subjects(TYPE, KYPHO + "Recommendation"):
        for code, predicate in (
            ("missing-mark", KYPHO + "mark"),
            ("missing-citation", DCTERMS + "bibliographicCitation"),
        ):
            if not t.objects(iri, predicate):
                yield Finding(code, Severity.ERROR, local(iri), LOAD_CODES[code])
