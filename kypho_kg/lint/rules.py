"""Rules on guidelines: what their author, or who relies on them, should look at. docs/lint.md explains each code."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from kypho_kg.criteria import Criterion, Op
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
    Guideline,
    Recommendation,
)
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.lint.diagram import CutOffError
from kypho_kg.lint.gaps import Kind, gaps_of
from kypho_kg.lint.logic import both, either, equivalent, implied, no, points, possible
from kypho_kg.mappings import Mappings, load_mappings
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
        if _role(a) == _role(b) and equivalent(k, a.criterion, b.criterion):
            yield b.id, f"says the same as {a.id}"


def _readings_crossed(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    for r in g.recommendations:
        for node in r.criterion.walk():
            if node.op is Op.OPEN and not implied(k, *node.children):
                yield r.id, f"a case can meet the strict reading of {local(node.name)} and not the lenient one"


def _kleene_weaker(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    """Gaps of clauses and their readings; of the eligibility classes where these do not only repeat them.

    What all cases meet, or none, has a rule of its own.
    """
    bounds: list[str] = []
    sound = True

    def first_gap(*trees: Criterion) -> str:
        for tree in trees:
            for found in gaps_of(k, tree.name, tree):
                if found.kind is Kind.GAP:
                    return f"{local(tree.name)}: {found.message}"
                bounds.append(str(found))
        return ""

    for r in g.recommendations:
        decides = possible(k, r.criterion) and possible(k, no(r.criterion))
        readings = [part for node in r.criterion.walk() if node.op is Op.OPEN for part in node.children]
        gap = first_gap(r.criterion, *readings) if decides else ""
        sound = sound and decides and not gap
        if gap:
            yield r.id, gap
    classes = [k.criterion(iri) for iri in (g.eligible, g.eligible_and_clear) if iri and sound and not bounds]
    if gap := first_gap(*(tree for tree in classes if possible(k, tree))):
        yield g.id, gap
    if bounds:
        raise CutOffError("; ".join(dict.fromkeys(bounds)))


def _threshold(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    """Values of a quantity on which clauses of one guideline are silent, or pull both ways."""
    for feature in k.features.values():
        if feature.kind is not Op.QUANTITY:
            continue
        for_it = _limits(g, feature, (REQUIRES, INDICATES, WITHIN), sufficient=False)
        against = _limits(g, feature, (EXCLUDES, ABSOLUTE), sufficient=True)
        told = _limits(g, feature, (ADVISES, RELATIVE), sufficient=True)
        rated = _limits(g, feature, (RATES,), sufficient=False)
        marks = points([*for_it, *against, *told, *rated])
        for side, other in itertools.product(for_it, against):
            held = [(Range.exactly(p).within(side), Range.exactly(p).within(other)) for p in marks]
            # An exclusion that lies within what is supported takes cases out of it, and that is its purpose.
            if {(True, True), (True, False), (False, True)} <= set(held):
                yield g.id, f"{feature.name} {marks[held.index((True, True))]} both supports and excludes"
        sides = [_within(p, for_it) or _within(p, against) for p in marks]
        edge = [i for i, said in enumerate(sides) if said] if for_it and against else []
        for i, p in enumerate(marks):
            if _within(p, [*for_it, *against, *told]):
                continue
            if edge and edge[0] < i < edge[-1]:
                yield g.id, f"{feature.name} {p} neither supports nor excludes"
            elif not _within(p, rated) and _met_from_both_sides(p, [*for_it, *against, *told, *rated]):
                yield g.id, f"clauses speak of {feature.name} below {p} and above, and not of {p} itself"


def _by_hand_only(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    mappings, bridged, names = _mappings(k), {b.conclusion for b in k.bridges.values()}, []
    for term in sorted({t for r in g.recommendations for t in _terms(r.criterion)}):
        feature = k.features[term]
        reached = k.descendants(term) if feature.kind is Op.FINDING else {term, *feature.values}
        if not (feature.derived_by or bridged & reached or any(mappings.of_term(iri) for iri in reached)):
            names.append(feature.name)
    if names:
        yield g.id, f"no code is mapped to {', '.join(names)}: only a patient file or a table can fill them"


def _short_lookback(k: Knowledge, g: Guideline) -> Iterator[tuple[str, str]]:
    """An age of something is limited to more days than a record of that thing counts."""
    for r in g.recommendations:
        for node in r.criterion.walk():
            feature = k.features.get(node.term)
            limits = [b for b in (node.range.low, node.range.high) if b is not None] if node.range else []
            if feature is None or not limits or not feature.derived_from:
                continue
            days = max(limits) * _days(feature)
            stale = [k.features[c] for c in k.descendants(feature.derived_from) if c in k.features]
            short = {f.name: f.lookback for f in stale if f.lookback is not None and f.lookback < days}
            if short:
                counts = ", ".join(f"{name} for {lookback}" for name, lookback in sorted(short.items()))
                yield r.id, f"asks for {feature.name} at {days:f} days, but a record counts {counts} only"


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
    "not-checked": "A rule that could not be decided: the search grew too large, or an axiom ties two features.",
    "unused-waiver": "A waiver that waives nothing, and would hide a later finding.",
}
"""Codes that no rule on a loaded guideline gives, with their explanation."""


def lint_guideline(k: Knowledge, g: Guideline) -> Iterator[Finding]:
    """What the rules find in one guideline."""
    for rule in RULES:
        found: set[tuple[str, str]] = set()
        try:
            for subject, message in rule.check(k, g):
                found.add((subject, message))
        except CutOffError as reason:
            yield Finding("not-checked", Severity.NOTE, g.id, f"{rule.code}: {reason}")
        for subject, message in sorted(found):
            yield Finding(rule.code, rule.severity, subject, message)


# -- what the rules share


def _conditions(g: Guideline, *effects: str) -> tuple[Criterion, ...]:
    return tuple(r.criterion for r in g.recommendations if r.effect in effects and not r.reading)


@functools.lru_cache(maxsize=1)
def _mappings(k: Knowledge) -> Mappings:
    """The bundled mappings, read once for all guidelines."""
    return load_mappings(k)


def _role(r: Recommendation) -> tuple[object, ...]:
    """What two clauses share that say the same, conditions aside."""
    return r.effect, r.reading, r.due, r.conjunct_of, _terms(r.criterion)


def _terms(c: Criterion) -> frozenset[str]:
    return frozenset(node.term for node in c.walk() if not node.children)


def _limits(g: Guideline, feature: Feature, effects: tuple[str, ...], *, sufficient: bool) -> list[Range]:
    """Ranges of a quantity by which clauses of some effects hold: alone, or as something they need."""
    found: list[Range] = []

    def visit(c: Criterion, passes: Op, plain: bool) -> None:
        if c.term == feature.iri and c.range:
            found.extend([c.range] if plain else _outside(c.range))
        if c.op is Op.NOT:
            visit(c.children[0], Op.AND if passes is Op.OR else Op.OR, not plain)
        elif c.op in {passes, Op.LINK} or (c.op in {Op.AND, Op.OR} and len(c.children) == 1):
            for child in c.children:
                visit(child, passes, plain)

    for r in g.recommendations:
        if r.effect in effects and not r.reading:
            visit(r.criterion, Op.OR if sufficient else Op.AND, True)
    return found


def _outside(r: Range) -> Iterator[Range]:
    """What lies below and above a range."""
    if r.low is not None:
        yield Range(None, r.low, high_open=not r.low_open)
    if r.high is not None:
        yield Range(r.high, None, low_open=not r.high_open)


def _met_from_both_sides(p: Decimal, ranges: Sequence[Range]) -> bool:
    return any(r.high == p for r in ranges) and any(r.low == p for r in ranges)


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
