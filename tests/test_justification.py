"""Justifications: a smallest set of axioms behind a consequence, and how it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from kypho_kg import justification
from kypho_kg.cli import app
from kypho_kg.errors import EngineError, UsageError
from kypho_kg.justification import Axiom, axioms_of, class_named, justify
from kypho_kg.knowledge import Knowledge
from kypho_kg.manchester import Renderer
from kypho_kg.store import Triple, Triples, parse_turtle
from kypho_kg.vocabulary import KYPHO

HEADER = """
    PREFIX : <https://w3id.org/kypho#>
    PREFIX owl: <http://www.w3.org/2002/07/owl#>
    PREFIX rdfs: <http://www.w3.org/2000/01/rdf-schema#>
    PREFIX xsd: <http://www.w3.org/2001/XMLSchema#>
    :Top a owl:Class . :Left a owl:Class ; rdfs:label "left side"@en . :Right a owl:Class . :Other a owl:Class .
    :Both a owl:Class . :Large a owl:Class . :Huge a owl:Class ; rdfs:label "huge"@en .
    :part a owl:ObjectProperty . :next a owl:ObjectProperty . :size a owl:DatatypeProperty .
    :One a owl:NamedIndividual . :Two a owl:NamedIndividual .
"""
BROKEN = """
    :Left rdfs:subClassOf :Top . :Right rdfs:subClassOf :Top . :Other rdfs:subClassOf :Left , :Top .
    [] a owl:AllDisjointClasses ; owl:members ( :Left :Right :Large ) .
    :Both rdfs:subClassOf :Other , :Right .
    :part rdfs:range :Right ; a owl:FunctionalProperty .
    :Large owl:equivalentClass [ a owl:Restriction ; owl:onProperty :size ; owl:someValuesFrom [
        a rdfs:Datatype ; owl:onDatatype xsd:decimal ; owl:withRestrictions ( [ xsd:minInclusive 2.0 ] ) ] ] .
    :Huge owl:equivalentClass [ a owl:Restriction ; owl:onProperty :size ; owl:someValuesFrom [
        a rdfs:Datatype ; owl:onDatatype xsd:decimal ; owl:withRestrictions ( [ xsd:minExclusive 7.5 ] ) ] ] .
