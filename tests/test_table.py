"""Tables by a mapping file: every kind of cell, one message for each bad one, and nothing else lost."""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import io
import json
import random
import re
from datetime import date

import pytest
from builders import EXAMPLES, ROOT, A, between, iri, span
from jsonschema import Draft202012Validator

from kypho_kg.candidacy import assess
from kypho_kg.errors import InputError, KyphoKGError
from kypho_kg.intake_report import IntakeReport
from kypho_kg.record import PATIENT, PROCEDURE, Cause, Fact, Mood, Polarity, Procedure, Range, Record, Status, TimeSpan
from kypho_kg.sources import table as module
from kypho_kg.sources.patient_file import read_patient_file
from kypho_kg.sources.table import read_table, starter_mapping
from kypho_kg.sources.yaml_tree import Node, parse_tree
from kypho_kg.vocabulary import local

SCHEMA = Draft202012Validator(json.loads((ROOT / "kypho_kg/schemas/mapping.schema.json").read_text("utf-8")))
DOCS = (ROOT / "docs/tables.md").read_text("utf-8")

WIDE = """\
format: kypho-table/1
shape: wide
patient: pid
lesion: lid
level: lvl
as_of: {column: asof}
missing: [NA]
columns:
  nrs: {feature: painNrs, time: nrs_date, missing: ["-9"]}
  plt: {feature: plateletCount, unit: {column: plt_unit}}
  edema: {feature: MarrowEdemaOnMri, values: {y: present, n: absent, "n/a": {unknown: NotAssessable, reason: metal}}}
  trend: {feature: painTrend, values: {up: Worsening, same: {absent: Improving}, "?": indeterminate}}
  cause: {feature: primaryEtiology, values: {pmo: PrimaryOsteoporosis}}
  onset: onsetDate
procedure: {technique: {column: tech, values: {BKP: BalloonKyphoplasty}}, setting: pos, payer: {fixed: Medicare},
            state: st, service_date: dos, lesions: treated}
"""
COLUMNS = "pid lid lvl asof nrs nrs_date plt plt_unit edema trend cause onset tech pos st dos treated".split()

LONG = """\
format: kypho-table/1
shape: long
patient: pid
lesion: lesion
as_of: as_of
feature: feature
code: code
system: system
value: value
unit: unit
time: time
polarity: polarity
mood: mood
status: status
cause: cause
reason: reason
source: {document: document, date: dated, author: author, quote: quote}
procedure: {state: state, service_date: service, lesions: treated}
"""
LONG_COLUMNS = (
    "pid lesion as_of feature code system value unit time polarity mood status cause reason document dated author "
    "quote state service treated"
).split()


def text_of(columns, rows, delimiter=",") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, delimiter=delimiter, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


@pytest.fixture
def read(tmp_path, knowledge):
    """Reads texts as a mapping and a table; gives the records and the report."""

    def reader(mapping: str, table: str | bytes, name: str = "t.csv") -> tuple[list[Record], IntakeReport]:
        (tmp_path / "map.yaml").write_text(mapping, "utf-8")
        (tmp_path / name).write_bytes(table if isinstance(table, bytes) else table.encode())
        report = IntakeReport(name)
        return list(read_table(tmp_path / name, tmp_path / "map.yaml", knowledge, report)), report

    return reader


@pytest.fixture
def wide(read):
    """Reads rows by the wide mapping."""
    return lambda *rows, mapping=WIDE: read(mapping, text_of(COLUMNS, [{"pid": "p", "lid": "a"} | row for row in rows]))


@pytest.fixture
def long(read):
    """Reads rows by the long mapping."""
    return lambda *rows, mapping=LONG: read(mapping, text_of(LONG_COLUMNS, [{"pid": "p"} | row for row in rows]))


def said(record: Record, name: str) -> list[Fact]:
    return [f for f in record.facts if f.feature == iri(name)]


def rejected(report: IntakeReport) -> list[str]:
    return [str(p) for p in report.rejected]


# -- wide


FULL = {"lvl": "L1", "asof": "2026-03-02", "nrs": "7", "nrs_date": "2026-02", "plt": "210000", "plt_unit": "/uL",
        "edema": "y", "trend": "up", "cause": "pmo", "onset": "2026-01", "tech": "BKP", "pos": "HospitalOutpatient",
        "st": "TX", "dos": "2026-03-09", "treated": "a"}  # fmt: skip


def test_a_wide_row_gives_a_fact_of_each_kind(wide):
    [record], report = wide(FULL)
    assert report.rejected == []
    assert (record.patient, record.as_of, record.files) == ("p", date(2026, 3, 2), ("t.csv",))
    assert record.procedure == Procedure(("a",), span("2026-03-09"), "TX")
    found = {local(f.feature): (f.subject, f.value, f.polarity, f.time) for f in record.facts}
    present = Polarity.PRESENT
    assert found == {
        "vertebralLevel": (A, frozenset({iri("L1")}), present, None),
        "painNrs": (A, between(7, 7), present, span("2026-02")),
        "plateletCount": (PATIENT, between(210, 210), present, None),
        "MarrowEdemaOnMri": (A, None, present, None),
        "painTrend": (A, frozenset({iri("Worsening")}), present, None),
        "primaryEtiology": (A, iri("PrimaryOsteoporosis"), present, None),
        "onsetDate": (A, span("2026-01"), present, None),
        "technique": (PROCEDURE, frozenset({iri("BalloonKyphoplasty")}), present, None),
        "placeOfService": (PROCEDURE, frozenset({iri("HospitalOutpatient")}), present, None),
        "payer": (PROCEDURE, frozenset({iri("Medicare")}), present, None),
    }
    assert {f.source.origin for f in record.facts} == {"t.csv:2"}
    [platelets] = said(record, "plateletCount")
    assert (platelets.unit, platelets.words) == ("10*9/L", "210000 /uL")
    assert (report.records, report.read) == (1, {"row": 1})
    assert report.features() == found.keys()


