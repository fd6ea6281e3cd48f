"""Which features keep verdicts open, and in how many cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kypho_kg.cohort.layout import Bytes, Flags, Ints, Layout
from kypho_kg.cohort.logic import BLOCKS, UNKNOWN, Logic
from kypho_kg.criteria import ATOMS, Criterion, Op
from kypho_kg.guidelines import DECIDING, Guideline


def keeping(
    logic: Logic, layout: Layout, guidelines: Sequence[Guideline], opens: Sequence[Flags], rows: npt.NDArray[np.intp]
) -> dict[str, int]:
    """For each feature the cases in which it keeps a clause of an open verdict unknown, by its IRI.

    As in a proof, what is unknown below something that is known keeps nothing open. Clauses of alternative readings do
    not count.

    :param opens: of each guideline, whether the verdict of each of the cases is open.
    :param rows: the cases.
    """
    found = _Keeping(logic, rows)
    among: dict[int, tuple[Criterion, Bytes]] = {}
    for guideline, flags in zip(guidelines, opens, strict=True):
        bits = np.packbits(flags)
        for r in guideline.recommendations:
            if r.effect in DECIDING and not r.reading:
                shared = layout.shared(r.criterion)
                known = among.get(id(shared))
                among[id(shared)] = shared, bits if known is None else known[1] | bits
    for criterion, bits in among.values():
        found.visit(criterion, "", bits)
    return {feature: int(np.bitwise_count(bits).sum(dtype=np.int64)) for feature, bits in found.kept.items()}


class _Keeping:
    """The features that keep something unknown, each with its cases as packed bits."""

    def __init__(self, logic: Logic, rows: Ints) -> None:
        self.logic, self.rows = logic, rows
        self.kept: dict[str, Bytes] = {}
        self._unknown: dict[tuple[int, str], Bytes] = {}

    def visit(self, c: Criterion, link: str, among: Bytes) -> None:
        among = among & self._bits(c, link)
        if not among.any():
            return
        if c.op in ATOMS:
            self.kept[c.term] = self.kept[c.term] | among if c.term in self.kept else among
        for child in c.children:
            self.visit(child, c.term if c.op is Op.LINK else link, among)

    def _bits(self, c: Criterion, link: str) -> Bytes:
        """In which cases a criterion is unknown, of what a link leads to."""
        key = id(c), link
        if key not in self._unknown:
            truth = self.logic.truth(c, BLOCKS[link]) if link else self.logic.truth(c)
            truth = self.logic.linked(truth, link, UNKNOWN) if link else truth
            self._unknown[key] = np.packbits(truth[self.rows] == UNKNOWN)
        return self._unknown[key]
