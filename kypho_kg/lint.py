"""Lint: where three-valued evaluation says less than the reasoner (docs/engines.md).

Evaluating operand by operand loses nothing as long as one completion of a record makes all unknown atoms as bad as
they can be for a criterion, and one as good. It may lose where an atom stands plain and negated, or where unknown atoms
hang together: values of one choice or category, ranges of one quantity, a finding and its superclass. For each such
group every state that a record can leave it in is tried, with all values of the other atoms, in search of an answer
that all completions share and the evaluation does not give.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Truth
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.reasoning import classes_of
from kypho_kg.record import Range
from kypho_kg.vocabulary import CASE, LESION, PATIENT, RDFS, local

MAX_STATES = 2_000
"""How many states of one group of related atoms are tried."""
MAX_PRODUCT = 100_000
"""How many combinations of states of several groups."""
MAX_NODES = 500_000
"""How large the decision diagram of one criterion may grow."""


class Kind(StrEnum):
    """What lint found."""

    GAP = "gap"
    """The reasoner settles a case that the evaluation leaves unknown."""
    BOUND = "bound"
    """The search was cut off, and found no gap so far."""


@dataclass(frozen=True, slots=True)
class LintFinding:
    """Something about one class that its author should look at."""

    iri: str
    kind: Kind
    message: str

    def __str__(self) -> str:
        return f"{local(self.iri)}: {self.message}"


def kleene_gaps(knowledge: Knowledge) -> list[LintFinding]:
    """Gaps of the classes by which guidelines judge, and of the conditions of bridges and policies."""
    trees = [(iri, knowledge.criterion(iri), CASE) for g in knowledge.guidelines.values() for iri in classes_of(g)]
    trees += [(b.iri, b.condition, b.bearer) for b in knowledge.bridges.values()]
    trees += [(c.iri, c.condition, c.bearer) for p in knowledge.policies.values() for c in p.closures]
    return [found for iri, tree, bearer in trees for found in gaps_of(knowledge, iri, tree, bearer)]


def gaps_of(knowledge: Knowledge, iri: str, tree: Criterion, bearer: str = CASE) -> list[LintFinding]:
    """The first gap found in one criterion, or that the search was cut off before it had tried everything.

    :param bearer: the class of what the criterion is asked of.
    """
    try:
        message = _Search(knowledge, tree, bearer).run()
    except _CutOffError as reason:
        return [LintFinding(iri, Kind.BOUND, f"not fully checked: {reason}")]
    return [LintFinding(iri, Kind.GAP, message)] if message else []


class _CutOffError(Exception):
    """Too many states or steps."""


# -- the search

Vector = tuple[Truth, ...]
"""The truths of the atoms of one group."""
_NO, _OPEN, _YES = Truth.NOT_MET, Truth.UNKNOWN, Truth.MET


class _Search:
    """Looks for a gap of one criterion.

    The criterion becomes a decision diagram in which an atom that stands plain and negated has a variable for each, so
    that the same diagram gives what completions say (both alike) and what the evaluation says (both at their worst).
    """

    def __init__(self, knowledge: Knowledge, tree: Criterion, bearer: str) -> None:
        self.atoms = _Atoms(knowledge)
        self.tree = self.atoms.read(tree, bearer, plain=True)
        groups = _Grouping(self.atoms).groups()
        self.related = [g for g in groups if not g.independent]
        self.free = [g for g in groups if g.independent]
        # What the states of related atoms fix comes first, so that fixing it is following a path from the root.
        settled = {a for g in self.free for a in g.atoms}
        order = sorted(range(len(self.atoms.order)), key=lambda a: a in settled)
        self.place = {atom: place for place, atom in enumerate(order)}

    def run(self) -> str:
        """A message with the witness of the first gap, or nothing."""
        combinations = math.prod(len(g.states) for g in self.related)
        if combinations > MAX_PRODUCT:
            raise _CutOffError(f"{combinations} combinations of states of related atoms")
        for wanted in (_YES, _NO):
            diagram = _Diagram()
            root = self._build(diagram, self.tree, wanted)
            legal = diagram.all_of(self._legal(diagram, g, wanted) for g in self.free)
            for states in itertools.product(*(g.states for g in self.related)):
                witness = self._witness(diagram, root, legal, states, wanted)
                if witness is not None:
                    said = [s.text for s in states if len(s.vectors) > 1 or _YES in s.agreed]
                    said += [f"{self.atoms.text(a)} {t.words}" for a, t in witness.items()]
                    return f"all completions give {wanted.words}, the evaluation gives unknown: {'; '.join(said)}"
        return ""

    def _witness(
        self, diagram: _Diagram, root: int, legal: int, states: Sequence[_State], wanted: Truth
    ) -> dict[int, Truth] | None:
        """Truths of the free atoms with which all completions agree on what the evaluation leaves unknown."""
        if all(len(s.vectors) == 1 for s in states):
            return None
        # The bands of sources that are asked one way only are as bad as they can be in any case.
        worst = diagram.follow(root, self._fixed([s.agreed for s in states], wanted))
        unsettled = diagram.both(legal, diagram.negation(worst) if wanted is _YES else worst)
        agreed = 1
        for vectors in itertools.product(*(s.vectors for s in states)):
            world = diagram.follow(root, self._fixed(vectors, wanted))
            agreed = diagram.both(agreed, world if wanted is _YES else diagram.negation(world))
            if not diagram.both(agreed, unsettled):
                return None
        # An atom that the agreement does not need may as well be unknown.
        needed = dict(diagram.path(diagram.both(agreed, unsettled)))
        for variable in list(needed):
            others = diagram.all_of(diagram.literal(v, side) for v, side in needed.items() if v != variable)
            if not diagram.both(diagram.both(others, legal), diagram.negation(agreed)):
                del needed[variable]
        atoms = {v: a for a, place in self.place.items() for v in (2 * place, 2 * place + 1)}
        return {atoms[v]: _YES if side else _NO for v, side in needed.items()}

    def _fixed(self, vectors: Sequence[Sequence[Truth]], wanted: Truth) -> dict[int, bool]:
        """The variables of atoms that are not free; unknown ones are as bad as can be for the wanted answer."""
        bad = wanted is _NO
        fixed: dict[int, bool] = {}
        truths = {a: t for g, v in zip(self.related, vectors, strict=True) for a, t in zip(g.atoms, v, strict=True)}
        settled = {a for g in self.free for a in g.atoms}
        for atom in self.place.keys() - settled:
            truth = truths.get(atom, _OPEN)
            for plain in (True, False):
                fixed[self._variable(atom, plain)] = (bad is plain) if truth is _OPEN else truth is _YES
        return fixed

    def _variable(self, atom: int, plain: bool) -> int:
        return 2 * self.place[atom] + (not plain)

    def _legal(self, diagram: _Diagram, group: _Group, wanted: Truth) -> int:
        """The truths of independent atoms together; a state in which some are unknown counts as its worst one."""
        rows = []
        for state in group.states:
            vector = self.atoms.extreme(group.atoms, state.vectors, best=wanted is _NO)
            literals = (
                diagram.literal(self._variable(a, True in self.atoms.ways[a]), t is _YES)
                for a, t in zip(group.atoms, vector, strict=True)
            )
            rows.append(diagram.all_of(literals))
        return diagram.any_of(dict.fromkeys(rows))

    def _build(self, diagram: _Diagram, node: _Node, wanted: Truth) -> int:
        if not node.children:
            return diagram.literal(self._variable(node.atom, node.plain), True)
        parts = [self._build(diagram, child, wanted) for child in node.children]
        if node.op is Op.NOT:
            return diagram.negation(parts[0])
        if node.op is Op.OPEN:
            strict, lenient = parts
            side = diagram.literal(self._variable(node.atom, node.plain), True)
            if node.plain is (wanted is _YES):
                return diagram.either(strict, diagram.both(lenient, side))
            return diagram.both(lenient, diagram.either(strict, side))
        return diagram.at_least(node.need, tuple(parts))


class _Diagram:
    """Reduced ordered binary decision diagrams; 0 and 1 are false and true."""

    def __init__(self) -> None:
        self._nodes: list[tuple[int, int, int]] = [(sys.maxsize, 0, 0), (sys.maxsize, 1, 1)]
        self._unique: dict[tuple[int, int, int], int] = {}
        self._done: dict[tuple[int, int, int], int] = {}

    def literal(self, variable: int, side: bool) -> int:
        """A variable, or its negation."""
        return self._node(variable, int(not side), int(side))

    def _node(self, variable: int, low: int, high: int) -> int:
        if low == high:
            return low
        key = (variable, low, high)
        if key not in self._unique:
            if len(self._nodes) >= MAX_NODES:
                raise _CutOffError(f"more than {MAX_NODES} nodes of a decision diagram")
            self._unique[key] = len(self._nodes)
            self._nodes.append(key)
        return self._unique[key]

    def choose(self, test: int, yes: int, no: int) -> int:
        """``yes`` where the test is true, ``no`` elsewhere."""
        if test < 2:
            return yes if test else no
        if (yes, no) == (1, 0) or yes == no:
            return test if yes != no else yes
        key = (test, yes, no)
        if key not in self._done:
            top = min(self._nodes[n][0] for n in key)
            low, high = (self.choose(*(self._side(n, top, side) for n in key)) for side in (1, 2))
            self._done[key] = self._node(top, low, high)
        return self._done[key]

    def _side(self, node: int, variable: int, side: int) -> int:
        return self._nodes[node][side] if self._nodes[node][0] == variable else node

    def both(self, a: int, b: int) -> int:
        """Conjunction."""
        return self.choose(a, b, 0)

    def either(self, a: int, b: int) -> int:
        """Disjunction."""
        return self.choose(a, 1, b)

    def negation(self, a: int) -> int:
        """Complement."""
        return self.choose(a, 0, 1)

    def all_of(self, parts: Iterable[int]) -> int:
        """Conjunction of all."""
        return functools.reduce(self.both, parts, 1)

    def any_of(self, parts: Iterable[int]) -> int:
        """Disjunction of all."""
        return functools.reduce(self.either, parts, 0)

    def at_least(self, need: int, parts: Sequence[int]) -> int:
        """At least so many of the parts."""
        if need <= 0 or need > len(parts):
            return int(need <= 0)
        rows = [1] + [0] * need
        for part in parts:
            rows = [1] + [self.choose(part, rows[n - 1], rows[n]) for n in range(1, need + 1)]
        return rows[need]

    def follow(self, node: int, fixed: Mapping[int, bool]) -> int:
        """What is left when the first variables are fixed."""
        while self._nodes[node][0] in fixed:
            node = self._nodes[node][1 + fixed[self._nodes[node][0]]]
        return node

    def path(self, node: int) -> Iterator[tuple[int, bool]]:
        """Values of variables that make a diagram true."""
        while node > 1:
            variable, low, high = self._nodes[node]
            yield variable, high != 0
            node = high or low


@dataclass(frozen=True, slots=True)
class _Node:
    """A criterion with its atoms as numbers."""

    op: Op
    children: tuple[_Node, ...] = ()
    need: int = 0
    atom: int = -1
    plain: bool = True


# -- atoms and how they hang together


@dataclass(frozen=True, slots=True)
class _Atom:
    place: str
    """The class of what is asked: patient, lesion or procedure."""
    term: str
    """A finding, a property, or the class whose source leaves a band open."""
    values: frozenset[str] = frozenset()
    range: Range | None = None


@dataclass(slots=True)
class _Atoms:
    knowledge: Knowledge
    order: list[_Atom] = field(default_factory=list)
    ways: list[set[bool]] = field(default_factory=list)
    """For each atom, whether it stands plain, negated or both."""

    def read(self, c: Criterion, place: str, *, plain: bool) -> _Node:
        """Number the atoms of a criterion."""
        if c.op is Op.LINK:
            target = self.knowledge.triples.resource(c.term, RDFS + "range") or ""
            return self.read(c.children[0], target, plain=plain)
        if not c.children:
            return _Node(c.op, atom=self._number(_Atom(place, c.term, c.values, c.range), plain), plain=plain)
        inner = plain is not (c.op is Op.NOT)
        children = tuple(self.read(child, place, plain=inner) for child in c.children)
        if c.op is Op.OPEN:
            return _Node(c.op, children, atom=self._number(_Atom(place, c.name), plain), plain=plain)
        return _Node(c.op, children, {Op.AND: len(children), Op.OR: 1}.get(c.op, c.n))

    def _number(self, atom: _Atom, plain: bool) -> int:
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
class _State:
    """What a record may say of a group: the truths of its atoms that are still possible."""

    text: str
    vectors: tuple[Vector, ...]

    @property
    def agreed(self) -> Vector:
        """For each atom the truth that all possibilities share."""
        return tuple(ts[0] if len(set(ts)) == 1 else _OPEN for ts in zip(*self.vectors, strict=True))


@dataclass(frozen=True, slots=True)
class _Group:
    """Atoms whose truths depend on one another."""

    atoms: tuple[int, ...]
    states: tuple[_State, ...]
    independent: bool
    """Whether in every state one possibility is the worst for all atoms, and one the best."""


class _Grouping:
    """The atoms of one criterion, grouped."""

    def __init__(self, atoms: _Atoms) -> None:
        self.atoms, self.k = atoms, atoms.knowledge

    def groups(self) -> list[_Group]:
        """All groups; a band that is only asked one way needs none."""
        done: set[int] = set()
        found = []
        for number in range(len(self.atoms.order)):
            if number not in done:
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
        return self._follows(a, b) or self._follows(b, a) or self._same(a, b)

    def _same(self, a: int, b: int) -> bool:
        x, y = self.atoms.order[a], self.atoms.order[b]
        return x.term == y.term and x.place == y.place

    def _follows(self, a: int, b: int) -> bool:
        """Whether finding ``a`` brings finding ``b`` with it: a superclass, also from a lesion to the patient."""
        x, y, f = self.atoms.order[a], self.atoms.order[b], self.atoms.feature(a)
        if a == b or f is None or f.kind is not Op.FINDING or y.term not in self.k.ancestors(x.term):
            return False
        return x.place == y.place or (x.place == LESION and y.place == PATIENT)

    def _group(self, numbers: tuple[int, ...]) -> _Group:
        feature = self.atoms.feature(numbers[0])
        if feature is None:
            states = [_State(f"{self.atoms.text(numbers[0])} left open", ((_NO,), (_YES,)))]
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
            raise _CutOffError(f"{len(distinct)} states of {self.atoms.text(numbers[0])}")
        harmless = all(self._one_is_worst(numbers, s) for s in distinct)
        return _Group(numbers, tuple(distinct.values()), harmless)

    def _one_is_worst(self, numbers: tuple[int, ...], vectors: tuple[Vector, ...]) -> bool:
        columns = zip(*vectors, strict=True)
        if any(len(self.atoms.ways[n]) > 1 and len(set(c)) > 1 for n, c in zip(numbers, columns, strict=True)):
            return False
        return all(self.atoms.extreme(numbers, vectors, best=best) in vectors for best in (True, False))

    # -- states of each kind of feature; the last text given to a set of possibilities is the one not used

    def _vector(self, numbers: Iterable[int], holds: Iterable[bool]) -> Vector:
        return tuple(_YES if h else _NO for _, h in zip(numbers, holds, strict=True))

    def _findings(self, numbers: tuple[int, ...]) -> Iterator[_State]:
        if 3 ** len(numbers) > MAX_STATES:
            raise _CutOffError(f"{len(numbers)} related findings with {self.atoms.text(numbers[0])}")
        follows = [(i, j) for i, a in enumerate(numbers) for j, b in enumerate(numbers) if self._follows(a, b)]
        every = [
            v for v in itertools.product((_NO, _YES), repeat=len(numbers)) if all(v[i] <= v[j] for i, j in follows)
        ]
        for said in itertools.product((_OPEN, _NO, _YES), repeat=len(numbers)):
            left = tuple(v for v in every if all(s in {_OPEN, t} for s, t in zip(said, v, strict=True)))
            names = zip(map(self.atoms.text, numbers), said, strict=True)
            if left:
                yield _State(", ".join(f"{name} {truth.words}" for name, truth in names), left)

    def _quantity(self, feature: Feature, numbers: tuple[int, ...]) -> Iterator[_State]:
        asked = [self.atoms.order[n].range for n in numbers]
        limits = sorted({b for r in asked if r for b in (r.low, r.high) if b is not None})
        between = [(a + b) / 2 for a, b in zip(limits, limits[1:], strict=False)]
        points = [limits[0] - 1, *sorted([*limits, *between]), limits[-1] + 1] if limits else [Decimal(0)]
        rows = [self._vector(numbers, (bool(r and Range.exactly(p).within(r)) for r in asked)) for p in points]
        for i, j in itertools.combinations_with_replacement(range(len(points)), 2):
            text = f"{feature.name} {points[i]}" + (f" to {points[j]}" if i < j else "")
            yield _State(text, tuple(dict.fromkeys(rows[i : j + 1])))
        nothing = self._vector(numbers, (False for _ in numbers))
        yield _State(f"{feature.name} unknown", tuple(dict.fromkeys((*rows, nothing))))

    def _choice(self, feature: Feature, numbers: tuple[int, ...]) -> Iterator[_State]:
        by_vector: dict[Vector, str] = {}
        for value in sorted(feature.values):
            vector = self._vector(numbers, (value in self.atoms.order[n].values for n in numbers))
            by_vector.setdefault(vector, local(value))
        if 2 ** len(by_vector) > MAX_STATES:
            raise _CutOffError(f"{len(by_vector)} values of {feature.name}")
        nothing = self._vector(numbers, (False for _ in numbers))
        for size in range(1, len(by_vector) + 1):
            for some in itertools.combinations(by_vector, size):
                yield _State(f"{feature.name} {' or '.join(by_vector[v] for v in some)}", some)
                if nothing not in some:
                    yield _State(f"{feature.name} {' or '.join(by_vector[v] for v in some)} or none", (*some, nothing))

    def _category(self, feature: Feature, numbers: tuple[int, ...]) -> Iterator[_State]:
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
                    raise _CutOffError(f"more than {MAX_STATES} states of {feature.name}")
                yield _State(text, tuple(possible))
                todo += [(left - below[c], f"{text} but not {local(c)}") for c in sorted(left) if c != top]
