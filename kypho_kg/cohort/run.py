"""A cohort run: parts in several processes, each written at once and whole, so that a run that was cut goes on.

The output is the same whatever the number of processes and however often a run was cut.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from kypho_kg import __version__
from kypho_kg._resources import resource_dir
from kypho_kg.cohort import evidence
from kypho_kg.cohort.counts import Asked, Counts
from kypho_kg.cohort.layout import Ints, layout_of
from kypho_kg.cohort.source import REJECTED, FactTable, PartOf, facts_of
from kypho_kg.cohort.sweep import Beside, Older, assumed, read_sweeps
from kypho_kg.cohort.tables import answer
from kypho_kg.errors import EngineError, InputError, KyphoKGError, Problem, UsageError
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge, read_knowledge

PART = 25_000
"""Cases of a part at most: more are no faster."""
ENOUGH = 8_000
"""Cases for which a further process is worth its start."""
SMALLEST = 500
"""Cases of a part at least: with fewer most of the time goes into their files."""
MIB_OF_PROCESS, KIB_OF_CASE, KIB_OF_FACT = 330, 8.0, 0.2
"""Memory of a process: for itself, for each case of its part, and for each fact; measured, see docs/cohort.md."""
VERDICTS, CLAUSES, COUNTS, EVIDENCE, FLIPS = "verdicts", "clauses", "counts", "evidence", "flips"
FOLDERS = (VERDICTS, CLAUSES, COUNTS, EVIDENCE, FLIPS)


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of every case."""

    guidelines: tuple[str, ...]
    policies: tuple[str, ...] = ()
    bridges: bool = True
    sweeps: tuple[str, ...] = ()
    """Limits that are tried at other values (see :func:`~kypho_kg.cohort.sweep.read_sweep`)."""
    older: Path | None = None
    """Folder of another knowledge base whose verdicts are compared."""
    evidence: bool = False
    patients: tuple[str, ...] | None = None
    """The patients whose evidence is told; all by default."""


@dataclass(slots=True)
class Found:
    """What is kept of a part beside its tables."""

    counts: Counts
    moves: Ints
    left: dict[str, int]
    rejected: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Outcome:
    """What a run found."""

    asked: Asked
    beside: tuple[Beside, ...]
    counts: Counts
    moves: Ints
    left: Counter[str]
    """Patients that were left out, by reason."""
    rejected: pa.Table
    reused: int
    """Parts that an earlier run had written."""
    parts: int
    manifest: dict[str, Any]


class Asking:
    """What a process needs to judge parts; made once in each."""

    def __init__(self, knowledge: Knowledge, options: Options) -> None:
        self.options = options
        self.asked = Asked(layout_of(knowledge), tuple(knowledge.guideline(g) for g in options.guidelines))
        self.policies = [knowledge.policy(p) for p in options.policies]
        sweeps = read_sweeps(options.sweeps, knowledge, options.guidelines)
        self.older = Older(read_knowledge(options.older), self.asked.guidelines) if options.older else None
        compared = self.older.beside() if self.older else ()
        self.beside = (*assumed(self.asked, options.policies), *sweeps, *compared)
        self.patients = None if options.patients is None else pa.array(options.patients, pa.string())


