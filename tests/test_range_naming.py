"""Names for ranges: the same answers as without them, sooner, and what HermiT misses without."""

from __future__ import annotations

from decimal import Decimal

import pytest
from builders import PREFIXES
from hypothesis import given
from hypothesis import strategies as st

from kypho_kg.knowledge import Knowledge
from kypho_kg.range_naming import _within, is_range_name, name_ranges, without_names
from kypho_kg.reasoning import classify
from kypho_kg.store import Triples, parse_turtle
from kypho_kg.vocabulary import EQUIVALENT, SUBCLASS, XSD, local

RANGE = "[ a owl:Restriction ; owl:onProperty kypho:q ; owl:someValuesFrom [ a rdfs:Datatype ; owl:onDatatype xsd:decimal ; owl:withRestrictions ( {} ) ] ]"  # noqa: E501


def ontology(folder, **definitions: str) -> list:
    text = PREFIXES + "kypho:q a owl:DatatypeProperty , owl:FunctionalProperty . kypho:link a owl:ObjectProperty .\n"
    for name, facets in definitions.items():
        inner = RANGE.format(" ".join(f"[ xsd:{f} ]" for f in facets.split(", ")))
        text += f"kypho:{name} a owl:Class ; owl:equivalentClass {inner} .\n"
        text += (
            f"kypho:Link{name} a owl:Class ; owl:equivalentClass "
            f"[ a owl:Restriction ; owl:onProperty kypho:link ; owl:someValuesFrom {inner} ] .\n"
        )
    path = folder / "small.ttl"
    path.write_text(text, "utf-8")
    return list(parse_turtle(path))


def test_equal_restrictions_share_a_name_and_lie_in_wider_ones(tmp_path) -> None:
    rows = name_ranges(ontology(tmp_path, A="minInclusive 5.0", B="minInclusive 5.0", C="minInclusive 8.0"))
    named = {s for s, p, _ in rows if p == EQUIVALENT and is_range_name(s)}
    assert len(named) == 2
    within = [(s, o) for s, p, o in rows if p == SUBCLASS]
    assert len(within) == 1
    assert set(within[0]) == named


@pytest.mark.reasoner
def test_classification_is_what_the_ranges_say(tmp_path) -> None:
    rows = ontology(
        tmp_path, Over5="minInclusive 5.0", Over8="minInclusive 8.0", Under3="maxExclusive 3.0",
        From6To9="minInclusive 6.0, maxInclusive 9.0", Also5="minInclusive 5.0",
    )  # fmt: skip
    found = {
        (local(a), "=" if p == EQUIVALENT else "<", local(str(b)))
        for a, p, b in classify(Knowledge(Triples(rows), "", ""))
    }
    assert not [t for t in found if "range" in t[0] or "range" in t[2]]
    for prefix in ("", "Link"):
        assert (f"{prefix}Also5", "=", f"{prefix}Over5") in found
        assert {b for a, k, b in found if a == f"{prefix}Over8" and k == "<"} == {f"{prefix}Also5", f"{prefix}Over5"}
        assert {b for a, k, b in found if a == f"{prefix}From6To9" and k == "<"} == {f"{prefix}Also5", f"{prefix}Over5"}
        assert not [t for t in found if t[0] == f"{prefix}Under3"]


BOUND = st.decimals(min_value=-3, max_value=3, places=0).map(str)
FACETS = st.dictionaries(
    st.sampled_from([XSD + f for f in ("minInclusive", "minExclusive", "maxInclusive", "maxExclusive")]),
    BOUND,
    min_size=1,
)


def holds(facets: dict[str, str], value: Decimal) -> bool:
    tests = {
        "minInclusive": lambda b: value >= b, "minExclusive": lambda b: value > b,
        "maxInclusive": lambda b: value <= b, "maxExclusive": lambda b: value < b,
    }  # fmt: skip
    return all(tests[f.removeprefix(XSD)](Decimal(b)) for f, b in facets.items())


@given(FACETS, FACETS)
def test_a_range_that_is_said_to_lie_in_another_does(inner: dict[str, str], outer: dict[str, str]) -> None:
    values = [Decimal(n) / 2 for n in range(-10, 11)]
    lies = all(holds(outer, v) for v in values if holds(inner, v))
    if _within(inner, outer):
        assert lies
    elif lies:
        assert not any(holds(inner, v) for v in values)  # an empty range lies anywhere, and need not be said to


def test_what_a_name_stood_between_is_joined() -> None:
    n = "urn:kypho:range/1"
    edges = {("a", n), (n, "b"), ("a", "c"), ("c", "b"), (n, "urn:kypho:range/2"), ("urn:kypho:range/2", "d")}
    assert without_names(edges) == {("a", "c"), ("c", "b"), ("a", "d")}
