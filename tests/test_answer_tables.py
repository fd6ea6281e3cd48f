"""Answers as tables: what the cells say, their types, and what bad text does to them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from builders import EXAMPLES, ROOT, between, example, fact, record, session, unknown
from test_cli import kypho  # noqa: F401 - a fixture

from kypho_kg import answer_tables
from kypho_kg.answer_columns import TABLES, Column, Kind, csvw, dictionary
from kypho_kg.answer_tables import answer_rows, csv_cell, write_tables
from kypho_kg.candidacy import Answer, assess
from kypho_kg.errors import UsageError
from kypho_kg.loading import load_knowledge
from kypho_kg.record import Cause, Source
from kypho_kg.report import answers_json

T4 = "constructed/t4-outpatient"
NAMES = (T4, "constructed/two-levels-one-session", "published/ost-02", "constructed/pacemaker-bone-scan")
HEIGHT = "heightLossPercent"
TEXT, LIST = Column("x", Kind.TEXT, ""), Column("x", Kind.LIST, "")


def answer(name: str, **options: Any) -> Answer:
    return assess(example(name), knowledge=load_knowledge(), validate=False, **options)


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    return [answer(name) for name in NAMES]


@pytest.fixture(scope="module")
def folder(answers, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tables") / "new" / "folder"
    write_tables(iter(answers), out, "csv")
    write_tables(iter(answers), out, "parquet")
    return out


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, strict=True))


def read_parquet(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def clauses(of: Answer) -> dict[str, dict[str, Any]]:
    return {row["clause"]: row for name, row in answer_rows(of) if name == "clauses"}


# -- what they say


def test_every_row_has_every_column_and_no_other(answers):
    for one in answers:
        for name, row in answer_rows(one):
            assert set(row) == {c.name for c in TABLES[name]}


def test_verdicts_are_those_of_the_json(answers):
    told = {
        (c["patient"], c["lesion"]["id"], a["guideline"]): (c, a)
        for c in answers_json(answers, [], "test")["cases"]
        for a in c["assessments"]
    }
    rows = [row for one in answers for name, row in answer_rows(one) if name == "verdicts"]
    assert len(rows) == len(told)
    for row in rows:
        case, a = told[row["patient"], row["lesion"], row["guideline"]]
        assert (row["verdict"], row["reachable"], row["in_force"]) == (a["verdict"], a["reachable"], a["in_force"])
        assert (row["cautions_met"], row["cautions_unknown"]) == (a["cautions"]["met"], a["cautions"]["unknown"])
        assert row["documentation_missing"] == a["documentation"]["missing"]
        assert (row["level"], str(row["as_of"]), row["bridges"]) == (
            case["lesion"]["level"],
            case["as_of"],
            a["bridges"],
        )
        decisive = [{n["feature"] for n in m["needs"]} for m in a["missing"] if m["kind"] == "decisive"]
        if decisive:
            assert set(row["missing"]) in decisive
            assert row["missing_settles"] is True
        elif not a["missing"]:
            assert (row["missing"], row["missing_settles"]) == ([], None)


def test_clauses_are_those_of_the_json(answers):
    told = {
        (c["patient"], c["lesion"]["id"], r["id"]): r
        for c in answers_json(answers, [], "test")["cases"]
        for a in c["assessments"]
        for r in a["clauses"]
    }
    rows = [row for one in answers for name, row in answer_rows(one) if name == "clauses"]
    assert len(rows) == len(told)
    for row in rows:
        r = told[row["patient"], row["lesion"], row["clause"]]
        assert (row["truth"], row["cause"] or None, row["effect"]) == (r["truth"], r["cause"], r["effect"])
        assert (row["citation"], row["verification"]) == (r["citation"], r["verification"])
        sizes = {len(row[name]) for name in ("feature", "feature_truth", "value", "limit", "unit", "date")}
        assert len(sizes) == 1


def one_clause(*facts: Any) -> dict[str, Any]:
    """The row of a clause that asks for one number and nothing else: a loss of height of more than 70 percent."""
    of = assess(record(*facts, procedure=session()), guidelines=["cirse-2017"], validate=False)
    return clauses(of)["cirse-2017/CIRSE-R4"]


def test_a_number_and_its_day_are_typed():
    row = one_clause(fact(HEIGHT, "6.5", "2026-02-20"))
    assert (row["value"], row["number"]) == (["6.5"], Decimal("6.5"))
    assert (row["date"], row["day"]) == (["2026-02-20"], date(2026, 2, 20))
    assert row["unit"] == ["%"]
    assert row["limit"] == ["> 70"]


@pytest.mark.parametrize(
    ("number", "distance", "truth"), [("69.9", "-0.1", "not met"), (70, 0, "not met"), ("70.1", "0.1", "met")]
)
def test_the_distance_has_the_sign_of_the_side(number, distance, truth):
    row = one_clause(fact(HEIGHT, number))
    assert (row["distance"], row["truth"], row["feature_truth"]) == (Decimal(distance), truth, [truth])


def test_nothing_recorded_has_no_distance():
    row = one_clause()
    assert (row["distance"], row["number"], row["day"], row["cause"]) == (None, None, None, "NotRecorded")


@pytest.mark.parametrize(
    ("facts", "value", "when"),
    [
        ([fact(HEIGHT, between(5, 7), "2026-02")], ["5 to 7"], ["2026-02"]),
        ([fact(HEIGHT, between(high=3, high_open=True), "2026")], ["< 3"], ["2026"]),
        (
            [replace(unknown(HEIGHT, Cause.IN_WORDS_ONLY, "2026-02-20"), words="terrible")],
            ["terrible"],
            ["2026-02-20"],
        ),
        ([], [""], [""]),
    ],
)
def test_what_is_no_single_number_stays_text(facts, value, when):
    row = one_clause(*facts)
    assert (row["value"], row["date"], row["number"]) == (value, when, None)
    assert row["day"] == (date(2026, 2, 20) if when == ["2026-02-20"] else None)


def test_sources_and_quotes():
    source = Source("f.yaml:3", "op note", "2026-02-28", "IR", "pain; severe")
    row = one_clause(replace(fact(HEIGHT, 7), source=source))
    assert (row["source"], row["quote"]) == (["op note, 2026-02-28, IR"], ["pain; severe"])
    assert one_clause(replace(fact(HEIGHT, 7), source=Source("f.yaml:3")))["source"] == ["f.yaml:3"]
    assert one_clause(replace(fact(HEIGHT, 7), source=Source("")))["source"] == []


def test_assumed_and_unbridged_stand_beside():
    of = answer("constructed/problem-list-only", assume=("problem-list",), guidelines=("cms-l34228",))
    [row] = (row for name, row in answer_rows(of) if name == "verdicts")
    [a] = of.cases[0].assessments
    assert a.assumed
    assert (row["verdict"], row["assumed_verdict"]) == (a.verdict, a.assumed.conclusion.verdict)
    assert row["assumed_policies"] == ["problem-list"]
    rows = [row for name, row in answer_rows(answer("constructed/anticoagulated-inr-high")) if name == "verdicts"]
    assert {bool(r["unbridged_verdict"]) for r in rows if r["bridges"]} == {True}
    assert {r["unbridged_verdict"] for r in rows if not r["bridges"]} == {""}


def test_what_cannot_be_assessed_is_told_apart(answers):
    rows = [row for name, row in answer_rows(answers[3]) if name == "verdicts"]
    blocked = {f for row in rows for f in row["unobtainable"]}
    assert "MarrowEdemaOnMri" in blocked
    assert all(not set(row["unobtainable"]) & set(row["missing"]) for row in rows)


def test_a_clause_of_another_reading_does_not_count(answers):
    rows = [row for name, row in answer_rows(answers[0]) if name == "clauses"]
    assert {r["clause"] for r in rows if not r["counted"]} == {
        c.recommendation.id for a in answers[0].cases[0].assessments for c in set(a.clauses) - set(a.counted)
    }
    assert {r["counted"] for r in rows} == {True, False}


def test_a_patient_without_a_lesion_is_not_lost(tmp_path):
    of = assess(record(lesions=()), guidelines=["nice-ta279"], validate=False)
    for format_ in ("csv", "parquet"):
        write_tables([of], tmp_path, format_)
    [row] = read_parquet(tmp_path / "without_case.parquet")
    assert (row["patient"], row["as_of"]) == ("test", date(2026, 3, 2))
    assert [r["patient"] for r in read_csv(tmp_path / "without_case.csv")] == ["test"]
    assert read_csv(tmp_path / "verdicts.csv") == read_parquet(tmp_path / "verdicts.parquet") == []


# -- files


def test_csv_and_parquet_say_the_same(folder):
    for table, columns in TABLES.items():
        typed, plain = read_parquet(folder / f"{table}.parquet"), read_csv(folder / f"{table}.csv")
        assert len(typed) == len(plain)
        for a, b in zip(typed, plain, strict=True):
            for c in columns:
                if c.kind is Kind.NUMBER and a[c.name] is not None:
                    assert Decimal(b[c.name]) == a[c.name]
                else:
                    assert b[c.name] == csv_cell(c, a[c.name])


def test_the_types_of_parquet(folder):
    schema = pq.read_schema(folder / "clauses.parquet")
    kinds = {c.name: str(schema.field(c.name).type) for c in TABLES["clauses"]}
    assert kinds["day"] == kinds["as_of"] == "date32[day]"
    assert kinds["number"] == kinds["distance"] == "decimal128(38, 10)"
    assert kinds["counted"] == "bool"
    assert kinds["value"].startswith("list<")
    assert kinds["label"] == "string"
    for c in TABLES["clauses"]:
        assert schema.field(c.name).metadata[b"description"].decode() == c.meaning


def test_csv_is_that_of_rfc_4180(folder):
    raw = (folder / "clauses.csv").read_bytes()
    assert not raw.startswith(b"\xef\xbb\xbf")
    assert raw.endswith(b"\r\n")
    header = raw.split(b"\r\n")[0].decode()
    assert header == ",".join(c.name for c in TABLES["clauses"])


def test_rows_are_sorted_and_files_repeatable(folder, answers, tmp_path):
    rows = read_csv(folder / "verdicts.csv")
    order = [n.partition("/")[2] for n in NAMES]
    keys = [(order.index(r["patient"]), r["lesion"], r["guideline"]) for r in rows]
    assert keys == sorted(keys)
    for format_ in ("csv", "parquet"):
        for path in write_tables(answers, tmp_path, format_):
            assert path.read_bytes() == (folder / path.name).read_bytes()


def test_answers_are_taken_one_by_one(answers, tmp_path, monkeypatch):
    monkeypatch.setattr(answer_tables, "BATCH", 7)
    taken: list[str] = []

    def stream() -> Iterator[Answer]:
        for one in answers:
            held = tmp_path / "clauses.parquet.part"
            taken.append(f"{one.record.patient} {held.stat().st_size > 4}")
            yield one

    write_tables(stream(), tmp_path, "parquet")
    assert [t.split()[1] for t in taken[1:]] == ["True"] * 3  # what came before is on disk already
    file = pq.ParquetFile(tmp_path / "clauses.parquet")
    assert file.num_row_groups > 10
    assert file.metadata.num_rows == sum(1 for one in answers for name, _ in answer_rows(one) if name == "clauses")


def test_a_failure_leaves_older_files_as_they_were(answers, tmp_path):
    write_tables(answers[:1], tmp_path, "csv")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def broken() -> Iterator[Answer]:
        yield answers[1]
        raise UsageError("stop")

    for format_ in ("csv", "parquet"):
        with pytest.raises(UsageError, match="stop"):
            write_tables(broken(), tmp_path, format_)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, format_):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file.*cannot write tables there"):
        write_tables([], tmp_path / "file", format_)
    (tmp_path / "verdicts.csv").mkdir()
    (tmp_path / "verdicts.parquet").mkdir()
    with pytest.raises(UsageError, match="cannot write tables there"):
        write_tables([], tmp_path, format_)


def test_another_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"'xlsx'.*csv, parquet"):
        write_tables([], tmp_path, "xlsx")
    assert list(tmp_path.iterdir()) == []


# -- cells


def original(cell: str) -> str:
    """As docs/answer-tables.md says it."""
    return cell[1:] if re.match(r"'+[=+\-@\t\r]", cell) else cell


@pytest.mark.parametrize(
    "text", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-x", "-2.5x", "--2", "+1E5"]
)
def test_a_formula_is_disarmed_and_can_be_restored(text):
    for cell in (csv_cell(TEXT, text), csv_cell(LIST, [text, "b"]).removesuffix("; b")):
        assert cell == f"'{text}"
        assert original(cell) == text


@pytest.mark.parametrize("text", ["-2.5", "+3", "7", "", "a=b", "'", "'a", ">= 5", "< 3", "5 to 7"])
def test_what_is_no_formula_stays(text):
    assert csv_cell(TEXT, text) == text
    assert original(text) == text


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (Kind.TRUTH, True, "true"),
        (Kind.TRUTH, False, "false"),
        (Kind.TRUTH, None, ""),
        (Kind.NUMBER, Decimal("1E+2"), "100"),
        (Kind.NUMBER, Decimal("-0.50"), "-0.50"),
        (Kind.DATE, date(2026, 3, 2), "2026-03-02"),
        (Kind.LIST, [], ""),
        (Kind.LIST, ["a", "", "c; d"], "a; ; c, d"),
    ],
)
def test_cells(kind, value, wanted):
    assert csv_cell(Column("x", kind, ""), value) == wanted


HOSTILE = ['=HYPERLINK("x")', 'a "quoted", cell', "two\r\nlines", "\ud800 broken", "Müller 👩", "nul\0"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_in_its_cell(text, tmp_path):
    of = replace(record(fact(HEIGHT, 7)), patient=text)
    done = assess(of, guidelines=["nice-ta279"], validate=False)
    for format_ in ("csv", "parquet"):
        write_tables([done], tmp_path, format_)
    whole = text.encode("utf-8", "replace").decode()
    assert {original(r["patient"]) for r in read_csv(tmp_path / "clauses.csv")} == {whole}
    assert {r["patient"] for r in read_parquet(tmp_path / "clauses.parquet")} == {whole}


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        ("9999999999999999999999999999.0000000001", True),
        ("1E+28", False),
        ("0.0000000001", True),
        ("0.00000000001", False),
        ("1.000000000000", True),
    ],
)
def test_a_number_that_does_not_fit_is_left_out_and_never_another_one(number, kept, tmp_path):
    row = one_clause(fact(HEIGHT, number))
    assert row["number"] == Decimal(number)
    of = assess(record(fact(HEIGHT, number), procedure=session()), guidelines=[row["guideline"]], validate=False)
    write_tables([of], tmp_path, "parquet")
    [cell] = (r for r in read_parquet(tmp_path / "clauses.parquet") if r["clause"] == row["clause"])
    assert cell["number"] == (Decimal(number) if kept else None)
    assert [Decimal(v) for v in cell["value"]] == [Decimal(number)]


# -- what the columns mean


def test_the_dictionary_lies_beside_the_tables(folder):
    wanted = [(t, c.name, str(c.kind), c.meaning) for t, columns in TABLES.items() for c in columns]
    assert [tuple(r.values()) for r in read_csv(folder / "columns.csv")] == wanted
    assert [tuple(r.values()) for r in read_parquet(folder / "columns.parquet")] == wanted
    assert len(list(dictionary())) == len(wanted)


def test_the_metadata_describe_the_files(folder):
    told = json.loads((folder / "csv-metadata.json").read_text("utf-8"))
    assert told == csvw()
    assert told["@context"][0] == "http://www.w3.org/ns/csvw"
    for table in told["tables"]:
        header = (folder / table["url"]).read_text("utf-8").splitlines()[0]
        assert [c["name"] for c in table["tableSchema"]["columns"]] == header.split(",")
    lists = {c["name"] for t in told["tables"] for c in t["tableSchema"]["columns"] if c.get("separator") == "; "}
    assert lists == {c.name for columns in TABLES.values() for c in columns if c.kind is Kind.LIST}


@pytest.mark.parametrize("table", TABLES)
def test_the_page_lists_the_columns(table):
    page = (ROOT / "docs" / "answer-tables.md").read_text("utf-8")
    part = page.partition(f"## Columns of {table}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", part, re.MULTILINE)
    assert rows == [(c.name, str(c.kind), c.meaning) for c in TABLES[table]]


def test_columns_are_named_once_and_explained():
    for columns in TABLES.values():
        assert len({c.name for c in columns}) == len(columns)
        assert all(re.fullmatch(r"[a-z_0-9]+", c.name) and c.meaning for c in columns)


# -- the command line


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_the_command_line_writes_a_folder(kypho, tmp_path, format_):  # noqa: F811
    run = kypho("assess", EXAMPLES / f"{T4}.yaml", "--format", format_, "-o", tmp_path / "out", "-g", "cms-l34228")
    assert (run.code, run.err) == (0, "")
    paths = [Path(line) for line in run.out.splitlines()]
    assert {p.name for p in paths} == {p.name for p in (tmp_path / "out").iterdir()}
    assert f"verdicts.{format_}" in {p.name for p in paths}


def test_the_command_line_needs_a_folder(kypho):  # noqa: F811
    run = kypho("assess", EXAMPLES / f"{T4}.yaml", "--format", "csv")
    assert (run.code, run.out) == (2, "")
    assert "--output" in run.err
    run = kypho("assess", EXAMPLES / f"{T4}.yaml", "--format", "fhir", "-o", "out")
    assert run.code == 2
    assert "--output goes with" in run.err
