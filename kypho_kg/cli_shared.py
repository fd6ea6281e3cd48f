"""What every part of the command line needs: the knowledge base, the console, the ways to print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kypho_kg.errors import Problem, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from kypho_kg.knowledge import Knowledge


class Format(StrEnum):
    """Output formats of most commands."""

    TABLE = "table"
    JSON = "json"


FormatOpt = Annotated[Format, typer.Option("--format", help="table or json.")]


class QueryFormat(StrEnum):
    """Output formats of ``query``."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "md"


QueryFormatOpt = Annotated[QueryFormat, typer.Option("--format", help="table, json or md (Markdown).")]


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
