"""Bundled and own SPARQL queries on the knowledge base, and on assessed records beside it, or in the store of a folder.

A query that asks about patients says so in its header (``**Data:** patient files``), and which of its variables are
parameters (``**Parameters:** patient (text)``).
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kypho_kg import case_store, sparql
from kypho_kg._resources import resource_dir
from kypho_kg.case_graph import case_graphs
from kypho_kg.errors import InputError, Problem, UsageError
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import GRAPH, load_mappings
from kypho_kg.query_worker import ask_apart
from kypho_kg.store import Literal, Query, Result, Store, Term, Triple, serialized
from kypho_kg.vocabulary import KYPHO, XSD, local

if TYPE_CHECKING:
    from rich.console import Console

    from kypho_kg.candidacy import Answer

_ON_PATIENTS = re.compile(r"^# \*\*Data:\*\* patient files$", re.MULTILINE)
_FOLDERS = ("competency", "qc", "explain", "cohort")
Row = dict[str, str]


def _files() -> dict[str, Path]:
    """The bundled queries that a user may run, by name."""
    root = resource_dir("queries")
    return {p.stem: p for f in _FOLDERS if (root / f).is_dir() for p in sorted((root / f).glob("*.rq"))}


def bundled() -> dict[str, str]:
    """Names of the bundled queries with their titles."""
    return {name: p.read_text("utf-8").splitlines()[0].lstrip("# ").strip() for name, p in _files().items()}


def query_text(name: str) -> str:
    """The text of a bundled query, or of a ``.rq`` file.

    :raises UsageError: for an unknown name, or a query that reaches outside its graph.
    :raises InputError: when a file cannot be read.
    """
    known = _files()
    if name in known:
        return known[name].read_text("utf-8")
    if not name.endswith(".rq"):
        near = difflib.get_close_matches(name, known, n=3)
        meant = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise UsageError(f"unknown query {name!r}{meant} 'kypho-kg query list' lists them; or give a .rq file")
    try:
        text = Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(name, f"cannot be read: {error}", "a SPARQL query in UTF-8")) from None
    return sparql.refuse_remote(text)


def mapping_graph(knowledge: Knowledge, text: str) -> dict[str, Iterable[Triple]]:
    """The codes of the terms as a graph of their own, for a query that names it; others are spared the reading."""
    return {GRAPH: load_mappings(knowledge).triples()} if f"<{GRAPH}>" in text else {}


def quality_store(name: str) -> Store | None:
    """For a bundled quality rule the ontology file by file, as in ``ontology check``; for other queries nothing."""
    if not is_quality_rule(name):
        return None
    from kypho_kg.quality import bundled_checks

    return bundled_checks().store


def is_quality_rule(name: str) -> bool:
    """Whether a name is that of a bundled quality rule."""
    path = _files().get(name)
    return path is not None and path.parent.name == "qc"


def asks_about_patients(text: str) -> bool:
    """Whether the header of a query says that it needs patient files."""
    return bool(_ON_PATIENTS.search(text))


def run(knowledge: Knowledge, name: str, answers: Sequence[Answer] = ()) -> list[Row]:
    """Run a query in this process: rows of text, also for ASK (``answer``) and CONSTRUCT (s, p, o).

    :param answers: assessed records; what is asserted, inferred and judged of them stands beside the knowledge base in
        named graphs, three of each patient, and a pattern outside ``GRAPH`` sees all of it.
    :raises UsageError: for an unknown query, one that does not parse, or one about patients without any.
    """
    text = query_text(name)
    return rows_of(_store_of(knowledge, name, text, answers).result(Query(text)))


def ask(
    knowledge: Knowledge,
    name: str,
    answers: Sequence[Answer] = (),
    *,
    params: Sequence[str] = (),
    limit: int | None = None,
    timeout: float = 60,
) -> Result:
    """Run a query in a process of its own, on the knowledge base and on assessed records.

    :param params: values of variables, each as ``name=value``.
    :param limit: the most rows that are wanted.
    :param timeout: seconds after which the process is killed.
    :raises UsageError: as in :func:`run`, and for what is no variable of the query, or a value that does not fit.
    :raises EngineError: when the engine fails or runs out of time.
    """
    text = query_text(name)
    query = Query(text, bindings(knowledge, text, params), limit)
    return ask_apart(_store_of(knowledge, name, text, answers).dump(), [query], timeout)[0]


def ask_store(
    knowledge: Knowledge,
    name: str,
    folder: Path,
    *,
    params: Sequence[str] = (),
    limit: int | None = None,
    timeout: float = 60,
) -> tuple[Result, Sequence[str]]:
    """Run a query on a store that ``load`` made, and say what a reader must know of the store.

    :raises UsageError: as in :func:`ask`, and for a folder without a store, or a rule on the files of the ontology.
    :raises EngineError: when the engine fails or runs out of time, or while a load runs.
    """
    text = query_text(name)
    if is_quality_rule(name):
        raise UsageError(f"{name} is a rule on the files of the ontology: a store does not hold them")
    query = Query(text, bindings(knowledge, text, params), limit)
    with case_store.reading(folder) as rdf:
        loaded, found = ask_apart(rdf, [case_store.LOADED, query], timeout)
    return found, case_store.remarks(loaded, knowledge)


def _store_of(knowledge: Knowledge, name: str, text: str, answers: Sequence[Answer]) -> Store:
    if asks_about_patients(text) and not answers:
        raise UsageError(
            f"{name} asks about patients: give patient files, as in 'kypho-kg query {name} patient.yaml', or a store"
        )
    return quality_store(name) or Store(
        knowledge.triples, {**case_graphs(answers), **mapping_graph(knowledge, text)}, union=True
    )


def bindings(knowledge: Knowledge, text: str, params: Iterable[str]) -> Mapping[str, Term]:
    """Values of variables of a query from ``name=value``; of the type that the header declares, else by their form.

    By their form: ``kypho:Name`` is a term of the ontology, ``<iri>`` an IRI, digits a number, ``2026-03-01`` a date,
    and anything else a text, as is what stands in double quotes.

    :raises UsageError: for what is no variable of the query, for one that is given twice, or a value of another type.
    """
    declared, known = sparql.parameters(text), sparql.variables(text)
    found: dict[str, Term] = {}
    for param in params:
        name, equals, value = param.partition("=")
        name = name.lstrip("?")
        if not equals:
            raise UsageError(f"--param {param!r}; expected NAME=VALUE")
        if name not in known:
            said = [f"{n} ({declared[n]})" if n in declared else n for n in (*declared, *known) if n]
            raise UsageError(f"--param {name}: no variable of the query; known: {', '.join(dict.fromkeys(said))}")
        if name in found:
            raise UsageError(f"--param {name} is given twice")
        found[name] = _value(knowledge, name, value, declared.get(name, ""))
    return found


def _value(knowledge: Knowledge, name: str, value: str, type_: str) -> Term:
    if not type_:
        if re.fullmatch(r"<[^<>\"{}|^`\\\s]+:[^<>\"{}|^`\\\s]*>", value):
            return value[1:-1]
        if value.startswith("kypho:"):
            type_ = sparql.NAME
        elif len(value) > 1 and value[0] == value[-1] == '"':
            return Literal(value[1:-1])
        else:
            type_ = next((t for t in (sparql.WHOLE, sparql.NUMBER, sparql.DATE) if _fits(value, t)), sparql.TEXT)
    if type_ == sparql.NAME:
        iri = KYPHO + value.removeprefix("kypho:")
        if not knowledge.triples.predicates(iri):
            names = [local(s) for s in dict.fromkeys(s for s, _, _ in knowledge.triples) if s.startswith(KYPHO)]
            near = difflib.get_close_matches(local(iri), names, n=3)
            meant = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UsageError(f"--param {name}: {value!r} is no name of the ontology{meant}")
        return iri
    try:
        return Literal(*sparql.literal(value, type_))
    except ValueError as error:
        raise UsageError(f"--param {name}: {value!r}; expected {error}") from None


def _fits(value: str, type_: str) -> bool:
    try:
        sparql.literal(value, type_)
    except ValueError:
        return False
    return True


def rows_of(found: Result) -> list[Row]:
    """The rows of a result as text; a variable without a value has no key."""
    return [{c: shown(t) for c, t in zip(found.columns, row, strict=True) if t is not None} for row in found.rows]


def as_csv(found: Result) -> str:
    """A result as the W3C's SPARQL 1.1 CSV: IRIs in full, literals by their text, nothing for no value, CRLF.

    Of an ASK it is a column ``answer``, of a CONSTRUCT ``subject``, ``predicate``, ``object``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(found.columns)
    writer.writerows([t.text if isinstance(t, Literal) else t or "" for t in row] for row in found.rows)
    return text.getvalue()


