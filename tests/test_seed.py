"""Every statement of the founding summary is in the knowledge base, and works.

``tables/seed-statements.csv`` is a copy of the ids with their kinds. A statement on candidacy decides a case here; a
statement on the procedure or an outcome is answered by a bundled query.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from builders import ROOT, clause_says, fact, record

from kypho_kg import querying
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Fact
from kypho_kg.vocabulary import KYPHO, SKOS, TYPE

HERE = Path(__file__).parent
FACT_BASE = HERE.parent.parent / "shared" / "clinical" / "seed-statements.tsv"
with (HERE / "tables" / "seed-statements.csv").open(encoding="utf-8", newline="") as file:
    KINDS = {row["id"]: row["kind"] for row in csv.DictReader(file)}

OSTEOPOROTIC = fact("primaryEtiology", "PrimaryOsteoporosis")
PAINFUL = fact("SymptomaticLesion")
FAILED = fact("ConservativeTreatmentFailed")
I1 = (OSTEOPOROTIC, PAINFUL, FAILED)
I2 = (
    fact("adlLimitation", "ModerateAdlLimitation"),
    fact("PainConcordantWithLevel"),
    fact("weeksSinceOnset", "5.9"),
    fact("MarrowEdemaOnMri"),
)
I3 = (fact("weeksSinceOnset", 8), PAINFUL, fact("HealedFracture", "absent"))


def without(facts: tuple[Fact, ...], *new: Fact) -> tuple[Fact, ...]:
    """The facts with some of them replaced."""
    gone = {f.feature for f in new}
    return (*(f for f in facts if f.feature not in gone), *new)


def fresh(etiology: str) -> tuple[Fact, ...]:
    return fact("RecentFracture"), fact("primaryEtiology", etiology)


CONDITIONS: dict[str, tuple[str, tuple[Fact, ...], tuple[Fact, ...], str]] = {
    "G1": ("seed-guidelines/SEED-I1", I1, without(I1, fact("ConservativeTreatmentFailed", "absent")), "not met"),
    "G2": ("seed-guidelines/SEED-I2", I2, without(I2, fact("weeksSinceOnset", 8)), "not met"),
    "G3": ("seed-guidelines/SEED-I1", I1, without(I1, fact("primaryEtiology", "LowEnergyTrauma")), "not met"),
    "G4": ("seed-guidelines/SEED-I1", without(I1, fact("primaryEtiology", "OsteolyticMetastasis")),
           without(I1, fact("primaryEtiology", "GiantCellTumour")), "not met"),
    "G5": ("seed-guidelines/SEED-I1", without(I1, fact("primaryEtiology", "MultipleMyeloma")),
           without(I1, fact("primaryEtiology", "LymphomaOfBone")), "not met"),
    "G6": ("seed-guidelines/SEED-I2", I2, without(I2, fact("adlLimitation", "NoAdlLimitation")), "not met"),
    "G7": ("seed-guidelines/SEED-I2", I2, without(I2, fact("PainConcordantWithLevel", "absent")), "not met"),
    "G8": ("seed-guidelines/SEED-I2", I2, without(I2, fact("weeksSinceOnset", 6)), "LeftOpenBySource"),
    "G9": ("seed-guidelines/SEED-I2", I2, without(I2, fact("MarrowEdemaOnMri", "absent")), "not met"),
    "G10": ("seed-guidelines/SEED-I3", I3, without(I3, fact("HealedFracture")), "not met"),
    "G18": ("seed-guidelines/SEED-A1", (fact("Discitis"),), (fact("ActiveInfection", "absent"),), "not met"),
    "G19": ("seed-guidelines/SEED-A2", (fact("HaemophiliaA"),), (fact("Coagulopathy", "absent"),), "not met"),
    "G20": ("seed-guidelines/SEED-A3", (fact("bilskyGrade", "Bilsky2"),), (fact("SpinalCordCompression", "absent"),),
            "not met"),
    "G21": ("seed-guidelines/SEED-A4", (fact("HealedFracture"),), (fact("HealedFracture", "absent"), PAINFUL),
            "not met"),
    "G22": ("seed-guidelines/SEED-A4", (fact("SymptomaticLesion", "absent"),),
            (fact("HealedFracture", "absent"), PAINFUL), "not met"),
    "R2": ("seed-research/SEED-R0", (OSTEOPOROTIC,), (fact("primaryEtiology", "LowEnergyTrauma"),), "not met"),
    "R3": ("seed-research/SEED-R1", fresh("SenileOsteoporosis"), fresh("InfectiousEtiology"), "not met"),
    "R4": ("seed-research/SEED-R1", fresh("HighEnergyTrauma"), without(fresh("HighEnergyTrauma"),
           fact("RecentFracture", "absent")), "not met"),
    "R5": ("seed-research/SEED-R1", fresh("LymphomaOfBone"), fresh("Osteoblastoma"), "not met"),
    "R6": ("seed-research/SEED-R1", fresh("AggressiveHaemangioma"), fresh("FibrousDysplasia"), "not met"),
    "R7": ("seed-research/SEED-R1", fresh("VertebralOsteonecrosis"), fresh("PagetDiseaseOfBone"), "not met"),
    "R8": ("seed-research/SEED-R2", (fact("NeurologicalDeficit"), fact("AnteriorWallDestruction")),
           (fact("NeurologicalDeficit"), fact("AnteriorWallDestruction", "absent")), "not met"),
    "R9": ("seed-research/SEED-R0", (OSTEOPOROTIC, PAINFUL), (fact("primaryEtiology", "MultipleMyeloma"), PAINFUL),
           "not met"),
    "R10": ("seed-research/SEED-R3", (fact("weeksSinceOnset", 40),), (), "NotRecorded"),
    "R11": ("seed-research/SEED-R5", (fact("SevereOsteoporosis"),),
            (fact("SevereOsteoporosis", "absent"), OSTEOPOROTIC), "not met"),
    "R12": ("seed-research/SEED-R5", (fact("primaryEtiology", "OsteolyticMetastasis"),),
            (fact("SevereOsteoporosis", "absent"), fact("primaryEtiology", "OsteoblasticMetastasis")), "not met"),
    "R13": ("seed-research/SEED-R6", (fact("LargeBoneDefect"),), (fact("LargeBoneDefect", "absent"),), "not met"),
    "R15": ("seed-research/SEED-R4", (FAILED,), (fact("ConservativeTreatmentFailed", "absent"),
            fact("adlLimitation", "NoAdlLimitation")), "not met"),
    "R16": ("seed-research/SEED-R4", (fact("adlLimitation", "SevereAdlLimitation"),),
            (fact("ConservativeTreatmentFailed", "absent"), fact("adlLimitation", "ModerateAdlLimitation")), "not met"),
}  # fmt: skip
"""Statement: the clause, facts by which it is met, facts by which it is not, and what it then is."""

ANSWERS: dict[str, tuple[str, dict[str, str]]] = {
    "G11": ("steps-of-a-procedure", {"step": "KyphoplastyBalloonInsertion"}),
    "G12": ("steps-of-a-procedure", {"step": "KyphoplastyBalloonInflation"}),
    "G13": ("steps-of-a-procedure", {"step": "KyphoplastyCementInjection"}),
    "G14": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-fracture-stabilisation"}),
    "G15": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-height-restoration"}),
    "G16": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-rapid-relief"}),
    "G17": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-spine-stabilisation"}),
    "G23": ("steps-of-a-procedure", {"step": "KyphoplastyAnaesthesia"}),
    "G24": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-stay"}),
    "G25": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-relief-48-hours"}),
    "G26": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-immediate-pain"}),
    "G27": (
        "evidence-of-the-founding-summary",
        {"statement": "evidence-seed-pain-improvement", "value": "90", "unit": "%"},
    ),
    "G28": (
        "evidence-of-the-founding-summary",
        {"statement": "evidence-seed-functional-improvement", "value": "60", "unit": "%"},
    ),
    "G29": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-recurrence"}),
    "G30": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-pulmonary-function"}),
    "R1": ("steps-of-a-procedure", {"technique": "BalloonKyphoplasty", "step": "KyphoplastyAccess"}),
    "R14": ("technique-advice", {"advice": "AdviceLargeDefect", "clause": "seed-research/SEED-C1"}),
    "R17": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-research-pain"}),
    "R18": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-research-height"}),
    "R19": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-research-kyphosis"}),
    "R20": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-research-oswestry"}),
    "R21": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-research-complications"}),
    "R22": ("evidence-of-the-founding-summary", {"statement": "evidence-seed-research-leakage"}),
    "D1": ("seed-coverage", {"statement": "D1"}),
    "D2": ("seed-coverage", {"statement": "D2"}),
    "D3": ("seed-coverage", {"statement": "D3"}),
}
"""Statement: the query that answers it, and what a row of the answer says."""


def test_every_statement_is_tried() -> None:
    assert len(KINDS) == 55
    assert CONDITIONS.keys() | ANSWERS.keys() == KINDS.keys()
    assert not CONDITIONS.keys() & ANSWERS.keys()


@pytest.mark.skipif(not FACT_BASE.is_file(), reason="the fact base is not part of the project")
def test_the_table_is_that_of_the_fact_base() -> None:
    rows = csv.DictReader(FACT_BASE.read_text("utf-8").splitlines(), delimiter="\t")
    assert {row["id"]: row["kind"] for row in rows} == KINDS


@pytest.mark.parametrize("id_", CONDITIONS)
def test_condition(id_: str) -> None:
    clause, met, other, then = CONDITIONS[id_]
    assert clause_says(record(*met), clause) == "met"
    assert clause_says(record(*other), clause) == then


@pytest.mark.parametrize("id_", ANSWERS)
def test_answer(id_: str, knowledge: Knowledge) -> None:
    query, expected = ANSWERS[id_]
    assert any(expected.items() <= row.items() for row in querying.run(knowledge, query))


def test_every_statement_is_carried_and_says_what_shows_it(knowledge: Knowledge) -> None:
    rows = {row["statement"]: row for row in querying.run(knowledge, "seed-coverage")}
    assert {id_: row["kind"] for id_, row in rows.items()} == KINDS
    for id_, row in rows.items():
        assert row["carriedBy"], id_
        if id_ in CONDITIONS:
            assert CONDITIONS[id_][0] in row["carriedBy"].split(", ")
            assert row["shownBy"] == f"tests/test_seed.py::test_condition[{id_}]"
        else:
            assert row["shownBy"] == f"query {ANSWERS[id_][0]}; tests/test_seed.py::test_answer[{id_}]"


def test_statements_name_nothing_that_is_not_there(knowledge: Knowledge) -> None:
    t = knowledge.triples
    known = {t.text(s, SKOS + "notation") for s in t.subjects(TYPE, KYPHO + "SourceStatement")}
    assert known == KINDS.keys()
    assert {o.text for _, p, o in t if p == KYPHO + "seedStatement" and not isinstance(o, str)} == known


def test_the_document_is_the_answer_of_the_query(knowledge: Knowledge) -> None:
    text = (ROOT / "docs" / "seed-coverage.md").read_text("utf-8")
    assert text == querying.markdown("seed-coverage", querying.run(knowledge, "seed-coverage"))
