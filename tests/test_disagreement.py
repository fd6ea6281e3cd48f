"""The same patient gets a no from one source and a yes from another, and the conflict is named with its number."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_vignettes import load, patient_file

from kypho_kg.candidacy import Answer, assess
from kypho_kg.conflicts import Firing, Stance, conflicts_of, read_conflicts
from kypho_kg.intake import read_patient_file
from kypho_kg.knowledge import Knowledge
from kypho_kg.report import answers_json
from kypho_kg.vocabulary import local

ROOT = Path(__file__).resolve().parent.parent
FACT_BASE = ROOT.parent / "shared" / "clinical"
MEDICARE = load(ROOT / "tests" / "golden" / "guidelines" / "cms-l34228.yaml")["base"]
"""A patient whom the Medicare policy of California covers."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Patient:
    """What is recorded, and what two sources say of it."""

    name: str
    base: Json
    no: tuple[str, str]
    yes: tuple[str, str]
    conflict: str
    against: str
    """Clause that objects."""
    words: str
    """What the conflict tells of feature, value and limit."""


MYELOMA: Json = {
    "facts": {"ActiveInfection": "absent", "Pregnancy": "absent", "SpinalBoneDisease": "present"},
    "lesion": {
        "level": "L1", "primaryEtiology": "MultipleMyeloma", "SpinalInstability": "present", "painNrs": 8,
        "heightLossPercent": 30,
    },
    "procedure": {"technique": "BalloonKyphoplasty"},
}  # fmt: skip
METASTASIS: Json = {
    "facts": {"ConservativeTreatmentFailed": "present", "ActiveInfection": "absent", "Coagulopathy": "absent"},
    "lesion": {
        "level": "T8", "primaryEtiology": "OsteolyticMetastasis", "SymptomaticLesion": "present",
        "SpinalCordCompression": "present", "NeurologicalDeficit": "present", "AnteriorWallDestruction": "present",
    },
    "procedure": {"technique": "BalloonKyphoplasty"},
}  # fmt: skip


def changed(base: Json, **sections: Json) -> Json:
    merged = copy.deepcopy(base)
    for name, more in sections.items():
        merged[name] = {**merged.get(name, {}), **more}
    return merged


PATIENTS = [
    Patient(
        "cord compression and deficit in metastasis", METASTASIS, ("seed-guidelines", "Contraindicated"),
        ("seed-research", "Candidate"), "C1", "seed-guidelines/SEED-A3", "spinal cord compression: present",
    ),
    Patient(
        "instability in myeloma", MYELOMA, ("imwg-2010", "Contraindicated"), ("nice-ng35-2016", "Candidate"), "C18",
        "imwg-2010/IMWG-A1", "spinal instability: present",
    ),
    Patient(
        "pregnancy under two Medicare policies",
        changed(
            MEDICARE, facts={"Pregnancy": "present"}, procedure={"facts": {"UnreadConditionsConfirmed": "present"}},
        ),
        ("cms-l34228", "Contraindicated"), ("cms-l38213", "CandidateWithCaution"), "C12", "cms-l34228/LCD-A3",
        "pregnancy: present",
    ),
    Patient(
        "INR 1.7, corrected",
        changed(
            MEDICARE,
            facts={"Coagulopathy": "present", "UncorrectedCoagulopathy": "absent", "inr": 1.7, "plateletCount": 200},
            lesion={"SymptomaticLesion": "present", "HealedFracture": "absent", "SpinalCordCompression": "absent"},
        ),
        ("seed-guidelines", "Contraindicated"), ("cms-l34228", "Candidate"), "C13", "seed-guidelines/SEED-A2",
        "coagulopathy: present",
    ),
    Patient(
        "minor involvement of the posterior wall, vertebroplasty",
        changed(
            MEDICARE, lesion={"posteriorWallInvolvement": "PosteriorWallMinor", "SymptomaticLesion": "present"},
            procedure={"technique": "Vertebroplasty"},
        ),
        ("colorado-dowc-2014", "Contraindicated"), ("cms-l34228", "Candidate"), "C2", "colorado-dowc-2014/DOWC-A2",
        "minor involvement of the posterior wall",
    ),
]  # fmt: skip


def answer_of(base: Json, knowledge: Knowledge, folder: Path, *guidelines: str) -> Answer:
    path = folder / "patient.json"
    path.write_text(json.dumps(patient_file(base, {}), default=str), "utf-8")
    record = read_patient_file(path, knowledge)
    return assess(record, knowledge=knowledge, guidelines=guidelines or ["all"], validate=False)


@pytest.mark.parametrize("patient", PATIENTS, ids=lambda p: p.name)
def test_no_from_one_and_yes_from_another(patient: Patient, knowledge: Knowledge, tmp_path: Path) -> None:
    answer = answer_of(patient.base, knowledge, tmp_path)
    verdicts = {a.guideline.id: a.verdict for a in answer.cases[0].assessments}
    assert (verdicts[patient.no[0]], verdicts[patient.yes[0]]) == (patient.no[1], patient.yes[1])
    [firing] = [f for f in conflicts_of(knowledge, answer.cases[0]) if f.conflict.id == patient.conflict]
    assert firing.opposed
    objecting = {s.clause.recommendation.id: s for s in firing.taking(Stance.OPPOSES)}
    assert patient.against in objecting
    assert patient.yes[0] not in {s.guideline for s in firing.taking(Stance.OPPOSES)}
    text = told(knowledge, firing)
    assert patient.words in text
    [case] = answers_json([answer], (), "test")["cases"]
    assert patient.conflict in [c["id"] for c in case["conflicts"]]


def told(knowledge: Knowledge, firing: Firing) -> str:
    from kypho_kg.summary import conflict_lines

    return "\n".join(f"{stance}: {'; '.join(lines)}" for stance, lines in conflict_lines(knowledge, firing))


