"""The command line: reads arguments, calls the package, prints. No logic of its own.

stdout is data, stderr is progress and problems. Exit codes: 0 done, 2 usage, 3 invalid input, 4 knowledge base
invalid, 5 engine failure.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kypho_kg import __version__
from kypho_kg.cli_cohort import cohort_app
from kypho_kg.cli_knowledge import guidelines_app, ontology_app
from kypho_kg.cli_packet import packet_app
from kypho_kg.cli_patient import patient_app
from kypho_kg.cli_shared import (
    AsOf,
    Assume,
    Files,
    GuidelineIds,
    MappingOpt,
    MappingsOpt,
    NoBridge,
    PatientIds,
    PayerOpt,
    ReadingOpt,
    StateOpt,
    With,
    assessed,
    day,
    one_record,
    only_lesion,
    records_of,
    report_problems,
)  # fmt: skip
from kypho_kg.cli_shared import console as _console
from kypho_kg.cli_shared import knowledge as _knowledge
from kypho_kg.cli_shared import print_json as _print_json
from kypho_kg.cli_sources import sources_app
from kypho_kg.cli_store import store_app
from kypho_kg.cli_synth import synth_app
from kypho_kg.errors import EngineError, KyphoKGError, UsageError

if TYPE_CHECKING:
    from kypho_kg.candidacy import Answer

app = typer.Typer(
    name="kypho-kg",
    help="What guidelines and coverage policies say of vertebral augmentation for a patient, with proof.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(guidelines_app, name="guidelines")
app.add_typer(ontology_app, name="ontology")
app.add_typer(patient_app)
app.add_typer(packet_app)
app.add_typer(sources_app)
app.add_typer(synth_app)
app.add_typer(cohort_app)
app.add_typer(store_app)


class AssessFormat(StrEnum):
    """Output formats of ``assess``."""

    TABLE = "table"
    JSON = "json"
    OWL = "owl"
    HTML = "html"
    TRIG = "trig"
    TURTLE = "ttl"
    JSONLD = "jsonld"
    FHIR = "fhir"
    CSV = "csv"
    PARQUET = "parquet"


def main() -> None:
    """Run the command line; a user's mistake is a message and an exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        app()
    except KyphoKGError as error:
        for line in str(error).splitlines():
            typer.echo(f"kypho-kg: {line}", err=True)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        raise SystemExit(0) from None


def _version(value: bool) -> None:
    if value:
        k = _knowledge()
        typer.echo(f"kypho-kg {__version__}, knowledge base {k.version}, sha256 {k.sha256}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show versions.")
    ] = False,
) -> None:
    pass


