"""A packet as FHIR R4: for each policy a Questionnaire, and for each lesion its answers.

Made after the Da Vinci guides for prior authorization: each answer says whether it was taken from the record, put in
place of what the record says, or typed in. What the record does not say has no answer.
"""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Iterator
from typing import Any, Final

from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Proof, Truth
from kypho_kg.guidelines import Guideline
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.mappings import EXACT, load_mappings
from kypho_kg.packet import STATEMENT, Check, Packet, PolicyPart, Section
from kypho_kg.packet_header import Filled, Origin
from kypho_kg.record import Fact, Range, Record
from kypho_kg.report import level_words
from kypho_kg.vocabulary import KYPHO, local

Json = dict[str, Any]

CANONICAL: Final = "https://w3id.org/kypho/packet/"
SYSTEM: Final = "https://w3id.org/kypho"
"""The code system of our own terms."""
ORIGIN: Final = "http://hl7.org/fhir/us/davinci-dtr/StructureDefinition/information-origin"
SOURCE: Final = "https://w3id.org/kypho/fhir/StructureDefinition/answer-source"
"""Our extension: the document, date, author and quote behind an answer."""
_UNIT: Final = "http://hl7.org/fhir/StructureDefinition/questionnaire-unit"
_UCUM: Final = "http://unitsofmeasure.org"
_STATES: Final = {Truth.MET: "met", Truth.NOT_MET: "not-met", Truth.UNKNOWN: "not-addressed"}
_STATE_SYSTEM: Final = "https://w3id.org/kypho/packet/state"
_TYPES: Final = {"date": "date", "number": "integer"}
_VALUES: Final = {"date": "valueDate", "integer": "valueInteger", "string": "valueString"}
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?", re.ASCII)
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, CANONICAL)

_mappings = functools.lru_cache(maxsize=2)(load_mappings)


def packet_fhir(packet: Packet, software: str) -> Json:
    """A packet as a Bundle of type ``collection``.

    Where no policy can be named, an OperationOutcome says what is missing.
    """
    k, patient = packet.knowledge, _patient(packet)
    url = _urn("patient", packet.record.patient)
    entries: list[Json] = [{"fullUrl": url, "resource": patient}]
    for part in packet.parts:
        form = questionnaire(packet, part)
        entries.append({"fullUrl": form["url"], "resource": form})
        for section in part.sections:
            key = (packet.record.patient, part.guideline.id, section.case.lesion.id, str(packet.as_of))
            entries.append({"fullUrl": _urn(*key), "resource": _response(packet, part, section, url, software)})
    if packet.maybe or not packet.parts:
        entries.append({"fullUrl": _urn("outcome", packet.record.patient), "resource": _outcome(packet)})
    for entry in entries:
        entry["resource"]["meta"] = {"tag": [{"system": SYSTEM, "code": k.version, "display": f"sha256 {k.sha256}"}]}
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def _urn(*key: str) -> str:
    """The same address for the same thing in every run."""
    return f"urn:uuid:{uuid.uuid5(_NAMESPACE, chr(0).join(key))}"


def _patient(packet: Packet) -> Json:
    """The patient as far as the record says who it is; the head of the request is in the answers."""
    fields = {f.field.key: f for f in packet.header if f.values}
    row: Json = {"resourceType": "Patient", "identifier": [{"value": packet.record.patient}]}
    born = fields.get("beneficiary.birth_date")
    if born and _DATE.fullmatch(born.values[0]):
        row["birthDate"] = born.values[0]
    sex = fields.get("beneficiary.sex")
    if sex and sex.values[0] in {"female", "male"}:
        row["gender"] = sex.values[0]
    return row


def _outcome(packet: Packet) -> Json:
    if packet.maybe:
        ids = ", ".join(m.guideline.id for m in packet.maybe)
        said = f"not known: {', '.join(packet.lacking)}; so it is not known whether these apply: {ids}"
    else:
        said = "no coverage policy of the knowledge base applies to this service"
    issue = {"severity": "warning", "code": "incomplete", "diagnostics": said}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


# -- the questions


def questionnaire(packet: Packet, part: PolicyPart) -> Json:
    """The Questionnaire of one policy: the head of the request, then a group for each clause."""
    k, g = packet.knowledge, part.guideline
    form: Json = {
        "resourceType": "Questionnaire",
        "url": CANONICAL + g.id,
        "version": k.version,
        "name": "Packet_" + re.sub(r"\W", "_", g.id),
        "title": f"Prior authorization packet: {g.title}",
        "status": "active",
        "subjectType": ["Patient"],
        "publisher": "The Kypho KG project",
        "description": f"{g.citation}. {STATEMENT}",
        "item": [_head(packet, g), *_groups(k, g)],
    }
    if g.licence:
        form["copyright"] = g.licence
    return form


