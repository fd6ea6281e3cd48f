"""What is counted of a part of a cohort, so that the counts of parts add up."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from kypho_kg.cohort.judge import Judged
from kypho_kg.cohort.keeping import keeping
from kypho_kg.cohort.layout import CAUSES, NO_CAUSE, STATED, Bytes, Ints, Layout
from kypho_kg.cohort.logic import BLOCKS, MET, NOT_MET, UNKNOWN, Logic
from kypho_kg.cohort.series import NOT_RECORDED
from kypho_kg.criteria import ATOMS, Criterion, Op
from kypho_kg.guidelines import (
    ABSOLUTE,
    DECIDING,
    EXCLUDES,
    INDICATES,
    RELATIVE,
    REQUIRES,
    SCOPE,
    Guideline,
    Recommendation,
)
from kypho_kg.verdicts import VERDICTS

SAYS = ("yes", "no", "open", "silent")
"""What a verdict says of the procedure."""
_OF_VERDICT = {
    "Candidate": 0, "CandidateWithCaution": 0, "Contraindicated": 1, "NotIndicated": 1,
    "CandidateScreeningOpen": 2, "Undetermined": 2,
}  # fmt: skip
_SAYS = np.array([_OF_VERDICT.get(v, 3) for v in VERDICTS], np.uint8)
KNOWN = len(CAUSES)
STEPS = ("entering", "met", "not met", "unknown", "still possible", "certain", "only obstacle", "only open")
"""Columns of the attrition: of the cases that are still possible those that enter the step and what it is to them;
those possible after it, and those that certainly passed it and all before; and of all cases those that fail by this
step alone, and those that only this step keeps open."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the attrition of a guideline: a clause, or its indications of which one must be met."""

    guideline: str
    clauses: tuple[Recommendation, ...]

    @property
    def fails_if(self) -> int:
        """The truth by which a case leaves."""
        return MET if self.clauses[0].effect in {EXCLUDES, ABSOLUTE} else NOT_MET


def steps_of(guideline: Guideline) -> tuple[Step, ...]:
    """The deciding clauses of a guideline in its own order, scope first, its indications as one step.

    Where nothing is required or indicated there is no verdict but by the scope, which is the only step then.
    """
    rows = [r for r in guideline.recommendations if r.effect in DECIDING and r.effect != RELATIVE and not r.reading]
    if not any(r.effect in {REQUIRES, INDICATES} for r in rows):
        rows = [r for r in rows if r.effect == SCOPE]
    rows.sort(key=lambda r: r.effect != SCOPE)
    indications = tuple(r for r in rows if r.effect == INDICATES)
    found: list[Step] = []
    for r in rows:
        if r.effect != INDICATES:
            found.append(Step(guideline.id, (r,)))
        elif r is indications[0]:
            found.append(Step(guideline.id, indications))
    return tuple(found)


