"""The engines agree: three-valued evaluation, all completions of the record, and the description-logic reasoner."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import Worlds, trees
from strategies import INDEX, by_random, draw_record, in_session, records
from test_lint import GAPS, SOUND

from kypho_kg.criteria import Criterion
from kypho_kg.evaluation import Evaluator, Truth
from kypho_kg.inference import infer
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge
from kypho_kg.owl_export import case_axioms, case_iri
from kypho_kg.reasoning import entailments
from kypho_kg.record import Record
from kypho_kg.snapshot import Snapshot

STEADY = settings(
    max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
FEW = settings(STEADY, max_examples=20)
MANY = settings(
    max_examples=5_000, derandomize=False, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def resolved(record: Record, knowledge: Knowledge) -> Snapshot:
    assert record.as_of
    return infer(record, knowledge, record.as_of, bridges=knowledge.bridges.values())


def ours(snapshot: Snapshot, criteria: dict[str, Criterion]) -> dict[str, Truth]:
    evaluator = Evaluator(snapshot, INDEX, in_session(snapshot.record))
    return {name: evaluator.evaluate(tree).truth for name, tree in criteria.items()}


def completions(snapshot: Snapshot, criteria: dict[str, Criterion]) -> dict[str, Truth]:
    worlds = Worlds(snapshot, INDEX, in_session=in_session(snapshot.record))
    return {name: worlds.truth(tree) for name, tree in criteria.items()}


def assert_equal(mine: dict[str, Truth], theirs: dict[str, Truth], record: Record) -> None:
    """First that we never say more, then that we never say less."""
    more = {n: (t.words, theirs[n].words) for n, t in mine.items() if t is not Truth.UNKNOWN and theirs[n] is not t}
    assert more == {}, f"we say more than is entailed of {record}"
    less = {n: theirs[n].words for n, t in mine.items() if theirs[n] is not t}
    assert less == {}, f"we say less than is entailed of {record}"


def check_worlds(record: Record, knowledge: Knowledge) -> None:
    snapshot, criteria = resolved(record, knowledge), trees(knowledge)
    assert_equal(ours(snapshot, criteria), completions(snapshot, criteria), record)


@given(record=records(load_knowledge()))
@FEW
def test_equal_to_all_completions(knowledge: Knowledge, record: Record) -> None:
    check_worlds(record, knowledge)


@pytest.mark.slow
@given(record=records(load_knowledge()))
@MANY
def test_equal_to_all_completions_at_length(knowledge: Knowledge, record: Record) -> None:
    check_worlds(record, knowledge)


def differing(tree: Criterion, knowledge: Knowledge, seeds: Sequence[int]) -> int:
    found = 0
    for seed in seeds:
        snapshot = resolved(draw_record(by_random(seed), knowledge, [tree]), knowledge)
        found += ours(snapshot, {"": tree}) != completions(snapshot, {"": tree})
    return found


@pytest.mark.parametrize("name", GAPS)
def test_the_records_find_a_planted_gap(knowledge: Knowledge, name: str) -> None:
    assert differing(GAPS[name], knowledge, range(2000)) > 0


@pytest.mark.parametrize("name", SOUND)
def test_the_records_find_nothing_where_nothing_is(knowledge: Knowledge, name: str) -> None:
    assert differing(SOUND[name], knowledge, range(200)) == 0


# -- the reasoner


def check_reasoner(seed: int, knowledge: Knowledge) -> None:
    record = draw_record(by_random(seed), knowledge)
    snapshot, criteria = resolved(record, knowledge), trees(knowledge)
    axioms = case_axioms(snapshot, "a", in_session(record))
    theirs = entailments(knowledge, axioms, case_iri(record, "a"), list(criteria), timeout=300)
    assert_equal(ours(snapshot, criteria), theirs, record)


@pytest.mark.reasoner
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 6))])
def test_equal_to_the_reasoner(knowledge: Knowledge, seed: int) -> None:
    check_reasoner(seed, knowledge)


@pytest.mark.slow
@pytest.mark.reasoner
@pytest.mark.parametrize("seed", range(1_000, 1_100))
def test_equal_to_the_reasoner_at_length(knowledge: Knowledge, seed: int) -> None:
    check_reasoner(seed, knowledge)


@given(seed=st.integers(0, 2**32))
@STEADY
def test_a_seed_gives_one_record(knowledge: Knowledge, seed: int) -> None:
    assert draw_record(by_random(seed), knowledge) == draw_record(by_random(seed), knowledge)
