"""Ontologies in a form in which a tableau reasoner is fast: each range of a quantity gets a class name of its own.

Behind a link, ``link some (quantity some decimal[>= 5])`` makes the reasoner decide for every case whether there is
such a value, also where nothing is said of the quantity: each such decision is a guess, and each guess puts a
definition among the possible superclasses of every other class. With a name for the inner part, ``link some N`` and
``N EquivalentTo quantity some decimal[>= 5]``, nothing is guessed until there is a value.
This is the structural transformation of A. Nonnengart and C. Weidenbach (Handbook of Automated Reasoning, 2001,
chapter 6): what follows between the classes of the ontology stays the same.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal

from kypho_kg.store import Literal, Triple, Triples
from kypho_kg.vocabulary import EQUIVALENT, ON_PROPERTY, OWL, SUBCLASS, TYPE, XSD

_NAME = "urn:kypho:range/"


def name_ranges(triples: Iterable[Triple]) -> list[Triple]:
    """The triples with a named class in the place of each restriction to a range; equal ones share a name.

    That one range lies in another is said too: HermiT 1.4.3 misses some of what follows from limits of one quantity.
    """
    t = Triples(triples)
    names: dict[tuple[str, frozenset[tuple[str, str]]], str] = {}
    first: dict[str, str] = {}
    renamed: dict[str, str] = {}
    for node, predicate, filler in t:
        if predicate == OWL + "someValuesFrom" and isinstance(filler, str) and t.resource(filler, OWL + "onDatatype"):
            key = (t.resource(node, ON_PROPERTY) or "", frozenset(_facets(t, filler)))
            name = names.setdefault(key, f"{_NAME}{len(names)}")
            renamed[node] = name
            first.setdefault(name, node)
    kept = set(first.values())
    rows: list[Triple] = [
        (s, p, renamed.get(o, o) if isinstance(o, str) else o) for s, p, o in t if s not in renamed or s in kept
    ]
    for name, node in first.items():
        rows += [(name, TYPE, OWL + "Class"), (name, EQUIVALENT, node)]
    for (prop, inner), (other, outer) in itertools.permutations(names, 2):
        if prop == other and _within(dict(inner), dict(outer)):
            rows.append((names[prop, inner], SUBCLASS, names[other, outer]))
    return rows


def _facets(t: Triples, datatype: str) -> Iterable[tuple[str, str]]:
    head = t.resource(datatype, OWL + "withRestrictions")
    for facet in t.items(head) if head else ():
        for predicate in t.predicates(str(facet)):
            for bound in t.objects(str(facet), predicate):
                yield predicate, bound.text if isinstance(bound, Literal) else bound


def _within(inner: Mapping[str, str], outer: Mapping[str, str]) -> bool:
    """Whether every number with the inner facets has the outer ones."""
    return _within_side(inner, outer, "min", 1) and _within_side(inner, outer, "max", -1)


def _within_side(inner: Mapping[str, str], outer: Mapping[str, str], side: str, sign: int) -> bool:
    a, b = (
        [
            (sign * Decimal(f[XSD + side + kind]), kind == "Exclusive")
            for kind in ("Inclusive", "Exclusive")
            if XSD + side + kind in f
        ]
        for f in (inner, outer)
    )
    return not b or (bool(a) and max(a) >= max(b))


def without_names(edges: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Direct subclass pairs with the names of ranges taken out, and what stood on both sides of one joined."""
    above: dict[str, set[str]] = defaultdict(set)
    for lower, upper in edges:
        above[lower].add(upper)
    reached = {c: _reach(above, c) for c in above if not is_range_name(c)}
    direct = set()
    for lower, uppers in reached.items():
        direct |= {
            (lower, u) for u in uppers if not any(u in reached.get(between, ()) for between in uppers if between != u)
        }
    return direct


def _reach(above: Mapping[str, set[str]], start: str) -> set[str]:
    """All classes above one, the names of ranges left out."""
    found: set[str] = set()
    todo = list(above.get(start, ()))
    while todo:
        cls = todo.pop()
        if cls not in found:
            found.add(cls)
            todo += above.get(cls, ())
    return {c for c in found if not is_range_name(c)}


def is_range_name(name: str) -> bool:
    """Whether a class stands for a range only."""
    return name.startswith(_NAME)
