"""FHIR to records: what each kind of resource says, which lesion it is about, and that bad input costs only itself."""

from __future__ import annotations

import copy
import gzip
import json
import random
import re
import tempfile
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from test_guards import MODULES, clinical_names, clinical_words, words

from kypho_kg.candidacy import Answer, assess
from kypho_kg.intake_report import IntakeReport, report_json
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import Mappings, System, TermMapping, load_mappings
from kypho_kg.record import PATIENT, PROCEDURE, Cause, Fact, Mood, Polarity, Range, Record, Status, TimeSpan
from kypho_kg.snapshot import Snapshot, resolve
from kypho_kg.sources.fhir import read_fhir
from kypho_kg.sources.fhir_codes import DERIVED
from kypho_kg.validation import Severity, validate_record
from kypho_kg.vocabulary import KYPHO, local

Json = dict[str, Any]

SCT, LOINC, RX = "http://snomed.info/sct", "http://loinc.org", "http://www.nlm.nih.gov/research/umls/rxnorm"
ICD, CLASS = "http://hl7.org/fhir/sid/icd-10-cm", "http://terminology.hl7.org/CodeSystem/v3-ActCode"
UCUM = "http://unitsofmeasure.org"
TODAY = date(2024, 9, 1)
SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "data"
SYNTHEA = SAMPLES / "synthea_r4_spine_relevant_patients.bundles.ndjson.gz"
CLINOSIM = SAMPLES / "clinosim_0.6.5_vcf_25patients_fhir_r4.ndjson.gz"

WARFARIN = {"coding": [{"system": RX, "code": "11289"}]}


@pytest.fixture(scope="module")
def mappings(knowledge: Knowledge) -> Mappings:
    """The bundled mappings, with some that they lack: a finding on imaging, a class of encounter, a question."""
    bundled = load_mappings(knowledge)

    def row(term: str, prefix: str, code: str) -> TermMapping:
        return TermMapping(KYPHO + term, "skos:exactMatch", False, prefix, code)

    more = [
        row("MarrowEdemaOnMri", "LOCAL", "edema"),
        row("Pregnancy", "LOCAL", "pregnant"),
        row("AdmittedInpatient", "CLASS", "IMP"),
        row("fractureMorphology", "LOCAL", "shape"),
    ]
    systems = [
        System("LOCAL", "local", "urn:local/", names=frozenset({"local", "urn:local"})),
        System("CLASS", "class", "urn:class/", names=frozenset({"class", CLASS.lower()})),
    ]
    return Mappings([*bundled.rows, *more], [*bundled.systems.values(), *systems])


class Reader:
    def __init__(self, folder: Path, k: Knowledge, mappings: Mappings) -> None:
        self.folder, self.k, self.mappings = folder, k, mappings
        self.report = IntakeReport("test")

    def stream(self, path: Path, **more: Any) -> Iterator[Record]:
        self.report = IntakeReport("test")
        return read_fhir(path, self.k, self.report, mappings=self.mappings, **more)

    def bundle(self, *resources: Json, **more: Any) -> Record:
        path = self.folder / "one.json"
        path.write_text(json.dumps(bundle(*resources)))
        (record,) = self.stream(path, **more)
        return record

    def facts(self, *resources: Json) -> dict[str, Fact]:
        """The facts by feature; the last one of each."""
        return {local(f.feature): f for f in self.bundle(*resources).facts}


@pytest.fixture
def reader(tmp_path: Path, knowledge: Knowledge, mappings: Mappings) -> Reader:
    return Reader(tmp_path, knowledge, mappings)


def patient(id_: str = "p", **more: Any) -> Json:
    return {"resourceType": "Patient", "id": id_, "birthDate": "1950-03", "gender": "female", **more}


def bundle(*resources: Json) -> Json:
    entries = [{"fullUrl": f"urn:uuid:{n}", "resource": r} for n, r in enumerate((patient(), *resources))]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def concept(code: str, system: str = SCT, **more: Any) -> Json:
    return {"coding": [{"system": system, "code": code, **more}]}


def resource(kind: str, **more: Any) -> Json:
    subject = "patient" if kind == "AllergyIntolerance" else "subject"
    return {"resourceType": kind, subject: {"reference": "Patient/p"}, **more}


def condition(code: str = "S32.010A", onset: str | None = "2024-06-01", system: str = ICD, **more: Any) -> Json:
    return resource("Condition", code=concept(code, system), **({"onsetDateTime": onset} if onset else {}) | more)


def clinical(code: str) -> Json:
    return concept(code, "http://terminology.hl7.org/CodeSystem/condition-clinical")


def observation(code: str, system: str = LOINC, when: str = "2024-08-20", **more: Any) -> Json:
    return resource(
        "Observation", **{"status": "final", "code": concept(code, system), "effectiveDateTime": when} | more
    )


def quantity(value: Any, unit: str, **more: Any) -> Json:
    return {"value": value, "unit": unit, "code": unit, "system": UCUM, **more}


def level(record: Record, subject: str) -> set[str]:
    return {
        local(v) for f in record.facts if f.subject == subject and local(f.feature) == "vertebralLevel" for v in f.value
    }


def lesions(record: Record) -> list[str]:
    return [lesion.id for lesion in record.lesions]


def snap(record: Record, k: Knowledge) -> Snapshot:
    return resolve(record, k, TODAY)


# --------------------------------------------------------------------------------------------------------------------
# Patient, Condition


@pytest.mark.parametrize("gender", ["male", "female", "other", "unknown", None])
def test_patient(reader: Reader, gender: str | None) -> None:
    facts = reader.facts({**patient("p"), "gender": gender})
    assert str(facts["birthDate"].value) == "1950-03"
    assert ("sex" in facts) is (gender in ("male", "female"))


def test_active_condition_is_present(reader: Reader) -> None:
    fact = reader.facts(condition("C90.00", clinicalStatus=clinical("active")))["DiagnosedMultipleMyeloma"]
    assert (fact.polarity, fact.mood, fact.status, str(fact.time)) == ("present", "observed", "confirmed", "2024-06-01")


@pytest.mark.parametrize("status", list(Status))
def test_verification(reader: Reader, status: Status) -> None:
    record = reader.bundle(condition(verificationStatus=concept(status.value, "urn:x")))
    assert {f.status for f in record.facts if f.subject != PATIENT or local(f.feature) == "PathologicalFracture"} in (
        {status},
        set() if status in ("refuted", "entered-in-error") else {status},
    )
    assert bool(record.lesions) is (status not in ("refuted", "entered-in-error"))


@pytest.mark.parametrize("status", ["inactive", "remission", "resolved"])
def test_resolved_condition_is_two_facts(reader: Reader, knowledge: Knowledge, status: str) -> None:
    said = condition("R50.9", "2024-01-01", clinicalStatus=clinical(status), abatementDateTime="2024-03-01")
    facts = [f for f in reader.bundle(said).facts if local(f.feature) == "Fever"]
    assert [(f.polarity, str(f.time)) for f in facts] == [("present", "2024-01-01"), ("absent", "2024-03-01")]


