"""One case explained: what is missing, what to get next, what would change the verdicts, and who disagrees.

Everything is read off the proofs and exact over facts as far as ``missing`` and ``flips`` say; the words are in
``words``, the forms in ``report``, ``terminal`` and ``page``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from kypho_kg.candidacy import Answer, Assessment, CaseAnswer
from kypho_kg.disagreement import Disagreement, disagreement
from kypho_kg.flips import Flip, flips
from kypho_kg.guidelines import DECIDING
from kypho_kg.knowledge import Knowledge
from kypho_kg.missing import Missing, missing, unknown_because
from kypho_kg.next_steps import Step, Unobtainable, next_steps, unobtainable
from kypho_kg.reasons import unread_facts
from kypho_kg.record import Cause, Fact


@dataclass(frozen=True, slots=True)
class Need:
    """A feature that is unknown and on which an open verdict depends."""

    subject: str
    feature: str
    causes: tuple[Cause, ...]
    clauses: tuple[str, ...]
    acquisition: str
    burden: int

    @property
    def obtainable(self) -> bool:
        """Whether it can be had at all."""
        return Cause.NOT_ASSESSABLE not in self.causes


class Explained:
    """One case with everything that is worked out about its verdicts, each part when it is first asked for."""

    def __init__(self, answer: Answer, case: CaseAnswer) -> None:
        self.answer = answer
        self.case = case
        self.knowledge: Knowledge = answer.knowledge
        self._missing: dict[str, Missing | None] = {}
        self._flips: dict[str, tuple[Flip, ...]] = {}

    def missing(self, assessment: Assessment) -> Missing | None:
        """What would settle the verdict of a guideline."""
        key = assessment.guideline.id
        if key not in self._missing:
            self._missing[key] = missing(self.case, assessment)
        return self._missing[key]

    def flips(self, assessment: Assessment) -> tuple[Flip, ...]:
        """The smallest changes that turn the verdict of a guideline."""
        key = assessment.guideline.id
        if key not in self._flips:
            self._flips[key] = flips(self.case, assessment, self.missing(assessment))
        return self._flips[key]

    def needs(self, assessment: Assessment) -> tuple[Need, ...]:
        """The least burdensome decisive set, and what cannot be had; all that is unknown where there is none."""
        found = self.missing(assessment)
        if found is None:
            return ()
        sets = [tuple(self.need(assessment, v.subject, v.feature) for v in s) for s in found.decisive]
        if sets:
            chosen = min(sets, key=lambda s: (sum(n.burden for n in s), len(s)))
        else:
            keys = dict.fromkeys(
                (leaf.subject, leaf.criterion.term)
                for clause in assessment.counted
                if clause.recommendation.effect in DECIDING
                for leaf in clause.proof.unknown_leaves()
                if leaf.gap and leaf.gap.cause is not Cause.LEFT_OPEN
            )
            chosen = tuple(self.need(assessment, *key) for key in keys)
        blocked = {(p.subject, p.criterion.term) for p in found.blocked}
        rest = (self.need(assessment, *key) for key in sorted(blocked))
        rows = dict.fromkeys((*chosen, *rest))
        return tuple(sorted(rows, key=lambda n: (not n.obtainable, n.burden, -len(n.clauses), n.feature)))

    def need(self, assessment: Assessment, subject: str, term: str) -> Need:
        """Why a feature is unknown, for which clauses, and how it is obtained."""
        causes, clauses = unknown_because(assessment, subject, term)
        feature = self.knowledge.features.get(term)
        way = self.knowledge.label(feature.acquisition) if feature else ""
        return Need(subject, term, causes, clauses, way, feature.burden if feature else 0)

    @functools.cached_property
    def steps(self) -> tuple[Step, ...]:
        """The features worth finding out, over all guidelines."""
        found: Mapping[str, Missing | None] = {a.guideline.id: self.missing(a) for a in self.case.assessments}
        return next_steps(self.case, found)

    @functools.cached_property
    def unobtainable(self) -> tuple[Unobtainable, ...]:
        """What cannot be assessed, and what would do in its place."""
        return unobtainable(self.case)

    @functools.cached_property
    def disagreement(self) -> Disagreement:
        """How the guidelines fall apart."""
        return disagreement(self.case)

    @functools.cached_property
    def unread(self) -> tuple[Fact, ...]:
        """What is recorded and no clause read."""
        return unread_facts(self.case)


def explain(answer: Answer) -> tuple[Explained, ...]:
    """Every case of an answer, ready to be explained."""
    return tuple(Explained(answer, case) for case in answer.cases)
