"""Fact tables in Arrow to arrays of numbers: one entry per fact, with subject, feature, time, value and what it counts.

The columns are those of docs/fact-table.md. What cannot be read is counted with its reason and left out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kypho_kg.cohort import columns
from kypho_kg.cohort.layout import (
    CATEGORY,
    CHOICE,
    CODE,
    DATE,
    FINDING,
    HIGHEST,
    LOWEST,
    NO_CAUSE,
    QUANTITY,
    SCALE,
    STATED,
    Bytes,
    Flags,
    Ints,
    Layout,
    Words,
)
from kypho_kg.cohort.subjects import Subjects, patients_of, subject_of
from kypho_kg.record import Cause, Mood, Polarity, Status

DAY = 86_400
PRESENT, ABSENT, UNCLEAR = range(3)
_POLARITIES = {Polarity.PRESENT: PRESENT, Polarity.ABSENT: ABSENT, Polarity.INDETERMINATE: UNCLEAR}
_SURE, _UNSURE, _VOID = range(3)
_STATUSES = {
    **dict.fromkeys(Status, _SURE),
    **dict.fromkeys((Status.UNCONFIRMED, Status.PROVISIONAL, Status.DIFFERENTIAL), _UNSURE),
    **dict.fromkeys((Status.REFUTED, Status.ENTERED_IN_ERROR), _VOID),
}
_MOODS = {mood: place for place, mood in enumerate(Mood)}


@dataclass(slots=True)
class Rows:
    """Facts as arrays of one length, in the order of the table."""

    subject: Ints
    feature: npt.NDArray[np.int32]
    polarity: Bytes
    cause: Bytes
    start: Ints
    end: Ints
    """Seconds since 1970, the end no later than the as-of day."""
    dated: Flags

    def __len__(self) -> int:
        return len(self.subject)

    def where(self, chosen: npt.NDArray[Any]) -> Self:
        """Some of the rows."""
        return type(self)(*(getattr(self, f.name)[chosen] for f in fields(self)))


@dataclass(slots=True)
class Values(Rows):
    """Facts of categories, choices, quantities and dates."""

    low: Ints
    high: Ints
    """Quantities as scaled integers; dates as days."""
    bits: Words
    """Choices: individuals. Categories: the place of the class."""


@dataclass(slots=True)
class Late:
    """Facts that are too old, and facts that are only ordered or intended, by feature and subject."""

    old: tuple[npt.NDArray[np.int32], Ints]
    pending: tuple[npt.NDArray[np.int32], Ints]


@dataclass(slots=True)
class Facts:
    """What is recorded of the subjects of a chunk."""

    findings: Rows
    late_findings: Late
    values: Values
    late_values: Late
    rejected: dict[str, Ints]
    """Subjects of whom a row is malformed, by reason: their patients are not judged on the rest."""


def rows_of(facts: pa.Table, subjects: Subjects, layout: Layout) -> Facts:
    """The facts of a table that is sorted by patient, once for each as-of date of their patient."""
    feature = columns.coded(facts["feature"], lambda name: layout.by_name.get(name, -1))
    take, patient = patients_of(facts["patient"], subjects)
    if len(take) != facts.num_rows or (len(take) and take[-1] != len(take) - 1):
        facts, feature = facts.take(pa.array(take)), feature[take]
    subject = subject_of(facts["lesion"], patient, layout.bearer[feature], subjects)
    return _read(facts, feature, subject, patient, subjects.as_of[patient], layout)


def _read(
    facts: pa.Table, feature: npt.NDArray[np.int32], subject: Ints, patient: Ints, as_of: Ints, layout: Layout
) -> Facts:
    """What each fact says, when, and what it counts for (design: section 2)."""
    kind = layout.kind[feature]
    polarity = columns.coded(facts["polarity"], lambda p: _POLARITIES.get(p, -1)).astype(np.int8)
    status = columns.coded(facts["status"], lambda s: _STATUSES.get(s, -1)).astype(np.int8)
    mood = columns.coded(facts["mood"], lambda m: _MOODS.get(m, -1)).astype(np.int8)
    cause = columns.coded(facts["cause"], _cause, missing=NO_CAUSE).astype(np.int16)
    start, end = columns.seconds(facts["time_start"]), columns.seconds(facts["time_end"])
    dated = (start != LOWEST) & (end != LOWEST)
    no_interval = ((start != LOWEST) != (end != LOWEST)) | (dated & (start > end))
    today = as_of * DAY
    last = today + (DAY - 1)
    start, end = np.where(dated, start, today), np.where(dated, end, last)

    strange = (polarity < 0) | (status < 0) | (mood < 0) | (cause < 0)
    rejected: dict[str, Ints] = {}
    for reason, wrong in (
        ("a feature that the ontology does not know", feature < 0),
        ("a lesion that the cases do not list", subject < 0),
        ("a polarity, status, mood or cause that is none", strange),
        ("a time that is no interval", no_interval),
    ):
        if wrong.any():
            rejected[reason] = np.unique(patient[wrong])
    counts = (status != _VOID) & (start <= last) & (feature >= 0) & (subject >= 0) & ~strange
    lookback = layout.lookback[feature]
    old = counts & (lookback >= 0) & (start < today - lookback * np.int64(DAY))
    pending = counts & ~old & (mood != 0) & ~layout.order_suffices[feature]
    used = counts & ~old & ~pending
    why: Bytes = np.where(cause == NO_CAUSE, CODE[Cause.INDETERMINATE], cause).astype(np.uint8)
    said: Bytes = np.where(status == _UNSURE, np.int8(UNCLEAR), polarity).view(np.uint8)
    end = np.minimum(end, last)

    def late(finding: Flags) -> Late:
        return Late(*((feature[i], subject[i]) for i in (np.flatnonzero(x & finding) for x in (old, pending))))

    finding = kind == FINDING
    of_finding = np.flatnonzero(used & finding)
    every = Rows(subject, feature, said, why, start, end, dated)
    findings = every.where(of_finding)
    chosen = np.flatnonzero(~finding)
    given = _given(facts)
    stray = finding & (polarity != UNCLEAR) & np.logical_or.reduce(list(given.values()))
    if stray.any():
        rejected["a finding with a value"] = np.unique(patient[stray])
    values, wrong = _values(facts, chosen, kind[chosen], feature[chosen], polarity[chosen], given, layout)
    for reason, rows in wrong.items():
        if rows.any():
            rejected[reason] = np.unique(patient[chosen[rows]])
    low, high, bits, invalid = values
    said[chosen[invalid]] = UNCLEAR
    why[chosen[invalid]] = CODE[Cause.INVALID]
    kept = used[chosen]
    of_value = chosen[kept]
    some = every.where(of_value)
    table = Values(
        some.subject, some.feature, some.polarity, some.cause, some.start, some.end, some.dated, low[kept], high[kept],
        bits[kept],
    )  # fmt: skip
    _advance(table, np.flatnonzero((layout.advances[table.feature] != "") & table.dated), as_of[of_value], layout)
    return Facts(findings, late(finding), table, late(~finding), rejected)


def _values(
    facts: pa.Table,
    chosen: npt.NDArray[np.intp],
    kind: Bytes,
    feature: npt.NDArray[np.int32],
    polarity: npt.NDArray[np.int8],
    given: dict[str, Flags],
    layout: Layout,
) -> tuple[tuple[Ints, Ints, Words, Flags], dict[str, Flags]]:
    """Ends, bits and implausibility of some facts, and which of them are malformed."""
    low, high = _ends(facts, chosen, kind)
    bits, missing, unknown = _bits(facts["value"], chosen, feature, layout)
    given = {name: rows[chosen] for name, rows in given.items()}
    clear, number, date = polarity != UNCLEAR, kind == QUANTITY, kind == DATE
    word = (kind == CHOICE) | (kind == CATEGORY)
    silent = (
        (word & missing)
        | (number & (low == LOWEST) & (high == HIGHEST))
        | (date & ((low == LOWEST) | (high == HIGHEST)))
    )
    other = (
        (word & (given["number"] | given["date"]))
        | (number & (given["value"] | given["date"]))
        | (date & (given["value"] | given["number"]))
    )
    wrong = {
        "a value that its feature does not have": clear & word & unknown,
        "a value is missing": clear & silent,
        "a value of another kind": clear & other,
        "a range that holds no number or day": clear & (number | date) & (low > high),
        "an absent quantity or date": (polarity == ABSENT) & (number | date),
    }
    return (low, high, bits, _invalid(low, high, kind, feature, layout)), wrong


def _given(facts: pa.Table) -> dict[str, Flags]:
    """Whether a fact gives a value in words, a number or a date."""
    pairs = {"value": ("value", "value"), "number": ("low", "high"), "date": ("date_start", "date_end")}
    return {k: ~columns.nulls(facts[a]) | ~columns.nulls(facts[b]) for k, (a, b) in pairs.items()}


def _invalid(low: Ints, high: Ints, kind: Bytes, feature: npt.NDArray[np.int32], layout: Layout) -> Flags:
    """Values that a shape does not let pass (shapes/fact.ttl)."""
    number = kind == QUANTITY
    least, most = layout.low[feature], layout.high[feature]
    # An end that does not count is stated all the same.
    stated_low = np.where(low & 1, low - 1, low)
    stated_high = np.where(high & 1, high + 1, high)
    outside = np.zeros(len(low), bool)
    for stated, given in ((stated_low, low != LOWEST), (stated_high, high != HIGHEST)):
        broken = layout.whole[feature] & (stated % (2 * 10**6) != 0)
        outside |= given & ((stated < least) | (stated > most) | broken)
    return (number & outside) | ((kind == DATE) & (low != LOWEST) & (low < least))


def _advance(rows: Values, some: npt.NDArray[np.intp], as_of: Ints, layout: Layout) -> None:
    """Stated ages and durations as they are on the as-of date."""
    if not len(some):
        return
    day = as_of[some]
    least, most = day - rows.end[some] // DAY, day - rows.start[some] // DAY
    unit = layout.advances[rows.feature[some]]
    low = np.select([unit == "a", unit == "wk"], [least // 366 * SCALE, weeks(least)], least * SCALE)
    high = np.select([unit == "a", unit == "wk"], [-(-most // 365) * SCALE, weeks(most)], most * SCALE)
    value = rows.low[some] != LOWEST
    rows.low[some] = np.where(value, rows.low[some] + low, LOWEST)
    rows.high[some] = np.where(rows.high[some] != HIGHEST, rows.high[some] + high, HIGHEST)


def weeks(days: Ints) -> Ints:
    """Days as weeks to four decimal places, as scaled integers."""
    return (days * 20_000 + 7) // 14 * (SCALE // 10_000)


def _cause(name: str) -> int:
    if name not in list(Cause):
        return -1
    return STATED if name == Cause.NOT_RECORDED else CODE[Cause(name)]


def _bits(
    column: pa.ChunkedArray, chosen: npt.NDArray[np.intp], feature: npt.NDArray[np.int32], layout: Layout
) -> tuple[Words, Flags, Flags]:
    """The values of choices and categories, which facts have none, and which have one that their feature has not."""
    texts = columns.one(column)
    if pa.types.is_null(texts.type):
        none = np.zeros(len(chosen), bool)
        return np.zeros(len(chosen), np.uint64), ~none, none
    if not pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_encode()
    known = texts.dictionary.to_pylist()
    width = len(known) + 1
    code = np.asarray(texts.indices.fill_null(len(known)))[chosen]
    pair = np.maximum(feature, 0).astype(np.int64) * width + code
    table = np.zeros(len(layout.features) * width, np.uint64)
    wrong = np.zeros(len(table), bool)
    for one in np.flatnonzero(np.bincount(pair, minlength=len(table))):
        place, text = divmod(int(one), width)
        if text < len(known):
            decoded = layout.decoded(place, known[text])
            wrong[one] = decoded is None
            table[one] = decoded or 0
    return table[pair], code == len(known), wrong[pair]


def _ends(facts: pa.Table, chosen: npt.NDArray[np.intp], kind: Bytes) -> tuple[Ints, Ints]:
    """Ends of quantities as scaled integers, of dates as days."""
    low, high = columns.decimals(facts["low"], LOWEST)[chosen], columns.decimals(facts["high"], HIGHEST)[chosen]
    low += (low != LOWEST) & columns.truths(facts["low_open"])[chosen]
    high -= (high != HIGHEST) & columns.truths(facts["high_open"])[chosen]
    date = np.flatnonzero(kind == DATE)
    if len(date):
        low[date] = columns.days(facts["date_start"], missing=LOWEST)[chosen[date]]
        high[date] = columns.days(facts["date_end"], missing=HIGHEST)[chosen[date]]
    return low, high
