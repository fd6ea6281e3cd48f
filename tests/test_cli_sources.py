"""What the commands read besides patient files: codes of the user in 'packet' and 'query', and fact tables."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import EXAMPLES
from pyarrow import parquet
from test_cli import Run, kypho  # noqa: F401 - a fixture
from test_fact_table import as_csv
from test_fhir import condition, resource
from test_page import Seen
from test_rollups import sssom_file

from kypho_kg.candidacy import assess
from kypho_kg.cli_shared import knowledge
from kypho_kg.fact_rows import facts_schema
from kypho_kg.fact_table import write_fact_table
from kypho_kg.intake import read_records
from kypho_kg.report import answers_json

Kypho = Callable[..., Run]
Told = Callable[[Path], Path]
LOCAL = "https://hospital.example/codes"
TERM, CLAUSE = "CementOrOpacifierAllergy", "cms-l34228/LCD-R2"
HERE = ("--as-of", "2026-03-02", "--state", "CA", "--payer", "Medicare")

# --------------------------------------------------------------------------------------------------------------------
# A patient with a fracture, and a code that only the file of the user knows


def fhir(folder: Path) -> Path:
    told = [
        resource("Patient", id="p", birthDate="1950-04-02", gender="female"),
        condition("S32.010A", id="known", onsetDateTime="2026-02-01"),
        condition("A1", id="ours", system=LOCAL, onsetDateTime="2026-02-20"),
    ]
    path = folder / "bundle.json"
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in told]}
    path.write_text(json.dumps(bundle), "utf-8")
    return path


def omop(folder: Path) -> Path:
    cdm = folder / "cdm"
    cdm.mkdir()
    (cdm / "person.csv").write_text("person_id,gender_concept_id,year_of_birth\n1,8532,1950\n", "utf-8")
    (cdm / "condition_occurrence.csv").write_text(
        "condition_occurrence_id,person_id,condition_concept_id,condition_start_date,condition_source_value\n"
        "1,1,0,2026-02-01,S32.010A\n2,1,0,2026-02-20,MYLAB:A1\n",
        "utf-8",
    )
    return cdm


PLACES = {fhir: "bundle.json: Condition/ours", omop: "condition_occurrence:2"}
BOTH = pytest.mark.parametrize("told", [fhir, omop])


def own(folder: Path) -> Path:
    return sssom_file(folder, (TERM, "exact", "", "MYLAB:A1", ""))


def row_of(packet: dict[str, Any]) -> tuple[str, str, list[str]]:
    """State and cause of the clause in a packet, and where its evidence stands."""
    [check] = [c for p in packet["policies"] for s in p["lesions"] for c in s["clauses"] if c["id"] == CLAUSE]
    [point] = check["points"]
    assert point["feature"] == TERM
    return check["state"], point["cause"], [e["place"] for e in point["evidence"]]


@BOTH
def test_a_packet_through_the_codes_of_the_user(kypho: Kypho, told: Told, tmp_path: Path) -> None:  # noqa: F811
    source, codes = told(tmp_path), own(tmp_path)
    without = kypho("packet", source, *HERE, "--format", "json")
    assert row_of(without.data) == ("not addressed", "NotRecorded", [])
    assert "were not understood or not read" in without.err
    run = kypho("packet", source, *HERE, "--mappings", codes, "--format", "json")
    assert run.code == 0
    assert row_of(run.data) == ("met", None, [PLACES[told]])
    wanted = [
        w["feature"] for p in without.data["policies"] for s in p["lesions"] for w in s["to_document"]["features"]
    ]
    left = [w["feature"] for p in run.data["policies"] for s in p["lesions"] for w in s["to_document"]["features"]]
    assert [w for w in wanted if w not in left] == [TERM]


@BOTH
def test_the_printed_packet_through_the_codes_of_the_user(
    kypho: Kypho,  # noqa: F811
    told: Told,
    tmp_path: Path,
) -> None:
    source, codes = told(tmp_path), own(tmp_path)
    label = knowledge().label(next(f.iri for f in knowledge().features.values() if f.name == TERM))
    without, run = (Seen(kypho("packet", source, *HERE, *more).out).text for more in ((), ("--mappings", codes)))
    assert f"{label}: not in the record" in without
    assert PLACES[told] not in without
    assert f"{label}: not in the record" not in run
    assert f"{label}: present of 2026-02-20 · {PLACES[told]}" in " ".join(run.split())


@BOTH
def test_a_packet_with_a_wrong_file_of_codes(kypho: Kypho, told: Told, tmp_path: Path) -> None:  # noqa: F811
    codes = sssom_file(tmp_path, ("NoSuchTerm", "exact", "", "MYLAB:A1", ""))
    run = kypho("packet", told(tmp_path), *HERE, "--mappings", codes)
    assert (run.code, run.out) == (3, "")
    assert "own.sssom.tsv:9" in run.err
    assert "NoSuchTerm" in run.err


# --------------------------------------------------------------------------------------------------------------------
# Queries on whatever 'assess' reads

ASKED = f"""
PREFIX kypho: <https://w3id.org/kypho#>
SELECT ?patient ?origin WHERE {{
  GRAPH ?g {{ ?fact kypho:feature kypho:{TERM} ; kypho:hasSource ?source . ?source kypho:origin ?origin .
    ?who a kypho:Patient ; kypho:patientId ?patient }}
}}
"""


def ask(kypho: Kypho, folder: Path, *words: object) -> Run:  # noqa: F811
    query = folder / "asked.rq"
    query.write_text(ASKED, "utf-8")
    return kypho("query", query, *words, "--as-of", "2026-03-02", "--format", "json")


@BOTH
def test_a_query_through_the_codes_of_the_user(kypho: Kypho, told: Told, tmp_path: Path) -> None:  # noqa: F811
    source, codes = told(tmp_path), own(tmp_path)
    without = ask(kypho, tmp_path, source)
    assert (without.code, without.data) == (0, [])
    run = ask(kypho, tmp_path, source, "--mappings", codes)
    assert run.code == 0
    assert [row["origin"] for row in run.data] == [PLACES[told]]


TABLE = "who,allergy,on,lesion,level\nq1,yes,2026-02-20,a,L1\nq2,no,2026-02-20,a,L2\n"
COLUMNS = f"""format: kypho-table/1
shape: wide
patient: who
lesion: lesion
columns:
  allergy: {{feature: {TERM}, values: {{yes: present, no: absent}}, time: on}}
  level: vertebralLevel
