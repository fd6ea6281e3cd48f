"""A cohort from any source: a fact table as it is, a store, or whatever ``intake`` reads, written as a fact table.

What was written is kept beside the answers and taken again when the same command goes on.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from datetime import date
from pathlib import Path
from typing import Any, Final

from kypho_kg import __version__
from kypho_kg.case_store import read_manifest, reading
from kypho_kg.cohort.source import FactTable, as_parquet, is_fact_table, without_dates
from kypho_kg.errors import InputError, KyphoKGError, Problem, UsageError
from kypho_kg.fact_table import CASES, FACTS, table_files, write_fact_table
from kypho_kg.intake import FHIR, OMOP, mark_invalid, source_kind, stream_sources
from kypho_kg.intake import TABLE as TABULAR
from kypho_kg.intake_report import IntakeReport, report_json
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Record
from kypho_kg.sources.rdf import RecordReader
from kypho_kg.sources.table_mapping import read_mapping
from kypho_kg.store import Store
from kypho_kg.vocabulary import KYPHO, graph_kind

TABLE, STAMP, REPORT = "facts", "facts.json", "intake.json"
"""In the folder of a run: the fact table, from what it was made, and what was read of the sources."""
_NO_DAY: Final = date(1, 1, 1)
"""Stands in for an as-of date while a table is written whose dates come from an index."""
_GIVE: Final = "give --as-of for all, --index for each case, or --entry"
_Made = dict[str, Any]


@dataclass(slots=True)
class Cohort:
    """A fact table, with what was left out on the way to it."""

    table: FactTable
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reading:
    """How sources are read that are no fact table."""

    as_of: date | None = None
    """Overrides the dates of the records."""
    undated: bool = False
    """Records need no date, for an index gives it."""
    mapping: Path | None = None
    """For tables, the file that says what each column is."""
    mappings: tuple[Path, ...] = ()
    """Files that say what further codes mean."""


def cohort_of(
    sources: Sequence[Path],
    out: Path,
    knowledge: Knowledge,
    how: Reading,
    *,
    again: bool = False,
    read: Callable[[], object] = lambda: None,
    told: Callable[[list[Problem]], object] = lambda problems: None,
) -> Cohort:
    """The fact table of some sources; a folder that is one in Parquet is taken as it is.

    :param out: folder of the run. What has to be written goes to ``facts`` in it.
    :param again: read the sources anew.
    :param read: called after each record of a source.
    :param told: called with what was rejected of the sources, where an error that does not say it ends the reading.
    :raises UsageError: when the folder cannot be written; when no source can give the dates of its cases, which is said
        before anything is read, or a record with a lesion has none. Nothing is left of what was written.
    :raises InputError: when a source cannot be read, or there is no case in it.
    """
    for source in sources:
        if not source.exists():
            raise InputError(Problem(str(source), "no such file or folder", "a source"))
    (alone,) = sources if len(sources) == 1 else (None,)
    if alone and is_fact_table(alone):
        if not any(p.suffix == ".csv" for name in (FACTS, CASES) for p in table_files(alone, name)):
            return Cohort(FactTable(alone))

        def converted(target: Path) -> _Made:
            as_parquet(alone, target)
            return {}

        return _kept(sources, out, knowledge, Reading(), again, converted)
    for source in sources:
        if source.is_dir() and (is_fact_table(source) or _is_store(source)) and not alone:
            raise UsageError(f"{source.name}: give a fact table or a store alone")
    if not (alone and _is_store(alone)) and all(_never_dated(source, knowledge, how) for source in sources):
        raise UsageError(f"{', '.join(s.name for s in sources)}: no as-of date can come from such a source; {_GIVE}")

    def written(target: Path) -> _Made:
        if alone and _is_store(alone):
            report = IntakeReport(alone.name)
            records: Iterable[Record] = _of_store(alone, knowledge, report)
            return _write(records, [report], report.rejected, target, how, told)
        stream = stream_sources(sources, knowledge, mapping=how.mapping, mappings=how.mappings, read=read, many=True)
        return _write(stream.records, stream.reports, stream.problems, target, how, told)

    return _kept(sources, out, knowledge, how, again, written)


def _never_dated(source: Path, knowledge: Knowledge, how: Reading) -> bool:
    """Whether no record of a source can have an as-of date, and none is given."""
    if how.as_of or how.undated:
        return False
    kind = source_kind(source)
    return kind in (FHIR, OMOP) or (
        kind == TABULAR and how.mapping is not None and "as_of" not in read_mapping(how.mapping, knowledge).plain
    )


def _is_store(folder: Path) -> bool:
    try:
        return folder.is_dir() and bool(read_manifest(folder))
    except UsageError:
        return False


def _of_store(folder: Path, knowledge: Knowledge, report: IntakeReport) -> Iterator[Record]:
    """The records of a store, one patient after another, from what was asserted of them."""
    with reading(folder) as rdf:
        store = Store.opened(rdf)
        graphs = store.select(f"SELECT DISTINCT ?g WHERE {{ GRAPH ?g {{ ?p a <{KYPHO}Patient> }} }}")
        for name in sorted(g for row in graphs if isinstance(g := row["g"], str) and graph_kind(g) == "asserted"):
            triples = store.construct(f"CONSTRUCT {{ ?s ?p ?o }} WHERE {{ GRAPH <{name}> {{ ?s ?p ?o }} }}")
            for record in RecordReader(folder.name, knowledge, report, sorted(triples, key=repr)).records():
                yield mark_invalid(record, many=True)


def _write(
    records: Iterable[Record],
    reports: list[IntakeReport],
    problems: list[Problem],
    target: Path,
    how: Reading,
    told: Callable[[list[Problem]], object],
) -> _Made:
    if how.undated:
        records = (r if r.as_of or how.as_of else changed(r, as_of=_NO_DAY) for r in records)
    try:
        done = write_fact_table(map(functools.partial(_dated, how), records), target, how.as_of)
    except KyphoKGError:
        told(problems)
        raise
    if how.undated:
        without_dates(target, _NO_DAY)
    notes = []
    lost = sum(sum(r.unmapped.values()) + sum(r.unread.values()) for r in reports)
    if lost:
        notes.append(f"{lost:,} entries of the sources were not understood or not read: {REPORT}")
    if done.without_lesion:
        notes.append(f"{done.without_lesion:,} patients without a lesion have no case")
    return {"report": reports, "problems": [*problems, *done.rejected], "notes": notes}


def _dated(how: Reading, record: Record) -> Record:
    if record.lesions and not (how.as_of or record.as_of):
        raise UsageError(f"{record.place}: a patient with a lesion has no as-of date; {_GIVE}")
    return record


def _kept(
    sources: Sequence[Path],
    out: Path,
    knowledge: Knowledge,
    how: Reading,
    again: bool,
    make: Callable[[Path], _Made],
) -> Cohort:
    """The table that ``make`` writes, or that an earlier run of the same command wrote."""
    files = [*sources, *how.mappings, *([how.mapping] if how.mapping else [])]
    stamp = {
        "software": f"kypho-kg {__version__}",
        "knowledge_base": knowledge.sha256,
        "as_of": str(how.as_of),
        "undated": how.undated,
        "sources": [_sizes(path) for path in files],
    }
    target, draft = out / TABLE, out / (TABLE + ".draft")
    try:
        known = _read_stamp(out)
        if again or known.get("stamp") != stamp or not is_fact_table(target):
            new = [folder for folder in (out, *out.parents) if not folder.exists()]
            out.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(draft, ignore_errors=True)
            try:
                made = make(draft)
            except BaseException:
                _removed(draft, new)
                raise
            shutil.rmtree(target, ignore_errors=True)
            draft.replace(target)
            told = [[p.where, p.what, p.expected] for p in made.get("problems", ())]
            report = report_json(made.get("report", ()))
            known = {"stamp": stamp, "problems": told, "notes": made.get("notes", [])}
            if report:
                (out / REPORT).write_text(json.dumps({"sources": report}, indent=1, ensure_ascii=False) + "\n", "utf-8")
            (out / STAMP).write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}") from None
    problems = [Problem(*row) for row in known["problems"]]
    table = FactTable(target)
    if not table.cases.num_rows:
        what = f"no case: no patient with a lesion was read ({out / REPORT} says what was)"
        raise InputError([*problems, Problem(sources[0].name, what, "a lesion: a row or a code that names its level")])
    return Cohort(table, problems, known["notes"])


def _removed(draft: Path, folders: Iterable[Path]) -> None:
    """Remove a table that was not finished, and the folders that were made for it."""
    shutil.rmtree(draft, ignore_errors=True)
    with contextlib.suppress(OSError):  # another one may have written into them
        for folder in folders:
            folder.rmdir()


def _read_stamp(out: Path) -> dict[str, Any]:
    try:
        known = json.loads((out / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _sizes(path: Path) -> list[list[str | int]]:
    """The files of a source with their sizes and when they were changed."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
