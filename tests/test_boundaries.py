"""The limits of the shipped clauses, each tried on both sides, and the cases that the project was started for."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from builders import (
    EXAMPLES,
    between,
    changed,
    clause,
    clause_says,
    example,
    fact,
    iri,
    record,
    session,
    unknown,
    verdict,
)
from rich.console import Console

from kypho_kg import cli, report, terminal
from kypho_kg.candidacy import assess
from kypho_kg.explanation import explain
from kypho_kg.record import Lesion, Mood, Procedure, Source, TimeSpan

T4 = example("constructed/t4-outpatient")
MYELOMA = example("constructed/myeloma-intractable-pain")


# -- pain


@pytest.mark.parametrize(
    ("nrs", "outpatient", "inpatient", "commercial"),
    [(4, "not met", "not met", "not met"), (5, "met", "not met", "not met"), (7, "met", "not met", "met"),
     (8, "met", "met", "met")],
)  # fmt: skip
def test_pain_of_4_5_7_and_8(nrs, outpatient, inpatient, commercial):
    score = fact("painNrs", nrs, "2026-03-01")
    assert clause_says(changed(T4, score), "cms-l34228/LCD-I2") == outpatient
    admitted = changed(T4, score, fact("hospitalStatus", "AdmittedInpatient", "2026-03-01"))
    assert clause_says(admitted, "cms-l34228/LCD-I2") == inpatient
    treated = changed(T4, score, fact("exerciseProgrammeWeeks", 4, "2026-03-01"))
    assert clause_says(treated, "evicore-cmm-607/EVI-I1") == commercial


def test_pain_of_5_and_8_decides_the_medicare_verdict():
    for nrs, expected in ((4, "NotIndicated"), (5, "Candidate")):
        assert verdict(changed(T4, fact("painNrs", nrs, "2026-03-01")), "cms-l34228").verdict == expected


@pytest.mark.parametrize("pain", [between(4, 6), between(4), between(None, 9)])
def test_a_range_of_pain_across_the_limit_is_imprecise(pain):
    of = changed(T4, fact("painNrs", pain, "2026-03-01"))
    assert clause_says(of, "cms-l34228/LCD-I2") == "Imprecise"
    assert verdict(of, "cms-l34228").verdict == "Undetermined"


def test_a_range_of_pain_beyond_the_limit_is_precise_enough():
    assert clause_says(changed(T4, fact("painNrs", between(5, 7), "2026-03-01")), "cms-l34228/LCD-I2") == "met"
    assert clause_says(changed(T4, fact("painNrs", between(1, 4), "2026-03-01")), "cms-l34228/LCD-I2") == "not met"


# -- the age of the fracture


@pytest.mark.parametrize(
    ("weeks", "younger", "older"),
    [("5.9", "met", "not met"), ("6", "LeftOpenBySource", "not met"), ("7", "LeftOpenBySource", "not met"),
     ("7.9999", "LeftOpenBySource", "not met"), ("8", "not met", "met")],
)  # fmt: skip
def test_weeks_around_the_band_that_the_source_leaves_open(weeks, younger, older):
    of = changed(T4, fact("weeksSinceOnset", weeks), fact("PainConcordantWithLevel", "present", "2026-03-01"))
    assert clause_says(of, "seed-guidelines/SEED-I2") == younger
    assert clause_says(of, "seed-guidelines/SEED-I3") == older


@pytest.mark.parametrize(
    ("weeks", "acute", "too_old"), [("12", "met", "not met"), ("12.0001", "not met", "met"), ("12.1", "not met", "met")]
)
def test_weeks_around_twelve(weeks, acute, too_old):
    of = changed(T4, fact("weeksSinceOnset", weeks))
    assert clause_says(of, "cms-l34228/LCD-I1") == acute
    assert clause_says(of, "cms-l34228/LCD-D3") == too_old
    assert verdict(of, "cms-l34228").verdict == ("Candidate" if acute == "met" else "NotIndicated")


@pytest.mark.parametrize(("weeks", "expected"), [("6", "met"), ("6.1", "not met")])
def test_six_weeks_of_the_consultation_draft(weeks, expected):
    assert clause_says(changed(T4, fact("weeksSinceOnset", weeks)), "nice-ta279/NICE-D1") == expected


@pytest.mark.parametrize(
    ("days", "expected"), [(41, "met"), (42, "LeftOpenBySource"), (55, "LeftOpenBySource"), (56, "not met")]
)
def test_the_band_counted_from_the_date_of_onset(days, expected):
    onset = fact("onsetDate", (T4.as_of - timedelta(days=days)).isoformat())
    of = changed(T4, onset, fact("PainConcordantWithLevel", "present", "2026-03-01"), without=["weeksSinceOnset"])
    assert clause_says(of, "seed-guidelines/SEED-I2") == expected


@pytest.mark.parametrize(("days", "expected"), [(84, "not met"), (85, "met")])
def test_twelve_weeks_counted_from_the_date_of_onset(days, expected):
    onset = fact("onsetDate", (T4.as_of - timedelta(days=days)).isoformat())
    assert clause_says(changed(T4, onset), "cms-l34228/LCD-D3") == expected


@pytest.mark.parametrize(
    ("onset", "expected"), [("2025-12", "Imprecise"), ("2026-01", "not met"), ("2025-11", "met"), ("2025", "Imprecise")]
)
def test_a_partial_onset_is_imprecise_only_across_the_limit(onset, expected):
    assert clause_says(changed(T4, fact("onsetDate", onset)), "cms-l34228/LCD-D3") == expected


def test_an_onset_about_three_months_ago_leaves_the_verdict_open_and_says_why():
    of = example("constructed/onset-about-three-months")
    assessment = verdict(of, "cms-l34228")
    assert assessment.verdict == "Undetermined"
    [leaf] = clause(of, "cms-l34228/LCD-D3").unknown_leaves()
    assert (leaf.gap.cause, leaf.criterion.term) == ("Imprecise", iri("weeksSinceOnset"))


# -- two of four, height loss and disability


def secondary(*facts):
    """Pain neither better nor worse, one of the four further criteria surely met, the rest not."""
    base = changed(
        T4,
        fact("painTrend", "Stable", "2026-03-01"),
        fact("KyphoticDeformity", "present", "2026-03-01"),
        fact("HeightLossProgression", "absent", "2026-03-01"),
        fact("heightLossPercent", 10, "2026-03-01"),
        fact("rolandMorrisScore", 10, "2026-03-01"),
    )
    return clause_says(changed(base, *facts), "cms-l34228/LCD-I2")


@pytest.mark.parametrize(("loss", "expected"), [(25, "not met"), ("25.1", "met"), (between(20, 30), "Imprecise")])
def test_height_loss_around_25_percent(loss, expected):
    assert secondary(fact("heightLossPercent", loss, "2026-03-01")) == expected


@pytest.mark.parametrize(("score", "expected"), [(17, "not met"), ("17.5", "met"), (18, "met")])
def test_disability_around_17_points(score, expected):
    assert secondary(fact("rolandMorrisScore", score, "2026-03-01")) == expected


def test_two_of_four_are_enough_whatever_is_unknown_of_the_others():
    assert secondary() == "not met"
    assert secondary(fact("HeightLossProgression", "present", "2026-03-01"), unknown("heightLossPercent")) == "met"
    assert secondary(unknown("HeightLossProgression"), unknown("heightLossPercent")) == "Indeterminate"


# -- coagulation


@pytest.mark.parametrize(
    ("inr", "uncorrected", "any_disorder"),
    [("1.5", "NotRecorded", "NotRecorded"), ("1.8", "NotRecorded", "NotRecorded"), ("1.81", "met", "met"),
     (between("1.7", "1.9"), "NotRecorded", "NotRecorded"), (between("1.8", low_open=True), "met", "met")],
)  # fmt: skip
def test_the_inr_bridge_in_the_clauses(inr, uncorrected, any_disorder):
    of = changed(T4, fact("inr", inr, "2026-03-01"), without=["UncorrectedCoagulopathy", "Coagulopathy"])
    for id_, with_bridges in (("cms-l34228/LCD-R3", uncorrected), ("seed-guidelines/SEED-A2", any_disorder)):
        assert clause_says(of, id_) == with_bridges
        assert clause_says(of, id_, bridges=()) == "NotRecorded"


def test_an_inr_of_1_81_against_a_screening_that_found_no_coagulopathy_is_a_conflict():
    of = changed(T4, fact("inr", "1.81", "2026-03-01"))
    assert clause_says(of, "seed-guidelines/SEED-A2") == "Conflicting"
    assert verdict(of, "seed-guidelines").verdict == "Undetermined"


def test_the_inr_bridge_decides_a_verdict_and_is_listed():
    of = changed(T4, fact("inr", "1.81", "2026-03-01"), without=["UncorrectedCoagulopathy", "Coagulopathy"])
    with_bridge, without = verdict(of, "seed-guidelines"), verdict(of, "seed-guidelines", bridges=False)
    assert (with_bridge.verdict, without.verdict) == ("Contraindicated", "Undetermined")
    assert "inr-above-1.8" in with_bridge.bridges


def test_of_5_is_an_instability_in_the_clauses():
    for of_type, expected in (("OF4", "NotRecorded"), ("OF5", "met")):
        of = changed(T4, fact("ofType", of_type, "2026-03-01"), without=["SpinalInstability"])
        assert clause_says(of, "cms-l34228/LCD-R4") == expected


def test_an_anticoagulated_patient_with_a_normal_inr_is_not_cleared():
    of = example("constructed/anticoagulated-inr-normal")
    assert clause_says(of, "seed-guidelines/SEED-A2") == "NotRecorded"
    assert verdict(of, "seed-guidelines").verdict == "Undetermined"
    assert verdict(of, "cms-l34228").verdict == "CandidateScreeningOpen"
    assert verdict(example("constructed/anticoagulated-inr-high"), "seed-guidelines").verdict == "Contraindicated"


# -- imaging


def test_where_mri_is_impossible_uptake_on_a_bone_scan_does():
    of = example("constructed/pacemaker-bone-scan")
    assert clause_says(of, "cms-l34228/LCD-I1") == "met"
    assert verdict(of, "cms-l34228").verdict == "Candidate"
    without_scan = changed(of, without=["UptakeOnBoneScan"])
    assert set(clause_says(without_scan, "cms-l34228/LCD-I1").split()) == {"NotAssessable", "NotRecorded"}
    assert verdict(without_scan, "cms-l34228").verdict == "Undetermined"


def test_what_cannot_be_assessed_is_never_what_to_get_next():
    of = changed(example("constructed/pacemaker-bone-scan"), without=["UptakeOnBoneScan"])
    answer = assess(of, guidelines=["cms-l34228"], validate=False)
    wanted = explain(answer)[0].needs(answer.cases[0].assessments[0])
    by_name = {n.feature.removeprefix(iri("")): n for n in wanted}
    assert by_name["UptakeOnBoneScan"].obtainable
    assert not by_name["MarrowEdemaOnMri"].obtainable
    assert wanted.index(by_name["UptakeOnBoneScan"]) < wanted.index(by_name["MarrowEdemaOnMri"])


@pytest.mark.parametrize(("days", "expected"), [(183, "met"), (184, "not met")])
def test_imaging_of_six_months(days, expected):
    on = (T4.as_of - timedelta(days=days)).isoformat()
    of = changed(T4, fact("MarrowEdemaOnMri", "present", on), fact("painNrs", 8, "2026-03-01"),
                 fact("exerciseProgrammeWeeks", 4, "2026-03-01"))  # fmt: skip
    assert clause_says(of, "evicore-cmm-607/EVI-I1") == expected


@pytest.mark.parametrize(("percent", "expected"), [(0, "not met"), (1, "met"), (between(0, 5), "NotRecorded")])
def test_any_compromise_of_the_canal(percent, expected):
    of = changed(T4, fact("canalCompromisePercent", percent, "2026-03-01"))
    assert clause_says(of, "cms-l34228/LCD-R8") == clause_says(of, "cirse-2017/CIRSE-R5") == expected


@pytest.mark.parametrize(("stated", "expected"), [("present", "met"), ("absent", "not met")])
def test_a_compromise_of_the_canal_without_a_percentage(stated, expected):
    of = changed(T4, fact("CanalCompromise", stated, "2026-03-01"), without=["canalCompromisePercent"])
    assert clause_says(of, "cms-l34228/LCD-R8") == clause_says(of, "cirse-2017/CIRSE-R5") == expected


# -- levels


@pytest.mark.parametrize(
    ("level", "medicare", "commercial"),
    [("C7", "not met", "met"), ("T1", "met", "met"), ("T4", "met", "met"), ("T5", "met", "not met"),
     ("L5", "met", "not met"), ("S1", "not met", "met"), ({"T4", "T5"}, "met", "Imprecise"),
     ({"L5", "S1"}, "Imprecise", "Imprecise")],
)  # fmt: skip
def test_levels_at_the_ends_of_the_ranges(level, medicare, commercial):
    of = changed(T4, fact("vertebralLevel", level))
    assert clause_says(of, "cms-l34228/LCD-I1") == medicare
    assert clause_says(of, "evicore-cmm-607/EVI-L2") == commercial


def treating(*levels):
    """The T4 patient with one lesion more for each further level, all in one session."""
    ids = ["a", *(f"x{i}" for i in range(len(levels) - 1))]
    facts = [fact("vertebralLevel", level, on=f"lesion:{i}") for i, level in zip(ids, levels, strict=True)]
    return changed(
        replace(T4, lesions=tuple(map(Lesion, ids)), procedure=replace(T4.procedure, lesions=tuple(ids))), *facts
    )


@pytest.mark.parametrize(
    ("levels", "commercial", "medicare"),
    [(("T12", "L1"), "not met", "not met"), (("T12", "L1", "L2"), "met", "not met"),
     (("T12", "L1", "L2", "L3"), "met", "met"), (("L1", "L1", "L2"), "not met", "not met"),
     (("T12", "L1", {"L1", "L2"}), "Imprecise", "not met")],
)  # fmt: skip
def test_two_three_and_four_levels_in_one_session(levels, commercial, medicare):
    assert clause_says(treating(*levels), "evicore-cmm-607/EVI-L1") == commercial
    assert clause_says(treating(*levels), "cms-l34228/LCD-R1") == medicare


@pytest.mark.parametrize(
    ("name", "commercial", "medicare"),
    [("two-levels-one-session", "Candidate", "Candidate"), ("three-levels-one-session", "NotIndicated", "Candidate"),
     ("four-levels-one-session", "NotIndicated", "CandidateWithCaution")],
)  # fmt: skip
def test_sessions_of_two_three_and_four_levels_end_to_end(name, commercial, medicare):
    answer = assess(example(f"constructed/{name}"), guidelines=["evicore-cmm-607", "cms-l34228"], validate=False)
    for case in answer.cases:
        assert [a.verdict for a in case.assessments] == [commercial, medicare]


# -- technique


@pytest.mark.parametrize(
    ("technique", "walls", "expected"),
    [
        ("Vertebroplasty", "PosteriorWallMinor", "Contraindicated"),
        ("BalloonKyphoplasty", "PosteriorWallMinor", "Candidate"),
        ("Vertebroplasty", "PosteriorWallIntact", "Candidate"),
        ("BalloonKyphoplasty", "PosteriorWallDistinct", "Contraindicated"),
    ],
)
def test_vertebroplasty_and_kyphoplasty_differ_in_colorado(technique, walls, expected):
    of = changed(
        T4,
        fact("technique", technique),
        fact("posteriorWallInvolvement", walls, "2026-03-01"),
        *(fact(n, "absent", "2026-03-01") for n in ("SystemicInfection", "SurgicalSiteInfection", "BoneCementAllergy")),
    )
    assert verdict(of, "colorado-dowc-2014").verdict == expected


def test_an_unknown_technique_keeps_only_what_differs_open():
    of = changed(T4, fact("posteriorWallInvolvement", "PosteriorWallMinor", "2026-03-01"), without=["technique"])
    assert clause_says(of, "colorado-dowc-2014/DOWC-A1") == "not met"
    assert clause_says(of, "colorado-dowc-2014/DOWC-A2") == "NotRecorded"


# -- the patients of the issue


def output(*arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["kypho-kg", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    return capsys.readouterr().out


def leaves(proof):
    """The atoms of a proof in JSON."""
    return [leaf for child in proof["children"] for leaf in leaves(child)] if "children" in proof else [proof]


def test_the_t4_patient_passes_medicare_and_fails_the_commercial_policy():
    assert (T4.procedure.state, TimeSpan.parse("2026-01-31").days_until(T4.as_of)) == ("CA", (30, 30))
    medicare, commercial = verdict(T4, "cms-l34228"), verdict(T4, "evicore-cmm-607")
    assert (medicare.verdict, medicare.in_force) == ("Candidate", True)
    assert (commercial.verdict, commercial.in_force) == ("NotIndicated", False)


def test_the_t4_patient_in_the_table_by_clause_and_number(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_console", lambda: Console(width=400, no_color=True))
    asked = ("cms-l34228", "cms-l38201", "evicore-cmm-607", "nice-ta279")
    file = EXAMPLES / "constructed/t4-outpatient.yaml"
    named = [word for id_ in asked for word in ("-g", id_)]
    rows = output("assess", file, *named, monkeypatch=monkeypatch, capsys=capsys)
    commercial = rows[rows.index("evicore-cmm-607") : rows.index("nice-ta279")]
    assert "CRITERIA NOT MET" in commercial
    assert "EVI-L2 level outside T5 to L5: met [vertebral level T4 (asked: T5 to L5)]" in commercial
    assert "pain (NRS) 6 (asked: >= 7)" in commercial
    medicare = rows[rows.index("cms-l34228") : rows.index("cms-l38201")]
    assert "CRITERIA MET" in medicare
    assert "every contraindication ruled out" in medicare


def test_the_t4_patient_in_json_by_clause_and_number(monkeypatch, capsys):
    file = EXAMPLES / "constructed/t4-outpatient.yaml"
    command = ("assess", file, "-g", "all", "--format", "json")
    answer = json.loads(output(*command, monkeypatch=monkeypatch, capsys=capsys))
    [case] = answer["cases"]
    clauses = {c["id"]: c for a in case["assessments"] for c in a["clauses"]}
    assert {a["guideline"]: a["verdict"] for a in case["assessments"]}["evicore-cmm-607"] == "NotIndicated"
    level = clauses["evicore-cmm-607/EVI-L2"]
    assert level["truth"] == "met"
    [leaf] = leaves(level["proof"])
    assert leaf["facts"][0]["value"] == "T4"
    pain = next(p for p in leaves(clauses["evicore-cmm-607/EVI-I1"]["proof"]) if p["term"] == "painNrs")
    assert pain["threshold"] == {"op": ">=", "value": 7, "unit": "{score}"}
    assert (pain["truth"], pain["distance"], pain["facts"][0]["value"]) == ("not met", -1, 6)


def test_the_myeloma_patient_passes_by_the_malignant_pathway():
    other = verdict(MYELOMA, "cms-l38201")
    assert other.verdict == "Candidate"
    assert {c.recommendation.clause: c.truth.words for c in other.having("Indicates")} == {
        "LCD-P1": "not met", "LCD-L38201-M1": "met",
    }  # fmt: skip
    first = verdict(MYELOMA, "cms-l34228")
    assert first.verdict == "NotApplicable"
    assert [c.recommendation.clause for c in first.having("DefinesScope") if c.truth.words == "not met"] == [
        "LCD-OTHER"
    ]


def test_the_policies_in_force_are_picked_by_state_and_payer():
    def picked(**where):
        return {a.guideline.id for a in assess(T4, validate=False, **where).cases[0].assessments if a.in_force}

    medicare = assess(T4, validate=False, state="OH", payer="Medicare").cases[0].assessments
    assert "cms-l38201" in {a.guideline.id for a in medicare}
    assert "cms-l34228" not in {a.guideline.id for a in medicare}
    assert "cms-l34228" in picked(state="CA", payer="Medicare")
    elsewhere = assess(T4, validate=False, state="TX", payer="Medicare").cases[0].assessments
    assert not {a.guideline.id for a in elsewhere} & {"cms-l34228", "cms-l38201", "evicore-cmm-607"}


@pytest.mark.parametrize(
    ("service", "expected"), [("2021-01-09", False), ("2021-01-10", True), ("2021-01", None), ("2021", None)]
)
def test_a_policy_is_in_force_from_its_first_day(service, expected):
    of = replace(T4, procedure=Procedure(("a",), TimeSpan.parse(service), "CA"))
    assert verdict(of, "cms-l34228").in_force is expected


@pytest.mark.parametrize("status", ["overridden", "refuted", "entered-in-error", "planned"])
def test_a_payer_that_does_not_count_decides_nothing(status):
    stated = fact("payer", "Medicare")
    gone = {
        "overridden": replace(stated, overridden_by=Source("correction")),
        "planned": replace(stated, mood=Mood.PLANNED),
    }.get(status) or fact("payer", "Medicare", status=status)
    of = changed(T4, fact("payer", "CommercialPayer"))
    of = replace(of, facts=(gone, *of.facts))
    assert verdict(of, "cms-l34228").in_force is False
    assert verdict(of, "evicore-cmm-607").in_force is True


def test_without_state_or_payer_it_is_not_known_whether_a_policy_applies():
    of = changed(replace(T4, procedure=session("a")), without=["payer"])
    assert verdict(of, "cms-l34228").in_force is None
    assert verdict(of, "nice-ta279").in_force is True


def test_a_patient_without_a_lesion_has_no_case():
    answer = assess(record(lesions=()), validate=False)
    assert answer.cases == ()
    page = io.StringIO()
    terminal.print_cases(Console(file=page, width=120), [answer])
    assert "no vertebral lesion, so there is no case" in page.getvalue()
    [row] = report.answers_json([answer], [], "test")["without_case"]
    assert row["patient"] == "test"


def test_a_verdict_that_rests_on_an_unverified_clause_says_so():
    from kypho_kg.guidelines import UNVERIFIED
    from kypho_kg.terminal import verdict_lines

    judged = verdict(T4, "nice-ta279")
    assert not any("never read" in line for line, _ in verdict_lines(judged))
    clauses = tuple(replace(c, recommendation=replace(c.recommendation, mark=UNVERIFIED)) for c in judged.clauses[:1])
    unread = replace(judged, clauses=(*clauses, *judged.clauses[1:]))
    assert ("1 of 5 clauses were never read at any source", "yellow") in verdict_lines(unread)
