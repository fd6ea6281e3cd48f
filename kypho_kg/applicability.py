"""Which guidelines are asked about a case: the newest version of each, and the policies that are or may be in force."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kypho_kg.errors import UsageError
from kypho_kg.guidelines import Guideline
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import PROCEDURE, TimeSpan
from kypho_kg.snapshot import Snapshot
from kypho_kg.vocabulary import KYPHO, local


@dataclass(frozen=True, slots=True)
class Place:
    """When, where and at whose cost the service is: what decides which policies are in force."""

    snapshot: Snapshot
    state: str | None
    payers: frozenset[str]
    """The payers of which one pays; empty where none is known."""

    def default(self) -> Iterator[Guideline]:
        """What is assessed unless guidelines are named."""
        guidelines = self.snapshot.knowledge.guidelines.values()
        superseded = {old for g in guidelines if self._begun(g) is not False for old in g.replaces}
        for g in guidelines:
            force = self.in_force(g)
            withdrawn = self._lasts(g) is False or g.id in superseded
            if withdrawn or (g.is_policy and force is False):
                continue
            if not g.rests_on_unverified or (g.is_policy and force):
                yield g

    def _begun(self, g: Guideline) -> bool | None:
        """Whether a guideline was already published on the day of service, else on the as-of date."""
        day = self._day()
        return (
            _compare(day.start.date() >= g.effective_from, day.end.date() >= g.effective_from)
            if g.effective_from
            else None
        )

    def _lasts(self, g: Guideline) -> bool | None:
        """Whether a guideline had not yet ended on that day."""
        day = self._day()
        return (
            _compare(day.end.date() <= g.effective_until, day.start.date() <= g.effective_until)
            if g.effective_until
            else None
        )

    def _day(self) -> TimeSpan:
        procedure = self.snapshot.record.procedure
        return procedure.service_date if procedure and procedure.service_date else TimeSpan.of(self.snapshot.as_of)

    def in_force(self, g: Guideline) -> bool | None:
        """By service date (else the as-of date), state, setting and payer."""
        procedure, k = self.snapshot.record.procedure, self.snapshot.knowledge
        state = self.state or (procedure.state if procedure else None)
        answers: list[bool | None] = []
        if g.effective_from:
            answers.append(self._begun(g))
        if g.effective_until:
            answers.append(self._lasts(g))
        if g.states:
            answers.append(None if state is None else state in g.states)
        for known, bound in (
            (self.payers, g.payers),
            (choice_of_procedure(self.snapshot, "placeOfService"), g.settings),
        ):
            if bound:
                covered = with_narrower(k, bound)
                possible = bool(with_narrower(k, known) & covered)
                answers.append(_compare(known <= covered, possible) if known else None)
        return False if False in answers else None if None in answers else True


def with_narrower(k: Knowledge, payers: Iterable[str]) -> frozenset[str]:
    """What is named, and every payer of that kind: who names only the kind may mean any of them."""
    t, found, todo = k.triples, set(payers), list(payers)
    while todo:
        new = set(t.subjects(KYPHO + "broaderPayer", todo.pop())) - found
        found |= new
        todo += new
    return frozenset(found)


def choice_of_procedure(snapshot: Snapshot, name: str) -> frozenset[str]:
    """The values of a choice of which the proposed procedure has one; empty where nothing is known."""
    value = snapshot.value(PROCEDURE, snapshot.knowledge.by_name[name].iri).value
    return value if isinstance(value, frozenset) else frozenset()


def payers_of(snapshot: Snapshot, named: str | None) -> frozenset[str]:
    """The payer that was named, else what the snapshot holds."""
    feature = snapshot.knowledge.by_name["payer"]
    if named is None:
        return choice_of_procedure(snapshot, "payer")
    if KYPHO + named not in feature.values:
        known = ", ".join(sorted(map(local, feature.values)))
        raise UsageError(f"unknown payer {named!r}; known: {known}")
    return frozenset({KYPHO + named})


def _compare(certainly: bool, possibly: bool) -> bool | None:
    return True if certainly else None if possibly else False
