"""Which dates a timeline holds, held against the assessment of every day, and what it says of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from io import StringIO

import pytest
from builders import TODAY, between, changed, example, fact, record, session
from rich.console import Console

from kypho_kg.candidacy import Answer, assess
from kypho_kg.errors import UsageError
from kypho_kg.evaluation import Truth
from kypho_kg.loading import load_knowledge
from kypho_kg.record import Fact, Record
from kypho_kg.timeline import MOST_DATES, Moment, as_json, compared, moments, print_timeline

DAY = timedelta(days=1)
LESS_THAN_6, UP_TO_6 = "msac-1466-2016", "nhs-hny-2025"
"""Both ask that the fracture is new; one ends before six weeks, the other includes them."""
INR_BELOW, AGE_FROM_59 = "vapour-nct01482793", "trauma-a3-series-2010"
Verdicts = dict[tuple[str, str, tuple[str, ...]], tuple[str, tuple[str, ...]]]


def frail(*facts: Fact) -> Record:
    """A record in the scope of the guidelines above."""
    return record(fact("primaryEtiology", "PrimaryOsteoporosis"), *facts, procedure=session())


def timeline(of: Record, *guidelines: str, **more: object) -> tuple[Moment, ...]:
    return moments(of, load_knowledge(), guidelines=guidelines or None, **more)


def answer(of: Record, day: date, guidelines: Sequence[str], **more: object) -> Answer:
    return assess(of, as_of=day, guidelines=guidelines, validate=False, **more)


def said(of: Answer) -> Verdicts:
    found: Verdicts = {}
    for case in of.cases:
        for a in case.assessments:
            found[case.lesion.id, a.guideline.id, ()] = a.verdict, a.categories
            if a.assumed:
                found[case.lesion.id, a.guideline.id, a.assumed.policies] = a.assumed.conclusion.verdict, ()
    return found


def day_by_day(of: Record, guidelines: Sequence[str], first: date, last: date, **more: object) -> list[object]:
    found: list[tuple[date, Verdicts]] = []
    for n in range((last - first).days + 1):
        now = said(answer(of, first + n * DAY, guidelines, **more))
        if not found or found[-1][1] != now:
            found.append((first + n * DAY, now))
    return found


def as_told(found: Sequence[Moment]) -> list[object]:
    """The verdicts after each moment, from what changed at it and before."""
    state: Verdicts = {}
    told = []
    for moment in found:
        for t in moment.turns:
            key = t.lesion, t.guideline, t.assumed
            assert state.get(key, ("", ())) == (t.before, t.ratings_before)
            state[key] = t.after, t.ratings_after
        told.append((moment.day, dict(state)))
    return told


def turning_days(found: Sequence[Moment]) -> list[date]:
    return [m.day for m in found[1:]]


# -- the same as every day

TANGLED = frail(
    fact("birthDate", "1961-02"),
    fact("age", 65, "2026-01"),
    fact("age", 64, "2026-01-20"),
    fact("inr", 3.0, "2025-12-20"),
    fact("inr", 1.1, "2026-01-25T08:00"),
    fact("ActiveInfection", "present", "2026-01"),
    fact("ActiveInfection", "absent", "2026-01-20"),
    fact("ActiveInfection", "absent"),
    fact("plateletCount", 40, "2026-01-05"),
    fact("Coagulopathy", "absent", "2026-01-07"),
    fact("onsetDate", "2025-12"),
    fact("painDurationWeeks", 5, "2026-01-10"),
    fact("painDurationWeeks", between(2, 6), "2026-01"),
    fact("painNrs", 7, "2026-01-02"),
    fact("painNrs", 8, "2026-01"),
    fact("painNrs", 3),
    fact("MarrowEdemaOnMri", "present", "2025-12-28", status="provisional"),
    fact("MarrowEdemaOnMri", "present", "2026-01-15"),
)


@pytest.mark.parametrize(
    ("of", "guidelines", "more"),
    [
        (example("constructed/stale-visit"), ["cms-l34228", UP_TO_6], {}),
        (example("constructed/seven-weeks-old"), ["cms-l34106", "acr-vcf-2013"], {"assume": ["problem-list"]}),
        (example("published/ost-02"), ["cms-l34228", LESS_THAN_6], {}),
        (TANGLED, ["cms-l34228", INR_BELOW], {}),
        (TANGLED, ["evolve-nct01871519", UP_TO_6], {"bridges": False}),
    ],
)
def test_the_same_as_every_day(of: Record, guidelines: list[str], more: dict[str, object]) -> None:
    assert of.as_of
    last = of.as_of + 40 * DAY
    first = last - 100 * DAY
    found = timeline(of, *guidelines, first=first, last=last, **more)
    assert as_told(found) == day_by_day(of, guidelines, first, last, **more)


def test_the_examples_turn_at_all() -> None:
    """So that the comparison with every day compares something."""
    found = timeline(TANGLED, "cms-l34228", INR_BELOW, last=TODAY + 40 * DAY)
    assert len(found) == 3
    assert all(m.causes and all(t.clauses for t in m.turns) for m in found[1:])


# -- boundaries


def test_a_fact_counts_up_to_its_lookback_and_no_day_longer() -> None:
    of = frail(fact("inr", 3.0, "2026-01-01"))
    found = timeline(of, INR_BELOW)
    assert [m.day for m in found] == [date(2026, 1, 1), date(2026, 2, 1)]
    (turn,) = found[1].turns
    assert (date(2026, 2, 1) - date(2026, 1, 1)).days == 31
    assert (turn.before, turn.after) == ("NotIndicated", "Undetermined")
    assert found[1].causes == ("INR 3.0 of 2026-01-01 too old after 30 days",)
    assert any("INR 3.0 of 2026-01-01 too old after 30 days" in line for c in turn.clauses for line in c.because)


@pytest.mark.parametrize(("guideline", "days", "verb"), [(LESS_THAN_6, 42, "reaches"), (UP_TO_6, 43, "passes")])
def test_six_weeks_are_exact(guideline: str, days: int, verb: str) -> None:
    onset = date(2026, 1, 5)
    of = frail(fact("onsetDate", onset.isoformat()))
    found = timeline(of, guideline, first=onset, last=onset + 80 * DAY)
    assert turning_days(found) == [onset + days * DAY]
    assert found[1].causes == (f"weeks since onset {verb} 6 wk",)
    assert found[1].turns[0].after == "NotIndicated"


@pytest.mark.parametrize(("guideline", "days"), [(LESS_THAN_6, 14), (UP_TO_6, 15)])
def test_a_stated_duration_grows(guideline: str, days: int) -> None:
    of = frail(fact("weeksSinceOnset", 4, "2026-01-10"))
    found = timeline(of, guideline)
    assert turning_days(found) == [date(2026, 1, 10) + days * DAY]
    (line,) = found[1].turns[0].clauses[0].because
    assert "weeks since onset 4 wk of 2026-01-10" in line


@pytest.mark.parametrize(("born", "turns"), [("1967-02-14", ["2026-02-14"]), ("1967-02", ["2026-02-01", "2026-02-28"])])
def test_an_age_turns_on_the_birthday(born: str, turns: list[str]) -> None:
    others = fact("aoSpineType", "AoTypeA1"), fact("NeurologicalDeficit", "absent")
    of = record(fact("birthDate", born), *others, procedure=session())
    found = timeline(of, AGE_FROM_59, first=date(2026, 1, 1))
    assert [d.isoformat() for d in turning_days(found)] == turns


@pytest.mark.parametrize(
    ("facts", "guideline", "turns"),
    [
        pytest.param(
            [fact("ActiveInfection", "absent", "2026-01-10"), fact("ActiveInfection", "present")],
            "evicore-cmm-607", ["2026-01-10", "2026-01-18"], id="a conflict lasts as long as its window",
        ),
        pytest.param(
            [fact("painDurationWeeks", 7, "2026-01"), fact("painDurationWeeks", 5, "2026-01-10")],
            "vertos-4", ["2026-01-01", "2026-01-10", "2026-01-24"], id="one duration grows into another",
        ),
        pytest.param(
            [fact("onsetDate", "2026-02-10")], "vertos-5", ["2026-02-10"], id="an onset to come",
        ),
        pytest.param(
            [fact("inr", 1.1, "2026-01-10"), fact("inr", 3.0)], INR_BELOW, ["2026-01-10", "2026-01-11"],
            id="what is stated as current outweighs an older fact",
        ),
    ],
)  # fmt: skip
def test_when_facts_meet(facts: list[Fact], guideline: str, turns: list[str]) -> None:
    of, first = frail(*facts), date(2025, 12, 25)
    found = timeline(of, guideline, first=first)
    assert as_told(found) == day_by_day(of, [guideline], first, TODAY)
    assert [d.isoformat() for d in turning_days(found)] == turns
    assert all(m.causes for m in found[1:])


def test_without_dates_there_is_one_moment() -> None:
    found = timeline(example("published/ost-02"), "cms-l34228")
    assert [m.day for m in found] == [example("published/ost-02").as_of]
    assert {t.lesion for t in found[0].turns} == {"t12", "l1", "l2"}


def test_the_default_guidelines_are_those_of_the_as_of_date() -> None:
    of = example("constructed/seven-weeks-old")
    expected = [a.guideline.id for a in assess(of, validate=False).cases[0].assessments]
    found = timeline(of, first=date(2026, 3, 29), last=date(2026, 3, 30))
    assert [t.guideline for t in found[0].turns] == expected


# -- two answers


def test_two_answers_say_what_happened() -> None:
    of = frail(fact("inr", 3.0, "2026-02-10"), fact("inr", 1.1, "2026-02-20"))
    before, after = (answer(of, date(2026, 2, d), [INR_BELOW, UP_TO_6]) for d in (15, 25))
    (turn,) = compared(before, after)
    assert (turn.lesion, turn.guideline, turn.before, turn.after) == ("a", INR_BELOW, "NotIndicated", "Undetermined")
    told = {line for c in turn.clauses for line in c.because}
    assert any("INR 1.1 of 2026-02-20 recorded; INR 3.0 of 2026-02-10 superseded" in line for line in told)
    assert {(c.before, c.after) for c in turn.clauses} >= {(Truth.NOT_MET, Truth.MET)}
    assert compared(after, after) == ()


def test_two_records_on_one_date() -> None:
    of = frail(fact("inr", 3.0, "2026-02-10"))
    before, after = (answer(r, TODAY, [INR_BELOW]) for r in (of, changed(of, fact("inr", 1.1, "2026-02-10"))))
    (turn,) = compared(before, after)
    lines = [line for c in turn.clauses for line in c.because]
    assert any(
        line.endswith("INR 1.1 of 2026-02-10 recorded; INR 3.0 of 2026-02-10 no longer recorded") for line in lines
    )


# -- limits and forms


def test_no_more_dates_than_the_limit() -> None:
    facts = (fact("inr", 1 + n % 3, (TODAY - n * DAY).isoformat()) for n in range(MOST_DATES + 5))
    of = frail(*facts)
    with pytest.raises(UsageError, match=r"at most 400; narrow them with --from, --to or --guideline"):
        timeline(of, INR_BELOW)
    assert timeline(of, INR_BELOW, first=TODAY - 5 * DAY)
    assert timeline(of, AGE_FROM_59), "what no clause of the guideline reads makes no dates"


def test_dates_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="the first date 2026-03-03 is after the last 2026-03-02"):
        timeline(record(), INR_BELOW, first=TODAY + DAY)
    with pytest.raises(UsageError, match="no last date"):
        timeline(record(as_of=None), INR_BELOW)


def test_the_json() -> None:
    of = frail(fact("inr", 3.0, "2026-01-01"))
    first, second = as_json(timeline(of, INR_BELOW))
    assert (first["day"], first["turns"][0]["before"], first["turns"][0]["clauses"]) == ("2026-01-01", "", [])
    assert second["causes"] == ["INR 3.0 of 2026-01-01 too old after 30 days"]
    (turn,) = second["turns"]
    assert turn.keys() == {
        "lesion", "guideline", "before", "after", "clauses", "assumed", "ratings_before", "ratings_after",
    }  # fmt: skip
    assert {(c["before"], c["after"]) for c in turn["clauses"]} == {("not met", "unknown")}
    assert as_json(timeline(of, INR_BELOW)[1].turns) == second["turns"]


def test_the_text() -> None:
    k, out = load_knowledge(), StringIO()
    of = frail(fact("inr", 3.0, "2026-01-01"))
    print_timeline(Console(file=out, width=200), k, timeline(of, INR_BELOW))
    text, words = out.getvalue(), k.guideline(INR_BELOW).words
    assert f"2026-01-01\n  INR 3.0 of 2026-01-01 recorded\n  {INR_BELOW} on lesion a: {words('NotIndicated')}\n" in text
    assert "2026-02-01\n  INR 3.0 of 2026-01-01 too old after 30 days\n" in text
    assert f"  {INR_BELOW} on lesion a: {words('NotIndicated')} -> {words('Undetermined')}\n" in text
    assert "not met -> unknown\n      INR: 3.0, too old" in text


def test_a_panel_is_told_with_its_categories() -> None:
    k, out = load_knowledge(), StringIO()
    found = timeline(example("constructed/seven-weeks-old"), "acr-vcf-2022", last=date(2026, 6, 30))
    rated = [t for m in found for t in m.turns if t.ratings_after]
    assert rated
    print_timeline(Console(file=out, width=200), k, found)
    assert f"({k.label('https://w3id.org/kypho#' + rated[0].ratings_after[0])})" in out.getvalue()
