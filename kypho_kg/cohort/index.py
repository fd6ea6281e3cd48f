"""On which dates the cases of a cohort are judged: from a file, or from an event in their facts."""

from __future__ import annotations

import re
from pathlib import Path

import ibis
import pyarrow as pa
from ibis import _
from pyarrow import csv, parquet

from kypho_kg.cohort.layout import Layout
from kypho_kg.cohort.source import FactTable
from kypho_kg.errors import InputError, Problem, UsageError
from kypho_kg.record import Polarity, Status

_ENTRY = re.compile(r"(\w+)(?:\+(\d{1,5}))?", re.ASCII)
_COLUMNS = ("patient", "lesion", "date")


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
        said = " ".join(str(error).split())[:200]
        raise InputError(Problem(path.name, f"cannot be read: {said}", "columns patient, lesion, date")) from None
    for name in ("patient", "date"):
        if table[name].null_count:
            raise InputError(Problem(path.name, f"{table[name].null_count:,} rows without {name}", "one in each row"))
    return table


def entries(table: FactTable, event: str, layout: Layout) -> pa.Table:
    """The day of the first fact of a feature, or of a kind of it, and so many days on; for each lesion or patient.

    Of a partial date it is the last day that it may be. Facts that never count are no event.

    :param event: ``FEATURE`` or ``FEATURE+DAYS``.
    :raises UsageError: for an unknown feature or another form.
    """
    match = _ENTRY.fullmatch(event)
    feature = layout.k.by_name.get(match[1]) if match else None
    if match is None or feature is None:
        raise UsageError(f"--entry {event!r}: expected the name of a feature, or FEATURE+DAYS")
    names = [f.name for f in layout.features if layout.k.subsumes(feature.iri, f.iri)]
    void = [str(Status.REFUTED), str(Status.ENTERED_IN_ERROR)]
    facts = ibis.duckdb.connect().read_parquet(sorted({g.file for g in table.groups}))
    found = (
        facts.filter(
            _.feature.cast("string").isin(names),
            _.polarity.cast("string") == str(Polarity.PRESENT),
            ~_.status.cast("string").isin(void),
            _.time_end.notnull(),
        )
        .group_by("patient", lesion=_.lesion.cast("string"))
        .aggregate(date=_.time_end.cast("date").min() + ibis.interval(days=int(match[2] or 0)))
        .order_by("patient", "lesion")
    )
    patient = table.cases.schema.field("patient").type
    return found.to_pyarrow().cast(pa.schema([("patient", patient), ("lesion", pa.string()), ("date", pa.date32())]))
