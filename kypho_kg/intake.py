"""From sources to records that are fit to reason on: reading, merging, overlays, shapes.

One bad file is reported and costs the others nothing.
"""

from __future__ import annotations

import functools
import gzip
import pickle
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kypho_kg.errors import InputError, Problem, UsageError
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import Mappings, load_mappings
from kypho_kg.plausibility import believable
from kypho_kg.record import PATIENT, PROCEDURE, Record
from kypho_kg.sources.patient_file import merge, overlay, read_overlay, read_patient_file
from kypho_kg.validation import Severity, ValidationResult, validate_record
from kypho_kg.vocabulary import local


@dataclass(frozen=True, slots=True)
class Intake:
    """The records of some sources, what is wrong with the rest, and what was read of each source."""

    records: list[Record]
    problems: list[Problem]
    reports: list[IntakeReport]


def read_records(
    files: Iterable[Path], knowledge: Knowledge, overlays: Sequence[Path] = ()
) -> tuple[list[Record], list[Problem]]:
    """The records of the files that can be read and conform, and what is wrong with the others.

    :param overlays: files with author and reason that add or override facts.
    :raises InputError: when an overlay itself is wrong, for then the answer would not be the one asked for.
    """
    found = read_sources(files, knowledge, overlays)
    return found.records, found.problems


def read_sources(
    paths: Iterable[Path],
    knowledge: Knowledge,
    overlays: Sequence[Path] = (),
    *,
    mapping: Path | None = None,
    mappings: Sequence[Path] = (),
    patients: Collection[str] = (),
) -> Intake:
    """The records of patient files, FHIR, tables and RDF; sources that name the same patient are merged.

    A fact of a patient file that violates a shape is an error of the file; of any other source it is kept, counts as
    unknown, and is told.

    :param mapping: for tables, the file that says what each column is.
    :param mappings: SSSOM and roll-up files of the user, which say what further codes mean.
    :param patients: only those with these ids, and all where there are none. The others are read, since a source does
        not say beforehand whose a row is, and are neither checked nor kept.
    :raises InputError: when an overlay or a mapping file is wrong, for then the answer would not be the one asked for.
    :raises UsageError: for a table without a mapping, or when a patient is in none of the sources.
    """
    problems: list[Problem] = []
    reports: list[IntakeReport] = []
    merged: dict[str, list[Record]] = {}
    wanted = _Wanted(patients)
    for record in _read(paths, knowledge, mapping, _codes(knowledge, mappings), reports, problems, False, wanted):
        merged.setdefault(record.patient, []).append(record)
    wanted.check(problems)
    records: list[Record] = []
    for same in merged.values():
        try:
            records.extend(merge(same))
        except InputError as error:
            problems.extend(error.problems)
    for path in overlays:
        over = read_overlay(path, knowledge)
        targets = [r for r in records if not over.patient or r.patient == over.patient]
        if len(targets) != 1:
            what = f"patient {over.patient!r} is not among those read" if over.patient else "names no patient"
            raise InputError([*problems, Problem(path.name, what, "the id of a patient of the sources")])
        new = overlay(targets[0], over)
        reject_invalid(new, knowledge)
        records = [new if r is targets[0] else r for r in records]
    return Intake(records, problems, reports)


@dataclass(slots=True)
class Stream:
    """The records of some sources, one patient at a time and each once, in the order in which the patients came."""

    patients: int
    records: Iterator[Record]
    reports: list[IntakeReport]
    problems: list[Problem] = field(default_factory=list)
    """What is wrong with the sources; what is wrong with the records of one patient comes as they are read."""


def stream_sources(
    paths: Iterable[Path],
    knowledge: Knowledge,
    overlays: Sequence[Path] = (),
    *,
    mapping: Path | None = None,
    mappings: Sequence[Path] = (),
    read: Callable[[], object] = lambda: None,
    many: bool = False,
    patients: Collection[str] = (),
) -> Stream:
    """The same records as :func:`read_sources`, with memory for one patient at a time.

    All sources are read first, into a temporary database without a name, since a patient may come again in the last
    one.

    :param mappings: SSSOM and roll-up files of the user, which say what further codes mean.
    :param read: called after each record of a source.
    :param many: ask the shapes only where a value lies beyond their limits; what else they say holds for all that the
        readers make, patient files aside.
    :param patients: as for :func:`read_sources`.
    :raises InputError: when an overlay or a mapping file is wrong.
    :raises UsageError: for a table without a mapping, or when a patient is in none of the sources.
    """
    over = [(path, read_overlay(path, knowledge)) for path in overlays]
    stream = Stream(0, iter(()), [])
    held, wanted = _Held(), _Wanted(patients)
    try:
        codes = _codes(knowledge, mappings)
        for record in _read(paths, knowledge, mapping, codes, stream.reports, stream.problems, many, wanted):
            held.add(record)
            read()
        wanted.check(stream.problems)
        stream.patients = held.patients()
        changed: dict[str, Record] = {}
        for path, one in over:
            patient = one.patient or (held.only() if stream.patients == 1 else "")
            records = [changed[patient]] if patient in changed else held.of(patient)
            if not records:
                what = f"patient {one.patient!r} is not among those read" if one.patient else "names no patient"
                raise InputError([*stream.problems, Problem(path.name, what, "the id of a patient of the sources")])
            changed[patient] = overlay(merge(records)[0], one)
            reject_invalid(changed[patient], knowledge)
    except BaseException:
        held.close()
        raise
    stream.records = _merged(held, changed, stream.problems)
    return stream


