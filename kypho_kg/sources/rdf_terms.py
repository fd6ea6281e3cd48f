"""Terms of RDF as values of a record: literals, individuals and dates. Nothing is repaired."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from kypho_kg import record as r
from kypho_kg.record import Polarity, TimeSpan
from kypho_kg.store import Literal, Term
from kypho_kg.vocabulary import KYPHO, XSD, local

_E = TypeVar("_E", bound=StrEnum)


class TermError(ValueError):
    """What is wrong with a term, and what would be right."""


def shown(term: Term) -> str:
    """A term in the words of a message."""
    if isinstance(term, Literal):
        return f"{term.text[:60]!r} of {term.datatype.removeprefix(XSD)}"
    return "a node without a name" if term.startswith("_:") else local(term)


def literal(*types: str, form: str = ".*", expected: str = "a text") -> Callable[[Term], str]:
    """Read a literal of one of the datatypes whose text has the form."""

    def read(term: Term) -> str:
        text = term.text if isinstance(term, Literal) and term.datatype in [XSD + t for t in types] else None
        if text is None or not re.fullmatch(form, text, re.ASCII | re.DOTALL):
            raise TermError(shown(term), expected)
        return text

    return read


state_code = literal("string", form="[A-Z]{2}", expected="two capitals, a postal code")
text_of = literal("string")
digits = literal("decimal", "integer", form=r"[-+]?(\d{1,30}(\.\d*)?|\.\d+)", expected="an xsd:decimal")
date_text = literal("date", form=r"\d{4}-\d\d-\d\d", expected="an xsd:date YYYY-MM-DD")
yes_or_no = literal("boolean", form="true|false|1|0", expected="true or false")


def day(term: Term) -> date:
    """Read an xsd:date.

    :raises TermError: for anything else.
    """
    try:
        return date.fromisoformat(date_text(term))
    except ValueError as error:
        raise TermError(f"{shown(term)}, no date that exists", "YYYY-MM-DD") from error


def number(term: Term) -> Decimal:
    """Read an xsd:decimal.

    :raises TermError: for anything else.
    """
    return Decimal(digits(term))


def member(kind: type[_E], suffix: str = "") -> Callable[[Term], _E]:
    """Read an individual that stands for a member of an enumeration."""
    names = {KYPHO + "".join(w[:1].upper() + w[1:] for w in m.value.split("-")) + suffix: m for m in kind}

    def read(term: Term) -> _E:
        if isinstance(term, str) and term in names:
            return names[term]
        raise TermError(shown(term), f"one of {', '.join(map(local, names))}")

    return read


def time_span(days: Iterable[date], text: str | None) -> TimeSpan | None:
    """The time of one or two days as it was stated, or else in the usual form of a day, a month or a year."""
    ends = sorted(set(days))
    if not ends and text is None:
        return None
    if len(ends) > 2:
        raise TermError(f"{len(ends)} dates", "one day, or the first and the last")
    for said in [text] if text is not None else [ends[0].isoformat()[:size] for size in (10, 7, 4)]:
        try:
            first, _, last = said.partition("/")
            span = TimeSpan.parse(first)
            span = replace(span, end=TimeSpan.parse(last).end, text=said) if last else span
        except ValueError as error:
            if ends and not str(error).endswith(")"):  # words for the time, where the dates say what it is
                continue
            raise TermError(str(error), "a date that exists") from error
        if not ends or [span.start.date(), span.end.date()] == [ends[0], ends[-1]]:
            return span
        if text is not None:
            raise TermError(f"{text[:60]!r} with the dates {ends[0]} and {ends[-1]}", "dates of that time")
    return TimeSpan(
        TimeSpan.of(ends[0]).start, TimeSpan.of(ends[-1]).end, f"{ends[0]}/{ends[-1]}" if text is None else text
    )


MOOD, STATUS, CAUSE, POLARITY = member(r.Mood), member(r.Status), member(r.Cause), member(Polarity, "Polarity")
