"""What was read of a source, what it was mapped to, what was not understood, and what was rejected.

Every source of records writes into one report while it yields its records, so that nothing is lost in silence. A report
names codes and places, never a patient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kypho_kg.errors import Problem


@dataclass(slots=True)
class IntakeReport:
    """Counts of what one source held; each source fills it as it goes."""

    source: str
    """Name of the file, folder or database."""
    read: Counter[str] = field(default_factory=Counter)
    """What was read, by kind: resources, rows, triples."""
    mapped: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """What became facts: kind, code or column, and the local name of the feature."""
    unmapped: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Codes that say nothing here: kind, code with its system, and its text."""
    unread: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What holds something that was not read: kind, and why."""
    rejected: list[Problem] = field(default_factory=list)
    """What is malformed, each with its place; the rest was read."""
    records: int = 0
    """Patients that came out."""

    def saw(self, kind: str, count: int = 1) -> None:
        """Count something that was read."""
        self.read[kind] += count

    def took(self, kind: str, code: str, feature: str) -> None:
        """Count a code or column that became a fact of a feature."""
        self.mapped[kind, code, feature] += 1

    def passed(self, kind: str, code: str, text: str = "") -> None:
        """Count a code that no mapping knows."""
        self.unmapped[kind, code, text] += 1

    def left(self, kind: str, why: str, times: int = 1) -> None:
        """Count something that holds more than was read."""
        self.unread[kind, why] += times

    def forget_none(self) -> None:
        """Drop what was counted and taken back."""
        self.unmapped, self.unread = +self.unmapped, +self.unread

    def reject(self, where: str, what: str, expected: str = "") -> None:
        """Note something malformed."""
        self.rejected.append(Problem(where, what, expected))

    def features(self) -> frozenset[str]:
        """Local names of the features that the source filled."""
        return frozenset(feature for _, _, feature in self.mapped)


def report_json(reports: Iterable[IntakeReport]) -> list[dict[str, Any]]:
    """Reports as JSON, the most frequent first."""

    def rows(counts: Counter[Any], *names: str) -> list[dict[str, Any]]:
        ordered = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
        return [{**dict(zip(names, key, strict=True)), "count": n} for key, n in ordered]

    return [
        {
            "source": r.source,
            "records": r.records,
            "read": dict(sorted(r.read.items())),
            "mapped": rows(r.mapped, "kind", "code", "feature"),
            "not_understood": rows(r.unmapped, "kind", "code", "text"),
            "not_read": rows(r.unread, "kind", "why"),
            "rejected": [{"where": p.where, "what": p.what, "expected": p.expected} for p in r.rejected],
        }
        for r in reports
    ]
