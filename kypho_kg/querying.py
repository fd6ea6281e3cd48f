"""Bundled and own SPARQL queries on the knowledge base, and on assessed records beside it.

A query that asks about patients says so in its header (``**Data:** patient files``).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kypho_kg._resources import resource_dir
from kypho_kg.case_graph import case_graphs
from kypho_kg.errors import InputError, Problem, UsageError
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import GRAPH, load_mappings
from kypho_kg.store import Literal, Store, Term, Triple, refuse_remote
from kypho_kg.vocabulary import XSD, local

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
    refuse_remote(text)
    return text


def mapping_graph(knowledge: Knowledge, text: str) -> dict[str, Iterable[Triple]]:
    """The codes of the terms as a graph of their own, for a query that names it; others are spared the reading."""
    return {GRAPH: load_mappings(knowledge).triples()} if f"<{GRAPH}>" in text else {}


def quality_store(name: str) -> Store | None:
    """For a bundled quality rule the ontology file by file, as in ``ontology check``; for other queries nothing."""
    path = _files().get(name)
    if path is None or path.parent.name != "qc":
        return None
    from kypho_kg.quality import bundled_checks

    return bundled_checks().store


def asks_about_patients(text: str) -> bool:
    """Whether the header of a query says that it needs patient files."""
    return bool(_ON_PATIENTS.search(text))


def run(knowledge: Knowledge, name: str, answers: Sequence[Answer] = ()) -> list[Row]:
    """Run a query: rows of text, also for ASK (``answer``) and CONSTRUCT (s, p, o).

    :param answers: assessed records; what is asserted, inferred and judged of them stands beside the knowledge base in
        a named graph each, and a pattern outside ``GRAPH`` sees all of it.
    :raises UsageError: for an unknown query, one that does not parse, or one about patients without any.
    """
    text = query_text(name)
    if asks_about_patients(text) and not answers:
        raise UsageError(f"{name} asks about patients: give patient files, as in 'kypho-kg query {name} patient.yaml'")
    store = quality_store(name) or Store(
        knowledge.triples, {**case_graphs(answers), **mapping_graph(knowledge, text)}, union=True
    )
    form = store.form(text)
    if form == "ask":
        return [{"answer": str(store.ask(text)).lower()}]
    if form == "construct":
        return [{"subject": shown(s), "predicate": shown(p), "object": shown(o)} for s, p, o in store.construct(text)]
    return [{key: shown(value) for key, value in row.items()} for row in store.select(text)]


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
