"""Clauses with their proofs as JSON: a part of the contract of ``schemas/assessment.schema.json``."""

from __future__ import annotations

from typing import Any

from kypho_kg.candidacy import ClauseResult
from kypho_kg.criteria import Op
from kypho_kg.evaluation import Proof
from kypho_kg.knowledge import Knowledge
from kypho_kg.reasons import near_misses, reasons_of, standing
from kypho_kg.record import Cause, Fact, Range, TimeSpan
from kypho_kg.snapshot import Snapshot
from kypho_kg.vocabulary import local
from kypho_kg.words import range_json

Json = dict[str, Any]


def clause_json(k: Knowledge, clause: ClauseResult, snapshot: Snapshot) -> Json:
    """One clause with its proof, and the smallest sets of facts that suffice for its truth."""
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
        ("grade", r.grade),
    ):
        if value:
            row[key] = value
    found = reasons_of(snapshot, clause)
    row["reasons"] = [[_reason_json(f) for f in reason] for reason in found.sets]
    row["all_reasons"] = found.complete
    missed = {(leaf.subject, leaf.criterion): leaf for leaf in near_misses(clause.proof)}
    row["near_misses"] = [
        {**atom_json(leaf), "distance": range_json(Range.exactly(leaf.distance))}
        for leaf in missed.values()
        if leaf.distance is not None
    ]
    row["proof"] = proof_json(k, clause.proof)
    return row


def _reason_json(fact: Fact) -> Json:
    """A fact of a reason, as far as it must be told from the other facts of the proof."""
    return {
        "subject": fact.subject,
        "feature": local(fact.feature),
        "polarity": str(fact.polarity),
        "value": value_json(fact.value),
        "time": str(fact.time) if fact.time else "stated as current",
    }


def atom_json(proof: Proof) -> Json:
    """An atom in short: feature, truth, threshold or values asked for, and the first recorded value."""
    c = proof.criterion
    row: Json = {"feature": local(c.term), "truth": proof.truth.words}
    if c.range is not None:
        row["threshold"] = _threshold(c.range)
    if c.values:
        row["asked"] = sorted(map(local, c.values))
    values = [value_json(f.value) for f in proof.facts if f.value is not None]
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
        row["facts"] = [fact_json(k, f) for f in proof.facts]
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


def value_json(value: object) -> object:
    """A value as JSON: a number or its bounds, a name or several, a date as stated."""
    if isinstance(value, Range):
        return range_json(value)
    if isinstance(value, frozenset):
        names = sorted(map(local, value))
        return names[0] if len(names) == 1 else {"one_of": names}
    if isinstance(value, TimeSpan):
        return str(value)
    return local(value) if isinstance(value, str) else None


def fact_json(k: Knowledge, fact: Fact) -> Json:
    """A fact with its source; of a derived one also what it rests on."""
    row: Json = {
        "subject": fact.subject,
        "feature": local(fact.feature),
        "polarity": str(fact.polarity),
        "value": value_json(fact.value),
        "unit": fact.unit or None,
        "time": str(fact.time) if fact.time else "stated as current",
        "mood": str(fact.mood),
        "status": str(fact.status),
        "standing": str(standing(k, fact)),
        "source": str(fact.source),
        "origin": fact.source.origin,
    }
    for key, text in (("reason", fact.reason), ("words", fact.words), ("invalid", fact.invalid)):
        if text:
            row[key] = text
    if fact.rule:
        row["rule"] = local(fact.rule)
        row["premises"] = [fact_json(k, p) for p in fact.premises]
    return row