@pytest.mark.parametrize(
    ("column", "text", "feature", "polarity", "value", "cause"),
    [
        ("edema", "n", "MarrowEdemaOnMri", "absent", None, None),
        ("edema", "n/a", "MarrowEdemaOnMri", "indeterminate", None, Cause.NOT_ASSESSABLE),
        ("edema", "indeterminate", "MarrowEdemaOnMri", "indeterminate", None, None),
        ("trend", "same", "painTrend", "absent", frozenset({iri("Improving")}), None),
        ("trend", "?", "painTrend", "indeterminate", None, Cause.INDETERMINATE),
        ("trend", "indeterminate", "painTrend", "indeterminate", None, Cause.INDETERMINATE),
        ("trend", "Improving|Worsening", "painTrend", "present", frozenset({iri("Improving"), iri("Worsening")}), None),
        ("cause", "OsteoporoticEtiology", "primaryEtiology", "present", iri("OsteoporoticEtiology"), None),
        ("lvl", "T11|T12", "vertebralLevel", "present", frozenset({iri("T11"), iri("T12")}), None),
        ("lvl", "LumbarSpine", "vertebralLevel", "present", frozenset(iri(f"L{n}") for n in range(1, 6)), None),
        ("nrs", "<5", "painNrs", "present", between(None, 5, high_open=True), None),
        ("nrs", ">= 5", "painNrs", "present", between(5), None),
        ("nrs", "> 5 <= 9", "painNrs", "present", between(5, 9, low_open=True), None),
        ("nrs", " 6.5 ", "painNrs", "present", between("6.5", "6.5"), None),
        ("onset", "2025", "onsetDate", "present", span("2025"), None),
    ],
)
def test_what_a_cell_may_say(wide, column, text, feature, polarity, value, cause):
    [record], report = wide({column: text})
    assert rejected(report) == []
    [fact] = said(record, feature)
    assert (fact.polarity, fact.value, fact.cause) == (polarity, value, cause)


@pytest.mark.parametrize("text", ["", " ", "NA", "-9"])
def test_a_missing_text_says_nothing(wide, text):
    [record], report = wide({"nrs": text})
    assert (said(record, "painNrs"), report.rejected) == ([], [])


@pytest.mark.parametrize(
    ("column", "text", "where", "what"),
    [
        ("nrs", "bad", "nrs", "painNrs is 'bad', no finite number; expected a number in {score}"),
        ("nrs", "4-6", "nrs", "no finite number"),
        ("nrs", "6,5", "nrs", "no finite number"),
        ("nrs", ">5 >6", "nrs", "no finite number"),
        ("nrs", ">6 <5", "nrs", "expected the smaller number first"),
        ("nrs", "1e99", "nrs", "no finite number"),
        ("edema", "yes", "edema", "'yes'; expected one of present, absent, indeterminate"),
        ("trend", "Worsning", "trend", "Worsening (did you mean that?)"),
        ("trend", "up|Worsening", "trend", "painTrend is 'up'"),
        ("cause", "flu", "cause", "primaryEtiology is 'flu'"),
        ("lvl", "L9", "lvl", "vertebralLevel is 'L9'"),
        ("onset", "2026-02-30", "onset", "is not a date that exists"),
        ("asof", "2026-03", "asof", "no full date"),
        ("st", "Texas", "st", "no postal code"),
        ("dos", "soon", "dos", "is not a date"),
        ("treated", "b", "treated", "lesions 'b' of the session are not in the table; expected ids among a"),
        ("plt_unit", "cells", "plt", "unit 'cells' of plateletCount; expected one of 10*9/L"),
        ("nrs_date", "1.2.2026", "nrs_date", "is not a date"),
    ],
)
def test_a_bad_cell_costs_nothing_else(wide, column, text, where, what):
    [good], _ = wide(FULL)
    [record], report = wide(FULL | {column: text})
    [problem] = rejected(report)
    assert problem.startswith(f"t.csv:2, {where}: ")
    assert what in problem
    assert set(record.facts) < set(good.facts) if column not in ("asof", "st", "dos", "treated") else record.facts
    assert len(record.facts) >= len(good.facts) - 1


def test_what_a_bad_date_dates_does_not_count_as_current(wide):
    [record], _ = wide(FULL | {"nrs_date": "yesterday"})
    assert said(record, "painNrs") == []


def test_rows_of_a_patient_need_not_be_adjacent_and_may_differ(wide):
    rows = [
        {"nrs": "7", "plt": "200"},
        {"pid": "q", "nrs": "1"},
        {"nrs": "5", "plt": "200"},
        {"lid": "b", "plt": "200"},
    ]
    [p, q], report = wide(*rows)
    assert [(f.value.exact, f.source.origin) for f in said(p, "painNrs")] == [(7, "t.csv:2"), (5, "t.csv:4")]
    assert len(said(p, "plateletCount")) == 1
    assert [lesion.id for lesion in p.lesions] == ["a", "b"]
    assert (q.patient, report.records, report.rejected) == ("q", 2, [])


