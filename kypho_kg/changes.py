"""Guidelines compared, diffed and linted, for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kypho_kg._resources import resource_dir
from kypho_kg.candidacy import CaseAnswer, assess
from kypho_kg.catalogue import condition_lines
from kypho_kg.comparison import Change, ClauseChange, Comparison, Flip, Use, flips
from kypho_kg.errors import Problem, UsageError
from kypho_kg.guidelines import Recommendation
from kypho_kg.intake import read_records
from kypho_kg.knowledge import Knowledge
from kypho_kg.lint import LOAD_CODES, RULES, LintReport
from kypho_kg.loading import load_knowledge, read_knowledge
from kypho_kg.store import Triples, parse_turtle
from kypho_kg.vocabulary import KYPHO, SKOS, TYPE, local

if TYPE_CHECKING:
    from rich.console import Console

Json = dict[str, Any]
Side = tuple[Knowledge, str]
"""A knowledge base and the id of the guideline that is asked."""


def version(name: str) -> Side:
    """A bundled guideline by its id, or the guideline of a Turtle file as part of the knowledge base.

    :raises UsageError: for an unknown id, or a file that holds not exactly one guideline.
    :raises KnowledgeBaseError: when the file cannot be loaded.
    """
    if not name.endswith(".ttl"):
        k = load_knowledge()
        return k, k.guideline(name).id
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"no such file: {name}")
    own = Triples(parse_turtle(path))
    ids = [own.text(g, SKOS + "notation") for g in own.subjects(TYPE, KYPHO + "Guideline")]
    if len(ids) != 1:
        raise UsageError(f"{path.name}: holds {len(ids)} guidelines; expected one")
    return read_knowledge(resource_dir("ontology"), instead=path), ids[0]


# -- patients


def on_patients(
    sides: tuple[Side, Side], files: Sequence[Path], as_of: str | None
) -> tuple[tuple[Flip, ...], list[Problem]]:
    """The cases of patient files on which the two sides differ, and what is wrong with the files."""
    if not files:
        return (), []
    try:
        day = date.fromisoformat(as_of) if as_of else None
    except ValueError:
        raise UsageError(f"--as-of {as_of!r} is no date; expected YYYY-MM-DD") from None
    cases: list[list[CaseAnswer]] = []
    problems: list[Problem] = []
    for k, id_ in sides:
        records, problems = read_records(files, k)
        answers = [assess(r, as_of=day, knowledge=k, guidelines=[id_], validate=False) for r in records]
        cases.append([c for a in answers for c in a.cases])
    return flips(cases[0], cases[1], (sides[0][1], sides[1][1])), problems


def flips_json(files: Sequence[Path] | None, found: Sequence[Flip]) -> Json:
    """Whose verdict differs."""
    if not files:
        return {}
    return {
        "flips": [
            {
                "patient": f.case.record.patient,
                "lesion": f.case.lesion.id,
                "left": f.left.verdict,
                "right": f.right.verdict,
                "clauses": [{"id": c.recommendation.id, "truth": c.truth.words} for c in f.by],
            }
            for f in found
        ]
    }


def print_flips(console: Console, files: Sequence[Path] | None, found: Sequence[Flip]) -> None:
    """Whose verdict differs, and by which clauses."""
    if not files:
        return
    console.print(f"\n{len(found)} of the cases of {len(files)} files differ", style="bold")
    for f in found:
        words = f"{f.left.guideline.words(f.left.verdict)} -> {f.right.guideline.words(f.right.verdict)}"
        console.print(f"{f.case.record.patient}, lesion {f.case.lesion.id}: {words}", markup=False)
        for c in f.by:
            console.print(f"    {c.recommendation.id} {c.recommendation.label}: {c.truth.words}", markup=False)


# -- two guidelines


def comparison_json(k: Knowledge, c: Comparison) -> Json:
    """Two guidelines feature by feature."""

    def uses(some: Sequence[Use]) -> list[Json]:
        return [
            {"clause": u.recommendation.id, "effect": u.recommendation.effect, "asked": u.asked, "negated": u.negated}
            for u in some
        ]

    return {
        "left": c.left.id,
        "right": c.right.id,
        "features": [
            {"feature": local(r.feature), "label": k.label(r.feature), "same": r.same, "left": uses(r.left),
             "right": uses(r.right)}
            for r in c.rows
        ],
        "same_condition": [[a.id, b.id] for a, b in c.equal],
    }  # fmt: skip


def print_comparison(console: Console, k: Knowledge, c: Comparison) -> None:
    """Two guidelines as a table, what both read first."""
    from rich.table import Table

    table = Table(show_lines=True)
    for name in ("", c.left.id, c.right.id):
        table.add_column(name, overflow="fold")
    for row in c.rows:
        same = " (same)" if row.same else ""
        table.add_row(k.label(row.feature) + same, _use_lines(k, row.left), _use_lines(k, row.right))
    console.print(table)
    for a, b in c.equal:
        console.print(f"same condition: {a.id} = {b.id}" + ("" if a.effect == b.effect else _effects(k, a, b)))


def _effects(k: Knowledge, a: Recommendation, b: Recommendation) -> str:
    return f" ({k.plain(KYPHO + a.effect)} / {k.plain(KYPHO + b.effect)})"


def _use_lines(k: Knowledge, uses: Sequence[Use]) -> str:
    lines = []
    for u in uses:
        asked = f" {u.asked}" if u.asked else ""
        lines.append(
            f"{u.recommendation.clause} ({k.plain(KYPHO + u.recommendation.effect)}):{' not' * u.negated}{asked}"
        )
    return "\n".join(lines).replace(":\n", "\n").removesuffix(":")


# -- two versions


def diff_json(sides: tuple[Side, Side], changes: Sequence[ClauseChange]) -> Json:
    """Two versions clause by clause."""
    (before, _), (after, _) = sides
    return {
        "clauses": [
            {
                "kind": str(c.kind),
                "old": c.old.id if c.old else None,
                "new": c.new.id if c.new else None,
                "fields": list(c.fields),
                "old_condition": condition_lines(before, c.old.criterion) if c.old else None,
                "new_condition": condition_lines(after, c.new.criterion) if c.new else None,
            }
            for c in changes
        ]
    }


def print_diff(console: Console, sides: tuple[Side, Side], changes: Sequence[ClauseChange]) -> None:
    """Two versions as a list of changes; what is the same is counted."""
    (before, _), (after, _) = sides
    styles = {Change.ADDED: "green", Change.REMOVED: "red", Change.CHANGED: "yellow"}
    for c in changes:
        if c.kind is Change.SAME:
            continue
        shown = c.new or c.old
        assert shown is not None
        former = f" (was {c.old.id})" if c.old and c.new and c.old.clause != c.new.clause else ""
        fields = f": {', '.join(c.fields)}" if c.fields else ""
        console.print(f"{c.kind} {shown.id}{former}{fields}", style=styles[c.kind], markup=False)
        for name, side, k in (("-", c.old, before), ("+", c.new, after)):
            if side and (c.kind is not Change.CHANGED or "condition" in c.fields):
                for line in condition_lines(k, side.criterion):
                    console.print(f"  {name} {line}", markup=False)
        for name in set(c.fields) & {"effect", "mark", "strength", "text"}:
            console.print(f"    {name}: {getattr(c.old, name)} -> {getattr(c.new, name)}", markup=False)
        if "ratings" in c.fields and c.old and c.new:
            for line in _rating_lines(c.old, c.new):
                console.print(f"    {line}", markup=False)
    same = sum(c.kind is Change.SAME for c in changes)
    console.print(f"{same} clauses are the same", style="dim")


def _rating_lines(old: Recommendation, new: Recommendation) -> list[str]:
    def said(r: Recommendation) -> dict[str, str]:
        return {x.label: x.words + (f" ({x.number})" if x.number else "") for x in r.ratings}

    before, after = said(old), said(new)
    return [
        f"{name}: {before.get(name, 'not rated')} -> {after.get(name, 'not rated')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


# -- lint


def lint_json(report: LintReport) -> Json:
    """What lint found."""
    return {
        "guidelines": list(report.guidelines),
        "findings": [
            {"code": f.code, "severity": str(f.severity), "subject": f.subject, "message": f.message}
            for f in report.findings
        ],
        "waived": [{"code": f.code, "subject": f.subject, "reason": w.reason} for f, w in report.waived],
    }


def print_lint(console: Console, report: LintReport) -> None:
    """Findings, the explanation of each code that occurs, and the counts."""
    explained = {**{r.code: r.explanation for r in RULES}, **LOAD_CODES}
    styles = {"error": "red", "warning": "yellow", "note": "dim"}
    for finding in sorted(report.findings, key=lambda f: (list(styles).index(f.severity), f.code, f.subject)):
        console.print(str(finding), style=styles[finding.severity], markup=False)
    for code in sorted({f.code for f in report.findings}):
        console.print(f"{code}: {explained[code]}", style="dim", markup=False)
    console.print(str(report), markup=False)
