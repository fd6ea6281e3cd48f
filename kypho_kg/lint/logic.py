"""What conditions can hold together: each criterion as a decision diagram over the cases that can exist.

A case gives each quantity one number or none, each choice and category one value or none, and a set of findings that
is closed upwards and from lesion to patient. A value excludes the findings that an axiom says it excludes.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from kypho_kg.criteria import Criterion, Op
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.lint.diagram import Diagram
from kypho_kg.lint.states import Atoms, Grouping, Node
from kypho_kg.record import Range
from kypho_kg.vocabulary import CASE, LESION, PATIENT


def both(*parts: Criterion) -> Criterion:
    """All of the parts."""
    return Criterion(Op.AND, parts)


def either(*parts: Criterion) -> Criterion:
    """One of the parts."""
    return Criterion(Op.OR, parts)


def no(part: Criterion) -> Criterion:
    """Not the part."""
    return Criterion(Op.NOT, (part,))


def possible(knowledge: Knowledge, *parts: Criterion) -> bool:
    """Whether some case meets all parts.

    :raises CutOffError: when the diagram grows too large to be sure.
    """
    search = _Search(knowledge, both(*parts))
    return search.diagram.both(search.root, search.legal()) != 0


def implied(knowledge: Knowledge, a: Criterion, b: Criterion) -> bool:
    """Whether every case that meets ``a`` meets ``b``."""
    return not possible(knowledge, a, no(b))


def equivalent(knowledge: Knowledge, a: Criterion, b: Criterion) -> bool:
    """Whether the same cases meet both."""
    return implied(knowledge, a, b) and implied(knowledge, b, a)


class _Row(NamedTuple):
    """One value of a feature: which atoms that ask for it hold, and which findings it rules out."""

    holds: tuple[bool, ...]
    excluded: tuple[int, ...] = ()


class _Search:
    def __init__(self, knowledge: Knowledge, tree: Criterion) -> None:
        self.k, self.diagram, self.atoms = knowledge, Diagram(), Atoms(knowledge)
        self.root = self._build(self.atoms.read(tree, CASE, plain=True))

    def _build(self, node: Node) -> int:
        d = self.diagram
        if node.op is Op.OPEN:
            strict, lenient = map(self._build, node.children)
            return d.either(strict, d.both(lenient, d.literal(node.atom, True)))
        if not node.children:
            return d.literal(node.atom, True)
        parts = [self._build(child) for child in node.children]
        return d.negation(parts[0]) if node.op is Op.NOT else d.at_least(node.need, parts)

    def legal(self) -> int:
        """What holds in every case among the atoms of the tree."""
        d, grouping = self.diagram, Grouping(self.atoms)
        numbers = range(len(self.atoms.order))
        parts = [
            d.either(d.literal(a, False), d.literal(b, True))
            for a, b in itertools.permutations(numbers, 2)
            if grouping.follows(a, b)
        ]
        of_one: dict[tuple[str, str], list[int]] = defaultdict(list)
        for n in numbers:
            feature = self.atoms.feature(n)
            if feature and feature.kind is not Op.FINDING:
                of_one[self.atoms.order[n].place, feature.iri].append(n)
        for (_, iri), asked in of_one.items():
            rows = set(self._rows(self.k.features[iri], asked)) | {_Row(tuple(False for _ in asked))}
            parts.append(d.any_of(self._holds(asked, row) for row in sorted(rows)))
        return d.all_of(parts)

    def _holds(self, asked: Sequence[int], row: _Row) -> int:
        d = self.diagram
        return d.all_of([*map(d.literal, asked, row.holds), *(d.literal(a, False) for a in row.excluded)])

    def _rows(self, feature: Feature, asked: Sequence[int]) -> Iterator[_Row]:
        """For each value of a feature, which of the atoms hold."""
        atoms = [self.atoms.order[n] for n in asked]
        if feature.kind is Op.QUANTITY:
            for p in points(a.range for a in atoms if a.range):
                yield _Row(tuple(bool(a.range and Range.exactly(p).within(a.range)) for a in atoms))
            return
        for value in feature.values:
            above = self.k.ancestors(value) if feature.kind is Op.CATEGORY else {value}
            excluded = tuple(self._excluded(feature, value, atoms[0].place))
            yield _Row(tuple(not above.isdisjoint(a.values) for a in atoms), excluded)

    def _excluded(self, feature: Feature, value: str, place: str) -> Iterator[int]:
        """The atoms that an axiom rules out for who has the value; what the patient lacks, its lesions lack."""
        for closure in self.k.value_closures:
            if (closure.choice, closure.value) == (feature.iri, value):
                for n, other in enumerate(self.atoms.order):
                    here = other.place == place or (other.place, place) == (LESION, PATIENT)
                    if here and closure.finding in self.k.ancestors(other.term):
                        yield n


def points(ranges: Iterator[Range] | Sequence[Range]) -> list[Decimal]:
    """One number for each limit, and one for each gap between limits and beyond them."""
    limits = sorted({b for r in ranges for b in (r.low, r.high) if b is not None})
    between = [(a + b) / 2 for a, b in itertools.pairwise(limits)]
    return [limits[0] - 1, *sorted([*limits, *between]), limits[-1] + 1] if limits else []