def test_what_a_patient_has_once_counts_only_if_rows_agree(wide):
    [record], report = wide(FULL, FULL | {"st": "CA", "asof": "2026-03-03"}, FULL)
    assert record.procedure == Procedure(("a",), span("2026-03-09"), None)
    assert record.as_of is None
    assert "t.csv:3, st: state is 'CA', and not so in row 2; neither counts; expected one per patient" in rejected(
        report
    )


def test_a_session_of_which_each_row_names_its_own_lesion(wide):
    [record], report = wide(FULL | {"treated": "a"}, FULL | {"lid": "b", "treated": "b"})
    assert record.procedure == Procedure(None, span("2026-03-09"), "TX")
    what = "t.csv:3, treated: lesions is 'b', and not so in row 2; neither counts"
    assert rejected(report) == [f"{what}; expected all lesions of the session in each row, such as a|b"]


def test_a_row_without_a_patient_or_with_other_cells_is_rejected(read):
    [record], report = read(WIDE_SMALL, "pid,nrs\n,5\np,6\np,7,8\np\n\n,\n")
    assert [f.value.exact for f in said(record, "painNrs")] == [6]
    assert rejected(report) == [
        "t.csv:2, pid: a row without a patient; expected the id of one",
        "t.csv:4: the row has 3 cells, the table 2 columns; expected as many",
        "t.csv:5: the row has 1 cells, the table 2 columns; expected as many",
    ]


WIDE_SMALL = "format: kypho-table/1\nshape: wide\npatient: pid\ncolumns:\n  nrs: painNrs\n"


def test_rejections_of_a_column_are_counted_when_they_are_many(read, monkeypatch):
    monkeypatch.setattr(module, "_MAX_REJECTED", 3)
    _, report = read(WIDE_SMALL, "pid,nrs\n" + "p,bad\n" * 10)
    assert len(report.rejected) == 3
    assert sum(n for (kind, _), n in report.unread.items() if kind == "cell") == 7


def test_a_column_that_is_not_mapped_is_reported(read):
    _, report = read(WIDE_SMALL, "pid,nrs,extra\np,5,6\n")
    assert report.unread == {("column", "'extra' is not in the mapping"): 1}


GIVEN = ("4711", "Quillonia", "555-0142", "1913-07-29")
"""Values of a patient, which stand in no message about the columns."""


@pytest.mark.parametrize(
    ("table", "asked", "expected"),
    [
        ("4711,Quillonia,555-0142,1913-07-29\n4712,A,B,C\n", "pid", "a first row with the names of the 4 columns"),
        ("pid,nrs,level4711,Quillonia,555-0142\n", "level", "column 3 (did you mean that?)"),
        ("pid,nrs,Quillonia,555-0142\n", "level", "one of its 4 columns"),
        ("pid,nrs,LEVEL ,1913-07-29\n", "level", "column 3, 'LEVEL' (did you mean that?)"),
        ("pid,nrs,levels,slevel\n", "level", "column 3 or column 4 (did you mean one of these?)"),
    ],
)
def test_a_first_row_that_is_no_header_is_not_shown(read, table, asked, expected):
    with pytest.raises(InputError) as bad:
        read(WIDE_SMALL + "level: level\n", table)
    assert f"t.csv has no column {asked!r}; expected {expected}" in str(bad.value)
    assert not any(value in str(bad.value) for value in GIVEN)


@pytest.mark.parametrize("table", ["pid,nrs\n", "pid,nrs,note4711,Quillonia,555-0142\n"])
def test_a_table_without_a_row_says_so(read, table):
    records, report = read(WIDE_SMALL, table)
    assert (records, report.rejected) == ([], [])
    assert report.unread == {("table", "no row below the first"): 1}


def test_a_header_that_runs_on_into_the_first_row_is_not_listed(read):
    records, report = read(WIDE_SMALL, "pid,nrs,note4711,Quillonia,555-0142\n4712,5,x\n")
    assert (records, report.unread) == ([], {})
    assert rejected(report) == ["t.csv:2: the row has 3 cells, the table 5 columns; expected as many"]


def test_one_column_may_say_several_things_and_any_text_may_be_enough(read):
    mapping = WIDE_SMALL + (
        "  dx:\n"
        "    - {feature: DiagnosedOsteoporosis, values: {op: present}}\n"
        "    - {feature: primaryEtiology, values: {op: OsteoporoticEtiology}}\n"
        "  mri: {feature: MarrowEdemaOnMri, polarity: present, time: {column: mri, date_format: '%d.%m.%Y'}}\n"
        "  never: {feature: painTrend, polarity: absent}\n"
    )
    [record], report = read(mapping, "pid,nrs,dx,mri,never\np,,op,24.02.2026,Improving\n")
    assert rejected(report) == []
    assert [(local(f.feature), f.polarity, f.time) for f in record.facts] == [
        ("DiagnosedOsteoporosis", Polarity.PRESENT, None),
        ("primaryEtiology", Polarity.PRESENT, None),
        ("MarrowEdemaOnMri", Polarity.PRESENT, span("2026-02-24")),
        ("painTrend", Polarity.ABSENT, None),
    ]
    assert {f.subject for f in record.facts} == {PATIENT}, "without a lesion it is attributed to none"


# -- how files are written


