"""A cohort run: parts in process processes, each written at once and whole, so that a run that was cut goes on.

The output is the same whatever the number of processes and however often a run was cut.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from kypho_kg.cohort.counts import Asked, Counts
from kypho_kg.cohort.layout import layout_of
from kypho_kg.cohort.source import FactTable, PartOf, facts_of
from kypho_kg.cohort.tables import answer
from kypho_kg.errors import EngineError, UsageError
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge

PART = 25_000
"""Cases of a part."""
MIB_OF_PART = 900
"""What a process needs at most for a part, measured; see docs/cohort.md."""
VERDICTS, CLAUSES, COUNTS = "verdicts", "clauses", "counts"


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of every case."""

    guidelines: tuple[str, ...]
    policies: tuple[str, ...] = ()
    bridges: bool = True


@dataclass(slots=True)
class Outcome:
    """What a run found."""

    counts: Counts
    left: Counter[str]
    reused: int
    """Parts that an earlier run had written."""
    parts: int


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
    :param processes: processes; by default one for each processor.
    :param progress: is told how many cases are done, of how many.
    :raises UsageError: when the folder holds another run, or cannot be written.
    :raises EngineError: when a process fails; its part is not there then.
    """
    _claim(out, _fingerprint(table, cases, knowledge, options, part), again)
    asked = Asked(layout_of(knowledge), tuple(knowledge.guideline(g) for g in options.guidelines))
    todo = list(table.parts(cases, part))
    found: dict[int, tuple[Counts, dict[str, int]]] = {}
    open_: list[PartOf] = []
    for one in todo:
        kept = _kept(out, one.number)
        if kept is None:
            open_.append(one)
        else:
            found[one.number] = kept
    reused, done = len(found), sum(p.stop - p.start for p in todo if p.number in found)
    progress(done, cases.num_rows)
    for one, counts, left in _judged(
        open_, cases, out, asked, options, min(processes or os.cpu_count() or 1, len(open_))
    ):
        found[one.number] = counts, left
        done += one.stop - one.start
        progress(done, cases.num_rows)
    total, reasons = None, Counter[str]()
    for number in sorted(found):
        counts, left = found[number]
        total = counts if total is None else total + counts
        reasons.update(left)
    if total is None:
        raise UsageError(f"{table.folder.name} holds no case")
    return Outcome(total, reasons, reused, len(todo))


def _judged(
    parts: Sequence[PartOf], cases: pa.Table, out: Path, asked: Asked, options: Options, processes: int
) -> Iterator[tuple[PartOf, Counts, dict[str, int]]]:
    if processes <= 1:
        for part in parts:
            yield part, *_write(part, cases.slice(part.start, part.stop - part.start), out, asked, options)
        return
    queue = iter(parts)
    with ProcessPoolExecutor(processes, get_context("spawn"), _start, (options,)) as pool:
        running: dict[Future[tuple[Counts, dict[str, int]]], PartOf] = {}

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
                    counts, left = future.result()
                except Exception as error:
                    for other in running:
                        other.cancel()
                    raise EngineError(f"cohort, part {part.number}: {type(error).__name__}: {error}") from error
                yield part, counts, left
            submit()


_process: dict[str, Any] = {}


def _start(options: Options) -> None:
    k = load_knowledge()
    _process["asked"] = Asked(layout_of(k), tuple(k.guideline(g) for g in options.guidelines))
    _process["options"] = options


def _work(part: PartOf, cases: pa.Table, out: Path) -> tuple[Counts, dict[str, int]]:
    return _write(part, cases, out, _process["asked"], _process["options"])


def _write(part: PartOf, cases: pa.Table, out: Path, asked: Asked, options: Options) -> tuple[Counts, dict[str, int]]:
    """Judge a part and write its tables; the counts come last, so that their file says that the part is whole."""
    policies = [asked.layout.k.policy(p) for p in options.policies]
    found = answer(facts_of(part), cases, asked, bridges=options.bridges, policies=policies)
    for name, table in ((VERDICTS, found.verdicts), (CLAUSES, found.clauses)):
        target = out / name / f"part-{part.number:05}.parquet"
        draft = target.with_suffix(".draft")
        parquet.write_table(table, draft)
        draft.replace(target)
    target = out / COUNTS / f"part-{part.number:05}.npz"
    draft = target.with_suffix(".draft")
    with draft.open("wb") as file:
        arrays = {f.name: getattr(found.counts, f.name) for f in fields(Counts)}
        np.savez_compressed(file, left=np.array(json.dumps(found.left, sort_keys=True)), **arrays)
    draft.replace(target)
    return found.counts, found.left


def _kept(out: Path, number: int) -> tuple[Counts, dict[str, int]] | None:
    path = out / COUNTS / f"part-{number:05}.npz"
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        return Counts(*(arrays[f.name] for f in fields(Counts))), json.loads(str(arrays["left"]))


def _fingerprint(table: FactTable, cases: pa.Table, k: Knowledge, options: Options, part: int) -> dict[str, Any]:
    """What makes two runs the same: data, dates, knowledge base and what is asked."""
    digest = hashlib.sha256()
    for column in ("patient", "lesion", "as_of"):
        for chunk in cases[column].cast(pa.string()).chunks:
            for buffer in chunk.buffers():
                digest.update(buffer or b"")
    for group in table.groups:
        digest.update(f"{group.number} {group.first} {group.last}".encode())
    for path in sorted({g.file for g in table.groups}):
        digest.update(str(Path(path).stat().st_size).encode())
    return {
        "format": "kypho-cohort/1",
        "knowledge_base": {"version": k.version, "sha256": k.sha256},
        "guidelines": list(options.guidelines),
        "policies": list(options.policies),
        "bridges": options.bridges,
        "cases_in_a_part": part,
        "data_sha256": digest.hexdigest(),
    }


def _claim(out: Path, run: dict[str, Any], again: bool) -> None:
    """Make the folder ours, or find the run that it holds to be the same.

    :raises UsageError: when it is not, or the folder holds something else.
    """
    manifest = out / "run.json"
    try:
        for name in (VERDICTS, CLAUSES, COUNTS):
            (out / name).mkdir(parents=True, exist_ok=True)
        if manifest.is_file() and not again:
            known = json.loads(manifest.read_text("utf-8"))
            differs = [key for key in run if known.get(key) != run[key]]
            if differs:
                raise UsageError(f"{out} holds another run ({', '.join(differs)} differ): another folder, or --again")
            return
        for name in (VERDICTS, CLAUSES, COUNTS):
            for old in (out / name).glob("part-*"):
                old.unlink()
        manifest.write_text(json.dumps(run, indent=1) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{manifest} is no manifest of a run: another folder, or --again") from None
