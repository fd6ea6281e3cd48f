"""Names for ranges: the same answers as without them, sooner, and what HermiT misses without."""

from __future__ import annotations

import pytest
from builders import PREFIXES

from kypho_kg.knowledge import Knowledge
from kypho_kg.range_naming import is_range_name, name_ranges, without_names
from kypho_kg.reasoning import classify
from kypho_kg.store import Triples, parse_turtle
from kypho_kg.vocabulary import EQUIVALENT, OWL, SUBCLASS, local

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
    assert not [r for r in rows if r[1] == OWL + "disjointWith"]
    within = [(s, o) for s, p, o in rows if p == SUBCLASS]
    assert len(within) == 1
    assert set(within[0]) == named


def test_ranges_without_a_common_number_are_disjoint(tmp_path) -> None:
    rows = name_ranges(ontology(tmp_path, A="maxExclusive 5.0", B="minInclusive 5.0", C="maxInclusive 5.0"))
    disjoint = [(s, o) for s, p, o in rows if p == OWL + "disjointWith"]
    assert len(disjoint) == 1


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


def test_what_a_name_stood_between_is_joined() -> None:
    n = "urn:kypho:range/1"
    edges = {("a", n), (n, "b"), ("a", "c"), ("c", "b"), (n, "urn:kypho:range/2"), ("urn:kypho:range/2", "d")}
    assert without_names(edges) == {("a", "c"), ("c", "b"), ("a", "d")}
