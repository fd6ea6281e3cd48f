"""What was read of the sources of a run, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kypho_kg.coverage import Filled
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge

if TYPE_CHECKING:
    from rich.console import Console

MOST = 25
"""Rows of each kind that are printed; the JSON has all."""
_ONE = {"rows": "row", "patient files": "patient file", "triples": "triple", "cases": "case", "facts": "fact"}
_MANY = {one: many for many, one in _ONE.items()}
"""Kinds that are counted in words; any other is the name of a table or of a type of resource."""


def print_reports(console: Console, reports: Iterable[IntakeReport]) -> None:
    """Each source: what was read, what it became, what was not understood, not read, and rejected."""
    from rich.table import Table
    from rich.text import Text

    for report in reports:
        read = ", ".join(_counted(n, kind) for kind, n in sorted(report.read.items(), key=lambda row: -row[1]))
        patients = "1 patient" if report.records == 1 else f"{report.records:,} patients"
        console.print(Text(f"{report.source}: {patients}; read: {read or 'nothing'}", style="bold"))
        parts = (
            ("Understood", ("kind", "code or column", "feature"), report.mapped),
            ("Not understood", ("kind", "code", "text"), report.unmapped),
            ("Not read", ("kind", "why"), report.unread),
        )
        for title, columns, counts in parts:
            if not counts:
                continue
            rows = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
            table = Table(*columns, "count", title=f"{title}: {len(rows)}", title_justify="left")
            for key, n in rows[:MOST]:
                table.add_row(*(Text(str(x)) for x in key), str(n))
            if len(rows) > MOST:
                table.add_row(Text(f"and {len(rows) - MOST} more"), *("" for _ in columns))
            console.print(table)
        for problem in report.rejected[:MOST]:
            console.print(Text(f"rejected: {problem}", style="red"))
        if len(report.rejected) > MOST:
            console.print(Text(f"and {len(report.rejected) - MOST} more rejected", style="red"))


def _counted(n: int, kind: str) -> str:
    return f"{n:,} {_ONE.get(kind, kind) if n == 1 else _MANY.get(kind, kind)}"


def print_coverage(console: Console, k: Knowledge, filled: Filled) -> None:
    """How many of the features that decide somewhere were filled by any source, and which were not."""
    from rich.text import Text

    missing = filled.missing
    told = ", ".join(k.plain(f) for f, _ in missing[:12])
    more = f" and {len(missing) - 12} more" if len(missing) > 12 else ""
    console.print(Text(str(filled)))
    if filled.derived:
        console.print(Text(f"By derivation: {', '.join(map(k.plain, filled.derived))}", style="dim"))
    if missing:
        console.print(Text(f"Filled by none, the most asked first: {told}{more}", style="dim"))