def as_turtle(found: Result) -> str:
    """The triples of a CONSTRUCT as Turtle.

    :raises UsageError: for the result of another query.
    """
    if found.form != "construct":
        raise UsageError(f"Turtle holds triples: a CONSTRUCT gives some, this query is {found.form.upper()}")
    triples = [(str(s), str(p), o) for s, p, o in found.rows if o is not None]
    return serialized({"": triples}, apart=False)


def shown(term: Term) -> str:
    """A term as a row shows it: a literal's text, one of our terms by its name, any other IRI in full."""
    return term.text if isinstance(term, Literal) else local(term).replace(XSD, "xsd:")


def print_rows(console: Console, rows: list[Row]) -> None:
    """Rows as a table."""
    from rich.table import Table

    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns)
    for row in rows:
        table.add_row(*(row.get(c, "") for c in columns))
    console.print(table if columns else "no rows", markup=False)


def markdown(name: str, rows: list[Row]) -> str:
    """Rows as a Markdown document, with the title and the question of the query above them."""
    title, *header = (line.lstrip("# ").strip() for line in query_text(name).splitlines() if line.startswith("#"))
    question = next((line for line in header if line.startswith("**Question:**")), "")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = ([row.get(c, "").replace("|", "\\|").replace("\n", " ") for c in columns] for row in rows)
    table = [columns, ["---"] * len(columns), *cells] if columns else [["no rows"]]
    lines = [f"# {title}", "", question, "", f"Answer of `kypho-kg query {name}`.", ""]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in table), ""])
