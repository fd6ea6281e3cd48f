"""SQL says of the resolved table what the arrays say: clauses, verdicts, ends of intervals, NULL for unknown."""

from __future__ import annotations

import itertools
import random
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import ibis
import numpy as np
import pyarrow as pa
import pytest
from cohorts import records
from typer.testing import CliRunner

from kypho_kg.cli import app
from kypho_kg.cohort.counts import Asked
from kypho_kg.cohort.expressions import (
    VERDICT,
    Dialect,
    Expressions,
    clause_table,
    guideline_sql,
    sql,
    verdict_table,
    wide_relation,
)
from kypho_kg.cohort.layout import SCALE, layout_of, scaled_range
from kypho_kg.cohort.logic import MET, NOT_MET, UNKNOWN
from kypho_kg.cohort.source import FactTable, facts_of
from kypho_kg.cohort.tables import answer
from kypho_kg.cohort.verdicts import conclusions
from kypho_kg.cohort.wide import asking, columns_of, resolved, wide_schema
from kypho_kg.criteria import Criterion, Op
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.fact_table import write_fact_table
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import PATIENT, Fact, Lesion, Polarity, Range, Record
from kypho_kg.verdicts import VERDICTS
from kypho_kg.vocabulary import KYPHO

AS_OF = date(2026, 3, 2)
PATIENT_LINK, LESION_LINK = KYPHO + "concernsPatient", KYPHO + "indexLesion"
WORDS = {NOT_MET: False, UNKNOWN: None, MET: True}


@pytest.fixture(scope="module")
def asked(knowledge: Knowledge) -> Asked:
    return Asked(layout_of(knowledge), tuple(knowledge.guidelines.values()))


def part_of(folder: Path) -> tuple[pa.Table, pa.Table]:
    """The facts and the cases of a folder."""
    table = FactTable(folder)
    cases = table.dated(None, None)
    (part,) = table.parts(cases, cases.num_rows)
    return facts_of(part), cases


@pytest.fixture(scope="module")
def part(knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, pa.Table]:
    folder = tmp_path_factory.mktemp("random")
    write_fact_table(records(0, 500, knowledge), folder)
    return part_of(folder)


def run_sql(text: str, **tables: pa.Table) -> pa.Table:
    con = duckdb.connect()
    for name, table in tables.items():
        con.register(name, table)
    return con.sql(text.rstrip().rstrip(";")).to_arrow_table()


# --------------------------------------------------------------------------------------------------------------------
# Against the arrays


@pytest.mark.parametrize("bridges", [True, False])
def test_clauses_and_verdicts_are_those_of_the_arrays(
    asked: Asked, part: tuple[pa.Table, pa.Table], bridges: bool
) -> None:
    expected = answer(*part, asked, bridges=bridges)
    wide = resolved(*part, asked, bridges=bridges)
    truths = clause_table(wide_relation(asked), asked)
    clauses = run_sql(sql(truths), cases=wide)
    assert clauses.num_rows > 400
    assert clauses.column_names == expected.clauses.column_names
    wrong = [c for c in clauses.column_names if clauses[c].to_pylist() != expected.clauses[c].to_pylist()]
    assert wrong == []
    found = {v for r in asked.clauses for v in clauses[r.id].to_pylist()}
    assert found == {True, False, None}
    verdicts = run_sql(
        sql(verdict_table(ibis.table(truths.schema(), name="clauses"), asked.guidelines)), clauses=clauses
    )
    wrong = [g.id for g in asked.guidelines if verdicts[g.id].to_pylist() != expected.verdicts[g.id].to_pylist()]
    assert wrong == []


def test_each_guideline_is_one_query(asked: Asked, part: tuple[pa.Table, pa.Table]) -> None:
    expected = answer(*part, asked)
    for g in asked.guidelines[::7]:
        wide = resolved(*part, Asked(asked.layout, (g,)))
        found = run_sql(guideline_sql(asked.layout, g), cases=wide)
        assert found[VERDICT].to_pylist() == expected.verdicts[g.id].to_pylist()
        assert found.column_names == ["patient", "lesion", "as_of", *(r.id for r in g.recommendations), VERDICT]


