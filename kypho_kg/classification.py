"""Types of a lesion: the defined classes of the ontology to which its features entail that it belongs."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from kypho_kg.criteria import Criterion
from kypho_kg.evaluation import Evaluator, Proof, Truth, lesion_subject
from kypho_kg.knowledge import Knowledge
from kypho_kg.snapshot import Snapshot
from kypho_kg.vocabulary import EQUIVALENT, KYPHO, LESION

LESION_TYPE = KYPHO + "VertebralLesionType"


@dataclass(frozen=True, slots=True)
class LesionType:
    """Whether a lesion is of a type, with the proof."""

    iri: str
    proof: Proof

    @property
    def truth(self) -> Truth:
        """Whether the lesion is of the type."""
        return self.proof.truth


@functools.cache
def type_criteria(k: Knowledge) -> tuple[tuple[str, Criterion], ...]:
    """The defined types with their criteria, by name of the class; the readings of an open band are no types.

    :raises KnowledgeBaseError: when a definition is outside the criterion profile or is none of a lesion.
    """
    t = k.triples
    types = sorted(k.descendants(LESION_TYPE))
    readings = {r for iri in types for p in ("strictReading", "lenientReading") for r in t.resources(iri, KYPHO + p)}
    defined = (i for i in types if t.resource(i, EQUIVALENT) or t.resource(i, KYPHO + "strictReading"))
    return tuple((iri, k.criterion(iri, LESION)) for iri in defined if iri not in readings)


def lesion_types(snapshot: Snapshot, lesion_id: str) -> tuple[LesionType, ...]:
    """The truth of every type for a lesion of the record."""
    subject = lesion_subject(lesion_id)
    evaluator = Evaluator(snapshot, subject, has_procedure=False)
    return tuple(
        LesionType(iri, evaluator.evaluate(criterion, subject)) for iri, criterion in type_criteria(snapshot.knowledge)
    )
