"""The commands that explain one patient: why, what next, and how it changed. No logic of their own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kypho_kg.cli_shared import (
    CHOOSE,
    AsOf,
    Assume,
    Format,
    FormatOpt,
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
    console,
    day,
    knowledge,
    one_record,
    only_lesion,
    print_json,
    records_of,
    report_problems,
    say_problems,
    write_text,
)  # fmt: skip
from kypho_kg.errors import UsageError

patient_app = typer.Typer()


class ExplainFormat(StrEnum):
    """Output formats of ``explain``."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "md"


@patient_app.command()
def explain(
    file: Annotated[list[Path], typer.Argument(help="Patient file; several of one patient are merged.")],
    guideline: Annotated[str, typer.Option("--guideline", "-g", help="The guideline to explain.")],
    patient: PatientIds = None,
    lesion: Annotated[str | None, typer.Option("--lesion", help="Id of the lesion.")] = None,
    level: Annotated[str | None, typer.Option("--level", help="Level of the lesion, such as L1.")] = None,
    as_of: AsOf = None,
    with_: With = None,
    assume: Assume = None,
    reading: ReadingOpt = None,
    no_bridge: NoBridge = False,
    mapping: MappingOpt = None,
    mappings: MappingsOpt = None,
    format_: Annotated[
        ExplainFormat, typer.Option("--format", help="table, json or md (Markdown).")
    ] = ExplainFormat.TABLE,
) -> None:
    """Show the full proof of one guideline, what is missing, and what would change its verdict."""
    from kypho_kg import narrative, report, terminal
    from kypho_kg.explanation import Explained
    from kypho_kg.markdown import markdown

    answers, problems = assessed(
        file,
        as_of,
        with_,
        mapping=mapping,
        mappings=mappings,
        patients=patient,
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
        say_problems(problems)
        if len(answers) > 1:
            raise UsageError(f"no such lesion of {len(answers):,} patients: {CHOOSE}")
        known = ", ".join(
            f"{c.lesion.id} ({'/'.join(report.level_names(a.knowledge, c)) or 'level unknown'})"
            for a in answers
            for c in a.cases
        )
        raise UsageError(f"no such lesion; the record has: {known or 'none'}")
    explained = [Explained(a, c) for a, c in found]
    if format_ is ExplainFormat.JSON:
        print_json([report.case_json(e, whole=True) for e in explained])
    elif format_ is ExplainFormat.MARKDOWN:
        for e in explained:
            title, a = terminal.case_title(e.knowledge, e.answer, e.case), e.case.assessments[0]
            lines = [line for line, _ in terminal.heading_lines(e, a)]
            typer.echo(markdown(title, lines, narrative.narrate(e, a), terminal.footer(e.answer)))
    else:
        for e in explained:
            terminal.print_explanation(console(), e, e.case.assessments[0])
    report_problems(problems)


@patient_app.command("next")
def next_(
    file: Annotated[list[Path], typer.Argument(help="Patient file; several of one patient are merged.")],
    patient: PatientIds = None,
    lesion: Annotated[str | None, typer.Option("--lesion", help="Id of the lesion; all by default.")] = None,
    guideline: GuidelineIds = None,
    as_of: AsOf = None,
    with_: With = None,
    state: StateOpt = None,
    payer: PayerOpt = None,
    no_bridge: NoBridge = False,
    mapping: MappingOpt = None,
    mappings: MappingsOpt = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Features in the form.")] = 12,
    form: Annotated[
        Path | None, typer.Option("--form", help="Write a form with the features left blank, for --with.")
    ] = None,
) -> None:
    """Show what to find out next, over all guidelines, and what they disagree on."""
    from kypho_kg import narrative, next_steps, terminal
    from kypho_kg.explanation import explain as explained_of

    answers, problems = assessed(
        file, as_of, with_, state, mapping, mappings, patient, guidelines=guideline, bridges=not no_bridge, payer=payer
    )
    cases = [e for a in (answers if lesion is None else only_lesion(answers, lesion)) for e in explained_of(a)]
    if form and len(cases) != 1:
        say_problems(problems)
        how = CHOOSE if len(answers) > 1 else "name one with --lesion"
        raise UsageError(f"--form is for one lesion, and there are {len(cases):,}: {how}")
    out = console()
    for e in cases:
        out.print(terminal.case_title(e.knowledge, e.answer, e.case), style="bold", markup=False, highlight=False)
        terminal.print_sections(out, narrative.narrate_case(e))
        if form:
            write_text(form, next_steps.fragment(e.case, e.steps[:most]))
    if answers:
        out.print(terminal.footer(answers[0]), style="dim", markup=False, highlight=False)
    report_problems(problems)


@patient_app.command()
def timeline(
    file: Annotated[list[Path], typer.Argument(help="Patient file; several of one patient are merged.")],
    patient: PatientIds = None,
    guideline: GuidelineIds = None,
    lesion: Annotated[str | None, typer.Option("--lesion", help="Only the lesion with this id.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First date; that of the first fact by default.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last date; that of the record by default.")] = None,
    two: Annotated[bool, typer.Option("--compare", help="Compare the two dates alone.")] = False,
    assume: Assume = None,
    no_bridge: NoBridge = False,
    state: StateOpt = None,
    payer: PayerOpt = None,
    mapping: MappingOpt = None,
    mappings: MappingsOpt = None,
    format_: FormatOpt = Format.TABLE,
) -> None:
    """Show how the verdicts on a patient change over time, and what changed them; or what changed between two dates."""
    from kypho_kg import timeline as lines
    from kypho_kg.candidacy import assess

    records, problems = records_of(file, None, mapping, mappings, patient)
    record = one_record(records, problems, "a timeline")
    start, end = day(first), day(last)
    options = {
        "assume": assume or (), "bridges": not no_bridge, "state": state, "payer": payer, "guidelines": guideline,
    }  # fmt: skip
    if two:
        if not start or not (end or record.as_of):
            raise UsageError("--compare needs two dates: --from and --to")
        answers = [
            assess(record, as_of=when, knowledge=knowledge(), validate=False, **options)  # type: ignore[arg-type]
            for when in (start, end or record.as_of)
        ]
        turns = [t for t in lines.compared(*answers) if lesion in {None, t.lesion}]
        if format_ is Format.JSON:
            print_json(lines.as_json(turns))
        elif turns:
            lines.print_turns(console(), knowledge(), turns)
        else:
            typer.echo(f"{record.patient}: no verdict differs between {start} and {end or record.as_of}")
        report_problems(problems)
        return
    found = lines.moments(record, knowledge(), first=start, last=end, **options)  # type: ignore[arg-type]
    if format_ is Format.JSON:
        print_json(lines.as_json(found))
    else:
        lines.print_timeline(console(), knowledge(), found)
    report_problems(problems)
