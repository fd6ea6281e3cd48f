"""Bridges, closures of values and assumption policies: what rules add, and what they never touch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import (
    TODAY,
    A,
    ask,
    asked,
    between,
    changed,
    example,
    fact,
    inferred,
    iri,
    record,
    says,
    session,
    unknown,
    verdict,
)

from kypho_kg.candidacy import assess
from kypho_kg.criteria import Criterion, Op
from kypho_kg.inference import assumptions_of, infer
from kypho_kg.knowledge import Bridge
from kypho_kg.record import PATIENT, PROCEDURE, Cause

# -- bridges

AT_THE_LIMIT = [
    ("inr-above-1.8", fact("inr", "1.81", "2026-02-20"), fact("inr", "1.8", "2026-02-20"), "UncorrectedCoagulopathy"),
    ("platelets-below-50", fact("plateletCount", 49, "2026-02-20"), fact("plateletCount", 50, "2026-02-20"),
     "UncorrectedCoagulopathy"),
    ("bilsky-2", fact("bilskyGrade", "Bilsky2", "2026-02-20"), fact("bilskyGrade", "Bilsky1C", "2026-02-20"),
     "SpinalCordCompression"),
    ("bilsky-1a", fact("bilskyGrade", "Bilsky1A", "2026-02-20"), fact("bilskyGrade", "Bilsky0", "2026-02-20"),
     "EpiduralTumour"),
    ("cause-pathological", fact("primaryEtiology", "PrimaryOsteoporosis", "2026-02-20"),
     fact("primaryEtiology", "HighEnergyTrauma", "2026-02-20"), "PathologicalFracture"),
    ("myeloma-bone", fact("primaryEtiology", "MultipleMyeloma", "2026-02-20"),
     fact("primaryEtiology", "OsteolyticMetastasis", "2026-02-20"), "SpinalBoneDisease"),
    ("of-5", fact("ofType", "OF5", "2026-02-20"), fact("ofType", "OF4", "2026-02-20"), "SpinalInstability"),
    ("sins-13", fact("sinsScore", 13, "2026-02-20"), fact("sinsScore", 12, "2026-02-20"), "SpinalInstability"),
    ("canal-percent", fact("canalCompromisePercent", "0.1", "2026-02-20"),
     fact("canalCompromisePercent", 0, "2026-02-20"), "CanalCompromise"),
    ("canal-zero", fact("canalCompromisePercent", 0, "2026-02-20"),
     fact("canalCompromisePercent", "0.1", "2026-02-20"), "CanalCompromise"),
    ("height-progression-percent", fact("heightLossProgressionPercent", "0.1", "2026-02-20"),
     fact("heightLossProgressionPercent", 0, "2026-02-20"), "HeightLossProgression"),
    ("pain-score-symptomatic", fact("painNrs", 1, "2026-02-20"), fact("painNrs", 0, "2026-02-20"), "SymptomaticLesion"),
    ("pain-words-symptomatic", fact("painSeverity", "MildPain", "2026-02-20"),
     unknown("painSeverity", Cause.INDETERMINATE, "2026-02-20"), "SymptomaticLesion"),
]  # fmt: skip
BESIDES = {"cause-pathological": fact("lesionKind", "FractureLesion", "2026-02-20")}
"""What a bridge asks for beside the fact that is varied."""


def test_every_bridge_is_tried_below(knowledge):
    assert {name for name, *_ in AT_THE_LIMIT} == set(knowledge.bridges)


@pytest.mark.parametrize(("name", "beyond", "at", "finding"), AT_THE_LIMIT, ids=[row[0] for row in AT_THE_LIMIT])
def test_a_bridge_holds_just_beyond_its_limit_and_says_nothing_at_it(knowledge, name, beyond, at, finding):
    bridge = knowledge.bridges[name]
    besides = [BESIDES[name]] if name in BESIDES else []
    proof = ask(inferred(beyond, *besides), finding)
    assert proof.truth.words == ("not met" if bridge.rules_out else "met")
    bridged = next(f for f in proof.facts if f.rule == bridge.iri)
    assert (set(bridged.premises), bridged.time) == ({beyond, *besides}, beyond.time)
    assert name in str(bridged.source)
    below = infer(record(at, *besides), knowledge, TODAY, bridges=[bridge])
    assert says(below, finding) in {"NotRecorded", "Indeterminate"}


@pytest.mark.parametrize(("name", "beyond", "at", "finding"), AT_THE_LIMIT, ids=[row[0] for row in AT_THE_LIMIT])
def test_without_bridges_nothing_counts_as_something_else(name, beyond, at, finding):
    assert says(inferred(beyond, bridges=False), finding) == "NotRecorded"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [([fact("primaryEtiology", "OsteolyticMetastasis"), fact("lesionKind", "FractureLesion")], "met"),
     ([fact("primaryEtiology", "PrimaryOsteoporosis")], "NotRecorded"),
     ([fact("primaryEtiology", "OsteolyticMetastasis")], "NotRecorded"),
     ([fact("primaryEtiology", "OsteolyticMetastasis"), fact("lesionKind", "OsteolyticLesionWithoutFracture")],
      "NotRecorded"),
     ([fact("primaryEtiology", "HighEnergyTrauma"), fact("lesionKind", "FractureLesion")], "NotRecorded"),
     ([fact("lesionKind", "FractureLesion")], "NotRecorded")],
)  # fmt: skip
def test_a_tumour_or_weak_bone_is_a_pathological_fracture_only_once_it_has_broken(facts, expected):
    assert says(inferred(*facts), "PathologicalFracture") == expected


@pytest.mark.parametrize(
    ("of_type", "expected"),
    [*((fact("ofType", f"OF{n}"), "NotRecorded") for n in range(1, 5)), (fact("ofType", "OF5"), "met"),
     (fact("ofType", {"OF4", "OF5"}), "NotRecorded"), (fact("ofType", "OF5", absent=True), "NotRecorded")],
)  # fmt: skip
def test_of_the_of_types_only_the_fifth_is_unstable(of_type, expected):
    assert says(inferred(of_type), "SpinalInstability") == expected


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0, "not met"), ("0.1", "met"), (20, "met"), (between(0, 0), "not met"), (between(0, 5), "NotRecorded"),
     (between(0, low_open=True), "met"), (between(None, 20), "NotRecorded")],
)  # fmt: skip
def test_a_percentage_of_the_canal_finds_a_compromise_or_rules_it_out(percent, expected):
    assert says(inferred(fact("canalCompromisePercent", percent)), "CanalCompromise") == expected


@pytest.mark.parametrize(
    ("value", "finding", "said"),
    [(fact("inr", "1.81"), "UncorrectedCoagulopathy", "absent"), (fact("ofType", "OF5"), "SpinalInstability", "absent"),
     (fact("canalCompromisePercent", 0), "CanalCompromise", "present"),
     (fact("canalCompromisePercent", 5), "CanalCompromise", "absent")],
)  # fmt: skip
def test_a_word_against_a_bridge_is_a_conflict(value, finding, said):
    assert says(inferred(value, fact(finding, said)), finding) == "Conflicting"
    assert says(inferred(value, fact(finding, said), bridges=False), finding) != "Conflicting"


def test_a_canal_that_is_free_says_nothing_of_retropulsion_or_stenosis():
    snapshot = inferred(fact("canalCompromisePercent", 0))
    for finding in ("Retropulsion", "SpinalStenosis", "NeuralImpingement"):
        assert says(snapshot, finding) == "NotRecorded"


def test_a_good_value_does_not_rule_the_finding_out():
    snapshot = inferred(fact("inr", 1), fact("plateletCount", 250), fact("bilskyGrade", "Bilsky0"), fact("painNrs", 0))
    for finding in ("UncorrectedCoagulopathy", "SpinalCordCompression", "EpiduralTumour", "SymptomaticLesion"):
        assert says(snapshot, finding) == "NotRecorded"


@pytest.mark.parametrize("inr", [between("1.7", "1.9"), between("1.8"), between(None, 3)])
def test_a_range_across_the_limit_bridges_nothing(inr):
    assert says(inferred(fact("inr", inr)), "UncorrectedCoagulopathy") == "NotRecorded"


def test_what_a_bridge_yields_is_a_finding_like_any_other():
    assert says(inferred(fact("inr", 3)), "Coagulopathy") == "met"
    assert says(inferred(fact("bilskyGrade", "Bilsky3")), "NeuralImpingement", on=PATIENT) == "met"


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [("2026-02-20", "Conflicting"), ("2026-02-14", "Conflicting"), ("2026-02-12", "met"), ("2026-02-28", "not met")],
)
def test_a_bridge_against_a_recorded_absence_is_a_contradiction_like_any_other(recorded, expected):
    snapshot = inferred(fact("inr", 3, "2026-02-20"), fact("Coagulopathy", "absent", recorded))
    assert says(snapshot, "UncorrectedCoagulopathy") == expected


def test_bridges_feed_one_another(knowledge):
    second = Bridge(
        "second", iri("SecondBridge"), "second", iri("Patient"), asked("UncorrectedCoagulopathy"), iri("Pregnancy"), ""
    )
    snapshot = infer(record(fact("inr", 3)), knowledge, TODAY, bridges=[second, *knowledge.bridges.values()])
    proof = ask(snapshot, "Pregnancy")
    assert proof.truth.words == "met"
    assert proof.facts[0].premises[0].premises[0].feature == iri("inr")


def test_a_bridge_may_rest_on_an_absence(knowledge):
    condition = Criterion(Op.AND, (asked("Coagulopathy"), Criterion(Op.NOT, (asked("Pregnancy"),))))
    bridge = Bridge("odd", iri("OddBridge"), "odd", iri("Patient"), condition, iri("Hypertension"), "")
    snapshot = infer(record(fact("Coagulopathy"), fact("Pregnancy", "absent")), knowledge, TODAY, bridges=[bridge])
    proof = ask(snapshot, "Hypertension")
    assert {f.feature for f in proof.facts[0].premises} == {iri("Coagulopathy"), iri("Pregnancy")}
    only = replace(bridge, condition=Criterion(Op.NOT, (asked("Pregnancy"),)))
    assert says(infer(record(fact("Pregnancy", "absent")), knowledge, TODAY, bridges=[only]), "Hypertension") == "met"


def test_a_bridge_may_speak_of_the_procedure(knowledge):
    bridge = Bridge(
        "p", iri("P"), "p", iri("ProposedProcedure"), asked("technique", "Sacroplasty"), iri("ProphylacticIntent"), ""
    )
    facts = record(fact("technique", "Sacroplasty"), procedure=session())
    assert says(infer(facts, knowledge, TODAY, bridges=[bridge]), "ProphylacticIntent", on=PROCEDURE) == "met"
    assert says(infer(facts, knowledge, TODAY, bridges=[bridge]), "ProphylacticIntent", on=A) == "NotRecorded"


def test_answers_list_the_bridges_that_a_guideline_used():
    base = changed(
        example("constructed/t4-outpatient"),
        fact("inr", 3, "2026-03-01"),
        without=["UncorrectedCoagulopathy", "Coagulopathy"],
    )
    assert "inr-above-1.8" in verdict(base, "evicore-cmm-607").bridges
    assert "inr-above-1.8" not in verdict(base, "nice-ta279").bridges
    assert verdict(base, "evicore-cmm-607", bridges=False).bridges == ()


# -- policies

SILENCE = {
    "problem-list": ([fact("ProblemListDocumented", "present", "2026-02-20")],
                     ["ActiveInfection", "Coagulopathy", "Pregnancy", "NeurologicalDeficit", "NeuralImpingement",
                      "Radiculopathy", "SpinalInstability", "KnownMalignancy"]),
    "age-sex": ([fact("age", 60)], ["Pregnancy"]),
    "single-etiology": ([fact("primaryEtiology", "PrimaryOsteoporosis")],
                        ["TumourAtLevel", "OsteonecrosisAtLevel", "TraumaAtLevel"]),
}  # fmt: skip
CLOSED = [(policy, finding) for policy, (_, findings) in SILENCE.items() for finding in findings]


def test_every_policy_is_tried_below(knowledge):
    closed = {p.name: {c for closure in p.closures for c in closure.closes} for p in knowledge.policies.values()}
    assert closed.pop("strict") == set()
    assert closed == {name: set(map(iri, findings)) for name, (_, findings) in SILENCE.items()}


@pytest.mark.parametrize(("policy", "finding"), CLOSED)
def test_a_policy_closes_silence_and_only_where_its_condition_holds(policy, finding):
    condition, _ = SILENCE[policy]
    assert says(inferred(*condition), finding) == "NotRecorded"
    assert says(inferred(policies=[policy]), finding) == "NotRecorded"
    snapshot = inferred(*condition, policies=[policy])
    proof = ask(snapshot, finding)
    assert proof.truth.words == "not met"
    assert f"assumed by policy {policy}" in str(proof.facts[0].source)
    assert set(condition) <= set(proof.facts[0].premises)
    assert set(proof.facts) <= set(assumptions_of(snapshot))


@pytest.mark.parametrize(("policy", "finding"), CLOSED)
@pytest.mark.parametrize(
    ("said", "cause"),
    [({"said": "indeterminate"}, "Indeterminate"), ({"mood": "ordered"}, "Pending"), ({"invalid": "shape"}, "Invalid"),
     ({"said": "indeterminate", "cause": Cause.NOT_ASSESSABLE}, "NotAssessable"),
     ({"status": "differential"}, "Indeterminate")],
    ids=["indeterminate", "ordered", "invalid", "not-assessable", "differential"],
)  # fmt: skip
def test_a_policy_closes_nothing_that_was_spoken_of(policy, finding, said, cause):
    assert says(inferred(*SILENCE[policy][0], fact(finding, **said), policies=[policy]), finding) == cause


@pytest.mark.parametrize(("policy", "finding"), CLOSED)
def test_a_policy_settles_no_conflict_and_contradicts_no_finding(policy, finding):
    condition, _ = SILENCE[policy]
    both = inferred(*condition, fact(finding), fact(finding, "absent"), policies=[policy])
    assert says(both, finding) == "Conflicting"
    assert says(inferred(*condition, fact(finding), policies=[policy]), finding) == "met"


def test_a_policy_leaves_a_stale_fact_unknown():
    snapshot = inferred(
        *SILENCE["problem-list"][0], fact("ActiveInfection", "absent", "2026-01-01"), policies=["problem-list"]
    )
    assert says(snapshot, "ActiveInfection") == "Stale"


def test_a_part_that_is_unclear_keeps_the_whole_open_under_a_policy():
    snapshot = inferred(*SILENCE["problem-list"][0], fact("Discitis", mood="ordered"), policies=["problem-list"])
    assert says(snapshot, "ActiveInfection") == "Pending"


def test_a_finding_of_one_lesion_keeps_a_policy_from_clearing_the_patient():
    snapshot = inferred(
        *SILENCE["problem-list"][0], fact("Radiculopathy"), lesions=("a", "b"), policies=["problem-list"]
    )
    assert (says(snapshot, "Radiculopathy"), says(snapshot, "Radiculopathy", on="lesion:b")) == ("met", "NotRecorded")


@pytest.mark.parametrize(("age", "expected"), [(59, "NotRecorded"), (60, "not met"), (between(59, 61), "NotRecorded")])
def test_the_age_from_which_a_pregnancy_is_implausible(age, expected):
    assert says(inferred(fact("age", age), policies=["age-sex"]), "Pregnancy") == expected


def test_single_etiology_speaks_only_of_the_lesion_whose_etiology_is_recorded():
    snapshot = inferred(*SILENCE["single-etiology"][0], lesions=("a", "b"), policies=["single-etiology"])
    assert says(snapshot, "TumourAtLevel") == "not met"
    assert says(snapshot, "TumourAtLevel", on="lesion:b") == "NotRecorded"


def test_several_policies_apply_one_after_another():
    facts = [*SILENCE["problem-list"][0], *SILENCE["single-etiology"][0]]
    snapshot = inferred(*facts, policies=["problem-list", "single-etiology"])
    assert says(snapshot, "ActiveInfection") == says(snapshot, "TumourAtLevel") == "not met"
    assert len({f.feature for f in assumptions_of(snapshot)}) == 11


def test_the_strict_verdict_stays_beside_the_assumed_one(knowledge):
    base = example("constructed/problem-list-only")
    strict = verdict(base, "seed-guidelines")
    assumed = verdict(base, "seed-guidelines", assume=["problem-list"])
    assert strict.assumed is None
    assert assumed.verdict == strict.verdict == "Undetermined"
    assert assumed.conclusion == strict.conclusion
    assert [c.truth for c in assumed.clauses] == [c.truth for c in strict.clauses]
    assert assumed.assumed.policies == ("problem-list",)
    assert assumed.assumed.conclusion.verdict != strict.verdict
    assert {f.feature for f in assumed.assumed.assumptions} >= {iri("ActiveInfection"), iri("Coagulopathy")}


def test_strict_closes_nothing():
    answer = assess(example("constructed/problem-list-only"), assume=["strict"], validate=False)
    assert answer.policies == ("strict",)
    assert all(a.assumed is None for c in answer.cases for a in c.assessments)


def test_under_a_policy_a_definite_clause_keeps_its_truth(knowledge):
    for name in ("constructed/problem-list-only", "constructed/t4-outpatient", "published/ost-02"):
        answer = assess(example(name), assume=["problem-list", "age-sex", "single-etiology"], validate=False)
        for case in answer.cases:
            for a in case.assessments:
                for before, after in zip(a.clauses, a.assumed.clauses, strict=True):
                    assert before.truth.words == "unknown" or before.truth is after.truth
                assert set(a.assumed.conclusion.reachable) <= set(a.conclusion.reachable)
