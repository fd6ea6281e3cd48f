"""The ontology as one HTML page, made by pyLODE from a view of the merged ontology.

pyLODE knows neither our annotations nor nested class expressions, reads text as Markdown, and names two terms of equal
local name alike. The view says everything in the properties that it shows, in text that Markdown leaves alone; names
of anchors are given to it. It reads its own data from a private copy, since it writes a cache beside them.
"""

from __future__ import annotations

import html
import logging
import re
import shutil
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import rdflib
from rdflib import DCTERMS, OWL, RDF, RDFS, SKOS

from kypho_kg.errors import UsageError
from kypho_kg.ontology_export import ROOT, definitions
from kypho_kg.store import Literal, Triple, Triples
from kypho_kg.vocabulary import DEFINITION, GUIDELINES, KYPHO, LABEL, SUBCLASS, TYPE, local

_SOURCE = "http://purl.obolibrary.org/obo/IAO_0000119"
_KINDS = tuple(map(str, (OWL.Class, OWL.ObjectProperty, OWL.DatatypeProperty, OWL.AnnotationProperty)))
_INDIVIDUAL = str(OWL.NamedIndividual)
_TITLES = {
    SKOS.scopeNote: "In plain words",
    SKOS.example: "Equivalent to",
    SKOS.note: "Details",
    RDFS.isDefinedBy: "Module",
    DCTERMS.type: "Type",
}
_INDIVIDUAL_PROPERTIES = [
    DCTERMS.title, RDFS.isDefinedBy, DCTERMS.type, DCTERMS.description, SKOS.scopeNote, DCTERMS.source, SKOS.note
]  # fmt: skip
_STYLE = """
        pre { white-space: pre-wrap; overflow-wrap: anywhere; }
        #toc { width: 280px; }
        #toc a { text-decoration: none; }
        #content { width: calc(100% - 250px); }
        .entity th, .entity td { padding-bottom: 6px; }
        .entity p { margin: 0; }
    """
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+.!-])")
_SHOWN = frozenset(
    {TYPE, LABEL, DEFINITION, _SOURCE, SUBCLASS, KYPHO + "plainLabel", str(RDFS.isDefinedBy), str(RDFS.range)}
)


def page(triples: Iterable[Triple]) -> str:
    """The page of an ontology: classes, properties and individuals with definitions, sources and all annotations.

    :param triples: one ontology without imports, from :func:`kypho_kg.ontology_export.merged`.
    :raises UsageError: when pyLODE is not installed.
    """
    pylode = _pylode()
    utils = pylode.utils
    rows = list(triples)
    index = Triples(rows)
    terms = _terms(index)
    with tempfile.TemporaryDirectory(prefix="kypho-kg-") as folder:
        data = Path(folder) / "rdf"
        shutil.copytree(utils.RDF_FOLDER, data, ignore=shutil.ignore_patterns("*.pickle"))
        kept, utils.RDF_FOLDER = utils.RDF_FOLDER, data
        try:
            document = pylode.OntPub(_view(index, terms, definitions(rows)))
        finally:
            utils.RDF_FOLDER = kept
    document.ns = (KYPHO, GUIDELINES)
    document.fids = {iri: _anchor(iri) for iri in terms}
    for prop, title in _TITLES.items():
        document.props_labeled[prop] = {"title": title, "description": title, "ont_title": "Kypho KG"}
    sections = document._make_main_sections

    def with_individuals() -> None:
        sections()
        shared = (document.toc, "namedindividuals", document.fids, document.props_labeled)
        graphs = (document.ont, document.back_onts, document.ns)
        individuals = utils.section_html(
            "Named Individuals", *graphs, OWL.NamedIndividual, _INDIVIDUAL_PROPERTIES, *shared
        )
        document.content.appendChild(individuals)
        document.toc["classes"] = list(_tree(index))

    document._make_main_sections = with_individuals
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pyLODE leaves its style sheet open
        text = str(document.make_html())
    return text.replace("</style>", _STYLE + "</style>", 1)


