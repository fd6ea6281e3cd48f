"""A cohort, or some of it, as named graphs in N-Quads for a SPARQL store (docs/cohort-graph.md).

Of each patient the asserted graph is what was recorded, the inferred graph says which features are unknown and why,
and the judged graph holds verdicts and truths of clauses, in the vocabulary of ``case_graph.py`` and without proofs.
Everything is written as it is judged, a few thousand cases at a time.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final, cast
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from kypho_kg import graph
from kypho_kg.cohort.counts import KNOWN, Asked, state_of
from kypho_kg.cohort.judge import Judged, judge
from kypho_kg.cohort.layout import CAUSES
from kypho_kg.cohort.leaves import NOBODY, Leaves
from kypho_kg.cohort.logic import MET, NOT_MET, UNKNOWN
from kypho_kg.cohort.source import FactTable, PartOf, facts_of
from kypho_kg.cohort.verdicts import conclusions
from kypho_kg.cohort.wide import NAMES
from kypho_kg.errors import InputError, Problem, UsageError
from kypho_kg.fact_rows import cases_schema, facts_schema
from kypho_kg.fact_table import CASES, records_of
from kypho_kg.guidelines import Guideline
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Cause, Record
from kypho_kg.store import Store, Triple
from kypho_kg.verdicts import VERDICTS
from kypho_kg.vocabulary import KYPHO, TYPE, local

PART: Final = 2_000
"""Cases that are judged together: text of a case takes a megabyte."""
KNOWLEDGE: Final = "https://w3id.org/kypho"
"""The graph of the knowledge base."""
_TRUTH = {MET: "Met", NOT_MET: "NotMet", UNKNOWN: "UnknownTruth"}
_FORM = "GUIDELINE=VERDICT"


@dataclass(slots=True)
class Exported:
    """What was written."""

    patients: int = 0
    cases: int = 0
    quads: int = 0
    rejected: list[Problem] = field(default_factory=list)
    """Patients with a malformed row: they are left out."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Whose graphs are written; nothing given is all."""

    patients: Collection[str] | None = None
    guideline: str = ""
    """Only patients of whom this guideline says one of ``verdicts`` in some case."""
    verdicts: frozenset[str] = frozenset()


def read_verdict(text: str, knowledge: Knowledge) -> tuple[str, frozenset[str]]:
    """A guideline and verdicts from ``GUIDELINE=VERDICT,VERDICT``.

    :raises UsageError: for an unknown guideline or verdict, or another form.
    """
    name, equals, said = text.partition("=")
    found = frozenset(v.strip() for v in said.split(","))
    if not equals or not found <= set(VERDICTS):
        raise UsageError(f"--verdict {text!r}: expected {_FORM}, the verdict one of {', '.join(VERDICTS)}")
    return knowledge.guideline(name.strip()).id, found


