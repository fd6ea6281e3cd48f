"""All sources on one patient, or on many, at a glance: by layer, the reason of each no, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kypho_kg.candidacy import Answer, Assessment, CaseAnswer
from kypho_kg.conflicts import conflicts_of
from kypho_kg.evaluation import Truth
from kypho_kg.explanation import Explained, explain
from kypho_kg.guidelines import ABSOLUTE, ADVISES, EXCLUDES, RELATIVE, UNVERIFIED
from kypho_kg.knowledge import Knowledge
from kypho_kg.reasons import decisive_clauses, no_candidate_either_way
from kypho_kg.report import level_words
from kypho_kg.vocabulary import KYPHO
from kypho_kg.words import conflict_lines, reason_words, said

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES = {
    "Candidate": "bold green", "CandidateWithCaution": "green", "CandidateScreeningOpen": "green",
    "Contraindicated": "bold red", "NotIndicated": "red", "Undetermined": "yellow",
}  # fmt: skip
_SILENT = {"NotApplicable", "NoVerdict"}


def print_summary(console: Console, answer: Answer) -> None:
    """One patient: guideline by lesion, and where the sources disagree."""
    from rich.table import Table
    from rich.text import Text

    k, cases, explained = answer.knowledge, answer.cases, explain(answer)
    table = Table(expand=True, show_lines=False)
    table.add_column("Source", ratio=3, overflow="fold")
    for case in cases:
        table.add_column(lesion_words(k, case), ratio=2, overflow="fold")
    table.add_column("Why, and what is missing first", ratio=7, overflow="fold")
    for layer, rows in _by_layer(k, cases):
        table.add_section()
        table.add_row(Text(k.plain(layer).upper(), style="bold"))
        quiet = [row for row in rows if all(a.verdict == "NotApplicable" for a in row)]
        for row in rows:
            if row not in quiet:
                table.add_row(Text(_source(row[0])), *map(_cell, row), Text("\n".join(_why(k, explained, row))))
        if quiet:
            names = ", ".join(row[0].guideline.id for row in quiet)
            table.add_row(Text("does not apply", style="dim"), *("" for _ in cases), Text(names, style="dim"))
    console.print(table)
    for line in bridge_lines(cases):
        console.print(Text(line, style="dim"))
    for case in cases:
        print_conflicts(console, k, case, several=len(cases) > 1)


def print_counts(console: Console, answers: Sequence[Answer]) -> None:
    """Many lesions: for each layer how many sources say what."""
    from rich.table import Table
    from rich.text import Text

    k = answers[0].knowledge
    table = Table(show_lines=False, expand=True)
    table.add_column("Patient", no_wrap=True)
    table.add_column("Lesion", no_wrap=True)
    for layer in k.layers:
        table.add_column(k.plain(layer), overflow="fold")
    table.add_column("Disagreements", overflow="fold")
    for answer in answers:
        for case in answer.cases:
            cells = []
            for layer in k.layers:
                counts = Counter(short(a) for a in case.assessments if KYPHO + a.guideline.layer == layer)
                cells.append(
                    Text("  ".join(f"{n} {words}" for words, n in counts.items() if words not in {"n/a", "-"}))
                )
            fired = [f.conflict.id for f in conflicts_of(k, case) if f.opposed]
            table.add_row(answer.record.patient, lesion_words(k, case), *cells, Text(" ".join(fired)))
    console.print(table)


def lesion_words(k: Knowledge, case: CaseAnswer) -> str:
    """A lesion by its id and level."""
    level = level_words(k, case)
    return case.lesion.id + (f" ({level})" if level else "")


def _cell(a: Assessment) -> Text:
    from rich.text import Text

    cell = Text(said(a), STYLES.get(a.verdict, "dim"))
    for line, style in beside_lines(a):
        cell.append("\n" + line, style)
    if a.unbridged and a.unbridged.verdict != a.verdict:
        cell.append("\n" + bridge_words(a), "dim")
    return cell


def bridge_words(a: Assessment) -> str:
    """The bridges that the clauses used, and the verdict without them where it is another."""
    without = a.unbridged.verdict if a.unbridged else a.verdict
    words = a.guideline.words(without) if without != a.verdict else ""
    return "by bridge: " + ", ".join(a.bridges) + (f"; without it: {words}" if words else "")


def bridge_lines(cases: Sequence[CaseAnswer]) -> Iterator[str]:
    """Every bridge that was used, and how many sources it serves."""
    used = Counter(b for case in cases for a in case.assessments for b in a.bridges)
    if used:
        told = ", ".join(f"{name} ({n} {'source' if n == 1 else 'sources'})" for name, n in sorted(used.items()))
        yield f"Bridges used: {told}. Where a verdict differs without them, both stand in the table."


def beside_lines(a: Assessment) -> Iterator[tuple[str, str]]:
    """What stands beside a verdict and is never hidden by it: readings, assumptions, unread clauses."""
    if a.reading:
        yield f"in the reading '{a.reading}'", ""
    for name, c in a.readings.items():
        if c.verdict != a.verdict:
            yield f"reading '{name or 'main'}': {a.guideline.words(c.verdict)}", ""
    if a.assumed:
        verdict = a.assumed.conclusion.verdict
        yield f"assumed ({', '.join(a.assumed.policies)}): {a.guideline.words(verdict)}", STYLES.get(verdict, "")
    unverified = sum(c.recommendation.mark == UNVERIFIED for c in a.clauses)
    if unverified:
        yield f"{unverified} of {len(a.clauses)} clauses were never read at any source", "yellow"


def short(a: Assessment) -> str:
    """The verdict in one word, for a table of many."""
    if no_candidate_either_way(a):
        return "open/no"
    return {
        "Candidate": "yes", "CandidateWithCaution": "yes!", "CandidateScreeningOpen": "yes?", "NotIndicated": "no",
        "Contraindicated": "CONTRA", "Undetermined": "open", "NotApplicable": "n/a", "Rated": "rated", "NoVerdict": "-",
    }[a.verdict]  # fmt: skip


def _by_layer(k: Knowledge, cases: Sequence[CaseAnswer]) -> Iterator[tuple[str, list[tuple[Assessment, ...]]]]:
    rows = list(zip(*(c.assessments for c in cases), strict=True))
    for layer in k.layers:
        mine = [row for row in rows if KYPHO + row[0].guideline.layer == layer]
        if mine:
            yield layer, sorted(mine, key=lambda row: row[0].verdict in _SILENT)


def _source(a: Assessment) -> str:
    force = {True: "", False: "\nnot in force here", None: "\nin force: not known"}[a.in_force]
    return f"{a.guideline.id}{force}"


def _why(k: Knowledge, explained: Sequence[Explained], row: Sequence[Assessment]) -> Iterator[str]:
    told: dict[str, list[str]] = {}
    for one, a in zip(explained, row, strict=True):
        for line in _reason(k, one, a):
            told.setdefault(line, []).append(one.case.lesion.id)
    for line, lesions in told.items():
        yield line if len(lesions) == len(explained) else f"{', '.join(lesions)}: {line}"


def _reason(k: Knowledge, explained: Explained, a: Assessment) -> Iterator[str]:
    """What decides, in a line or two."""
    if a.verdict in {"NotIndicated", "Contraindicated"} or no_candidate_either_way(a):
        found = reason_words(k, a)
        for clause, leaves in found[:2]:
            detail = f" [{leaves[0]}{'; ...' if len(leaves) > 1 else ''}]" if leaves else ""
            yield f"{clause.recommendation.clause} {clause.recommendation.label}: {clause.truth.words}{detail}"
        if len(found) > 2:
            yield f"and {len(found) - 2} more clauses"
    elif a.verdict == "Undetermined":
        wanted = [k.plain(n.feature) for n in explained.needs(a)]
        more = f" and {len(wanted) - 3} more" if len(wanted) > 3 else ""
        if wanted:
            yield f"missing: {', '.join(wanted[:3])}{more}"
        else:
            names = ", ".join(c.recommendation.clause for c in decisive_clauses(a))
            yield f"left open by the source: {names}"
    elif a.verdict in {"CandidateWithCaution", "CandidateScreeningOpen"}:
        met = [c.recommendation.label for c in a.having(RELATIVE, Truth.MET)]
        open_ = [c.recommendation.label for c in a.having(RELATIVE, Truth.UNKNOWN)]
        yield (
            f"caution: {', '.join(met)}"
            if met
            else f"to be screened: {', '.join(open_[:3])}" + (f" and {len(open_) - 3} more" if len(open_) > 3 else "")
        )
    elif a.verdict == "Rated":
        yield from dict.fromkeys(f"{c.recommendation.clause} {c.recommendation.label}" for c, _ in a.ratings)
    elif a.verdict == "NoVerdict":
        for words, effects in (("objects", (EXCLUDES, ABSOLUTE, RELATIVE)), ("advises", (ADVISES,))):
            met = [c.recommendation.label for effect in effects for c in a.having(effect, Truth.MET)]
            if met:
                yield f"{words}: {', '.join(met)}"


# -- conflicts


def print_conflicts(console: Console, k: Knowledge, case: CaseAnswer, *, several: bool) -> None:
    """The topics on which the sources stand apart on this case, with threshold and value."""
    from rich.text import Text

    fired = conflicts_of(k, case)
    if not fired:
        return
    where = f" on lesion {case.lesion.id}" if several else ""
    console.print(Text(f"Where the sources disagree{where}", style="bold"))
    for firing in fired:
        how = "" if firing.opposed else " (in degree)"
        console.print(Text(f"{firing.conflict.id} {firing.conflict.plain}{how}", style="bold"))
        for stance, lines in conflict_lines(k, firing):
            console.print(Text(f"  {stance}: {'; '.join(lines)}"))
