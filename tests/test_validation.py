"""Validation: results as values, broken shapes as errors."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pyshacl
import pytest
from rdflib import DCTERMS, RDF, RDFS, Graph, Literal, Namespace, URIRef

from kypho_kg import validation
from kypho_kg._resources import resource_dir
from kypho_kg.errors import KnowledgeBaseError, ShapeError
from kypho_kg.graph import fact_iri, lesion_iri, record_graph
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge
from kypho_kg.plausibility import believable, earliest, limits
from kypho_kg.record import Fact, Lesion, Procedure, Range, Record, Source, TimeSpan
from kypho_kg.validation import (
    Severity,
    ValidationResult,
    check_knowledge_base,
    validate_knowledge_base,
    validate_record,
)
from kypho_kg.vocabulary import local

K = "https://w3id.org/kypho#"
KYPHO = Namespace(K)
SHAPES = "https://w3id.org/kypho/shapes#"
SHACL = "http://www.w3.org/ns/shacl#"
NOTE = Source("ost-02.yaml:7")
AGE = Fact("patient", K + "age", Range.exactly(75), source=NOTE)
PAIN = Fact("lesion:a", K + "painNrs", Range.exactly(6), time=TimeSpan.parse("2016-02-28"), source=NOTE)
RECORD = Record(
    "ost-02", (Lesion("a"),), (AGE, PAIN), Procedure(lesions=("a",), service_date=TimeSpan.parse("2016-03-04"))
)


def changed(*facts: Fact) -> Record:
    return replace(RECORD, facts=(*RECORD.facts, *facts))


def only(record: Record) -> ValidationResult:
    (result,) = validate_record(record).results
    return result


# --- records


def test_what_is_not_believed_is_what_the_shapes_do_not_let_pass(knowledge: Knowledge) -> None:
    """At, just inside and just outside of every limit: as a value, as the lower end and as the upper end of a range."""
    facts = [AGE]
    for iri, limit in limits().items():
        subject = {"Patient": "patient", "ProposedProcedure": "procedure"}.get(
            local(knowledge.features[iri].bearer), "lesion:a"
        )
        for end in (limit.range.low, limit.range.high):
            if end is not None:
                steps = [end + Decimal(x) for x in ("-1", "-0.01", "0", "0.01", "1")]
                values = (
                    [Range.exactly(x) for x in steps]
                    + [Range(x, None) for x in steps]
                    + [Range(None, x) for x in steps]
                )
                facts += [Fact(subject, iri, value, unit=knowledge.features[iri].unit, source=NOTE) for value in values]
    for iri, first in earliest().items():
        days = [str(first + timedelta(days=x)) for x in (-1, 0, 1)] + [str(first.year - 1), str(first.year)]
        facts += [Fact("patient", iri, TimeSpan.parse(day), source=NOTE) for day in days]
    record = replace(RECORD, facts=tuple(facts))
    refused = {r.fact_index for r in validate_record(record).results if r.severity is Severity.VIOLATION}
    assert refused == {n for n, fact in enumerate(facts) if not believable(fact)}
    assert len(refused) > 300


def test_the_limits_hold_all_that_the_shapes_ask_of_a_value() -> None:
    """A further constraint on a value would have to be known to ``believable`` as well."""
    shapes = Graph().parse(resource_dir("shapes") / "fact.ttl")
    sh = Namespace(SHACL)
    known = {sh.datatype, sh.minInclusive, sh.maxInclusive, sh.pattern}
    silent = {RDF.type, RDFS.comment, DCTERMS.source, sh.targetSubjectsOf, sh.path, sh.severity, sh.message}
    checked = 0
    for iri in {*limits(), *earliest()}:
        (shape,) = shapes.subjects(sh.path, URIRef(iri))
        assert set(shapes.predicates(shape)) <= known | silent, shape
        checked += 1
    of_values = {p for s in shapes.subjects(sh.datatype) for p in shapes.objects(s, sh.targetSubjectsOf)}
    assert checked == len(of_values - {KYPHO.rangeLow, KYPHO.rangeHigh, KYPHO.recordedFrom, KYPHO.recordedUntil})


def test_a_good_record_conforms() -> None:
    report = validate_record(RECORD)
    assert report.conforms
    assert report.results == ()


def test_a_result_names_the_fact() -> None:
    record = changed(replace(PAIN, value=Range.exactly(11)))
    assert not validate_record(record).conforms
    assert only(record) == ValidationResult(
        focus_node=str(fact_iri(record, 2)),
        path=K + "painNrs",
        source_shape=SHAPES + "FactShape-painNrs",
        component=SHACL + "MaxInclusiveConstraintComponent",
        severity=Severity.VIOLATION,
        value="11",
        message="Pain on the numeric scale must lie between 0 and 10.",
        fact_index=2,
    )


def test_a_range_is_checked_at_both_ends() -> None:
    assert only(changed(replace(PAIN, value=Range(Decimal(8), Decimal(12))))).value == "12"
    assert only(changed(replace(PAIN, value=Range(Decimal(-1), None)))).value == "-1"


def test_swapped_ends() -> None:
    result = only(changed(replace(PAIN, value=Range(Decimal(8), Decimal(4)))))
    assert (result.source_shape, result.fact_index) == (SHAPES + "FactShape-rangeLow", 2)


def test_results_come_in_the_order_of_the_facts() -> None:
    bad = replace(AGE, value=Range.exactly(131))
    record = replace(changed(*[bad] * 12), procedure=Procedure(state="Texas"))
    assert [r.fact_index for r in validate_record(record).results] == [*range(2, 14), None]


def test_a_state_in_words() -> None:
    result = only(replace(RECORD, procedure=Procedure(state="Texas")))
    assert (result.source_shape, result.fact_index) == (SHAPES + "ProposedProcedureShape-stateCode", None)


def test_a_fact_about_a_lesion_that_is_not_listed() -> None:
    result = only(changed(replace(PAIN, subject="lesion:z")))
    assert result.source_shape == SHAPES + "FactShape-subjectKind"
    assert result.path == f"<{K}aboutSubject>/<{RDF.type}>"
    assert result.fact_index == 2


def test_a_procedure_on_a_lesion_that_is_not_listed() -> None:
    result = only(replace(RECORD, procedure=Procedure(lesions=("z",))))
    assert (result.path, result.value) == (K + "treats", str(lesion_iri(RECORD, "z")))


def test_a_warning_is_not_against_conformance() -> None:
    report = validate_record(changed(replace(AGE, source=Source(""))))
    assert report.conforms
    (result,) = report.results
    assert (result.severity, result.fact_index) == (Severity.WARNING, 2)


def test_two_techniques() -> None:
    facts = [
        Fact("procedure", K + "technique", frozenset({K + t}), source=NOTE) for t in ("Vertebroplasty", "Sacroplasty")
    ]
    result = only(changed(*facts))
    assert result.severity is Severity.WARNING
    assert result.path == f"^<{K}aboutSubject>/<{K}technique>"


def test_an_empty_record_is_checked_as_far_as_it_goes() -> None:
    assert validate_record(Record("p")).conforms
    assert only(Record("")).source_shape == SHAPES + "PatientShape-patientId"


def test_a_record_stays_as_it_is() -> None:
    graph = record_graph(RECORD)
    before = set(graph)
    shapes = validation._shapes(validation.RECORD_SHAPES, validation._RECORD_CLASSES)
    validation._report(graph, shapes, frozenset(), {})
    assert set(graph) == before


def test_paths_in_words() -> None:
    graph = Graph().parse(
        data=f"""
        PREFIX sh: <{SHACL}>
        PREFIX k: <{K}>
        k:s k:p ( k:a [ sh:inversePath k:b ] ) , [ sh:alternativePath ( k:a k:b ) ] .""",
        format="turtle",
    )
    paths = {validation._path(graph, node) for node in graph.objects(KYPHO.s, KYPHO.p)}
    assert paths == {f"<{K}a>/^<{K}b>", f"<{K}a>|<{K}b>"}


# --- broken shapes and empty checks


@pytest.fixture
def edit_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Replace a text in a copy of a shapes file that is then in use."""
    folder = tmp_path / "shapes"
    shutil.copytree(resource_dir("shapes"), folder)
    monkeypatch.setattr(validation, "resource_dir", lambda name: tmp_path / name)
    validation._shapes.cache_clear()

    def edit(file: str, old: str, new: str) -> None:
        text = (folder / file).read_text("utf-8")
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1), "utf-8")

    yield edit
    validation._shapes.cache_clear()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sh:minCount", "] sh:minCount", r"shapes/fact\.ttl: "),
        ("sh:minCount 1 ;", "sh:minCount 1 . 1", "stands where a shape should"),
        ("sh:minInclusive 0.0", "sh:minInclusve 0.0", "minInclusve, which no shape may use"),
        ("sh:nodeKind sh:IRI", "sh:nodeKind sh:Iri", "Iri, which no shape may use"),
        ("sh:minCount 1", "kypho:minCount 1", "kypho#minCount, which no shape may use"),
        ("sh:minCount 1", "sh:sparql [ sh:ask 'ASK {}' ]", "ask, which no shape may use"),
        ("sh:targetClass kypho:Fact ", "sh:targetClass kypho:Fcat ", "a shape checks https://w3id.org/kypho#Fcat"),
        ("sh:targetSubjectsOf kypho:painNrs ;", "", "#FactShape-painNrs is never applied"),
        (
            "sh:property kyphosh:FactShape-aboutSubject",
            "sh:property kyphosh:FactShape-about",
            "about is applied and is not defined",
        ),
    ],
)
def test_a_broken_shape(edit_shapes: Callable[[str, str, str], None], old: str, new: str, message: str) -> None:
    edit_shapes("fact.ttl", old, new)
    with pytest.raises(ShapeError, match=message):
        validate_record(RECORD)


