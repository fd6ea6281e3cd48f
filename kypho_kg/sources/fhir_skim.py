"""Resources of FHIR that say nothing here: told by a quick look at their codes, counted, and not parsed.

Most of a record says nothing of a spine. A code, as it stands in the source, is looked up once; after that a resource
costs the look and one entry of a table.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kypho_kg.record import Status
from kypho_kg.sources.codes import NO_VALUE
from kypho_kg.sources.fhir_codes import Codes
from kypho_kg.sources.fhir_json import Glance
from kypho_kg.sources.fhir_resources import ATTACHED, IN_WORDS, STATUSES

_MEDICATION = "medicationCodeableConcept"
_BY_CODE = "Observation Condition AllergyIntolerance Procedure ServiceRequest DiagnosticReport"
_BY_PRODUCT = "MedicationRequest MedicationStatement MedicationAdministration"
_FIELD: Mapping[str, str] = {
    **dict.fromkeys(_BY_CODE.split(), "code"),
    **dict.fromkeys(_BY_PRODUCT.split(), _MEDICATION),
    "Encounter": "class_",
}
"""Kinds that say nothing where none of their codes does, with the field that holds the code."""
_PLAIN: Mapping[str, frozenset[str]] = {
    kind: frozenset(code for code, status in known.items() if isinstance(status, Status))
    for kind, known in STATUSES.items()
}
"""Statuses with which a resource says what its codes say."""
_AT_ONCE = 1 << 16
"""Codes that are remembered before their counts are written into the report."""


class _Coding(msgspec.Struct):
    system: str = ""
    code: str = ""
    display: str = ""


class _Concept(msgspec.Struct):
    coding: list[_Coding] = []
    text: str = ""


class _Report(msgspec.Struct):
    """What a report says beside the fields that all have."""

    code: msgspec.Raw
    conclusion: str = ""
    conclusionCode: list[msgspec.Raw] = []  # noqa: N815 - FHIR's name
    presentedForm: list[msgspec.Raw] = []  # noqa: N815
    procedureCode: msgspec.Raw = msgspec.Raw()  # noqa: N815
    procedure: msgspec.Raw = msgspec.Raw()


_report = msgspec.json.Decoder(_Report)


class Silent:
    """What is counted of resources of one kind with the same codes, which mean nothing here."""

    __slots__ = ("concepts", "times", "why")

    def __init__(self, concepts: list[_Concept], why: list[str]) -> None:
        self.concepts = concepts
        self.why = why
        self.times = 0


class Skim:
    """Tells resources that say nothing by their codes, and counts these codes."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes
        self._known: dict[tuple[str, bytes], Silent | None] = {}

    def silent(self, seen: Glance, raw: bytes) -> Silent | None:
        """What to count of a resource of which no code means anything here, and nothing else could.

        Nothing where it may say something. The caller counts it by ``times``, before it asks for another one.

        :param raw: the resource as it stands in the source.
        """
        kind = seen.resourceType
        field = _FIELD.get(kind)
        if field is None or seen.doNotPerform or (kind in _PLAIN and seen.status not in _PLAIN[kind]):
            return None
        parts: list[msgspec.Raw] = [getattr(seen, field)]
        why: list[str] = []
        if seen.component:
            parts += (part.code for part in seen.component)
        elif kind == "DiagnosticReport":
            try:
                report = _report.decode(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return None
            if bytes(report.procedure) or bytes(report.procedureCode):
                return None
            parts += report.conclusionCode
            why = [IN_WORDS] if report.conclusion.strip() else [ATTACHED] if report.presentedForm else []
        about = b"".join([*map(bytes, parts), *(w.encode() for w in why)]) if len(parts) > 1 or why else bytes(parts[0])
        if (kind, about) not in self._known:
            if len(self._known) >= _AT_ONCE:
                self.settle()
            self._known[kind, about] = self._look_up(kind, parts, why)
        return self._known[kind, about]

    def settle(self) -> None:
        """Write the counts into the report, and forget them."""
        for (kind, _), silent in self._known.items():
            if silent is not None and silent.times:
                self._count(kind, silent)
        self._known.clear()

    def _look_up(self, kind: str, parts: list[msgspec.Raw], why: list[str]) -> Silent | None:
        try:
            concepts = [self._concept(kind, raw) for raw in parts]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None  # not as expected: it is read whole, and told as what it is
        substance = _FIELD[kind] == _MEDICATION
        codings = [coding for concept in concepts for coding in concept.coding]
        meant = {
            (one.feature.iri, one.value, one.absent): one
            for c in codings
            for one in self.codes.meaning(c.system.strip(), c.code.strip(), substance=substance)
        }
        if kind == "ServiceRequest":
            if not codings:
                return None  # in R5 its code is a wrapped one
            if meant and all(one.needs_value for one in meant.values()):
                return Silent([], [NO_VALUE] * len(meant))
        return None if meant else Silent(concepts, why)

    @staticmethod
    def _concept(kind: str, raw: msgspec.Raw) -> _Concept:
        if kind == "Encounter":
            return _Concept([msgspec.json.decode(raw, type=_Coding)])
        return msgspec.json.decode(raw, type=_Concept)

    def _count(self, kind: str, silent: Silent) -> None:
        for concept in silent.concepts:
            coded = [c for c in concept.coding if c.code]
            for c in coded:
                self.codes.unknown(kind, c.system, c.code, c.display, silent.times)
            if not coded:
                self.codes.report.left(kind, "text only, no code" if concept.text else "no code", silent.times)
        for why in silent.why:
            self.codes.report.left(kind, why, silent.times)
