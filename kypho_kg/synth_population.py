"""A population: what is drawn for its patients, how it depends on one another, and how it is recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from kypho_kg._resources import resource_dir
from kypho_kg.errors import UsageError
from kypho_kg.knowledge import Feature
from kypho_kg.synth_draws import Distribution, Ints, Table

NUMBER, WORD, BINARY = "number", "word", "binary"
PATIENT_LEVEL, LESION_LEVEL, PROCEDURE_LEVEL = "Patient", "VertebralLesion", "ProposedProcedure"


@dataclass(frozen=True, slots=True)
class Condition:
    """What another draw must be: one of some codes, or between two numbers."""

    name: str
    codes: Ints | None = None
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """A distribution and when it is the one; the first branch whose conditions hold is taken."""

    conditions: tuple[Condition, ...]
    distribution: Distribution


@dataclass(frozen=True, slots=True)
class Series:
    """Earlier values of a quantity: how many in all, how far apart, and by how much each differs from the next."""

    count: Table
    days: int
    change: Table


@dataclass(frozen=True, slots=True)
class Draw:
    """One thing that is drawn for each patient or lesion."""

    name: str
    feature: Feature | None
    """``None`` for what is drawn and not recorded."""
    level: str
    branches: tuple[Branch, ...]
    kind: str
    """What its values are: :data:`NUMBER`, :data:`WORD`, or :data:`BINARY`, which is 1 for present and 0 for absent."""
    missing: float
    """By how much more often than other things it is not recorded."""
    stated_absent: float
    """How often the absence of a finding is written down."""
    dated: str
    """The draw that says how many days before the index date it was recorded; empty for stated as current."""
    document: str
    source: str
    series: Series | None = None
    distinct: bool = False
    """Whether no two lesions of a patient have the same."""


@dataclass(slots=True)
class Population:
    """What a population file says."""

    name: str
    title: str
    first: date
    days: int
    """The as-of dates lie within so many days from ``first``."""
    lesions: Table
    proposed: float
    session_named: float
    further: float
    service: Table
    states: Table
    draws: list[Draw] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    """Local names of values; a code is a place in this list."""

    def code(self, word: str) -> int:
        """The code of a word."""
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)


def populations() -> dict[str, Path]:
    """The bundled populations by name."""
    return {p.stem: p for p in sorted((resource_dir("ontology") / "populations").glob("*.yaml"))}


def find_population(name: str) -> Path:
    """The file of a bundled population, or a file of the user.

    :raises UsageError: for neither.
    """
    known = populations()
    path = known.get(name, Path(name))
    if not path.is_file():
        raise UsageError(f"no population {name!r}; known: {', '.join(known)}, or a file")
    return path
