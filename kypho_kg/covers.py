"""With which values of its features each condition of a case is met, and which values cannot stand together.

Conditions are turned into covers (``cubes.py``) over the features that are unknown, or that could be otherwise. A
value that is left open stays unknown, as it would in the record. What follows from a value through the hierarchy of
findings, closures and bridges is taken in, so that no combination is counted that the ontology rules out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from kypho_kg.candidacy import Assessment, CaseAnswer
from kypho_kg.criteria import Criterion, Op
from kypho_kg.cubes import NOTHING, Cover, Frame
from kypho_kg.evaluation import Evaluator, Proof, Truth, lesion_subject
from kypho_kg.guidelines import DECIDING
from kypho_kg.inference import VALUE_CLOSURE
from kypho_kg.knowledge import Bridge
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Cause, Fact
from kypho_kg.values import Variable, variable

Key = tuple[str, str]
"""Subject and feature."""


class Covers:
    """The variables of the clauses of one case under one guideline, and the covers of conditions over them.

    :param changing: whether also what is recorded may become otherwise, where the ontology lets it.
    :param budget: how many features may change; all, if not given.
    """

    def __init__(
        self, case: CaseAnswer, assessment: Assessment, *, changing: bool = False, budget: int | None = None
    ) -> None:
        self.case = case
        self.knowledge = case.snapshot.knowledge
        self._changing = changing
        record = case.record
        silent = record.procedure is None and all(f.subject != PROCEDURE for f in record.facts)
        # Where nothing is proposed, what would be said of a procedure is looked at as if one were.
        self._evaluator = Evaluator(
            case.snapshot, lesion_subject(case.lesion.id), has_procedure=case.in_session or silent
        )
        self._bridges: tuple[Bridge, ...] = tuple(self.knowledge.bridges.values()) if case.bridged else ()
        clauses = [c for effect in DECIDING for c in assessment.having(effect)]
        self.proofs = [(c.recommendation.effect, self._evaluator.evaluate(c.recommendation.criterion)) for c in clauses]
        self.blocked: list[Proof] = []
        """Unknown atoms that no fact can settle: they cannot be assessed, or the lesion is not in the session."""
        self.variables = self._variables()
        self._index = {(v.subject, v.feature): i for i, v in enumerate(self.variables)}
        self.frame = Frame([len(v.cells) for v in self.variables], budget)
        self._memo: dict[tuple[int, Truth], Cover] = {}
        self.open_bands: dict[str, Cover] = {}
        self._running: list[str] = []

    @property
    def exact(self) -> bool:
        """Whether all combinations were looked at."""
        return self.frame.exact

    # -- variables

    def _variables(self) -> tuple[Variable, ...]:
        asked: dict[Key, list[Criterion]] = {}
        known: set[Key] = set()
        for _, proof in self.proofs:
            for leaf in self._leaves(proof):
                key = (leaf.subject, leaf.criterion.term)
                asked.setdefault(key, []).append(leaf.criterion)
                if leaf.truth is not Truth.UNKNOWN:
                    known.add(key)
        for bridge in self._bridges:
            for c in bridge.condition.walk():
                key = (self._bearer(bridge.bearer), c.term)
                if not c.children and key in asked:
                    asked[key].append(c)
        for axiom in self.knowledge.value_closures:
            key = (self._bearer(self.knowledge.features[axiom.choice].bearer), axiom.choice)
            if key in asked:
                asked[key].append(_asks(axiom.choice, axiom.value))
        features = self.knowledge.features
        return tuple(
            variable(self.case.snapshot, subject, features[term], criteria, known=(subject, term) in known)
            for (subject, term), criteria in sorted(asked.items())
        )

    def _bearer(self, bearer: str) -> str:
        name = bearer.rpartition("#")[2]
        return {"Patient": PATIENT, "ProposedProcedure": PROCEDURE}.get(name, self._evaluator.lesion)

    def _leaves(self, proof: Proof) -> Iterator[Proof]:
        """The atoms on which the truth can turn."""
        if proof.truth is not Truth.UNKNOWN and not self._changing:
            return
        for child in proof.children:
            yield from self._leaves(child)
        if proof.children or self._is_constant(proof):
            return
        if _is_blocked(proof):
            self.blocked.append(proof)
            return
        yield proof
        for fact in proof.facts:
            yield from self._behind(fact)

    def _behind(self, fact: Fact) -> Iterator[Proof]:
        """The atoms of the bridge that yielded a fact."""
        bridge = self._bridge_of(fact)
        if bridge is not None:
            yield from self._leaves(self._evaluator.evaluate(bridge.condition, fact.subject))

    def _is_constant(self, leaf: Proof) -> bool:
        """Whether the truth of an atom stays as it is."""
        if leaf.truth is Truth.UNKNOWN:
            return False
        return not self._changing or not leaf.facts or any(map(self._is_fixed, leaf.facts))

    def _is_fixed(self, fact: Fact) -> bool:
        if fact.premises and fact.rule and (fact.rule == VALUE_CLOSURE or self._bridge_of(fact)):
            return all(map(self._is_fixed, fact.premises))
        changes = self.knowledge.features[fact.feature].changes
        present = fact.polarity == "present"
        finding = self.knowledge.features[fact.feature].kind is Op.FINDING
        return changes == "CannotChange" or (changes == "OnlyIncreases" and finding and present)

    def _bridge_of(self, fact: Fact) -> Bridge | None:
        """The bridge that yielded a fact."""
        return next((b for b in self._bridges if b.iri == fact.rule), None)

    # -- covers of conditions

    def cover(self, proof: Proof, truth: Truth) -> Cover:
        """The combinations with which a condition has a truth."""
        key = (id(proof), truth)
        if key not in self._memo:
            self._memo[key] = self._cover(proof, truth)
        return self._memo[key]

    def _cover(self, proof: Proof, truth: Truth) -> Cover:
        frame, op = self.frame, proof.criterion.op
        stays = not self._changing or (not proof.children and self._is_constant(proof))
        if proof.truth is not Truth.UNKNOWN and stays:
            return frame.everything if proof.truth is truth else NOTHING
        if not proof.children:
            return self._atom(proof, truth)
        met = truth is Truth.MET
        if op is Op.NOT:
            return self.cover(proof.children[0], Truth(2 - truth))
        if op is Op.OPEN:
            return self._open(proof, truth)
        covers = [self.cover(child, truth) for child in proof.children]
        if op is Op.LINK:
            return covers[0]
        if op is Op.AT_LEAST:
            n = proof.criterion.n
            return frame.at_least(n if met else len(covers) - n + 1, covers)
        return frame.both(*covers) if (op is Op.AND) is met else frame.either(*covers)

    def _open(self, proof: Proof, truth: Truth) -> Cover:
        strict, lenient = proof.children
        band = self.frame.both(self.cover(strict, Truth.NOT_MET), self.cover(lenient, Truth.MET))
        if band:
            self.open_bands[proof.criterion.name] = band
        return self.cover(strict, truth) if truth is Truth.MET else self.cover(lenient, truth)

    def _atom(self, leaf: Proof, truth: Truth) -> Cover:
        if _is_blocked(leaf):
            return NOTHING
        covers = [self._own(leaf, truth)]
        if leaf.criterion.op is Op.FINDING:
            covers.extend(self._through(leaf, truth))
        elif leaf.criterion.op is Op.CHOICE:
            covers.extend(self._barred(leaf, truth))
        return self.frame.either(*covers)

    def _own(self, leaf: Proof, truth: Truth) -> Cover:
        i = self._index.get((leaf.subject, leaf.criterion.term))
        if i is None:
            return NOTHING
        stays = leaf.truth is truth and not (
            leaf.criterion.op is Op.FINDING and all(self._stands_elsewhere(leaf, f) for f in leaf.facts)
        )
        if leaf.criterion.op is Op.FINDING:
            return self._finding(i, truth is Truth.MET, stays)
        return self.frame.only(i, self.variables[i].where(leaf.criterion, truth), stays=stays)

    def _finding(self, i: int, present: bool, stays: bool) -> Cover:
        """Where a finding becomes present or absent, or is so now and no other finding becomes what contradicts it."""
        k, frame, v = self.knowledge, self.frame, self.variables[i]
        changed = frame.only(i, _cells(v, present=present))
        if not stays:
            return changed
        kept = [frame.only(i, 0, stays=True)]
        for j, w in enumerate(self.variables):
            if i == j or k.features[w.feature].kind is not Op.FINDING:
                continue
            upper, lower = (w, v) if present else (v, w)
            if self._speaks_for(lower.subject, upper.subject) and k.subsumes(upper.feature, lower.feature):
                kept.append(frame.only(j, _cells(w, present=present), stays=True))
        return frame.either(changed, frame.both(*kept))

    def _stands_elsewhere(self, leaf: Proof, fact: Fact) -> bool:
        """Whether a fact by which a finding has its truth is the state of another variable, or follows from some."""
        bridge = self._bridge_of(fact)
        if bridge is not None:
            return any((fact.subject, c.term) in self._index for c in bridge.condition.walk() if not c.children)
        key = (fact.subject, fact.feature)
        return key in self._index and key != (leaf.subject, leaf.criterion.term)

    def _through(self, leaf: Proof, truth: Truth) -> Iterator[Cover]:
        """What else makes a finding present or absent: wider and narrower findings, closures, bridges."""
        k, subject, cls = self.knowledge, leaf.subject, leaf.criterion.term
        met = truth is Truth.MET
        for i, v in enumerate(self.variables):
            if k.features[v.feature].kind is not Op.FINDING or (v.subject, v.feature) == (subject, cls):
                continue
            reaches = (
                self._speaks_for(v.subject, subject) and k.subsumes(cls, v.feature)
                if met
                else self._speaks_for(subject, v.subject) and k.subsumes(v.feature, cls)
            )
            if reaches:
                stays = any((f.subject, f.feature) == (v.subject, v.feature) for f in leaf.facts if leaf.truth is truth)
                yield self._finding(i, met, stays)
        if not met:
            for axiom in k.value_closures:
                i = self._index.get((subject, axiom.choice), -1)
                if i >= 0 and k.subsumes(axiom.finding, cls):
                    yield self._value(i, axiom.value)
        if leaf.gap is not None and leaf.gap.cause is Cause.CONFLICTING:
            return  # what a bridge yields would contradict the record still
        for bridge in self._bridges:
            where = self._bearer(bridge.bearer)
            concludes = (
                not bridge.rules_out and self._speaks_for(where, subject) and k.subsumes(cls, bridge.conclusion)
                if met
                else bridge.rules_out and self._speaks_for(subject, where) and k.subsumes(bridge.conclusion, cls)
            )
            if concludes and bridge.name not in self._running:
                yield self._condition(bridge, where)

    def _value(self, i: int, value: str) -> Cover:
        """Where a choice has a value."""
        v = self.variables[i]
        cells = v.where(_asks(v.feature, value), Truth.MET)
        return self.frame.only(i, cells, stays=v.value == frozenset({value}))

    def _condition(self, bridge: Bridge, subject: str) -> Cover:
        """Where the condition of a bridge is met; one that is met already has yielded all that it can."""
        proof = self._evaluator.evaluate(bridge.condition, subject)
        if proof.truth is not Truth.UNKNOWN and not self._changing:
            return NOTHING
        self._running.append(bridge.name)
        try:
            return self._cover(proof, Truth.MET)
        finally:
            self._running.pop()

    def _barred(self, leaf: Proof, truth: Truth) -> Iterator[Cover]:
        """A present finding rules out the value of a choice that excludes it."""
        i = self._index.get((leaf.subject, leaf.criterion.term), -1)
        for axiom in self.knowledge.value_closures:
            j = self._index.get((leaf.subject, axiom.finding), -1)
            if axiom.choice != leaf.criterion.term or i < 0 or j < 0:
                continue
            v = self.variables[i]
            left = v.where(_asks(axiom.choice, axiom.value), Truth.NOT_MET)
            if left and not left & ~v.where(leaf.criterion, truth):
                yield self.frame.only(j, _cells(self.variables[j], present=True))

    @staticmethod
    def _speaks_for(owner: str, subject: str) -> bool:
        """Whether a finding of the owner is one of the subject: what a lesion has, the patient has."""
        return owner == subject or (subject == PATIENT and owner.startswith(LESION))

    # -- what cannot be

    @functools.cached_property
    def impossible(self) -> Cover:
        """The combinations that the ontology rules out."""
        k, frame = self.knowledge, self.frame
        rows: list[Cover] = []
        findings = [(i, v) for i, v in enumerate(self.variables) if k.features[v.feature].kind is Op.FINDING]
        for i, v in findings:
            absent = frame.only(i, _cells(v, present=False))
            for j, w in findings:
                if i != j and self._speaks_for(w.subject, v.subject) and k.subsumes(v.feature, w.feature):
                    rows.append(frame.both(absent, frame.only(j, _cells(w, present=True))))
            for axiom in k.value_closures:
                j = self._index.get((v.subject, axiom.choice), -1)
                if j >= 0 and k.subsumes(axiom.finding, v.feature):
                    rows.append(frame.both(self._value(j, axiom.value), frame.only(i, _cells(v, present=True))))
        for bridge in self._bridges:
            rows.append(self._against(bridge))
        return frame.either(*rows)

    def _against(self, bridge: Bridge) -> Cover:
        """Where a bridge holds and what it concludes is recorded otherwise."""
        k, frame = self.knowledge, self.frame
        where = self._bearer(bridge.bearer)
        proof = self._evaluator.evaluate(bridge.condition, where)
        holds = proof.truth is Truth.MET and not self._changing
        cover = frame.everything if holds else self._condition(bridge, where)
        if not cover:
            return NOTHING
        denied = []
        recorded = (
            self.case.snapshot.supports(where, bridge.conclusion)
            if bridge.rules_out
            else self.case.snapshot.refutations(where, bridge.conclusion)
        )
        if recorded and all(map(self._is_settled, recorded)):
            denied.append(frame.everything)
        for i, v in enumerate(self.variables):
            if k.features[v.feature].kind is not Op.FINDING:
                continue
            if bridge.rules_out:
                hit = self._speaks_for(v.subject, where) and k.subsumes(bridge.conclusion, v.feature)
            else:
                hit = self._speaks_for(where, v.subject) and k.subsumes(v.feature, bridge.conclusion)
            if hit:
                known = self.case.snapshot.supports if bridge.rules_out else self.case.snapshot.refutations
                stays = bool(known(v.subject, v.feature))
                denied.append(frame.only(i, _cells(v, present=bridge.rules_out), stays=stays))
        return frame.both(cover, frame.either(*denied)) if denied else NOTHING

    def _is_settled(self, fact: Fact) -> bool:
        """Whether no variable stands for the fact."""
        return (fact.subject, fact.feature) not in self._index


def _is_blocked(leaf: Proof) -> bool:
    """Whether no fact can settle an atom."""
    gap = leaf.gap
    return gap is not None and (leaf.criterion.op is Op.LINK or gap.cause is Cause.NOT_ASSESSABLE)


def _asks(choice: str, value: str) -> Criterion:
    """The condition that a choice has a value."""
    return Criterion(Op.CHOICE, term=choice, values=frozenset({value}))


def _cells(v: Variable, *, present: bool) -> int:
    return sum(1 << i for i, cell in enumerate(v.cells) if cell.present is present)