"""


def written(folder: Path, table: str = TABLE, columns: str = COLUMNS) -> tuple[Path, Path]:
    path, mapping = folder / "table.csv", folder / "mapping.yaml"
    path.write_text(table, "utf-8")
    mapping.write_text(columns, "utf-8")
    return path, mapping


def test_a_query_on_a_table(kypho: Kypho, tmp_path: Path) -> None:  # noqa: F811
    path, mapping = written(tmp_path)
    run = ask(kypho, tmp_path, path, "--mapping", mapping)
    assert (run.code, run.err) == (0, "")
    assert sorted({row["patient"] for row in run.data}) == ["q1", "q2"]
    loaded = kypho("load", path, "--mapping", mapping, "--as-of", "2026-03-02", "--store", tmp_path / "store")
    assert loaded.code == 0
    stored = kypho("query", tmp_path / "asked.rq", "--store", tmp_path / "store", "--format", "json")
    assert sorted(stored.data, key=str) == sorted(run.data, key=str)


def test_what_is_wrong_with_a_table_costs_a_query_that_alone(kypho: Kypho, tmp_path: Path) -> None:  # noqa: F811
    path, mapping = written(tmp_path, TABLE.replace("q2,no,2026-02-20", "q2,no,2026-02-31"))
    run = ask(kypho, tmp_path, path, "--mapping", mapping)
    assert run.code == 3
    assert {row["patient"] for row in run.data} == {"q1"}
    assert "table.csv:3, on: '2026-02-31'" in run.err


def test_mistakes_of_a_query_on_a_table(kypho: Kypho, tmp_path: Path) -> None:  # noqa: F811
    path, mapping = written(tmp_path)
    codes = own(tmp_path)
    for words, code, said in (
        ([path], 2, "say with --mapping what its columns are"),
        (["--mapping", mapping], 2, "--mapping and --mappings say how files are read: give some"),
        (["--mappings", codes], 2, "--mapping and --mappings say how files are read: give some"),
        ([path, "--mapping", tmp_path / "none.yaml"], 3, "none.yaml"),
        ([path, "--mapping", mapping, "--mappings", mapping], 3, "expected a SSSOM table"),
    ):
        run = kypho("query", "stale-facts", *words)
        assert (run.code, run.out) == (code, ""), words
        assert said in run.err
    store = tmp_path / "store"
    assert kypho("load", path, "--mapping", mapping, "--facts-only", "--store", store).code == 0
    run = kypho("query", "stale-facts", "--store", store, "--mapping", mapping)
    assert (run.code, run.out) == (2, "")
    assert "give some" in run.err


# --------------------------------------------------------------------------------------------------------------------
# Fact tables

NAMES = "biopsy-pending stale-visit three-levels-one-session seven-weeks-old pain-in-words-only"
FILES = [EXAMPLES / "constructed" / f"{name}.yaml" for name in NAMES.split()]
FEW = ("-g", "cms-l34228", "-g", "nice-ta279", "-g", "evicore-cmm-607")


@pytest.fixture(params=["parquet", "csv"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The patients of the files as a fact table."""
    folder = tmp_path / "table"
    records, problems = read_records(FILES, knowledge())
    assert problems == []
    assert write_fact_table(records, folder).patients == len(FILES)
    if request.param == "csv":
        as_csv(folder)
    return folder


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def change(folder: Path, feature: str, cells: dict[str, object]) -> tuple[str, str]:
    """Change some cells of the first row of a feature; gives its place and its patient."""
    [path] = folder.glob("facts.*")
    rows = rows_of(path)
    at = next(i for i, row in enumerate(rows) if row["feature"] == feature)
    rows[at] |= cells
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows, facts_schema()), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            out = csv.DictWriter(file, rows[0])
            out.writeheader()
            out.writerows(rows)
    return f"{path.name}: row {at + 1}", rows[at]["patient"]


