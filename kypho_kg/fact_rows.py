"""The rows of a fact table: its columns, a record as rows, and rows as a record (docs/fact-table.md)."""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from kypho_kg.criteria import Op
from kypho_kg.errors import InputError, Problem
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.record import (
    LESION,
    PATIENT,
    PROCEDURE,
    Cause,
    Fact,
    Lesion,
    Mood,
    Polarity,
    Procedure,
    Range,
    Record,
    Source,
    Status,
    TimeSpan,
    Value,
    is_postal_code,
)  # fmt: skip
from kypho_kg.vocabulary import KYPHO, local
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS

SEPARATOR = "|"
"""Between the individuals of a choice of which one holds."""
PLACES = Decimal("0.000001")
"""A quantity has at most six decimal places."""
TOO_LARGE = Decimal(10) ** 12


WORD = pa.dictionary(pa.int32(), pa.string())
"""The type of a text that repeats."""
_NUMBER = pa.decimal128(18, 6)

Row = Mapping[str, Any]
"""The cells of a row by column."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A cell that is not of the type of its column."""

    text: str
    expected: str


def malformed(place: str, row: Row) -> Iterator[Problem]:
    """What is wrong with the cells of a row that are not of the type of their columns."""
    for column, cell in row.items():
        if isinstance(cell, Malformed):
            yield Problem(f"{place}, {column}", repr(cell.text), cell.expected)


def facts_schema(patient: pa.DataType | None = None) -> pa.Schema:
    """The columns of the table of facts.

    :param patient: ``string`` by default, or ``int64``.
    """
    return pa.schema([
        ("patient", patient or pa.string()), ("lesion", WORD), ("feature", WORD), ("polarity", WORD),
        ("mood", WORD), ("status", WORD), ("value", WORD), ("low", _NUMBER), ("high", _NUMBER),
        ("low_open", pa.bool_()), ("high_open", pa.bool_()), ("date_start", pa.date32()), ("date_end", pa.date32()),
        ("time_start", pa.timestamp("s")), ("time_end", pa.timestamp("s")), ("cause", WORD), ("source", WORD),
    ])  # fmt: skip


def cases_schema(patient: pa.DataType | None = None) -> pa.Schema:
    """The columns of the table of cases: one row for each lesion."""
    return pa.schema([
        ("patient", patient or pa.string()), ("lesion", WORD), ("as_of", pa.date32()), ("has_procedure", pa.bool_()),
        ("session_named", pa.bool_()), ("in_session", pa.bool_()), ("service_start", pa.date32()),
        ("service_end", pa.date32()), ("state", WORD),
    ])  # fmt: skip


# --------------------------------------------------------------------------------------------------------------------
# A record as rows


def fact_row(record: Record, fact: Fact) -> dict[str, Any]:
    """The row of a fact.

    :raises InputError: when the table cannot hold its value without rounding.
    """
    where = f"{fact.source.origin or record.place}, {local(fact.feature)}"
    value, polarity, cause = fact.value, fact.polarity, fact.cause
    if fact.invalid:
        value, polarity, cause = None, Polarity.INDETERMINATE, Cause.INVALID
    row: dict[str, Any] = {
        "patient": record.patient,
        "lesion": fact.subject.removeprefix(LESION) if fact.subject.startswith(LESION) else None,
        "feature": local(fact.feature),
        "polarity": polarity.value,
        "mood": fact.mood.value,
        "status": fact.status.value,
        "low_open": False,
        "high_open": False,
        "time_start": fact.time.start if fact.time else None,
        "time_end": fact.time.end if fact.time else None,
        "cause": cause.value if cause else None,
        "source": fact.source.origin or None,
    }
    if isinstance(value, Range):
        row |= {"low": _held(value.low, where), "high": _held(value.high, where)}
        row |= {"low_open": value.low_open, "high_open": value.high_open}
    elif isinstance(value, frozenset):
        row["value"] = SEPARATOR.join(sorted(map(local, value)))
    elif isinstance(value, TimeSpan):
        first, last = value.start, value.end
        if (first.time(), last.time()) != (time(), _LAST):
            raise InputError(Problem(where, "the date has a time of day", "whole days"))
        row |= {"date_start": first.date(), "date_end": last.date()}
    elif value is not None:
        row["value"] = local(value)
    return row


