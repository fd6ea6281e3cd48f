"""Nodes of a patient file to facts; the ontology says what kind of value a feature has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from kypho_kg.criteria import Op
from kypho_kg.errors import Problem
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.record import Cause, Fact, Mood, Polarity, Range, Source, Status, TimeSpan, Value
from kypho_kg.sources.yaml_tree import Node
from kypho_kg.vocabulary import KYPHO, local

_META = ("unit", "time", "mood", "verification", "source", "reason")
_FORMS = {
    Op.FINDING: ("value", "unknown"),
    Op.CATEGORY: ("value", "absent", "unknown"),
    Op.CHOICE: ("value", "one_of", "absent", "unknown"),
    Op.QUANTITY: ("value", "min", "max", "above", "below", "words", "unknown"),
    None: ("value", "unknown"),
}
_CAUSES = (Cause.NOT_ASSESSABLE, Cause.PENDING, Cause.INDETERMINATE, Cause.IN_WORDS_ONLY)
_E = TypeVar("_E", bound=StrEnum)


@dataclass(slots=True)
class Problems:
    """Collects what is wrong while the rest is still read."""

    found: list[Problem] = field(default_factory=list)

    def add(self, node: Node, what: str, expected: str = "") -> None:
        """Report a problem at a node."""
        self.found.append(Problem(node.where, what, expected))

    def mapping(self, node: Node | None, keys: Sequence[str]) -> Mapping[str, Node] | None:
        """The entries of a map with known keys; reports anything else."""
        if node is None:
            return None
        if not isinstance(node.value, dict):
            self.add(node, f"{node.shown}", f"a map with the keys {', '.join(keys)}")
            return None
        for key, child in node.items():
            if key not in keys:
                self.add(child, f"unknown key {key!r}", nearest(key, keys) or f"one of {', '.join(keys)}")
        return {key: child for key, child in node.items() if key in keys}

    def sequence(self, node: Node | None) -> list[Node]:
        """The items of a list; reports anything else."""
        if node is None:
            return []
        if not isinstance(node.value, list):
            self.add(node, f"{node.shown}", "a list")
            return []
        return node.value

    def text(self, node: Node, name: str) -> str:
        """A text; reports a map, a list or nothing."""
        if isinstance(node.value, str):
            return node.value
        self.add(node, f"{name} is {node.shown}", "a text")
        return ""

    def time(self, node: Node | None) -> TimeSpan | None:
        """A date or time; reports what is none."""
        if node is None:
            return None
        if not isinstance(node.value, str):
            self.add(node, f"{node.shown} is no date", "YYYY, YYYY-MM or YYYY-MM-DD")
            return None
        try:
            return TimeSpan.parse(node.value)
        except ValueError as error:
            self.add(node, str(error))
            return None


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean ...`` for an unknown name, with what is about as near as the nearest; or nothing."""
    close = difflib.get_close_matches(name, list(known), n=5, cutoff=0.6)
    likeness = [difflib.SequenceMatcher(None, c, name).ratio() for c in close]
    near = [c for c, ratio in zip(close, likeness, strict=True) if ratio > likeness[0] - 0.04]
    return f"{' or '.join(near)} (did you mean {'that' if len(near) == 1 else 'one of these'}?)" if near else ""


