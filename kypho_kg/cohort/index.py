"""On which dates the cases of a cohort are judged: from a file, or from an event in their facts."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import duckdb
import ibis
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from pyarrow import parquet

from kypho_kg.cohort.layout import Layout
from kypho_kg.cohort.source import FactTable
from kypho_kg.csv_batches import csv_texts
from kypho_kg.errors import EngineError, InputError, Problem, UsageError
from kypho_kg.record import Mood, Polarity, Status

_ENTRY = re.compile(r"(\w+)(?:\+(\d{1,5}))?", re.ASCII)
_COLUMNS = ("patient", "lesion", "date")
_MOST = 20
"""Cells of an index that are listed as wrong."""
_FACTS = {
    "patient": "string", "lesion": "string", "feature": "string", "polarity": "string", "mood": "string",
    "status": "string", "date_end": "date", "time_end": "timestamp",
}  # fmt: skip
"""The columns of the facts that tell an event."""


def read_index(path: Path, patient: pa.DataType) -> pa.Table:
    """Patients, lesions (or none, for all of the patient) and dates of a CSV or Parquet file.

    :param patient: the type of the ids in the table of cases.
    :raises InputError: when the file cannot be read, or a row lacks a patient or a date; no cell is shown.
    """
    types = {"patient": patient, "lesion": pa.string(), "date": pa.date32()}
    try:
        stored = path.suffix == ".parquet"
        batches = parquet.read_table(path).to_batches() if stored else list(csv_texts(path))
    except (pa.ArrowException, OSError) as error:
        why = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
        expected = "CSV in UTF-8, or Parquet, with the columns patient, lesion, date"
        raise InputError(Problem(path.name, f"cannot be read{why}", expected)) from None
    if not batches:
        raise InputError(Problem(path.name, "holds no row", "patient, lesion, date"))
    table = pa.Table.from_batches(batches)
    number = {name: table.column_names.count(name) for name in _COLUMNS}
    for name, required in zip(_COLUMNS, (1, 0, 1), strict=True):
        if not required <= number[name] <= 1:
            what = f"column {name} comes twice" if number[name] else f"missing column {name}"
            raise InputError(Problem(path.name, what, "patient, lesion, date"))
    if not number["lesion"]:
        table = table.append_column("lesion", pa.nulls(table.num_rows, pa.string()))
    table = pa.table({name: _typed(table[name], types[name], name, path.name) for name in _COLUMNS})
    for name in ("patient", "date"):
        if table[name].null_count:
            raise InputError(Problem(path.name, f"{table[name].null_count:,} rows without {name}", "one in each row"))
    return table


def _typed(column: pa.ChunkedArray, wanted: pa.DataType, name: str, file: str) -> pa.ChunkedArray:
    """A column in its type; an empty text is none."""
    if pa.types.is_string(column.type):
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    try:
        return column.cast(wanted)
    except pa.ArrowException:
        what = "no date" if name == "date" else "no id like those of the cases"
        expected = "YYYY-MM-DD" if name == "date" else "whole numbers" if pa.types.is_integer(wanted) else "texts"
        wrong = (row for row in range(len(column)) if not _fits(column.slice(row, 1), wanted))
        raise InputError(
            [Problem(f"{file}: row {row + 1}, {name}", what, expected) for row in itertools.islice(wrong, _MOST)]
        ) from None


def _fits(cell: pa.ChunkedArray, wanted: pa.DataType) -> bool:
    try:
        cell.cast(wanted)
    except pa.ArrowException:
        return False
    return True


def entries(table: FactTable, event: str, layout: Layout, *, memory: float = 1) -> pa.Table:
    """The day of the first fact of a feature, or of a kind of it, and so many days on; for each lesion or patient.

    Of a partial date it is the last day that it may be. The event of a date feature is that date itself. Facts that
    never count, and what was only ordered or intended, are no event.

    :param event: ``FEATURE`` or ``FEATURE+DAYS``.
    :param memory: GiB that the search may take.
    :raises UsageError: for an unknown feature or another form.
    """
    match = _ENTRY.fullmatch(event)
    feature = layout.k.by_name.get(match[1]) if match else None
    if match is None or feature is None:
        raise UsageError(f"--entry {event!r}: expected the name of a feature, or FEATURE+DAYS")
    names = [f.name for f in layout.features if layout.k.subsumes(feature.iri, f.iri)]
    void = [str(Status.REFUTED), str(Status.ENTERED_IN_ERROR)]
    day = _.date_end if feature.kind is None else _.time_end.cast("date")
    kind = table.cases.schema.field("patient").type
    facts = ibis.table({**_FACTS, "patient": "int64" if pa.types.is_integer(kind) else "string"}, name="facts")
    found = (
        facts.filter(
            _.feature.isin(names),
            _.polarity == str(Polarity.PRESENT),
            _.mood == str(Mood.OBSERVED),
            ~_.status.isin(void),
            day.notnull(),
        )
        .group_by("patient", "lesion")
        .aggregate(date=day.min() + ibis.interval(days=int(match[2] or 0)))
        .mutate(date=_.date.cast("date"))
        .order_by("patient", "lesion")
    )
    files = sorted({g.file for g in table.groups})
    try:
        with duckdb.connect(config={"memory_limit": f"{max(256, int(memory * 1024))}MiB"}) as con:
            con.read_parquet(files).create_view("facts")
            rows = con.sql(ibis.to_sql(found, dialect="duckdb")).to_arrow_table()
    except duckdb.Error as error:
        raise EngineError(f"--entry {event}: {' '.join(str(error).split())[:200]}") from None
    return rows.cast(pa.schema([("patient", kind), ("lesion", pa.string()), ("date", pa.date32())]))
