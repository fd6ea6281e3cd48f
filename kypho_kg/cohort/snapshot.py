"""The resolved snapshot of all subjects of a chunk, with what is derived from it (compare ``derivation.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kypho_kg.cohort.findings import Added, Findings, State
from kypho_kg.cohort.layout import (
    CHOICE,
    CODE,
    HIGHEST,
    LESIONS,
    LOWEST,
    PROCEDURES,
    QUANTITY,
    SCALE,
    Flags,
    Ints,
    Layout,
    Words,
)
from kypho_kg.cohort.rows import DAY, PRESENT, Facts, Values, weeks
from kypho_kg.cohort.series import NOT_RECORDED, Series, resolve_series
from kypho_kg.cohort.subjects import Subjects
from kypho_kg.criteria import Op
from kypho_kg.derivation import FALLING, LEVEL, RISING
from kypho_kg.record import Cause
from kypho_kg.vocabulary import KYPHO

_LATE = [CODE[Cause.PENDING], CODE[Cause.STALE]]


@dataclass(slots=True)
class Snapshot:
    """What holds of all subjects on their as-of dates."""

    layout: Layout
    subjects: Subjects
    series: Series
    findings: State
    recorded: Findings


class Chunk:
    """The facts of some patients; resolved again with whatever rules add to them."""

    def __init__(self, facts: Facts, subjects: Subjects, layout: Layout, timed: npt.NDArray[np.int32]) -> None:
        self.layout = layout
        self.subjects = subjects
        self.findings = Findings(facts.findings, facts.late_findings, layout, subjects)
        self.series = resolve_series(facts.values, facts.late_values, layout, subjects.size, timed)
        derived = [i for i, f in enumerate(layout.features) if f.derived_by]
        self._derived = [i for i in derived if layout.features[i].derived_by in _DERIVATIONS]
        self._kept = {i: self._cells(i) for i in (*derived, *layout.values)}
        self._open = {i: open_to_derivation(self.series, layout, i) for i in derived}
        self.trends = {
            i: _trend(facts.values, layout, subjects.size, i)
            for i in derived
            if layout.features[i].derived_by == "TrendOfSeries"
        }

    def _cells(self, feature: int) -> tuple[npt.NDArray[np.generic], ...]:
        """Copies of the values of a feature that rules may set."""
        s, slot = self.series, self.layout.slot[feature]
        if self.layout.kind[feature] == QUANTITY:
            return s.low[slot].copy(), s.high[slot].copy()
        return s.bits[slot].copy(), s.out[slot].copy(), s.why(self.layout, feature).copy()

    def snapshot(self, added: Added) -> Snapshot:
        """Resolve with the facts that rules yielded; values that an earlier call derived are forgotten."""
        s = self.series
        for feature, cells in self._kept.items():
            slot = self.layout.slot[feature]
            if self.layout.kind[feature] == QUANTITY:
                s.low[slot], s.high[slot] = cells
            else:
                s.bits[slot], s.out[slot] = cells[:2]
                s.why(self.layout, feature)[:] = cells[2]
        found = Snapshot(self.layout, self.subjects, s, self.findings.resolve(added), self.findings)
        for feature in self._derived:
            rule = self.layout.features[feature].derived_by
            _DERIVATIONS[rule](found, feature, self._open[feature] & self._bears(feature), self)
        return found

    def _bears(self, feature: int) -> Flags:
        """Subjects of which a feature is recorded."""
        bears = np.zeros(self.subjects.size, bool)
        block = self.layout.bearer[feature]
        bears[self.subjects.block(block)] = self.subjects.has_procedure if block == PROCEDURES else True
        return bears

    def open_for(self, feature: int) -> Flags:
        """Subjects for which a value of a feature may be derived."""
        return self._open[feature] & self._bears(feature)


def open_to_derivation(series: Series, layout: Layout, feature: int) -> Flags:
    """Whether a derived value may stand: what is too old or only ordered is no obstacle, a conflict is."""
    gap = series.why(layout, feature)
    free = ~series.has(layout, feature) & ((gap == NOT_RECORDED) | np.isin(gap, _LATE))
    return free & (series.excluded(layout, feature) == 0) if layout.kind[feature] == CHOICE else free


def put(snapshot: Snapshot, feature: int, where: Flags, low: Ints, high: Ints) -> None:
    """Set a derived quantity of some subjects; its time is the as-of day."""
    slot, s = snapshot.layout.slot[feature], snapshot.series
    s.low[slot, where], s.high[slot, where] = low[where], high[where]
    if feature in s.time:
        day = snapshot.subjects.as_of[snapshot.subjects.owners()] * DAY
        start, end = s.time[feature]
        start[where], end[where] = day[where], day[where] + DAY - 1


# -- the closed list of derivations

_Deriving = Callable[[Snapshot, int, Flags, Chunk], None]


def _difference_of_dates(s: Snapshot, feature: int, open_: Flags, chunk: Chunk) -> None:
    layout, f = s.layout, s.layout.features[feature]
    if f.derived_from not in layout.place:
        return
    origin = layout.place[f.derived_from]
    as_of = s.subjects.as_of[s.subjects.owners()]
    if layout.features[origin].kind is Op.FINDING:
        rows = s.recorded.rows
        i = s.recorded.among(layout.kinds_of(f.derived_from), PRESENT, s.findings) & rows.dated
        start, end = newest(rows.subject[i], rows.start[i], rows.end[i], s.subjects.size)
        found = end != LOWEST
        low, high = start // DAY, end // DAY
    else:
        slot = layout.slot[origin]
        low, high = s.series.date_low[slot], np.minimum(s.series.date_high[slot], as_of)
        found = (s.series.date_low[slot] <= s.series.date_high[slot]) & (low <= as_of)
    where = np.flatnonzero(found & open_)
    first, last, day = low[where], high[where], as_of[where]
    ends = {"a": (years(last, day), years(first, day)), "wk": (weeks(day - last), weeks(day - first))}
    low_end, high_end = ends.get(f.unit, ((day - last) * SCALE, (day - first) * SCALE))
    low_all, high_all = np.zeros(len(found), np.int64), np.zeros(len(found), np.int64)
    low_all[where], high_all[where] = low_end, high_end
    put(s, feature, found & open_, low_all, high_all)


def newest(subject: Ints, start: Ints, end: Ints, size: int) -> tuple[Ints, Ints]:
    """Start and end of the newest entry of each subject: the latest end, and of these the latest start."""
    last, first = np.full(size, LOWEST), np.full(size, LOWEST)
    np.maximum.at(last, subject, end)
    latest = end == last[subject]
    np.maximum.at(first, subject[latest], start[latest])
    return first, last


def years(born: Ints, day: Ints) -> Ints:
    """Completed years between days since 1970, as scaled integers."""
    (first, first_day), (last, last_day) = _calendar(born), _calendar(day)
    return (last - first - (last_day < first_day)) // 12 * SCALE


def _calendar(days: Ints) -> tuple[Ints, Ints]:
    """Calendar pages since 1970, twelve a year, and the day on the page."""
    dates = days.astype("datetime64[D]")
    page = dates.astype("datetime64[M]")
    return page.astype(np.int64), (dates - page).astype(np.int64)


def _count_of_lesions(s: Snapshot, feature: int, open_: Flags, chunk: Chunk) -> None:
    count = np.bincount(s.subjects.owner, minlength=len(s.subjects.patients)) * SCALE
    low = count[s.subjects.owners()]
    put(s, feature, open_, low, np.full(len(low), HIGHEST))


def _count_of_session_levels(s: Snapshot, feature: int, open_: Flags, chunk: Chunk) -> None:
    layout, subjects = s.layout, s.subjects
    level = layout.number("vertebralLevel")
    lesions = subjects.block(LESIONS)
    bits = s.series.bits[layout.slot[level]][lesions]
    every = np.uint64((1 << len(layout.values[level])) - 1)
    bits = np.where(bits == 0, every, bits)
    some = np.flatnonzero(subjects.in_session)
    # The fewest levels first, then by their names.
    order = np.zeros(len(bits), np.uint64)
    for i in range(len(layout.values[level])):
        order |= ((bits >> np.uint64(i)) & np.uint64(1)) << np.uint64(62 - i)
    some = some[np.lexsort((~order[some], np.bitwise_count(bits[some]), subjects.owner[some]))]
    owner = subjects.owner[some]
    n = len(subjects.patients)
    turn = np.arange(len(some)) - np.searchsorted(owner, owner, "left")
    apart, seen = np.zeros(n, np.int64), np.zeros(n, np.uint64)
    singles, count, alone = np.zeros(n, np.uint64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    for t in range(int(turn.max(initial=-1)) + 1):
        here = some[turn == t]
        p, b = subjects.owner[here], bits[here]
        new = (seen[p] & b) == 0
        apart[p] += new
        seen[p] |= np.where(new, b, np.uint64(0))
        single = np.bitwise_count(b) == 1
        count[p] += 1
        alone[p] += single
        singles[p] |= np.where(single, b, np.uint64(0))
    high = count - alone + np.bitwise_count(singles)
    own = subjects.owners()
    put(s, feature, open_ & (subjects.session_named & (count > 0))[own], (apart * SCALE)[own], (high * SCALE)[own])


def _trend(rows: Values, layout: Layout, size: int, feature: int) -> Words:
    """The course of a series by subject, as bits; none where it has no course."""
    f, t = layout.features[feature], layout.k.triples
    found = np.zeros(size, np.uint64)
    rows = rows.where(rows.feature == layout.place[f.derived_from])
    rows = rows.where(np.lexsort((rows.start, rows.end, rows.subject)))
    if len(rows) < 2:
        return found
    same = rows.subject[1:] == rows.subject[:-1]
    disordered = np.zeros(size, bool)
    disordered[rows.subject[1:][same & ~(rows.start[1:] > rows.end[:-1])]] = True
    exact = (rows.polarity == PRESENT) & (rows.low == rows.high)
    last = np.flatnonzero(same & np.append(rows.subject[2:] != rows.subject[1:-1], True)) + 1
    ok = exact[last] & exact[last - 1] & ~disordered[rows.subject[last]]
    last = last[ok]
    before, after = rows.low[last - 1], rows.low[last]
    for course, holds in ((RISING, after > before), (FALLING, after < before), (LEVEL, after == before)):
        value = t.resource(f.iri, KYPHO + course)
        if value:
            found[rows.subject[last[holds]]] = layout.bits(feature, [value])
    return found


def _trend_of_series(s: Snapshot, feature: int, open_: Flags, chunk: Chunk) -> None:
    course = chunk.trends[feature]
    where = open_ & (course != 0)
    s.series.bits[s.layout.slot[feature], where] = course[where]


_DERIVATIONS: Mapping[str, _Deriving] = {
    "DifferenceOfDates": _difference_of_dates,
    "CountOfLesions": _count_of_lesions,
    "CountOfSessionLevels": _count_of_session_levels,
    "TrendOfSeries": _trend_of_series,
}
