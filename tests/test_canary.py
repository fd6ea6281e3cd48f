"""No identifier and no value of a patient gets out: not to stderr beyond what is to be mended, not into files or names.

One patient with unmistakable identifiers is told by each kind of source, once as it should be and once with a mistake.
Every command that reads sources runs in a process of its own, with a folder for temporary files and a home of its own;
both must be empty afterwards. Names, addresses, telephone numbers and texts that nobody reads must stand nowhere.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from kypho_kg.fact_rows import cases_schema, facts_schema

ID = "4711000815"
NEVER = ("Zzyzxworth", "Quillonia", "Kestrelgasse", "99 Kestrel", "+999-555-0142", "canary free text")
"""Name, address, telephone number and a text that nobody reads."""
VALUES = (ID, "1913-07-29", "1.7391")
"""The id, the birth date and a laboratory value."""
BAD = "2026-02-31"
"""The mistake: a date that does not exist. A rejection may show it."""
TOLD = (BAD, "Observation.effectiveDateTime cannot be read", "measurement_date")
KINDS = ("patient", "fhir", "omop", "csv", "rdf", "facts")
ICD, LOINC = "http://hl7.org/fhir/sid/icd-10-cm", "http://loinc.org"


def patient(folder: Path, day: str) -> list[str]:
    path = folder / "patient.yaml"
    path.write_text(
        f"format: kypho-patient/1\npatient: {{id: '{ID}', birth_date: 1913-07-29, sex: Female}}\nas_of: 2026-03-02\n"
        f"facts:\n  inr: {{value: 1.7391, time: {day}}}\nlesions:\n  - id: a\n    level: L1\n",
        "utf-8",
    )
    return [str(path)]


def fhir(folder: Path, day: str) -> list[str]:
    who = {"reference": f"Patient/{ID}", "display": "Quillonia Zzyzxworth"}
    note = [{"text": "canary free text"}]
    resources: list[dict[str, object]] = [
        {
            "resourceType": "Patient",
            "id": ID,
            "birthDate": "1913-07-29",
            "name": [{"family": "Zzyzxworth", "given": ["Quillonia"]}],
            "address": [{"line": ["99 Kestrelgasse"]}],
            "telecom": [{"value": "+999-555-0142"}],
        },
        {
            "resourceType": "Condition",
            "id": "c",
            "subject": who,
            "note": note,
            "onsetDateTime": "2026-02-01",
            "code": {"coding": [{"system": ICD, "code": "S32.010A"}]},
        },
        {
            "resourceType": "Observation",
            "id": "o",
            "subject": who,
            "note": note,
            "status": "final",
            "effectiveDateTime": day,
            "code": {"coding": [{"system": LOINC, "code": "6301-6"}]},
            "valueQuantity": {"value": 1.7391, "unit": "{INR}"},
        },
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}
    path = folder / "bundle.json"
    path.write_text(json.dumps(bundle), "utf-8")
    return [str(path)]


def omop(folder: Path, day: str) -> list[str]:
    tables: dict[str, list[list[object]]] = {
        "person": [
            ["person_id", "gender_concept_id", "year_of_birth", "month_of_birth", "day_of_birth",
             "person_source_value"],
            [ID, 8532, 1913, 7, 29, "Quillonia Zzyzxworth"],
        ],
        "condition_occurrence": [
            ["condition_occurrence_id", "person_id", "condition_concept_id", "condition_start_date",
             "condition_source_value"],
            [1, ID, 0, "2026-02-01", "S32.010A"],
        ],
        "measurement": [
            ["measurement_id", "person_id", "measurement_concept_id", "measurement_date", "value_as_number",
             "unit_source_value", "measurement_source_value"],
            [1, ID, 0, day, "1.7391", "{INR}", "6301-6"],
        ],
        "note": [["note_id", "person_id", "note_text"], [1, ID, "canary free text"]],
        "location": [["location_id", "address_1"], [1, "99 Kestrelgasse"]],
    }  # fmt: skip
    cdm = folder / "cdm"
    cdm.mkdir()
    for name, rows in tables.items():
        with (cdm / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    return [str(cdm)]


def table(folder: Path, day: str) -> list[str]:
    path, mapping = folder / "table.csv", folder / "mapping.yaml"
    path.write_text(
        "who,name,phone,born,inr,on,lesion,level,note\n"
        f"{ID},Quillonia Zzyzxworth,+999-555-0142,1913-07-29,1.7391,{day},a,L1,canary free text\n",
        "utf-8",
    )
    mapping.write_text(
        "format: kypho-table/1\nshape: wide\npatient: who\nlesion: lesion\ncolumns:\n  born: birthDate\n"
        "  inr: {feature: inr, time: on}\n  level: vertebralLevel\n",
        "utf-8",
    )
    return [str(path), "--mapping", str(mapping)]


def rdf(folder: Path, day: str) -> list[str]:
    p = f"urn:kypho:patient:{ID}"
    said = "k:mood k:Observed ; k:polarity k:PresentPolarity ; k:verificationStatus k:Confirmed"
    path = folder / "graph.ttl"
    path.write_text(
        "@prefix k: <https://w3id.org/kypho#> . @prefix xsd: <http://www.w3.org/2001/XMLSchema#> .\n"
        "@prefix foaf: <http://xmlns.com/foaf/0.1/> .\n"
        f'<{p}> a k:Patient ; k:patientId "{ID}" ; k:hasLesion <{p}/lesion/a> ; foaf:name "Quillonia Zzyzxworth" ;\n'
        ' foaf:phone "+999-555-0142" ; foaf:based_near "99 Kestrelgasse" .\n'
        f'<{p}/lesion/a> a k:VertebralLesion ; k:lesionId "a" .\n'
        f"<{p}/fact/0> a k:Fact ; k:aboutSubject <{p}> ; k:feature k:inr ; k:inr 1.7391 ; {said} ;\n"
        f' k:recordedFrom "{day}"^^xsd:date ; k:recordedUntil "{day}"^^xsd:date .\n'
        f"<{p}/fact/1> a k:Fact ; k:aboutSubject <{p}> ; k:feature k:birthDate ; {said} ;\n"
        ' k:birthDate "1913-07-29"^^xsd:date .\n',
        "utf-8",
    )
    return [str(path)]


def facts(folder: Path, day: str) -> list[str]:
    """A fact table, with columns that nobody reads."""
    row = {"polarity": "present", "mood": "observed", "status": "confirmed"}
    born = {"date_start": "1913-07-29", "date_end": "1913-07-29"}
    when = {"time_start": f"{day} 00:00:00", "time_end": f"{day} 23:59:59"}
    rows: dict[str, list[dict[str, str]]] = {
        "facts": [
            {**row, "feature": "birthDate", **born},
            {**row, "feature": "inr", "low": "1.7391", "high": "1.7391", **when},
            {**row, "feature": "vertebralLevel", "lesion": "a", "value": "L1"},
        ],
        "cases": [{"lesion": "a", "as_of": "2026-03-02", "has_procedure": "false", "session_named": "false",
                   "in_session": "false"}],
    }  # fmt: skip
    for name, schema in (("facts", facts_schema()), ("cases", cases_schema())):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            out = csv.DictWriter(file, [*schema.names, "name", "phone", "note"])
            out.writeheader()
            told = {"patient": ID, "name": "Quillonia Zzyzxworth", "phone": "+999-555-0142", "note": "canary free text"}
            out.writerows({**told, **one} for one in rows[name])
    return [str(folder)]


WRITERS = dict(zip(KINDS, (patient, fhir, omop, table, rdf, facts), strict=True))
DATE = ["--as-of", "2026-03-02"]
FEW = ["-g", "cms-l34228"]
ALL = 'SELECT ?s ?p ?o { GRAPH ?g { ?s ?p ?o } FILTER(STRSTARTS(STR(?g), "urn:kypho:patient:")) }'
"""What a store holds of its patients: its files are not to be read without its engine."""
COMMANDS = {
    **{
        f"assess {f}": ["assess", "SRC", *DATE, "--format", f]
        for f in "table json html trig ttl jsonld fhir owl".split()
    },
    **{f"assess {f}": ["assess", "SRC", *DATE, "--format", f, "-o", "OUT"] for f in ("csv", "parquet")},
    "assess owl -o": ["assess", "SRC", *DATE, "--format", "owl", "-o", "OUT"],
    "assess without a date": ["assess", "SRC"],
    "explain": ["explain", "SRC", *DATE, "-g", "cms-l34228"],
    "next": ["next", "SRC", *DATE],
    "timeline": ["timeline", "SRC", "--from", "2026-03-01", "--to", "2026-03-02"],
    "validate": ["validate", "SRC"],
    "intake": ["intake", "SRC"],
    "intake json": ["intake", "SRC", "--format", "json"],
    **{
        f"packet {f}": ["packet", "SRC", *DATE, "--state", "TX", "--payer", "Medicare", "--format", f]
        for f in ("html", "json", "fhir")
    },
    "packet -o": ["packet", "SRC", *DATE, "--state", "TX", "--payer", "Medicare", "-o", "OUT/packet.html"],
    "load": ["load", "SRC", *DATE, "--store", "OUT"],
    "load, query": ["load", "SRC", *DATE, "--store", "OUT", "THEN", "query", "stale-facts", "--store", "OUT"],
    "load, query everything": [
        *("load", "SRC", *DATE, "--store", "OUT", "--facts-only", "THEN"),
        *("query", "src/all.rq", "--store", "OUT", "--format", "csv"),
    ],
    "query": ["query", "stale-facts", "SRC", *DATE],
    "query of values": ["query", "laboratory-values", "SRC", *DATE, "--format", "csv"],
    "cohort": ["cohort", "SRC", *DATE, *FEW, "-o", "OUT"],
    "cohort csv": ["cohort", "SRC", *DATE, *FEW, "-o", "OUT", "--evidence", "--format", "csv"],
    "cohort html": ["cohort", "SRC", *DATE, *FEW, "-o", "OUT", "--html", "--json"],
    "cohort entry": ["cohort", "SRC", "--entry", "inr", *FEW, "-o", "OUT", "--graphs", "OUT/graphs.nq.gz"],
    "cohort without a date": ["cohort", "SRC", *FEW, "-o", "OUT"],
    "load, cohort": [
        *("load", "SRC", *DATE, "--facts-only", "--store", "OUT/store", "THEN"),
        *("cohort", "OUT/store", *DATE, *FEW, "-o", "OUT/cohort", "--html"),
    ],
}
QUICK = [
    *(("assess json", kind, True) for kind in KINDS),
    ("packet html", "omop", True),
    ("load, query", "csv", True),
    ("load, query everything", "fhir", True),
    ("cohort html", "fhir", True),
]
SLOW = [(c, k, broken) for c in COMMANDS for k in KINDS for broken in (False, True) if (c, k, broken) not in QUICK]
REPORTS = ("intake", "cohort", "load, cohort")
"""Answers tell values of the patient; the report of what was read, and what a cohort says in sum, tell none."""
SUMMED = ("intake.json", "report.html", "summary.json")
"""Files of a cohort that tell of nobody in particular. The tables beside them do."""


def check(command: str, kind: str, broken: bool, folder: Path) -> None:
    for name in ("src", "tmp", "home"):
        (folder / name).mkdir()
    (folder / "src" / "all.rq").write_text(ALL, "utf-8")
    words = WRITERS[kind](folder / "src", BAD if broken else "2026-02-27")
    out, err = "", ""
    for number, given in enumerate(calls(command, words, folder)):
        done = run(given, folder)
        out, err = out + done.stdout, err + done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode in ((0, 2, 3) if broken or "without" in command else (0,)), done.stderr
        unread = "no as-of date can come from such a source" in done.stderr
        if broken and number == 0 and not unread:
            assert any(told in done.stdout + done.stderr for told in TOLD), "the mistake is told, with its place"
    written = {p.relative_to(folder / "out"): p.read_bytes() for p in (folder / "out").rglob("*") if p.is_file()}
    nothing_in(command, out, err, written)
    assert not (written and "no as-of date" in done.stderr), "what was read is not kept if it cannot be judged"
    assert list((folder / "tmp").rglob("*")) == []
    assert list((folder / "home").rglob("*")) == []
    assert {p.name for p in folder.iterdir()} <= {"src", "tmp", "home", "out"}


def calls(command: str, source: list[str], folder: Path) -> list[list[str]]:
    """The calls of a command: OUT is a folder to write to, THEN stands between two calls."""
    every: list[list[str]] = [[]]
    for word in COMMANDS[command]:
        if word == "THEN":
            every.append([])
        else:
            here = str(folder / "out")
            every[-1] += source if word == "SRC" else [here + word[3:] if word.startswith("OUT") else word]
    return every


def run(given: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A call in a process of its own, with a folder for temporary files and a home of its own."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "COV_"))}
    env |= {"TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "kypho_kg", *given], capture_output=True, encoding="utf-8", env=env, cwd=folder
    )


def nothing_in(command: str, out: str, err: str, written: dict[Path, bytes]) -> None:
    """No identifier on stderr, in names or in summaries; what nobody reads stands nowhere."""
    for word in (*NEVER, *VALUES):
        assert word not in err, err
        assert not [p for p in written if word in str(p)]
    for word in NEVER:
        assert word not in out
        assert not [p for p, data in written.items() if word.encode() in plain(data)]
    for word in VALUES if command.startswith(REPORTS) else ():
        assert word not in out
        assert not [p for p, data in written.items() if p.name in SUMMED and word.encode() in data]


def plain(data: bytes) -> bytes:
    """The content of a file, also where it is compressed."""
    if data.startswith(b"PAR1"):
        return repr(parquet.read_table(pa.BufferReader(data)).to_pylist()).encode()
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


@pytest.mark.parametrize(("command", "kind", "broken"), QUICK)
def test_nothing_gets_out(command: str, kind: str, broken: bool, tmp_path: Path) -> None:
    check(command, kind, broken, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "kind", "broken"), SLOW)
def test_nothing_gets_out_of_any_command(command: str, kind: str, broken: bool, tmp_path: Path) -> None:
    check(command, kind, broken, tmp_path)


# --------------------------------------------------------------------------------------------------------------------
# Files that are cut, joined or without a header: what is told names no cell of them


@pytest.mark.parametrize("row", [f"{ID},a", f"{ID},a,2026-03-02,Zzyzxworth", f"{ID},a,Zzyzxworth", f"{ID},Zz\xff,x"])
def test_a_row_of_an_index_is_not_shown(row: str, tmp_path: Path) -> None:
    for name in ("src", "tmp", "home"):
        (tmp_path / name).mkdir()
    index = tmp_path / "src" / "index.csv"
    index.write_bytes(b"patient,lesion,date\n" + row.encode("latin-1") + b"\n")
    source = patient(tmp_path / "src", "2026-02-27")
    done = run(["cohort", *source, "--index", str(index), *FEW, "-o", str(tmp_path / "out")], tmp_path)
    assert done.returncode == 3
    assert "kypho-kg: index.csv" in done.stderr
    nothing_in("cohort", done.stdout, done.stderr, {})


@pytest.mark.parametrize("command", ["assess", "intake", "cohort"])
@pytest.mark.parametrize("header", ["", "who,name,phone,born,inr,on,lesion,", "who,name,born,inr,on,lesion,level,note"])
def test_a_first_row_that_is_no_header_is_not_shown(header: str, command: str, tmp_path: Path) -> None:
    for name in ("src", "tmp", "home"):
        (tmp_path / name).mkdir()
    source = table(tmp_path / "src", "2026-02-27")
    path = Path(source[0])
    path.write_text(header + path.read_text("utf-8").partition("\n")[2], "utf-8")
    done = run([command, *source, *(["-o", str(tmp_path / "out"), *DATE] if command == "cohort" else [])], tmp_path)
    assert done.returncode in (0, 3)
    assert "table.csv" in done.stdout + done.stderr, "an empty answer says why"
    nothing_in("intake", done.stdout, done.stderr, {})


# --------------------------------------------------------------------------------------------------------------------
# Commands that read no patient


@pytest.mark.parametrize("form", ["facts", "patient", "fhir"])
def test_generated_patients_leave_nothing_behind(form: str, tmp_path: Path) -> None:
    for name in ("tmp", "home"):
        (tmp_path / name).mkdir()
    done = run(["synth", "-n", "5", "--format", form, "-o", str(tmp_path / "out"), *FEW], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {p.name for p in tmp_path.iterdir()} == {"tmp", "home", "out"}
    assert list((tmp_path / "tmp").rglob("*")) == list((tmp_path / "home").rglob("*")) == []
