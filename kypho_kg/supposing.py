"""A record as it would be if some features were known, or were otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from kypho_kg.candidacy import CaseAnswer
from kypho_kg.criteria import Op
from kypho_kg.record import LESION, PATIENT, Fact, Polarity, Procedure, Record, Source, Value
from kypho_kg.snapshot import Snapshot
from kypho_kg.values import Cell, Variable

SUPPOSED = Source("supposed")
Supposition = tuple[Variable, Cell, Value]
"""A feature, the cell of its value, and a value of that cell."""


def suppose(case: CaseAnswer, suppositions: Iterable[Supposition]) -> Record:
    """The record of a case in which each feature has the supposed value, stated as current.

    What was recorded of the feature, and what contradicts it or hides it, is overridden and stays in the record.
    """
    record, snapshot = case.record, case.snapshot
    facts = list(record.facts)
    for variable, cell, value in suppositions:
        new = tuple(_facts(snapshot, variable, cell, value))
        gone = set(_in_the_way(snapshot, new[0]))
        facts = [
            replace(f, overridden_by=SUPPOSED)
            if not f.overridden_by and f.source != SUPPOSED
            and (_like(f) in gone or _replaces(snapshot, new[0], f) or _contradicts(snapshot, f, new[0]))
            else f
            for f in facts
        ]  # fmt: skip
        facts.extend(new)
    procedure = record.procedure or Procedure((case.lesion.id,))
    touched = any(variable.subject == "procedure" for variable, _, _ in suppositions)
    return replace(record, facts=tuple(facts), procedure=procedure if touched else record.procedure)


def _facts(snapshot: Snapshot, v: Variable, cell: Cell, value: Value) -> Iterator[Fact]:
    feature = snapshot.knowledge.features[v.feature]
    if feature.kind is Op.FINDING:
        polarity = Polarity.PRESENT if cell.present else Polarity.ABSENT
        yield Fact(v.subject, v.feature, polarity=polarity, source=SUPPOSED)
        return
    yield Fact(v.subject, v.feature, value, unit=feature.unit, source=SUPPOSED)
    for cls in sorted(cell.excluded):
        yield Fact(v.subject, v.feature, cls, polarity=Polarity.ABSENT, source=SUPPOSED)


def _replaces(snapshot: Snapshot, new: Fact, old: Fact) -> bool:
    """Whether a supposed fact takes the place of a recorded one; other values that were ruled out stay so."""
    if (old.subject, old.feature) != (new.subject, new.feature):
        return False
    if old.polarity is not Polarity.ABSENT or new.value is None:
        return True
    if isinstance(new.value, frozenset) and isinstance(old.value, frozenset):
        return bool(new.value & old.value)
    return snapshot.knowledge.subsumes(str(old.value), str(new.value))


def _in_the_way(snapshot: Snapshot, new: Fact) -> Iterator[tuple[object, ...]]:
    """The facts by which the feature is unknown now: in conflict, unclear, or hidden for the same reason."""
    gaps = [g for g in snapshot.gaps.get(new.subject, ()) if g[0] == new.feature]
    related = snapshot.finding_gap(new.subject, new.feature) if new.value is None else None
    for gap in [g for _, g in gaps] + ([related] if related else []):
        yield from map(_like, gap.facts)
        for subject, rows in snapshot.gaps.items():
            hidden = {cls for cls, other in rows if other is gap}
            for fact in snapshot.record.facts:
                if fact.subject == subject and fact.feature in hidden:
                    yield _like(fact)


def _like(fact: Fact) -> tuple[object, ...]:
    """What the snapshot leaves as it is in a fact."""
    return fact.subject, fact.feature, fact.time, fact.source, fact.words, fact.reason


def _contradicts(snapshot: Snapshot, old: Fact, new: Fact) -> bool:
    """Whether a recorded finding, or its being unclear, cannot stand beside a supposed one."""
    k = snapshot.knowledge
    if k.features[old.feature].kind is not Op.FINDING or k.features[new.feature].kind is not Op.FINDING:
        return False
    if new.polarity is Polarity.PRESENT:
        reaches = old.subject in {new.subject, PATIENT}
        return reaches and old.polarity is not Polarity.PRESENT and k.subsumes(old.feature, new.feature)
    reaches = old.subject == new.subject or (new.subject == PATIENT and old.subject.startswith(LESION))
    return reaches and old.polarity is not Polarity.ABSENT and k.subsumes(new.feature, old.feature)
