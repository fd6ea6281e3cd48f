"""The atoms of a criterion, which of them hang together, and the states in which a record can leave these."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Truth
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.lint.diagram import CutOffError
from kypho_kg.record import Range
from kypho_kg.vocabulary import LESION, PATIENT, RDFS, local

MAX_STATES = 2_000
NO, OPEN, YES = Truth.NOT_MET, Truth.UNKNOWN, Truth.MET
Vector = tuple[Truth, ...]
"""The truths of the atoms of one group."""


@dataclass(frozen=True, slots=True)
class Node:
    """A criterion with its atoms as numbers."""

    op: Op
    children: tuple[Node, ...] = ()
    need: int = 0
    atom: int = -1
    plain: bool = True


@dataclass(frozen=True, slots=True)
class Atom:
    """Something that a criterion asks of one thing."""

    place: str
    """The class of what is asked: patient, lesion or procedure."""
    term: str
    """A finding, a property, or the class whose source leaves a band open."""
    values: frozenset[str] = frozenset()
    range: Range | None = None


@dataclass(slots=True)
class Atoms:
    """The atoms of one criterion, numbered."""

    knowledge: Knowledge
    order: list[Atom] = field(default_factory=list)
    ways: list[set[bool]] = field(default_factory=list)
    """For each atom, whether it stands plain, negated or both."""

    def read(self, c: Criterion, place: str, *, plain: bool) -> Node:
        """Number the atoms of a criterion."""
        if c.op is Op.LINK:
            target = self.knowledge.triples.resource(c.term, RDFS + "range") or ""
            return self.read(c.children[0], target, plain=plain)
        if not c.children:
            return Node(c.op, atom=self._number(Atom(place, c.term, c.values, c.range), plain), plain=plain)
        inner = plain is not (c.op is Op.NOT)
        children = tuple(self.read(child, place, plain=inner) for child in c.children)
        if c.op is Op.OPEN:
            return Node(c.op, children, atom=self._number(Atom(place, c.name), plain), plain=plain)
        return Node(c.op, children, {Op.AND: len(children), Op.OR: 1}.get(c.op, c.n))

    def _number(self, atom: Atom, plain: bool) -> int:
        if atom not in self.order:
            self.order.append(atom)
            self.ways.append(set())
        number = self.order.index(atom)
        self.ways[number].add(plain)
        return number

    def feature(self, number: int) -> Feature | None:
        """The feature that an atom asks for; a band has none."""
        return self.knowledge.features.get(self.order[number].term)

    def extreme(self, numbers: Sequence[int], vectors: Sequence[Vector], *, best: bool) -> Vector:
        """The best or worst truth of each atom, for a criterion in which it stands one way."""
        columns = zip(*vectors, strict=True)
        return tuple(
            max(column) if (True in self.ways[n]) is best else min(column)
            for n, column in zip(numbers, columns, strict=True)
        )

    def text(self, number: int) -> str:
        """An atom in words."""
        atom = self.order[number]
        asked = f" {atom.range}" if atom.range else f" {' or '.join(sorted(map(local, atom.values)))}"
        return local(atom.term) + asked.rstrip()


@dataclass(frozen=True, slots=True)
class State:
    """What a record may say of a group: the truths of its atoms that are still possible."""

    text: str
    vectors: tuple[Vector, ...]

    @property
    def agreed(self) -> Vector:
        """For each atom the truth that all possibilities share."""
        return tuple(ts[0] if len(set(ts)) == 1 else OPEN for ts in zip(*self.vectors, strict=True))


@dataclass(frozen=True, slots=True)
class Group:
    """Atoms whose truths depend on one another."""

    atoms: tuple[int, ...]
    states: tuple[State, ...]
    independent: bool
    """Whether in every state one possibility is the worst for all atoms, and one the best."""


class Grouping:
    """The atoms of one criterion, grouped."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms, self.k = atoms, atoms.knowledge

    def groups(self) -> list[Group]:
        """All groups; a band that is only asked one way needs none."""
        done: set[int] = set()
        found = []
        for number in range(len(self.atoms.order)):
            if number not in done:
                self._refuse_closures(number)
                members = self._related(number)
                done.update(members)
                if self.atoms.feature(number) or len(self.atoms.ways[number]) > 1:
                    found.append(self._group(tuple(sorted(members))))
        return found

    def _related(self, start: int) -> set[int]:
        found, todo = {start}, [start]
        while todo:
            a = todo.pop()
            new = [b for b in range(len(self.atoms.order)) if b not in found and self._hang_together(a, b)]
            found.update(new)
            todo += new
        return found

    def _hang_together(self, a: int, b: int) -> bool:
        return self.follows(a, b) or self.follows(b, a) or self._same(a, b)

    def _refuse_closures(self, number: int) -> None:
        """A value that excludes a finding ties a choice to it; such criteria are not searched."""
        atom = self.atoms.order[number]
        for closure in self.k.value_closures:
            for other in self.atoms.order if closure.choice == atom.term else ():
                if other.place == atom.place and closure.finding in self.k.ancestors(other.term):
                    tied = f"{local(atom.term)} and {local(other.term)}"
                    raise CutOffError(f"{tied} hang together by an axiom on {local(closure.value)}")

    def _same(self, a: int, b: int) -> bool:
        x, y = self.atoms.order[a], self.atoms.order[b]
        return x.term == y.term and x.place == y.place

    def follows(self, a: int, b: int) -> bool:
        """Whether finding ``a`` brings finding ``b`` with it: a superclass, also from a lesion to the patient."""
        x, y, f = self.atoms.order[a], self.atoms.order[b], self.atoms.feature(a)
        if a == b or f is None or f.kind is not Op.FINDING or y.term not in self.k.ancestors(x.term):
            return False
        return x.place == y.place or (x.place == LESION and y.place == PATIENT)

    def _group(self, numbers: tuple[int, ...]) -> Group:
        feature = self.atoms.feature(numbers[0])
        if feature is None:
            states = [State(f"{self.atoms.text(numbers[0])} left open", ((NO,), (YES,)))]
        elif feature.kind is Op.FINDING:
            states = list(self._findings(numbers))
        elif feature.kind is Op.QUANTITY:
            states = list(self._quantity(feature, numbers))
        elif feature.kind is Op.CHOICE:
            states = list(self._choice(feature, numbers))
        else:
            states = list(self._category(feature, numbers))
        distinct = {s.vectors: s for s in reversed(states)}
        if len(distinct) > MAX_STATES:
            raise CutOffError(f"{len(distinct)} states of {self.atoms.text(numbers[0])}")
        harmless = all(self._one_is_worst(numbers, s) for s in distinct)
        return Group(numbers, tuple(distinct.values()), harmless)

    def _one_is_worst(self, numbers: tuple[int, ...], vectors: tuple[Vector, ...]) -> bool:
        columns = zip(*vectors, strict=True)
        if any(len(self.atoms.ways[n]) > 1 and len(set(c)) > 1 for n, c in zip(numbers, columns, strict=True)):
            return False
        return all(self.atoms.extreme(numbers, vectors, best=best) in vectors for best in (True, False))

    # -- states of each kind of feature; the last text given to a set of possibilities is the one not used

    def _vector(self, numbers: Iterable[int], holds: Iterable[bool]) -> Vector:
        return tuple(YES if h else NO for _, h in zip(numbers, holds, strict=True))

    def _findings(self, numbers: tuple[int, ...]) -> Iterator[State]:
        if 3 ** len(numbers) > MAX_STATES:
            raise CutOffError(f"{len(numbers)} related findings with {self.atoms.text(numbers[0])}")
        follows = [(i, j) for i, a in enumerate(numbers) for j, b in enumerate(numbers) if self.follows(a, b)]
        every = [v for v in itertools.product((NO, YES), repeat=len(numbers)) if all(v[i] <= v[j] for i, j in follows)]
        for said in itertools.product((OPEN, NO, YES), repeat=len(numbers)):
            left = tuple(v for v in every if all(s in {OPEN, t} for s, t in zip(said, v, strict=True)))
            names = zip(map(self.atoms.text, numbers), said, strict=True)
            if left:
                yield State(", ".join(f"{name} {truth.words}" for name, truth in names), left)

    def _quantity(self, feature: Feature, numbers: tuple[int, ...]) -> Iterator[State]:
        asked = [self.atoms.order[n].range for n in numbers]
        limits = sorted({b for r in asked if r for b in (r.low, r.high) if b is not None})
        between = [(a + b) / 2 for a, b in itertools.pairwise(limits)]
        points = [limits[0] - 1, *sorted([*limits, *between]), limits[-1] + 1] if limits else [Decimal(0)]
        rows = [self._vector(numbers, (bool(r and Range.exactly(p).within(r)) for r in asked)) for p in points]
        for i, j in itertools.combinations_with_replacement(range(len(points)), 2):
            text = f"{feature.name} {points[i]}" + (f" to {points[j]}" if i < j else "")
            yield State(text, tuple(dict.fromkeys(rows[i : j + 1])))
        nothing = self._vector(numbers, (False for _ in numbers))
        yield State(f"{feature.name} unknown", tuple(dict.fromkeys((*rows, nothing))))

    def _choice(self, feature: Feature, numbers: tuple[int, ...]) -> Iterator[State]:
        by_vector: dict[Vector, str] = {}
        for value in sorted(feature.values):
            vector = self._vector(numbers, (value in self.atoms.order[n].values for n in numbers))
            by_vector.setdefault(vector, local(value))
        if 2 ** len(by_vector) > MAX_STATES:
            raise CutOffError(f"{len(by_vector)} values of {feature.name}")
        nothing = self._vector(numbers, (False for _ in numbers))
        for size in range(len(by_vector) + 1):
            for some in itertools.combinations(by_vector, size):
                text = f"{feature.name} {' or '.join(by_vector[v] for v in some) or 'ruled out'}"
                if some:
                    yield State(text, some)
                if nothing not in some:
                    yield State(f"{text} or nothing" if some else text, (*some, nothing))

    def _category(self, feature: Feature, numbers: tuple[int, ...]) -> Iterator[State]:
        """A recorded class, or none, less the classes below it that are ruled out."""
        asked = [next(iter(self.atoms.order[n].values)) for n in numbers]
        vectors = {c: self._vector(numbers, (a in self.k.ancestors(c) for a in asked)) for c in feature.values}
        below = {c: frozenset(d for d in feature.values if self.k.subsumes(c, d)) for c in feature.values}
        nothing = self._vector(numbers, (False for _ in numbers))
        for top in ("", *sorted(feature.values)):
            seen: set[frozenset[Vector]] = set()
            todo = [(below[top] if top else feature.values, f"{feature.name} {local(top) or 'unknown'}")]
            while todo:
                left, text = todo.pop(0)
                possible = dict.fromkeys(vectors[c] for c in sorted(left))
                possible.update({} if top else {nothing: None})
                if frozenset(possible) in seen:
                    continue
                seen.add(frozenset(possible))
                if len(seen) > MAX_STATES:
                    raise CutOffError(f"more than {MAX_STATES} states of {feature.name}")
                yield State(text, tuple(possible))
                todo += [(left - below[c], f"{text} but not {local(c)}") for c in sorted(left) if c != top]