@dataclass(slots=True)
class Counts:
    """Whole numbers, all of them sums over cases."""

    cases: Ints
    verdicts: Ints
    """[guideline, verdict]."""
    clauses: Ints
    """[clause, truth]."""
    causes: Ints
    """[clause, cause of unknown]."""
    attrition: Ints
    """[step of any guideline, column of ``STEPS``]."""
    features: Ints
    """[feature, cause of unknown or ``KNOWN``]."""
    agreement: Ints
    """[what a guideline says, what another says], both as guideline and word of ``SAYS``."""
    keeping: Ints
    """[feature]: in how many cases it keeps a clause of an open verdict unknown."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every case, in the order of the tables."""

    layout: Layout
    guidelines: tuple[Guideline, ...]

    @property
    def clauses(self) -> tuple[Recommendation, ...]:
        """The clauses of all guidelines."""
        return tuple(r for g in self.guidelines for r in g.recommendations)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of attrition of all guidelines."""
        return tuple(s for g in self.guidelines for s in steps_of(g))

    @property
    def features(self) -> tuple[int, ...]:
        """Places of the features that clauses ask for."""
        terms = {c.term for r in self.clauses for c in r.criterion.walk() if c.op in ATOMS}
        return tuple(sorted(self.layout.place[t] for t in terms))


def count(judged: Judged, asked: Asked, verdicts: Sequence[Bytes], rows: npt.NDArray[np.intp]) -> Counts:
    """Count cases of a part.

    :param verdicts: of each guideline, the verdict of each case.
    :param rows: the cases that are asked for and answered.
    """
    n, layout, logic = len(rows), asked.layout, judged.logic
    clauses = [layout.shared(r.criterion) for r in asked.clauses]
    truths = [logic.truth(c)[rows] for c in clauses]
    of_clause = dict(zip((r.id for r in asked.clauses), truths, strict=True))
    causes = [logic.cause(c)[rows] for c in clauses]
    said = np.array([np.bincount(v[rows], minlength=len(VERDICTS)) for v in verdicts])
    return Counts(
        np.array([n]),
        said.reshape(len(verdicts), len(VERDICTS)),
        np.array([[np.count_nonzero(t == word) for word in range(3)] for t in truths]).reshape(-1, 3),
        np.array([np.bincount(c[c != NO_CAUSE], minlength=len(CAUSES)) for c in causes]).reshape(-1, len(CAUSES)),
        _attrition(asked, of_clause, n),
        np.array([np.bincount(state_of(logic, layout, f)[rows], minlength=KNOWN + 1) for f in asked.features]),
        _agreement([_SAYS[v[rows]] for v in verdicts]),
        _keeping(judged, asked, verdicts, rows),
    )


def state_of(logic: Logic, layout: Layout, feature: int) -> Bytes:
    """For each case, why a feature is unknown, or ``KNOWN``."""
    f, block = layout.features[feature], int(layout.bearer[feature])
    link = next(name for name, of in BLOCKS.items() if of == block)
    if f.kind is Op.FINDING:
        atom = layout.shared(Criterion(Op.FINDING, term=f.iri))
        cause = logic.cause(layout.shared(Criterion(Op.LINK, (atom,), term=link)))
        return np.where(cause == NO_CAUSE, np.uint8(KNOWN), cause)
    found = logic.state(feature, block, NO_CAUSE)
    found = np.where(found == STATED, np.uint8(NOT_RECORDED), np.where(found == NO_CAUSE, np.uint8(KNOWN), found))
    return logic.linked(found, link, NOT_RECORDED)


def _attrition(asked: Asked, truths: Mapping[str, Bytes], n: int) -> Ints:
    rows = []
    for guideline in asked.guidelines:
        possible, certain = np.ones(n, bool), np.ones(n, bool)
        steps = steps_of(guideline)
        found = [functools.reduce(np.maximum, (truths[r.id] for r in step.clauses)) for step in steps]
        failed = [truth == step.fails_if for step, truth in zip(steps, found, strict=True)]
        fails = functools.reduce(np.add, (f.astype(np.int16) for f in failed), np.zeros(n, np.int16))
        opens = functools.reduce(np.add, ((t == UNKNOWN).astype(np.int16) for t in found), np.zeros(n, np.int16))
        one_fails, one_open = (fails == 1) & (opens == 0), (fails == 0) & (opens == 1)
        for step, truth, out in zip(steps, found, failed, strict=True):
            alone = int((out & one_fails).sum()), int(((truth == UNKNOWN) & one_open).sum())
            entering = np.bincount(truth[possible], minlength=3)
            passed = NOT_MET if step.fails_if == MET else MET
            before = int(possible.sum())
            possible &= ~out
            certain &= truth == passed
            rows.append((before, *entering[[MET, NOT_MET, UNKNOWN]], int(possible.sum()), int(certain.sum()), *alone))
    return np.array(rows, np.int64).reshape(-1, len(STEPS))


def _keeping(judged: Judged, asked: Asked, verdicts: Sequence[Bytes], rows: npt.NDArray[np.intp]) -> Ints:
    opens = [_SAYS[v[rows]] == SAYS.index("open") for v in verdicts]
    found = keeping(judged.logic, asked.layout, asked.guidelines, opens, rows)
    return np.array([found.get(asked.layout.features[f].iri, 0) for f in asked.features], np.int64)


def _agreement(said: Sequence[Bytes]) -> Ints:
    """How many cases each pair of words has in common, counted on packed bits."""
    if not said:
        return np.zeros((0, 0), np.int64)
    bits = np.packbits(np.array([s == word for s in said for word in range(len(SAYS))]), axis=1)
    bits = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)
    return np.array([np.bitwise_count(bits & row).sum(axis=1, dtype=np.int64) for row in bits])
