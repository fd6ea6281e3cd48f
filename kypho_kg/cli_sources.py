"""The commands about sources of records: what was read of them, and mappings for tables. No logic of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kypho_kg.cli_shared import (
    Files,
    Format,
    FormatOpt,
    MappingOpt,
    MappingsOpt,
    console,
    knowledge,
    print_json,
    say_problems,
    write_text,
)

sources_app = typer.Typer()
map_app = typer.Typer(help="Mappings for tables.", no_args_is_help=True)
sources_app.add_typer(map_app, name="map")


@sources_app.command()
def intake(
    files: Files, mapping: MappingOpt = None, mappings: MappingsOpt = None, format_: FormatOpt = Format.TABLE
) -> None:
    """Show what was read of each source, what it became, what was not understood, and what was rejected."""
    from kypho_kg.coverage import filled_by
    from kypho_kg.intake import stream_sources
    from kypho_kg.intake_report import report_json
    from kypho_kg.intake_text import print_coverage, print_reports

    k = knowledge()
    found = stream_sources(files, k, mapping=mapping, mappings=mappings or (), many=True)
    filled = filled_by(k, found.records)
    if format_ is Format.JSON:
        print_json(
            {
                "sources": report_json(found.reports),
                "filled_features": filled.number,
                "derived_features": [k.features[f].name for f in filled.derived],
                "unfilled_features": [{"feature": k.features[f].name, "clauses": n} for f, n in filled.missing],
            }
        )
    else:
        print_reports(console(), found.reports)
        print_coverage(console(), k, filled)
    if found.problems:
        if format_ is Format.JSON:
            say_problems(found.problems)
        raise typer.Exit(3)


@map_app.command("init")
def map_init(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file; stdout by default.")
    ] = None,
) -> None:
    """Write a mapping file to start from: what is certain is filled in, the rest is a comment."""
    from kypho_kg.sources.table import starter_mapping

    text = starter_mapping(file, knowledge())
    if output:
        write_text(output, text)
    else:
        typer.echo(text, nl=False)
