"""The fact table: the records of a cohort as two tables, facts and cases, in Parquet or CSV (docs/fact-table.md).

One row for each fact, one for each lesion, both sorted by patient. What the table cannot hold without rounding is
rejected with the patient it belongs to.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from pyarrow import parquet

from kypho_kg.csv_batches import csv_batches, csv_texts
from kypho_kg.errors import InputError, Problem, UsageError
from kypho_kg.fact_rows import (
    WORD,
    Malformed,
    Row,
    case_rows,
    cases_schema,
    fact_row,
    facts_schema,
    malformed,
    record_of,
)
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Record

FACTS, CASES = "facts", "cases"
"""Names of the two tables: of a file with the ending ``.parquet`` or ``.csv``, or of a folder of such files."""
# --------------------------------------------------------------------------------------------------------------------
# Writing


class FactTableWriter:
    """Writes a fact table batch by batch; a batch is a row group.

    :raises UsageError: when the folder cannot be written.
    """

    def __init__(self, folder: Path, patient: pa.DataType | None = None) -> None:
        self.schemas = {FACTS: facts_schema(patient), CASES: cases_schema(patient)}
        self.rows = {FACTS: 0, CASES: 0}
        self.paths = {name: folder / f"{name}.parquet" for name in self.schemas}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open = {name: parquet_writer(path, self.schemas[name]) for name, path in self.paths.items()}
        except OSError as error:
            raise UsageError(f"cannot write {folder}: {error.strerror or error}") from None

    def write(self, facts: pa.RecordBatch, cases: pa.RecordBatch) -> None:
        """Append the rows of some patients."""
        for name, batch in ((FACTS, facts), (CASES, cases)):
            if batch.num_rows:
                self._open[name].write_table(pa.Table.from_batches([batch]), row_group_size=batch.num_rows)
                self.rows[name] += batch.num_rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._open.values():
            writer.close()


def parquet_writer(path: Path, schema: pa.Schema) -> parquet.ParquetWriter:
    """A writer of one Parquet file, in the form in which all tables of a cohort are written."""
    return parquet.ParquetWriter(path, schema, write_statistics=True, store_decimal_as_integer=True)


@dataclass(slots=True)
class Written:
    """What became of the records."""

    patients: int = 0
    cases: int = 0
    facts: int = 0
    without_lesion: int = 0
    """Patients without a lesion: they have no case, and no row."""
    rejected: list[Problem] = field(default_factory=list)
    """What the table cannot hold; its patient was left out."""


def write_fact_table(
    records: Iterable[Record], folder: Path, as_of: date | None = None, *, batch: int = 1000
) -> Written:
    """Write records as a fact table.

    Records in ascending order of their patients are streamed; otherwise the tables are sorted at the end, in memory.
    Facts that were overridden are left out, for they never count. A fact that a shape does not let pass becomes
    indeterminate with the cause ``Invalid``.

    :param as_of: the date on which the records are read; overrides theirs.
    :param batch: patients in a row group.
    :raises UsageError: when the folder cannot be written, or a record with a lesion has no as-of date.
    """
    written, seen, last, ordered = Written(), set[str](), "", True
    with FactTableWriter(folder) as out:
        todo = iter(records)
        while chunk := list(itertools.islice(todo, batch)):
            facts: list[dict[str, Any]] = []
            cases: list[dict[str, Any]] = []
            for record in chunk:
                if record.patient in seen:
                    written.rejected.append(Problem(record.place, "the patient stands twice", "one record of each"))
                    continue
                seen.add(record.patient)
                if not record.lesions:
                    written.without_lesion += 1
                    continue
                day = as_of or record.as_of
                if day is None:
                    raise UsageError(f"{record.place}: a record has no as-of date; give it one, or one to all")
                try:
                    rows = [fact_row(record, f) for f in record.facts if not f.overridden_by and not f.rule]
                    cases += case_rows(record, day)
                except InputError as error:
                    written.rejected += error.problems
                    continue
                facts += rows
                written.patients += 1
                ordered, last = ordered and record.patient > last, record.patient
            out.write(*(pa.RecordBatch.from_pylist(r, out.schemas[n]) for n, r in ((FACTS, facts), (CASES, cases))))
    written.facts, written.cases = out.rows[FACTS], out.rows[CASES]
    if not ordered:
        for name, path in out.paths.items():
            _sort(path, out.schemas[name], batch)
    return written


def _sort(path: Path, schema: pa.Schema, batch: int) -> None:
    """Sort a file by patient; rows of one patient keep their order."""
    table = parquet.read_table(path)
    place = pa.array(range(table.num_rows), pa.int64())
    table = table.append_column("place", place).sort_by([("patient", "ascending"), ("place", "ascending")])
    with parquet_writer(path, schema) as out:
        out.write_table(table.drop_columns("place").cast(schema), row_group_size=batch * 64)


# --------------------------------------------------------------------------------------------------------------------
# Reading


def read_fact_table(folder: Path, knowledge: Knowledge, report: IntakeReport) -> Iterator[Record]:
    """The records of a fact table, one for each patient that has a case, in the order of the table.

    A patient with a malformed row is left out and reported: a fact that is left out could make an older one count.

    :raises InputError: when a table is missing, cannot be read, lacks a column, or is not sorted by patient.
    """
    yield from _merged(_groups(folder, FACTS), _groups(folder, CASES), knowledge, report)


def records_of(facts: pa.RecordBatch, cases: pa.RecordBatch, knowledge: Knowledge) -> Iterator[Record]:
    """The records of a batch of rows that were not written yet.

    :raises InputError: when they are not sorted by patient.
    """
    report = IntakeReport("a batch")
    yield from _merged(_by_patient(_placed([facts], FACTS)), _by_patient(_placed([cases], CASES)), knowledge, report)
    if report.rejected:
        raise InputError(report.rejected)


_Group = tuple[Any, list[tuple[str, Row]]]
"""A patient with its rows, each with its place."""


def _merged(
    facts: Iterator[_Group], cases: Iterator[_Group], knowledge: Knowledge, report: IntakeReport
) -> Iterator[Record]:
    current = next(facts, None)
    for patient, rows in cases:
        mine: list[tuple[str, Row]] = []
        if current is not None and type(current[0]) is not type(patient):
            expected = "numbers in both tables, or texts"
            raise InputError(Problem(rows[0][0], "patient has another type than in the facts", expected))
        while current is not None and current[0] <= patient:
            if current[0] == patient:
                mine = current[1]
            else:
                report.left("patient", "facts without a case: no lesion")
            current = next(facts, None)
        report.saw(CASES, len(rows))
        report.saw(FACTS, len(mine))
        try:
            record = record_of(str(patient), mine, rows, knowledge)
        except InputError as error:
            report.rejected += error.problems
            continue
        report.records += 1
        yield record
    while current is not None:
        report.left("patient", "facts without a case: no lesion")
        current = next(facts, None)


def _groups(folder: Path, name: str) -> Iterator[_Group]:
    return _by_patient(itertools.chain.from_iterable(_rows(path, name) for path in table_files(folder, name)))


def _by_patient(rows: Iterable[tuple[str, Row]]) -> Iterator[_Group]:
    """The rows of one patient after another."""
    last: Any = None
    for patient, group in itertools.groupby(rows, key=lambda placed: placed[1]["patient"]):
        found = list(group)
        if patient is None:
            raise InputError(Problem(f"{found[0][0]}, patient", "empty", "the id of a patient"))
        if last is not None and patient <= last:
            raise InputError(Problem(found[0][0], "the rows are not sorted by patient", "ascending patients"))
        last = patient
        yield patient, found


def table_files(folder: Path, name: str) -> list[Path]:
    """The files of one of the two tables, in the order in which they are read.

    :raises InputError: when there is none.
    """
    for candidate in (folder / f"{name}.parquet", folder / f"{name}.csv"):
        if candidate.is_file():
            return [candidate]
    found = sorted(p for p in (folder / name).glob("*") if p.suffix in (".parquet", ".csv"))
    if not found:
        expected = f"{name}.parquet, {name}.csv or a folder {name} with such files"
        raise InputError(Problem(folder.name, f"holds no table {name}", expected))
    return found


def _rows(path: Path, name: str) -> Iterator[tuple[str, Row]]:
    try:
        yield from _placed(csv_texts(path) if path.suffix == ".csv" else batches(path, name), name, path.name)
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:200] if isinstance(error, pa.ArrowException) else error.strerror
        raise InputError(Problem(path.name, f"cannot be read: {said}", f"the table of {name}")) from None


def _placed(batches: Iterable[Any], name: str, file: str = "") -> Iterator[tuple[str, Row]]:
    """The rows of batches, each with its place."""
    schema = facts_schema() if name == FACTS else cases_schema()
    wanted = [f.name for f in schema]
    number = 0
    for batch in batches:
        missing = [c for c in wanted if c not in batch.schema.names]
        if missing:
            raise InputError(Problem(file, f"missing column {', '.join(missing)}", ", ".join(wanted)))
        columns = [_cells(batch.column(c), schema.field(c).type, c) for c in wanted]
        for cells in zip(*columns, strict=True):
            number += 1
            yield f"{file or name}: row {number}", dict(zip(wanted, cells, strict=True))


def batches(path: Path, name: str) -> Iterator[Any]:
    """The record batches of one file of a table, in its own types where it is Parquet.

    :raises InputError: for a row of CSV with more or fewer cells, and for cells that are not of their column's type.
    """
    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=65536)
        return
    schema = facts_schema() if name == FACTS else cases_schema()
    # Times are written with milliseconds by some, and cast to seconds afterwards.
    spelt = {WORD: pa.string(), pa.timestamp("s"): pa.timestamp("ms")}
    try:
        yield from csv_batches(path, {f.name: spelt.get(f.type, f.type) for f in schema})
    except pa.ArrowInvalid:
        placed = _placed(csv_texts(path), name, path.name)
        found = itertools.islice((p for place, row in placed for p in malformed(place, row)), _MOST)
        if problems := list(found):
            raise InputError(problems) from None
        raise


_MOST = 20
"""Malformed cells that are listed where they stop the reading."""


def _cells(column: pa.Array, wanted: pa.DataType, name: str) -> list[Any]:
    """The cells of a column; a text that is not of the type costs its own row and no other."""
    if not pa.types.is_string(column.type):
        return list(_plain(column, wanted, name).to_pylist())
    try:
        return list(_parsed(column, wanted).to_pylist())
    except pa.ArrowInvalid:
        return [_cell(text, wanted) for text in column.to_pylist()]


def _cell(text: str | None, wanted: pa.DataType) -> Any:
    try:
        return _parsed(pa.array([text], pa.string()), wanted)[0].as_py()
    except pa.ArrowInvalid:
        return Malformed(text or "", next(words for fits, words in _FORMS if fits(wanted)))


def _parsed(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if wanted == WORD:
        return column
    return column.cast(pa.timestamp("ms")).cast(wanted) if pa.types.is_timestamp(wanted) else column.cast(wanted)


_FORMS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_decimal, "a number of less than 10 to the power of 12, with at most six decimal places"),
    (pa.types.is_date, "a date YYYY-MM-DD"),
    (pa.types.is_timestamp, "a date with a time, YYYY-MM-DD hh:mm:ss, without a zone"),
    (pa.types.is_boolean, "true or false"),
)


def _plain(column: pa.Array, wanted: pa.DataType, name: str) -> pa.Array:
    """A column in the type of the format, however it was stored; a number or time that would be cut is an error."""
    if name == "patient" and pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    if pa.types.is_decimal(wanted) and pa.types.is_floating(column.type):
        raise pa.ArrowInvalid(f"{name} has floating-point numbers, which would be rounded to {wanted}")
    return column.cast(pa.string() if wanted == WORD else wanted)
