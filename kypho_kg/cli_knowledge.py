"""The commands about the knowledge base itself: its guidelines and its ontology. No logic of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kypho_kg.cli_shared import Format, FormatOpt, console, knowledge, print_json, write_text

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
def guidelines_show(id_: Annotated[str, typer.Argument(metavar="ID")], format_: FormatOpt = Format.TABLE) -> None:
    """Show a guideline as a checklist with its citations."""
    from kypho_kg import catalogue

    k = knowledge()
    guideline = k.guideline(id_)
    if format_ is Format.JSON:
        print_json(catalogue.details(k, guideline))
    else:
        catalogue.print_guideline(console(), k, guideline)


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
    mappings: Annotated[
        list[Path] | None, typer.Option("--mappings", help="Further SSSOM file with codes of your own; repeatable.")
    ] = None,
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
