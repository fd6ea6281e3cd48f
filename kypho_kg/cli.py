"""The command line: reads arguments, calls the package, prints. No logic of its own.

stdout is data, stderr is progress and problems. Exit codes: 0 done, 2 usage, 3 invalid input, 4 knowledge base
invalid, 5 engine failure.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kypho_kg import __version__
from kypho_kg.cli_knowledge import guidelines_app, ontology_app
from kypho_kg.cli_shared import QueryFormat, QueryFormatOpt, report_problems, say_problems, write_text
from kypho_kg.cli_shared import console as _console
from kypho_kg.cli_shared import knowledge as _knowledge
from kypho_kg.cli_shared import print_json as _print_json
from kypho_kg.errors import KyphoKGError, Problem, UsageError

if TYPE_CHECKING:
    from kypho_kg.candidacy import Answer
    from kypho_kg.record import Record

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


class AssessFormat(StrEnum):
    """Output formats of ``assess``."""

    TABLE = "table"
    JSON = "json"
    OWL = "owl"


class ExplainFormat(StrEnum):
    """Output formats of ``explain``."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "md"


Files = Annotated[list[Path], typer.Argument(help="Patient files (YAML or JSON); files of one patient are merged.")]
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


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--as-of {text!r} is no date; expected YYYY-MM-DD") from None


def _records(files: list[Path], with_: list[Path] | None) -> tuple[list[Record], list[Problem]]:
    from kypho_kg.intake import read_records

    return read_records(files, _knowledge(), with_ or ())


def _assess(
    files: list[Path], as_of: str | None, with_: list[Path] | None, state: str | None = None, **options: Any
) -> tuple[list[Answer], list[Problem]]:
    from kypho_kg.candidacy import assess as run
    from kypho_kg.record import is_postal_code

    day = _day(as_of)
    if state is not None and not is_postal_code(state):
        raise UsageError(f"--state {state!r} is no postal code; expected two capitals such as OH")
    records, problems = _records(files, with_)
    answers = []
    for record in records:
        if day and record.as_of and day != record.as_of:
            typer.echo(f"{record.patient}: as of {day}, not {record.as_of} as the file says", err=True)
        try:
            answers.append(run(record, as_of=day, knowledge=_knowledge(), state=state, validate=False, **options))
        except KyphoKGError:
            say_problems(problems)
            raise
    return answers, problems


@app.command()
def assess(
    files: Files,
    as_of: AsOf = None,
    with_: With = None,
    guideline: GuidelineIds = None,
    assume: Assume = None,
    reading: ReadingOpt = None,
    no_bridge: NoBridge = False,
    state: StateOpt = None,
    payer: PayerOpt = None,
    lesion: Annotated[str | None, typer.Option("--lesion", help="Only the lesion with this id.")] = None,
    format_: Annotated[
        AssessFormat,
        typer.Option("--format", help="table; json; or owl: one case as an ontology that imports the knowledge base."),
    ] = AssessFormat.TABLE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="With --format owl: write a file per case to this folder.")
    ] = None,
) -> None:
    """Say what every guideline says of each lesion of a patient."""
    from kypho_kg import report, terminal

    owl = format_ is AssessFormat.OWL
    if output and not owl:
        raise UsageError("--output goes with --format owl")
    if owl and (guideline or assume or reading or state or payer):
        raise UsageError(
            "a case as OWL holds no verdict: --guideline, --assume, --reading, --state, --payer say nothing"
        )
    answers, problems = _assess(
        files,
        as_of,
        with_,
        state,
        guidelines=guideline,
        assume=assume or (),
        readings=reading or (),
        bridges=not no_bridge,
        payer=payer,
    )
    if lesion is not None:
        answers = _only(answers, lesion)
    if owl:
        _write_owl(answers, output)
    elif format_ is AssessFormat.JSON:
        _print_json(report.answers_json(answers, problems, f"kypho-kg {__version__}"))
    elif sum(len(a.cases) for a in answers) > 4:
        terminal.print_matrix(_console(), answers)
    else:
        terminal.print_cases(_console(), answers)
    report_problems(problems)


