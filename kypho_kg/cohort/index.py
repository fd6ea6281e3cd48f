"""On which dates the cases of a cohort are judged: from a file, or from an event in their facts."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import ibis
import pyarrow as pa
from ibis import _
from pyarrow import csv, parquet

from kypho_kg.cohort.layout import Layout
from kypho_kg.cohort.source import FactTable
from kypho_kg.errors import EngineError, InputError, Problem, UsageError
from kypho_kg.record import Mood, Polarity, Status

_ENTRY = re.compile(r"(\w+)(?:\+(\d{1,5}))?", re.ASCII)
_COLUMNS = ("patient", "lesion", "date")
_FACTS = {
    "patient": "string", "lesion": "string", "feature": "string", "polarity": "string", "mood": "string",
    "status": "string", "date_end": "date", "time_end": "timestamp",
}  # fmt: skip
"""The columns of the facts that tell an event."""


def read_index(path: Path, patient: pa.DataType) -> pa.Table:
    """Patients, lesions (or none, for all of the patient) and dates of a CSV or Parquet file.

    :param patient: the type of the ids in the table of cases.
    :raises InputError: when the file cannot be read, or a row lacks a patient or a date.
    """
    types = {"patient": patient, "lesion": pa.string(), "date": pa.date32()}
    try:
        if path.suffix == ".parquet":
            table = parquet.read_table(path)
        else:
            options = csv.ConvertOptions(column_types=types, strings_can_be_null=True)
            table = csv.read_csv(path, convert_options=options)
        missing = [c for c in ("patient", "date") if c not in table.column_names]
        if missing:
            raise InputError(Problem(path.name, f"missing column {', '.join(missing)}", "patient, lesion, date"))
        if "lesion" not in table.column_names:
            table = table.append_column("lesion", pa.nulls(table.num_rows, pa.string()))
        table = pa.table({name: table[name].cast(types[name]) for name in _COLUMNS})
    except (pa.ArrowException, OSError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())[:200]
        raise InputError(Problem(path.name, f"cannot be read: {said}", "columns patient, lesion, date")) from None
    for name in ("patient", "date"):
        if table[name].null_count:
            raise InputError(Problem(path.name, f"{table[name].null_count:,} rows without {name}", "one in each row"))
    return table


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
