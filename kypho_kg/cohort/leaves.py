"""What keeps a clause unknown, for many cases at once (compare ``Proof.unknown_leaves``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from kypho_kg.cohort.judge import Judged
from kypho_kg.cohort.layout import CODE, PROCEDURES, Bytes, Flags
from kypho_kg.cohort.logic import BLOCKS, MET, NOT_MET, UNKNOWN
from kypho_kg.cohort.series import NOT_RECORDED
from kypho_kg.criteria import ATOMS, Criterion, Op
from kypho_kg.record import Cause

NOBODY: Final = -1
"""In place of a block of subjects: no procedure is proposed for the lesion, or the source leaves a band open."""
Leaf = tuple[int, str, int]
"""Block of subjects, or ``NOBODY``; feature, link or class with an open band; and the code of the cause."""


class Leaves:
    """The unknown atoms that keep a clause unknown, and the bands that its source leaves open, case by case."""

    def __init__(self, judged: Judged) -> None:
        self.logic = judged.logic
        self.subjects, self.n = judged.subjects, len(judged.subjects.owner)
        self._found: dict[tuple[int, str], Flags] = {}
        self._why: dict[tuple[int, str], Bytes] = {}

    def by_case(self, criterion: Criterion) -> Mapping[int, Sequence[Leaf]]:
        """The leaves of each case in which the criterion is unknown."""
        self._visit(criterion, "", np.ones(self.n, bool))
        found: dict[int, list[Leaf]] = defaultdict(list)
        for block, term in sorted(self._found):
            causes = self._why[block, term]
            for case in np.flatnonzero(self._found[block, term]).tolist():
                found[case].append((block, term, int(causes[case])))
        return found

    def _add(self, key: tuple[int, str], cases: Flags, cause: Bytes | int) -> None:
        found, why = self._found, self._why
        causes = np.full(self.n, cause, np.uint8)
        why[key] = np.minimum(why[key], causes) if key in why else causes
        found[key] = found[key] | cases if key in found else cases

    def _of_cases(self, values: Bytes, link: str, without: int) -> Bytes:
        return self.logic.linked(values, link, without) if link else values

    def _visit(self, c: Criterion, link: str, among: Flags) -> None:
        where = {"block": BLOCKS[link]} if link else {}
        unknown = among & (self._of_cases(self.logic.truth(c, **where), link, UNKNOWN) == UNKNOWN)
        if not unknown.any():
            return
        if c.op in ATOMS:
            causes = self._of_cases(self.logic.cause(c, BLOCKS[link]), link, NOT_RECORDED)
            self._add((BLOCKS[link], c.term), unknown, causes)
            return
        if c.op is Op.LINK and BLOCKS[c.term] == PROCEDURES:
            self._add((NOBODY, c.term), unknown & ~self.subjects.in_session, NOT_RECORDED)
            unknown = unknown & self.subjects.in_session
        if c.op is Op.OPEN:
            strict, lenient = (self._of_cases(self.logic.truth(x, **where), link, UNKNOWN) for x in c.children)
            self._add((NOBODY, c.name), unknown & ((strict == NOT_MET) | (lenient == MET)), CODE[Cause.LEFT_OPEN])
        for child in c.children:
            self._visit(child, c.term if c.op is Op.LINK else link, unknown)
