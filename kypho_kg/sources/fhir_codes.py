"""Pieces of FHIR JSON to pieces of facts: texts, dates, statuses, codes, units and values.

Every accessor checks the type of what it reads and raises :class:`~kypho_kg.sources.codes.Malformed`, which costs one
resource and no more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from kypho_kg.criteria import Op
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.mappings import OWN, Mappings
from kypho_kg.record import Cause, Fact, Polarity, Range, Status, TimeSpan
from kypho_kg.sources.codes import HUGE, LOINC, WORDS, Malformed, Meanings, Stated, compared

Json = dict[str, Any]

_DATE = re.compile(
    r"(\d{4}(?:-\d{2}(?:-\d{2}(?:T\d{2}:\d{2}(?::\d{2})?)?)?)?)(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})?", re.ASCII
)
_LINK_ID = re.compile(r"(?:.*/)?(\d{1,7}-\d)", re.ASCII)

VERIFICATION: Mapping[str, Status] = {
    "confirmed": Status.CONFIRMED,
    "unconfirmed": Status.UNCONFIRMED,
    "presumed": Status.UNCONFIRMED,
    "provisional": Status.PROVISIONAL,
    "differential": Status.DIFFERENTIAL,
    "refuted": Status.REFUTED,
    "entered-in-error": Status.ENTERED_IN_ERROR,
}

_MISSING: Mapping[str, Cause] = {
    "temp-unknown": Cause.PENDING,
    "as-text": Cause.IN_WORDS_ONLY,
    **dict.fromkeys(
        ("not-applicable", "unsupported", "not-permitted", "error", "masked", "asked-declined"),
        Cause.NOT_ASSESSABLE,
    ),
}

DERIVED = "derived by a rule: its method is a term of ours"

_WORDS = frozenset({"valueString", "valueMarkdown"})
_CODED = frozenset({"valueCodeableConcept", "valueCoding"})
_NO_NUMBERS = _WORDS | _CODED


def statuses(**words: str) -> Mapping[str, Status | None]:
    """What each status of a kind of resource means: names of :class:`Status`, or none, with the FHIR codes."""
    known = {"entered-in-error": "entered_in_error"} | {code: name for name in words for code in words[name].split()}
    return {code: None if name == "none" else Status[name.upper()] for code, name in known.items()}


def text(node: Json, key: str) -> str:
    """A text, or nothing."""
    found = node.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise Malformed(key, "a text")
    return found.strip()


def tree(node: Json, key: str) -> Json:
    """An object, or an empty one."""
    found = node.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Malformed(key, "an object")
    return found


def trees(node: Json, key: str) -> list[Json]:
    """A list of objects; a single object counts as a list of one, for releases of FHIR differ in that."""
    found = node.get(key)
    if found is None:
        return []
    if isinstance(found, dict):
        return [found]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Malformed(key, "a list of objects")
    return found


def said_so(node: Json, key: str) -> bool:
    """True, or false where it is missing."""
    found = node.get(key)
    if found is not None and not isinstance(found, bool):
        raise Malformed(key, "true or false")
    return bool(found)


def one_of(node: Json, key: str, known: Mapping[str, Any]) -> str:
    """A required code out of a list."""
    found = text(node, key)
    if found not in known:
        raise Malformed(key, f"one of {', '.join(known)}")
    return found


def status_code(node: Json, key: str, known: Mapping[str, Any]) -> str:
    """The code of a CodeableConcept out of a list, or nothing where the field is missing."""
    codes = [code for c in trees(tree(node, key), "coding") if (code := text(c, "code"))]
    if key not in node:
        return ""
    if not codes or codes[0] not in known:
        raise Malformed(key, f"one of {', '.join(known)}")
    return codes[0]


def references(node: Json, key: str) -> list[str]:
    """The references of a field; R5 wraps a reference into an object together with a concept."""
    found = trees(node, key)
    inner = [tree(item, "reference") if isinstance(item.get("reference"), dict) else item for item in found]
    return [ref for item in inner if (ref := text(item, "reference"))]


def moment(node: Json, key: str) -> TimeSpan | None:
    """A FHIR date, date-time or instant as local time; a partial date stays an interval."""
    said = text(node, key)
    if not said:
        return None
    match = _DATE.fullmatch(said)
    try:
        if match:
            return TimeSpan.parse(match[1])
    except ValueError:
        pass
    raise Malformed(key, "a FHIR date or date-time")


def bounds(node: Json, key: str) -> tuple[TimeSpan | None, TimeSpan | None]:
    """Start and end of a Period."""
    period = tree(node, key)
    start, end = moment(period, "start"), moment(period, "end")
    if start and end and end.end < start.start:
        raise Malformed(key, "a start before the end")
    return start, end


def between(start: TimeSpan, end: TimeSpan) -> TimeSpan:
    """Some time from a start to an end; where they are the same, that."""
    return start if start == end else TimeSpan(start.start, end.end, f"{start}/{end}")


def first_time(node: Json, *keys: str) -> TimeSpan | None:
    """The first of several fields that holds a time; of a Period its whole length."""
    for key in keys:
        if not key.endswith("eriod"):
            found = moment(node, key)
        else:
            start, end = bounds(node, key)
            found = between(start, end) if start and end else start or end
        if found:
            return found
    return None


def number(raw: object, key: str) -> Decimal:
    """A finite number of a sensible size."""
    if isinstance(raw, bool) or not isinstance(raw, (int, Decimal)):
        raise Malformed(key, "a number")
    found = Decimal(raw)
    if not found.is_finite() or abs(found.adjusted()) > HUGE:
        raise Malformed(key, "a number of a sensible size")
    return found


class Codes(Meanings):
    """What the codes of FHIR mean."""

    def __init__(self, knowledge: Knowledge, mappings: Mappings, report: IntakeReport) -> None:
        super().__init__(knowledge, mappings, report)
        self._names = {knowledge.label(v).lower(): v for v in self.level.values}

    def stated(self, coding: Json, *, substance: bool = False) -> tuple[Stated, ...]:
        """What one coding states; a code without a known system states nothing."""
        return self.meaning(text(coding, "system"), text(coding, "code"), substance=substance)

    def of(self, kind: str, concept: Json, *, substance: bool = False) -> list[Stated]:
        """What all codings of a concept state, each feature and value once."""
        codings = [c for c in trees(concept, "coding") if text(c, "code")]
        found: dict[tuple[str, str | None, bool], Stated] = {}
        for coding in codings:
            for one in self.stated(coding, substance=substance):
                found.setdefault((one.feature.iri, one.value, one.absent), one)
        if not found:
            for coding in codings:
                self.unknown(kind, text(coding, "system"), text(coding, "code"), text(coding, "display"))
            if not codings:
                self.report.left(kind, "text only, no code" if text(concept, "text") else "no code")
        return list(found.values())

    def asked(self, kind: str, item: Json) -> list[Stated]:
        """What an item of a form asks for: by its codes, or by a link id that is a code with its terminology."""
        codings, link = trees(item, "code"), text(item, "linkId")
        before, found, after = link.rpartition("|") if "|" in link else link.rpartition(":")
        if found and self.mappings.system(before):
            codings = [*codings, {"system": before, "code": after}]
        elif match := _LINK_ID.fullmatch(link):
            codings = [*codings, {"system": LOINC, "code": match[1]}]
        stated = {(one.feature.iri, one.value, one.absent): one for coding in codings for one in self.stated(coding)}
        if not stated:
            self.report.passed(kind, f"linkId|{link}")
        return list(stated.values())

    def sites(self, concepts: list[Json]) -> frozenset[str]:
        """The vertebral levels that body sites name, by code or else by words that are a level and nothing more."""
        found: set[str] = set()
        for concept in concepts:
            coded = {
                one.value
                for coding in trees(concept, "coding")
                for one in self.stated(coding)
                if one.feature is self.level and one.value and not one.absent
            }
            words = re.split(r"\s*(?:,|;|/|\band\b)\s*", text(concept, "text").lower())
            named = [self._names.get(re.sub(r"\s*(vertebra|vertebral body|level)$", "", w)) for w in words]
            found |= coded or ({n for n in named if n} if all(named) else set())
        return frozenset(found)

    def value(self, kind: str, node: Json, stated: Stated, base: Fact) -> Fact | None:
        """The fact of a question with its ``value[x]``, or ``None`` where nothing can be said."""
        feature = stated.feature
        keys = [key for key in node if key.startswith("value") and key[5:6].isupper() and node[key] is not None]
        if len(keys) > 1:
            raise Malformed("value[x]", "one value")
        if "method" in node and any(self._is_own(c) for c in trees(tree(node, "method"), "coding")):
            self.report.left(kind, DERIVED)  # an answer of ours, and nothing that anybody observed
            return None
        if keys and feature.kind is Op.QUANTITY and keys[0] not in _NO_NUMBERS:
            return self._quantity(kind, node, keys[0], feature, base)
        blank = replace(base, feature=feature.iri, unit=feature.unit, polarity=Polarity.INDETERMINATE)
        if not keys:
            missing = next((text(c, "code") for c in trees(tree(node, "dataAbsentReason"), "coding")), "")
            if missing or "dataAbsentReason" in node:
                return replace(blank, cause=_MISSING.get(missing, Cause.INDETERMINATE), reason=missing)
            if feature.kind is Op.FINDING or stated.value:
                return None if node.get("hasMember") or node.get("component") else stated.fact(base)
            self.report.left(kind, "no value")
            return None
        key = keys[0]
        if key in _WORDS:
            return replace(blank, cause=Cause.IN_WORDS_ONLY, words=text(node, key)[:WORDS])
        if key in _CODED:
            concept = {"coding": [tree(node, key)]} if key == "valueCoding" else tree(node, key)
            return self._coded(kind, concept, stated, base, blank)
        if key == "valueBoolean" and (feature.kind is Op.FINDING or stated.value):
            return stated.fact(base, Polarity.PRESENT if said_so(node, key) else Polarity.ABSENT)
        if feature.kind is None and key in ("valueDateTime", "valueDate", "valuePeriod"):
            start, end = bounds(node, key) if key == "valuePeriod" else (moment(node, key),) * 2
            if start is None or end is None:
                return replace(blank, cause=Cause.IMPRECISE)  # some day before, or after, and no more
            return replace(blank, value=between(start, end), polarity=Polarity.PRESENT)
        self.report.left(kind, f"{key} where the feature takes no such value")
        return None

    def _is_own(self, coding: Json) -> bool:
        system = self.mappings.system(text(coding, "system"))
        return system is not None and system.prefix == OWN

    def _coded(self, kind: str, concept: Json, stated: Stated, base: Fact, blank: Fact) -> Fact:
        codings = trees(concept, "coding")
        words = text(concept, "text") or next((text(c, "display") for c in codings), "")
        return self.answered(kind, [(text(c, "system"), text(c, "code")) for c in codings], words, stated, base, blank)

    def _quantity(self, kind: str, node: Json, key: str, feature: Feature, base: Fact) -> Fact | None:
        if key in ("valueInteger", "valueDecimal", "valueInteger64"):
            raw = node[key]
            if key == "valueInteger64" and isinstance(raw, str) and re.fullmatch(r"-?\d{1,19}", raw, re.ASCII):
                raw = int(raw)
            ranged, unit = Range.exactly(number(raw, key)), ""
        elif key == "valueQuantity":
            ranged, unit = self._measured(tree(node, key))
        elif key == "valueRange":
            low, high = (tree(tree(node, key), end) for end in ("low", "high"))
            units = {self._unit(end) for end in (low, high) if end}
            if len(units) != 1:
                raise Malformed(key, "one unit")
            unit = units.pop()
            a, b = (number(end.get("value"), key) if end else None for end in (low, high))
            if a is not None and b is not None and a > b:
                raise Malformed(key, "the smaller number first")
            ranged = Range(a, b)
        else:
            self.report.left(kind, f"{key} where the feature takes no such value")
            return None
        return self.measured(kind, ranged, unit, feature, base)

    def _measured(self, quantity: Json) -> tuple[Range, str]:
        found = number(quantity.get("value"), "valueQuantity.value")
        ranged = compared(found, text(quantity, "comparator"))
        if ranged is None:
            raise Malformed("valueQuantity.comparator", "one of <, <=, >, >=")
        return ranged, self._unit(quantity)

    @staticmethod
    def _unit(quantity: Json) -> str:
        coded = text(quantity, "system").rstrip("/") in ("http://unitsofmeasure.org", "urn:oid:2.16.840.1.113883.6.8")
        return (text(quantity, "code") if coded else "") or text(quantity, "unit") or text(quantity, "code")