def _merged(held: _Held, changed: dict[str, Record], problems: list[Problem]) -> Iterator[Record]:
    try:
        for patient, records in held:
            try:
                yield from [changed[patient]] if patient in changed else merge(records)
            except InputError as error:
                problems.extend(error.problems)
    finally:
        held.close()


class _Wanted:
    """The patients that are asked for, and which of them a source has."""

    def __init__(self, ids: Collection[str]) -> None:
        self._ids = dict.fromkeys(ids)
        self._seen: set[str] = set()

    def has(self, record: Record) -> bool:
        """Whether a record is asked for."""
        if not self._ids:
            return True
        if record.patient not in self._ids:
            return False
        self._seen.add(record.patient)
        return True

    def check(self, problems: Sequence[Problem]) -> None:
        """Refuse an id that no source has; who else is in the sources is not said."""
        missing = [repr(id_) for id_ in self._ids if id_ not in self._seen]
        if missing:
            found = "is in none of the sources" if len(missing) == 1 else "are in none of the sources"
            told = f"--patient: {', '.join(missing)} {found}; expected an id as a source writes it"
            raise UsageError("\n".join([*map(str, problems), told]))


class _Held:
    """Records by patient, in a temporary database without a name, which goes with the process."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("CREATE TABLE held (patient TEXT, body BLOB)")
        self._db.execute("CREATE INDEX by_patient ON held (patient)")

    def close(self) -> None:
        self._db.close()

    def add(self, record: Record) -> None:
        body = zlib.compress(pickle.dumps(record), 1)
        self._db.execute("INSERT INTO held VALUES (?, ?)", (record.patient, body))

    def patients(self) -> int:
        return int(self._db.execute("SELECT COUNT(DISTINCT patient) FROM held").fetchone()[0])

    def only(self) -> str:
        return str(self._db.execute("SELECT patient FROM held LIMIT 1").fetchone()[0])

    def of(self, patient: str) -> list[Record]:
        found = self._db.execute("SELECT body FROM held WHERE patient = ? ORDER BY rowid", (patient,))
        return [pickle.loads(zlib.decompress(body)) for (body,) in found]

    def __iter__(self) -> Iterator[tuple[str, list[Record]]]:
        for (patient,) in self._db.execute("SELECT patient FROM held GROUP BY patient ORDER BY MIN(rowid)"):
            yield patient, self.of(patient)


_Codes = Callable[[], Mappings]
"""What codes mean; read once for all sources, and not at all where none needs it."""


def _codes(knowledge: Knowledge, mappings: Sequence[Path]) -> _Codes:
    codes = functools.cache(lambda: load_mappings(knowledge, mappings))
    if mappings:
        codes()  # a mistake in a file of the user is said whatever the sources are
    return codes


def _read(
    paths: Iterable[Path],
    knowledge: Knowledge,
    mapping: Path | None,
    codes: _Codes,
    reports: list[IntakeReport],
    problems: list[Problem],
    many: bool,
    wanted: _Wanted,
) -> Iterator[Record]:
    """The records as they come, a patient as often as it is named; reports and problems are filled on the way."""
    for path in paths:
        report = IntakeReport(path.name)
        reports.append(report)
        try:
            yield from _records_of(path, knowledge, report, mapping, codes, many, wanted)
        except InputError as error:
            report.rejected.extend(error.problems)
        problems.extend(report.rejected)


def _records_of(
    path: Path,
    knowledge: Knowledge,
    report: IntakeReport,
    mapping: Path | None,
    codes: _Codes,
    many: bool,
    wanted: _Wanted,
) -> Iterator[Record]:
    kind = source_kind(path)
    if kind == PATIENT_FILE:
        record = read_patient_file(path, knowledge)
        mine = wanted.has(record)
        if mine:
            reject_invalid(record, knowledge)
        report.saw("patient files")
        report.records += 1
        if mine:
            yield record
        return
    by_codes = (codes().sha256,) if kind in (FHIR, OMOP) else None
    for record in _of_other(kind, path, knowledge, report, mapping, codes):
        if not wanted.has(record):
            continue
        marked = record if by_codes is None else replace(record, mappings=by_codes)
        marked = mark_invalid(marked, many=many)
        for fact in marked.facts:
            if fact.invalid:
                report.left(local(fact.feature), f"a value that is not believed: {fact.invalid}")
        yield marked


def _of_other(
    kind: str, path: Path, knowledge: Knowledge, report: IntakeReport, mapping: Path | None, codes: _Codes
) -> Iterator[Record]:
    if kind == FHIR:
        from kypho_kg.sources.fhir import read_fhir

        return read_fhir(path, knowledge, report, mappings=codes())
    if kind == OMOP:
        from kypho_kg.sources.omop import read_omop

        return read_omop(path, knowledge, report, mappings=codes())
    if kind == RDF:
        from kypho_kg.sources.rdf import read_rdf

        return read_rdf(path, knowledge, report)
    if kind == FACT_TABLE:
        from kypho_kg.fact_table import read_fact_table

        return read_fact_table(path, knowledge, report)
    from kypho_kg.sources.table import read_table

    if mapping is None:
        raise UsageError(f"{path.name} is a table: say with --mapping what its columns are ('map init' writes a start)")
    return read_table(path, mapping, knowledge, report, codes())


PATIENT_FILE, FHIR, OMOP, RDF, TABLE, FACT_TABLE = "patient file", "FHIR", "OMOP", "RDF", "table", "fact table"
_TABLES = ("facts", "cases")
_ENDINGS = {
    **dict.fromkeys((".ttl", ".trig", ".nt", ".nq", ".rdf", ".owl", ".jsonld"), RDF),
    **dict.fromkeys((".csv", ".tsv", ".parquet"), TABLE),
    **dict.fromkeys((".duckdb", ".db"), OMOP),
    ".ndjson": FHIR,
}


def source_kind(path: Path) -> str:
    """Of what kind a source is: by its ending, of a ``.json`` by whether it is FHIR, of a folder by what it holds."""
    if path.is_dir():
        if all(any((path / f"{name}{ending}").exists() for ending in ("", ".parquet", ".csv")) for name in _TABLES):
            return FACT_TABLE
        return OMOP if _is_omop(path) else FHIR
    name = path.name.lower().removesuffix(".gz")
    ending = Path(name).suffix
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    return FHIR if ending == ".json" and _is_fhir(path) else PATIENT_FILE


def _is_omop(path: Path) -> bool:
    from kypho_kg.sources.omop import is_omop

    return is_omop(path)


def _is_fhir(path: Path) -> bool:
    opened = gzip.open if path.name.lower().endswith(".gz") else Path.open
    try:
        with opened(path, "rb") as file:
            return b'"resourceType"' in file.read(4096)
    except (OSError, EOFError):
        return False


def reject_invalid(record: Record, knowledge: Knowledge) -> None:
    """Refuse a record that violates a shape.

    :raises InputError: with the file, line and field of each violation, and what would be right.
    """
    problems = [_problem(record, knowledge, r) for r in _violations(record)]
    if problems:
        raise InputError(problems)


def mark_invalid(record: Record, *, many: bool = False) -> Record:
    """The record with each fact that violates a shape marked; such a fact counts as unknown: invalid.

    :param many: as for :func:`stream_sources`.
    """
    if many and all(map(believable, record.facts)):
        return record
    facts = list(record.facts)
    for result in _violations(record):
        if result.fact_index is not None:
            shape = result.source_shape.rpartition("#")[2]
            facts[result.fact_index] = replace(facts[result.fact_index], invalid=f"{shape}: {result.message}")
    return replace(record, facts=tuple(facts))


def _violations(record: Record) -> Iterator[ValidationResult]:
    report = validate_record(record)
    yield from (r for r in report.results if r.severity is Severity.VIOLATION)


def _problem(record: Record, k: Knowledge, result: ValidationResult) -> Problem:
    if result.fact_index is None:
        return Problem(record.place, f"{result.value}: {result.message}")
    fact = record.facts[result.fact_index]
    places = {PATIENT: "patient", PROCEDURE: "procedure"}
    where = f"{fact.source.origin}, {places.get(fact.subject, fact.subject.replace(':', ' '))}"
    value = result.value if fact.value is None else fact.value
    return Problem(where, f"{local(fact.feature)} is {value}. {result.message}")
