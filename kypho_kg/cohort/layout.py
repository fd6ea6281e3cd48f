"""What the arrays of a cohort need of the knowledge base: places, tables of rules, limits, hierarchies.

Numbers are whole: a value of a quantity is 2,000,000 times itself, plus one for a lower end that does not count and
less one for an upper end that does not. So an interval is two integers, and empty where the lower is the larger.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

import numpy as np
import numpy.typing as npt

from kypho_kg.criteria import Criterion, Op
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.plausibility import earliest, limits
from kypho_kg.record import Cause, Range
from kypho_kg.scores import read_scores
from kypho_kg.vocabulary import LESION, PATIENT, PROCEDURE, local

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

SCALE: Final = 2_000_000
PLACES: Final = 6
"""Decimal places that a value may have."""
LOWEST: Final = -(2**62)
HIGHEST: Final = 2**62
MOST_VALUES: Final = 63
"""Values of one choice, or classes of one category, that fit into one word."""

FINDING, CATEGORY, CHOICE, QUANTITY, DATE = range(5)
_KINDS = {Op.FINDING: FINDING, Op.CATEGORY: CATEGORY, Op.CHOICE: CHOICE, Op.QUANTITY: QUANTITY, None: DATE}
_BEARERS = {PATIENT: 0, PROCEDURE: 1, LESION: 2}
PATIENTS, PROCEDURES, LESIONS = range(3)
"""Blocks of subjects."""

CAUSES: Final = (*(c for c in Cause if c is not Cause.NOT_RECORDED), Cause.NOT_RECORDED)
"""Causes of an unknown, the one that says most first; an array holds the place in this tuple."""
STATED: Final = len(CAUSES)
"""Somebody wrote down that it was not recorded, which differs from silence."""
NO_CAUSE: Final = 255
CODE: Final[Mapping[Cause, int]] = {c: i for i, c in enumerate(CAUSES)}


def scaled(value: Decimal, *, above: bool = False, below: bool = False) -> int:
    """A number as an integer of the arrays.

    :param above: the number itself does not count, what lies above does.
    :raises KnowledgeBaseError: for more decimal places than the arrays hold.
    """
    whole = value * SCALE
    if whole != whole.to_integral_value() or abs(whole) >= HIGHEST:
        raise KnowledgeBaseError(f"{value}: a cohort takes numbers below 10^12 with at most {PLACES} decimal places")
    return int(whole) + above - below


def scaled_range(asked: Range) -> tuple[int, int]:
    """The ends of a range as integers."""
    low = LOWEST if asked.low is None else scaled(asked.low, above=asked.low_open)
    high = HIGHEST if asked.high is None else scaled(asked.high, below=asked.high_open)
    return low, high


@dataclass(frozen=True, slots=True)
class Categories:
    """The classes of one category feature."""

    classes: tuple[str, ...]
    place: Mapping[str, int]
    upward: Words
    """Of each class the bits of itself and of those above it."""


class Layout:
    """Tables over the features of a knowledge base; a feature is its place in ``features``."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.k = knowledge
        self.features: tuple[Feature, ...] = tuple(sorted(knowledge.features.values(), key=lambda f: f.iri))
        self.place: Mapping[str, int] = {f.iri: i for i, f in enumerate(self.features)}
        self.by_name: Mapping[str, int] = {f.name: i for i, f in enumerate(self.features)}
        self.scores = read_scores(knowledge)
        fs = self.features
        self.kind = np.array([_KINDS[f.kind] for f in fs], np.uint8)
        self.bearer = np.array([_BEARERS[f.bearer] for f in fs], np.uint8)
        self.slot = np.zeros(len(fs), np.int32)
        """The place of a feature among those of its kind."""
        self.count: dict[int, int] = {}
        for kind in range(5):
            of_kind = np.flatnonzero(self.kind == kind)
            self.slot[of_kind] = np.arange(len(of_kind))
            self.count[kind] = len(of_kind)
        self.value_slot = np.cumsum(self.kind != FINDING) - 1
        """The place of a feature among all that are no findings."""
        self.value_count = int((self.kind != FINDING).sum())
        self.lookback = np.array([-1 if f.lookback is None else f.lookback for f in fs], np.int32)
        self.conflict_window = np.array([f.conflict_window for f in fs], np.int32)
        self.selection_window = np.array([f.selection_window for f in fs], np.int32)
        self.order_suffices = np.array([f.order_suffices for f in fs])
        self.highest = np.array([f.rule == "HighestInWindow" for f in fs])
        self.latest = np.array([f.rule == "Latest" for f in fs])
        self.advances = np.array([f.unit if f.advances else "" for f in fs])
        self.low, self.high, self.whole = self._limits()
        self.narrower = self._hierarchy()
        """Of two findings by their slots: whether the second is the first or a kind of it."""
        self.family = self._families()
        """Of each finding a number that it shares with all that are wider or narrower."""
        self.values: Mapping[int, tuple[str, ...]] = {
            i: tuple(sorted(f.values)) for i, f in enumerate(fs) if f.kind is Op.CHOICE
        }
        self.categories: Mapping[int, Categories] = {
            i: self._categories(f) for i, f in enumerate(fs) if f.kind is Op.CATEGORY
        }
        for i, f in enumerate(fs):
            if len(f.values) > MOST_VALUES:
                raise KnowledgeBaseError(f"{fs[i].name} has {len(f.values)} values; a cohort takes {MOST_VALUES}")
        self._shared: dict[Criterion, Criterion] = {}

    def _limits(self) -> tuple[Ints, Ints, Flags]:
        found = [limits().get(f.iri) for f in self.features]
        ends = [scaled_range(x.range) if x else (LOWEST, HIGHEST) for x in found]
        epoch = date(1970, 1, 1)
        days = [(first - epoch).days if (first := earliest().get(f.iri)) else LOWEST for f in self.features]
        return (
            np.array([max(low, day) for (low, _), day in zip(ends, days, strict=True)], np.int64),
            np.array([high for _, high in ends], np.int64),
            np.array([bool(x and x.whole) for x in found]),
        )

    def _hierarchy(self) -> Flags:
        findings = [f.iri for f in self.features if f.kind is Op.FINDING]
        ancestors = [self.k.ancestors(f) for f in findings]
        return np.array([[upper in above for above in ancestors] for upper in findings], np.bool_)

    def _families(self) -> Ints:
        family = np.arange(len(self.narrower))
        for upper, lower in np.argwhere(self.narrower):
            if family[upper] != family[lower]:
                family[family == family[lower]] = family[upper]
        return np.unique(family, return_inverse=True)[1].astype(np.int64)

    def _categories(self, feature: Feature) -> Categories:
        classes = tuple(sorted(feature.values))
        place = {c: i for i, c in enumerate(classes)}
        upward = [sum(1 << place[a] for a in self.k.ancestors(c) if a in place) for c in classes]
        return Categories(classes, place, np.array(upward, np.uint64))

    # -- lookups

    def number(self, name: str) -> int:
        """The place of a feature by its local name."""
        return self.by_name[name]

    def kinds_of(self, finding: str) -> npt.NDArray[np.intp]:
        """Slots of a finding and of all kinds of it."""
        return np.flatnonzero(self.narrower[self.slot[self.place[finding]]])

    def wider(self, finding: str) -> npt.NDArray[np.intp]:
        """Slots of a finding and of all that it is a kind of."""
        return np.flatnonzero(self.narrower[:, self.slot[self.place[finding]]])

    def bits(self, feature: int, values: Iterable[str]) -> int:
        """Individuals of a choice as bits."""
        known = self.values[feature]
        return sum(1 << known.index(v) for v in values)

    def decoded(self, feature: int, text: str) -> int | None:
        """The bits of a choice, or the place of the class of a category, from local names; ``None`` if unknown.

        :param text: a local name; of a choice of which one holds, several with ``|`` between.
        """
        if feature in self.values:
            names = {local(v): i for i, v in enumerate(self.values[feature])}
            said = text.split("|")
            return sum(1 << names[n] for n in set(said)) if all(n in names for n in said) else None
        if feature in self.categories:
            return next((i for i, c in enumerate(self.categories[feature].classes) if local(c) == text), None)
        return None

    def shared(self, criterion: Criterion) -> Criterion:
        """The same tree with equal parts being one object, so that each is judged once."""
        known = self._shared.get(criterion)
        if known is None:
            children = tuple(self.shared(c) for c in criterion.children)
            if any(a is not b for a, b in zip(children, criterion.children, strict=True)):
                criterion = Criterion(
                    criterion.op, children, criterion.term, criterion.values, criterion.range, criterion.n,
                    criterion.name,
                )  # fmt: skip
            known = self._shared.setdefault(criterion, criterion)
        return known


@functools.lru_cache(maxsize=2)
def layout_of(knowledge: Knowledge) -> Layout:
    """The layout of a knowledge base, made once."""
    return Layout(knowledge)
