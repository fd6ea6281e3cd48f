"""From a population to files: facts and cases, patient files or FHIR, with what was planted and what is expected."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kypho_kg.errors import UsageError
from kypho_kg.fact_rows import WORD
from kypho_kg.fact_table import FactTableWriter, parquet_writer, records_of
from kypho_kg.fhir_synth import FhirWriter, as_line
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import load_mappings
from kypho_kg.synth import BATCH, Batch, Generator
from kypho_kg.synth_files import patient_file
from kypho_kg.synth_rows import LESIONS
from kypho_kg.synth_trouble import KINDS

FACTS, PATIENT, FHIR = "facts", "patient", "fhir"
FORMATS = (FACTS, PATIENT, FHIR)

_PLANTED = pa.schema([("patient", pa.int64()), ("lesion", WORD), ("feature", WORD), ("kind", WORD)])
_EXPECTED = pa.schema([("patient", pa.int64()), ("lesion", WORD), ("clause", WORD), ("truth", WORD)])


@dataclass(slots=True)
class Summary:
    """What was written."""

    patients: int = 0
    cases: int = 0
    facts: int = 0
    planted: Counter[str] = field(default_factory=Counter)
    expected: Counter[str] = field(default_factory=Counter)
    """Patients that were aimed, by truth."""
    carried: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """FHIR: facts that a Bundle cannot hold, by feature."""


def synthesize(
    generator: Generator, knowledge: Knowledge, count: int, folder: Path, form: str = FACTS, *, batch: int = BATCH
) -> Summary:
    """Write patients 0 to ``count`` - 1 to a folder; the same seed and number give the same bytes.

    :param form: ``facts``: the fact table; ``patient``: a patient file each; ``fhir``: ``bundles.ndjson``.
    :raises UsageError: when the folder cannot be written.
    """
    summary = Summary()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            planted, expected = (
                stack.enter_context(parquet_writer(folder / f"{name}.parquet", schema))
                for name, schema in (("planted", _PLANTED), ("expected", _EXPECTED))
            )
            write = stack.enter_context(_writer(form, generator, knowledge, folder, summary))
            for one in generator.batches(count, batch):
                write(one)
                summary.cases += one.cases.num_rows
                summary.facts += one.facts.num_rows
                _planted(planted, one, generator.features, summary)
                _expected(expected, one, summary)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}") from None
    summary.patients = count
    return summary


@contextlib.contextmanager
def _writer(
    form: str, generator: Generator, k: Knowledge, folder: Path, summary: Summary
) -> Iterator[Callable[[Batch], None]]:
    if form == FACTS:
        with FactTableWriter(folder, pa.int64()) as table:
            yield lambda batch: table.write(batch.facts, batch.cases)
    elif form == PATIENT:

        def each(batch: Batch) -> None:
            for record in records_of(batch.facts, batch.cases, k):
                (folder / f"{int(record.patient):07}.yaml").write_text(patient_file(record, k), "utf-8")

        yield each
    elif form == FHIR:
        fhir = FhirWriter(k, load_mappings(k))
        with (folder / "bundles.ndjson").open("w", encoding="utf-8", newline="\n") as lines:

            def bundles(batch: Batch) -> None:
                for record in records_of(batch.facts, batch.cases, k):
                    lines.write(as_line(fhir.bundle(record)) + "\n")

            yield bundles
        summary.carried, summary.left_out = fhir.carried, fhir.left_out
    else:
        raise UsageError(f"unknown format {form!r}; known: {', '.join(FORMATS)}")


def _planted(writer: Any, batch: Batch, features: list[str], summary: Summary) -> None:
    marks = batch.planted
    if not len(marks):
        return
    lesion = (marks.unit & 7).astype(np.int32)
    columns = [
        pa.array(marks.unit >> 3, pa.int64()),
        pa.DictionaryArray.from_arrays(
            pa.array(np.maximum(lesion - 1, 0), pa.int32(), mask=lesion == 0), pa.array(LESIONS)
        ),
        pa.DictionaryArray.from_arrays(pa.array(marks.feature.astype(np.int32)), pa.array(features)),
        pa.DictionaryArray.from_arrays(pa.array(marks.kind.astype(np.int32)), pa.array(KINDS)),
    ]
    writer.write_table(pa.Table.from_arrays(columns, schema=_PLANTED))
    for kind, number in enumerate(np.bincount(marks.kind, minlength=len(KINDS)).tolist()):
        summary.planted[KINDS[kind]] += number


def _expected(writer: Any, batch: Batch, summary: Summary) -> None:
    if not batch.expected:
        return
    patients, clauses, truths = zip(*batch.expected, strict=True)
    columns = [patients, [LESIONS[0]] * len(patients), clauses, truths]
    arrays = [pa.array(list(c), f.type) for c, f in zip(columns, _EXPECTED, strict=True)]
    writer.write_table(pa.Table.from_arrays(arrays, schema=_EXPECTED))
    summary.expected.update(truths)
