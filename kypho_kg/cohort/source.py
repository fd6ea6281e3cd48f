"""A fact table on disk, read part by part: the cases at once, the facts of some patients at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from kypho_kg.cohort.layout import Flags
from kypho_kg.errors import InputError, Problem
from kypho_kg.fact_rows import WORD, cases_schema, facts_schema
from kypho_kg.fact_table import CASES, FACTS, batches, parquet_writer, table_files

_COLUMNS = [name for name in facts_schema().names if name != "source"]
_SAME = ("as_of", "has_procedure", "session_named", "service_start", "service_end", "state")
"""Columns of the cases that say the same for all lesions of a patient."""
REJECTED = pa.schema([("patient", pa.string()), ("lesion", pa.string()), ("reason", pa.string())])
"""The columns of the table of what was not judged."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A piece of a Parquet file with the first and the last patient in it."""

    file: str
    number: int
    first: Any
    last: Any
    rows: int


@dataclass(frozen=True, slots=True)
class PartOf:
    """Which cases are judged together, and where the facts of their patients are."""

    number: int
    start: int
    stop: int
    after: Any
    """The facts of the patients after this one belong here; ``None`` from the beginning."""
    last: Any
    """Up to this one; ``None`` to the end."""
    groups: tuple[RowGroup, ...]


