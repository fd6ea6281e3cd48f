"""The resolved snapshot of a part as one table: a row for each case, and columns for what clauses ask of it.

It is what SQL judges (``expressions.py``); docs/cohort-sql.md tells what the columns mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from kypho_kg.cohort.counts import Asked
from kypho_kg.cohort.judge import Judged, judge
from kypho_kg.cohort.layout import HIGHEST, LESIONS, LOWEST, PATIENTS, PROCEDURES, Bytes, Flags, Ints, Layout
from kypho_kg.cohort.logic import BLOCKS, MET, UNKNOWN
from kypho_kg.criteria import ATOMS, Criterion, Op
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.knowledge import Policy
from kypho_kg.vocabulary import local

NAMES: Final = {PATIENTS: "patient", PROCEDURES: "procedure", LESIONS: "lesion"}
"""How the name of a column begins."""
NUMBER: Final = pa.decimal128(18, 6)
IN_SESSION: Final = "in_session"
KEYS: Final[Mapping[str, pa.DataType]] = {
    "patient": pa.string(), "lesion": pa.string(), "as_of": pa.date32(), IN_SESSION: pa.bool_()
}  # fmt: skip
ENDS: Final[Mapping[str, pa.DataType]] = {
    "low": NUMBER, "high": NUMBER, "low_open": pa.bool_(), "high_open": pa.bool_()
}  # fmt: skip
"""The columns of a quantity."""

Asking = tuple[int, Criterion]
"""Of which block of subjects an atom is asked."""


def asking(criteria: Iterable[Criterion]) -> tuple[Asking, ...]:
    """The atoms of some trees with the subjects of which they are asked, those with the same columns once.

    :raises KnowledgeBaseError: for an atom that is asked of no subject.
    """
    found: dict[tuple[int, str, str], Asking] = {}

    def visit(c: Criterion, block: int | None) -> None:
        if c.op is Op.LINK:
            block = BLOCKS[c.term]
        elif c.op in ATOMS:
            if block is None:
                raise KnowledgeBaseError(f"{local(c.term)} is asked of no patient, lesion or procedure")
            found.setdefault((block, c.term, class_of(c)), (block, c))
        for child in c.children:
            visit(child, block)

    for criterion in criteria:
        visit(criterion, None)
    return tuple(found[key] for key in sorted(found))


def class_of(c: Criterion) -> str:
    """The class that an atom about a category asks for; of other atoms nothing."""
    return next(iter(c.values)) if c.op is Op.CATEGORY else ""


def column(block: int, *parts: str) -> str:
    """The name of a column."""
    return ".".join((NAMES[block], *map(local, parts)))


def columns_of(layout: Layout, block: int, c: Criterion) -> Mapping[str, pa.DataType]:
    """The columns that hold the state of what an atom asks."""
    if c.op is Op.QUANTITY:
        return {column(block, c.term, end): type_ for end, type_ in ENDS.items()}
    if c.op is Op.CHOICE:
        return {column(block, c.term, value): pa.bool_() for value in layout.values[layout.place[c.term]]}
    return {column(block, c.term, class_of(c)) if c.op is Op.CATEGORY else column(block, c.term): pa.bool_()}


def wide_schema(asked: Asked) -> pa.Schema:
    """The columns of the table for some guidelines, without those who are in it.

    :raises KnowledgeBaseError: when two columns differ in case alone, which SQL does not tell apart.
    """
    columns = dict(KEYS)
    for block, atom in asking(r.criterion for r in asked.clauses):
        columns |= columns_of(asked.layout, block, atom)
    seen: dict[str, str] = {}
    for name in columns:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise KnowledgeBaseError(f"the columns {other} and {name} differ in case alone")
    return pa.schema(list(columns.items()))


def wide_table(judged: Judged, asked: Asked) -> pa.Table:
    """The snapshot of the cases that are answered, in the order of the cases."""
    rows = np.flatnonzero(judged.subjects.asked & ~judged.rejected)
    cells = dict(_keys(judged, rows))
    for block, atom in asking(r.criterion for r in asked.clauses):
        names = columns_of(asked.layout, block, atom)
        cells |= zip(names, _cells(judged, block, atom, _places(judged, block, rows)), strict=True)
    return pa.table(cells)


def resolved(
    facts: pa.Table, cases: pa.Table, asked: Asked, *, bridges: bool = True, policies: Sequence[Policy] = ()
) -> pa.Table:
    """Resolve the facts of some patients into the table that SQL judges.

    :param facts: sorted by patient, with the columns of docs/fact-table.md.
    :param cases: sorted by patient and as-of date.
    """
    return wide_table(judge(facts, cases, asked.layout, bridges=bridges, policies=policies), asked)


def _places(judged: Judged, block: int, rows: Ints) -> Ints:
    """The patient, procedure or lesion of each row, counted in its block."""
    return rows if block == LESIONS else judged.subjects.owner[rows]


def _keys(judged: Judged, rows: Ints) -> Iterator[tuple[str, pa.Array]]:
    s = judged.subjects
    owner = s.owner[rows]
    yield "patient", s.patients.take(pa.array(owner)).cast(pa.string())
    yield "lesion", s.lesions.take(pa.array(rows)).cast(pa.string())
    yield "as_of", pa.array(s.as_of[owner].astype(np.int32)).cast(pa.date32())
    yield IN_SESSION, pa.array(s.in_session[rows])


def _cells(judged: Judged, block: int, c: Criterion, places: Ints) -> tuple[pa.Array, ...]:
    return _CELLS[c.op](judged, block, c, places)


def _truth(judged: Judged, block: int, c: Criterion, places: Ints) -> tuple[pa.Array, ...]:
    truth: Bytes = judged.logic.truth(judged.snapshot.layout.shared(c), block)[places]
    return (pa.array(truth == MET, mask=truth == UNKNOWN),)


def _quantity(judged: Judged, block: int, c: Criterion, places: Ints) -> tuple[pa.Array, ...]:
    layout, series = judged.snapshot.layout, judged.snapshot.series
    slot, at = layout.slot[layout.place[c.term]], judged.subjects.block(block)
    low, high = series.low[slot, at][places], series.high[slot, at][places]
    known = low <= high
    lower, upper = known & (low > LOWEST), known & (high < HIGHEST)
    # An odd end is one that does not count: what lies above the lower, below the upper one.
    return (
        _decimals(low >> 1, lower),
        _decimals((high + 1) >> 1, upper),
        pa.array((low & 1) == 1, mask=~lower),
        pa.array((high & 1) == 1, mask=~upper),
    )


def _choice(judged: Judged, block: int, c: Criterion, places: Ints) -> tuple[pa.Array, ...]:
    layout, series = judged.snapshot.layout, judged.snapshot.series
    feature = layout.place[c.term]
    slot, at = layout.slot[feature], judged.subjects.block(block)
    bits, out = series.bits[slot, at][places], series.out[slot, at][places]
    cells = []
    for i in range(len(layout.values[feature])):
        bit = np.uint64(1 << i)
        may_be = (bits & bit) != 0
        cells.append(pa.array(may_be, mask=(bits == 0) & ((out & bit) == 0)))
    return tuple(cells)


def _decimals(millionths: Ints, known: Flags) -> pa.Array:
    """Whole numbers of millionths as decimals, without a detour over Python."""
    words = np.empty((len(millionths), 2), np.int64)
    words[:, 0], words[:, 1] = millionths, millionths >> 63
    valid = np.packbits(known, bitorder="little")
    return pa.Array.from_buffers(NUMBER, len(millionths), [pa.py_buffer(valid), pa.py_buffer(words)])


_CELLS: Mapping[Op, Callable[[Judged, int, Criterion, Ints], tuple[pa.Array, ...]]] = {
    Op.FINDING: _truth,
    Op.CATEGORY: _truth,
    Op.CHOICE: _choice,
    Op.QUANTITY: _quantity,
}
