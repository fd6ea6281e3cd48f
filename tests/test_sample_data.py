"""The traps of the sample data: what looks like a fact of the lesion and is none, and what hides one.

Each trap is written out in little FHIR; the samples themselves are read where they are at hand.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from builders import iri
from test_fhir import (
    CLINOSIM,
    ICD,
    LOINC,
    RX,
    SCT,
    SYNTHEA,
    TODAY,
    Json,
    Reader,
    concept,
    condition,
    drug,
    lesions,
    observation,
    quantity,
    read_sample,
    resource,
    snap,
)
from typer.testing import CliRunner

from kypho_kg.candidacy import assess
from kypho_kg.cli import app
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import load_mappings
from kypho_kg.record import PATIENT, Cause, Polarity, Record
from kypho_kg.vocabulary import local

MRI = """#curie_map:
#  kypho: https://w3id.org/kypho#
#  MRI: https://hospital.example/mri/
#mapping_set_id: https://hospital.example/mappings
#license: https://creativecommons.org/publicdomain/zero/1.0/
subject_id\tpredicate_id\tobject_id\tmapping_justification
kypho:MarrowEdemaOnMri\tskos:exactMatch\tMRI:oedema\tsemapv:ManualMappingCuration
"""
OEDEMA = iri("MarrowEdemaOnMri")
L1 = {"text": "L1"}


@pytest.fixture
def reader(tmp_path: Path, knowledge: Knowledge) -> Reader:
    """With the bundled mappings, and one code of a hospital for what no public code says."""
    own = tmp_path / "mri.sssom.tsv"
    own.write_text(MRI, "utf-8")
    return Reader(tmp_path, knowledge, load_mappings(knowledge, [own]))


def features(record: Record, subject: str = PATIENT) -> set[str]:
    return {local(f.feature) for f in record.facts if f.subject == subject}


# --------------------------------------------------------------------------------------------------------------------
# A fracture without a site


def test_a_fracture_without_a_site_is_no_vertebral_one(reader: Reader, knowledge: Knowledge) -> None:
    record = reader.bundle(condition("443165006", system=SCT))
    assert lesions(record) == []
    assert features(record) == {"birthDate", "sex", "DiagnosedOsteoporosis"}
    assert assess(record, as_of=TODAY, knowledge=knowledge).cases == ()
    elsewhere = reader.bundle(condition("443165006", system=SCT, bodySite=[{"text": "hip"}]))
    assert lesions(elsewhere) == []


def test_a_site_makes_no_vertebral_fracture_of_a_code_of_any(reader: Reader) -> None:
    """The code states a disease of the patient and nothing of a lesion; the site ties nothing."""
    assert lesions(reader.bundle(condition("443165006", system=SCT, bodySite=[L1]))) == []


def test_two_codes_of_one_fracture_without_a_level_stay_with_the_patient(reader: Reader) -> None:
    record = reader.bundle(condition("M80.08", "2024-06-01"), condition("M48.50XA", "2024-06-01"))
    assert lesions(record) == []
    assert {"PathologicalFracture", "FractureUnderActiveTreatment", "lesionKind"} <= features(record)
    assert reader.report.unread["Condition", "no level: not attributed"] == 2
    both = {"coding": [{"system": ICD, "code": "M80.08"}, {"system": ICD, "code": "M48.50XA"}]}
    assert lesions(reader.bundle(condition(bodySite=[L1]) | {"code": both})) == ["l1"]


# --------------------------------------------------------------------------------------------------------------------
# A procedure in words, and a result in words


def test_a_procedure_in_words_is_reported_and_makes_nothing(reader: Reader, tmp_path: Path) -> None:
    words = "Balloon kyphoplasty L1"
    said = resource("Procedure", status="completed", code={"text": words}, performedDateTime="2024-06-20")
    record = reader.bundle(said)
    assert (lesions(record), features(record)) == ([], {"birthDate", "sex"})
    assert reader.report.unread["Procedure", "text only, no code"] == 1
    done = CliRunner().invoke(app, ["intake", str(tmp_path / "one.json"), "--format", "json"])
    [source] = json.loads(done.stdout)["sources"]
    assert {"kind": "Procedure", "why": "text only, no code", "count": 1} in source["not_read"]
    assert words not in done.stdout  # words of a record may name the patient


def test_a_conclusion_in_words_decides_nothing(reader: Reader, knowledge: Knowledge) -> None:
    said = resource(
        "DiagnosticReport",
        status="final",
        code=concept("24968-0", LOINC),
        effectiveDateTime="2024-06-17",
        conclusion="Bone marrow edema at L1 consistent with acute compression fracture.",
    )
    record = reader.bundle(condition(id="c"), said)
    assert reader.report.unread["DiagnosticReport", "conclusion in words only"] == 1
    assert snap(record, knowledge).finding_gap("lesion:l1", OEDEMA).cause is Cause.NOT_RECORDED


# --------------------------------------------------------------------------------------------------------------------
# MRI with and without oedema


def mri(seen: bool, day: str) -> Json:
    return observation("oedema", "https://hospital.example/mri", day, valueBoolean=seen, bodySite=L1)


@pytest.mark.parametrize("days", [0, 2, 30])
def test_contradictory_mri_within_the_window_is_a_conflict(reader: Reader, knowledge: Knowledge, days: int) -> None:
    first = datetime.date(2024, 6, 15)
    for seen in (True, False):
        later = mri(not seen, (first + datetime.timedelta(days)).isoformat())
        record = reader.bundle(condition(id="c"), mri(seen, first.isoformat()), later)
        gap = snap(record, knowledge).finding_gap("lesion:l1", OEDEMA)
        assert gap.cause is Cause.CONFLICTING


@pytest.mark.parametrize("seen", [True, False])
def test_beyond_the_window_the_later_mri_counts(reader: Reader, knowledge: Knowledge, seen: bool) -> None:
    """Thirty days are the window of the feature in the ontology."""
    assert knowledge.features[OEDEMA].conflict_window == 30
    record = reader.bundle(condition(id="c"), mri(not seen, "2024-06-15"), mri(seen, "2024-07-16"))
    snapshot = snap(record, knowledge)
    kept = snapshot.present if seen else snapshot.absent
    other = snapshot.absent if seen else snapshot.present
    assert [f.polarity for f in kept["lesion:l1"] if f.feature == OEDEMA] == [
        Polarity.PRESENT if seen else Polarity.ABSENT
    ]
    assert OEDEMA not in {f.feature for f in other.get("lesion:l1", ())}


# --------------------------------------------------------------------------------------------------------------------
# Products, scores and studies of another place


def test_a_tablet_is_found_as_an_anticoagulant(reader: Reader, knowledge: Knowledge) -> None:
    tablet = concept("855332", RX, display="Warfarin Sodium 5 MG Oral Tablet")
    record = reader.bundle(drug(medicationCodeableConcept=tablet))
    [taken] = [f for f in record.facts if local(f.feature) == "WarfarinTherapy"]
    assert (taken.subject, taken.polarity) == (PATIENT, Polarity.PRESENT)
    assert knowledge.subsumes(iri("AnticoagulantTherapy"), taken.feature)
    assert snap(record, knowledge).present[PATIENT] == (taken,)


def test_a_vital_sign_of_pain_is_not_tied_to_the_back(reader: Reader, knowledge: Knowledge) -> None:
    category = [concept("vital-signs", "http://terminology.hl7.org/CodeSystem/observation-category")]
    pain = observation("72514-3", valueQuantity=quantity(8, "{score}"), category=category)
    record = reader.bundle(condition(id="c"), pain)
    assert "painNrs" not in features(record, "lesion:l1")
    found = snap(record, knowledge).value("lesion:l1", iri("painNrs"))
    assert (found.value, found.gap.cause) == (None, Cause.NOT_ATTRIBUTED)


@pytest.mark.parametrize(("code", "spine"), [("38265-5", False), ("38267-1", True)])
def test_a_t_score_of_the_forearm_is_none_of_the_spine(reader: Reader, code: str, spine: bool) -> None:
    record = reader.bundle(observation(code, valueQuantity=quantity(-2.9, "{T-score}")))
    assert ("boneDensityTScore" in features(record)) is spine
    if not spine:
        [(_, told, text)] = reader.report.unmapped
        assert told == f"{LOINC}|38265-5"
        assert "radius and ulna" in text


@pytest.mark.parametrize(("unit", "known"), [("mL/min/{1.73_m2}", True), ("mL/min", False)])
def test_a_filtration_rate_needs_its_body_surface(reader: Reader, unit: str, known: bool) -> None:
    fact = reader.facts(observation("33914-3", valueQuantity=quantity(70, unit)))["glomerularFiltrationRate"]
    assert (fact.polarity is Polarity.PRESENT) is known
    assert known or (fact.cause, fact.value) == (Cause.INDETERMINATE, None)


def test_creatinine_in_whole_blood_is_not_that_in_serum(reader: Reader) -> None:
    assert "creatinine" not in reader.facts(observation("38483-4", valueQuantity=quantity(1, "mg/dL")))
    assert "creatinine" in reader.facts(observation("2160-0", valueQuantity=quantity(1, "mg/dL")))


@pytest.mark.parametrize("code", ["3002", "2670", "1799", "221147", "321064", "1364347"])
def test_wrong_codes_of_a_sample_are_not_what_it_calls_them(reader: Reader, code: str) -> None:
    record = reader.bundle(drug(medicationCodeableConcept=concept(code, RX, display="what it is not")))
    assert features(record) - {"birthDate", "sex"} == ({"CodeineTherapy"} if code == "2670" else set())


# --------------------------------------------------------------------------------------------------------------------
# The samples themselves


def test_synthea_sample(knowledge: Knowledge) -> None:
    records, report = read_sample(SYNTHEA, knowledge)
    assert not any(r.lesions for r in records)
    taken = {r.patient for r in records for f in r.facts if local(f.feature) == "WarfarinTherapy"}
    assert len(taken) == 6
    rolled = {key: n for key, n in report.mapped.items() if " → " in key[1]}
    assert sum(rolled.values()) > 70
    assert report.mapped["MedicationRequest", f"{RX}|1049221 → 7804", "OxycodoneTherapy"] == 6
    assert "boneDensityTScore" not in report.features()
    assert report.unread["Observation", "unit of glomerularFiltrationRate not understood"] == 97
    assert not [key for key in report.unmapped if key[0] == "MedicationRequest" and "arfarin" in key[2]]


def test_clinosim_sample(knowledge: Knowledge) -> None:
    records, report = read_sample(CLINOSIM, knowledge)
    assert not any(r.lesions for r in records)
    assert report.unread["Procedure", "text only, no code"] == 13
    assert not [f for r in records for f in r.facts if local(f.feature) == "hospitalStatus"]
    assert {code.rpartition("|")[2] for kind, code, _ in report.unmapped if kind == "Encounter"} >= {"IMP"}
    [told] = [text for _, code, text in report.unmapped if code == f"{RX}|3002"]
    assert "cyclophosphamide" in told
    for record in records:
        assert snap(record, knowledge).finding_gap(PATIENT, OEDEMA).cause is Cause.NOT_RECORDED
