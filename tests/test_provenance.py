"""From a verdict back to the run, to its clauses, to facts and to the resources in which they were read."""

import json
import re
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from kypho_kg import __version__
from kypho_kg.candidacy import Answer, assess
from kypho_kg.case_graph import ASSERTED, INFERRED, JUDGED, case_graphs, graph_name
from kypho_kg.coverage import coverage_line
from kypho_kg.intake import read_sources
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import load_mappings
from kypho_kg.store import Literal, Triple, Triples, serialized
from kypho_kg.vocabulary import KYPHO, PROV, TYPE

ROOT = Path(__file__).resolve().parent.parent
PATIENT = ROOT / "examples" / "constructed" / "seven-weeks-old.yaml"
DAY = date(2026, 3, 2)
BUNDLE = {
    "resourceType": "Bundle",
    "type": "collection",
    "entry": [
        {"resource": {"resourceType": "Patient", "id": "p", "birthDate": "1941-03-05"}},
        {
            "resource": {
                "resourceType": "Condition",
                "id": "c1",
                "subject": {"reference": "Patient/p"},
                "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "S32.010A"}]},
                "onsetDateTime": "2026-02-01",
            }
        },
    ],
}


@pytest.fixture(scope="module")
def coded(knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    path = tmp_path_factory.mktemp("fhir") / "bundle.json"
    path.write_text(json.dumps(BUNDLE), "utf-8")
    (record,) = read_sources([path], knowledge).records
    return assess(record, as_of=DAY, knowledge=knowledge, validate=False)


def rows(answer: Answer, kind: str = "") -> list[Triple]:
    graphs = case_graphs([answer])
    kinds = [kind] if kind else [ASSERTED, INFERRED, JUDGED]
    return [row for k in kinds for row in graphs[graph_name(answer.record, k)]]


def run(answer: Answer) -> str:
    (found,) = Triples(rows(answer)).subjects(TYPE, PROV + "Activity")
    return found


def test_the_judged_graph_says_what_was_filled(coded: Answer, knowledge: Knowledge) -> None:
    said = [row for row in rows(coded) if row[1] == KYPHO + "coverageNote"]
    line = coverage_line(knowledge, [coded.record])
    assert said == [(graph_name(coded.record, JUDGED), KYPHO + "coverageNote", Literal(line, language="en"))]
    assert re.fullmatch(r"Of \d+ features on which verdicts turn, \d+ were filled.*", line)
    assert list(knowledge.triples.objects(KYPHO + "coverageNote", "http://purl.obolibrary.org/obo/IAO_0000115"))


def test_the_run_names_date_software_knowledge_base_and_mappings(coded: Answer, knowledge: Knowledge) -> None:
    t, node = Triples(rows(coded)), run(coded)
    assert node.startswith("urn:kypho:patient:p/run/")
    assert t.text(node, KYPHO + "asOf") == "2026-03-02"
    assert t.text(node, KYPHO + "bridgesActive") == "true"
    (agent,) = t.resources(node, PROV + "wasAssociatedWith")
    assert t.resources(agent, TYPE) == (PROV + "SoftwareAgent",)
    assert [o.text for _, p, o in t if isinstance(o, Literal) and o.text == f"kypho-kg {__version__}"]
    used = t.resources(node, PROV + "used")
    assert graph_name(coded.record, ASSERTED) in used
    hashes = {t.text(x, KYPHO + "sha256") for x in used} - {""}
    assert hashes == {knowledge.sha256, load_mappings(knowledge).sha256}
    assert any(t.resources(x, PROV + "specializationOf") == (f"{KYPHO[:-1]}/{knowledge.version}",) for x in used)


def test_without_codes_there_is_no_mapping_set(knowledge: Knowledge) -> None:
    (record,) = read_sources([PATIENT], knowledge).records
    answer = assess(record, knowledge=knowledge, assume=["problem-list"], bridges=False, validate=False)
    t, node = Triples(rows(answer)), run(answer)
    used = t.resources(node, PROV + "used")
    assert {t.text(x, KYPHO + "sha256") for x in used} - {""} == {knowledge.sha256}
    assert knowledge.policy("problem-list").iri in used
    assert t.text(node, KYPHO + "bridgesActive") == "false"


def test_every_verdict_leads_back_to_the_resource(coded: Answer) -> None:
    t, node = Triples(rows(coded)), run(coded)
    assessments = t.subjects(TYPE, KYPHO + "Assessment")
    assert assessments
    seen: set[str] = set()
    for assessment in assessments:
        assert t.resources(assessment, PROV + "wasGeneratedBy") == (node,)
        clauses = t.resources(assessment, PROV + "wasDerivedFrom")
        assert set(clauses) >= set(t.resources(assessment, KYPHO + "hasClauseTruth"))
        for clause in clauses:
            assert set(t.resources(clause, PROV + "wasDerivedFrom")) >= set(t.resources(clause, KYPHO + "restsOnFact"))
            todo = list(t.resources(clause, PROV + "wasDerivedFrom"))
            while todo:
                fact = todo.pop()
                todo += t.resources(fact, PROV + "wasDerivedFrom")
                seen |= {t.text(s, KYPHO + "origin") for s in t.resources(fact, PROV + "hadPrimarySource")}
    assert any("Condition/c1" in origin for origin in seen)
    for kind in (INFERRED, JUDGED):
        assert t.resources(graph_name(coded.record, kind), PROV + "wasGeneratedBy") == (node,)


def test_each_recorded_fact_has_the_source_that_the_record_names(coded: Answer) -> None:
    asserted, inferred = Triples(rows(coded, ASSERTED)), Triples(rows(coded, INFERRED))
    facts = asserted.subjects(TYPE, KYPHO + "Fact")
    assert facts
    for fact in facts:
        assert asserted.resources(fact, KYPHO + "hasSource") == inferred.resources(fact, PROV + "hadPrimarySource")
        assert not any(p.startswith(PROV) for p in asserted.predicates(fact))


def test_the_name_of_a_run_follows_from_what_it_ran_on(coded: Answer, knowledge: Knowledge) -> None:
    record = coded.record
    same = assess(record, as_of=DAY, knowledge=knowledge, validate=False)
    others = [
        assess(record, as_of=DAY + timedelta(days=1), knowledge=knowledge, validate=False),
        assess(record, as_of=DAY, knowledge=knowledge, bridges=False, validate=False),
        assess(record, as_of=DAY, knowledge=knowledge, assume=["problem-list"], validate=False),
        assess(record, as_of=DAY, knowledge=knowledge, guidelines=["cms-l34228"], validate=False),
        assess(replace(record, facts=record.facts[:-1]), as_of=DAY, knowledge=knowledge, validate=False),
        assess(replace(record, mappings=()), as_of=DAY, knowledge=knowledge, validate=False),
    ]
    assert run(same) == run(coded)
    assert len({run(coded), *map(run, others)}) == 1 + len(others)


def test_what_was_read_through_codes_and_written_gives_the_same_graphs_again(
    coded: Answer, knowledge: Knowledge, tmp_path: Path
) -> None:
    graphs = case_graphs([coded])
    for apart, name in ((True, "a.trig"), (False, "a.ttl")):
        path = tmp_path / name
        path.write_text(serialized(graphs, apart=apart), "utf-8")
        found = read_sources([path], knowledge)
        assert found.problems == []
        assert not found.reports[0].unmapped
        (record,) = found.records
        again = case_graphs([assess(record, as_of=DAY, knowledge=knowledge, validate=False)])
        assert {n: set(r) for n, r in again.items()} == {n: set(r) for n, r in graphs.items()}


def test_a_table_keeps_the_mapping_set_only_where_it_has_codes(knowledge: Knowledge, tmp_path: Path) -> None:
    table, mapping = tmp_path / "a.csv", tmp_path / "a.yaml"
    table.write_text("patient,inr\np,1.0\n", "utf-8")
    mapping.write_text("format: kypho-table/1\nshape: wide\npatient: patient\ncolumns:\n  inr: inr\n", "utf-8")
    (record,) = read_sources([table], knowledge, mapping=mapping).records
    assert record.mappings == ()
    table.write_text("patient,code,system\np,S32.010A,ICD10CM\n", "utf-8")
    columns = "format: kypho-table/1\nshape: long\npatient: patient\ncode: code\nsystem: system\n"
    mapping.write_text(columns, "utf-8")
    (record,) = read_sources([table], knowledge, mapping=mapping).records
    assert record.mappings == (load_mappings(knowledge).sha256,)


def test_no_node_of_the_run_stands_in_two_graphs(coded: Answer) -> None:
    """Else a query on the union of all graphs would count it once for each patient."""
    told = [row for row in rows(coded, JUDGED) if re.match(r"urn:kypho:patient:p/run/", row[0])]
    assert told
    assert not set(told) & {*rows(coded, ASSERTED), *rows(coded, INFERRED)}
