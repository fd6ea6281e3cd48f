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

from kypho_kg.record import Range
from kypho_kg.store import Triple, Triples
from kypho_kg.vocabulary import EQUIVALENT, ON_PROPERTY, OWL, SUBCLASS, TYPE, XSD

_NAME = "urn:kypho:range/"


def name_ranges(triples: Iterable[Triple]) -> list[Triple]:
    """The triples with a named class in the place of each restriction to a range; equal ones share a name.

    Which ranges of a functional quantity lie in one another and which have no number in common is said too: HermiT
    1.4.3 misses some of what follows from limits of one quantity.
    """
    t = Triples(triples)
    names: dict[tuple[str, Range], str] = {}
    first: dict[str, str] = {}
    renamed: dict[str, str] = {}
    for node, predicate, filler in t:
        if predicate == OWL + "someValuesFrom" and isinstance(filler, str) and t.resource(filler, OWL + "onDatatype"):
            key = (t.resource(node, ON_PROPERTY) or "", _range(t, filler))
            name = names.setdefault(key, f"{_NAME}{len(names)}")
            renamed[node] = name
            first.setdefault(name, node)
    kept = set(first.values())
    rows: list[Triple] = [
        (s, p, renamed.get(o, o) if isinstance(o, str) else o) for s, p, o in t if s not in renamed or s in kept
    ]
    for name, node in first.items():
        rows += [(name, TYPE, OWL + "Class"), (name, EQUIVALENT, node)]
    functional = set(t.subjects(TYPE, OWL + "FunctionalProperty"))
    for ((prop, one), name), ((other, another), other_name) in itertools.permutations(names.items(), 2):
        if prop != other:
            continue
        if one.within(another):
            rows.append((name, SUBCLASS, other_name))
        elif name < other_name and prop in functional and one.intersection(another) is None:
            rows.append((name, OWL + "disjointWith", other_name))
    return rows


def _range(t: Triples, datatype: str) -> Range:
    """The range of numbers that the facets of a datatype leave."""
    head = t.resource(datatype, OWL + "withRestrictions")
    found = Range(None, None)
    for facet in t.items(head) if head else ():
        for predicate in t.predicates(str(facet)):
            for bound in t.objects(str(facet), predicate):
                side = predicate.removeprefix(XSD)
                limit, is_open = Decimal(str(getattr(bound, "text", bound))), side.endswith("Exclusive")
                one = (
                    Range(limit, None, low_open=is_open)
                    if side.startswith("min")
                    else Range(None, limit, high_open=is_open)
                )
                found = found.intersection(one) or found
    return found


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
