"""What is wrong on purpose: contradictions and dirty records among generated facts, and the list of what was planted.

Which contradictions a feature can have follows from its kind, its place in the hierarchy and its conflict window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kypho_kg.criteria import Op
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.plausibility import limits
from kypho_kg.record import Mood, Polarity, Status
from kypho_kg.synth_draws import MICRO, Bools, Floats, Ints, Table, whole
from kypho_kg.synth_population import BINARY, NUMBER, Draw, Population
from kypho_kg.synth_rows import DAY, MOODS, POLARITIES, STATUSES, Block, empty, whole_day
from kypho_kg.vocabulary import KYPHO

OPPOSITE, BROADER, NARROWER, UNEQUAL, CHANGED = "opposite", "broader class", "narrower class", "unequal", "changed"
IMPLAUSIBLE, ERROR, REFUTED, FUTURE = "implausible", "entered in error", "refuted", "after the as-of date"
PROVISIONAL, STALE, PARTIAL, RANGE, ORDERED = "provisional", "stale", "partial date", "range", "ordered only"
KINDS = [
    OPPOSITE, BROADER, NARROWER, UNEQUAL, CHANGED, IMPLAUSIBLE, ERROR, REFUTED, FUTURE, PROVISIONAL, STALE, PARTIAL,
    RANGE, ORDERED,
]  # fmt: skip
"""All that can be planted; docs/synth.md says what each is."""
_PRESENT, _ABSENT = (POLARITIES.index(p.value) for p in (Polarity.PRESENT, Polarity.ABSENT))


@dataclass(frozen=True, slots=True)
class Planted:
    """What was planted: the patient and lesion as in a block, the feature, the second feature, and the kind."""

    unit: Ints
    feature: Ints
    other: Ints
    kind: Ints

    def __len__(self) -> int:
        return len(self.unit)

    def without(self, clears: Bools, group: Ints) -> Planted:
        """What is left when each patient loses the features that its group clears."""
        rows = group[self.unit >> 3]
        kept = ~(clears[rows, self.feature] | clears[rows, self.other])
        return Planted(self.unit[kept], self.feature[kept], self.other[kept], self.kind[kept])

    def numbered(self, first: int) -> Planted:
        """With the number of the patient among all in place of that in the batch, in the order of the facts."""
        order = np.lexsort((self.kind, self.feature, self.unit))
        return Planted(self.unit[order] + first * 8, self.feature[order], self.other[order], self.kind[order])


def planted(parts: Sequence[Planted]) -> Planted:
    """All parts as one."""
    none = [np.zeros(0, dtype=np.int64)]
    names = ("unit", "feature", "other", "kind")
    return Planted(*(np.concatenate([getattr(p, n) for p in parts] or none) for n in names))


@dataclass(frozen=True, slots=True)
class _Ways:
    """What can go wrong with one feature."""

    contradictions: tuple[str, ...]
    dirt: tuple[str, ...]
    broader: int = -1
    narrower: int = -1
    window: int = 0
    lookback: int = 0
    bounds: tuple[int | None, int | None] = (None, None)
    others: Mapping[int, Ints] | None = None
    """Of words: for each code, those that contradict it."""
    numbers: Ints | None = None


class Troubles:
    """Plants contradictions and dirty records.

    :param contradictions: chance for each recorded feature of a patient or lesion.
    :param dirty: likewise.
    """

    def __init__(
        self, k: Knowledge, p: Population, codes: Mapping[str, int], contradictions: float, dirty: float
    ) -> None:
        self.contradictions, self.dirty = contradictions, dirty
        self._ways = {d.name: _ways(k, p, d, d.feature, codes) for d in p.draws if d.feature}

    def plant(
        self, draw: Draw, block: Block, as_of: Ints, chance: Floats, which: Floats, other: Floats
    ) -> tuple[list[Block], Planted]:
        """Change some rows of a block in place, and add others.

        :param chance: one uniform number for each row, which decides whether; ``which`` decides the kind, ``other`` the
            value or the day.
        """
        ways = self._ways[draw.name]
        more: list[Block] = []
        marks: list[Planted] = []
        bad = chance < self.contradictions
        dirty = ~bad & (chance < self.contradictions + self.dirty)
        for rows, kinds in ((bad, ways.contradictions), (dirty, ways.dirt)):
            number = np.floor(which * len(kinds)).astype(np.int64)
            for place, kind in enumerate(kinds):
                at = np.nonzero(rows & (number == place))[0]
                at = at[_fits(kind, block, at)]
                if not len(at):
                    continue
                new, second = _planted(kind, ways, block, at, as_of[at], other[at])
                more += [new] if new is not None else []
                features = block["feature"][at].astype(np.int64)
                seconds = features if second < 0 else np.full(len(at), second, dtype=np.int64)
                marks.append(
                    Planted(block["unit"][at].astype(np.int64), features, seconds, np.full(len(at), KINDS.index(kind)))
                )
        return more, planted(marks)


def _ways(k: Knowledge, p: Population, draw: Draw, feature: Feature | None, codes: Mapping[str, int]) -> _Ways:
    assert feature
    dated, finding = bool(draw.dated), feature.kind is Op.FINDING
    contradictions: list[str] = []
    dirt = [PROVISIONAL, ERROR]
    dirt += [FUTURE, PARTIAL] if dated else []
    dirt += [STALE] if dated and feature.lookback is not None else []
    broader = narrower = -1
    bounds: tuple[int | None, int | None] = (None, None)
    others: dict[int, Ints] | None = None
    numbers: Ints | None = None
    if finding:
        same = [f for f in k.features.values() if f.kind is Op.FINDING and f.bearer == feature.bearer and f != feature]
        upper = [f.name for f in same if k.subsumes(f.iri, feature.iri)]
        lower = [f.name for f in same if k.subsumes(feature.iri, f.iri)]
        broader, narrower = (codes[min(names)] if names else -1 for names in (upper, lower))
        contradictions += [OPPOSITE, *([BROADER] if upper else []), *([NARROWER] if lower else [])]
        dirt += [REFUTED, *([] if feature.order_suffices else [ORDERED])]
    tables = [b.distribution for b in draw.branches if isinstance(b.distribution, Table)]
    if draw.kind not in (BINARY, NUMBER):
        drawn = sorted({int(v) for t in tables for v in t.values})
        others = {a: np.array([b for b in drawn if _apart(k, p, a, b)], dtype=np.int64) for a in drawn}
        if drawn and all(map(len, others.values())):
            contradictions.append(UNEQUAL)
    if feature.kind is Op.QUANTITY:
        numbers = np.unique(np.concatenate([t.values for t in tables])) if tables else None
        if numbers is not None and len(numbers) > 1 and feature.rule == "Latest" and not feature.advances:
            contradictions.append(UNEQUAL)
        bound = limits().get(feature.iri)
        if bound:
            low, high = bound.range.low, bound.range.high
            bounds = None if low is None else whole(low), None if high is None else whole(high)
            dirt += [IMPLAUSIBLE] if high is not None else []
        dirt += [RANGE] if not (bound and bound.whole) else []
    if dated and contradictions:
        contradictions.append(CHANGED)
    return _Ways(
        tuple(contradictions), tuple(dirt), broader, narrower, feature.conflict_window, feature.lookback or 0, bounds,
        others, numbers,
    )  # fmt: skip


def _apart(k: Knowledge, p: Population, a: int, b: int) -> bool:
    one, two = KYPHO + p.words[a], KYPHO + p.words[b]
    return not (k.subsumes(one, two) or k.subsumes(two, one))


def _fits(kind: str, block: Block, at: Ints) -> Bools:
    """Which of the rows a kind can be planted at."""
    polarity = block["polarity"][at]
    if kind in (BROADER, NARROWER):
        return np.asarray(polarity == (_PRESENT if kind == BROADER else _ABSENT))
    return np.ones(len(at), dtype=bool)


def _planted(kind: str, ways: _Ways, block: Block, at: Ints, as_of: Ints, other: Floats) -> tuple[Block | None, int]:
    """Rows to add, if any, and the second feature, if any; rows that are changed are changed in place."""
    columns = block.columns
    if kind in (OPPOSITE, UNEQUAL, CHANGED, ERROR, REFUTED):
        new = block.taken(at)
        _contradict(new, ways, other)
        if kind == CHANGED:
            for name in ("start", "end"):
                new.columns[name] -= (ways.window + 2) * DAY
        elif kind in (ERROR, REFUTED):
            status = Status.ENTERED_IN_ERROR if kind == ERROR else Status.REFUTED
            new.columns["status"][:] = STATUSES.index(status.value)
        return new, -1
    if kind in (BROADER, NARROWER):
        new = block.taken(at)
        second = ways.broader if kind == BROADER else ways.narrower
        new.columns["feature"][:] = second
        new.columns["polarity"][:] = _ABSENT if kind == BROADER else _PRESENT
        return new, second
    if kind == IMPLAUSIBLE:
        low, high = ways.bounds
        assert high is not None
        columns["low"][at] = columns["high"][at] = 2 * high - (low or 0) + 7 * MICRO
    elif kind == RANGE:
        low, high = ways.bounds
        least, most = columns["low"][at] - MICRO, columns["high"][at] + MICRO
        columns["low"][at] = least if low is None else np.maximum(least, low)
        columns["high"][at] = most if high is None else np.minimum(most, high)
    elif kind == PROVISIONAL:
        columns["status"][at] = STATUSES.index(Status.PROVISIONAL.value)
    elif kind == ORDERED:
        columns["mood"][at] = MOODS.index(Mood.ORDERED.value)
    elif kind == PARTIAL:
        stamps = (columns["start"][at] // DAY).astype("datetime64[D]").astype("datetime64[M]")
        days = [(stamps + n).astype("datetime64[D]").astype(np.int64) for n in (0, 1)]
        columns["start"][at], columns["end"][at] = days[0] * DAY, days[1] * DAY - 1
    else:
        later = np.floor(other * 30).astype(np.int64) + 1
        day = as_of + later if kind == FUTURE else as_of - ways.lookback - later
        columns["start"][at], columns["end"][at] = whole_day(day)
    return None, -1


def _contradict(block: Block, ways: _Ways, other: Floats) -> None:
    """Give each row what contradicts it: the other polarity, or another value."""
    value, low = block["value"], block["low"]
    if ways.others is not None:
        before = value.copy()
        for code in np.unique(before[~empty(before)]).tolist():
            rows, choices = np.nonzero(before == code)[0], ways.others[code]
            if len(choices):
                value[rows] = choices[np.floor(other[rows] * len(choices)).astype(np.int64)]
    elif ways.numbers is not None and len(ways.numbers) > 1:
        picked = ways.numbers[np.floor(other * len(ways.numbers)).astype(np.int64)]
        low[:] = np.where(picked == low, np.where(low == ways.numbers[0], ways.numbers[-1], ways.numbers[0]), picked)
        block["high"][:] = low
    elif low.size and empty(low).all() and empty(block["date"]).all():
        block["polarity"][:] = _PRESENT + _ABSENT - block["polarity"]
