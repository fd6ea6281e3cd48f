"""From sources to records that are fit to reason on: reading, merging, overlays, shapes.

One bad file is reported and costs the others nothing.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kypho_kg.errors import InputError, Problem, UsageError
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
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
    paths: Iterable[Path], knowledge: Knowledge, overlays: Sequence[Path] = (), *, mapping: Path | None = None
) -> Intake:
    """The records of patient files, FHIR, tables and RDF; sources that name the same patient are merged.

    A fact of a patient file that violates a shape is an error of the file; of any other source it is kept, counts as
    unknown, and is told.

    :param mapping: for tables, the file that says what each column is.
    :raises InputError: when an overlay itself is wrong, for then the answer would not be the one asked for.
    :raises UsageError: for a table without a mapping.
    """
    records: list[Record] = []
    problems: list[Problem] = []
    reports: list[IntakeReport] = []
    for path in paths:
        report = IntakeReport(path.name)
        reports.append(report)
        try:
            for record in _records_of(path, knowledge, report, mapping):
                records.append(record)
        except InputError as error:
            report.rejected.extend(error.problems)
        problems.extend(report.rejected)
    merged: dict[str, list[Record]] = {}
    for record in records:
        merged.setdefault(record.patient, []).append(record)
    records = []
    for same in merged.values():
        try:
            records.extend(merge(same))
        except InputError as error:
            problems.extend(error.problems)
    for path in overlays:
        over = read_overlay(path, knowledge)
        targets = [r for r in records if not over.patient or r.patient == over.patient]
        if len(targets) != 1:
            known = ", ".join(r.patient for r in records) or "none"
            what = f"patient {over.patient!r} is not among those assessed" if over.patient else "names no patient"
            raise InputError([*problems, Problem(path.name, what, f"the id of one of: {known}")])
        new = overlay(targets[0], over)
        reject_invalid(new, knowledge)
        records = [new if r is targets[0] else r for r in records]
    return Intake(records, problems, reports)


def _records_of(path: Path, knowledge: Knowledge, report: IntakeReport, mapping: Path | None) -> Iterator[Record]:
    kind = source_kind(path)
    if kind == PATIENT_FILE:
        record = read_patient_file(path, knowledge)
        reject_invalid(record, knowledge)
        report.saw("patient files")
        report.records += 1
        yield record
        return
    for record in _of_other(kind, path, knowledge, report, mapping):
        marked = mark_invalid(record)
        for fact in marked.facts:
            if fact.invalid:
                report.left(local(fact.feature), f"a value that is not believed: {fact.invalid}")
        yield marked


def _of_other(
    kind: str, path: Path, knowledge: Knowledge, report: IntakeReport, mapping: Path | None
) -> Iterator[Record]:
    if kind == FHIR:
        from kypho_kg.sources.fhir import read_fhir

        return read_fhir(path, knowledge, report)
    if kind == RDF:
        from kypho_kg.sources.rdf import read_rdf

        return read_rdf(path, knowledge, report)
    from kypho_kg.sources.table import read_table

    if mapping is None:
        raise UsageError(f"{path.name} is a table: say with --mapping what its columns are ('map init' writes a start)")
    return read_table(path, mapping, knowledge, report)


PATIENT_FILE, FHIR, RDF, TABLE = "patient file", "FHIR", "RDF", "table"
_ENDINGS = {
    **dict.fromkeys((".ttl", ".trig", ".nt", ".nq", ".rdf", ".owl", ".jsonld"), RDF),
    **dict.fromkeys((".csv", ".tsv", ".parquet"), TABLE),
    ".ndjson": FHIR,
}


def source_kind(path: Path) -> str:
    """Of what kind a source is: by its ending, and of a ``.json`` by whether it is a FHIR resource."""
    if path.is_dir():
        return FHIR
    name = path.name.lower().removesuffix(".gz")
    ending = Path(name).suffix
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    return FHIR if ending == ".json" and _is_fhir(path) else PATIENT_FILE


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


def mark_invalid(record: Record) -> Record:
    """The record with each fact that violates a shape marked; such a fact counts as unknown: invalid."""
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
        return Problem(", ".join(record.files) or f"patient {record.patient}", f"{result.value}: {result.message}")
    fact = record.facts[result.fact_index]
    places = {PATIENT: "patient", PROCEDURE: "procedure"}
    where = f"{fact.source.origin}, {places.get(fact.subject, fact.subject.replace(':', ' '))}"
    value = result.value if fact.value is None else fact.value
    return Problem(where, f"{local(fact.feature)} is {value}. {result.message}")
