"""A fact table on disk, read part by part: the cases at once, the facts of some patients at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from kypho_kg.errors import InputError, Problem
from kypho_kg.fact_table import CASES, FACTS, table_files

_COLUMNS = (
    "patient lesion feature polarity mood status value low high low_open high_open date_start date_end time_start "
    "time_end cause"
).split()


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A piece of a Parquet file with the first and the last patient in it."""

    file: str
    number: int
    first: Any
    last: Any


@dataclass(frozen=True, slots=True)
class PartOf:
    """Which cases are judged together, and where the facts of their patients are."""

    number: int
    start: int
    stop: int
    first: Any
    last: Any
    groups: tuple[RowGroup, ...]


class FactTable:
    """The two tables of a folder (docs/fact-table.md)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases = _read_all(table_files(folder, CASES)).sort_by([("patient", "ascending"), ("lesion", "ascending")])
        self.groups = tuple(_groups(table_files(folder, FACTS)))

    def dated(self, as_of: date | None, index: pa.Table | None) -> pa.Table:
        """The cases with their as-of dates, and whether each is asked for.

        :param as_of: one date for all, before that of the table.
        :param index: patient, lesion (or none, for all of the patient) and date; only these are asked for.
        :raises InputError: when a case has no date.
        """
        cases = self.cases
        if index is not None:
            return _indexed(cases, index)
        if as_of is not None:
            day = pa.array([as_of] * cases.num_rows, pa.date32())
            cases = cases.set_column(cases.schema.get_field_index("as_of"), "as_of", day)
        missing = cases["as_of"].null_count
        if missing:
            what = f"{missing:,} of {cases.num_rows:,} cases have no as-of date"
            raise InputError(Problem(self.folder.name, what, "a date in the table, --as-of, --index or --entry"))
        return cases

    def parts(self, cases: pa.Table, size: int) -> Iterator[PartOf]:
        """Cuts between patients, each with about so many cases."""
        patients = cases["patient"].combine_chunks()
        changed = pc.not_equal(patients.slice(1), patients.slice(0, max(0, len(patients) - 1)))
        starts = np.concatenate(([0], np.flatnonzero(changed.to_numpy(zero_copy_only=False)) + 1, [len(patients)]))
        start, number = 0, 0
        while start < len(patients):
            stop = int(starts[np.searchsorted(starts, min(start + size, len(patients)))])
            first, last = patients[start].as_py(), patients[stop - 1].as_py()
            groups = tuple(g for g in self.groups if g.last >= first and g.first <= last)
            yield PartOf(number, start, stop, first, last, groups)
            start, number = stop, number + 1


def facts_of(part: PartOf) -> pa.Table:
    """The facts of the patients of a part."""
    tables = []
    files: dict[str, parquet.ParquetFile] = {}
    for group in part.groups:
        file = files.setdefault(group.file, parquet.ParquetFile(group.file))
        table = file.read_row_group(group.number, columns=_COLUMNS)
        if group.first < part.first or group.last > part.last:
            patient = table["patient"]
            table = table.filter(pc.and_(pc.greater_equal(patient, part.first), pc.less_equal(patient, part.last)))
        tables.append(table)
    return pa.concat_tables(tables, promote_options="permissive") if tables else _nothing(part)


def _nothing(part: PartOf) -> pa.Table:
    from kypho_kg.fact_rows import facts_schema

    kind = pa.int64() if isinstance(part.first, int) else pa.string()
    return facts_schema(kind).empty_table().select(_COLUMNS)


def _read_all(files: Sequence[Path]) -> pa.Table:
    table = pa.concat_tables([parquet.read_table(f) for f in files], promote_options="permissive")
    for place, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(place, column.name, table[column.name].cast(column.type.value_type))
    return table


def _groups(files: Sequence[Path]) -> Iterator[RowGroup]:
    for path in files:
        file = parquet.ParquetFile(path)
        column = file.schema_arrow.get_field_index("patient")
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            if not group.num_rows:
                continue
            found = group.column(column).statistics
            if found is None or not found.has_min_max:
                patients = pc.min_max(file.read_row_group(number, columns=["patient"])["patient"]).as_py()
                yield RowGroup(str(path), number, patients["min"], patients["max"])
            else:
                yield RowGroup(str(path), number, found.min, found.max)


def _indexed(cases: pa.Table, index: pa.Table) -> pa.Table:
    """Every lesion of a patient on each of its dates; those named, or all where none is, are asked for."""
    kind = cases.schema.field("patient").type
    index = index.set_column(0, "patient", index["patient"].cast(kind))
    whole = index.filter(pc.is_null(index["lesion"]))
    dates = index.select(["patient", "date"]).group_by(["patient", "date"]).aggregate([])
    joined = cases.drop_columns(["as_of"]).join(dates, "patient", join_type="inner")
    joined = joined.rename_columns(["as_of" if c == "date" else c for c in joined.column_names])

    def keys(table: pa.Table, *names: str) -> pa.Array:
        return pc.binary_join_element_wise(*(table[n].cast(pa.string()) for n in names), "\x1f")

    every = pc.is_in(keys(joined, "patient", "as_of"), value_set=keys(whole, "patient", "date").combine_chunks())
    named = index.filter(pc.is_valid(index["lesion"]))
    one = pc.is_in(
        keys(joined, "patient", "lesion", "as_of"), value_set=keys(named, "patient", "lesion", "date").combine_chunks()
    )
    joined = joined.append_column("asked", pc.or_(every, one))
    return joined.sort_by([("patient", "ascending"), ("as_of", "ascending"), ("lesion", "ascending")])
