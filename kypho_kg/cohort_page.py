"""The report on a cohort as one page: verdicts, attrition, agreement and missing features, with plots inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kypho_kg.cohort.summaries import missing_most
from kypho_kg.knowledge import Knowledge
from kypho_kg.report import DISCLAIMER
from kypho_kg.templating import template
from kypho_kg.verdicts import VERDICTS
from kypho_kg.vocabulary import KYPHO

MOST_FEATURES = 60
"""Features of the plot of missing ones; the table holds all."""
MOST_PAIRS = 15
_TONES = (
    ("yes", ("Candidate", "CandidateWithCaution"), "candidate, also with caution"),
    ("open", ("CandidateScreeningOpen", "Undetermined"), "open"),
    ("no", ("NotIndicated", "Contraindicated"), "not indicated or contraindicated"),
    ("out", ("NotApplicable",), "not applicable"),
    ("rated", ("Rated", "NoVerdict"), "rated, or without a verdict"),
)
_EXCLUDING = frozenset({"Excludes", "ContraindicatesAbsolutely"})
_SIDE = 13
"""Width of a cell of the matrix."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of stacked shares, each with its tone, its left end and its width in hundredths, and what it says."""

    shares: tuple[tuple[str, float, float, str], ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A pair of guidelines in the matrix."""

    x: int
    y: int
    shade: int
    """Share of agreement in tenths."""
    told: str


@dataclass(frozen=True, slots=True)
class CohortReport:
    """What the page tells."""

    run: Row
    """The manifest of the run."""
    tables: Mapping[str, Sequence[Row]]
    """The summaries by name."""
    cases: int
    left: Mapping[str, int]
    """Patients that were left out, by reason."""
    rejected: int
    """Cases that were not judged for something malformed."""
    notes: Sequence[str] = ()


def cohort_page(report: CohortReport, knowledge: Knowledge, software: str) -> str:
    """The report as an HTML document.

    :param software: name and version of the program, for the foot of the page.
    """
    titles = {g.id: g.title for g in knowledge.guidelines.values()}
    verdicts: dict[str, list[tuple[Row, Bar]]] = {}
    for row in report.tables["verdict_counts"]:
        verdicts.setdefault(row["layer"], []).append((row, _verdict_bar(row)))
    steps: dict[str, list[tuple[Row, Bar]]] = {}
    for row in report.tables["attrition"]:
        steps.setdefault(row["guideline"], []).append((row, _step_bar(row, report.cases)))
    names, cells = _matrix(report.tables["agreement"])
    missing = missing_most(report.tables["missingness"])[:MOST_FEATURES]
    beside: dict[tuple[str, str], list[tuple[Row, Bar]]] = {}
    for row in report.tables.get("beside", ()):
        beside.setdefault((row["kind"], row["name"]), []).append((row, _verdict_bar(row)))
    return template("cohort.html.jinja").render(
        r=report,
        titles=titles,
        layers={x: knowledge.plain(KYPHO + x) for x in verdicts},
        verdicts=verdicts,
        tones=_TONES,
        steps=steps,
        excluding=_EXCLUDING,
        effect=lambda name: knowledge.plain(KYPHO + name),
        cause=lambda name: knowledge.plain(KYPHO + name),
        names=names,
        cells=cells,
        side=_SIDE,
        pairs=_apart(report.tables["agreement"]),
        missing=[(row, _missing_bar(row, report.cases)) for row in missing],
        beside=beside,
        moves=_moves(report.tables.get("moves", ())),
        differing={(row["kind"], row["name"]) for row in report.tables.get("moves", ())},
        disclaimer=DISCLAIMER,
        software=software,
    )


def _bar(parts: Sequence[tuple[str, int, str]], whole: int) -> Bar:
    shares, left = [], 0.0
    for tone, count, words in parts:
        width = 100 * count / whole if whole else 0.0
        if count:
            shares.append((tone, round(left, 3), round(width, 3), f"{words}: {count:,} ({width:.1f}%)"))
        left += width
    return Bar(tuple(shares))


def _verdict_bar(row: Row) -> Bar:
    parts = [(tone, sum(row[v] for v in of), words) for tone, of, words in _TONES]
    return _bar(parts, sum(row[v] for v in VERDICTS) + row.get("not_judged", 0))


def _step_bar(row: Row, cases: int) -> Bar:
    """Who enters a step, of all cases: what goes on surely, what goes on for all that is known, and what leaves."""
    out, passes = row["not_met"], row["met"]
    if row["effect"] in _EXCLUDING:
        out, passes = passes, out
    parts = [("yes", passes, "go on"), ("open", row["unknown"], "unknown, go on"), ("no", out, "leave")]
    return _bar(parts, cases)


def _missing_bar(row: Row, cases: int) -> Bar:
    others = cases - row["known"] - row["NotRecorded"]
    parts = [("yes", row["known"], "known"), ("open", others, "unclear"), ("out", row["NotRecorded"], "not recorded")]
    return _bar(parts, cases)


def _matrix(rows: Sequence[Row]) -> tuple[list[str], list[Cell]]:
    """The guidelines that decide together with others, and the share of agreement of each pair."""
    both = [r for r in rows if r["both_decide"]]
    used = {name for r in both for name in (r["guideline"], r["other"])}
    names = [x for x in dict.fromkeys(x for r in rows for x in (r["guideline"], r["other"])) if x in used]
    place = {name: i for i, name in enumerate(names)}
    cells = []
    for r in both:
        i, j = sorted((place[r["guideline"]], place[r["other"]]))
        share = r["agree"] / r["both_decide"]
        told = (
            f"{r['guideline']} and {r['other']}: agree on {r['agree']:,} of {r['both_decide']:,} ({100 * share:.0f}%)"
        )
        cells.append(Cell(i * _SIDE, j * _SIDE, round(10 * share), told))
    return names, cells


def _apart(rows: Sequence[Row]) -> list[Row]:
    """The pairs that say the opposite most often."""
    apart = [r for r in rows if r["both_decide"] > r["agree"]]
    return sorted(apart, key=lambda r: (r["agree"] - r["both_decide"], r["guideline"], r["other"]))[:MOST_PAIRS]


def _moves(rows: Sequence[Row]) -> dict[tuple[str, str, str, str], list[Row]]:
    found: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["kind"], row["name"], row["guideline"], row["value"]), []).append(row)
    return found
