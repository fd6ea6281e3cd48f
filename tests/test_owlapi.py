"""The ontology in OWLAPI, as Protégé has it: every file opens offline, is OWL 2 DL, survives a save, is classified."""

from __future__ import annotations

import functools
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import owlapi
import pytest
import rdflib
from owlapi import FORMATS, ONTOLOGY, REASONERS
from rdflib import OWL, RDF, RDFS, XSD, BNode, Graph

from kypho_kg.knowledge import Knowledge
from kypho_kg.range_naming import name_ranges
from kypho_kg.store import Literal, Term, parse_turtle
from kypho_kg.vocabulary import EQUIVALENT, FINDING, KYPHO, SUBCLASS

pytestmark = pytest.mark.reasoner

EVERY_TIME = """
    acr-vcf-2022 cirse-2017 cms-l34228 cms-l38213 evicore-cmm-607 seed-statements vapour-nct01482793
""".split()
"""Guidelines of each kind; the others are of the same make or import them all, and take minutes."""
ALL = sorted(ONTOLOGY.rglob("*.ttl"))
QUICK = [path for path in ALL if path.parent.name != "guidelines" or path.stem in EVERY_TIME]
SLOW = [pytest.param(path, marks=pytest.mark.slow) for path in ALL if path not in QUICK]
FEW = [path if n % 4 == 0 else pytest.param(path, marks=pytest.mark.slow) for n, path in enumerate(QUICK)]
ADDED = frozenset({"Declaration(Datatype(xsd:date))"})
"""What OWLAPI may add on saving: it declares xsd:date, which annotations use and OWL 2 does not list."""
HEADER = """
    @prefix : <https://example.org/t#> . @prefix kypho: <https://w3id.org/kypho#> .
    @prefix owl: <http://www.w3.org/2002/07/owl#> . @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
"""


@functools.lru_cache(maxsize=2)  # with its imports each fills a good part of Java's memory
def opened(path: Path) -> Any:
    return root() if path == ONTOLOGY / "kypho.ttl" else owlapi.load(path)


@functools.cache
def root() -> Any:
    return owlapi.load(ONTOLOGY / "kypho.ttl")


@functools.cache
def whole() -> tuple[Any, float]:
    """HermiT on the classified classes of the ontology, ranges with names, and the seconds that it took."""
    axioms = owlapi.relevant(root())
    turtle = owlapi.saved(axioms, "Turtle").partition("\n")[2]  # without a prefix that is no IRI
    with tempfile.TemporaryDirectory() as folder:
        file, named = Path(folder) / "whole.ttl", Path(folder) / "named.ttl"
        file.write_text(turtle, "utf-8")
        rows = Graph()
        for s, p, o in name_ranges(parse_turtle(file)):
            rows.add((term(s), rdflib.URIRef(p), term(o)))
        rows.serialize(named, format="turtle", encoding="utf-8")
        axioms = owlapi.load(named, {})
    start = time.perf_counter()
    return owlapi.classified("HermiT", axioms), time.perf_counter() - start


@pytest.fixture(scope="module", autouse=True)
def room() -> Iterator[None]:
    """Leave Java's memory to the next file: where it is short, Java spends minutes on freeing it."""
    yield
    for cached in (opened, root, whole):
        cached.cache_clear()
    gc.collect()
    owlapi.java("java.lang.System").gc()


