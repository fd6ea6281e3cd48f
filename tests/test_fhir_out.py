"""Answers as FHIR R4: that it is FHIR, that nothing in it was made up, and that it says what the answer says."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import pytest
from builders import EXAMPLES, TODAY, A, between, changed, every, example, fact, feature, iri, record, session, unknown
from fhir.resources.R4B.bundle import Bundle
from test_cli import Run, kypho  # noqa: F401 - a fixture

from kypho_kg.candidacy import Answer, assess
from kypho_kg.errors import Problem
from kypho_kg.evaluation import Truth
from kypho_kg.explanation import explain
from kypho_kg.fhir_facts import SYSTEM, Entries, PatientWriter, Terms, source_reference
from kypho_kg.fhir_out import answers_fhir
from kypho_kg.guidelines import ABSOLUTE, RELATIVE
from kypho_kg.intake_report import IntakeReport
from kypho_kg.loading import load_knowledge
from kypho_kg.mappings import load_mappings
from kypho_kg.missing import OPEN_VERDICTS
from kypho_kg.record import Cause, Fact, Polarity, Source, TimeSpan
from kypho_kg.report import DISCLAIMER
from kypho_kg.sources.fhir import read_fhir
from kypho_kg.words import said

Json = dict[str, Any]
SOFTWARE = "kypho-kg 1.2.3"
NAMES = sorted(str(p.relative_to(EXAMPLES).with_suffix("")) for p in EXAMPLES.glob("*/*.yaml"))
T4, PREGNANT, PACEMAKER = "constructed/t4-outpatient", "constructed/pregnant", "constructed/pacemaker-bone-scan"
INR_HIGH = "constructed/anticoagulated-inr-high"


@functools.cache
def answer(name: str, **options: Any) -> Answer:
    return assess(example(name), knowledge=load_knowledge(), validate=False, **options)


@functools.cache
def bundle(name: str) -> Json:
    return answers_fhir([answer(name)], [], SOFTWARE)


def of(found: Json, kind: str) -> list[Json]:
    return [e["resource"] for e in found["entry"] if e["resource"]["resourceType"] == kind]


def nodes(node: Any) -> Iterator[Json]:
    """Every object in a piece of JSON."""
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(inner)


def output(response: Json) -> list[Json]:
    found = next(c for c in response["contained"] if c["resourceType"] == "Parameters")
    return found["parameter"]


def said_of(parameters: list[Json], name: str) -> list[Any]:
    """The values, or the parts, of all parameters of a name."""
    return [v for p in parameters if p["name"] == name for k, v in p.items() if k != "name"]


def written(*facts: Fact, of_: Answer | None = None) -> list[Json]:
    """The Observations of some facts, in their order; facts that they rest on come before."""
    k, entries = load_knowledge(), Entries()
    writer = PatientWriter(
        entries, Terms(k, load_mappings(k)), of_ or assess(record(), knowledge=k, guidelines=["nice-ta279"])
    )
    for one in facts:
        writer.fact(one)
    found = {"resourceType": "Bundle", "type": "collection", "entry": entries.all()}
    Bundle.model_validate_json(json.dumps(found))
    return of(found, "Observation")


def codings(concept: Json) -> list[tuple[str, str]]:
    return [(c["system"], c["code"]) for c in concept.get("coding", [])]


# -- it is FHIR


@pytest.mark.parametrize("name", every(4, NAMES))
def test_every_example_is_a_valid_bundle(name):
    text = json.dumps(bundle(name), allow_nan=False)
    parsed = Bundle.model_validate_json(text)
    assert parsed.type == "collection"
    assert len(parsed.entry) == len(bundle(name)["entry"]) > 2


@pytest.mark.parametrize("name", every(4, NAMES))
def test_references_resolve_and_ids_are_ids(name):
    found = bundle(name)
    urls = [e["fullUrl"] for e in found["entry"]]
    assert len(set(urls)) == len(urls)
    keys = [(e["resource"]["resourceType"], e["resource"]["id"]) for e in found["entry"]]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", id_) for _, id_ in keys)
    for entry in found["entry"]:
        resource = entry["resource"]
        inside = {"#" + c["id"] for c in resource.get("contained", [])}
        refs = {n["reference"] for n in nodes(resource) if isinstance(n.get("reference"), str)}
        refs -= {resource.get("reference")}  # of a DetectedIssue, a URL and no reference
        assert {r for r in refs if r.startswith("#")} == inside
        assert {r for r in refs if not r.startswith("#")} <= set(urls)


@pytest.mark.parametrize("name", every(4, NAMES))
def test_no_empty_text_list_or_object(name):
    for node in nodes(bundle(name)):
        assert [k for k, v in node.items() if v in ("", [], {}, None) or (isinstance(v, str) and not v.strip())] == []


@pytest.mark.parametrize("name", every(4, NAMES))
def test_every_date_is_one_of_the_record(name):
    """Nothing reads the clock: what has no date of its own has the as-of date."""
    found, day = bundle(name), answer(name).as_of.isoformat()
    assert "timestamp" not in found
    assert {r["occurrenceDateTime"] for r in of(found, "GuidanceResponse")} == {day}
    assert {r["identifiedDateTime"] for r in of(found, "DetectedIssue")} <= {day}
    assert {r["recorded"] for r in of(found, "Provenance")} == {f"{day}T00:00:00Z"}
    recorded = {day} | {f.time.text[:10] for f in example(name).facts if f.time}
    assert {r["effectiveDateTime"] for r in of(found, "Observation") if "effectiveDateTime" in r} <= recorded


def test_the_same_answer_gives_the_same_bundle():
    fresh = assess(example(T4), knowledge=load_knowledge(), validate=False)
    assert json.dumps(answers_fhir([fresh], [], SOFTWARE)) == json.dumps(bundle(T4))
    shuffled = assess(replace(example(T4), facts=example(T4).facts[::-1]), knowledge=load_knowledge(), validate=False)
    assert {e["fullUrl"] for e in answers_fhir([shuffled], [], SOFTWARE)["entry"]} == {
        e["fullUrl"] for e in bundle(T4)["entry"]
    }


def test_another_answer_has_other_ids_and_asks_the_same_question():
    other = assess(changed(example(T4), without=["painNrs"]), knowledge=load_knowledge(), validate=False)
    mine, yours = of(bundle(T4), "GuidanceResponse"), of(answers_fhir([other], [], SOFTWARE), "GuidanceResponse")
    policy = "cms-l34228/guideline"
    [a], [b] = ([r for r in rows if policy in r["moduleUri"]] for rows in (mine, yours))
    assert a["identifier"] != b["identifier"]
    assert a["requestIdentifier"] == b["requestIdentifier"]
    later = answers_fhir([answer(T4, as_of=date(2026, 3, 3))], [], SOFTWARE)
    [c] = (r for r in of(later, "GuidanceResponse") if policy in r["moduleUri"])
    assert c["requestIdentifier"] != a["requestIdentifier"]


# -- it says what the answer says


@pytest.mark.parametrize("name", every(4, NAMES))
def test_each_case_and_guideline_has_its_response(name):
    found = bundle(name)
    rows = [(case, a) for case in answer(name).cases for a in case.assessments]
    responses = of(found, "GuidanceResponse")
    assert len(responses) == len(rows)
    for response, (case, a) in zip(responses, rows, strict=True):
        told = output(response)
        assert said_of(told, "verdict") == [a.verdict]
        assert said_of(told, "reachable") == list(a.conclusion.reachable)
        assert response["reasonCode"][0]["text"] == said(a)
        assert response["moduleUri"].startswith(a.guideline.iri + "|")
        assert response["status"] == ("data-required" if a.verdict in OPEN_VERDICTS else "success")
        assert response["note"] == [{"text": DISCLAIMER}]
        truths = {said_of(p, "id")[0]: said_of(p, "truth")[0] for p in said_of(told, "clause")}
        assert truths == {c.recommendation.id: c.truth.words for c in a.clauses}
        [lesion] = said_of(told, "lesion")
        place = next(e["resource"] for e in found["entry"] if e["fullUrl"] == lesion["reference"])
        assert place["identifier"] == [{"value": case.lesion.id}]


@pytest.mark.parametrize("name", every(4, NAMES))
def test_an_open_verdict_asks_for_what_is_missing(name):
    explained = [e for e in explain(answer(name))]
    rows = [(e, a) for e in explained for a in e.case.assessments]
    asked = 0
    for response, (e, a) in zip(of(bundle(name), "GuidanceResponse"), rows, strict=True):
        wanted = [n.feature for n in e.needs(a) if n.obtainable] if a.verdict in OPEN_VERDICTS else []
        codes = [r["codeFilter"][0]["code"][0] for r in response.get("dataRequirement", [])]
        assert [(c["system"], iri(c["code"])) for c in codes] == [(SYSTEM, f) for f in wanted]
        asked += len(wanted)
    assert asked > 0


@pytest.mark.parametrize("name", every(4, NAMES))
def test_each_contraindication_that_is_met_is_an_issue(name):
    """Each response names its own; what holds of the patient is one issue for all lesions."""
    severities = {ABSOLUTE: "high", RELATIVE: "moderate"}
    issues = {e["fullUrl"]: e["resource"] for e in bundle(name)["entry"] if "severity" in e["resource"]}
    rows = [a for case in answer(name).cases for a in case.assessments]
    named_ = set()
    for response, provenance, a in zip(
        of(bundle(name), "GuidanceResponse"), of(bundle(name), "Provenance"), rows, strict=True
    ):
        wanted = [(c.recommendation.id, severities[e]) for e in severities for c in a.having(e, Truth.MET)]
        refs = [r["reference"] for p in said_of(output(response), "clause") for r in said_of(p, "issue")]
        told = [(codings(issues[r]["evidence"][0]["code"][0])[0][1], issues[r]["severity"]) for r in refs]
        assert sorted(told) == sorted(wanted)
        assert {t["reference"] for t in provenance["target"][1:]} == set(refs)
        named_ |= set(refs)
    assert named_ == set(issues)


def test_an_issue_names_its_evidence_and_source():
    [issue, *_] = (i for i in of(bundle(PREGNANT), "DetectedIssue") if i["severity"] == "high")
    refs = [r["reference"] for r in issue["evidence"][0]["detail"]]
    facts = [e["resource"] for e in bundle(PREGNANT)["entry"] if e["fullUrl"] in refs]
    assert {codings(f["code"])[0] for f in facts} == {(SYSTEM, "Pregnancy")}
    assert all(f["valueBoolean"] for f in facts)
    assert issue["status"] == "final"
    assert codings(issue["code"]) == [("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OBSA")]
    assert issue["reference"].startswith("http")
    assert issue["detail"]


def test_requirements_say_kind_codes_and_how_old_is_too_old(knowledge):
    terms = Terms(knowledge, load_mappings(knowledge))
    [e] = explain(answer(T4))
    need = e.need(e.case.assessments[0], "patient", iri("inr"))
    row = terms.requirement(need, TODAY)
    assert row["type"] == "Observation"
    codes = [(c["system"], c["code"]) for c in row["codeFilter"][0]["code"]]
    assert codes[0] == (SYSTEM, "inr")
    assert ("http://loinc.org", "6301-6") in codes
    days = feature("inr").lookback
    assert days
    period = row["dateFilter"][0]["valuePeriod"]
    assert (date.fromisoformat(period["end"]) - date.fromisoformat(period["start"])).days == days
    kinds = {
        name: terms.resource_type(replace(need, feature=iri(name), subject=subject))
        for name, subject in (
            ("Coagulopathy", "patient"), ("painNrs", A), ("primaryEtiology", A), ("technique", "procedure"),
            ("SpineMriDone", "patient"), ("SpinalInstability", A),
        )
    }  # fmt: skip
    assert kinds == {
        "Coagulopathy": "Condition", "painNrs": "Observation", "primaryEtiology": "Observation",
        "technique": "ServiceRequest", "SpineMriDone": "Procedure", "SpinalInstability": "Condition",
    }  # fmt: skip
    drug = next(
        f.name for f in knowledge.features.values()
        if {r.prefix for r in load_mappings(knowledge).of_term(f.iri) if r.assigns} == {"ATC", "RXNORM"}
    )  # fmt: skip
    asked = terms.requirement(replace(need, feature=iri(drug)), TODAY)
    assert (asked["type"], asked["codeFilter"][0]["path"]) == ("MedicationStatement", "medication")
    assert "dateFilter" not in asked


def test_what_cannot_be_assessed_is_a_message():
    texts = [
        (i["severity"], i["code"], i["diagnostics"])
        for r in of(bundle(PACEMAKER), "GuidanceResponse")
        for c in r["contained"] if c["resourceType"] == "OperationOutcome"
        for i in c["issue"]
    ]  # fmt: skip
    assert any(s == "warning" and c == "processing" and "pacemaker" in text for s, c, text in texts)


def test_conflicting_statements_are_a_message():
    found = of(bundle("constructed/contradicting-infection-notes"), "GuidanceResponse")
    codes = {i["code"] for r in found for c in r["contained"] for i in c.get("issue", [])}
    assert "conflict" in codes


def test_assumptions_stand_beside_and_are_no_observation():
    strict = answer("constructed/problem-list-only")
    assumed = answer("constructed/problem-list-only", assume=("problem-list",), guidelines=("cms-l34228",))
    [response] = of(answers_fhir([assumed], [], SOFTWARE), "GuidanceResponse")
    [a] = assumed.cases[0].assessments
    assert a.assumed
    assert a.assumed.assumptions
    [beside] = said_of(output(response), "assumed")
    assert said_of(beside, "verdict") == [a.assumed.conclusion.verdict]
    assert len(said_of(beside, "assumption")) == len(a.assumed.assumptions)
    assert said_of(output(response), "verdict") == [a.verdict]
    names = {f.feature for f in a.assumed.assumptions} - {f.feature for f in strict.record.facts}
    written_ = {iri(codings(o["code"])[0][1]) for o in of(answers_fhir([assumed], [], SOFTWARE), "Observation")}
    assert names
    assert not names & written_


def test_what_is_constructed_is_marked_as_test_data():
    def marked(found: Json) -> set[str]:
        return {
            e["resource"]["resourceType"] for e in found["entry"]
            if "HTEST" in json.dumps(e["resource"].get("meta", {}))
        }  # fmt: skip

    assert marked(bundle(INR_HIGH)) == {
        "Patient", "BodyStructure", "Observation", "GuidanceResponse", "DetectedIssue", "Provenance",
    }  # fmt: skip
    assert marked(bundle("published/ost-02")) == set()


def test_provenance_names_software_knowledge_base_policy_and_sources(knowledge):
    found = bundle(T4)
    [device] = of(found, "Device")
    assert (device["deviceName"][0]["name"], device["version"]) == ("kypho-kg", [{"value": "1.2.3"}])
    for p, r in zip(of(found, "Provenance"), of(found, "GuidanceResponse"), strict=True):
        assert r["moduleUri"].startswith(p["policy"][0] + "|")
        assert knowledge.sha256 in json.dumps(p["entity"][0])
        places = [e["what"]["identifier"]["value"] for e in p["entity"][1:] if "identifier" in e["what"]]
        assert all(re.fullmatch(r"t4-outpatient\.yaml(:\d+)?", x) for x in places)
        assert len(set(places)) == len(places)


# -- facts


@pytest.mark.parametrize(
    ("said_", "wanted"),
    [
        (7, {"valueQuantity": {"value": 7}}),
        ("6.5", {"valueQuantity": {"value": 6.5}}),
        (between(0), {"valueQuantity": {"value": 0, "comparator": ">="}}),
        (between(5, low_open=True), {"valueQuantity": {"value": 5, "comparator": ">"}}),
        (between(high=8), {"valueQuantity": {"value": 8, "comparator": "<="}}),
        (between(high=8, high_open=True), {"valueQuantity": {"value": 8, "comparator": "<"}}),
        (between(5, 8), {"valueRange": {"low": {"value": 5}, "high": {"value": 8}}}),
    ],
)
def test_numbers_and_their_bounds(said_, wanted):
    [row] = written(fact("painNrs", said_, "2026-02-20"))
    unit = {"unit": "{score}", "system": "http://unitsofmeasure.org", "code": "{score}"}
    [(key, value)] = wanted.items()
    value = {end: {**bound, **unit} for end, bound in value.items()} if key == "valueRange" else {**value, **unit}
    assert row[key] == value
    assert "note" not in row
    assert row["status"] == "final"


def test_an_end_that_is_left_out_is_told():
    [row] = written(fact("painNrs", between(5, 8, low_open=True, high_open=True)))
    assert [n["text"] for n in row["note"]] == ["low end excluded", "high end excluded"]
    [row] = written(fact("painNrs", between()))
    assert codings(row["dataAbsentReason"])[0][1] == "unknown"


@pytest.mark.parametrize(
    ("time", "wanted"),
    [
        ("2025", {"effectiveDateTime": "2025"}),
        ("2025-11", {"effectiveDateTime": "2025-11"}),
        ("2025-11-03", {"effectiveDateTime": "2025-11-03"}),
        ("2025-11-03T14:30", {"effectiveDateTime": "2025-11-03"}),
        (None, {"effectiveDateTime": TODAY.isoformat()}),
    ],
)
def test_dates_stay_as_precise_as_they_are(time, wanted):
    [row] = written(fact("inr", "1.1", time))
    assert {k: v for k, v in row.items() if k.startswith("effective")} == wanted


def test_an_interval_of_time_is_a_period():
    spring = TimeSpan(datetime(2025, 3, 1), datetime(2025, 5, 31, 23, 59, 59), "spring of 2025")
    [row] = written(replace(fact("inr", "1.1"), time=spring))
    assert row["effectivePeriod"] == {"start": "2025-03-01", "end": "2025-05-31"}
    [row] = written(replace(fact("onsetDate", "2025-03"), value=spring))
    assert row["valuePeriod"] == {"start": "2025-03-01", "end": "2025-05-31"}
    [row] = written(fact("onsetDate", "2025-03"))
    assert row["valueDateTime"] == "2025-03"


def test_findings_choices_and_categories():
    present, absent = written(fact("SpinalStenosis"), fact("Discitis", "absent"))
    assert (present["valueBoolean"], absent["valueBoolean"]) == (True, False)
    assert ("http://snomed.info/sct", "76107001") in codings(present["code"])
    one, several, ruled_out = written(
        fact("vertebralLevel", "L1"),
        fact("vertebralLevel", ["T12", "L1"]),
        fact("painTrend", ["Improving"], absent=True),
    )
    assert codings(one["valueCodeableConcept"])[0] == (SYSTEM, "L1")
    assert several["valueCodeableConcept"] == {"text": "T12 or L1"}
    assert list(ruled_out["valueCodeableConcept"]) == ["text"]
    assert ruled_out["valueCodeableConcept"]["text"].startswith("not ")
    [category] = written(fact("primaryEtiology", "PrimaryOsteoporosis"))
    assert codings(category["valueCodeableConcept"])[0] == (SYSTEM, "PrimaryOsteoporosis")


def test_only_exact_codes_are_added(knowledge):
    """A narrower code would say more than the record does."""
    [row] = written(fact("KnownMalignancy"))
    rows = load_mappings(knowledge).of_term(iri("KnownMalignancy"))
    assert any(r.predicate == "skos:narrowMatch" for r in rows)
    narrow = {r.code for r in rows if r.predicate != "skos:exactMatch"}
    assert not narrow & {code for _, code in codings(row["code"])}


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Cause.PENDING, "temp-unknown"),
        (Cause.NOT_ASSESSABLE, "not-performed"),
        (Cause.STALE, "unknown"),
        (None, "unknown"),
    ],
)
def test_an_unclear_fact_has_no_value(cause, code):
    [row] = written(replace(unknown("MarrowEdemaOnMri", cause), reason="pacemaker"))
    assert not [k for k in row if k.startswith("value")]
    assert codings(row["dataAbsentReason"])[0][1] == code
    assert codings(row["dataAbsentReason"])[1] == (SYSTEM, str(cause or Cause.INDETERMINATE))
    assert row["note"] == [{"text": "pacemaker"}]


def test_words_stay_words():
    [row] = written(replace(unknown("painNrs", Cause.IN_WORDS_ONLY), words="terrible"))
    assert row["valueString"] == "terrible"
    assert "dataAbsentReason" not in row


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"status": "provisional"}, "preliminary"),
        ({"status": "unconfirmed"}, "preliminary"),
        ({"status": "differential"}, "preliminary"),
        ({"status": "refuted"}, "cancelled"),
        ({"status": "entered-in-error"}, "entered-in-error"),
        ({"mood": "ordered"}, "registered"),
        ({"mood": "planned"}, "registered"),
    ],
)
def test_status(more, status):
    [row] = written(fact("Discitis", **more))
    assert row["status"] == status


def test_an_invalid_value_is_told_and_is_no_value():
    bad = replace(fact("painNrs", 15), polarity=Polarity.INDETERMINATE, cause=Cause.INVALID, invalid="NrsShape")
    [row] = written(bad)
    assert "valueQuantity" not in row
    assert [n["text"] for n in row["note"]] == ["recorded: 15", "does not conform to NrsShape"]


def test_what_a_rule_derived_names_its_premises_and_carries_no_foreign_code():
    bridged = [
        f for case in answer(INR_HIGH).cases for fs in case.snapshot.present.values() for f in fs
        if f.rule and f.premises
    ]  # fmt: skip
    assert bridged
    for one in bridged:
        *premises, row = written(one, of_=answer(INR_HIGH))
        assert premises
        assert len(row["derivedFrom"]) == len(set(one.premises))
        assert {system for system, _ in codings(row["code"])} == {SYSTEM}
        assert row["method"]["text"]
        assert "derivedFrom" not in premises[0]


def test_a_fact_of_a_lesion_points_to_it():
    found = bundle("constructed/two-levels-one-session")
    places = {e["fullUrl"]: e["resource"] for e in found["entry"] if e["resource"]["resourceType"] == "BodyStructure"}
    assert len(places) == 2
    focused = {places[o["focus"][0]["reference"]]["identifier"][0]["value"]
               for o in of(found, "Observation") if "focus" in o}  # fmt: skip
    assert focused == {p["identifier"][0]["value"] for p in places.values()}
    one = answer("constructed/two-levels-one-session")
    alone = replace(one, cases=one.cases[:1])
    assert all(f["focus"] for f in of(answers_fhir([alone], [], SOFTWARE), "Observation") if "painNrs" in json.dumps(f))


def test_a_fact_without_level_has_a_lesion_without_place():
    found = answers_fhir([assess(record(), guidelines=["nice-ta279"])], [], SOFTWARE)
    [place] = of(found, "BodyStructure")
    assert "location" not in place
    Bundle.model_validate_json(json.dumps(found))


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        (
            "bundle.json: Observation/abc-1",
            {"reference": "Observation/abc-1", "display": "bundle.json: Observation/abc-1"},
        ),
        (
            "bundle.json:1, entry[3]",
            {"identifier": {"value": "bundle.json:1, entry[3]"}, "display": "bundle.json:1, entry[3]"},
        ),
        ("", None),
    ],
)
def test_the_place_of_a_fact(origin, wanted):
    assert source_reference(replace(fact("Discitis"), source=Source(origin))) == wanted
    [row] = written(replace(fact("Discitis"), source=Source(origin)))
    assert re.fullmatch(r"\S+", row["meta"]["source"]) if origin else "meta" not in row


def test_a_quote_is_told_and_a_file_name_with_spaces_is_a_uri():
    source = Source("my notes.yaml:3", "op note", "2026-02-28", "IR", "about 3 months")
    [row] = written(replace(fact("Discitis"), source=source))
    assert row["meta"]["source"] == "my%20notes.yaml:3"
    assert row["note"] == [{"text": "op note, 2026-02-28, IR: “about 3 months”"}]


# -- patients, problems


def named(id_: str, **more: Any) -> Answer:
    return assess(
        replace(record(fact("painNrs", 7), procedure=session()), patient=id_, **more), guidelines=["nice-ta279"]
    )


@pytest.mark.parametrize("id_", ["p 1", "Müller", "x" * 65, "a/b", '"><script>', "urn:uuid:1", " "])
def test_an_id_that_fhir_does_not_allow_stays_the_identifier(id_):
    found = answers_fhir([named(id_)], [], SOFTWARE)
    Bundle.model_validate_json(json.dumps(found))
    [patient] = of(found, "Patient")
    assert re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", patient["id"])
    assert patient.get("identifier") == ([{"value": id_}] if id_.strip() else None)
    assert set(patient) <= {"resourceType", "id", "identifier"}


def test_the_id_of_a_patient_is_kept_where_it_is_one():
    [patient] = of(answers_fhir([named("p-1.2")], [], SOFTWARE), "Patient")
    assert patient == {"resourceType": "Patient", "id": "p-1.2", "identifier": [{"value": "p-1.2"}]}


def test_the_same_patient_twice_does_not_clash():
    found = answers_fhir([named("p"), named("p"), named("p", lesions=())], [], SOFTWARE)
    urls = [e["fullUrl"] for e in found["entry"]]
    assert len(set(urls)) == len(urls)
    assert len(of(found, "Patient")) == len(of(found, "GuidanceResponse")) == 1


def test_problems_and_records_without_a_case_are_told():
    found = answers_fhir(
        [named("p", lesions=())], [Problem("a.yaml:7, facts.x", "'y' is no feature", "a feature")], SOFTWARE
    )
    Bundle.model_validate_json(json.dumps(found))
    [told] = of(found, "OperationOutcome")
    assert [(i["severity"], i["code"], i["diagnostics"]) for i in told["issue"]] == [
        ("error", "invalid", "a.yaml:7, facts.x: 'y' is no feature; expected a feature"),
        ("information", "informational", "patient p: the record has no vertebral lesion, so there is no case"),
    ]
    assert of(found, "GuidanceResponse") == []


def test_no_answer_at_all_is_a_bundle():
    found = answers_fhir([], [], SOFTWARE)
    assert [e["resource"]["resourceType"] for e in found["entry"]] == ["Device"]
    Bundle.model_validate_json(json.dumps(found))


# -- reading it back


@pytest.mark.parametrize("name", every(4, NAMES))
def test_reading_it_back_invents_and_doubles_nothing(name, tmp_path, knowledge):
    """What carries a known code is read as what it was, or as unclear; all else is counted as not read."""
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(bundle(name)))
    report = IntakeReport(path.name)
    [back] = read_fhir(path, knowledge, report)
    assert report.rejected == []
    assert back.patient == example(name).patient
    assert back.lesions == ()
    stated: dict[tuple[object, ...], set[str]] = {}
    for f in example(name).facts:
        stated.setdefault((f.feature, f.value), set()).add(str(f.polarity))
    owners: dict[tuple[object, ...], int] = {}
    for f in back.facts:
        if f.polarity is not Polarity.INDETERMINATE:
            assert str(f.polarity) in stated[f.feature, f.value]
        key = (f.feature, f.value, f.time, f.polarity)
        owners[key] = owners.get(key, 0) + 1
    subjects = max(1, len(example(name).lesions))
    assert all(n <= subjects for n in owners.values())
    unread = {kind for kind, _ in report.unread}
    assert unread >= {"Device", "BodyStructure", "GuidanceResponse", "Provenance"}


# -- the command line


def test_the_command_line_prints_one_bundle(kypho):  # noqa: F811
    run: Run = kypho("assess", EXAMPLES / f"{T4}.yaml", "--format", "fhir", "-g", "cms-l34228")
    assert (run.code, run.err) == (0, "")
    Bundle.model_validate_json(run.out)
    assert len(of(run.data, "GuidanceResponse")) == 1


def test_a_file_that_cannot_be_read_is_told_in_the_bundle(kypho, tmp_path):  # noqa: F811
    bad = tmp_path / "bad.yaml"
    bad.write_text("format: kypho-patient/1\npatient: {id: p}\nfacts: {NoSuchThing: present}\n")
    run: Run = kypho("assess", bad, EXAMPLES / f"{T4}.yaml", "--format", "fhir", "-g", "cms-l34228")
    assert run.code == 3
    [told] = of(run.data, "OperationOutcome")
    assert "NoSuchThing" in told["issue"][0]["diagnostics"]
    assert len(of(run.data, "GuidanceResponse")) == 1
