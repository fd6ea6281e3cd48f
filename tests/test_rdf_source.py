"""Records from RDF: what is written is read again in each syntax; what is unsafe or malformed is refused in words."""

from __future__ import annotations

import gzip
import json
import random
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
import rdflib
from rdflib.compare import isomorphic
from strategies import by_random, draw_record

from kypho_kg import case_graph, store
from kypho_kg.candidacy import Answer, assess
from kypho_kg.context import CONTEXT_IRI, as_jsonld, context
from kypho_kg.graph import has_procedure, plain_triples, rdf_literal, record_graph
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import (
    LESION,
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
from kypho_kg.sources.patient_file import read_patient_file
from kypho_kg.sources.rdf import read_rdf
from kypho_kg.vocabulary import graph_kind

ROOT = Path(__file__).resolve().parent.parent
K = "https://w3id.org/kypho#"
CONSTRUCTED = sorted((ROOT / "examples" / "constructed").glob("*.yaml"))
PUBLISHED = sorted((ROOT / "examples" / "published").glob("*.yaml"))[::4]
SYNTAXES = {"ttl": "turtle", "trig": "trig", "nt": "nt", "nq": "nquads", "rdf": "pretty-xml", "owl": "xml"}
AS_OF = date(2026, 3, 2)
OLD_ASSERTED = "urn:kypho:graph:asserted"
"""The name of the graph of all patients, in files that were written when there was one."""
pytestmark = pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")
"""rdflib's own parser of JSON-LD uses its deprecated class."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something reaches for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def carried(record: Record) -> Record:
    """What RDF carries of a record, as docs/rdf.md lists it."""
    told = [f.subject.removeprefix(LESION) for f in record.facts if f.subject.startswith(LESION)]
    lesions = tuple(dict.fromkeys((*told, *sorted(lesion.id for lesion in record.lesions))))
    procedure = record.procedure or (Procedure() if has_procedure(record) else None)
    if procedure and procedure.lesions is not None:
        listed = [x for x in lesions if x in procedure.lesions]
        unlisted = sorted(set(procedure.lesions) - set(lesions))
        procedure = replace(procedure, lesions=(*listed, *unlisted) or None)
    return replace(
        record,
        lesions=tuple(map(Lesion, lesions)),
        procedure=procedure,
        files=tuple(sorted(set(record.files))),
        notes=tuple(sorted(set(record.notes))),
    )


def serialized(record: Record, suffix: str) -> bytes:
    graph = record_graph(record)
    if suffix == "jsonld":
        return graph.serialize(format="json-ld").encode()
    if suffix in ("trig", "nq"):
        dataset = rdflib.Dataset()
        named = dataset.graph(rdflib.URIRef(OLD_ASSERTED))
        for triple in graph:
            named.add(triple)
        return dataset.serialize(format=SYNTAXES[suffix]).encode()
    return graph.serialize(format=SYNTAXES[suffix]).encode()


def read(path: Path, knowledge: Knowledge, **limits: int) -> tuple[list[Record], IntakeReport]:
    report = IntakeReport(path.name)
    return list(read_rdf(path, knowledge, report, **limits)), report


def written(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def verdicts(record: Record, knowledge: Knowledge) -> list[tuple[object, ...]]:
    answer = assess(record, as_of=record.as_of or AS_OF, knowledge=knowledge)
    return sorted(
        (case.lesion.id, a.guideline.id, a.conclusion.verdict, tuple(a.conclusion.reachable))
        for case in answer.cases
        for a in case.assessments
    )


# -- there and back


@pytest.mark.parametrize("suffix", [*SYNTAXES, "jsonld"])
def test_examples_are_read_as_they_were_written(suffix: str, knowledge: Knowledge, tmp_path: Path) -> None:
    for source in (*CONSTRUCTED, *PUBLISHED) if suffix in ("ttl", "jsonld") else CONSTRUCTED[::3]:
        record = read_patient_file(source, knowledge)
        found, report = read(written(tmp_path, f"{source.stem}.{suffix}", serialized(record, suffix)), knowledge)
        assert report.rejected == []
        assert found == [carried(record)], source.name


@pytest.mark.parametrize("path", [*CONSTRUCTED[::4], *PUBLISHED[::3]], ids=lambda p: p.stem)
def test_verdicts_are_the_same(path: Path, knowledge: Knowledge, tmp_path: Path) -> None:
    record = read_patient_file(path, knowledge)
    (found,), _ = read(written(tmp_path, "a.nt", serialized(record, "nt")), knowledge)
    assert verdicts(found, knowledge) == verdicts(record, knowledge)


@pytest.mark.parametrize("seed", range(12))
def test_random_records_are_read_as_they_were_written(seed: int, knowledge: Knowledge, tmp_path: Path) -> None:
    record = draw_record(by_random(seed), knowledge)
    suffix = [*SYNTAXES, "jsonld"][seed % 7]
    (found,), report = read(written(tmp_path, f"a.{suffix}", serialized(record, suffix)), knowledge)
    assert report.rejected == []
    assert found == carried(record)
    assert verdicts(found, knowledge) == verdicts(carried(record), knowledge)


def span(text: str) -> TimeSpan:
    first, last = map(TimeSpan.parse, text.split("/"))
    return TimeSpan(first.start, last.end, text)


NOTE = Source("a.yaml:7", document="op note", date="2016-02", author="IR", quote='about "3" months\n\\ü')
RICH = Record(
    patient="ä b/1",
    lesions=(Lesion("t 12"), Lesion("L1/2")),
    procedure=Procedure(lesions=("t 12",), service_date=TimeSpan.parse("2016-03"), state="TX"),
    as_of=date(2016, 3, 1),
    files=("a.yaml", "b.yaml"),
    constructed=True,
    citation="constructed",
    notes=("an example", "another"),
    mappings=("0a" * 32, "f1" * 32),
    facts=(
        Fact("lesion:t 12", K + "painNrs", Range.exactly(6), time=TimeSpan.parse("2016-02-28T10:30"), source=NOTE),
        Fact("lesion:t 12", K + "weeksSinceOnset", Range(Decimal(10), Decimal("16.50")), source=NOTE),
        Fact("lesion:t 12", K + "weeksSinceOnset", Range(Decimal("-0"), None, low_open=True)),
        Fact("patient", K + "plateletCount", Range(None, Decimal(20), high_open=True), unit="10*9/L"),
        Fact("patient", K + "inr", Range(None, None)),
        Fact("lesion:t 12", K + "vertebralLevel", frozenset({K + "T11", K + "T12"})),
        Fact("lesion:L1/2", K + "primaryEtiology", K + "PrimaryOsteoporosis", status=Status.PROVISIONAL),
        Fact("lesion:L1/2", K + "primaryEtiology", K + "PrimaryOsteoporosis", Polarity.ABSENT),
        Fact("patient", K + "Pregnancy", polarity=Polarity.ABSENT, time=TimeSpan.parse("2016")),
        Fact("patient", K + "birthDate", TimeSpan.parse("1941-05"), invalid="SomeShape: too early"),
        Fact(
            "lesion:L1/2",
            K + "painNrs",
            None,
            Polarity.INDETERMINATE,
            cause=Cause.IN_WORDS_ONLY,
            words="bad",
            unit="mm",
        ),
        Fact("patient", K + "inr", Range.exactly(Decimal("1.10")), status=Status.ENTERED_IN_ERROR),
        Fact(
            "lesion:L1/2",
            K + "MarrowEdemaOnMri",
            polarity=Polarity.INDETERMINATE,
            cause=Cause.NOT_ASSESSABLE,
            reason="pacemaker",
            words="no scan",
            overridden_by=Source("overlay.yaml:2"),
        ),
        Fact("procedure", K + "technique", frozenset({K + "BalloonKyphoplasty"}), mood=Mood.PLANNED),
        Fact("patient", K + "inr", Range.exactly(3), time=span("2016-02-01T10:30/2016-02-03")),
        Fact("patient", K + "inr", Range.exactly(4), time=replace(TimeSpan.parse("2016-02"), text="in February")),
    ),
)


@pytest.mark.parametrize("suffix", [*SYNTAXES, "jsonld"])
@pytest.mark.parametrize("packed", [False, True])
def test_all_that_a_fact_can_say(suffix: str, packed: bool, knowledge: Knowledge, tmp_path: Path) -> None:
    data = serialized(RICH, suffix)
    path = written(tmp_path, f"a.{suffix}{'.gz' * packed}", gzip.compress(data) if packed else data)
    found, report = read(path, knowledge)
    assert report.rejected == []
    assert found == [RICH]
    assert report.records == 1
    assert report.mapped["fact", "inr", "inr"] == 4


def test_several_patients_and_foreign_properties(knowledge: Knowledge, tmp_path: Path) -> None:
    first, second = (read_patient_file(p, knowledge) for p in CONSTRUCTED[:2])
    data = b"".join(serialized(x, "nt") for x in (first, second))
    extra = b'<urn:x> <http://xmlns.com/foaf/0.1/name> "x" .\n<urn:x> <https://w3id.org/kypho#polarty> <urn:y> .\n'
    found, report = read(written(tmp_path, "a.nt", data + extra), knowledge)
    assert sorted(found, key=lambda x: x.patient) == sorted(map(carried, (first, second)), key=lambda x: x.patient)
    assert set(report.unmapped) == {
        ("property", "http://xmlns.com/foaf/0.1/name", ""),
        ("property", K + "polarty", ""),
    }


# -- with what is inferred and judged


@pytest.fixture(scope="module")
def answer(knowledge: Knowledge) -> Answer:
    record = read_patient_file(CONSTRUCTED[0], knowledge)
    return assess(record, as_of=record.as_of or AS_OF, knowledge=knowledge)


@pytest.mark.parametrize("form", ["trig", "ttl", "jsonld"])
def test_only_what_is_asserted_is_read(form: str, answer: Answer, knowledge: Knowledge, tmp_path: Path) -> None:
    graphs = case_graph.case_graphs([answer])
    text = as_jsonld(graphs, knowledge) if form == "jsonld" else store.serialized(graphs, apart=form == "trig")
    (found,), report = read(written(tmp_path, f"all.{form}", text), knowledge)
    assert report.rejected == []
    assert found == carried(answer.record)
    assert verdicts(found, knowledge) == verdicts(answer.record, knowledge)
    if form != "ttl":
        assert {kind: n for (kind, _), n in report.unread.items()} == {"inferred graph": 1, "judged graph": 1}
    name = case_graph.graph_name(answer.record, case_graph.ASSERTED)
    alone = {name: graphs[name]}
    (again,), _ = read(written(tmp_path, "asserted.trig", store.serialized(alone, apart=True)), knowledge)
    assert again == found


def test_names_of_graphs() -> None:
    """A patient's id never makes a graph one of another kind; the old names are known."""
    odd = Record("a/graph/judged urn:x")
    for kind in case_graph.KINDS:
        assert graph_kind(case_graph.graph_name(odd, kind)) == kind
        assert graph_kind(f"urn:kypho:graph:{kind}") == kind
    for other in ("", "urn:kypho:patient:a/graph/other", "urn:kypho:patient:a/b/graph/judged", "urn:kypho:graph:x"):
        assert graph_kind(other) == ""


def test_another_named_graph_is_counted(knowledge: Knowledge, tmp_path: Path) -> None:
    data = serialized(RICH, "nt").replace(b" .\n", b" <urn:other> .\n")
    found, report = read(written(tmp_path, "a.nq", data), knowledge)
    assert found == []
    assert [kind for kind, _ in report.unread] == ["another named graph"]


# -- JSON-LD


def test_jsonld_says_the_same(answer: Answer, knowledge: Knowledge) -> None:
    graphs = case_graph.case_graphs([answer])
    text = as_jsonld(graphs, knowledge)
    assert text == as_jsonld({name: list(rows)[::-1] for name, rows in graphs.items()}, knowledge)
    dataset = rdflib.Dataset()
    dataset.parse(data=text, format="json-ld")
    for name, rows in graphs.items():
        expected = rdflib.Graph()
        for s, p, o in rows:
            term = rdf_literal(o) if isinstance(o, store.Literal) else rdflib.URIRef(o)
            expected.add((rdflib.URIRef(s), rdflib.URIRef(p), term))
        found = rdflib.Graph()
        for triple in dataset.graph(rdflib.URIRef(name)):
            found.add(triple)
        assert set(found) == set(expected), name


def test_jsonld_keeps_blank_nodes_languages_and_odd_values(knowledge: Knowledge) -> None:
    xsd = str(rdflib.XSD)
    rows: list[store.Triple] = [
        ("_:a", K + "feature", "_:b"),
        ("_:b", K + "feature", store.Literal("text")),
        ("_:b", K + "inr", store.Literal("007.50", xsd + "decimal")),
        ("_:b", K + "inr", store.Literal("7", xsd + "integer")),
        ("_:b", K + "inr", store.Literal("seven")),
        ("_:b", K + "quote", store.Literal("sieben", str(rdflib.RDF.langString), "de")),
        ("_:b", K + "quote", "http://example.org/a b?#c".replace(" ", "")),
        ("_:b", str(rdflib.RDF.type), "urn:x"),
        ("urn:x", K + "feature", K + "kypho"),
        ("urn:x", "http://example.org/p", "https://w3id.org/kypho/guidelines/a/B-1"),
        ("urn:x", K + "considers", "https://w3id.org/kypho/guidelines/a/B-1"),
    ]
    found = rdflib.Graph()
    normal, rdflib.NORMALIZE_LITERALS = rdflib.NORMALIZE_LITERALS, False
    try:
        found.parse(data=as_jsonld({"": rows}, knowledge), format="json-ld")
    finally:
        rdflib.NORMALIZE_LITERALS = normal
    expected = rdflib.Graph()
    for s, p, o in rows:
        node = rdflib.BNode(s[2:]) if s.startswith("_:") else rdflib.URIRef(s)
        if isinstance(o, store.Literal):
            expected.add((node, rdflib.URIRef(p), rdf_literal(o)))
        else:
            expected.add((node, rdflib.URIRef(p), rdflib.BNode(o[2:]) if o.startswith("_:") else rdflib.URIRef(o)))
    assert isomorphic(found, expected)


def test_the_context_is_made_from_the_ontology(knowledge: Knowledge) -> None:
    found = context(knowledge)
    assert found == context(knowledge)
    assert list(found) == list(context(knowledge))
    assert found["@version"] == 1.1
    declared = {s for s, p, _ in knowledge.triples if p == str(rdflib.RDF.type)}
    terms = {name: term for name, term in found.items() if isinstance(term, dict)}
    assert {K + name for name in terms} <= declared
    assert all(term["@id"] == f"kypho:{name}" for name, term in terms.items())
    assert terms["inr"]["@type"] == "xsd:decimal"
    assert terms["birthDate"]["@type"] == "xsd:date"
    assert terms["vertebralLevel"]["@type"] == "@vocab"


JSONLD = {
    "@graph": [
        {"@id": "urn:p", "@type": "Patient", "patientId": "p", "hasLesion": "urn:l"},
        {"@id": "urn:l", "@type": "VertebralLesion", "lesionId": "a"},
        {
            "@type": "Fact",
            "aboutSubject": "urn:p",
            "feature": "inr",
            "inr": 1.10,
            "mood": "Observed",
            "polarity": "PresentPolarity",
            "verificationStatus": "Confirmed",
        },
    ]
}


@pytest.mark.parametrize("inlined", [False, True])
def test_our_own_context(inlined: bool, knowledge: Knowledge, tmp_path: Path) -> None:
    document = {"@context": [context(knowledge)] if inlined else CONTEXT_IRI, **JSONLD}
    found, report = read(written(tmp_path, "a.jsonld", json.dumps(document)), knowledge)
    assert report.rejected == []
    assert found == [Record("p", (Lesion("a"),), (Fact("patient", K + "inr", Range.exactly(Decimal("1.1"))),))]


# -- unsafe input

XML = (
    '<?xml version="1.0"?>{}<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:k="{}">{}</rdf:RDF>'
)
UNSAFE: dict[str, tuple[str, str | bytes, str]] = {
    "remote context": ("a.jsonld", '{"@context": "http://example.org/c"}', "the remote context 'http://example.org/c'"),
    "file context": ("a.jsonld", '{"@context": ["file:///etc/passwd"]}', "the remote context 'file:///etc/passwd'"),
    "nested context": ("a.jsonld", '{"@graph": [{"a": {"@context": "c.jsonld"}}]}', "the remote context 'c.jsonld'"),
    "scoped context": (
        "a.jsonld", '{"@context": {"a": {"@id": "urn:a", "@context": "http://x.org"}}}', "the remote context"),
    "import": ("a.jsonld", '{"@context": {"@import": "http://example.org/c"}}', "a context with @import"),
    "deep JSON": ("a.jsonld", '{"a":' * 150 + "1" + "}" * 150, "nested too deep"),
    "very deep JSON": ("a.jsonld", "[" * 100_000 + "]" * 100_000, "nested too deep"),
    "long number": ("a.jsonld", '{"a": ' + "1" * 5000 + "}", "not valid JSON"),
    "a key twice": ("a.jsonld", '{"@id": "urn:a", "@id": "urn:b"}', "a key stands twice"),
    "deep Turtle": ("a.ttl", "<urn:a> <urn:b> " + "[ <urn:b> " * 5000 + "1" + "]" * 5000 + " .", "nested too deep"),
    "deep lists": ("a.trig", "<urn:a> <urn:b> " + "(" * 5000 + ")" * 5000 + " .", "nested too deep"),
    "deep XML": ("a.rdf", XML.format("", K, "<k:a><k:b>" * 200 + "</k:b></k:a>" * 200), "nested too deep"),
    "entity": (
        "a.rdf", XML.format('<!DOCTYPE r [<!ENTITY x SYSTEM "file:///x">]>', K, "<k:a>&x;</k:a>"), "a DOCTYPE"),
    "UTF-16 entity": (
        "a.owl",
        XML.format('<!DOCTYPE r [<!ENTITY x "y">]>', K, "<k:a>&x;</k:a>").replace("1.0", '1.0" encoding="utf-16')
        .encode("utf-16"), "a DOCTYPE"),
    "bomb": ("a.rdf", XML.format('<!DOCTYPE r [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>', K, "&b;"), "a DOCTYPE"),
    "encoding": ("a.rdf", '<?xml version="1.0" encoding="nonsense"?><a/>', "not valid XML"),
    "not gzip": ("a.ttl.gz", b"<urn:a> <urn:b> <urn:c> .", "cannot be read"),
    "half a gzip": ("a.ttl.gz", gzip.compress(b"<urn:a> <urn:b> <urn:c> .")[:-9], "it is no whole gzip file"),
    "no RDF": ("a.csv", "a,b", "the name tells no RDF syntax"),
    "broken Turtle": ("a.ttl", "<urn:a> <urn:b> <urn:c> .\n\n<urn:a> <urn:b> .", "not valid turtle"),
    "broken N-Triples": ("a.nt", "<urn:a> <urn:b> <urn:c> .\nx\n", "not valid nt"),
    "broken N-Quads": ("a.nq", "<urn:a> <urn:b> <urn:c> <urn:d> <urn:e> .\n", "not valid nquads"),
    "broken XML": ("a.rdf", "<a>\n<b>", "not valid XML"),
    "broken JSON": ("a.jsonld", "{\n\n,", "not valid JSON"),
    "no UTF-8": ("a.ttl", b"<urn:a> <urn:b> '\xff' .", "not valid turtle"),
    "no UTF-8 in JSON": ("a.jsonld", b'{"a": "\xff"}', "not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE)
def test_what_is_unsafe_or_broken_is_one_rejection(name: str, knowledge: Knowledge, tmp_path: Path) -> None:
    file, data, what = UNSAFE[name]
    found, report = read(written(tmp_path, file, data), knowledge)
    assert found == []
    assert len(report.rejected) == 1
    assert report.rejected[0].where.startswith(file)
    assert what in report.rejected[0].what
    assert str(tmp_path) not in str(report.rejected[0])


def test_a_line_is_told_where_the_parser_tells_it(knowledge: Knowledge, tmp_path: Path) -> None:
    for name, line in (("broken Turtle", 3), ("broken XML", 2), ("broken JSON", 3)):
        file, data, _ = UNSAFE[name]
        _, report = read(written(tmp_path, file, data), knowledge)
        assert report.rejected[0].where == f"{file}:{line}"


def test_what_is_large_or_missing(knowledge: Knowledge, tmp_path: Path) -> None:
    path = written(tmp_path, "a.ttl", "#" * 2000)
    assert "too large" in read(path, knowledge, limit=1999)[1].rejected[0].what
    assert read(path, knowledge, limit=2000)[1].rejected == []
    packed = written(tmp_path, "a.nt.gz", gzip.compress(b"\n" * 1_000_000))
    assert "at most 50,000 bytes when unpacked" in read(packed, knowledge, limit=50_000)[1].rejected[0].expected
    assert "cannot be read" in read(tmp_path / "none.ttl", knowledge)[1].rejected[0].what


def test_an_include_or_import_is_not_followed(knowledge: Knowledge, tmp_path: Path) -> None:
    other = written(tmp_path, "other.ttl", serialized(RICH, "ttl"))
    include = f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{other.as_uri()}"/>'
    for file, data in {
        "a.ttl": f"<urn:o> <http://www.w3.org/2002/07/owl#imports> <{other.as_uri()}> .",
        "a.rdf": XML.format("", K, include),
    }.items():
        assert read(written(tmp_path, file, data), knowledge)[0] == []


def test_the_program_is_left_as_it_was(knowledge: Knowledge, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(written(tmp_path, "a.ttl", '<urn:a> <urn:b> "x"^^<http://www.w3.org/2001/XMLSchema#date> .'), knowledge)
    read(written(tmp_path, "a.ttl", "x"), knowledge)
    assert rdflib.NORMALIZE_LITERALS is True
    assert caplog.records == []


# -- bad facts

GOOD = f"""\
@prefix k: <{K}> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
@prefix p: <urn:kypho:patient:x/> .
<urn:kypho:patient:x> a k:Patient ; k:patientId "x" ; k:hasLesion p:lesion .
p:lesion a k:VertebralLesion ; k:lesionId "a" .
p:procedure a k:ProposedProcedure ; k:proposedFor <urn:kypho:patient:x> .
p:record a k:PatientRecord ; k:recordOf <urn:kypho:patient:x> ; k:asOf "2026-03-02"^^xsd:date .
p:one a k:Fact ; k:aboutSubject <urn:kypho:patient:x> ; k:feature k:Pregnancy ; k:mood k:Observed ;
  k:polarity k:AbsentPolarity ; k:verificationStatus k:Confirmed .
"""
BAD_FACTS: dict[str, tuple[str, str, str]] = {
    "an unknown feature": ("k:feature k:inrr ; k:inr 1.0", "feature is inrr", "inr (did you mean that?)"),
    "a feature in words": ('k:feature "inr" ; k:inr 1.0', "feature is 'inr'", "feature"),
    "two features": ("k:feature k:inr, k:painNrs ; k:inr 1.0", "feature is ", "one feature"),
    "no feature": ("k:inr 1.0", "feature is missing", "one feature"),
    "a wrong mood": ("k:feature k:inr ; k:inr 1.0 ; k:mood k:Hoped", "mood is Hoped", "one of Observed, Planned"),
    "two polarities": (
        "k:feature k:inr ; k:inr 1.0 ; k:polarity k:PresentPolarity, k:AbsentPolarity",
        "polarity is AbsentPolarity, PresentPolarity", "one polarity"),
    "a wrong polarity": ("k:feature k:inr ; k:inr 1.0 ; k:polarity true", "polarity is 'true'", "PresentPolarity"),
    "a wrong status": (
        "k:feature k:inr ; k:inr 1.0 ; k:verificationStatus k:Sure", "verificationStatus is Sure", "EnteredInError"),
    "a subject of nobody": (
        "k:feature k:inr ; k:inr 1.0 ; k:aboutSubject <urn:y>", "aboutSubject is urn:y", "the patient, a lesion or"),
    "two subjects": ("k:feature k:inr ; k:inr 1.0 ; k:aboutSubject p:lesion, p:procedure", "aboutSubject is", "one"),
    "another bearer": ("k:feature k:technique ; k:technique k:BalloonKyphoplasty", "technique of a pat", "of a Prop"),
    "text for a number": ('k:feature k:inr ; k:inr "1.0"', "'1.0' of", "xsd:decimal"),
    "a float": ("k:feature k:inr ; k:inr 1e0", "of double", "xsd:decimal"),
    "no decimal": ('k:feature k:inr ; k:inr "one"^^xsd:decimal', "'one' of", "xsd:decimal"),
    "an enormous number": (f'k:feature k:inr ; k:inr "{"9" * 31}"^^xsd:decimal', "'9999", "xsd:decimal"),
    "two numbers": ("k:feature k:inr ; k:inr 1.0, 2.0", "2 numbers and no range", "one number"),
    "a range of others": (
        "k:feature k:inr ; k:inr 1.0, 3.0 ; k:rangeLow 1.0 ; k:rangeHigh 2.0", "ranges from 1.0 to 2.0", "smaller"),
    "a range upside down": ("k:feature k:inr ; k:rangeLow 3.0 ; k:rangeHigh 2.0", "ranges from 3.0 to 2.0", "smaller"),
    "a bound that is no boolean": (
        'k:feature k:inr ; k:rangeLow 3.0 ; k:rangeLowExcluded "maybe"^^xsd:boolean', "rangeLowExcluded", "true or"),
    "a number in words": ('k:feature k:inr ; k:statedValue "about 3"', "0 numbers and no range", "one number"),
    "a number for a finding": ("k:feature k:Pregnancy ; k:rangeLow 1.0", "rangeLow in a fact of Pregnancy", "no value"),
    "a class for a number": (
        "k:feature k:inr ; k:inr 1.0 ; k:recordedClass k:Pregnancy", "recordedClass in a fact of inr", "inr, range"),
    "the value of another feature": ("k:feature k:inr ; k:painNrs 1.0", "painNrs in a fact of inr", "inr, rangeHigh"),
    "no value": ("k:feature k:inr", "inr has no value", "a value, or"),
    "an absent number": ("k:feature k:inr ; k:inr 1.0 ; k:polarity k:AbsentPolarity", "inr is absent", "a value that"),
    "another choice": ("k:feature k:sex ; k:sex k:Femal", "sex is Femal", "Female (did you mean that?)"),
    "a choice in words": ('k:feature k:sex ; k:sex "Female"', "sex is 'Female'", "Female"),
    "another class": (
        "k:aboutSubject p:lesion ; k:feature k:primaryEtiology ; k:recordedClass k:Pregnancy",
        "primaryEtiology is Pregnancy", ""),
    "two classes": (
        "k:aboutSubject p:lesion ; k:feature k:primaryEtiology ; k:recordedClass k:PrimaryOsteoporosis, k:Pregnancy",
        "recordedClass is", "one recordedClass"),
    "another unit": ('k:aboutSubject p:lesion ; k:feature k:painNrs ; k:painNrs 60 ; k:statedUnit "mm"', "unit 'mm'",
                     "the value in {score}"),
    "a day that is none": (
        'k:feature k:birthDate ; k:birthDate "1941-02-30"^^xsd:date', "1941-02-30", "YYYY-MM-DD"),
    "a day with a zone": ('k:feature k:birthDate ; k:birthDate "1941-02-20Z"^^xsd:date', "'1941-02-20Z'", "YYYY-MM-DD"),
    "three days": (
        'k:feature k:birthDate ; k:birthDate "1941-02-01"^^xsd:date ; k:statedValue "1941-02"',
        "'1941-02' with", "dates"),
    "a time that does not exist": (
        'k:feature k:inr ; k:inr 1.0 ; k:statedTime "2026-02-30"', "2026-02-30", "a date that exists"),
    "many dates": (
        'k:feature k:birthDate ; k:birthDate "1941-02-01"^^xsd:date, "1942-02-01"^^xsd:date, "1943-02-01"^^xsd:date',
        "3 dates", "one day"),
    "a time in words": ('k:feature k:inr ; k:inr 1.0 ; k:statedTime "lately"', "'lately' is not a date", ""),
    "half a time": ('k:feature k:inr ; k:inr 1.0 ; k:recordedFrom "2026-02-03"^^xsd:date', "recordedFrom", "both or"),
    "a time backwards": (
        'k:feature k:inr ; k:inr 1.0 ; k:recordedFrom "2026-02-03"^^xsd:date ; k:recordedUntil "2026-02-02"^^xsd:date',
        "recordedFrom 2026-02-03 and recordedUntil 2026-02-02", "the earlier one first"),
    "another cause": (
        "k:feature k:inr ; k:polarity k:IndeterminatePolarity ; k:causeOfIndeterminacy k:Whim", "is Whim", "Pending"),
    "no source": ("k:feature k:inr ; k:inr 1.0 ; k:hasSource <urn:s>", "hasSource is no source", "kypho:RecordSource"),
    "two reasons": ('k:feature k:inr ; k:inr 1.0 ; k:reason "a", "b"', "reason is", "one reason"),
    "a reason that is a node": ("k:feature k:inr ; k:inr 1.0 ; k:reason <urn:r>", "reason is urn:r", "a text"),
}  # fmt: skip
DEFAULTS = {
    "aboutSubject": "<urn:kypho:patient:x>",
    "mood": "k:Observed",
    "polarity": "k:PresentPolarity",
    "verificationStatus": "k:Confirmed",
}


def with_fact(said: str, node: str = "p:two") -> str:
    rest = "".join(f" ; k:{name} {value}" for name, value in DEFAULTS.items() if f"k:{name} " not in said)
    return f"{GOOD}{node} a k:Fact ; {said}{rest} .\n"


@pytest.mark.parametrize("name", BAD_FACTS)
def test_a_bad_fact_costs_nothing_else(name: str, knowledge: Knowledge, tmp_path: Path) -> None:
    said, what, expected = BAD_FACTS[name]
    (found,), report = read(written(tmp_path, "bad.ttl", with_fact(said)), knowledge)
    assert [f.feature for f in found.facts] == [K + "Pregnancy"]
    (problem,) = report.rejected
    assert problem.where == "bad.ttl, patient 1/two"
    assert what in problem.what
    assert expected in problem.expected


def test_a_fact_without_a_name(knowledge: Knowledge, tmp_path: Path) -> None:
    text = with_fact("k:feature k:inr ; k:inr 007", "[]") + with_fact("k:feature k:inr ; k:inr 9.0", "[]")
    text += with_fact("k:feature k:inrr", "[]")
    reads = [read(written(tmp_path, "a.ttl", text), knowledge) for _ in range(3)]
    assert all(r == reads[0][0] for r, _ in reads)
    assert {f.value for f in reads[0][0][0].facts[1:]} == {Range.exactly(7), Range.exactly(9)}
    assert reads[0][1].rejected[0].where == "a.ttl, a node without a name"


BAD_THINGS: dict[str, tuple[str, str, str]] = {
    "a second patient id": ('<urn:kypho:patient:y> a k:Patient ; k:patientId "y", "z" .', "patientId is", "patient 2"),
    "no patient id": ("<urn:kypho:patient:y> a k:Patient .", "patientId is missing", "patient 2"),
    "a lesion without id": ("<urn:kypho:patient:x> k:hasLesion p:other .", "lesionId is missing", "patient 1/other"),
    "a lesion id twice": (
        '<urn:kypho:patient:x> k:hasLesion p:other . p:other k:lesionId "a" .', "lesion:a of a patient",
        "patient 1/other"),
    "two procedures": (
        "p:second k:proposedFor <urn:kypho:patient:x> .", "procedure of a patient stands", "patient 1/second"),
    "a state in words": ('p:procedure k:stateCode "Texas" .', "stateCode is 'Texas'", "patient 1/procedure"),
    "a strange lesion to treat": ("p:procedure k:treats <urn:z> .", "a lesion to be treated that is none", "urn:z"),
    "a date of service that is none": (
        'p:procedure k:serviceDate "2026-02-30"^^xsd:date .', "no date that exists", "patient 1/procedure"),
    "two as-of dates": ('p:record k:asOf "2026-03-03"^^xsd:date .', "asOf is", "patient 1/record"),
    "constructed perhaps": ('p:record k:constructed "perhaps" .', "constructed is 'perhaps'", "patient 1/record"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_THINGS)
def test_what_else_is_malformed(name: str, knowledge: Knowledge, tmp_path: Path) -> None:
    said, what, where = BAD_THINGS[name]
    (found,), report = read(written(tmp_path, "bad.ttl", GOOD + said), knowledge)
    assert (found.patient, found.lesions, len(found.facts)) == ("x", (Lesion("a"),), 1)
    (problem,) = report.rejected
    assert what in problem.what
    assert problem.where.endswith(where)
    if "treat" in name:  # of nothing that is known, not of everything
        assert found.procedure == Procedure(())


# -- noise


def fuzzed(seed: int) -> Iterator[tuple[str, bytes]]:
    """A good file with a few bytes changed, dropped, doubled or cut off."""
    chance = random.Random(seed)
    suffix = [*SYNTAXES, "jsonld"][seed % 7]
    data = bytearray(serialized(replace(RICH, facts=RICH.facts[:10]), suffix))
    for _ in range(chance.choice((1, 3, 20))):
        at = chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randrange(1, 30)]
        elif kind == 2:
            data[at:at] = data[at : at + 40]
        else:
            data[at] = chance.choice(b'<>"{}[]\\:;.')
    yield f"a.{suffix}", bytes(data if seed % 10 else data[: len(data) // 2])


@pytest.mark.parametrize("seed", range(140))
def test_noise_is_read_or_rejected(seed: int, knowledge: Knowledge, tmp_path: Path) -> None:
    """No fact is lost in silence, a rejection says where and what would be right, and what is read reads the same."""
    for file, data in fuzzed(seed):
        found, report = read(written(tmp_path, file, data), knowledge)
        assert report.rejected or sum(len(record.facts) for record in found) >= 10
        for problem in report.rejected:
            assert problem.where.startswith(file)
            assert problem.what
            assert problem.expected, problem
        for record in found:
            (again,), second = read(written(tmp_path, "again.nt", serialized(record, "nt")), knowledge)
            assert list(plain_triples(record_graph(again))) == list(plain_triples(record_graph(record)))
            assert second.rejected == []


def test_the_noise_is_of_both_kinds(knowledge: Knowledge, tmp_path: Path) -> None:
    reads = [read(written(tmp_path, file, data), knowledge) for seed in range(140) for file, data in fuzzed(seed)]
    assert sum(bool(found) for found, _ in reads) > 10
    assert sum(bool(report.rejected) for _, report in reads) > 100