class FactTable:
    """The two tables of a folder in Parquet (docs/fact-table.md).

    :raises InputError: when a table is missing, cannot be read, lacks a column, or has one of another type.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {name: table_files(folder, name) for name in (FACTS, CASES)}
        for name, paths in self.files.items():
            if any(p.suffix == ".csv" for p in paths):
                raise InputError(Problem(folder.name, f"the table of {name} is CSV", "Parquet: as_parquet makes it"))
        kinds = {_patients(path, name) for name, paths in self.files.items() for path in paths}
        if len(kinds) > 1:
            raise InputError(Problem(folder.name, "patient has several types", "numbers in all files, or texts"))
        table = pa.concat_tables([_read(path, CASES) for path in self.files[CASES]])
        table = table.sort_by([("patient", "ascending"), ("lesion", "ascending")]).combine_chunks()
        if table["patient"].null_count:
            raise InputError(Problem(f"{self.files[CASES][0].name}, patient", "empty", "the id of a patient"))
        self.cases, self.rejected = fitting_cases(table)
        """The cases, and those of patients that have a malformed row among them."""
        self.groups = tuple(_groups(self.files[FACTS]))
        self.notes: Counter[str] = Counter()
        """What an index asked for in vain."""

    @property
    def rows(self) -> int:
        """The number of facts."""
        return sum(g.rows for g in self.groups)

    def sha256(self) -> str:
        """The hash of all files."""
        digest = hashlib.sha256()
        for path in (p for name in (FACTS, CASES) for p in self.files[name]):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def dated(self, as_of: date | None, index: pa.Table | None) -> pa.Table:
        """The cases with their as-of dates, and whether each is asked for.

        :param as_of: one date for all, before that of the table.
        :param index: patient, lesion (or none, for all of the patient) and date; only these are asked for.
        :raises InputError: when a case has no date.
        """
        cases = self.cases
        if index is not None:
            return self._indexed(index)
        if as_of is not None:
            day = pa.array([as_of], pa.date32()).take(pa.array(np.zeros(cases.num_rows, np.int64)))
            cases = cases.set_column(cases.schema.get_field_index("as_of"), "as_of", day)
        missing = cases["as_of"].null_count
        if missing:
            what = f"{missing:,} of {cases.num_rows:,} cases have no as-of date"
            raise InputError(Problem(self.folder.name, what, "a date in the table, --as-of, --index or --entry"))
        return cases

    def _indexed(self, index: pa.Table) -> pa.Table:
        """Every lesion of a patient on each of its dates; those named, or all where none is, are asked for."""
        cases = self.cases
        index = index.set_column(0, "patient", index["patient"].cast(cases.schema.field("patient").type))
        whole = index.filter(pc.is_null(index["lesion"]))
        named = index.filter(pc.is_valid(index["lesion"]))
        in_vain = _apart(whole, cases, "patient") + _apart(named, cases, "patient", "lesion")
        if in_vain:
            self.notes["entries of the index without a case"] += in_vain
        dates = index.select(["patient", "date"]).group_by(["patient", "date"]).aggregate([])
        joined = cases.drop_columns(["as_of"]).join(dates, "patient", join_type="inner")
        joined = joined.rename_columns(["as_of" if c == "date" else c for c in joined.column_names])
        every = _among(joined, ("patient", "as_of"), whole, ("patient", "date"))
        one = _among(joined, ("patient", "lesion", "as_of"), named, ("patient", "lesion", "date"))
        joined = joined.append_column("asked", pa.array(every | one))
        order = [("patient", "ascending"), ("as_of", "ascending"), ("lesion", "ascending")]
        return joined.sort_by(order).combine_chunks()

    def parts(self, cases: pa.Table, size: int) -> Iterator[PartOf]:
        """Cuts between patients, each with about so many cases; every fact belongs to one of them."""
        patients = cases["patient"].combine_chunks()
        starts = np.append(_starts(patients), len(patients))
        start, number, after = 0, 0, None
        while start < len(patients):
            stop = int(starts[np.searchsorted(starts, min(start + size, len(patients)))])
            last = patients[stop - 1].as_py() if stop < len(patients) else None
            groups = tuple(
                g for g in self.groups if (after is None or g.last > after) and (last is None or g.first <= last)
            )
            yield PartOf(number, start, stop, after, last, groups)
            start, number, after = stop, number + 1, last


def facts_of(part: PartOf, patients: pa.Array | pa.ChunkedArray | None = None) -> pa.Table:
    """The facts of the patients of a part.

    :param patients: only of these.
    :raises InputError: when they cannot be read, or a value does not fit its column.
    """
    tables = []
    files: dict[str, parquet.ParquetFile] = {}
    place = ""
    try:
        for group in part.groups:
            place = Path(group.file).name
            if group.file not in files:
                files[group.file] = parquet.ParquetFile(group.file)
            table = files[group.file].read_row_group(group.number, columns=_COLUMNS)
            patient = table["patient"]
            if part.after is not None and group.first <= part.after:
                table = table.filter(pc.greater(patient, part.after))
                patient = table["patient"]
            if part.last is not None and group.last > part.last:
                table = table.filter(pc.less_equal(patient, part.last))
            table = _fitting(table, FACTS)
            if patients is not None:
                table = table.filter(pc.is_in(table["patient"], value_set=patients))
            tables.append(table)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(place, FACTS, error) from None
    finally:
        for file in files.values():
            file.close()
    return pa.concat_tables(tables) if tables else _fitting(facts_schema().empty_table().select(_COLUMNS), FACTS)


def is_fact_table(folder: Path) -> bool:
    """Whether a folder holds a fact table, or a part of one."""
    try:
        return bool(folder.is_dir() and [table_files(folder, name) for name in (FACTS, CASES)])
    except InputError:
        return False


def as_parquet(folder: Path, target: Path) -> None:
    """Write a fact table in CSV as Parquet; ids of patients are texts then.

    :raises InputError: when it cannot be read.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, schema in ((FACTS, facts_schema()), (CASES, cases_schema())):
        with parquet_writer(target / f"{name}.parquet", schema) as out:
            for path in table_files(folder, name):
                try:
                    for batch in batches(path, name):
                        table = pa.Table.from_batches([batch])
                        _check(table.schema, schema, path)
                        out.write_table(_fitting(table.select(schema.names), name).cast(schema))
                except (pa.ArrowException, OSError) as error:
                    raise _unreadable(path.name, name, error) from None


