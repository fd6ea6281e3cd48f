"""Which of the features on which verdicts turn are filled by a source or worked out, and which are not."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from kypho_kg.derivable import derivable
from kypho_kg.guidelines import DECIDING
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Record
from kypho_kg.vocabulary import local


@dataclass(frozen=True, slots=True)
class Filled:
    """What the sources of some records filled of the features that decide somewhere."""

    recorded: int
    """How many are recorded of any patient."""
    derived: tuple[str, ...]
    """IRIs of those that are worked out from others."""
    missing: tuple[tuple[str, int], ...]
    """IRIs of the rest, each with the number of clauses that ask for it; the most asked first."""

    @property
    def number(self) -> int:
        """How many are filled, by a source or by derivation."""
        return self.recorded + len(self.derived)

    def __str__(self) -> str:
        total = self.number + len(self.missing)
        how = f": {self.recorded} by a source, {len(self.derived)} by derivation" if self.derived else " by a source"
        return f"Of {total} features on which verdicts turn, {self.number} were filled{how}."


def filled_by(k: Knowledge, records: Iterable[Record]) -> Filled:
    """What the sources of some records filled of the features that decide somewhere; each record is looked at once."""
    recorded: set[str] = set()

    def noted() -> Iterator[Record]:
        for record in records:
            recorded.update(f.feature for f in record.facts)
            yield record

    worked_out = derivable(k, noted())
    number, left = _left_by(k, recorded)
    derived = tuple(feature for feature, _ in left if feature in worked_out)
    return Filled(number, derived, tuple(row for row in left if row[0] not in worked_out))


def coverage(k: Knowledge, records: Iterable[Record]) -> tuple[int, list[tuple[str, int]]]:
    """How many features that deciding clauses ask for are recorded of any patient; the others, with how many ask."""
    return _left_by(k, {f.feature for record in records for f in record.facts})


def _left_by(k: Knowledge, recorded: Set[str]) -> tuple[int, list[tuple[str, int]]]:
    asked = _asked(k)
    filled = {t for t in asked if t in recorded or any(t in k.ancestors(f) for f in recorded)}
    left = sorted(((t, n) for t, n in asked.items() if t not in filled), key=lambda row: (-row[1], local(row[0])))
    return len(filled), left


@functools.lru_cache(maxsize=2)
def _asked(k: Knowledge) -> Mapping[str, int]:
    """The features that deciding clauses ask for, with how many do."""
    asked: dict[str, int] = {}
    for g in k.guidelines.values():
        for r in g.recommendations:
            if r.effect in DECIDING:
                for term in {c.term for c in r.criterion.walk() if not c.children and c.term in k.features}:
                    asked[term] = asked.get(term, 0) + 1
    return asked


def coverage_line(k: Knowledge, records: Iterable[Record]) -> str:
    """What was filled as one sentence, without names."""
    return str(filled_by(k, records))


def coverage_json(k: Knowledge, records: Iterable[Record]) -> dict[str, Any]:
    """What was filled as data: how many, and the others, those that the most clauses ask for first."""
    filled = filled_by(k, records)
    unfilled = [{"feature": k.features[f].name, "clauses": n} for f, n in filled.missing]
    return {"filled_features": filled.number, "unfilled_features": unfilled}
