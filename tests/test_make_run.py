"""What `make run` does with sources that are no patient files: each gives verdicts."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUN = re.findall(r"^\t\$\(BIN\)/kypho-kg (assess .*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
OTHER = [shlex.split(line) for line in RUN if "$" not in line]


def test_a_fhir_set_and_an_omop_set_are_assessed() -> None:
    assert [Path(words[-1]).parts[1] for words in OTHER] == ["fhir", "omop"]


@pytest.mark.parametrize("words", OTHER, ids=lambda words: Path(words[-1]).parts[1])
def test_it_says_something_of_each_patient(words: list[str]) -> None:
    command = [sys.executable, "-m", "kypho_kg", *words, "--format", "json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, check=True)
    answer = json.loads(done.stdout)
    assert answer["rejected"] == answer["without_case"] == []
    assert len({case["patient"] for case in answer["cases"]}) == 2
    for case in answer["cases"]:
        verdicts = {a["guideline"]: a["verdict"] for a in case["assessments"]}
        assert len(set(verdicts.values())) > 1, verdicts
        assert "Contraindicated" in verdicts.values()