def without_dates(folder: Path, day: date) -> None:
    """Empty the as-of dates of the cases that were written with a stand-in."""
    path = folder / f"{CASES}.parquet"
    table = parquet.read_table(path)
    place = table.schema.get_field_index("as_of")
    kept = pc.if_else(pc.equal(table["as_of"], day), pa.scalar(None, pa.date32()), table["as_of"])
    with parquet_writer(path, cases_schema()) as out:
        out.write_table(table.set_column(place, "as_of", kept).cast(cases_schema()))


# -- reading


def _unreadable(place: str, name: str, error: Exception) -> InputError:
    said = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())[:200]
    return InputError(Problem(place, f"cannot be read: {said}", f"the table of {name}"))


def _patients(path: Path, name: str) -> str:
    """Of what type the ids of the patients are; the other columns are as the format says.

    :raises InputError: when they are not, or the file cannot be read.
    """
    try:
        with parquet.ParquetFile(path) as file:
            found = file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path.name, name, error) from None
    _check(found, facts_schema() if name == FACTS else cases_schema(), path)
    return "numbers" if pa.types.is_integer(_inner(found.field("patient").type)) else "texts"


def _inner(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


_FITS = {
    "text": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t),
    "number": lambda t: pa.types.is_decimal(t) or pa.types.is_integer(t),
    "boolean": pa.types.is_boolean,
    "date": pa.types.is_date,
    "time": lambda t: pa.types.is_timestamp(t) and t.tz is None,
}


def _kind(wanted: pa.DataType) -> str:
    if pa.types.is_decimal(wanted):
        return "number"
    if pa.types.is_boolean(wanted):
        return "boolean"
    if pa.types.is_date(wanted):
        return "date"
    return "time" if pa.types.is_timestamp(wanted) else "text"


def _check(found: pa.Schema, wanted: pa.Schema, path: Path) -> None:
    """See that a file has the columns of the format.

    :raises InputError: when one is missing, or of another type.
    """
    missing = [c for c in wanted.names if c not in found.names and c != "source"]
    if missing:
        raise InputError(Problem(path.name, f"missing column {', '.join(missing)}", ", ".join(wanted.names)))
    problems = []
    for name in wanted.names:
        if name not in found.names:
            continue
        kind, said = _kind(wanted.field(name).type), _inner(found.field(name).type)
        fits = _FITS[kind](said) or pa.types.is_null(said)
        if name == "patient":
            kind, fits = "text or whole number", _FITS["text"](said) or pa.types.is_integer(said)
        if not fits:
            problems.append(Problem(f"{path.name}, column {name}", f"of type {said}", f"the type {kind}"))
    if problems:
        raise InputError(problems)


def _read(path: Path, name: str) -> pa.Table:
    wanted = facts_schema() if name == FACTS else cases_schema()
    try:
        return _fitting(parquet.read_table(path, columns=wanted.names), name)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path.name, name, error) from None


def _fitting(table: pa.Table, name: str) -> pa.Table:
    """The columns in the types of the format; texts that repeat stay encoded among the facts."""
    wanted = facts_schema() if name == FACTS else cases_schema()
    fields = []
    for column in table.column_names:
        kind, held = wanted.field(column).type, table.schema.field(column).type
        if column == "patient":
            kind = pa.int64() if pa.types.is_integer(_inner(held)) else pa.string()
        elif kind == WORD and (name == CASES or not pa.types.is_dictionary(held)):
            kind = pa.string()
        elif kind == WORD:
            kind = held
        elif kind == pa.timestamp("s"):
            kind = held if pa.types.is_timestamp(held) else kind
        fields.append(pa.field(column, kind))
    return table if all(table.schema.field(f.name).type == f.type for f in fields) else table.cast(pa.schema(fields))


