"""Rows of the fact table as columns of numbers, and their way into Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from kypho_kg.fact_rows import cases_schema, facts_schema
from kypho_kg.record import Cause, Mood, Polarity, Status
from kypho_kg.synth_draws import SLOTS, Bools, Ints

POLARITIES, MOODS, STATUSES, CAUSES = (
    [m.value for m in kind] for kind in (Polarity, Mood, Status, Cause)
)  # fmt: skip
LESIONS = [chr(ord("a") + i) for i in range(SLOTS)]
"""Ids of the lesions of a patient."""
NONE = np.iinfo(np.int64).min
"""An empty cell; in a narrower column, the least number of its type."""
DAY = 86_400

_COLUMNS: Mapping[str, tuple[type[np.signedinteger[Any]], int]] = {
    "unit": (np.int32, 0), "feature": (np.int16, 0), "polarity": (np.int8, 0), "mood": (np.int8, 0),
    "status": (np.int8, 0), "value": (np.int32, NONE), "low": (np.int64, NONE), "high": (np.int64, NONE),
    "date": (np.int32, NONE), "start": (np.int64, NONE), "end": (np.int64, NONE), "cause": (np.int8, NONE),
    "source": (np.int16, NONE),
}  # fmt: skip
"""The columns of a block: type, and what stands where nothing is given."""


def empty(column: Ints) -> Bools:
    """Which cells are empty."""
    return np.asarray(column == np.iinfo(column.dtype).min)


def _column(name: str, given: Any, length: int) -> Any:
    kind, _ = _COLUMNS[name]
    least = np.iinfo(kind).min
    if np.ndim(given):
        if given.dtype == kind:
            return given
        return np.where(given == NONE, least, given).astype(kind) if given.dtype == np.int64 else given.astype(kind)
    return np.full(length, least if given == NONE else given, dtype=kind)


class Block:
    """Some rows: equally long columns, of which those not given are empty.

    ``unit`` is the number of the patient in its batch times eight, plus 0 for the patient itself and the procedure or
    the number of the lesion from 1 on. Days and seconds count from 1970. ``low`` and ``high`` are in millionths.
    """

    __slots__ = ("columns",)

    def __init__(self, columns: Mapping[str, Any]) -> None:
        length = len(columns["unit"])
        self.columns: dict[str, Any] = {
            name: _column(name, columns.get(name, default), length) for name, (_, default) in _COLUMNS.items()
        }

    def __len__(self) -> int:
        return len(self.columns["unit"])

    def __getitem__(self, name: str) -> Ints:
        column: Ints = self.columns[name]
        return column

    def taken(self, rows: Ints | Bools) -> Block:
        """Some of the rows, as a copy."""
        return Block({name: column[rows] for name, column in self.columns.items()})


def joined(blocks: Sequence[Block]) -> Block:
    """All rows, in their order."""
    return Block({name: np.concatenate([b.columns[name] for b in blocks]) for name in _COLUMNS})


def whole_day(days: Ints) -> tuple[Ints, Ints]:
    """First and last second of each day."""
    return days * DAY, days * DAY + (DAY - 1)


def facts_batch(block: Block, first: int, features: Sequence[str], words: Sequence[str], sources: Sequence[str]) -> Any:
    """Sorted rows as a record batch.

    :param first: number of the first patient of the batch.
    """
    unit = block["unit"]
    closed = pa.array(np.zeros(len(block), dtype=bool))
    patient, lesion = (unit >> 3).astype(np.int64) + first, unit & 7
    date = _days(block["date"])
    columns = {
        "patient": pa.array(patient, pa.int64()),
        "lesion": _words(np.where(lesion == 0, NONE, lesion.astype(np.int64) - 1), LESIONS),
        "feature": _words(block["feature"], features),
        "polarity": _words(block["polarity"], POLARITIES),
        "mood": _words(block["mood"], MOODS),
        "status": _words(block["status"], STATUSES),
        "value": _words(block["value"], words),
        "low": _decimals(block["low"]),
        "high": _decimals(block["high"]),
        "low_open": closed,
        "high_open": closed,
        "date_start": date,
        "date_end": date,
        "time_start": _seconds(block["start"]),
        "time_end": _seconds(block["end"]),
        "cause": _words(block["cause"], CAUSES),
        "source": _words(block["source"], sources),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=facts_schema(pa.int64()))


def cases_batch(columns: Mapping[str, Any], first: int, words: Sequence[str]) -> Any:
    """The cases of a batch: ``unit``, ``as_of``, ``proposed``, ``named``, ``session``, ``service``, ``state``."""
    unit, service = columns["unit"], _days(columns["service"])
    arrays = [
        pa.array((unit >> 3) + first, pa.int64()),
        _words((unit & 7) - 1, LESIONS),
        _days(columns["as_of"]),
        pa.array(columns["proposed"]),
        pa.array(columns["named"]),
        pa.array(columns["session"]),
        service,
        service,
        _words(columns["state"], words),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=cases_schema(pa.int64()))


def _words(codes: Ints, words: Sequence[str]) -> Any:
    indices = codes.astype(np.int32)
    void = empty(codes)
    if void.any():
        indices[void] = 0
        return pa.DictionaryArray.from_arrays(pa.array(indices, mask=void), pa.array(words, pa.string()))
    return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(words, pa.string()))


def _days(days: Ints) -> Any:
    void = empty(days)
    return pa.array(np.where(void, 0, days).astype(np.int32), pa.int32(), mask=void).cast(pa.date32())


def _seconds(seconds: Ints) -> Any:
    return pa.array(seconds, pa.int64(), mask=empty(seconds)).cast(pa.timestamp("s"))


def _decimals(millionths: Ints) -> Any:
    """Decimals of 128 bits straight from the number in the low 64 bits; the high ones are its sign."""
    void = empty(millionths)
    parts = np.empty((len(millionths), 2), dtype=np.int64)
    parts[:, 0] = millionths
    parts[void, 0] = 0
    parts[:, 1] = parts[:, 0] >> 63
    bitmap = pa.array(~void).buffers()[1]  # the values of booleans are stored as validity is
    return pa.Array.from_buffers(pa.decimal128(18, 6), len(millionths), [bitmap, pa.py_buffer(parts)])
