"""Scores as data: points of items, the rule of a source for unknowns, groups with a floor, intervals and bounds."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import pytest
from builders import A, between, fact, feature, inferred, knowledge_with, unknown

from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.loading import load_knowledge
from kypho_kg.record import Fact, Range
from kypho_kg.scores import read_scores

OSTEOPOROTIC = (fact("lesionKind", "FractureLesion"), fact("primaryEtiology", "PrimaryOsteoporosis"))
METASTASIS = (fact("primaryEtiology", "OsteolyticMetastasis"),)


def total(score: str, *facts: Fact) -> Range | None:
    state = inferred(*facts).value(A, feature(score).iri)
    assert state.value is None or isinstance(state.value, Range)
    return state.value


def of(*facts: Fact, score: str = "ofScore") -> Range | None:
    return total(score, *OSTEOPOROTIC, *facts)


# -- OF score, as the pocket card prints it. An unknown counts 0, except the type, without which there is no score.

KNOWN_ZERO = (
    fact("boneDensityTScore", -3, "2026-02-01"),  # not below -3: 0
    fact("hounsfieldUnitsL1", "90.1", "2026-02-01"),  # not 90 or less: 0
    fact("NeurologicalDeficit", "absent"),  # 0
)


@pytest.mark.parametrize(("stated", "points"), [("OF1", 2), ("OF2", 4), ("OF3", 6), ("OF4", 8), ("OF5", 10)])
def test_points_of_the_type(stated: str, points: int) -> None:
    assert of(fact("ofType", stated), *KNOWN_ZERO) == between(points, points)


@pytest.mark.parametrize(
    ("said", "points"),
    [
        ([], 0),  # all unknown
        ([fact("boneDensityTScore", "-3.1")], 1),
        ([fact("boneDensityTScore", "-3.0")], 0),
        ([fact("hounsfieldUnitsL1", 90)], 1),
        ([fact("hounsfieldUnitsL1", 91)], 0),
        ([fact("HeightLossProgression")], 1),
        ([fact("HeightLossProgression", "absent")], -1),
        ([fact("painNrs", 5)], 1),
        ([fact("painNrs", "4.9")], -1),
        ([fact("NeurologicalDeficit")], 2),
        ([fact("NeurologicalDeficit", "absent")], 0),
        ([fact("MobilisedUnderAnalgesia")], -1),
        ([fact("MobilisedUnderAnalgesia", "absent")], 1),
        ([fact("asaClass", "Asa4")], -1),
        ([fact("asaClass", "Asa3")], 0),
        ([fact("modifiedFrailtyIndex", 3)], -1),
        ([fact("modifiedFrailtyIndex", 2)], 0),
        ([fact("AspirinTherapy")], -1),  # any drug against clotting
        ([fact("asaClass", "Asa4"), fact("modifiedFrailtyIndex", 3)], -2),
        ([fact("asaClass", "Asa5"), fact("modifiedFrailtyIndex", 3), fact("WarfarinTherapy")], -2),  # not -3
    ],
)
def test_points_of_each_item(said: list[Fact], points: int) -> None:
    assert of(fact("ofType", "OF3"), *said) == between(6 + points, 6 + points)


def test_the_lowest_and_the_highest_total_are_those_of_the_card() -> None:
    low = (
        fact("ofType", "OF1"),
        fact("HeightLossProgression", "absent"),
        fact("painNrs", 0),
        fact("MobilisedUnderAnalgesia"),
        fact("asaClass", "Asa4"),
        fact("AntithromboticTherapy"),
        *KNOWN_ZERO,
    )
    high = (
        fact("ofType", "OF5"),
        fact("boneDensityTScore", -4),
        fact("HeightLossProgression"),
        fact("painNrs", 9),
        fact("NeurologicalDeficit"),
        fact("MobilisedUnderAnalgesia", "absent"),
    )
    assert of(*low) == between(-3, -3)
    assert of(*high) == between(16, 16)


def test_without_a_type_the_total_is_an_interval() -> None:
    assert of(fact("painNrs", 8)) == between(3, 11)


def test_a_type_that_two_sources_give_differently_is_an_interval() -> None:
    """Stated OF 2, while the measured features make it OF 3."""
    measured = (
        fact("endplateInvolvement", "OneEndplateInvolved"),
        fact("posteriorWallInvolvement", "PosteriorWallDistinct"),
        fact("TensionBandFailure", "absent"),
        fact("fractureMorphology", "WedgeFracture"),
    )
    assert of(*measured) == between(6, 6)
    assert of(*measured, fact("ofType", "OF2")) == between(4, 6)


def test_what_was_counted_by_the_rule_of_the_source_is_said() -> None:
    state = inferred(*OSTEOPOROTIC, fact("ofType", "OF3"), fact("painNrs", 5)).value(A, feature("ofScore").iri)
    source = state.facts[0].source.origin
    assert "bone density" in source
    assert "mobilised under analgesia" in source
    assert "pain" not in source.partition(";")[2]


def test_a_group_with_an_unknown_counts_what_is_sure() -> None:
    assert of(fact("ofType", "OF3"), fact("WarfarinTherapy"), unknown("asaClass")) == between(5, 5)


def test_the_original_version_differs_in_pain_and_health() -> None:
    said = (fact("ofType", "OF2"), fact("painNrs", 4), fact("Dementia"), fact("bodyMassIndex", "19.9"))
    assert of(*said, score="ofScoreOriginal") == between(3, 3)  # 4 + 1 - 2
    assert of(*said) == between(3, 3)  # 4 - 1
    assert of(fact("ofType", "OF2"), fact("bodyMassIndex", 20), score="ofScoreOriginal") == between(4, 4)


def test_the_score_is_for_osteoporotic_fractures_only() -> None:
    assert total("ofScore", *METASTASIS, fact("lesionKind", "FractureLesion"), fact("ofType", "OF3")) is None


def test_a_stated_total_wins_and_a_stale_one_does_not() -> None:
    assert of(fact("ofType", "OF3"), fact("ofScore", 9, "2026-02-20")) == between(9, 9)
    assert of(fact("ofType", "OF3"), fact("ofScore", 9, "2025-02-20")) == between(6, 6)


# -- SINS: no rule for unknowns, an undefined value


SINS = (
    *METASTASIS, fact("vertebralLevel", "T5"), fact("painQuality", "NoPainOfLesion"),
    fact("boneLesionQuality", "BlasticBoneLesion"), fact("spinalAlignment", "NormalAlignment"),
    fact("posterolateralInvolvement", "NoPosterolateralInvolvement"),
)  # fmt: skip
"""One point, for the level, before the collapse."""


@pytest.mark.parametrize(
    ("collapse", "expected"),
    [("0", (1, 2)), ("0.1", (3, 3)), ("49.9", (3, 3)), ("50", (1, 4)), ("50.1", (4, 4)), ("100", (4, 4))],
)
def test_collapse_of_exactly_half_is_undefined(collapse: str, expected: tuple[int, int]) -> None:
    assert total("sinsScore", *SINS, fact("heightLossPercent", collapse)) == between(*expected)


def test_without_collapse_the_part_of_the_body_decides() -> None:
    none = fact("heightLossPercent", 0)
    assert total("sinsScore", *SINS, none, fact("BodyInvolvementAboveHalf")) == between(2, 2)
    assert total("sinsScore", *SINS, none, fact("BodyInvolvementAboveHalf", "absent")) == between(1, 1)


@pytest.mark.parametrize(
    ("levels", "points"),
    [("C1 C2 C7 T1 T2 T11 T12 L1 L5 S1", 3), ("C3 C4 C5 C6 L2 L3 L4", 2), ("T3 T4 T5 T6 T7 T8 T9 T10", 1),
     ("S2 S3 S4 S5", 0)],
)  # fmt: skip
def test_every_level_has_the_points_of_its_region(levels: str, points: int) -> None:
    rest = (*(f for f in SINS if f.feature != feature("vertebralLevel").iri), fact("heightLossPercent", 60))
    for level in levels.split():
        assert total("sinsScore", *rest, fact("vertebralLevel", level)) == between(points + 3, points + 3), level


def test_unknown_items_of_sins_give_an_interval() -> None:
    assert total("sinsScore", *METASTASIS, fact("vertebralLevel", "L1")) == between(3, 18)


# -- the ontology


def test_bounds_are_those_of_the_sources() -> None:
    t = load_knowledge().triples
    stated = {
        s.iri.rpartition("#")[2]: tuple(
            Decimal(t.text(s.iri, f"https://w3id.org/kypho#{end}Total")) for end in ("minimum", "maximum")
        )
        for s in read_scores(load_knowledge())
    }
    assert stated == {"Sins": (0, 18), "OfScore": (-3, 16), "OfScoreOriginal": (-3, 16)}


def _score(rows: Iterable[str]) -> str:
    return " ".join(
        (
            "kypho:TestScore a owl:NamedIndividual , kypho:Score ; kypho:scoreQuantity kypho:sinsScore ;",
            "kypho:scoreScope kypho:SinsScopeCondition ;",
            *rows,
        )
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["kypho:hasScoreItem kypho:SinsPain ; kypho:minimumTotal 0 ; kypho:maximumTotal 4 ."], "0 to 4"),
        (["kypho:hasScoreItem kypho:SinsPain ."], "nothing"),
        (["kypho:minimumTotal 0 ; kypho:maximumTotal 3 ."], "needs items"),
    ],
)
def test_a_score_that_does_not_add_up_is_refused(tmp_path: Path, rows: list[str], said: str) -> None:
    with pytest.raises(KnowledgeBaseError, match=said):
        knowledge_with(tmp_path, _score(rows))
