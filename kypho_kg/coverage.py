"""Which of the features on which verdicts turn are recorded at all, and which no source has filled."""

from __future__ import annotations

from collections.abc import Iterable

from kypho_kg.guidelines import DECIDING
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Record
from kypho_kg.vocabulary import local


def coverage(k: Knowledge, records: Iterable[Record]) -> tuple[int, list[tuple[str, int]]]:
    """How many features that deciding clauses ask for are recorded of any patient; the others, with how many ask."""
    asked: dict[str, int] = {}
    for g in k.guidelines.values():
        for r in g.recommendations:
            if r.effect in DECIDING:
                for term in {c.term for c in r.criterion.walk() if not c.children and c.term in k.features}:
                    asked[term] = asked.get(term, 0) + 1
    recorded = {f.feature for record in records for f in record.facts}
    filled = {t for t in asked if t in recorded or any(t in k.ancestors(f) for f in recorded)}
    left = sorted(((t, n) for t, n in asked.items() if t not in filled), key=lambda row: (-row[1], local(row[0])))
    return len(filled), left


def coverage_line(k: Knowledge, records: Iterable[Record]) -> str:
    """The same as one sentence, without names."""
    filled, missing = coverage(k, records)
    return f"Of {filled + len(missing)} features on which verdicts turn, {filled} were filled by a source."
