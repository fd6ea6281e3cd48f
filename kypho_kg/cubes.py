"""Sets of combinations of values, as unions of cubes.

A variable stays as it is now, known or not, or takes one of a few cells. A cube allows some of these for each variable,
and holds every combination of what it allows; a cover is a union of cubes. Both are the many-valued forms of
two-level logic synthesis (Rudell and Sangiovanni-Vincentelli 1987). A cube is one integer with a bit for each cell, so
that the common part of two cubes is ``&``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

Cube = int
Support = int
"""A set of variables: their guard bits."""
Cover = tuple[Cube, ...]
NOTHING: Cover = ()

LARGEST = 1024
"""Cubes in a cover; of more, the cheapest are kept, and the result is no longer exact."""

T = TypeVar("T")


class Frame:
    """The variables of one question, and the operations on covers over them.

    Each variable has a field of bits: one for each cell, one for staying as it is, and above them a guard bit. Adding
    all ones to every field sets the guards of those that are not empty, so that one addition looks at all variables.

    :param widths: number of cells of each variable.
    :param budget: cubes that change more variables are left out.
    """

    def __init__(self, widths: Sequence[int], budget: int | None = None) -> None:
        self._widths = tuple(widths)
        self._offsets: list[int] = []
        self._fields: list[int] = []
        self._guards: list[int] = []
        self._field_of: list[int] = []
        self._stays = place = 0
        for width in widths:
            field = ((1 << width + 1) - 1) << place
            self._stays |= 1 << place + width
            self._offsets.append(place)
            self._fields.append(field)
            self._guards.append(1 << place + width + 1)
            self._field_of.extend([field] * (width + 2))
            place += width + 2
        self.full: Cube = sum(self._fields)
        self._all_guards = sum(self._guards)
        self.everything: Cover = (self.full,)
        self.budget = budget
        self.cheapest_lost: int | None = None
        """Changes of the cheapest cube that was left out because a cover grew too large; ``None`` if none was."""
        self._tautologies: dict[frozenset[Cube], bool] = {}

    @property
    def exact(self) -> bool:
        """Whether no cover grew too large."""
        return self.cheapest_lost is None

    def only(self, variable: int, cells: int, *, stays: bool = False) -> Cover:
        """The combinations in which a variable takes one of the cells, or stays as it is."""
        allowed = cells | (1 << self._widths[variable] if stays else 0)
        return (self.full & ~self._fields[variable] | allowed << self._offsets[variable],) if allowed else NOTHING

    def cells(self, cube: Cube, variable: int) -> int:
        """The cells of a variable that a cube allows."""
        return (cube & self._fields[variable]) >> self._offsets[variable] & (1 << self._widths[variable]) - 1

    def changed(self, cube: Cube) -> Support:
        """The variables that cannot stay as they are now."""
        return ~((cube & self._stays) + self.full) & self._all_guards

    def cost(self, cube: Cube) -> int:
        """How many variables must change."""
        return self.changed(cube).bit_count()

    def numbers(self, some: Support) -> tuple[int, ...]:
        """The variables of a support by their numbers."""
        return tuple(i for i, guard in enumerate(self._guards) if some & guard)

    def support(self, numbers: Iterable[int]) -> Support:
        """A support of the variables with these numbers."""
        return sum(self._guards[i] for i in numbers)

    def settled(self, cube: Cube) -> Cube:
        """The cube in which every variable that can stay as it is does."""
        for field in self._fields:
            if cube & self._stays & field:
                cube = cube & ~field | self._stays & field
        return cube

    # -- covers

    def either(self, *covers: Cover) -> Cover:
        """The union."""
        return self._kept([cube for cover in covers for cube in cover])

    def both(self, *covers: Cover) -> Cover:
        """The intersection."""
        result = self.everything
        for cover in sorted(covers, key=len):
            if cover == self.everything:
                continue
            if result == self.everything:
                result = cover
                continue
            met = (a & b for a in result for b in cover)
            full, guards = self.full, self._all_guards
            result = self._kept([c for c in met if c + full & guards == guards])
            if not result:
                break
        return result

    def at_least(self, n: int, covers: Sequence[Cover]) -> Cover:
        """The combinations that lie in at least n of the covers."""
        if n <= 0:
            return self.everything
        if n > len(covers):
            return NOTHING
        first, rest = covers[0], covers[1:]
        return self.either(self.both(first, self.at_least(n - 1, rest)), self.at_least(n, rest))

    def without(self, cover: Cover, other: Cover) -> Cover:
        """What lies in the cover and not in the other."""
        left = list(cover)
        for taken in other:
            pieces = (piece for cube in left for piece in self._sharp(cube, taken))
            left = [p for p in dict.fromkeys(pieces) if self.budget is None or self.cost(p) <= self.budget]
        return self._kept(left)

    def _sharp(self, cube: Cube, taken: Cube) -> Iterator[Cube]:
        if (cube & taken) + self.full & self._all_guards != self._all_guards:
            yield cube
            return
        outside = cube & ~taken
        for field in self._fields:
            if outside & field:
                yield cube & ~field | outside & field

    def holds_everything(self, cover: Cover, among: Support | None = None) -> bool:
        """Whether every combination of cells lies in a cube.

        :param among: of these variables alone; all others stay as they are now.
        """
        if among is None:
            return self._tautology(frozenset(cover))
        others = sum(f for f, guard in zip(self._fields, self._guards, strict=True) if not among & guard)
        return self._tautology(frozenset(c | others for c in cover if not self.changed(c) & ~among))

    def _tautology(self, cubes: frozenset[Cube]) -> bool:
        if self.full in cubes:
            return True
        if not cubes:
            return False
        if cubes not in self._tautologies:
            widest = max(cubes, key=int.bit_count)
            lacking = self.full & ~widest
            field = self._field_of[(lacking & -lacking).bit_length() - 1]
            rest, answer = field & ~self._stays, True
            while rest and answer:
                bit = rest & -rest
                rest ^= bit
                answer = self._tautology(frozenset(c | field for c in cubes if c & bit))
            self._tautologies[cubes] = answer
        return self._tautologies[cubes]

    def _kept(self, cubes: Iterable[Cube]) -> Cover:
        """The cubes within the budget that lie in no other."""
        unique = list(dict.fromkeys(cubes))
        if self.budget is not None:
            unique = [c for c in unique if self.cost(c) <= self.budget]
        if len(unique) > 1:
            unique.sort(key=int.bit_count, reverse=True)  # a larger cube is never within a smaller one
            kept: list[Cube] = []
            for cube in unique:
                for other in kept:
                    if cube & other == cube:
                        break
                else:
                    kept.append(cube)
            unique = kept
        if len(unique) > LARGEST:
            unique.sort(key=self.cost)
            lost = self.cost(unique[LARGEST])
            self.cheapest_lost = lost if self.cheapest_lost is None else min(lost, self.cheapest_lost)
            unique = unique[:LARGEST]
        return tuple(unique)


def minimal_sets(
    everything: frozenset[T], enough: Callable[[frozenset[T]], bool], most: int
) -> tuple[list[frozenset[T]], bool]:
    """All smallest sets that are enough, and whether these are all.

    Each further set must leave out one member of every set that was found (the duality of minimal sets and hitting
    sets; Reiter 1987).

    :param enough: says whether a set is enough; whatever holds such a set is then enough too.
    :param most: how many sets are looked for.
    """
    if not enough(everything):
        return [], True
    order = {x: i for i, x in enumerate(sorted(everything, key=repr))}

    def shrunk(start: frozenset[T]) -> frozenset[T]:
        for x in sorted(start, key=order.__getitem__, reverse=True):
            if x in start and enough(start - {x}):
                start = start - {x}
        return start

    found: list[frozenset[T]] = []
    tried: set[frozenset[T]] = set()
    todo: list[frozenset[T]] = [frozenset()]
    while todo:
        left_out = todo.pop(0)
        if left_out in tried:
            continue
        tried.add(left_out)
        known = next((s for s in found if not s & left_out), None)
        if known is None:
            if not enough(everything - left_out):
                continue
            if len(found) == most:
                return found, False
            known = shrunk(everything - left_out)
            found.append(known)
        todo.extend(left_out | {x} for x in sorted(known, key=order.__getitem__))
    return found, True
