"""What would turn a verdict into another one: the fewest changes, and the nearest values.

A change is a feature that is unknown and becomes known, or one that becomes otherwise than recorded. What the ontology
declares as unable to change is left as it is, and what can only grow never shrinks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from kypho_kg.candidacy import Assessment, CaseAnswer
from kypho_kg.cubes import NOTHING
from kypho_kg.evaluation import Truth
from kypho_kg.guidelines import RELATIVE, SCOPE
from kypho_kg.missing import SCREENING_OPEN, Missing, Wanted, Way
from kypho_kg.prospects import Prospects
from kypho_kg.record import Range
from kypho_kg.values import Variable
from kypho_kg.verdicts import RULES, UNDETERMINED

MOST_CHANGES = 3
"""More changes of what is recorded than this are not looked for."""


@dataclass(frozen=True, slots=True)
class Flip:
    """The smallest ways from a verdict to another one."""

    verdict: str
    changes: int
    """How many features must change."""
    ways: tuple[Way, ...]
    """Each way says the features and the values that will do, the nearest first."""
    exact: bool
    """Whether no smaller way can have been overlooked."""


def flips(case: CaseAnswer, assessment: Assessment, wanted: Missing | None) -> tuple[Flip, ...]:
    """The smallest changes that turn a verdict into each other one, the fewest changes first.

    Ways of up to ``MOST_CHANGES`` changes are looked for among all that is unknown and all that can change; longer ones
    only among what is unknown.

    :param wanted: what is missing for the verdict.
    """
    targets = _targets(assessment)
    possible = wanted.possible if wanted else ()
    longest = {p.verdict: len(p.features) for p in sorted(possible, key=lambda p: -len(p.features))}
    found: dict[str, Flip] = {}
    for budget in range(1, MOST_CHANGES + 1):
        left = [v for v in targets if v not in found and longest.get(v, budget) >= budget]
        if budget > 1 and UNDETERMINED in left:
            left.remove(UNDETERMINED)
        if not left:
            break
        space = Prospects(case, assessment, changing=True, budget=budget)
        for verdict in filter(space.may_give, left):
            cover = space.undetermined if verdict == UNDETERMINED else space.verdicts.get(verdict, NOTHING)
            if cover:
                ways = (tuple(Wanted(v, cells) for v, cells in space.variables_of(cube)) for cube in cover)
                found[verdict] = Flip(verdict, budget, _ordered(ways), space.exact)
    for verdict, size in longest.items():
        if verdict not in found:
            ways = (way for p in possible if (p.verdict, len(p.features)) == (verdict, size) for way in p.ways)
            found[verdict] = Flip(verdict, size, _ordered(ways), exact=size <= MOST_CHANGES + 1)
    return tuple(sorted(found.values(), key=lambda f: (f.changes, targets.index(f.verdict))))


def _targets(assessment: Assessment) -> list[str]:
    """The verdicts that are asked for.

    That one other value would leave a refusal open is of use; how a candidate could become less sure is not.
    """
    targets = [v for v in dict.fromkeys(v for v, _ in RULES) if v != assessment.verdict]
    if not assessment.having(SCOPE):
        targets = [v for v in targets if v != "NotApplicable"]
    if not assessment.having(RELATIVE, Truth.UNKNOWN) or assessment.verdict.startswith("Candidate"):
        targets = [v for v in targets if v != SCREENING_OPEN]
    if assessment.verdict != UNDETERMINED and not assessment.verdict.startswith("Candidate"):
        targets.append(UNDETERMINED)
    return targets


def _ordered(ways: Iterable[Way]) -> tuple[Way, ...]:
    return tuple(sorted(set(ways), key=lambda way: (sum(map(distance, way)), _names(way))))


def _names(way: Way) -> tuple[str, ...]:
    return tuple(f"{w.variable.subject} {w.variable.feature} {w.cells}" for w in way)


def distance(wanted: Wanted) -> Decimal:
    """By how much a number must move to the nearest value that will do, as a share of it; 0 for anything else."""
    step = nearest(wanted)
    if step is None:
        return Decimal(0)
    value, limit = step
    return abs(limit - value) / max(abs(limit), abs(value), Decimal(1))


def nearest(wanted: Wanted) -> tuple[Decimal, Decimal] | None:
    """The number that is recorded and the limit of the nearest range that will do; ``None`` for what is no number."""
    value = recorded(wanted.variable)
    if value is None:
        return None
    ends = [x for cell in wanted.variable.cells_of(wanted.cells) for x in _ends(cell.range)]
    return (value, min(ends, key=lambda x: abs(x - value))) if ends else None


def recorded(variable: Variable) -> Decimal | None:
    """The number that is recorded of a quantity."""
    return variable.value.exact if isinstance(variable.value, Range) else None


def _ends(part: Range | None) -> Iterator[Decimal]:
    if part is not None:
        yield from (x for x in (part.low, part.high) if x is not None)