def test_what_cannot_end_does_not_end(reader: Reader) -> None:
    said = condition("M81.0", "2020", clinicalStatus=clinical("resolved"), abatementDateTime="2024-03-01")
    facts = [f for f in reader.bundle(said).facts if local(f.feature) == "DiagnosedOsteoporosis"]
    assert [f.polarity for f in facts] == ["present"]


def test_an_end_without_a_date_is_said(reader: Reader) -> None:
    facts = reader.facts(condition("R50.9", clinicalStatus=clinical("resolved")))
    assert (facts["Fever"].polarity, reader.report.unread["Condition", "over, without a date"]) == ("present", 1)
    later = condition("R50.9", clinicalStatus=clinical("resolved"), meta={"lastUpdated": "2024-07-01T00:00:00.1+02:00"})
    assert "absent" in {f.polarity for f in reader.bundle(later).facts}


def test_abated_and_active_is_unclear(reader: Reader) -> None:
    said = condition("R50.9", clinicalStatus=clinical("active"), abatementDateTime="2024-07-01")
    polarities = [f.polarity for f in reader.bundle(said).facts if local(f.feature) == "Fever"]
    assert polarities == ["present", "indeterminate"]


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2024", "2024-01-01", "2024-12-31"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("2024-02-03", "2024-02-03", "2024-02-03"),
        ("2024-02-03T23:30:00.123+09:00", "2024-02-03", "2024-02-03"),
        ("2024-02-03T23:30:00Z", "2024-02-03", "2024-02-03"),
    ],
)
def test_partial_dates(reader: Reader, text: str, start: str, end: str) -> None:
    time = reader.facts(condition("R50.9", text))["Fever"].time
    assert time
    assert (time.start.date().isoformat(), time.end.date().isoformat()) == (start, end)


def test_all_codings_count_and_an_unknown_system_does_not(reader: Reader) -> None:
    both = {"coding": [{"system": SCT, "code": "999"}, {"system": ICD, "code": "R50.9"}]}
    assert "Fever" in reader.facts(condition(code=both) | {"code": both})
    assert not reader.report.unmapped
    assert "Fever" not in reader.facts(condition("R50.9", system="urn:other"))
    assert reader.report.unmapped["Condition", "urn:other|R50.9", ""] == 1
    assert "Fever" not in reader.facts(condition() | {"code": {"coding": [{"code": "R50.9"}]}})


# --------------------------------------------------------------------------------------------------------------------
# Observation


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (quantity(150, "10*3/uL"), Range.exactly(150)),
        (quantity(150000, "/uL"), Range.exactly(150)),
        (quantity(100, "10*9/L", comparator="<"), Range(None, Decimal(100), high_open=True)),
        (quantity(100, "10*9/L", comparator=">="), Range(Decimal(100), None)),
    ],
)
def test_quantities(reader: Reader, value: Json, expected: Range) -> None:
    fact = reader.facts(observation("777-3", valueQuantity=value))["plateletCount"]
    assert (fact.value, fact.unit, fact.polarity) == (expected, "10*9/L", "present")


@pytest.mark.parametrize("value", [quantity(1.5, "furlong"), {"value": 150}])
def test_unit_not_understood_stays_unknown(reader: Reader, value: Json) -> None:
    fact = reader.facts(observation("777-3", valueQuantity=value))["plateletCount"]
    assert (fact.polarity, fact.value, fact.cause) == ("indeterminate", None, Cause.INDETERMINATE)
    assert reader.report.unread["Observation", "unit of plateletCount not understood"] == 1


def test_other_values(reader: Reader) -> None:
    assert reader.facts(observation("6301-6", valueQuantity={"value": 1.10}))["inr"].value == Range.exactly(
        Decimal("1.1")
    )
    assert reader.facts(observation("6301-6", valueInteger=2))["inr"].value == Range.exactly(2)
    words = reader.facts(observation("6301-6", valueString="high"))["inr"]
    assert (words.polarity, words.cause, words.words) == ("indeterminate", Cause.IN_WORDS_ONLY, "high")
    ranged = observation(
        "6301-6", valueRange={"low": {"value": 1, "code": "{INR}"}, "high": {"value": 2, "code": "{INR}"}}
    )
    assert reader.facts(ranged)["inr"].value == Range(Decimal(1), Decimal(2))


@pytest.mark.parametrize(
    ("value", "polarity"),
    [
        ({"valueBoolean": True}, "present"),
        ({"valueBoolean": False}, "absent"),
        ({"valueCodeableConcept": concept("52101004")}, "present"),
        ({"valueCodeableConcept": concept("2667000")}, "absent"),
        ({"valueCodeableConcept": concept("82334004")}, "indeterminate"),
        ({"valueCodeableConcept": concept("12345")}, "indeterminate"),
        ({"valueCodeableConcept": {"text": "maybe"}}, "indeterminate"),
        ({}, "present"),
    ],
)
def test_answers_to_a_finding(reader: Reader, value: Json, polarity: str) -> None:
    assert reader.facts(observation("pregnant", "urn:local", **value))["Pregnancy"].polarity == polarity


def test_coded_value_of_a_category(reader: Reader) -> None:
    said = observation(
        "shape", "urn:local", valueCodeableConcept=concept("S32.010A", ICD), bodySite=concept("L1", "urn:x")
    )
    assert local(str(reader.facts(said)["fractureMorphology"].value)) == "WedgeFracture"


def test_coded_value_of_an_unknown_question_is_not_used(reader: Reader) -> None:
    assert "Fever" not in reader.facts(observation("999-9", valueCodeableConcept=concept("R50.9", ICD)))
    assert reader.report.unmapped["Observation", f"{LOINC}|999-9", ""] == 1


@pytest.mark.parametrize(
    ("reason", "cause"),
    [("unknown", Cause.INDETERMINATE), ("not-applicable", Cause.NOT_ASSESSABLE), ("temp-unknown", Cause.PENDING)],
)
def test_data_absent_reason(reader: Reader, reason: str, cause: Cause) -> None:
    fact = reader.facts(observation("777-3", dataAbsentReason=concept(reason, "urn:x")))["plateletCount"]
    assert (fact.polarity, fact.cause) == ("indeterminate", cause)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("final", Status.CONFIRMED),
        ("amended", Status.CONFIRMED),
        ("preliminary", Status.PROVISIONAL),
        ("unknown", Status.UNCONFIRMED),
        ("entered-in-error", Status.ENTERED_IN_ERROR),
    ],
)
def test_observation_status(reader: Reader, knowledge: Knowledge, status: str, expected: Status) -> None:
    record = reader.bundle(observation("6301-6", status=status, valueQuantity={"value": 3}))
    (fact,) = (f for f in record.facts if local(f.feature) == "inr")
    assert fact.status is expected
    assert bool(snap(record, knowledge).value(PATIENT, KYPHO + "inr").value) is (expected is Status.CONFIRMED)


