"""The ontology as one file: the merged import closure, with what the reasoner finds if asked for, in three syntaxes.

The same triples give the same bytes in every run. Blank nodes are named in the order of the files, and literals keep
their lexical form: rdflib alone would write ``5`` as ``5.0`` and label blank nodes at random.

Functional syntax is written by py-horned-owl, whose reader drops ``owl:AllDisjointClasses`` without a word (2.0.0);
those axioms are handed to it apart. The axiom profile lets nothing else in that it would lose, which the tests check.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyhornedowl
import rdflib
from pyhornedowl.model import Class, DisjointClasses, EquivalentClasses
from rdflib.plugins.serializers.turtle import TurtleSerializer

from kypho_kg.graph import rdf_literal
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import import_closure
from kypho_kg.reasoning import classify
from kypho_kg.store import Literal, Term, Triple, Triples
from kypho_kg.vocabulary import DCTERMS, GUIDELINES, KYPHO, OWL, RDF, RDFS, SKOS, TYPE, XSD

ROOT = "https://w3id.org/kypho"
"""The IRI of the ontology that imports all others."""

_PREFIXES = {
    "bibo": "http://purl.org/ontology/bibo/", "dcterms": DCTERMS, "kypho": KYPHO,
    "obo": "http://purl.obolibrary.org/obo/", "owl": OWL, "rdf": RDF, "rdfs": RDFS, "skos": SKOS,
    "vann": "http://purl.org/vocab/vann/", "xsd": XSD,
}  # fmt: skip


class Syntax(StrEnum):
    """In which an ontology can be written."""

    TURTLE = "turtle"
    RDFXML = "rdfxml"
    FUNCTIONAL = "functional"


def merged(folder: Path, *, guidelines: bool = True) -> list[Triple]:
    """The ontology of a folder and all that it imports as one ontology without imports.

    The header is that of ``kypho.ttl``; it names the version of each merged ontology as a source.

    :param guidelines: whether the ontologies of the guidelines are merged too; else links to their terms go as well.
    :raises KnowledgeBaseError: when an import is not in the catalog or its file is missing.
    """
    header: list[Triple] = []
    rest: dict[Triple, None] = {}
    for rows in import_closure(folder).values():
        name = next(s for s, p, o in rows if p == TYPE and o == OWL + "Ontology")
        if name.startswith(GUIDELINES) and not guidelines:
            continue
        if name == ROOT:
            header[:0] = [row for row in rows if row[0] == ROOT and row[1] != OWL + "imports"]
        else:
            header += [(ROOT, DCTERMS + "source", o) for s, p, o in rows if s == name and p == OWL + "versionIRI"]
        rest.update((row, None) for row in rows if row[0] != name)
    if not guidelines:  # evidence and advice may say in which clause they stand
        rest = {row: None for row in rest if not str(row[2]).startswith(GUIDELINES)}
    return [*header, *rest]


def classified(triples: Iterable[Triple], timeout: float = 300) -> list[Triple]:
    """The triples, and the direct subclass and equivalence axioms between named classes that follow from them.

    Asserted axioms stay, also those that the inferred ones make redundant.

    :param timeout: seconds after which the reasoner is killed.
    :raises KnowledgeBaseError: when the ontology is inconsistent or a class can have no member.
    :raises EngineError: when the reasoner fails or runs out of time.
    """
    rows = dict.fromkeys(triples)
    rows.update(dict.fromkeys(classify(Knowledge(Triples(rows), "", ""), timeout)))
    return list(rows)


def serialise(triples: Iterable[Triple], syntax: Syntax) -> str:
    """An ontology as text; the same for the same triples in the same order."""
    rows = list(triples)
    if syntax is Syntax.FUNCTIONAL:
        return str(_horned(rows).save_to_string("ofn")) + "\n"
    graph = as_graph(rows)
    if syntax is Syntax.RDFXML:
        for predicate in sorted({str(p) for p in graph.predicates()}):
            graph.compute_qname(predicate)  # new prefixes are numbered in this order, not in that of a set
        return graph.serialize(format="xml")
    stream = io.BytesIO()
    _ExactTurtle(graph).serialize(stream)
    return stream.getvalue().decode("utf-8")


def as_graph(triples: Iterable[Triple]) -> rdflib.Graph:
    """The triples as an rdflib graph; blank nodes are numbered as they come."""
    graph = _Graph(bind_namespaces="none")
    for prefix, namespace in _PREFIXES.items():
        graph.bind(prefix, namespace)
    names: dict[str, rdflib.BNode] = {}

    def resource(term: str) -> rdflib.URIRef | rdflib.BNode:
        if term.startswith("_:"):
            return names.setdefault(term, rdflib.BNode(f"b{len(names):07}"))
        return rdflib.URIRef(term)

    def node(term: Term) -> rdflib.term.Node:
        return rdf_literal(term) if isinstance(term, Literal) else resource(term)

    for s, p, o in triples:
        graph.add((resource(s), rdflib.URIRef(p), node(o)))
    return graph


def definitions(triples: Iterable[Triple]) -> dict[str, list[str]]:
    """The class expressions to which each class is defined as equal, in Manchester syntax."""
    found: dict[str, list[str]] = {}
    ontology = _horned(list(triples))
    for axiom in ontology.get_axioms():
        if isinstance(axiom.component, EquivalentClasses):
            named = [e for e in axiom.component.first if isinstance(e, Class)]
            others = [e for e in axiom.component.first if not isinstance(e, Class)]
            for cls in named:
                texts = [e.serialize("omn", ontology.prefix_mapping) for e in (*others, *named) if e != cls]
                found.setdefault(str(cls.first), []).extend(texts)
    return {cls: sorted(texts) for cls, texts in found.items()}


def _horned(rows: list[Triple]) -> pyhornedowl.PyIndexedOntology:
    """The ontology as py-horned-owl reads it, with what it would drop."""
    index = Triples(rows)
    sets = index.subjects(TYPE, OWL + "AllDisjointClasses")
    lists = {node: head for node in sets for head in index.resources(node, OWL + "members")}
    apart = {*sets, *(cell for head in lists.values() for cell in _cells(index, head))}
    text = serialise((row for row in rows if row[0] not in apart), Syntax.RDFXML)
    ontology = pyhornedowl.open_ontology_from_string(text, serialization="rdf")
    for prefix, namespace in _PREFIXES.items():
        ontology.prefix_mapping.add_prefix(prefix, namespace)
    for head in lists.values():
        ontology.add_component(DisjointClasses([ontology.class_(str(c)) for c in index.items(head)]))
    return ontology


def _cells(index: Triples, head: str | None) -> Iterator[str]:
    while head and head != RDF + "nil":
        yield head
        head = index.resource(head, RDF + "rest")


class _Graph(rdflib.Graph):
    """A graph that lists its subjects in a fixed order, which rdflib leaves to the hashes of strings."""

    def subjects(self, predicate: Any = None, object: Any = None, unique: bool = False) -> Generator[Any, None, None]:
        """The subjects: ontologies, other names, blank nodes."""
        found = set(super().subjects(predicate, object))
        ontologies = set(super().subjects(rdflib.RDF.type, rdflib.OWL.Ontology))
        yield from sorted(found, key=lambda s: (s not in ontologies, isinstance(s, rdflib.BNode), s))


class _ExactTurtle(TurtleSerializer):
    """Turtle that keeps the lexical form of every literal and begins with the header of the ontology."""

    def __init__(self, store: rdflib.Graph) -> None:
        super().__init__(store)
        self.topClasses = [rdflib.OWL.Ontology]

    def label(self, node: Any, position: int) -> str:
        text = super().label(node, position)
        if isinstance(node, rdflib.Literal) and node.datatype and text[0] != '"' and text != str(node):
            return f'"{node}"^^<{node.datatype}>'
        return text
