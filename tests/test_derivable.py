"""Features that count as filled because the engine derives them from what was read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from builders import EXAMPLES
from test_cli import kypho  # noqa: F401 - a fixture

from kypho_kg.coverage import coverage, coverage_line, filled_by
from kypho_kg.derivable import derivable
from kypho_kg.inference import infer
from kypho_kg.intake import read_records
from kypho_kg.intake_report import IntakeReport
from kypho_kg.intake_text import print_reports
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import (
    LESION,
    PATIENT,
    Fact,
    Lesion,
    Mood,
    Polarity,
    Procedure,
    Range,
    Record,
    Source,
    Status,
    TimeSpan,
)
from kypho_kg.scores import read_scores
from kypho_kg.vocabulary import KYPHO

FILES = sorted([*(EXAMPLES / "constructed").glob("*.yaml"), *(EXAMPLES / "published").glob("*.yaml")])
LESION_A = LESION + "a"
BORN = Fact(PATIENT, KYPHO + "birthDate", TimeSpan.parse("1950"))
ONSET = Fact(LESION_A, KYPHO + "onsetDate", TimeSpan.parse("2026-01"))
SCAN = Fact(LESION_A, KYPHO + "MarrowEdemaOnMri", time=TimeSpan.parse("2026-02-01"))


def pain(value: int | None, day: str, subject: str = LESION_A) -> Fact:
    exact = None if value is None else Range.exactly(Decimal(value))
    return Fact(subject, KYPHO + "painNrs", exact or Range(Decimal(3), None), time=TimeSpan.parse(day))


def record(*facts: Fact, lesions: str = "", session: str | None = None) -> Record:
    procedure = None if session is None else Procedure(tuple(session))
    return Record("p", tuple(map(Lesion, lesions)), facts, procedure)


def names(k: Knowledge, *records: Record) -> set[str]:
    return {k.features[f].name for f in derivable(k, records)}


FROM_ONSET = {"weeksSinceOnset", "painDurationWeeks"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (record(), set()),
        (record(BORN), {"age"}),
        (record(ONSET), FROM_ONSET),
        (record(BORN, ONSET), {"age"} | FROM_ONSET),
        # a fact that does not count, or says that it is unknown
        (record(replace(BORN, invalid="a shape")), set()),
        (record(replace(BORN, overridden_by=Source("x"))), set()),
        (record(replace(BORN, mood=Mood.PLANNED)), set()),
        (record(replace(BORN, polarity=Polarity.INDETERMINATE, value=None)), set()),
        (record(replace(BORN, status=Status.REFUTED)), set()),
        # the age of a finding: any below it, with a date, and present
        (record(SCAN), {"advancedImagingAge"}),
        (record(replace(SCAN, time=None)), set()),
        (record(replace(SCAN, polarity=Polarity.ABSENT)), set()),
        # a trend: two exact values of one subject at two times
        (record(pain(7, "2026-01-01"), pain(5, "2026-02-01")), {"painTrend"}),
        (record(pain(7, "2026-01-01")), set()),
        (record(pain(7, "2026-01-01"), pain(5, "2026-01-01")), set()),
        (record(pain(7, "2026-01-01"), pain(None, "2026-02-01")), set()),
        (record(pain(7, "2026-01-01"), pain(5, "2026-02-01", LESION + "b")), set()),
        # counts
        (record(lesions="a"), {"lesionCount"}),
        (record(lesions="ab", session="a"), {"lesionCount", "sessionLevelCount"}),
        (record(lesions="a", session=""), {"lesionCount"}),
    ],
)  # fmt: skip
def test_what_something_is_derived_from(knowledge: Knowledge, given: Record, expected: set[str]) -> None:
    counts = {f.iri: f.name for f in knowledge.features.values() if f.derived_by == "CountOfLesions"}
    [count] = counts.values()
    assert names(knowledge, given) == {count if name == "lesionCount" else name for name in expected}


def test_inputs_of_two_patients_are_none_of_one(knowledge: Knowledge) -> None:
    apart = [record(pain(7, "2026-01-01")), replace(record(pain(5, "2026-02-01")), patient="q")]
    assert names(knowledge, *apart) == set()
    assert names(knowledge, *apart, record(BORN)) == {"age"}


def test_a_score_needs_something_for_each_item(knowledge: Knowledge) -> None:
    """What is stated of the parts is enough, also where it is an absence; without one of them the score is missing."""
    scores = read_scores(knowledge)
    assert {f.iri for f in knowledge.features.values() if f.derived_by == "ScoreTotal"} == {s.quantity for s in scores}
    assert len(scores) > 1
    for score in scores:
        parts = [
            [
                n.term
                for o in item.options
                for n in o.condition.walk()
                if not n.children and n.term in knowledge.features
            ]
            for item in score.items
        ]
        facts = [Fact(LESION_A, terms[0], polarity=Polarity.ABSENT) for terms in parts]
        assert score.quantity in derivable(knowledge, [record(*facts)])
        for terms in parts:
            assert score.quantity not in derivable(knowledge, [record(*(f for f in facts if f.feature not in terms))])


def test_what_counts_is_what_the_engine_derives(knowledge: Knowledge) -> None:
    """Patient by patient, scores aside, of which the engine also gives the limits where parts are missing."""
    records, problems = read_records(FILES, knowledge)
    assert problems == []
    seen: set[str] = set()
    for one in records:
        recorded = {f.feature for f in one.facts}
        snapshot = infer(one, knowledge, one.as_of or date(2026, 3, 2), bridges=())
        values = {(f, fact.rule) for (_, f), v in snapshot.values.items() for fact in v.facts if fact.feature == f}
        derived = {f for f, rule in values if rule and knowledge.features[f].derived_by != "ScoreTotal"} - recorded
        named = derivable(knowledge, [one]) - recorded
        assert derived <= named, one.place
        # What lies after the date, or is withheld, is all that may be left.
        late = {f for f in named - derived if knowledge.features[f].derived_by != "ScoreTotal"}
        assert {knowledge.features[f].name for f in late} <= (
            {"advancedImagingAge"} if one.place == "ost-06.yaml" else set()
        )
        seen |= derived
    assert {knowledge.features[f].derived_by for f in seen} == {
        "DifferenceOfDates", "CountOfLesions", "CountOfSessionLevels", "TrendOfSeries",
    }  # fmt: skip


def test_nothing_is_both_filled_and_missing(knowledge: Knowledge) -> None:
    records, _ = read_records(FILES, knowledge)
    for some in ([], records[:1], records[:10], records):
        filled = filled_by(knowledge, some)
        recorded, left = coverage(knowledge, some)
        assert filled.recorded == recorded
        assert sorted([*filled.derived, *(f for f, _ in filled.missing)]) == sorted(f for f, _ in left)
        assert filled.number + len(filled.missing) == recorded + len(left)


# -- the report


def patient(folder: Path, facts: str) -> Path:
    path = folder / "patient.yaml"
    path.write_text(
        f"format: kypho-patient/1\npatient: {{id: p, birth_date: 1950-04}}\nas_of: 2026-03-02\n"
        f"lesions:\n  - {{id: a, level: L1, facts: {{{facts}}}}}\n"
        "procedure: {technique: BalloonKyphoplasty, lesions: [a]}\n",
        "utf-8",
    )
    return path


def test_the_report_lists_no_derived_feature_as_missing(kypho, tmp_path: Path, knowledge: Knowledge) -> None:  # noqa: F811
    path = patient(tmp_path, "onsetDate: 2026-02-01")
    data = kypho("intake", path, "--format", "json").data
    derived = ["weeksSinceOnset", "age", "sessionLevelCount", "painDurationWeeks"]
    assert data["derived_features"] == derived, "the most asked first"
    missing = {row["feature"] for row in data["unfilled_features"]}
    assert missing.isdisjoint(derived)
    assert data["filled_features"] + len(missing) == len(coverage(knowledge, [])[1])
    text = " ".join(kypho("intake", path).out.split())
    recorded = data["filled_features"] - len(derived)
    total = data["filled_features"] + len(missing)
    assert (
        f"Of {total} features on which verdicts turn, {data['filled_features']} were filled: "
        f"{recorded} by a source, {len(derived)} by derivation."
    ) in text
    plain = [knowledge.plain(KYPHO + name) for name in derived]
    assert f"By derivation: {', '.join(plain)} Filled by none" in text


def test_without_the_date_the_duration_is_missing(kypho, tmp_path: Path) -> None:  # noqa: F811
    data = kypho("intake", patient(tmp_path, ""), "--format", "json").data
    assert data["derived_features"] == ["age", "sessionLevelCount"]
    assert "weeksSinceOnset" in {row["feature"] for row in data["unfilled_features"]}


def test_a_feature_that_is_recorded_is_not_derived(kypho, tmp_path: Path) -> None:  # noqa: F811
    path = patient(tmp_path, "onsetDate: 2026-02-01, weeksSinceOnset: 4")
    assert "weeksSinceOnset" not in kypho("intake", path, "--format", "json").data["derived_features"]


def test_without_anything_derived_the_sentence_says_no_more(knowledge: Knowledge) -> None:
    total = len(coverage(knowledge, [])[1])
    assert coverage_line(knowledge, []) == f"Of {total} features on which verdicts turn, 0 were filled by a source."


@pytest.mark.parametrize(
    ("count", "words"), [(1, "1 row, 1 Patient"), (2, "2 rows, 1 Patient"), (2000, "2,000 rows, 1 Patient")]
)
def test_what_was_read_is_counted_in_words(count: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    report = IntakeReport("s.csv")
    report.saw("row", count)
    report.saw("Patient")
    print_reports(Console(width=100), [report])
    assert f"s.csv: 0 patients; read: {words}\n" == capsys.readouterr().out
    assert json.dumps(report.read) == json.dumps({"row": count, "Patient": 1}), "the JSON has the kind as it is"