def test_cancelled_registered_and_undated(reader: Reader) -> None:
    assert "inr" not in reader.facts(observation("6301-6", status="cancelled", valueQuantity={"value": 3}))
    assert reader.facts(observation("6301-6", status="registered"))["inr"].mood is Mood.ORDERED
    undated = observation("6301-6", valueQuantity={"value": 3})
    del undated["effectiveDateTime"]
    assert "inr" not in reader.facts(undated)
    assert reader.report.unread["Observation", "no date"] == 1
    visit = resource(
        "Encounter", id="e", status="finished", period={"start": "2024-05-05"}, **{"class": {"code": "AMB"}}
    )
    fact = reader.facts(undated | {"encounter": {"reference": "Encounter/e"}}, visit)["inr"]
    assert str(fact.time) == "2024-05-05"


def test_components(reader: Reader) -> None:
    parts = [
        {"code": concept("777-3", LOINC), "valueQuantity": quantity(90, "10*9/L")},
        {"code": concept("6301-6", LOINC), "valueQuantity": {"value": 1}},
    ]
    facts = reader.facts(observation("0-0", component=parts))
    assert {"plateletCount", "inr"} <= facts.keys()


# --------------------------------------------------------------------------------------------------------------------
# Procedure, requests, medication, and the rest


@pytest.mark.parametrize(
    ("status", "polarity", "mood"),
    [
        ("completed", "present", "observed"),
        ("preparation", "present", "planned"),
        ("not-done", "absent", "observed"),
    ],
)
def test_procedure(reader: Reader, status: str, polarity: str, mood: str) -> None:
    said = resource("Procedure", status=status, code=concept("24968-0", LOINC), performedDateTime="2024-07-01")
    fact = reader.facts(said)["SpineMriDone"]
    assert (fact.polarity, fact.mood) == (polarity, mood)


def test_not_done_undoes_nothing(reader: Reader) -> None:
    done = resource("Procedure", status="completed", code=concept("24968-0", LOINC), performedDateTime="2024-06-01")
    record = reader.bundle(done, done | {"status": "not-done", "performedDateTime": "2024-07-01"})
    assert {f.polarity for f in record.facts if local(f.feature) == "SpineMriDone"} == {"present"}


def test_text_only_and_proposed_only(reader: Reader) -> None:
    reader.facts(resource("Procedure", status="completed", code={"text": "a procedure"}, performedDateTime="2024"))
    assert reader.report.unread["Procedure", "text only, no code"] == 1
    cpt = concept("22514", "http://www.ama-assn.org/go/cpt")
    record = reader.bundle(resource("Procedure", status="completed", code=cpt, performedDateTime="2024"))
    assert not [f for f in record.facts if f.subject == PROCEDURE]
    assert reader.report.unread["Procedure", "speaks of a proposed procedure only"] == 1


def test_service_request(reader: Reader) -> None:
    order = resource(
        "ServiceRequest", status="active", intent="order", code=concept("24968-0", LOINC), authoredOn="2024-08-01"
    )
    assert reader.facts(order)["SpineMriDone"].mood is Mood.ORDERED
    assert reader.facts(order | {"intent": "plan"})["SpineMriDone"].mood is Mood.PLANNED
    assert "SpineMriDone" not in reader.facts(order | {"status": "revoked"})
    assert "SpineMriDone" not in reader.facts(order | {"doNotPerform": True})


def test_proposed_procedure(reader: Reader) -> None:
    cpt = concept("22514", "http://www.ama-assn.org/go/cpt")
    asks = resource(
        "ServiceRequest",
        id="s",
        status="active",
        intent="order",
        code=cpt,
        authoredOn="2024-08-01",
        occurrenceDateTime="2024-09-10",
        reasonReference=[{"reference": "Condition/c"}],
    )
    older = asks | {"id": "o", "authoredOn": "2023-08-01"}
    record = reader.bundle(condition(id="c"), asks, older)
    assert record.procedure
    assert (record.procedure.lesions, str(record.procedure.service_date)) == (("l1",), "2024-09-10")
    assert {local(f.feature) for f in record.facts if f.subject == PROCEDURE} >= {"procedureCode"}
    assert reader.report.unread["ServiceRequest", "an older proposal of a procedure"] == 1


def drug(kind: str = "MedicationRequest", status: str = "active", when: str = "2024-08-01", **more: Any) -> Json:
    key = {"MedicationRequest": "authoredOn", "MedicationStatement": "effectiveDateTime"}.get(kind, "effectiveDateTime")
    intent = {"intent": "order"} if kind == "MedicationRequest" else {}
    return resource(kind, **{"status": status, "medicationCodeableConcept": WARFARIN, key: when} | intent | more)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (drug(), [("present", "observed")]),
        (drug(intent="plan"), [("present", "planned")]),
        (drug(status="cancelled"), []),
        (drug("MedicationStatement"), [("present", "observed")]),
        (drug("MedicationStatement", "not-taken"), [("absent", "observed")]),
        (drug("MedicationStatement", "intended"), [("present", "planned")]),
        (drug("MedicationAdministration", "completed"), [("present", "observed")]),
        (drug("MedicationAdministration", "not-done"), []),
        (
            drug(status="stopped", dispenseRequest={"validityPeriod": {"end": "2024-08-20"}}),
            [("present", "observed"), ("absent", "observed")],
        ),
    ],
)
def test_medication(reader: Reader, said: Json, expected: list[tuple[str, str]]) -> None:
    record = reader.bundle(said)
    assert [(f.polarity, f.mood) for f in record.facts if local(f.feature) == "WarfarinTherapy"] == expected


def test_medication_by_reference(reader: Reader, tmp_path: Path) -> None:
    inside = drug(contained=[{"resourceType": "Medication", "id": "m", "code": WARFARIN}])
    del inside["medicationCodeableConcept"]
    assert "WarfarinTherapy" in reader.facts(inside | {"medicationReference": {"reference": "#m"}})
    ref = {k: v for k, v in inside.items() if k != "contained"} | {"medicationReference": {"reference": "Medication/m"}}
    parts = {
        "resourceType": "Medication",
        "id": "m",
        "code": {"text": "tablet"},
        "ingredient": [{"itemCodeableConcept": WARFARIN}],
    }
    assert "WarfarinTherapy" in reader.facts(ref, parts)
    assert "WarfarinTherapy" not in reader.facts(ref)
    assert reader.report.unread["MedicationRequest", "what is taken is not in the source"] == 1
    path = tmp_path / "loose.ndjson"
    path.write_text("\n".join(map(json.dumps, (ref, parts, patient()))))
    (record,) = reader.stream(path)
    assert "WarfarinTherapy" in {local(f.feature) for f in record.facts}