def _head(packet: Packet, g: Guideline) -> Json:
    groups: dict[tuple[str, str], list[Json]] = {}
    for filled in packet.header:
        one = filled.field
        item = {
            "linkId": f"header/{one.key}",
            "code": [{"system": SYSTEM, "code": local(one.iri), "display": one.label}],
            "text": one.label,
            "type": _TYPES.get(one.type, "string"),
            "required": g.id in filled.asked_by,
            "repeats": one.several,
        }
        groups.setdefault((one.key.partition(".")[0], one.group), []).append(item)
    rows = [
        {"linkId": f"header/{key}", "text": name, "type": "group", "item": items}
        for (key, name), items in groups.items()
    ]
    lesion = {"linkId": "header/lesion", "text": "lesion to which the answers refer", "type": "string"}
    return {"linkId": "header", "text": "The request", "type": "group", "item": [*rows, lesion]}


def _groups(k: Knowledge, g: Guideline) -> Iterator[Json]:
    """A group for each clause with a question for each feature that it asks for; the same for every patient."""
    for r in g.recommendations:
        if r.reading:
            continue
        options = [{"valueCoding": _state(truth)} for truth in Truth]
        state = {"linkId": f"{r.id}/state", "text": "By the record", "type": "choice", "answerOption": options}
        yield {
            "linkId": r.id,
            "code": [{"system": SYSTEM, "code": r.effect, "display": k.plain(KYPHO + r.effect)}],
            "prefix": r.clause,
            "text": r.text or r.label,
            "type": "group",
            "item": [{**state, "readOnly": True}, *(_question(k, r.id, f) for f in _asked(k, r.criterion))],
        }


def _state(truth: Truth) -> Json:
    code = _STATES[truth]
    return {"system": _STATE_SYSTEM, "code": code, "display": code.replace("-", " ")}


def _asked(k: Knowledge, criterion: Criterion) -> list[Feature]:
    """The features that a clause asks for, each once, in its order."""
    terms = dict.fromkeys(node.term for node in criterion.walk() if not node.children and node.term in k.features)
    return [k.features[term] for term in terms]


def _question(k: Knowledge, clause: str, feature: Feature) -> Json:
    item: Json = {
        "linkId": f"{clause}/{feature.name}",
        "code": list(_codes(k, feature.iri)),
        "text": feature.plain,
    }
    if feature.kind is Op.FINDING:
        return {**item, "type": "boolean"}
    if feature.kind is Op.QUANTITY:
        unit = {"system": _UCUM, "code": feature.unit}
        with_unit = {"extension": [{"url": _UNIT, "valueCoding": unit}]} if feature.unit else {}
        return {**with_unit, **item, "type": "decimal"}
    ordered = sorted(feature.values, key=lambda v: (k.level_order(v), k.label(v)))
    return {**item, "type": "choice", "answerOption": [{"valueCoding": _coding(k, v)} for v in ordered]}


def _coding(k: Knowledge, iri: str) -> Json:
    return {"system": SYSTEM, "code": local(iri), "display": k.label(iri)}


def _codes(k: Knowledge, iri: str) -> Iterator[Json]:
    """Our own code of a feature, and those of terminologies that mean exactly the same."""
    yield _coding(k, iri)
    mappings = _mappings(k)
    for row in mappings.of_term(iri):
        if row.predicate == EXACT and (system := mappings.systems[row.prefix].fhir_system):
            yield {"system": system, "code": row.code} | ({"display": row.label} if row.label else {})


# -- the answers


def _response(packet: Packet, part: PolicyPart, section: Section, patient: str, software: str) -> Json:
    """What the record answers about one lesion."""
    k, g, case = packet.knowledge, part.guideline, section.case
    blank = any(g.id in f.asked_by for f in packet.blanks)
    lesion = ", ".join(filter(None, (case.lesion.id, level_words(k, case))))
    return {
        "resourceType": "QuestionnaireResponse",
        "questionnaire": f"{CANONICAL}{g.id}|{k.version}",
        "status": "in-progress" if section.open or blank else "completed",
        "subject": {"reference": patient},
        "authored": str(packet.as_of),
        "author": {"display": software},
        "item": [_head_answers(packet, lesion), *(_clause_answers(packet, section, c) for c in section.checks)],
    }