_LAST = time(23, 59, 59)


def _held(number: Decimal | None, where: str) -> Decimal | None:
    """A number as the table holds it.

    :raises InputError: when it would have to be rounded, or is too large.
    """
    if number is None:
        return None
    if abs(number) >= TOO_LARGE:
        raise InputError(Problem(where, "the number is too large for the table", "less than 10 to the power of 12"))
    held = number.quantize(PLACES)
    if held != number:
        raise InputError(Problem(where, "the number has more than six decimal places", "at most six"))
    return held


def case_rows(record: Record, day: date) -> Iterator[dict[str, Any]]:
    """One row for each lesion of a record."""
    procedure = record.procedure
    treated = procedure.lesions if procedure else None
    service = procedure.service_date if procedure else None
    for lesion in record.lesions:
        yield {
            "patient": record.patient,
            "lesion": lesion.id,
            "as_of": day,
            "has_procedure": procedure is not None,
            "session_named": treated is not None,
            "in_session": procedure is not None and (treated is None or lesion.id in treated),
            "service_start": service.start.date() if service else None,
            "service_end": service.end.date() if service else None,
            "state": procedure.state if procedure else None,
        }


# --------------------------------------------------------------------------------------------------------------------
# Rows as a record


def record_of(
    patient: str, facts: Iterable[tuple[str, Row]], cases: Iterable[tuple[str, Row]], knowledge: Knowledge
) -> Record:
    """The record of one patient from its rows, each with its place.

    :raises InputError: with every row that is malformed.
    """
    problems: list[Problem] = []
    lesions: list[Lesion] = []
    placed, facts = list(cases), list(facts)
    for place, row in (*placed, *facts):
        problems += malformed(place, row)
    if problems:
        raise InputError(problems)
    where, first = placed[0]
    for place, row in placed:
        if not row["lesion"] or row["as_of"] is None:
            problems.append(Problem(place, "lesion or as_of is empty", "the id of a lesion and a date"))
        elif any(lesion.id == row["lesion"] for lesion in lesions):
            problems.append(Problem(place, "the lesion stands twice", "one row for each lesion"))
        else:
            lesions.append(Lesion(row["lesion"]))
    for name in ("as_of", "has_procedure", "session_named", "service_start", "service_end", "state"):
        if any(row[name] != first[name] for _, row in placed):
            problems.append(Problem(where, f"{name} differs between lesions of the patient", "one value"))
    if first["state"] is not None and not is_postal_code(first["state"]):
        problems.append(Problem(f"{where}, state", repr(first["state"]), "two capitals such as OH"))
    found: list[Fact] = []
    known = {lesion.id for lesion in lesions}
    for place, row in facts:
        try:
            found.append(_fact(place, row, known, knowledge))
        except _Wrong as wrong:
            problems.append(Problem(f"{place}, {wrong.column}", wrong.what, wrong.expected))
    procedure = None
    if first["has_procedure"]:
        named = tuple(row["lesion"] for _, row in placed if row["in_session"]) if first["session_named"] else None
        try:
            service = _span(first["service_start"], first["service_end"], "service_start")
        except _Wrong as wrong:
            service = None
            problems.append(Problem(f"{where}, {wrong.column}", wrong.what, wrong.expected))
        procedure = Procedure(named, service, first["state"])
    if problems:
        raise InputError(problems)
    return Record(patient, tuple(lesions), tuple(found), procedure, first["as_of"], (where.partition(":")[0],))


class _Wrong(Exception):  # noqa: N818 - it is caught here, and is no error of the program
    def __init__(self, column: str, what: str, expected: str) -> None:
        super().__init__(column)
        self.column, self.what, self.expected = column, what, expected


def _member(row: Row, column: str, kind: Any) -> Any:
    if row[column] not in kind._value2member_map_:
        raise _Wrong(column, repr(row[column]), f"one of {', '.join(kind)}")
    return kind(row[column])


