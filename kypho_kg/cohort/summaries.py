"""The counts of a cohort as small tables: verdicts, clauses, attrition, missingness, agreement, and what moves."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from kypho_kg.cohort.counts import KNOWN, SAYS, STEPS, Asked, Counts, Step
from kypho_kg.cohort.layout import CAUSES, Ints
from kypho_kg.cohort.logic import MET, NOT_MET, UNKNOWN
from kypho_kg.cohort.sweep import Beside
from kypho_kg.verdicts import VERDICTS

Row = tuple[object, ...]
_TRUTHS = ("met", "not_met", "unknown")
_CAUSES = tuple(map(str, CAUSES))
_BESIDE = ("kind", "name", "guideline", "feature", "limit", "value")


@dataclass(frozen=True, slots=True)
class Summary:
    """One table with the names of its columns."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def dicts(self) -> list[dict[str, Any]]:
        """The rows by the names of the columns."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


COLUMNS = {
    "verdict_counts": ("guideline", "layer", *VERDICTS),
    "clause_counts": ("guideline", "clause", "effect", "label", *_TRUTHS, *_CAUSES),
    "attrition": ("guideline", "step", "clause", "effect", "label", *(s.replace(" ", "_") for s in STEPS)),
    "missingness": ("feature", "label", "clauses_that_ask", "keeps_open", "known", *_CAUSES),
    "agreement": (
        *("guideline", "other", "both_decide", "agree", "yes_yes", "yes_no", "no_yes", "no_no", "kappa"),
        *("one_decides", "neither_decides"),
    ),
    "beside": (*_BESIDE, *VERDICTS, "not_judged"),
    "moves": (*_BESIDE, "from", "to", "cases"),
}
"""The columns of each table."""


def summaries(
    asked: Asked, counts: Counts, beside: Sequence[Beside] = (), moves: Ints | None = None
) -> tuple[Summary, ...]:
    """All of them, in the order of the guidelines and their clauses.

    :param beside: what was asked beside, with how verdicts ``moves`` by it; without, these two tables are left out.
    """
    rows: dict[str, Iterator[Row]] = {
        "verdict_counts": _verdicts(asked, counts),
        "clause_counts": _clauses(asked, counts),
        "attrition": _attrition(asked, counts),
        "missingness": _missing(asked, counts),
        "agreement": _agreement(asked, counts),
    }
    if beside and moves is not None:
        rows |= {"beside": _beside(beside, moves), "moves": _moves(beside, moves)}
    return tuple(Summary(name, COLUMNS[name], tuple(found)) for name, found in rows.items())


def write_summaries(found: Sequence[Summary], folder: Path) -> list[Path]:
    """Write each as a CSV file.

    :raises OSError: when that is not possible.
    """
    paths = []
    for summary in found:
        path = folder / f"{summary.name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(summary.columns)
            writer.writerows(summary.rows)
        paths.append(path)
    return paths


def as_csv(folder: Path, target: Path) -> None:
    """The parts of a table in Parquet as one CSV file, a row group at a time.

    :raises OSError: when it cannot be written.
    """
    writer = None
    draft = target.with_suffix(".draft")
    try:
        for path in sorted(folder.glob("part-*.parquet")):
            with parquet.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    table = _plain(file.read_row_group(number))
                    writer = writer or arrow_csv.CSVWriter(draft, table.schema)
                    writer.write_table(table)
                if not file.num_row_groups and writer is None:
                    writer = arrow_csv.CSVWriter(draft, _plain(file.schema_arrow.empty_table()).schema)
    finally:
        if writer:
            writer.close()
    if writer:
        draft.replace(target)


def write_table(table: pa.Table, target: Path) -> None:
    """A table as a CSV file.

    :raises OSError: when it cannot be written.
    """
    arrow_csv.write_csv(_plain(table), target)


def _plain(table: pa.Table) -> pa.Table:
    kinds = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(kinds))


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
    for place, row, kept in zip(asked.features, counts.features.tolist(), counts.keeping.tolist(), strict=True):
        f = asked.layout.features[place]
        rows.append((f.name, f.label, asks.get(f.iri, 0), kept, row[KNOWN], *row[:KNOWN]))
    yield from sorted(rows, key=lambda row: (row[4], row[0]))


def missing_most(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of ``missingness`` that keep a case open, those that keep most open first, then by name."""
    return sorted((r for r in rows if r["keeps_open"]), key=lambda r: (-r["keeps_open"], r["feature"]))


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


def _key(one: Beside) -> Row:
    return one.kind, one.name, one.guideline.id, one.feature, one.limit, one.value


def _beside(beside: Sequence[Beside], moves: Ints) -> Iterator[Row]:
    """The verdicts that each question gives: under a policy, at a limit, by the other knowledge base."""
    for one, table in zip(beside, moves, strict=True):
        yield *_key(one), *table.sum(axis=1 if one.kind == "compare" else 0).tolist()


def _moves(beside: Sequence[Beside], moves: Ints) -> Iterator[Row]:
    """How many cases change from which verdict to which; those that stay are left out."""
    words = (*VERDICTS, "not judged")
    for one, table in zip(beside, moves.tolist(), strict=True):
        for before, row in zip(words, table, strict=True):
            for after, cases in zip(words, row, strict=True):
                if cases and before != after:
                    yield *_key(one), before, after, cases
