"""The ontology as one file: nothing lost in any syntax, the same bytes in every run, what the reasoner adds."""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyoxigraph as ox
import pytest
import rdflib
from rdflib import OWL as O
from rdflib import RDF as R
from test_cli import kypho  # noqa: F401 - a fixture

from kypho_kg.errors import EngineError, KnowledgeBaseError
from kypho_kg.loading import import_closure
from kypho_kg.ontology_export import ROOT, Syntax, classified, definitions, merged, serialise
from kypho_kg.store import Literal, Triple, Triples, parse_turtle
from kypho_kg.vocabulary import DCTERMS, EQUIVALENT, GUIDELINES, KYPHO, OWL, RDFS, SUBCLASS, TYPE, XSD

HOUSE = Path(__file__).resolve().parent.parent
FOLDER = HOUSE / "ontology"
HEADER = f"""
PREFIX : <{KYPHO}> PREFIX owl: <{OWL}> PREFIX rdfs: <{RDFS}> PREFIX xsd: <{XSD}>
<urn:o> a owl:Ontology . :p a owl:ObjectProperty . :q a owl:DatatypeProperty .
:A a owl:Class . :B a owl:Class . :C a owl:Class . :D a owl:Class . :x a owl:NamedIndividual .
"""
RDF_SYNTAXES = {Syntax.TURTLE: ox.RdfFormat.TURTLE, Syntax.RDFXML: ox.RdfFormat.RDF_XML}


def term(name: str) -> str:
    return KYPHO + name


def small(tmp_path: Path, *axioms: str) -> list[Triple]:
    path = tmp_path / "small.ttl"
    path.write_text(HEADER + "\n".join(axioms))
    return parse_turtle(path)


def read(text: str, syntax: Syntax) -> list[ox.Quad]:
    return list(ox.parse(text.encode(), format=RDF_SYNTAXES[syntax]))


@pytest.fixture(scope="module")
def whole() -> list[Triple]:
    return merged(FOLDER)


@pytest.fixture(scope="module")
def written(whole) -> Callable[[Syntax], str]:
    return functools.cache(lambda syntax: serialise(whole, syntax))


@pytest.fixture(params=["part", pytest.param("whole", marks=pytest.mark.slow)])
def large(request, whole) -> list[Triple]:
    """The modules with one guideline, or all."""
    if request.param == "whole":
        return whole
    guideline = parse_turtle(FOLDER / "guidelines" / "cms-l34228.ttl")
    (name,) = (s for s, p, o in guideline if p == TYPE and o == OWL + "Ontology")
    return [*merged(FOLDER, guidelines=False), *(row for row in guideline if row[0] != name)]


# -- merging


def test_one_ontology_without_imports(whole):
    assert [s for s, p, o in whole if p == TYPE and o == OWL + "Ontology"] == [ROOT]
    assert OWL + "imports" not in {p for _, p, _ in whole}


def test_every_statement_of_every_file_is_there_once(whole):
    files = import_closure(FOLDER)
    headers = {s for rows in files.values() for s, p, o in rows if p == TYPE and o == OWL + "Ontology"}

    def ground(rows):
        return {row for row in rows if not any(str(x).startswith("_:") for x in row) and row[0] not in headers}

    assert ground(whole) == ground(row for rows in files.values() for row in rows)
    assert len(whole) == len(set(whole))
    # blank nodes have new names each time a file is read
    nodes = Counter(p for s, p, _ in whole if s.startswith("_:"))
    assert nodes == Counter(p for rows in files.values() for s, p, _ in rows if s.startswith("_:"))


def test_the_header_is_that_of_the_root_with_the_versions_of_its_parts(whole):
    t = Triples(whole)
    versions = [
        str(o)
        for path, rows in import_closure(FOLDER).items()
        if path.name != "kypho.ttl"
        for s, p, o in rows
        if p == OWL + "versionIRI"
    ]
    assert set(versions) <= set(t.resources(ROOT, DCTERMS + "source"))
    assert t.text(ROOT, DCTERMS + "title").startswith("Kypho KG")
    assert len(t.resources(ROOT, OWL + "versionIRI")) == 1


def test_without_the_guidelines_nothing_of_them_is_named():
    rows = merged(FOLDER, guidelines=False)
    assert not [row for row in rows if any(str(x).startswith(GUIDELINES) for x in row)]
    declared = {s for s, p, _ in rows if p == TYPE}
    assert {x for row in rows for x in row if isinstance(x, str) and x.startswith(KYPHO)} <= declared


# -- writing


@pytest.mark.parametrize("syntax", RDF_SYNTAXES)
def test_rdf_syntaxes_keep_every_triple(whole, written, syntax):
    quads = read(written(syntax), syntax)
    assert len(quads) == len(whole)

    def plain(value):
        if isinstance(value, ox.Literal):
            return Literal(value.value, value.datatype.value, value.language or "")
        return value.value if isinstance(value, ox.NamedNode) else "_:"

    def blind(value):
        return "_:" if isinstance(value, str) and value.startswith("_:") else value

    found = Counter(tuple(map(plain, (q.subject, q.predicate, q.object))) for q in quads)
    assert found == Counter(tuple(map(blind, row)) for row in whole)


