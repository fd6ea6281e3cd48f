"""A second opinion in pure Python: a clause holds if it holds in every completion of what is recorded.

A completion gives each functional feature one value or none (no axiom says that a value exists), each subject a set of
findings that is closed upwards and from lesion to patient, and each open band a side. The oracle shares the criterion
trees with the engine and nothing of its logic.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Truth
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import PATIENT, PROCEDURE, Range
from kypho_kg.snapshot import Snapshot
from kypho_kg.vocabulary import KYPHO, SUBCLASS

OTHER = "another procedure"
"""The procedure of a case that proposes none: it may exist, and nothing is known of it."""
Key = tuple[str, str]
Item = Decimal | str | None


class BudgetError(Exception):
    """The search took too many steps to answer."""


@dataclass
class World:
    """A completion as far as it is chosen."""

    proposed: bool | None
    domains: dict[Key, tuple[Item, ...]] = field(default_factory=dict)
    findings: dict[Key, bool] = field(default_factory=dict)
    bands: dict[str, bool] = field(default_factory=dict)

    def copy(self) -> World:
        return World(self.proposed, dict(self.domains), dict(self.findings), dict(self.bands))


class Worlds:
    """The completions of one case."""

    def __init__(self, snapshot: Snapshot, lesion: str, *, in_session: bool, steps: int = 20_000) -> None:
        self.snapshot, self.k = snapshot, snapshot.knowledge
        self.lesion, self.steps = lesion, steps
        self.procedure = PROCEDURE if in_session else OTHER
        self.thresholds = thresholds(self.k)
        self.start = World(True if in_session else None)
        for facts_of, present in ((snapshot.present, True), (snapshot.absent, False)):
            for subject, facts in facts_of.items():
                for fact in facts:
                    self._assign(self.start, subject, fact.feature, present)

    def truth(self, tree: Criterion) -> Truth:
        """What holds of the case in all completions."""
        if not self._possible(tree, False):
            return Truth.MET
        return Truth.UNKNOWN if self._possible(tree, True) else Truth.NOT_MET

    def _possible(self, tree: Criterion, wanted: bool) -> bool:
        """Whether the tree has this truth in some completion."""
        self._left = self.steps
        return self._search(tree, wanted, self.start.copy())

    def _search(self, tree: Criterion, wanted: bool, world: World) -> bool:
        self._left -= 1
        if not self._left:
            raise BudgetError
        value, choice = self._value(tree, "", world)
        if value is not None:
            return value is wanted
        assert choice is not None
        return any(self._search(tree, wanted, next_) for next_ in self._branches(world, *choice))

    def _branches(self, world: World, kind: str, subject: str, what: str) -> Iterator[World]:
        if kind == "value":
            for item in self._domain(world, subject, what):
                next_ = world.copy()
                next_.domains[subject, what] = (item,)
                if self._chosen(next_, subject, what, item):
                    yield next_
            return
        for side in (False, True):
            next_ = world.copy()
            if kind == "link":
                next_.proposed = side
            elif kind == "band":
                next_.bands[what] = side
            elif not self._found(next_, subject, what, side):
                continue
            yield next_

    # -- three-valued evaluation of a completion that is not all chosen; with an unknown comes what to choose next

    def _value(self, c: Criterion, subject: str, w: World) -> tuple[bool | None, tuple[str, str, str] | None]:
        if c.op is Op.LINK:
            name = c.term.removeprefix(KYPHO)
            if name == "forProcedure" and not w.proposed:
                return w.proposed, ("link", "", "")
            return self._value(
                c.children[0],
                {"concernsPatient": PATIENT, "indexLesion": self.lesion, "forProcedure": self.procedure}[name],
                w,
            )
        if not c.children:
            return self._atom(c, subject, w)
        parts = [self._value(child, subject, w) for child in c.children]
        values = [value for value, _ in parts]
        choice = next((choice for value, choice in parts if value is None), None)
        if c.op is Op.NOT:
            return None if values[0] is None else not values[0], choice
        if c.op is Op.OPEN:
            strict, lenient = values
            if strict or lenient is False:
                return bool(strict), None
            return (None, choice) if choice else (w.bands.get(c.name), ("band", "", c.name))
        need = {Op.AND: len(values), Op.OR: 1, Op.AT_LEAST: c.n}[c.op]
        yes, maybe = values.count(True), values.count(None)
        return True if yes >= need else None if yes + maybe >= need else False, choice

    def _atom(self, c: Criterion, subject: str, w: World) -> tuple[bool | None, tuple[str, str, str] | None]:
        if c.op is Op.FINDING:
            return w.findings.get((subject, c.term)), ("finding", subject, c.term)
        answers = {self._holds(c, item) for item in self._domain(w, subject, c.term)}
        return answers.pop() if len(answers) == 1 else None, ("value", subject, c.term)

    def _holds(self, c: Criterion, item: Item) -> bool:
        if item is None:
            return False
        if c.op is Op.QUANTITY:
            assert isinstance(item, Decimal)
            assert c.range is not None
            return _in(item, c.range)
        if c.op is Op.CHOICE:
            return item in c.values
        return next(iter(c.values)) in upward(self.k, str(item))

    # -- what a record leaves open

    def _domain(self, w: World, subject: str, feature: str) -> tuple[Item, ...]:
        key = (subject, feature)
        if key not in w.domains:
            barred = {
                c.value for c in self.k.value_closures if c.choice == feature and w.findings.get((subject, c.finding))
            }
            w.domains[key] = tuple(i for i in self._recorded(subject, feature) if i not in barred)
        return w.domains[key]

    def _recorded(self, subject: str, feature: str) -> tuple[Item, ...]:
        f = self.k.features[feature]
        state = self.snapshot.values.get((subject, feature))
        value = state.value if state else None
        out = set(state.ruled_out) if state else set()
        if f.kind is Op.QUANTITY:
            assert value is None or isinstance(value, Range)
            points = samples(self.thresholds[feature], value)
            return (*points, None) if value is None else tuple(p for p in points if _in(p, value))
        if f.kind is Op.CHOICE:
            left = tuple(v for v in sorted(f.values) if v not in out and (not value or v in value))
        else:
            left = tuple(
                c for c in sorted(f.values) if not upward(self.k, c) & out and (not value or value in upward(self.k, c))
            )
        return left if value else (*left, None)

    # -- consequences of a choice

    def _found(self, w: World, subject: str, cls: str, present: bool) -> bool:
        self._assign(w, subject, cls, present)
        for closure in self.k.value_closures if present else ():
            if w.findings.get((subject, closure.finding)):
                left = tuple(i for i in self._domain(w, subject, closure.choice) if i != closure.value)
                w.domains[subject, closure.choice] = left
                if not left:
                    return False
        return True

    def _chosen(self, w: World, subject: str, feature: str, item: Item) -> bool:
        for closure in self.k.value_closures:
            if closure.choice == feature and closure.value == item:
                if w.findings.get((subject, closure.finding)):
                    return False
                self._assign(w, subject, closure.finding, False)
        return True

    def _assign(self, w: World, subject: str, cls: str, present: bool) -> None:
        """With a finding come its superclasses and, of a lesion, the patient's; with an absence the reverse."""
        lesions = self.snapshot.subjects()[1:]
        if present:
            owners = (subject, PATIENT) if subject in lesions else (subject,)
        else:
            owners = (PATIENT, *lesions) if subject == PATIENT else (subject,)
        for owner in owners:
            for each in upward(self.k, cls) if present else downward(self.k, cls):
                known = w.findings.setdefault((owner, each), present)
                assert known is present, f"{owner} {each}: present and absent"


