"""A patient in neutral terms, and writers of it for every source: patient file, FHIR, OMOP, table and RDF.

What can be drawn is what all of them can say: codes that state findings of the patient or a whole lesion, quantities of
the patient with a unit, and coded answers *no*; and by our own codes findings, categories, choices and quantities that
no terminology has a code for, also of the only lesion. Dates are drawn only where OMOP is left out, which has no form
for them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from kypho_kg.criteria import Op
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.mappings import CodedFact, Mappings
from kypho_kg.vocabulary import LESION, PATIENT, local

AS_OF = date(2026, 3, 2)
ID = "17"


@dataclass(frozen=True)
class Code:
    """A code of a terminology with what it states."""

    system: str
    vocabulary: str
    code: str
    stated: tuple[CodedFact, ...] = field(compare=False)


@dataclass(frozen=True)
class Item:
    """One thing that was recorded on a day."""

    code: Code
    day: date
    kind: str
    """``condition``, ``drug``, ``yes``, ``no``, ``value``, ``choice`` or ``date``."""
    number: Decimal | None = None
    value: str = ""
    """Of a choice the local name of its value, of a date the date."""
    lesion: str = ""
    """The lesion that it is about, by its level, where the code does not say so."""


@dataclass
class Drawn:
    sex: str
    born: date
    items: list[Item] = field(default_factory=list)


class Codes:
    """The codes that every source can hold, by what they are good for."""

    def __init__(self, k: Knowledge, mappings: Mappings) -> None:
        self.k = k
        self.lesions: list[Code] = []
        self.findings: list[Code] = []
        self.drugs: list[Code] = []
        self.values: list[Code] = []
        for row in mappings.rows:
            system = mappings.systems[row.prefix]
            if not row.assigns or not system.fhir_system or not system.omop_vocabulary:
                continue
            stated = mappings.facts(row.code, k, row.prefix)
            code = Code(system.fhir_system, system.omop_vocabulary, row.code, stated)
            if not stated or any(f.absent or f.feature.bearer not in (PATIENT, LESION) for f in stated):
                continue
            of_lesion = [f for f in stated if f.feature.bearer == LESION]
            if of_lesion:
                named = [f for f in stated if f.feature.name == "vertebralLevel"]
                whole = all(f.value or f.feature.kind is Op.FINDING for f in stated)
                if len(named) == 1 and len(of_lesion) > 1 and whole and row.prefix == "ICD10CM":
                    self.lesions.append(code)
            elif row.prefix == "LOINC":
                if len(stated) == 1 and stated[0].feature.kind is Op.QUANTITY:
                    self.values.append(code)
            elif all(f.feature.kind is Op.FINDING for f in stated) and len(stated) == 1:
                (self.drugs if row.prefix in ("RXNORM", "ATC") else self.findings).append(code)
        of_level = {f.feature.iri for c in self.lesions for f in c.stated if f.feature.name == "vertebralLevel"}
        known = {f.iri for f in k.features.values() if any(r.assigns for r in mappings.of_term(f.iri))}
        self.own = [
            Code(OWN, "KYPHO", f.name, mappings.facts(f.name, k, OWN))
            for f in k.features.values()
            if f.bearer in (PATIENT, LESION) and f.iri not in known | of_level and f.name not in ("birthDate", "sex")
        ]
        for codes in (self.lesions, self.findings, self.drugs, self.values, self.own):
            codes.sort(key=lambda c: (c.vocabulary, c.code))
            assert codes


def draw(
    pick: Callable[[Any], Any], codes: Codes, numbers: Callable[[Feature], list[Decimal]], *, dates: bool = False
) -> Drawn:
    """A patient with a lesion, some findings, drugs, denied findings and quantities.

    :param dates: also of features that are dates.
    """
    found = Drawn(pick(["male", "female"]), date(1930, 1, 1) + timedelta(days=pick(range(0, 20000, 7))))

    def day() -> date:
        return AS_OF - timedelta(days=pick(range(0, 400, 3)))

    # Findings that cannot change are stated once; two statements of one are one fact anywhere.
    for code in dict.fromkeys(pick(codes.lesions) for _ in range(pick([1, 1, 2]))):
        found.items.append(Item(code, day(), "condition"))
    for code in dict.fromkeys(pick(codes.findings) for _ in range(pick(range(6)))):
        found.items.append(Item(code, day(), pick(["condition", "condition", "no"])))
    for code in dict.fromkeys(pick(codes.drugs) for _ in range(pick(range(3)))):
        found.items.append(Item(code, day(), "drug"))
    for code in dict.fromkeys(pick(codes.values) for _ in range(pick(range(6)))):
        found.items.append(Item(code, day(), "value", pick(numbers(code.stated[0].feature))))
    own = [c for c in codes.own if c.stated[0].feature.kind is not None]
    dated = [c for c in codes.own if dates and c not in own]
    whole = [i for i in found.items if i.code in codes.lesions]
    for code in dict.fromkeys((*(pick(own) for _ in range(pick(range(4, 16)))), *dated)):
        f = code.stated[0].feature
        if f.bearer == PATIENT:
            found.items.append(_stated(pick, numbers, code, day(), ""))
        elif len(whole) == 1 and f.kind is not Op.QUANTITY:
            # Without a level, a statement belongs to the only lesion, unless it is a quantity or of another year.
            near = whole[0].day - timedelta(days=pick(range(0, 300, 7)))
            found.items.append(_stated(pick, numbers, code, near, level_of(whole[0])))
    found.items.sort(key=lambda i: (i.code.vocabulary, i.code.code, i.kind))
    return found


def _stated(
    pick: Callable[[Any], Any], numbers: Callable[[Feature], list[Decimal]], code: Code, day: date, lesion: str
) -> Item:
    """What one of our own codes says, by the kind of its feature."""
    f = code.stated[0].feature
    if f.kind is Op.FINDING:
        return Item(code, day, pick(["yes", "no"]), lesion=lesion)
    if f.kind is Op.QUANTITY:
        return Item(code, day, "value", pick(numbers(f)), lesion=lesion)
    if f.kind is None:
        return Item(code, day, "date", value=(day - timedelta(days=pick(range(90)))).isoformat(), lesion=lesion)
    return Item(code, day, "choice", value=local(pick(sorted(f.values))), lesion=lesion)


def level_of(item: Item) -> str:
    """The level that a code names, or nothing."""
    return next((local(f.value) for f in item.code.stated if f.feature.name == "vertebralLevel" and f.value), "")


def rows(drawn: Drawn) -> list[dict[str, Any]]:
    """The facts as rows of feature, lesion, value, polarity and day, for sources that name our terms."""
    found: list[dict[str, Any]] = []
    for item in drawn.items:
        level = item.lesion or level_of(item)
        for f in item.code.stated:
            of_lesion = f.feature.bearer == LESION
            value = str(item.number) if item.kind == "value" else item.value or (local(f.value) if f.value else "")
            found.append(
                {
                    "feature": f.feature,
                    "lesion": level.lower() if of_lesion else "",
                    "value": value,
                    "polarity": "absent" if item.kind == "no" else "present",
                    "day": item.day.isoformat(),
                }
            )
    unique = {tuple(map(str, row.values())): row for row in found}
    return list(unique.values())


# --------------------------------------------------------------------------------------------------------------------
# Writers


def patient_file(drawn: Drawn, folder: Path) -> Path:
    def facts(lesion: str) -> dict[str, list[Any]]:
        said: dict[str, list[Any]] = {}
        for row in rows(drawn):
            if row["lesion"] == lesion:
                f = row["feature"]
                if f.kind is Op.FINDING:
                    value: Any = row["polarity"]
                else:
                    value = float(row["value"]) if f.kind is Op.QUANTITY else row["value"]
                said.setdefault(f.name, []).append({"value": value, "time": row["day"]})
        return said

    lesions = sorted({row["lesion"] for row in rows(drawn)} - {""})
    content = {
        "format": "kypho-patient/1",
        "patient": {"id": ID, "birth_date": drawn.born.isoformat(), "sex": drawn.sex.capitalize()},
        "as_of": AS_OF.isoformat(),
        "facts": facts(""),
        "lesions": [{"id": lesion, "facts": facts(lesion)} for lesion in lesions],
    }
    path = folder / "patient.json"
    path.write_text(json.dumps(content))
    return path


def fhir(drawn: Drawn, folder: Path) -> Path:
    subject = {"reference": f"Patient/{ID}"}
    resources: list[dict[str, Any]] = [
        {"resourceType": "Patient", "id": ID, "gender": drawn.sex, "birthDate": drawn.born.isoformat()}
    ]
    for number, item in enumerate(drawn.items):
        code = {"coding": [{"system": item.code.system, "code": item.code.code}]}
        base = {"id": f"r{number}", "subject": subject}
        if item.kind == "condition":
            active = {"coding": [{"code": "active"}]}
            resources.append(
                {**base, "resourceType": "Condition", "code": code, "clinicalStatus": active,
                 "onsetDateTime": item.day.isoformat()}
            )  # fmt: skip
        elif item.kind == "drug":
            resources.append(
                {**base, "resourceType": "MedicationStatement", "status": "active",
                 "medicationCodeableConcept": code, "effectiveDateTime": item.day.isoformat()}
            )  # fmt: skip
        else:
            unit = item.code.stated[0].feature.unit
            own = item.code.system == OWN
            answer = {"system": OWN, "code": "AbsentPolarity"} if own else {"system": SCT, "code": NO}
            forms: dict[str, dict[str, Any]] = {
                "no": {"valueCodeableConcept": {"coding": [answer]}},
                "yes": {"valueBoolean": True},
                "value": {"valueQuantity": {"value": float(item.number or 0), "code": unit, "system": UCUM}},
                "choice": {"valueCodeableConcept": {"coding": [{"system": OWN, "code": item.value}]}},
                "date": {"valueDateTime": item.value},
            }
            told = forms[item.kind]
            if item.lesion:
                told["bodySite"] = {"coding": [{"system": OWN, "code": item.lesion}]}
            resources.append(
                {**base, "resourceType": "Observation", "status": "final", "code": code,
                 "effectiveDateTime": item.day.isoformat(), **told}
            )  # fmt: skip
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}
    path = folder / "bundle.json"
    path.write_text(json.dumps(bundle))
    return path


SCT, NO, UCUM = "http://snomed.info/sct", "373067005", "http://unitsofmeasure.org"
OWN = "https://w3id.org/kypho"


def omop(drawn: Drawn, folder: Path) -> Path:
    concepts: dict[tuple[str, str], int] = {}

    def concept(vocabulary: str, code: str) -> int:
        first = 2_000_000_001 if vocabulary == "KYPHO" else 1000  # ids of a site's own concepts
        return concepts.setdefault((vocabulary, code), first + len(concepts))

    gender = {"male": 8507, "female": 8532}[drawn.sex]
    born = drawn.born
    tables: dict[str, list[dict[str, Any]]] = {
        "person": [
            {"person_id": ID, "gender_concept_id": gender, "year_of_birth": born.year, "month_of_birth": born.month,
             "day_of_birth": born.day}
        ],
        "condition_occurrence": [], "drug_exposure": [], "observation": [], "measurement": [],
    }  # fmt: skip
    for number, item in enumerate(drawn.items):
        id_ = concept(item.code.vocabulary, item.code.code)
        day = item.day.isoformat()
        if item.kind == "condition":
            tables["condition_occurrence"].append(
                {"condition_occurrence_id": number, "person_id": ID, "condition_concept_id": id_,
                 "condition_start_date": day}
            )  # fmt: skip
        elif item.kind == "drug":
            tables["drug_exposure"].append(
                {"drug_exposure_id": number, "person_id": ID, "drug_concept_id": id_, "drug_exposure_start_date": day}
            )
        elif item.kind in ("no", "yes", "choice"):
            no = ("KYPHO", "AbsentPolarity") if item.code.system == OWN else ("SNOMED", NO)
            said = {"no": no, "choice": ("KYPHO", item.value)}.get(item.kind)
            tables["observation"].append(
                {"observation_id": number, "person_id": ID, "observation_concept_id": id_, "observation_date": day,
                 "value_as_concept_id": concept(*said) if said else 0}
            )  # fmt: skip
        else:
            assert item.kind == "value", "OMOP has no form for it"
            unit = concept("UCUM", item.code.stated[0].feature.unit)
            tables["measurement"].append(
                {"measurement_id": number, "person_id": ID, "measurement_concept_id": id_, "measurement_date": day,
                 "value_as_number": item.number, "unit_concept_id": unit}
            )  # fmt: skip
    tables["concept"] = [
        {"concept_id": i, "vocabulary_id": v, "concept_code": c, "concept_name": "", "standard_concept": "S"}
        for (v, c), i in concepts.items()
    ]
    target = folder / "cdm"
    target.mkdir()
    for name, content in tables.items():
        if content:
            with (target / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(content[0]))
                writer.writeheader()
                writer.writerows(content)
    return target


MAPPING = """
format: kypho-table/1
shape: long
patient: patient
lesion: lesion
as_of: as_of
feature: feature
value: value
polarity: polarity
time: day
"""


def table(drawn: Drawn, folder: Path) -> tuple[Path, Path]:
    path, mapping = folder / "facts.csv", folder / "mapping.yaml"
    mapping.write_text(MAPPING)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("patient", "lesion", "as_of", "feature", "value", "polarity", "day"))
        writer.writerow((ID, "", AS_OF, "birthDate", drawn.born, "present", ""))
        writer.writerow((ID, "", AS_OF, "sex", drawn.sex.capitalize(), "present", ""))
        for row in rows(drawn):
            writer.writerow((ID, row["lesion"], AS_OF, row["feature"].name, row["value"], row["polarity"], row["day"]))
    return path, mapping


def turtle(drawn: Drawn, folder: Path) -> Path:
    patient = f"<urn:kypho:patient:{ID}>"
    lesions = sorted({row["lesion"] for row in rows(drawn)} - {""})
    lines = [
        "@prefix kypho: <https://w3id.org/kypho#> .",
        "@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .",
        f'{patient} a kypho:Patient ; kypho:patientId "{ID}" .',
        f'<urn:r> a kypho:PatientRecord ; kypho:recordOf {patient} ; kypho:asOf "{AS_OF}"^^xsd:date .',
    ]
    for lesion in lesions:
        lines.append(f"{patient} kypho:hasLesion <urn:l:{lesion}> .")
        lines.append(f'<urn:l:{lesion}> a kypho:VertebralLesion ; kypho:lesionId "{lesion}" .')
    said = [("birthDate", f'kypho:birthDate "{drawn.born}"^^xsd:date', "", "present", ""),
            ("sex", f"kypho:sex kypho:{drawn.sex.capitalize()}", "", "present", "")]  # fmt: skip
    for row in rows(drawn):
        f, value = row["feature"], ""
        if f.kind is Op.QUANTITY:
            value = f'kypho:{f.name} "{row["value"]}"^^xsd:decimal'
        elif f.kind is None:
            value = f'kypho:{f.name} "{row["value"]}"^^xsd:date'
        elif f.kind is Op.CHOICE:
            value = f"kypho:{f.name} kypho:{row['value']}"
        elif f.kind is Op.CATEGORY:
            value = f"kypho:recordedClass kypho:{row['value']}"
        said.append((f.name, value, row["lesion"], row["polarity"], row["day"]))
    for number, (name, value, lesion, polarity, day) in enumerate(said):
        about = f"<urn:l:{lesion}>" if lesion else patient
        parts = [
            "a kypho:Fact",
            f"kypho:aboutSubject {about}",
            f"kypho:feature kypho:{name}",
            "kypho:mood kypho:Observed",
            f"kypho:polarity kypho:{polarity.capitalize()}Polarity",
            "kypho:verificationStatus kypho:Confirmed",
        ]
        parts += [value] if value else []
        if day:
            parts += [f'kypho:recorded{end} "{day}"^^xsd:date' for end in ("From", "Until")]
        lines.append(f"<urn:f:{number}> " + " ; ".join(parts) + " .")
    path = folder / "record.ttl"
    path.write_text("\n".join(lines))
    return path
