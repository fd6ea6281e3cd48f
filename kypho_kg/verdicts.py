"""From the truths of clauses to verdicts, by the bundled SPARQL query: the one place where a verdict is made."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from kypho_kg._resources import resource_dir
from kypho_kg.errors import EngineError
from kypho_kg.evaluation import Truth
from kypho_kg.guidelines import Recommendation
from kypho_kg.store import Store, Triple
from kypho_kg.vocabulary import KYPHO, TYPE, local

UNDETERMINED = "Undetermined"
_TRUTHS = {Truth.MET: "Met", Truth.NOT_MET: "NotMet", Truth.UNKNOWN: "UnknownTruth"}
VERDICTS = (
    "NotApplicable", "Contraindicated", "NotIndicated", "Candidate", "CandidateWithCaution",
    "CandidateScreeningOpen", UNDETERMINED, "Rated", "NoVerdict",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Conclusion:
    """A verdict and the verdicts in which it can still end."""

    verdict: str
    reachable: tuple[str, ...]


Variant = tuple[str, str]
"""Id of a guideline, and ``assumed``, ``unbridged`` or ``reading:NAME`` (no name: without alternatives)."""


def verdict_graph(variants: dict[Variant, list[tuple[Recommendation, Truth]]]) -> Iterator[Triple]:
    """Assessments and clause truths as RDF: the input of ``queries/derive/verdict.rq``."""
    for (guideline, variant), rows in variants.items():
        node = _assessment_iri(guideline, variant)
        yield node, TYPE, KYPHO + "Assessment"
        for recommendation, truth in rows:
            clause = f"{node}/{recommendation.clause}"
            yield node, KYPHO + "considers", recommendation.iri
            yield node, KYPHO + "hasClauseTruth", clause
            yield clause, KYPHO + "ofRecommendation", recommendation.iri
            yield clause, KYPHO + "effect", KYPHO + recommendation.effect
            yield clause, KYPHO + "truth", KYPHO + _TRUTHS[truth]


def _assessment_iri(guideline: str, variant: str) -> str:
    return f"urn:kypho:assessment/{guideline}/{variant}"


def conclude(variants: dict[Variant, list[tuple[Recommendation, Truth]]]) -> dict[Variant, Conclusion]:
    """Derive all verdicts of a case by the bundled SPARQL query.

    :raises EngineError: when a recommendation has not exactly one truth, or an assessment not exactly one verdict.
    """
    store = Store(verdict_graph(variants))
    for row in store.select(derive_query("clause-truth-count")):
        raise EngineError(f"{row['recommendation']}: has not exactly one truth in {row['assessment']}")
    verdicts: dict[str, list[str]] = {}
    ends: dict[str, set[str]] = {}
    for s, p, o in store.construct(derive_query("verdict")):
        if p == KYPHO + "verdict":
            verdicts.setdefault(s, []).append(local(str(o)))
        else:
            ends.setdefault(s, set()).add(local(str(o)))
    conclusions = {}
    for variant in variants:
        node = _assessment_iri(*variant)
        found = verdicts.get(node, [])
        if len(found) != 1 or found[0] not in VERDICTS or not ends.get(node):
            raise EngineError(f"{node}: expected one verdict, got {found or 'none'}")
        conclusions[variant] = Conclusion(found[0], tuple(v for v in VERDICTS if v in ends[node]))
    return conclusions


@functools.cache
def derive_query(name: str) -> str:
    """The text of a query of ``queries/derive``."""
    return (resource_dir("queries") / "derive" / f"{name}.rq").read_text("utf-8")