def said(data: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Everything that the verdicts say, and what each clause rests on up to its source."""
    return sorted(
        (
            case["patient"],
            case["lesion"]["id"],
            a["guideline"],
            a["verdict"],
            *a["reachable"],
            a["in_force"],
            *a["bridges"],
            *((c["id"], c["truth"], c.get("cause")) for c in a["clauses"]),
        )
        for case in data["cases"]
        for a in case["assessments"]
    )


@functools.cache
def of_files() -> list[tuple[Any, ...]]:
    """What is said of the patients as files."""
    records, _ = read_records(FILES, knowledge())
    answers = [assess(r, knowledge=knowledge(), guidelines=FEW[1::2], validate=False) for r in records]
    return said(answers_json(answers, [], ""))


def test_a_fact_table_is_judged_as_the_patient_files(kypho: Kypho, table: Path) -> None:  # noqa: F811
    files = kypho("assess", *FILES, *FEW, "--format", "json")
    run = kypho("assess", table, *FEW, "--format", "json")
    assert (run.code, run.err) == (0, "")
    assert said(run.data) == said(files.data) == of_files()
    assert len(of_files()) == 7 * 3, "three of the lesions are of one patient"
    assert len({row[3] for row in of_files()}) > 2
    assert run.data["coverage"] == files.data["coverage"]
    assert (run.data["rejected"], run.data["without_case"]) == ([], [])


def test_the_date_of_a_fact_table_can_be_overridden(kypho: Kypho, table: Path) -> None:  # noqa: F811
    later = ("--as-of", "2026-12-01", *FEW, "--format", "json")
    run = kypho("assess", table, *later)
    assert run.code == 0
    assert run.data["run"]["as_of"] == "2026-12-01"
    assert said(run.data) == said(kypho("assess", *FILES, *later).data) != of_files()


def test_the_report_on_a_fact_table(kypho: Kypho, table: Path) -> None:  # noqa: F811
    run = kypho("intake", table, "--format", "json")
    assert (run.code, run.err) == (0, "")
    [one] = run.data["sources"]
    facts = rows_of(next(table.glob("facts.*")))
    assert one["records"] == len(FILES)
    assert one["read"] == {"cases": 7, "facts": len(facts)}
    assert (one["not_understood"], one["not_read"], one["rejected"]) == ([], [], [])
    files = kypho("intake", *FILES, "--format", "json")
    assert run.data["filled_features"] == files.data["filled_features"] > 20
    assert run.data["unfilled_features"] == files.data["unfilled_features"]


BAD = {
    "polarity": ("vertebralLevel", {"polarity": "yes"}, "polarity: 'yes'; expected one of present, absent"),
    "feature": ("vertebralLevel", {"feature": "vertebralLevle"}, "feature: 'vertebralLevle'; expected the local name"),
    "value": ("vertebralLevel", {"value": "L17"}, "value: 'L17'; expected a value of vertebralLevel"),
    "lesion": ("vertebralLevel", {"lesion": "zz"}, "lesion: 'zz'; expected a lesion that the table of cases has"),
    "no value": ("vertebralLevel", {"value": None}, "value: empty; expected a value of vertebralLevel"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_row_costs_its_patient_alone(kypho: Kypho, table: Path, name: str) -> None:  # noqa: F811
    feature, cells, message = BAD[name]
    place, patient = change(table, feature, cells)
    run = kypho("assess", table, *FEW, "--format", "json")
    assert run.code == 3
    assert run.err.startswith(f"kypho-kg: {place}, {message}")
    assert run.err.count("\n") == 1
    assert patient not in run.err
    assert said(run.data) == [row for row in of_files() if row[0] != patient] != []
    assert [f"{r['where']}: {r['what']}" for r in run.data["rejected"]] == [f"{place}, {message.partition(';')[0]}"]
    report = kypho("intake", table, "--format", "json")
    assert report.code == 3
    [one] = report.data["sources"]
    assert one["records"] == len(FILES) - 1
    assert [r["where"] for r in one["rejected"]] == [f"{place}, {message.partition(':')[0]}"]


def test_a_table_and_a_file_of_one_patient_are_merged(kypho: Kypho, table: Path, tmp_path: Path) -> None:  # noqa: F811
    more = tmp_path / "more.yaml"
    more.write_text(
        f"format: kypho-patient/1\npatient: {{id: seven-weeks-old}}\nfacts: {{{TERM}: present}}\n",
        "utf-8",
    )
    run = kypho("assess", table, more, "-g", "cms-l34228", "--format", "json")
    assert run.code == 0
    found = {(row[0], c[1:]) for row in said(run.data) for c in row if isinstance(c, tuple) and c[0] == CLAUSE}
    assert ("seven-weeks-old", ("unknown", "Conflicting")) in found, "the table rules it out"
    assert {truth for patient, truth in found if patient != "seven-weeks-old"} == {("not met", None)}
