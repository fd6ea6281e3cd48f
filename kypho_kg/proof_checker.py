"""An independent check of proofs: that these facts alone give a condition this truth, and none of them is too much.

It reads class expressions straight from the triples and shares nothing with the engines but the data types of facts, so
that an error there is not repeated here. Facts are taken as resolved: which of them count on the date, and which
contradict one another, is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Fact, Polarity, Range, TimeSpan
from kypho_kg.store import Literal, Triples
from kypho_kg.vocabulary import CASE, EQUIVALENT, HAS_FINDING, KYPHO, ON_PROPERTY, OWL, RDF, SUBCLASS, TYPE, XSD, local
from kypho_kg.vocabulary import LESION as LESION_CLASS
from kypho_kg.vocabulary import PATIENT as PATIENT_CLASS
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS

_BEARERS = {PATIENT: PATIENT_CLASS, PROCEDURE: PROCEDURE_CLASS}
_COMPUTED = frozenset(
    KYPHO + n for n in "DifferenceOfDates CountOfLesions CountOfSessionLevels TrendOfSeries ScoreTotal".split()
)
_FACETS = {"minInclusive": (0, False), "minExclusive": (0, True), "maxExclusive": (1, False), "maxInclusive": (1, True)}
_WORDS = {True: "met", False: "not met", None: "unknown"}
_ENDLESS = Decimal("Infinity")


@dataclass(frozen=True, slots=True)
class CheckedCase:
    """What the links of a case lead to."""

    lesion: str
    """Subject of the index lesion, such as ``lesion:a``; empty where there is none."""
    in_session: bool
    """Whether the proposed procedure treats it."""
    as_of: date
    """The date on which the facts are read."""


def faults(triples: Triples, condition: str, met: bool, facts: Sequence[Fact], case: CheckedCase) -> list[str]:
    """What is wrong with a proof: empty if its facts alone give the condition this truth, and none can be left out.

    Derived facts must follow from their premises; values of the computed kinds are taken as stated.

    :param condition: IRI of a defined class of cases.
    :param met: the truth that is to be proven: met, or not met.
    :raises KnowledgeBaseError: when the class is no condition that can be read.
    """
    name = local(condition)
    found = truth(triples, condition, facts, case)
    problems = list(dict.fromkeys(p for fact in facts for p in _unjustified(triples, fact, case, name)))
    if found is not met:
        return [f"{name} should be {_WORDS[met]} by these facts alone and is {_WORDS[found]}", *problems]
    for i, fact in enumerate(facts):
        if truth(triples, condition, [*facts[:i], *facts[i + 1 :]], case) is met:
            problems.append(f"{name} is {_WORDS[met]} without {local(fact.feature)} too")
    return problems


def truth(triples: Triples, condition: str, facts: Iterable[Fact], case: CheckedCase, subject: str = "") -> bool | None:
    """The truth of a condition over these facts alone; ``None`` is unknown, also where they contradict one another.

    :param subject: asks a condition of a patient, lesion or procedure instead of one of the case.
    :raises KnowledgeBaseError: when the class is no condition that can be read.
    """
    return _Reader(triples, tuple(facts), case).truth(condition, subject)


# -- derived facts


def _unjustified(triples: Triples, fact: Fact, case: CheckedCase, name: str) -> Iterator[str]:
    """What is wrong with how a fact and its premises were derived."""
    if fact.rule or fact.premises:
        problem = _misused(triples, fact, case)
        if problem:
            yield f"{local(fact.feature)} in the proof of {name}: {problem}"
    for premise in fact.premises:
        yield from _unjustified(triples, premise, case, name)


def _misused(triples: Triples, fact: Fact, case: CheckedCase) -> str:
    """Why the rule of a derived fact does not yield it, empty if it does."""
    t, rule, absent = triples, fact.rule, fact.polarity is Polarity.ABSENT

    def holds(kind: str) -> bool:
        condition = t.resource(rule, KYPHO + kind)
        return bool(condition) and truth(t, condition or "", fact.premises, case, fact.subject) is True

    if KYPHO + "Bridge" in t.resources(rule, TYPE):
        said = t.resources(rule, KYPHO + ("bridgeRulesOut" if absent else "bridgeConclusion"))
        if fact.polarity is Polarity.INDETERMINATE or fact.feature not in said:
            return f"the bridge {local(rule)} does not conclude that it is {fact.polarity}"
        if t.resource(fact.feature, KYPHO + "bearer") != _BEARERS.get(fact.subject, LESION_CLASS):
            return f"the bridge {local(rule)} does not speak of a {fact.subject}"
        return "" if holds("bridgeCondition") else f"its premises do not meet the bridge {local(rule)}"
    if rule == KYPHO + "ClosureOfValue":
        reader = _Reader(t, fact.premises, case)
        choices = dict.fromkeys(p.feature for p in fact.premises)
        values = [(c, v) for c in choices for v, finding in _closures(t, c) if absent and finding == fact.feature]
        met = any(reader.choice(choice, frozenset({value}), fact.subject) for choice, value in values)
        return "" if met else "its premises have no value that excludes it"
    if t.subjects(KYPHO + "hasClosure", rule):
        if not absent or fact.feature not in t.resources(rule, KYPHO + "closes"):
            return f"the policy rule {local(rule)} does not close it"
        return "" if holds("closureCondition") else f"its premises do not meet the policy rule {local(rule)}"
    if rule in _COMPUTED:
        return "" if rule in t.resources(fact.feature, KYPHO + "derivedBy") else f"it is not computed by {local(rule)}"
    return f"unknown rule {local(rule)!r}"


def _closures(t: Triples, choice: str) -> Iterator[tuple[str, str]]:
    """Axioms by which a value of a choice excludes a finding: the value and the finding."""
    for node in t.subjects(ON_PROPERTY, choice):
        value = t.resource(node, OWL + "hasValue")
        for upper in t.resources(node, SUBCLASS) if value else ():
            inner = t.resource(upper, OWL + "complementOf") or ""
            finding = t.resource(inner, OWL + "someValuesFrom")
            if value and finding and t.resource(inner, ON_PROPERTY) == HAS_FINDING:
                yield value, finding


# -- intervals


class _Interval(NamedTuple):
    """Bounds that can be compared: of two equal numbers, that which is left out is the greater below, less above."""

    low: tuple[Decimal, bool]
    """The lower bound, and whether it is left out."""
    high: tuple[Decimal, bool]
    """The upper bound, and whether it belongs to the interval."""

    def meets(self, other: _Interval) -> bool:
        """Whether the two have a value in common."""
        (low, is_open), (high, closed) = max(self.low, other.low), min(self.high, other.high)
        return low < high or (low == high and closed and not is_open)


def _interval(value: Range) -> _Interval:
    low = -_ENDLESS if value.low is None else value.low
    high = _ENDLESS if value.high is None else value.high
    return _Interval((low, value.low_open), (high, not value.high_open))


def _later(value: _Interval, stated: TimeSpan, day: date, unit: str) -> _Interval:
    """An age or a duration that was stated at some time, as it is on a later day."""
    first, last = stated.start.date(), stated.end.date()
    fewest = (day - max(first, min(last, day))).days
    most = (day - first).days
    if unit == "a":
        # A year has 365 or 366 days, and where in it the birthday lies was not said.
        less, more = Decimal(fewest // 366), Decimal((most + 364) // 365)
    elif unit == "wk":
        less, more = (round(Decimal(days) / 7, 4) for days in (fewest, most))
    else:
        less, more = Decimal(fewest), Decimal(most)
    return _Interval((value.low[0] + less, value.low[1]), (value.high[0] + more, value.high[1]))


# -- truths: True is met, False is not met, None is unknown


def _all(truths: Iterable[bool | None]) -> bool | None:
    found = set(truths)
    return False if False in found else None if None in found else True


def _any(truths: Iterable[bool | None]) -> bool | None:
    found = set(truths)
    return True if True in found else None if None in found else False


def _decided(for_it: bool, against: bool) -> bool | None:
    return None if for_it is against else for_it


class _Reader:
    """Truths of the classes of an ontology over a few facts."""

    def __init__(self, triples: Triples, facts: tuple[Fact, ...], case: CheckedCase) -> None:
        self._t, self._case = triples, case
        self._present = [f for f in facts if f.polarity is Polarity.PRESENT]
        self._absent = [f for f in facts if f.polarity is Polarity.ABSENT]
        self._known: dict[tuple[str, str], bool | None] = {}
        self._open: set[tuple[str, str]] = set()

    def truth(self, cls: str, subject: str = "") -> bool | None:
        """The truth of a class expression, asked of the case or of one of its subjects."""
        key = (cls, subject)
        if key not in self._known:
            if key in self._open:
                raise KnowledgeBaseError(f"{local(cls)} is defined by itself")
            self._open.add(key)
            self._known[key] = self._read(cls, subject)
            self._open.remove(key)
        return self._known[key]

    def _read(self, cls: str, subject: str) -> bool | None:
        t = self._t
        if cls == (_BEARERS.get(subject, LESION_CLASS) if subject else CASE):
            return True
        strict, lenient = t.resource(cls, KYPHO + "strictReading"), t.resource(cls, KYPHO + "lenientReading")
        if strict and lenient:
            return True if self.truth(strict, subject) else False if self.truth(lenient, subject) is False else None
        if definition := t.resource(cls, EQUIVALENT):
            return self.truth(definition, subject)
        if head := t.resource(cls, OWL + "intersectionOf"):
            return _all(self.truth(str(m), subject) for m in t.items(head))
        if head := t.resource(cls, OWL + "unionOf"):
            return _any(self.truth(str(m), subject) for m in t.items(head))
        if inner := t.resource(cls, OWL + "complementOf"):
            denied = self.truth(inner, subject)
            return None if denied is None else not denied
        if prop := t.resource(cls, ON_PROPERTY):
            return self._restriction(cls, prop, subject)
        raise KnowledgeBaseError(f"{local(t.owner(cls))} holds something that is no condition")

    def _restriction(self, node: str, prop: str, subject: str) -> bool | None:
        t, value = self._t, self._t.resource(node, OWL + "hasValue")
        filler = t.resource(node, OWL + "someValuesFrom") or ""
        kind = t.resource(prop, KYPHO + "featureKind")
        if not subject and not value and filler:
            links = {
                KYPHO + "concernsPatient": PATIENT,
                KYPHO + "indexLesion": self._case.lesion,
                KYPHO + "forProcedure": PROCEDURE if self._case.in_session else "",
            }
            if prop in links:
                return self.truth(filler, links[prop]) if links[prop] else None
        elif kind == KYPHO + "ChoiceFeature":
            head = t.resource(t.resource(filler, EQUIVALENT) or filler, OWL + "oneOf")
            asked = {value} if value else {str(v) for v in t.items(head)} if head else set()
            if asked:
                return self.choice(prop, frozenset(asked), subject)
        elif filler and prop == HAS_FINDING:
            return self._either(filler, lambda cls: self._finding(cls, subject))
        elif filler and kind == KYPHO + "CategoryFeature":
            return self._either(filler, lambda cls: self._category(prop, cls, subject))
        elif filler and kind == KYPHO + "QuantityFeature":
            return self._quantity(prop, self._asked(filler), subject)
        raise KnowledgeBaseError(f"{local(t.owner(node))} asks for {local(prop)} in no way that can be read")

    def _either(self, filler: str, leaf: Callable[[str], bool | None]) -> bool | None:
        """A named class, or a union of such."""
        head = self._t.resource(filler, OWL + "unionOf")
        return _any(self._either(str(m), leaf) for m in self._t.items(head)) if head else leaf(filler)

    def _above(self, cls: str) -> set[str]:
        """A class and all above it."""
        found, todo = {cls}, [cls]
        while todo:
            new = set(self._t.resources(todo.pop(), SUBCLASS)) - found
            found |= new
            todo += new
        return found

    def _has(self, cls: str, subject: str) -> bool:
        """Whether the subject has a finding; what a lesion has, the patient has."""
        return any(
            cls in self._above(f.feature)
            for f in self._present
            if f.subject == subject or (subject == PATIENT and f.subject.startswith(LESION))
        )

    def _finding(self, cls: str, subject: str) -> bool | None:
        above = self._above(cls)
        lacks = any(
            f.feature in above
            for f in self._absent
            if f.subject == subject or (f.subject == PATIENT and subject.startswith(LESION))
        )
        return _decided(self._has(cls, subject), lacks)

    def _values(self, facts: Iterable[Fact], prop: str, subject: str) -> list[frozenset[str]]:
        """What facts say of a choice (individuals) or a category (one class)."""
        said = (f.value for f in facts if f.subject == subject and f.feature == prop)
        return [v if isinstance(v, frozenset) else frozenset({v}) for v in said if isinstance(v, str | frozenset)]

    def _category(self, prop: str, asked: str, subject: str) -> bool | None:
        recorded = [c for value in self._values(self._present, prop, subject) for c in value]
        excluded = {c for value in self._values(self._absent, prop, subject) for c in value}
        against = bool(excluded & self._above(asked)) or any(self._disjoint(asked, c) for c in recorded)
        return _decided(any(asked in self._above(c) for c in recorded), against)

    def _disjoint(self, a: str, b: str) -> bool:
        t, above = self._t, self._above(b)
        for cls in self._above(a):
            apart = {*t.resources(cls, OWL + "disjointWith"), *t.subjects(OWL + "disjointWith", cls)}
            for cell in t.subjects(RDF + "first", cls):
                while before := t.subjects(RDF + "rest", cell):
                    cell = before[0]
                if t.subjects(OWL + "members", cell):
                    apart.update(m for m in t.items(cell) if isinstance(m, str))
            if (apart - {cls}) & above:
                return True
        return False

    def choice(self, prop: str, asked: frozenset[str], subject: str) -> bool | None:
        """Whether the choice has one of the values asked for."""
        recorded = self._values(self._present, prop, subject)
        excluded = {v for value in self._values(self._absent, prop, subject) for v in value}
        excluded |= {v for v, finding in _closures(self._t, prop) if self._has(finding, subject)}
        if not recorded:
            return False if asked <= excluded else None
        left = frozenset.intersection(*recorded) - excluded
        return _decided(left <= asked, not left & asked)

    def _asked(self, node: str) -> _Interval:
        """The numbers between the facets of a data range."""
        t, head = self._t, self._t.resource(node, OWL + "withRestrictions")
        ends = [[(-_ENDLESS, False)], [(_ENDLESS, True)]]
        for facet in t.items(head) if head else ():
            for predicate in t.predicates(str(facet)):
                name, bounds = predicate.removeprefix(XSD), t.objects(str(facet), predicate)
                if name not in _FACETS or not all(isinstance(b, Literal) for b in bounds):
                    raise KnowledgeBaseError(f"{local(t.owner(node))} holds a facet that cannot be read")
                side, edge = _FACETS[name]
                ends[side] += [(Decimal(b.text), edge) for b in bounds if isinstance(b, Literal)]
        return _Interval(max(ends[0]), min(ends[1]))

    def _quantity(self, prop: str, asked: _Interval, subject: str) -> bool | None:
        t = self._t
        advances, unit = t.text(prop, KYPHO + "advancesWithTime") == "true", t.text(prop, KYPHO + "ucumUnit")
        values = []
        for f in self._present:
            if f.subject == subject and f.feature == prop and isinstance(f.value, Range):
                value = _interval(f.value)
                values.append(_later(value, f.time, self._case.as_of, unit) if advances and f.time else value)
        if not values:
            return None
        # Of several values one counts: what all of them say, or the bounds of their highest or lowest.
        rule = local(t.resource(prop, KYPHO + "selectionRule") or "")
        low = (min if rule == "LowestInWindow" else max)(v.low for v in values)
        high = (max if rule == "HighestInWindow" else min)(v.high for v in values)
        value = _Interval(low, high)
        if not value.meets(value):
            return None
        return _decided(asked.low <= low and high <= asked.high, not value.meets(asked))
