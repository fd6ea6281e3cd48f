"""The closed list of derived quantities."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from builders import A, ask, between, fact, feature, inferred, record, says, session, snap, span, unknown
from hypothesis import given
from hypothesis import strategies as st

from kypho_kg.derivation import elapsed
from kypho_kg.loading import load_knowledge
from kypho_kg.record import PATIENT, PROCEDURE, Cause
from kypho_kg.snapshot import resolve
from kypho_kg.vocabulary import KYPHO


def derived(snapshot, name, subject):
    """Value and the rule that yielded it."""
    state = snapshot.value(subject, feature(name).iri)
    return state.value, state.facts[0].rule.removeprefix(KYPHO) if state.facts else ""


# -- difference of dates


@pytest.mark.parametrize(
    ("onset", "weeks"),
    [("2026-03-02", "0"), ("2026-03-01", "0.1429"), ("2026-02-23", "1"), ("2026-01-20", "5.8571"),
     ("2026-01-19", "6"), ("2025-12-08", "12"), ("2025-12-07", "12.1429")],
)  # fmt: skip
def test_weeks_are_days_by_seven_to_four_places(onset, weeks):
    value, rule = derived(snap(fact("onsetDate", onset)), "weeksSinceOnset", A)
    assert (value, rule) == (between(weeks, weeks), "DifferenceOfDates")


def test_a_partial_onset_gives_an_interval_of_weeks():
    snapshot = snap(fact("onsetDate", "2026-01"))
    assert derived(snapshot, "weeksSinceOnset", A)[0] == between("4.2857", "8.5714")
    assert says(snapshot, "weeksSinceOnset", between(high=8)) == "Imprecise"
    assert says(snapshot, "weeksSinceOnset", between(high=9)) == "met"


def test_an_onset_in_the_running_month_is_cut_at_the_date():
    assert derived(snap(fact("onsetDate", "2026-03")), "weeksSinceOnset", A)[0] == between(0, "0.1429")


def test_an_onset_after_the_date_yields_nothing():
    assert derived(snap(fact("onsetDate", "2026-03-03")), "weeksSinceOnset", A) == (None, "")


def test_the_derived_fact_rests_on_the_date_it_was_computed_from():
    onset = fact("onsetDate", "2026-01-19")
    proof = ask(snap(onset), "weeksSinceOnset", between(high=12))
    assert proof.facts[0].premises == (onset,)


def test_what_is_recorded_comes_before_what_could_be_derived():
    snapshot = snap(fact("onsetDate", "2026-01-19"), fact("weeksSinceOnset", 20))
    assert derived(snapshot, "weeksSinceOnset", A) == (between(20, 20), "")
    pending = snap(fact("onsetDate", "2026-01-19"), unknown("weeksSinceOnset", Cause.INDETERMINATE))
    assert says(pending, "weeksSinceOnset", between(0)) == "Indeterminate"


@pytest.mark.parametrize(
    ("born", "day", "years"),
    [
        ("1950-03-02", date(2026, 3, 1), 75),
        ("1950-03-02", date(2026, 3, 2), 76),
        ("1950-03-02", date(2026, 3, 3), 76),
        ("1952-02-29", date(2026, 2, 28), 73),
        ("1952-02-29", date(2026, 3, 1), 74),
        ("1952-02-29", date(2024, 2, 28), 71),
        ("1952-02-29", date(2024, 2, 29), 72),
        ("2026-03-02", date(2026, 3, 2), 0),
    ],
)
def test_age_is_in_completed_years(born, day, years):
    value, rule = derived(snap(fact("birthDate", born), as_of=day), "age", PATIENT)
    assert (value, rule) == (between(years, years), "DifferenceOfDates")


@pytest.mark.parametrize(
    ("born", "ages"), [("1950", (75, 76)), ("1950-02", (76, 76)), ("1950-03", (75, 76)), ("1950-04", (75, 75))]
)
def test_a_partial_birth_date_gives_both_ages_that_it_allows(born, ages):
    assert derived(snap(fact("birthDate", born)), "age", PATIENT)[0] == between(*ages)


@given(st.dates(date(1900, 1, 1), date(2026, 3, 2)), st.dates(date(2026, 3, 2), date(2030, 1, 1)))
def test_years_lie_between_days_by_366_and_365(born, day):
    years = elapsed(span(born.isoformat()), day, "a").exact
    days = (day - born).days
    assert days // 366 <= years <= Decimal(days) / 365
    month = elapsed(span(born.isoformat()[:7]), day, "a")
    assert month.low <= years <= month.high


@given(st.dates(date(1990, 1, 1), date(2026, 3, 2)), st.integers(0, 4000))
def test_days_are_exact(start, days):
    assert elapsed(span(start.isoformat()), start + timedelta(days=days), "d") == between(days, days)


# -- the age of imaging


def test_the_age_of_imaging_belongs_to_the_study_of_the_finding():
    study = fact("MarrowEdemaOnMri", "present", "2026-02-10")
    snapshot = snap(study, fact("Retropulsion", "absent", "2026-02-28"))
    value, _ = derived(snapshot, "advancedImagingAge", A)
    assert value == between(20, 20)
    assert snapshot.value(A, feature("advancedImagingAge").iri).facts[0].premises == (study,)


def test_the_newest_study_that_shows_it_counts():
    snapshot = snap(
        fact("MarrowEdemaOnMri", "present", "2026-02-10"), fact("UptakeOnBoneScan", "present", "2026-02-20")
    )
    assert derived(snapshot, "advancedImagingAge", A)[0] == between(10, 10)


def test_a_study_that_shows_nothing_or_was_only_ordered_has_no_age_here():
    for study in (
        fact("MarrowEdemaOnMri", "absent", "2026-02-10"),
        fact("MarrowEdemaOnMri", mood="ordered", time="2026-02-10"),
    ):
        assert derived(snap(study), "advancedImagingAge", A) == (None, "")


def test_a_finding_without_a_date_does_not_say_how_old_its_study_is():
    assert derived(snap(fact("MarrowEdemaOnMri", "present")), "advancedImagingAge", A) == (None, "")
    both = snap(fact("MarrowEdemaOnMri", "present"), fact("UptakeOnBoneScan", "present", "2026-02-20"))
    assert derived(both, "advancedImagingAge", A)[0] == between(10, 10)


def test_each_lesion_has_its_own_study():
    snapshot = snap(fact("MarrowEdemaOnMri", "present", "2026-02-10"), lesions=("a", "b"))
    assert derived(snapshot, "advancedImagingAge", "lesion:b") == (None, "")


def test_a_study_dated_by_its_month_has_an_interval_of_ages():
    assert derived(snap(fact("MarrowEdemaOnMri", "present", "2026-02")), "advancedImagingAge", A)[0] == between(2, 29)


# -- counts


@pytest.mark.parametrize("lesions", [(), ("a",), ("a", "b", "c")])
def test_the_count_of_lesions_is_a_lower_bound(lesions):
    value, rule = derived(snap(lesions=lesions), "fractureLesionCount", PATIENT)
    assert (value, rule) == (between(len(lesions)), "CountOfLesions")


def test_a_lower_bound_meets_at_least_and_never_at_most():
    snapshot = snap(lesions=("a", "b", "c"))
    assert says(snapshot, "fractureLesionCount", between(2)) == "met"
    assert says(snapshot, "fractureLesionCount", between(high=3)) == "Imprecise"
    assert says(snapshot, "fractureLesionCount", between(high=2)) == "not met"


def levels(*names):
    """One lesion for each level; ``None`` is a lesion of unknown level."""
    ids = [f"l{i}" for i in range(len(names))]
    facts = [fact("vertebralLevel", n, on=f"lesion:{i}") for i, n in zip(ids, names, strict=True) if n]
    return snap(*facts, lesions=ids, procedure=session(*ids))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("T12",), (1, 1)),
        (("T12", "L1"), (2, 2)),
        (("T12", "L1", "L2", "L3"), (4, 4)),
        (("L1", "L1"), (1, 1)),
        (("L1", "L1", "L2"), (2, 2)),
        ((None,), (1, 1)),
        (("L1", None), (1, 2)),
        ((None, None), (1, 2)),
        (("L1", {"T11", "T12"}), (2, 2)),
        (("T12", {"T11", "T12"}), (1, 2)),
        (({"T11", "T12"}, {"T11", "T12"}), (1, 2)),
        (("L1", "L2", {"T11", "T12"}), (3, 3)),
    ],
)
def test_levels_of_the_session_are_counted_once_and_no_more_surely_than_they_are_known(names, expected):
    value, rule = derived(levels(*names), "sessionLevelCount", PROCEDURE)
    assert (value, rule) == (between(*expected), "CountOfSessionLevels")


def test_only_lesions_of_the_session_count():
    facts = [fact("vertebralLevel", n, on=f"lesion:{i}") for i, n in (("a", "T12"), ("b", "L1"))]
    snapshot = snap(*facts, lesions=("a", "b"), procedure=session("a"))
    assert derived(snapshot, "sessionLevelCount", PROCEDURE)[0] == between(1, 1)


def test_without_a_procedure_or_its_lesions_there_is_no_count():
    assert derived(snap(), "sessionLevelCount", PROCEDURE) == (None, "")
    open_session = resolve(record(procedure=session("a")), load_knowledge(), date(2026, 3, 2))
    assert derived(open_session, "sessionLevelCount", PROCEDURE)[0] == between(1, 1)


# -- trend


def trend(*facts):
    value, _ = derived(snap(*facts), "painTrend", A)
    return {v.removeprefix(KYPHO) for v in value} if value else None


@pytest.mark.parametrize(("last", "course"), [(9, "Worsening"), (7, "Stable"), (4, "Improving")])
def test_the_trend_is_that_of_the_last_two_values(last, course):
    series = [fact("painNrs", 8, "2026-02-05"), fact("painNrs", 7, "2026-02-10"), fact("painNrs", last, "2026-02-20")]
    assert trend(*series) == {course}
    assert trend(*reversed(series)) == {course}


def test_a_value_stated_as_current_is_the_last_of_the_series():
    assert trend(fact("painNrs", 9, "2026-02-10"), fact("painNrs", 6, "2026-02-20"), fact("painNrs", 8)) == {
        "Worsening"
    }


def test_one_value_has_no_trend():
    assert trend(fact("painNrs", 8, "2026-02-10")) is None


@pytest.mark.parametrize(
    "more",
    [
        fact("painNrs", 4, "2026-02-20"),
        fact("painNrs", between(3, 5), "2026-02-25"),
        fact("painNrs", 4, "2026-02"),
        unknown("painNrs", Cause.IN_WORDS_ONLY, "2026-02-25", words="terrible"),
        unknown("painNrs", Cause.INVALID, "2026-02-25"),
    ],
    ids=["same-day", "imprecise", "overlapping-month", "in-words", "invalid"],
)
def test_no_trend_where_the_last_values_are_not_two_numbers_in_order(more):
    series = [fact("painNrs", 8, "2026-02-10"), fact("painNrs", 6, "2026-02-20")]
    assert trend(*series) == {"Improving"}
    assert trend(*series, more) is None


def test_stale_and_planned_values_are_no_part_of_the_series():
    series = [
        fact("painNrs", 8, "2026-01-01"),
        fact("painNrs", 6, "2026-02-20"),
        fact("painNrs", 2, "2026-02-25", mood="planned"),
    ]
    assert trend(*series) is None


def test_a_stated_trend_comes_before_a_derived_one():
    series = [fact("painNrs", 8, "2026-02-10"), fact("painNrs", 6, "2026-02-20")]
    assert trend(*series, fact("painTrend", "Worsening", "2026-02-20")) == {"Worsening"}


def test_what_is_derived_is_derived_alike_with_rules_and_without(knowledge):
    facts = [fact("onsetDate", "2026-01-19"), fact("birthDate", "1950-03-02"),
             fact("MarrowEdemaOnMri", "present", "2026-02-10"), fact("vertebralLevel", "T12")]  # fmt: skip
    plain, ruled = snap(*facts, procedure=session()), inferred(*facts, procedure=session())
    names = [f for f in knowledge.features.values() if f.derived_by]
    assert {f.derived_by for f in names} >= {
        "DifferenceOfDates",
        "CountOfLesions",
        "CountOfSessionLevels",
        "TrendOfSeries",
    }
    for f in names:
        if f.derived_by != "ScoreTotal":
            for subject in (PATIENT, A, PROCEDURE):
                assert plain.value(subject, f.iri) == ruled.value(subject, f.iri)
