"""Tables as files: CSV, TSV (also gzipped) and Parquet, opened as rows of texts."""

from __future__ import annotations

import csv
import gzip
import itertools
import zlib
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from kypho_kg.errors import InputError, Problem
from kypho_kg.sources import table_mapping as tm

_MAX_LINE = 1_000_000


class Table(NamedTuple):
    """An open table; its rows are texts, each with its number as a spreadsheet shows it."""

    file: str
    header: list[str]
    delimiter: str
    rows: Iterator[tuple[int, Sequence[str]]]


def open_table(path: Path, m: tm.TableMapping, wanted: Collection[str] = ()) -> Table:
    """Open a CSV or Parquet file.

    :param wanted: columns by which the delimiter is told, where the mapping does not say it.
    :raises InputError: when it cannot be read, is empty or has no header.
    """
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind in ("parquet", "pq"):
        header, rows = _parquet(path, m.decimal)
        return Table(path.name, [name.strip() for name in header], ",", rows)
    if kind not in ("csv", "tsv", "txt"):
        expected = "a name with .csv, .tsv or .txt, with or without .gz, or .parquet"
        raise InputError(Problem(path.name, "no table that is read here", expected))
    lines = _lines(path, m.encoding)
    first = next(lines, "")
    headers: dict[str, list[str]] = {}
    for sign in m.delimiter or ("\t" if kind == "tsv" else ",;\t"):
        _, cells = next(_rows(csv.reader([first], delimiter=sign), path.name), (1, ()))
        headers[sign] = [cell.strip() for cell in cells]
    sign = max(headers, key=lambda s: (len(set(wanted) & set(headers[s])), len(headers[s])))
    if not any(headers[sign]):
        raise InputError(Problem(f"{path.name}:1", "the table is empty", "a first row with the names of the columns"))
    rows = _rows(csv.reader(itertools.chain([first], lines), delimiter=sign, strict=True), path.name)
    return Table(path.name, [cell.strip() for cell in next(rows)[1]], sign, rows)


def _lines(path: Path, encoding: str) -> Iterator[str]:
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opened(path, "rt", encoding=encoding, newline="") as stream:
            while line := stream.readline(_MAX_LINE + 1):
                if len(line) > _MAX_LINE:
                    raise InputError(Problem(path.name, "a line without an end", f"at most {_MAX_LINE:,} characters"))
                yield line
    except UnicodeError as error:
        raise InputError(Problem(path.name, f"not in the encoding {encoding} ({error})", "encoding: its own")) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(Problem(path.name, f"cannot be read: {error}")) from None


def _rows(reader: Any, file: str) -> Iterator[tuple[int, Sequence[str]]]:
    try:
        yield from enumerate(reader, start=1)
    except csv.Error as error:
        expected = 'cells such as "a ""b"" c", each quotation closed'
        raise InputError(Problem(f"{file}:{reader.line_num}", f"not valid CSV: {error}", expected)) from None


def _parquet(path: Path, decimal: str) -> tuple[Sequence[str], Iterator[tuple[int, Sequence[str]]]]:
    import pyarrow as arrow
    from pyarrow import parquet

    def read() -> Iterator[Any]:
        try:
            file = parquet.ParquetFile(path)
            yield file.schema_arrow.names
            for batch in file.iter_batches(batch_size=1000):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield [_stored(value, decimal) for value in row]
        except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
            raise InputError(Problem(path.name, f"cannot be read: {' '.join(str(error).split())}")) from None

    rows = read()
    return next(rows), enumerate(rows, start=1)


def _stored(value: Any, decimal: str) -> str:
    """A typed value as a text; midnight is a day, for that is how days are stored."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return tm.IsoDate(value.replace(tzinfo=None).isoformat()[:19].removesuffix("T00:00:00"))
    if isinstance(value, date):
        return tm.IsoDate(value.isoformat())
    if isinstance(value, float):
        return (str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)).replace(".", decimal)
    return str(value)
