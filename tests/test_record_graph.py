"""Records as RDF."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from rdflib import RDF, XSD, BNode, Graph, Literal, URIRef
from rdflib.compare import isomorphic

from kypho_kg import store
from kypho_kg._resources import resource_dir
from kypho_kg.errors import InputError
from kypho_kg.graph import (
    KYPHO,
    case_iri,
    fact_iri,
    lesion_iri,
    ontology_graph,
    patient_iri,
    procedure_iri,
    record_graph,
)
from kypho_kg.record import (
    Cause,
    Fact,
    Lesion,
    Mood,
    Polarity,
    Procedure,
    Range,
    Record,
    Source,
    Status,
    TimeSpan,
)
from kypho_kg.store import parse_turtle

K = "https://w3id.org/kypho#"
NOTE = Source("ost-02.yaml:7", document="op note", date="2016-02", author="IR", quote="about 3 months")
RECORD = Record(
    patient="ost-02",
    lesions=(Lesion("a"), Lesion("b")),
    procedure=Procedure(lesions=("a",), service_date=TimeSpan.parse("2016-03"), state="TX"),
    as_of=date(2016, 3, 1),
    files=("ost-02.yaml",),
    constructed=True,
    citation="constructed",
    notes=("an example",),
    facts=(
        Fact("lesion:a", K + "painNrs", Range.exactly(6), time=TimeSpan.parse("2016-02-28T10:30"), source=NOTE),
        Fact("lesion:a", K + "weeksSinceOnset", Range(Decimal(10), Decimal("16.50")), source=NOTE),
        Fact("patient", K + "plateletCount", Range(None, Decimal(20), high_open=True), unit="10*9/L"),
        Fact("lesion:a", K + "vertebralLevel", frozenset({K + "T11", K + "T12"})),
        Fact("lesion:a", K + "primaryEtiology", K + "PrimaryOsteoporosis", status=Status.PROVISIONAL),
        Fact("patient", K + "Pregnancy", polarity=Polarity.ABSENT, mood=Mood.OBSERVED),
        Fact("patient", K + "birthDate", TimeSpan.parse("1941-05"), invalid="SomeShape: too early"),
        Fact(
            "lesion:b",
            K + "MarrowEdemaOnMri",
            polarity=Polarity.INDETERMINATE,
            cause=Cause.NOT_ASSESSABLE,
            reason="pacemaker",
            words="no scan",
            overridden_by=Source("overlay.yaml:2"),
        ),
        Fact("procedure", K + "technique", frozenset({K + "BalloonKyphoplasty"}), mood=Mood.PLANNED),
    ),
)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return record_graph(RECORD)


def of(graph: Graph, node: URIRef, name: str) -> list[object]:
    return sorted(o.toPython() if isinstance(o, Literal) else str(o) for o in graph.objects(node, URIRef(K + name)))


def fact(index: int) -> URIRef:
    return fact_iri(RECORD, index)


def test_the_ontology_is_copied_as_it_was_parsed() -> None:
    path = resource_dir("ontology") / "modules" / "procedure.ttl"
    assert isomorphic(ontology_graph(parse_turtle(path)), Graph().parse(path))


def test_no_literal_is_repaired() -> None:
    written = Literal("2016-02-28T00:00:00", datatype=XSD.date, normalize=False)
    graph = ontology_graph([("urn:s", "urn:p", store.Literal(str(written), str(XSD.date)))])
    assert str(graph.value(URIRef("urn:s"), URIRef("urn:p"))) == "2016-02-28T00:00:00"


def test_names() -> None:
    assert patient_iri(RECORD) == URIRef("urn:kypho:patient:ost-02")
    assert fact_iri(RECORD, 3) == URIRef("urn:kypho:patient:ost-02/fact/3")
    strange = replace(RECORD, patient="ward 7/ü#1")
    assert patient_iri(strange) == URIRef("urn:kypho:patient:ward%207%2F%C3%BC%231")
    assert lesion_iri(strange, "a/b") == URIRef(f"{patient_iri(strange)}/lesion/a%2Fb")


def test_things(graph: Graph) -> None:
    patient = patient_iri(RECORD)
    record = URIRef(f"{patient}/record")
    assert set(graph.subjects(RDF.type, KYPHO.Patient)) == {patient}
    assert of(graph, patient, "patientId") == ["ost-02"]
    assert of(graph, patient, "hasLesion") == [str(lesion_iri(RECORD, i)) for i in "ab"]
    assert set(graph.subjects(RDF.type, KYPHO.VertebralLesion)) == {lesion_iri(RECORD, i) for i in "ab"}
    assert of(graph, lesion_iri(RECORD, "b"), "lesionId") == ["b"]
    assert graph.value(record, KYPHO.recordOf) == patient
    assert of(graph, record, "asOf") == [date(2016, 3, 1)]
    assert of(graph, record, "constructed") == [True]
    assert of(graph, record, "recordFile") == ["ost-02.yaml"]
    assert of(graph, record, "recordNote") == ["an example"]


def test_procedure(graph: Graph) -> None:
    procedure = procedure_iri(RECORD)
    assert of(graph, procedure, "treats") == [str(lesion_iri(RECORD, "a"))]
    assert of(graph, procedure, "stateCode") == ["TX"]
    assert of(graph, procedure, "serviceDate") == [date(2016, 3, 1), date(2016, 3, 31)], "a partial date is not padded"
    assert graph.value(procedure, KYPHO.proposedFor) == patient_iri(RECORD)


def test_each_lesion_has_a_case(graph: Graph) -> None:
    assert set(graph.subjects(RDF.type, KYPHO.Case)) == {case_iri(RECORD, i) for i in "ab"}
    case = case_iri(RECORD, "b")
    assert graph.value(case, KYPHO.concernsPatient) == patient_iri(RECORD)
    assert graph.value(case, KYPHO.indexLesion) == lesion_iri(RECORD, "b")
    assert graph.value(case, KYPHO.forProcedure) == procedure_iri(RECORD)


def test_each_fact_is_whole(graph: Graph) -> None:
    assert set(graph.subjects(RDF.type, KYPHO.Fact)) == {fact(i) for i in range(len(RECORD.facts))}
    for index, stated in enumerate(RECORD.facts):
        assert graph.value(fact(index), KYPHO.feature) == URIRef(stated.feature)
        for name in (KYPHO.aboutSubject, KYPHO.mood, KYPHO.polarity, KYPHO.verificationStatus):
            assert len(list(graph.objects(fact(index), name))) == 1
    assert graph.value(fact(0), KYPHO.aboutSubject) == lesion_iri(RECORD, "a")
    assert graph.value(fact(5), KYPHO.aboutSubject) == patient_iri(RECORD)
    assert graph.value(fact(8), KYPHO.aboutSubject) == procedure_iri(RECORD)
    assert graph.value(fact(4), KYPHO.verificationStatus) == KYPHO.Provisional
    assert graph.value(fact(5), KYPHO.polarity) == KYPHO.AbsentPolarity
    assert graph.value(fact(8), KYPHO.mood) == KYPHO.Planned


def numbers(graph: Graph, node: URIRef, feature: str) -> Range:
    """Read a quantity back."""
    stated = [Decimal(str(o)) for o in graph.objects(node, URIRef(feature))]

    def end(name: str) -> Decimal | None:
        value = graph.value(node, URIRef(K + name))
        return None if value is None else Decimal(str(value))

    low, high = end("rangeLow"), end("rangeHigh")
    if low is None and high is None:
        return Range.exactly(*stated)
    excluded = (graph.value(node, URIRef(K + f"range{e}Excluded")) == Literal(True) for e in ("Low", "High"))
    assert sorted(stated) == [n for n in (low, high) if n is not None]
    return Range(low, high, *excluded)


@pytest.mark.parametrize(
    "value",
    [
        Range.exactly(6),
        Range.exactly(Decimal("1.10")),
        Range.exactly(Decimal("1E+2")),
        Range.exactly(Decimal("-2.5")),
        Range(Decimal(10), Decimal(16)),
        Range(Decimal(10), Decimal(16), low_open=True),
        Range(None, Decimal(20), high_open=True),
        Range(Decimal("0.0001"), None),
    ],
    ids=str,
)
def test_numbers_round_trip(value: Range) -> None:
    record = Record("p", facts=(Fact("patient", K + "inr", value),))
    graph = Graph().parse(data=record_graph(record).serialize(format="turtle"), format="turtle")
    assert numbers(graph, fact_iri(record, 0), K + "inr") == value
    assert {o.datatype for o in graph.objects(fact_iri(record, 0), URIRef(K + "inr"))} == {XSD.decimal}


def test_an_exact_number_is_no_range(graph: Graph) -> None:
    assert of(graph, fact(0), "painNrs") == [6]
    assert of(graph, fact(0), "rangeLow") == []
    assert of(graph, fact(1), "statedValue") == ["10 to 16.50"]
    assert of(graph, fact(2), "statedValue") == ["< 20"]


def test_values(graph: Graph) -> None:
    assert of(graph, fact(3), "vertebralLevel") == [K + "T11", K + "T12"]
    assert of(graph, fact(4), "recordedClass") == [K + "PrimaryOsteoporosis"]
    assert of(graph, fact(4), "primaryEtiology") == []
    assert of(graph, fact(6), "birthDate") == [date(1941, 5, 1), date(1941, 5, 31)]
    assert of(graph, fact(6), "statedValue") == ["1941-05"]
    assert of(graph, fact(6), "nonConformingTo") == ["SomeShape: too early"]
    assert of(graph, fact(7), "causeOfIndeterminacy") == [K + "NotAssessable"]
    assert of(graph, fact(7), "reason") == ["pacemaker"]
    assert of(graph, fact(7), "statedWords") == ["no scan"]
    assert of(graph, fact(2), "statedUnit") == ["10*9/L"]


def test_times(graph: Graph) -> None:
    assert of(graph, fact(0), "recordedFrom") == of(graph, fact(0), "recordedUntil") == [date(2016, 2, 28)]
    assert of(graph, fact(0), "statedTime") == ["2016-02-28T10:30"]
    assert of(graph, fact(1), "recordedFrom") == [], "stated as current"


def test_sources(graph: Graph) -> None:
    where = graph.value(fact(0), KYPHO.hasSource)
    assert isinstance(where, URIRef)
    assert graph.value(fact(1), KYPHO.hasSource) == where, "one source, one node"
    assert [of(graph, where, n) for n in ("origin", "sourceDocument", "sourceDate", "sourceAuthor", "quote")] == [
        ["ost-02.yaml:7"],
        ["op note"],
        ["2016-02"],
        ["IR"],
        ["about 3 months"],
    ]
    assert graph.value(fact(2), KYPHO.hasSource) is None
    assert graph.value(graph.value(fact(7), KYPHO.overriddenBy), KYPHO.origin) == Literal("overlay.yaml:2")
    assert len(set(graph.subjects(RDF.type, KYPHO.RecordSource))) == 2


def test_a_fact_about_the_procedure_implies_one() -> None:
    record = Record("p", (Lesion("a"),), (Fact("procedure", K + "technique", frozenset({K + "Vertebroplasty"})),))
    assert record_graph(record).value(case_iri(record, "a"), KYPHO.forProcedure) == procedure_iri(record)


def test_without_a_procedure() -> None:
    record = Record("p", (Lesion("a"),))
    graph = record_graph(record)
    assert not list(graph.subjects(RDF.type, KYPHO.ProposedProcedure))
    assert graph.value(case_iri(record, "a"), KYPHO.forProcedure) is None


def test_all_nodes_have_names(graph: Graph) -> None:
    assert not any(isinstance(t, BNode) for triple in graph for t in triple)


def test_the_same_record_gives_the_same_graph(graph: Graph) -> None:
    assert isomorphic(graph, record_graph(RECORD))
    assert graph.serialize(format="turtle") == record_graph(RECORD).serialize(format="turtle")


@pytest.mark.parametrize("mood", Mood)
@pytest.mark.parametrize("polarity", Polarity)
@pytest.mark.parametrize("status", Status)
def test_every_mood_polarity_and_status_has_an_individual(mood: Mood, polarity: Polarity, status: Status) -> None:
    graph = record_graph(Record("p", facts=(Fact("patient", K + "Pregnancy", None, polarity, mood, status=status),)))
    assert len(graph) > 0


def test_terms_are_declared(graph: Graph) -> None:
    ontology = Graph()
    for path in sorted(resource_dir("ontology").rglob("*.ttl")):
        ontology.parse(path)
    declared = {str(s) for s in ontology.subjects(RDF.type)}
    used = {str(t) for triple in graph for t in triple if isinstance(t, URIRef) and t.startswith(K)}
    assert used <= declared
    assert {str(KYPHO[name]) for name in dir(KYPHO)} <= declared
    assert {K + cause for cause in Cause} <= declared


def test_an_unknown_term_is_an_error() -> None:
    with pytest.raises(AttributeError, match="Fcat"):
        _ = KYPHO.Fcat


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Record("p", (Lesion("a"), Lesion("b"), Lesion("a"))), "lesion a: two lesions have this id"),
        (Record("p", facts=(Fact("lesion", K + "inr"),)), "fact 0: 'lesion' is no subject of a fact; expected patient"),
        (Record("p", facts=(Fact("patient", K + "inr", Range.exactly(Decimal("NaN"))),)), "fact 0: NaN is no number"),
        (Record("p", facts=(Fact("patient", K + "inr", Range(None, Decimal("Infinity"))),)), "Infinity is no number"),
    ],
)
def test_what_cannot_be_written(record: Record, message: str) -> None:
    with pytest.raises(InputError, match=message):
        record_graph(record)