def _pylode() -> Any:
    """The package pyLODE, without the logging that it turns on when it is imported."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import pylode
        import pylode.utils
    except ImportError:
        raise UsageError("pyLODE is not installed: pip install 'kypho-kg[docs]'") from None
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    return pylode


def _terms(index: Triples) -> list[str]:
    """The named terms by label, of which each is shown once."""
    found = {s for kind in (*_KINDS, _INDIVIDUAL) for s in index.subjects(TYPE, kind) if not s.startswith("_:")}
    return sorted(found, key=lambda iri: (_label(index, iri).casefold(), iri))


def _label(index: Triples, iri: str) -> str:
    return index.text(iri, LABEL) or local(iri)


def _anchor(iri: str) -> str:
    return re.sub(r"[^\w.-]", ".", local(iri))


def _text(text: str) -> rdflib.Literal:
    """Text that comes through Markdown and HTML as it is."""
    escaped = _MARKDOWN.sub(r"\\\1", html.escape(text, quote=False))
    return rdflib.Literal(escaped.replace("http", "&#104;ttp", 1))  # pyLODE takes what begins so for a link


def _view(index: Triples, terms: Iterable[str], expressions: dict[str, list[str]]) -> rdflib.Graph:
    view = rdflib.Graph(bind_namespaces="none")
    for prefix, namespace in (("kypho", KYPHO), ("owl", OWL), ("rdfs", RDFS), ("xsd", rdflib.XSD)):
        view.bind(prefix, namespace)
    root = rdflib.URIRef(ROOT)
    for s, p, o in index:
        if s == ROOT:
            if isinstance(o, Literal):
                said: rdflib.term.Node = rdflib.Literal(o.text) if p == str(DCTERMS.title) else _text(o.text)
            else:  # versions of ours have no entry on the page
                said = _text(o) if o.startswith(f"{ROOT}/") else rdflib.URIRef(o)
            view.add((root, rdflib.URIRef(p), said))
    for iri in terms:
        for p, o in _said(index, iri, expressions.get(iri, ())):
            view.add((rdflib.URIRef(iri), p, o))
    return view


def _said(index: Triples, iri: str, expressions: Iterable[str]) -> Iterator[tuple[rdflib.URIRef, Any]]:
    types = index.resources(iri, TYPE)
    kind = next((k for k in _KINDS if k in types), _INDIVIDUAL)
    yield RDF.type, rdflib.URIRef(kind)
    yield RDFS.label, rdflib.Literal(_label(index, iri))
    for text in index.texts(iri, DEFINITION):
        yield SKOS.definition, _text(text)
    for text in index.texts(iri, KYPHO + "plainLabel"):
        yield SKOS.scopeNote, _text(text)
    for text in index.texts(iri, _SOURCE):
        yield DCTERMS.source, _text(text)
    for expression in expressions:
        yield SKOS.example, rdflib.Literal(expression)
    for module in index.resources(iri, str(RDFS.isDefinedBy)):
        yield RDFS.isDefinedBy, _text(module.removeprefix(ROOT + "/"))
    for p, shown_as in ((SUBCLASS, RDFS.subClassOf), (str(RDFS.range), RDFS.range), (TYPE, DCTERMS.type)):
        for cls in index.resources(iri, p):
            if not cls.startswith(("_:", str(OWL))):
                yield shown_as, rdflib.URIRef(cls)
    if str(OWL.FunctionalProperty) in types:
        yield SKOS.note, _text("functional: at most one value")
    for p in index.predicates(iri):
        if p not in _SHOWN:
            for o in index.objects(iri, p):
                if isinstance(o, Literal):
                    yield SKOS.note, _text(f"{_label(index, p)}: {o.text}")
                elif not o.startswith("_:"):
                    yield SKOS.note, _text(f"{_label(index, p)}: {_label(index, o)}")


def _tree(index: Triples) -> Iterator[tuple[str, str]]:
    """The table of contents of the classes, as a tree: a class stands below each of its superclasses."""
    below: dict[str, list[str]] = defaultdict(list)
    for cls in _terms(index):
        if _KINDS[0] in index.resources(cls, TYPE):
            for upper in [u for u in index.resources(cls, SUBCLASS) if not u.startswith("_:")] or [""]:
                below[upper].append(cls)

    def walk(upper: str, depth: int) -> Iterator[tuple[str, str]]:
        for cls in below[upper]:
            yield f"#{_anchor(cls)}", "\N{EM SPACE}" * depth + _label(index, cls)
            yield from walk(cls, depth + 1)

    below[""].sort(key=lambda cls: cls.startswith(GUIDELINES))  # the conditions of guidelines last
    yield from walk("", 0)
