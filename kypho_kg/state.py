"""The resolved state of one feature of one subject."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kypho_kg.record import Cause, Fact, Value


@dataclass(frozen=True, slots=True)
class Gap:
    """Why a state is unknown, with the facts that were withheld."""

    cause: Cause
    facts: tuple[Fact, ...] = ()
    reason: str = ""


NOT_RECORDED = Gap(Cause.NOT_RECORDED)
_LATE = frozenset({Cause.PENDING, Cause.STALE})


@dataclass(frozen=True, slots=True)
class Resolved:
    """The state of a category, choice, quantity or date of one subject."""

    value: Value = None
    facts: tuple[Fact, ...] = ()
    ruled_out: Mapping[str, Fact] = field(default_factory=dict)
    gap: Gap = NOT_RECORDED

    @property
    def open_to_derivation(self) -> bool:
        """Whether a derived value may stand here: what is too old or only ordered is no obstacle, a conflict is."""
        settled = self.facts or self.ruled_out
        return not settled and (not self.gap.facts or self.gap.cause in _LATE)
