"""The counts of a cohort as small tables: verdicts, clauses, attrition, missingness and agreement."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kypho_kg.cohort.counts import KNOWN, SAYS, STEPS, Asked, Counts, Step
from kypho_kg.cohort.layout import CAUSES
from kypho_kg.cohort.logic import MET, NOT_MET, UNKNOWN
from kypho_kg.verdicts import VERDICTS

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """One table with the names of its columns."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def summaries(asked: Asked, counts: Counts) -> tuple[Summary, ...]:
    """All of them, in the order of the guidelines and their clauses."""
    return (
        Summary("verdict_counts", ("guideline", "layer", *VERDICTS), tuple(_verdicts(asked, counts))),
        Summary("clause_counts", _CLAUSE, tuple(_clauses(asked, counts))),
        Summary("attrition", _ATTRITION, tuple(_attrition(asked, counts))),
        Summary("missingness", _MISSINGNESS, tuple(_missing(asked, counts))),
        Summary("agreement", _AGREEMENT, tuple(_agreement(asked, counts))),
    )


def write_summaries(found: tuple[Summary, ...], folder: Path) -> list[Path]:
    """Write each as a CSV file."""
    paths = []
    for summary in found:
        path = folder / f"{summary.name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(summary.columns)
            writer.writerows(summary.rows)
        paths.append(path)
    return paths


_CLAUSE = ("guideline", "clause", "effect", "label", "met", "not_met", "unknown", *CAUSES)
_ATTRITION = ("guideline", "step", "clause", "effect", "label", *(s.replace(" ", "_") for s in STEPS))
_MISSINGNESS = ("feature", "label", "clauses_that_ask", "known", *CAUSES)
_AGREEMENT = (
    "guideline", "other", "both_decide", "agree", "yes_yes", "yes_no", "no_yes", "no_no", "kappa",
    "one_decides", "neither_decides",
)  # fmt: skip


def _verdicts(asked: Asked, counts: Counts) -> Iterator[Row]:
    for guideline, row in zip(asked.guidelines, counts.verdicts.tolist(), strict=True):
        yield guideline.id, guideline.layer, *row


def _clauses(asked: Asked, counts: Counts) -> Iterator[Row]:
    rows = zip(asked.clauses, counts.clauses.tolist(), counts.causes.tolist(), strict=True)
    for r, truths, causes in rows:
        guideline = r.id.partition("/")[0]
        yield guideline, r.id, r.effect, r.label, truths[MET], truths[NOT_MET], truths[UNKNOWN], *causes


def label_of(step: Step) -> tuple[str, str, str]:
    """Clauses, effect and words of a step."""
    one = step.clauses[0]
    if len(step.clauses) == 1:
        return one.id, one.effect, one.label
    return "; ".join(r.id for r in step.clauses), one.effect, "one of: " + "; ".join(r.label for r in step.clauses)


def _attrition(asked: Asked, counts: Counts) -> Iterator[Row]:
    number, last = 0, ""
    for step, row in zip(asked.steps, counts.attrition.tolist(), strict=True):
        number, last = (number + 1 if step.guideline == last else 1), step.guideline
        yield step.guideline, number, *label_of(step), *row


def _missing(asked: Asked, counts: Counts) -> Iterator[Row]:
    asks: dict[str, int] = {}
    for r in asked.clauses:
        for term in {c.term for c in r.criterion.walk() if not c.children}:
            asks[term] = asks.get(term, 0) + 1
    rows = []
    for place, row in zip(asked.features, counts.features.tolist(), strict=True):
        f = asked.layout.features[place]
        rows.append((f.name, f.label, asks.get(f.iri, 0), row[KNOWN], *row[:KNOWN]))
    yield from sorted(rows, key=lambda row: (row[3], row[0]))


def _agreement(asked: Asked, counts: Counts) -> Iterator[Row]:
    """Each pair of guidelines once; Cohen's kappa over the cases on which both say yes or no (Cohen 1960)."""
    n, total = len(SAYS), int(counts.cases[0])
    table = counts.agreement
    for i, a in enumerate(asked.guidelines):
        for j in range(i + 1, len(asked.guidelines)):
            block = table[i * n : i * n + 2, j * n : j * n + 2].tolist()
            (yy, yn), (ny, nn) = block
            both = yy + yn + ny + nn
            if not both and not _decides(counts, i) and not _decides(counts, j):
                continue
            chance = ((yy + yn) * (yy + ny) + (ny + nn) * (yn + nn)) / both**2 if both else 1.0
            kappa = round(((yy + nn) / both - chance) / (1 - chance), 4) if chance < 1 else ""
            one = _decides(counts, i) + _decides(counts, j) - 2 * both
            neither = total - both - one
            yield a.id, asked.guidelines[j].id, both, yy + nn, yy, yn, ny, nn, kappa, one, neither


def _decides(counts: Counts, guideline: int) -> int:
    n = len(SAYS)
    return sum(int(counts.agreement[guideline * n + w, guideline * n + w]) for w in (0, 1))