def term(node: Term) -> rdflib.term.Node:
    if isinstance(node, Literal):
        return rdflib.Literal(node.text, lang=node.language or None, datatype=None if node.language else node.datatype)
    return BNode(node.removeprefix("_:")) if node.startswith("_:") else rdflib.URIRef(node)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a small ontology, beside a catalog without entries."""
    (tmp_path / "catalog-v001.xml").write_text('<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog"/>')

    def write(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.ttl"
        path.write_text(HEADER + text)
        return path

    return write


# -- loading


@pytest.mark.parametrize("path", [*QUICK, *SLOW], ids=lambda p: p.stem)
def test_each_file_opens_with_its_own_catalog(path: Path) -> None:
    """OWLAPI tries one parser after another, and the last ones take nearly any text for an ontology."""
    ontology = opened(path)
    assert owlapi.file_format(ontology) == "Turtle Syntax"
    (name,) = rdflib.Graph().parse(path).subjects(RDF.type, OWL.Ontology)
    assert owlapi.name_of(ontology) == str(name)
    assert [str(e) for e in ontology.getSignature() if "owlapi/error" in str(e)] == []


def test_what_the_catalog_lacks_is_refused(write: Callable[[str, str], Path]) -> None:
    path = write("importer", "<urn:t> a owl:Ontology ; owl:imports <https://w3id.org/kypho/modules/core> .")
    with pytest.raises(Exception, match=r"modules/core"):
        owlapi.load(path)


def test_what_is_no_turtle_is_not_taken_for_it(write: Callable[[str, str], Path]) -> None:
    """SPARQL's way to write prefixes is Turtle too, but not for OWLAPI (owlcs/owlapi#1149)."""
    path = write("modern", "")
    path.write_text("PREFIX owl: <http://www.w3.org/2002/07/owl#>\n<urn:t> a owl:Ontology .")
    assert owlapi.file_format(owlapi.load(path)) != "Turtle Syntax"


# -- OWL 2 DL


@pytest.mark.parametrize("path", [*FEW, *SLOW], ids=lambda p: p.stem)
def test_each_file_with_its_imports_is_owl_2_dl(path: Path) -> None:
    assert owlapi.violations(opened(path)) == []


def test_a_violation_in_an_import_is_seen(write: Callable[[str, str], Path]) -> None:
    imported = write("imported", "<urn:i> a owl:Ontology . :C a owl:Class ; rdfs:subClassOf :Undeclared .")
    path = write("importer", "<urn:t> a owl:Ontology ; owl:imports <urn:i> .")
    (found,) = owlapi.violations(owlapi.load(path, {"urn:i": imported}))
    assert "Undeclared" in found


# -- saving and reading again


def statements(graph: Graph) -> frozenset[str]:
    """A graph as a set of statements without names of blank nodes, so that graphs can be compared.

    Each blank node is written as its own description; no blank node of ours is shared or in a circle. What OWL reads
    alike is written alike: the order of a list matters only in a chain of properties, and two disjoint classes are
    written in either of OWL's two ways.
    """

    def members(node: Any) -> Iterator[str]:
        while node != RDF.nil:
            yield written(graph.value(node, RDF.first))
            node = graph.value(node, RDF.rest)

    def written(node: Any, predicate: Any = None) -> str:
        if node == RDF.nil or (node, RDF.first, None) in graph:
            items = list(members(node))
            return f"({' '.join(items if predicate == OWL.propertyChainAxiom else sorted(items))})"
        if not isinstance(node, BNode):
            return str(node.n3())
        return f"[{'; '.join(sorted(f'{p.n3()} {written(o, p)}' for p, o in graph.predicate_objects(node)))}]"

    found = set()
    inner = set(graph.objects())
    for s, p, o in graph:
        if not isinstance(s, BNode):
            found.add(f"{s.n3()} {p.n3()} {written(o, p)}")
        elif s not in inner and (s, RDF.type, OWL.AllDisjointClasses) not in graph:
            found.add(written(s))
    pairs = [list(members(o)) for o in graph.objects(None, OWL.members)]
    pairs += [[written(s), written(o)] for s, o in graph.subject_objects(OWL.disjointWith)]
    return frozenset(
        {x for x in found if f" {OWL.disjointWith.n3()} " not in x} | {f"disjoint {' '.join(sorted(x))}" for x in pairs}
    )


@pytest.mark.parametrize("name", [n if n == "Turtle" else pytest.param(n, marks=pytest.mark.slow) for n in FORMATS])
def test_saving_and_reading_again_loses_nothing(name: str) -> None:
    """Name, imports, annotations and axioms of every file are the same after it was saved and read again."""
    start = owlapi.load(ONTOLOGY / "kypho.ttl").getOWLOntologyManager()
    differences = {}
    for ontology in list(start.getOntologies()):
        before = owlapi.content(ontology)
        after = owlapi.content(owlapi.reload(ontology, owlapi.saved(ontology, name), name))
        assert len(before["axioms"]) > 5
        if change := {part: before[part] ^ after[part] for part in before if (before[part] ^ after[part]) - ADDED}:
            differences[owlapi.name_of(ontology) if not before["name"] else next(iter(before["name"]))] = change
    assert differences == {}