def export_graphs(
    target: Path, table: FactTable, cases: pa.Table, asked: Asked, chosen: Chosen | None = None, *, bridges: bool = True
) -> Exported:
    """Write a file of N-Quads; gzipped if its name ends with ``.gz``.

    :raises UsageError: when it cannot be written, or a patient has more than one as-of date.
    """
    draft = target.with_name(target.name + ".draft")
    try:
        with _opened(draft, packed=target.suffix == ".gz") as out:
            found = write_graphs(out, table, cases, asked, chosen, bridges=bridges)
        draft.replace(target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return found


@contextmanager
def _opened(path: Path, *, packed: bool) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if not packed:
            yield file
            return
        with gzip.GzipFile("", "wb", 1, file, mtime=0) as out:
            yield cast("IO[bytes]", out)


def write_graphs(
    out: IO[bytes],
    table: FactTable,
    cases: pa.Table,
    asked: Asked,
    chosen: Chosen | None = None,
    *,
    bridges: bool = True,
    part: int = PART,
) -> Exported:
    """Write the knowledge base and the graphs of patients as N-Quads; the same data give the same bytes.

    :param cases: as :meth:`FactTable.dated` gives them, with one as-of date for each patient.
    :param chosen: whose graphs; all by default.
    :raises UsageError: when a patient has more than one as-of date, or the chosen guideline is not asked.
    """
    chosen = chosen or Chosen()
    if chosen.guideline and chosen.guideline not in {g.id for g in asked.guidelines}:
        raise UsageError(f"{chosen.guideline}: no guideline that is asked; add --guideline {chosen.guideline}")
    if pc.count_distinct(cases["patient"]).as_py() != _dates(cases):
        raise UsageError("a graph holds a patient as of one date: the index names several of one patient")
    if chosen.patients is not None:
        ids = pa.array(sorted(set(chosen.patients)), pa.string())
        cases = cases.filter(pc.is_in(cases["patient"].cast(pa.string()), value_set=ids)).combine_chunks()
    found = Exported()
    found.quads += _written(out, _knowledge(asked.layout.k))
    for one in table.parts(cases, part):
        rows = cases.slice(one.start, one.stop - one.start)
        _part(out, one, rows, asked, chosen, bridges, found, table.files[CASES][0].name)
    return found


def _dates(cases: pa.Table) -> int:
    return int(cases.select(["patient", "as_of"]).group_by(["patient", "as_of"]).aggregate([]).num_rows)


def _part(
    out: IO[bytes], part: PartOf, cases: pa.Table, asked: Asked, chosen: Chosen, bridges: bool, found: Exported,
    cases_file: str,
) -> None:  # fmt: skip
    judged = judge(facts_of(part), cases, asked.layout, bridges=bridges)
    writer = _Writer(judged, asked)
    wanted = judged.subjects.asked & ~judged.rejected
    first: dict[int, str] = {}
    for reason, patients in judged.reasons.items():
        first |= {p: reason for p in patients.tolist() if p not in first}
    found.rejected += [Problem("facts", f"a patient: {reason}") for reason in first.values()]
    if chosen.guideline:
        codes = [VERDICTS.index(v) for v in chosen.verdicts]
        fits = wanted & np.isin(writer.verdicts[[g.id for g in asked.guidelines].index(chosen.guideline)], codes)
        wanted &= np.isin(judged.subjects.owner, judged.subjects.owner[fits])
    for record, rows in _records(part, cases, np.flatnonzero(wanted), judged, asked.layout.k, found, cases_file):
        patient = writer.patient(record, rows)
        found.quads += _written(out, _asserted(record)) + _written(out, patient)
        found.patients += 1
        found.cases += len(rows)


def _written(out: IO[bytes], lines: bytes) -> int:
    out.write(lines)
    return lines.count(b"\n")


def _quads(graphs: Mapping[str, Sequence[Triple]]) -> bytes:
    """Graphs as N-Quads, in one order."""
    lines = Store((), graphs).dump().partition(b"\n")[2].splitlines(keepends=True)
    return b"".join(sorted(lines))


@functools.lru_cache(maxsize=1)
def _knowledge(k: Knowledge) -> bytes:
    """The knowledge base, with the same names of blank nodes each time."""
    names: dict[str, str] = {}

    def plain(node: str) -> str:
        return names.setdefault(node, f"_:b{len(names)}") if node.startswith("_:") else node

    return _quads({KNOWLEDGE: [(plain(s), p, plain(o) if isinstance(o, str) else o) for s, p, o in k.triples]})


def graph_name(record: Record, kind: str) -> str:
    """The name of a patient's graph, as in ``case_graph.py``."""
    return f"{graph.patient_iri(record)}/graph/{kind}"


def _asserted(record: Record) -> bytes:
    name = graph_name(record, "asserted")
    kind: Triple = (name, TYPE, KYPHO + "AssertedGraph")
    return _quads({name: [kind, *graph.plain_triples(graph.record_graph(record))]})


# --------------------------------------------------------------------------------------------------------------------
# Records


def _records(
    part: PartOf, cases: pa.Table, wanted: Any, judged: Judged, k: Knowledge, found: Exported, cases_file: str
) -> Iterator[tuple[Record, list[int]]]:
    """The records of the patients of some cases, with the places of their cases."""
    if not len(wanted):
        return
    owner = judged.subjects.owner
    facts = _facts(part, cases["patient"].take(pa.array(wanted)).unique())
    ids = facts["patient"].to_numpy(zero_copy_only=False) if facts.num_rows else np.empty(0, object)
    rows = cases.select(cases_schema().names)
    for patient in dict.fromkeys(owner[wanted].tolist()):
        places = np.flatnonzero(owner == patient)
        id_ = rows["patient"][int(places[0])].as_py()
        first, last = np.searchsorted(ids, id_, "left"), np.searchsorted(ids, id_, "right")
        own = facts.slice(first, last - first)
        mine = rows.slice(int(places[0]), len(places))
        try:
            (one,) = records_of(_batch(own, facts_schema(own.schema.field("patient").type)), _batch(mine), k)
        except InputError as error:
            found.rejected += error.problems
            continue
        record = replace(one, files=(cases_file,))
        yield record, [i for i in places.tolist() if judged.subjects.asked[i]]


def _batch(table: pa.Table, schema: pa.Schema | None = None) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema or table.schema)


