"""The commands about many patients in a store, and about queries. No logic of their own."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kypho_kg.cli_shared import (
    AsOf,
    Assume,
    Files,
    MappingOpt,
    MappingsOpt,
    NoBridge,
    PatientIds,
    QueryFormat,
    QueryFormatOpt,
    With,
    assessed,
    console,
    day,
    knowledge,
    print_json,
    report_problems,
    say_problems,
)
from kypho_kg.errors import Problem, UsageError

if TYPE_CHECKING:
    from kypho_kg.candidacy import Answer

store_app = typer.Typer()

_EVERY = 100
"""Patients between two lines of progress, where stderr is no terminal."""


@store_app.command()
def load(
    files: Files,
    store: Annotated[Path, typer.Option("--store", help="Folder of the store; made where there is none.")],
    patient: PatientIds = None,
    as_of: AsOf = None,
    with_: With = None,
    mapping: MappingOpt = None,
    mappings: MappingsOpt = None,
    facts_only: Annotated[bool, typer.Option("--facts-only", help="Write what was recorded; judge nothing.")] = False,
    assume: Assume = None,
    no_bridge: NoBridge = False,
    again: Annotated[bool, typer.Option("--again", help="Write also the patients that have not changed.")] = False,
) -> None:
    """Assess patients under all guidelines and keep them in a store that 'query --store' asks.

    A patient takes the place of the same patient in the store. After an interruption the same command goes on.
    """
    from kypho_kg.case_store import CaseStore, Failure, Options
    from kypho_kg.intake import stream_sources

    if facts_only and (assume or no_bridge):
        raise UsageError("--assume and --no-bridge say how patients are judged; --facts-only judges nothing")
    options = Options(day(as_of), tuple(assume or ()), bridges=not no_bridge, facts_only=facts_only)
    done: Counter[str] = Counter()
    problems: list[Problem] = []
    failed = False
    with CaseStore(store, knowledge(), options) as opened:
        with _progress("read", None) as step:
            stream = stream_sources(
                files,
                knowledge(),
                with_ or (),
                mapping=mapping,
                mappings=mappings or (),
                read=step,
                patients=patient or (),
            )
        with _progress("loaded", stream.patients) as step:
            for outcome in opened.load(stream.records, again=again):
                if isinstance(outcome, Failure):
                    problems.append(outcome.problem)
                    failed |= outcome.engine
                else:
                    done[outcome] += 1
                step()
    lost = sum(sum(r.unmapped.values()) + sum(r.unread.values()) for r in stream.reports)
    if lost:
        typer.echo(f"{lost:,} entries were not understood or not read: kypho-kg intake", err=True)
    counts = ", ".join(f"{done[kind]:,} {kind}" for kind in ("new", "replaced", "unchanged"))
    typer.echo(f"{store}: {done.total():,} of {stream.patients:,} patients: {counts}")
    problems = [*stream.problems, *problems]
    if failed:
        say_problems(problems)
        raise typer.Exit(5)
    report_problems(problems)


@contextlib.contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Something to call for each patient: a bar on a terminal, else a line now and then, always on stderr."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)
        return
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count % _EVERY == 0:
            typer.echo(f"{what} {count:,}{f' of {total:,}' if total else ''} patients", err=True)

    yield step


@store_app.command()
def query(
    name: Annotated[str, typer.Argument(help="Name of a bundled query, or a .rq file; 'list' lists the bundled ones.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Whatever 'assess' reads: judged under all guidelines, and queried too."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Ask the patients of this folder, which 'load' made.")
    ] = None,
    patient: PatientIds = None,
    as_of: AsOf = None,
    with_: With = None,
    assume: Assume = None,
    no_bridge: NoBridge = False,
    mapping: MappingOpt = None,
    mappings: MappingsOpt = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", help="NAME=VALUE: give a variable a value; repeatable.")
    ] = None,
    format_: QueryFormatOpt = QueryFormat.TABLE,
    limit_rows: Annotated[int | None, typer.Option("--limit-rows", min=0, help="The most rows to give.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds after which the query is stopped.")] = 120,
) -> None:
    """Run a SPARQL query on the knowledge base, and on patients: of files, or of a store."""
    from kypho_kg import querying

    if name == "list":
        for known, title in querying.bundled().items():
            typer.echo(f"{known:32} {title}")
        return
    if store and files:
        raise UsageError("give files or --store, not both")
    if store and patient:
        raise UsageError("--patient is for files; of a store, ask with --param patient=ID")
    if not files and (patient or as_of or with_ or assume or no_bridge or mapping or mappings):
        raise UsageError(
            "--patient, --as-of, --with, --assume, --no-bridge, --mapping and --mappings say how files are read: "
            "give some"
        )
    if not timeout > 0:
        raise UsageError(f"--timeout {timeout:g}; expected a number of seconds above 0")
    querying.bindings(knowledge(), querying.query_text(name), param or ())  # a mistake costs no assessment
    answers: list[Answer] = []
    problems: list[Problem] = []
    if files:
        every = list(knowledge().guidelines)
        answers, problems = assessed(
            files,
            as_of,
            with_,
            mapping=mapping,
            mappings=mappings,
            patients=patient,
            guidelines=every,
            assume=assume or (),
            bridges=not no_bridge,
        )
        if not answers:
            report_problems(problems)
    if store:
        found, remarks = querying.ask_store(
            knowledge(), name, store, params=param or (), limit=limit_rows, timeout=timeout
        )
        for remark in remarks:
            typer.echo(remark, err=True)
    else:
        found = querying.ask(knowledge(), name, answers, params=param or (), limit=limit_rows, timeout=timeout)
    if found.cut:
        typer.echo(f"only the first {limit_rows:,} rows: there are more", err=True)
    rows = querying.rows_of(found)
    if format_ is QueryFormat.JSON:
        print_json(rows)
    elif format_ is QueryFormat.MARKDOWN:
        typer.echo(querying.markdown(name, rows), nl=False)
    elif format_ is QueryFormat.CSV:
        typer.echo(querying.as_csv(found), nl=False)
    elif format_ is QueryFormat.TURTLE:
        typer.echo(querying.as_turtle(found), nl=False)
    else:
        querying.print_rows(console(), rows)
    report_problems(problems)
