"""Patients in a folder: their facts, what follows from them and what guidelines say, for queries over many of them.

The folder holds an Oxigraph store (``rdf``), a lock, and a manifest: the version of the format, of the knowledge base
and of the software, and the options of the last load. Each patient is written in one transaction, so that a load that
is killed leaves every patient as it was before or as it is after; the next one goes on where it ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from kypho_kg import __version__, graph
from kypho_kg.candidacy import ALL, assess
from kypho_kg.case_graph import KINDS, asserted_graph, case_graphs, graph_name
from kypho_kg.errors import EngineError, InputError, Problem, UsageError
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import GRAPH as MAPPINGS
from kypho_kg.mappings import load_mappings
from kypho_kg.record import Record
from kypho_kg.store import DiskStore, Query, Result, Triple

FORMAT: Final = 1
KNOWLEDGE: Final = "https://w3id.org/kypho"
"""The graph of the knowledge base."""
_MANIFEST, _RDF, _LOCK = "manifest.json", "rdf", "lock"
_FLUSH_AFTER = 200_000
"""Triples after which the engine writes its memory to disk, which keeps the memory of a long load flat."""

LOADED = Query(
    f"""
    SELECT ?knowledge ?options (COUNT(?patient) AS ?patients)
    WHERE {{
      GRAPH <{DiskStore.NOTES}> {{
        ?patient <{DiskStore.NOTES}:knowledge> ?knowledge ;
                 <{DiskStore.NOTES}:options> ?options .
      }}
    }}
    GROUP BY ?knowledge ?options
    ORDER BY ?knowledge ?options
    """
)
"""How many patients of a store were judged by which knowledge base, with which options."""


_COMPACT_AFTER = 1_000_000
"""Triples of one load after which the files are put in order: a third smaller, and three times as fast to ask."""


class Outcome(StrEnum):
    """What a load did with a patient."""

    NEW = "new"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Options:
    """How patients are judged when they are loaded."""

    as_of: date | None = None
    """Overrides the dates of the records."""
    assume: tuple[str, ...] = ()
    guidelines: tuple[str, ...] = (ALL,)
    bridges: bool = True
    facts_only: bool = False
    """Whether only what is asserted is written."""

    def text(self) -> str:
        """The options as one line of JSON; the same options give the same text."""
        plain = {**asdict(self), "as_of": self.as_of.isoformat() if self.as_of else None}
        return json.dumps(plain, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Failure:
    """A patient that was not written, and whether that is the fault of an engine and not of the record."""

    problem: Problem
    engine: bool = False


class CaseStore:
    """A store that is open for loading; use it in a ``with`` statement."""

    def __init__(self, folder: Path, knowledge: Knowledge, options: Options) -> None:
        """Open the store of a folder, or make one.

        :raises UsageError: for a folder that holds something else, or an assumption policy or guideline that there is
            not.
        :raises EngineError: when another process has it open, or it cannot be written.
        """
        for name in options.assume:
            if name != "strict":
                knowledge.policy(name)
        for name in options.guidelines:
            if name != ALL:
                knowledge.guideline(name)
        self.folder, self.knowledge, self.options = folder, knowledge, options
        self._stack = contextlib.ExitStack()
        self._unflushed = self._written = 0
        _made(folder)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_locked(folder, alone=True))
            self._store = DiskStore(folder / _RDF)
            stack.callback(self._store.close)
            _write_manifest(folder, knowledge, options)
            self._write_knowledge()
            self._stack = stack.pop_all()

    def __enter__(self) -> CaseStore:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._stack:
            if kind is None and self._written > _COMPACT_AFTER:
                self._store.compact()

    def _write_knowledge(self) -> None:
        """Write the knowledge base and its mappings, unless the store holds just these."""
        graphs: dict[str, list[Triple]] = {
            KNOWLEDGE: list(self.knowledge.triples),
            MAPPINGS: list(load_mappings(self.knowledge).triples()),
        }
        digest = _digest(self.knowledge.sha256, *sorted(map(repr, graphs[MAPPINGS])))
        if self._store.notes(KNOWLEDGE).get("content") != digest:
            notes = {"content": digest, "sha256": self.knowledge.sha256, "version": self.knowledge.version}
            self._store.replace(KNOWLEDGE, graphs, notes)

    def put(self, record: Record, *, again: bool = False) -> Outcome:
        """Write a patient in place of what the store held of the same patient, unless that is the same.

        :param again: write it even then.
        :raises UsageError: when the patient is to be judged and there is no as-of date.
        :raises InputError: when the record cannot be written as RDF.
        :raises EngineError: when an engine fails; the store is then as it was.
        """
        owner, asserted = str(graph.patient_iri(record)), asserted_graph(record)
        notes = {
            "content": _digest(
                *map(repr, (record.lesions, record.procedure, record.as_of)),
                *(repr(row) for rows in asserted.values() for row in rows),
            ),
            "knowledge": self.knowledge.sha256,
            "software": __version__,
            "options": self.options.text(),
        }
        before = self._store.notes(owner)
        if before == notes and not again:
            return Outcome.UNCHANGED
        graphs = asserted if self.options.facts_only else self._judged(record)
        self._store.replace(owner, graphs, notes, [graph_name(record, kind) for kind in KINDS])
        size = sum(map(len, graphs.values()))
        self._unflushed += size
        self._written += size
        if self._unflushed > _FLUSH_AFTER:
            self._store.flush()
            self._unflushed = 0
        return Outcome.REPLACED if before else Outcome.NEW

    def _judged(self, record: Record) -> Mapping[str, list[Triple]]:
        o = self.options
        answer = assess(
            record,
            as_of=o.as_of,
            knowledge=self.knowledge,
            guidelines=o.guidelines,
            assume=o.assume,
            bridges=o.bridges,
            validate=False,
        )
        return case_graphs([answer])

    def load(self, records: Iterable[Record], *, again: bool = False) -> Iterator[Outcome | Failure]:
        """Write patients one after the other; one that cannot be written costs the others nothing.

        :param again: write also those that have not changed.
        """
        for record in records:
            where = record.place
            try:
                yield self.put(record, again=again)
            except (UsageError, InputError) as error:
                yield Failure(Problem(where, str(error)))
            except EngineError as error:
                yield Failure(Problem(where, str(error)), engine=True)


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _made(folder: Path) -> None:
    """Make the folder, for its owner alone, or see that it holds a store of this format.

    :raises UsageError: when it holds anything else.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise UsageError(f"--store {folder}: {error.strerror}") from None
    if _MANIFEST in held:
        read_manifest(folder)
    elif held - {_LOCK, _RDF, _MANIFEST + ".new"}:
        raise UsageError(f"--store {folder}: holds other files and no store; expected a store, or an empty folder")


