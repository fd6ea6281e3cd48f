"""Facts that rules add to a snapshot: bridges, closures of values, and assumption policies.

Each added fact carries the rule and the facts it rests on, so that an answer can list what was bridged or assumed,
and the verdict without it can stand beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date

from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Evaluator, Proof, Truth
from kypho_kg.knowledge import Bridge, Knowledge, Policy
from kypho_kg.record import PROCEDURE, Cause, Fact, Polarity, Record, Source, TimeSpan
from kypho_kg.scores import read_scores, with_scores
from kypho_kg.snapshot import Snapshot, resolve
from kypho_kg.state import Gap, Resolved
from kypho_kg.vocabulary import KYPHO
from kypho_kg.vocabulary import PATIENT as PATIENT_CLASS
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS

VALUE_CLOSURE = KYPHO + "ClosureOfValue"


def infer(
    record: Record, knowledge: Knowledge, as_of: date, *, bridges: Iterable[Bridge], policies: Iterable[Policy] = ()
) -> Snapshot:
    """Resolve a record and add what bridges, closures and the chosen policies yield.

    Bridges may feed one another, so they run until nothing is added; each yields a finding at most once.
    """
    bridges = tuple(bridges)
    added: tuple[Fact, ...] = ()
    snapshot = _scored(record, knowledge, as_of, added)
    while True:
        new = tuple(_bridged(snapshot, bridges, added))
        if not new:
            break
        added += new
        snapshot = _scored(record, knowledge, as_of, added)
    snapshot, added = _close_values(snapshot, added)
    for policy in policies:
        added += tuple(_assumed(snapshot, policy))
        snapshot = _close_values(_scored(record, knowledge, as_of, added), added)[0]
    return snapshot


def _scored(record: Record, knowledge: Knowledge, as_of: date, added: tuple[Fact, ...]) -> Snapshot:
    return with_scores(resolve(record, knowledge, as_of, added), read_scores(knowledge))


def _subjects(snapshot: Snapshot, bearer: str) -> tuple[str, ...]:
    if bearer == PROCEDURE_CLASS:
        return (PROCEDURE,) if snapshot.record.procedure else ()
    subjects = snapshot.subjects()
    return subjects[:1] if bearer == PATIENT_CLASS else subjects[1:]


def _holds(snapshot: Snapshot, condition: Criterion, subject: str) -> tuple[Fact, ...] | None:
    """The facts by which a subject meets a condition, or ``None``."""
    proof = Evaluator(snapshot, "", has_procedure=False).evaluate(condition, subject)
    if proof.truth is not Truth.MET:
        return None
    return tuple(dict.fromkeys(_premises(proof, Truth.MET)))


def _premises(proof: Proof, wanted: Truth) -> Iterator[Fact]:
    if proof.criterion.op is Op.NOT:
        wanted = Truth(2 - wanted)
    for child in proof.children:
        yield from _premises(child, wanted)
    if not proof.children and proof.truth is wanted:
        yield from proof.facts


def _bridged(snapshot: Snapshot, bridges: Iterable[Bridge], added: tuple[Fact, ...]) -> Iterator[Fact]:
    done = {(f.subject, f.rule) for f in added}
    for bridge in bridges:
        for subject in _subjects(snapshot, bridge.bearer):
            if (subject, bridge.iri) in done:
                continue
            premises = _holds(snapshot, bridge.condition, subject)
            if premises:
                newest = max(premises, key=lambda f: (f.time or TimeSpan.of(snapshot.as_of)).end)
                source = Source(f"bridge {bridge.name}: {bridge.label}")
                yield Fact(
                    subject, bridge.conclusion, polarity=Polarity.ABSENT if bridge.rules_out else Polarity.PRESENT,
                    time=newest.time, source=source, rule=bridge.iri, premises=premises,
                )  # fmt: skip


def _close_values(snapshot: Snapshot, added: tuple[Fact, ...]) -> tuple[Snapshot, tuple[Fact, ...]]:
    """Apply the closures ``choice value x SubClassOf not (hasFinding some C)`` in both directions."""
    new: list[Fact] = []
    barred: list[tuple[str, str, Fact]] = []
    k = snapshot.knowledge
    for axiom in k.value_closures:
        for subject in _subjects(snapshot, k.features[axiom.choice].bearer):
            state = snapshot.value(subject, axiom.choice)
            present = snapshot.supports(subject, axiom.finding)
            if state.value == frozenset({axiom.value}):
                source = Source(f"closure: {k.label(axiom.value)} excludes {k.label(axiom.finding)}")
                premises = (*state.facts, *state.ruled_out.values())
                fact = Fact(
                    subject, axiom.finding, polarity=Polarity.ABSENT, source=source,
                    rule=VALUE_CLOSURE, premises=premises, timeless=True,
                )  # fmt: skip
                new.extend([fact] if fact not in added else [])
            if present:
                barred.append((subject, axiom.choice, replace(present[0], value=axiom.value)))
    if new:
        added += tuple(new)
        snapshot = _scored(snapshot.record, k, snapshot.as_of, added)
    if barred:
        snapshot = _bar(snapshot, barred)
    return snapshot, added


def _bar(snapshot: Snapshot, barred: list[tuple[str, str, Fact]]) -> Snapshot:
    """A present finding rules the value out; where the value was recorded, both are withheld."""
    values = dict(snapshot.values)
    for subject, choice, fact in barred:
        state = values.get((subject, choice), Resolved())
        item = str(fact.value)
        if state.value == frozenset({item}):
            values[subject, choice] = Resolved(gap=Gap(Cause.CONFLICTING, (*state.facts, fact)))
        else:
            left = state.value.difference({item}) if isinstance(state.value, frozenset) else state.value
            values[subject, choice] = replace(state, value=left, ruled_out={**state.ruled_out, item: fact})
    return replace(snapshot, values=values)


def _assumed(snapshot: Snapshot, policy: Policy) -> Iterator[Fact]:
    """Absences that a policy reads into the silence of the record; anything recorded stands."""
    for closure in policy.closures:
        for subject in _subjects(snapshot, closure.bearer):
            premises = _holds(snapshot, closure.condition, subject)
            if premises is None:
                continue
            for cls in closure.closes:
                spoken = snapshot.supports(subject, cls) or snapshot.refutations(subject, cls)
                gap = snapshot.finding_gap(subject, cls)
                if spoken or gap.cause is not Cause.NOT_RECORDED:
                    continue
                source = Source(f"assumed by policy {policy.name}: {closure.label}")
                yield Fact(subject, cls, polarity=Polarity.ABSENT, source=source, rule=closure.iri, premises=premises)


def assumptions_of(snapshot: Snapshot) -> tuple[Fact, ...]:
    """The facts of a snapshot that a policy assumed."""
    closures = {c.iri for p in snapshot.knowledge.policies.values() for c in p.closures}
    return tuple(f for f in snapshot.derived if f.rule in closures)