@pytest.mark.slow
@pytest.mark.reasoner
def test_owlapi_finds_the_same_axioms_in_every_syntax(large, tmp_path):
    owlapi = pytest.importorskip("owlapi", reason="the tests have no OWLAPI")
    contents = []
    for syntax, ending in ((Syntax.TURTLE, "ttl"), (Syntax.RDFXML, "owl"), (Syntax.FUNCTIONAL, "ofn")):
        path = tmp_path / f"large.{ending}"
        path.write_text(serialise(large, syntax), "utf-8")
        contents.append(owlapi.content(owlapi.load(path, {})))
    assert contents[0]["axioms"] ^ contents[1]["axioms"] == frozenset()
    assert contents[0]["axioms"] ^ contents[2]["axioms"] == frozenset()
    assert contents[0] == contents[1] == contents[2]
    gc.collect()  # Java frees what Python no longer holds


def test_functional_syntax_has_every_axiom(whole, written):
    """By kind; OWLAPI compares them one by one."""
    text = written(Syntax.FUNCTIONAL)
    found = Counter(line.strip().partition("(")[0] for line in text.splitlines())
    t = Triples(whole)
    properties = set(t.subjects(TYPE, OWL + "AnnotationProperty")) | {
        RDFS + n for n in ("label", "comment", "seeAlso", "isDefinedBy")
    } | {OWL + n for n in ("versionInfo", "deprecated", "priorVersion")}  # fmt: skip
    assert found["DisjointClasses"] == sum(
        p == OWL + "disjointWith" or (p, o) == (TYPE, OWL + "AllDisjointClasses") for _, p, o in whole
    )
    assert found["DifferentIndividuals"] == len(t.subjects(TYPE, OWL + "AllDifferent"))
    assert found["EquivalentClasses"] == sum(p == EQUIVALENT for _, p, _ in whole)
    assert found["SubClassOf"] == sum(p == SUBCLASS for _, p, _ in whole)
    assert found["AnnotationAssertion"] == sum(p in properties and s != ROOT for s, p, _ in whole)
    assert found["Annotation"] == sum(p in properties and s == ROOT for s, p, _ in whole)
    for kind in ("Class", "ObjectProperty", "AnnotationProperty", "NamedIndividual"):
        named = [s for s in t.subjects(TYPE, OWL + kind) if not s.startswith("_:")]
        assert text.count(f"Declaration({kind}(") == len(named), kind


def test_disjointness_of_several_classes_is_kept_in_functional_syntax(tmp_path):
    rows = small(tmp_path, "[] a owl:AllDisjointClasses ; owl:members (:A :B :C) .", ":A owl:disjointWith :D .")
    text = serialise(rows, Syntax.FUNCTIONAL)
    assert "DisjointClasses(kypho:A kypho:B kypho:C)" in text
    assert "DisjointClasses(kypho:A kypho:D)" in text


@pytest.mark.parametrize("number", ["5", "5.0", "5.00", "+5", "007", "-0.5", "1.80000000000000000001", ".5", "0.0"])
@pytest.mark.parametrize("syntax", Syntax)
def test_decimals_keep_their_digits(tmp_path, number, syntax):
    text = serialise(small(tmp_path, f':x :q "{number}"^^xsd:decimal .'), syntax)
    if syntax is Syntax.FUNCTIONAL:
        assert f'DataPropertyAssertion(kypho:q kypho:x "{number}"^^xsd:decimal)' in text
    else:
        (value,) = (q.object for q in read(text, syntax) if q.predicate.value == term("q"))
        assert (value.value, value.datatype.value) == (number, XSD + "decimal")


@pytest.mark.parametrize("syntax", Syntax)
def test_text_is_kept(tmp_path, syntax):
    said = 'a "quote", a \\ and <b> & \u00b1 9 \u2265 8'
    rows = [*small(tmp_path), (term("A"), RDFS + "comment", Literal(said, language="en"))]
    text = serialise(rows, syntax)
    if syntax is Syntax.FUNCTIONAL:
        assert '"a \\"quote\\", a \\\\ and <b> & \u00b1 9 \u2265 8"@en' in text
    else:
        (value,) = (q.object for q in read(text, syntax) if q.predicate.value == RDFS + "comment")
        assert (value.value, value.language) == (said, "en")


@pytest.mark.parametrize("syntax", RDF_SYNTAXES)
def test_properties_of_unknown_vocabularies(tmp_path, syntax):
    axioms = [f'<urn:o> <https://example.org/{n}/says> "{n}" .' for n in "zyxwv"]
    text = serialise(small(tmp_path, *axioms), syntax)
    assert {q.object.value for q in read(text, syntax)} >= set("vwxyz")


