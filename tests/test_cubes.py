"""Covers against the combinations that they stand for, one by one."""

from __future__ import annotations

import itertools
import operator
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from kypho_kg import cubes
from kypho_kg.cubes import Frame, minimal_sets

WIDTHS = (2, 1, 3)
STAYS = "stays"
POINTS = list(itertools.product(*[(*range(w), STAYS) for w in WIDTHS]))


def frame(budget=None):
    return Frame(WIDTHS, budget)


def points(f, cover):
    """The combinations in a cover: of each variable a cell, or that it stays."""
    return {p for p in POINTS if any(holds(f, cube, p) for cube in cover)}


def holds(f, cube, point):
    return bool(f.both((cube,), *(only(f, v, x) for v, x in enumerate(point))))


def only(f, variable, cell):
    return f.only(variable, 0, stays=True) if cell == STAYS else f.only(variable, 1 << cell)


@st.composite
def covers(draw):
    """A cover of up to five cubes, each by what it allows of some variables."""
    f = frame()
    found = []
    for _ in range(draw(st.integers(0, 5))):
        parts = [
            f.only(v, draw(st.integers(0, (1 << w) - 1)), stays=draw(st.booleans()))
            for v, w in enumerate(WIDTHS)
            if draw(st.booleans())
        ]
        found.extend(f.both(*parts))
    return tuple(found)


@given(covers(), covers())
def test_union_intersection_and_difference(a, b):
    f = frame()
    assert points(f, f.either(a, b)) == points(f, a) | points(f, b)
    assert points(f, f.both(a, b)) == points(f, a) & points(f, b)
    assert points(f, f.without(a, b)) == points(f, a) - points(f, b)


@given(st.lists(covers(), max_size=4), st.integers(0, 5))
def test_at_least(some, n):
    f = frame()
    counts = {p: sum(p in points(f, c) for c in some) for p in POINTS}
    assert points(f, f.at_least(n, some)) == {p for p, count in counts.items() if count >= n}


@given(covers(), st.sets(st.integers(0, 2)))
def test_everything(cover, among):
    """Whether each combination of cells of some variables is in it, while the others stay as they are."""
    f = frame()
    wanted = {p for p in POINTS if all((x != STAYS) is (v in among) for v, x in enumerate(p))}
    assert f.holds_everything(cover, f.support(among)) is (wanted <= points(f, cover))


@given(covers(), st.integers(0, 3))
def test_a_budget_keeps_what_changes_little(cover, budget):
    f = frame(budget)
    kept = f.either(cover)
    cheap = {p for p in points(f, cover) if sum(x != STAYS for x in p) <= budget}
    assert cheap <= points(f, kept)
    assert all(f.cost(cube) <= budget for cube in kept)
    assert all(len(f.numbers(f.changed(cube))) == f.cost(cube) for cube in kept)


@given(covers())
def test_settled_cubes_stay_where_they_can(cover):
    f = frame()
    for cube in cover:
        settled = f.settled(cube)
        assert points(f, (settled,)) <= points(f, (cube,))
        assert f.changed(settled) == f.changed(cube)
        for v in set(range(len(WIDTHS))) - set(f.numbers(f.changed(cube))):
            assert f.cells(settled, v) == 0


def test_too_many_cubes_are_owned_up_to(monkeypatch):
    monkeypatch.setattr(cubes, "LARGEST", 4)
    f = Frame([1] * 8)
    cover = f.either(*(f.only(v, 1) for v in range(8)))
    assert len(cover) == 4
    assert not f.exact
    assert f.cheapest_lost == 1


@given(st.lists(st.frozensets(st.integers(0, 5), min_size=1), max_size=5))
def test_minimal_sets(generators):
    """Against all subsets: a set is enough if it holds one of the generators."""
    everything = frozenset(range(6))

    def enough(some):
        return any(g <= some for g in generators)

    found, complete = minimal_sets(everything, enough, 99)
    assert complete
    smallest = {g for g in generators if not any(other < g for other in generators)}
    assert set(found) == smallest
    assert not found or reduce(operator.or_, found) <= everything


def test_minimal_sets_stop_at_a_number():
    found, complete = minimal_sets(frozenset(range(6)), bool, 4)
    assert (len(found), complete) == (4, False)
