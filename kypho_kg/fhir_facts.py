"""Facts, lesions and missing features as FHIR R4: what an answer in FHIR refers to.

A terminology code is written only where its mapping is an exact match: a narrower code would say more than the record.
What a rule derived carries no terminology code at all, so that nobody reads it back as something that was observed.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import quote

from kypho_kg.candidacy import Answer
from kypho_kg.criteria import Op
from kypho_kg.explanation import Need
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.mappings import EXACT, Mappings
from kypho_kg.record import LESION, PROCEDURE, Cause, Fact, Mood, Polarity, Range, Status, TimeSpan
from kypho_kg.vocabulary import local
from kypho_kg.words import range_json, value_words

Json = dict[str, Any]

SYSTEM: Final = "https://w3id.org/kypho"
"""Code system of the ontology's own terms; a code is the local name of a term."""
UCUM: Final = "http://unitsofmeasure.org"
URN: Final = "urn:ietf:rfc:3986"
ABSENT_REASON: Final = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
TEST_DATA: Final = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}

_SPACE = uuid.uuid5(uuid.NAMESPACE_URL, f"{SYSTEM}/fhir")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII)
_DAY = re.compile(r"(\d{4}(?:-\d{2}(?:-\d{2})?)?)(?:[T ].*)?", re.ASCII)
_RESOURCE = re.compile(r".*: ([A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})", re.ASCII | re.DOTALL)
_IDENTIFIED = frozenset({"GuidanceResponse", "DetectedIssue"})

_STATUS: Mapping[Status, str] = {
    Status.CONFIRMED: "final",
    Status.UNCONFIRMED: "preliminary",
    Status.PROVISIONAL: "preliminary",
    Status.DIFFERENTIAL: "preliminary",
    Status.REFUTED: "cancelled",
    Status.ENTERED_IN_ERROR: "entered-in-error",
}
_ABSENT_BECAUSE: Mapping[Cause, str] = {
    Cause.PENDING: "temp-unknown",
    Cause.NOT_ASSESSABLE: "not-performed",
    Cause.IN_WORDS_ONLY: "as-text",
}
_TAKEN, _DONE = frozenset({"ATC", "RXNORM"}), frozenset({"ICD10PCS"})
"""Terminologies of what is taken and of what is done; of a finding they say which kind of resource states it."""


def uuid_of(*content: object) -> str:
    """The UUID that stands for some content: the same for the same content, another one for any other."""
    return str(uuid.uuid5(_SPACE, json.dumps(content, sort_keys=True, ensure_ascii=True)))


class Entries:
    """The entries of a Bundle; each resource is named after its content, so that equal ones are one entry."""

    def __init__(self) -> None:
        self._found: dict[str, Json] = {}

    def add(self, resource: Json) -> Json:
        """Take in a resource and give a reference to it."""
        id_ = uuid_of(resource)
        url = f"urn:uuid:{id_}"
        if url not in self._found:
            head = {"resourceType": resource["resourceType"], "id": resource.get("id", id_)}
            if resource["resourceType"] in _IDENTIFIED:
                resource = {"identifier": [{"system": URN, "value": url}], **resource}
            self._found[url] = {"fullUrl": url, "resource": {**head, **resource}}
        return {"reference": url}

    def all(self) -> list[Json]:
        """The entries in the order in which they came."""
        return list(self._found.values())