def _only(answers: list[Answer], lesion: str) -> list[Answer]:
    found = [replace(a, cases=tuple(c for c in a.cases if c.lesion.id == lesion)) for a in answers]
    if answers and not any(a.cases for a in found):
        known = ", ".join(c.lesion.id for a in answers for c in a.cases)
        raise UsageError(f"no lesion {lesion!r}; known: {known or 'none'}")
    return [a for a in found if a.cases]


def _write_owl(answers: list[Answer], folder: Path | None) -> None:
    from kypho_kg import case_export

    if folder is None:
        typer.echo(case_export.case_text(answers), nl=False)
    else:
        for path in case_export.write_cases(answers, folder):
            typer.echo(str(path))


@app.command()
def explain(
    file: Annotated[list[Path], typer.Argument(help="Patient file; several of one patient are merged.")],
    guideline: Annotated[str, typer.Option("--guideline", "-g", help="The guideline to explain.")],
    lesion: Annotated[str | None, typer.Option("--lesion", help="Id of the lesion.")] = None,
    level: Annotated[str | None, typer.Option("--level", help="Level of the lesion, such as L1.")] = None,
    as_of: AsOf = None,
    with_: With = None,
    assume: Assume = None,
    reading: ReadingOpt = None,
    no_bridge: NoBridge = False,
    format_: Annotated[
        ExplainFormat, typer.Option("--format", help="table, json or md (Markdown).")
    ] = ExplainFormat.TABLE,
) -> None:
    """Show the full proof of one guideline, what is missing, and what would change its verdict."""
    from kypho_kg import narrative, report, terminal
    from kypho_kg.explanation import Explained

    answers, problems = _assess(
        file,
        as_of,
        with_,
        guidelines=[guideline],
        assume=assume or (),
        readings=reading or (),
        bridges=not no_bridge,
    )
    found = [
        (a, c)
        for a in answers
        for c in a.cases
        if (lesion is None or c.lesion.id == lesion)
        and (level is None or report.level_names(a.knowledge, c) == [level])
    ]
    if answers and not found:
        known = ", ".join(
            f"{c.lesion.id} ({'/'.join(report.level_names(a.knowledge, c)) or 'level unknown'})"
            for a in answers
            for c in a.cases
        )
        say_problems(problems)
        raise UsageError(f"no such lesion; the record has: {known or 'none'}")
    explained = [Explained(a, c) for a, c in found]
    if format_ is ExplainFormat.JSON:
        _print_json([report.case_json(e, whole=True) for e in explained])
    elif format_ is ExplainFormat.MARKDOWN:
        for e in explained:
            title, a = terminal.case_title(e.knowledge, e.answer, e.case), e.case.assessments[0]
            lines = [line for line, _ in terminal.heading_lines(e, a)]
            typer.echo(narrative.markdown(title, lines, narrative.narrate(e, a), terminal.footer(e.answer)))
    else:
        for e in explained:
            terminal.print_explanation(_console(), e, e.case.assessments[0])
    report_problems(problems)


