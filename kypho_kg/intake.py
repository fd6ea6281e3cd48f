"""From files to records that are fit to reason on: reading, merging, overlays, shapes.

One bad file is reported and costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kypho_kg.errors import InputError, Problem
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import PATIENT, PROCEDURE, Record
from kypho_kg.sources.patient_file import merge, overlay, read_overlay, read_patient_file
from kypho_kg.validation import Severity, ValidationResult, validate_record
from kypho_kg.vocabulary import local


def read_records(
    files: Iterable[Path], knowledge: Knowledge, overlays: Sequence[Path] = ()
) -> tuple[list[Record], list[Problem]]:
    """The records of the files that can be read and conform, and what is wrong with the others.

    :param overlays: files with author and reason that add or override facts.
    :raises InputError: when an overlay itself is wrong, for then the answer would not be the one asked for.
    """
    records: list[Record] = []
    problems: list[Problem] = []
    for path in files:
        try:
            record = read_patient_file(path, knowledge)
            reject_invalid(record, knowledge)
            records.append(record)
        except InputError as error:
            problems.extend(error.problems)
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
    return records, problems


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
