"""What codes state, whatever the source: by the mappings, with answers, units and what is over.

The readers of FHIR and OMOP know the structure of their sources; what a code, an answer or a unit means is the same
for both and stands here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from kypho_kg.criteria import Op
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.mappings import CodedFact, Mappings
from kypho_kg.record import PROCEDURE, Cause, Fact, Polarity, Range, TimeSpan
from kypho_kg.sources.lesions import Statement
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS

WORDS = 300
"""Characters of a statement in words that are kept."""

HUGE = 30
"""Powers of ten beyond which a number is no measurement."""

NO_VALUE = "the code of a question or a quantity, without its value"

LOINC = "http://loinc.org"

_SUBSTANCES = frozenset({"RXNORM", "ATC"})
"""Terminologies whose codes name a substance: that somebody takes it is said by the record alone."""


class Malformed(Exception):  # noqa: N818 - it is caught where it costs one entry, and is no error of the program
    """An entry of a source cannot be read. Holds the field and what was expected, never a value."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(field)
        self.field = field
        self.expected = expected


Coding = tuple[str, str]
"""A terminology, by any of its names, and a code of it."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What one code of a concept states, with the code as ``system|code``."""

    code: str
    feature: Feature
    value: str | None
    absent: bool = False
    """Whether the code rules the finding or the value out."""

    @property
    def needs_value(self) -> bool:
        """Whether the code asks for something, and states nothing without its answer."""
        return self.feature.kind is not Op.FINDING and self.value is None

    def fact(self, base: Fact, polarity: Polarity = Polarity.PRESENT) -> Fact:
        """The fact that the code alone makes.

        That a code which rules something out does not hold leaves it open: who is not free of all, need not have this.
        """
        if self.absent:
            polarity = Polarity.ABSENT if polarity is Polarity.PRESENT else Polarity.INDETERMINATE
        value = frozenset({self.value}) if self.value and self.feature.kind is Op.CHOICE else self.value
        return replace(base, feature=self.feature.iri, value=value, unit=self.feature.unit, polarity=polarity)


