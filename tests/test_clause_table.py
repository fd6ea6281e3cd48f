"""Every clause of the sources is there, with its effect, its mark and its condition.

The table was written from the collection of facts by other eyes than the ontology; see ``clause_table``.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from pathlib import Path

import pytest
from clause_table import as_record, clauses, entries, expected, feature_of, random_case, variables

from kypho_kg.evaluation import Evaluator, lesion_subject
from kypho_kg.inference import infer
from kypho_kg.knowledge import Knowledge

FACT_BASE = Path(__file__).parent.parent.parent / "shared" / "clinical"
BY_NAME = {e.name: e for e in clauses()}
OPTION_KEYS = {
    "medical": "NonSurgicalManagementOption", "pva": "AnyVertebralAugmentation", "vp": "Vertebroplasty",
    "kp": "BalloonKyphoplasty", "surgical_consult": "SurgicalConsultationOption", "surgery": "SpineSurgeryOption",
    "adv_imaging": "AdvancedImagingOfSpine", "rad_onc": "ExternalBeamRadiotherapyOption",
    "thermal_ablation": "ThermalAblationOption", "radionuclide": "RadionuclideTherapyOption",
    "mri_without": "MriSpineWithoutContrast", "mri_with": "MriSpineWithContrast",
    "mri_without_and_with": "MriSpineWithoutAndWithContrast", "ct_without": "CtSpineWithoutContrast",
    "ct_with": "CtSpineWithContrast", "ct_without_and_with": "CtSpineWithoutAndWithContrast",
    "ct_myelography": "CtMyelography", "bone_scan": "BoneScanWholeBody", "spect": "BoneSpectSpine",
    "fdg_pet": "FdgPetCt", "biopsy": "ImageGuidedSpineBiopsy",
}  # fmt: skip
CATEGORIES = {
    "UA": "UsuallyAppropriate", "MBA": "MayBeAppropriate", "UNA": "UsuallyNotAppropriate", "RA": "RarelyAppropriate",
    "AA": "AppropriateByAgreement",
}  # fmt: skip


def test_the_table_is_whole() -> None:
    assert len({e.id for e in entries()}) >= 250
    assert len(BY_NAME) == len(list(clauses())), "a clause stands twice in the table"
    assert not [v for v in variables() if not feature_of(v)]


def test_every_clause_is_in_the_ontology_and_in_the_table(knowledge: Knowledge) -> None:
    held = {r.id for g in knowledge.guidelines.values() for r in g.recommendations}
    assert sorted(set(BY_NAME) - held) == []
    assert sorted(held - set(BY_NAME)) == []


@pytest.mark.skipif(not FACT_BASE.is_dir(), reason="the collection of facts is not part of the project")
def test_no_id_of_the_sources_is_left_out() -> None:
    texts = [(FACT_BASE / f"{name}.md").read_text("utf-8") for name in ("criteria", "criteria-second-reading")]
    ids = {i for text in texts for i in re.findall(r"^- \{id: ([\w-]+)", text, re.MULTILINE)}
    assert len(ids) > 230
    assert sorted(ids - {e.id for e in entries()}) == []


@pytest.mark.parametrize("name", BY_NAME)
def test_effect_mark_and_ratings(name: str, knowledge: Knowledge) -> None:
    entry = BY_NAME[name]
    r = knowledge.guideline(entry.guideline).by_clause(entry.id)
    assert r is not None
    assert r.effect == (entry.effect or r.effect)
    assert r.mark == (entry.mark or r.mark)
    assert r.due == entry.row.get("phase", r.due)
    assert r.reading == entry.row.get("reading", r.reading)
    wanted = {OPTION_KEYS[k]: (CATEGORIES[c], n) for k, (c, n) in entry.row.get("ratings", {}).items()}
    assert {x.option.rpartition("#")[2]: (x.category, x.number) for x in r.ratings} == wanted


def differences(knowledge: Knowledge, seed: int, cases: int) -> dict[str, str]:
    """For each clause that ever differs, the first case in which it does."""
    rng = random.Random(seed)
    found: dict[str, str] = {}
    seen: dict[str, set[str]] = defaultdict(set)
    for _ in range(cases):
        case = random_case(rng, knowledge)
        record = as_record(case, knowledge)
        assert record.as_of
        evaluator = Evaluator(infer(record, knowledge, record.as_of, bridges=()), lesion_subject("a"), True)
        for name, entry in BY_NAME.items():
            r = knowledge.guideline(entry.guideline).by_clause(entry.id)
            assert r is not None
            got, want = evaluator.evaluate(r.criterion).truth, expected(entry, case)
            seen[name].add(want.words)
            if got is not want and name not in found:
                told = {v: case.get(v) for v in variables() if any(v in t for t in _texts(entry))}
                found[name] = f"{got.words}, expected {want.words}: {told}"
    assert seen
    return found


def _texts(entry: object) -> list[str]:
    from clause_table import atoms

    return [t.split()[0] for t in (*atoms(entry.strict), *atoms(entry.lenient))]  # type: ignore[attr-defined]


def test_every_clause_says_what_the_source_says(knowledge: Knowledge) -> None:
    assert differences(knowledge, seed=7, cases=150) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_every_clause_says_what_the_source_says_on_ten_thousand_cases(seed: int, knowledge: Knowledge) -> None:
    assert differences(knowledge, seed=1000 + seed, cases=1000) == {}
