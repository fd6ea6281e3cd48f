"""Three-valued truth, the proof of every node, and every cause of an unknown."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest
from builders import A, ask, asked, between, changed, clause, clause_says, example, fact, record, session, snap, unknown

from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Evaluator, Truth, lesion_subject
from kypho_kg.reasons import deciding
from kypho_kg.record import PATIENT, PROCEDURE, Cause
from kypho_kg.vocabulary import KYPHO

# -- operators

YES, NO, OPEN = asked("Hypertension"), asked("DiabetesMellitus"), asked("Hypothyroidism")
KNOWN = [fact("Hypertension"), fact("DiabetesMellitus", "absent")]
VALUE = {YES: Truth.MET, NO: Truth.NOT_MET, OPEN: Truth.UNKNOWN}


def truth(op, *children, n=0):
    return Evaluator(snap(*KNOWN), A, has_procedure=False).evaluate(Criterion(op, children, n=n), PATIENT).truth


@pytest.mark.parametrize(("a", "b"), list(itertools.product(VALUE, repeat=2)))
def test_and_is_the_minimum_and_or_the_maximum(a, b):
    assert truth(Op.AND, a, b) is min(VALUE[a], VALUE[b])
    assert truth(Op.OR, a, b) is max(VALUE[a], VALUE[b])


def test_not_is_the_reversal():
    assert [truth(Op.NOT, c) for c in (YES, NO, OPEN)] == [Truth.NOT_MET, Truth.MET, Truth.UNKNOWN]


@pytest.mark.parametrize("children", list(itertools.product(VALUE, repeat=3)))
@pytest.mark.parametrize("n", [2])
def test_at_least_n_counts_what_is_met_and_what_still_can_be(children, n):
    values = [VALUE[c] for c in children]
    completions = itertools.product(*[(Truth.MET, Truth.NOT_MET) if v is Truth.UNKNOWN else (v,) for v in values])
    ends = {c.count(Truth.MET) >= n for c in completions}
    expected = Truth.UNKNOWN if len(ends) == 2 else Truth.MET if ends == {True} else Truth.NOT_MET
    assert truth(Op.AT_LEAST, *children, n=n) is expected


@pytest.mark.parametrize(
    ("strict", "lenient", "expected", "band"),
    [
        (YES, YES, Truth.MET, False),
        (NO, NO, Truth.NOT_MET, False),
        (OPEN, NO, Truth.NOT_MET, False),
        (YES, OPEN, Truth.MET, False),
        (NO, YES, Truth.UNKNOWN, True),
        (NO, OPEN, Truth.UNKNOWN, True),
        (OPEN, YES, Truth.UNKNOWN, True),
        (OPEN, OPEN, Truth.UNKNOWN, False),
    ],
)
def test_between_the_readings_it_is_unknown_and_left_open_by_the_source(strict, lenient, expected, band):
    proof = Evaluator(snap(*KNOWN), A, has_procedure=False).evaluate(Criterion(Op.OPEN, (strict, lenient)), PATIENT)
    assert proof.truth is expected
    assert (proof.gap.cause if proof.gap else None) == (Cause.LEFT_OPEN if band else None)


# -- every cause of an unknown: one small record each

CAUSES = {
    Cause.NOT_RECORDED: ("seed-guidelines/SEED-A1", []),
    Cause.PENDING: ("seed-guidelines/SEED-A1", [fact("ActiveInfection", mood="ordered", time="2026-02-28")]),
    Cause.NOT_ASSESSABLE: (
        "seed-guidelines/SEED-A3",
        [unknown("SpinalCordCompression", Cause.NOT_ASSESSABLE, reason="pacemaker")],
    ),
    Cause.INDETERMINATE: ("seed-guidelines/SEED-A1", [fact("ActiveInfection", status="differential")]),
    Cause.STALE: ("seed-guidelines/SEED-A1", [fact("ActiveInfection", "absent", "2025-12-01")]),
    Cause.CONFLICTING: ("seed-guidelines/SEED-A1", [fact("ActiveInfection"), fact("ActiveInfection", "absent")]),
    Cause.INVALID: ("cms-l34228/LCD-D3", [fact("weeksSinceOnset", -1, invalid="weeksSinceOnset: 0 or more")]),
    Cause.IMPRECISE: ("cms-l34228/LCD-D3", [fact("weeksSinceOnset", between(10, 16))]),
    Cause.IN_WORDS_ONLY: (
        "cms-l34228/LCD-D3",
        [unknown("weeksSinceOnset", Cause.IN_WORDS_ONLY, words="a few weeks")],
    ),
    Cause.NOT_ATTRIBUTED: ("seed-guidelines/SEED-A3", [fact("SpinalCordCompression", on=PATIENT)]),
    Cause.LEFT_OPEN: ("seed-guidelines/SEED-I2", [
        fact("adlLimitation", "SevereAdlLimitation"), fact("PainConcordantWithLevel"), fact("MarrowEdemaOnMri"),
        fact("weeksSinceOnset", 7)]),
}  # fmt: skip


def test_no_cause_is_forgotten():
    assert set(CAUSES) == set(Cause)


@pytest.mark.parametrize("cause", list(CAUSES))
def test_each_cause_of_an_unknown_reaches_the_clause(cause):
    id_, facts = CAUSES[cause]
    assert clause_says(record(*facts), id_) == cause


def test_each_cause_is_a_term_of_the_ontology_with_plain_words(knowledge):
    for cause in Cause:
        assert knowledge.triples.text(KYPHO + cause, KYPHO + "plainLabel"), cause


@pytest.mark.parametrize("cause", [c for c in CAUSES if c not in {Cause.NOT_RECORDED, Cause.LEFT_OPEN}])
def test_the_facts_that_were_withheld_stay_in_the_proof(cause):
    id_, facts = CAUSES[cause]
    [leaf] = clause(record(*facts), id_).unknown_leaves()
    assert {f.feature for f in leaf.facts} == {facts[-1].feature}


def test_pain_in_words_where_a_number_is_asked_for():
    proof = ask(snap(fact("painSeverity", "SeverePain")), "painNrs", between(5))
    assert proof.gap.cause is Cause.IN_WORDS_ONLY
    assert proof.facts[0].feature == KYPHO + "painSeverity"


def test_a_case_without_procedure_does_not_know_what_is_proposed():
    assert clause_says(record(), "nice-ta279/NICE-X1") == "NotRecorded"
    assert clause_says(record(procedure=session()), "nice-ta279/NICE-X1") == "NotRecorded"
    assert (
        clause_says(record(fact("technique", "Vertebroplasty"), procedure=session()), "nice-ta279/NICE-X1") == "not met"
    )


def test_a_lesion_outside_the_session_has_no_procedure():
    both = record(fact("technique", "Vertebroplasty"), lesions=("a", "b"), procedure=session("b"))
    assert clause_says(both, "nice-ta279/NICE-X1", lesion="a") == "NotRecorded"
    assert clause_says(both, "nice-ta279/NICE-X1", lesion="b") == "not met"


def test_a_lesion_left_out_of_sight_is_unknown():
    evaluator = Evaluator(snap(), "", has_procedure=False)
    link = Criterion(Op.LINK, (asked("Retropulsion"),), term=KYPHO + "indexLesion")
    proof = evaluator.evaluate(link)
    assert (proof.truth, proof.gap.cause) == (Truth.UNKNOWN, Cause.NOT_RECORDED)
    assert list(proof.unknown_leaves()) == [proof]


# -- distance


@pytest.mark.parametrize(
    ("value", "wanted", "distance", "words"),
    [
        (6, between(5), 1, "met"),
        (5, between(5), 0, "met"),
        (5, between(5, low_open=True), 0, "not met"),
        ("4.5", between(5), "-0.5", "not met"),
        (7, between(None, 6), -1, "not met"),
        (6, between(5, 9), 1, "met"),
        (8, between(5, 9), 1, "met"),
        (10, between(5, 9), -1, "not met"),
        (between(4, 6), between(5), None, "unknown"),
        (between(6, 8), between(5), 1, "met"),
        (between(6, 8), between(5, 9), 1, "met"),
        (between(6), between(5), 1, "met"),
        (between(None, 5, high_open=True), between(5), 0, "not met"),
        (between(1, 3), between(5, 9), -2, "not met"),
        (between(10), between(5, 9), -1, "not met"),
        (3, between(), None, "met"),
    ],
)
def test_the_distance_to_the_limit(value, wanted, distance, words):
    proof = ask(snap(fact("painNrs", value)), "painNrs", wanted)
    assert (proof.distance, proof.truth.words) == (None if distance is None else Decimal(distance), words)


def test_an_unknown_value_has_no_distance():
    assert ask(snap(), "painNrs", between(5)).distance is None


# -- proofs


def test_every_leaf_of_a_proof_has_facts_or_a_cause():
    for name in ("constructed/t4-outpatient", "published/ost-02", "constructed/stale-visit"):
        of = example(name)
        for id_ in (
            "cms-l34228/LCD-I2",
            "evicore-cmm-607/EVI-X1",
            "colorado-dowc-2014/DOWC-A1",
            "seed-research/SEED-R1",
        ):
            for leaf in clause(of, id_, of.lesions[0].id).leaves():
                assert (leaf.gap is None) is (leaf.truth is not Truth.UNKNOWN)
                assert leaf.facts or leaf.gap.cause is Cause.NOT_RECORDED


def test_a_proof_shows_every_operand_and_not_the_first_that_failed():
    proof = clause(record(fact("primaryEtiology", "MultipleMyeloma"), fact("weeksSinceOnset", 20)), "cms-l34228/LCD-I1")
    assert [p.truth.words for p in proof.children] == ["not met", "not met", "unknown", "unknown"]
    assert len(list(deciding(proof))) == 2


def test_unknown_leaves_are_those_that_keep_the_node_open():
    base = changed(example("constructed/t4-outpatient"), without=["MarrowEdemaOnMri"])
    [edema, uptake] = clause(base, "cms-l34228/LCD-I1").unknown_leaves()
    assert {edema.criterion.term, uptake.criterion.term} == {KYPHO + "MarrowEdemaOnMri", KYPHO + "UptakeOnBoneScan"}
    assert list(clause(changed(base, fact("weeksSinceOnset", 20)), "cms-l34228/LCD-I1").unknown_leaves()) == []


def test_one_evaluation_of_a_criterion_serves_all_clauses():
    evaluator = Evaluator(snap(*KNOWN), lesion_subject("a"), has_procedure=True)
    assert evaluator.evaluate(YES, PATIENT) is evaluator.evaluate(YES, PATIENT)
    assert evaluator.evaluate(YES, PATIENT).truth is not evaluator.evaluate(YES, PROCEDURE).truth
