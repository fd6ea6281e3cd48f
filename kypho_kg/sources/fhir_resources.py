"""One FHIR resource to statements, and the statements of one patient to a record.

Each kind of resource has a method that knows its fields, its statuses and its dates; the codes are left to
:mod:`kypho_kg.sources.fhir_codes` and the lesions to :mod:`kypho_kg.sources.lesions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from kypho_kg.criteria import Op
from kypho_kg.intake_report import IntakeReport
from kypho_kg.record import PATIENT, Fact, Mood, Polarity, Source, Status, TimeSpan
from kypho_kg.sources import fhir_codes as fc
from kypho_kg.sources.codes import Stated
from kypho_kg.sources.fhir_codes import Codes, Json, moment, said_so, text, tree, trees
from kypho_kg.sources.lesions import Statement
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS
from kypho_kg.vocabulary import local

_CLINICAL: Mapping[str, bool] = {
    **dict.fromkeys(("active", "recurrence", "relapse", "unknown"), False),
    **dict.fromkeys(("inactive", "remission", "resolved"), True),
}
"""Clinical status, and whether what it says is over."""

_OF_RESULT = fc.statuses(
    confirmed="final amended corrected appended modified available",
    provisional="preliminary partial",
    unconfirmed="unknown inactive",
    none="registered specimen-in-process cancelled",
)
"""Status of a result; none where there is no result."""
_OF_DEED = fc.statuses(
    confirmed="completed in-progress", unconfirmed="stopped unknown", none="preparation on-hold not-done"
)
_OF_REQUEST = fc.statuses(
    confirmed="active on-hold completed draft stopped ended", unconfirmed="unknown", none="cancelled revoked"
)
_OF_TAKING = fc.statuses(
    confirmed="active recorded completed stopped intended draft in-progress not-taken",
    unconfirmed="unknown on-hold",
    none="not-done",
)
_OF_STAY = fc.statuses(
    confirmed="planned in-progress onleave finished discharged completed",
    unconfirmed="arrived triaged unknown on-hold discontinued",
    none="cancelled",
)
_OF_ANSWERS = fc.statuses(confirmed="completed amended", provisional="in-progress stopped")
STATUSES: Mapping[str, Mapping[str, Status | None]] = {
    "Observation": _OF_RESULT,
    "DiagnosticReport": _OF_RESULT,
    "Procedure": _OF_DEED,
    "MedicationRequest": _OF_REQUEST,
    "ServiceRequest": _OF_REQUEST,
    "MedicationStatement": _OF_TAKING,
    "MedicationAdministration": _OF_TAKING,
    "Encounter": _OF_STAY,
}
"""What the statuses mean of the kinds that must have one; none where there is nothing yet."""
IN_WORDS, ATTACHED = "conclusion in words only", "an attached document"
"""What a report holds that is not read."""
_OVER = frozenset({"completed", "stopped", "ended", "finished", "discharged"})
_PLANS = frozenset({"proposal", "plan", "option"})
_VOID = frozenset({Status.REFUTED, Status.ENTERED_IN_ERROR})


class ResourceReader:
    """Reads the resources of one patient."""

    def __init__(
        self,
        codes: Codes,
        report: IntakeReport,
        visits: Callable[[str], Json | None],
        file: str,
        named: Callable[[str], str],
        shared: Callable[[str], Json | None],
    ) -> None:
        self.codes = codes
        self.k = codes.k
        self.report = report
        self.file = file
        self.named = named
        self.shared = shared
        self.visits = visits

    def read(self, where: str, resource: Json) -> list[Statement]:
        """What one resource says.

        :raises Malformed: when a field that is needed cannot be read.
        """
        kind, id_ = resource["resourceType"], text(resource, "id")
        statements = _READERS[kind](self, kind, resource, f"{self.file}: {kind}/{id_}" if id_ else where)
        for statement in statements:
            statement.key = f"{kind}/{id_}" if id_ else ""
            for code, feature in statement.took:
                self.report.took(kind, code, feature)
        return statements

    # -- what the kinds share

    def _visit(self, resource: Json) -> TimeSpan | None:
        """The beginning of the encounter that a resource names."""
        visit = self.visits(self.named(text(tree(resource, "encounter"), "reference")))
        return fc.bounds(visit, "actualPeriod" if "actualPeriod" in visit else "period")[0] if visit else None

    def _links(self, resource: Json, *keys: str) -> tuple[str, ...]:
        return tuple(self.named(ref) for key in keys for ref in fc.references(resource, key))

    def _dated(self, kind: str, time: TimeSpan | None) -> bool:
        if time is None:
            self.report.left(kind, "no date")
        return time is not None

    def _statement(self, kind: str, resource: Json, stated: Iterable[Stated], base: Fact) -> Statement:
        """The facts that codes alone state."""
        said = self.codes.alone(kind, stated, base, proposes=kind == "ServiceRequest")
        self._locate(said, resource, stated)
        return said

    def _locate(self, said: Statement, resource: Json, stated: Iterable[Stated]) -> None:
        coded = frozenset(s.value for s in stated if s.feature is self.codes.level and s.value and not s.absent)
        sites = self.codes.sites(trees(resource, "bodySite"))
        said.levels = (coded & sites) if coded and sites else coded | sites
        if coded and sites and not said.levels:
            self.report.left(said.kind, "code and body site name different levels")

    def _ended(self, said: Statement, resource: Json, end: TimeSpan | None, *, unsure: bool = False) -> None:
        """Add that what a statement says holds no longer, for what can change at all."""
        if end is None:
            updated = moment(tree(resource, "meta"), "lastUpdated")
            end = updated if updated and (said.start is None or updated.wholly_after(said.start)) else None
        self.codes.over(said, end, unsure=unsure)

    # -- kinds

    def _patient(self, kind: str, resource: Json, origin: str) -> list[Statement]:
        said, base = Statement(kind), _base(origin)
        born, sex = self.k.by_name["birthDate"], self.k.by_name["sex"]
        day = moment(resource, "birthDate")
        if day:
            said.facts.append(replace(base, feature=born.iri, value=day))
            said.took.append(("birthDate", born.name))
        gender = text(resource, "gender")
        for value in sex.values:
            if local(value).lower() == gender:
                said.facts.append(replace(base, feature=sex.iri, value=frozenset({value})))
                said.took.append(("gender", sex.name))
        return [said]

    def _condition(self, kind: str, resource: Json, origin: str) -> list[Statement]:
        status = fc.VERIFICATION.get(fc.status_code(resource, "verificationStatus", fc.VERIFICATION), Status.CONFIRMED)
        clinical = fc.status_code(resource, "clinicalStatus", _CLINICAL)
        start = fc.first_time(resource, "onsetDateTime", "onsetPeriod", "recordedDate", "assertedDate")
        gone = fc.first_time(resource, "abatementDateTime", "abatementPeriod")
        abated = any(key.startswith("abatement") and resource[key] not in (None, False) for key in resource)
        stated = self.codes.of(kind, tree(resource, "code"))
        if not stated:
            return []
        said = self._statement(kind, resource, stated, _base(origin, start or self._visit(resource), status))
        said.makes = kind == "Condition" and status not in _VOID
        said.ongoing = not (abated or _CLINICAL.get(clinical, False)) and status not in _VOID
        if not said.ongoing and status not in _VOID:
            self._ended(said, resource, gone, unsure=clinical != "" and not _CLINICAL[clinical])
        return [said]

    def _observed(self, kind: str, resource: Json, origin: str) -> list[Statement]:
        state = fc.one_of(resource, "status", _OF_RESULT)
        status = _OF_RESULT[state]
        time = fc.first_time(resource, "effectiveDateTime", "effectivePeriod", "effectiveInstant", "issued")
        time = time or self._visit(resource)
        said: list[Statement] = []
        for node in (resource, *trees(resource, "component")):
            stated = self.codes.of(kind, tree(node, "code"))
            if not stated or not self._counts(kind, state, status, time):
                continue
            one, base = Statement(kind, start=time, links=self._links(resource, "focus")), _base(origin, time, status)
            for what in stated:
                if what.feature.bearer == PROCEDURE_CLASS or what.feature is self.codes.level:
                    continue
                fact = self._result(kind, node, what, base, ordered=status is None)
                if fact:
                    one.facts.append(fact)
                    one.took.append((what.code, what.feature.name))
                    one.loose |= what.feature.kind is Op.QUANTITY
            self._locate(one, resource, stated)
            said.append(one)
        return said

    def _counts(self, kind: str, state: str, status: Status | None, time: TimeSpan | None) -> bool:
        if state == "cancelled":
            self.report.left(kind, "cancelled")
            return False
        return status is None or self._dated(kind, time)

    def _result(self, kind: str, node: Json, what: Stated, base: Fact, *, ordered: bool) -> Fact | None:
        if ordered:
            return replace(what.fact(base, Polarity.INDETERMINATE), mood=Mood.ORDERED)
        return self.codes.value(kind, node, what, base)

    def _report_of(self, kind: str, resource: Json, origin: str) -> list[Statement]:
        state = fc.one_of(resource, "status", _OF_RESULT)
        status = _OF_RESULT[state]
        time = fc.first_time(resource, "effectiveDateTime", "effectivePeriod", "started", "issued")
        time = time or self._visit(resource)
        concepts = trees(resource, "code") + trees(resource, "procedureCode")
        concepts += [tree(p, "concept") for p in trees(resource, "procedure") if "concept" in p]
        if not concepts:
            for modality in trees(resource, "modality") or [tree(s, "modality") for s in trees(resource, "series")]:
                self.codes.of(kind, modality if "coding" in modality else {"coding": [modality]})
        stated = [one for concept in concepts for one in self.codes.of(kind, concept)]
        concluded = [one for c in trees(resource, "conclusionCode") for one in self.codes.of(kind, c)]
        if text(resource, "conclusion") and not concluded:
            self.report.left(kind, IN_WORDS)
        elif trees(resource, "presentedForm") and not concluded:
            self.report.left(kind, ATTACHED)
        everything = list({(s.feature.iri, s.value, s.absent): s for s in (*stated, *concluded)}.values())
        if not everything or not self._counts(kind, state, status, time):
            return []
        mood = Mood.OBSERVED if status else Mood.ORDERED
        said = self._statement(kind, resource, everything, _base(origin, time, status, mood))
        said.ongoing = status is Status.CONFIRMED
        return [said]

    def _procedure(self, kind: str, resource: Json, origin: str) -> list[Statement]:
        state = fc.one_of(resource, "status", _OF_DEED)
        status = _OF_DEED[state]
        keys = [f"{stem}{form}" for stem in ("performed", "occurrence") for form in ("DateTime", "Period")]
        time = fc.first_time(resource, *keys) or self._visit(resource)
        stated = self.codes.of(kind, tree(resource, "code"))
        if stated and (status or state == "not-done") and not self._dated(kind, time):
            return []
        if not stated:
            return []
        said = self._statement(kind, resource, stated, _base(origin, time, status))
        said.links = self._links(resource, "reasonReference", "reason")
        said.makes = status is not None and status not in _VOID
        said.ongoing = status is Status.CONFIRMED
        if state == "not-done":  # unless it had been done before
            said.ends = _undone(said.facts)
            said.facts, said.end = [], time
        elif status is None:
            said.facts = [replace(fact, mood=Mood.PLANNED) for fact in said.facts]
        return [said]

    def _taken(self, kind: str, resource: Json, origin: str) -> list[Statement]:
        request = kind == "MedicationRequest"
        known = _OF_REQUEST if request else _OF_TAKING
        state = fc.one_of(resource, "status", known)
        status, intent = known[state], text(resource, "intent")
        stated = [
            one for concept in self._products(kind, resource) for one in self.codes.of(kind, concept, substance=True)
        ]
        stated = list({(s.feature.iri, s.value, s.absent): s for s in stated}.values())
        if status is None or said_so(resource, "doNotPerform"):
            self.report.left(kind, "not given: it says nothing of what is taken")
            return []
        start, end = fc.bounds(resource, "effectivePeriod" if "effectivePeriod" in resource else "occurencePeriod")
        start = start or fc.first_time(resource, "effectiveDateTime", "occurenceDateTime", "dateAsserted", "authoredOn")
        if request and end is None:
            end = fc.bounds(tree(resource, "dispenseRequest"), "validityPeriod")[1]
        start = start or self._visit(resource)
        given = kind == "MedicationAdministration"
        if stated and (given or state in _OVER) and not self._dated(kind, start):
            return []
        if request and state == "on-hold":
            status = Status.UNCONFIRMED
        if not stated:
            return []
        mood = Mood.PLANNED if intent in _PLANS or state in ("draft", "intended") else Mood.OBSERVED
        said = self._statement(kind, resource, stated, _base(origin, start, status, mood))
        said.ongoing = state in ("active", "recorded") and mood is Mood.OBSERVED
        if state == "not-taken":
            said.ends = _undone(said.facts)
            said.facts, said.end = [], start
        elif state in _OVER and not given and mood is Mood.OBSERVED:
            self._ended(said, resource, end)
        return [said]

    def _products(self, kind: str, resource: Json) -> list[Json]:
        """The concepts of what is taken: its own code, or else its ingredients."""
        both = tree(resource, "medication")
        concept = tree(resource, "medicationCodeableConcept") or tree(both, "concept")
        if concept:
            return [concept]
        ref = text(tree(resource, "medicationReference") or tree(both, "reference"), "reference")
        inside = {f"#{r.get('id')}": r for r in trees(resource, "contained")}
        product = inside.get(ref) if ref.startswith("#") else self.shared(ref) if ref else None
        if product is None:
            self.report.left(kind, "what is taken is not in the source")
            return []
        code = tree(product, "code")
        parts = [
            tree(i, "itemCodeableConcept") or tree(tree(i, "item"), "concept") for i in trees(product, "ingredient")
        ]
        parts = [part for part in parts if part]
        known = any(self.codes.stated(c, substance=True) for c in trees(code, "coding"))
        return [code] if known or not parts else parts

    def _encounter(self, kind: str, resource: Json, origin: str) -> list[Statement]:
        state = fc.one_of(resource, "status", _OF_STAY)
        status = _OF_STAY[state]
        start, end = fc.bounds(resource, "actualPeriod" if "actualPeriod" in resource else "period")
        concepts = [c if "coding" in c else {"coding": [c]} for c in trees(resource, "class")]
        stated = [one for concept in concepts for one in self.codes.of(kind, concept)]
        if not stated or status is None or not self._dated(kind, start):
            return []
        mood = Mood.PLANNED if state == "planned" else Mood.OBSERVED
        said = self._statement(kind, resource, stated, _base(origin, start, status, mood))
        said.ongoing = state in ("in-progress", "onleave")
        if state in _OVER:
            self._ended(said, resource, end)
        return [said]

    def _request(self, kind: str, resource: Json, origin: str) -> list[Statement]:
        state = fc.one_of(resource, "status", _OF_REQUEST)
        status, intent = _OF_REQUEST[state], text(resource, "intent")
        code = tree(resource, "code")
        stated = self.codes.of(kind, tree(code, "concept") or code)
        if status is None or said_so(resource, "doNotPerform"):
            self.report.left(kind, "revoked, or an order not to do it")
            return []
        time = moment(resource, "authoredOn") or self._visit(resource)
        if not stated:
            return []
        said = self._statement(kind, resource, stated, _base(origin, time, status))
        mood = Mood.PLANNED if intent in _PLANS or state == "draft" else Mood.ORDERED
        said.facts = [replace(fact, mood=mood) for fact in said.facts]
        said.links = self._links(resource, "reasonReference", "reason")
        said.service = fc.first_time(resource, "occurrenceDateTime", "occurrencePeriod")
        if status in _VOID or state not in ("active", "on-hold", "draft"):
            said.proposed = []
        said.took += [
            (one.code, one.feature.name) for one in stated if said.proposed and one.feature.bearer == PROCEDURE_CLASS
        ]
        return [said]

    def _answers(self, kind: str, resource: Json, origin: str) -> list[Statement]:
        status = _OF_ANSWERS[fc.one_of(resource, "status", _OF_ANSWERS)]
        time = moment(resource, "authored") or self._visit(resource)
        said: list[Statement] = []
        todo = list(reversed(trees(resource, "item")))
        while todo:
            item = todo.pop()
            replies = trees(item, "answer")
            todo += [inner for node in (*replies, item) for inner in trees(node, "item")]
            if not replies:
                continue
            stated = self.codes.asked(kind, item)
            if not stated or not self._dated(kind, time):
                continue
            one = Statement(kind, start=time, loose=any(s.feature.kind is Op.QUANTITY for s in stated))
            base = _base(origin, time, status)
            for what in stated:
                for reply in replies:
                    fact = self._result(kind, reply, what, base, ordered=status is None)
                    if fact and what.feature.bearer != PROCEDURE_CLASS and what.feature is not self.codes.level:
                        one.facts.append(fact)
                        one.took.append((what.code, what.feature.name))
            said.append(one)
        return said


def _base(origin: str, time: TimeSpan | None = None, status: Status | None = None, mood: Mood = Mood.OBSERVED) -> Fact:
    """What the facts of one resource have in common."""
    return Fact(PATIENT, "", mood=mood, time=time, status=status or Status.CONFIRMED, source=Source(origin))


def _undone(facts: Iterable[Fact]) -> list[Fact]:
    """Facts that a deed or an intake would have made, had it taken place."""
    return [replace(fact, polarity=Polarity.ABSENT) for fact in facts if fact.polarity is Polarity.PRESENT]


_Reader = Callable[[ResourceReader, str, Json, str], list[Statement]]
_READERS: Mapping[str, _Reader] = {
    "Patient": ResourceReader._patient,
    "Condition": ResourceReader._condition,
    "AllergyIntolerance": ResourceReader._condition,
    "Observation": ResourceReader._observed,
    "DiagnosticReport": ResourceReader._report_of,
    "ImagingStudy": ResourceReader._report_of,
    "Procedure": ResourceReader._procedure,
    "MedicationRequest": ResourceReader._taken,
    "MedicationStatement": ResourceReader._taken,
    "MedicationUsage": ResourceReader._taken,
    "MedicationAdministration": ResourceReader._taken,
    "Encounter": ResourceReader._encounter,
    "ServiceRequest": ResourceReader._request,
    "QuestionnaireResponse": ResourceReader._answers,
}
OWNED = frozenset(_READERS) - {"Patient"}
"""Kinds of resources that are read and belong to a patient."""
