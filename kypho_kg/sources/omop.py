"""The OMOP CDM (5.3 and 5.4) to records: from a DuckDB file, or a folder of CSV or Parquet.

What becomes what, and what does not, is written in docs/omop.md. Codes mean what the mappings say; this module knows
nothing clinical, only the structure of OMOP.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from kypho_kg.errors import InputError, Problem
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import Mappings, load_mappings
from kypho_kg.record import Record
from kypho_kg.sources import omop_model as om
from kypho_kg.sources.codes import Malformed, Meanings
from kypho_kg.sources.lesions import Statement, build
from kypho_kg.sources.omop_codes import Concepts
from kypho_kg.sources.omop_open import is_duckdb, opened, tables_of
from kypho_kg.sources.omop_rows import NUMBERS, Row, RowReader
from kypho_kg.sources.omop_tables import MOST, Database

if TYPE_CHECKING:
    import ibis.expr.types as ir

_TABLES = {table.name: table for table in om.EVENTS}


def read_omop(
    path: Path,
    knowledge: Knowledge,
    report: IntakeReport,
    *,
    mappings: Mappings | None = None,
    as_of: date | None = None,
) -> Iterator[Record]:
    """One record for each person of an OMOP CDM, in the order of their ids.

    Only rows whose codes mean something are fetched, one person after another; the others are counted. The source is
    opened read-only, and nothing is left behind. What cannot be read is in the report and costs nothing else.

    :param path: a DuckDB file; or a folder that holds for each table a CSV (also ``.csv.gz``) or Parquet file, or a
        folder of such files.
    :param mappings: by default the bundled ones.
    :param as_of: becomes the as-of date of each record.
    :raises InputError: while it is read, when the source cannot be opened or holds no persons.
    """
    meanings = Meanings(knowledge, mappings or load_mappings(knowledge), report)
    with opened(path, report) as database:
        yield from _Source(database, meanings, path.name, as_of).records()


def is_omop(path: Path) -> bool:
    """Whether a path is an OMOP CDM: a DuckDB file, or a folder, with a table of persons."""
    if not path.is_dir():
        if not is_duckdb(path):
            return False
        try:
            with opened(path, IntakeReport(path.name)):
                return True
        except InputError:
            return False
    try:
        return om.PERSON.name in tables_of(path)
    except OSError:
        return False


class _Source:
    def __init__(self, database: Database, meanings: Meanings, file: str, as_of: date | None) -> None:
        self.db = database
        self.m = meanings
        self.report = meanings.report
        self.file = file
        self.as_of = as_of
        self.rejected: Counter[str] = Counter()

    def records(self) -> Iterator[Record]:
        self._count()
        for relation in self.db.relations.values():
            self.db.rejected(relation)
        concepts = Concepts(self.db, self.m)
        reader = RowReader(concepts, self.m)
        self._count_passed(concepts, reader)
        rows = (Row._make(values) for values in self.db.stream(self._ordered(concepts)))
        for person, own in itertools.groupby(rows, key=lambda row: row.person):
            yield self._record(person, own, reader)

    def _count(self) -> None:
        for name in self.db.relations:
            if name in (om.PERSON.name, *_TABLES):
                self.report.saw(name, self.db.count(name))
        for name, count in self.db.others.items():
            if count and name not in om.UNTOLD:
                self.report.unread[name, "this table is not read"] += count

    def _count_passed(self, concepts: Concepts, reader: RowReader) -> None:
        """Count the rows whose codes mean nothing here, by concept; those without one by what the source says."""
        for table, rows in self._events():
            rows = rows.filter(~concepts.meaningful(rows)).mutate(concept=rows.concept.fill_null(0))
            counts = rows.group_by("concept").agg(count=rows.count())
            without = 0
            for id_, count in self.db.fetch(counts.order_by("concept")):
                if id_ or "source_value" not in table.columns:
                    reader.passed(table, id_, "", count)
                else:
                    without = count
            if not without:
                continue
            rows = rows.filter(rows.concept == 0)
            values = rows.group_by(said=rows.source_value.fill_null("")).agg(count=rows.count())
            for value, count in self.db.fetch(values.order_by(values["count"].desc(), "said").limit(MOST)):
                reader.passed(table, 0, value, count)
                without -= count
            if without:
                self.report.unread[table.name, f"codes of the source beyond the {MOST:,} most frequent"] += without

    def _events(self) -> Iterator[tuple[om.Table, ir.Table]]:
        """The tables of events with the rows whose keys can be read."""
        for name, table in _TABLES.items():
            if name in self.db.relations:
                rows = self.db.relations[name].rows
                yield table, rows.filter(rows.bad.isnull())

    def _ordered(self, concepts: Concepts) -> ir.Table:
        """The rows that are read in full, of all tables, one person after another."""
        import ibis

        people = self.db.relations[om.PERSON.name].numbered()
        parts = [_row(om.PERSON, people.filter(people.bad.isnull()))]
        parts += [_row(table, rows.filter(concepts.meaningful(rows))) for table, rows in self._events()]
        return ibis.union(*parts).order_by("person", "table", "row", "place") if len(parts) > 1 else parts[0]

    def _record(self, person: int, rows: Iterator[Row], reader: RowReader) -> Record:
        statements: list[Statement] = []
        persons = 0
        for row in rows:
            if row.table == om.PERSON.name:
                persons += 1
                said, error = reader.person(row)
                statements.append(said)
                if error:
                    where = self.db.relations[om.PERSON.name].place(row.place, None)
                    self._reject(om.PERSON.name, where, error)
                continue
            try:
                found = reader.read(_TABLES[row.table], row)
            except Malformed as problem:
                self._reject(row.table, f"{row.table} row id {row.row}", problem)
            else:
                statements += [found] if found else []
        if persons != 1:
            self.report.left(om.PERSON.name, "comes more than once" if persons else "named, but not in the source")
        record = build(str(person), statements, self.m.k, self.report, self.as_of)
        self.report.records += 1
        return replace(record, files=(self.file,))

    def _reject(self, table: str, where: str, error: Malformed) -> None:
        self.rejected[table] += 1
        if self.rejected[table] > MOST:
            self.report.left(table, f"rejected, beyond the {MOST:,} rows that are listed")
        else:
            self.report.rejected.append(Problem(f"{where}, {error.field}", "cannot be read", error.expected))


def _row(table: om.Table, rows: ir.Table) -> ir.Table:
    """The rows of a table in the shape of :class:`~kypho_kg.sources.omop_rows.Row`."""
    import ibis

    columns: dict[str, ir.Value] = {"table": ibis.literal(table.name)}
    for name in Row._fields[1:]:
        type_, empty = ("int64", 0) if name in NUMBERS else ("string", "")
        if name == "place":
            columns[name] = rows.n.cast(type_) if table is om.PERSON else ibis.literal(empty, type_)
        else:
            found = name in rows.columns
            columns[name] = rows[name].fill_null(empty) if found else ibis.literal(empty, type_)
    return rows.select(**columns)
