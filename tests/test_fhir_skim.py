"""The quick look over FHIR changes nothing: records and report are those of reading every resource in full."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import every

from kypho_kg.intake_report import IntakeReport, report_json
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import Mappings, load_mappings
from kypho_kg.record import Record
from kypho_kg.sources import fhir_skim
from kypho_kg.sources.fhir import read_fhir
from kypho_kg.vocabulary import local

Json = dict[str, Any]
SCT, LOINC, RX = "http://snomed.info/sct", "http://loinc.org", "http://www.nlm.nih.gov/research/umls/rxnorm"
ICD, ACT = "http://hl7.org/fhir/sid/icd-10-cm", "http://terminology.hl7.org/CodeSystem/v3-ActCode"
CODES = [
    *((ICD, code) for code in ("S32.010A", "M80.08XA", "J06.9", "S22.080A")),
    *((SCT, code) for code in ("716186003", "207957008", "64859006", "1234567", " 64859006 ")),
    *((LOINC, code) for code in ("2160-0", "1920-8", "34714-6", "777-3", "72514-3")),
    *((RX, code) for code in ("11289", "855332", "1")),
    ("", "64859006"),
    (SCT, ""),
]


@pytest.fixture(scope="module")
def mappings(knowledge: Knowledge) -> Mappings:
    return load_mappings(knowledge)


class Maker:
    """Random resources of one patient, valid, with codes that mean something and codes that do not."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.stays = 0

    def some(self, *found: Any) -> Any:
        return self.r.choice(found)

    def concept(self) -> Json:
        codings = [
            dict(zip(("system", "code"), self.r.choice(CODES), strict=True)) | self.some({}, {"display": "so named"})
            for _ in range(self.some(0, 1, 1, 1, 2))
        ]
        return self.some({"coding": codings}, {"coding": codings, "text": "in words"}, {"text": "in words"})

    def value(self) -> Json:
        quantity = {
            "value": self.some(1, 2.5, 80),
            "unit": "mg/dL",
            "code": "mg/dL",
            "system": "http://unitsofmeasure.org",
        }
        return self.some(
            {}, {"valueQuantity": quantity}, {"valueCodeableConcept": self.concept()}, {"valueString": "x"}
        )

    def date(self, key: str) -> Json:
        stay = {"encounter": {"reference": f"Encounter/e{self.r.randrange(3)}"}}
        return self.some({key: f"2024-0{self.some(1, 5)}-1{self.some(1, 2)}"}, {key: "2023"}, stay, {})

    def resource(self, number: int) -> Json:
        kind = self.some(*_KINDS)
        subject = "patient" if kind == "AllergyIntolerance" else "subject"
        return {
            "resourceType": kind,
            "id": f"r{number}",
            subject: {"reference": self.some("Patient/p", "https://server.example/fhir/Patient/p")},
            **_KINDS[kind](self),
        }

    def status(self, *usual: str) -> Json:
        return {"status": self.some(*usual, *usual, *usual, "entered-in-error", "unknown")}

    def report(self) -> Json:
        return {
            "code": self.concept(),
            **self.status("final", "registered", "cancelled"),
            **self.date("effectiveDateTime"),
            **self.some({}, {"conclusion": "in words"}, {"conclusion": " "}),
            **self.some({}, {"conclusionCode": [self.concept()]}),
            **self.some({}, {"presentedForm": [{"title": "a report"}]}, {"presentedForm": []}),
        }

    def stay(self) -> Json:
        self.stays += 1
        told = {"class": {"system": ACT, "code": self.some("AMB", "IMP")}}
        return {
            "id": f"e{self.stays - 1}",
            **self.some(told, told, {"class": [self.concept()]}, {}),
            **self.status("finished", "planned"),
            "period": {"start": "2024-03-04"},
        }

    def request(self) -> Json:
        return {
            "code": self.some(self.concept(), {"concept": self.concept()}),
            "intent": self.some("order", "plan"),
            **self.status("active", "completed", "revoked"),
            **self.date("authoredOn"),
            **self.some({}, {}, {"doNotPerform": True}),
        }

    def product(self) -> Json:
        return {
            **self.some({"medicationCodeableConcept": self.concept()}, {"medicationReference": {"reference": "#m"}}),
            "contained": [{"resourceType": "Medication", "id": "m", "code": self.concept()}],
            **self.date("effectiveDateTime"),
        }

    def observed(self) -> Json:
        part = {"code": self.concept(), **self.value()}
        return {
            "code": self.concept(),
            **self.status("final", "registered", "cancelled"),
            **self.value(),
            **self.some({}, {}, {"component": [part]}, {"component": []}),
            **self.date("effectiveDateTime"),
        }