def test_a_missing_shapes_file(edit_shapes: Callable[[str, str, str], None], tmp_path: Path) -> None:
    (tmp_path / "shapes" / "case.ttl").unlink()
    with pytest.raises(ShapeError, match=r"shapes/case\.ttl"):
        validate_record(RECORD)


def test_a_class_that_no_shape_checks(edit_shapes: Callable[[str, str, str], None]) -> None:
    edit_shapes("patient.ttl", "sh:targetClass kypho:Patient", "sh:targetClass kypho:Case")
    with pytest.raises(ShapeError, match=r"no shape checks https://w3id.org/kypho#Patient"):
        validate_record(RECORD)


def test_nothing_to_check_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_types(record: Record) -> Graph:
        graph = record_graph(record)
        graph.remove((None, RDF.type, KYPHO.Fact))
        return graph

    monkeypatch.setattr(validation, "record_graph", without_types)
    with pytest.raises(ShapeError, match=r"nothing was checked: the data hold no https://w3id.org/kypho#Fact"):
        validate_record(RECORD)


def test_a_failure_that_pyshacl_hands_back(edit_shapes: Callable[[str, str, str], None]) -> None:
    """SHACL forbids MINUS; pySHACL then returns ``(False, ValidationFailure, text)``."""
    edit_shapes("guideline.ttl", "FILTER(STR(?one) < STR(?other))", "MINUS { ?one a ?value }")
    with pytest.raises(ShapeError, match=r"pySHACL failed: .*MINUS"):
        validate_knowledge_base(knowledge_base())


