"""The fact table: what is written is read again with the same answers, and what cannot be held is said."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import EXAMPLES, TODAY, between, fact, iri, span
from pyarrow import csv, parquet

from kypho_kg.candidacy import Answer, assess
from kypho_kg.errors import InputError, UsageError
from kypho_kg.evaluation import Proof
from kypho_kg.fact_rows import cases_schema, facts_schema, named_span
from kypho_kg.fact_table import batches, read_fact_table, write_fact_table
from kypho_kg.intake import read_records
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Cause, Fact, Lesion, Mood, Polarity, Procedure, Record, Source, Status, TimeSpan


def record(*facts: Fact, id_: str = "p", **more: Any) -> Record:
    return Record(id_, (Lesion("a"),), facts, **{"as_of": TODAY, **more})


def again(records: list[Record], folder: Path, k: Knowledge) -> list[Record]:
    write_fact_table(records, folder)
    report = IntakeReport("t")
    found = list(read_fact_table(folder, k, report))
    assert report.rejected == []
    return found


def said(proof: Proof) -> list[object]:
    return [proof.truth, *((leaf.truth, leaf.gap.cause if leaf.gap else None) for leaf in proof.leaves())]


def judged(answer: Answer) -> list[object]:
    return [
        (case.lesion.id, a.guideline.id, a.conclusion, a.in_force, a.bridges, [said(c.proof) for c in a.clauses])
        for case in answer.cases
        for a in case.assessments
    ]


def test_every_example_is_judged_as_before(knowledge: Knowledge, tmp_path: Path) -> None:
    records, problems = read_records(sorted(EXAMPLES.glob("*/*.yaml")), knowledge)
    assert problems == []
    assert len(records) > 60
    back = {r.patient: r for r in again(records, tmp_path, knowledge)}
    assert sorted(back) == sorted(r.patient for r in records)
    for before in records:
        one, two = (
            assess(r, knowledge=knowledge, guidelines=["all"], validate=False) for r in (before, back[before.patient])
        )
        assert judged(one) == judged(two), before.patient


FACTS = [
    fact("Retropulsion", "absent", "2026-02"),
    fact("MarrowEdemaOnMri", "present", "2026-02-01", mood="ordered"),
    fact("NeurologicalDeficit", "present", "2026-02-01T10:30", status="provisional"),
    Fact("lesion:a", iri("painNrs"), between("7.5", "9", high_open=True), time=span("2026"), unit="{score}"),
    Fact("lesion:a", iri("heightLossPercent"), between("33.333333"), unit="%"),
    Fact("lesion:a", iri("heightLossPercent"), between(None, 20), unit="%"),
    Fact("lesion:a", iri("vertebralLevel"), frozenset({iri("T12"), iri("L1")})),
    Fact("lesion:a", iri("primaryEtiology"), iri("MultipleMyeloma"), Polarity.ABSENT),
    Fact("lesion:a", iri("onsetDate"), TimeSpan.parse("2025-11")),
    Fact("lesion:a", iri("painNrs"), polarity=Polarity.INDETERMINATE, cause=Cause.IN_WORDS_ONLY, unit="{score}"),
    Fact("patient", iri("MarrowEdemaOnMri")),
    Fact("patient", iri("Hypertension"), status=Status.ENTERED_IN_ERROR, source=Source("file:7")),
    Fact("procedure", iri("FusionPlanned"), polarity=Polarity.ABSENT, mood=Mood.PLANNED),
]


@pytest.mark.parametrize("one", FACTS, ids=lambda f: f"{f.feature.rpartition('#')[2]}-{f.polarity}-{f.value}"[:60])
def test_one_fact_survives(one: Fact, knowledge: Knowledge, tmp_path: Path) -> None:
    before = record(one, procedure=Procedure())
    (after,) = again([before], tmp_path, knowledge)
    (back,) = after.facts
    kept = Source("facts.parquet: row 1") if not one.source.origin else Source(one.source.origin)
    assert back == replace(one, source=kept, unit=back.unit, time=back.time)
    assert (back.time and (back.time.start, back.time.end)) == (one.time and (one.time.start, one.time.end))
    assert str(back.time) == str(one.time).replace("10:30", "10:30:00")


@pytest.mark.parametrize(
    "procedure",
    [
        None,
        Procedure(),
        Procedure(()),
        Procedure(("a",), span("2026-03"), "OH"),
        Procedure(("b", "a"), span("2026-03-04")),
    ],
)
def test_procedure_survives(procedure: Procedure | None, knowledge: Knowledge, tmp_path: Path) -> None:
    before = Record("p", (Lesion("a"), Lesion("b")), (), procedure, TODAY)
    (after,) = again([before], tmp_path, knowledge)
    if procedure is None or after.procedure is None:
        assert after.procedure is procedure
        return
    assert after.procedure == replace(procedure, lesions=procedure.lesions and tuple(sorted(procedure.lesions)))
    assert [lesion.id for lesion in after.lesions] == ["a", "b"]
    assert after.as_of == TODAY


def test_overridden_facts_are_left_out(knowledge: Knowledge, tmp_path: Path) -> None:
    old = replace(fact("Retropulsion"), overridden_by=Source("later"))
    (after,) = again([record(old, fact("Retropulsion", "absent"))], tmp_path, knowledge)
    assert [f.polarity for f in after.facts] == [Polarity.ABSENT]


def test_a_fact_that_a_shape_refuses_stays_unknown(knowledge: Knowledge, tmp_path: Path) -> None:
    bad = replace(fact("painNrs", 5), invalid="a shape: too much")
    (after,) = again([record(bad)], tmp_path, knowledge)
    assert [(f.value, f.polarity, f.cause) for f in after.facts] == [(None, Polarity.INDETERMINATE, Cause.INVALID)]


@pytest.mark.parametrize("value", ["7.0000001", "1000000000000", "-1000000000000"])
def test_a_number_that_does_not_fit_is_rejected(value: str, knowledge: Knowledge, tmp_path: Path) -> None:
    bad = Fact("lesion:a", iri("painNrs"), between(value), source=Source("x.yaml:9"))
    written = write_fact_table([record(bad), record(id_="q")], tmp_path)
    (problem,) = written.rejected
    assert problem.where == "x.yaml:9, painNrs"
    assert value not in str(problem)
    assert [r.patient for r in read_fact_table(tmp_path, knowledge, IntakeReport("t"))] == ["q"]


@pytest.mark.parametrize("value", ["0.000001", "999999999999.999999", "-0.5"])
def test_a_number_that_just_fits(value: str, knowledge: Knowledge, tmp_path: Path) -> None:
    (after,) = again([record(Fact("lesion:a", iri("painNrs"), between(value)))], tmp_path, knowledge)
    assert after.facts[0].value == between(value)


def test_a_date_with_an_hour_is_rejected(tmp_path: Path) -> None:
    bad = Fact("lesion:a", iri("onsetDate"), span("2026-01-02T10:00"))
    assert "time of day" in str(write_fact_table([record(bad)], tmp_path).rejected[0])


def test_a_patient_without_a_lesion_has_no_row(knowledge: Knowledge, tmp_path: Path) -> None:
    written = write_fact_table([Record("p", (), (fact("Hypertension", on="patient"),), as_of=TODAY)], tmp_path)
    assert (written.patients, written.without_lesion, written.facts, written.cases) == (0, 1, 0, 0)
    assert list(read_fact_table(tmp_path, knowledge, IntakeReport("t"))) == []


def test_the_same_patient_twice(tmp_path: Path) -> None:
    written = write_fact_table([record(), record()], tmp_path)
    assert written.patients == 1
    assert "twice" in str(written.rejected[0])


def test_without_a_date(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="as-of"):
        write_fact_table([record(as_of=None)], tmp_path)
    assert write_fact_table([record(as_of=None)], tmp_path, date(2026, 1, 1)).patients == 1


def test_records_in_any_order_are_sorted(knowledge: Knowledge, tmp_path: Path) -> None:
    records = [record(fact("painNrs", n), fact("painNrs", n + 1), id_=i) for n, i in ((1, "c"), (2, "a"), (3, "b"))]
    written = write_fact_table(iter(records), tmp_path, batch=2)
    assert (written.patients, written.facts) == (3, 6)
    found = list(read_fact_table(tmp_path, knowledge, IntakeReport("t")))
    assert [r.patient for r in found] == ["a", "b", "c"]
    assert [[f.value for f in r.facts] for r in found] == [[between(n, n), between(n + 1, n + 1)] for n in (2, 3, 1)]


def test_streamed_in_row_groups(knowledge: Knowledge, tmp_path: Path) -> None:
    seen: list[int] = []

    def records() -> Iterator[Record]:
        for i in range(10):
            seen.append(i)
            yield record(fact("painNrs", i), id_=f"p{i}")

    write_fact_table(records(), tmp_path, batch=4)
    assert parquet.ParquetFile(tmp_path / "facts.parquet").metadata.num_row_groups == 3
    first = next(read_fact_table(tmp_path, knowledge, IntakeReport("t")))
    assert first.patient == "p0"


def test_the_columns_are_those_of_the_page() -> None:
    page = (EXAMPLES.parent / "docs" / "fact-table.md").read_text("utf-8")
    for schema in (facts_schema(), cases_schema()):
        rows = [f"| `{name}` |" for name in schema.names]
        assert [row for row in rows if row not in page] == []


def as_csv(folder: Path) -> None:
    for name in ("facts", "cases"):
        table = parquet.read_table(folder / f"{name}.parquet")
        plain = pa.schema([(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in table.schema])
        csv.write_csv(table.cast(plain), folder / f"{name}.csv")
        (folder / f"{name}.parquet").unlink()


def test_csv_of_the_same_columns(knowledge: Knowledge, tmp_path: Path) -> None:
    write_fact_table([record(*FACTS, procedure=Procedure(("a",), span("2026-03"), "OH"))], tmp_path)
    (before,) = read_fact_table(tmp_path, knowledge, IntakeReport("t"))
    as_csv(tmp_path)
    (after,) = read_fact_table(tmp_path, knowledge, IntakeReport("t"))
    assert [replace(f, source=Source("")) for f in after.facts] == [replace(f, source=Source("")) for f in before.facts]
    assert (after.procedure, after.as_of) == (before.procedure, before.as_of)


def test_a_folder_of_files(knowledge: Knowledge, tmp_path: Path) -> None:
    for part, id_ in (("1", "a"), ("2", "b")):
        write_fact_table([record(fact("painNrs", 4), id_=id_)], tmp_path / part)
        for name in ("facts", "cases"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / part / f"{name}.parquet").rename(tmp_path / name / f"{part}.parquet")
    assert [r.patient for r in read_fact_table(tmp_path, knowledge, IntakeReport("t"))] == ["a", "b"]


# --------------------------------------------------------------------------------------------------------------------
# Malformed tables

ROW = {
    "patient": "p", "lesion": "a", "feature": "painNrs", "polarity": "present", "mood": "observed",
    "status": "confirmed", "value": None, "low": Decimal(7), "high": Decimal(7), "low_open": False, "high_open": False,
    "date_start": None, "date_end": None, "time_start": datetime(2026, 2, 1), "time_end": datetime(2026, 2, 1, 23),
    "cause": None, "source": None,
}  # fmt: skip
CASE = {
    "patient": "p", "lesion": "a", "as_of": TODAY, "has_procedure": True, "session_named": True, "in_session": True,
    "service_start": None, "service_end": None, "state": "OH",
}  # fmt: skip


def table(folder: Path, facts: list[dict[str, Any]], cases: list[dict[str, Any]]) -> None:
    for name, rows, schema in (("facts", facts, facts_schema()), ("cases", cases, cases_schema())):
        parquet.write_table(pa.Table.from_pylist(rows, schema), folder / f"{name}.parquet")


BAD_FACTS = {
    "feature": ({"feature": "painNsr"}, "feature: 'painNsr'"),
    "no feature": ({"feature": None}, "feature: None"),
    "lesion": ({"lesion": "z"}, "lesion: 'z'"),
    "polarity": ({"polarity": "yes"}, "present, absent, indeterminate"),
    "mood": ({"mood": None}, "mood: None"),
    "status": ({"status": "final"}, "status: 'final'"),
    "cause": ({"cause": "Lost"}, "cause: 'Lost'"),
    "empty": ({"low": None, "high": None}, "high: empty"),
    "wrong way round": ({"low": Decimal(8)}, "no number lies between"),
    "open at one number": ({"low_open": True}, "no number lies between"),
    "value of a number": ({"value": "SeverePain"}, "value: not empty"),
    "number of a finding": ({"feature": "Retropulsion"}, "low: not empty"),
    "no such value": ({"feature": "painTrend", "low": None, "high": None, "value": "Stable|Odd"}, "value: 'Odd'"),
    "half a date": ({"feature": "onsetDate", "low": None, "high": None, "date_start": TODAY}, "no interval"),
    "half a time": ({"time_end": None}, "no interval"),
    "time backwards": ({"time_end": datetime(2026, 1, 1)}, "no interval"),
}
BAD_CASES = {
    "no lesion": ({"lesion": None}, "lesion or as_of is empty"),
    "no date": ({"as_of": None}, "lesion or as_of is empty"),
    "state": ({"state": "Ohio"}, "two capitals"),
    "half a service date": ({"service_start": TODAY}, "no interval"),
}


@pytest.mark.parametrize("name", BAD_FACTS)
def test_a_malformed_fact_costs_its_patient(name: str, knowledge: Knowledge, tmp_path: Path) -> None:
    change, message = BAD_FACTS[name]
    table(tmp_path, [ROW | change, ROW | {"patient": "q"}], [CASE, CASE | {"patient": "q"}])
    report = IntakeReport("t")
    assert [r.patient for r in read_fact_table(tmp_path, knowledge, report)] == ["q"]
    assert "facts.parquet: row 1, " in str(report.rejected[0])
    assert message in str(report.rejected[0])


@pytest.mark.parametrize("name", BAD_CASES)
def test_a_malformed_case_costs_its_patient(name: str, knowledge: Knowledge, tmp_path: Path) -> None:
    change, message = BAD_CASES[name]
    table(tmp_path, [], [CASE | change, CASE | {"patient": "q"}])
    report = IntakeReport("t")
    assert [r.patient for r in read_fact_table(tmp_path, knowledge, report)] == ["q"]
    assert message in str(report.rejected[0])


def test_lesions_that_disagree(knowledge: Knowledge, tmp_path: Path) -> None:
    table(tmp_path, [], [CASE, CASE | {"lesion": "b", "state": "CA"}, CASE | {"lesion": "b"}])
    report = IntakeReport("t")
    assert list(read_fact_table(tmp_path, knowledge, report)) == []
    assert {"state differs between lesions of the patient", "the lesion stands twice"} == {
        p.what for p in report.rejected
    }


def test_facts_without_a_case_are_told(knowledge: Knowledge, tmp_path: Path) -> None:
    table(tmp_path, [ROW | {"patient": i} for i in "apz"], [CASE])
    report = IntakeReport("t")
    assert [len(r.facts) for r in read_fact_table(tmp_path, knowledge, report)] == [1]
    assert report.unread["patient", "facts without a case: no lesion"] == 2


def test_unsorted(knowledge: Knowledge, tmp_path: Path) -> None:
    table(tmp_path, [], [CASE | {"patient": "q"}, CASE])
    with pytest.raises(InputError, match="not sorted"):
        list(read_fact_table(tmp_path, knowledge, IntakeReport("t")))


def test_numbers_in_one_table_and_texts_in_the_other(knowledge: Knowledge, tmp_path: Path) -> None:
    table(tmp_path, [ROW], [CASE])
    rows = pa.Table.from_pylist([CASE | {"patient": 1}], cases_schema(pa.int64()))
    parquet.write_table(rows, tmp_path / "cases.parquet")
    with pytest.raises(InputError, match="another type"):
        list(read_fact_table(tmp_path, knowledge, IntakeReport("t")))


def test_an_empty_patient(knowledge: Knowledge, tmp_path: Path) -> None:
    table(tmp_path, [], [CASE | {"patient": None}])
    with pytest.raises(InputError, match="patient: empty"):
        list(read_fact_table(tmp_path, knowledge, IntakeReport("t")))


def test_no_table_no_column_no_parquet(knowledge: Knowledge, tmp_path: Path) -> None:
    def read() -> None:
        list(read_fact_table(tmp_path, knowledge, IntakeReport("t")))

    with pytest.raises(InputError, match="holds no table facts"):
        read()
    table(tmp_path, [ROW], [CASE])
    parquet.write_table(pa.table({"patient": ["p"]}), tmp_path / "cases.parquet")
    with pytest.raises(InputError, match="missing column lesion, as_of"):
        read()
    (tmp_path / "cases.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"cases\.parquet: cannot be read"):
        read()


def test_a_column_of_another_type(knowledge: Knowledge, tmp_path: Path) -> None:
    table(tmp_path, [ROW], [CASE])
    rows = parquet.read_table(tmp_path / "facts.parquet")
    place = rows.schema.get_field_index("low")
    rows = rows.set_column(place, "low", pa.array([7.12345678901], pa.float64()))
    parquet.write_table(rows, tmp_path / "facts.parquet")
    with pytest.raises(InputError, match="floating-point"):
        list(read_fact_table(tmp_path, knowledge, IntakeReport("t")))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(UsageError, match="cannot write"):
        write_fact_table([record()], tmp_path / "file" / "x")


@pytest.mark.parametrize(
    "text", ["2026", "2026-02", "2024-02", "2026-02-28", "2026-02-28T10:30:00", "2026-02-27/2026-03-01"]
)
def test_the_text_of_an_interval(text: str) -> None:
    first, _, last = text.partition("/")
    start, end = span(first).start, span(last or first).end
    assert str(named_span(start, end)) == text


# --------------------------------------------------------------------------------------------------------------------
# CSV: every cell is a text first


def csv_table(folder: Path, patients: str = "pqr") -> None:
    rows = [ROW | {"patient": p, "source": "canary of a patient"} for p in patients]
    table(folder, rows, [CASE | {"patient": p} for p in patients])
    as_csv(folder)


BAD_CELLS = {
    "low": ("facts", "low", "seven", "a number of less than"),
    "finer": ("facts", "high", "7.0000001", "at most six decimal places"),
    "too large": ("facts", "high", "1000000000000", "less than 10 to the power of 12"),
    "open": ("facts", "low_open", "perhaps", "true or false"),
    "no day": ("facts", "date_start", "2026-02-31", "a date YYYY-MM-DD"),
    "no time": ("facts", "time_start", "2026-02-31 00:00:00", "a date with a time"),
    "zone": ("facts", "time_end", "2026-02-01T23:00:00Z", "without a zone"),
    "as of": ("cases", "as_of", "02.03.2026", "a date YYYY-MM-DD"),
    "session": ("cases", "in_session", "maybe", "true or false"),
}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_a_cell_of_another_type_costs_its_patient(name: str, knowledge: Knowledge, tmp_path: Path) -> None:
    file, column, text, message = BAD_CELLS[name]
    csv_table(tmp_path)
    path = tmp_path / f"{file}.csv"
    head, *lines = path.read_text("utf-8").splitlines()
    names = head.replace('"', "").split(",")
    cells = lines[1].split(",")
    cells[names.index(column)] = text
    path.write_text("\n".join([head, lines[0], ",".join(cells), lines[2]]) + "\n", "utf-8")
    report = IntakeReport("t")
    assert [r.patient for r in read_fact_table(tmp_path, knowledge, report)] == ["p", "r"]
    (problem,) = report.rejected
    assert str(problem).startswith(f"{file}.csv: row 2, {column}: {text!r}; expected ")
    assert message in str(problem)
    with pytest.raises(InputError) as stopped:
        list(batches(path, file))
    assert stopped.value.problems == (problem,), "a whole table is refused with the same words"


@pytest.mark.parametrize("cut", [1, 16, 18])
def test_a_row_with_other_cells_is_named_and_not_shown(cut: int, knowledge: Knowledge, tmp_path: Path) -> None:
    csv_table(tmp_path)
    path = tmp_path / "facts.csv"
    lines = path.read_text("utf-8").splitlines()
    lines[2] = ",".join([*lines[2].split(","), "x"][:cut])
    path.write_text("\n".join(lines) + "\n", "utf-8")
    for read in (lambda: read_fact_table(tmp_path, knowledge, IntakeReport("t")), lambda: batches(path, "facts")):
        with pytest.raises(InputError) as stopped:
            list(read())
        assert str(stopped.value) == f"facts.csv: row 2: {cut} cells; expected 17, as in the first line"


def test_names_of_columns_that_are_no_text(knowledge: Knowledge, tmp_path: Path) -> None:
    csv_table(tmp_path)
    path = tmp_path / "cases.csv"
    path.write_bytes(path.read_bytes().replace(b"lesion", b"l\xe9sion", 1))
    for read in (lambda: read_fact_table(tmp_path, knowledge, IntakeReport("t")), lambda: batches(path, "cases")):
        with pytest.raises(InputError, match=r"cases\.csv: the first line is no UTF-8"):
            list(read())


@pytest.mark.parametrize("seed", range(100))
def test_noise_in_a_csv_table_is_explained(seed: int, knowledge: Knowledge, tmp_path: Path) -> None:
    """A cell of one patient is changed: the others are read as before, and the change is told or means something."""
    chance = random.Random(seed)
    csv_table(tmp_path)
    before = {r.patient: r for r in read_fact_table(tmp_path, knowledge, IntakeReport("t"))}
    path = tmp_path / f"{chance.choice(['facts', 'cases'])}.csv"
    lines = path.read_text("utf-8").splitlines()
    cells = lines[2].split(",")
    at = chance.randrange(1, len(cells))  # not the patient: another id is another patient
    junk = ["", '""', "x", "-1", "1e9", "true", "2026-02-31", "2026-02-01", "L1", "nan", "inf", "\u0000", "\U0001f9b4"]
    cells[at] = chance.choice(junk)
    lines[2] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    report = IntakeReport("t")
    after = {r.patient: r for r in read_fact_table(tmp_path, knowledge, report)}
    assert (after["p"], after["r"]) == (before["p"], before["r"])
    assert ("q" in after) is not bool(report.rejected)
    assert all(p.where.startswith(("facts.csv: row 2", "cases.csv: row 2")) and p.expected for p in report.rejected)
    assert "canary" not in " ".join(map(str, report.rejected))
