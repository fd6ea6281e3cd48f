"""What the hierarchy must entail and must not, by the reasoner: ``tests/tables/entailment.csv``.

``A subClassOf B`` is entailed if nothing can be A and lie outside B, ``A disjointWith B`` if nothing can be both. All
rows are asked in one call.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from kypho_kg.knowledge import Knowledge
from kypho_kg.owl_export import Axioms
from kypho_kg.reasoning import _probe, _relevant, _satisfiable
from kypho_kg.vocabulary import EQUIVALENT, KYPHO, OWL, TYPE

with (Path(__file__).parent / "tables" / "entailment.csv").open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file))
KINDS = ("asserted", "trap", "disjoint", "defined", "band")
Row = dict[str, str]


def name(row: Row) -> str:
    return " ".join(row[k] for k in ("sub", "relation", "super"))


@pytest.fixture(scope="module")
def entailed(knowledge: Knowledge) -> dict[str, bool]:
    """Whether each row is entailed."""
    axioms = Axioms("probe")
    probes = {}
    for number, row in enumerate(ROWS):
        other = KYPHO + row["super"]
        if row["relation"] == "subClassOf":
            other = axioms.complement(other)
        probes[name(row)] = _probe(axioms, number, "row", KYPHO + row["sub"], other)
    possible = _satisfiable(knowledge, (*_relevant(knowledge.triples), *axioms.triples), list(probes.values()), 300)
    return {row: not possible[probe] for row, probe in probes.items()}


@pytest.mark.reasoner
@pytest.mark.parametrize("row", ROWS, ids=name)
def test_row(row: Row, entailed: dict[str, bool]) -> None:
    assert entailed[name(row)] == (row["expected"] == "yes"), row["why"]


@pytest.mark.parametrize("row", [r for r in ROWS if r["kind"] in {"asserted", "trap"}], ids=name)
def test_tree_alone_says_the_same(row: Row, knowledge: Knowledge) -> None:
    """Asserted rows and traps need no reasoner."""
    assert knowledge.subsumes(KYPHO + row["super"], KYPHO + row["sub"]) == (row["expected"] == "yes")


@pytest.mark.parametrize("row", [r for r in ROWS if r["kind"] == "disjoint"], ids=name)
def test_disjoint_categories_without_the_reasoner(row: Row, knowledge: Knowledge) -> None:
    assert knowledge.disjoint(KYPHO + row["sub"], KYPHO + row["super"]) == (row["expected"] == "yes")


def test_defined_rows_are_not_asserted(knowledge: Knowledge) -> None:
    """What only the reasoner finds: the tree alone must not say it, or the row proves nothing."""
    wanted = [r for r in ROWS if r["kind"] == "defined" and r["relation"] == "subClassOf" and r["expected"] == "yes"]
    asserted = [name(r) for r in wanted if knowledge.subsumes(KYPHO + r["super"], KYPHO + r["sub"])]
    assert asserted == ["GenantWedgeShape subClassOf LesionTypeByShape"]


def test_table_is_well_formed(knowledge: Knowledge) -> None:
    declared = set(knowledge.triples.subjects(TYPE, OWL + "Class"))
    assert [name(r) for r in ROWS if not {KYPHO + r["sub"], KYPHO + r["super"]} <= declared] == []
    assert [n for n, count in Counter(map(name, ROWS)).items() if count > 1] == []
    assert {r["relation"] for r in ROWS} == {"subClassOf", "disjointWith"}
    assert {r["expected"] for r in ROWS} == {"yes", "no"}
    assert all(r["why"] for r in ROWS)
    count = Counter(r["kind"] for r in ROWS)
    assert set(count) == set(KINDS)
    assert sum(count.values()) >= 80
    assert all(knowledge.triples.objects(KYPHO + r["sub"], EQUIVALENT) for r in ROWS if "Strict" in r["sub"])
