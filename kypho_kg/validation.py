"""Whether a record, or the knowledge base, is fit to reason on: the only importer of pySHACL.

That something does not conform is a value. That the shapes are broken, or checked nothing, is an exception: pySHACL
itself says "conforms" where a target or a constraint is misspelt.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from rdflib import DCTERMS, OWL, RDF, RDFS, SH, Graph, Literal, Node, URIRef

from kypho_kg._resources import resource_dir
from kypho_kg.errors import KnowledgeBaseError, ShapeError
from kypho_kg.graph import KYPHO, fact_iri, has_procedure, ontology_graph, record_graph
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Record
from kypho_kg.vocabulary import local

RECORD_SHAPES = ("case.ttl", "fact.ttl", "lesion.ttl", "patient.ttl", "procedure.ttl", "record.ttl", "source.ttl")
KNOWLEDGE_SHAPES = ("conflict.ttl", "evidence.ttl", "guideline.ttl", "rating.ttl", "recommendation.ttl", "study.ttl")

_TERMS = """
    NodeShape PropertyShape SPARQLConstraint IRI Violation Warning alternativePath class datatype equals hasValue in
    inversePath lessThanOrEquals maxCount maxInclusive message minCount minInclusive minLength nodeKind path pattern
    property select severity sparql targetClass targetNode targetSubjectsOf zeroOrMorePath
