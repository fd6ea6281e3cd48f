"""Generated patients as FHIR Bundles: a small writer of what codes that match exactly can carry."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from kypho_kg.criteria import Op
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import EXACT, Mappings
from kypho_kg.record import LESION, Fact, Mood, Polarity, Range, Record, Status, TimeSpan
from kypho_kg.sources.codes import Stated
from kypho_kg.sources.fhir_codes import Codes
from kypho_kg.vocabulary import local

_RESULT = {
    Status.CONFIRMED: "final", Status.PROVISIONAL: "preliminary", Status.UNCONFIRMED: "unknown",
    Status.ENTERED_IN_ERROR: "entered-in-error",
}  # fmt: skip
_SCALES = ("LOINC", "SCTID")
"""Terminologies that are taken first, where several have a code."""


class FhirWriter:
    """Records as Bundles, with the codes that match a term exactly and say nothing else."""

    def __init__(self, k: Knowledge, mappings: Mappings) -> None:
        self.k = k
        self.codes = Codes(k, mappings, IntakeReport("codes"))
        self.carried: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        """Facts that the Bundles do not hold, by the local name of their feature."""
        self._of: dict[tuple[str, str | None], tuple[Stated, dict[str, str], bool]] = {}
        rows = [r for r in mappings.rows if r.predicate == EXACT and not r.negated and r.prefix in mappings.systems]
        for row in sorted(rows, key=lambda r: (*(r.prefix != p for p in _SCALES), r.prefix, r.code)):
            system = mappings.systems[row.prefix].fhir_system
            coding = {"system": system, "code": row.code}
            stated = self.codes.stated(coding, substance=True) if system else []
            if len(stated) == 1:
                taken = not self.codes.stated(coding)
                self._of.setdefault((stated[0].feature.iri, stated[0].value), (stated[0], coding, taken))

    def bundle(self, record: Record) -> dict[str, Any]:
        """One record as a Bundle; what it cannot carry is counted."""
        person: dict[str, Any] = {"resourceType": "Patient", "id": record.patient}
        sites, done = self._sites(record)
        resources = [person]
        for number, fact in enumerate(record.facts):
            name = local(fact.feature)
            if number in done or self._of_person(person, fact):
                self.carried[name] += 1
                continue
            resource = self._observed(fact, sites, record)
            if resource is None:
                self.left_out[name] += 1
                continue
            self.carried[name] += 1
            resources.append({**resource, "id": f"{record.patient}-{number}"})
        if record.procedure:
            self.left_out["the proposed procedure"] += 1
        subject = {"reference": f"Patient/{record.patient}"}
        resources = [person, *self._conditions(record, sites), *resources[1:]]
        entries = [{"resource": r if r is person else {**r, "subject": subject}} for r in resources]
        return {"resourceType": "Bundle", "type": "collection", "entry": entries}

    def _of_person(self, person: dict[str, Any], fact: Fact) -> bool:
        """Put date of birth and sex where FHIR has them; each once, and only where it is sure."""
        name = local(fact.feature)
        sure = fact.polarity is Polarity.PRESENT and fact.status is Status.CONFIRMED and fact.time is None
        if not sure or fact.mood is not Mood.OBSERVED:
            return False
        if name == "birthDate" and isinstance(fact.value, TimeSpan) and name not in person:
            person[name] = str(fact.value)
            return True
        if name == "sex" and isinstance(fact.value, frozenset) and len(fact.value) == 1 and "gender" not in person:
            person["gender"] = local(next(iter(fact.value))).lower()
            return True
        return False

    def _sites(self, record: Record) -> tuple[dict[str, tuple[Fact, Fact]], set[int]]:
        """The lesions that a Condition can make: with a level and a kind of one date, each with a code."""
        level = self.codes.level
        found: dict[str, tuple[Fact, Fact]] = {}
        done: set[int] = set()
        taken: set[str] = set()
        for lesion in record.lesions:
            mine = [(i, f) for i, f in enumerate(record.facts) if f.subject == LESION + lesion.id]
            where = [(i, f) for i, f in mine if f.feature == level.iri]
            kinds = [(i, f) for i, f in mine if self._makes(f)]
            if len(where) != 1 or len(kinds) != 1 or len([f for _, f in mine if f.feature == kinds[0][1].feature]) != 1:
                continue
            (i, at), (j, kind) = where[0], kinds[0]
            value = next(iter(at.value)) if isinstance(at.value, frozenset) and len(at.value) == 1 else ""
            plain = at.status is kind.status is Status.CONFIRMED and at.polarity is kind.polarity is Polarity.PRESENT
            if (level.iri, value) in self._of and value not in taken and plain and at.time == kind.time and at.time:
                found[lesion.id] = at, kind
                taken.add(value)
                done |= {i, j}
        return found, done

    def _makes(self, fact: Fact) -> bool:
        """Whether a Condition with the code of this value makes a lesion."""
        feature = self.k.features[fact.feature]
        return (
            feature.kind is Op.CATEGORY
            and isinstance(fact.value, str)
            and (fact.feature, fact.value) in self._of
            and fact.mood is Mood.OBSERVED
        )

    def _conditions(self, record: Record, sites: dict[str, tuple[Fact, Fact]]) -> Iterator[dict[str, Any]]:
        for id_, (at, kind) in sites.items():
            yield {
                "resourceType": "Condition",
                "id": f"{record.patient}-{id_}",
                "code": {"coding": [self._coding(kind.feature, str(kind.value))]},
                "bodySite": [self._site(at)],
                "recordedDate": str(kind.time),
            }

    def _coding(self, feature: str, value: str | None) -> dict[str, str]:
        return self._of[feature, value][1]

    def _site(self, at: Fact) -> dict[str, Any]:
        assert isinstance(at.value, frozenset)
        return {"coding": [self._coding(at.feature, next(iter(at.value)))]}

    def _observed(self, fact: Fact, sites: dict[str, tuple[Fact, Fact]], record: Record) -> dict[str, Any] | None:
        """The resource of one fact, or nothing where there is none."""
        feature = self.k.features[fact.feature]
        known = self._of.get((fact.feature, None))
        lesion = fact.subject.removeprefix(LESION) if fact.subject.startswith(LESION) else ""
        if (
            known is None or fact.time is None or fact.mood is not Mood.OBSERVED or fact.status not in _RESULT
            or (lesion and lesion not in sites)
        ):  # fmt: skip
            return None
        coding, time = known[1], str(fact.time)
        if known[2]:
            return self._taken(fact, coding, time, record)
        resource = {
            "resourceType": "Observation",
            "status": _RESULT[fact.status],
            "code": {"coding": [coding]},
            "effectiveDateTime": time,
        }
        if lesion:
            resource["bodySite"] = self._site(sites[lesion][0])
        if fact.polarity is Polarity.INDETERMINATE:
            reason = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
            return {**resource, "dataAbsentReason": {"coding": [{"system": reason, "code": "unknown"}]}}
        if feature.kind is Op.FINDING:
            return {**resource, "valueBoolean": fact.polarity is Polarity.PRESENT}
        if not isinstance(fact.value, Range):
            return None
        return {**resource, **_measured(fact.value, feature.unit)}

    def _taken(self, fact: Fact, coding: dict[str, str], time: str, record: Record) -> dict[str, Any] | None:
        """A substance that is taken, or not; that it is not is lost where another statement says that it is."""
        present = (f.feature for f in record.facts if f.polarity is Polarity.PRESENT)
        if fact.polarity is Polarity.ABSENT and any(self.k.subsumes(fact.feature, f) for f in present):
            return None
        if fact.status is not Status.CONFIRMED or fact.polarity is Polarity.INDETERMINATE:
            return None
        return {
            "resourceType": "MedicationStatement",
            "status": "active" if fact.polarity is Polarity.PRESENT else "not-taken",
            "medicationCodeableConcept": {"coding": [coding]},
            "effectiveDateTime": time,
        }


def _measured(value: Range, unit: str) -> dict[str, Any]:
    coded = {"unit": unit, "system": "http://unitsofmeasure.org", "code": unit}
    ends = {"low": value.low, "high": value.high}
    said = {name: {"value": end, **coded} for name, end in ends.items() if end is not None}
    if value.exact is not None:
        return {"valueQuantity": said["low"]}
    return {"valueRange": said}


def as_line(bundle: dict[str, Any]) -> str:
    """A Bundle in one line; numbers keep their digits."""
    return json.dumps(bundle, ensure_ascii=False, default=_number, separators=(",", ":"))


def _number(value: object) -> int | float:
    assert isinstance(value, Decimal)
    return int(value) if value == value.to_integral_value() else float(value)