def _groups(files: Sequence[Path]) -> Iterator[RowGroup]:
    for path in files:
        with parquet.ParquetFile(path) as file:
            column = file.schema_arrow.get_field_index("patient")
            for number in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                if not group.num_rows:
                    continue
                found = group.column(column).statistics
                first, last = (found.min, found.max) if found is not None and found.has_min_max else (None, None)
                if first is None or (found is not None and found.null_count):
                    patients = file.read_row_group(number, columns=["patient"])["patient"]
                    if patients.null_count:
                        raise InputError(Problem(f"{path.name}, patient", "empty", "the id of a patient"))
                    ends = pc.min_max(patients.cast(_inner(patients.type))).as_py()
                    first, last = ends["min"], ends["max"]
                yield RowGroup(str(path), number, first, last, group.num_rows)


# -- what does not fit


def _starts(patients: pa.Array) -> Any:
    changed = pc.not_equal(patients.slice(1), patients.slice(0, max(0, len(patients) - 1)))
    return np.concatenate(([0] if len(patients) else [], np.flatnonzero(changed) + 1)).astype(np.int64)


def _codes(column: pa.ChunkedArray) -> Any:
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.fill_null(-1))


def fitting_cases(cases: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The cases of well-formed patients and the others, with the first reason.

    What is wrong with one row costs the patient, as it does where records are read one by one.
    """
    n = cases.num_rows
    if not n:
        return cases, REJECTED.empty_table()
    starts = _starts(cases["patient"].combine_chunks())
    owner = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, n)))
    lesion = _codes(cases["lesion"])
    empty = np.asarray(pc.fill_null(pc.equal(cases["lesion"], ""), True))
    twice = np.zeros(n, bool)
    twice[1:] = (owner[1:] == owner[:-1]) & (lesion[1:] == lesion[:-1])
    wrong: list[tuple[str, Flags]] = [("lesion is empty", empty), ("the lesion stands twice", twice & ~empty)]
    for name in _SAME:
        codes = _codes(cases[name])
        wrong.append((f"{name} differs between lesions of the patient", codes != codes[starts][owner]))
    state = np.asarray(pc.fill_null(pc.match_substring_regex(cases["state"], "^[A-Z]{2}$"), True))
    wrong.append(("state is no two capitals such as OH", ~state))
    start, end = cases["service_start"], cases["service_end"]
    alone = np.asarray(pc.not_equal(pc.is_null(start), pc.is_null(end)))
    after = np.asarray(pc.fill_null(pc.greater(start, end), False))
    proposed = np.asarray(pc.fill_null(cases["has_procedure"], False))
    wrong.append(("service_start and service_end are no interval", (alone | after) & proposed))
    reason = np.full(len(starts), len(wrong))
    for place, (_, rows) in enumerate(wrong):
        reason = np.minimum(reason, np.where(np.logical_or.reduceat(rows, starts), place, len(wrong)))
    bad = (reason < len(wrong))[owner]
    if not bad.any():
        return cases, REJECTED.empty_table()
    words = pa.array([f"cases: {what}" for what, _ in wrong]).take(pa.array(reason[owner][bad]))
    out = cases.filter(pa.array(bad))
    told = {"patient": out["patient"].cast(pa.string()), "lesion": out["lesion"], "reason": words}
    return cases.filter(pa.array(~bad)).combine_chunks(), pa.table(told, REJECTED)


def _keys(table: pa.Table, names: Sequence[str]) -> pa.Array:
    found = pc.binary_join_element_wise(*(table[n].cast(pa.string()) for n in names), "\x1f")
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _among(table: pa.Table, names: Sequence[str], others: pa.Table, as_: Sequence[str]) -> Flags:
    """Which rows have the same entries as one of another table."""
    return np.asarray(pc.is_in(_keys(table, names), value_set=_keys(others, as_)))


def _apart(index: pa.Table, cases: pa.Table, *names: str) -> int:
    return int((~_among(index, names, cases, names)).sum())
