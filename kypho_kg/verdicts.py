"""From the truths of clauses to verdicts, by the bundled SPARQL query: the one place where a verdict is made."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from kypho_kg._resources import resource_dir
from kypho_kg.errors import EngineError
from kypho_kg.evaluation import Truth
from kypho_kg.guidelines import ABSOLUTE, EXCLUDES, INDICATES, RELATIVE, REQUIRES, SCOPE, Recommendation
from kypho_kg.store import Store, Triple
from kypho_kg.vocabulary import KYPHO, TYPE, local

UNDETERMINED = "Undetermined"
_TRUTHS = {Truth.MET: "Met", Truth.NOT_MET: "NotMet", Truth.UNKNOWN: "UnknownTruth"}
_CANDIDATE = {
    SCOPE: Truth.MET, REQUIRES: Truth.MET, INDICATES: Truth.MET, EXCLUDES: Truth.NOT_MET, ABSOLUTE: Truth.NOT_MET,
}  # fmt: skip
VERDICTS = (
    "NotApplicable", "Contraindicated", "NotIndicated", "Candidate", "CandidateWithCaution",
    "CandidateScreeningOpen", UNDETERMINED, "Rated", "NoVerdict",
)  # fmt: skip


RULES: tuple[tuple[str, dict[str, Truth]], ...] = (
    ("NotApplicable", {SCOPE: Truth.NOT_MET}),
    ("Contraindicated", {SCOPE: Truth.MET, ABSOLUTE: Truth.MET}),
    ("NotIndicated", {SCOPE: Truth.MET, EXCLUDES: Truth.MET}),
    ("NotIndicated", {SCOPE: Truth.MET, REQUIRES: Truth.NOT_MET}),
    ("NotIndicated", {SCOPE: Truth.MET, INDICATES: Truth.NOT_MET}),
    ("CandidateWithCaution", {**_CANDIDATE, RELATIVE: Truth.MET}),
    ("Candidate", {**_CANDIDATE, RELATIVE: Truth.NOT_MET}),
    ("CandidateScreeningOpen", _CANDIDATE),
)
"""The rules as data, the first that fits, for engines that judge sets of cases; a test holds them to the query.

Each names the groups of clauses, by their effect, and the truth of each group: requirements and scope are met if all
are, any other group if one of it is, and no indication counts as one that is met. No rule: undetermined.
"""


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