def test_a_stopped_prescription_does_not_end_a_running_one(reader: Reader) -> None:
    """A changed dose is an old request that was stopped and a new one: the patient still takes it."""
    old = drug(status="stopped", when="2024-01-01", id="a", dispenseRequest={"validityPeriod": {"end": "2024-08-15"}})
    record = reader.bundle(old, drug(when="2024-08-01", id="b"))
    assert {f.polarity for f in record.facts if local(f.feature) == "WarfarinTherapy"} == {"present"}


def test_an_allergy_to_a_substance_is_no_intake_of_it(reader: Reader) -> None:
    said = resource("AllergyIntolerance", code=WARFARIN, recordedDate="2024-01-01")
    assert "WarfarinTherapy" not in reader.facts(said)
    assert reader.report.unmapped["AllergyIntolerance", f"{RX}|11289", ""] == 1
    known = resource("AllergyIntolerance", code=concept("Z91.041", ICD), recordedDate="2024-01-01")
    assert reader.facts(known)["OpacifierAllergy"].polarity is Polarity.PRESENT
    reader.facts(resource("AllergyIntolerance", code=concept("227493005")))
    assert reader.report.unmapped["AllergyIntolerance", f"{SCT}|227493005", ""] == 1


def test_diagnostic_report(reader: Reader) -> None:
    said = resource(
        "DiagnosticReport",
        status="final",
        code=concept("24968-0", LOINC),
        effectiveDateTime="2024-07-01",
        conclusion="Some words",
    )
    assert reader.facts(said)["SpineMriDone"].polarity is Polarity.PRESENT
    assert reader.report.unread["DiagnosticReport", "conclusion in words only"] == 1
    coded = said | {"conclusionCode": [concept("M46.46", ICD), concept("R50.9", ICD)]}
    assert reader.facts(coded)["Fever"].polarity is Polarity.PRESENT
    assert reader.facts(said | {"status": "registered"})["SpineMriDone"].mood is Mood.ORDERED


def test_imaging_study(reader: Reader) -> None:
    said = resource("ImagingStudy", status="available", started="2024-07-01", procedureCode=[concept("24968-0", LOINC)])
    assert "SpineMriDone" in reader.facts(said)
    bare = resource(
        "ImagingStudy",
        status="available",
        started="2024-07-01",
        series=[{"modality": {"system": "urn:d", "code": "MR"}}],
    )
    reader.facts(bare)
    assert reader.report.unmapped["ImagingStudy", "urn:d|MR", ""] == 1


def test_encounter(reader: Reader) -> None:
    stay = resource("Encounter", status="finished", period={"start": "2024-08-01", "end": "2024-08-05"})
    record = reader.bundle(stay | {"class": {"system": CLASS, "code": "IMP"}})
    facts = [f for f in record.facts if local(f.feature) == "hospitalStatus"]
    assert [(f.polarity, str(f.time)) for f in facts] == [("present", "2024-08-01"), ("absent", "2024-08-05")]
    reader.bundle(stay | {"class": {"system": CLASS, "code": "AMB"}})
    assert reader.report.unmapped["Encounter", f"{CLASS}|AMB", ""] == 1


@pytest.mark.parametrize("link", ["/6301-6", "LOINC:6301-6", f"{LOINC}|6301-6", "/a/b/6301-6"])
def test_questionnaire(reader: Reader, link: str) -> None:
    item = {"linkId": "g", "item": [{"linkId": link, "answer": [{"valueDecimal": 1.2}]}, {"linkId": "1", "answer": []}]}
    said = resource("QuestionnaireResponse", status="completed", authored="2024-08-01", item=[item])
    assert reader.facts(said)["inr"].value == Range.exactly(Decimal("1.2"))
    item["item"].append({"linkId": "11289", "answer": [{"valueBoolean": True}]})
    assert "WarfarinTherapy" not in reader.facts(said)
    assert reader.report.unmapped["QuestionnaireResponse", "linkId|11289", ""] == 1


# --------------------------------------------------------------------------------------------------------------------
# Lesions


def test_a_lesion_coded_at_eight_visits_is_one(reader: Reader) -> None:
    visits = [condition("S32.010D", f"2024-{month:02}-03", id=f"c{month}") for month in range(1, 9)]
    record = reader.bundle(*visits)
    assert lesions(record) == ["l1"]
    assert level(record, "lesion:l1") == {"L1"}


def test_two_episodes_and_two_levels(reader: Reader) -> None:
    record = reader.bundle(
        condition("S32.010A", "2019-01-01", id="a"),
        condition("S32.010A", "2024-01-01", id="b"),
        condition("S22.080A", id="t"),
        condition("S32.020A", "2024-06", id="c"),
    )
    assert lesions(record) == ["l1", "l1-2", "l2"]
    assert reader.report.unread["Condition", "no level: not attributed"] == 1
    times = {s: {str(f.time) for f in record.facts if f.subject == f"lesion:{s}"} for s in lesions(record)}
    assert times == {"l1": {"2019-01-01"}, "l1-2": {"2024-01-01"}, "l2": {"2024-06"}}


@pytest.mark.parametrize(
    "site",
    [
        {"text": "L1"},
        {"text": "L1 vertebra"},
        {"coding": [{"system": "http://purl.obolibrary.org/obo/uberon.owl", "code": "0002413"}]},
    ],
)
def test_level_from_the_body_site(reader: Reader, knowledge: Knowledge, mappings: Mappings, site: Json) -> None:
    if "coding" in site:
        rows = [r for r in mappings.of_term(KYPHO + "L1") if r.prefix == "UBERON"]
        site["coding"][0]["code"] = rows[0].code
    record = reader.bundle(condition("M80.08XA", bodySite=[site]))
    assert lesions(record) == ["l1"]
    assert level(record, "lesion:l1") == {"L1"}


@pytest.mark.parametrize("site", ["T11-L1", "Body site not specified", "lumbar", "disc L4/5", "T1 weighted"])
def test_words_that_are_no_level(reader: Reader, site: str) -> None:
    assert lesions(reader.bundle(condition("M80.08XA", bodySite=[{"text": site}]))) == []


def test_code_and_site_that_differ(reader: Reader) -> None:
    assert lesions(reader.bundle(condition("S32.010A", bodySite=[{"text": "L3"}]))) == []
    assert reader.report.unread["Condition", "code and body site name different levels"] == 1


