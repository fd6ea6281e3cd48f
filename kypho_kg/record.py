"""What was recorded about a patient, when, and from where.

A record knows no RDF and judges nothing: it holds dated facts with their sources, as loosely as they were
stated. IRIs of features are plain strings.
"""

from __future__ import annotations

import calendar
import enum
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Self


class Mood(enum.StrEnum):
    """How a statement stands to reality. Only what was observed counts as observed."""

    OBSERVED = "observed"
    PLANNED = "planned"
    ORDERED = "ordered"


class Polarity(enum.StrEnum):
    """What a fact says of its feature."""

    PRESENT = "present"
    ABSENT = "absent"
    INDETERMINATE = "indeterminate"


class Status(enum.StrEnum):
    """Verification status, after FHIR ``condition-ver-status``."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"
    PROVISIONAL = "provisional"
    DIFFERENTIAL = "differential"
    REFUTED = "refuted"
    ENTERED_IN_ERROR = "entered-in-error"


class Cause(enum.StrEnum):
    """Why something is unknown. The values are local names of the ontology's individuals."""

    NOT_RECORDED = "NotRecorded"
    PENDING = "Pending"
    NOT_ASSESSABLE = "NotAssessable"
    INDETERMINATE = "Indeterminate"
    STALE = "Stale"
    CONFLICTING = "Conflicting"
    INVALID = "Invalid"
    IMPRECISE = "Imprecise"
    IN_WORDS_ONLY = "InWordsOnly"
    NOT_ATTRIBUTED = "NotAttributed"
    LEFT_OPEN = "LeftOpenBySource"


_TIME = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2}))?)?)?)?", re.ASCII)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """The time of a fact as an interval, so that a partial date is never padded.

    ``start`` is the first and ``end`` the last instant that the statement allows, both naive local times.
    """

    start: datetime
    end: datetime
    text: str

    @classmethod
    @functools.lru_cache(maxsize=4096)  # a record repeats its dates
    def parse(cls, text: str) -> Self:
        """Read ``YYYY``, ``YYYY-MM``, ``YYYY-MM-DD`` or a date with a time.

        :raises ValueError: when the text is none of these or no such date exists.
        """
        match = _TIME.fullmatch(text.strip())
        if not match:
            raise ValueError(f"{text!r} is not a date of the form YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm")
        year, month, day, hour, minute, second = (int(g) if g else None for g in match.groups())
        assert year is not None
        try:
            if hour is not None and minute is not None:
                start = datetime(year, month or 1, day or 1, hour, minute, second or 0)
                return cls(start, start, text.strip())
            start = datetime(year, month or 1, day or 1)
            if day is not None:
                end = start + _DAY
            elif month is not None:
                end = datetime(year, month, calendar.monthrange(year, month)[1]) + _DAY
            else:
                end = datetime(year, 12, 31) + _DAY
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{text!r} is not a date that exists ({error})") from None
        return cls(start, end - timedelta(seconds=1), text.strip())

    @classmethod
    def of(cls, day: date) -> Self:
        """The whole of one day."""
        return cls.parse(day.isoformat())

    def wholly_after(self, other: TimeSpan, days: int = 0) -> bool:
        """Whether this lies later than the other by more than the given number of days."""
        gap = (self.start.date() - other.end.date()).days
        return self.start > other.end and (days == 0 or gap > days)

    def days_until(self, day: date) -> tuple[int, int]:
        """Smallest and largest number of whole days from this time to a date."""
        return (day - self.end.date()).days, (day - self.start.date()).days

    def until(self, day: date) -> TimeSpan:
        """This time with its end no later than the given day."""
        last = datetime(day.year, day.month, day.day) + _DAY - timedelta(seconds=1)
        return self if self.end <= last else replace(self, end=max(self.start, last))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Range:
    """A decimal value or an interval of values; ``None`` is no bound."""

    low: Decimal | None
    high: Decimal | None
    low_open: bool = False
    high_open: bool = False

    @classmethod
    def exactly(cls, value: Decimal | int) -> Self:
        """The range that holds one value."""
        return cls(Decimal(value), Decimal(value))

    @property
    def exact(self) -> Decimal | None:
        """The value where the range holds just one."""
        return self.low if self.low is not None and self.low == self.high else None

    def within(self, other: Range) -> bool:
        """Whether every value of this range lies in the other."""
        low = other.low is None or (
            self.low is not None
            and (self.low > other.low or (self.low == other.low and (self.low_open or not other.low_open)))
        )
        high = other.high is None or (
            self.high is not None
            and (self.high < other.high or (self.high == other.high and (self.high_open or not other.high_open)))
        )
        return low and high

    def intersection(self, other: Range) -> Range | None:
        """The common values, or ``None`` where there are none."""
        low, low_open = _tighter(self.low, self.low_open, other.low, other.low_open, highest=True)
        high, high_open = _tighter(self.high, self.high_open, other.high, other.high_open, highest=False)
        if low is not None and high is not None and (low > high or (low == high and (low_open or high_open))):
            return None
        return Range(low, high, low_open, high_open)

    def scaled(self, factor: Decimal) -> Range:
        """The range in another unit."""
        return replace(
            self,
            low=None if self.low is None else _plain(self.low * factor),
            high=None if self.high is None else _plain(self.high * factor),
        )

    def shifted(self, low: Decimal, high: Decimal) -> Range:
        """The range with something between ``low`` and ``high`` added."""
        return replace(
            self,
            low=None if self.low is None else self.low + low,
            high=None if self.high is None else self.high + high,
        )

    def negated(self) -> Range:
        """The range of the negative values."""
        low = None if self.high is None else -self.high
        high = None if self.low is None else -self.low
        return Range(low, high, self.high_open, self.low_open)

    def __str__(self) -> str:
        if self.exact is not None:
            return str(self.exact)
        if self.low is None and self.high is None:
            return "any"
        if self.high is None:
            return f"{'>' if self.low_open else '>='} {self.low}"
        if self.low is None:
            return f"{'<' if self.high_open else '<='} {self.high}"
        return f"{self.low}{' (excl.)' if self.low_open else ''} to {self.high}{' (excl.)' if self.high_open else ''}"


def highest(values: Sequence[Range]) -> Range:
    """What is known of the highest of several values that are themselves known as ranges."""
    floors = [(v.low, v.low_open) for v in values if v.low is not None]
    tops = [(v.high, not v.high_open) for v in values if v.high is not None]
    low, low_open = max(floors, default=(None, False))
    high, closed = max(tops) if len(tops) == len(values) else (None, True)
    return Range(low, high, low_open, not closed)


def _tighter(
    a: Decimal | None, a_open: bool, b: Decimal | None, b_open: bool, *, highest: bool
) -> tuple[Decimal | None, bool]:
    if a is None or b is None:
        return (b, b_open) if a is None else (a, a_open)
    if a == b:
        return a, a_open or b_open
    return (a, a_open) if (a > b) == highest else (b, b_open)


def _plain(value: Decimal) -> Decimal:
    """Four decimal places at most, without trailing zeros or an exponent."""
    with localcontext(prec=64):  # a huge number is out of range, which a shape says; it is no crash
        rounded = round(value, 4).normalize()
        return rounded.quantize(Decimal(1)) if rounded == rounded.to_integral_value() else rounded


Value = Range | frozenset[str] | str | TimeSpan | None
"""Quantity: Range. Choice: set of individuals of which one holds. Category: class. Date: TimeSpan. Finding: None."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a fact was read: a resource, a table row or a line of a file, and the document it cites."""

    origin: str
    document: str = ""
    date: str = ""
    author: str = ""
    quote: str = ""

    def __str__(self) -> str:
        said = ", ".join(filter(None, (self.document, self.date, self.author)))
        return (said or self.origin) + (f": “{self.quote}”" if self.quote else "")


