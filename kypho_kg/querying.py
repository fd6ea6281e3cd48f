"""Bundled and own SPARQL queries on the knowledge base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kypho_kg._resources import resource_dir
from kypho_kg.errors import InputError, Problem, UsageError
from kypho_kg.knowledge import Knowledge
from kypho_kg.store import Literal, Store, Term, refuse_remote
from kypho_kg.vocabulary import XSD, local

if TYPE_CHECKING:
    from rich.console import Console

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
        raise UsageError(f"unknown query {name!r}; known: {', '.join(known)}; or give a .rq file")
    try:
        text = Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(name, f"cannot be read: {error}", "a SPARQL query in UTF-8")) from None
    refuse_remote(text)
    return text


def run(knowledge: Knowledge, name: str) -> list[Row]:
    """Run a query on the knowledge base: rows of text, also for ASK (``answer``) and CONSTRUCT (s, p, o)."""
    text = query_text(name)
    store = Store(knowledge.triples)
    form = store.form(text)
    if form == "ask":
        return [{"answer": str(store.ask(text)).lower()}]
    if form == "construct":
        return [
            {"subject": _shown(s), "predicate": _shown(p), "object": _shown(o)} for s, p, o in store.construct(text)
        ]
    return [{key: _shown(value) for key, value in row.items()} for row in store.select(text)]


def _shown(term: Term) -> str:
    return term.text if isinstance(term, Literal) else local(term).replace(XSD, "xsd:")


def print_rows(console: Console, rows: list[Row]) -> None:
    """Rows as a table."""
    from rich.table import Table

    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns)
    for row in rows:
        table.add_row(*(row.get(c, "") for c in columns))
    console.print(table if columns else "no rows", markup=False)
