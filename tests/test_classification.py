"""Types of lesions: defined classes at their limits, with missing values, and equal to the reasoner."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import A, fact, inferred, record
from hypothesis import given, settings
from hypothesis import strategies as st

from kypho_kg.classification import lesion_types, type_criteria
from kypho_kg.evaluation import Truth
from kypho_kg.inference import infer
from kypho_kg.loading import load_knowledge
from kypho_kg.owl_export import case_axioms, subject_iri
from kypho_kg.reasoning import entailments
from kypho_kg.record import Fact, Record
from kypho_kg.vocabulary import LABEL, local

FRACTURE = fact("lesionKind", "FractureLesion")
OSTEOPOROTIC = (FRACTURE, fact("primaryEtiology", "SenileOsteoporosis"))
NO_BAND = fact("TensionBandFailure", "absent")
WEDGE = fact("fractureMorphology", "WedgeFracture")
ONE, BOTH, NONE = (fact("endplateInvolvement", f"{n}Involved") for n in ("OneEndplate", "BothEndplates", "NoEndplate"))


def truths(*facts: Fact) -> dict[str, Truth]:
    return {local(t.iri): t.truth for t in lesion_types(inferred(*facts), "a")}


def met(*facts: Fact) -> set[str]:
    return {name for name, truth in truths(*facts).items() if truth is Truth.MET}


def wall(state: str) -> Fact:
    return fact("posteriorWallInvolvement", f"PosteriorWall{state}")


AGES = {
    "AcuteFractureLcd": [("5.9", 2), ("6", 0)],
    "SubacuteFractureLcd": [("5.9", 0), ("6", 2), ("12", 2), ("12.1", 0)],
    "ChronicFractureLcd": [("12", 0), ("12.1", 2)],
    "EarlyFractureRandEu": [("5.9", 2), ("6", 0)],
    "IntermediateFractureRandEu": [("5.9", 0), ("6", 2), ("13", 2), ("13.1", 0)],
    "LateFractureRandEu": [("13", 0), ("13.1", 2)],
    "FirstWeekFractureRand": [("0.9", 2), ("1", 0)],
    "AcuteFractureCrandall": [("9.9", 2), ("10", 0)],
    "ChronicFractureCrandall": [("16", 0), ("16.1", 2)],
    "AcuteFractureModa": [("16.9", 2), ("17", 0)],
    "WindowFractureImwg": [("3.9", 0), ("4", 2), ("8", 2), ("8.1", 0)],
    "RecentFractureHny": [("6", 2), ("6.1", 0)],
    "YoungFractureSeed": [("5.9", 2), ("6", 1), ("7.9", 1), ("8", 0)],
}


@pytest.mark.parametrize(("name", "weeks", "truth"), [(n, w, t) for n, rows in AGES.items() for w, t in rows])
def test_age(name: str, weeks: str, truth: int) -> None:
    assert truths(FRACTURE, fact("weeksSinceOnset", weeks))[name] == truth


def test_age_is_unknown_without_a_date_and_of_a_lesion_of_unknown_kind() -> None:
    assert {truths(FRACTURE)[n] for n in AGES} == {Truth.UNKNOWN}
    assert {truths(fact("weeksSinceOnset", 2))[n] for n in ("AcuteFractureLcd", "YoungFractureSeed")} == {Truth.UNKNOWN}
    assert truths(fact("lesionKind", "HaemangiomaWithoutFracture"))["AcuteFractureLcd"] is Truth.NOT_MET


@pytest.mark.parametrize(("weeks", "acute", "chronic"), [("6", 2, 0), ("6.1", 0, 0), ("11.9", 0, 0), ("12", 0, 2)])
def test_duration_of_pain(weeks: str, acute: int, chronic: int) -> None:
    found = truths(FRACTURE, fact("painDurationWeeks", weeks))
    assert (found["AcutePainVertos"], found["ChronicPainVertosV"]) == (acute, chronic)


GRADES = {"19.9": "0", "20": "1", "24.9": "1", "25": "", "25.1": "2", "40": "2", "40.1": "3", "100": "3"}


@pytest.mark.parametrize(("percent", "grade"), GRADES.items())
def test_genant_grade(percent: str, grade: str) -> None:
    found = truths(fact("heightLossPercent", percent))
    assert {g for g in "0123" if found[f"GenantGrade{g}ByHeight"] is Truth.MET} == set(grade)
    open_ = {g for g in "0123" if found[f"GenantGrade{g}ByHeight"] is Truth.UNKNOWN}
    assert open_ == ({"1", "2"} if percent == "25" else set())


def test_a_stated_grade_decides_no_type() -> None:
    assert not {n for n in met(fact("genantGrade", "GenantGrade3")) if "Genant" in n}
    assert not {n for n in met(FRACTURE, fact("aoSpineType", "AoTypeA3")) if n.startswith("AoType")}
    assert not {n for n in met(*OSTEOPOROTIC, fact("ofType", "OF4")) if n.startswith("OF")}


@pytest.mark.parametrize(
    ("percent", "band"),
    [("24.9", "Mild"), ("25", "Moderate"), ("40", "Moderate"), ("40.1", "Severe")],
)
def test_height_bands_of_the_panel(percent: str, band: str) -> None:
    assert {n for n in met(fact("heightLossPercent", percent)) if n.endswith("HeightLossRand")} == {
        f"{band}HeightLossRand"
    }


@pytest.mark.parametrize(
    ("heights", "shape"),
    [((20, 0, 0), "Wedge"), ((19, 20, 19), "Biconcave"), ((40, 40, 20), "Crush"), ((19, 19, 19), ""),
     ((20, 30, 19), "Wedge")],
)  # fmt: skip
def test_genant_shape(heights: tuple[int, int, int], shape: str) -> None:
    names = ("anteriorHeightLossPercent", "middleHeightLossPercent", "posteriorHeightLossPercent")
    found = met(*(fact(n, h) for n, h in zip(names, heights, strict=True)))
    assert {n for n in found if n.endswith("Shape")} == ({f"Genant{shape}Shape"} if shape else set())


@pytest.mark.parametrize(
    ("said", "deformed"),
    [(fact("localKyphosisAngle", "14.9"), 1), (fact("localKyphosisAngle", 15), 2), (fact("scoliosisAngle", 10), 2),
     (fact("posteriorHeightLossPercent", 10), 2), (fact("heightLossPercent", 20), 2)],
)  # fmt: skip
def test_spinal_deformity_of_the_european_panel(said: Fact, deformed: int) -> None:
    assert truths(said)["SpinalDeformityRandEu"] == deformed


OF = [
    ((NONE, fact("MarrowEdemaOnMri"), NO_BAND, WEDGE), "1"),
    ((NONE, fact("MarrowEdemaOnMri", "absent"), NO_BAND, WEDGE), ""),
    ((ONE, wall("Intact"), NO_BAND, WEDGE), "2"),
    ((ONE, wall("Minor"), NO_BAND, WEDGE), "2"),
    ((ONE, wall("Distinct"), NO_BAND, WEDGE), "3"),
    ((ONE, wall("Disrupted"), NO_BAND, WEDGE), "3"),
    ((ONE, wall("Disrupted"), NO_BAND, fact("fractureMorphology", "PincerFracture")), "4"),
    ((BOTH, NO_BAND, WEDGE), "4"),
    ((BOTH, fact("TensionBandFailure")), "5"),
    ((fact("fractureMorphology", "DistractionOrRotationInjury"),), "5"),
]


@pytest.mark.parametrize(("said", "type_"), OF)
def test_of_type(said: tuple[Fact, ...], type_: str) -> None:
    found = truths(*OSTEOPOROTIC, *said)
    assert {n for n in "12345" if found[f"OF{n}ByImaging"] is Truth.MET} == set(type_)
    assert not {n for n in met(FRACTURE, fact("primaryEtiology", "MultipleMyeloma"), *said) if n.startswith("OF")}


def test_of_type_stays_open_while_the_tension_band_is_unknown() -> None:
    found = truths(*OSTEOPOROTIC, BOTH)
    assert (found["OF4ByImaging"], found["OF5ByImaging"]) == (Truth.UNKNOWN, Truth.UNKNOWN)
    assert found["OF2ByImaging"] is Truth.NOT_MET


AO = [
    ((NONE, wall("Intact")), "A0"), ((ONE, wall("Intact")), "A1"), ((BOTH, wall("Intact")), "A2"),
    ((ONE, wall("Minor")), "A3"), ((BOTH, wall("Disrupted")), "A4"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "type_"), AO)
def test_ao_type(said: tuple[Fact, ...], type_: str) -> None:
    names = {n for n in met(FRACTURE, *said, NO_BAND, WEDGE) if n.startswith("AoType")}
    assert names == {f"AoType{type_}ByImaging"}
    torn = {n for n in met(FRACTURE, *said, fact("TensionBandFailure"), WEDGE) if n.startswith("AoType")}
    assert torn == {"AoTypeBByImaging"}


LI = [
    ((fact("heightLossPercent", "19.9"),), "I"), ((fact("heightLossPercent", 20),), ""),
    ((fact("heightLossPercent", "20.1"),), "II"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "stage"), LI)
def test_li_stage(said: tuple[Fact, ...], stage: str) -> None:
    dead = fact("primaryEtiology", "VertebralOsteonecrosis")
    found = {n for n in met(dead, wall("Intact"), *said) if n.startswith("Li")}
    assert found == ({f"LiStage{stage}ByImaging"} if stage else set())
    third = (wall("Disrupted"), fact("SpinalCordCompression"))
    assert {n for n in met(dead, *third, *said) if n.startswith("Li")} == {"LiStageIIIByImaging"}
    assert not {n for n in met(fact("primaryEtiology", "MultipleMyeloma"), *third, *said) if n.startswith("Li")}


@pytest.mark.parametrize(
    ("etiology", "types"),
    [
        ("GlucocorticoidInducedOsteoporosis", "Osteoporotic SecondaryOsteoporotic Glucocorticoid Pathological"),
        ("SenileOsteoporosis", "Osteoporotic PrimaryOsteoporotic Pathological"),
        ("MultipleMyeloma", "Myeloma Malignant Neoplastic Pathological"),
        ("OsteolyticMetastasis", "Metastatic Malignant Neoplastic Pathological"),
        ("LowEnergyTrauma", "Traumatic LowEnergyTraumatic"),
        ("HighEnergyTrauma", "Traumatic HighEnergyTraumatic"),
        ("PagetDiseaseOfBone", "Pathological"),
    ],
)
def test_type_by_etiology(etiology: str, types: str) -> None:
    found = {n for n in met(FRACTURE, fact("primaryEtiology", etiology)) if n.endswith("VertebralFracture")}
    assert found == {f"{t}VertebralFracture" for t in types.split()}


def test_a_traumatic_fracture_that_a_report_calls_pathological_is_so() -> None:
    trauma = (FRACTURE, fact("primaryEtiology", "LowEnergyTrauma"))
    assert truths(*trauma)["PathologicalVertebralFracture"] is Truth.UNKNOWN
    assert "PathologicalVertebralFracture" in met(*trauma, fact("PathologicalFracture"))


@pytest.mark.parametrize("site", ["Breast", "Lung", "Prostate", "Renal", "Thyroid"])
def test_metastasis_by_its_primary(site: str) -> None:
    found = met(fact("primaryEtiology", "MixedMetastasis"), fact("primaryTumourSite", f"{site}Primary"))
    assert {n for n in found if n.endswith("MetastaticLesion")} == {
        f"{site}CancerMetastaticLesion",
        "MixedMetastaticLesion",
    }


@pytest.mark.parametrize(
    ("grade", "types"),
    [("0", "NoEpiduralDisease LowGradeEpiduralCompression"), ("1A", "LowGradeEpiduralCompression"),
     ("1B", "LowGradeEpiduralCompression"), ("1C", "BorderlineEpiduralCompression"),
     ("2", "HighGradeEpiduralCompression"), ("3", "HighGradeEpiduralCompression")],
)  # fmt: skip
def test_epidural_compression(grade: str, types: str) -> None:
    assert {n for n in met(fact("bilskyGrade", f"Bilsky{grade}")) if "Epidural" in n} == set(types.split())


@pytest.mark.parametrize(
    ("score", "value", "type_"),
    [("sinsScore", 6, "SinsStable"), ("sinsScore", 7, "SinsPotentiallyUnstable"),
     ("sinsScore", 12, "SinsPotentiallyUnstable"), ("sinsScore", 13, "SinsUnstable"), ("ofScore", 5, "OfConservative"),
     ("ofScore", 6, "OfEither"), ("ofScore", 7, "OfOperative")],
)  # fmt: skip
def test_band_of_a_score(score: str, value: int, type_: str) -> None:
    assert {n for n in met(fact(score, value)) if n.startswith(("Sins", "Of"))} == {type_}


def test_healing_and_cement() -> None:
    assert "HealedVertebralFracture" in met(FRACTURE, fact("HealedFracture"))
    assert "HealingVertebralFracture" in met(FRACTURE, fact("DelayedFractureHealing"), fact("HealedFracture", "absent"))
    assert truths(FRACTURE, fact("FractureHealing"))["HealingVertebralFracture"] is Truth.UNKNOWN
    assert "NonUnitedVertebralFracture" in met(FRACTURE, fact("FractureNonUnion"))
    assert "ActiveVertebralFracture" in met(FRACTURE, fact("MarrowEdemaOnMri"))
    assert {"AugmentedVertebraLesion", "AdjacentLevelFracture"} <= met(
        FRACTURE, fact("CementInVertebra"), fact("AdjacentToAugmentedLevel")
    )


def test_every_type_is_defined_labelled_and_tried_here() -> None:
    """A type that no test of this file meets would be a type that no test could fail."""
    k = load_knowledge()
    names = {local(iri) for iri, _ in type_criteria(k)}
    assert len(names) >= 85
    assert all(k.triples.text(iri, LABEL) for iri, _ in type_criteria(k))
    kinds = [(FRACTURE, fact("primaryEtiology", e)) for e in (
        "SolitaryPlasmacytoma", "LymphomaOfBone", "AggressiveHaemangioma", "GiantCellTumour", "OsteolyticMetastasis",
        "OsteoblasticMetastasis")]  # fmt: skip
    levels = [(FRACTURE, fact("vertebralLevel", level)) for level in ("T12", "L1")]
    shapes = [(fact("fractureMorphology", m),) for m in ("VertebraPlana", "CompleteBurstFracture", "PincerFracture")]
    progress = [
        (fact("heightLossProgressionPercent", 20),),
        (fact("IntravertebralCleft"), fact("OsteonecrosisAtLevel")),
    ]
    here = {n for facts in (*kinds, *levels, *shapes, *progress) for n in met(*facts)}
    source = Path(__file__).read_text("utf-8")
    families = ("GenantGrade", "OF", "AoType", "LiStage", "HeightLossRand", "Shape", "VertebralFracture",
                "MetastaticLesion")  # fmt: skip
    untried = {n for n in names - here if n not in source and not any(f in n for f in families)}
    assert untried == set()


# -- against the reasoner

CHOICES = [
    *(fact("endplateInvolvement", f"{n}Involved") for n in ("OneEndplate", "BothEndplates", "NoEndplate")),
    *(wall(w) for w in ("Intact", "Minor", "Distinct")), NO_BAND, fact("TensionBandFailure"), WEDGE,
    fact("fractureMorphology", "PincerFracture"), FRACTURE, fact("primaryEtiology", "SenileOsteoporosis"),
    fact("primaryEtiology", "VertebralOsteonecrosis"), fact("MarrowEdemaOnMri"), fact("HealedFracture", "absent"),
    fact("FractureHealing"), fact("SpinalCordCompression"), fact("weeksSinceOnset", 6), fact("weeksSinceOnset", "7.9"),
    fact("heightLossPercent", 20), fact("heightLossPercent", 25), fact("bilskyGrade", "Bilsky2"),
    fact("vertebralLevel", ["T12", "L1"]), fact("PathologicalFracture", "absent"),
]  # fmt: skip


def agree(of: Record) -> None:
    k = load_knowledge()
    snapshot = infer(of, k, of.as_of, bridges=())  # type: ignore[arg-type]
    ours = {t.iri: t.truth for t in lesion_types(snapshot, "a")}
    theirs = entailments(k, case_axioms(snapshot, "a", False), subject_iri(of, A), list(ours))
    assert {local(i): t.words for i, t in theirs.items()} == {local(i): t.words for i, t in ours.items()}


@pytest.mark.reasoner
def test_types_equal_those_of_the_reasoner() -> None:
    for said in (
        (*OSTEOPOROTIC, ONE, wall("Distinct"), NO_BAND, WEDGE, fact("weeksSinceOnset", 7)),
        (fact("primaryEtiology", "VertebralOsteonecrosis"), fact("heightLossPercent", 25), wall("Minor")),
    ):
        agree(record(*said))


@pytest.mark.slow
@pytest.mark.reasoner
@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(CHOICES), unique_by=lambda f: f.feature, max_size=12))
def test_types_equal_those_of_the_reasoner_on_random_lesions(facts: list[Fact]) -> None:
    agree(record(*facts))
