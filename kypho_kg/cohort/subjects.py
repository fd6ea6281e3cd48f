"""Who is judged: patients, proposed procedures and lesions of a chunk, numbered, and the facts that belong to each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kypho_kg.cohort import columns
from kypho_kg.cohort.layout import LOWEST, PROCEDURES, Bytes, Flags, Ints


@dataclass(slots=True)
class Subjects:
    """Patients, their proposed procedures and their lesions, numbered in this order."""

    patients: pa.Array
    lesions: pa.Array
    """Ids of lesions, patient by patient."""
    owner: npt.NDArray[np.int64]
    """The patient of each lesion."""
    first: npt.NDArray[np.int64]
    """The first lesion of each patient; each has one at least."""
    as_of: Ints
    """Days since 1970, by patient."""
    has_procedure: Flags
    session_named: Flags
    in_session: Flags
    """By lesion."""
    asked: Flags
    """By lesion: whether it is judged."""
    service_start: Ints
    service_end: Ints
    """Days, by patient; the as-of date where no date of service is known."""
    state: pa.Array

    @property
    def size(self) -> int:
        """How many there are in all."""
        return 2 * len(self.patients) + len(self.lesions)

    def block(self, block: int) -> slice:
        """The numbers of the patients, the procedures or the lesions."""
        n = len(self.patients)
        return (slice(0, n), slice(n, 2 * n), slice(2 * n, self.size))[block]

    def owners(self) -> Ints:
        """The patient of every subject."""
        own = np.arange(len(self.patients))
        return np.concatenate((own, own, self.owner))


def subjects_of(cases: pa.Table) -> Subjects:
    """The subjects of a table of cases that is sorted by patient; several as-of dates make several patients."""
    n = cases.num_rows
    patient, day = cases["patient"].combine_chunks(), columns.days(cases["as_of"])
    new = np.ones(n, bool)
    if n > 1:
        new[1:] = columns.changes(patient) | (day[1:] != day[:-1])
    first = np.flatnonzero(new)
    owner = np.cumsum(new) - 1
    marks = {name: columns.truths(cases[name]) for name in ("has_procedure", "session_named", "in_session")}
    as_of = day[first]
    spans = [columns.days(cases[name], missing=LOWEST)[first] for name in ("service_start", "service_end")]
    known = (spans[0] != LOWEST) & (spans[1] != LOWEST)
    return Subjects(
        patient.take(pa.array(first)),
        cases["lesion"].combine_chunks(),
        owner,
        first,
        as_of,
        marks["has_procedure"][first],
        marks["session_named"][first],
        marks["in_session"] & marks["has_procedure"],
        columns.truths(cases["asked"]) if "asked" in cases.column_names else np.ones(n, bool),
        np.where(known, spans[0], as_of),
        np.where(known, spans[1], as_of),
        cases["state"].combine_chunks().take(pa.array(first)),
    )


def patients_of(column: pa.ChunkedArray, subjects: Subjects) -> tuple[Ints, Ints]:
    """Rows of the facts, each as often as its patient has as-of dates, and the patient of each."""
    ids = columns.one(column)
    if not len(ids):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    starts = np.concatenate(([0], np.flatnonzero(columns.changes(ids)) + 1))
    runs = ids.take(pa.array(starts))
    if pa.types.is_dictionary(runs.type):
        runs = runs.dictionary_decode()
    dated = subjects.patients
    if pa.types.is_dictionary(dated.type):
        dated = dated.dictionary_decode()
    fresh = np.concatenate(([True], columns.changes(dated))) if len(dated) else np.empty(0, bool)
    groups = np.flatnonzero(fresh)
    found = pc.index_in(runs.cast(dated.type), value_set=dated.take(pa.array(groups)))
    run = np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
    times = np.append(np.diff(groups), len(dated) - groups[-1]) if len(groups) else np.empty(0, np.int64)
    lengths = np.diff(np.append(starts, len(ids)))
    of_row = np.repeat(run, lengths)
    if len(times) and (times == 1).all() and (run >= 0).all():
        return np.arange(len(ids)), groups[of_row]
    copies = np.where(of_row < 0, 0, times[of_row]) if len(times) else np.zeros(len(of_row), np.int64)
    take = np.repeat(np.arange(len(ids)), copies)
    patient = groups[of_row[take]] if len(take) else np.empty(0, np.int64)
    before = np.cumsum(copies) - copies
    return take, patient + (np.arange(len(take)) - before[take])


def subject_of(column: pa.ChunkedArray, patient: Ints, bearer: Bytes, subjects: Subjects) -> Ints:
    """The subject of each fact; -1 where its lesion is not among the cases."""
    n = len(subjects.patients)
    ids = columns.one(column)
    if not pa.types.is_dictionary(ids.type):
        ids = ids.dictionary_encode()
    known = subjects.lesions
    known = known.dictionary_decode() if pa.types.is_dictionary(known.type) else known
    names = known.dictionary_encode()
    width = max(1, len(names.dictionary))
    key = subjects.owner * width + np.asarray(names.indices)
    to_name = pc.index_in(ids.dictionary.cast(names.dictionary.type), value_set=names.dictionary)
    to_name = np.append(np.asarray(to_name.fill_null(-1).to_numpy(zero_copy_only=False), np.int64), -2)
    name = to_name[np.asarray(ids.indices.fill_null(len(to_name) - 1))]
    subject = np.where(bearer == PROCEDURES, patient + n, patient)
    if n * width <= 50_000_000:
        table = np.full(n * width + 1, -1, np.int64)
        table[key] = np.arange(len(key))
        found = table[np.where(name >= 0, patient * width + name, n * width)]
    else:
        order = np.argsort(key, kind="stable")
        place = np.searchsorted(key[order], patient * width + name)
        place = np.minimum(place, len(key) - 1)
        hit = key[order][place] == patient * width + name
        found = np.where(hit & (name >= 0), order[place], -1)
    return np.where(name == -2, subject, np.where(found >= 0, found + 2 * n, -1))
