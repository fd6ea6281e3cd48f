"""The tables of an OMOP CDM as relations of one shape: from a DuckDB file, or from a folder of CSV or Parquet.

Relations are Ibis expressions, and DuckDB runs them. A DuckDB file is attached read-only; of files in a folder the
columns that are read go into a database of its own, in a temporary folder that goes with it. No cell is trusted: keys
are read strictly, and everything else is handed on as text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kypho_kg.intake_report import IntakeReport
from kypho_kg.sources.codes import WORDS
from kypho_kg.sources.omop_model import KEYS, Table

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir

MOST = 1000
"""Rejected rows of one table that are listed; more say no more."""

_INTEGER = r"^[-+]?[0-9]{1,18}(\.0*)?$"


@dataclass(slots=True)
class Part:
    """One file of a table: which rows of the relation are its own, and which of its lines were skipped."""

    file: str
    first: int
    skipped: list[int] = field(default_factory=list)

    def line(self, number: int) -> int:
        """The line of a row of the relation, counted in rows as a spreadsheet shows them."""
        line = number - self.first + 2
        for skipped in self.skipped:
            line += skipped <= line
        return line


@dataclass(slots=True)
class Relation:
    """One table, with a column for each role of the model; ``bad`` names a key that cannot be read."""

    table: Table
    rows: ir.Table
    parts: list[Part] = field(default_factory=list)
    """Files of which it was loaded; none of an attached table."""

    def numbered(self) -> ir.Table:
        """The rows with their place ``n``."""
        import ibis

        return self.rows if self.parts else self.rows.mutate(n=ibis.row_number())

    def place(self, number: int | None, row: int | None) -> str:
        """Where a row stands, for a message: by its id, or else by its number."""
        if row is not None:
            return f"{self.table.name} row id {row}"
        if self.parts and number is not None:
            part = self.parts[bisect_left([p.first for p in self.parts], number + 1) - 1]
            return f"{part.file}:{part.line(number)}"
        return f"{self.table.name}, row {(number or 0) + 1}"


class Database:
    """An open source. :func:`~kypho_kg.sources.omop_open.opened` makes it."""

    def __init__(self, con: duckdb.DuckDBPyConnection, report: IntakeReport) -> None:
        self.con = con
        self.report = report
        self.relations: dict[str, Relation] = {}
        self.scans = 0
        self.others: dict[str, int] = {}
        """Tables that are not read, with their rows."""

    def fetch(self, relation: ir.Expr) -> list[tuple[Any, ...]]:
        """All rows of a small relation."""
        return list(self.stream(relation))

    def stream(self, relation: ir.Expr, size: int = 10_000) -> Iterator[tuple[Any, ...]]:
        """The rows of a relation, a few at a time; at most one stream is open at a time."""
        import ibis

        result = self.con.execute(ibis.to_sql(relation, dialect="duckdb"))
        while rows := result.fetchmany(size):
            yield from rows

    def keep(self, name: str, relation: ir.Table) -> ir.Table:
        """A relation computed once, under a name."""
        import ibis

        self.con.execute(f"CREATE OR REPLACE TABLE {name} AS {ibis.to_sql(relation, dialect='duckdb')}")
        return self.named(name)

    def view(self, name: str, relation: ir.Table) -> ir.Table:
        """A relation under a name, computed anew by each who reads it."""
        import ibis

        self.con.execute(f"CREATE TEMP VIEW {name} AS {ibis.to_sql(relation, dialect='duckdb')}")
        return ibis.table(relation.schema(), name=name)

    def count(self, name: str) -> int:
        """The number of rows of a stored table or view."""
        return int(self.con.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0])

    def named(self, name: str, place: Sequence[str] = ()) -> ir.Table:
        """A stored table with the types that matter here: integers, floats, texts and all else."""
        import ibis

        full = ".".join(quoted(part) for part in (*place, name))
        columns = self.con.execute(f"DESCRIBE {full}").fetchall()
        schema = {column: _type(type_) for column, type_, *_ in columns}
        where = dict(zip(("catalog", "database"), place, strict=True)) if place else {}
        return ibis.table(schema, name=name, **where)

    def rejected(self, relation: Relation) -> None:
        """Report the rows of a relation whose keys cannot be read."""
        name = relation.table.name
        found = self.con.execute(f"SELECT count(*) FROM {name} WHERE bad IS NOT NULL").fetchall()[0][0]
        if not found:
            return
        rows = relation.numbered()
        bad = rows.filter(rows.bad.notnull())
        for number, row, column in self.fetch(bad.order_by("n").limit(MOST).select("n", "row", "bad")):
            self.report.reject(
                f"{relation.place(number, row)}, {column}", "no whole number", "the id that OMOP asks for"
            )
        if found > MOST:
            self.report.unread[name, f"rejected, beyond the {MOST:,} rows that are listed"] += found - MOST


def quoted(name: str) -> str:
    """A name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def _type(type_: str) -> str:
    if type_ in ("FLOAT", "DOUBLE"):
        return "float64"
    if re.fullmatch("U?(TINY|SMALL|BIG)?INT(EGER)?", type_):
        return "int64"
    return "string" if type_ == "VARCHAR" else "timestamp"


# --------------------------------------------------------------------------------------------------------------------
# One shape for all


def _text(column: ir.Column) -> ir.StringColumn:
    if column.type().is_floating():
        column = column.isnan().ifelse(None, column)  # how pandas stores that there is none
    return column.cast("string").strip().nullif("")


def _whole(column: ir.Column) -> tuple[ir.Column, ir.BooleanValue | None]:
    """A column as whole numbers, and where it is none."""
    if column.type().is_integer():
        return column.cast("int64"), None
    text = _text(column)
    good = text.re_search(_INTEGER)
    number = good.ifelse(text.re_extract("^[-+]?[0-9]+", 0).try_cast("int64"), None)
    return number, text.notnull() & number.isnull()


def shaped(table: Table, raw: ir.Table) -> ir.Table:
    """A table as it came, with a column for each role of the model, empty where the source has none."""
    import ibis

    names = {name.lower().strip(): name for name in raw.columns}
    columns: dict[str, Any] = {}
    bad: list[tuple[ir.BooleanValue, str]] = []
    for role, name in table.columns.items():
        found = raw[names[name]] if name in names else None
        if role in KEYS:
            if found is None:
                columns[role] = ibis.null("int64")
                continue
            columns[role], wrong = _whole(found)
            unread = columns[role].isnull() if role in table.identity else wrong
            if unread is not None:
                bad.append((unread, name))
        elif found is None:
            columns[role] = ibis.null("string")
        else:
            columns[role] = _text(found).substr(0, WORDS)
    columns.setdefault("row", ibis.null("int64"))
    columns["bad"] = ibis.cases(*bad, else_=None).cast("string") if bad else ibis.null("string")
    return raw.select(**columns)


def usable(table: Table, columns: Sequence[str], place: str, report: IntakeReport) -> bool:
    """Whether a table has the columns that it cannot do without; the report tells which others it lacks."""
    lower = [c.lower().strip() for c in columns]
    twice = sorted({c for c in lower if lower.count(c) > 1 and c in table.columns.values()})
    missing = [name for role, name in table.columns.items() if role in table.needed and name not in lower]
    for name in missing:
        report.reject(place, f"no column {name}", "the columns of the OMOP CDM")
    for name in twice:
        report.reject(place, f"column {name} comes twice", "each column once")
    if missing or twice:
        return False
    for role, name in table.columns.items():
        if name not in lower and role not in table.optional:
            report.left(table.name, f"no column {name}", 0)  # it is told, and is no row that was not read
    return True
