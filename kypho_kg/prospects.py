"""What a verdict can still become: over the facts that are unknown, or over those that could be otherwise.

By the verdict rules, the combinations of values with which each clause is met or not met (``covers.py``) give the
combinations with which the guideline comes to each verdict.
"""

from __future__ import annotations

import functools

from kypho_kg.covers import Covers
from kypho_kg.cubes import NOTHING, Cover, Cube
from kypho_kg.evaluation import Truth
from kypho_kg.guidelines import DECIDING, INDICATES, REQUIRES, SCOPE
from kypho_kg.values import Variable
from kypho_kg.verdicts import RULES, UNDETERMINED


class Prospects(Covers):
    """One case under one guideline, with the combinations of values that give each verdict."""

    @functools.cached_property
    def groups(self) -> dict[tuple[str, Truth], Cover]:
        """The combinations with which each group of clauses is met, and not met."""
        found: dict[tuple[str, Truth], Cover] = {}
        for effect in DECIDING:
            proofs = [p for e, p in self.proofs if e == effect]
            met = [self.cover(p, Truth.MET) for p in proofs]
            not_met = [self.cover(p, Truth.NOT_MET) for p in proofs]
            all_needed = effect in {SCOPE, REQUIRES} or (effect == INDICATES and not proofs)
            found[effect, Truth.MET] = self.frame.both(*met) if all_needed else self.frame.either(*met)
            found[effect, Truth.NOT_MET] = self.frame.either(*not_met) if all_needed else self.frame.both(*not_met)
        return found

    def may_give(self, verdict: str) -> bool:
        """Whether nothing that a verdict asks of the groups of clauses is out of reach by itself."""
        groups = self.groups
        return verdict == UNDETERMINED or any(
            v == verdict and all(groups[p] for p in parts.items()) for v, parts in RULES
        )

    @functools.cached_property
    def rules(self) -> tuple[tuple[str, Cover], ...]:
        """For each verdict rule, in order, the combinations that fit it; none where the guideline judges nothing."""
        if not any(e in {REQUIRES, INDICATES} for e, _ in self.proofs):
            return ()
        groups = self.groups
        return tuple((verdict, self.frame.both(*(groups[part] for part in parts.items()))) for verdict, parts in RULES)

    @functools.cached_property
    def verdicts(self) -> dict[str, Cover]:
        """The combinations that give each verdict while nothing else is said: the first rule that fits."""
        found: dict[str, Cover] = {}
        earlier: list[Cover] = [self.impossible]
        for verdict, fits in self.rules:
            cover = tuple(map(self.frame.settled, fits))
            for other in earlier:
                cover = self.frame.without(cover, other)
            found[verdict] = self.frame.either(found.get(verdict, NOTHING), cover)
            earlier.append(fits)
        return found

    @functools.cached_property
    def undetermined(self) -> Cover:
        """The combinations that fit no rule while nothing else is said."""
        cover = self.frame.everything if self.rules else NOTHING
        for _, fits in self.rules:
            cover = self.frame.without(cover, fits)
        return self.frame.without(tuple(map(self.frame.settled, cover)), self.impossible)

    @functools.cached_property
    def left_open(self) -> dict[str, Cover]:
        """For each band that the source leaves open, by its class, the combinations that lie in it."""
        _ = self.groups
        return dict(self.open_bands)

    def variables_of(self, cube: Cube) -> tuple[tuple[Variable, int], ...]:
        """The variables that must be known, or become otherwise, each with the cells that will do."""
        return tuple(
            (self.variables[i], self.frame.cells(cube, i)) for i in self.frame.numbers(self.frame.changed(cube))
        )