def test_the_table_has_the_columns_that_it_is_said_to_have(asked: Asked, part: tuple[pa.Table, pa.Table]) -> None:
    wide = resolved(*part, asked)
    assert wide.schema.equals(wide_schema(asked))
    assert len({name.lower() for name in wide.column_names}) == wide.num_columns


def test_a_patient_with_a_malformed_fact_is_not_in_the_table(asked: Asked, part: tuple[pa.Table, pa.Table]) -> None:
    facts, cases = part
    first = facts["patient"][0].as_py()
    feature = facts["feature"].cast(pa.string()).to_pylist()
    feature[0] = "noSuchFeature"
    place = facts.column_names.index("feature")
    wide = resolved(facts.set_column(place, "feature", pa.array(feature)), cases, asked)
    assert first in set(cases["patient"].to_pylist())
    assert set(cases["patient"].to_pylist()) - set(wide["patient"].to_pylist()) == {first}


# --------------------------------------------------------------------------------------------------------------------
# Parts of trees, each combination


def numbers(rows: list[dict[str, Any]], layout: Any, feature: str) -> pa.Table:
    atom = Criterion(Op.QUANTITY, term=KYPHO + feature)
    columns = columns_of(layout, 2, atom)
    ends = [name.rpartition(".")[2] for name in columns]
    data = {c: pa.array([r[e] for r in rows], t) for (c, t), e in zip(columns.items(), ends, strict=True)}
    return pa.table(data)


def test_ends_of_intervals_against_ends_of_ranges(asked: Asked) -> None:
    """All intervals with ends at, below and above the limits of all ranges, closed and open, bounded and not."""
    layout = asked.layout
    points = [None, *map(Decimal, ("-1", "1.8", "1.800001", "2", "3"))]
    spans = [
        (low, high, a, b)
        for low, high, a, b in itertools.product(points, points, (False, True), (False, True))
        if not (low is None and a) and not (high is None and b)
        if low is None or high is None or low < high or (low == high and not a and not b)
    ]
    inputs = [Range(*span) for span in spans if span[0] is not None or span[1] is not None]
    rows = [
        {
            "low": r.low,
            "high": r.high,
            "low_open": None if r.low is None else r.low_open,
            "high_open": None if r.high is None else r.high_open,
        }
        for r in inputs
    ] + [dict.fromkeys(("low", "high", "low_open", "high_open"))]
    table = numbers(rows, layout, "painNrs")
    relation = ibis.table(ibis.Schema.from_pyarrow(table.schema), name="cases")
    e = Expressions(relation, layout)
    asks = [Criterion(Op.QUANTITY, term=KYPHO + "painNrs", range=Range(*span)) for span in spans]
    found = run_sql(sql(relation.select(**{f"c{i}": e.truth(c, 2) for i, c in enumerate(asks)})), cases=table)
    for i, c in enumerate(asks):
        assert c.range
        low, high = scaled_range(c.range)
        expected: list[bool | None] = []
        for r in inputs:
            mine_low, mine_high = scaled_range(r)
            within = low <= mine_low and mine_high <= high
            apart = mine_low > high or mine_high < low
            expected.append(True if within else False if apart else None)
        assert found[f"c{i}"].to_pylist() == [*expected, None], c.range


def kleene(c: Criterion, row: tuple[int, ...], names: list[str]) -> int:
    if c.op is Op.FINDING:
        return row[names.index(c.term)]
    truths = [kleene(child, row, names) for child in c.children]
    if c.op is Op.AND:
        return min(truths)
    if c.op is Op.OR:
        return max(truths)
    if c.op is Op.NOT:
        return 2 - truths[0]
    if c.op is Op.AT_LEAST:
        met, possible = truths.count(MET), len(truths) - truths.count(NOT_MET)
        return MET if met >= c.n else NOT_MET if possible < c.n else UNKNOWN
    strict, lenient = truths
    return MET if strict == MET else NOT_MET if lenient == NOT_MET else UNKNOWN