_KINDS: dict[str, Callable[[Maker], Json]] = {
    "Observation": Maker.observed,
    "Condition": lambda m: {"code": m.concept(), **m.date("onsetDateTime"), **m.some({}, {"bodySite": [m.concept()]})},
    "AllergyIntolerance": lambda m: {"code": m.concept(), **m.date("recordedDate")},
    "Procedure": lambda m: {"code": m.concept(), **m.status("completed", "not-done"), **m.date("performedDateTime")},
    "ServiceRequest": Maker.request,
    "DiagnosticReport": Maker.report,
    "MedicationStatement": lambda m: m.product() | m.status("active", "completed"),
    "MedicationRequest": lambda m: m.product() | m.status("active", "completed") | {"intent": m.some("order", "plan")},
    "MedicationAdministration": lambda m: m.product() | m.status("completed"),
    "Encounter": Maker.stay,
    "Immunization": lambda m: m.status("completed"),
}


def written(seed: int, folder: Path, *, bulk: bool) -> Path:
    make = Maker(seed)
    found = [make.resource(n) for n in range(40)]
    found.insert(seed % 40, {"resourceType": "Patient", "id": "p", "birthDate": "1950-03", "gender": "female"})
    if bulk:
        path = folder / "bulk"
        path.mkdir()
        lines = [json.dumps(resource, indent=None) for resource in found]
        for number in range(3):
            (path / f"{number}.ndjson").write_text("\n".join(lines[number::3]) + "\n")
        return path
    path = folder / "one.json"
    # With indentation, so that a code may stand over several lines.
    path.write_text(json.dumps({"resourceType": "Bundle", "entry": [{"resource": r} for r in found]}, indent=2))
    return path


def read(path: Path, k: Knowledge, mappings: Mappings) -> tuple[list[Record], list[Json]]:
    report = IntakeReport("test")
    return list(read_fhir(path, k, report, mappings=mappings)), report_json([report])


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("seed", every(10, range(400)))
def test_the_quick_look_changes_nothing(
    seed: int, bulk: bool, knowledge: Knowledge, mappings: Mappings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(seed, tmp_path, bulk=bulk)
    quick = read(path, knowledge, mappings)
    monkeypatch.setattr(fhir_skim.Skim, "silent", lambda self, seen, raw: None)
    assert quick == read(path, knowledge, mappings)
    assert quick[0][0].facts
    assert quick[1][0]["not_understood"]


def test_counts_are_written_before_too_many_codes_are_remembered(
    knowledge: Knowledge, mappings: Mappings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(1, tmp_path, bulk=True)
    expected = read(path, knowledge, mappings)
    monkeypatch.setattr(fhir_skim, "_AT_ONCE", 2)
    assert read(path, knowledge, mappings) == expected


@pytest.mark.parametrize("telling", [False, True], ids=["silent", "telling"])
def test_a_date_is_taken_from_the_newest_version_of_a_stay_of_the_same_patient(
    telling: bool, knowledge: Knowledge, mappings: Mappings, tmp_path: Path
) -> None:
    def stay(owner: str, day: str, updated: str) -> Json:
        return {
            "resourceType": "Encounter",
            "id": "e",
            "status": "finished" if not telling else "unknown",
            "class": {"system": ACT, "code": "AMB"},
            "subject": {"reference": f"Patient/{owner}"},
            "period": {"start": day},
            "meta": {"lastUpdated": f"{updated}T00:00:00Z"},
        }

    undated = {
        "resourceType": "Condition",
        "id": "c",
        "code": {"coding": [{"system": ICD, "code": "S32.010A"}]},
        "subject": {"reference": "Patient/p"},
        "encounter": {"reference": "Encounter/e"},
    }
    rows = [
        stay("p", "2024-02-02", "2024-06-01"),
        stay("p", "2024-01-01", "2024-05-01"),
        stay("q", "2023-01-01", "2025-01-01"),
    ]
    people = [{"resourceType": "Patient", "id": id_} for id_ in "pq"]
    path = tmp_path / "loose.ndjson"
    path.write_text("\n".join(json.dumps(row) for row in (*people, *rows, undated)))
    records, _ = read(path, knowledge, mappings)
    [record] = [r for r in records if r.patient == "p"]
    assert {str(f.time) for f in record.facts if local(f.feature) == "vertebralLevel"} == {"2024-02-02"}
