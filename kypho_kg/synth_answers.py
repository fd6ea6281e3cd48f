"""Facts that force a truth of a clause, derived from its criterion tree: answers that are known by construction.

The cubes of a condition (``cubes.py``) are its sufficient sets of states of features. A recipe records one state for
each feature of a cube. Whatever else could bear on the clause - wider and narrower findings, what bridges and scores
read, what a quantity is derived from - is cleared, so that nothing else decides. That a recipe holds is computed here
from the tree alone; tests hold the single-case engine to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from kypho_kg.criteria import Criterion, Op
from kypho_kg.cubes import Cover, Frame
from kypho_kg.evaluation import Truth
from kypho_kg.guidelines import Recommendation
from kypho_kg.knowledge import Bridge, Knowledge
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Lesion, Procedure, Range, Record
from kypho_kg.scores import read_scores
from kypho_kg.snapshot import resolve
from kypho_kg.synth_rows import LESIONS
from kypho_kg.values import Variable, variable
from kypho_kg.vocabulary import LESION as LESION_CLASS
from kypho_kg.vocabulary import PATIENT as PATIENT_CLASS
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS
from kypho_kg.vocabulary import local

Key = tuple[str, str]
"""Subject and feature."""
INDEX_LESION = LESION + LESIONS[0]
"""The subject of the lesion that a recipe is about."""
_LINKS = {"concernsPatient": PATIENT, "indexLesion": INDEX_LESION, "forProcedure": PROCEDURE}
_BEARERS = {PATIENT_CLASS: PATIENT, LESION_CLASS: INDEX_LESION, PROCEDURE_CLASS: PROCEDURE}
_CUBES, _VARIANTS = 12, 4
"""Cubes that are tried, and recipes that are kept, of each clause and truth."""


@dataclass(frozen=True, slots=True)
class State:
    """What a recipe records of a feature; with none of it, that it is indeterminate."""

    present: bool | None = None
    range: Range | None = None
    values: frozenset[str] = frozenset()
    cls: str = ""
    excluded: frozenset[str] = frozenset()

    @property
    def known(self) -> bool:
        """Whether it says anything."""
        return self.present is not None


@dataclass(frozen=True, slots=True)
class Recipe:
    """The states that force a truth of a clause, and the features that must not be recorded beside them."""

    clause: str
    truth: Truth
    states: Mapping[Key, State]
    clears: frozenset[str]


class Question:
    """One clause: which states give it which truth."""

    def __init__(self, k: Knowledge, criterion: Criterion) -> None:
        self.k = k
        self.criterion = criterion
        asked: dict[Key, list[Criterion]] = {}
        for subject, atom in _atoms(criterion, ""):
            asked.setdefault((subject, atom.term), []).append(atom)
        record = Record("", (Lesion(LESIONS[0]),), (), Procedure())
        snapshot = resolve(record, k, date(2000, 1, 1))
        self.variables: list[Variable] = [
            variable(snapshot, subject, k.features[term], atoms, known=False)
            for (subject, term), atoms in sorted(asked.items())
        ]
        self.index = {(v.subject, v.feature): i for i, v in enumerate(self.variables)}
        self.frame = Frame([len(v.cells) for v in self.variables])

    # -- cubes

    def cover(self, c: Criterion, truth: Truth, subject: str = "") -> Cover:
        """The combinations of states with which a condition has a truth."""
        met = truth is Truth.MET
        if not c.children:
            i = self.index[subject, c.term]
            return self.frame.only(i, self.variables[i].where(c, truth))
        if c.op is Op.LINK:
            return self.cover(c.children[0], truth, _LINKS[local(c.term)])
        if c.op is Op.NOT:
            return self.cover(c.children[0], Truth(2 - truth), subject)
        if c.op is Op.OPEN:
            return self.cover(c.children[0 if met else 1], truth, subject)
        covers = [self.cover(child, truth, subject) for child in c.children]
        if c.op is Op.AT_LEAST:
            return self.frame.at_least(c.n if met else len(covers) - c.n + 1, covers)
        return self.frame.both(*covers) if (c.op is Op.AND) is met else self.frame.either(*covers)

    def bands(self, c: Criterion, subject: str = "") -> Iterator[Cover]:
        """Where a band that the source left open keeps a condition unknown."""
        inner = _LINKS[local(c.term)] if c.op is Op.LINK else subject
        if c.op is Op.OPEN:
            strict, lenient = c.children
            yield self.frame.both(self.cover(strict, Truth.NOT_MET, subject), self.cover(lenient, Truth.MET, subject))
        for child in c.children:
            yield from self.bands(child, inner)

    def states(self, cover: Cover) -> Iterator[dict[Key, State]]:
        """Some ways to record the cubes of a cover, the smallest first, with values at the limits."""
        cubes = sorted(cover, key=lambda cube: (self.frame.cost(cube), cube))[:_CUBES]
        for turn, cube in itertools.product(range(_VARIANTS), cubes):
            found: dict[Key, State] = {}
            for i in self.frame.numbers(self.frame.changed(cube)):
                v = self.variables[i]
                cells = v.cells_of(self.frame.cells(cube, i))
                # A value says more than a class without some of its subclasses.
                cells = tuple(sorted(cells, key=lambda cell: len(cell.excluded)))
                cell = cells[turn % len(cells)]
                sample = cell.samples()[turn // len(cells) % len(cell.samples())]
                found[v.subject, v.feature] = State(
                    cell.present,
                    sample if isinstance(sample, Range) else None,
                    sample if isinstance(sample, frozenset) else frozenset(),
                    sample if isinstance(sample, str) else "",
                    cell.excluded,
                )
            yield found


def _atoms(c: Criterion, subject: str) -> Iterator[tuple[str, Criterion]]:
    if not c.children:
        yield subject, c
    inner = _LINKS[local(c.term)] if c.op is Op.LINK else subject
    for child in c.children:
        yield from _atoms(child, inner)


# --------------------------------------------------------------------------------------------------------------------
# What states imply


class Holding:
    """The truth of conditions where some states are recorded and nothing else is."""

    def __init__(self, k: Knowledge, states: Mapping[Key, State]) -> None:
        self.k = k
        self.states = dict(states)
        self.consistent = True
        for bridge in self._bridged():
            key = (_BEARERS[bridge.bearer], bridge.conclusion)
            known = self.states.setdefault(key, State(not bridge.rules_out))
            self.consistent &= known.present is not bridge.rules_out
        present, absent = ([key for key, s in self.states.items() if self._is_finding(key) and s.present is said]
                           for said in (True, False))  # fmt: skip
        self.consistent &= not any(_speaks(p[0], a[0]) and k.subsumes(a[1], p[1]) for p in present for a in absent)
        for axiom in k.value_closures:
            choice = (_BEARERS[k.features[axiom.choice].bearer], axiom.choice) in self.states
            self.consistent &= not (choice and any(self._related(axiom.finding, f) for _, f in self.states))

    def _bridged(self) -> Iterator[Bridge]:
        done: set[str] = set()
        while True:
            new = [b for b in self.k.bridges.values() if b.name not in done
                   and self.truth(b.condition, _BEARERS[b.bearer]) is Truth.MET]  # fmt: skip
            if not new:
                return
            done |= {b.name for b in new}
            yield from new

    def _is_finding(self, key: Key) -> bool:
        return self.k.features[key[1]].kind is Op.FINDING

    def _related(self, a: str, b: str) -> bool:
        return self.k.subsumes(a, b) or self.k.subsumes(b, a)

    def truth(self, c: Criterion, subject: str = "") -> Truth:
        """The truth of a condition by Kleene's tables."""
        if not c.children:
            return self._finding(c, subject) if c.op is Op.FINDING else self._value(c, subject)
        if c.op is Op.LINK:
            return self.truth(c.children[0], _LINKS[local(c.term)])
        truths = [self.truth(child, subject) for child in c.children]
        if c.op is Op.NOT:
            return Truth(2 - truths[0])
        if c.op is Op.AT_LEAST:
            ordered = sorted(truths, reverse=True)
            return ordered[c.n - 1]
        if c.op is Op.OPEN:
            strict, lenient = truths
            return strict if strict is Truth.MET else lenient if lenient is Truth.NOT_MET else Truth.UNKNOWN
        return min(truths) if c.op is Op.AND else max(truths)

    def _finding(self, c: Criterion, subject: str) -> Truth:
        for (owner, feature), state in self.states.items():
            if not self._is_finding((owner, feature)) or not state.known:
                continue
            if state.present and _speaks(owner, subject) and self.k.subsumes(c.term, feature):
                return Truth.MET
            if not state.present and _speaks(subject, owner) and self.k.subsumes(feature, c.term):
                return Truth.NOT_MET
        return Truth.UNKNOWN

    def _value(self, c: Criterion, subject: str) -> Truth:
        state = self.states.get((subject, c.term), State())
        if c.range is not None and state.range is not None:
            if state.range.within(c.range):
                return Truth.MET
            return Truth.UNKNOWN if state.range.intersection(c.range) else Truth.NOT_MET
        if c.op is Op.CHOICE and state.values:
            if state.values <= c.values:
                return Truth.MET
            return Truth.UNKNOWN if state.values & c.values else Truth.NOT_MET
        if c.op is Op.CATEGORY and state.cls:
            asked = next(iter(c.values))
            if self.k.subsumes(asked, state.cls):
                return Truth.MET
            out = any(self.k.subsumes(x, asked) for x in state.excluded)
            return Truth.NOT_MET if out or self.k.disjoint(asked, state.cls) else Truth.UNKNOWN
        return Truth.UNKNOWN


