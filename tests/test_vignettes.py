"""Each guideline on small cases: a base, and what differs from it; its verdict written from the source.

A file of ``tests/golden/guidelines`` holds the sections of a patient file (``patient``, ``facts``, ``lesion`` with its
``level``, ``procedure``) as ``base``; a case merges its ``but`` into them, and ``null`` takes a fact away. A case with
``bridges: false`` is judged by what was said alone.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from kypho_kg.candidacy import Assessment, assess
from kypho_kg.intake import read_patient_file
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge
from kypho_kg.verdicts import VERDICTS

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "tests" / "golden" / "guidelines").glob("*.yaml"))
SECTIONS = ("patient", "facts", "lesion", "procedure")
Json = dict[str, Any]


@functools.cache
def load(path: Path) -> Json:
    content = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    assert content["guideline"] == path.stem
    return dict(content)


def patient_file(base: Json, but: Json) -> Json:
    """The patient file of a case."""
    assert set(base) | set(but) <= set(SECTIONS), f"unknown section in {sorted(set(base) | set(but))}"
    merged = {
        name: {k: v for k, v in {**(base.get(name) or {}), **(but.get(name) or {})}.items() if v is not None}
        for name in SECTIONS
    }
    level = merged["lesion"].pop("level", None)
    lesion = {"id": "a", **({"level": level} if level else {}), "facts": merged["lesion"]}
    procedure = {"procedure": {**merged["procedure"], "lesions": ["a"]}} if merged["procedure"] else {}
    return {
        "format": "kypho-patient/1",
        "constructed": True,
        "patient": {"id": "vignette", **merged["patient"]},
        "as_of": "2026-11-02",
        "facts": merged["facts"],
        "lesions": [lesion],
        **procedure,
    }


@functools.cache
def assessed(path: Path) -> tuple[Assessment, ...]:
    """The assessment of every case of a file, in order."""
    return tuple(judge(path, case, load_knowledge()) for case in load(path)["cases"])


def judge(path: Path, case: Json, knowledge: Knowledge) -> Assessment:
    content = json.dumps(patient_file(load(path).get("base") or {}, case.get("but") or {}), default=str)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "vignette.json"
        target.write_text(content, "utf-8")
        record = read_patient_file(target, knowledge)
    bridges = case.get("bridges", True)
    answer = assess(record, knowledge=knowledge, guidelines=[path.stem], bridges=bridges, validate=False)
    return answer.cases[0].assessments[0]


CASES = [pytest.param(p, i, id=f"{p.stem}/{c['name']}") for p in FILES for i, c in enumerate(load(p)["cases"])]


@pytest.mark.parametrize(("path", "index"), CASES)
def test_vignette(path: Path, index: int) -> None:
    """Verdict, truth of the named clauses, categories and readings."""
    want, got = load(path)["cases"][index], assessed(path)[index]
    assert set(want) <= {"name", "but", "bridges", "verdict", "because", "clauses", "categories", "readings"}
    truths = {c.recommendation.clause: c.truth.words for c in got.clauses}
    found = {
        "verdict": got.verdict,
        "clauses": {c: truths.get(c) for c in want.get("clauses", {})},
        "categories": sorted(got.categories),
        "readings": {r: got.readings[r].verdict for r in want.get("readings", {})},
    }
    expected = {
        "verdict": want["verdict"],
        "clauses": want.get("clauses", {}),
        "categories": sorted(want["categories"]) if "categories" in want else found["categories"],
        "readings": want.get("readings", {}),
    }
    assert found == expected, want.get("because")
    assert want.get("because"), "say why"


def deciding(assessment: Assessment) -> Iterator[tuple[str, str]]:
    for clause in assessment.clauses:
        yield clause.recommendation.id, clause.truth.words


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_each_clause_is_met_and_not_met_by_some_case(path: Path, knowledge: Knowledge) -> None:
    truths = defaultdict(set)
    for assessment in assessed(path):
        for id_, truth in deciding(assessment):
            truths[id_].add(truth)
    wanted = {r.id for r in knowledge.guidelines[path.stem].recommendations}
    assert {id_ for id_ in wanted if not {"met", "not met"} <= truths[id_]} == set()


def test_every_guideline_has_its_cases(knowledge: Knowledge) -> None:
    assert {p.stem for p in FILES} <= set(knowledge.guidelines)
    assert {v for p in FILES for c in load(p)["cases"] for v in [c["verdict"]]} <= set(VERDICTS)
