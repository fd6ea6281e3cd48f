"""Generated patients as FHIR Bundles, in the forms that our own reader takes (docs/fhir.md, docs/synth.md).

What cannot be said so is counted with the reason, and a Bundle of which it may change an answer is marked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from kypho_kg.criteria import Op
from kypho_kg.fhir_forms import DAY, FORM, Codings, Json, Lost, has_point, measured, point, unknown, when
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.mappings import Mappings
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Fact, Mood, Polarity, Range, Record, Status, TimeSpan
from kypho_kg.vocabulary import LESION as LESION_CLASS
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS
from kypho_kg.vocabulary import local

INCOMPLETE: Final = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
"""The tag of a Bundle that lacks something by which an answer may differ."""
_TEST_DATA = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_RESULT = {
    Status.CONFIRMED: "final", Status.PROVISIONAL: "preliminary", Status.UNCONFIRMED: "unknown",
    Status.ENTERED_IN_ERROR: "entered-in-error",
}  # fmt: skip
_INTENT = {Mood.ORDERED: "order", Mood.PLANNED: "plan"}
_VOID = frozenset({Status.REFUTED, Status.ENTERED_IN_ERROR})

# Why something is left out.
LEVEL = "of a lesion without one sure level"
SHARED = "of a lesion at the level of another one"
UNMADE = "of a lesion of which nothing confirmed is present"
UNPLACED = "not of what the feature belongs to"
BEFORE = "refuted of a lesion before its first statement"
UNDATED = "without a date"
OVERRIDDEN = "overridden"
REQUEST = "of the procedure, and more than a request can say"
UNSAID = "a procedure of which no code says anything"
ORDER = "ordered or planned, and more than a request can say"
VOID = "refuted or a differential diagnosis, without a form"
STATE = "the state of the service"


@dataclass(frozen=True, slots=True)
class _Site:
    """A lesion that a Condition makes: the numbers of the facts that become it."""

    level: int
    maker: int


class FhirWriter:
    """Records as Bundles."""

    def __init__(self, k: Knowledge, mappings: Mappings) -> None:
        self.k = k
        self.codings = Codings(k, mappings)
        self.carried: Counter[str] = Counter()
        """Facts that the Bundles hold, by the local name of their feature."""
        self.left_out: Counter[str] = Counter()
        """What they do not hold, as ``reason: local name of the feature``."""
        self.lacks: frozenset[str] = frozenset()
        """Local names of the features of which the last Bundle lacks something that may count."""

    def bundle(self, record: Record) -> Json:
        """One record as a Bundle with the as-of date as its time; what it cannot carry is counted."""
        writing = _Writing(self, record)
        entries = list(writing.resources())
        self.carried += writing.carried
        self.left_out += writing.left_out
        self.lacks = frozenset(writing.lacks)
        tags = [_TEST_DATA, *([INCOMPLETE] if self.lacks else [])]
        time = {"timestamp": f"{record.as_of}T00:00:00Z"} if record.as_of else {}
        content = [{"resource": resource} for resource in entries]
        return {"resourceType": "Bundle", "type": "collection", "meta": {"tag": tags}, **time, "entry": content}


class _Writing:
    """One record on its way into a Bundle."""

    def __init__(self, writer: FhirWriter, record: Record) -> None:
        self.codings, self.k, self.record = writer.codings, writer.k, record
        self.level = writer.codings.codes.level
        self.now = TimeSpan.of(record.as_of) if record.as_of else None
        self.carried: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.lacks: set[str] = set()
        self.sites: dict[str, _Site] = {}
        self.why: dict[str, str] = {}
        self._find_sites()

    def resources(self) -> Iterator[Json]:
        """The patient, the lesions, the facts and the request."""
        person: Json = {"resourceType": "Patient", "id": self.record.patient}
        done = {number for site in self.sites.values() for number in (site.level, site.maker)}
        for number in done:
            self._took(self.record.facts[number])
        found: list[Json] = []
        for number, fact in enumerate(self.record.facts):
            if fact.subject == PROCEDURE or number in done:
                continue
            try:
                if not self._of_person(person, fact):
                    found.append({**self._resource(fact), "id": f"{self.record.patient}-{number}"})
            except Lost as lost:
                self._lose(fact, str(lost))
            else:
                self._took(fact)
        yield person
        for resource in (*map(self._lesion, self.sites), *found, *self._request()):
            yield {**resource, "subject": {"reference": f"Patient/{self.record.patient}"}}

    # -- what is counted

    def _took(self, fact: Fact) -> None:
        self.carried[local(fact.feature)] += 1

    def _lose(self, fact: Fact, why: str) -> None:
        self.left_out[f"{why}: {local(fact.feature)}"] += 1
        ordered = fact.mood is not Mood.OBSERVED and not self.k.features[fact.feature].order_suffices
        if not (fact.status in _VOID or fact.overridden_by or ordered):
            self.lacks.add(local(fact.feature))

    def _lack_all(self, bearer: str) -> None:
        self.lacks.update(f.name for f in self.k.features.values() if f.bearer == bearer)

    # -- lesions

    def _find_sites(self) -> None:
        """The lesions that a Condition can make: with one level, and a confirmed fact that a code alone states."""
        taken: dict[str, str] = {}
        for lesion in self.record.lesions:
            mine = [(i, f) for i, f in enumerate(self.record.facts) if f.subject == LESION + lesion.id]
            live = [(i, f) for i, f in mine if f.feature == self.level.iri and f.status not in _VOID]
            makers = [(i, f) for i, f in mine if self._makes(f)]
            if len(live) != 1 or not self._sure(live[0][1]) or len(self._at(live[0][1])) != 1:
                self.why[lesion.id] = LEVEL
                continue
            number, at = live[0]
            fitting = [(i, f) for i, f in makers if f.time == at.time or not (self._later(f) or self._later(at))]
            if not fitting:
                self.why[lesion.id] = UNMADE
                continue
            kind = Op.CATEGORY
            maker = min(fitting, key=lambda e: (e[1].time != at.time, self.k.features[e[1].feature].kind is not kind))
            self.sites[lesion.id] = _Site(number, maker[0])
            other = taken.setdefault(next(iter(self._at(at))), lesion.id)
            if other != lesion.id:
                self.why |= {lesion.id: SHARED, other: SHARED}
        for id_ in self.why:
            self.sites.pop(id_, None)
            self._lack_all(LESION_CLASS)

    def _sure(self, fact: Fact) -> bool:
        present = fact.polarity is Polarity.PRESENT and fact.mood is Mood.OBSERVED
        return present and fact.status is Status.CONFIRMED and not fact.overridden_by

    def _at(self, level: Fact) -> frozenset[str]:
        return level.value if isinstance(level.value, frozenset) else frozenset()

    def _makes(self, fact: Fact) -> bool:
        """Whether a Condition with the code of this fact makes a lesion."""
        of_lesion = self.k.features[fact.feature].bearer == LESION_CLASS and fact.feature != self.level.iri
        return of_lesion and self._sure(fact) and self.codings.whole(fact) is not None

    def _later(self, fact: Fact) -> bool:
        """Whether a fact lies after the as-of date, and does not count."""
        return fact.time is not None and (self.now is None or fact.time.wholly_after(self.now))

    def _lesion(self, id_: str) -> Json:
        site = self.sites[id_]
        row = self._condition(self.record.facts[site.maker])
        return {**row, "id": f"{self.record.patient}-{id_}", "bodySite": [self._body_site(site)]}

    def _body_site(self, site: _Site) -> Json:
        return {"coding": [self.codings.coding(self.level.iri, *self._at(self.record.facts[site.level]))]}

    def _place(self, fact: Fact, time: TimeSpan | None, link: str = "") -> Json:
        """What ties a resource to the lesion of a fact: the level, or a link for what lies before its beginning."""
        if not fact.subject.startswith(LESION):
            return {}
        id_ = fact.subject.removeprefix(LESION)
        if id_ not in self.sites:
            raise Lost(self.why.get(id_, UNPLACED))
        start = self.record.facts[self.sites[id_].maker].time
        if start is None or time is None or start.start <= time.end:
            site = self._body_site(self.sites[id_])
            return {"bodySite": site if link == "focus" else [site]}
        if not link:
            raise Lost(BEFORE)
        return {link: [{"reference": f"Condition/{self.record.patient}-{id_}"}]}

    # -- facts

    def _of_person(self, person: Json, fact: Fact) -> bool:
        """Put date of birth and sex where FHIR has them; each once, and only where it is sure."""
        name, value = local(fact.feature), fact.value
        if fact.subject != PATIENT or not self._sure(fact) or fact.time is not None:
            return False
        if name == "birthDate" and isinstance(value, TimeSpan) and DAY.fullmatch(value.text):
            return person.setdefault(name, value.text) is value.text
        if name == "sex" and isinstance(value, frozenset) and len(value) == 1 and "gender" not in person:
            person["gender"] = local(*value).lower()
            return True
        return False

    def _resource(self, fact: Fact) -> Json:
        """The resource of one fact of the patient or a lesion.

        :raises Lost: where there is none.
        """
        feature = self.k.features[fact.feature]
        of_lesion = feature.bearer == LESION_CLASS
        if fact.overridden_by:
            raise Lost(OVERRIDDEN)
        if of_lesion != fact.subject.startswith(LESION) or feature.bearer == PROCEDURE_CLASS:
            raise Lost(UNPLACED)
        if feature is self.level:
            raise Lost(self.why.get(fact.subject.removeprefix(LESION), LEVEL))
        if fact.mood is not Mood.OBSERVED:
            return self._ordered(fact)
        if fact.status not in _RESULT:
            if of_lesion and fact.status not in _VOID:
                raise Lost(VOID)  # such a Condition would make a lesion of its own
            return {**self._condition(fact), **self._place(fact, fact.time)}
        return self._taken(fact) or self._observation(fact, feature)

    def _condition(self, fact: Fact) -> Json:
        """What is present, or suspected or refuted, by a code alone."""
        code = self.codings.whole(fact)
        if code is None or fact.polarity is not Polarity.PRESENT:
            raise Lost(VOID)
        sure = {"coding": [{"system": _VERIFICATION, "code": str(fact.status)}]}
        row: Json = {"resourceType": "Condition", "verificationStatus": sure, "code": {"coding": [code]}}
        if fact.time is None:
            return row
        said = when("onset", fact.time)
        return row | ({"recordedDate": said["onsetDateTime"]} if "onsetDateTime" in said else said)

    def _ordered(self, fact: Fact) -> Json:
        """What was ordered or planned; with more than its code, nobody could read it back."""
        code = self.codings.whole(fact)
        if fact.polarity is not Polarity.PRESENT or fact.status is not Status.CONFIRMED or code is None:
            raise Lost(ORDER)
        row = {"resourceType": "ServiceRequest", "status": "active", "intent": _INTENT[fact.mood]}
        authored = {"authoredOn": point(fact.time)} if fact.time else {}
        return {**row, "code": {"coding": [code]}, **authored, **self._place(fact, fact.time, "reasonReference")}

    def _taken(self, fact: Fact) -> Json | None:
        """A substance that is taken, or not; that it is not is lost where another statement says that it is."""
        code = self.codings.substance(fact.feature)
        present = (f.feature for f in self.record.facts if f.polarity is Polarity.PRESENT)
        unsure = fact.status is not Status.CONFIRMED or fact.polarity is Polarity.INDETERMINATE or fact.time is None
        if code is None or unsure:
            return None
        if fact.polarity is Polarity.ABSENT and any(self.k.subsumes(fact.feature, f) for f in present):
            return None
        assert fact.time
        return {
            "resourceType": "MedicationStatement",
            "status": "active" if fact.polarity is Polarity.PRESENT else "not-taken",
            "medicationCodeableConcept": {"coding": [code]},
            **when("effective", fact.time),
        }

    def _observation(self, fact: Fact, feature: Feature) -> Json:
        """A fact as an Observation; one without a date is said of the as-of date."""
        time = fact.time or self.now
        if time is None:
            raise Lost(UNDATED)
        ruled_out = feature.kind is not Op.FINDING and fact.polarity is Polarity.ABSENT
        code = self.codings.whole(fact) if ruled_out else self.codings.coding(fact.feature)
        if code is None:
            raise Lost(FORM)
        return {
            "resourceType": "Observation",
            "status": _RESULT[fact.status],
            "code": {"coding": [code]},
            **when("effective", time),
            **self._place(fact, time, "focus"),
            **({"valueBoolean": False} if ruled_out else self._value(fact, feature)),
        }

    def _value(self, fact: Fact, feature: Feature) -> Json:
        value = fact.value
        if fact.polarity is Polarity.INDETERMINATE:
            return unknown(fact)
        if feature.kind is Op.FINDING:
            return {"valueBoolean": fact.polarity is Polarity.PRESENT}
        if isinstance(value, Range):
            return measured(value, feature.unit)
        if isinstance(value, TimeSpan):
            return when("value", value)
        values = sorted(value) if isinstance(value, frozenset) else [value] if value else []
        if not values:
            raise Lost(FORM)
        return {"valueCodeableConcept": {"coding": [self.codings.coding(fact.feature, one) for one in values]}}

    # -- the procedure

    def _request(self) -> Iterator[Json]:
        """The proposed procedure as one ServiceRequest: its codes are of one date, and say what is present."""
        facts = [f for f in self.record.facts if f.subject == PROCEDURE]
        proposal = self.record.procedure
        fitting = [f for f in facts if proposal and self._sure(f) and self.codings.whole(f) and has_point(f.time)]
        times = Counter(f.time or self.now for f in fitting)
        day = min(times, key=lambda t: (-times[t], str(t)), default=None)
        said: dict[tuple[str, ...], Fact] = {}
        for fact in facts:
            code = self.codings.whole(fact) if fact in fitting and (fact.time or self.now) == day else None
            if code is None or said.setdefault(tuple(code.values()), fact) is not fact:
                self._lose(fact, REQUEST)
            else:
                self._took(fact)
        if proposal is None:
            return
        if proposal.state:
            self.left_out[f"{STATE}: state"] += 1
        named = [id_ for id_ in proposal.lesions or () if id_ in self.sites]
        if not said or (proposal.lesions is not None and (not named or len(named) != len(proposal.lesions))):
            self._lack_all(PROCEDURE_CLASS)
        if not said:
            self.left_out[f"{UNSAID}: procedure"] += 1
            return
        dated = {f.time for f in said.values()} - {None}
        yield {
            "resourceType": "ServiceRequest",
            "id": f"{self.record.patient}-request",
            "status": "active",
            "intent": "proposal",
            "code": {"coding": [self.codings.whole(fact) for fact in said.values()]},
            **({"authoredOn": point(day)} if dated and day else {}),
            **(when("occurrence", proposal.service_date) if proposal.service_date else {}),
            **({"reasonReference": [{"reference": f"Condition/{self.record.patient}-{i}"} for i in named]}
               if named else {}),
        }  # fmt: skip


def as_line(bundle: Json) -> str:
    """A Bundle in one line; numbers keep their digits."""
    return json.dumps(bundle, ensure_ascii=False, default=_number, separators=(",", ":"))


def _number(value: object) -> int | float:
    assert isinstance(value, Decimal)
    return int(value) if value == value.to_integral_value() else float(value)
