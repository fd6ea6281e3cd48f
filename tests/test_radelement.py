"""Coded radiology elements: every value is bound to something that can be recorded, and silence stays silence."""

from __future__ import annotations

from decimal import Decimal

import pytest

from kypho_kg.criteria import Op
from kypho_kg.knowledge import Knowledge
from kypho_kg.vocabulary import KYPHO, TYPE, local

SETS = {"RDES230", "RDES150", "RDES271", "RDES21", "RDES288"}


def _links(k: Knowledge, node: str, name: str) -> list[str]:
    return list(k.triples.resources(node, KYPHO + name))


def _bindings(k: Knowledge) -> dict[str, list[tuple[str, str, str]]]:
    """For each coded value, by its label: what its bindings state, of which feature, with which value."""
    found = {}
    for value in k.triples.subjects(TYPE, KYPHO + "CodedValue"):
        found[k.label(value)] = [
            (
                local(_links(k, b, "codedMeaning")[0]),
                "".join(map(local, _links(k, b, "bindsFeature"))),
                "".join(map(local, _links(k, b, "bindsValue")))
                or " ".join(
                    f"{n}={Decimal(k.triples.text(b, KYPHO + n)):.0f}"
                    for n in ("bindsNumber", "bindsAbove", "bindsBelow")
                    if k.triples.text(b, KYPHO + n)
                ),
            )
            for b in _links(k, value, "hasCodedBinding")
        ]
    return found


def test_the_five_sets_are_there(knowledge: Knowledge) -> None:
    assert {local(s) for s in knowledge.triples.subjects(TYPE, KYPHO + "CodedElementSet")} == SETS
    assert len(_bindings(knowledge)) > 100


def test_every_value_belongs_to_one_element_and_every_element_to_one_set(knowledge: Knowledge) -> None:
    t = knowledge.triples
    for upper, link, lower in (
        ("CodedElementSet", "hasCodedElement", "CodedElement"),
        ("CodedElement", "hasCodedValue", "CodedValue"),
        ("CodedValue", "hasCodedBinding", "CodedBinding"),
    ):
        named = [o for s in t.subjects(TYPE, KYPHO + upper) for o in t.resources(s, KYPHO + link)]
        assert sorted(named) == sorted(t.subjects(TYPE, KYPHO + lower)), link


def test_every_binding_states_a_value_that_the_feature_has(knowledge: Knowledge) -> None:
    t = knowledge.triples
    for binding in t.subjects(TYPE, KYPHO + "CodedBinding"):
        (meaning,) = map(local, _links(knowledge, binding, "codedMeaning"))
        features = _links(knowledge, binding, "bindsFeature")
        if meaning == "StatesNothingBound":
            assert not features, binding
            continue
        (iri,) = features
        feature = knowledge.features[iri]
        values = _links(knowledge, binding, "bindsValue")
        numbers = [n for n in ("Number", "Above", "Below") if t.text(binding, f"{KYPHO}binds{n}")]
        if feature.kind is Op.FINDING:
            assert meaning != "StatesValue", binding
            assert not values, binding
        elif meaning in {"StatesIndeterminate", "StatesUnknown"}:
            assert not values, binding
            assert not numbers, binding
        elif feature.kind is Op.QUANTITY:
            assert numbers, binding
        else:
            assert len(values) == 1, binding
            assert set(values) <= feature.values, binding


def test_indeterminate_and_unknown_are_kept_apart(knowledge: Knowledge) -> None:
    for label, rows in _bindings(knowledge).items():
        name = label.rpartition(": ")[2]
        meanings = {meaning for meaning, *_ in rows}
        if name == "indeterminate" and meanings != {"StatesNothingBound"}:
            assert meanings == {"StatesIndeterminate"}, label
        if name == "unknown" and meanings != {"StatesNothingBound"}:
            assert meanings == {"StatesUnknown"}, label


SEEN = [
    ("RDES230 Presence: present", [("StatesPresence", "lesionKind", "FractureLesion")]),
    ("RDES230 Presence: indeterminate", [("StatesIndeterminate", "lesionKind", "")]),
    ("RDES230 Presence: unknown", [("StatesUnknown", "lesionKind", "")]),
    ("RDES230 Vertebrae: C8", [("StatesNothingBound", "", "")]),
    ("RDES271 Type of injury: A3", [("StatesValue", "aoSpineType", "AoTypeA3")]),
    ("RDES271 Modifiers: M1", [("StatesIndeterminate", "TensionBandFailure", "")]),
    ("RDES21 Collapse: more than 50 percent collapse", [("StatesValue", "heightLossPercent", "bindsAbove=50")]),
    (
        "RDES21 Collapse: none",
        [("StatesValue", "heightLossPercent", "bindsNumber=0"), ("StatesAbsence", "BodyInvolvementAboveHalf", "")],
    ),
    ("RDES288 Compression grade: grade 1c", [("StatesValue", "bilskyGrade", "Bilsky1C")]),
]


@pytest.mark.parametrize(("label", "bindings"), SEEN, ids=[s[0] for s in SEEN])
def test_bindings_as_read(label: str, bindings: list[tuple[str, str, str]], knowledge: Knowledge) -> None:
    assert sorted(_bindings(knowledge)[label]) == sorted(bindings)