class Meanings:
    """What codes mean, by the mappings; counts what they do not know."""

    def __init__(self, knowledge: Knowledge, mappings: Mappings, report: IntakeReport) -> None:
        self.k = knowledge
        self.mappings = mappings
        self.report = report
        self.level = knowledge.by_name["vertebralLevel"]
        self._known: dict[tuple[str, str, bool], tuple[Stated, ...]] = {}
        self._rows: dict[tuple[str, str, str, str], tuple[str, str, str]] = {}

    def meaning(self, system: str, code: str, *, substance: bool = False) -> tuple[Stated, ...]:
        """What a code states; one without a known system states nothing.

        :param substance: whether the record says that somebody takes what the code names.
        """
        if not system or not code:
            return ()
        known = self._known.get((system, code, substance))
        if known is None:
            known = self._known[system, code, substance] = tuple(
                Stated(f"{system}|{code}{_through(fact)}", fact.feature, fact.value, fact.absent)
                for fact in self.mappings.facts(code, self.k, system)
                if substance or fact.mapping.prefix not in _SUBSTANCES
            )
        return known

    def unknown(self, kind: str, system: str, code: str, text: str, times: int = 1) -> None:
        """Count a code that states nothing, with what the mappings remark on it."""
        key = kind, system, code, text
        row = self._rows.get(key)
        if row is None:
            system, code = system.strip(), code.strip()
            row = self._rows[key] = kind, f"{system}|{code}", self.remark(system, code, text.strip())
        self.report.unmapped[row] += times

    def remark(self, system: str, code: str, text: str = "") -> str:
        """The text of a code that states nothing, with what the mappings remark on it: why it is none of ours."""
        rows = () if self.mappings.facts(code, self.k, system) else self.mappings.search(code, system)
        why = next((row.comment for row in rows if row.comment), "")
        return f"{text} ({why})".strip() if why else text

    def answer(self, system: str, code: str) -> Polarity | None:
        """Whether a code says yes, no or unclear of whatever was asked."""
        return self.mappings.answer(code, system) if system else None

    def answered(
        self, kind: str, codings: Sequence[Coding], words: str, stated: Stated, base: Fact, blank: Fact
    ) -> Fact:
        """The fact of a question with a coded answer; an answer that is not understood leaves it in words only.

        :param blank: the fact as it stands while nothing is known.
        """
        feature = stated.feature
        if feature.kind is Op.FINDING or stated.value:
            answers = {self.answer(*coding) for coding in codings} - {None}
            if len(answers) == 1:
                polarity = answers.pop() or Polarity.INDETERMINATE
                return blank if polarity is Polarity.INDETERMINATE else stated.fact(base, polarity)
        every = [one for coding in codings for one in self.meaning(*coding)]
        meant = [one for one in every if not one.absent]
        if feature.kind is Op.FINDING:
            if not stated.absent and any(x.absent and self.k.subsumes(x.feature.iri, feature.iri) for x in every):
                clear = not any(self.k.subsumes(feature.iri, one.feature.iri) for one in meant)
                return stated.fact(base, Polarity.ABSENT) if clear else blank
            narrower = {one.feature.iri for one in meant if self.k.subsumes(feature.iri, one.feature.iri)}
            if len(narrower) == 1:
                return replace(stated.fact(base), feature=narrower.pop())
        values = sorted({one.value for one in meant if one.feature is feature and one.value})
        if values and not stated.value and feature.kind is Op.CHOICE:
            return replace(blank, value=frozenset(values), polarity=Polarity.PRESENT)
        if len(values) == 1 and not stated.value:
            return replace(blank, value=values[0], polarity=Polarity.PRESENT)
        for system, code in codings:
            self.report.passed(f"{kind} value", f"{system}|{code}", "")
        return replace(blank, cause=Cause.IN_WORDS_ONLY, words=words[:WORDS])

    def measured(self, kind: str, ranged: Range, unit: str, feature: Feature, base: Fact) -> Fact:
        """The fact of a quantity in the unit of its feature; unknown, in words, where the unit is not understood."""
        factor = factor_of(feature, unit)
        words = "" if unit == feature.unit else f"{ranged} {unit}".strip()
        value = ranged if factor == 1 or factor is None else ranged.scaled(factor)
        fact = Fact(
            base.subject,
            feature.iri,
            value,
            mood=base.mood,
            time=base.time,
            status=base.status,
            words=words,
            unit=feature.unit,
            source=base.source,
        )
        if factor is None:
            # It stays as an unknown: a later value that cannot be read must not leave an older one standing.
            self.report.left(kind, f"unit of {feature.name} not understood")
            reason = f"unit not understood; expected {', '.join((feature.unit, *feature.accepts))}"
            return replace(fact, value=None, polarity=Polarity.INDETERMINATE, cause=Cause.INDETERMINATE, reason=reason)
        return fact

    def alone(self, kind: str, stated: Iterable[Stated], base: Fact, *, proposes: bool = False) -> Statement:
        """The facts that codes state without a value beside them.

        :param proposes: whether what is said of a procedure is said of a proposed one.
        """
        said = Statement(kind, start=base.time)
        procedures = False
        for one in stated:
            if one.needs_value:
                self.report.left(kind, NO_VALUE)
            elif one.feature.bearer == PROCEDURE_CLASS:
                procedures = True
                if proposes:
                    said.proposed.append(replace(one.fact(base), subject=PROCEDURE))
            else:
                said.facts.append(one.fact(base))
                said.took.append((one.code, one.feature.name))
        if procedures and not said.facts and not proposes:
            self.report.left(kind, "speaks of a proposed procedure only")
        return said

    def over(self, said: Statement, end: TimeSpan | None, *, unsure: bool = False) -> None:
        """Add that what a statement says holds no longer, for what can change at all.

        :param unsure: whether it may hold on.
        """
        said.end = end
        polarity = Polarity.INDETERMINATE if unsure else Polarity.ABSENT
        said.ends = [
            replace(fact, polarity=polarity, time=end)
            for fact in said.facts
            if fact.polarity is Polarity.PRESENT and self.k.features[fact.feature].changes == "CanChange"
        ]
        # An absence that is no longer said may have been disproved, whether or not the thing itself can change.
        said.ends += [
            replace(fact, polarity=Polarity.INDETERMINATE, time=end)
            for fact in said.facts
            if fact.polarity is Polarity.ABSENT
        ]
        if said.ends and end is None:
            self.report.left(said.kind, "over, without a date")


def _through(fact: CodedFact) -> str:
    """How a code comes to what it states, where not by itself: for the report."""
    if fact.absent:
        return " rules out"
    return f" → {fact.ingredient.rpartition(':')[2]}" if fact.ingredient else ""


def compared(number: Decimal, comparator: str) -> Range | None:
    """The values that a number with a comparator (``<``, ``<=``, ``>``, ``>=`` or none) allows; ``None`` for others."""
    if not comparator:
        return Range.exactly(number)
    return {
        "<": Range(None, number, high_open=True),
        "<=": Range(None, number),
        ">": Range(number, None, low_open=True),
        ">=": Range(number, None),
    }.get(comparator)


def factor_of(feature: Feature, unit: str) -> Decimal | None:
    """The factor to the unit of a feature; ``{score}``, ``1`` and no unit at all are the same."""
    if unit == feature.unit:
        return Decimal(1)
    if unit in feature.accepts:
        return feature.accepts[unit]
    bare = (re.fullmatch(r"1?|[{(][^{}()]*[})]", u) for u in (unit, feature.unit))
    return Decimal(1) if all(bare) else None
