"""Every example against the expectation that was written from its source before the engine ran it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from kypho_kg.candidacy import ALL, assess
from kypho_kg.intake import read_records

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = sorted(
    p for folder in ("published", "constructed") for p in (ROOT / "tests" / "golden" / folder).glob("*.yaml")
)
EXAMPLES = sorted((ROOT / "examples").glob("*/*.yaml"))
VIGNETTES = sorted((ROOT / "tests" / "golden" / "guidelines").glob("*.yaml"))


def load(path):
    return YAML(typ="safe", pure=True).load(path.read_text("utf-8"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_golden(path, knowledge):
    """Verdict and reason of each lesion under each guideline."""
    expected = load(path)
    records, problems = read_records([ROOT / expected["file"]], knowledge)
    assert not problems, "\n".join(map(str, problems))
    answer = assess(records[0], knowledge=knowledge, guidelines=[ALL], validate=False)
    found = {c.lesion.id: {a.guideline.id: a for a in c.assessments} for c in answer.cases}
    assert {c["lesion"] for c in expected["cases"]} == set(found)
    differences = []
    for case in expected["cases"]:
        for id_, want in case["guidelines"].items():
            got = found[case["lesion"]][id_]
            where = f"{case['lesion']} {id_}"
            if got.verdict != want["verdict"]:
                differences.append(f"{where}: verdict {got.verdict}, expected {want['verdict']}: {want.get('because')}")
            truths = {c.recommendation.clause: c.truth.words for c in got.clauses}
            for clause, truth in want.get("clauses", {}).items():
                if truths.get(clause) != truth:
                    differences.append(f"{where} {clause}: {truths.get(clause)}, expected {truth}")
            for reading, verdict in want.get("readings", {}).items():
                if got.readings[reading].verdict != verdict:
                    differences.append(f"{where} {reading}: {got.readings[reading].verdict}, expected {verdict}")
    assert not differences, "\n".join(differences)


def test_every_example_has_its_expectation():
    """No example without an expectation, none the other way round, and as many as promised."""
    pairs = {(p.parent.name, p.stem) for p in EXAMPLES}
    assert pairs == {(p.parent.name, p.stem) for p in GOLDEN}
    assert sum(folder == "published" for folder, _ in pairs) >= 25
    assert sum(folder == "constructed" for folder, _ in pairs) >= 12


def test_every_verdict_occurs_where_it_can(knowledge):
    """Constructed patients and the vignettes of a guideline cover every verdict that can occur under it."""
    seen = {
        (id_, want["verdict"])
        for path in GOLDEN
        if path.parent.name == "constructed"
        for case in load(path)["cases"]
        for id_, want in case["guidelines"].items()
    }
    seen |= {(path.stem, case["verdict"]) for path in VIGNETTES for case in load(path)["cases"]}
    missing = {g.id: sorted(possible(g) - {v for id_, v in seen if id_ == g.id}) for g in knowledge.guidelines.values()}
    assert {id_: verdicts for id_, verdicts in missing.items() if verdicts} == {}


def possible(guideline):
    """The verdicts that the effects of a guideline allow (docs/verdicts.md)."""
    effects = {r.effect for r in guideline.recommendations if not r.reading}
    outside = {"NotApplicable"} if "DefinesScope" in effects else set()
    if not effects & {"Requires", "Indicates"}:
        return outside | {"Rated" if "Rates" in effects else "NoVerdict"}
    found = {"NotIndicated", "Candidate", "Undetermined"} | outside
    if "ContraindicatesAbsolutely" in effects:
        found.add("Contraindicated")
    if "ContraindicatesRelatively" in effects:
        found |= {"CandidateWithCaution", "CandidateScreeningOpen"}
    return found