def test_operators_on_every_combination_of_truths(asked: Asked) -> None:
    terms = [f.iri for f in asked.layout.features if f.kind is Op.FINDING][:4]
    atoms = tuple(Criterion(Op.FINDING, term=t) for t in terms)
    rng = random.Random(1)

    def tree(depth: int) -> Criterion:
        if not depth or rng.random() < 0.2:
            return rng.choice(atoms)
        op = rng.choice([Op.AND, Op.OR, Op.NOT, Op.AT_LEAST, Op.OPEN])
        size = {Op.NOT: 1, Op.OPEN: 2}.get(op, rng.randint(1, 4))
        return Criterion(op, tuple(tree(depth - 1) for _ in range(size)), n=rng.randint(1, size))

    trees = [tree(3) for _ in range(150)]
    rows = list(itertools.product((NOT_MET, UNKNOWN, MET), repeat=len(terms)))
    names = [next(iter(columns_of(asked.layout, 0, a))) for a in atoms]
    table = pa.table({n: pa.array([WORDS[row[i]] for row in rows], pa.bool_()) for i, n in enumerate(names)})
    relation = ibis.table(ibis.Schema.from_pyarrow(table.schema), name="cases")
    e = Expressions(relation, asked.layout)
    found = run_sql(sql(relation.select(**{f"c{i}": e.truth(c, 0) for i, c in enumerate(trees)})), cases=table)
    for i, c in enumerate(trees):
        assert found[f"c{i}"].to_pylist() == [WORDS[kleene(c, row, terms)] for row in rows], c


def test_choices_of_which_one_holds_or_some_are_ruled_out(asked: Asked) -> None:
    """Every state of a choice of three, against every set that can be asked."""
    layout = asked.layout
    feature = next(f for f in layout.features if f.kind is Op.CHOICE and len(f.values) == 3)
    values = layout.values[layout.place[feature.iri]]
    names = list(columns_of(layout, 2, Criterion(Op.CHOICE, term=feature.iri)))
    some = [frozenset(c) for n in (1, 2, 3) for c in itertools.combinations(range(3), n)]
    states = [("is", s) for s in some] + [("not", s) for s in (frozenset[int](), *some)]
    rows = [[i in s if kind == "is" else (False if i in s else None) for i in range(3)] for kind, s in states]
    table = pa.table({n: pa.array([r[i] for r in rows], pa.bool_()) for i, n in enumerate(names)})
    relation = ibis.table(ibis.Schema.from_pyarrow(table.schema), name="cases")
    e = Expressions(relation, layout)
    asks = [Criterion(Op.CHOICE, term=feature.iri, values=frozenset(values[i] for i in s)) for s in some]
    found = run_sql(sql(relation.select(**{f"c{i}": e.truth(c, 2) for i, c in enumerate(asks)})), cases=table)
    for i, wanted in enumerate(some):
        expected = [
            (True if s <= wanted else None if s & wanted else False)
            if kind == "is"
            else (False if wanted <= s else None)
            for kind, s in states
        ]
        assert found[f"c{i}"].to_pylist() == expected, wanted


def test_verdicts_from_any_truths(asked: Asked) -> None:
    """Every guideline on random truths of its clauses: the SQL, and the look-up of the SPARQL query."""
    n = 300
    rng = np.random.default_rng(3)
    # Mostly one truth in a row, so that not all rows fail.
    lean = rng.choice([NOT_MET, UNKNOWN, MET], n)
    truths: dict[int, Any] = {}
    for g in asked.guidelines:
        for r in g.recommendations:
            by_effect = MET if r.effect in {"DefinesScope", "Requires", "Indicates"} else NOT_MET
            drawn = np.where(rng.random(n) < 0.1, rng.choice(3, n), np.where(rng.random(n) < 0.3, lean, by_effect))
            truths.setdefault(id(asked.layout.shared(r.criterion)), drawn.astype(np.uint8))
    of = {r.id: truths[id(asked.layout.shared(r.criterion))] for r in asked.clauses}
    table = pa.table({name: pa.array(t == MET, mask=t == UNKNOWN) for name, t in of.items()})
    keys = {"patient": pa.array(["p"] * n), "lesion": pa.array(["a"] * n), "as_of": pa.array([AS_OF] * n)}
    table = pa.table({**keys, **dict(zip(table.column_names, table.columns, strict=True))})
    relation = ibis.table(ibis.Schema.from_pyarrow(table.schema), name="clauses")
    found = run_sql(sql(verdict_table(relation, asked.guidelines)), clauses=table)
    judged: Any = SimpleNamespace(
        subjects=SimpleNamespace(owner=np.zeros(n, np.int64)), logic=SimpleNamespace(truth=lambda c: truths[id(c)])
    )
    seen = set()
    for g in asked.guidelines:
        codes, _ = conclusions(judged, g, asked.layout)
        assert found[g.id].to_pylist() == [VERDICTS[c] for c in codes], g.id
        seen |= set(found[g.id].to_pylist())
    assert seen == set(VERDICTS)


