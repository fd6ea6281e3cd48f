"""Every proof of an answer, given to the independent checker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kypho_kg.candidacy import Answer, CaseAnswer
from kypho_kg.evaluation import Truth, lesion_subject
from kypho_kg.proof_checker import CheckedCase, faults
from kypho_kg.reasons import reasons_of


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checker said of the reasons of all clauses that are met or not met."""

    clauses: int
    reasons: int
    faults: tuple[str, ...]
    """Where a reason is not sufficient, not minimal or not justified, with patient, lesion and clause."""

    def __str__(self) -> str:
        """Tell the outcome in a sentence."""
        said = f"{self.reasons} reasons of {self.clauses} decided clauses checked"
        if not self.faults:
            return f"{said}: each is sufficient, and none holds a fact too many"
        return f"{said}: {len(self.faults)} are wrong"


def check(answers: Iterable[Answer]) -> Checked:
    """Check each reason of each clause of some answers."""
    clauses = reasons = 0
    wrong: list[str] = []
    for answer in answers:
        for case in answer.cases:
            for found in _of_case(answer, case):
                clauses += 1
                reasons += found[0]
                wrong.extend(found[1])
    return Checked(clauses, reasons, tuple(wrong))


def _of_case(answer: Answer, case: CaseAnswer) -> Iterator[tuple[int, list[str]]]:
    checked = CheckedCase(lesion_subject(case.lesion.id), case.in_session, answer.as_of)
    triples = answer.knowledge.triples
    for a in case.assessments:
        for clause in a.clauses:
            if clause.truth is Truth.UNKNOWN:
                continue
            r, met = clause.recommendation, clause.truth is Truth.MET
            sets = reasons_of(case.snapshot, clause).sets
            where = f"{answer.record.place}, lesion {case.lesion.id}, {r.id}"
            said = [f for some in sets for f in faults(triples, r.criterion.name, met, tuple(some), checked)]
            yield len(sets), [f"{where}: {text}" for text in said]