GERMAN = """\
format: kypho-table/1
shape: wide
decimal: ","
ranges: true
date_format: ["%d.%m.%Y", "%m/%Y", iso]
patient: Patient
lesion: {fixed: a}
as_of: Stichtag
columns: {INR: inr, NRS: painNrs, Beginn: onsetDate}
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_semicolons_decimal_commas_dates_and_encodings(read, encoding):
    mapping = GERMAN if encoding.startswith("utf-8") else f"{GERMAN}encoding: {encoding}\n"
    text = "Patient;Stichtag;INR;NRS;Beginn\nMüller;02.03.2026;1,25;4-6,5;01/2026\nB;2026-03-02;1.5;<4,5;2025\n"
    [first, second], report = read(mapping, text.encode(encoding))
    assert (first.patient, first.as_of, second.as_of) == ("Müller", date(2026, 3, 2), date(2026, 3, 2))
    assert [f.value for f in first.facts] == [between("1.25", "1.25"), between(4, "6.5"), span("2026-01")]
    assert [f.value for f in second.facts] == [between(None, "4.5", high_open=True), span("2025")]
    assert [p.what for p in report.rejected] == ["inr: '1.5' has a point, and the decimal sign is a comma"]


@pytest.mark.parametrize("name", ["t.csv.gz", "t.tsv.gz", "t.tsv", "t.TXT"])
def test_names_and_gz(read, name):
    data = b"pid\tnrs\r\np\t5\r\n"
    [record], report = read(WIDE_SMALL, gzip.compress(data, mtime=0) if name.endswith("gz") else data, name)
    assert ([f.value.exact for f in record.facts], report.rejected) == ([5], [])


def test_a_table_with_only_a_header_has_no_patients(read):
    records, report = read(WIDE_SMALL, "pid,nrs\n")
    assert (records, report.rejected, report.records) == ([], [], 0)


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"", "t.csv", "t.csv:1: the table is empty; expected a first row with the names of the columns"),
        (b"\n\n", "t.csv", "the table is empty"),
        (b"pid,nrs\np,\xff\n", "t.csv", "not in the encoding utf-8"),
        (b'pid,nrs\np,"5\n', "t.csv", "not valid CSV"),
        (b'pid,nrs\np,"5"6\n', "t.csv", "t.csv:2: not valid CSV"),
        (b"no gzip", "t.csv.gz", "cannot be read"),
        (gzip.compress(b"pid,nrs\np,5\n" * 99, mtime=0)[:-20], "t.csv.gz", "cannot be read"),
        (b"pid,nrs\n", "t.xlsx", "no table that is read here"),
        (b"pid,nrs\np," + b"5" * 1_000_001, "t.csv", "a line without an end"),
        (b"pid,nrs\np," + b"5" * 200_000, "t.csv", "not valid CSV"),
        (b"x" * 200_000, "t.csv", "not valid CSV"),
    ],
)
def test_a_table_that_cannot_be_read(read, data, name, message):
    with pytest.raises(InputError) as bad:
        read(WIDE_SMALL, data, name)
    assert message in str(bad.value)
    assert len(bad.value.problems) == 1


def test_a_missing_table(tmp_path, knowledge):
    (tmp_path / "m.yaml").write_text(WIDE_SMALL)
    with pytest.raises(InputError, match=r"gone.csv: cannot be read"):
        read_table(tmp_path / "gone.csv", tmp_path / "m.yaml", knowledge, IntakeReport("x"))


def test_parquet(tmp_path, knowledge):
    from datetime import datetime

    import pyarrow as arrow
    from pyarrow import parquet

    table = arrow.table(
        {
            "Patient": ["p", "q"],
            "Stichtag": [datetime(2026, 3, 2), datetime(2026, 3, 2, 8, 30)],
            "INR": [1.25, None],
            "NRS": arrow.array([7.0, float("nan")]),
            "Beginn": [date(2026, 1, 5), None],
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "m.yaml").write_text(GERMAN)
    report = IntakeReport("t")
    p, q = read_table(tmp_path / "t.parquet", tmp_path / "m.yaml", knowledge, report)
    assert [f.value for f in p.facts] == [between("1.25", "1.25"), between(7, 7), span("2026-01-05")]
    assert {f.source.origin for f in p.facts} == {"t.parquet:1"}
    assert (p.as_of, q.as_of, q.facts, report.rejected) == (date(2026, 3, 2), date(2026, 3, 2), (), [])
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "bad.parquet", tmp_path / "m.yaml", knowledge, report)


# -- sorted


@pytest.mark.parametrize("ids", ["a a b c", "2 10 10 11", "A b C"])
def test_a_sorted_table_streams(tmp_path, knowledge, ids):
    (tmp_path / "m.yaml").write_text(WIDE_SMALL + "sorted: true\n")
    (tmp_path / "t.csv").write_text("pid,nrs\n" + "".join(f"{i},{n % 10}\n" for n, i in enumerate(ids.split())))
    report = IntakeReport("t")
    records = read_table(tmp_path / "t.csv", tmp_path / "m.yaml", knowledge, report)
    first = next(records)
    assert report.read["row"] == ids.split().count(first.patient) + 1, "no more was read than needed"
    assert [first.patient, *(r.patient for r in records)] == list(dict.fromkeys(ids.split()))
    assert report.rejected == []


def test_a_patient_that_reappears_in_a_sorted_table_is_rejected(read):
    records, report = read(WIDE_SMALL + "sorted: true\n", "pid,nrs\na,1\nb,2\na,3\nc,4\nb,5\n")
    assert [(r.patient, r.facts[0].value.exact) for r in records] == [("a", 1), ("b", 2), ("c", 4)]
    assert [p.where for p in report.rejected] == ["t.csv:4, pid", "t.csv:6, pid"]
    assert all(p.expected == "rows sorted by patient, or no sorted: true" for p in report.rejected)


# -- long


def test_a_long_row_is_one_fact_with_all_that_is_said_of_it(long):
    row = {"lesion": "a", "feature": "painNrs", "value": "60", "unit": "mm", "time": "2026-02", "mood": "planned",
           "status": "provisional", "reason": "asked", "document": "note", "dated": "2026-02-03", "author": "W",
           "quote": "bad", "as_of": "2026-03-02"}  # fmt: skip
    [record], report = long(row)
    assert rejected(report) == []
    [fact] = record.facts
    assert (fact.subject, fact.value, fact.time) == (A, between(6, 6), span("2026-02"))
    assert (fact.mood, fact.status, fact.reason) == (Mood.PLANNED, Status.PROVISIONAL, "asked")
    said_by = fact.source
    assert (said_by.origin, said_by.document, said_by.date) == ("t.csv:2", "note", "2026-02-03")
    assert (said_by.author, said_by.quote) == ("W", "bad")


@pytest.mark.parametrize(
    ("row", "polarity", "value", "cause"),
    [
        ({"feature": "Pregnancy", "value": "absent"}, "absent", None, None),
        ({"feature": "Pregnancy", "polarity": "absent"}, "absent", None, None),
        ({"feature": "Pregnancy", "value": "absent", "polarity": "absent"}, "absent", None, None),
        ({"feature": "Pregnancy", "polarity": "indeterminate"}, "indeterminate", None, None),
        ({"feature": "Pregnancy", "cause": "Pending"}, "indeterminate", None, Cause.PENDING),
        ({"feature": "painTrend", "value": "Improving", "polarity": "absent"}, "absent", {iri("Improving")}, None),
        ({"feature": "painNrs", "value": "6", "polarity": "present"}, "present", between(6, 6), None),
        ({"feature": "painNrs", "value": "awful", "cause": "InWordsOnly"}, "indeterminate", None, Cause.IN_WORDS_ONLY),
        ({"code": "M81.0", "system": "ICD10CM"}, "present", None, None),
        ({"code": "M81.0", "system": "ICD10CM", "polarity": "absent"}, "absent", None, None),
        ({"code": "M81.0", "value": "absent"}, "absent", None, None),
        ({"code": "6301-6", "system": "LOINC", "value": "1.2"}, "present", between("1.2", "1.2"), None),
    ],
)
def test_what_a_long_row_may_say(long, row, polarity, value, cause):
    [record], report = long(row)
    assert rejected(report) == []
    assert {f.polarity for f in record.facts} == {polarity}
    assert [f.value for f in record.facts] == [value] * len(record.facts)
    assert {f.cause for f in record.facts} == {cause}


@pytest.mark.parametrize(
    ("row", "where", "what"),
    [
        ({"feature": "painNsr", "value": "5"}, "feature", "unknown feature 'painNsr'; expected painNrs (did you mean"),
        ({"feature": "Pregnancy", "value": "present", "polarity": "absent"}, "value", "'present' beside absent"),
        ({"feature": "painNrs", "value": "5", "polarity": "absent"}, "value", "'5' beside absent"),
        ({"feature": "Pregnancy", "polarity": "nope"}, "value", "polarity 'nope' is none of"),
        ({"feature": "Pregnancy", "polarity": "absent", "cause": "Pending"}, "value", "with the cause 'Pending'"),
        ({"feature": "Pregnancy", "cause": "Later"}, "value", "'Later'; expected one of NotAssessable"),
        ({"feature": "painNrs", "value": "5", "mood": "hoped"}, "value", "'hoped'; expected one of observed"),
        ({"feature": "painNrs", "value": "5", "status": "sure"}, "value", "'sure'; expected one of confirmed"),
        ({"feature": "painNrs", "value": "5", "time": "late"}, "time", "is not a date"),
        ({"feature": "painTrend", "polarity": "present"}, "value", "painTrend is ''"),
        ({"value": "5"}, "value", "a row without a feature"),
        ({"code": "M81.0", "system": "XYZ"}, "system", "unknown system 'XYZ'"),
        ({"code": "6301-6", "system": "LOINC", "value": "high"}, "value", "no finite number"),
    ],
)
def test_a_bad_long_row(long, row, where, what):
    [record], report = long(row, {"feature": "inr", "value": "1.0"})
    assert [local(f.feature) for f in record.facts] == ["inr"]
    [problem] = rejected(report)
    assert problem.startswith(f"t.csv:2, {where}: ")
    assert what in problem


def test_codes_that_say_nothing_here_are_counted(long):
    [record], report = long(
        {"code": "Z99.9", "system": "ICD10CM"},
        {"code": "M80.08XA", "system": "ICD10CM"},
        {"code": "6301-6", "system": "LOINC"},
        {"feature": "inr"},
    )
    assert all(f.subject == PATIENT for f in record.facts)
    assert report.unmapped == {("code", "ICD10CM|Z99.9", ""): 1}
    assert report.unread["row", "neither a value nor a polarity"] == 2
    assert report.unread["code", "says something of a lesion or procedure that its row is not tied to"] > 0
    [tied], _ = long({"code": "M80.08XA", "system": "ICD10CM", "lesion": "a"})
    assert A in {f.subject for f in tied.facts}


def test_texts_that_name_a_feature_and_texts_of_other_columns(long):
    mapping = LONG.replace("polarity: polarity", "polarity: {column: polarity, values: {ja: present, nein: absent}}")
    mapping += "features:\n  NRS: {feature: painNrs, values: {max: 10}}\n  SS: {feature: Pregnancy}\n"
    rows = [{"feature": "NRS", "value": "max"}, {"feature": "SS", "polarity": "nein"}, {"feature": "NRS", "value": "3"}]
    [record], report = long(*rows, mapping=mapping)
    assert [(f.value, f.polarity) for f in record.facts] == [
        (between(10, 10), Polarity.PRESENT),
        (None, Polarity.ABSENT),
        (between(3, 3), Polarity.PRESENT),
    ]
    assert set(report.mapped) == {("feature", "NRS", "painNrs"), ("feature", "SS", "Pregnancy")}


# -- mistakes of a mapping


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format: kypho-table/1\n", "", "map.yaml:1: format is missing; expected format: kypho-table/1"),
        ("shape: wide", "shape: deep", "map.yaml:2, shape: shape is 'deep'; expected shape: wide or long"),
        ("patient: pid\n", "", "no column of the patient"),
        (
            "patient: pid",
            "patient: pdi",
            "map.yaml:3, patient: t.csv has no column 'pdi'; expected column 1 (did you mean that?)",
        ),
        ("lesion: lid", "lesoin: lid", "unknown key 'lesoin'; expected lesion (did you mean that?)"),
        ("feature: painNrs", "feature: painNsr", "columns.nrs.feature: unknown feature 'painNsr'; expected painNrs"),
        ("  onset: onsetDate", "  onset:", "map.yaml:14, columns.onset: unknown feature nothing"),
        ("time: nrs_date", "tiem: nrs_date", "columns.nrs.tiem: unknown key 'tiem'; expected time"),
        ("time: nrs_date", "time: [nrs_date]", "columns.nrs.time: a list; expected a map"),
        ("y: present", "y: presnet", "columns.edema.values.y: 'presnet'; expected one of present"),
        ("up: Worsening", "up: Worsning", "columns.trend.values.up: painTrend is 'Worsning'; expected Worsening"),
        ("unit: {column: plt_unit}", "unit: cells", "columns.plt.unit: unit 'cells' of plateletCount; expected one of"),
        ("missing: [NA]", "missing: [{}]", "missing[0]: a text that means nothing is a map"),
        ("missing: [NA]", "decimal: x", "decimal: decimal is 'x'; expected one of '.', ','"),
        ("missing: [NA]", "ranges: maybe", "ranges: ranges is 'maybe'; expected one of 'true', 'false'"),
        ("missing: [NA]", "encoding: klingon", "encoding 'klingon' is unknown"),
        ("missing: [NA]", "encoding: base64", "encoding 'base64' is unknown"),
        ("missing: [NA]", "delimiter: xx", "delimiter is 'xx'; expected comma, semicolon, tab, pipe or one sign"),
        ("missing: [NA]", 'date_format: "%d.%m.%y"', "date_format '%d.%m.%y'; expected iso, or such as"),
        ("missing: [NA]", 'date_format: "%d %Y"', "date_format '%d %Y'"),
        ("{column: asof}", "{}", "as_of: no column; expected column or fixed"),
        ("{column: asof}", "{column: asof, fixed: 2026-03-02}", "both column and fixed"),
        ("time: nrs_date", "polarity: absent", "polarity of painNrs; expected none"),
        ("{feature: MarrowEdemaOnMri, ", "{feature: MarrowEdemaOnMri, polarity: present, ", "both values and polarity"),
        ("BKP: BalloonKyphoplasty", "BKP: Ballon", "procedure.technique.values.BKP: technique is 'Ballon'"),
        ("state: st", "stat: st", "procedure.stat: unknown key 'stat'; expected state"),
        ("columns:", "columns: []\nextra:", "columns: a list; expected a map"),
    ],
)
def test_a_mistake_of_a_mapping(read, old, new, message):
    assert WIDE.count(old) == 1
    with pytest.raises(InputError) as bad:
        read(WIDE.replace(old, new), text_of(COLUMNS, []))
    assert any(message in str(p) for p in bad.value.problems), str(bad.value)
    assert all(str(p).startswith("map.yaml:") for p in bad.value.problems)


def test_every_mistake_is_listed(read):
    mapping = WIDE.replace("pid", "pdi").replace("painNrs", "painNsr").replace("y: present", "y: yes")
    with pytest.raises(InputError) as bad:
        read(mapping, text_of(COLUMNS, []))
    assert len(bad.value.problems) == 3, str(bad.value)


def test_a_column_that_stands_twice(read):
    with pytest.raises(
        InputError, match=r"map.yaml:5, columns.nrs: t.csv has 2 columns 'nrs'; expected a name for each"
    ):
        read(WIDE_SMALL, "pid,nrs,nrs\np,1,2\n")
    [record], _ = read(WIDE_SMALL, "pid,nrs,x,x\np,1,2,3\n")
    assert len(record.facts) == 1


def test_a_long_mapping_needs_a_feature_or_a_code(read):
    with pytest.raises(InputError, match="neither feature nor code; expected feature: or code:"):
        read("format: kypho-table/1\nshape: long\npatient: pid\nvalue: v\n", "pid,v\n")


# -- the schema and the page


def document(node: Node):
    """A mapping file as JSON sees it."""
    if isinstance(node.value, dict):
        return {key: document(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [document(child) for child in node.value]
    if node.quoted or node.value is None:
        return node.value
    return {"true": True, "false": False}.get(node.value, float(n) if (n := node.number()) is not None else node.value)


def faults(text: str) -> list[str]:
    return [e.message for e in SCHEMA.iter_errors(document(parse_tree(text, "m")))]


SHOWN = re.findall(r"^```yaml\n(format: .*?)^```$", DOCS, re.DOTALL | re.MULTILINE)
TABLES = re.findall(r"^```csv\n(.*?)^```$", DOCS, re.DOTALL | re.MULTILINE)


def test_the_schema_is_a_schema():
    Draft202012Validator.check_schema(SCHEMA.schema)
    assert SCHEMA.schema["$id"] == "https://w3id.org/kypho/schemas/mapping.schema.json"


@pytest.mark.parametrize("text", [WIDE, LONG, GERMAN, WIDE_SMALL, *SHOWN])
def test_mappings_conform_to_the_schema(text):
    assert faults(text) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("shape: wide", "shape: deep"), ("patient: pid\n", ""), ("lesion: lid", "lesoin: lid"),
     ("missing: [NA]", "decimal: x"), ("time: nrs_date", "tiem: x"), ("{column: asof}", "{}"),
     ("state: st", "stat: st"), ("lesion: lid", "code: x")],
)  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(read, old, new):
    assert faults(WIDE.replace(old, new)) != []
    with pytest.raises(InputError):
        read(WIDE.replace(old, new), text_of([*COLUMNS, "x"], []))


def test_the_page_shows_mappings_with_their_tables(read):
    assert len(SHOWN) == len(TABLES) == 2
    for mapping, table in zip(SHOWN, TABLES, strict=True):
        records, report = read(mapping, table)
        assert rejected(report) == []
        assert sum(len(r.facts) for r in records) > 5
        assert report.unread == {}


# -- starter


def test_a_starter_reads_what_was_certain(read, tmp_path, knowledge):
    table = "Patient ID;lesion;Level;pain (NRS);painTrend;sex;Colour of hair;inrr;onsetDate\n" + (
        "p;a;L1;7;worsening;F;red;1,2;2026-01\nq;a;T12;3;improving;Female;grey;1,1;2025\n"
    )
    (tmp_path / "s.csv").write_text(table)
    text = starter_mapping(tmp_path / "s.csv", knowledge)
    assert faults(text) == []
    for line in ('delimiter: ";"', 'patient: "Patient ID"', 'level: "Level"', "    feature: painNrs  # pain (NRS)",
                 '      "worsening": Worsening', '      # "F": ', '  # "Colour of hair":', '      # "red": ',
                 "    # feature: inr  # perhaps INR"):  # fmt: skip
        assert line in text.splitlines() or any(row.startswith(line) for row in text.splitlines()), text
    (tmp_path / "map.yaml").write_text(text)
    report = IntakeReport("s")
    p, q = read_table(tmp_path / "s.csv", tmp_path / "map.yaml", knowledge, report)
    assert {local(f.feature) for f in q.facts} == {"vertebralLevel", "painNrs", "painTrend", "sex", "onsetDate"}
    assert len(p.facts) == 4
    assert [x.where for x in report.rejected] == ["s.csv:2, sex"]
    # what is filled in is read: remove each # of an entry, as the file says
    full = text.replace('# "F": ', '"F": Female').replace(
        '  # "inrr":\n    # feature: inr', '  "inrr":\n    feature: inr'
    )
    full = full.replace('# decimal: ","', 'decimal: ","')
    (tmp_path / "map.yaml").write_text(full)
    report = IntakeReport("s")
    p, _ = read_table(tmp_path / "s.csv", tmp_path / "map.yaml", knowledge, report)
    assert report.rejected == []
    assert [f.value for f in said(p, "inr")] == [between("1.2", "1.2")]


def test_a_starter_of_a_long_table(tmp_path, knowledge):
    (tmp_path / "s.csv").write_text("pid,lesion,feature,value,unit\np,a,painNrs,6,\np,a,INR,1.2,\np,a,hgb,9,\n")
    text = starter_mapping(tmp_path / "s.csv", knowledge)
    assert faults(text) == []
    (tmp_path / "m.yaml").write_text(text)
    report = IntakeReport("s")
    [record] = read_table(tmp_path / "s.csv", tmp_path / "m.yaml", knowledge, report)
    assert [local(f.feature) for f in record.facts] == ["painNrs", "inr"]
    assert [p.where for p in report.rejected] == ["s.csv:4, feature"]


@pytest.mark.parametrize("header", ["a", "x\u2028y,z", 'q"",b', "sex,sex,nrs", "a: b,#c,- d", "\\n,{,}"])
def test_a_starter_of_odd_names_can_be_read(tmp_path, knowledge, header):
    (tmp_path / "s.csv").write_text(f"{header}\n" + ",".join("1" for _ in header.split(",")) + "\n", "utf-8")
    text = starter_mapping(tmp_path / "s.csv", knowledge)
    assert faults(text) == []
    (tmp_path / "m.yaml").write_text(text, "utf-8")
    assert len(list(read_table(tmp_path / "s.csv", tmp_path / "m.yaml", knowledge, IntakeReport("s")))) == 1


# -- a patient file as a long table


def number(value: Range) -> str:
    if value.exact is not None:
        return str(value.exact)
    low = "" if value.low is None else f"{'>' if value.low_open else '>='}{value.low}"
    return low + ("" if value.high is None else f" {'<' if value.high_open else '<='}{value.high}")


def as_rows(record: Record) -> list[dict[str, str]]:
    """The record as rows of a long table; the first rows name the lesions in their order."""
    session = record.procedure or Procedure()
    head = {"as_of": str(record.as_of or ""), "pid": record.patient, "state": session.state or "",
            "service": str(session.service_date or ""), "treated": "|".join(session.lesions or ())}  # fmt: skip
    rows = [head | {"lesion": lesion.id} for lesion in record.lesions]
    for fact in record.facts:
        value, row = fact.value, {"feature": local(fact.feature)}
        if isinstance(value, Range):
            row["value"] = number(value)
        elif isinstance(value, frozenset):
            row["value"] = "|".join(sorted(map(local, value)))
        elif isinstance(value, TimeSpan):
            row["value"] = str(value)
        elif value is not None:
            row["value"] = local(value)
        row |= {"polarity": str(fact.polarity), "mood": str(fact.mood), "status": str(fact.status)}
        row |= {"time": str(fact.time or ""), "cause": str(fact.cause or ""), "reason": fact.reason}
        row["lesion"] = fact.subject.removeprefix("lesion:") if fact.subject.startswith("lesion:") else ""
        if fact.cause is Cause.IN_WORDS_ONLY:
            row["value"] = fact.words
        source = fact.source
        row |= {"document": source.document, "dated": source.date, "author": source.author, "quote": source.quote}
        rows.append(head | row)
    return rows


def meaning(record: Record) -> list[tuple]:
    return [
        (f.subject, f.feature, f.value, f.polarity, f.mood, f.time, f.status, f.cause, f.reason, f.unit)
        for f in record.facts
    ]


@pytest.mark.parametrize("path", sorted((EXAMPLES / "constructed").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_patient_file_as_a_long_table_is_the_same_record(read, knowledge, path):
    record = read_patient_file(path, knowledge)
    [again], report = read(LONG, text_of(LONG_COLUMNS, as_rows(record)))
    assert rejected(report) == []
    assert meaning(again) == meaning(record)
    assert (again.lesions, again.procedure, again.as_of) == (record.lesions, record.procedure, record.as_of)


SOME = ["biopsy-pending", "onset-about-three-months", "pain-in-words-only", "two-levels-one-session", "stale-visit"]


@pytest.mark.parametrize("name", SOME)
def test_and_has_the_same_verdicts(read, knowledge, name):
    record = read_patient_file(EXAMPLES / f"constructed/{name}.yaml", knowledge)
    [again], _ = read(LONG, text_of(LONG_COLUMNS, as_rows(record)))
    assert verdicts(assess(again, knowledge=knowledge)) == verdicts(assess(record, knowledge=knowledge)) != {}


def verdicts(answer) -> dict:
    return {(c.lesion.id, a.guideline.id): a.conclusion for c in answer.cases for a in c.assessments}


# -- fuzz


@functools.cache
def seeds() -> tuple[str, str]:
    rows = [{"pid": f"p{n}", "lid": "a"} | FULL for n in range(4)]
    facts = [
        {"pid": "p", "lesion": "a", "feature": "painNrs", "value": "<5", "time": "2026"},
        {"pid": "p", "code": "M81.0"},
    ]
    return text_of(COLUMNS, rows), text_of(LONG_COLUMNS, facts)


@pytest.mark.parametrize("seed", range(100))
def test_no_table_makes_a_traceback(tmp_path, knowledge, seed):
    luck = random.Random(seed)
    data = bytearray(seeds()[seed % 2].encode())
    signs = [
        b",",
        b'"',
        b"\n",
        b"\r",
        b"\x00",
        b";",
        b"\xff",
        b"\xc3",
        b"|",
        b"<",
        b"-",
        b"9" * 40,
        b"%",
        "\u2028".encode(),
    ]
    for _ in range(luck.randint(1, 12)):
        start = 0 if luck.random() < 0.2 else data.index(b"\n")
        at = luck.randrange(start, len(data))
        data[at : at + luck.choice([0, 0, 1, 5])] = luck.choice(signs)
    (tmp_path / "t.csv").write_bytes(bytes(data))
    (tmp_path / "m.yaml").write_text([WIDE, LONG][seed % 2])
    report = IntakeReport("t")
    with contextlib.suppress(KyphoKGError):
        for record in read_table(tmp_path / "t.csv", tmp_path / "m.yaml", knowledge, report):
            assert isinstance(record, Record)
    with contextlib.suppress(KyphoKGError):
        text = starter_mapping(tmp_path / "t.csv", knowledge)
        assert faults(text) == []


@pytest.mark.parametrize("seed", range(100))
def test_no_mapping_makes_a_traceback(tmp_path, knowledge, seed):
    luck = random.Random(seed)
    text = [WIDE, LONG, GERMAN][seed % 3]
    for _ in range(luck.randint(1, 6)):
        at = luck.randrange(len(text))
        text = (
            text[:at]
            + luck.choice(["", ":", "{}", "[", "]", "x", "\n", '"', "1", "{", ", "])
            + text[at + luck.choice([0, 1, 4]) :]
        )
    (tmp_path / "t.csv").write_text(seeds()[seed % 2])
    (tmp_path / "m.yaml").write_text(text)
    with contextlib.suppress(KyphoKGError):
        list(read_table(tmp_path / "t.csv", tmp_path / "m.yaml", knowledge, IntakeReport("t")))
