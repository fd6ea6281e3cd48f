"""The command that judges a population. No logic of its own."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kypho_kg import __version__
from kypho_kg.cli_shared import (
    AsOf,
    Assume,
    GuidelineIds,
    MappingOpt,
    MappingsOpt,
    NoBridge,
    console,
    day,
    knowledge,
    print_json,
    report_problems,
    say_problems,
    write_text,
)
from kypho_kg.errors import KyphoKGError, UsageError

if TYPE_CHECKING:
    from datetime import date

    from kypho_kg.cohort.run import Outcome
    from kypho_kg.cohort.summaries import Summary
    from kypho_kg.cohort_intake import Cohort
    from kypho_kg.errors import Problem

cohort_app = typer.Typer()

_EVERY = 1000
"""Records between two lines of progress, where stderr is no terminal."""


class CohortFormat(StrEnum):
    """Forms of the tables of a cohort."""

    PARQUET = "parquet"
    CSV = "csv"


class Backend(StrEnum):
    """Where a cohort is judged."""

    LOCAL = "local"
    SPARK = "spark"


@cohort_app.command()
def cohort(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of a fact table (Parquet or CSV), a store made by 'load', or what 'intake' reads: FHIR, OMOP, "
            "patient files, RDF, tables with --mapping."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")],
    as_of: AsOf = None,
    index: Annotated[
        Path | None,
        typer.Option("--index", help="CSV or Parquet with patient, lesion (or none) and date of each case."),
    ] = None,
    entry: Annotated[
        str | None, typer.Option("--entry", help="FEATURE or FEATURE+DAYS: the date is that of the first such fact.")
    ] = None,
    guideline: GuidelineIds = None,
    assume: Assume = None,
    no_bridge: NoBridge = False,
    mapping: MappingOpt = None,
    mappings: MappingsOpt = None,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Write what each clause rests on, case by case.")
    ] = False,
    patients: Annotated[
        Path | None, typer.Option("--patients", help="File with an id in each line: the evidence of these alone.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep", help="CLAUSE[:FEATURE[@LIMIT]]=FROM..TO[/STEP]: verdicts with other limits; repeatable."
        ),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option("--compare", help="Folder 'ontology' of another version: whose verdicts differ.")
    ] = None,
    format_: Annotated[
        CohortFormat, typer.Option("--format", help="parquet; csv: the tables of cases as CSV too.")
    ] = CohortFormat.PARQUET,
    html: Annotated[bool, typer.Option("--html", help="Write report.html, with plots.")] = False,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Processes at most; one for each processor by default.")
    ] = None,
    memory: Annotated[float, typer.Option("--memory", min=0.1, help="GiB that all processes together may take.")] = 4,
    again: Annotated[
        bool, typer.Option("--again", help="Begin anew, also where the folder holds another run.")
    ] = False,
    backend: Annotated[
        Backend, typer.Option("--backend", help="local: this machine; spark: a fact table on Spark (docs/spark.md).")
    ] = Backend.LOCAL,
    graphs: Annotated[
        Path | None, typer.Option("--graphs", help="Write the patients as named graphs (N-Quads, .nq or .nq.gz) too.")
    ] = None,
    verdict: Annotated[
        str | None,
        typer.Option("--verdict", help="GUIDELINE=VERDICT[,VERDICT]: the graphs of these patients alone."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON on stdout.")] = False,
) -> None:
    """Judge all patients under all guidelines: verdicts, clauses, attrition, missing features, agreement."""
    from kypho_kg.cohort.run import Options
    from kypho_kg.cohort.summaries import summaries

    if index and entry:
        raise UsageError("give --index or --entry, not both")
    if as_of and (index or entry):
        raise UsageError("--as-of gives one date to all; --index and --entry give each case its own: not both")
    if patients and not (evidence or graphs):
        raise UsageError("--patients says whose evidence or graphs are written: give --evidence or --graphs too")
    if verdict and not graphs:
        raise UsageError("--verdict says whose graphs are written: give --graphs too")
    k = knowledge()
    options = Options(
        tuple(dict.fromkeys(k.guideline(g).id for g in guideline)) if guideline else tuple(k.guidelines),
        tuple(p for p in dict.fromkeys(assume or ()) if p != "strict"),
        bridges=not no_bridge,
        sweeps=tuple(sweep or ()),
        older=compare,
        evidence=evidence,
        patients=_ids(patients) if patients else None,
    )
    _checked(options)
    said = _verdict(verdict)
    if backend is Backend.SPARK:
        if entry or graphs or mapping or mappings or len(sources) != 1:
            raise UsageError(
                "--backend spark reads one fact table, without --entry, --graphs, --mapping and --mappings"
            )
        outcome, notes, problems = _on_spark(sources[0], output, options, day(as_of), index, again)
    else:
        how = day(as_of), bool(index or entry), mapping, tuple(mappings or ())
        found = _read(sources, output, how, again)
        problems = found.problems
        with _telling(problems):
            cases, outcome = _here(found, output, options, how[0], index, entry, memory, processes, again)
            notes = [*found.notes, *(f"{n:,} {what}" for what, n in found.table.notes.items())]
            if graphs:
                notes.append(_graphs(graphs, found, cases, outcome, options, said))
    tables = summaries(outcome.asked, outcome.counts, outcome.beside, outcome.moves)
    summary = _summary(outcome, tables, notes, [str(p) for p in problems])
    try:
        _write(output, outcome, tables, summary, format_ is CohortFormat.CSV)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from None
    if html:
        from kypho_kg.cohort_page import CohortReport, cohort_page

        report = CohortReport(
            outcome.manifest,
            {t.name: t.dicts() for t in tables},
            summary["cases"],
            summary["left_out"],
            outcome.rejected.num_rows,
            notes,
        )
        write_text(output / "report.html", cohort_page(report, k, f"kypho-kg {__version__}"))
    if as_json:
        print_json(summary)
    else:
        from kypho_kg.cohort_text import print_cohort

        print_cohort(console(), summary, output)
    for reason in sorted(outcome.left):
        if outcome.left[reason]:
            typer.echo(f"{outcome.left[reason]:,} patients: {reason}", err=True)
    for note in notes:
        typer.echo(note, err=True)
    if outcome.rejected.num_rows:
        say_problems(problems)
        typer.echo(
            f"kypho-kg: {outcome.rejected.num_rows:,} cases were not judged: {output / 'rejected.csv'}", err=True
        )
        raise typer.Exit(3)
    report_problems(problems)


def _read(
    sources: list[Path], output: Path, how: tuple[date | None, bool, Path | None, tuple[Path, ...]], again: bool
) -> Cohort:
    """Read the sources."""
    from kypho_kg.cohort_intake import Reading, cohort_of

    with _progress("read", None, "records", _EVERY) as step:
        return cohort_of(
            sources, output, knowledge(), Reading(*how), again=again, read=lambda: step(1), told=say_problems
        )


@contextlib.contextmanager
def _telling(problems: list[Problem]) -> Iterator[None]:
    """Say what was rejected of the sources also where an error ends the run."""
    try:
        yield
    except KyphoKGError:
        say_problems(problems)
        raise


def _here(
    found: Cohort,
    output: Path,
    options: Any,
    as_of: date | None,
    index: Path | None,
    entry: str | None,
    memory: float,
    processes: int | None,
    again: bool,
) -> tuple[Any, Outcome]:
    """Judge what was read on this machine."""
    from kypho_kg.cohort.run import run, sizes

    cases = found.table.dated(as_of, _index(found, index, entry, memory))
    number, part = sizes(found.table, cases.num_rows, memory, processes, options)
    with _progress("judged", cases.num_rows, "cases", part) as step:
        last = 0

        def told(done: int, of: int) -> None:
            nonlocal last
            step(done - last)
            last = done

        outcome = run(
            found.table, cases, output, knowledge(), options, processes=number, part=part, again=again, progress=told
        )
    return cases, outcome


def _on_spark(
    source: Path, output: Path, options: Any, as_of: date | None, index: Path | None, again: bool
) -> tuple[Outcome, list[str], list[Problem]]:
    """Judge a fact table on Spark."""
    from kypho_kg.cohort.index import read_index
    from kypho_kg.cohort.source import FactTable
    from kypho_kg.cohort.spark import run_spark

    dates = None
    if index:
        dates = read_index(index, FactTable(source).cases.schema.field("patient").type)
    outcome = run_spark(str(source), str(output), knowledge(), options, as_of=as_of, index=dates, again=again)
    return outcome, [], []


def _verdict(text: str | None) -> tuple[str, frozenset[str]]:
    """A guideline and verdicts of it, or nothing."""
    from kypho_kg.cohort.graphs import read_verdict

    return read_verdict(text, knowledge()) if text else ("", frozenset())


def _graphs(
    target: Path, found: Cohort, cases: Any, outcome: Outcome, options: Any, verdict: tuple[str, frozenset[str]]
) -> str:
    """Write the patients as named graphs, and say how many."""
    from kypho_kg.cohort.graphs import Chosen, export_graphs

    chosen = Chosen(frozenset(options.patients) if options.patients is not None else None, *verdict)
    done = export_graphs(target, found.table, cases, outcome.asked, chosen, bridges=options.bridges)
    return f"{target.name}: {done.quads:,} quads of {done.patients:,} patients"


def _checked(options: Any) -> None:
    """See that what is named is there, before anything is read."""
    from kypho_kg.cohort.sweep import read_sweeps

    k = knowledge()
    for name in options.policies:
        k.policy(name)
    read_sweeps(options.sweeps, k, options.guidelines)
    if options.older and not (options.older / "kypho.ttl").is_file():
        raise UsageError(
            f"--compare {options.older}: expected the folder 'ontology' of a version, with kypho.ttl in it"
        )


def _ids(path: Path) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(filter(None, map(str.strip, path.read_text("utf-8-sig").splitlines()))))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--patients {path}: {getattr(error, 'strerror', None) or 'it is no text'}") from None


def _index(found: Cohort, index: Path | None, entry: str | None, memory: float) -> Any:
    if not index and not entry:
        return None
    from kypho_kg.cohort.index import entries, read_index
    from kypho_kg.cohort.layout import layout_of

    if index:
        return read_index(index, found.table.cases.schema.field("patient").type)
    return entries(found.table, entry, layout_of(knowledge()), memory=memory / 2) if entry else None


def _summary(outcome: Outcome, tables: tuple[Summary, ...], notes: list[str], problems: list[str]) -> dict[str, Any]:
    return {
        "run": outcome.manifest,
        "cases": int(outcome.counts.cases[0]),
        "cases_not_judged": outcome.rejected.num_rows,
        "left_out": {k: n for k, n in sorted(outcome.left.items()) if n},
        "notes": notes,
        "problems": problems,
        **{t.name: t.dicts() for t in tables},
    }


def _write(out: Path, outcome: Outcome, tables: tuple[Summary, ...], summary: dict[str, Any], as_csv: bool) -> None:
    from kypho_kg.cohort import summaries
    from kypho_kg.cohort.run import CLAUSES, EVIDENCE, FLIPS, VERDICTS

    summaries.write_summaries(tables, out)
    summaries.write_table(outcome.rejected, out / "rejected.csv")
    if outcome.manifest["compared"]:
        summaries.as_csv(out / FLIPS, out / f"{FLIPS}.csv")
    if as_csv:
        for name in (VERDICTS, CLAUSES, EVIDENCE):
            summaries.as_csv(out / name, out / f"{name}.csv")
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    (out / "summary.json").write_text(text + "\n", "utf-8")


@contextlib.contextmanager
def _progress(what: str, total: int | None, unit: str, every: int) -> Iterator[Callable[[int], None]]:
    """Something to call with what was done: a bar on a terminal, else a line now and then, always on stderr."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda n: bar.advance(task, n)
        return
    count = said = 0

    def step(n: int) -> None:
        nonlocal count, said
        count += n
        if n and (count - said >= every or count == total):
            said = count
            typer.echo(f"{what} {count:,}{f' of {total:,}' if total else ''} {unit}", err=True)

    yield step