@app.command("next")
def next_(
    file: Annotated[list[Path], typer.Argument(help="Patient file; several of one patient are merged.")],
    lesion: Annotated[str | None, typer.Option("--lesion", help="Id of the lesion; all by default.")] = None,
    guideline: GuidelineIds = None,
    as_of: AsOf = None,
    with_: With = None,
    state: StateOpt = None,
    payer: PayerOpt = None,
    no_bridge: NoBridge = False,
    most: Annotated[int, typer.Option("--most", min=1, help="Features in the form.")] = 12,
    form: Annotated[
        Path | None, typer.Option("--form", help="Write a form with the features left blank, for --with.")
    ] = None,
) -> None:
    """Show what to find out next, over all guidelines, and what they disagree on."""
    from kypho_kg import narrative, next_steps, terminal
    from kypho_kg.explanation import explain as explained_of

    answers, problems = _assess(file, as_of, with_, state, guidelines=guideline, bridges=not no_bridge, payer=payer)
    cases = [e for a in (answers if lesion is None else _only(answers, lesion)) for e in explained_of(a)]
    if form and len(cases) != 1:
        raise UsageError(f"--form is for one lesion, and there are {len(cases)}: name one with --lesion")
    console = _console()
    for e in cases:
        console.print(terminal.case_title(e.knowledge, e.answer, e.case), style="bold", markup=False, highlight=False)
        terminal.print_sections(console, narrative.narrate_case(e))
        if form:
            write_text(form, next_steps.fragment(e.case, e.steps[:most]))
    if answers:
        console.print(terminal.footer(answers[0]), style="dim", markup=False, highlight=False)
    report_problems(problems)


@app.command()
def validate(files: Files) -> None:
    """Check patient files against their format and the SHACL shapes."""
    records, problems = _records(files, None)
    for record in records:
        counts = ((len(record.facts), "fact"), (len(record.lesions), "lesion"))
        said = ", ".join(f"{n} {noun}{'' if n == 1 else 's'}" for n, noun in counts)
        typer.echo(f"{', '.join(record.files)}: conforms ({said})")
    report_problems(problems)


@app.command()
def reason(
    file: Annotated[Path, typer.Argument(help="Patient file.")],
    lesion: Annotated[str | None, typer.Option("--lesion", help="Id of the lesion; the first by default.")] = None,
    guideline: GuidelineIds = None,
    as_of: AsOf = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds after which the reasoner is killed.")] = 120,
) -> None:
    """Show what the description-logic reasoner HermiT entails, beside our own answer."""
    from kypho_kg.crosscheck import compare, print_comparison

    records, problems = _records([file], None)
    report_problems(problems)
    rows = compare(records[0], _knowledge(), lesion, guideline, _day(as_of), timeout)
    if not print_comparison(_console(), rows):
        raise typer.Exit(5)


@app.command()
def query(
    name: Annotated[str, typer.Argument(help="Name of a bundled query, or a .rq file; 'list' lists the bundled ones.")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Patient files: assessed under all guidelines, and queried too.")
    ] = None,
    as_of: AsOf = None,
    with_: With = None,
    assume: Assume = None,
    no_bridge: NoBridge = False,
    format_: QueryFormatOpt = QueryFormat.TABLE,
) -> None:
    """Run a SPARQL query on the knowledge base, and on patients where their files are given."""
    from kypho_kg import querying

    if name == "list":
        for known, title in querying.bundled().items():
            typer.echo(f"{known:32} {title}")
        return
    if not files and (as_of or with_ or assume or no_bridge):
        raise UsageError("--as-of, --with, --assume and --no-bridge say how patient files are read: give some")
    querying.query_text(name)  # a wrong name costs no assessment
    answers: list[Answer] = []
    problems: list[Problem] = []
    if files:
        every = list(_knowledge().guidelines)
        answers, problems = _assess(files, as_of, with_, guidelines=every, assume=assume or (), bridges=not no_bridge)
        if not answers:
            report_problems(problems)
    rows = querying.run(_knowledge(), name, answers)
    if format_ is QueryFormat.JSON:
        _print_json(rows)
    elif format_ is QueryFormat.MARKDOWN:
        typer.echo(querying.markdown(name, rows), nl=False)
    else:
        querying.print_rows(_console(), rows)
    report_problems(problems)


@app.command()
def doctor() -> None:
    """Check the installation: versions, data folders, engines."""
    from kypho_kg import diagnosis

    if not diagnosis.doctor(_console()):
        raise typer.Exit(5)
