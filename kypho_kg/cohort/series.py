"""The resolved state of categories, choices, quantities and dates, for all subjects at once (compare ``snapshot.py``).

Most features of most subjects were stated once; only what was stated several times is sorted and folded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kypho_kg.cohort.layout import (
    CATEGORY,
    CHOICE,
    CODE,
    DATE,
    HIGHEST,
    LOWEST,
    QUANTITY,
    SCALE,
    STATED,
    Bytes,
    Flags,
    Ints,
    Layout,
    Words,
)
from kypho_kg.cohort.rows import ABSENT, DAY, PRESENT, UNCLEAR, Late, Values
from kypho_kg.derivation import ROUNDING
from kypho_kg.record import Cause
from kypho_kg.snapshot import PRIORITY

NOT_RECORDED = CODE[Cause.NOT_RECORDED]
CONFLICTING = CODE[Cause.CONFLICTING]
_SLACK = int(ROUNDING * SCALE)
RANK = np.full(256, 255, np.uint8)
"""Of each cause by its code, how far it goes before others where several hold."""
RANK[[CODE[c] for c in PRIORITY]] = np.arange(len(PRIORITY))
RANK[STATED] = RANK[NOT_RECORDED]
BY_RANK = np.array([CODE[c] for c in PRIORITY], np.uint8)
_stated = np.where(BY_RANK == NOT_RECORDED, STATED, BY_RANK).astype(np.uint8)


@dataclass(slots=True)
class Series:
    """States by slot of the kind and by subject."""

    low: Ints
    high: Ints
    """Quantities: [slot, subject]; no value where the lower is the larger."""
    date_low: Ints
    date_high: Ints
    bits: Words
    """Choices: the individuals of which one holds; none where nothing is known."""
    out: Words
    """Choices: individuals ruled out."""
    cls: npt.NDArray[np.int16]
    """Categories: the place of the class, -1 where none is known."""
    cls_out: Words
    gap: Bytes
    """The cause of an unknown, by slot among all these features and by subject."""
    time: dict[int, tuple[Ints, Ints]]
    """By feature: start and end of the newest fact on which a value rests, for the features that are asked for."""
    time_out: dict[int, tuple[Ints, Ints]]
    """The same of what rules values out."""

    def has(self, layout: Layout, feature: int) -> Flags:
        """Whether a value is known, by subject."""
        slot = layout.slot[feature]
        if layout.kind[feature] == QUANTITY:
            return self.low[slot] <= self.high[slot]
        if layout.kind[feature] == DATE:
            return self.date_low[slot] <= self.date_high[slot]
        return self.bits[slot] != 0 if layout.kind[feature] == CHOICE else self.cls[slot] >= 0

    def excluded(self, layout: Layout, feature: int) -> Words:
        """What is ruled out, by subject."""
        slot = layout.slot[feature]
        return self.out[slot] if layout.kind[feature] == CHOICE else self.cls_out[slot]

    def why(self, layout: Layout, feature: int) -> Bytes:
        """The cause of an unknown, by subject; a view."""
        return self.gap[layout.value_slot[feature]]

    def entry(self, layout: Layout, feature: int) -> Flags:
        """Whether anything is recorded of the feature, by subject."""
        found = self.has(layout, feature) | (self.why(layout, feature) != NOT_RECORDED)
        if layout.kind[feature] in (CHOICE, CATEGORY):
            found |= self.excluded(layout, feature) != 0
        return found


def empty(layout: Layout, size: int, timed: npt.NDArray[np.int32]) -> Series:
    """States in which nothing is recorded."""
    n = layout.count

    def full(kind: int, value: int, dtype: type) -> npt.NDArray:  # type: ignore[type-arg]
        return np.full((n[kind], size), value, dtype)

    return Series(
        full(QUANTITY, HIGHEST, np.int64),
        full(QUANTITY, LOWEST, np.int64),
        full(DATE, HIGHEST, np.int64),
        full(DATE, LOWEST, np.int64),
        full(CHOICE, 0, np.uint64),
        full(CHOICE, 0, np.uint64),
        full(CATEGORY, -1, np.int16),
        full(CATEGORY, 0, np.uint64),
        np.full((layout.value_count, size), NOT_RECORDED, np.uint8),
        *({int(f): (np.full(size, LOWEST), np.full(size, LOWEST)) for f in timed} for _ in range(2)),
    )


def resolve_series(rows: Values, late: Late, layout: Layout, size: int, timed: npt.NDArray[np.int32]) -> Series:
    """States of all features but findings.

    :param timed: features of whose values the time is kept.
    """
    states = empty(layout, size, timed)
    key = layout.value_slot[rows.feature] * np.int64(size) + rows.subject
    last = np.full(layout.value_count * size, -1, np.int32)
    place = np.arange(len(key), dtype=np.int32)
    last[key] = place
    again = last[key] != place  # all but the last of those that stand several times
    several = np.zeros(len(last), bool)
    several[key[again]] = True
    several = several[key] if again.any() else again
    _put(rows.where(~several) if again.any() else rows, states, layout)
    if again.any():
        many = np.flatnonzero(several)
        _fold(rows.where(many[np.argsort(key[many], kind="stable")]), states, layout)
    open_ = []
    for (feature, subject), cause in ((late.old, Cause.STALE), (late.pending, Cause.PENDING)):
        # What is only ordered goes before what is old.
        silent = states.gap[layout.value_slot[feature], subject] == NOT_RECORDED
        open_.append((layout.value_slot[feature[silent]], subject[silent], CODE[cause]))
    for slot, subject, code in open_:
        states.gap[slot, subject] = code
    return states


def _put(rows: Values, states: Series, layout: Layout) -> None:
    """What was stated once stands as it is."""
    kind, slot, s = layout.kind[rows.feature], layout.slot[rows.feature], rows.subject
    unclear = rows.polarity == UNCLEAR
    states.gap[layout.value_slot[rows.feature[unclear]], s[unclear]] = rows.cause[unclear]
    present, absent = rows.polarity == PRESENT, rows.polarity == ABSENT
    for of_kind, low, high in ((QUANTITY, states.low, states.high), (DATE, states.date_low, states.date_high)):
        i = np.flatnonzero(present & (kind == of_kind))
        cell = slot[i], s[i]
        low[cell], high[cell] = rows.low[i], rows.high[i]
    i = np.flatnonzero(present & (kind == CHOICE))
    states.bits[slot[i], s[i]] = rows.bits[i]
    i = np.flatnonzero(present & (kind == CATEGORY))
    states.cls[slot[i], s[i]] = rows.bits[i].astype(np.int16)
    i = np.flatnonzero(absent & (kind == CHOICE))
    states.out[slot[i], s[i]] = rows.bits[i]
    i = np.flatnonzero(absent & (kind == CATEGORY))
    states.cls_out[slot[i], s[i]] = np.uint64(1) << rows.bits[i]
    for said, times in ((present, states.time), (absent, states.time_out)):
        for f, (start, end) in times.items():
            i = said & (rows.feature == f)
            start[s[i]], end[s[i]] = rows.start[i], rows.end[i]


def _fold(rows: Values, states: Series, layout: Layout) -> None:
    """What was stated several times: the rows of one feature of one subject follow one another."""
    n = len(rows)
    if not n:
        return
    new = np.ones(n, bool)
    new[1:] = (rows.feature[1:] != rows.feature[:-1]) | (rows.subject[1:] != rows.subject[:-1])
    first = np.flatnonzero(new)
    of = np.cumsum(new) - 1
    feature, subject = rows.feature[first], rows.subject[first]
    kind, slot = layout.kind[feature], layout.slot[feature]

    def top(values: Ints, among: Flags) -> Ints:
        return np.maximum.reduceat(np.where(among, values, LOWEST), first)

    def least(values: Ints, among: Flags) -> Ints:
        return np.minimum.reduceat(np.where(among, values, HIGHEST), first)

    def union(values: Words, among: Flags) -> Words:
        return np.bitwise_or.reduceat(np.where(among, values, np.uint64(0)), first)

    # A later unclear fact hides older ones.
    unclear = rows.polarity == UNCLEAR
    hidden_until = top(rows.end, unclear)
    kept = ~unclear & (rows.start > hidden_until[of])
    any_kept = np.bitwise_or.reduceat(kept, first)
    cause = np.where(unclear & (rows.end == hidden_until[of]), RANK[rows.cause], 255).astype(np.uint8)
    unclear_cause = np.minimum.reduceat(cause, first)
    blocked = (unclear_cause != 255) & ~any_kept

    values, out = kept & (rows.polarity == PRESENT), kept & (rows.polarity == ABSENT)
    has = np.bitwise_or.reduceat(values, first)
    newest_end = top(rows.end, values)
    newest_start = top(rows.start, values & (rows.end == newest_end[of]))
    window = layout.conflict_window[feature].astype(np.int64)

    def later(start: Ints, end: Ints, days: Ints) -> Flags:
        """Whether what begins at ``start`` lies wholly after what ends at ``end``, by more than so many days."""
        return (start > end) & ((days == 0) | (start // DAY - end // DAY > days))

    rivals = values & ~later(newest_start[of], rows.end, window[of])
    near = np.maximum(0, newest_start[of] // DAY - rows.end // DAY) <= layout.selection_window[feature][of]
    latest = layout.latest[feature]
    chosen = np.where(latest[of], rivals, values & near)
    worst = layout.highest[feature]

    # Quantities and dates.
    low, high = top(rows.low, chosen), least(rows.high, chosen)
    low = np.where(~latest & ~worst, least(rows.low, chosen), low)
    high = np.where(~latest & worst, top(rows.high, chosen), high)
    low_end, high_end = low >> 1, (high + 1) >> 1
    rounded = (low > high) & (layout.advances[feature] != "") & (low_end - high_end <= _SLACK // 2) & latest
    low, high = np.where(rounded, high_end * 2, low), np.where(rounded, low_end * 2, high)
    number = (kind == QUANTITY) | (kind == DATE)
    conflict = has & number & (low > high)

    # Choices: what all say; categories: the narrowest class, of which all others are wider ones.
    common = np.bitwise_and.reduceat(np.where(chosen, rows.bits, ~np.uint64(0)), first)
    conflict |= has & (kind == CHOICE) & (common == 0)
    upward = _upward(rows, layout)
    together = union(upward, chosen)
    narrowest = chosen & (upward == together[of])
    cls = np.maximum.reduceat(np.where(narrowest, rows.bits.astype(np.int64), -1), first)
    conflict |= has & (kind == CATEGORY) & (cls < 0)

    # What was ruled out, before or after the value.
    item = np.where(kind[of] == CHOICE, rows.bits, np.uint64(1) << (rows.bits & np.uint64(63)))
    older = out & has[of] & later(newest_start[of], rows.end, window[of])
    after = out & has[of] & later(rows.start, newest_end[of], window[of])
    all_out, live_out, after_out = union(item, out), union(item, out & ~older), union(item, after)
    value = np.where(kind == CHOICE, common, together)

    def empties(ruled: Words) -> Flags:
        gone = np.where(kind == CHOICE, (value & ~ruled) == 0, (value & ruled) != 0)
        return has & ~number & gone

    dropped = empties(after_out)
    clash = ~dropped & empties(live_out)
    partly = ~dropped & ~clash & empties(all_out)
    # An older exclusion that the value itself overcame no longer holds.
    hits = np.where(kind[of] == CHOICE, (rows.bits & value[of]) != 0, (item & value[of]) != 0)
    kept_out = np.where(kind == CHOICE, live_out | (all_out & ~value), union(item, out & ~(older & hits)))
    ruled = np.where(partly, kept_out, all_out)
    conflict |= clash & has
    ruled = np.where(conflict | number | blocked, np.uint64(0), ruled)
    held = has & ~conflict & ~dropped & ~blocked

    states.gap[layout.value_slot[feature], subject] = np.where(
        blocked, _stated[np.minimum(unclear_cause, len(_stated) - 1)], np.where(conflict, CONFLICTING, NOT_RECORDED)
    )
    for of_kind, lows, highs in ((QUANTITY, states.low, states.high), (DATE, states.date_low, states.date_high)):
        i = held & (kind == of_kind)
        lows[slot[i], subject[i]], highs[slot[i], subject[i]] = low[i], high[i]
    i = held & (kind == CHOICE)
    states.bits[slot[i], subject[i]] = common[i] & ~ruled[i]
    i = held & (kind == CATEGORY)
    states.cls[slot[i], subject[i]] = cls[i].astype(np.int16)
    for of_kind, table in ((CHOICE, states.out), (CATEGORY, states.cls_out)):
        i = kind == of_kind
        table[slot[i], subject[i]] = ruled[i]
    # The facts on which a value rests: of the worst in a window, those that set its ends.
    sets = chosen & (latest[of] | (rows.low == low[of]) | (rows.high == high[of]))
    still = out & ~(partly[of] & older & hits) & ~conflict[of] & ~blocked[of]
    for among, times, shown in ((sets, states.time, held), (still, states.time_out, ruled != 0)):
        end = top(rows.end, among)
        start = top(rows.start, among & (rows.end == end[of]))
        for f, (starts, ends) in times.items():
            i = shown & (feature == f)
            starts[subject[i]], ends[subject[i]] = start[i], end[i]


def _upward(rows: Values, layout: Layout) -> Words:
    """Of each recorded class the bits of itself and of those above it."""
    found = np.zeros(len(rows), np.uint64)
    for f, categories in layout.categories.items():
        i = rows.feature == f
        found[i] = categories.upward[rows.bits[i].astype(np.int64)]
    return found