@app.command()
def assess(
    files: Files,
    patient: PatientIds = None,
    as_of: AsOf = None,
    with_: With = None,
    guideline: GuidelineIds = None,
    assume: Assume = None,
    reading: ReadingOpt = None,
    no_bridge: NoBridge = False,
    state: StateOpt = None,
    payer: PayerOpt = None,
    lesion: Annotated[str | None, typer.Option("--lesion", help="Only the lesion with this id.")] = None,
    mapping: MappingOpt = None,
    mappings: MappingsOpt = None,
    format_: Annotated[
        AssessFormat,
        typer.Option(
            "--format",
            help="table; json; html: a page of one patient; trig, ttl or jsonld: facts, proofs and verdicts as RDF; "
            "owl: one case as an ontology that imports the knowledge base; fhir: a Bundle of FHIR R4; "
            "csv or parquet: tables in the folder of --output.",
        ),
    ] = AssessFormat.TABLE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder: with owl for a file per case; for the tables of csv and parquet."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Have every proof checked by an independent checker.")] = False,
) -> None:
    """Say what every guideline says of each lesion of a patient."""
    from kypho_kg import report, terminal

    owl = format_ is AssessFormat.OWL
    tables = format_ in {AssessFormat.CSV, AssessFormat.PARQUET}
    if output and not (owl or tables):
        raise UsageError("--output goes with --format owl, csv or parquet")
    if tables and output is None:
        raise UsageError(f"--format {format_} writes several files: give a folder with --output")
    if owl and (guideline or assume or reading or state or payer):
        raise UsageError(
            "a case as OWL holds no verdict: --guideline, --assume, --reading, --state, --payer say nothing"
        )
    answers, problems = assessed(
        files,
        as_of,
        with_,
        state,
        guidelines=guideline,
        assume=assume or (),
        readings=reading or (),
        bridges=not no_bridge,
        payer=payer,
        mapping=mapping,
        mappings=mappings,
        patients=patient,
        one="a page" if format_ is AssessFormat.HTML else "",
    )
    if lesion is not None:
        answers = only_lesion(answers, lesion)
    if check:
        _check(answers)
    if not answers and owl:
        report_problems(problems)
    if owl:
        _write_owl(answers, output)
    elif format_ in {AssessFormat.TRIG, AssessFormat.TURTLE}:
        from kypho_kg.case_graph import case_graphs
        from kypho_kg.store import serialized

        typer.echo(serialized(case_graphs(answers), apart=format_ is AssessFormat.TRIG), nl=False)
    elif format_ is AssessFormat.JSONLD:
        from kypho_kg.case_graph import case_graphs
        from kypho_kg.context import as_jsonld

        typer.echo(as_jsonld(case_graphs(answers), _knowledge()), nl=False)
    elif format_ is AssessFormat.HTML:
        from kypho_kg.explanation import explain
        from kypho_kg.page import page

        explained = [e for a in answers for e in explain(a)]
        typer.echo(page(answers, explained, guideline=guideline[0] if guideline else None), nl=False)
    elif format_ is AssessFormat.FHIR:
        from kypho_kg.fhir_out import answers_fhir

        _print_json(answers_fhir(answers, problems, f"kypho-kg {__version__}"))
    elif tables and output is not None:
        from kypho_kg.answer_tables import write_tables

        for path in write_tables(answers, output, format_):
            typer.echo(str(path))
    elif format_ is AssessFormat.JSON:
        _print_json(report.answers_json(answers, problems, f"kypho-kg {__version__}"))
    elif sum(len(a.cases) for a in answers) > 4:
        terminal.print_matrix(_console(), answers)
    else:
        terminal.print_cases(_console(), answers)
    report_problems(problems)


def _check(answers: list[Answer]) -> None:
    from kypho_kg.checking import check

    checked = check(answers)
    typer.echo(f"proofs: {checked}", err=True)
    if checked.faults:
        raise EngineError("; ".join(checked.faults[:20]))


def _write_owl(answers: list[Answer], folder: Path | None) -> None:
    from kypho_kg import case_export

    if folder is None:
        typer.echo(case_export.case_text(answers), nl=False)
    else:
        for path in case_export.write_cases(answers, folder):
            typer.echo(str(path))


@app.command()
def validate(
    files: Files, patient: PatientIds = None, mapping: MappingOpt = None, mappings: MappingsOpt = None
) -> None:
    """Check patient files against their format and the SHACL shapes."""
    records, problems = records_of(files, None, mapping, mappings, patient)
    for record in records:
        counts = ((len(record.facts), "fact"), (len(record.lesions), "lesion"))
        said = ", ".join(f"{n} {noun}{'' if n == 1 else 's'}" for n, noun in counts)
        typer.echo(f"{', '.join(record.files)}: conforms ({said})")
    report_problems(problems)


@app.command()
def reason(
    file: Annotated[Path, typer.Argument(help="Patient file.")],
    patient: PatientIds = None,
    lesion: Annotated[str | None, typer.Option("--lesion", help="Id of the lesion; the first by default.")] = None,
    guideline: GuidelineIds = None,
    as_of: AsOf = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds after which the reasoner is killed.")] = 120,
) -> None:
    """Show what the description-logic reasoner HermiT entails, beside our own answer."""
    from kypho_kg.crosscheck import compare, print_comparison

    records, problems = records_of([file], None, patients=patient)
    report_problems(problems)
    rows = compare(
        one_record(records, problems, "the reasoner's answer"), _knowledge(), lesion, guideline, day(as_of), timeout
    )
    if not print_comparison(_console(), rows):
        raise typer.Exit(5)


@app.command()
def doctor() -> None:
    """Check the installation: versions, data folders, engines."""
    from kypho_kg import diagnosis

    if not diagnosis.doctor(_console()):
        raise typer.Exit(5)