PATIENT = "patient"
PROCEDURE = "procedure"
LESION = "lesion:"
"""Subjects of facts: ``patient``, ``procedure`` or ``lesion:`` with the id of the lesion."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One row of the record."""

    subject: str
    feature: str
    """IRI: the class of a finding, or the property of any other feature."""
    value: Value = None
    polarity: Polarity = Polarity.PRESENT
    mood: Mood = Mood.OBSERVED
    time: TimeSpan | None = None
    """``None`` means stated as current on the as-of date."""
    status: Status = Status.CONFIRMED
    cause: Cause | None = None
    """Why an indeterminate fact is unknown."""
    reason: str = ""
    words: str = ""
    """The statement in words where there is no value."""
    unit: str = ""
    source: Source = Source("")
    overridden_by: Source | None = None
    """The overlay that replaced this fact; it stays in the proof and decides nothing."""
    invalid: str = ""
    """The shape that this fact does not conform to."""
    rule: str = ""
    """IRI of the bridge, closure, policy rule or kind of derivation that yielded this fact; empty if asserted."""
    premises: tuple[Fact, ...] = ()
    """The facts from which a rule derived this one."""
    timeless: bool = False
    """Derived through an axiom: no date decides a contradiction, both sides are withheld."""


@dataclass(frozen=True, slots=True)
class Lesion:
    """A vertebral lesion of the patient; its level and everything else are facts."""

    id: str


def is_postal_code(state: str) -> bool:
    """Whether a text has the form of a state's postal code: two capitals."""
    return len(state) == 2 and state.isalpha() and state.isupper()


@dataclass(frozen=True, slots=True)
class Procedure:
    """What is proposed, as far as it is not a fact: which lesions, when and in which state."""

    lesions: tuple[str, ...] | None = None
    service_date: TimeSpan | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """Everything recorded about one patient."""

    patient: str
    lesions: tuple[Lesion, ...] = ()
    facts: tuple[Fact, ...] = ()
    procedure: Procedure | None = None
    as_of: date | None = None
    files: tuple[str, ...] = ()
    constructed: bool = False
    citation: str = ""
    notes: tuple[str, ...] = field(default=())
    mappings: tuple[str, ...] = ()
    """The sha256 of each mapping set that said what the codes of its sources mean."""

    @property
    def place(self) -> str:
        """Where the record was read, for messages: they name no patient."""
        return ", ".join(self.files) or "a record without a file"
