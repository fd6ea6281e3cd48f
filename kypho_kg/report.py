"""Answers as JSON: the contract of ``schemas/assessment.schema.json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kypho_kg.candidacy import Answer, Assessment, CaseAnswer, ClauseResult, cautions, documentation
from kypho_kg.classification import lesion_types
from kypho_kg.conflicts import Firing, conflicts_of
from kypho_kg.criteria import Op
from kypho_kg.errors import Problem
from kypho_kg.evaluation import Proof, Truth
from kypho_kg.explanation import Need, needs, range_json
from kypho_kg.guidelines import UNVERIFIED
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import LESION, PROCEDURE, Cause, Fact, Range, TimeSpan
from kypho_kg.vocabulary import local

Json = dict[str, Any]

DISCLAIMER = (
    "Supports a clinician's own review of the record; decides nothing, states no coverage decision and is no medical "
    "device. Verify each clause against its source."
)


def answers_json(answers: Sequence[Answer], rejected: Iterable[Problem], software: str) -> Json:
    """All answers of one run."""
    k = answers[0].knowledge if answers else None
    days = sorted({str(a.as_of) for a in answers})
    return {
        "schema_version": "1",
        "run": {
            "knowledge_base": {"version": k.version, "sha256": k.sha256} if k else None,
            "software": software,
            "as_of": days[0] if len(days) == 1 else None,
            "assumed": list(answers[0].policies) if answers else ["strict"],
            "bridges": answers[0].bridged if answers else True,
        },
        "disclaimer": DISCLAIMER,
        "cases": [case_json(a, c) for a in answers for c in a.cases],
        "without_case": [
            {"patient": a.record.patient, "reason": "the record has no vertebral lesion, so there is no case"}
            for a in answers
            if not a.cases
        ],
        "rejected": [{"where": p.where, "what": p.what, "expected": p.expected} for p in rejected],
    }


def case_json(answer: Answer, case: CaseAnswer) -> Json:
    """One lesion of one patient under every guideline."""
    k = answer.knowledge
    procedure: Json | None = None
    if answer.record.procedure:
        p = answer.record.procedure
        technique = case.snapshot.value(PROCEDURE, k.by_name["technique"].iri).value
        procedure = {
            "technique": _value_json(technique),
            "in_session": case.in_session,
            "lesions": None if p.lesions is None else list(p.lesions),
            "service_date": str(p.service_date) if p.service_date else None,
            "state": p.state,
        }
    return {
        "patient": answer.record.patient,
        "as_of": str(answer.as_of),
        "constructed": answer.record.constructed,
        "files": list(answer.record.files),
        "lesion": {
            "id": case.lesion.id,
            "level": level_names(k, case),
            "types": [
                {"type": local(t.iri), "label": k.label(t.iri)}
                for t in lesion_types(case.snapshot, case.lesion.id)
                if t.truth is Truth.MET
            ],
        },
        "procedure": procedure,
        "ignored": [{**_fact_json(k, f), "because": why} for f, why in case.snapshot.ignored],
        "stale": [{**_fact_json(k, f), "lookback_days": k.features[f.feature].lookback} for f in case.snapshot.stale],
        "conflicts": [_firing_json(f) for f in conflicts_of(k, case)],
        "assessments": [assessment_json(k, a) for a in case.assessments],
    }


def _firing_json(f: Firing) -> Json:
    """A conflict that shows in a case: who takes which stand, by which atoms."""
    return {
        "id": f.conflict.id,
        "topic": f.conflict.label,
        "kind": f.conflict.kind,
        "opposed": f.opposed,
        "stands": [
            {
                "clause": s.clause.recommendation.id,
                "stance": str(s.stance),
                "position": local(s.position.iri),
                "turns_on": [{**_atom_json(t.proof), "negated": t.negated} for t in s.turns_on],
            }
            for s in f.stands
        ],
    }


def level_names(k: Knowledge, case: CaseAnswer) -> list[str]:
    """The levels of which the lesion has one, from cranial to caudal; empty where nothing is recorded."""
    value = case.snapshot.value(LESION + case.lesion.id, k.by_name["vertebralLevel"].iri).value
    if not isinstance(value, frozenset):
        return []
    return [local(v) for v in sorted(value, key=k.level_order)]


def level_words(k: Knowledge, case: CaseAnswer) -> str:
    """The level in words, empty where nothing is recorded."""
    names = level_names(k, case)
    if len(names) > 2:
        return f"{names[0]}..{names[-1]}"
    return " or ".join(names)


def assessment_json(k: Knowledge, a: Assessment) -> Json:
    """One case under one guideline."""
    met, unknown = cautions(a)
    complete, missing = documentation(a)
    wanted = needs(k, a)
    assumed: Json | None = None
    if a.assumed:
        assumed = {
            "policies": list(a.assumed.policies),
            "verdict": a.assumed.conclusion.verdict,
            "reachable": list(a.assumed.conclusion.reachable),
            "assumptions": [_fact_json(k, f) for f in a.assumed.assumptions],
        }
    return {
        "guideline": a.guideline.id,
        "title": a.guideline.title,
        "layer": a.guideline.layer,
        "in_force": a.in_force,
        "verdict": a.verdict,
        "wording": a.guideline.words(a.verdict),
        "reachable": list(a.conclusion.reachable),
        "categories": list(a.categories),
        "ratings": [
            {"clause": c.recommendation.id, "option": r.label, "category": r.category, "number": r.number}
            for c, r in a.ratings
        ],
        "reading": a.reading or None,
        "readings": {
            name or "main": {
                "label": a.guideline.readings.get(name, "no alternative clause"),
                "verdict": c.verdict,
                "reachable": list(c.reachable),
            }
            for name, c in a.readings.items()
        },
        "cautions": {"met": list(met), "unknown": list(unknown)},
        "documentation": {"complete": list(complete), "missing": list(missing)},
        "unverified": [c.recommendation.id for c in a.clauses if c.recommendation.mark == UNVERIFIED],
        "assumptions": [],
        "assumed": assumed,
        "bridges": list(a.bridges),
        "without_bridges": (
            {"verdict": a.unbridged.verdict, "reachable": list(a.unbridged.reachable)} if a.unbridged else None
        ),
        "missing": [{"kind": "decisive", "minimal": False, "needs": [_need_json(n) for n in wanted]}] if wanted else [],
        "clauses": [clause_json(k, c) for c in a.clauses],
    }


def _need_json(need: Need) -> Json:
    return {
        "feature": local(need.feature),
        "subject": need.subject,
        "causes": [str(c) for c in need.causes],
        "clauses": list(need.clauses),
        "acquisition": need.acquisition,
        "obtainable": need.obtainable,
    }


def clause_json(k: Knowledge, clause: ClauseResult) -> Json:
    """One clause with its proof."""
    r = clause.recommendation
    row: Json = {
        "id": r.id,
        "effect": r.effect,
        "label": r.label,
        "truth": clause.truth.words,
        "cause": cause_of(clause.proof),
        "verification": r.mark,
        "citation": r.citation,
        "url": r.url,
    }
    for key, value in (
        ("reading", r.reading),
        ("conjunct_of", r.conjunct_of),
        ("due", r.due),
        ("strength", r.strength),
    ):
        if value:
            row[key] = value
    row["proof"] = proof_json(k, clause.proof)
    return row


def _atom_json(proof: Proof) -> Json:
    c = proof.criterion
    row: Json = {"feature": local(c.term), "truth": proof.truth.words}
    if c.range is not None:
        row["threshold"] = _threshold(c.range)
    if c.values:
        row["asked"] = sorted(map(local, c.values))
    values = [_value_json(f.value) for f in proof.facts if f.value is not None]
    if values:
        row["value"] = values[0]
    return row


_CAUSES = list(Cause)


def cause_of(proof: Proof) -> str | None:
    """The cause of an unknown that says most: anything before *not recorded*."""
    causes = [leaf.gap.cause for leaf in proof.unknown_leaves() if leaf.gap]
    return str(min(causes, key=lambda c: (c is Cause.NOT_RECORDED, _CAUSES.index(c)))) if causes else None


def proof_json(k: Knowledge, proof: Proof) -> Json:
    """A node of a proof and all below it."""
    c = proof.criterion
    row: Json = {"op": str(c.op), "term": local(c.term or c.name), "truth": proof.truth.words}
    if c.term or c.name:
        row["label"] = k.label(c.term) if c.term else k.plain(c.name)
    if c.term and c.name:
        row["defines"] = local(c.name)
    if proof.subject and not proof.children:
        row["subject"] = proof.subject
    if c.op is Op.AT_LEAST:
        row["n"] = c.n
    if c.range is not None:
        row["threshold"] = {**_threshold(c.range), "unit": k.features[c.term].unit}
        if proof.distance is not None:
            row["distance"] = range_json(Range.exactly(proof.distance))
    if c.values:
        row["asked"] = sorted(map(local, c.values))
    if proof.gap is not None:
        row["cause"] = str(proof.gap.cause)
        if proof.gap.reason:
            row["reason"] = proof.gap.reason
    if proof.facts:
        row["facts"] = [_fact_json(k, f) for f in proof.facts]
    if proof.children:
        row["children"] = [proof_json(k, child) for child in proof.children]
    return row


def _threshold(asked: Range) -> Json:
    bound = range_json(asked)
    if not isinstance(bound, dict):
        return {"op": "=", "value": bound}
    operators = {"min": ">=", "above": ">", "max": "<=", "below": "<"}
    if len(bound) == 1:
        ((key, value),) = bound.items()
        return {"op": operators[key], "value": value}
    return {"op": "between", **bound}


def _value_json(value: object) -> object:
    if isinstance(value, Range):
        return range_json(value)
    if isinstance(value, frozenset):
        names = sorted(map(local, value))
        return names[0] if len(names) == 1 else {"one_of": names}
    if isinstance(value, TimeSpan):
        return str(value)
    return local(value) if isinstance(value, str) else None


def _fact_json(k: Knowledge, fact: Fact) -> Json:
    row: Json = {
        "subject": fact.subject,
        "feature": local(fact.feature),
        "polarity": str(fact.polarity),
        "value": _value_json(fact.value),
        "unit": fact.unit or None,
        "time": str(fact.time) if fact.time else "stated as current",
        "mood": str(fact.mood),
        "status": str(fact.status),
        "source": str(fact.source),
        "origin": fact.source.origin,
    }
    for key, text in (("reason", fact.reason), ("words", fact.words), ("invalid", fact.invalid)):
        if text:
            row[key] = text
    if fact.rule:
        row["rule"] = local(fact.rule)
        row["premises"] = [_fact_json(k, p) for p in fact.premises]
    return row
