"""From the statements of a patient to a record: which lesion each is about, and which ends count (docs/fhir.md).

A coded condition or procedure that names a vertebral level makes a lesion; what is coded of one level within one
episode belongs to one lesion (``episodeDays`` in the ontology). Nothing else makes one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.record import LESION, PATIENT, Cause, Fact, Lesion, Polarity, Procedure, Record, TimeSpan
from kypho_kg.vocabulary import KYPHO, local
from kypho_kg.vocabulary import LESION as LESION_CLASS


@dataclass(slots=True)
class Statement:
    """What one resource says: facts whose lesion is still open."""

    kind: str
    facts: list[Fact] = field(default_factory=list)
    ends: list[Fact] = field(default_factory=list)
    """Facts that hold no longer, from ``end`` on."""
    proposed: list[Fact] = field(default_factory=list)
    """Facts of a proposed procedure."""
    service: TimeSpan | None = None
    """When the proposed procedure is due."""
    levels: frozenset[str] = frozenset()
    makes: bool = False
    """Whether it may make a lesion."""
    loose: bool = False
    """Whether it is tied to a lesion only by a level or a link, never by there being just one."""
    start: TimeSpan | None = None
    end: TimeSpan | None = None
    ongoing: bool = False
    key: str = ""
    links: tuple[str, ...] = ()
    """References to the statements that this one is about."""
    took: list[tuple[str, str]] = field(default_factory=list)
    """Codes with the features that they became."""

    @property
    def order(self) -> tuple[str, ...]:
        """A place that does not depend on the order of the source."""
        time = (self.start.start.isoformat(), self.start.end.isoformat()) if self.start else ("9", "9")
        return (*time, self.kind, self.key, *sorted(f.source.origin for f in self.facts))


def _keep_ends(statements: Sequence[Statement], k: Knowledge) -> None:
    """Drop each end at which another statement says that the same, or something narrower, went on."""
    holding: dict[str, list[Statement]] = defaultdict(list)
    for one in statements:
        for fact in one.facts:
            if fact.polarity is Polarity.PRESENT:
                holding[fact.feature].append(one)
    for one in statements:
        one.ends = [
            end
            for end in one.ends
            if not any(
                other is not one and _covers(other, one.end)
                for feature, others in holding.items()
                if k.subsumes(end.feature, feature)
                for other in others
            )
        ]


def _covers(other: Statement, end: TimeSpan | None) -> bool:
    if not other.ongoing and (other.end is None or end is None or other.end.end <= end.end):
        return False
    return end is None or other.start is None or other.start.start <= end.end


@dataclass(slots=True)
class _Episode:
    level: str
    id: str = ""
    start: TimeSpan | None = None
    end: TimeSpan | None = None
    makers: list[Statement] = field(default_factory=list)

    def days(self, time: TimeSpan | None) -> int:
        """Days between a time and the episode; none where either is undated."""
        if time is None or self.start is None or self.end is None:
            return 0
        before = (self.start.start.date() - time.end.date()).days
        after = (time.start.date() - self.end.end.date()).days
        return max(0, before, after)

    def add(self, statement: Statement) -> None:
        self.makers.append(statement)
        time = statement.start
        if time is not None:
            self.start = time if self.start is None or time.start < self.start.start else self.start
            self.end = time if self.end is None or time.end > self.end.end else self.end


class Lesions:
    """The lesions of one patient, and the statements with their subjects."""

    def __init__(self, statements: Iterable[Statement], knowledge: Knowledge, report: IntakeReport) -> None:
        self.k = knowledge
        self.report = report
        self.level: Feature = knowledge.by_name["vertebralLevel"]
        # Statements of one level that lie no further apart are about one lesion.
        self.episode_days = knowledge.triples.whole_number(LESION_CLASS, KYPHO + "episodeDays") or 0
        self.facts: list[Fact] = []
        self._of: dict[str, list[str]] = defaultdict(list)
        ordered = sorted(statements, key=lambda s: s.order)
        self.episodes = self._episodes([s for s in ordered if s.makes and s.levels and self._borne(s)])
        for statement in ordered:
            if statement.makes:
                self._place(statement)
        for statement in ordered:
            if not statement.makes:
                self._place(statement)

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """In the order of their level, the earlier episode first."""
        return tuple(Lesion(e.id) for e in self.episodes)

    def named(self, statement: Statement) -> tuple[str, ...]:
        """Ids of the lesions that a request names by level or by link."""
        linked = [id_ for link in statement.links for id_ in self._of.get(link, ())]
        ids = [e.id for level in sorted(statement.levels) if (e := self._at(level, statement.start))]
        return tuple(dict.fromkeys(ids or linked))

    def _episodes(self, makers: list[Statement]) -> list[_Episode]:
        found: list[_Episode] = []
        for level in sorted({x for s in makers for x in s.levels}, key=self.k.level_order):
            here: list[_Episode] = []
            for statement in makers:  # by date, the undated last
                if level not in statement.levels:
                    continue
                if not here or here[-1].days(statement.start) > self.episode_days:
                    here.append(_Episode(level))
                here[-1].add(statement)
            for number, episode in enumerate(here, start=1):
                episode.id = local(level).lower() + (f"-{number}" if number > 1 else "")
            found += here
        return found

    def _borne(self, statement: Statement) -> list[Fact]:
        """The facts that need a lesion, the level itself aside."""
        return [
            f
            for f in (*statement.facts, *statement.ends)
            if f.feature != self.level.iri and self.k.features[f.feature].bearer == LESION_CLASS
        ]

    def _at(self, level: str, time: TimeSpan | None) -> _Episode | None:
        """The lesion at a level that a statement of a time is about: the latest that had begun by then, or the next."""
        here = [e for e in self.episodes if e.level == level]
        begun = [e for e in here if time is None or e.start is None or e.start.start <= time.end]
        if begun:
            return begun[-1]
        return here[0] if here and here[0].days(time) <= self.episode_days else None

    def _place(self, statement: Statement) -> None:
        borne = self._borne(statement)
        loose = [f for f in (*statement.facts, *statement.ends) if f not in borne and f.feature != self.level.iri]
        self.facts += loose
        if not borne:
            return
        targets = [e for e in self.episodes if any(m is statement for m in e.makers)]
        why = "no level: not attributed"
        if not targets and statement.levels:
            targets = [e for x in sorted(statement.levels) if (e := self._at(x, statement.start))]
            why = "no lesion at this level: not attributed"
        elif not targets:
            linked = {id_ for link in statement.links for id_ in self._of.get(link, ())}
            targets = [e for e in self.episodes if e.id in linked]
            only = self.episodes[0] if len(self.episodes) == 1 and not statement.loose else None
            if not targets and only and only.days(statement.start) <= self.episode_days:
                targets = [only]
        if not targets:
            self.report.left(statement.kind, why)
            self.facts += [_unattributed(f) for f in borne]
        for episode in targets:
            subject = LESION + episode.id
            self.facts += [replace(f, subject=subject) for f in borne]
            if any(m is statement for m in episode.makers):
                said = replace(borne[0], feature=self.level.iri, value=frozenset({episode.level}), unit="", words="")
                self.facts.append(replace(said, subject=subject, polarity=Polarity.PRESENT, time=statement.start))
            if statement.key:
                self._of[statement.key].append(episode.id)


def _unattributed(fact: Fact) -> Fact:
    """A fact of some lesion on the patient. What one lesion lacks, the patient does not: such a fact is unclear."""
    if fact.polarity is Polarity.ABSENT:
        return replace(fact, subject=PATIENT, polarity=Polarity.INDETERMINATE, cause=Cause.NOT_ATTRIBUTED)
    return replace(fact, subject=PATIENT)


def build(
    patient: str, statements: Sequence[Statement], k: Knowledge, report: IntakeReport, as_of: date | None
) -> Record:
    """The record of one patient; it does not depend on the order of the resources."""
    _keep_ends(statements, k)
    placed = Lesions(statements, k, report)
    facts = list(placed.facts)
    proposals = sorted((s for s in statements if s.proposed and not _later(s, as_of)), key=lambda s: s.order)
    procedure = None
    for older in proposals[:-1]:
        report.left(older.kind, "an older proposal of a procedure")
    for newest in proposals[-1:]:
        facts += newest.proposed
        procedure = Procedure(placed.named(newest) or None, newest.service)
    unique = dict.fromkeys(sorted(facts, key=_order))
    return Record(patient, placed.lesions, tuple(unique), procedure, as_of)


def _later(statement: Statement, as_of: date | None) -> bool:
    return as_of is not None and statement.start is not None and statement.start.start.date() > as_of


def _order(fact: Fact) -> tuple[str, ...]:
    value = " ".join(sorted(fact.value)) if isinstance(fact.value, frozenset) else str(fact.value)
    time = f"{fact.time.start.isoformat()} {fact.time.end.isoformat()}" if fact.time else ""
    return (
        fact.subject,
        fact.feature,
        time,
        fact.polarity,
        value,
        fact.mood,
        fact.status,
        fact.source.origin,
        fact.words,
    )
