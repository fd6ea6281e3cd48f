"""A cohort on Spark: facts and cases are brought together by a hash of the patient, and each group is judged as a part.

The judging is that of ``tables.py``, as on one machine; only reading, grouping and writing are Spark's. The package
must be installed where the executors run (docs/spark.md).
"""

from __future__ import annotations

import functools
import io
import json
from collections import Counter
from dataclasses import dataclass, fields
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kypho_kg import __version__
from kypho_kg.cohort.counts import Counts
from kypho_kg.cohort.layout import Ints
from kypho_kg.cohort.run import CLAUSES, PART, VERDICTS, Asking, Options, Outcome
from kypho_kg.cohort.source import REJECTED, fitting_cases
from kypho_kg.cohort.spark_tables import TOLD, dated, explained, quietly, read_tables, spark_session
from kypho_kg.cohort.tables import ASSUMED, IN_FORCE, KEY, WITHOUT_CASE, Part, answer
from kypho_kg.errors import EngineError, UsageError
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_BUCKET, _REST = "bucket", "rest"
"""Columns of ours: the group, and what is counted of it."""


# --------------------------------------------------------------------------------------------------------------------
# Judging


@dataclass(frozen=True, slots=True)
class _Task:
    """What is sent to the executors."""

    options: Options
    sha256: str
    """Of the knowledge base of the driver."""
    verdicts: tuple[str, ...]
    """Columns of the table of verdicts, in their order, after the keys."""


@functools.lru_cache(maxsize=1)
def _asking_here(options: Options, sha256: str) -> Asking:
    """What an executor asks; a process keeps it for its next groups.

    :raises EngineError: when its knowledge base is not that of the driver.
    """
    k = load_knowledge()
    if k.sha256 != sha256:
        raise EngineError(f"an executor has another knowledge base ({k.sha256[:12]}, not {sha256[:12]})")
    return Asking(k, options)


def _judge(task: _Task, facts: pa.Table, cases: pa.Table) -> pa.Table:
    """The answers on the patients of one group: a row for each case, and one with what is counted."""
    asking = _asking_here(task.options, task.sha256)
    kind = cases.schema.field("patient").type
    names = [*(f"v{i}" for i in range(len(task.verdicts))), *(f"c{i}" for i in range(len(asking.asked.clauses)))]
    fields_ = [("patient", kind), ("lesion", pa.string()), ("as_of", pa.date32())]
    types = [*(_verdict_type(n) for n in task.verdicts), *(pa.bool_() for _ in asking.asked.clauses)]
    schema = pa.schema([*fields_, *zip(names, types, strict=True), (_REST, pa.binary())])
    facts = facts.drop_columns([_BUCKET]).sort_by([("patient", "ascending")]).combine_chunks()
    cases = cases.drop_columns([_BUCKET]).sort_by([(n, "ascending") for n in ("patient", "as_of", "lesion")])
    cases, malformed = _fitted(cases.combine_chunks())
    rest = {n: [None] for n in schema.names}
    if not cases.num_rows:
        alone = pc.count_distinct(facts["patient"]).as_py()
        return pa.table(rest | {_REST: [_packed(None, {WITHOUT_CASE: alone} if alone else {}, malformed)]}, schema)
    o = task.options
    part = answer(facts, cases, asking.asked, bridges=o.bridges, policies=asking.policies, beside=asking.beside)
    if tuple(part.verdicts.column_names[len(KEY) :]) != task.verdicts:
        raise EngineError(f"the table of verdicts has other columns: {', '.join(part.verdicts.column_names)}")
    cells = [part.verdicts[n] for n in KEY]
    cells += [part.verdicts[n] for n in task.verdicts] + [part.clauses[r.id] for r in asking.asked.clauses]
    rows = pa.table([*cells, pa.nulls(part.verdicts.num_rows, pa.binary())], names=schema.names).cast(schema)
    packed = _packed(part, part.left, pa.concat_tables([malformed, part.rejected]))
    return pa.concat_tables([rows, pa.table(rest | {_REST: [packed]}, schema)])


