"""Columns of Arrow tables as NumPy arrays, with a number of their own for what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kypho_kg.cohort.layout import LOWEST, Flags, Ints


def changes(column: pa.Array) -> Flags:
    """Whether each entry but the first differs from the one before."""
    if pa.types.is_dictionary(column.type):
        column = column.indices
    changed = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1))
    return np.asarray(changed.to_numpy(zero_copy_only=False), bool)


def one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array."""
    if isinstance(column, pa.Array):
        return column
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    return column.combine_chunks()


def coded(column: pa.ChunkedArray, code: Callable[[Any], int], missing: int = -1) -> npt.NDArray[np.int32]:
    """A number for each text of a column; the texts are looked at once each."""
    texts = one(column)
    if pa.types.is_null(texts.type):
        return np.full(len(texts), missing, np.int32)
    if not pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_encode()
    table = np.array([*(code(t) for t in texts.dictionary.to_pylist()), missing], np.int32)
    return table[np.asarray(texts.indices.fill_null(len(table) - 1))]


def decimals(column: pa.ChunkedArray, missing: int) -> Ints:
    """Numbers times two million (see ``layout.py``)."""
    whole = one(column)
    if not (pa.types.is_decimal128(whole.type) and whole.type.scale == 6):
        whole = whole.cast(pa.decimal128(38, 6))
    words = _words(whole, np.int64, 2)[::2] * 2
    words[nulls(whole)] = missing
    return words


def _words(column: pa.Array, kind: type[np.signedinteger[Any]], width: int = 1) -> npt.NDArray[Any]:
    """The numbers of a column as they lie in memory; what stands where one is missing is arbitrary.

    :param width: numbers to an entry.
    """
    buffer = column.buffers()[1]
    if buffer is None:
        return np.zeros(width * len(column), kind)
    return np.frombuffer(buffer, kind)[width * column.offset : width * (column.offset + len(column))]


def nulls(column: pa.ChunkedArray | pa.Array) -> Flags:
    """Whether an entry is missing."""
    found = one(column)
    if not found.null_count:
        return np.zeros(len(found), bool)
    return np.asarray(found.is_null().to_numpy(zero_copy_only=False), bool)


def truths(column: pa.ChunkedArray) -> Flags:
    """Booleans; what is missing is false."""
    found = one(column)
    if pa.types.is_null(found.type):
        return np.zeros(len(found), bool)
    return np.asarray(found.fill_null(False).to_numpy(zero_copy_only=False), bool)


def days(column: pa.ChunkedArray, missing: int = LOWEST) -> Ints:
    """Dates as days since 1970."""
    found = one(column)
    found = found if pa.types.is_date32(found.type) else found.cast(pa.date32())
    words = _words(found, np.int32).astype(np.int64)
    words[nulls(found)] = missing
    return words


def seconds(column: pa.ChunkedArray) -> Ints:
    """Local times as seconds since 1970."""
    found = one(column)
    found = found if found.type == pa.timestamp("s") else found.cast(pa.timestamp("s"), safe=False)
    return np.where(nulls(found), LOWEST, _words(found, np.int64))


def three_valued(true: Flags, known: Flags) -> pa.Array:
    """Booleans, missing where it is not known which."""
    bits = [pa.py_buffer(np.packbits(flags, bitorder="little").tobytes()) for flags in (known, true)]
    return pa.Array.from_buffers(pa.bool_(), len(true), bits)
