"""Fact tables in Arrow to arrays of numbers: one entry per fact, with subject, feature, time, value and what it counts.

The columns are those of docs/fact-table.md. What cannot be read is counted with its reason and left out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kypho_kg.cohort import columns
from kypho_kg.cohort.layout import (
    CATEGORY,
    CHOICE,
    CODE,
    DATE,
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
USED, PENDING, OLD = range(3)
"""Facts that count, that are only planned or ordered, and that are too old."""


@dataclass(slots=True)
class Rows:
    """Facts as arrays of one length, in the order of the table."""

    subject: Ints
    feature: npt.NDArray[np.int32]
    polarity: Bytes
    use: Bytes
    cause: Bytes
    start: Ints
    end: Ints
    """Seconds since 1970, the end no later than the as-of day."""
    dated: Flags
    low: Ints
    high: Ints
    """Quantities as scaled integers; dates as days."""
    bits: Words
    """Choices: individuals. Categories: the place of the class."""

    def __len__(self) -> int:
        return len(self.subject)

    def where(self, chosen: npt.NDArray[Any]) -> Rows:
        """Some of the rows."""
        return Rows(*(getattr(self, name)[chosen] for name in Rows.__slots__))


@dataclass(slots=True)
class Left:
    """What was left out of a table, by reason."""

    counts: Counter[str] = field(default_factory=Counter)

    def out(self, reason: str, rows: npt.NDArray[np.bool_]) -> None:
        """Count the rows that are left out for a reason."""
        n = int(rows.sum())
        if n:
            self.counts[reason] += n


def rows_of(facts: pa.Table, subjects: Subjects, layout: Layout, left: Left) -> Rows:
    """The facts of a table that is sorted by patient, once for each as-of date of their patient."""
    feature = columns.coded(facts["feature"], lambda name: layout.by_name.get(name, -1))
    left.out("a feature that the ontology does not know", feature < 0)
    take, patient = patients_of(facts["patient"], subjects)
    left.out("a patient of whom no lesion is known", np.bincount(take, minlength=len(feature)) == 0)
    feature = feature[take]
    subject = subject_of(facts["lesion"], take, patient, layout.bearer[feature], subjects)
    left.out("a lesion that the cases do not list", subject < 0)
    kept = (feature >= 0) & (subject >= 0)
    if not kept.all():
        take, patient, feature, subject = take[kept], patient[kept], feature[kept], subject[kept]
    if len(take) != facts.num_rows or (len(take) and take[-1] != len(take) - 1):
        facts = facts.take(pa.array(take))
    return _read(facts, feature, subject, subjects.as_of[patient], layout, left)


def _read(
    facts: pa.Table, feature: npt.NDArray[np.int32], subject: Ints, as_of: Ints, layout: Layout, left: Left
) -> Rows:
    """What each fact says, when, and what it counts for (design: section 2)."""
    kind = layout.kind[feature]
    polarity = columns.coded(facts["polarity"], lambda p: _POLARITIES.get(p, -1)).astype(np.int8)
    status = columns.coded(facts["status"], lambda s: _STATUSES.get(s, -1))
    mood = columns.coded(facts["mood"], lambda m: _MOODS.get(m, -1))
    cause = columns.coded(facts["cause"], _cause, missing=NO_CAUSE)
    start, end = columns.seconds(facts["time_start"]), columns.seconds(facts["time_end"])
    dated = (start != LOWEST) & (end != LOWEST)
    today = as_of * DAY
    start, end = np.where(dated, start, today), np.where(dated, end, today + DAY - 1)
    low, high = _ends(facts, kind)
    bits, unknown = _bits(facts["value"], feature, layout)

    known = (polarity >= 0) & (status >= 0) & (mood >= 0) & (cause >= 0)
    left.out("a polarity, status, mood or cause that is none", ~known)
    left.out("a value that its feature does not have", unknown)
    silent = (polarity == PRESENT) & (
        (((kind == CHOICE) | (kind == CATEGORY)) & columns.nulls(facts["value"]))
        | ((kind == QUANTITY) & (low == LOWEST) & (high == HIGHEST))
        | ((kind == DATE) & ((low == LOWEST) | (high == HIGHEST)))
    )
    left.out("a value is missing", silent & ~unknown)
    strange = (polarity == ABSENT) & ((kind == QUANTITY) | (kind == DATE))
    left.out("an absent quantity or date", strange)

    day = start // DAY
    keep = known & ~unknown & ~silent & ~strange & (status != _VOID) & (day <= as_of)
    lookback = layout.lookback[feature]
    old = (lookback >= 0) & (as_of - day > lookback)
    pending = (mood != 0) & ~layout.order_suffices[feature]
    use = np.where(old, OLD, np.where(pending, PENDING, USED)).astype(np.uint8)
    invalid = _invalid(low, high, kind, feature, layout)
    unsure = (status == _UNSURE) | (polarity == UNCLEAR)
    cause = np.where(invalid, CODE[Cause.INVALID], np.where(cause == NO_CAUSE, CODE[Cause.INDETERMINATE], cause))
    rows = Rows(
        subject,
        feature,
        np.where(invalid | unsure, UNCLEAR, polarity).astype(np.uint8),
        use,
        cause.astype(np.uint8),
        start,
        np.minimum(end, today + DAY - 1),
        dated,
        low,
        high,
        bits,
    )
    advancing = np.flatnonzero((layout.advances[feature] != "") & dated)
    _advance(rows, advancing, as_of, layout)
    return rows if keep.all() else rows.where(keep)


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
    outside |= (low != LOWEST) & (high != HIGHEST) & (stated_low > stated_high)
    return (number & outside) | ((kind == DATE) & (low != LOWEST) & (low < least))


def _advance(rows: Rows, some: npt.NDArray[np.intp], as_of: Ints, layout: Layout) -> None:
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


def _bits(column: pa.ChunkedArray, feature: npt.NDArray[np.int32], layout: Layout) -> tuple[Words, Flags]:
    """The values of choices and categories, and which of them their feature does not have."""
    texts = columns.one(column)
    if pa.types.is_null(texts.type):
        return np.zeros(len(texts), np.uint64), np.zeros(len(texts), bool)
    if not pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_encode()
    known = texts.dictionary.to_pylist()
    width = len(known) + 1
    pair = feature.astype(np.int64) * width + np.asarray(texts.indices.fill_null(len(known)))
    table = np.zeros(len(layout.features) * width, np.uint64)
    wrong = np.zeros(len(table), bool)
    for one in np.flatnonzero(np.bincount(pair, minlength=len(table))):
        place, text = divmod(int(one), width)
        if text < len(known):
            decoded = layout.decoded(place, known[text])
            wrong[one] = decoded is None
            table[one] = decoded or 0
    return table[pair], wrong[pair]


def _ends(facts: pa.Table, kind: Bytes) -> tuple[Ints, Ints]:
    """Ends of quantities as scaled integers, of dates as days."""
    low, high = columns.decimals(facts["low"], LOWEST), columns.decimals(facts["high"], HIGHEST)
    low = np.where((low != LOWEST) & columns.truths(facts["low_open"]), low + 1, low)
    high = np.where((high != HIGHEST) & columns.truths(facts["high_open"]), high - 1, high)
    date = kind == DATE
    if date.any():
        low = np.where(date, columns.days(facts["date_start"], missing=LOWEST), low)
        high = np.where(date, columns.days(facts["date_end"], missing=HIGHEST), high)
    return low, high