@pytest.mark.parametrize("guidelines", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_run_writes_the_same_bytes(guidelines):
    """In processes that order sets differently; blank nodes are new in each."""
    code = (
        "import hashlib, pathlib\n"
        "from kypho_kg.ontology_export import *\n"
        f"rows = merged(pathlib.Path({str(FOLDER)!r}), guidelines={guidelines})\n"
        "print(*(hashlib.sha256(serialise(rows, s).encode()).hexdigest() for s in Syntax))\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, cwd=HOUSE, text=True,
            capture_output=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
    assert len(set(said.pop().split())) == len(Syntax)


def test_definitions_in_manchester_syntax(tmp_path):
    rows = small(
        tmp_path,
        ":A owl:equivalentClass [ a owl:Restriction ; owl:onProperty :p ; owl:someValuesFrom :B ] .",
        ":C owl:equivalentClass :D .",
    )
    assert definitions(rows) == {
        term("A"): ["kypho:p some kypho:B"],
        term("C"): ["kypho:D"],
        term("D"): ["kypho:C"],
    }


# -- classifying

SOME = "[ a owl:Restriction ; owl:onProperty :p ; owl:someValuesFrom :{} ]"


@pytest.mark.reasoner
def test_what_is_inferred_is_added_and_nothing_taken(tmp_path):
    rows = small(
        tmp_path,
        f":A owl:equivalentClass {SOME.format('C')} . :B owl:equivalentClass {SOME.format('D')} .",
        ":C rdfs:subClassOf :D .",
    )
    found = classified(rows)
    assert found[: len(rows)] == rows
    assert found[len(rows) :] == [(term("A"), SUBCLASS, term("B"))]


@pytest.mark.reasoner
def test_only_direct_superclasses_and_all_of_equal_ones(tmp_path):
    rows = small(
        tmp_path,
        f":A owl:equivalentClass {SOME.format('B')} . :C owl:equivalentClass {SOME.format('B')} .",
        ":D rdfs:subClassOf :A . :E a owl:Class ; rdfs:subClassOf :D .",
    )
    assert set(classified(rows)) - set(rows) == {
        (term("A"), EQUIVALENT, term("C")),
        (term("D"), SUBCLASS, term("C")),
    }


@pytest.mark.reasoner
def test_a_class_without_members_is_an_error(tmp_path):
    rows = small(tmp_path, ":A rdfs:subClassOf :B , :C . :B owl:disjointWith :C . :D rdfs:subClassOf :A .")
    with pytest.raises(KnowledgeBaseError, match="A: nothing can belong to this class\nD: nothing can"):
        classified(rows)


@pytest.mark.reasoner
def test_an_inconsistent_ontology_is_an_error(tmp_path):
    rows = small(tmp_path, ":B owl:disjointWith :C . :x a :B , :C . :A owl:equivalentClass [ owl:oneOf (:x) ] .")
    with pytest.raises(KnowledgeBaseError, match="inconsistent"):
        classified(rows)


@pytest.mark.reasoner
def test_the_reasoner_is_killed_when_time_is_up(tmp_path):
    with pytest.raises(EngineError, match=r"did not finish within 0\.01 s"):
        classified(small(tmp_path), timeout=0.01)


@pytest.mark.reasoner
def test_ranges_of_annotations_are_none_of_the_reasoners_business(tmp_path):
    rows = small(tmp_path, ":year a owl:AnnotationProperty ; rdfs:range xsd:gYear .", ':A :year "2004"^^xsd:gYear .')
    assert classified(rows) == rows


@pytest.mark.slow
@pytest.mark.reasoner
def test_the_whole_ontology_is_classified(whole):
    found = classified(whole, timeout=1800)
    added = set(found) - set(whole)
    assert found[: len(whole)] == whole
    assert added
    assert {p for _, p, _ in added} <= {SUBCLASS, EQUIVALENT}
    graph = rdflib.Graph().parse(data=serialise(found, Syntax.TURTLE), format="turtle")
    assert len(graph) == len(found)
    assert all((rdflib.URIRef(s), R.type, O.Class) in graph for s, _, _ in added)


# -- the command


def test_export_to_stdout_and_to_a_file(kypho, tmp_path, written):  # noqa: F811 - the fixture
    printed = kypho("ontology", "export")
    assert (printed.code, printed.err) == (0, "")
    path = tmp_path / "new" / "kypho.ttl"
    assert kypho("ontology", "export", "-o", path).out == ""
    assert path.read_text("utf-8") == printed.out == written(Syntax.TURTLE)


def test_export_in_another_syntax_without_guidelines(kypho):  # noqa: F811
    said = kypho("ontology", "export", "--no-guidelines", "--format", "functional").out
    assert "Ontology(<https://w3id.org/kypho> <" in said
    assert GUIDELINES not in said


def test_mistakes_in_export(kypho, tmp_path):  # noqa: F811
    (tmp_path / "file").write_text("")
    run = kypho("ontology", "export", "-o", tmp_path / "file" / "x.ttl")
    assert (run.code, run.out) == (2, "")
    assert "cannot write" in run.err
    assert kypho("ontology", "export", "--format", "obo").code == 2