"""


@pytest.fixture
def small(tmp_path: Path) -> Callable[[str], Knowledge]:
    def small(text: str) -> Knowledge:
        path = tmp_path / "small.ttl"
        path.write_text(HEADER + text)
        return Knowledge(Triples(parse_turtle(path)), "", "")

    return small


# -- with the reasoner


@pytest.mark.reasoner
def test_why_a_class_is_empty(small: Callable[[str], Knowledge]) -> None:
    found = justify(small(BROKEN), "Both")
    assert str(found).splitlines() == [
        "nothing can belong to Both, because",
        "  1. Other SubClassOf Left",
        "  2. Both SubClassOf Other",
        "  3. Both SubClassOf Right",
        "  4. DisjointClasses: Left, Right, Large",
        "where",
        "  Left  left side",
    ]


@pytest.mark.reasoner
def test_why_a_class_lies_within_another(small: Callable[[str], Knowledge]) -> None:
    """Here what stands on the left of the axioms does not lead from the one class to the other."""
    found = justify(small(BROKEN), KYPHO + "Huge", "Large")
    assert found.consequence == "Huge lies within Large, because"
    assert found.axioms == (
        "Large EquivalentTo size some xsd:decimal[>= 2.0]",
        "Huge EquivalentTo size some xsd:decimal[> 7.5]",
    )
    assert found.labels == (("Huge", "huge"),)


@pytest.mark.reasoner
def test_why_there_is_no_model(small: Callable[[str], Knowledge]) -> None:
    found = justify(small(BROKEN + ":One a :Left . :Two :part :One ; a :Other ."), "Top")
    assert found.consequence == "the ontology contradicts itself, because"
    assert set(found.axioms) == {
        "DisjointClasses: Left, Right, Large", "One Type Left", "Two part One", "part Range Right",
    }  # fmt: skip


@pytest.mark.reasoner
def test_what_does_not_follow(small: Callable[[str], Knowledge]) -> None:
    with pytest.raises(UsageError, match="something can belong to the class"):
        justify(small(BROKEN), "Left")
    with pytest.raises(UsageError, match="does not follow"):
        justify(small(BROKEN), "Top", "Left")


@pytest.mark.reasoner
def test_time_runs_out(small: Callable[[str], Knowledge]) -> None:
    with pytest.raises(EngineError, match=r"within 0\.05 s"):
        justify(small(BROKEN), "Both", timeout=0.05)


@pytest.mark.reasoner
def test_on_the_command_line(knowledge: Knowledge) -> None:
    done = CliRunner().invoke(app, ["ontology", "justify", "PrimaryOsteoporosis", "--under", "OsteoporoticEtiology"])
    assert done.exit_code == 0, done.output
    assert "1. PrimaryOsteoporosis SubClassOf OsteoporoticEtiology" in done.output


# -- the search, with a reasoner that answers at once


@given(st.one_of(st.integers(1, 6), st.integers(justification._FEW - 1, 60)), st.data())
def test_no_axiom_can_be_left_out(count: int, data: st.DataObject) -> None:
    """Whatever sets of axioms have the consequence, the result is one of them and none of its parts is."""
    names = [f"A{n}" for n in range(count)]
    sets = data.draw(st.lists(st.sets(st.sampled_from(names), min_size=1), min_size=1, max_size=4))
    rows: list[Triple] = [(KYPHO + n, "http://www.w3.org/2000/01/rdf-schema#subClassOf", KYPHO + "Z") for n in names]
    kind = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"
    declared: list[Triple] = [(KYPHO + n, kind, "http://www.w3.org/2002/07/owl#Class") for n in ("C", "Z", *names)]

    def answer(_: Knowledge, given: Iterable[Triple], classes: Sequence[str], timeout: float) -> dict[str, bool]:
        there = {s.removeprefix(KYPHO) for s, _, o in given if o == KYPHO + "Z"}
        return {c: c.endswith("anything") or not any(s <= there for s in sets) for c in classes}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(justification, "satisfiable", answer)
        found = justify(Knowledge(Triples([*declared, *rows]), "", ""), "C")
    chosen = {axiom.split()[0] for axiom in found.axioms}
    assert chosen in sets
    assert not any(other < chosen for other in sets)


def test_the_class_must_exist(small: Callable[[str], Knowledge]) -> None:
    k = small("")
    assert class_named(k, "Left") == class_named(k, KYPHO + "Left") == KYPHO + "Left"
    with pytest.raises(UsageError, match=r"no class 'Lfet'; did you mean Left\?"):
        justify(k, "Lfet")
    with pytest.raises(UsageError, match=r"no class 'part'$"):
        justify(k, "Left", "part")


# -- axioms and how they read


def axiom_texts(knowledge: Knowledge) -> list[str]:
    write = Renderer(knowledge.triples)
    return [write.axiom(axiom.head) for axiom in axioms_of(knowledge.triples)[0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":Left rdfs:subClassOf :Top .", "Left SubClassOf Top"),
        (":Left owl:disjointWith :Right .", "Left DisjointWith Right"),
        (":part a owl:FunctionalProperty .", "Functional: part"),
        (":part rdfs:range :Left .", "part Range Left"),
        (":size rdfs:range xsd:decimal .", "size Range xsd:decimal"),
        (":part owl:propertyChainAxiom ( :next :part ) .", "next o part SubPropertyOf part"),
        (":One :size 2.50 .", "One size 2.50"),
        (':One :size "two" .', "One size 'two'"),
        (":One a :Left .", "One Type Left"),
        ("[] a owl:AllDifferent ; owl:distinctMembers ( :One :Two ) .", "DifferentIndividuals: One, Two"),
        (
            "[ a owl:Restriction ; owl:onProperty :part ; owl:hasValue :One ] rdfs:subClassOf [ a owl:Class ;"
            " owl:complementOf [ a owl:Restriction ; owl:onProperty :next ; owl:someValuesFrom :Left ] ] .",
            "part value One SubClassOf not (next some Left)",
        ),
        (
            ":Both owl:equivalentClass [ a owl:Class ; owl:intersectionOf ( :Left [ a owl:Class ; owl:unionOf ( :Right"
            " [ a owl:Class ; owl:oneOf ( :One :Two ) ] ) ] ) ] .",
            "Both EquivalentTo Left and (Right or {One, Two})",
        ),
        (
            ":Both owl:equivalentClass [ a owl:Restriction ; owl:onProperty :size ; owl:someValuesFrom [ a"
            " rdfs:Datatype ; owl:onDatatype xsd:decimal ;"
            " owl:withRestrictions ( [ xsd:minInclusive 9 ] [ xsd:maxExclusive 11 ] ) ] ] .",
            "Both EquivalentTo size some xsd:decimal[>= 9, < 11]",
        ),
        (
            ":Both rdfs:subClassOf [ a owl:Restriction ; owl:onProperty :part ; owl:allValuesFrom [ a owl:Class ;"
            " owl:complementOf :Left ] ] .",
            "Both SubClassOf part only (not Left)",
        ),
    ],
)
def test_an_axiom_in_words(small: Callable[[str], Knowledge], text: str, expected: str) -> None:
    assert axiom_texts(small(text)) == [expected]


def test_annotations_and_declarations_are_no_axioms(small: Callable[[str], Knowledge]) -> None:
    k = small(":note a owl:AnnotationProperty ; rdfs:range :Left . :Left :note :Right .")
    axioms, declarations = axioms_of(k.triples)
    assert axioms == []
    assert len(declarations) == 13


def test_every_axiom_of_the_ontology_is_taken_whole(knowledge: Knowledge) -> None:
    """Each blank node belongs to one axiom, none to none, and each axiom has words of its own."""
    axioms, _ = axioms_of(knowledge.triples)
    owned: dict[str, list[Axiom]] = {}
    for axiom in axioms:
        for node in {s for s, _, _ in axiom.triples if s.startswith("_:")}:
            owned.setdefault(node, []).append(axiom)
    assert {s for s, _, _ in knowledge.triples if s.startswith("_:")} == owned.keys()
    assert [node for node, owners in owned.items() if len(owners) != 1] == []
    texts = axiom_texts(knowledge)
    assert [text for text in texts if "_:" in text or "[" in text.replace("decimal[", "")] == []
    assert len(set(texts)) == len(texts) > 500