def _fact(place: str, row: Row, lesions: set[str], k: Knowledge) -> Fact:
    feature = k.by_name.get(row["feature"] or "")
    if feature is None:
        raise _Wrong("feature", repr(row["feature"]), "the local name of a feature of the ontology")
    if row["lesion"] is not None and row["lesion"] not in lesions:
        raise _Wrong("lesion", repr(row["lesion"]), "a lesion that the table of cases has for the patient")
    subject = PROCEDURE if feature.bearer == PROCEDURE_CLASS else PATIENT
    polarity, time_ = _member(row, "polarity", Polarity), None
    if row["time_start"] is not None or row["time_end"] is not None:
        if row["time_start"] is None or row["time_end"] is None or row["time_start"] > row["time_end"]:
            raise _Wrong("time_start", "no interval", "a first and a last instant, or both empty")
        time_ = named_span(row["time_start"], row["time_end"])
    return Fact(
        subject if row["lesion"] is None else LESION + row["lesion"],
        feature.iri,
        _value(row, feature, polarity),
        polarity,
        _member(row, "mood", Mood),
        time_,
        _member(row, "status", Status),
        None if row["cause"] is None else _member(row, "cause", Cause),
        unit=feature.unit,
        source=Source(row["source"] or place),
    )


def _value(row: Row, feature: Feature, polarity: Polarity) -> Value:
    given = [c for c in ("value", "low", "high", "date_start", "date_end") if row[c] is not None]
    fitting: dict[Op | None, set[str]] = {
        Op.QUANTITY: {"low", "high"}, Op.CHOICE: {"value"}, Op.CATEGORY: {"value"}, None: {"date_start", "date_end"}
    }  # fmt: skip
    allowed = fitting.get(feature.kind, set())
    if polarity is Polarity.INDETERMINATE:
        return None
    if allowed and not given:
        raise _Wrong(min(allowed), "empty", f"a value of {feature.name}")
    if not allowed.issuperset(given):
        raise _Wrong(next(c for c in given if c not in allowed), "not empty", f"empty for {feature.name}")
    if feature.kind is Op.FINDING:
        return None
    if feature.kind in (Op.QUANTITY, None) and polarity is Polarity.ABSENT:
        raise _Wrong("polarity", "absent", f"present or indeterminate for {feature.name}")
    if feature.kind is Op.QUANTITY:
        low, high = (None if row[c] is None else _tidy(row[c]) for c in ("low", "high"))
        opened = bool(row["low_open"]), bool(row["high_open"])
        if low is not None and high is not None and (low > high or (low == high and any(opened))):
            raise _Wrong("low", "no number lies between low and high", "the smaller number first")
        return Range(low, high, *opened)
    if feature.kind is None:
        return _span(row["date_start"], row["date_end"], "date_start")
    names = row["value"].split(SEPARATOR) if feature.kind is Op.CHOICE else [row["value"]]
    for name in names:
        if KYPHO + name not in feature.values:
            raise _Wrong("value", repr(name), f"a value of {feature.name}")
    return frozenset(KYPHO + n for n in names) if feature.kind is Op.CHOICE else KYPHO + names[0]


def _tidy(number: Decimal) -> Decimal:
    return number.quantize(Decimal(1)) if number == number.to_integral_value() else number.normalize()


def _span(first: date | None, last: date | None, column: str) -> TimeSpan | None:
    if first is None and last is None:
        return None
    if first is None or last is None or first > last:
        raise _Wrong(column, "no interval", "a first and a last day, or both empty")
    return named_span(datetime.combine(first, time()), datetime.combine(last, _LAST))


def named_span(start: datetime, end: datetime) -> TimeSpan:
    """An interval with the shortest text that says it: a year, a month, a day or an instant where it is one."""
    first, last = start.date(), end.date()
    text = f"{start.isoformat()}/{end.isoformat()}"
    if start == end:
        text = start.isoformat()
    elif (start.time(), end.time()) == (time(), _LAST):
        text = first.isoformat() if first == last else f"{first}/{last}"
        if first.day == 1 and (first.year, first.month) == (last.year, last.month):
            text = f"{first:%Y-%m}" if last.day == calendar.monthrange(last.year, last.month)[1] else text
        elif (first.month, first.day, last.month, last.day) == (1, 1, 12, 31) and first.year == last.year:
            text = f"{first.year:04}"
    return TimeSpan(start, end, text)
