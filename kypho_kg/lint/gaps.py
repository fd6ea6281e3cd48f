"""Where three-valued evaluation says less than the reasoner (docs/engines.md).

Evaluating operand by operand loses nothing as long as one completion of a record makes all unknown atoms as bad as
they can be for a criterion, and one as good. It may lose where an atom stands plain and negated, or where unknown atoms
hang together: values of one choice or category, ranges of one quantity, a finding and its superclass. For each such
group every state that a record can leave it in is tried, with all values of the other atoms, in search of an answer
that all completions share and the evaluation does not give.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Truth
from kypho_kg.knowledge import Knowledge
from kypho_kg.lint.diagram import CutOffError, Diagram
from kypho_kg.lint.states import NO, OPEN, YES, Atoms, Group, Grouping, Node, State
from kypho_kg.reasoning import classes_of
from kypho_kg.vocabulary import CASE, local

MAX_COMBINATIONS = 100_000
"""How many combinations of states of related atoms are tried for one criterion."""


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
    except CutOffError as reason:
        return [LintFinding(iri, Kind.BOUND, f"not fully checked: {reason}")]
    return [LintFinding(iri, Kind.GAP, message)] if message else []


class _Search:
    """Looks for a gap of one criterion.

    The criterion becomes a decision diagram in which an atom that stands plain and negated has a variable for each, so
    that the same diagram gives what completions say (both alike) and what the evaluation says (both at their worst).
    """

    def __init__(self, knowledge: Knowledge, tree: Criterion, bearer: str) -> None:
        self.atoms = Atoms(knowledge)
        self.tree = self.atoms.read(tree, bearer, plain=True)
        groups = Grouping(self.atoms).groups()
        self.related = [g for g in groups if not g.independent]
        self.free = [g for g in groups if g.independent]
        # What the states of related atoms fix comes first, so that fixing it is following a path from the root.
        settled = {a for g in self.free for a in g.atoms}
        order = sorted(range(len(self.atoms.order)), key=lambda a: a in settled)
        self.place = {atom: place for place, atom in enumerate(order)}
        self.fixed = self.place.keys() - settled

    def run(self) -> str:
        """A message with the witness of the first gap, or nothing."""
        combinations = math.prod(len(g.states) for g in self.related)
        if combinations > MAX_COMBINATIONS:
            raise CutOffError(f"{combinations} combinations of states of related atoms")
        for wanted in (YES, NO):
            diagram = Diagram()
            root = self._build(diagram, self.tree, wanted)
            legal = diagram.all_of(self._legal(diagram, g, wanted) for g in self.free)
            for states in itertools.product(*(g.states for g in self.related)):
                witness = self._witness(diagram, root, legal, states, wanted)
                if witness is not None:
                    said = [s.text for s in states if len(s.vectors) > 1 or YES in s.agreed]
                    said += [f"{self.atoms.text(a)} {t.words}" for a, t in witness.items()]
                    return f"all completions give {wanted.words}, the evaluation gives unknown: {'; '.join(said)}"
        return ""

    def _witness(
        self, diagram: Diagram, root: int, legal: int, states: Sequence[State], wanted: Truth
    ) -> dict[int, Truth] | None:
        """Truths of the free atoms with which all completions agree on what the evaluation leaves unknown."""
        if all(len(s.vectors) == 1 for s in states):
            return None
        # The bands of sources that are asked one way only are as bad as they can be in any case.
        worst = diagram.follow(root, self._fixed([s.agreed for s in states], wanted))
        unsettled = diagram.both(legal, diagram.negation(worst) if wanted is YES else worst)
        agreed = 1
        for vectors in itertools.product(*(s.vectors for s in states)):
            world = diagram.follow(root, self._fixed(vectors, wanted))
            agreed = diagram.both(agreed, world if wanted is YES else diagram.negation(world))
            if not diagram.both(agreed, unsettled):
                return None
        # An atom that the agreement does not need may as well be unknown.
        needed = dict(diagram.path(diagram.both(agreed, unsettled)))
        for variable in list(needed):
            others = diagram.all_of(diagram.literal(v, side) for v, side in needed.items() if v != variable)
            if not diagram.both(diagram.both(others, legal), diagram.negation(agreed)):
                del needed[variable]
        atoms = {v: a for a, place in self.place.items() for v in (2 * place, 2 * place + 1)}
        return {atoms[v]: YES if side else NO for v, side in needed.items()}

    def _fixed(self, vectors: Sequence[Sequence[Truth]], wanted: Truth) -> dict[int, bool]:
        """The variables of atoms that are not free; unknown ones are as bad as can be for the wanted answer."""
        bad = wanted is NO
        fixed: dict[int, bool] = {}
        truths = {a: t for g, v in zip(self.related, vectors, strict=True) for a, t in zip(g.atoms, v, strict=True)}
        for atom in self.fixed:
            truth = truths.get(atom, OPEN)
            for plain in (True, False):
                fixed[self._variable(atom, plain)] = (bad is plain) if truth is OPEN else truth is YES
        return fixed

    def _variable(self, atom: int, plain: bool) -> int:
        return 2 * self.place[atom] + (not plain)

    def _legal(self, diagram: Diagram, group: Group, wanted: Truth) -> int:
        """The truths of independent atoms together; a state in which some are unknown counts as its worst one."""
        rows = []
        for state in group.states:
            vector = self.atoms.extreme(group.atoms, state.vectors, best=wanted is NO)
            literals = (
                diagram.literal(self._variable(a, plain), t is YES)
                for a, t in zip(group.atoms, vector, strict=True)
                for plain in self.atoms.ways[a]
            )
            rows.append(diagram.all_of(literals))
        return diagram.any_of(dict.fromkeys(rows))

    def _build(self, diagram: Diagram, node: Node, wanted: Truth) -> int:
        if not node.children:
            return diagram.literal(self._variable(node.atom, node.plain), True)
        parts = [self._build(diagram, child, wanted) for child in node.children]
        if node.op is Op.NOT:
            return diagram.negation(parts[0])
        if node.op is Op.OPEN:
            strict, lenient = parts
            side = diagram.literal(self._variable(node.atom, node.plain), True)
            if node.plain is (wanted is YES):
                return diagram.either(strict, diagram.both(lenient, side))
            return diagram.both(lenient, diagram.either(strict, side))
        return diagram.at_least(node.need, tuple(parts))