def test_an_inr_of_1_7_is_below_one_limit_and_above_another(knowledge: Knowledge, tmp_path: Path) -> None:
    answer = answer_of(PATIENTS[3].base, knowledge, tmp_path)
    [firing] = [f for f in conflicts_of(knowledge, answer.cases[0]) if f.conflict.id == "C13"]
    text = told(knowledge, firing)
    assert "sir-coagulation-2012/COAG-5 [INR 1.7 (asked: > 1.5)" in text
    assert "vapour-nct01482793/COAG-8 [INR 1.7 (asked: < 2.5)]" in text


def test_the_two_bounds_of_one_trial(knowledge: Knowledge, tmp_path: Path) -> None:
    at_the_limit = changed(MEDICARE, lesion={"painNrs": 4, "heightLossPercent": 15})
    answer = answer_of(at_the_limit, knowledge, tmp_path)
    [firing] = [f for f in conflicts_of(knowledge, answer.cases[0]) if f.conflict.id == "C7"]
    stands = {s.guideline: s.stance for s in firing.stands}
    assert stands == {"free-nct00211211": Stance.OPPOSES, "free-lancet-2009": Stance.SUPPORTS}


@pytest.mark.parametrize("pain", [4, 5, 6, 7, 8])
def test_each_step_of_pain_divides_the_sources_elsewhere(pain: int, knowledge: Knowledge, tmp_path: Path) -> None:
    answer = answer_of(changed(MEDICARE, lesion={"painNrs": pain, "age": None}), knowledge, tmp_path)
    fired = [f for f in conflicts_of(knowledge, answer.cases[0]) if f.conflict.id == "C6"]
    against = {s.guideline for f in fired for s in f.taking(Stance.OPPOSES)}
    for guideline, least in (("vertos-2", 5), ("nct06776003", 6), ("vapour-nct01482793", 7), ("invest-nct00068822", 3)):
        assert (guideline in against) is (pain < least), guideline


def test_agreement_fires_nothing(knowledge: Knowledge, tmp_path: Path) -> None:
    answer = answer_of(MEDICARE, knowledge, tmp_path, "cms-l34228", "cms-l34106", "cms-l33569")
    assert conflicts_of(knowledge, answer.cases[0]) == ()


def test_one_source_alone_disagrees_with_nobody(knowledge: Knowledge, tmp_path: Path) -> None:
    for patient in PATIENTS:
        answer = answer_of(patient.base, knowledge, tmp_path, patient.no[0])
        assert conflicts_of(knowledge, answer.cases[0]) == ()


def test_every_topic_is_whole(knowledge: Knowledge) -> None:
    topics = read_conflicts(knowledge)
    assert [t.id for t in topics] == [f"C{n}" for n in range(1, 32)]
    held = {r.id for g in knowledge.guidelines.values() for r in g.recommendations}
    for topic in topics:
        assert topic.kind in {"HardConflict", "ScopeConflict", "SoftConflict"}
        assert len(topic.positions) >= 2, topic.id
        clauses = [c for p in topic.positions for c in p.clauses]
        assert set(clauses) <= held
        assert len(clauses) == len(set(clauses)), f"{topic.id}: a clause stands on two sides"
        assert len({c.partition("/")[0] for c in clauses}) >= 2
        assert {local(f) for f in topic.features} <= set(knowledge.by_name)


def test_every_clause_on_a_side_asks_for_what_the_topic_is_about(knowledge: Knowledge) -> None:
    """Save for topics on method, and clauses that accept without asking."""
    silent = set()
    for topic in read_conflicts(knowledge):
        for position in topic.positions:
            for id_ in position.clauses if topic.features else ():
                r = knowledge.guideline(id_.partition("/")[0]).by_clause(id_.partition("/")[2])
                assert r is not None
                terms = {n.term for n in r.criterion.walk() if not n.children}
                near = {
                    f for t in terms for f in topic.features if knowledge.subsumes(f, t) or knowledge.subsumes(t, f)
                }
                if not (terms & topic.features or near):
                    silent.add(f"{topic.id} {id_}")
    assert silent == SILENT


SILENT = {
    "C14 sir-coagulation-2012/COAG-5", "C22 acr-vcf-2022/ACR22-V6", "C22 isass-2018/ISASS-1",
    "C22 multisociety-statement-2007/PS-1", "C26 acr-vcf-2022/ACR22-N5", "C26 nice-ng35-2016/NICE-Y1",
    "C26 nice-ng35-2016/NICE-Y2", "C27 cms-l34228/LCD-I2", "C27 seed-guidelines/SEED-I1", "C28 rand-us-2018/RAND-F1",
    "C30 bcbs-al-mp-004/BCBSAL-I1",
}  # fmt: skip
"""Clauses that stand on a side of a topic because they do not ask: they never fire, and are there to be read."""


@pytest.mark.skipif(not FACT_BASE.is_dir(), reason="the collection of facts is not part of the project")
def test_the_thirty_topics_of_the_sources_are_all_there(knowledge: Knowledge) -> None:
    text = (FACT_BASE / "criteria.md").read_text("utf-8")
    kinds = dict(re.findall(r"^\| (C\d+) \|.*\| (hard|scope|soft)[^|]*\|$", text, re.MULTILINE))
    assert len(kinds) == 30
    topics = {t.id: t for t in read_conflicts(knowledge)}
    assert set(kinds) <= set(topics)
    corrected = {"C21": "scope"}  # Part 6: outside the scope, not refused
    words = {"hard": "HardConflict", "scope": "ScopeConflict", "soft": "SoftConflict"}
    assert {i: topics[i].kind for i in kinds} == {i: words[corrected.get(i, k)] for i, k in kinds.items()}
