"""Answers as JSON: the contract of ``schemas/assessment.schema.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kypho_kg.candidacy import Answer, Assessment, CaseAnswer, cautions, documentation
from kypho_kg.classification import lesion_types
from kypho_kg.conflicts import Firing, conflicts_of
from kypho_kg.coverage import coverage_json
from kypho_kg.errors import Problem
from kypho_kg.evaluation import Truth
from kypho_kg.explanation import Explained, Need, explain
from kypho_kg.flips import Flip, nearest
from kypho_kg.guidelines import UNVERIFIED
from kypho_kg.knowledge import Knowledge
from kypho_kg.missing import Missing, Wanted
from kypho_kg.next_steps import Step
from kypho_kg.proof_json import atom_json, clause_json, fact_json, value_json
from kypho_kg.reasons import untouched_clauses
from kypho_kg.record import LESION, PROCEDURE, Range
from kypho_kg.vocabulary import local
from kypho_kg.words import cells_words, range_json

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
            "mappings": sorted({sha256 for a in answers for sha256 in a.record.mappings}),
            "software": software,
            "as_of": days[0] if len(days) == 1 else None,
            "assumed": list(answers[0].policies) if answers else ["strict"],
            "bridges": answers[0].bridged if answers else True,
        },
        "disclaimer": DISCLAIMER,
        "coverage": coverage_json(k, (a.record for a in answers)) if k else None,
        "cases": [case_json(e) for a in answers for e in explain(a)],
        "without_case": [
            {"patient": a.record.patient, "reason": "the record has no vertebral lesion, so there is no case"}
            for a in answers
            if not a.cases
        ],
        "rejected": [{"where": p.where, "what": p.what, "expected": p.expected} for p in rejected],
    }


def case_json(explained: Explained, *, whole: bool = False) -> Json:
    """One lesion of one patient under every guideline.

    :param whole: also what would flip each verdict, and every possible set.
    """
    k, answer, case = explained.knowledge, explained.answer, explained.case
    procedure: Json | None = None
    if answer.record.procedure:
        p = answer.record.procedure
        technique = case.snapshot.value(PROCEDURE, k.by_name["technique"].iri).value
        procedure = {
            "technique": value_json(technique),
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
        "ignored": [{**fact_json(k, f), "because": why} for f, why in case.snapshot.ignored],
        "stale": [{**fact_json(k, f), "lookback_days": k.features[f.feature].lookback} for f in case.snapshot.stale],
        "conflicts": [_firing_json(f) for f in conflicts_of(k, case)],
        "unread": [fact_json(k, f) for f in explained.unread],
        "next": [_step_json(k, s) for s in explained.steps],
        "unobtainable": [
            {
                "subject": u.subject,
                "feature": u.feature.name,
                "reason": u.reason,
                "instead": [{"subject": s, "feature": local(f)} for s, f in u.instead],
            }
            for u in explained.unobtainable
        ],
        "disagreement": _disagreement_json(explained),
        "assessments": [assessment_json(explained, a, whole=whole) for a in case.assessments],
    }


def _step_json(k: Knowledge, step: Step) -> Json:
    return {
        "subject": step.subject,
        "feature": step.feature.name,
        "label": step.feature.plain,
        "acquisition": k.label(step.feature.acquisition),
        "burden": step.feature.burden,
        "causes": [str(c) for c in step.causes],
        "worth": round(step.worth, 4),
        "settles": list(step.settles),
        "may_settle": list(step.may_settle),
        "needed": list(step.needed),
    }


def _disagreement_json(explained: Explained) -> Json:
    found = explained.disagreement
    return {
        "clusters": [
            {
                "side": str(cluster.side),
                "guidelines": [
                    {
                        "guideline": m.assessment.guideline.id,
                        "verdict": m.assessment.verdict,
                        "clauses": [c.recommendation.id for c in m.clauses],
                        "any_of": [c.recommendation.id for c in m.any_of],
                    }
                    for m in cluster.members
                ],
            }
            for cluster in found.clusters
        ],
        "separating": [local(f) for f in found.separating],
        "exact": found.exact,
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
                "turns_on": [{**atom_json(t.proof), "negated": t.negated} for t in s.turns_on],
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


def assessment_json(explained: Explained, a: Assessment, *, whole: bool = False) -> Json:
    """One case under one guideline."""
    k = explained.knowledge
    met, unknown = cautions(a)
    complete, missing = documentation(a)
    found = explained.missing(a)
    assumed: Json | None = None
    if a.assumed:
        assumed = {
            "policies": list(a.assumed.policies),
            "verdict": a.assumed.conclusion.verdict,
            "reachable": list(a.assumed.conclusion.reachable),
            "assumptions": [fact_json(k, f) for f in a.assumed.assumptions],
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
        "untouched": [c.recommendation.id for c in untouched_clauses(a)],
        "ends": list(found.reachable) if found else [a.verdict],
        "missing": list(_missing_json(explained, a, found, whole=whole)) if found else [],
        **({"flips": [_flip_json(k, f) for f in explained.flips(a)]} if whole else {}),
        "clauses": [clause_json(k, c, explained.case.snapshot) for c in a.clauses],
    }


MOST_TOLD = 5
"""Possible sets that are told of each verdict where not all are asked for."""


def _missing_json(explained: Explained, a: Assessment, found: Missing, *, whole: bool) -> Iterator[Json]:
    """The sets of features that settle a verdict; where there is no decisive one, all that is unknown."""
    k = explained.knowledge
    needs = {(n.subject, n.feature): n for n in explained.needs(a)}
    if not found.decisive and needs:
        row = {
            "minimal": False,
            "exact": found.exact,
            "left_open": [],
            "needs": [_need_json(n) for n in needs.values()],
        }
        yield {"kind": "unknown", **row}
    for some in found.decisive:
        wanted = (explained.need(a, v.subject, v.feature) for v in some)
        row = {"minimal": True, "exact": found.exact, "left_open": [local(b) for b in found.bands]}
        yield {"kind": "decisive", **row, "needs": [_need_json(n) for n in wanted]}
    told = Counter[str]()
    for possible in found.possible:
        told[possible.verdict] += 1
        if whole or told[possible.verdict] <= MOST_TOLD:
            yield {
                "kind": "possible",
                "minimal": True,
                "exact": found.exact,
                "verdict": possible.verdict,
                "ways": [[_wanted_json(k, w) for w in way] for way in possible.ways],
            }


def _flip_json(k: Knowledge, flip: Flip) -> Json:
    ways = [[_wanted_json(k, w) for w in way] for way in flip.ways]
    return {"verdict": flip.verdict, "changes": flip.changes, "exact": flip.exact, "ways": ways}


def _wanted_json(k: Knowledge, wanted: Wanted) -> Json:
    """A feature with the values that will do, and for a number by how much it must change."""
    v = wanted.variable
    row: Json = {"subject": v.subject, "feature": local(v.feature), "values": cells_words(k, wanted)}
    if v.value is not None:
        row["now"] = value_json(v.value)
    step = nearest(wanted)
    if step is not None:
        row["by"] = range_json(Range.exactly(step[1] - step[0]))
    return row


def _need_json(need: Need) -> Json:
    return {
        "feature": local(need.feature),
        "subject": need.subject,
        "causes": [str(c) for c in need.causes],
        "clauses": list(need.clauses),
        "acquisition": need.acquisition,
        "obtainable": need.obtainable,
    }