def _facts(part: PartOf, patients: pa.Array) -> pa.Table:
    """All columns of the facts of some patients, in their order."""
    tables = []
    for group in part.groups:
        with parquet.ParquetFile(group.file) as file:
            table = file.read_row_group(group.number)
        ids = table["patient"]
        table = table.filter(pc.is_in(ids.cast(patients.type), value_set=patients))
        if "source" not in table.column_names:
            table = table.append_column("source", pa.nulls(table.num_rows, pa.string()))
        place = table.column_names.index("source")
        origin = pc.fill_null(table["source"].cast(pa.string()), Path(group.file).name)
        tables.append(table.set_column(place, "source", origin).cast(facts_schema(patients.type)))
    empty = facts_schema(patients.type).empty_table()
    return pa.concat_tables(tables or [empty]).combine_chunks().unify_dictionaries()


# --------------------------------------------------------------------------------------------------------------------
# What is inferred and judged


class _Writer:
    """Lines of the inferred and the judged graphs of a part; strings are put together, for there are millions."""

    def __init__(self, judged: Judged, asked: Asked) -> None:
        self.judged, self.asked = judged, asked
        found = [conclusions(judged, g, asked.layout) for g in asked.guidelines]
        self.verdicts = [verdict for verdict, _ in found]
        self.ends = [ends for _, ends in found]
        logic, shared = judged.logic, asked.layout.shared
        self.truths = {
            r.id: logic.truth(shared(r.criterion)).tolist() for g in asked.guidelines for r in g.recommendations
        }
        self.states = {f: state_of(logic, asked.layout, f) for f in asked.features}
        self.points = {
            r.id: Leaves(judged).by_case(shared(r.criterion)) for g in asked.guidelines for r in g.recommendations
        }

    def patient(self, record: Record, places: Sequence[int]) -> bytes:
        """The inferred and the judged graph of a patient."""
        inferred, judged = graph_name(record, "inferred"), graph_name(record, "judged")
        lines = [f"<{inferred}> <{TYPE}> <{KYPHO}InferredGraph> <{inferred}> ."]
        rest = [f"<{judged}> <{TYPE}> <{KYPHO}JudgedGraph> <{judged}> ."]
        for place in places:
            lesion = self.judged.subjects.lesions[place].as_py()
            case = str(graph.case_iri(record, lesion))
            subjects = (graph.patient_iri(record), graph.procedure_iri(record), graph.lesion_iri(record, lesion))
            whom = {block: str(iri) for block, iri in enumerate(subjects)}
            lines += self._unknown(case, whom, place, f"<{inferred}> .")
            rest += self._judged(case, whom, place, f"<{judged}> .")
        return ("\n".join([*lines, *rest]) + "\n").encode()

    def _unknown(self, case: str, whom: Mapping[int, str], place: int, end: str) -> Iterator[str]:
        layout = self.asked.layout
        for feature, states in self.states.items():
            if states[place] != KNOWN:
                f, block = layout.features[feature], int(layout.bearer[feature])
                node = _point(case, block, f.iri)
                yield from _described(node, whom[block], f.iri, CAUSES[states[place]], end)

    def _judged(self, case: str, whom: Mapping[int, str], place: int, end: str) -> Iterator[str]:
        further: dict[tuple[int, str], Cause] = {}
        for g, verdicts, ends in zip(self.asked.guidelines, self.verdicts, self.ends, strict=True):
            node = f"{case}/assessment/{g.id}"
            yield f"<{node}> <{TYPE}> <{KYPHO}Assessment> {end}"
            yield f"<{node}> <{KYPHO}ofCase> <{case}> {end}"
            yield f"<{node}> <{KYPHO}byGuideline> <{g.iri}> {end}"
            yield f"<{node}> <{KYPHO}verdict> <{KYPHO}{VERDICTS[verdicts[place]]}> {end}"
            for number, name in enumerate(VERDICTS):
                if int(ends[place]) >> number & 1:
                    yield f"<{node}> <{KYPHO}reachable> <{KYPHO}{name}> {end}"
            yield from self._clauses(node, case, g, place, end, further)
        for (block, term), cause in sorted(further.items()):
            yield from _described(_point(case, block, term), whom.get(block, ""), term, cause, end)

    def _clauses(
        self, node: str, case: str, g: Guideline, place: int, end: str, further: dict[tuple[int, str], Cause]
    ) -> Iterator[str]:
        for r in g.recommendations:
            if r.reading:
                continue
            clause, truth = f"{node}/{r.clause}", self.truths[r.id][place]
            yield f"<{node}> <{KYPHO}considers> <{r.iri}> {end}"
            yield f"<{node}> <{KYPHO}hasClauseTruth> <{clause}> {end}"
            yield f"<{clause}> <{TYPE}> <{KYPHO}ClauseTruth> {end}"
            yield f"<{clause}> <{KYPHO}ofRecommendation> <{r.iri}> {end}"
            yield f"<{clause}> <{KYPHO}effect> <{KYPHO}{r.effect}> {end}"
            yield f"<{clause}> <{KYPHO}truth> <{KYPHO}{_TRUTH[truth]}> {end}"
            for block, term, cause in self.points[r.id].get(place, ()):
                yield f"<{clause}> <{KYPHO}hasOpenPoint> <{_point(case, block, term)}> {end}"
                if not self._told(block, term, place):
                    further[block, term] = CAUSES[cause]

    def _told(self, block: int, term: str, place: int) -> bool:
        """Whether the inferred graph says that a feature is unknown: of its own bearer, and if it has no value."""
        layout = self.asked.layout
        return block != NOBODY and bool(
            layout.bearer[layout.place[term]] == block and self.states[layout.place[term]][place] != KNOWN
        )


def _point(case: str, block: int, term: str) -> str:
    return f"{case}/open/{NAMES.get(block, 'clause')}/{_quoted(term)}"


@functools.cache
def _quoted(term: str) -> str:
    return quote(local(term), safe="")


def _described(node: str, subject: str, term: str, cause: Cause, end: str) -> Iterator[str]:
    yield f"<{node}> <{TYPE}> <{KYPHO}OpenPoint> {end}"
    if subject:
        yield f"<{node}> <{KYPHO}aboutSubject> <{subject}> {end}"
    yield f"<{node}> <{KYPHO}feature> <{term}> {end}"
    yield f"<{node}> <{KYPHO}causeOfUnknown> <{KYPHO}{cause}> {end}"
