"""What every part of the command line needs: the knowledge base, the console, the ways to print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kypho_kg.errors import KyphoKGError, Problem, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from kypho_kg.candidacy import Answer
    from kypho_kg.knowledge import Knowledge
    from kypho_kg.record import Record


class Format(StrEnum):
    """Output formats of most commands."""

    TABLE = "table"
    JSON = "json"


FormatOpt = Annotated[Format, typer.Option("--format", help="table or json.")]


class QueryFormat(StrEnum):
    """Output formats of ``query``."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    TURTLE = "ttl"
    MARKDOWN = "md"


QueryFormatOpt = Annotated[
    QueryFormat, typer.Option("--format", help="table, json, csv, ttl (of a CONSTRUCT) or md (Markdown).")
]


Files = Annotated[
    list[Path],
    typer.Argument(
        help="Patient files (YAML or JSON), FHIR (Bundle, NDJSON, bulk folder), RDF, OMOP (DuckDB or a folder of "
        "tables), a fact table, or tables with --mapping; sources of one patient are merged."
    ),
]
MappingOpt = Annotated[Path | None, typer.Option("--mapping", help="For tables: the file that says what a column is.")]
MappingsOpt = Annotated[
    list[Path] | None,
    typer.Option("--mappings", help="What further codes mean: SSSOM file, or roll-up of products; repeatable."),
]
PatientIds = Annotated[
    list[str] | None, typer.Option("--patient", help="Only the patient with this id in the sources; repeatable.")
]
AsOf = Annotated[str | None, typer.Option("--as-of", help="Read the record as of this date; overrides the file.")]
With = Annotated[
    list[Path] | None, typer.Option("--with", help="File with author and reason that adds or overrides facts.")
]
GuidelineIds = Annotated[list[str] | None, typer.Option("--guideline", "-g", help="Only this guideline; repeatable.")]
Assume = Annotated[list[str] | None, typer.Option("--assume", help="Assumption policy; its verdict stands beside.")]
ReadingOpt = Annotated[
    list[str] | None, typer.Option("--reading", help="Alternative reading that the verdict follows; repeatable.")
]
NoBridge = Annotated[bool, typer.Option("--no-bridge", help="Let no feature count as another.")]
StateOpt = Annotated[str | None, typer.Option("--state", help="State of service: picks the policies in force.")]
PayerOpt = Annotated[str | None, typer.Option("--payer", help="Payer: picks the policies in force.")]


def knowledge() -> Knowledge:
    """The bundled knowledge base."""
    from kypho_kg.loading import load_knowledge

    return load_knowledge()


def console() -> Console:
    """A console for stdout."""
    from rich.console import Console

    # Piped output is data for another program or a file: wide enough not to cut words.
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    plain = False if os.environ.get("NO_COLOR") else None  # no escape codes at all, not even for bold
    return Console(width=None if known else 160, force_terminal=plain, highlight=False, soft_wrap=False)


def print_json(data: object) -> None:
    """Print data as JSON on stdout."""
    typer.echo(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False))


def write_text(path: Path, text: str) -> None:
    """Write a file, with the folders it needs.

    :raises UsageError: when that is not possible.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def say_problems(problems: Iterable[Problem]) -> None:
    """Print what is wrong with the input on stderr."""
    for problem in problems:
        typer.echo(f"kypho-kg: {problem}", err=True)


def report_problems(problems: Sequence[Problem]) -> None:
    """Print what is wrong with the input, and end with the exit code of invalid input if anything is."""
    say_problems(problems)
    if problems:
        raise typer.Exit(3)


def day(text: str | None) -> date | None:
    """A date as it was typed.

    :raises UsageError: for anything else.
    """
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--as-of {text!r} is no date; expected YYYY-MM-DD") from None


def records_of(
    files: list[Path],
    with_: list[Path] | None,
    mapping: Path | None = None,
    mappings: list[Path] | None = None,
    patients: list[str] | None = None,
) -> tuple[list[Record], list[Problem]]:
    """The records of some sources, with the problems of what cannot be read.

    Of a source that holds more than was read, that is said on stderr.

    :param patients: only those with these ids.
    """
    from kypho_kg.intake import read_sources

    found = read_sources(
        files, knowledge(), with_ or (), mapping=mapping, mappings=mappings or (), patients=patients or ()
    )
    for report in found.reports:
        lost = sum(report.unmapped.values()) + sum(report.unread.values())
        if lost:
            typer.echo(f"{report.source}: {lost:,} entries were not understood or not read: kypho-kg intake", err=True)
    return found.records, found.problems


def one_record(records: list[Record], problems: list[Problem], what: str) -> Record:
    """The only record, for a command that is about one patient.

    :param what: the command as the subject of a sentence.
    :raises UsageError: when there are several, or none although nothing is wrong with the sources.
    """
    if not records:
        report_problems(problems)
        raise UsageError("no patient in the sources")
    if len(records) > 1:
        say_problems(problems)
        raise UsageError(f"{what} is about one patient; the files name {len(records):,}: {CHOOSE}")
    return records[0]


CHOOSE = "name one with --patient ID"
"""What to do where there are several patients; it names none of them."""


def assessed(
    files: list[Path],
    as_of: str | None,
    with_: list[Path] | None,
    state: str | None = None,
    mapping: Path | None = None,
    mappings: list[Path] | None = None,
    patients: list[str] | None = None,
    one: str = "",
    **options: Any,
) -> tuple[list[Answer], list[Problem]]:
    """The answers on patient files; options are those of ``assess``.

    :param one: what is about one patient, for :func:`one_record`; empty where there may be several.
    """
    from kypho_kg.candidacy import assess as run
    from kypho_kg.record import is_postal_code

    asked = day(as_of)
    if state is not None and not is_postal_code(state):
        raise UsageError(f"--state {state!r} is no postal code; expected two capitals such as OH")
    records, problems = records_of(files, with_, mapping, mappings, patients)
    if one:
        one_record(records, problems, one)
    answers = []
    for record in records:
        if asked and record.as_of and asked != record.as_of:
            typer.echo(f"{record.place}: as of {asked}, not {record.as_of} as the file says", err=True)
        try:
            answers.append(run(record, as_of=asked, knowledge=knowledge(), state=state, validate=False, **options))
        except KyphoKGError:
            say_problems(problems)
            raise
    return answers, problems


def only_lesion(answers: list[Answer], lesion: str) -> list[Answer]:
    """The answers on the lesion with an id.

    :raises UsageError: when there is none.
    """
    found = [replace(a, cases=tuple(c for c in a.cases if c.lesion.id == lesion)) for a in answers]
    if answers and not any(a.cases for a in found):
        if len(answers) > 1:
            raise UsageError(f"no lesion {lesion!r} of {len(answers):,} patients: {CHOOSE}")
        known = ", ".join(c.lesion.id for a in answers for c in a.cases)
        raise UsageError(f"no lesion {lesion!r}; known: {known or 'none'}")
    return [a for a in found if a.cases]
