"""Which unknown facts would settle a verdict, and as what.

A *decisive* set of features settles an open verdict whatever their values turn out to be; a *possible* set settles it
as one verdict if their values are as stated. Both are minimal, and exact over the facts that the clauses ask for, as
long as no more than ``cubes.LARGEST`` cubes and ``MOST_SETS`` sets are needed; an answer that left some out says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kypho_kg.candidacy import Assessment, CaseAnswer
from kypho_kg.cubes import NOTHING, Cover, minimal_sets
from kypho_kg.evaluation import Proof
from kypho_kg.prospects import Prospects
from kypho_kg.record import Cause
from kypho_kg.values import Variable
from kypho_kg.verdicts import UNDETERMINED, VERDICTS

SCREENING_OPEN = "CandidateScreeningOpen"
OPEN_VERDICTS = frozenset({UNDETERMINED, SCREENING_OPEN})
MOST_SETS = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """A feature with the cells of its values that will do."""

    variable: Variable
    cells: int


Way = tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class PossibleSet:
    """Features some values of which settle a verdict."""

    verdict: str
    features: frozenset[tuple[str, str]]
    ways: tuple[Way, ...]
    """The values that do; one of these is enough."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What would settle the verdict of one case under one guideline."""

    decisive: tuple[tuple[Variable, ...], ...]
    possible: tuple[PossibleSet, ...]
    reachable: tuple[str, ...]
    """The verdicts in which it can end, exactly over facts; that of today where nothing more need be known."""
    bands: tuple[str, ...]
    """Classes whose bands the source leaves open: where a value lies in one, a decisive set does not settle it."""
    blocked: tuple[Proof, ...]
    """Unknown atoms that no fact can settle."""
    exact: bool
    """Whether every set was found."""


def missing(case: CaseAnswer, assessment: Assessment) -> Missing | None:
    """What would settle a verdict; ``None`` where nothing that is unknown can change it."""
    now = assessment.conclusion
    if len(now.reachable) < 2:
        return None
    space = Prospects(case, assessment)
    if space.frame.holds_everything(space.impossible):
        # What is recorded contradicts itself through a bridge: no value of what is unknown can mend that.
        return Missing((), (), (now.verdict,), (), tuple(space.blocked), exact=True)
    decisive, bands, complete = _decisive(space, now.verdict)
    possible = tuple(p for verdict in now.reachable if verdict != now.verdict for p in _possible(space, verdict))
    ends = {p.verdict for p in possible} | (
        {now.verdict} if now.verdict != UNDETERMINED or not decisive or bands else set()
    )
    return Missing(
        decisive,
        possible,
        tuple(v for v in VERDICTS if v in ends),
        bands,
        tuple(space.blocked),
        space.exact and complete,
    )


def _decisive(space: Prospects, verdict: str) -> tuple[tuple[tuple[Variable, ...], ...], tuple[str, ...], bool]:
    """The minimal decisive sets, the bands but for which they are decisive, and whether these are all."""
    if verdict not in OPEN_VERDICTS:
        return (), (), True
    frame = space.frame
    ends = [cover for v, cover in space.rules if v != SCREENING_OPEN or verdict != SCREENING_OPEN]
    settled = frame.either(*ends, space.impossible)
    everything = frozenset(range(len(space.variables)))
    bands: tuple[str, ...] = ()
    if not frame.holds_everything(settled):
        bands = tuple(sorted(space.left_open))
        settled = frame.either(settled, *space.left_open.values())

    def enough(some: frozenset[int]) -> bool:
        return frame.holds_everything(settled, frame.support(some))

    sets, complete = minimal_sets(everything, enough, MOST_SETS)
    if frozenset() in sets:  # nothing more need be known: the source itself leaves it open
        return (), bands, complete
    used = frame.support({i for s in sets for i in s})
    bands = tuple(b for b in bands if any(frame.changed(c) & used for c in space.left_open[b]))
    ordered = sorted((tuple(space.variables[i] for i in sorted(s)) for s in sets), key=len)
    return tuple(ordered), bands if sets else (), complete


def _possible(space: Prospects, verdict: str) -> Iterable[PossibleSet]:
    cover: Cover = space.verdicts.get(verdict, NOTHING)
    groups: dict[int, list[Way]] = {}
    for cube in cover:
        way = tuple(Wanted(v, cells) for v, cells in space.variables_of(cube))
        groups.setdefault(space.frame.changed(cube), []).append(way)
    demands = {support: min(map(_demands, ways)) for support, ways in groups.items()}
    for support in sorted(groups, key=lambda s: (s.bit_count(), demands[s], s)):
        if not any(other != support and other & ~support == 0 for other in groups):
            variables = (space.variables[i] for i in space.frame.numbers(support))
            ways = tuple(sorted(groups[support], key=_demands))
            yield PossibleSet(verdict, frozenset((v.subject, v.feature) for v in variables), ways)


def _demands(way: Way) -> int:
    """How many findings must be there: a way by what is absent asks for less to happen."""
    return sum(
        len(w.variable.cells_of(w.cells)) == 1 and w.variable.cells_of(w.cells)[0].met != frozenset() for w in way
    )


def unknown_because(assessment: Assessment, subject: str, feature: str) -> tuple[tuple[Cause, ...], tuple[str, ...]]:
    """Why a feature is unknown, and the clauses of a guideline that ask for it."""
    causes: list[Cause] = []
    clauses: list[str] = []
    for clause in assessment.counted:
        for leaf in clause.proof.unknown_leaves():
            if leaf.gap and (leaf.subject, leaf.criterion.term) == (subject, feature):
                causes.append(leaf.gap.cause)
                clauses.append(clause.recommendation.id)
    return tuple(dict.fromkeys(causes)) or (Cause.NOT_RECORDED,), tuple(dict.fromkeys(clauses))
