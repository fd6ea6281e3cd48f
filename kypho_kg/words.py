"""Proofs, facts and values in plain words, always the same for the same case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from kypho_kg.candidacy import Assessment, ClauseResult
from kypho_kg.conflicts import Firing, Stance, Stand, Turn
from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Proof, Truth
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.missing import Wanted
from kypho_kg.plausibility import limits
from kypho_kg.reasons import deciding, decisive_clauses, no_candidate_either_way
from kypho_kg.record import Fact, Polarity, Range, Status, Value
from kypho_kg.values import Cell
from kypho_kg.vocabulary import KYPHO


def value_words(k: Knowledge, value: Value) -> str:
    """A recorded value in words; a number with two decimal places at most."""
    if isinstance(value, Range):
        return str(_short(value))
    if isinstance(value, frozenset):
        return " or ".join(choice_words(k, value))
    if isinstance(value, str):
        return k.label(value)
    return "" if value is None else str(value)


def _short(value: Range) -> Range:
    low, high = (None if x is None else _two_places(x) for x in (value.low, value.high))
    return Range(low, high, value.low_open, value.high_open)


def _two_places(number: Decimal) -> Decimal:
    short = round(number, 2)
    return number if short == number else short.normalize() if short % 1 else short.quantize(Decimal(1))


def choice_words(k: Knowledge, values: frozenset[str]) -> list[str]:
    """Individuals in the order of the ontology; a long run of them as first to last."""

    def rank(iri: str) -> tuple[int, str]:
        return k.level_order(iri), k.label(iri)

    ordered = sorted(values, key=rank)
    places = [rank(v)[0] for v in ordered]
    if len(ordered) > 2 and places[0] and places == list(range(places[0], places[0] + len(places))):
        return [f"{k.label(ordered[0])} to {k.label(ordered[-1])}"]
    return [k.label(v) for v in ordered]


def unit_words(feature: Feature) -> str:
    """The unit of a quantity, to stand behind a number; an annotation such as that of a score is left out."""
    return "" if feature.unit.startswith("{") else f" {feature.unit}"


def asked_words(k: Knowledge, criterion: Criterion) -> str:
    """What an atom asks for, in words."""
    if criterion.range is not None:
        return f"{criterion.range}{unit_words(k.features[criterion.term])}"
    if criterion.op is Op.CHOICE:
        return " or ".join(choice_words(k, criterion.values))
    return " or ".join(k.label(v) for v in criterion.values)


def cause_words(k: Knowledge, proof: Proof) -> str:
    """Why a leaf is unknown, in plain words, with the reason that was recorded."""
    assert proof.gap is not None
    reason = f" ({proof.gap.reason})" if proof.gap.reason else ""
    return k.plain(KYPHO + proof.gap.cause) + reason


def fact_words(k: Knowledge, fact: Fact) -> str:
    """What a fact says, without its source."""
    if fact.polarity is Polarity.INDETERMINATE:
        return fact.words or fact.reason or "unclear"
    said = value_words(k, fact.value)
    if not said:
        name = "" if fact.rule else k.label(fact.feature) + " "
        return f"{name}{fact.polarity}"
    return said if fact.polarity is Polarity.PRESENT else f"not {said}"


def fact_in_short(k: Knowledge, fact: Fact) -> str:
    """A fact with the name of its feature, said once, and what makes it less than sure."""
    words, name = fact_words(k, fact), k.label(fact.feature)
    unsure = "" if fact.status is Status.CONFIRMED else f" ({fact.status})"
    return (words if words.startswith(name) else f"{name} {words}") + unsure


def leaf_words(k: Knowledge, leaf: Proof, asked: str = "") -> str:
    """A leaf as a short phrase: feature, what is recorded, what is asked for.

    :param asked: what is asked for, where that is more than this leaf says.
    """
    c = leaf.criterion
    name = k.label(c.term)
    if c.op is Op.OPEN:
        return f"{k.plain(c.name)}: left open by the source"
    if c.op is Op.LINK:
        return f"{name}: {cause_words(k, leaf)}"
    if c.op is Op.FINDING:
        said = {Truth.MET: "present", Truth.NOT_MET: "absent"}.get(leaf.truth) or cause_words(k, leaf)
        return f"{name}: {said}"
    recorded = "; ".join(dict.fromkeys(fact_words(k, f) for f in leaf.facts))
    if leaf.truth is Truth.UNKNOWN:
        said = cause_words(k, leaf)
        recorded = "" if said.startswith(recorded) or recorded in said else recorded
        return f"{name}: {recorded + ', ' if recorded else ''}{said} (asked: {asked or asked_words(k, c)})"
    return f"{name} {recorded} (asked: {asked or asked_words(k, c)})"


def reason_words(k: Knowledge, assessment: Assessment) -> list[tuple[ClauseResult, list[str]]]:
    """The deciding clauses, each with the leaves that decide it in words."""
    return [
        (clause, list(dict.fromkeys(leaf_words(k, leaf) for leaf in deciding(clause.proof))))
        for clause in decisive_clauses(assessment)
    ]


def cells_words(k: Knowledge, wanted: Wanted) -> str:
    """The values of a feature that will do, in words."""
    feature, cells = k.features[wanted.variable.feature], wanted.variable.cells_of(wanted.cells)
    if feature.kind is Op.FINDING:
        return " or ".join("present" if c.present else "absent" for c in cells)
    if feature.kind is Op.QUANTITY:
        unit = unit_words(feature)
        shown = (_bounded(feature, r) for r in joined(tuple(c.range for c in cells if c.range)))
        return " or ".join("any value" if r == Range(None, None) else f"{r}{unit}" for r in shown)
    if feature.kind is Op.CHOICE:
        return " or ".join(choice_words(k, frozenset(v for c in cells for v in c.values)))
    return " or ".join(_class_words(k, c) for c in cells)


def _bounded(feature: Feature, r: Range) -> Range:
    """A range without the ends at which plausible values end."""
    bound = limits().get(feature.iri)
    if bound is None or r.exact is not None:
        return r
    low = None if r.low == bound.range.low else r.low
    high = None if r.high == bound.range.high else r.high
    return Range(low, high, r.low_open and low is not None, r.high_open and high is not None)


def _class_words(k: Knowledge, cell: Cell) -> str:
    without = sorted(k.label(cls) for cls in cell.excluded if k.subsumes(cell.cls, cls))
    return k.label(cell.cls) + (f" (other than {', '.join(without)})" if without else "")


def joined(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Ranges in their order, those that touch made one."""
    found: list[Range] = []
    for r in ranges:
        last = found[-1] if found else None
        touches = last is not None and last.high is not None and (
            last.high == r.low and last.high_open is not r.low_open
        )  # fmt: skip
        if last is not None and touches:
            found[-1] = Range(last.low, r.high, last.low_open, r.high_open)
        else:
            found.append(r)
    return tuple(found)


