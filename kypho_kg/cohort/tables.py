"""The tables of a part: one row for each case, as Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kypho_kg.cohort.counts import Asked, Counts, count
from kypho_kg.cohort.judge import Judged, judge
from kypho_kg.cohort.layout import Bytes
from kypho_kg.cohort.logic import MET, UNKNOWN
from kypho_kg.cohort.verdicts import conclusions, in_force
from kypho_kg.knowledge import Policy
from kypho_kg.verdicts import VERDICTS

IN_FORCE = " in force"
"""Ending of the columns that say whether a policy applies to a case."""
KEY = ("patient", "lesion", "as_of")


@dataclass(slots=True)
class Part:
    """The answers on some patients."""

    verdicts: pa.Table
    clauses: pa.Table
    counts: Counts
    left: dict[str, int]
    """Facts that were left out, by reason."""


def answer(
    facts: pa.Table, cases: pa.Table, asked: Asked, *, bridges: bool = True, policies: Sequence[Policy] = ()
) -> Part:
    """Judge some patients: verdicts and truths of all their cases that are asked for, in the order of the cases."""
    judged = judge(facts, cases, asked.layout, bridges=bridges, policies=policies)
    found = [conclusions(judged, g, asked.layout)[0] for g in asked.guidelines]
    rows = np.flatnonzero(judged.subjects.asked)
    keys = _keys(judged, rows)
    verdicts = dict(keys)
    for g, verdict in zip(asked.guidelines, found, strict=True):
        verdicts[g.id] = pa.DictionaryArray.from_arrays(pa.array(verdict[rows].astype(np.int8)), list(VERDICTS))
        if g.is_policy:
            verdicts[g.id + IN_FORCE] = _truth(in_force(judged, g, asked.layout)[rows])
    clauses = dict(keys)
    for r in asked.clauses:
        clauses[r.id] = _truth(judged.logic.truth(asked.layout.shared(r.criterion))[rows])
    counts = count(judged, asked, found)
    return Part(
        pa.table(verdicts),
        pa.table(clauses),
        counts,
        {reason: len(patients) for reason, patients in judged.reasons.items()},
    )


def _keys(judged: Judged, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> dict[str, pa.Array]:
    s = judged.subjects
    owner = s.owner[rows]
    days = pa.array(s.as_of[owner].astype(np.int32)).cast(pa.date32())
    return {"patient": s.patients.take(pa.array(owner)), "lesion": s.lesions.take(pa.array(rows)), "as_of": days}


def _truth(truth: Bytes) -> pa.Array:
    """SQL's three values: what is unknown is missing."""
    return pa.array(truth == MET, mask=truth == UNKNOWN)
