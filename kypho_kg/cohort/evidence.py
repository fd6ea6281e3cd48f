"""The evidence of a part: for each case, clause and thing that it asks, the truth with the value and its date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kypho_kg.cohort.counts import Asked
from kypho_kg.cohort.judge import Judged
from kypho_kg.cohort.layout import CAUSES, HIGHEST, LESIONS, LOWEST, NO_CAUSE, PATIENTS, PROCEDURES, Bytes, Flags, Ints
from kypho_kg.cohort.logic import BLOCKS
from kypho_kg.cohort.rows import ABSENT, DAY, PRESENT, rows_of
from kypho_kg.cohort.snapshot import newest
from kypho_kg.criteria import ATOMS, Criterion, Op
from kypho_kg.guidelines import Recommendation
from kypho_kg.vocabulary import local

_WORD = pa.dictionary(pa.int8(), pa.string())
_NAME = pa.dictionary(pa.int32(), pa.string())
_NUMBER = pa.decimal128(18, 6)
TRUTHS = ("not met", "unknown", "met")
MEANING: Mapping[str, str] = {
    "patient": "id of the patient",
    "lesion": "id of the lesion",
    "as_of": "date on which the record was read",
    "clause": "id of the clause",
    "clause_truth": "met, not met or unknown",
    "clause_cause": "why the clause is unknown; of several causes the one that says most",
    "feature": "what is asked, by its local name",
    "asked": "the values asked for; empty for a finding",
    "truth": "truth of what is asked of the feature",
    "cause": "why that is unknown",
    "value": "what is known: local names, present or absent; a name after 'not' is ruled out; empty for numbers",
    "low": "quantity: lower end of what is known, in the unit of the feature",
    "high": "quantity: upper end",
    "low_open": "the lower end itself is excluded",
    "high_open": "the upper end itself is excluded",
    "date": "last day on which the newest fact that says so may have been observed; "
    "empty where it was stated as current, or derived",
}
"""The columns, with what they mean."""


def schema(patient: pa.DataType) -> pa.Schema:
    """The columns of the table of evidence."""
    kinds = {
        "patient": patient, "lesion": pa.string(), "as_of": pa.date32(), "clause": _NAME, "clause_truth": _WORD,
        "clause_cause": _WORD, "feature": _NAME, "asked": _NAME, "truth": _WORD, "cause": _WORD, "value": _NAME,
        "low": _NUMBER, "high": _NUMBER, "low_open": pa.bool_(), "high_open": pa.bool_(), "date": pa.date32(),
    }  # fmt: skip
    return pa.schema([(name, kinds[name]) for name in MEANING])


@dataclass(slots=True)
class _Cells:
    """What is known of a feature, by case."""

    value: pa.Array
    low: Ints
    high: Ints
    date: Ints
    """Days since 1970, ``LOWEST`` where there is none."""


class Evidence:
    """The evidence of the cases of a part, told clause by clause."""

    def __init__(
        self,
        judged: Judged,
        facts: pa.Table,
        asked: Asked,
        rows: npt.NDArray[np.intp],
        keys: Mapping[str, pa.Array],
    ) -> None:
        self.judged, self.asked, self.rows, self.keys = judged, asked, rows, keys
        self._values = rows_of(facts, judged.subjects, asked.layout).values
        self._known: dict[tuple[str, str, str], _Cells] = {}

    def tables(self, patients: pa.Array | None = None) -> Iterator[pa.Table]:
        """One table for each clause.

        :param patients: ids as texts; only the cases of these.
        """
        rows, keys = self.rows, dict(self.keys)
        if patients is not None:
            mine = pc.is_in(keys["patient"].cast(pa.string()), value_set=patients)
            rows = rows[np.asarray(mine)]
            keys = {name: column.filter(mine) for name, column in keys.items()}
        if not len(rows):
            return
        keys["lesion"] = keys["lesion"].cast(pa.string())
        kind = keys["patient"].type
        for r in self.asked.clauses:
            yield pa.concat_tables(self._clause(r, rows, keys)).cast(schema(kind))

    def _clause(self, r: Recommendation, rows: npt.NDArray[np.intp], keys: Mapping[str, pa.Array]) -> list[pa.Table]:
        logic, layout = self.judged.logic, self.asked.layout
        tree = layout.shared(r.criterion)
        n = len(rows)
        truth, cause = logic.truth(tree)[rows], logic.cause(tree)[rows]
        tables = []
        for link, atom in dict.fromkeys(_atoms(tree, "")):
            whole = layout.shared(Criterion(Op.LINK, (atom,), term=link))
            own, why = logic.truth(whole)[rows], logic.cause(whole)[rows]
            cells = self._cells(link, atom)
            low, high = cells.low[rows], cells.high[rows]
            silent = low > high
            day = cells.date[rows]
            columns = {
                **keys,
                "clause": _same(r.id, n),
                "clause_truth": _named(truth, TRUTHS),
                "clause_cause": _causes(cause),
                "feature": _same(local(atom.term), n),
                "asked": _same(_limit(atom), n),
                "truth": _named(own, TRUTHS),
                "cause": _causes(why),
                "value": _findings(own) if atom.op is Op.FINDING else cells.value.take(pa.array(rows)),
                "low": _decimal(low, silent | (low == LOWEST)),
                "high": _decimal(high, silent | (high == HIGHEST), upper=True),
                "low_open": pa.array((low & 1).astype(bool), mask=silent | (low == LOWEST)),
                "high_open": pa.array((high & 1).astype(bool), mask=silent | (high == HIGHEST)),
                "date": pa.array(np.where(day == LOWEST, 0, day).astype(np.int32), mask=day == LOWEST).cast(
                    pa.date32()
                ),
            }
            tables.append(pa.table(columns))
        return tables

    def _cells(self, link: str, atom: Criterion) -> _Cells:
        """What is known of what an atom asks, of each case through a link."""
        key = link, atom.term, atom.op
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._found(link, atom)
        return found

    def _found(self, link: str, atom: Criterion) -> _Cells:
        s, block = self.judged.subjects, BLOCKS[link]
        n = len(s.patients)
        cases = np.arange(len(s.owner))
        subject = {PATIENTS: s.owner, PROCEDURES: s.owner + n, LESIONS: cases + 2 * n}[block]
        linked = s.in_session if block == PROCEDURES else np.ones(len(cases), bool)
        nothing = np.full(len(cases), HIGHEST), np.full(len(cases), LOWEST)
        if atom.op is Op.FINDING:
            day = self._finding_days(atom.term, block)[subject]
            return _Cells(pa.nulls(len(cases), pa.string()), *nothing, np.where(linked, day, LOWEST))
        layout, series = self.asked.layout, self.judged.snapshot.series
        feature = layout.place[atom.term]
        slot = layout.slot[feature]
        day = np.where(linked, self._value_days(feature)[subject], LOWEST)
        if atom.op is Op.QUANTITY:
            low, high = series.low[slot][subject], series.high[slot][subject]
            none = pa.nulls(len(cases), pa.string())
            return _Cells(none, np.where(linked, low, HIGHEST), np.where(linked, high, LOWEST), day)
        return _Cells(_texts(self._words(feature), subject, linked), *nothing, day)

    def _words(self, feature: int) -> pa.Array:
        """The known value of a choice or category as text, by subject."""
        layout, series = self.asked.layout, self.judged.snapshot.series
        slot, place = layout.slot[feature], int(feature)
        if place in layout.values:
            names, known, out = layout.values[place], series.bits[slot], series.out[slot]
        else:
            names = layout.categories[place].classes
            cls = series.cls[slot].astype(np.int64)
            known = np.where(cls >= 0, np.uint64(1) << np.maximum(cls, 0).astype(np.uint64), np.uint64(0))
            out = series.cls_out[slot]

        def text(bits: int) -> str:
            return "|".join(sorted(local(name) for i, name in enumerate(names) if bits >> i & 1))

        word = np.where(known != 0, known, out)
        said, of = np.unique(np.stack((word, (known != 0).astype(np.uint64))), axis=1, return_inverse=True)
        texts = [(text(int(b)) if sure else f"not {text(int(b))}") if b else None for b, sure in said.T.tolist()]
        return pa.array(texts, pa.string()).take(pa.array(of.reshape(-1)))

    def _finding_days(self, term: str, block: int) -> Ints:
        """The day of the newest fact that makes a finding present or rules it out, by subject."""
        layout, s = self.asked.layout, self.judged.subjects
        recorded, state = self.judged.snapshot.recorded, self.judged.snapshot.findings
        rows, n = recorded.rows, len(s.patients)
        lesions = slice(2 * n, s.size)

        def days(slots: npt.NDArray[np.intp], polarity: int) -> tuple[Ints, Ints]:
            i = recorded.among(slots, polarity, state)
            return _last(rows.subject[i], rows.start[i], rows.end[i], rows.dated[i], s.size)

        yes, yes_day = days(layout.kinds_of(term), PRESENT)
        no, no_day = days(layout.wider(term), ABSENT)
        if block == PATIENTS:
            below, below_day = yes[lesions], yes_day[lesions]
            for i in range(int(np.diff(np.append(s.first, len(s.owner))).max(initial=0))):
                at = np.minimum(s.first + i, len(s.owner) - 1)
                later = (s.owner[at] == np.arange(n)) & (below[at] > yes[:n])
                yes[:n], yes_day[:n] = np.where(later, below[at], yes[:n]), np.where(later, below_day[at], yes_day[:n])
        elif block == LESIONS:
            later = no[:n][s.owner] > no[lesions]
            no_day[lesions] = np.where(later, no_day[:n][s.owner], no_day[lesions])
            no[lesions] = np.maximum(no[lesions], no[:n][s.owner])
        return np.where(yes != LOWEST, yes_day, no_day)

    def _value_days(self, feature: int) -> Ints:
        """The day of the newest fact that fits the known value of a feature, by subject."""
        layout, series, v = self.asked.layout, self.judged.snapshot.series, self._values
        slot, size = layout.slot[feature], self.judged.subjects.size
        mine = np.flatnonzero(v.feature == feature)
        subject = v.subject[mine]
        has = series.has(layout, feature)[subject]
        if int(feature) in layout.values:
            fits = (v.bits[mine] & series.bits[slot][subject]) != 0
        elif int(feature) in layout.categories:
            fits = np.ones(len(mine), bool)
        else:
            fits = (v.low[mine] <= series.high[slot][subject]) & (v.high[mine] >= series.low[slot][subject])
        polarity = v.polarity[mine]
        kept = mine[np.where(has, (polarity == PRESENT) & fits, polarity == ABSENT)]
        return _last(v.subject[kept], v.start[kept], v.end[kept], v.dated[kept], size)[1]


def _atoms(c: Criterion, link: str) -> Iterator[tuple[str, Criterion]]:
    """What a tree asks, each with the link through which it asks."""
    if c.op in ATOMS:
        yield link, c
    for child in c.children:
        yield from _atoms(child, c.term if c.op is Op.LINK else link)


def _last(subject: Ints, start: Ints, end: Ints, dated: Flags, size: int) -> tuple[Ints, Ints]:
    """End of the newest fact of each subject, and its day where it has a date of its own."""
    last = newest(subject, start, end, size)[1]
    stated = np.zeros(size, bool)
    stated[subject[(end == last[subject]) & ~dated]] = True
    return last, np.where((last == LOWEST) | stated, LOWEST, last // DAY)


def _same(text: str, n: int) -> pa.Array:
    places = pa.array(np.zeros(n, np.int32), mask=np.full(n, not text))
    return pa.DictionaryArray.from_arrays(places, pa.array([text], pa.string()))


def _named(codes: Bytes, names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), pa.array(names, pa.string()))


def _causes(codes: Bytes) -> pa.Array:
    known = codes != NO_CAUSE
    places = pa.array(np.where(known, codes, 0).astype(np.int8), mask=~known)
    return pa.DictionaryArray.from_arrays(places, pa.array([str(c) for c in CAUSES], pa.string()))


def _findings(truth: Bytes) -> pa.Array:
    return pa.array(["absent", None, "present"], pa.string()).take(pa.array(truth))


def _texts(words: pa.Array, subject: Ints, linked: Flags) -> pa.Array:
    return words.take(pa.array(subject, mask=~linked))


def _decimal(scaled: Ints, missing: Flags, upper: bool = False) -> pa.Array:
    """Scaled integers (see ``layout.py``) as decimal numbers, without the mark of an open end."""
    whole = np.where(missing, 0, (scaled + upper * (scaled & 1)) // 2)
    wide = np.stack((whole, whole >> 63), axis=1).astype(np.int64).tobytes()
    numbers = pa.Array.from_buffers(_NUMBER, len(whole), [None, pa.py_buffer(wide)])
    return pc.if_else(pa.array(missing), pa.scalar(None, _NUMBER), numbers)


def _limit(atom: Criterion) -> str:
    """The values that an atom asks for."""
    if atom.op is Op.QUANTITY and atom.range:
        r = atom.range
        ends = ((r.low, ">" if r.low_open else ">="), (r.high, "<" if r.high_open else "<="))
        return " and ".join(f"{sign} {end}" for end, sign in ends if end is not None)
    return "|".join(sorted(map(local, atom.values)))
