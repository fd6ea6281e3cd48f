"""Pieces of FHIR JSON to pieces of facts: texts, dates, statuses, codes, units and values.

Every accessor checks the type of what it reads and raises :class:`Malformed`, which costs one resource and no more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from kypho_kg.criteria import Op
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.mappings import CodedFact, Mappings
from kypho_kg.record import Cause, Fact, Polarity, Range, Status, TimeSpan

Json = dict[str, Any]

_DATE = re.compile(
    r"(\d{4}(?:-\d{2}(?:-\d{2}(?:T\d{2}:\d{2}(?::\d{2})?)?)?)?)(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})?", re.ASCII
)
_LINK_ID = re.compile(r"(?:.*/)?(\d{1,7}-\d)", re.ASCII)
_HUGE = 30
"""Powers of ten beyond which a number is no measurement."""
_WORDS = 300

VERIFICATION: Mapping[str, Status] = {
    "confirmed": Status.CONFIRMED,
    "unconfirmed": Status.UNCONFIRMED,
    "presumed": Status.UNCONFIRMED,
    "provisional": Status.PROVISIONAL,
    "differential": Status.DIFFERENTIAL,
    "refuted": Status.REFUTED,
    "entered-in-error": Status.ENTERED_IN_ERROR,
}

_SCT, _LOINC = "http://snomed.info/sct", "http://loinc.org"
_YES_NO = "http://terminology.hl7.org/CodeSystem/v2-0136"
_YES_NO_UNKNOWN = "http://terminology.hl7.org/CodeSystem/v2-0532"
_ANSWERS: Mapping[tuple[str, Polarity], str] = {  # present, yes, positive, detected; and their opposites
    (_SCT, Polarity.PRESENT): "52101004 373066001 10828004 260373001",
    (_SCT, Polarity.ABSENT): "2667000 373067005 260385009 260415000",
    (_SCT, Polarity.INDETERMINATE): "373068000 82334004 42425007 261665006",
    (_LOINC, Polarity.PRESENT): "LA33-6 LA9633-4 LA6576-8 LA11882-0",
    (_LOINC, Polarity.ABSENT): "LA32-8 LA9634-2 LA6577-6 LA11883-8",
    (_YES_NO, Polarity.PRESENT): "Y",
    (_YES_NO, Polarity.ABSENT): "N",
    (_YES_NO_UNKNOWN, Polarity.PRESENT): "Y",
    (_YES_NO_UNKNOWN, Polarity.ABSENT): "N",
}
ANSWERS = {(system, code): said for (system, said), codes in _ANSWERS.items() for code in codes.split()}
"""Codes of answers that say yes, no or unclear of whatever was asked."""

_MISSING: Mapping[str, Cause] = {
    "temp-unknown": Cause.PENDING,
    "as-text": Cause.IN_WORDS_ONLY,
    **dict.fromkeys(
        ("not-applicable", "unsupported", "not-permitted", "error", "masked", "asked-declined"),
        Cause.NOT_ASSESSABLE,
    ),
}
_SUBSTANCES = frozenset({"RXNORM", "ATC"})
"""Terminologies whose codes name a substance: that somebody takes it is said by the resource alone."""


def statuses(**words: str) -> Mapping[str, Status | None]:
    """What each status of a kind of resource means: names of :class:`Status`, or none, with the FHIR codes."""
    known = {"entered-in-error": "entered_in_error"} | {code: name for name in words for code in words[name].split()}
    return {code: None if name == "none" else Status[name.upper()] for code, name in known.items()}


class Malformed(Exception):  # noqa: N818 - it is caught here, and is no error of the program
    """A resource cannot be read. Holds the field and what was expected, never a value."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(field)
        self.field = field
        self.expected = expected


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


def first_time(node: Json, *keys: str) -> TimeSpan | None:
    """The first of several fields that holds a time; of a Period its whole length."""
    for key in keys:
        if not key.endswith("eriod"):
            found = moment(node, key)
        else:
            start, end = bounds(node, key)
            found = TimeSpan(start.start, end.end, f"{start}/{end}") if start and end else start or end
        if found:
            return found
    return None