class FactReader:
    """Reads the facts of one file."""

    def __init__(
        self, knowledge: Knowledge, problems: Problems, *, author: str = "", reason: str = "", blanks: bool = False
    ) -> None:
        """Read facts that some author states for a reason.

        :param blanks: whether a feature without a value was left blank in a form, and says nothing.
        """
        self.k = knowledge
        self.problems = problems
        self.author = author
        self.reason = reason
        self.blanks = blanks

    def block(self, node: Node, subject: str, bearers: Sequence[str]) -> list[Fact]:
        """The facts of a ``facts:`` map, of features that one of the bearers carries."""
        if not isinstance(node.value, dict):
            self.problems.add(node, f"{node.shown}", "a map of feature names to values")
            return []
        facts: list[Fact] = []
        for name, child in node.items():
            feature = self.k.by_name.get(name)
            if feature is None:
                expected = nearest(name, self.k.by_name) or "a feature of the ontology (kypho-kg query features)"
                self.problems.add(child, f"unknown feature {name!r}", expected)
            elif feature.bearer not in bearers:
                place = {"Patient": "the facts of the patient", "VertebralLesion": "the facts of a lesion"}.get(
                    local(feature.bearer), "the facts of the procedure"
                )
                self.problems.add(child, f"{name} is not recorded here", f"{name} among {place}")
            else:
                facts += self.facts(child, feature, subject)
        return facts

    def facts(self, node: Node, feature: Feature, subject: str) -> list[Fact]:
        """One fact, or several where the node is a list."""
        if node.value is None and self.blanks:
            return []
        if isinstance(node.value, list):
            return [f for item in node.value for f in self.facts(item, feature, subject)]
        if isinstance(node.value, dict):
            return self._from_map(node, feature, subject)
        return self._value(node, feature, self.make(node, feature, subject, None))

    def make(self, node: Node, feature: Feature, subject: str, value: Value) -> Fact:
        """A fact as it stands when nothing more is said of it."""
        source = Source(f"{node.file}:{node.line}", author=self.author)
        return Fact(subject, feature.iri, value, unit=feature.unit, source=source, reason=self.reason)

    # -- maps

    def _from_map(self, node: Node, feature: Feature, subject: str) -> list[Fact]:
        before = len(self.problems.found)
        forms = _FORMS[feature.kind]
        entries = self.problems.mapping(node, (*forms, *_META))
        if entries is None or len(self.problems.found) > before:
            return []
        fact = self._described(node, entries, self.make(node, feature, subject, None))
        if len(self.problems.found) > before:
            return []
        given = [f for f in forms if f in entries]
        bounds = {"min", "max", "above", "below"}
        if (
            not given
            or (len(given) > 1 and not set(given) <= bounds)
            or {"min", "above"} <= set(given)
            or {"max", "below"} <= set(given)
        ):
            said = " and ".join(given) or "no value"
            self.problems.add(node, f"{feature.name} has {said}", f"one of {', '.join(forms)}")
            return []
        if "unknown" in entries:
            cause = self._member(entries["unknown"], Cause, _CAUSES)
            return [replace(fact, polarity=Polarity.INDETERMINATE, cause=cause)] if cause else []
        if "words" in entries:
            words = self.problems.text(entries["words"], "words")
            return [replace(fact, polarity=Polarity.INDETERMINATE, cause=Cause.IN_WORDS_ONLY, words=words)]
        if "absent" in entries:
            value = self._named(entries["absent"], feature)
            ruled: Value = frozenset({value}) if value and feature.kind is Op.CHOICE else value
            return [replace(fact, polarity=Polarity.ABSENT, value=ruled)] if value else []
        if "one_of" in entries:
            items = self.problems.sequence(entries["one_of"])
            if not items and entries["one_of"].value == []:
                self.problems.add(entries["one_of"], f"{feature.name} is one of nothing", "at least one value")
            values = [self._named(n, feature) for n in items]
            return [replace(fact, value=frozenset(v for v in values if v))] if values and all(values) else []
        if set(given) <= bounds:
            return self._bounded(node, entries, feature, fact)
        return self._value(entries["value"], feature, fact)

    def _described(self, node: Node, entries: Mapping[str, Node], fact: Fact) -> Fact:
        """Time, mood, verification, unit, reason and source of a fact."""
        said = self.problems.mapping(entries.get("source"), ("document", "date", "author", "quote")) or {}
        text = {k: self.problems.text(n, k) for k, n in said.items()}
        if text.get("date"):
            self.problems.time(said["date"])
        text.setdefault("author", self.author)
        mood = self._member(entries["mood"], Mood) if "mood" in entries else None
        status = self._member(entries["verification"], Status) if "verification" in entries else None
        return replace(
            fact,
            time=self.problems.time(entries.get("time")),
            mood=mood or fact.mood,
            status=status or fact.status,
            reason=self.problems.text(entries["reason"], "reason") if "reason" in entries else fact.reason,
            unit=self.problems.text(entries["unit"], "unit") if "unit" in entries else fact.unit,
            source=Source(f"{node.file}:{node.line}", **text),
        )

    def _member(self, node: Node, kind: type[_E], allowed: Sequence[_E] = ()) -> _E | None:
        members = allowed or tuple(kind)
        for member in members:
            if node.value == member.value:
                return member
        self.problems.add(node, f"{node.shown}", f"one of {', '.join(m.value for m in members)}")
        return None

    # -- values

    def _value(self, node: Node, feature: Feature, fact: Fact) -> list[Fact]:
        if feature.kind is Op.FINDING:
            polarity = self._member(node, Polarity)
            return [replace(fact, polarity=polarity)] if polarity else []
        if feature.kind is Op.QUANTITY:
            number = self._number(node, feature)
            return [] if number is None else self._scaled(node, feature, fact, Range.exactly(number))
        if feature.kind is None:
            span = self.problems.time(node)
            return [replace(fact, value=span)] if span else []
        value = self._named(node, feature)
        if not value:
            return []
        return [replace(fact, value=frozenset({value}) if feature.kind is Op.CHOICE else value)]

    def _bounded(self, node: Node, entries: Mapping[str, Node], feature: Feature, fact: Fact) -> list[Fact]:
        numbers = {k: self._number(entries[k], feature) for k in ("min", "max", "above", "below") if k in entries}
        if None in numbers.values():
            return []
        low, high = numbers.get("min", numbers.get("above")), numbers.get("max", numbers.get("below"))
        if low is not None and high is not None and low > high:
            self.problems.add(node, f"{feature.name} ranges from {low} to {high}", "the smaller number first")
            return []
        if low is not None and low == high and {"above", "below"} & set(numbers):
            self.problems.add(node, f"{feature.name} ranges from {low} to {high} without that number", "min and max")
            return []
        return self._scaled(node, feature, fact, Range(low, high, "above" in numbers, "below" in numbers))

    def _number(self, node: Node, feature: Feature) -> Decimal | None:
        number = node.number()
        if number is None:
            self.problems.add(node, f"{feature.name} is {node.shown}, no finite number", f"a number in {feature.unit}")
        return number

    def _scaled(self, node: Node, feature: Feature, fact: Fact, value: Range) -> list[Fact]:
        if fact.unit == feature.unit:
            return [replace(fact, value=value)]
        factor = feature.accepts.get(fact.unit)
        if factor is None:
            units = ", ".join((feature.unit, *feature.accepts))
            self.problems.add(node, f"unit {fact.unit!r} of {feature.name}", f"one of {units}")
            return []
        return [replace(fact, value=value.scaled(factor), unit=feature.unit, words=f"{value} {fact.unit}")]

    def _named(self, node: Node, feature: Feature) -> str | None:
        """The class or individual that a name stands for."""
        name = node.value
        if isinstance(name, str) and KYPHO + name in feature.values:
            return KYPHO + name
        known = sorted(map(local, feature.values))
        expected = nearest(str(name), known) or f"one of {', '.join(known)}"
        self.problems.add(node, f"{feature.name} is {node.shown}", expected)
        return None
