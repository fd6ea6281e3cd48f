"""One row of an OMOP table to a statement: its dates, its values and what is over (docs/omop.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from kypho_kg.criteria import Op
from kypho_kg.record import PATIENT, Cause, Fact, Polarity, Source, Status, TimeSpan
from kypho_kg.sources import omop_model as om
from kypho_kg.sources.codes import HUGE, WORDS, Malformed, Meanings, Stated, compared
from kypho_kg.sources.lesions import Statement
from kypho_kg.sources.omop_codes import Concepts, Meant
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS
from kypho_kg.vocabulary import local

_TIME = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d))?(?:\.\d+)?)?(?:Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_WHOLE = re.compile(r"(\d{1,10})(?:\.0*)?", re.ASCII)


class Row(NamedTuple):
    """One row, whatever its table: keys as numbers, everything else as text. Empty or 0 is missing."""

    table: str
    place: int
    """Its number in its table."""
    row: int
    person: int
    concept: int
    source_concept: int
    value_concept: int
    unit_concept: int
    source_value: str
    start: str
    start_time: str
    end: str
    end_time: str
    state: str
    verbatim_end: str
    stopped: str
    operator: str
    number: str
    unit: str
    words: str
    source_words: str
    year: str
    month: str
    day: str


NUMBERS = frozenset({"place", "row", "person", "concept", "source_concept", "value_concept", "unit_concept"})
"""Fields of a row that are numbers."""


class RowReader:
    """Reads rows of events and of persons."""

    def __init__(self, concepts: Concepts, meanings: Meanings) -> None:
        self.concepts = concepts
        self.m = meanings
        self.report = meanings.report

    def read(self, table: om.Table, row: Row) -> Statement | None:
        """What one row of events says, or ``None`` where it says nothing.

        :raises Malformed: when a cell that is needed cannot be read.
        """
        kind = table.name
        meant = self.concepts.of_row(table, row.concept, row.source_concept, row.source_value)
        if not meant:
            self.passed(table, row.concept, row.source_value)
            return None
        column = table.columns
        start = _moment(row.start, row.start_time, column["start"])
        end = _moment(row.end, row.end_time, column["end"]) if "end" in column else None
        if start and end and end.end < start.start:
            raise Malformed(column["end"], "an end after the start")
        if start is None and table not in (om.CONDITION, om.DRUG):  # what is listed without a date is current
            self.report.left(kind, "no date")
            return None
        base = Fact(PATIENT, "", time=start, source=Source(f"{kind}:{row.row}"))
        said = _READERS[kind](self, table, row, meant, base, end)
        stated = [m.stated for m in meant]
        said.levels = frozenset(s.value for s in stated if s.feature is self.m.level and s.value and not s.absent)
        said.key = f"{kind}/{row.row}"
        for code, feature in said.took:
            self.report.took(kind, code, feature)
        return said

    def passed(self, table: om.Table, concept: int, source_value: str, count: int = 1) -> None:
        """Count rows whose codes say nothing here."""
        code, name = self.concepts.named(concept)
        if not concept and not source_value:
            self.report.unread[table.name, "no concept, and no code of the source"] += count
        else:
            told = code if concept else f"{table.columns['source_value']} {source_value[:40]}"
            self.report.unmapped[table.name, told, name] += count

    # -- kinds

    def _condition(
        self, table: om.Table, row: Row, meant: Sequence[Meant], base: Fact, end: TimeSpan | None
    ) -> Statement:
        state = _id(row.state, table.columns["state"])
        status = om.STATES.get(state, Status.UNCONFIRMED) if state else Status.CONFIRMED
        if state and state not in om.STATES:
            self.report.left(table.name, f"condition status {self.concepts.named(state)[0]} is not understood")
        said = self._alone(table, meant, replace(base, status=status))
        said.makes = True
        self._until(said, end, sure=True)
        if state == om.RESOLVED and not said.ends:
            said.ongoing = False
            self.m.over(said, end)
        return said

    def _procedure(
        self, table: om.Table, row: Row, meant: Sequence[Meant], base: Fact, end: TimeSpan | None
    ) -> Statement:
        said = self._alone(table, meant, base)
        said.makes = said.ongoing = True
        return said

    def _drug(self, table: om.Table, row: Row, meant: Sequence[Meant], base: Fact, end: TimeSpan | None) -> Statement:
        stated = _moment(row.verbatim_end, "", table.columns["verbatim_end"])
        if stated and base.time and stated.end < base.time.start:
            raise Malformed(table.columns["verbatim_end"], "an end after the start")
        said = self._alone(table, meant, base)
        # The end of an exposure is mostly reckoned from the days of supply: only a stated end says that it stopped.
        self._until(said, stated or end, sure=bool(stated or row.stopped))
        return said

    def _visit(self, table: om.Table, row: Row, meant: Sequence[Meant], base: Fact, end: TimeSpan | None) -> Statement:
        said = self._alone(table, meant, base)
        self._until(said, end, sure=True)
        return said

    def _measured(
        self, table: om.Table, row: Row, meant: Sequence[Meant], base: Fact, end: TimeSpan | None
    ) -> Statement:
        said = Statement(table.name, start=base.time)
        for one, wider in meant:
            if one.feature.bearer == PROCEDURE_CLASS or one.feature is self.m.level:
                continue
            fact = self._value(table, row, one, base)
            if fact is None:
                continue
            if wider and fact.polarity is Polarity.ABSENT:
                # A narrower finding is not there: that leaves open whether the wider one is.
                fact = replace(fact, polarity=Polarity.INDETERMINATE, cause=Cause.INDETERMINATE)
            said.facts.append(fact)
            said.took.append((one.code, one.feature.name))
            said.loose |= one.feature.kind is Op.QUANTITY
        return said

    # -- parts

    def _alone(self, table: om.Table, meant: Sequence[Meant], base: Fact) -> Statement:
        return self.m.alone(table.name, [m.stated for m in meant], base)

    def _until(self, said: Statement, end: TimeSpan | None, *, sure: bool) -> None:
        """Note the end of what a row says; one on the day of the start ends nothing, for it is how a day is told."""
        said.end, said.ongoing = end, end is None
        later = end is not None and (said.start is None or end.wholly_after(said.start))
        if later and sure:
            self.m.over(said, end)

    def _value(self, table: om.Table, row: Row, stated: Stated, base: Fact) -> Fact | None:
        """The fact of a question with the value of its row, or ``None`` where nothing can be said."""
        feature, kind = stated.feature, table.name
        blank = replace(base, feature=feature.iri, unit=feature.unit, polarity=Polarity.INDETERMINATE)
        if row.number and feature.kind is Op.QUANTITY:
            sign = om.OPERATORS.get(_id(row.operator, "operator_concept_id"), "" if row.operator in ("", "0") else "?")
            ranged = compared(_number(row.number), sign)
            if ranged is None:
                raise Malformed("operator_concept_id", f"one of {', '.join(map(str, om.OPERATORS))}")
            return self.m.measured(kind, ranged, self.concepts.unit(row.unit_concept, row.unit), feature, base)
        if row.value_concept:
            codings, words = self.concepts.answer(row.value_concept)
            return self.m.answered(kind, codings, words, stated, base, blank)
        if row.number:
            self.report.left(kind, "a number where the feature takes no such value")
            return None
        if row.words or row.source_words:
            return replace(blank, cause=Cause.IN_WORDS_ONLY, words=(row.words or row.source_words)[:WORDS])
        if table is om.OBSERVATION and (feature.kind is Op.FINDING or stated.value):
            return stated.fact(base)
        self.report.left(kind, "no value")
        return None

    # -- persons

    def person(self, row: Row) -> tuple[Statement, Malformed | None]:
        """Birth date and sex, and what cannot be read of them."""
        said, wrong = Statement(om.PERSON.name), None
        born, sex = self.m.k.by_name["birthDate"], self.m.k.by_name["sex"]
        base = Fact(PATIENT, "", source=Source(f"{om.PERSON.name}:{row.person}"))
        try:
            if day := _birth(row):
                said.facts.append(replace(base, feature=born.iri, value=day))
                said.took.append(("year_of_birth" if row.year else "birth_datetime", born.name))
        except Malformed as error:
            wrong = error
        for value in sex.values:
            if local(value).lower() == om.SEX.get(row.concept):
                said.facts.append(replace(base, feature=sex.iri, value=frozenset({value})))
                said.took.append(("gender_concept_id", sex.name))
        for code, feature in said.took:
            self.report.took(om.PERSON.name, code, feature)
        return said, wrong


_Reader = Callable[[RowReader, om.Table, Row, Sequence[Meant], Fact, TimeSpan | None], Statement]
_READERS: Mapping[str, _Reader] = {
    om.CONDITION.name: RowReader._condition,
    om.PROCEDURE.name: RowReader._procedure,
    om.DRUG.name: RowReader._drug,
    om.MEASUREMENT.name: RowReader._measured,
    om.OBSERVATION.name: RowReader._measured,
    om.VISIT.name: RowReader._visit,
}


def _birth(row: Row) -> TimeSpan | None:
    """The birth date, as much of it as is known: a date-time is often filled up, and counts only by itself."""
    if not row.year:
        said = _moment("", row.start_time, "birth_datetime")
        return TimeSpan.of(said.start.date()) if said else None
    parts = [f"{_id(row.year, 'year_of_birth'):04}"]
    if row.month:
        parts.append(f"{_id(row.month, 'month_of_birth'):02}")
        if row.day:
            parts.append(f"{_id(row.day, 'day_of_birth'):02}")
    for depth, column in enumerate(("year_of_birth", "month_of_birth", "day_of_birth")[: len(parts)], start=1):
        try:
            span = TimeSpan.parse("-".join(parts[:depth]))
        except ValueError:
            raise Malformed(column, "a date that exists") from None
    return span


def _id(text: str, column: str) -> int:
    match = _WHOLE.fullmatch(text or "0")
    if not match:
        raise Malformed(column, "a whole number")
    return int(match[1])


def _number(text: str) -> Decimal:
    found = Decimal(text) if _NUMBER.fullmatch(text) else Decimal("NaN")
    if not found.is_finite() or abs(found.adjusted()) > HUGE:
        raise Malformed("value_as_number", "a finite number")
    plain = found.normalize()
    return plain.quantize(Decimal(1)) if plain == plain.to_integral_value() else plain


def _moment(day: str, instant: str, column: str) -> TimeSpan | None:
    """The time of a row: its day, or its instant where that lies on the day and is not just midnight."""
    whole = _span(day, column)
    exact = _span(instant, column.replace("_date", "_datetime") if "datetime" not in column else column)
    if whole is None:
        return exact
    if exact and exact.start == exact.end and whole.start <= exact.start <= whole.end:
        return exact
    return whole


def _span(text: str, column: str) -> TimeSpan | None:
    """A date, or a date with a time; a zone is dropped, and midnight is the whole day."""
    if not text:
        return None
    match = _TIME.fullmatch(text)
    try:
        if match:
            year, month, day, minute, second = match.groups()
            clock = f"T{minute}:{second or '00'}" if minute and (minute, second or "00") != ("00:00", "00") else ""
            return TimeSpan.parse(f"{year}-{month}-{day}{clock}")
    except ValueError:
        pass
    raise Malformed(column, "a date as YYYY-MM-DD, with or without a time")
