"""A packet as JSON: the contract of ``schemas/packet.schema.json``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kypho_kg.coverage import coverage_json
from kypho_kg.errors import Problem
from kypho_kg.guidelines import Guideline
from kypho_kg.knowledge import Knowledge
from kypho_kg.packet import AFTER, BEFORE, STATEMENT, Check, Packet, Point, PolicyPart, Section, Wanting
from kypho_kg.packet_header import Filled
from kypho_kg.proof_json import atom_json, value_json
from kypho_kg.reasons import standing
from kypho_kg.record import Fact, Range
from kypho_kg.report import DISCLAIMER, level_names
from kypho_kg.vocabulary import KYPHO, local
from kypho_kg.words import fact_in_short, range_json

Json = dict[str, Any]


def packet_json(packet: Packet, software: str, rejected: Iterable[Problem] = ()) -> Json:
    """A packet as data; what is blank is null."""
    k = packet.knowledge
    return {
        "schema_version": "1",
        "run": {
            "knowledge_base": {"version": k.version, "sha256": k.sha256},
            "mappings": sorted(packet.record.mappings),
            "software": software,
            "as_of": str(packet.as_of),
            "files": list(packet.record.files),
            "assumptions": [],
        },
        "disclaimer": DISCLAIMER,
        "statement": STATEMENT,
        "coverage": coverage_json(k, [packet.record]),
        "patient": packet.record.patient,
        "constructed": packet.record.constructed,
        "lesions": list(packet.lesions),
        "header_author": packet.author or None,
        "request": [_filled_json(f) for f in packet.header],
        "blank_fields": [f.field.key for f in packet.blanks],
        "service_date_known": not packet.undated,
        "policies": [_part_json(k, p) for p in packet.parts],
        "not_known": list(packet.lacking),
        "candidates": [{**_guideline_json(k, m.guideline), "not_known": list(m.missing)} for m in packet.maybe],
        "contradictions": [
            {"subject": c.subject, "feature": local(c.feature), "facts": [evidence_json(k, f) for f in c.facts]}
            for c in packet.contradictions
        ],
        "not_counted": list(packet.unused),
        "rejected": [{"where": p.where, "what": p.what, "expected": p.expected} for p in rejected],
    }


def _filled_json(filled: Filled) -> Json:
    one, values = filled.field, list(filled.values)
    return {
        "key": one.key,
        "group": one.group,
        "label": one.label,
        "value": (values if one.several else " or ".join(values)) if values else None,
        "origin": str(filled.origin),
        "source": filled.source or None,
        "recorded": list(filled.recorded),
        "asked_by": list(filled.asked_by),
        "notes": list(filled.notes),
    }


def _guideline_json(k: Knowledge, g: Guideline) -> Json:
    return {
        "guideline": g.id,
        "title": g.title,
        "layer": g.layer,
        "layer_label": k.plain(KYPHO + g.layer),
        "publisher": g.publisher,
        "version": g.version,
        "citation": g.citation,
        "url": g.url,
    }


def _part_json(k: Knowledge, part: PolicyPart) -> Json:
    return {
        **_guideline_json(k, part.guideline),
        "in_force": part.in_force,
        "named": part.named,
        "use": part.guideline.use,
        "misuse": part.guideline.misuse,
        "lesions": [_section_json(k, s) for s in part.sections],
    }


def _section_json(k: Knowledge, s: Section) -> Json:
    def ids(checks: tuple[Check, ...]) -> list[str]:
        return [c.clause.recommendation.id for c in checks]

    a = s.assessment
    return {
        "lesion": s.case.lesion.id,
        "level": level_names(k, s.case),
        "in_session": s.case.in_session,
        "criteria": a.guideline.words(a.verdict),
        "open": s.open,
        "bridges": list(a.bridges),
        "clauses": [_check_json(k, c) for c in s.checks],
        "to_document": {
            "before_request": ids(s.documents(BEFORE)),
            "after_procedure": ids(s.documents(AFTER)),
            "features": [_wanting_json(k, w) for w in s.wanting],
        },
        "cautions": [{"id": c.clause.recommendation.id, "state": c.words} for c in s.cautions],
    }


def _check_json(k: Knowledge, check: Check) -> Json:
    r = check.clause.recommendation
    return {
        "id": r.id,
        "effect": r.effect,
        "effect_label": k.plain(KYPHO + r.effect),
        "label": r.label,
        "wording": r.text,
        "state": check.words,
        "stance": str(check.stance),
        "causes": list(check.causes),
        "due": r.due or None,
        "verification": r.mark,
        "verification_label": k.plain(KYPHO + r.mark),
        "citation": r.citation,
        "url": r.url,
        "points": [_point_json(k, p) for p in check.points],
    }


def _point_json(k: Knowledge, point: Point) -> Json:
    leaf = point.proof
    distance = None if leaf.distance is None else range_json(Range.exactly(leaf.distance))
    return {
        **atom_json(leaf),
        "subject": leaf.subject,
        "label": k.plain(leaf.criterion.term),
        "words": point.words,
        "unit": k.features[leaf.criterion.term].unit or None,
        "distance": distance,
        "decides": point.decides,
        "cause": str(leaf.gap.cause) if leaf.gap else None,
        "evidence": [evidence_json(k, f) for f in leaf.facts],
    }


def evidence_json(k: Knowledge, fact: Fact) -> Json:
    """A fact with the parts of its source apart; of a derived one also what it rests on."""
    said = fact.source
    return {
        "subject": fact.subject,
        "feature": local(fact.feature),
        "words": fact_in_short(k, fact),
        "polarity": str(fact.polarity),
        "value": value_json(fact.value),
        "unit": fact.unit or None,
        "time": str(fact.time) if fact.time else None,
        "mood": str(fact.mood),
        "status": str(fact.status),
        "standing": str(standing(k, fact)),
        "document": said.document or None,
        "date": said.date or None,
        "author": said.author or None,
        "quote": said.quote or None,
        "place": said.origin,
        "premises": [evidence_json(k, p) for p in fact.premises],
    }


def _wanting_json(k: Knowledge, wanting: Wanting) -> Json:
    n = wanting.need
    return {
        "subject": n.subject,
        "feature": local(n.feature),
        "label": k.plain(n.feature),
        "causes": [str(c) for c in n.causes],
        "clauses": list(n.clauses),
        "acquisition": n.acquisition,
        "obtainable": n.obtainable,
        "settles": wanting.settles,
    }