def _head_answers(packet: Packet, lesion: str) -> Json:
    groups: dict[str, list[Json]] = {}
    for filled in packet.header:
        kind = _TYPES.get(filled.field.type, "string")
        values = [v for v in map(functools.partial(_typed, kind), filled.values) if v is not None]
        if values:
            origin = _head_origin(packet, filled)
            answers = [{"extension": origin, _VALUES[kind]: value} for value in values]
            row = {"linkId": f"header/{filled.field.key}", "text": filled.field.label, "answer": answers}
            groups.setdefault(filled.field.key.partition(".")[0], []).append(row)
    rows: list[Json] = [{"linkId": f"header/{name}", "item": items} for name, items in groups.items()]
    rows.append({"linkId": "header/lesion", "answer": [{"extension": [_origin("auto")], "valueString": lesion}]})
    return {"linkId": "header", "item": rows}


def _typed(kind: str, value: str) -> str | int | None:
    """A value as its type takes it, or nothing where it does not fit."""
    if kind == "date":
        return value if _DATE.fullmatch(value) else None
    if kind == "integer":
        return int(value) if value.isascii() and value.isdigit() else None
    return value


def _head_origin(packet: Packet, filled: Filled) -> list[Json]:
    if filled.origin is Origin.HEADER:
        return [_origin("override" if filled.recorded else "manual", packet.author)]
    if filled.origin is Origin.OPTION:
        return [_origin("manual", f"command line ({filled.source})")]
    said = {"url": SOURCE, "extension": [{"url": "place", "valueString": filled.source}]}
    return [_origin("auto"), *([said] if filled.source else [])]


def _origin(code: str, author: str = "") -> Json:
    """How an answer came about; one that a person gave names the person, any other must not."""
    parts: list[Json] = [{"url": "source", "valueCode": code}]
    if code != "auto":
        parts.append({"url": "author", "valueReference": {"display": author or "not named"}})
    return {"url": ORIGIN, "extension": parts}


def _clause_answers(packet: Packet, section: Section, check: Check) -> Json:
    k, r = packet.knowledge, check.clause.recommendation
    state = {"extension": [_origin("auto")], "valueCoding": _state(check.clause.truth)}
    rows: list[Json] = [{"linkId": f"{r.id}/state", "answer": [state]}]
    done: set[str] = set()
    for point in check.points:
        term = point.proof.criterion.term
        if term in done:
            continue
        value, facts = _answer(k, section, point.proof)
        if value is not None:
            done.add(term)
            origin = _fact_origin(packet.record, facts)
            name = k.features[term].name
            rows.append({"linkId": f"{r.id}/{name}", "answer": [{"extension": origin, **value}]})
    return {"linkId": r.id, "text": r.label, "item": rows}


def _answer(k: Knowledge, section: Section, proof: Proof) -> tuple[Json | None, tuple[Fact, ...]]:
    """The value of the feature that an atom asks for; none where it is not known to be one."""
    c = proof.criterion
    if c.op is Op.FINDING:
        known = proof.truth is not Truth.UNKNOWN
        return ({"valueBoolean": proof.truth is Truth.MET} if known else None), proof.facts
    state = section.case.snapshot.value(proof.subject, c.term)
    value = state.value
    if isinstance(value, Range) and value.exact is not None:
        return {"valueDecimal": float(value.exact)}, state.facts
    if isinstance(value, frozenset) and len(value) == 1:
        return {"valueCoding": _coding(k, next(iter(value)))}, state.facts
    if isinstance(value, str):
        return {"valueCoding": _coding(k, value)}, state.facts
    return None, ()


def _fact_origin(record: Record, facts: tuple[Fact, ...]) -> list[Json]:
    """Whether facts were taken from the record or put in its place, and where each was read."""
    asserted = tuple(dict.fromkeys(x for f in facts for x in _asserted(f)))
    replaced = {(f.subject, f.feature): f.overridden_by for f in record.facts if f.overridden_by}
    over = next((o for f in asserted if (o := replaced.get((f.subject, f.feature)))), None)
    origin = _origin("override", over.author) if over else _origin("auto")
    return [origin, *(_source(f) for f in asserted if f.source.origin or f.source.document)]


def _asserted(fact: Fact) -> Iterator[Fact]:
    """What a fact rests on in the end."""
    if not fact.premises:
        yield fact
    for premise in fact.premises:
        yield from _asserted(premise)


def _source(fact: Fact) -> Json:
    said = fact.source
    parts = (
        ("document", said.document), ("date", said.date), ("author", said.author), ("quote", said.quote),
        ("place", said.origin), ("time", str(fact.time) if fact.time else ""),
    )  # fmt: skip
    return {"url": SOURCE, "extension": [{"url": name, "valueString": text} for name, text in parts if text.strip()]}
