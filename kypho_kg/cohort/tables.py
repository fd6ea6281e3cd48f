"""The tables of a part: one row for each case, as Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kypho_kg.cohort import columns
from kypho_kg.cohort.counts import Asked, Counts, count
from kypho_kg.cohort.evidence import Evidence
from kypho_kg.cohort.judge import Judged, judge
from kypho_kg.cohort.layout import Bytes, Ints
from kypho_kg.cohort.logic import MET, UNKNOWN
from kypho_kg.cohort.source import REJECTED
from kypho_kg.cohort.sweep import Beside, Older, flips_of, moves_of
from kypho_kg.cohort.verdicts import conclusions, in_force
from kypho_kg.knowledge import Policy
from kypho_kg.verdicts import VERDICTS

IN_FORCE, ASSUMED = " in force", " assumed"
"""Endings of the columns that say whether a policy applies to a case, and the verdict under assumption policies."""
KEY = ("patient", "lesion", "as_of")
WITHOUT_CASE = "facts without a case that is judged"
"""Why a patient is left out of whom there are facts alone."""


@dataclass(slots=True)
class Part:
    """The answers on some patients."""

    verdicts: pa.Table
    clauses: pa.Table
    counts: Counts
    left: dict[str, int]
    """Patients that were left out, by reason."""
    rejected: pa.Table
    """The cases of patients with a malformed fact."""
    moves: Ints
    """[question beside, verdict, verdict then], in cases."""
    flips: pa.Table | None = None
    """The cases on which an older knowledge base says something else."""
    evidence: Evidence | None = None
    """What can tell the evidence of the cases, for who wants it."""


def answer(
    facts: pa.Table,
    cases: pa.Table,
    asked: Asked,
    *,
    bridges: bool = True,
    policies: Sequence[Policy] = (),
    beside: Sequence[Beside] = (),
    older: Older | None = None,
    evidence: bool = False,
) -> Part:
    """Judge some patients: verdicts and truths of all their cases that are asked for, in the order of the cases.

    A patient with a malformed fact is not answered: on the rest an older fact could count in its place.

    :param policies: assumption policies; verdicts under them stand beside the strict ones.
    :param beside: what is asked beside, see ``sweep.py``.
    :param older: another knowledge base whose verdicts are compared.
    :param evidence: whether the evidence can be told afterwards; it keeps more in memory.
    """
    judged = judge(facts, cases, asked.layout, bridges=bridges)
    rows = np.flatnonzero(judged.subjects.asked & ~judged.rejected)
    found = [conclusions(judged, g, asked.layout)[0] for g in asked.guidelines]
    then = None
    if policies:
        assuming = judge(facts, cases, asked.layout, bridges=bridges, policies=policies)
        then = [conclusions(assuming, g, asked.layout)[0] for g in asked.guidelines]
    keys = keys_of(judged, rows)
    verdicts = dict(keys)
    for place, g in enumerate(asked.guidelines):
        verdicts[g.id] = verdict_column(found[place][rows])
        if then:
            verdicts[g.id + ASSUMED] = verdict_column(then[place][rows])
        if g.is_policy:
            verdicts[g.id + IN_FORCE] = _truth(in_force(judged, g, asked.layout)[rows])
    clauses = dict(keys)
    for r in asked.clauses:
        clauses[r.id] = _truth(judged.logic.truth(asked.layout.shared(r.criterion))[rows])
    old = older.verdicts(facts, cases, rows, bridges) if older else None
    return Part(
        pa.table(verdicts),
        pa.table(clauses),
        count(judged, asked, found, rows),
        _left(judged, facts),
        _rejected(judged),
        moves_of(beside, judged, asked, rows, found, then, old),
        flips_of(asked, keys, rows, found, old) if old else None,
        Evidence(judged, facts, asked, rows, keys) if evidence else None,
    )


def verdict_column(verdict: Bytes) -> pa.Array:
    """Verdicts by their names."""
    return pa.DictionaryArray.from_arrays(pa.array(verdict.astype(np.int8)), list(VERDICTS))


def keys_of(judged: Judged, rows: npt.NDArray[np.intp]) -> dict[str, pa.Array]:
    """Which cases they are: patient, lesion and as-of date."""
    s = judged.subjects
    owner = s.owner[rows]
    days = pa.array(s.as_of[owner].astype(np.int32)).cast(pa.date32())
    return {"patient": s.patients.take(pa.array(owner)), "lesion": s.lesions.take(pa.array(rows)), "as_of": days}


def _truth(truth: Bytes) -> pa.Array:
    """SQL's three values: what is unknown is missing."""
    return columns.three_valued(truth == MET, truth != UNKNOWN)


def _left(judged: Judged, facts: pa.Table) -> dict[str, int]:
    """How many patients were left out, by reason."""
    s, left = judged.subjects, {}
    asked = np.zeros(len(s.patients), bool)
    asked[s.owner[s.asked]] = True
    for reason, patients in judged.reasons.items():
        if n := int(asked[patients].sum()):
            left[reason] = n
    ids = columns.one(facts["patient"])
    if len(ids):
        starts = np.concatenate(([0], np.flatnonzero(columns.changes(ids)) + 1))
        told = ids.take(pa.array(starts)).unique()
        silent = len(told) - pc.sum(pc.is_in(told, value_set=s.patients)).as_py()
        if silent:
            left[WITHOUT_CASE] = silent
    return left


def _rejected(judged: Judged) -> pa.Table:
    s = judged.subjects
    rows = np.flatnonzero(judged.rejected & s.asked)
    reason = np.full(len(s.patients), "", object)
    for words, patients in reversed(judged.reasons.items()):
        reason[patients] = f"facts: {words}"
    owner = s.owner[rows]
    return pa.table(
        {
            "patient": s.patients.take(pa.array(owner)).cast(pa.string()),
            "lesion": s.lesions.take(pa.array(rows)).cast(pa.string()),
            "reason": pa.array(reason[owner].tolist(), pa.string()),
        },
        REJECTED,
    )
