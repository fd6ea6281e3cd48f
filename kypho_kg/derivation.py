"""The closed list of derived quantities, computed here for every engine.

Difference of dates, count of lesions, count of session levels, trend of a series; scores are in ``scores.py``. Days
are exact, weeks are
days/7 to four decimal places, ages are completed years. Which feature is derived from what is in the ontology.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from kypho_kg.criteria import Op
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Fact, Polarity, Range, Record, Source, TimeSpan, Value
from kypho_kg.state import Resolved
from kypho_kg.vocabulary import KYPHO
from kypho_kg.vocabulary import LESION as LESION_CLASS
from kypho_kg.vocabulary import PATIENT as PATIENT_CLASS
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS

_SEVEN = Decimal(7)
RISING, FALLING, LEVEL = "trendRising", "trendFalling", "trendLevel"
"""Properties that name the value of each course of a series."""
ROUNDING = Decimal("0.0002")
"""By so much two statements of one duration may differ because each was rounded to four places, and be one still."""


def elapsed(start: TimeSpan, day: date, unit: str) -> Range:
    """The time from a date to another in UCUM ``d``, ``wk`` or ``a``; an interval for a partial date."""
    if unit == "a":
        return Range(Decimal(_years(start.end.date(), day)), Decimal(_years(start.start.date(), day)))
    low, high = start.days_until(day)
    return Range(_in_unit(low, unit), _in_unit(high, unit))


def advance(value: Range, stated: TimeSpan, day: date, unit: str) -> Range:
    """A duration that was stated on a date as it is on a later one."""
    low, high = stated.days_until(day)
    if unit == "a":
        # A stated age says nothing of the birthday: up to one more year than the whole years that passed.
        return value.shifted(Decimal(low // 366), Decimal(-(-high // 365)))
    return value.shifted(_in_unit(low, unit), _in_unit(high, unit))


def agreed(ranges: Sequence[Range], slack: Decimal) -> Range | None:
    """The values that several ranges have in common, or ``None``; no more than ``slack`` apart is what lies between."""
    common: Range | None = ranges[0]
    for other in ranges[1:]:
        common = common.intersection(other) if common else None
    if common or not slack:
        return common
    low = max(r.low for r in ranges if r.low is not None)
    high = min(r.high for r in ranges if r.high is not None)
    return Range(high, low) if low - high <= slack else None


def _in_unit(days: int, unit: str) -> Decimal:
    if unit == "wk":
        weeks = round(Decimal(days) / _SEVEN, 4)
        return weeks.quantize(Decimal(1)) if days % 7 == 0 else weeks.normalize()
    return Decimal(days)


def _years(born: date, day: date) -> int:
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


@dataclass(frozen=True, slots=True)
class Context:
    """What derivations read: the record as of a date, sorted and resolved."""

    knowledge: Knowledge
    record: Record
    as_of: date
    rows: Mapping[tuple[str, str], Sequence[Fact]]
    """Facts that count, by subject and feature, before selection."""
    values: Mapping[tuple[str, str], Resolved]
    present: Mapping[str, Sequence[Fact]]


def derive(context: Context) -> Iterator[Fact]:
    """Facts for derivable features of which nothing is recorded."""
    record, k = context.record, context.knowledge
    by_bearer = {
        PATIENT_CLASS: (PATIENT,),
        LESION_CLASS: tuple(LESION + lesion.id for lesion in record.lesions),
        PROCEDURE_CLASS: (PROCEDURE,) if record.procedure else (),
    }
    for feature in k.features.values():
        for subject in by_bearer[feature.bearer] if feature.derived_by in _DERIVATIONS else ():
            if not context.values.get((subject, feature.iri), Resolved()).open_to_derivation:
                continue
            found = _DERIVATIONS[feature.derived_by](context, feature, subject)
            if found is not None:
                value, premises = found
                rule = KYPHO + feature.derived_by
                yield Fact(
                    subject,
                    feature.iri,
                    value,
                    unit=feature.unit,
                    rule=rule,
                    premises=tuple(premises),
                    time=TimeSpan.of(context.as_of),
                    source=Source(f"derived: {k.label(rule)}"),
                )


_Found = tuple[Value, Sequence[Fact]] | None


def _difference_of_dates(c: Context, feature: Feature, subject: str) -> _Found:
    origin = c.knowledge.features.get(feature.derived_from)
    if origin is None:
        return None
    if origin.kind is Op.FINDING:
        facts = [f for f in c.present.get(subject, ()) if c.knowledge.subsumes(origin.iri, f.feature) and not f.rule]
        dated = [(f.time.until(c.as_of), f) for f in facts if f.time]
        # A finding that is stated without a date does not say when it was seen: its age is unknown, not zero.
        if not dated:
            return None
        time, newest = max(dated, key=lambda row: (row[0].end, row[0].start))
        return elapsed(time, c.as_of, feature.unit), (newest,)
    known = c.values.get((subject, origin.iri))
    if known is None or not isinstance(known.value, TimeSpan) or known.value.start.date() > c.as_of:
        return None
    return elapsed(known.value.until(c.as_of), c.as_of, feature.unit), known.facts


def _count_of_lesions(c: Context, feature: Feature, subject: str) -> _Found:
    return Range(Decimal(len(c.record.lesions)), None), ()


def _count_of_session_levels(c: Context, feature: Feature, subject: str) -> _Found:
    """Lesions of the session at one level are one level; an interval where levels are not known well enough."""
    if c.record.procedure is None or not c.record.procedure.lesions:
        return None
    level = c.knowledge.by_name["vertebralLevel"]
    states = [c.values.get((LESION + id_, level.iri), Resolved()) for id_ in c.record.procedure.lesions]
    possible = [s.value if isinstance(s.value, frozenset) else level.values for s in states]
    apart: list[frozenset[str]] = []
    for levels in sorted(possible, key=lambda v: (len(v), sorted(v))):
        if all(levels.isdisjoint(other) for other in apart):
            apart.append(levels)
    high = len(possible) - sum(len(v) == 1 for v in possible) + len({v for v in possible if len(v) == 1})
    return Range(Decimal(len(apart)), Decimal(high)), tuple(f for s in states for f in s.facts)


def _trend_of_series(c: Context, feature: Feature, subject: str) -> _Found:
    today = TimeSpan.of(c.as_of)

    def time(fact: Fact) -> TimeSpan:
        return (fact.time or today).until(c.as_of)

    series = sorted(c.rows.get((subject, feature.derived_from), ()), key=lambda f: (time(f).end, time(f).start))
    if len(series) < 2 or any(not time(b).wholly_after(time(a)) for a, b in itertools.pairwise(series)):
        return None
    before, after = series[-2], series[-1]
    first, last = _exact(before), _exact(after)
    if first is None or last is None:
        return None
    course = RISING if last > first else FALLING if last < first else LEVEL
    value = c.knowledge.triples.resource(feature.iri, KYPHO + course)
    return (frozenset({value}), (before, after)) if value else None


def _exact(fact: Fact) -> Decimal | None:
    present = fact.polarity is Polarity.PRESENT
    return fact.value.exact if present and isinstance(fact.value, Range) else None


_DERIVATIONS = {
    "DifferenceOfDates": _difference_of_dates,
    "CountOfLesions": _count_of_lesions,
    "CountOfSessionLevels": _count_of_session_levels,
    "TrendOfSeries": _trend_of_series,
}
