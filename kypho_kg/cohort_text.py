"""What a cohort says in sum, on the terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kypho_kg.cohort.summaries import missing_most
from kypho_kg.verdicts import VERDICTS

_TOP = 10


def print_cohort(screen: Console, summary: dict[str, Any], out: Path) -> None:
    """Print the counts by guideline, the clauses that cost most, and the features that keep most cases open.

    :param summary: what ``summary.json`` holds.
    :param out: the folder of the run.
    """

    def show(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
        table = Table(title=title, title_justify="left", title_style="bold")
        for i, name in enumerate(columns):
            table.add_column(name, justify="left" if not rows or isinstance(rows[0][i], str) else "right")
        for row in rows:
            table.add_row(*(x if isinstance(x, str) else f"{x:,}" for x in row))
        screen.print(table)

    used = [v for v in VERDICTS if any(row[v] for row in summary["verdict_counts"])]
    rows = [(row["guideline"], *(row[v] for v in used)) for row in summary["verdict_counts"]]
    heads = (re.sub(r"(?<!^)([A-Z])", r" \1", v).lower() for v in used)
    show(f"Verdicts on {summary['cases']:,} cases", ("source", *heads), rows)
    steps = summary["attrition"]
    for title, key, name in (
        ("Where a case fails by one step alone", "only_obstacle", "cases"),
        ("What alone keeps a case open", "only_open", "cases"),
    ):
        most = sorted((r for r in steps if r[key]), key=lambda r: (-r[key], r["clause"]))[:_TOP]
        show(title, ("clause", "what", name), [(r["clause"], r["label"], r[key]) for r in most])
    keeping = missing_most(summary["missingness"])[:_TOP]
    show(
        "What is missing most, by the cases that it keeps open",
        ("feature", "keeps open", "known", "not recorded"),
        [(r["label"], r["keeps_open"], r["known"], r["NotRecorded"]) for r in keeping],
    )
    for row in summary.get("moves", ())[: 3 * _TOP]:
        what = " ".join(filter(None, (row["kind"], row["name"], row["feature"], row["value"])))
        screen.print(f"{what}, {row['guideline']}: {row['cases']:,} from {row['from']} to {row['to']}")
    if len(summary.get("moves", ())) > 3 * _TOP:
        screen.print(f"... and {len(summary['moves']) - 3 * _TOP:,} more lines in moves.csv")
    screen.print(f"Tables: {out}")