class Terms:
    """Terms of the ontology as FHIR concepts."""

    def __init__(self, knowledge: Knowledge, mappings: Mappings) -> None:
        self.k = knowledge
        self.mappings = mappings

    def concept(self, iri: str, *, mapped: bool = True) -> Json:
        """A term with the codes that mean the same.

        :param mapped: whether to add codes of terminologies.
        """
        label = self.k.label(iri)
        codes = self._codes(iri, exact=True) if mapped else []
        return {"coding": [{"system": SYSTEM, "code": local(iri), "display": label}, *codes], "text": label}

    def any_of(self, iri: str) -> list[Json]:
        """A term with every code that falls under it."""
        own = {"system": SYSTEM, "code": local(iri), "display": self.k.label(iri)}
        return [own, *self._codes(iri, exact=False)]

    def resource_type(self, need: Need) -> str:
        """The kind of resource that would state a feature, by its kind, its bearer and the terminologies of its codes.

        What belongs to the proposed procedure is asked of a ServiceRequest, a value of an Observation, a finding of a
        Condition unless its codes name what is taken or what is done.
        """
        feature = self.k.features.get(need.feature)
        if need.subject == PROCEDURE:
            return "ServiceRequest"
        if feature is None or feature.kind is not Op.FINDING:
            return "Observation"
        used = {row.prefix for row in self.mappings.of_term(need.feature) if row.assigns}
        if used & _TAKEN:
            return "MedicationStatement"
        return "Procedure" if used & _DONE else "Condition"

    def requirement(self, need: Need, as_of: date) -> Json:
        """What is missing, as a data requirement: any of the codes, and no older than what would still count."""
        kind, feature = self.resource_type(need), self.k.features.get(need.feature)
        path = "medication" if kind == "MedicationStatement" else "code"
        row: Json = {"type": kind, "codeFilter": [{"path": path, "code": self.any_of(need.feature)}]}
        if feature is not None and feature.lookback is not None and kind == "Observation":
            start = as_of - timedelta(days=feature.lookback)
            row["dateFilter"] = [
                {"path": "effective", "valuePeriod": {"start": start.isoformat(), "end": as_of.isoformat()}}
            ]
        return row

    def _codes(self, iri: str, *, exact: bool) -> list[Json]:
        found = []
        for row in self.mappings.of_term(iri):
            system = self.mappings.systems[row.prefix].fhir_system
            if system and (row.predicate == EXACT if exact else row.assigns):
                label = {"display": row.label} if row.label else {}
                found.append({"system": system, "code": row.code, **label})
        return sorted(found, key=lambda c: (c["system"], c["code"]))


class PatientWriter:
    """Writes the Patient, the lesions and the facts of one answer, each when it is first referred to."""

    def __init__(self, entries: Entries, terms: Terms, answer: Answer) -> None:
        self._entries = entries
        self._terms = terms
        self._as_of = answer.as_of
        self._snapshot = answer.cases[0].snapshot if answer.cases else None
        record = answer.record
        self.meta: Json = {"meta": {"tag": [TEST_DATA]}} if record.constructed else {}
        """Marks what is made up, to be put into every resource about the patient."""
        named = {"id": record.patient} if _ID.fullmatch(record.patient) else {}
        self.patient = entries.add({"resourceType": "Patient", **named, **self.meta, **_identifier(record.patient)})
        self._facts: dict[Fact, Json] = {}

    def lesion(self, subject: str) -> Json:
        """A reference to a lesion, with its level as far as that is known.

        :param subject: ``lesion:`` with the id.
        """
        k, place = self._terms.k, {}
        level = self._snapshot.value(subject, k.by_name["vertebralLevel"].iri).value if self._snapshot else None
        if isinstance(level, frozenset) and level:
            one = len(level) == 1
            place = {"location": self._terms.concept(*level) if one else {"text": value_words(k, level)}}
        row = {**self.meta, **_identifier(subject.removeprefix(LESION)), **place, "patient": self.patient}
        return self._entries.add({"resourceType": "BodyStructure", **row})

    def fact(self, fact: Fact) -> Json:
        """A reference to a fact as an Observation; what it was derived from is written too."""
        known = self._facts.get(fact)
        if known is None:
            known = self._facts[fact] = self._entries.add(self._observation(fact))
        return known

    def _observation(self, fact: Fact) -> Json:
        feature, k = self._terms.k.features[fact.feature], self._terms.k
        meta = dict(self.meta.get("meta", {}))
        if fact.source.origin.strip():
            meta["source"] = quote(fact.source.origin.strip(), safe="/:#?&=@!$'()*+,;~.-_")
        value, remarks = self._value(feature, fact)
        row: Json = {
            "resourceType": "Observation",
            **({"meta": meta} if meta else {}),
            "status": _STATUS[fact.status] if fact.mood is Mood.OBSERVED else "registered",
            "code": self._terms.concept(fact.feature, mapped=not fact.rule),
            "subject": self.patient,
        }
        if fact.subject.startswith(LESION):
            row["focus"] = [self.lesion(fact.subject)]
        row |= _when("effective", fact.time or TimeSpan.of(self._as_of))
        row |= value
        if fact.mood is not Mood.OBSERVED:
            remarks.append(str(fact.mood))
        remarks += filter(None, (fact.reason, fact.invalid and f"does not conform to {fact.invalid}"))
        if fact.source.document or fact.source.author or fact.source.quote:
            remarks.append(str(fact.source))
        if remarks:
            row["note"] = [{"text": remark} for remark in remarks]
        if fact.rule:
            row["method"] = {
                "coding": [{"system": SYSTEM, "code": local(fact.rule)}],
                "text": k.label(fact.rule),
            }
        if fact.premises:
            row["derivedFrom"] = [self.fact(premise) for premise in dict.fromkeys(fact.premises)]
        return row

    def _value(self, feature: Feature, fact: Fact) -> tuple[Json, list[str]]:
        """The value of an Observation, and what the value cannot say."""
        k, value = self._terms.k, fact.value
        if fact.polarity is Polarity.INDETERMINATE:
            if fact.cause is Cause.IN_WORDS_ONLY and fact.words.strip():
                return {"valueString": fact.words.strip()}, []
            said = value_words(k, value)
            remarks = [*([f"recorded: {said}"] if said else []), *filter(None, [fact.words.strip()])]
            return _no_value(fact.cause or Cause.INDETERMINATE), remarks
        if feature.kind is Op.FINDING:
            return {"valueBoolean": fact.polarity is Polarity.PRESENT}, []
        if isinstance(value, Range):
            return _quantity(value, feature.unit)
        if isinstance(value, TimeSpan):
            return _when("value", value), []
        if fact.polarity is Polarity.ABSENT:  # what a value is not has no code
            return {"valueCodeableConcept": {"text": f"not {value_words(k, value)}"}}, []
        if isinstance(value, frozenset) and len(value) == 1:
            value = next(iter(value))
        if isinstance(value, str):
            return {"valueCodeableConcept": self._terms.concept(value, mapped=not fact.rule)}, []
        return {"valueCodeableConcept": {"text": value_words(k, value) or "unknown"}}, []