@pytest.mark.parametrize("path", [*FEW, *SLOW], ids=lambda p: p.stem)
def test_saving_as_turtle_loses_no_triple(path: Path) -> None:
    saved = Graph().parse(data=owlapi.saved(opened(path), "Turtle"), format="turtle")
    saved.remove((XSD.date, RDF.type, RDFS.Datatype))
    assert statements(Graph().parse(path)) ^ statements(saved) == frozenset()


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (":C a owl:Class ; owl:equivalentClass [ owl:unionOf ( :B :A ) ] .", True),
        (":C a owl:Class ; owl:equivalentClass [ owl:unionOf ( :A ) ] .", False),
        (":C a owl:Class ; owl:equivalentClass [ owl:intersectionOf ( :A :B ) ] .", False),
        (":C a owl:Class ; owl:equivalentClass [ owl:unionOf ( :A :B ) ] . [] a owl:AllDifferent .", False),
    ],
)
def test_statements_tell_what_differs(other: str, same: bool) -> None:
    one = ":C a owl:Class ; owl:equivalentClass [ owl:unionOf ( :A :B ) ] ."
    graphs = (Graph().parse(data=HEADER + text, format="turtle") for text in (one, other))
    assert (len({statements(graph) for graph in graphs}) == 1) is same


# -- reasoning


@pytest.mark.slow  # `ontology check` classifies the whole in the quick run, by the other HermiT
def test_the_whole_is_classified(capsys: pytest.CaptureFixture[str]) -> None:
    """The classes and all that bears on them: consistent, and nothing unsatisfiable."""
    reasoner, seconds = whole()
    with capsys.disabled():
        sys.stdout.write(f" HermiT: classified in {seconds:.1f} s ")
    assert reasoner.isConsistent()
    assert owlapi.names(reasoner.getUnsatisfiableClasses()) == frozenset()


@pytest.mark.parametrize(
    "name",
    [
        "guidelines/cms-l34228",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("guidelines/cms-l38213", "guidelines/evicore-cmm-607")),
        pytest.param("kypho", marks=pytest.mark.slow),  # half a minute or many, by the luck of the search
    ],
)
def test_a_second_reasoner_finds_no_empty_class(name: str) -> None:
    """Openllet 2.6.5 fails on a few classes where ranges of numbers meet (Galigator/openllet#32) and so on the whole.

    Its answer "empty" about any class counts; what it cannot answer must stay the exception. After a failure it fails
    on sound classes too, so it begins anew.
    """
    axioms = owlapi.relevant(opened(ONTOLOGY / f"{name}.ttl"))
    failure = owlapi.java("openllet.core.exceptions.InternalReasonerException")
    classes = list(axioms.getClassesInSignature())
    reasoner, broken, empty = owlapi.reasoner("Openllet", axioms), [], []
    for cls in classes:
        for last in (False, True):
            try:
                if not reasoner.isSatisfiable(cls):
                    empty.append(str(cls))
                break
            except failure:
                reasoner.dispose()
                reasoner = owlapi.reasoner("Openllet", axioms)
                if last:
                    broken.append(str(cls))
    reasoner.dispose()
    assert empty == []
    assert len(broken) < 0.05 * len(classes)


@pytest.mark.slow
def test_hermit_classifies_the_files_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """As in Protégé, without names for ranges."""
    start = time.perf_counter()
    reasoner = owlapi.classified("HermiT", owlapi.relevant(root()))
    with capsys.disabled():
        sys.stdout.write(f" HermiT: classified as they are in {time.perf_counter() - start:.1f} s ")
    assert owlapi.names(reasoner.getUnsatisfiableClasses()) == frozenset()


@pytest.mark.parametrize("name", REASONERS)
def test_the_individuals_are_consistent_too(name: str) -> None:
    assert owlapi.answered(name, root(), lambda reasoner: reasoner.isConsistent())


