"""Between which numbers each quantity must lie to be believed: read from the shapes, which alone say so."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from types import MappingProxyType

from kypho_kg._resources import resource_dir
from kypho_kg.record import Fact, Range, TimeSpan
from kypho_kg.store import Literal, Triples, parse_turtle
from kypho_kg.vocabulary import TYPE, XSD

_SH = "http://www.w3.org/ns/shacl#"


@dataclass(frozen=True, slots=True)
class Limits:
    """The values of a quantity that a shape lets pass."""

    range: Range
    whole: bool
    """Whether only whole numbers do."""

    def let_pass(self, number: Decimal) -> bool:
        """Whether a number, or an end of a range, is believed."""
        low, high = self.range.low, self.range.high
        inside = (low is None or number >= low) and (high is None or number <= high)
        return inside and (not self.whole or number == number.to_integral_value())


@functools.cache
def _shapes() -> Triples:
    return Triples(parse_turtle(resource_dir("shapes") / "fact.ttl"))


@functools.cache
def limits() -> Mapping[str, Limits]:
    """The limits of each quantity that has some, by the IRI of its property."""
    t = _shapes()
    found = {}
    for shape in t.subjects(TYPE, _SH + "PropertyShape"):
        path = t.resource(shape, _SH + "path")
        low, high = (_number(t, shape, name) for name in ("minInclusive", "maxInclusive"))
        if path and (low is not None or high is not None):
            found[path] = Limits(Range(low, high), bool(t.text(shape, _SH + "pattern")))
    return MappingProxyType(found)


@functools.cache
def earliest() -> Mapping[str, date]:
    """The first day that each date feature lets pass, by the IRI of its property."""
    t = _shapes()
    found = {}
    for shape in t.subjects(TYPE, _SH + "PropertyShape"):
        path = t.resource(shape, _SH + "path")
        for x in t.objects(shape, _SH + "minInclusive"):
            if path and isinstance(x, Literal) and x.datatype == XSD + "date":
                found[path] = date.fromisoformat(x.text)
    return MappingProxyType(found)


def believable(fact: Fact) -> bool:
    """Whether the shapes let the value of a fact pass, without asking them: for many facts, of which few do not."""
    if isinstance(fact.value, Range):
        known = limits().get(fact.feature)
        ends = [end for end in (fact.value.low, fact.value.high) if end is not None]
        return known is None or all(map(known.let_pass, ends))
    if isinstance(fact.value, TimeSpan):
        first = earliest().get(fact.feature)
        return first is None or fact.value.start.date() >= first
    return True


def _number(t: Triples, shape: str, name: str) -> Decimal | None:
    literals = [x for x in t.objects(shape, _SH + name) if isinstance(x, Literal) and x.datatype == XSD + "decimal"]
    if not literals:
        return None
    value = Decimal(literals[0].text)
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value