def test_a_value_that_is_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        pyshacl, "validate", lambda *_, **__: (False, pyshacl.errors.ValidationFailure("x"), "x is broken")
    )
    with pytest.raises(ShapeError, match="pySHACL failed: x is broken"):
        validate_record(RECORD)


def test_an_exception_of_pyshacl(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(pyshacl, "validate", fail)
    with pytest.raises(ShapeError, match="pySHACL failed: RecursionError: too deep"):
        validate_record(RECORD)


# --- the knowledge base


def knowledge_base() -> Graph:
    graph = Graph()
    for path in sorted(resource_dir("ontology").rglob("*.ttl")):
        graph.parse(path)
    return graph


def test_the_knowledge_base_conforms() -> None:
    graph = knowledge_base()
    before = len(graph)
    report = validate_knowledge_base(graph)
    assert report.conforms, report.results
    assert len(graph) == before


def test_a_clause_without_effect() -> None:
    graph = knowledge_base()
    (clause,) = graph.subjects(URIRef("http://www.w3.org/2004/02/skos/core#notation"), Literal("cms-l34228/LCD-I1"))
    graph.remove((clause, KYPHO.effect, None))
    violations = [r for r in validate_knowledge_base(graph).results if r.severity is Severity.VIOLATION]
    assert [(r.focus_node, r.source_shape) for r in violations] == [
        (str(clause), SHAPES + "RecommendationShape-effect")
    ]


def test_the_loaded_knowledge_base_conforms() -> None:
    knowledge = load_knowledge()
    clauses = sum(len(g.recommendations) for g in knowledge.guidelines.values())
    classes = ("EvidenceStatement", "Study", "OptionRating", "RatingCategory", "Conflict", "Position")
    others = [len(knowledge.triples.subjects(str(RDF.type), K + c)) for c in classes]
    assert all(others)
    assert sum(others) > 200
    assert check_knowledge_base(knowledge) == len(knowledge.guidelines) + clauses + sum(others)


def test_a_loaded_knowledge_base_that_does_not_conform(edit_shapes: Callable[[str, str, str], None]) -> None:
    edit_shapes("guideline.ttl", "( kypho:ClinicalGuideline ", "( ")
    with pytest.raises(
        KnowledgeBaseError, match="nice-ta279/guideline: A guideline must be exactly one kind of source"
    ):
        check_knowledge_base(load_knowledge())


def test_an_empty_knowledge_base() -> None:
    with pytest.raises(ShapeError, match="not declared in the knowledge base"):
        validate_knowledge_base(Graph())


def test_a_target_that_the_knowledge_base_does_not_declare(edit_shapes: Callable[[str, str, str], None]) -> None:
    edit_shapes("recommendation.ttl", "sh:targetNode kypho:Rates", "sh:targetNode kypho:Rate")
    with pytest.raises(ShapeError, match=r"a shape targets https://w3id.org/kypho#Rate, which is not declared"):
        validate_knowledge_base(knowledge_base())