def _speaks(owner: str, subject: str) -> bool:
    """Whether a finding of the owner is one of the subject: what a lesion has, the patient has."""
    return owner == subject or (subject == PATIENT and owner.startswith(LESION))


# --------------------------------------------------------------------------------------------------------------------
# Recipes


def bearing(k: Knowledge, features: Iterable[str]) -> frozenset[str]:
    """All features that can bear on the states of some: by the hierarchy, closures, bridges, scores and derivations."""
    scores = {s.quantity: s for s in read_scores(k)}
    done: set[str] = set()
    todo = list(features)
    while todo:
        iri = todo.pop()
        feature = k.features.get(iri)
        if iri in done or feature is None:
            continue
        done.add(iri)
        if feature.kind is Op.FINDING:
            todo += [f for f in k.features if k.subsumes(iri, f) or k.subsumes(f, iri)]
            todo += [a.choice for a in k.value_closures if a.finding == iri]
            for bridge in k.bridges.values():
                if bridge.conclusion == iri:
                    todo += [c.term for c in bridge.condition.walk() if not c.children]
        todo += [a.finding for a in k.value_closures if a.choice == iri]
        todo += [feature.derived_from] if feature.derived_from else []
        if iri in scores:
            score = scores[iri]
            conditions = (score.scope, *(o.condition for item in score.items for o in item.options))
            todo += [c.term for condition in conditions for c in condition.walk() if not c.children]
    return frozenset(done)