# --------------------------------------------------------------------------------------------------------------------
# The table itself


def test_numbers_keep_their_digits_and_their_open_ends(asked: Asked, tmp_path: Path) -> None:
    ranges = [
        Range.exactly(Decimal("1.000001")),
        Range(Decimal("1.5"), None, low_open=True),
        Range(None, Decimal(20), high_open=True),
        Range(Decimal(2), Decimal("7.25")),
    ]
    made = [
        Record(f"p{i}", (Lesion("a"),), (Fact(PATIENT, KYPHO + "inr", r, Polarity.PRESENT),), as_of=AS_OF)
        for i, r in enumerate(ranges)
    ]
    made.append(Record("p9", (Lesion("a"),), (), as_of=AS_OF))
    write_fact_table(made, tmp_path)
    wide = resolved(*part_of(tmp_path), asked)
    ends = [[row[f"patient.inr.{e}"] for e in ("low", "high", "low_open", "high_open")] for row in wide.to_pylist()]
    assert ends == [
        [Decimal("1.000001"), Decimal("1.000001"), False, False],
        [Decimal("1.5"), None, True, None],
        [None, Decimal(20), None, True],
        [Decimal(2), Decimal("7.25"), False, False],
        [None, None, None, None],
    ]


def test_a_negative_number_is_one(asked: Asked, tmp_path: Path) -> None:
    from kypho_kg.cohort.wide import _decimals

    values = np.array([-1, -1_500_000, 0, 10**18 - 1], np.int64)
    found = _decimals(values, np.array([True, True, True, True]))
    assert found.to_pylist() == [Decimal(int(v)) / (SCALE // 2) for v in values]
    assert _decimals(values, np.array([True, False, True, False])).null_count == 2


def test_an_atom_of_nobody_is_refused() -> None:
    atom = Criterion(Op.FINDING, term=KYPHO + "ActiveInfection")
    assert [block for block, _ in asking([Criterion(Op.LINK, (atom,), PATIENT_LINK)])] == [0]
    assert [block for block, _ in asking([Criterion(Op.LINK, (atom,), LESION_LINK)])] == [2]
    with pytest.raises(KnowledgeBaseError, match="of no patient"):
        asking([atom])


# --------------------------------------------------------------------------------------------------------------------
# The command


def test_command_prints_the_query(knowledge: Knowledge) -> None:
    run = CliRunner()
    found = run.invoke(app, ["guidelines", "show", "cms-l34228", "--sql", "duckdb"])
    assert found.exit_code == 0
    assert found.stdout == guideline_sql(layout_of(knowledge), knowledge.guideline("cms-l34228"))
    spark = run.invoke(app, ["guidelines", "show", "cms-l34228", "--sql", "spark"])
    assert spark.exit_code == 0
    assert "`cms-l34228/LCD-I1`" in spark.stdout
    assert spark.stdout == guideline_sql(layout_of(knowledge), knowledge.guideline("cms-l34228"), Dialect.SPARK)
    assert run.invoke(app, ["guidelines", "show", "cms-l34228", "--sql", "oracle"]).exit_code == 2