def primitive_findings(knowledge: Knowledge) -> dict[str, frozenset[str]]:
    """Each finding that has no definition, with the classes above it by the asserted tree."""
    t = knowledge.triples
    below, todo = set(), [FINDING]
    while todo:
        todo = [s for cls in todo for s in t.subjects(SUBCLASS, cls) if s not in below and not s.startswith("_:")]
        below.update(todo)
    return {cls: knowledge.ancestors(cls) for cls in below if not t.objects(cls, EQUIVALENT)}


def test_findings_are_placed_where_they_are_written(knowledge: Knowledge) -> None:
    """No reasoner infers a place in the tree that a reader of the tree would not see."""
    findings = primitive_findings(knowledge)
    assert len(findings) > 50
    inferred = owlapi.subsumptions(whole()[0], findings)
    assert {(a, b) for a, b in inferred if b not in findings[a]} == set()
    assert {(a, b) for a in findings for b in findings[a] & findings.keys() - {a}} == inferred


BROKEN = """
    <urn:t> a owl:Ontology .
    :A a owl:Class . :B a owl:Class ; owl:disjointWith :A . :D a owl:Class ; rdfs:subClassOf :A , :B .
    :E a owl:Class ; rdfs:subClassOf [ a owl:Class ; owl:intersectionOf ( :A [ a owl:Class ; owl:complementOf :B ] ) ] .
    :p a owl:ObjectProperty .
    :x a owl:NamedIndividual , :E ; :p :y . :y a owl:NamedIndividual , :A . :z a owl:NamedIndividual , :B .
"""
T = "https://example.org/t#"


@pytest.mark.parametrize("name", REASONERS)
def test_a_reasoner_sees_what_is_wrong(name: str, write: Callable[[str, str], Path]) -> None:
    reasoner = owlapi.classified(name, owlapi.relevant(owlapi.load(write("broken", BROKEN))))
    assert owlapi.names(reasoner.getUnsatisfiableClasses()) == {T + "D"}
    assert owlapi.undecided_or_empty(reasoner) == ([], [T + "D"])
    assert owlapi.subsumptions(reasoner, {T + "E", T + "A"}) == {(T + "E", T + "A")}


@pytest.mark.parametrize("name", REASONERS)
def test_memberships(name: str, write: Callable[[str, str], Path]) -> None:
    path = write("broken", BROKEN)
    assert owlapi.memberships([path], T + "x", name) == {T + "E", T + "A"}
    assert owlapi.memberships([path], T + "x", name, [T + "A", T + "B"]) == {T + "A"}
    with pytest.raises(LookupError, match="nobody"):
        owlapi.memberships([path], T + "nobody", name)
    with pytest.raises(LookupError, match="Nothing"):
        owlapi.memberships([path], T + "x", name, [T + "Nothing"])


@pytest.mark.slow
@pytest.mark.parametrize("name", REASONERS)
def test_memberships_of_a_case(name: str, write: Callable[[str, str], Path]) -> None:
    """A case that imports the knowledge base; a finding of the lesion is one of the patient."""
    path = write(
        "case",
        """
        <urn:t> a owl:Ontology ; owl:imports <https://w3id.org/kypho> .
        :case a owl:NamedIndividual , kypho:Case ; kypho:concernsPatient :patient ; kypho:indexLesion :lesion .
        :patient a owl:NamedIndividual ; kypho:hasLesion :lesion .
        :lesion a owl:NamedIndividual ; kypho:hasFinding :finding .
        :finding a owl:NamedIndividual , kypho:Finding .
        :Found a owl:Class ; owl:equivalentClass [ a owl:Restriction ;
            owl:onProperty kypho:hasFinding ; owl:someValuesFrom kypho:Finding ] .
        """,
    )
    asked = [T + "Found", KYPHO + "Patient", KYPHO + "VertebralLesion", KYPHO + "Case"]
    assert owlapi.memberships([path], T + "patient", name, asked) == {T + "Found", KYPHO + "Patient"}
    assert owlapi.memberships([path], T + "case", name, asked) == {KYPHO + "Case"}
