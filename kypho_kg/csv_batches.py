"""CSV by Arrow, without a row of a patient in its messages."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from csv import Error as CsvError
from csv import reader as csv_rows
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from kypho_kg.errors import InputError, Problem

_ODD = re.compile(r"Expected (\d+) columns, got (\d+)")


def csv_batches(path: Path, types: Mapping[str, pa.DataType]) -> Iterator[Any]:
    """The record batches of a CSV file; an empty cell is null, and an empty quotation a text.

    :param types: of the columns.
    :raises InputError: for a first line that is no UTF-8, and for a row with more or fewer cells than it has.
    :raises pyarrow.ArrowInvalid: for anything else that cannot be read; its words may show a cell.
    """
    with path.open("rb") as file:
        try:
            file.readline().decode()
        except UnicodeDecodeError:
            raise InputError(Problem(path.name, "the first line is no UTF-8", "names of columns")) from None
    options = csv.ConvertOptions(column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False)
    try:
        with csv.open_csv(path, convert_options=options) as reader:
            for batch in reader:
                batch.validate(full=True)  # a decimal with too many digits is let through otherwise
                yield batch
    except pa.ArrowInvalid as error:
        # Arrow shows the row, which is about a patient.
        odd = _ODD.search(str(error))
        if not odd:
            raise
        wide, cells = map(int, odd.groups())
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            at = next((f": row {n}" for n, row in enumerate(_lines(lines)) if len(row) != wide), "")
        raise InputError(Problem(path.name + at, f"{cells} cells", f"{wide}, as in the first line")) from None


def csv_texts(path: Path) -> Iterator[Any]:
    """The record batches of a CSV file, with texts in all columns.

    :raises: what :func:`csv_batches` raises.
    """
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        names = next(_lines(file), [])
    yield from csv_batches(path, dict.fromkeys(names, pa.string()))


def _lines(file: Iterable[str]) -> Iterator[list[str]]:
    """The lines of a CSV file that are not empty, as far as they can be told apart."""
    with contextlib.suppress(CsvError):
        yield from filter(None, csv_rows(file))