def number(raw: object, key: str) -> Decimal:
    """A finite number of a sensible size."""
    if isinstance(raw, bool) or not isinstance(raw, (int, Decimal)):
        raise Malformed(key, "a number")
    found = Decimal(raw)
    if not found.is_finite() or abs(found.adjusted()) > _HUGE:
        raise Malformed(key, "a number of a sensible size")
    return found


@dataclass(frozen=True, slots=True)
class Stated:
    """What one code of a concept states, with the code as ``system|code``."""

    code: str
    feature: Feature
    value: str | None

    def fact(self, base: Fact, polarity: Polarity = Polarity.PRESENT) -> Fact:
        """The fact that the code alone makes."""
        value = frozenset({self.value}) if self.value and self.feature.kind is Op.CHOICE else self.value
        return replace(base, feature=self.feature.iri, value=value, unit=self.feature.unit, polarity=polarity)


class Codes:
    """What codes mean, by the mappings; counts what they do not know."""

    def __init__(self, knowledge: Knowledge, mappings: Mappings, report: IntakeReport) -> None:
        self.k = knowledge
        self.mappings = mappings
        self.report = report
        self.level = knowledge.by_name["vertebralLevel"]
        self._known: dict[tuple[str, str], tuple[CodedFact, ...]] = {}
        self._names = {knowledge.label(v).lower(): v for v in self.level.values}

    def stated(self, coding: Json, *, substance: bool = False) -> list[Stated]:
        """What one coding states; a code without a known system states nothing."""
        system, code = text(coding, "system"), text(coding, "code")
        if not system or not code:
            return []
        known = self._known.get((system, code))
        if known is None:
            known = self._known[system, code] = self.mappings.facts(code, self.k, system)
        return [
            Stated(f"{system}|{code}", fact.feature, fact.value)
            for fact in known
            if substance or fact.mapping.prefix not in _SUBSTANCES
        ]

    def of(self, kind: str, concept: Json, *, substance: bool = False) -> list[Stated]:
        """What all codings of a concept state, each feature and value once."""
        codings = [c for c in trees(concept, "coding") if text(c, "code")]
        found: dict[tuple[str, str | None], Stated] = {}
        for coding in codings:
            for one in self.stated(coding, substance=substance):
                found.setdefault((one.feature.iri, one.value), one)
        if not found:
            for coding in codings:
                self.report.passed(kind, f"{text(coding, 'system')}|{text(coding, 'code')}", text(coding, "display"))
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
            codings = [*codings, {"system": _LOINC, "code": match[1]}]
        stated = {(one.feature.iri, one.value): one for coding in codings for one in self.stated(coding)}
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
                if one.feature is self.level and one.value
            }
            words = re.split(r"\s*(?:,|;|/|\band\b)\s*", text(concept, "text").lower())
            named = [self._names.get(re.sub(r"\s*(vertebra|vertebral body|level)$", "", w)) for w in words]
            found |= coded or ({n for n in named if n} if all(named) else set())
        return frozenset(found)

    def value(self, kind: str, node: Json, stated: Stated, base: Fact) -> Fact | None:
        """The fact of a question with its ``value[x]``, or ``None`` where nothing can be said."""
        feature = stated.feature
        blank = replace(base, feature=feature.iri, unit=feature.unit, polarity=Polarity.INDETERMINATE)
        keys = [key for key in node if re.match("value[A-Z]", key) and node[key] is not None]
        if len(keys) > 1:
            raise Malformed("value[x]", "one value")
        if not keys:
            missing = next((text(c, "code") for c in trees(tree(node, "dataAbsentReason"), "coding")), "")
            if missing or "dataAbsentReason" in node:
                return replace(blank, cause=_MISSING.get(missing, Cause.INDETERMINATE), reason=missing)
            if feature.kind is Op.FINDING or stated.value:
                return None if node.get("hasMember") or node.get("component") else stated.fact(base)
            self.report.left(kind, "no value")
            return None
        key = keys[0]
        if key in ("valueString", "valueMarkdown"):
            return replace(blank, cause=Cause.IN_WORDS_ONLY, words=text(node, key)[:_WORDS])
        if key in ("valueCodeableConcept", "valueCoding"):
            concept = {"coding": [tree(node, key)]} if key == "valueCoding" else tree(node, key)
            return self._coded(kind, concept, stated, base, blank)
        if feature.kind is Op.QUANTITY:
            return self._quantity(kind, node, key, feature, blank)
        if key == "valueBoolean" and (feature.kind is Op.FINDING or stated.value):
            return stated.fact(base, Polarity.PRESENT if said_so(node, key) else Polarity.ABSENT)
        if feature.kind is None and key in ("valueDateTime", "valueDate"):
            return replace(blank, value=moment(node, key), polarity=Polarity.PRESENT)
        self.report.left(kind, f"{key} where the feature takes no such value")
        return None

    def _coded(self, kind: str, concept: Json, stated: Stated, base: Fact, blank: Fact) -> Fact:
        feature, codings = stated.feature, trees(concept, "coding")
        if feature.kind is Op.FINDING or stated.value:
            answers = {ANSWERS.get((text(c, "system"), text(c, "code"))) for c in codings} - {None}
            if len(answers) == 1:
                polarity = answers.pop() or Polarity.INDETERMINATE
                return blank if polarity is Polarity.INDETERMINATE else stated.fact(base, polarity)
        meant = [one for c in codings for one in self.stated(c)]
        if feature.kind is Op.FINDING:
            narrower = {one.feature.iri for one in meant if self.k.subsumes(feature.iri, one.feature.iri)}
            if len(narrower) == 1:
                return replace(stated.fact(base), feature=narrower.pop())
        values = sorted({one.value for one in meant if one.feature is feature and one.value})
        if values and not stated.value and feature.kind is Op.CHOICE:
            return replace(blank, value=frozenset(values), polarity=Polarity.PRESENT)
        if len(values) == 1 and not stated.value:
            return replace(blank, value=values[0], polarity=Polarity.PRESENT)
        for coding in codings:
            self.report.passed(f"{kind} value", f"{text(coding, 'system')}|{text(coding, 'code')}", "")
        words = text(concept, "text") or next((text(c, "display") for c in codings), "")
        return replace(blank, cause=Cause.IN_WORDS_ONLY, words=words[:_WORDS])

    def _quantity(self, kind: str, node: Json, key: str, feature: Feature, blank: Fact) -> Fact | None:
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
        factor = self._factor(feature, unit)
        words = f"{ranged} {unit}".strip()
        if factor is None:
            # It stays as an unknown: a later value that cannot be read must not leave an older one standing.
            self.report.left(kind, f"unit of {feature.name} not understood")
            reason = f"unit not understood; expected {', '.join((feature.unit, *feature.accepts))}"
            return replace(blank, cause=Cause.INDETERMINATE, words=words, reason=reason)
        value = ranged if factor == 1 else ranged.scaled(factor)
        return replace(blank, value=value, polarity=Polarity.PRESENT, words="" if unit == feature.unit else words)

    def _measured(self, quantity: Json) -> tuple[Range, str]:
        found = number(quantity.get("value"), "valueQuantity.value")
        ranges = {
            "": Range.exactly(found),
            "<": Range(None, found, high_open=True),
            "<=": Range(None, found),
            ">": Range(found, None, low_open=True),
            ">=": Range(found, None),
        }
        comparator = text(quantity, "comparator")
        if comparator not in ranges:
            raise Malformed("valueQuantity.comparator", "one of <, <=, >, >=")
        return ranges[comparator], self._unit(quantity)

    @staticmethod
    def _unit(quantity: Json) -> str:
        coded = text(quantity, "system").rstrip("/") in ("http://unitsofmeasure.org", "urn:oid:2.16.840.1.113883.6.8")
        return (text(quantity, "code") if coded else "") or text(quantity, "unit") or text(quantity, "code")

    @staticmethod
    def _factor(feature: Feature, unit: str) -> Decimal | None:
        """The factor to the unit of the feature; ``{score}``, ``1`` and no unit at all are the same."""
        if unit == feature.unit:
            return Decimal(1)
        if unit in feature.accepts:
            return feature.accepts[unit]
        bare = (re.fullmatch(r"1?|[{(][^{}()]*[})]", u) for u in (unit, feature.unit))
        return Decimal(1) if all(bare) else None