def asserted(facts: Iterable[Fact]) -> dict[Fact, None]:
    """The recorded facts on which some facts rest, in their order."""
    found: dict[Fact, None] = {}
    for fact in facts:
        if not fact.rule:
            found[fact] = None
        found |= asserted(fact.premises)
    return found


def source_reference(fact: Fact) -> Json | None:
    """Where a fact was read: the resource of FHIR that stated it, or the place in a file."""
    origin, said = fact.source.origin.strip(), str(fact.source).strip()
    resource = _RESOURCE.fullmatch(origin)
    if resource:
        return {"reference": resource[1], "display": said}
    if not origin:
        return {"display": said} if said else None
    return {"identifier": {"value": origin}, "display": said}


def _identifier(id_: str) -> Json:
    """An id as the record has it; FHIR knows no empty text."""
    return {"identifier": [{"value": id_}]} if id_.strip() else {}


def _when(name: str, time: TimeSpan) -> Json:
    """A time as FHIR has it: no time of day, for that would need a zone; an interval as a period."""
    day = _DAY.fullmatch(time.text)
    if day:
        return {f"{name}DateTime": day[1]}
    return {f"{name}Period": {"start": time.start.date().isoformat(), "end": time.end.date().isoformat()}}


def _no_value(cause: Cause) -> Json:
    reason = {"system": ABSENT_REASON, "code": _ABSENT_BECAUSE.get(cause, "unknown")}
    return {"dataAbsentReason": {"coding": [reason, {"system": SYSTEM, "code": str(cause)}]}}


def _quantity(value: Range, unit: str) -> tuple[Json, list[str]]:
    """A number or its bounds; FHIR counts the ends of a range in, so what is left out goes into a remark."""
    measured = {"unit": unit, "system": UCUM, "code": unit} if unit else {}
    low, high = ({"value": range_json(Range.exactly(x)), **measured} if x is not None else None
                 for x in (value.low, value.high))  # fmt: skip
    if value.exact is not None:
        return {"valueQuantity": low}, []
    if low and high:
        open_ends = [f"{n} end excluded" for n, out in (("low", value.low_open), ("high", value.high_open)) if out]
        return {"valueRange": {"low": low, "high": high}}, open_ends
    if low:
        return {"valueQuantity": {**low, "comparator": ">" if value.low_open else ">="}}, []
    if high:
        return {"valueQuantity": {**high, "comparator": "<" if value.high_open else "<="}}, []
    return _no_value(Cause.IMPRECISE), []