def recipes(k: Knowledge, recommendation: Recommendation) -> Iterator[Recipe]:
    """Ways to force each truth of a clause, as far as they can be found; a truth that none forces is left out."""
    c = recommendation.criterion
    question = Question(k, c)
    terms = [v.feature for v in question.variables]
    clears = bearing(k, terms)
    sure: dict[Truth, list[dict[Key, State]]] = {}
    for truth in (Truth.MET, Truth.NOT_MET):
        sure[truth] = _distinct(
            s for s in question.states(question.cover(c, truth)) if _gives(k, s, c, truth)
        )  # fmt: skip

    def unsure() -> Iterator[dict[Key, State]]:
        for band in question.bands(c):
            yield from question.states(band)
        for full in (s for pair in itertools.zip_longest(*sure.values()) for s in pair if s):
            for key in full:
                rest = {k_: s for k_, s in full.items() if k_ != key}
                yield rest
                yield rest | {key: State()}
        yield {}

    wanted = (s for s in unsure() if not _derivable(k, clears, s))
    sure[Truth.UNKNOWN] = _distinct(s for s in wanted if _gives(k, s, c, Truth.UNKNOWN))
    for truth, found in sure.items():
        for states in found:
            yield Recipe(recommendation.id, truth, states, clears)


def _derivable(k: Knowledge, features: Iterable[str], states: Mapping[Key, State]) -> bool:
    """Whether a quantity that is left out could follow from what is recorded, or from the record as such."""
    said = {f for _, f in states}
    scores = {s.quantity: s for s in read_scores(k)}
    for iri in features:
        feature = k.features[iri]
        if iri in said or not feature.derived_by:
            continue
        if iri in scores:
            items = (o.condition for item in scores[iri].items for o in item.options)
            if any(c.term in said for condition in items for c in condition.walk() if not c.children):
                return True
        elif not feature.derived_from or any(k.subsumes(feature.derived_from, f) for f in said):
            return True
    return False


def _gives(k: Knowledge, states: Mapping[Key, State], c: Criterion, truth: Truth) -> bool:
    holding = Holding(k, states)
    return holding.consistent and holding.truth(c) is truth


def _distinct(found: Iterator[dict[Key, State]]) -> list[dict[Key, State]]:
    kept: list[dict[Key, State]] = []
    for states in itertools.islice(found, 200):
        if states not in kept:
            kept.append(states)
        if len(kept) == _VARIANTS:
            break
    return kept
