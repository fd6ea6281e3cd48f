"""How the guidelines fall apart on one case: by verdict, with the fewest clauses that keep each from saying yes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kypho_kg.candidacy import Assessment, CaseAnswer, ClauseResult
from kypho_kg.evaluation import Truth
from kypho_kg.guidelines import INDICATES
from kypho_kg.reasons import deciding, decisive_clauses, no_candidate_either_way
from kypho_kg.verdicts import UNDETERMINED

MOST_EXACT = 14
"""Features among which the smallest separating set is looked for exactly; among more, the widest-reaching go first."""


class Side(StrEnum):
    """Which way a guideline leans on a case."""

    YES = "yes"
    OPEN = "cannot say yet"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Member:
    """A guideline of a cluster, with the clauses that keep it there."""

    assessment: Assessment
    clauses: tuple[ClauseResult, ...]
    """Each must be settled otherwise before the guideline can say yes; none where it does."""
    any_of: tuple[ClauseResult, ...]
    """Beside these, one of the indications of which none is met."""
    features: frozenset[str]
    """The features on which these clauses turn."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The guidelines that lean one way."""

    side: Side
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The clusters of one case, and what separates those that say no from those that say yes."""

    clusters: tuple[Cluster, ...]
    separating: tuple[str, ...]
    """The fewest features such that each guideline that says no turns on one of them; empty where none says yes and
    none says no at once."""
    exact: bool


def disagreement(case: CaseAnswer) -> Disagreement:
    """Cluster the guidelines that apply to a case by the side they take."""
    members: dict[Side, list[Member]] = {side: [] for side in Side}
    for a in case.assessments:
        side = _side(a)
        if side is not None:
            found = () if side is Side.YES else decisive_clauses(a)
            ways = tuple(c for c in found if c.recommendation.effect == INDICATES)
            others = tuple(c for c in found if c.recommendation.effect != INDICATES)
            clauses = others if len(ways) > 1 else (*others, *ways)
            members[side].append(Member(a, clauses, ways if len(ways) > 1 else (), _features(found)))
    clusters = tuple(Cluster(side, tuple(rows)) for side, rows in members.items() if rows)
    apart = bool(members[Side.YES] and members[Side.NO])
    separating, exact = _fewest([m.features for m in members[Side.NO] if m.features]) if apart else ((), True)
    return Disagreement(clusters, separating, exact)


def _side(a: Assessment) -> Side | None:
    if a.verdict.startswith("Candidate"):
        return Side.YES
    if a.verdict in {"NotIndicated", "Contraindicated"} or no_candidate_either_way(a):
        return Side.NO
    return Side.OPEN if a.verdict == UNDETERMINED else None


def _features(clauses: Iterable[ClauseResult]) -> frozenset[str]:
    return frozenset(
        leaf.criterion.term
        for clause in clauses
        if clause.truth is not Truth.UNKNOWN
        for leaf in deciding(clause.proof)
        if leaf.criterion.term
    )


def _fewest(sets: Sequence[frozenset[str]]) -> tuple[tuple[str, ...], bool]:
    """A smallest set that has a member in each of the sets; the first by name among equals."""
    pool = sorted(set().union(*sets), key=lambda f: (-sum(f in s for s in sets), f)) if sets else []
    for size in range(len(pool) + 1):
        for some in itertools.combinations(pool[:MOST_EXACT], size):
            if all(s & set(some) for s in sets):
                return some, len(pool) <= MOST_EXACT or size <= 1
    left, chosen = list(sets), []
    while left:
        best = max(pool, key=lambda f: sum(f in s for s in left))
        chosen.append(best)
        left = [s for s in left if best not in s]
    return tuple(chosen), False