def _fitted(cases: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The cases of well-formed patients and the others, who may have several dates by now."""
    first = cases.group_by("patient").aggregate([("as_of", "min")])
    once = cases.join(first, "patient").filter(pc.equal(pc.field("as_of"), pc.field("as_of_min")))
    once = once.sort_by([("patient", "ascending"), ("lesion", "ascending")]).combine_chunks()
    told = once[TOLD]
    _, malformed = fitting_cases(once.set_column(once.column_names.index("as_of"), "as_of", told))
    bad = pc.is_in(cases["patient"].cast(pa.string()), value_set=malformed["patient"].combine_chunks())
    return cases.filter(pc.invert(bad)).drop_columns([TOLD]).combine_chunks(), malformed


def _verdict_type(column: str) -> pa.DataType:
    return pa.bool_() if column.endswith(IN_FORCE) else pa.string()


_Counted = tuple[tuple[Counts, Ints] | None, dict[str, int], list[dict[str, Any]]]
"""Of a group: counts and moves, if it has a case; patients left out, by reason; and cases that are rejected."""


def _packed(part: Part | None, left: dict[str, int], rejected: pa.Table) -> bytes:
    arrays = {f.name: getattr(part.counts, f.name) for f in fields(Counts)} | {"moves": part.moves} if part else {}
    target = io.BytesIO()
    np.savez_compressed(target, told=np.array(json.dumps([left, rejected.to_pylist()], sort_keys=True)), **arrays)
    return target.getvalue()


def _unpacked(packed: bytes) -> _Counted:
    with np.load(io.BytesIO(packed)) as arrays:
        left, rejected = json.loads(str(arrays["told"]))
        if "moves" not in arrays:
            return None, left, rejected
        return (Counts(*(arrays[f.name] for f in fields(Counts))), arrays["moves"]), left, rejected


def run_spark(
    source: str,
    out: str,
    knowledge: Knowledge,
    options: Options,
    *,
    as_of: date | None = None,
    index: pa.Table | None = None,
    part: int = PART,
    again: bool = False,
    session: SparkSession | None = None,
) -> Outcome:
    """Judge all cases, and write the tables of verdicts and clauses as Parquet, with what was asked in ``run``.

    :param source: see :func:`read_tables`.
    :param out: a folder, on any file system that Spark writes to.
    :param as_of: one date for all, before that of the table.
    :param index: patient, lesion (or none) and date (see :func:`~kypho_kg.cohort.index.read_index`).
    :param part: about how many cases are judged together; their facts are in the memory of one Python process.
    :param again: write over what an earlier run left in the folder.
    :raises UsageError: when something is asked that this backend cannot do, or the folder holds another run.
    :raises InputError: when a table is missing or malformed, or a case has no date.
    :raises EngineError: when Spark fails.
    """
    if options.older or options.evidence:
        raise UsageError("--compare and --evidence are not there with --backend spark: use them without, on a subset")
    asking = Asking(knowledge, options)
    session = session or spark_session()
    facts, cases = read_tables(session, source)
    with quietly(), explained(source):
        return _run(facts, cases, source, out, asking, options, as_of, index, part, again)


def _run(
    facts: DataFrame, cases: DataFrame, source: str, out: str, asking: Asking, options: Options,
    as_of: date | None, index: pa.Table | None, part: int, again: bool,
) -> Outcome:  # fmt: skip
    from pyspark import StorageLevel
    from pyspark.sql import functions as fn

    cases = dated(cases, as_of, index, source)
    if index is not None:
        facts = facts.join(cases.select("patient").distinct(), "patient", "left_semi")
    number = cases.count()
    if not number:
        raise UsageError(f"{source} holds no case that is asked for")
    k, session = asking.asked.layout.k, cases.sparkSession
    buckets = -(-number // part)
    manifest = {
        "format": "kypho-cohort/2",
        "software": f"kypho-kg {__version__}, Spark {session.version}",
        "knowledge_base": {"version": k.version, "sha256": k.sha256},
        "guidelines": list(options.guidelines),
        "policies": list(options.policies),
        "bridges": options.bridges,
        "sweeps": list(options.sweeps),
        "source": source,
        "as_of": as_of.isoformat() if as_of else None,
        "cases_in_a_part": part,
    }
    mode = "overwrite" if again else "error"
    text = session.createDataFrame([(json.dumps(manifest, indent=1),)], "value string")
    text.coalesce(1).write.mode(mode).text(f"{out}/run")

    names = _verdict_names(asking)
    clauses = asking.asked.clauses
    kind = dict(cases.dtypes)["patient"]
    told = [f"v{i} {'boolean' if _verdict_type(n) == pa.bool_() else 'string'}" for i, n in enumerate(names)]
    asked = [f"c{i} boolean" for i in range(len(clauses))]
    schema = ", ".join([f"patient {kind}, lesion string, as_of date", *told, *asked, f"{_REST} binary"])
    task = _Task(options, k.sha256, names)
    bucket = fn.expr(f"pmod(xxhash64(patient), {buckets})")
    # As many partitions as groups: what is persisted is not cut anew, and by default there would be 200.
    sides = (t.withColumn(_BUCKET, bucket).repartition(buckets, _BUCKET).groupBy(_BUCKET) for t in (facts, cases))
    left, right = sides
    answers = left.cogroup(right).applyInArrow(functools.partial(_judge, task), schema)
    answers = answers.persist(StorageLevel.DISK_ONLY)  # it is judged once, and read three times
    try:
        packed = [bytes(row[0]) for row in answers.filter(f"{_REST} IS NOT NULL").select(_REST).collect()]
        rows = answers.filter(f"{_REST} IS NULL")
        for folder, columns in (
            (VERDICTS, [fn.col(f"v{i}").alias(n) for i, n in enumerate(names)]),
            (CLAUSES, [fn.col(f"c{i}").alias(r.id) for i, r in enumerate(clauses)]),
        ):
            rows.select(*KEY, *columns).write.mode(mode).parquet(f"{out}/{folder}")
    finally:
        answers.unpersist()
    return _outcome([_unpacked(p) for p in packed], asking, manifest, source)


def _verdict_names(asking: Asking) -> tuple[str, ...]:
    names = []
    for g in asking.asked.guidelines:
        names += [g.id, *([g.id + ASSUMED] if asking.policies else []), *([g.id + IN_FORCE] if g.is_policy else [])]
    return tuple(names)


def _outcome(found: list[_Counted], asking: Asking, manifest: dict[str, Any], source: str) -> Outcome:
    counted = [both for both, _, _ in found if both]
    if not counted:
        raise UsageError(f"{source} holds no case that can be judged")
    counts, moves = counted[0]
    for other, moved in counted[1:]:
        counts, moves = counts + other, moves + moved
    left = sum((Counter(reasons) for _, reasons, _ in found), Counter[str]())
    rows = [row for _, _, rejected in found for row in rejected]
    rows.sort(key=lambda row: (row["patient"], row["lesion"] or ""))
    table = pa.Table.from_pylist(rows, REJECTED)
    return Outcome(asking.asked, asking.beside, counts, moves, left, table, 0, len(counted), manifest)
