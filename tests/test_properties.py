"""What holds of every record: unknown never becomes a wrong answer, and nothing that should not matter matters."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from oracle import trees
from strategies import AS_OF, INDEX, Maker, draw_record, in_session

from kypho_kg.candidacy import CaseAnswer, assess
from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Evaluator, Truth
from kypho_kg.guidelines import ABSOLUTE, Guideline, Recommendation
from kypho_kg.inference import infer
from kypho_kg.intake import read_patient_file
from kypho_kg.knowledge import Feature
from kypho_kg.loading import load_knowledge
from kypho_kg.record import LESION, PATIENT, Cause, Range, Record, TimeSpan
from kypho_kg.snapshot import Snapshot
from kypho_kg.sources.patient_file import merge
from kypho_kg.vocabulary import KYPHO

K = load_knowledge()
OPEN = {"Undetermined", "CandidateScreeningOpen"}
CANDIDATES = {"Candidate", "CandidateWithCaution", "CandidateScreeningOpen"}
DATES = ("2026-03-02", "2026-03-01", "2026-02-20", "2026-02", "2026-01-01", "2025-09-01", "2025", "2024-06-01")


FACTOR = int(os.environ.get("KYPHO_EXAMPLES", "1"))
"""``KYPHO_EXAMPLES=20 pytest tests/test_properties.py`` tries twenty times as many records, other ones each time."""


def steady(examples: int) -> settings:
    return settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def resolved(record: Record) -> Snapshot:
    return infer(record, K, AS_OF, bridges=K.bridges.values())


def contradicts(snapshot: Snapshot) -> bool:
    """Whether anything in a record was withheld because it contradicts something else."""
    gaps = [state.gap for state in snapshot.values.values()]
    gaps += [gap for rows in snapshot.gaps.values() for _, gap in rows]
    return any(gap.cause is Cause.CONFLICTING for gap in gaps)


def judged(record: Record) -> CaseAnswer:
    """The case of lesion ``a`` under every guideline."""
    answer = assess(record, knowledge=K, guidelines=list(K.guidelines), validate=False)
    return next(c for c in answer.cases if c.lesion.id == record.lesions[0].id)


def truths(case: CaseAnswer) -> dict[str, Truth]:
    return {c.recommendation.id: c.truth for a in case.assessments for c in a.clauses}


def verdicts(case: CaseAnswer) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {a.guideline.id: (a.verdict, a.conclusion.reachable) for a in case.assessments}


# -- more and less information


def silent(snapshot: Snapshot) -> list[tuple[str, Feature]]:
    """Features of which nothing is known and nothing recorded, each with its subject."""
    said = {(f.subject, f.feature) for f in snapshot.record.facts}
    bearers = {KYPHO + "Patient": PATIENT, KYPHO + "VertebralLesion": INDEX, KYPHO + "ProposedProcedure": "procedure"}
    rows = [(bearers[f.bearer], f) for f in K.features.values() if f.kind is not None]
    return [(s, f) for s, f in rows if (s, f.iri) not in said and not snapshot.value(s, f.iri).facts]


@given(data=st.data())
@steady(25)
def test_filling_an_unknown_settles_and_never_turns(data: st.DataObject) -> None:
    record, pick = drawn(data)
    before = judged(record)
    for _ in range(3):
        maker = Maker(pick, K)
        subject, feature = pick(silent(resolved(record)))
        maker.noise(feature, subject)
        record = replace(record, facts=(*record.facts, *itertools.chain(*maker.facts.values())))
    after = judged(record)
    assume(not contradicts(after.snapshot))
    old, new = truths(before), truths(after)
    assert {c: t for c, t in old.items() if t is not Truth.UNKNOWN and new[c] is not t} == {}
    for guideline, (verdict, reachable) in verdicts(after).items():
        was, could = verdicts(before)[guideline]
        assert set(reachable) <= set(could), f"{guideline}: {was} {could} -> {verdict} {reachable}"
        assert verdict in could or verdict in OPEN, f"{guideline}: {was} {could} -> {verdict} {reachable}"


@given(data=st.data())
@steady(25)
def test_removing_a_fact_never_turns_an_answer(data: st.DataObject) -> None:
    record, pick = drawn(data)
    # Without a stated quantity the derived one counts, and a record may hold both.
    stated = [f for f in record.facts if not K.features[f.feature].derived_by]
    assume(stated)
    gone = pick(stated)
    before, after = judged(record), judged(replace(record, facts=tuple(f for f in record.facts if f is not gone)))
    assume(not contradicts(before.snapshot))
    old, new = truths(before), truths(after)
    turned = {c: (t.words, new[c].words) for c, t in old.items() if new[c] not in {t, Truth.UNKNOWN}}
    assert {c: t for c, t in turned.items() if old[c] is not Truth.UNKNOWN} == {}, gone
    assert turned == {}, gone


def absolute(guideline: Guideline) -> list[Recommendation]:
    return [r for r in guideline.recommendations if r.effect == ABSOLUTE and not r.reading]


WITH_ABSOLUTE = [g for g in K.guidelines.values() if absolute(g) and g.eligible]


@pytest.mark.parametrize("guideline", WITH_ABSOLUTE, ids=lambda g: g.id)
@given(data=st.data())
@steady(8)
def test_an_absolute_contraindication_never_ends_as_a_candidate(guideline: Guideline, data: st.DataObject) -> None:
    record, pick = drawn(data, [K.criterion(guideline.eligible)])
    clause = pick(absolute(guideline))
    maker = Maker(pick, K)
    maker.meet(clause.criterion, True, "")
    kept = tuple(f for f in record.facts if (f.subject, f.feature) not in maker.facts)
    case = judged(replace(record, facts=(*kept, *itertools.chain(*maker.facts.values()))))
    assume(truths(case)[clause.id] is Truth.MET)
    verdict, reachable = verdicts(case)[guideline.id]
    assert verdict not in CANDIDATES
    assert not CANDIDATES & set(reachable)


@given(data=st.data())
@steady(30)
def test_an_unknown_absolute_contraindication_never_ends_as_a_candidate(data: st.DataObject) -> None:
    record, _ = drawn(data)
    for a in judged(record).assessments:
        if a.having(ABSOLUTE, Truth.UNKNOWN):
            assert a.verdict not in CANDIDATES


# -- what does not matter


def several(data: st.DataObject) -> tuple[Record, Callable[[Any], Any]]:
    """A record with several facts on one feature, of different dates."""
    first, pick = drawn(data)
    facts = list(first.facts)
    for _ in range(2):
        more = draw_record(pick, K, [pick(list(trees(K).values()))]).facts
        facts += [f for f in more if f.subject != LESION + "b"]
    again = [pick(facts) for _ in range(4)] if facts else []
    dated = [replace(f, time=TimeSpan.parse(pick(DATES))) if pick((True, False)) else f for f in (*facts, *again)]
    return replace(first, facts=tuple(dated)), pick


@given(data=st.data())
@steady(30)
def test_the_order_of_facts_does_not_matter(data: st.DataObject) -> None:
    record, pick = several(data)
    facts = list(record.facts)
    random.Random(pick(range(1000))).shuffle(facts)
    mixed = judged(replace(record, facts=tuple(facts)))
    straight = judged(record)
    assert truths(mixed) == truths(straight)
    assert verdicts(mixed) == verdicts(straight)


@given(data=st.data())
@steady(30)
def test_another_patient_does_not_matter(data: st.DataObject) -> None:
    record, _ = drawn(data)
    other, _ = drawn(data)
    left, mine, right = merge(
        [replace(other, patient="x"), record, replace(other, patient="y", lesions=(), procedure=None)]
    )
    assert (left.patient, right.patient) == ("x", "y")
    assert mine == record
    assert verdicts(judged(mine)) == verdicts(judged(record))


@given(data=st.data())
@steady(20)
def test_names_of_lesions_do_not_matter(data: st.DataObject) -> None:
    record, _ = drawn(data)
    names = {"a": "L2 / 1", "b": "patient"}
    procedure = record.procedure
    if procedure and procedure.lesions:
        procedure = replace(procedure, lesions=tuple(names[x] for x in procedure.lesions))
    renamed = replace(
        record,
        lesions=tuple(replace(x, id=names[x.id]) for x in record.lesions),
        facts=tuple(
            replace(f, subject=LESION + names[f.subject.removeprefix(LESION)]) if f.subject.startswith(LESION) else f
            for f in record.facts
        ),
        procedure=procedure,
    )
    assert truths(judged(renamed)) == truths(judged(record))
    assert verdicts(judged(renamed)) == verdicts(judged(record))


UNITS = [(f, unit) for f in K.features.values() if f.kind is Op.QUANTITY for unit in f.accepts]


@pytest.mark.parametrize(("feature", "unit"), UNITS, ids=lambda x: getattr(x, "name", x))
@given(number=st.decimals(min_value=0, max_value=5000, places=2))
@steady(15)
def test_units_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, feature: Feature, unit: str, number: Decimal
) -> None:
    path = tmp_path_factory.mktemp("units") / "p.yaml"

    def read(value: object, in_unit: str) -> Record:
        block = f"facts: {{{feature.name}: {{value: {value}, unit: '{in_unit}'}}}}"
        place = {"Patient": block, "VertebralLesion": f"lesions: [{{id: a, {block}}}]",
                 "ProposedProcedure": f"procedure: {{{block}}}"}[feature.bearer.removeprefix(KYPHO)]  # fmt: skip
        if "lesions" not in place:
            place += "\nlesions: [{id: a}]"
        path.write_text(f"format: kypho-patient/1\npatient: {{id: p}}\nas_of: 2026-03-02\n{place}\n")
        return read_patient_file(path, K)

    scaled = Range.exactly(number).scaled(feature.accepts[unit]).exact
    assert scaled is not None
    other, own = read(number, unit), read(f"{scaled:f}", feature.unit)
    assert [f.value for f in other.facts] == [f.value for f in own.facts]
    assert verdicts(judged(other)) == verdicts(judged(own))


# -- the algebra

ATOMS = [
    n if link is None else Criterion(Op.LINK, (n,), term=link)
    for tree in trees(K).values()
    for link, n in ((link.term, n) for link in tree.walk() if link.op is Op.LINK for n in link.walk() if not n.children)
]
BANDS = [n for tree in trees(K).values() for n in tree.walk() if n.op is Op.OPEN]
CRITERIA = st.recursive(
    st.sampled_from([*dict.fromkeys(ATOMS), *dict.fromkeys(BANDS)]),
    lambda parts: st.one_of(
        parts.map(lambda p: Criterion(Op.NOT, (p,))),
        st.lists(parts, min_size=2, max_size=4).map(lambda p: Criterion(Op.AND, tuple(p))),
        st.lists(parts, min_size=2, max_size=4).map(lambda p: Criterion(Op.OR, tuple(p))),
        st.lists(parts, min_size=3, max_size=4).flatmap(
            lambda p: st.integers(2, len(p) - 1).map(lambda n: Criterion(Op.AT_LEAST, tuple(p), n=n))
        ),
    ),
    max_leaves=8,
)


def no(c: Criterion) -> Criterion:
    return Criterion(Op.NOT, (c,))


def evaluated(snapshot: Snapshot, c: Criterion) -> Truth:
    return Evaluator(snapshot, INDEX, in_session(snapshot.record)).evaluate(c).truth


@given(parts=st.lists(CRITERIA, min_size=2, max_size=4), data=st.data())
@steady(60)
def test_laws_of_the_algebra(parts: list[Criterion], data: st.DataObject) -> None:
    snapshot = resolved(drawn(data, [Criterion(Op.AND, tuple(parts))])[0])

    def t(c: Criterion) -> Truth:
        return evaluated(snapshot, c)

    every, some = Criterion(Op.AND, tuple(parts)), Criterion(Op.OR, tuple(parts))
    assert t(no(every)) is t(Criterion(Op.OR, tuple(map(no, parts))))
    assert t(no(some)) is t(Criterion(Op.AND, tuple(map(no, parts))))
    assert t(no(no(every))) is t(every)
    assert t(Criterion(Op.AND, tuple(reversed(parts)))) is t(every)
    assert t(every) <= min(map(t, parts)) <= max(map(t, parts)) <= t(some)
    for n in range(1, len(parts) + 1):
        at_least = Criterion(Op.AT_LEAST, tuple(parts), n=n)
        ways = tuple(Criterion(Op.AND, c) for c in itertools.combinations(parts, n))
        assert t(at_least) is t(Criterion(Op.OR, ways))
        fewer = Criterion(Op.AT_LEAST, tuple(map(no, parts)), n=len(parts) - n + 1)
        assert t(no(at_least)) is t(fewer)


@given(tree=CRITERIA, data=st.data())
@steady(60)
def test_more_information_keeps_what_is_settled(tree: Criterion, data: st.DataObject) -> None:
    record, pick = drawn(data, [tree])
    before = resolved(record)
    maker = Maker(pick, K)
    subject, feature = pick(silent(before))
    maker.noise(feature, subject)
    after = resolved(replace(record, facts=(*record.facts, *itertools.chain(*maker.facts.values()))))
    assume(not contradicts(after))
    assert evaluated(before, tree) in {Truth.UNKNOWN, evaluated(after, tree)}


def drawn(data: st.DataObject, aims: list[Criterion] | None = None) -> tuple[Record, Callable[[Any], Any]]:
    """A record, and the source of choices that it was drawn from."""

    def pick(items: Any) -> Any:
        return data.draw(st.sampled_from(items))

    return draw_record(pick, K, aims or ()), pick