@functools.cache
def upward(knowledge: Knowledge, cls: str) -> frozenset[str]:
    """A class and its superclasses, by the triples alone."""
    found, todo = set(), [cls]
    while todo:
        each = todo.pop()
        found.add(each)
        todo += [p for p in knowledge.triples.resources(each, SUBCLASS) if p not in found]
    return frozenset(found)


@functools.cache
def downward(knowledge: Knowledge, cls: str) -> frozenset[str]:
    """A class and its subclasses."""
    return frozenset(c for c in knowledge.features if cls in upward(knowledge, c)) | {cls}


def trees(knowledge: Knowledge) -> dict[str, Criterion]:
    """Every class by which a guideline judges: conditions, readings and eligibility classes."""
    found: dict[str, Criterion] = {}
    for guideline in knowledge.guidelines.values():
        for recommendation in guideline.recommendations:
            found[recommendation.criterion.name] = recommendation.criterion
            for node in recommendation.criterion.walk():
                if node.op is Op.OPEN:
                    found.update({child.name: child for child in node.children})
        for iri in (guideline.eligible, guideline.eligible_and_clear):
            if iri:
                found[iri] = knowledge.criterion(iri)
    return found


@functools.cache
def thresholds(knowledge: Knowledge) -> dict[str, tuple[Decimal, ...]]:
    """The limits of each quantity that a criterion asks for, bridges and policies included."""
    found: dict[str, set[Decimal]] = {f.iri: set() for f in knowledge.features.values() if f.kind is Op.QUANTITY}
    conditions = [b.condition for b in knowledge.bridges.values()]
    conditions += [c.condition for p in knowledge.policies.values() for c in p.closures]
    for tree in (*trees(knowledge).values(), *conditions):
        for node in tree.walk():
            if node.range:
                found[node.term].update(b for b in (node.range.low, node.range.high) if b is not None)
    return {iri: tuple(sorted(limits)) for iri, limits in found.items()}


def samples(limits: tuple[Decimal, ...], value: Range | None = None) -> list[Decimal]:
    """One number for each limit and for each gap between limits and the bounds of a recorded range."""
    bounds = [b for b in (value.low, value.high) if b is not None] if value else []
    marks = sorted({*limits, *bounds}) or [Decimal(0)]
    between = [(a + b) / 2 for a, b in itertools.pairwise(marks)]
    return [marks[0] - 1, *sorted({*marks, *between}), marks[-1] + 1]


def _in(value: Decimal, r: Range) -> bool:
    low = r.low is None or value > r.low or (value == r.low and not r.low_open)
    return low and (r.high is None or value < r.high or (value == r.high and not r.high_open))