def range_json(value: Range) -> object:
    """A range as JSON: a number, or its bounds."""
    if value.exact is not None:
        return _number(value.exact)
    bounds = {}
    if value.low is not None:
        bounds["above" if value.low_open else "min"] = _number(value.low)
    if value.high is not None:
        bounds["below" if value.high_open else "max"] = _number(value.high)
    return bounds


def _number(value: object) -> int | float:
    number = float(str(value))
    return int(number) if number.is_integer() else number


def said(a: Assessment) -> str:
    """The verdict in the words of its layer; of a panel, the category."""
    if no_candidate_either_way(a):
        return "cannot say which, but no candidate either way"
    words = a.guideline.words(a.verdict)
    if a.verdict == "Rated":
        rated = dict.fromkeys(r.words for _, r in a.ratings if r.category in a.categories)
        return ", ".join(rated) or ("no scenario fits" if not a.ratings else "what is proposed is not rated")
    return words


def conflict_lines(k: Knowledge, firing: Firing) -> Iterator[tuple[Stance, list[str]]]:
    """For each stance the clauses that take it; those that turn on the same atoms share a line."""
    for stance in (Stance.OPPOSES, Stance.CAUTIONS, Stance.SUPPORTS, Stance.ACCEPTS):
        grouped: dict[str, list[str]] = {}
        for stand in firing.taking(stance):
            grouped.setdefault(_turn(k, stand), []).append(stand.clause.recommendation.id)
        if grouped:
            yield stance, [f"{', '.join(ids)} [{turn}]" for turn, ids in grouped.items()]


def _turn(k: Knowledge, stand: Stand) -> str:
    """What is recorded of each feature on which a clause turns, and all that the clause asks of it."""
    by_feature: dict[str, list[Turn]] = {}
    for turn in stand.turns_on:
        if turn.proof.truth is not Truth.UNKNOWN:
            by_feature.setdefault(turn.proof.criterion.term, []).append(turn)
    words = []
    for turns in by_feature.values():
        asked = dict.fromkeys(
            ("not " if t.negated else "") + asked_words(k, t.proof.criterion)
            for t in turns
            if t.proof.criterion.values or t.proof.criterion.range
        )
        words.append(leaf_words(k, turns[0].proof, " / ".join(asked)))
    return "; ".join(words[:3])
