"""Every patient variable of the fact base is a feature that can be recorded.

``tables/variables.csv`` is a copy of the names of the variables, with the features that hold each.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from kypho_kg.criteria import Op
from kypho_kg.knowledge import Knowledge
from kypho_kg.vocabulary import DEFINITION, LABEL

HERE = Path(__file__).parent
FACT_BASE = HERE.parent.parent / "shared" / "clinical"
with (HERE / "tables" / "variables.csv").open(encoding="utf-8", newline="") as file:
    ROWS = {row["variable"]: row["features"].split() for row in csv.DictReader(file)}


def test_the_table_is_whole() -> None:
    assert len(ROWS) == 155


@pytest.mark.parametrize("variable", ROWS)
def test_variable_is_a_feature(variable: str, knowledge: Knowledge) -> None:
    assert ROWS[variable]
    for name in ROWS[variable]:
        feature = knowledge.by_name[name]
        assert knowledge.triples.text(feature.iri, DEFINITION)
        assert knowledge.triples.text(feature.iri, LABEL) != feature.plain or " " not in name
        assert feature.bearer
        assert feature.acquisition
        assert feature.kind is Op.FINDING or feature.unit or len(feature.values) > 1


@pytest.mark.skipif(not FACT_BASE.is_dir(), reason="the fact base is not part of the project")
def test_no_variable_of_the_fact_base_is_left_out() -> None:
    first = (FACT_BASE / "criteria.md").read_text("utf-8")
    second = (FACT_BASE / "criteria-second-reading.md").read_text("utf-8")
    blocks = [first[first.index("# PART 3") : first.index("# PART 4")]]
    blocks += re.findall(r"```yaml\nvariables:\n(.*?)```", second, re.DOTALL)
    named = {name for block in blocks for name in re.findall(r"^- \{name: (\w+)", block, re.MULTILINE)}
    assert named == set(ROWS)