def _write_manifest(folder: Path, knowledge: Knowledge, options: Options) -> None:
    manifest = {
        "format": FORMAT,
        "knowledge_base": {"version": knowledge.version, "sha256": knowledge.sha256},
        "software": f"kypho-kg {__version__}",
        "options": json.loads(options.text()),
    }
    new = folder / (_MANIFEST + ".new")
    try:
        new.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
        new.replace(folder / _MANIFEST)
    except OSError as error:
        raise EngineError(f"--store {folder}: cannot be written: {error.strerror}") from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of a store says.

    :raises UsageError: when there is none, or it is of another format.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"--store {folder}: no store; 'kypho-kg load' makes one") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise UsageError(f"--store {folder}: a store of format {found}; this version reads format {FORMAT}")
    return {str(key): value for key, value in manifest.items()}


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[Path]:
    """The folder of the RDF store, which no load changes meanwhile.

    :raises UsageError: when there is no store.
    :raises EngineError: while a load runs.
    """
    read_manifest(folder)
    with _locked(folder, alone=False):
        yield folder / _RDF


@contextlib.contextmanager
def _locked(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the lock of a store, alone or beside other readers; the system lets it go when the process ends.

    :raises EngineError: when another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: the engine itself refuses a second writer
        yield
        return
    path = folder / _LOCK
    try:
        file = path.open("ab" if alone else "rb")
    except OSError as error:
        if alone:
            raise EngineError(f"--store {folder}: cannot be written: {error.strerror}") from None
        yield  # a copy without its lock, or one on a read-only disk: nobody loads it
        return
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            what = "a load or a query of another process is running" if alone else "a load is running"
            raise EngineError(f"--store {folder}: {what}; try again when it is done") from None
        yield


def remarks(found: Result, knowledge: Knowledge) -> Sequence[str]:
    """What a reader of a store must know: judged by another knowledge base, not judged, or judged in several ways.

    :param found: the result of :data:`LOADED`.
    """
    rows = [tuple(getattr(term, "text", "") for term in row) for row in found.rows]
    other = sum(int(n) for sha, _, n in rows if sha != knowledge.sha256)
    bare = sum(int(n) for _, options, n in rows if json.loads(options)["facts_only"])
    said = []
    if not rows:
        said.append("the store holds no patient")
    if other:
        versions = ", ".join(sorted({sha[:12] for sha, _, _ in rows if sha != knowledge.sha256}))
        said.append(
            f"{other:,} patients of the store were loaded with another knowledge base (sha256 {versions}, "
            f"not {knowledge.sha256[:12]}); the answers are of that one: load them again"
        )
    if bare:
        said.append(f"{bare:,} patients of the store are not judged: they were loaded with --facts-only")
    ways = sorted({options for _, options, _ in rows})
    if len(ways) > 1:
        said.append(f"patients of the store were loaded with different options: {'; '.join(ways)}")
    return said
