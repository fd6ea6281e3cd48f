"""The reasoner's own answer beside ours, clause by clause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from kypho_kg.candidacy import assess
from kypho_kg.classification import lesion_types
from kypho_kg.errors import UsageError
from kypho_kg.evaluation import Evaluator, Truth, lesion_subject
from kypho_kg.knowledge import Knowledge
from kypho_kg.owl_export import case_axioms, case_iri, subject_iri
from kypho_kg.reasoning import entailments
from kypho_kg.record import Record
from kypho_kg.vocabulary import local

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Comparison:
    """One class of cases: what we say and what the reasoner entails."""

    name: str
    label: str
    ours: Truth
    reasoner: Truth

    @property
    def agrees(self) -> bool:
        """Whether both say the same."""
        return self.ours is self.reasoner


def compare(
    record: Record, knowledge: Knowledge, lesion: str | None, guidelines: Sequence[str] | None, as_of: date | None,
    timeout: float,
) -> list[Comparison]:  # fmt: skip
    """Entailments of every condition and eligibility class, and of every type of the lesion.

    :raises UsageError: when there is no such lesion.
    :raises EngineError: when the reasoner fails or runs out of time.
    """
    answer = assess(record, knowledge=knowledge, guidelines=guidelines, as_of=as_of)
    case = next((c for c in answer.cases if lesion in {None, c.lesion.id}), None)
    if case is None:
        known = ", ".join(c.lesion.id for c in answer.cases) or "none"
        raise UsageError(f"no lesion {lesion!r}; the record has: {known}")
    evaluator = Evaluator(case.snapshot, lesion_subject(case.lesion.id), case.in_session)
    ours: dict[str, tuple[str, str, Truth]] = {}
    for a in case.assessments:
        for c in a.clauses:
            r = c.recommendation
            ours[r.criterion.name] = (r.id, r.label, c.truth)
        for iri in (a.guideline.eligible, a.guideline.eligible_and_clear):
            if iri:
                truth = evaluator.evaluate(knowledge.criterion(iri)).truth
                ours[iri] = (local(iri), knowledge.plain(iri), truth)
    types = lesion_types(case.snapshot, case.lesion.id)
    ours |= {t.iri: (local(t.iri), knowledge.plain(t.iri), t.truth) for t in types}
    of = dict.fromkeys((t.iri for t in types), subject_iri(record, lesion_subject(case.lesion.id)))
    axioms = case_axioms(case.snapshot, case.lesion.id, case.in_session)
    theirs = entailments(knowledge, axioms, case_iri(record, case.lesion.id), list(ours), timeout=timeout, of=of)
    return [Comparison(name, label, truth, theirs[iri]) for iri, (name, label, truth) in ours.items()]


def print_comparison(console: Console, rows: Sequence[Comparison]) -> bool:
    """The comparison as a table; returns whether all agree."""
    from rich.table import Table

    table = Table("Clause or class", "In words", "Ours", "HermiT", "")
    for row in rows:
        mark = "" if row.agrees else "DIFFERS"
        table.add_row(row.name, row.label, row.ours.words, row.reasoner.words, mark)
    console.print(table)
    differing = sum(not r.agrees for r in rows)
    console.print(f"{len(rows)} classes, {differing} differ")
    return differing == 0
