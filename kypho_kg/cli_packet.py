"""The command for a request for prior authorization. No logic of its own."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kypho_kg import __version__
from kypho_kg.cli_shared import (
    AsOf,
    Files,
    MappingOpt,
    MappingsOpt,
    PatientIds,
    PayerOpt,
    StateOpt,
    With,
    day,
    knowledge,
    one_record,
    records_of,
    report_problems,
    write_text,
)
from kypho_kg.errors import UsageError
from kypho_kg.record import is_postal_code

packet_app = typer.Typer()


class PacketFormat(StrEnum):
    """Output formats of ``packet``."""

    HTML = "html"
    JSON = "json"
    FHIR = "fhir"


@packet_app.command()
def packet(
    files: Files,
    patient: PatientIds = None,
    as_of: AsOf = None,
    with_: With = None,
    lesion: Annotated[
        str | None, typer.Option("--lesion", help="Only this lesion; those of the proposed session by default.")
    ] = None,
    guideline: Annotated[
        list[str] | None,
        typer.Option("--guideline", "-g", help="This policy, whether in force or not; repeatable."),
    ] = None,
    state: StateOpt = None,
    payer: PayerOpt = None,
    mapping: MappingOpt = None,
    mappings: MappingsOpt = None,
    header: Annotated[
        Path | None, typer.Option("--header", help="YAML file with what the record does not say of the request.")
    ] = None,
    format_: Annotated[
        PacketFormat,
        typer.Option("--format", help="html: a page to print; json; fhir: Questionnaires with their answers."),
    ] = PacketFormat.HTML,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; else stdout.")] = None,
) -> None:
    """Write the packet for a request for prior authorization: the policies in force as checklists with evidence."""
    from kypho_kg.packet import build_packet
    from kypho_kg.packet_header import read_header

    k, software = knowledge(), f"kypho-kg {__version__}"
    if state is not None and not is_postal_code(state):
        raise UsageError(f"--state {state!r} is no postal code; expected two capitals such as OH")
    asked = day(as_of)
    head = read_header(header, k) if header else None
    records, problems = records_of(files, with_, mapping, mappings, patient)
    record = one_record(records, problems, "a packet")
    if asked and record.as_of and asked != record.as_of:
        typer.echo(f"as of {asked}, not {record.as_of} as the file says", err=True)
    made = build_packet(
        record, k, as_of=asked, guidelines=guideline or (), lesion=lesion, state=state, payer=payer, header=head
    )
    if made.maybe:
        ids = ", ".join(m.guideline.id for m in made.maybe)
        typer.echo(f"not known: {', '.join(made.lacking)}; so it is not known whether these apply: {ids}", err=True)
    if format_ is PacketFormat.HTML:
        from kypho_kg.packet_html import packet_html

        text = packet_html(made, software)
    else:
        from kypho_kg.packet_fhir import packet_fhir
        from kypho_kg.packet_json import packet_json

        data = packet_fhir(made, software) if format_ is PacketFormat.FHIR else packet_json(made, software, problems)
        text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if output:
        write_text(output, text)
    else:
        typer.echo(text, nl=False)
    report_problems(problems)
