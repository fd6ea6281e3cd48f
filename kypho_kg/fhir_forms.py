"""Codes, times and values in the forms of FHIR that our own reader takes (docs/fhir.md).

A code of a terminology that means a term exactly and states nothing else is taken first; a term without one is a code
itself.
"""

from __future__ import annotations

import re
from typing import Any, Final

from kypho_kg.criteria import Op
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import EXACT, OWN, Mappings
from kypho_kg.record import Cause, Fact, Range, TimeSpan
from kypho_kg.sources.codes import Stated
from kypho_kg.sources.fhir_codes import Codes
from kypho_kg.vocabulary import local

Json = dict[str, Any]

DAY: Final = re.compile(r"\d{4}(-\d\d(-\d\d)?)?", re.ASCII)
"""A date, whole or partial."""
FORM: Final = "a value, time or cause without a form"
_ABSENT_REASON = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_UCUM = "http://unitsofmeasure.org"
_MISSING = {
    None: "unknown", Cause.INDETERMINATE: "unknown", Cause.PENDING: "temp-unknown",
    Cause.NOT_ASSESSABLE: "not-applicable",
}  # fmt: skip
_SCALES = ("LOINC", "SCTID")
"""Terminologies that are taken first, where several have a code."""


class Lost(Exception):  # noqa: N818 - it is caught where it costs one fact, and is no error of the program
    """A fact cannot be carried; its argument is the reason."""


class Codings:
    """The code of each term: one that matches it exactly and says nothing else, or else the term itself."""

    def __init__(self, k: Knowledge, mappings: Mappings) -> None:
        self.k = k
        self.codes = Codes(k, mappings, IntakeReport("codes"))
        self._system = mappings.systems[OWN].fhir_system
        self._of: dict[tuple[str, str | None], tuple[Stated, dict[str, str], bool]] = {}
        rows = [r for r in mappings.rows if r.predicate == EXACT and not r.negated and r.prefix in mappings.systems]
        for row in sorted(rows, key=lambda r: (*(r.prefix != p for p in _SCALES), r.prefix, r.code)):
            system = mappings.systems[row.prefix].fhir_system
            coding = {"system": system, "code": row.code}
            stated = self.codes.stated(coding, substance=True) if system else ()
            if len(stated) == 1 and not stated[0].absent:
                taken = not self.codes.stated(coding)
                self._of.setdefault((stated[0].feature.iri, stated[0].value), (stated[0], coding, taken))

    def coding(self, iri: str, value: str | None = None) -> dict[str, str]:
        """The code of a feature, or of a value of it, wherever nobody takes it as a substance."""
        known = self._of.get((iri, value))
        return known[1] if known and not known[2] else {"system": self._system, "code": local(value or iri)}

    def substance(self, iri: str) -> dict[str, str] | None:
        """The code of what somebody takes who has a finding, where the finding is one of taking it."""
        known = self._of.get((iri, None))
        return known[1] if known and known[2] else None

    def whole(self, fact: Fact) -> dict[str, str] | None:
        """The code that by itself states what a fact does, its polarity aside; none where it needs a value."""
        if self.k.features[fact.feature].kind is Op.FINDING:
            return self.coding(fact.feature)
        value = fact.value
        if isinstance(value, frozenset) and len(value) == 1:
            value = next(iter(value))
        if not isinstance(value, str):
            return None
        coding = self.coding(fact.feature, value)
        return coding if len(self.codes.stated(coding)) == 1 else None


def when(name: str, time: TimeSpan) -> Json:
    """A time as FHIR has it: a date, an instant, or a period of whole days.

    FHIR asks for a zone where there is a time of day, and our reader drops it.
    """
    if DAY.fullmatch(time.text):
        return {f"{name}DateTime": time.text}
    if time.start == time.end:
        return {f"{name}DateTime": f"{time.start.isoformat()}Z"}
    return {f"{name}Period": {"start": time.start.date().isoformat(), "end": time.end.date().isoformat()}}


def has_point(time: TimeSpan | None) -> bool:
    """Whether a time, if there is one, can stand where FHIR takes no period."""
    return time is None or "Period" not in when("", time)


def point(time: TimeSpan) -> str:
    """A time where FHIR takes no period.

    :raises Lost: for a period.
    """
    if not has_point(time):
        raise Lost(FORM)
    return str(when("", time)["DateTime"])


def measured(value: Range, unit: str) -> Json:
    """A number, its one bound, or both; FHIR counts the ends of a range in.

    :param unit: in UCUM.
    :raises Lost: for what FHIR has no form for.
    """
    coded = {"unit": unit, "system": _UCUM, "code": unit} if unit else {}
    low, high = ({"value": end, **coded} if end is not None else None for end in (value.low, value.high))
    if value.exact is not None:
        return {"valueQuantity": low}
    if low and high and not (value.low_open or value.high_open):
        return {"valueRange": {"low": low, "high": high}}
    if low and not high:
        return {"valueQuantity": {**low, "comparator": ">" if value.low_open else ">="}}
    if high and not low:
        return {"valueQuantity": {**high, "comparator": "<" if value.high_open else "<="}}
    raise Lost(FORM)


def unknown(fact: Fact) -> Json:
    """Why an indeterminate fact has no value.

    :raises Lost: for a cause that FHIR has no code for.
    """
    if fact.cause is Cause.IN_WORDS_ONLY and fact.words.strip():
        return {"valueString": fact.words.strip()}
    if fact.cause not in _MISSING:
        raise Lost(FORM)
    return {"dataAbsentReason": {"coding": [{"system": _ABSENT_REASON, "code": _MISSING[fact.cause]}]}}
