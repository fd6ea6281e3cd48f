"""FHIR as JSON: a resource is looked over first, and parsed in full where it may say something.

Whatever the look does not understand is parsed in full and read as if there had been no look.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import NoReturn

import msgspec

from kypho_kg.sources.codes import Malformed
from kypho_kg.sources.fhir_codes import Json, text, tree


class _Reference(msgspec.Struct, gc=False):
    reference: str = ""


class _Component(msgspec.Struct, gc=False):
    code: msgspec.Raw


class Glance(msgspec.Struct, gc=False):
    """What a quick look at a resource shows; its codes stay as they stand."""

    resourceType: str  # noqa: N815 - FHIR's name
    id: str = ""
    status: str = ""
    subject: _Reference | None = None
    patient: _Reference | None = None
    code: msgspec.Raw = msgspec.Raw()
    medicationCodeableConcept: msgspec.Raw = msgspec.Raw()  # noqa: N815
    component: list[_Component] = []
    doNotPerform: bool = False  # noqa: N815
    class_: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="class")

    @property
    def owner(self) -> str:
        """The reference to the patient."""
        found = self.patient or self.subject
        return found.reference if found else ""

    @property
    def name(self) -> int:
        """A number for its type and id: equal ones name one resource."""
        return hash((self.resourceType, self.id.strip()))


class _Entry(msgspec.Struct, gc=False):
    resource: msgspec.Raw
    fullUrl: str = ""  # noqa: N815


class _Bundle(msgspec.Struct, gc=False):
    resourceType: str  # noqa: N815
    entry: list[_Entry] = []


_glance = msgspec.json.Decoder(Glance)
_bundle = msgspec.json.Decoder(_Bundle)
_whole = msgspec.json.Decoder(float_hook=Decimal)
_BEGINNING = 100


def glance(raw: bytes) -> Glance | None:
    """A quick look at a resource; nothing where it is not as expected."""
    try:
        return _glance.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def begins_a_bundle(raw: bytes) -> bool:
    """Whether a text looks like a Bundle from its beginning: a look over the whole of one is spared then."""
    return b'"Bundle"' in raw[:_BEGINNING]


def entries(raw: bytes) -> Iterator[tuple[bytes, str]] | None:
    """The resources of a Bundle as bytes, each with its full URL; nothing where it is no plain Bundle."""
    try:
        found = _bundle.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if found.resourceType != "Bundle":
        return None
    return ((bytes(e.resource), e.fullUrl) for e in found.entry)


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
    def name(self) -> int:
        """A number for its type and id: equal ones name one resource."""
        return self.seen.name if self.seen else hash((self.kind, self.id))

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


@lru_cache(maxsize=1 << 10)  # resources of one patient stand together
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
