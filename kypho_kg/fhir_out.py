"""Answers as FHIR R4 (4.0.1): one Bundle with a GuidanceResponse for each case and guideline.

What becomes what is written in docs/fhir-out.md. Nothing reads the clock: a date is one of the record, or the as-of
date. Ids are UUIDs of the content, so the same answer has the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from kypho_kg.candidacy import Answer, Assessment, ClauseResult, cautions, documentation
from kypho_kg.errors import Problem
from kypho_kg.evaluation import Truth
from kypho_kg.explanation import Explained, explain
from kypho_kg.fhir_facts import SYSTEM, URN, Entries, PatientWriter, Terms, asserted, source_reference, uuid_of
from kypho_kg.guidelines import ABSOLUTE, RELATIVE
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import Mappings, load_mappings
from kypho_kg.missing import OPEN_VERDICTS
from kypho_kg.proof_json import cause_of
from kypho_kg.reasons import deciding, decisive_clauses
from kypho_kg.record import LESION, PROCEDURE, Cause, Fact
from kypho_kg.report import DISCLAIMER
from kypho_kg.vocabulary import KYPHO, local
from kypho_kg.words import cause_words, fact_in_short, said

Json = dict[str, Any]

_SEVERITY = {ABSOLUTE: "high", RELATIVE: "moderate"}
_ISSUE_CODE = {
    "coding": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
            "code": "OBSA",
            "display": "Observation Alert",
        }
    ]
}
_PERFORMER = {
    "coding": [
        {"system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type", "code": "performer"},
    ]
}
_NOTED = {Cause.NOT_ASSESSABLE: "processing", Cause.CONFLICTING: "conflict", Cause.INVALID: "value"}
"""Causes of an unknown that a reader must know of, with the codes of their issues; the rest is information."""


def answers_fhir(
    answers: Iterable[Answer], problems: Iterable[Problem], software: str, *, mappings: Mappings | None = None
) -> Json:
    """All answers of one run as a Bundle of the type *collection*.

    :param problems: what of the input could not be read; they become one OperationOutcome.
    :param software: name and version of the program, as ``kypho-kg 1.2.3``.
    :param mappings: codes of terminologies; by default the bundled ones.
    """
    entries = Entries()
    device = entries.add(_device(software))
    issues = [_issue("error", "invalid", str(p)) for p in problems]
    for answer in answers:
        mappings = mappings or load_mappings(answer.knowledge)
        terms = Terms(answer.knowledge, mappings)
        patient = PatientWriter(entries, terms, answer)
        if not answer.cases:
            missing = "the record has no vertebral lesion, so there is no case"
            issues.append(_issue("information", "informational", f"patient {answer.record.patient}: {missing}"))
        for explained in explain(answer):
            _Case(entries, terms, patient, device, explained, software).write()
    if issues:
        entries.add({"resourceType": "OperationOutcome", "issue": issues})
    id_ = uuid_of([e["fullUrl"] for e in entries.all()])
    return {
        "resourceType": "Bundle",
        "id": id_,
        "identifier": {"system": URN, "value": f"urn:uuid:{id_}"},
        "type": "collection",
        "entry": entries.all(),
    }


def _device(software: str) -> Json:
    name, _, version = software.rpartition(" ")
    return {
        "resourceType": "Device",
        "deviceName": [{"name": name or software, "type": "model-name"}],
        "type": {"text": "software"},
        "version": [{"value": version}],
        "note": [{"text": DISCLAIMER}],
    }


def _issue(severity: str, code: str, text: str) -> Json:
    return {"severity": severity, "code": code, "diagnostics": text}


class _Case:
    """Writes what the guidelines say of one lesion of one patient."""

    def __init__(
        self, entries: Entries, terms: Terms, patient: PatientWriter, device: Json, explained: Explained, software: str
    ) -> None:
        self._entries = entries
        self._terms = terms
        self._patient = patient
        self._device = device
        self._explained = explained
        self._software = software
        self._k: Knowledge = explained.knowledge
        self._day = explained.answer.as_of.isoformat()
        self._lesion = patient.lesion(LESION + explained.case.lesion.id)

    def write(self) -> None:
        for assessment in self._explained.case.assessments:
            issues = {c.recommendation.id: self._entries.add(self._detected(c)) for c in _contraindications(assessment)}
            response = self._entries.add(self._response(assessment, issues))
            self._entries.add(self._provenance(assessment, [response, *issues.values()]))

    # -- the answer of one guideline

    def _response(self, a: Assessment, issues: dict[str, Json]) -> Json:
        answer, g = self._explained.answer, a.guideline
        output: Json = {"resourceType": "Parameters", "id": "output"}
        output["parameter"] = list(self._output(a, issues))
        contained = [output]
        messages = list(dict.fromkeys(self._messages(a)))
        if messages:
            rows = [_issue(*message) for message in messages]
            contained.append({"resourceType": "OperationOutcome", "id": "messages", "issue": rows})
        question = uuid_of(
            "request",
            [answer.record.patient, self._explained.case.lesion.id, g.iri, self._day],
            [answer.policies, answer.bridged, a.reading],
        )
        row: Json = {
            "resourceType": "GuidanceResponse",
            **self._patient.meta,
            "contained": contained,
            "requestIdentifier": {"system": URN, "value": f"urn:uuid:{question}"},
            "moduleUri": f"{g.iri}|{quote(g.version, safe='')}" if g.version else g.iri,
            "status": "data-required" if a.verdict in OPEN_VERDICTS else "success",
            "subject": self._patient.patient,
            "occurrenceDateTime": self._day,
            "performer": self._device,
            "reasonCode": [
                {"coding": [{"system": SYSTEM, "code": a.verdict, "display": self._k.label(KYPHO + a.verdict)}],
                 "text": said(a)}
            ],
            "note": [{"text": DISCLAIMER}],
        }  # fmt: skip
        if messages:
            row["evaluationMessage"] = [{"reference": "#messages"}]
        row["outputParameters"] = {"reference": "#output"}
        if a.verdict in OPEN_VERDICTS:
            wanted = [n for n in self._explained.needs(a) if n.obtainable]
            needs = [self._terms.requirement(need, answer.as_of) for need in wanted]
            if needs:
                row["dataRequirement"] = needs
        return row

    def _output(self, a: Assessment, issues: dict[str, Json]) -> Iterator[Json]:
        answer, case, g = self._explained.answer, self._explained.case, a.guideline
        met, unknown = cautions(a)
        yield _named("verdict", "Code", a.verdict)
        yield _named("wording", "String", said(a))
        yield from (_named("reachable", "Code", v) for v in a.conclusion.reachable)
        yield _named("lesion", "Reference", self._lesion)
        technique = case.snapshot.value(PROCEDURE, self._k.by_name["technique"].iri).value
        if isinstance(technique, frozenset):
            yield from (_named("technique", "Code", local(t)) for t in sorted(technique))
        yield from _parts("guideline", id=g.id, title=g.title, version=g.version, layer=g.layer, url=g.url)
        if a.in_force is not None:
            yield _named("in-force", "Boolean", a.in_force)
        yield from _texts("category", a.categories)
        yield from _texts("reading", filter(None, [a.reading]))
        for name, other in a.readings.items():
            yield from _parts("other-reading", reading=name or "main", verdict=other.verdict)
        yield from _texts("caution-met", met)
        yield from _texts("caution-unknown", unknown)
        yield from _texts("documentation-missing", documentation(a)[1])
        yield from _texts("bridge", a.bridges)
        if a.unbridged:
            yield _named("verdict-without-bridges", "Code", a.unbridged.verdict)
        if a.assumed:
            yield {
                "name": "assumed",
                "part": [
                    *_texts("policy", a.assumed.policies),
                    _named("verdict", "Code", a.assumed.conclusion.verdict),
                    *(_named("reachable", "Code", v) for v in a.assumed.conclusion.reachable),
                    *_texts("assumption", (fact_in_short(self._k, f) for f in a.assumed.assumptions)),
                ],
            }
        for clause in a.clauses:
            yield self._clause(clause, issues)
        yield from _parts(
            "run",
            knowledge_base_version=self._k.version,
            knowledge_base_sha256=self._k.sha256,
            software=self._software,
            as_of=self._day,
            assumed=", ".join(answer.policies),
            bridges="used" if answer.bridged else "not used",
        )

    def _clause(self, clause: ClauseResult, issues: dict[str, Json]) -> Json:
        r = clause.recommendation
        parts = [
            _named("id", "String", r.id),
            _named("effect", "Code", r.effect),
            _named("truth", "Code", clause.truth.words),
            *(_named("cause", "Code", cause) for cause in filter(None, [cause_of(clause.proof)])),
            *_texts("label", [r.label]),
            _named("verification", "Code", r.mark),
            *_texts("citation", [r.citation]),
            *(_named("url", "Uri", url) for url in filter(None, [r.url])),
            *_texts("reading", [r.reading]),
            *(_named("fact", "Reference", self._patient.fact(f)) for f in facts_of(clause)),
            *(_named("issue", "Reference", issues[r.id]) for _ in range(r.id in issues)),
        ]
        return {"name": "clause", "part": parts}

    def _messages(self, a: Assessment) -> Iterator[tuple[str, str, str]]:
        """What a reader must know before relying on the verdict: severity, code and text."""
        g = a.guideline
        for clause in decisive_clauses(a):
            for leaf in clause.proof.unknown_leaves():
                if leaf.gap is None or leaf.gap.cause is Cause.NOT_RECORDED:
                    continue
                name = self._k.label(leaf.criterion.term) if leaf.criterion.term else self._k.plain(leaf.criterion.name)
                noted = _NOTED.get(leaf.gap.cause)
                text = f"{name}: {cause_words(self._k, leaf)}"
                yield ("warning" if noted else "information"), noted or "informational", text
        if a.in_force is False:
            yield "information", "informational", "The policy is not in force for this service date, place or payer."
        elif a.in_force is None:
            yield "information", "informational", "It is not known whether the policy is in force for this case."
        if g.rests_on_unverified:
            yield "warning", "informational", "The guideline holds clauses that were not verified at any source."

    # -- what goes with it

    def _detected(self, clause: ClauseResult) -> Json:
        r = clause.recommendation
        row: Json = {
            "resourceType": "DetectedIssue",
            **self._patient.meta,
            "status": "final",
            "code": _ISSUE_CODE,
            "severity": _SEVERITY[r.effect],
            "patient": self._patient.patient,
            "identifiedDateTime": self._day,
            "author": self._device,
        }
        facts = [self._patient.fact(f) for f in facts_of(clause)]
        code = {"coding": [{"system": SYSTEM, "code": r.id, "display": r.label}]}
        row["evidence"] = [{"code": [code], **({"detail": facts} if facts else {})}]
        row["detail"] = f"{r.label} ({r.citation})"
        return {**row, "reference": r.url} if r.url else row

    def _provenance(self, a: Assessment, targets: Sequence[Json]) -> Json:
        used = asserted(f for clause in a.counted for f in facts_of(clause))
        places = filter(None, map(source_reference, used))
        base = {
            "identifier": {"system": f"{SYSTEM}/knowledge-base", "value": f"sha256:{self._k.sha256}"},
            "display": f"knowledge base {self._k.version}",
        }
        policies = (self._k.policy(name).iri for name in self._explained.answer.policies if name != "strict")
        return {
            "resourceType": "Provenance",
            **self._patient.meta,
            "target": list(targets),
            "occurredDateTime": self._day,
            "recorded": f"{self._day}T00:00:00Z",
            "policy": [a.guideline.iri, *policies],
            "agent": [{"type": _PERFORMER, "who": self._device}],
            "entity": [{"role": "source", "what": what} for what in _unique([base, *places])],
        }


def facts_of(clause: ClauseResult) -> tuple[Fact, ...]:
    """The facts by which a clause has the truth it has, or which leave it unknown."""
    return tuple(dict.fromkeys(f for leaf in deciding(clause.proof) for f in leaf.facts))


def _contraindications(a: Assessment) -> Iterator[ClauseResult]:
    """The contraindications that are met and enter the verdict."""
    for effect in _SEVERITY:
        yield from a.having(effect, Truth.MET)


def _unique(rows: Iterable[Json]) -> list[Json]:
    return list({uuid_of(row): row for row in rows}.values())


def _named(name: str, kind: str, value: object) -> Json:
    """A parameter with one value."""
    return {"name": name, f"value{kind}": value}


def _texts(name: str, values: Iterable[str]) -> Iterator[Json]:
    """A parameter for each text that is not empty."""
    return (_named(name, "String", v) for v in values if v.strip())


def _parts(name: str, **values: str) -> Iterator[Json]:
    """A parameter that has parts; an empty text is left out."""
    parts = [p for key, value in values.items() for p in _texts(key.replace("_", "-"), [value])]
    if parts:
        yield {"name": name, "part": parts}