"""
SHACL_TERMS = frozenset(SH[name] for name in _TERMS.split())
"""The terms of SHACL that the shapes may use. A misspelt constraint would otherwise be skipped in silence."""
_ANNOTATIONS = frozenset(
    {
        *(RDF.type, RDF.first, RDF.rest, RDFS.comment, OWL.versionIRI, OWL.versionInfo),
        *(DCTERMS.source, DCTERMS.title, DCTERMS.description, DCTERMS.license),
    }
)
_TARGETS = (SH.targetClass, SH.targetNode, SH.targetSubjectsOf)
_RECORD_CLASSES = frozenset(
    {
        *(KYPHO.Patient, KYPHO.PatientRecord, KYPHO.Fact, KYPHO.RecordSource),
        *(KYPHO.VertebralLesion, KYPHO.Case, KYPHO.ProposedProcedure),
    }
)
_KNOWLEDGE_CLASSES = frozenset(
    {
        *(KYPHO.EvidenceStatement, KYPHO.Guideline, KYPHO.Recommendation, KYPHO.Study),
        *(KYPHO.OptionRating, KYPHO.RatingCategory, KYPHO.Conflict, KYPHO.Position),
    }
)


class Severity(enum.StrEnum):
    """How grave a result is. Only a violation is against conformance."""

    VIOLATION = "Violation"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """One place where data do not conform to a shape, with a sentence for a clinician."""

    focus_node: str
    path: str
    """IRI of the property, or a SPARQL property path; empty where the shape looks at the node itself."""
    source_shape: str
    component: str
    """IRI of the SHACL constraint component that failed."""
    severity: Severity
    value: str | None
    message: str
    fact_index: int | None = None
    """Index in ``record.facts`` of the fact that is the focus node."""


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """All results of one validation; it conforms when none is a violation."""

    conforms: bool
    results: tuple[ValidationResult, ...]


def validate_record(record: Record) -> ValidationReport:
    """Check a record against the shapes of records.

    A record without facts or lesions is checked as far as it goes.

    :raises InputError: when the record cannot be written as RDF.
    :raises ShapeError: when a shape is broken, or a part of the record was not checked.
    """
    present = {
        KYPHO.Patient: True,
        KYPHO.PatientRecord: True,
        KYPHO.Fact: bool(record.facts),
        KYPHO.VertebralLesion: bool(record.lesions),
        KYPHO.Case: bool(record.lesions),
        KYPHO.ProposedProcedure: has_procedure(record),
    }
    shapes = _shapes(RECORD_SHAPES, _RECORD_CLASSES)
    facts = {str(fact_iri(record, index)): index for index in range(len(record.facts))}
    return _report(record_graph(record), shapes, frozenset(c for c, there in present.items() if there), facts)


def validate_knowledge_base(graph: Graph) -> ValidationReport:
    """Check guidelines, recommendations, ratings, conflicts and evidence of the ontology, given as its whole closure.

    :raises ShapeError: when a shape is broken or has no target in the graph.
    """
    shapes = _shapes(KNOWLEDGE_SHAPES, _KNOWLEDGE_CLASSES)
    for predicate in _TARGETS:
        for target in shapes.objects(None, predicate):
            if (target, None, None) not in graph:
                raise ShapeError(f"a shape targets {target}, which is not declared in the knowledge base")
    return _report(graph, shapes, _KNOWLEDGE_CLASSES, {})


def check_knowledge_base(knowledge: Knowledge) -> int:
    """Make sure that a loaded knowledge base conforms; returns how many of their nodes were checked.

    :raises KnowledgeBaseError: with every violation.
    :raises ShapeError: when a shape is broken or has no target.
    """
    graph = ontology_graph(knowledge.triples)
    report = validate_knowledge_base(graph)
    if not report.conforms:
        violations = [r for r in report.results if r.severity is Severity.VIOLATION]
        raise KnowledgeBaseError([f"{local(r.focus_node)}: {r.message}" for r in violations])
    return sum(len(set(graph.subjects(RDF.type, cls))) for cls in _KNOWLEDGE_CLASSES)


@functools.cache
def _shapes(files: tuple[str, ...], classes: frozenset[URIRef]) -> Graph:
    """Load shapes once and make sure that each can do its work on data of the given classes."""
    graph = Graph()
    for name in files:
        try:
            graph.parse(data=(resource_dir("shapes") / name).read_text("utf-8"), format="turtle")
        except (OSError, SyntaxError, ValueError) as error:
            raise ShapeError(f"shapes/{name}: {error}") from error
    if faults := sorted(_faults(graph, classes)):
        raise ShapeError("; ".join(faults))
    return graph


def _faults(shapes: Graph, classes: frozenset[URIRef]) -> Iterator[str]:
    for s, p, o in shapes:
        if isinstance(s, Literal):  # rdflib reads it, though it is no Turtle
            yield f"{s!r} stands where a shape should"
        if p not in SHACL_TERMS and p not in _ANNOTATIONS:
            yield f"{s} has the property {p}, which no shape may use"
        if str(o).startswith(str(SH)) and o not in SHACL_TERMS:
            yield f"{s} has the value {o}, which no shape may use"
    checked = set(shapes.objects(None, SH.targetClass))
    for cls in classes ^ checked:
        yield f"no shape checks {cls}" if cls in classes else f"a shape checks {cls}, which the data never hold"
    properties = set(shapes.subjects(RDF.type, SH.PropertyShape))
    for shape in set(shapes.objects(None, SH.property)) - properties:
        yield f"{shape} is applied and is not defined"
    applied = {s for p in _TARGETS for s in shapes.subjects(p)}
    while inner := {i for shape in applied for i in shapes.objects(shape, SH.property)} - applied:
        applied |= inner
    groups = set(shapes.subjects(SH.property)) - properties
    for shape in (properties | set(shapes.subjects(RDF.type, SH.NodeShape))) - applied - groups:
        yield f"{shape} is never applied: it has no target"


def _report(data: Graph, shapes: Graph, required: frozenset[URIRef], facts: dict[str, int]) -> ValidationReport:
    for cls in required:
        if (None, RDF.type, cls) not in data:
            raise ShapeError(f"nothing was checked: the data hold no {cls}")
    results = sorted(set(_results(_run(data, shapes), facts)), key=_order)
    return ValidationReport(all(r.severity is not Severity.VIOLATION for r in results), tuple(results))


def _run(data: Graph, shapes: Graph) -> Graph:
    import pyshacl

    try:
        _, report, text = pyshacl.validate(data, shacl_graph=shapes, inplace=False, advanced=False, meta_shacl=False)
    except Exception as error:  # pySHACL lets the exceptions of its parts through
        raise ShapeError(f"pySHACL failed: {type(error).__name__}: {error}") from error
    if not isinstance(report, Graph):
        raise ShapeError(f"pySHACL failed: {text}")
    return report


def _results(report: Graph, facts: dict[str, int]) -> Iterator[ValidationResult]:
    for node in report.objects(None, SH.result):
        focus = str(report.value(node, SH.focusNode))
        value = report.value(node, SH.value)
        yield ValidationResult(
            focus_node=focus,
            path=_path(report, report.value(node, SH.resultPath)),
            source_shape=str(report.value(node, SH.sourceShape)),
            component=str(report.value(node, SH.sourceConstraintComponent)),
            severity=Severity(str(report.value(node, SH.resultSeverity)).removeprefix(str(SH))),
            value=None if value is None else str(value),
            message=min(map(str, report.objects(node, SH.resultMessage)), default=""),
            fact_index=facts.get(focus),
        )


def _order(result: ValidationResult) -> tuple[float, str, str, str, str, str]:
    index = float("inf") if result.fact_index is None else result.fact_index
    return index, result.focus_node, result.source_shape, result.component, result.value or "", result.message


def _path(graph: Graph, path: Node | None) -> str:
    """Write the path of a result as an IRI or in SPARQL's syntax."""
    if path is None or isinstance(path, URIRef | Literal):
        return str(path or "")
    if inverse := graph.value(path, SH.inversePath):
        return "^" + _step(graph, inverse)
    if alternatives := graph.value(path, SH.alternativePath):
        return "|".join(_step(graph, step) for step in graph.items(alternatives))
    return "/".join(_step(graph, step) for step in graph.items(path))


def _step(graph: Graph, path: Node) -> str:
    text = _path(graph, path)
    return f"<{text}>" if isinstance(path, URIRef) else text