def test_a_code_without_level_goes_to_the_only_lesion(reader: Reader) -> None:
    record = reader.bundle(condition("S32.010A", id="a"), condition("M80.08XA", "2024-06-10", id="b"))
    assert {f.subject for f in record.facts if local(f.feature) == "PathologicalFracture"} == {"lesion:l1"}
    assert record.procedure is None
    old = reader.bundle(condition("S32.010A", id="a"), condition("M80.08XA", "2014-06-10", id="b"))
    assert {f.subject for f in old.facts if local(f.feature) == "PathologicalFracture"} == {PATIENT}
    two = reader.bundle(condition(id="a"), condition("S32.030A", id="c"), condition("M80.08XA", id="b"))
    assert {f.subject for f in two.facts if local(f.feature) == "PathologicalFracture"} == {PATIENT}


def test_what_is_not_attributed_rules_nothing_out(reader: Reader, knowledge: Knowledge) -> None:
    """An absence on the patient would hold for every lesion."""
    said = condition("M80.08XA", "2024-01-01", clinicalStatus=clinical("resolved"), abatementDateTime="2024-02-01")
    record = reader.bundle(said, condition("S32.010A", id="a"), condition("S32.020A", id="b"))
    assert not [f for f in record.facts if f.subject == PATIENT and f.polarity is Polarity.ABSENT]


def test_pain_is_tied_only_where_the_record_ties_it(reader: Reader, knowledge: Knowledge) -> None:
    pain = observation("72514-3", valueQuantity=quantity(8, "{score}"))
    record = reader.bundle(condition(id="c"), pain)
    assert snap(record, knowledge).value("lesion:l1", KYPHO + "painNrs").gap.cause is Cause.NOT_ATTRIBUTED
    tied = reader.bundle(condition(id="c"), pain | {"focus": [{"reference": "Condition/c"}]})
    assert snap(tied, knowledge).value("lesion:l1", KYPHO + "painNrs").value == Range.exactly(8)
    sited = reader.bundle(condition(id="c"), pain | {"bodySite": {"text": "L1"}})
    assert snap(sited, knowledge).value("lesion:l1", KYPHO + "painNrs").value == Range.exactly(8)
    elsewhere = reader.bundle(condition(id="c"), pain | {"bodySite": {"text": "L4"}})
    assert lesions(elsewhere) == ["l1"]
    assert reader.report.unread["Observation", "no lesion at this level: not attributed"] == 1


def test_contradictory_imaging_is_withheld(reader: Reader, knowledge: Knowledge) -> None:
    def mri(seen: bool, day: str) -> Json:
        return observation("edema", "urn:local", day, valueBoolean=seen, bodySite={"text": "L1"})

    record = reader.bundle(condition(id="c"), mri(True, "2024-08-20"), mri(False, "2024-08-23"))
    assert snap(record, knowledge).finding_gap("lesion:l1", KYPHO + "MarrowEdemaOnMri").cause is Cause.CONFLICTING


# --------------------------------------------------------------------------------------------------------------------
# Files and folders


def population(count: int) -> list[list[Json]]:
    def own(n: int) -> list[Json]:
        said = [
            condition(id=f"c{n}"),
            observation("6301-6", valueQuantity={"value": 1.1}, id=f"o{n}"),
            drug(id=f"d{n}"),
            condition("M80.08XA", "2024-06-05", id=f"f{n}"),
            condition("R50.9", id=f"g{n}"),
        ]
        return [patient(f"p{n}"), *({**r, "subject": {"reference": f"Patient/p{n}"}} for r in said)]

    return [own(n) for n in range(count)]


def plain(records: Iterable[Record]) -> list[tuple[Any, ...]]:
    """Records without the names of files."""
    return sorted(
        (r.patient, lesions(r), [(f.subject, f.feature, str(f.value), str(f.time), f.polarity) for f in r.facts])
        for r in records
    )


