"""Answers as tables, in CSV or Parquet: verdicts, clauses, patients without a case, and what each column means.

Answers are written one after another; no more than a batch of rows is held. A file appears under its name when all of
them are complete.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from kypho_kg.answer_columns import (
    DICTIONARY,
    DICTIONARY_COLUMNS,
    METADATA,
    SEPARATOR,
    TABLES,
    Column,
    Kind,
    csvw,
    dictionary,
)
from kypho_kg.candidacy import Answer, Assessment, ClauseResult, cautions, documentation
from kypho_kg.criteria import Op
from kypho_kg.errors import UsageError
from kypho_kg.evaluation import Proof
from kypho_kg.explanation import Explained, explain
from kypho_kg.guidelines import UNVERIFIED
from kypho_kg.proof_json import cause_of
from kypho_kg.reasons import deciding
from kypho_kg.record import PROCEDURE, Fact, Polarity, Range, TimeSpan, Value
from kypho_kg.report import level_names
from kypho_kg.vocabulary import local
from kypho_kg.words import said

Row = dict[str, Any]


class Format(StrEnum):
    """Formats of the tables."""

    CSV = "csv"
    PARQUET = "parquet"


BATCH = 5_000
"""Rows that are held before they are written to Parquet."""
DIGITS, PLACES = 38, 10
"""Digits of a number in Parquet, and how many of them stand behind the point."""

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_PLAIN = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


def write_tables(answers: Iterable[Answer], folder: Path, format_: str = "csv") -> list[Path]:
    """Write the tables of some answers, one answer after another; older ones of the same name are replaced.

    :param format_: ``csv`` or ``parquet``.
    :returns: the files written.
    :raises UsageError: for another format, and for a folder that cannot be written to.
    """
    if format_ not in tuple(Format):
        raise UsageError(f"unknown format {format_!r} of tables; known: {', '.join(Format)}")
    kind = _CsvWriter if format_ == Format.CSV else _ParquetWriter
    described = {**TABLES, DICTIONARY: DICTIONARY_COLUMNS}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            writers = {n: stack.enter_context(kind(folder / f"{n}.{format_}", c)) for n, c in described.items()}
            for answer in answers:
                for name, row in answer_rows(answer):
                    writers[name].write(row)
            for row in dictionary():
                writers[DICTIONARY].write(row)
        paths = [writer.finish() for writer in writers.values()]
        if format_ == Format.CSV:
            paths.append(folder / METADATA)
            paths[-1].write_text(json.dumps(csvw(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: cannot write tables there: {error.strerror or error}") from None
    return paths


# -- rows


def answer_rows(answer: Answer) -> Iterator[tuple[str, Row]]:
    """The rows of one answer with the names of their tables: by lesion, guideline and clause."""
    if not answer.cases:
        reason = "the record has no vertebral lesion, so there is no case"
        yield "without_case", {"patient": answer.record.patient, "as_of": answer.as_of, "reason": reason}
    for explained in sorted(explain(answer), key=lambda e: e.case.lesion.id):
        for a in sorted(explained.case.assessments, key=lambda a: a.guideline.id):
            key: Row = {
                "patient": answer.record.patient,
                "lesion": explained.case.lesion.id,
                "as_of": answer.as_of,
                "guideline": a.guideline.id,
            }
            yield "verdicts", {**key, **_verdict(explained, a)}
            counted = {c.recommendation.id for c in a.counted}
            for clause in a.clauses:
                counts = clause.recommendation.id in counted
                yield "clauses", {**key, **_clause(explained, clause), "counted": counts}


def _verdict(explained: Explained, a: Assessment) -> Row:
    k, case, g = explained.knowledge, explained.case, a.guideline
    met, unknown = cautions(a)
    found, needs = explained.missing(a), explained.needs(a)
    missing = [n for n in needs if n.obtainable]
    technique = case.snapshot.value(PROCEDURE, k.by_name["technique"].iri).value
    return {
        "level": level_names(k, case),
        "technique": sorted(map(local, technique)) if isinstance(technique, frozenset) else [],
        "in_session": case.in_session,
        "constructed": case.record.constructed,
        "title": g.title,
        "version": g.version,
        "layer": g.layer,
        "in_force": a.in_force,
        "verdict": a.verdict,
        "label": said(a),
        "reachable": list(a.conclusion.reachable),
        "reading": a.reading,
        "assumed_verdict": a.assumed.conclusion.verdict if a.assumed else "",
        "assumed_policies": list(a.assumed.policies) if a.assumed else [],
        "unbridged_verdict": a.unbridged.verdict if a.unbridged else "",
        "bridges": list(a.bridges),
        "cautions_met": list(met),
        "cautions_unknown": list(unknown),
        "documentation_missing": list(documentation(a)[1]),
        "unverified": [c.recommendation.id for c in a.clauses if c.recommendation.mark == UNVERIFIED],
        "missing": list(dict.fromkeys(local(n.feature) for n in missing)),
        "missing_settles": bool(found.decisive) if found and missing else None,
        "unobtainable": list(dict.fromkeys(local(n.feature) for n in needs if not n.obtainable)),
        "kb_version": k.version,
        "kb_sha256": k.sha256,
    }


def _clause(explained: Explained, clause: ClauseResult) -> Row:
    r, k = clause.recommendation, explained.knowledge
    leaves = [leaf for leaf in dict.fromkeys(deciding(clause.proof)) if leaf.criterion.term]
    facts = list(dict.fromkeys(f for leaf in leaves for f in leaf.facts))
    only = facts[0] if len(leaves) == 1 and len(facts) == 1 else None
    distances = [leaf.distance for leaf in leaves if leaf.distance is not None]
    features = [k.features.get(leaf.criterion.term) for leaf in leaves]
    sources = (", ".join(filter(None, (s.document, s.date, s.author))) or s.origin for s in (f.source for f in facts))
    return {
        "clause": r.id,
        "effect": r.effect,
        "label": r.label,
        "truth": clause.truth.words,
        "cause": cause_of(clause.proof) or "",
        "feature": [local(leaf.criterion.term) for leaf in leaves],
        "feature_truth": [leaf.truth.words for leaf in leaves],
        "value": [" / ".join(dict.fromkeys(map(_stated, leaf.facts))) for leaf in leaves],
        "limit": [_limit(leaf) for leaf in leaves],
        "unit": [feature.unit if feature else "" for feature in features],
        "date": [" / ".join(dict.fromkeys(str(f.time or "") for f in leaf.facts)) for leaf in leaves],
        "number": only.value.exact if only and isinstance(only.value, Range) and _counts(only) else None,
        "day": _day(only.time) if only else None,
        "distance": min(distances, key=abs, default=None),
        "source": list(dict.fromkeys(s for s in sources if s)),
        "quote": list(dict.fromkeys(f.source.quote for f in facts if f.source.quote)),
        "verification": r.mark,
        "citation": r.citation,
        "url": r.url,
    }


def _counts(fact: Fact) -> bool:
    return fact.polarity is Polarity.PRESENT


def _day(time: TimeSpan | None) -> date | None:
    """The day of a time that lies within one."""
    return time.start.date() if time and time.start.date() == time.end.date() else None


def _stated(fact: Fact) -> str:
    """What a fact states: its value by local names, or its polarity."""
    if fact.polarity is Polarity.INDETERMINATE:
        return fact.words or fact.reason or "unclear"
    value = _value_text(fact.value)
    if not value:
        return str(fact.polarity)
    return value if fact.polarity is Polarity.PRESENT else f"not {value}"


def _value_text(value: Value) -> str:
    if isinstance(value, frozenset):
        return " or ".join(sorted(map(local, value)))
    return local(value) if isinstance(value, str) else "" if value is None else str(value)


def _limit(leaf: Proof) -> str:
    c = leaf.criterion
    if c.op is Op.FINDING:
        return ""
    return str(c.range) if c.range is not None else " or ".join(sorted(map(local, c.values)))


# -- files


class _Writer:
    """Writes one table into a file beside its own, which takes its place in the end."""

    def __init__(self, path: Path, columns: tuple[Column, ...]) -> None:
        self._path = path
        self._columns = columns
        self._part = path.with_name(f"{path.name}.part")

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._close(complete=kind is None)
        except BaseException:
            self._part.unlink(missing_ok=True)
            raise
        if kind is not None:
            self._part.unlink(missing_ok=True)

    def finish(self) -> Path:
        """Put the file in its place."""
        return self._part.replace(self._path)

    def write(self, row: Row) -> None:
        """Write one row, which has a value for each column."""
        raise NotImplementedError

    def _open(self) -> None:
        raise NotImplementedError

    def _close(self, *, complete: bool) -> None:
        raise NotImplementedError


class _CsvWriter(_Writer):
    """RFC 4180 in UTF-8: commas, quotes where needed, lines that end with CR and LF."""

    def _open(self) -> None:
        self._file = self._part.open("w", encoding="utf-8", errors="replace", newline="")
        self._csv = csv.writer(self._file, lineterminator="\r\n")
        self._csv.writerow([c.name for c in self._columns])

    def _close(self, *, complete: bool) -> None:
        self._file.close()

    def write(self, row: Row) -> None:
        self._csv.writerow([csv_cell(c, row[c.name]) for c in self._columns])


def csv_cell(column: Column, value: Any) -> str:
    """A cell as text; what a spreadsheet would take for a formula begins with an apostrophe.

    A text that already begins like that gets one apostrophe more, so that taking one off gives the text back. A
    semicolon inside an entry of a list becomes a comma, for it separates the entries.
    """
    if value is None:
        return ""
    if column.kind is Kind.TRUTH:
        return "true" if value else "false"
    if column.kind is Kind.NUMBER:
        return f"{value:f}"
    text = SEPARATOR.join(v.replace(";", ",") for v in value) if column.kind is Kind.LIST else str(value)
    return f"'{text}" if _FORMULA.match(text) and not _PLAIN.fullmatch(text) else text


class _ParquetWriter(_Writer):
    """Typed columns with their meanings; rows go to disk in batches."""

    def _open(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {
            Kind.TEXT: pa.string(),
            Kind.LIST: pa.list_(pa.string()),
            Kind.DATE: pa.date32(),
            Kind.NUMBER: pa.decimal128(DIGITS, PLACES),
            Kind.TRUTH: pa.bool_(),
        }
        fields = [pa.field(c.name, kinds[c.kind], metadata={"description": c.meaning}) for c in self._columns]
        self._schema = pa.schema(fields)
        self._batch = pa.RecordBatch
        self._writer = pq.ParquetWriter(str(self._part), self._schema)
        self._rows: list[Row] = []

    def _close(self, *, complete: bool) -> None:
        try:
            if complete:
                self._flush()
        finally:
            self._writer.close()

    def write(self, row: Row) -> None:
        self._rows.append({c.name: _held(c, row[c.name]) for c in self._columns})
        if len(self._rows) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(self._batch.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def _held(column: Column, value: Any) -> Any:
    """A value as its column holds it: a number that does not fit, none; broken text, a question mark."""
    if column.kind is Kind.NUMBER:
        return _fitting(value)
    if column.kind is Kind.LIST:
        return [_whole(v) for v in value]
    return _whole(value) if column.kind is Kind.TEXT else value


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _fitting(number: Decimal | None) -> Decimal | None:
    """A number as the column holds it; none where it is so large or fine that it would be another one."""
    if number is None or not number.is_finite() or number.adjusted() >= DIGITS - PLACES:
        return None
    places = number.normalize().as_tuple().exponent
    return number if isinstance(places, int) and places >= -PLACES else None
