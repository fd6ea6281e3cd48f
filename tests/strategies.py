"""Random records over the ontology's own features, aimed at one class by which a guideline judges.

A record is first made to meet (or fail) the class, then some of what decides it is dropped or blurred: unknowns matter
where the rest of the class still hangs on them. Values lie at the limits in use, and just beside them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from oracle import downward, samples, thresholds, trees, upward

from kypho_kg.criteria import Criterion, Op
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Fact, Lesion, Polarity, Procedure, Range, Record, Source, Value
from kypho_kg.vocabulary import KYPHO

AS_OF = date(2026, 3, 2)
INDEX = LESION + "a"
OTHER = LESION + "b"
TINY = Decimal("0.0001")
_TARGETS = {"concernsPatient": PATIENT, "indexLesion": INDEX, "forProcedure": PROCEDURE}
_SUBJECTS = {"Patient": PATIENT, "VertebralLesion": INDEX, "ProposedProcedure": PROCEDURE}
Pick = Callable[[Sequence[Any]], Any]


def by_random(seed: int) -> Pick:
    """A source of choices that gives the same record each time."""
    return random.Random(seed).choice


@st.composite
def records(draw: Callable[..., Any], knowledge: Knowledge, aims: Sequence[Criterion] = ()) -> Record:
    """Records aimed at one of the criteria, or at any class by which a guideline judges."""
    return draw_record(lambda items: draw(st.sampled_from(items)), knowledge, aims)


def draw_record(pick: Pick, knowledge: Knowledge, aims: Sequence[Criterion] = ()) -> Record:
    """A record aimed at one of the criteria, or at any class by which a guideline judges."""
    return Maker(pick, knowledge).record(pick(aims or list(trees(knowledge).values())))


@dataclass
class Maker:
    pick: Pick
    k: Knowledge
    facts: dict[tuple[str, str], list[Fact]] = field(default_factory=dict)
    excluding: dict[tuple[str, str], bool] = field(default_factory=dict)

    def record(self, tree: Criterion) -> Record:
        self.meet(tree, self.pick((True, True, False)), "")
        for key in list(self.facts):
            tied = key[1] in both_ways(tree)
            self.spoil(key, 2 if tied else 6, ("blur", "blur", "drop", "unclear") if tied else ("drop", "blur"))
        lesions = self.pick((("a",), ("a",), ("a", "b")))
        procedure = self.pick((Procedure(("a",)), Procedure(("a",)), Procedure(None), Procedure(("b",)), None))
        subjects = (PATIENT, INDEX, PROCEDURE, OTHER)[: 3 + len(lesions) - 1]
        for _ in range(self.pick(range(5))):
            self.noise(self.pick(tuple(self.k.features.values())), self.pick(subjects))
        rows = [f for facts in self.facts.values() for f in facts]
        return Record("drawn", tuple(map(Lesion, lesions)), tuple(rows), procedure, AS_OF)

    def state(self, subject: str, feature: str, value: Value = None, *, absent: bool = False) -> None:
        """Record one fact instead of what was said of the feature before."""
        self.facts[subject, feature] = [self.fact(subject, feature, value, absent=absent)]

    def fact(self, subject: str, feature: str, value: Value = None, *, absent: bool = False) -> Fact:
        f = self.k.features[feature]
        polarity = Polarity.ABSENT if absent else Polarity.PRESENT
        return Fact(subject, feature, value, polarity, unit=f.unit, source=Source("drawn"))

    # -- towards a truth

    def meet(self, c: Criterion, wanted: bool, subject: str) -> None:
        """Record what makes a criterion met, or not met."""
        if c.op is Op.LINK:
            self.meet(c.children[0], wanted, _TARGETS[c.term.removeprefix(KYPHO)])
        elif c.op is Op.NOT:
            self.meet(c.children[0], not wanted, subject)
        elif c.op is Op.OPEN:
            self.meet(self.pick(c.children), wanted, subject)
        elif c.children:
            need = {Op.AND: len(c.children), Op.OR: 1, Op.AT_LEAST: c.n}[c.op]
            chosen = self.some(c.children, need if wanted else len(c.children) - need + 1)
            for child in c.children:
                if child in chosen:
                    self.meet(child, wanted, subject)
            if self.pick((True, False)):
                for child in (child for child in c.children if child not in chosen):
                    self.meet(child, not wanted, subject)
        else:
            self.atom(c, wanted, subject)

    def some(self, items: Iterable[Any], count: int) -> list[Any]:
        left, chosen = list(items), []
        for _ in range(count):
            chosen.append(left.pop(self.pick(range(len(left)))))
        return chosen

    def atom(self, c: Criterion, wanted: bool, subject: str) -> None:
        if c.op is Op.FINDING:
            classes = downward(self.k, c.term) if wanted else upward(self.k, c.term)
            usual = [x for x in sorted(classes) if x in self.k.features]
            cls = self.pick(usual) if usual else c.term
            if cls in self.k.features:
                self.state(subject, cls, absent=not wanted)
            return
        f = self.k.features[c.term]
        if c.op is Op.QUANTITY:
            assert c.range
            exact = [Range.exactly(p) for p in points(self.k, f)]
            values = [v for v in (*exact, *ranges(self.k, f)) if (v.within if wanted else _apart(v))(c.range)]
            self.state(subject, f.iri, self.pick(values or exact))
        elif c.op is Op.CHOICE:
            pool = sorted(v for v in f.values if (v in c.values) is wanted)
            if not wanted and self.by_exclusion(subject, f.iri):
                for value in sorted(c.values):
                    self.rule_out(subject, f.iri, frozenset({value}))
            elif pool:
                self.state(subject, f.iri, frozenset(self.some(pool, self.pick(range(1, min(3, len(pool)) + 1)))))
        else:
            asked = next(iter(c.values))
            if wanted:
                self.state(subject, f.iri, self.pick(sorted(downward_in(self.k, f, asked))))
            elif self.by_exclusion(subject, f.iri):
                self.rule_out(subject, f.iri, self.pick(sorted(upward(self.k, asked) & f.values)))
            else:
                apart = sorted(v for v in f.values if self.k.disjoint(v, asked))
                self.state(subject, f.iri, self.pick(apart or sorted(f.values)))

    def by_exclusion(self, subject: str, feature: str) -> bool:
        """Whether values of this feature are ruled out, rather than another one recorded."""
        return self.excluding.setdefault((subject, feature), self.pick((True, False)))

    def rule_out(self, subject: str, feature: str, value: Value) -> None:
        rows = self.facts.setdefault((subject, feature), [])
        fact = self.fact(subject, feature, value, absent=True)
        if fact not in rows:
            rows.append(fact)

    # -- away from certainty

    def spoil(self, key: tuple[str, str], rarity: int, ways: Sequence[str]) -> None:
        """Now and then drop what is recorded, say less, or add something that rules a value out."""
        if self.pick(range(rarity)):
            return
        subject, feature = key
        f, fact = self.k.features[feature], self.facts[key][0]
        what = self.pick(ways)
        if what == "drop" and len(self.facts[key]) > 1:
            self.facts[key].pop(self.pick(range(len(self.facts[key]))))
        elif what == "drop":
            del self.facts[key]
        elif what == "unclear":
            self.facts[key] = [replace(fact, value=None, polarity=Polarity.INDETERMINATE)]
        elif isinstance(fact.value, Range):
            self.state(subject, feature, self.pick([v for v in ranges(self.k, f) if v.intersection(fact.value)]))
        elif isinstance(fact.value, frozenset) and fact.polarity is Polarity.PRESENT:
            self.state(subject, feature, fact.value | {self.pick(sorted(f.values))})
        elif isinstance(fact.value, str) and fact.polarity is Polarity.PRESENT:
            self.state(subject, feature, self.pick(sorted(upward(self.k, fact.value) & f.values)))
            self.facts[key].append(self.fact(subject, feature, self.pick(sorted(f.values)), absent=True))
        else:
            del self.facts[key]

    def noise(self, f: Feature, subject: str) -> None:
        """Any state of any feature, on its bearer or, as records do, on the patient."""
        bearer = f.bearer.removeprefix(KYPHO)
        lesion = bearer == "VertebralLesion"
        if not (subject.startswith(LESION) and lesion):
            subject = PATIENT if lesion and f.kind is Op.FINDING else _SUBJECTS[bearer]
        if f.kind is None or (subject, f.iri) in self.facts:
            return
        absent = self.pick((False, True))
        if f.kind is Op.FINDING:
            self.state(subject, f.iri, absent=absent)
        elif f.kind is Op.QUANTITY:
            self.state(subject, f.iri, self.pick([*map(Range.exactly, points(self.k, f)), *ranges(self.k, f)]))
        else:
            value = self.pick(sorted(f.values))
            self.state(subject, f.iri, frozenset({value}) if f.kind is Op.CHOICE else value, absent=absent)


def points(knowledge: Knowledge, f: Feature) -> list[Decimal]:
    """Numbers at each limit in use, just below, just above, and in between."""
    limits = thresholds(knowledge)[f.iri]
    return sorted({*samples(limits), *(x + d for x in limits for d in (-TINY, TINY))})


def ranges(knowledge: Knowledge, f: Feature) -> list[Range]:
    """Intervals between those numbers, closed and open, and bounds on one side."""
    marks = samples(thresholds(knowledge)[f.iri])
    pairs = [*itertools.pairwise(marks), *zip(marks, marks[3:], strict=False)]
    return [
        *(Range(a, b) for a, b in pairs),
        *(Range(a, b, low_open=True, high_open=True) for a, b in pairs),
        *(Range(m, None) for m in marks),
        *(Range(None, m, high_open=True) for m in marks),
    ]


def _apart(value: Range) -> Callable[[Range], bool]:
    return lambda asked: value.intersection(asked) is None


def downward_in(knowledge: Knowledge, f: Feature, cls: str) -> frozenset[str]:
    """The values of a category that are a class or below it."""
    return downward_of(knowledge, f.values, cls)


def downward_of(knowledge: Knowledge, classes: Iterable[str], cls: str) -> frozenset[str]:
    return frozenset(c for c in classes if cls in upward(knowledge, c))


def both_ways(tree: Criterion) -> frozenset[str]:
    """Features that a tree asks for plain and negated, or in more than one way."""
    seen: dict[str, set[object]] = {}

    def visit(c: Criterion, plain: bool) -> None:
        for child in c.children:
            visit(child, plain is not (c.op is Op.NOT))
        if not c.children:
            seen.setdefault(c.term, set()).add((plain, c.values, c.range))

    visit(tree, True)
    return frozenset(term for term, ways in seen.items() if len(ways) > 1)


def in_session(record: Record) -> bool:
    """Whether the proposed session treats the index lesion."""
    procedure = record.procedure
    return procedure is not None and (procedure.lesions is None or "a" in procedure.lesions)
