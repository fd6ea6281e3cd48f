"""Reduced ordered binary decision diagrams: formulas over variables, each in one form only."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

MAX_NODES = 500_000


class CutOffError(Exception):
    """A search that grew too large to be finished."""


class Diagram:
    """Diagrams that share their nodes; a diagram is a number, 0 is false and 1 is true."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int, int, int]] = [(sys.maxsize, 0, 0), (sys.maxsize, 1, 1)]
        self._unique: dict[tuple[int, int, int], int] = {}
        self._done: dict[tuple[int, int, int], int] = {}

    def literal(self, variable: int, side: bool) -> int:
        """A variable, or its negation."""
        return self._node(variable, int(not side), int(side))

    def _node(self, variable: int, low: int, high: int) -> int:
        if low == high:
            return low
        key = (variable, low, high)
        if key not in self._unique:
            if len(self._nodes) >= MAX_NODES:
                raise CutOffError(f"more than {MAX_NODES} nodes of a decision diagram")
            self._unique[key] = len(self._nodes)
            self._nodes.append(key)
        return self._unique[key]

    def choose(self, test: int, yes: int, no: int) -> int:
        """``yes`` where the test is true, ``no`` elsewhere."""
        if test < 2:
            return yes if test else no
        if (yes, no) == (1, 0) or yes == no:
            return test if yes != no else yes
        key = (test, yes, no)
        if key not in self._done:
            top = min(self._nodes[n][0] for n in key)
            low, high = (self.choose(*(self._side(n, top, side) for n in key)) for side in (1, 2))
            self._done[key] = self._node(top, low, high)
        return self._done[key]

    def _side(self, node: int, variable: int, side: int) -> int:
        return self._nodes[node][side] if self._nodes[node][0] == variable else node

    def both(self, a: int, b: int) -> int:
        """Conjunction."""
        return self.choose(a, b, 0)

    def either(self, a: int, b: int) -> int:
        """Disjunction."""
        return self.choose(a, 1, b)

    def negation(self, a: int) -> int:
        """Complement."""
        return self.choose(a, 0, 1)

    def all_of(self, parts: Iterable[int]) -> int:
        """Conjunction of all."""
        return functools.reduce(self.both, parts, 1)

    def any_of(self, parts: Iterable[int]) -> int:
        """Disjunction of all."""
        return functools.reduce(self.either, parts, 0)

    def at_least(self, need: int, parts: Sequence[int]) -> int:
        """At least so many of the parts."""
        if need <= 0 or need > len(parts):
            return int(need <= 0)
        rows = [1] + [0] * need
        for part in parts:
            rows = [1] + [self.choose(part, rows[n - 1], rows[n]) for n in range(1, need + 1)]
        return rows[need]

    def follow(self, node: int, fixed: Mapping[int, bool]) -> int:
        """What is left when the first variables are fixed."""
        while self._nodes[node][0] in fixed:
            node = self._nodes[node][1 + fixed[self._nodes[node][0]]]
        return node

    def path(self, node: int) -> Iterator[tuple[int, bool]]:
        """Values of variables that make a diagram true."""
        while node > 1:
            variable, low, high = self._nodes[node]
            yield variable, high != 0
            node = high or low