def run(
    table: FactTable,
    cases: pa.Table,
    out: Path,
    knowledge: Knowledge,
    options: Options,
    *,
    processes: int | None = None,
    part: int = PART,
    again: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Outcome:
    """Judge all cases and write the tables of verdicts and clauses, part by part.

    :param out: a folder; parts of an earlier run that asked the same of the same data are kept.
    :param processes: by default one for each processor.
    :param part: cases of a part; a run that goes on keeps that of its beginning, unless it is larger.
    :param progress: is told how many cases are done, of how many.
    :raises UsageError: when the folder holds another run, or cannot be written, or there is no case.
    :raises EngineError: when a process fails; its part is not there then.
    """
    asking = Asking(knowledge, options)
    if not cases.num_rows:
        raise UsageError(f"{table.folder.name} holds no case that is asked for")
    manifest = _manifest(table, cases, asking)
    part = _claim(out, manifest, again, part)
    todo = list(table.parts(cases, part))
    found: dict[int, Found] = {}
    open_: list[PartOf] = []
    for one in todo:
        kept = _kept(out, one.number)
        if kept is None:
            open_.append(one)
        else:
            found[one.number] = kept
    reused, done = len(found), sum(p.stop - p.start for p in todo if p.number in found)
    progress(done, cases.num_rows)
    for one, new in _judged(open_, cases, out, asking, min(processes or os.cpu_count() or 1, len(open_))):
        found[one.number] = new
        done += one.stop - one.start
        progress(done, cases.num_rows)
    first, *others = (found[number] for number in sorted(found))
    counts, moves, left, rejected = first.counts, first.moves, Counter(first.left), list(first.rejected)
    for other in others:
        counts, moves = counts + other.counts, moves + other.moves
        left.update(other.left)
        rejected += other.rejected
    told = pa.table(
        {name: pa.array([r[i] for r in rejected], pa.string()) for i, name in enumerate(REJECTED.names)}, REJECTED
    )
    return Outcome(
        asking.asked,
        asking.beside,
        counts,
        moves,
        left,
        pa.concat_tables([table.rejected, told]),
        reused,
        len(todo),
        {**manifest, "cases_in_a_part": part},
    )


def sizes(table: FactTable, cases: int, memory: float, processes: int | None, options: Options) -> tuple[int, int]:
    """How many processes run, and how many cases a part has, so that all together stay within a memory.

    :param cases: how many are judged.
    :param memory: GiB.
    :raises UsageError: when it is too little for one process with the smallest part.
    """
    facts = table.rows / max(1, table.cases.num_rows)
    # A copy of the knowledge base and of the snapshot for each that is asked beside; evidence keeps its own facts.
    copies = 1 + bool(options.policies) + bool(options.older) + bool(options.evidence)
    of_case = (KIB_OF_CASE + KIB_OF_FACT * facts) * copies / 1024
    process = MIB_OF_PROCESS + 100 * bool(options.older)
    mine = process + (table.cases.nbytes + 200 * cases) * 2 / 2**20
    group = max((g.rows for g in table.groups), default=0) * KIB_OF_FACT / 1024
    for number in range(min(processes or os.cpu_count() or 1, 1 + cases // ENOUGH), 0, -1):
        own = 0 if number == 1 else process * number
        part = int((memory * 1024 - mine - own - group * number) / number / of_case)
        if part >= SMALLEST:
            return number, min(part, PART, max(SMALLEST, -(-cases // number)))
    least = (mine + group + SMALLEST * of_case) / 1024
    raise UsageError(f"--memory {memory:g}: too little for this table; expected at least {least:.1f}")


def _judged(
    parts: Sequence[PartOf], cases: pa.Table, out: Path, asking: Asking, processes: int
) -> Iterator[tuple[PartOf, Found]]:
    if processes <= 1:
        for part in parts:
            yield part, _write(part, cases.slice(part.start, part.stop - part.start), out, asking)
        return
    queue = iter(parts)
    known = asking.asked.layout.k.sha256
    with ProcessPoolExecutor(processes, get_context("spawn"), _start, (asking.options, known)) as pool:
        running: dict[Future[Found | tuple[Problem, ...]], PartOf] = {}

        def submit() -> None:
            for part in queue:
                rows = cases.slice(part.start, part.stop - part.start).combine_chunks()
                running[pool.submit(_work, part, rows, out)] = part
                if len(running) > processes:
                    break

        submit()
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                part = running.pop(future)
                try:
                    new = future.result()
                except BrokenProcessPool:
                    what = "a process was ended from outside, perhaps for lack of memory: try --memory with less"
                    raise EngineError(f"cohort, part {part.number}: {what}") from None
                except KyphoKGError:
                    _cancel(running)
                    raise
                except Exception as error:
                    _cancel(running)
                    raise EngineError(f"cohort, part {part.number}: {type(error).__name__}: {error}") from error
                if not isinstance(new, Found):
                    _cancel(running)
                    raise InputError(new)
                yield part, new
            submit()


def _cancel(running: dict[Future[Found | tuple[Problem, ...]], PartOf]) -> None:
    for other in running:
        other.cancel()


_process: dict[str, Any] = {}


def _start(options: Options, sha256: str) -> None:
    _process.update(options=options, sha256=sha256)


def _work(part: PartOf, cases: pa.Table, out: Path) -> Found | tuple[Problem, ...]:
    """Judge a part in a process of its own; the problems of an input come back as they are."""
    if "asking" not in _process:
        k = load_knowledge()
        if k.sha256 != _process["sha256"]:
            raise EngineError("the knowledge base of the processes is not that of the run")
        _process["asking"] = Asking(k, _process["options"])
    try:
        return _write(part, cases, out, _process["asking"])
    except InputError as error:
        return error.problems


def _write(part: PartOf, cases: pa.Table, out: Path, asking: Asking) -> Found:
    """Judge a part and write its tables; the counts come last, so that their file says that the part is whole.

    :raises UsageError: when a table cannot be written.
    :raises EngineError: when memory does not suffice.
    """
    o = asking.options
    try:
        answered = answer(
            facts_of(part, cases["patient"].unique() if "asked" in cases.column_names else None),
            cases,
            asking.asked,
            bridges=o.bridges,
            policies=asking.policies,
            beside=asking.beside,
            older=asking.older,
            evidence=o.evidence,
        )
    except (MemoryError, pa.ArrowMemoryError):
        raise EngineError(f"cohort, part {part.number}: memory does not suffice: try --memory with less") from None
    found = Found(
        answered.counts,
        answered.moves,
        answered.left,
        list(zip(*(answered.rejected[name].to_pylist() for name in REJECTED.names), strict=True)),
    )
    try:
        for name, table in ((VERDICTS, answered.verdicts), (CLAUSES, answered.clauses), (FLIPS, answered.flips)):
            if table is not None:
                with _replacing(_path(out, name, part.number)) as draft:
                    parquet.write_table(table, draft)
        if answered.evidence:
            kind = answered.verdicts.schema.field("patient").type
            with (
                _replacing(_path(out, EVIDENCE, part.number)) as draft,
                parquet.ParquetWriter(draft, evidence.schema(kind), store_decimal_as_integer=True) as writer,
            ):
                for table in answered.evidence.tables(asking.patients):
                    writer.write_table(table)
        with _replacing(_path(out, COUNTS, part.number)) as draft, draft.open("wb") as file:
            arrays = {f.name: getattr(found.counts, f.name) for f in fields(Counts)}
            told = json.dumps([found.left, found.rejected], sort_keys=True)
            np.savez_compressed(file, moves=found.moves, told=np.array(told), **arrays)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}") from None
    return found


class _replacing:  # noqa: N801 - used as a statement
    """A draft beside a file, which takes its place when all is written."""

    def __init__(self, target: Path) -> None:
        self.target, self.draft = target, target.with_suffix(".draft")

    def __enter__(self) -> Path:
        return self.draft

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.draft.replace(self.target)
        else:
            self.draft.unlink(missing_ok=True)


def _path(out: Path, name: str, number: int) -> Path:
    return out / name / f"part-{number:05}{'.npz' if name == COUNTS else '.parquet'}"


def _kept(out: Path, number: int) -> Found | None:
    path = _path(out, COUNTS, number)
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        left, rejected = json.loads(str(arrays["told"]))
        counts = Counts(*(arrays[f.name] for f in fields(Counts)))
        return Found(counts, arrays["moves"], left, [(p, x, why) for p, x, why in rejected])


def _manifest(table: FactTable, cases: pa.Table, asking: Asking) -> dict[str, Any]:
    """What makes two runs the same: data, dates, knowledge base, software and what is asked."""
    digest = hashlib.sha256()
    for column in ("patient", "lesion", "as_of", *(["asked"] if "asked" in cases.column_names else [])):
        texts = cases[column].cast(pa.string()).fill_null("").combine_chunks()
        offsets = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, 4 * texts.offset)
        digest.update((offsets - offsets[0]).tobytes())
        digest.update(texts.buffers()[2].slice(int(offsets[0]), int(offsets[-1] - offsets[0])))
    o = asking.options
    shapes = hashlib.sha256((resource_dir("shapes") / "fact.ttl").read_bytes()).hexdigest()
    k = asking.asked.layout.k
    return {
        "format": "kypho-cohort/2",
        "software": f"kypho-kg {__version__}",
        "knowledge_base": {"version": k.version, "sha256": k.sha256},
        "shapes_sha256": shapes,
        "guidelines": list(o.guidelines),
        "policies": list(o.policies),
        "bridges": o.bridges,
        "sweeps": list(o.sweeps),
        "compared": asking.older.layout.k.sha256 if asking.older else None,
        "evidence": "none" if not o.evidence else "all" if o.patients is None else sorted(o.patients),
        "data_sha256": table.sha256(),
        "dates_sha256": digest.hexdigest(),
    }


def _claim(out: Path, run: dict[str, Any], again: bool, part: int) -> int:
    """Make the folder ours, or find the run that it holds to be the same; gives the cases of a part.

    :raises UsageError: when it is not, or the folder holds something else.
    """
    manifest = out / "run.json"
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in FOLDERS:
            if name not in (EVIDENCE, FLIPS) or run["evidence" if name == EVIDENCE else "compared"] not in (
                None,
                "none",
            ):
                (out / name).mkdir(parents=True, exist_ok=True)
        if manifest.is_file() and not again:
            known = json.loads(manifest.read_text("utf-8"))
            differs = [key.replace("_", " ") for key in run if known.get(key) != run[key]]
            if differs:
                raise UsageError(f"{out} holds another run ({', '.join(differs)} differ): another folder, or --again")
            if int(known["cases_in_a_part"]) > part:
                what = f"its parts have {known['cases_in_a_part']:,} cases; that needs more --memory"
                raise UsageError(f"{out} holds a run that was cut: {what}, or --again")
            return int(known["cases_in_a_part"])
        for name in FOLDERS:
            for old in (out / name).glob("part-*"):
                old.unlink()
        manifest.write_text(json.dumps({**run, "cases_in_a_part": part}, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{manifest} is no manifest of a run: another folder, or --again") from None
    return part
