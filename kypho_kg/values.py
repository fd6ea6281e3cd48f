"""The values that a feature of a case can still take, as far as the conditions in question tell them apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Truth
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.plausibility import limits
from kypho_kg.record import Range, Value
from kypho_kg.snapshot import Snapshot
from kypho_kg.state import Resolved


@dataclass(frozen=True, slots=True)
class Cell:
    """Values that no condition in question tells apart.

    Of a finding: present or absent. Of a quantity: a range. Of a choice: individuals. Of a category: a class without
    some of its subclasses.
    """

    present: bool = True
    range: Range | None = None
    values: frozenset[str] = frozenset()
    cls: str = ""
    excluded: frozenset[str] = frozenset()
    met: frozenset[Criterion] = frozenset()
    """The conditions that hold of these values."""

    def samples(self) -> tuple[Value, ...]:
        """A few values of the cell: each limit that belongs to it, or a number between."""
        if self.range is not None:
            return tuple(Range.exactly(x) for x in _numbers(self.range))
        if self.values:
            return tuple(frozenset({v}) for v in sorted(self.values))
        return (self.cls or None,)


@dataclass(frozen=True, slots=True)
class Variable:
    """A feature of a subject that is unknown, or that can change, with the cells of its values."""

    subject: str
    feature: str
    cells: tuple[Cell, ...]
    value: Value = None
    """What is recorded of it now, as far as it is one value or range."""

    def cells_of(self, mask: int) -> tuple[Cell, ...]:
        """The cells whose bits are set."""
        return tuple(cell for i, cell in enumerate(self.cells) if mask >> i & 1)

    def where(self, criterion: Criterion, truth: Truth) -> int:
        """The cells in which a condition of this feature has a truth, as bits."""
        wanted = truth is Truth.MET
        atom = _unnamed(criterion)
        return sum(1 << i for i, cell in enumerate(self.cells) if (atom in cell.met) is wanted)


def _unnamed(criterion: Criterion) -> Criterion:
    """An atom, whichever class it defines."""
    return replace(criterion, name="") if criterion.name else criterion


def variable(
    snapshot: Snapshot, subject: str, feature: Feature, asked: Iterable[Criterion], *, known: bool
) -> Variable:
    """The cells of a feature as of the date.

    :param asked: the conditions on this feature that must be told apart.
    :param known: whether any of them is met or not met now. The cells are then those into which the feature can change,
        as far as the ontology lets it; otherwise those that agree with what is recorded in part.
    """
    k = snapshot.knowledge
    conditions = tuple(dict.fromkeys(map(_unnamed, asked)))
    if feature.kind is Op.FINDING:
        return Variable(subject, feature.iri, (Cell(True, met=frozenset(conditions)), Cell(False)))
    state = snapshot.value(subject, feature.iri)
    within = state if (state.facts or state.ruled_out) and not known else None
    if known and feature.changes == "OnlyIncreases" and isinstance(state.value, Range):
        within = Resolved(Range(state.value.low, None))
    return Variable(subject, feature.iri, _cells(k, feature, conditions, within), state.value)


def _cells(
    k: Knowledge, feature: Feature, conditions: tuple[Criterion, ...], state: Resolved | None
) -> tuple[Cell, ...]:
    if feature.kind is Op.QUANTITY:
        return tuple(_intervals(feature, conditions, state))
    if feature.kind is Op.CHOICE:
        return tuple(_individuals(feature, conditions, state))
    return tuple(_classes(k, feature, conditions, state))


def _intervals(feature: Feature, conditions: tuple[Criterion, ...], state: Resolved | None) -> Iterable[Cell]:
    bound = limits().get(feature.iri)
    whole = bound.whole if bound else False
    space = bound.range if bound else Range(None, None)
    if state is not None and isinstance(state.value, Range):
        space = state.value.intersection(space) or state.value
    cuts: set[tuple[Decimal, bool]] = set()  # a cut lies before its number, or after it
    for c in conditions:
        assert c.range is not None
        if c.range.low is not None:
            cuts.add((c.range.low, c.range.low_open))
        if c.range.high is not None:
            cuts.add((c.range.high, not c.range.high_open))
    edges = [None, *sorted(cuts), None]
    for below, above in itertools.pairwise(edges):
        low, low_open = below if below else (None, False)
        high, high_open = (above[0], not above[1]) if above else (None, False)
        part = Range(low, high, low_open, high_open).intersection(space)
        if part is not None and whole:
            part = _whole(part)
        if part is not None:
            met = frozenset(c for c in conditions if c.range is not None and part.within(c.range))
            yield Cell(range=part, met=met)


def _whole(part: Range) -> Range | None:
    """The whole numbers of a range, between closed limits."""
    low, high = part.low, part.high
    if low is not None:
        up = low.to_integral_value(ROUND_CEILING)
        low = up + 1 if part.low_open and up == low else up
    if high is not None:
        down = high.to_integral_value(ROUND_FLOOR)
        high = down - 1 if part.high_open and down == high else down
    return None if low is not None and high is not None and low > high else Range(low, high)


def _individuals(feature: Feature, conditions: tuple[Criterion, ...], state: Resolved | None) -> Iterable[Cell]:
    left = feature.values
    if state is not None:
        left = state.value if isinstance(state.value, frozenset) else left
        left = left.difference(state.ruled_out)
    groups: dict[frozenset[Criterion], set[str]] = {}
    for value in sorted(left):
        groups.setdefault(frozenset(c for c in conditions if value in c.values), set()).add(value)
    for met, values in groups.items():
        yield Cell(values=frozenset(values), met=met)


def _classes(
    k: Knowledge, feature: Feature, conditions: tuple[Criterion, ...], state: Resolved | None
) -> Iterable[Cell]:
    """One cell for each set of asked classes to which a value can belong; its class is the most general such value."""
    asked = {next(iter(c.values)): c for c in conditions}
    left = feature.values
    if state is not None:
        if isinstance(state.value, str):
            left = frozenset(v for v in left if k.subsumes(state.value, v))
        left = frozenset(v for v in left if not any(k.subsumes(out, v) for out in state.ruled_out))
    found: dict[frozenset[Criterion], str] = {}
    for value in sorted(left, key=lambda v: (len(k.ancestors(v)), v)):
        met = frozenset(c for cls, c in asked.items() if k.subsumes(cls, value))
        if met not in found:
            found[met] = value
    for met, value in found.items():
        open_ = frozenset(cls for cls, c in asked.items() if c not in met and not k.disjoint(cls, value))
        yield Cell(cls=value, excluded=open_, met=met)


def _numbers(part: Range) -> tuple[Decimal, ...]:
    if part.exact is not None:
        return (part.exact,)
    ends = [
        x for x, is_open in ((part.low, part.low_open), (part.high, part.high_open)) if x is not None and not is_open
    ]
    if ends:
        return tuple(ends)
    if part.low is not None and part.high is not None:
        return ((part.low + part.high) / 2,)
    if part.low is not None:
        return (part.low + 1,)
    return ((part.high - 1) if part.high is not None else Decimal(0),)