def test_the_same_from_every_form(reader: Reader, tmp_path: Path) -> None:
    people = population(3)
    bundles = [{"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": r} for r in p]} for p in people]
    (tmp_path / "b.ndjson").write_text("\n".join(map(json.dumps, bundles)) + "\n\n")
    (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress((tmp_path / "b.ndjson").read_bytes()))
    every = [r for p in people for r in p]
    whole = {"resourceType": "Bundle", "type": "batch", "entry": [{"resource": r} for r in every]}
    (tmp_path / "all.json").write_text("\ufeff" + json.dumps(whole), encoding="utf-8")
    random.Random(7).shuffle(every)
    (tmp_path / "loose.ndjson").write_text("\n".join(map(json.dumps, every)))
    folder = tmp_path / "bulk"
    folder.mkdir()
    (folder / "a.ndjson").write_text("\n".join(map(json.dumps, every[::2])))
    (folder / "b.ndjson.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, every[1::2])).encode()))
    (folder / "note.txt").write_text("no FHIR")
    expected = plain(reader.stream(tmp_path / "b.ndjson"))
    assert len(expected) == 3
    assert all(found[1] == ["l1"] for found in expected)
    for name in ("b.ndjson.gz", "all.json", "loose.ndjson", "bulk"):
        assert plain(reader.stream(tmp_path / name)) == expected, name
        assert reader.report.rejected == []


def test_order_does_not_matter(reader: Reader) -> None:
    resources = [
        condition("S32.010A", "2019-01-01", id="a"),
        condition("S32.010A", "2024-01-01", id="b"),
        condition("M80.08XA", id="t"),
        condition("S32.020A", "2024-06", id="c"),
        drug(id="d"),
        drug(status="stopped", when="2023", id="e"),
        observation("72514-3", valueInteger=3, id="o", focus=[{"reference": "Condition/c"}]),
    ]
    expected = reader.bundle(*resources)
    for seed in range(10):
        random.Random(seed).shuffle(resources)
        assert reader.bundle(*resources) == expected


def test_copies_and_versions(reader: Reader) -> None:
    said = condition("R50.9", id="c", meta={"lastUpdated": "2024-01-01T00:00:00Z"})
    newer = said | {"verificationStatus": concept("refuted"), "meta": {"lastUpdated": "2024-02-01T00:00:00Z"}}
    for order in ([said, said, newer], [newer, said, said]):
        facts = [f for f in reader.bundle(*order).facts if local(f.feature) == "Fever"]
        assert [f.status for f in facts] == [Status.REFUTED]
        assert sum(reader.report.unread.values()) == 2


def test_another_patient_is_rejected(reader: Reader) -> None:
    foreign = condition("R50.9", subject={"reference": "Patient/secret-name"})
    assert "Fever" not in reader.facts(foreign)
    (problem,) = reader.report.rejected
    assert "entry[1]" in problem.where
    assert "secret" not in str(problem)
    for subject in ({"reference": "Group/g"}, {}, None, {"reference": "Patient/"}):
        assert "Fever" not in reader.facts(condition("R50.9", subject=subject))
        assert len(reader.report.rejected) == 1


def test_references_by_full_url_and_server(reader: Reader) -> None:
    for ref in ("urn:uuid:0", "https://example.org/fhir/Patient/p", "Patient/p/_history/2", "Patient/p"):
        assert "Fever" in reader.facts(condition("R50.9", subject={"reference": ref})), ref


def test_bundles_are_read_lazily(reader: Reader, tmp_path: Path) -> None:
    lines = [json.dumps({"resourceType": "Bundle", "entry": [{"resource": r} for r in p]}) for p in population(300)]
    path = tmp_path / "many.ndjson"
    path.write_text("\n".join(lines))
    records = reader.stream(path)
    for count in range(1, 6):
        next(records)
        assert reader.report.read["Bundle"] == count
    records.close()  # type: ignore[attr-defined]
    assert len(list(reader.stream(path))) == 300
    assert reader.report.records == 300


def test_no_file_is_left(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("SQLITE_TMPDIR", str(scratch))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    path = tmp_path / "loose.ndjson"
    path.write_text("\n".join(json.dumps(r) for p in population(200) for r in p))
    records = reader.stream(path)
    next(records)
    records.close()  # type: ignore[attr-defined]
    assert list(scratch.iterdir()) == []
    assert sum(1 for _ in reader.stream(path)) == 200
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("silent_is_newest", [False, True])
def test_a_version_that_says_nothing_counts_as_any_other(
    newest_first: bool, silent_is_newest: bool, reader: Reader, tmp_path: Path
) -> None:
    """A single resource that says nothing is not kept; where another version of it is, the source is read again."""
    silent = condition("J06.9", id="a", meta={"lastUpdated": f"202{5 if silent_is_newest else 3}-01-01T00:00:00Z"})
    telling = condition("S32.010A", id="a", meta={"lastUpdated": "2024-01-01T00:00:00Z"})
    odd = {**condition("J06.9"), "id": ["no", "text"]}
    lines = [patient(), *((silent, telling) if newest_first else (telling, silent)), condition("J06.9", id="b"), odd]
    path = tmp_path / "loose.ndjson"
    path.write_text("\n".join([*map(json.dumps, lines), "{"]))
    [record] = reader.stream(path)
    assert lesions(record) == ([] if silent_is_newest else ["l1"])
    assert reader.report.unread["Condition", "another version of the same resource"] == 1
    assert {key[1]: n for key, n in reader.report.unmapped.items()} == {f"{ICD}|J06.9": 1 + silent_is_newest}
    assert [p.where for p in reader.report.rejected] == ["loose.ndjson:5", "loose.ndjson:6"]


# --------------------------------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"[]",
        b"1",
        b'"x"',
        b"null",
        b"\xff\xfe{",
        b'{"a": NaN}',
        b"{}",
        b'{"resourceType": 3}',
        b"[" * 100_000,
        b'{"resourceType": "Bundle", "entry": 3}',
        b'{"resourceType": "Bundle", "entry": [3, {}, {"resource": []}]}',
        b'{"resourceType": "Patient"}',
        b'{"resourceType": "Condition"}',
        b'{"resourceType": "Patient", "id": "\\ud800"}',
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"resourceType": "Patient", "id": {"$": "x"}}',
    ],
)
def test_bad_lines_cost_only_themselves(reader: Reader, tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "x.ndjson"
    good = json.dumps(bundle(condition())).encode()
    path.write_bytes(good + b"\n" + bad + b"\n" + good)
    assert len(list(reader.stream(path))) == 2
    assert reader.report.rejected
    assert all(p.where.startswith("x.ndjson:2") for p in reader.report.rejected)


def test_damaged_files(reader: Reader, tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(bundle(condition(), {"resourceType": "X", "n": n})) for n in range(2000))
    packed = gzip.compress(lines.encode())
    path = tmp_path / "cut.ndjson.gz"
    path.write_bytes(packed[: len(packed) // 2])
    assert list(reader.stream(path))
    assert len(reader.report.rejected) == 1
    path.write_bytes(packed[:100] + b"\0" * 50 + packed[150:])
    list(reader.stream(path))
    assert reader.report.rejected
    for wrong in (tmp_path / "none.json", tmp_path):
        if wrong.is_dir():
            path.unlink()
        assert list(reader.stream(wrong)) == []
        assert len(reader.report.rejected) == 1


EVERYTHING = [
    condition(id="c", clinicalStatus=clinical("resolved"), abatementDateTime="2024-07", bodySite=[{"text": "L1"}]),
    observation("777-3", valueQuantity=quantity(150, "10*3/uL", comparator="<")),
    observation("pregnant", "urn:local", valueCodeableConcept=concept("52101004")),
    observation(
        "6301-6", component=[{"code": concept("777-3", LOINC), "valueInteger": 3}], dataAbsentReason=concept("error")
    ),
    drug(contained=[{"resourceType": "Medication", "id": "m", "ingredient": [{"itemCodeableConcept": WARFARIN}]}]),
    resource(
        "Procedure",
        status="completed",
        code=concept("24968-0", LOINC),
        performedPeriod={"start": "2024", "end": "2024-08"},
    ),
    resource(
        "Encounter", status="finished", period={"start": "2024-08-01"}, **{"class": {"system": CLASS, "code": "IMP"}}
    ),
    resource(
        "ServiceRequest",
        status="active",
        intent="order",
        code=concept("22514", "http://www.ama-assn.org/go/cpt"),
        authoredOn="2024-08-01",
        reasonReference=[{"reference": "Condition/c"}],
    ),
    resource(
        "DiagnosticReport",
        status="final",
        code=concept("24968-0", LOINC),
        issued="2024-07-01T00:00:00Z",
        conclusion="x",
    ),
    resource(
        "ImagingStudy",
        status="available",
        started="2024-07-01",
        series=[{"modality": {"system": "urn:d", "code": "MR"}}],
    ),
    resource("AllergyIntolerance", code=concept("Z91.041", ICD), recordedDate="2024-01-01"),
    resource(
        "QuestionnaireResponse",
        status="completed",
        authored="2024-08-01",
        item=[{"linkId": "/6301-6", "answer": [{"valueQuantity": {"value": 1.1}}]}],
    ),
]
JUNK: list[Any] = [
    None,
    3,
    -1.5e300,
    True,
    "",
    "x",
    [],
    {},
    [[]],
    [3],
    {"x": 1},
    "2024-13-45",
    "\ud800",
    [None],
    10**400,
    {"coding": 3},
    {"reference": 5},
    {"start": "2024", "end": "2001"},
]


def spots(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        yield (*at, key)
        yield from spots(child, (*at, key))


@pytest.mark.parametrize("seed", range(300))
def test_mutants_cost_only_themselves(reader: Reader, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    mutant = copy.deepcopy(bundle(*EVERYTHING))
    for _ in range(chance.randint(1, 4)):
        *way, last = chance.choice(list(spots(mutant)))
        node = mutant
        for step in way:
            node = node[step]
        if chance.random() < 0.25:
            del node[last]
        else:
            node[last] = chance.choice(JUNK)
    lines = [json.dumps(bundle(condition())), json.dumps(mutant), json.dumps(bundle(condition()))]
    if chance.random() < 0.1:
        lines[1] = lines[1][: chance.randrange(len(lines[1]))]
    path = tmp_path / "x.ndjson"
    path.write_text("\n".join(lines))
    records = list(reader.stream(path))
    assert plain([records[0]]) == plain([records[-1]])
    assert lesions(records[0]) == ["l1"]
    loose = tmp_path / "loose.ndjson"
    loose.write_text(
        "\n".join(json.dumps(e.get("resource") if isinstance(e, dict) else e) for e in (mutant.get("entry") or []) if e)
        if isinstance(mutant.get("entry"), list)
        else ""
    )
    list(reader.stream(loose))
    report_json([reader.report])


def test_a_bad_resource_costs_nothing_else(reader: Reader) -> None:
    broken = [
        condition(onset="yesterday"),
        condition(clinicalStatus="active"),
        observation("6301-6", status="odd"),
        observation("6301-6", valueQuantity={"value": "1"}),
        observation("6301-6", valueString="a", valueInteger=1),
        observation("6301-6", valueQuantity={"value": 1, "comparator": "~"}),
    ]
    facts = reader.facts(condition("R50.9"), *broken)
    assert "Fever" in facts
    assert "inr" not in facts
    assert len(reader.report.rejected) == len(broken)
    assert not any("yesterday" in str(p) or "odd" in str(p) for p in reader.report.rejected)


# --------------------------------------------------------------------------------------------------------------------
# Our own terms as codes

OWN = "https://w3id.org/kypho"


def own(code: str) -> Json:
    return concept(code, OWN)


def at_l1(code: str, **value: Any) -> tuple[Json, Json]:
    """A lesion at L1, and an Observation there with one of our own codes."""
    return condition(), observation(code, OWN, bodySite=own("L1"), **value)


def only(record: Record, name: str) -> Fact:
    (fact,) = (f for f in record.facts if local(f.feature) == name)
    return fact


def test_the_example_of_the_page(reader: Reader) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "fhir.md").read_text("utf-8")
    example = json.loads(page.partition("## Our own codes")[2].partition("```json\n")[2].partition("```")[0])
    fact = only(reader.bundle(condition(), example), "NeurologicalDeficit")
    assert (fact.subject, fact.polarity, str(fact.time)) == ("lesion:l1", Polarity.ABSENT, "2024-08-20")
    assert reader.report.rejected == []


@pytest.mark.parametrize(
    ("code", "value", "expected"),
    [
        ("MarrowEdemaOnMri", {"valueBoolean": True}, (Polarity.PRESENT, None)),
        ("MarrowEdemaOnMri", {"valueBoolean": False}, (Polarity.ABSENT, None)),
        ("MarrowEdemaOnMri", {"valueCodeableConcept": own("PresentPolarity")}, (Polarity.PRESENT, None)),
        ("MarrowEdemaOnMri", {"valueCodeableConcept": own("AbsentPolarity")}, (Polarity.ABSENT, None)),
        ("MarrowEdemaOnMri", {"valueCodeableConcept": own("IndeterminatePolarity")}, (Polarity.INDETERMINATE, None)),
        ("MarrowEdemaOnMri", {"valueCoding": {"system": OWN, "code": "AbsentPolarity"}}, (Polarity.ABSENT, None)),
        ("painTrend", {"valueCodeableConcept": own("Worsening")}, (Polarity.PRESENT, frozenset({KYPHO + "Worsening"}))),
        ("painTrend", {"valueCodeableConcept": own("AbsentPolarity")}, (Polarity.INDETERMINATE, None)),
        ("Worsening", {"valueBoolean": False}, (Polarity.ABSENT, frozenset({KYPHO + "Worsening"}))),
        ("fractureMorphology", {"valueCodeableConcept": own("BurstFracture")},
         (Polarity.PRESENT, KYPHO + "BurstFracture")),
        ("fractureMorphology", {"valueCodeableConcept": own("Worsening")}, (Polarity.INDETERMINATE, None)),
        ("BurstFracture", {"valueBoolean": False}, (Polarity.ABSENT, KYPHO + "BurstFracture")),
        ("heightLossPercent", {"valueQuantity": quantity(30, "%")}, (Polarity.PRESENT, Range.exactly(30))),
        ("heightLossPercent", {"valueQuantity": quantity(30, "%", comparator="<")},
         (Polarity.PRESENT, Range(None, Decimal(30), high_open=True))),
        ("heightLossPercent", {"valueRange": {"low": quantity(20, "%"), "high": quantity(30, "%")}},
         (Polarity.PRESENT, Range(Decimal(20), Decimal(30)))),
        ("painNrs", {"valueInteger": 7}, (Polarity.PRESENT, Range.exactly(7))),
        ("painNrs", {"valueString": "severe"}, (Polarity.INDETERMINATE, None)),
        ("onsetDate", {"valueDateTime": "2024-05"}, (Polarity.PRESENT, TimeSpan.parse("2024-05"))),
        ("onsetDate", {"valuePeriod": {"start": "2024-05-03", "end": "2024-05-03"}},
         (Polarity.PRESENT, TimeSpan.parse("2024-05-03"))),
        ("onsetDate", {"valuePeriod": {"start": "2024-05-03"}}, (Polarity.INDETERMINATE, None)),
        ("onsetDate", {"dataAbsentReason": concept("unknown")}, (Polarity.INDETERMINATE, None)),
    ],
)  # fmt: skip
def test_an_own_code_takes_every_value(code: str, value: Json, expected: tuple[Polarity, Any], reader: Reader) -> None:
    record = reader.bundle(*at_l1(code, **value))
    feature = {"Worsening": "painTrend", "BurstFracture": "fractureMorphology"}.get(code, code)
    found = [f for f in record.facts if local(f.feature) == feature and str(f.time) == "2024-08-20"]
    assert [(f.subject, f.polarity, f.value) for f in found] == [("lesion:l1", *expected)]
    assert reader.report.mapped["Observation", f"{OWN}|{code}", feature] == 1


def test_a_period_of_a_date_feature(reader: Reader) -> None:
    period = {"start": "2024-05-03", "end": "2024-05-10"}
    value = only(reader.bundle(*at_l1("onsetDate", valuePeriod=period)), "onsetDate").value
    assert isinstance(value, TimeSpan)
    assert (value.start, value.end) == (TimeSpan.parse("2024-05-03").start, TimeSpan.parse("2024-05-10").end)
    reader.bundle(*at_l1("onsetDate", valuePeriod={"start": "2024-05-10", "end": "2024-05-03"}))
    assert [p.expected for p in reader.report.rejected] == ["a start before the end"]


def test_what_a_rule_derived_is_not_read_as_observed(reader: Reader) -> None:
    """Our own answers in FHIR name the rule as the method."""
    made, by_site = own("anyRule"), concept("1", "urn:site")
    record = reader.bundle(*at_l1("MarrowEdemaOnMri", valueBoolean=True, method=made))
    assert "MarrowEdemaOnMri" not in {local(f.feature) for f in record.facts}
    assert reader.report.unread["Observation", DERIVED] == 1
    record = reader.bundle(*at_l1("MarrowEdemaOnMri", valueBoolean=True, method=by_site))
    assert only(record, "MarrowEdemaOnMri").polarity is Polarity.PRESENT


@pytest.mark.parametrize("code", ["FractureLesion", "MarrowEdemaOnMri"])
def test_a_condition_with_an_own_code_makes_a_lesion(code: str, reader: Reader) -> None:
    record = reader.bundle(condition(code, system=OWN, bodySite=[own("T12")]))
    assert lesions(record) == ["t12"]
    assert level(record, "lesion:t12") == {"T12"}
    assert lesions(reader.bundle(condition(code, system=OWN))) == []


def test_own_codes_elsewhere(reader: Reader) -> None:
    facts = reader.facts(
        resource("Procedure", status="completed", code=own("SpineMriDone"), performedDateTime="2024-08-01"),
        resource("MedicationStatement", status="active", medicationCodeableConcept=own("WarfarinTherapy")),
        resource("DiagnosticReport", status="final", code=concept("x"), effectiveDateTime="2024-08-02",
                 conclusionCode=[own("Fever")]),
        observation("x", component=[{"code": own("inr"), "valueQuantity": quantity(2, "1")}]),
        resource("QuestionnaireResponse", status="completed", authored="2024-08-03", item=[
            {"linkId": f"{OWN}|bodyMassIndex", "answer": [{"valueQuantity": quantity(31.5, "kg/m2")}]},
            {"linkId": f"{OWN}|Pregnancy", "answer": [{"valueCoding": {"system": OWN, "code": "AbsentPolarity"}}]},
        ]),
    )  # fmt: skip
    assert facts["SpineMriDone"].polarity is facts["WarfarinTherapy"].polarity is facts["Fever"].polarity
    assert facts["Fever"].polarity is Polarity.PRESENT
    assert facts["inr"].value == Range.exactly(2)
    assert facts["bodyMassIndex"].value == Range.exactly(Decimal("31.5"))
    assert facts["Pregnancy"].polarity is Polarity.ABSENT


def test_own_codes_of_a_request(reader: Reader) -> None:
    codes = {
        "coding": [{"system": OWN, "code": c} for c in ("BalloonKyphoplasty", "Medicare", "SurgicalBackupAvailable")]
    }
    record = reader.bundle(
        condition(id="c"),
        resource("ServiceRequest", status="active", intent="proposal", code=codes, authoredOn="2024-08-25",
                 occurrenceDateTime="2024-09-05", reasonReference=[{"reference": "Condition/c"}]),
        resource("ServiceRequest", status="active", intent="order", code=own("SpineMriDone"), authoredOn="2024-08-26"),
    )  # fmt: skip
    assert record.procedure
    assert (record.procedure.lesions, str(record.procedure.service_date)) == (("l1",), "2024-09-05")
    said = {local(f.feature): f.value for f in record.facts if f.subject == PROCEDURE}
    assert said == {
        "technique": frozenset({KYPHO + "BalloonKyphoplasty"}), "payer": frozenset({KYPHO + "Medicare"}),
        "SurgicalBackupAvailable": None,
    }  # fmt: skip
    assert only(record, "SpineMriDone").mood is Mood.ORDERED


@pytest.mark.parametrize("code", ["painnrs", "PainNrs", "VertebralLesion", "Case", "nothing", "painNrs "])
def test_a_name_that_nothing_can_state_is_an_unknown_code(code: str, reader: Reader) -> None:
    record = reader.bundle(observation(code, OWN, valueInteger=7))
    found = [local(f.feature) for f in record.facts if local(f.feature) not in ("sex", "birthDate")]
    if code.strip() == "painNrs":  # spaces around a code are no part of it
        assert found == ["painNrs"]
    else:
        assert found == []
        assert reader.report.unmapped["Observation", f"{OWN}|{code}", ""] == 1


# --------------------------------------------------------------------------------------------------------------------
# To the end


def test_assess_a_record_from_fhir(reader: Reader, knowledge: Knowledge) -> None:
    record = reader.bundle(*EVERYTHING, as_of=TODAY)
    problems = [r for r in validate_record(record).results if r.severity is Severity.VIOLATION]
    assert problems == []
    answer = assess(record, knowledge=knowledge)
    assert isinstance(answer, Answer)
    assert [case.lesion.id if case.lesion else None for case in answer.cases] == ["l1"]


def read_sample(path: Path, k: Knowledge) -> tuple[list[Record], IntakeReport]:
    if not path.exists():
        pytest.skip("the sample is not here")
    report = IntakeReport(path.name)
    return list(read_fhir(path, k, report)), report


def test_synthea(knowledge: Knowledge) -> None:
    records, report = read_sample(SYNTHEA, knowledge)
    assert (len(records), report.records, report.rejected) == (18, 18, [])
    # A code of a fracture without a site is no vertebral one, and pain of no place is nobody's back.
    assert report.mapped["Condition", f"{SCT}|443165006", "DiagnosedOsteoporosis"] == 16
    assert all(not r.lesions for r in records)
    assert report.unread["Observation", "no level: not attributed"] == 251
    # A product counts as its ingredient.
    assert report.mapped["MedicationRequest", f"{RX}|855332 → 11289", "WarfarinTherapy"] > 0


def test_clinosim(knowledge: Knowledge) -> None:
    records, report = read_sample(CLINOSIM, knowledge)
    assert (len(records), report.rejected) == (25, [])
    assert report.unread["Procedure", "text only, no code"] == 13
    assert report.unread["DiagnosticReport", "conclusion in words only"] == 148
    assert report.unread["Condition", "no level: not attributed"] == 50
    assert all(not r.lesions for r in records)
    assert not [key for key in report.mapped if key[1] in (f"{RX}|3002", f"{RX}|1799")]


# --------------------------------------------------------------------------------------------------------------------
# Words

FHIR_WORDS = frozenset("allergy intolerance medication modified observation performed plan questionnaire".split())
FHIR_NAMES = frozenset({"ImagingStudy", "procedureCode"})


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("sources.fhir")])
def test_words_of_fhir_only(module: str) -> None:
    """Names of resources and fields are the only ones that are also clinical words."""
    text = MODULES[module].read_text("utf-8").replace("vertebralLevel", "").replace("birthDate", "")
    assert set(words(text)) & clinical_words() <= FHIR_WORDS
    assert set(re.findall(r"[A-Za-z][\w-]*\w", text)) & clinical_names() <= FHIR_NAMES
