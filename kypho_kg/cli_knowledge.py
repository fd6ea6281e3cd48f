"""The commands about the knowledge base itself: its guidelines and its ontology. No logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kypho_kg.cli_shared import (
    Format,
    FormatOpt,
    MappingsOpt,
    console,
    knowledge,
    print_json,
    report_problems,
    write_text,
)

guidelines_app = typer.Typer(help="The guidelines of the knowledge base.", no_args_is_help=True)
ontology_app = typer.Typer(help="The ontology.", no_args_is_help=True)


@guidelines_app.command("list")
def guidelines_list(format_: FormatOpt = Format.TABLE) -> None:
    """List the guidelines."""
    from kypho_kg import catalogue

    k = knowledge()
    if format_ is Format.JSON:
        print_json([catalogue.summary(g) for g in k.guidelines.values()])
    else:
        catalogue.print_list(console(), k)


@guidelines_app.command("show")
def guidelines_show(
    id_: Annotated[str, typer.Argument(metavar="ID")],
    format_: FormatOpt = Format.TABLE,
    sql: Annotated[
        Literal["duckdb", "spark"] | None,
        typer.Option("--sql", help="Its clauses and its verdict as SQL of this engine (docs/cohort-sql.md)."),
    ] = None,
) -> None:
    """Show a guideline as a checklist with its citations."""
    from kypho_kg import catalogue

    k = knowledge()
    guideline = k.guideline(id_)
    if sql:
        from kypho_kg.cohort.expressions import Dialect, guideline_sql
        from kypho_kg.cohort.layout import layout_of

        typer.echo(guideline_sql(layout_of(k), guideline, Dialect(sql)), nl=False)
    elif format_ is Format.JSON:
        print_json(catalogue.details(k, guideline))
    else:
        catalogue.print_guideline(console(), k, guideline)


PatientFiles = Annotated[list[Path] | None, typer.Argument(help="Patient files: whose verdict differs, and why.")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="Read the records as of this date.")]


@guidelines_app.command("compare")
def guidelines_compare(
    left: Annotated[str, typer.Argument(metavar="A")],
    right: Annotated[str, typer.Argument(metavar="B")],
    files: PatientFiles = None,
    as_of: AsOf = None,
    format_: FormatOpt = Format.TABLE,
) -> None:
    """Compare two guidelines feature by feature, and on patients."""
    from kypho_kg import changes, comparison

    k = knowledge()
    found = comparison.compare(k, k.guideline(left), k.guideline(right))
    sides = ((k, left), (k, right))
    flips, problems = changes.on_patients(sides, files or (), as_of)
    if format_ is Format.JSON:
        print_json({**changes.comparison_json(k, found), **changes.flips_json(files, flips)})
    else:
        changes.print_comparison(console(), k, found)
        changes.print_flips(console(), files, flips)
    report_problems(problems)


@guidelines_app.command("diff")
def guidelines_diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Id of a guideline, or a .ttl file of one.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Id of a guideline, or a .ttl file of one.")],
    files: PatientFiles = None,
    as_of: AsOf = None,
    format_: FormatOpt = Format.TABLE,
) -> None:
    """Show two versions of a guideline clause by clause, and whose verdict changes by which clause."""
    from kypho_kg import changes, comparison

    sides = (changes.version(old), changes.version(new))
    (before, one), (after, other) = sides
    found = comparison.diff(before.guideline(one), after.guideline(other))
    flips, problems = changes.on_patients(sides, files or (), as_of)
    if format_ is Format.JSON:
        print_json({**changes.diff_json(sides, found), **changes.flips_json(files, flips)})
    else:
        changes.print_diff(console(), sides, found)
        changes.print_flips(console(), files, flips)
    report_problems(problems)


@guidelines_app.command("lint")
def guidelines_lint(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Only these guidelines.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A Turtle file of your own, linted as part of the knowledge base.")
    ] = None,
    format_: FormatOpt = Format.TABLE,
) -> None:
    """Check guidelines for what is valid and yet wrong; exit code 4 where there is an error or a warning."""
    from kypho_kg import changes
    from kypho_kg.lint import lint

    report = lint(ids or (), file)
    if format_ is Format.JSON:
        print_json(changes.lint_json(report))
    else:
        changes.print_lint(console(), report)
    if not report.clean:
        raise typer.Exit(4)


@ontology_app.command("check")
def ontology_check(
    no_reasoner: Annotated[bool, typer.Option("--no-reasoner", help="Skip HermiT.")] = False,
) -> None:
    """Check profiles, shapes and consistency of the ontology."""
    from kypho_kg import diagnosis

    if not diagnosis.check_ontology(console(), reasoner=not no_reasoner):
        raise typer.Exit(4)


@ontology_app.command("find")
def ontology_find(
    text: Annotated[str, typer.Argument(metavar="TEXT-OR-CODE", help="Words, or a code such as SYSTEM:CODE.")],
    mappings: MappingsOpt = None,
    format_: FormatOpt = Format.TABLE,
) -> None:
    """Show the term for whatever is in a record: by its code, or by words."""
    from kypho_kg import term_search
    from kypho_kg.mappings import load_mappings

    k = knowledge()
    known = load_mappings(k, mappings or ())
    if format_ is Format.JSON:
        print_json(term_search.as_json(k, known, text))
    else:
        term_search.print_found(console(), k, known, text)


@ontology_app.command("justify")
def ontology_justify(
    name: Annotated[str, typer.Argument(metavar="CLASS", help="Local name or IRI of a class.")],
    under: Annotated[
        str | None, typer.Option("--under", metavar="CLASS", help="Why it lies within this one; else why it is empty.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds before giving up.")] = 120,
) -> None:
    """Show a smallest set of axioms by which a class is empty or lies within another."""
    from kypho_kg.justification import justify

    typer.echo(str(justify(knowledge(), name, under, timeout)))


@ontology_app.command("export")
def ontology_export(
    classified: Annotated[
        bool, typer.Option("--classified", help="Add the subclass axioms that HermiT infers; takes some seconds.")
    ] = False,
    no_guidelines: Annotated[bool, typer.Option("--no-guidelines", help="Leave the guidelines out.")] = False,
    format_: Annotated[
        Literal["turtle", "rdfxml", "functional"], typer.Option("--format", help="Syntax of the file.")
    ] = "turtle",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; else stdout.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds after which the reasoner is killed.")] = 300,
) -> None:
    """Write the ontology and all that it imports as one file."""
    from kypho_kg import ontology_export as export

    triples = export.merged(_checked(), guidelines=not no_guidelines)
    if classified:
        triples = export.classified(triples, timeout)
    text = export.serialise(triples, export.Syntax(format_))
    if output:
        write_text(output, text)
    else:
        typer.echo(text, nl=False)


@ontology_app.command("docs")
def ontology_docs(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page ontology.html.")] = Path("site"),
) -> None:
    """Write the ontology as one HTML page, made by pyLODE."""
    from kypho_kg import ontology_docs as docs
    from kypho_kg import ontology_export as export

    path = output / "ontology.html"
    write_text(path, docs.page(export.merged(_checked())))
    typer.echo(str(path))


def _checked() -> Path:
    """The folder of the ontology, once it has been found to be in its profiles."""
    from kypho_kg._resources import resource_dir

    knowledge()
    return resource_dir("ontology")
