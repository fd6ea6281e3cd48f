"""FHIR as JSON: a resource is looked over first, and parsed in full only where its codes mean something here.

Most of a record says nothing of a spine. Its codes are counted by a quick look; whatever the look does not understand
is parsed in full and read as if there had been no look.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import NoReturn

import msgspec

from kypho_kg.record import Status
from kypho_kg.sources.codes import Malformed
from kypho_kg.sources.fhir_codes import Codes, Json, text, tree
from kypho_kg.sources.fhir_resources import STATUSES


class _Coding(msgspec.Struct, gc=False):
    system: str = ""
    code: str = ""
    display: str = ""


class _Concept(msgspec.Struct):
    coding: list[_Coding] = []
    text: str = ""


class _Reference(msgspec.Struct, gc=False):
    reference: str = ""


class _Component(msgspec.Struct):
    code: _Concept


class Glance(msgspec.Struct):
    """What a quick look at a resource shows."""

    resourceType: str  # noqa: N815 - FHIR's name
    id: str = ""
    status: str = ""
    subject: _Reference | None = None
    patient: _Reference | None = None
    code: _Concept | None = None
    medicationCodeableConcept: _Concept | None = None  # noqa: N815
    component: list[_Component] = []
    doNotPerform: bool = False  # noqa: N815
    class_: _Coding | None = msgspec.field(default=None, name="class")

    @property
    def owner(self) -> str:
        """The reference to the patient."""
        found = self.patient or self.subject
        return found.reference if found else ""

    @property
    def concepts(self) -> list[_Concept]:
        """What the resource is about."""
        stay = _Concept([self.class_]) if self.class_ else None
        found = [self.code, self.medicationCodeableConcept, stay, *(c.code for c in self.component)]
        return [c for c in found if c is not None]


class _Entry(msgspec.Struct):
    resource: msgspec.Raw
    fullUrl: str = ""  # noqa: N815


class _Bundle(msgspec.Struct):
    resourceType: str  # noqa: N815
    entry: list[_Entry] = []


_glance = msgspec.json.Decoder(Glance)
_bundle = msgspec.json.Decoder(_Bundle)
_whole = msgspec.json.Decoder(float_hook=Decimal)
_SKIMMED: Mapping[str, str] = {
    **dict.fromkeys(("Observation", "Condition", "AllergyIntolerance", "Procedure"), "code"),
    **dict.fromkeys(
        ("MedicationRequest", "MedicationStatement", "MedicationAdministration"), "medicationCodeableConcept"
    ),
    "Encounter": "class_",
}
"""Kinds that say nothing where none of their codes does, with the field that holds the code."""


def glance(raw: bytes) -> Glance | None:
    """A quick look at a resource; nothing where it is not as expected."""
    try:
        return _glance.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def entries(raw: bytes) -> Iterator[tuple[bytes, str]] | None:
    """The resources of a Bundle as bytes, each with its full URL; nothing where it is no plain Bundle."""
    if b'"Bundle"' not in raw:
        return None
    try:
        found = _bundle.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if found.resourceType != "Bundle":
        return None
    return ((bytes(e.resource), e.fullUrl) for e in found.entry)


def says_nothing(codes: Codes, seen: Glance) -> bool:
    """Whether none of the codes of a resource means anything here, and nothing else of it could."""
    kind = seen.resourceType
    field = _SKIMMED.get(kind)
    if field is None or getattr(seen, field) is None or seen.doNotPerform:
        return False
    if kind in STATUSES and not isinstance(STATUSES[kind].get(seen.status), Status):
        return False
    substance = field == "medicationCodeableConcept"
    return all(codes.silent(c.system, c.code, substance) for concept in seen.concepts for c in concept.coding)


def pass_over(codes: Codes, seen: Glance, times: int = 1) -> None:
    """Count the codes of a resource that says nothing.

    :param times: -1 takes back that they were counted.
    """
    for concept in seen.concepts:
        coded = [c for c in concept.coding if c.code]
        for c in coded:
            codes.unknown(seen.resourceType, c.system, c.code, c.display, times)
        if not coded:
            codes.report.left(seen.resourceType, "text only, no code" if concept.text else "no code", times)


def parsed(raw: bytes) -> object:
    """The whole of a JSON text, numbers with their digits.

    :raises ValueError: when it is no JSON, or no UTF-8.
    :raises RecursionError: when it is nested too deeply.
    """
    try:
        return _whole.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # What it refuses is read, or refused with the right reason, by the slower parser.
        return json.loads(raw.decode("utf-8-sig"), parse_float=Decimal, parse_constant=_no_number)


def resource_of(raw: bytes) -> Json | None:
    """The object of a JSON text that was looked over before; nothing where it cannot be parsed."""
    try:
        found = parsed(raw)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _no_number(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


@dataclass(slots=True)
class Held:
    """A resource as it stands in the source: looked over, or parsed where the look did not understand it."""

    where: str
    raw: bytes
    seen: Glance | None = None
    whole: Json | None = None

    @property
    def kind(self) -> str:
        """Its type; empty where it has none."""
        found = self.seen.resourceType if self.seen else self.content.get("resourceType")
        return found if isinstance(found, str) else ""

    @property
    def id(self) -> str:
        """Its id, or nothing."""
        return self.seen.id.strip() if self.seen else text(self.content, "id")

    @property
    def content(self) -> Json:
        """The whole resource, parsed once."""
        if self.whole is None:
            self.whole = resource_of(self.raw)
        return self.whole if self.whole is not None else {}

    def owner(self, names: Mapping[str, str]) -> str:
        """``Patient/id`` of the patient that it names.

        :raises Malformed: when it names none.
        """
        return patient_of(self.seen.owner.strip(), names) if self.seen else _patient_of(self.content, names)


def reference(ref: str) -> str:
    """``Type/id`` of a reference, whatever server and version it names; a UUID is taken as the id of a patient."""
    ref = ref.partition("/_")[0].rstrip("/")
    if ref.startswith("urn:uuid:"):
        return f"Patient/{ref.removeprefix('urn:uuid:')}"
    return "/".join(ref.split("/")[-2:])


def patient_of(said: str, names: Mapping[str, str], name: str = "subject") -> str:
    """``Patient/id`` that a reference means.

    :param names: ``Type/id`` by full URL.
    :raises Malformed: when it means no patient.
    """
    found = names.get(said) or reference(said)
    if not found.startswith("Patient/") or len(found) <= len("Patient/"):
        raise Malformed(name, "a reference to a Patient")
    return found


def _patient_of(resource: Json, names: Mapping[str, str]) -> str:
    name = "patient" if "patient" in resource else "subject"
    return patient_of(text(tree(resource, name), "reference"), names, name)
