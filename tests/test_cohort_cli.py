"""The command ``cohort``: sources, options, outputs, exit codes, and the page."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import ROOT
from cohorts import records
from pyarrow import parquet

from kypho_kg import cli
from kypho_kg.candidacy import assess
from kypho_kg.case_store import CaseStore
from kypho_kg.case_store import Options as StoreOptions
from kypho_kg.cohort_page import CohortReport, cohort_page
from kypho_kg.fact_rows import cases_schema
from kypho_kg.fact_table import write_fact_table
from kypho_kg.intake import read_records
from kypho_kg.knowledge import Knowledge

EXAMPLES = ROOT / "examples" / "constructed"
NAMES = "biopsy-pending stale-visit three-levels-one-session seven-weeks-old onset-about-three-months".split()
FILES = [EXAMPLES / f"{name}.yaml" for name in NAMES]
FEW = ("-g", "cms-l34228", "-g", "nice-ta279")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Ran:
    code: int
    out: str
    err: str


Kypho = Callable[..., Ran]


@pytest.fixture
def kypho(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kypho:
    """Runs the command in this process."""

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["kypho-kg", "cohort", *map(str, arguments), "--processes", "1"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return Ran(end.value.code if isinstance(end.value.code, int) else 0, out, err)

    return run


@pytest.fixture(scope="module")
def facts(knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    write_fact_table(records(0, 80, knowledge), folder)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def verdicts(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parquet.read_table(out / "verdicts").to_pylist()
    return found


def test_a_fact_table(facts: Path, kypho: Kypho, tmp_path: Path) -> None:
    done = kypho(facts, "-o", tmp_path, *FEW)
    assert done.code == 0
    number = parquet.read_table(facts / "cases.parquet").num_rows
    assert f"Verdicts on {number:,} cases" in done.out
    assert done.err == f"judged {number} of {number} cases\n"
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        *("verdicts", "clauses", "counts", "run.json", "summary.json", "rejected.csv"),
        *(f"{n}.csv" for n in ("verdict_counts", "clause_counts", "attrition", "missingness", "agreement")),
    }
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["cases"], summary["cases_not_judged"], summary["left_out"]) == (number, 0, {})
    for table in ("verdict_counts", "attrition", "agreement"):
        written = rows(tmp_path / f"{table}.csv")
        assert written == [{k: str(v) for k, v in row.items()} for row in summary[table]]
    assert (tmp_path.stat().st_mode & 0o777) in {0o700, 0o755}


def test_everything_at_once(facts: Path, kypho: Kypho, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("p0000001\r\n\np0000002\n")
    done = kypho(
        facts, "-o", tmp_path / "out", *FEW, "--evidence", "--patients", ids, "--sweep",
        "cms-l34228/LCD-I1:weeksSinceOnset=8", "--assume", "age-sex", "--compare", ROOT / "ontology", "--format", "csv",
        "--html", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert {r["kind"] for r in summary["beside"]} == {"assume", "sweep", "compare"}
    assert [m for m in summary["moves"] if m["kind"] == "compare"] == []
    told = {r["patient"] for r in rows(tmp_path / "out" / "evidence.csv")}
    assert told == {"p0000001", "p0000002"}
    in_csv = [(r["patient"], r["cms-l34228"], r["cms-l34228 assumed"]) for r in rows(tmp_path / "out" / "verdicts.csv")]
    assert in_csv == [(r["patient"], r["cms-l34228"], r["cms-l34228 assumed"]) for r in verdicts(tmp_path / "out")]
    shown = {True: "true", False: "false", None: ""}
    clauses = parquet.read_table(tmp_path / "out" / "clauses").to_pylist()
    in_csv_too = [r["cms-l34228/LCD-I1"] for r in rows(tmp_path / "out" / "clauses.csv")]
    assert in_csv_too == [shown[r["cms-l34228/LCD-I1"]] for r in clauses]
    assert rows(tmp_path / "out" / "flips.csv") == []
    assert "<title>Cohort report" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_patient_files(kypho: Kypho, tmp_path: Path, knowledge: Knowledge) -> None:
    done = kypho(*FILES, "-o", tmp_path)
    assert done.code == 0, done.err
    found = {(r["patient"], r["lesion"]): r for r in verdicts(tmp_path)}
    given, problems = read_records(FILES, knowledge)
    assert problems == []
    cases = [(r, c) for r in given for c in assess(r, knowledge=knowledge, guidelines=["all"]).cases]
    assert len(found) == len(cases) > 5
    for r, c in cases:
        row = found[r.patient, c.lesion.id]
        assert {a.guideline.id: a.verdict for a in c.assessments} == {g: row[g] for g in knowledge.guidelines}
    report = json.loads((tmp_path / "intake.json").read_text())["sources"]
    assert [s["source"] for s in report] == [f.name for f in FILES]
    # The same again reads nothing anew and judges nothing anew.
    before = (tmp_path / "facts" / "facts.parquet").stat().st_mtime_ns
    assert kypho(*FILES, "-o", tmp_path).code == 0
    assert (tmp_path / "facts" / "facts.parquet").stat().st_mtime_ns == before


def test_one_bad_file_costs_nothing_else(kypho: Kypho, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(FILES[0].read_text("utf-8").replace("format: kypho-patient/1", "format: kypho-patient/9"))
    for _ in range(2):  # the second time it is told again, from what was kept
        done = kypho(bad, FILES[1], "-o", tmp_path / "out", *FEW)
        assert done.code == 3
        assert "bad.yaml" in done.err
        assert len({r["patient"] for r in verdicts(tmp_path / "out")}) == 1


def test_nothing_to_judge(kypho: Kypho, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("format: kypho-patient/9\n")
    done = kypho(bad, "-o", tmp_path / "out")
    assert done.code == 3
    assert "no case: no patient with a lesion was read" in done.err


def test_a_store(kypho: Kypho, tmp_path: Path, knowledge: Knowledge) -> None:
    given, _ = read_records(FILES, knowledge)
    with CaseStore(tmp_path / "store", knowledge, StoreOptions(facts_only=True)) as store:
        assert len(list(store.load(given))) == len(FILES)
    assert kypho(tmp_path / "store", "-o", tmp_path / "a", *FEW).code == 0
    assert kypho(*FILES, "-o", tmp_path / "b", *FEW).code == 0
    key = ("patient", "lesion")
    both = [sorted(verdicts(tmp_path / n), key=lambda r: [r[k] for k in key]) for n in "ab"]
    assert both[0] == both[1]
    done = kypho(tmp_path / "store", FILES[0], "-o", tmp_path / "c")
    assert done.code == 2
    assert "give a fact table or a store alone" in done.err


def test_fhir_and_an_entry(kypho: Kypho, tmp_path: Path) -> None:
    """Dates come from an event; the table that is kept has none of its own."""
    bundle = {
        "resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in (
            {"resourceType": "Patient", "id": "f1", "birthDate": "1944-01-02", "gender": "female"},
            {"resourceType": "Condition", "id": "c1", "subject": {"reference": "Patient/f1"},
             "onsetDateTime": "2026-01-10",
             "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "M80.08XA"}]},
             "bodySite": [{"text": "T12"}], "recordedDate": "2026-01-12"},
        )],
    }  # fmt: skip
    (tmp_path / "bundle.json").write_text(json.dumps(bundle))
    event = ("--entry", "primaryEtiology+10")
    done = kypho(tmp_path / "bundle.json", "-o", tmp_path / "out", *event, *FEW)
    assert done.code == 0, done.err
    assert [(r["patient"], str(r["as_of"])) for r in verdicts(tmp_path / "out")] == [("f1", "2026-01-20")]
    assert parquet.read_table(tmp_path / "out" / "facts" / "cases.parquet")["as_of"].null_count == 1
    done = kypho(tmp_path / "out" / "facts", "-o", tmp_path / "third", *FEW)
    assert done.code == 3
    assert "1 of 1 cases have no as-of date" in done.err


GIVE = "give --as-of for all, --index for each case, or --entry"


def test_a_source_that_never_has_a_date_is_not_read(
    kypho: Kypho, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle.json").write_text('{"resourceType": "Bundle", "type": "collection", "entry": []}')
    (tmp_path / "cdm").mkdir()
    (tmp_path / "cdm" / "person.csv").write_text("person_id,gender_concept_id,year_of_birth\n1,8532,1950\n")
    (tmp_path / "t.csv").write_text("pid,lid\np,a\n")
    (tmp_path / "map.yaml").write_text("format: kypho-table/1\nshape: wide\npatient: pid\nlesion: lid\n")
    monkeypatch.setattr("kypho_kg.cohort_intake.stream_sources", lambda *_, **__: pytest.fail("it was read"))
    of_table = ("t.csv", "--mapping", tmp_path / "map.yaml")
    for name, *options in (("bundle.json",), ("cdm",), of_table):
        done = kypho(tmp_path / name, *options, "-o", tmp_path / "new" / "out", *FEW)
        assert (done.code, done.err) == (2, f"kypho-kg: {name}: no as-of date can come from such a source; {GIVE}\n")
        assert not (tmp_path / "new").exists()


DATED = "format: kypho-table/1\nshape: wide\npatient: pid\nlesion: lid\nas_of: day\ncolumns: {nrs: painNrs}\n"


def test_a_patient_without_a_date_is_told_with_what_was_rejected(kypho: Kypho, tmp_path: Path) -> None:
    table = ("--mapping", tmp_path / "map.yaml", *FEW)
    (tmp_path / "map.yaml").write_text(DATED)
    (tmp_path / "t.csv").write_text("pid,lid,day,nrs\nQX,a,2026-03-02,5\nQY,,,6\nQZ,a,,bad\n")
    done = kypho(tmp_path / "t.csv", *table, "-o", tmp_path / "new" / "out")
    assert done.code == 2
    assert done.err.splitlines()[-1] == f"kypho-kg: t.csv: a patient with a lesion has no as-of date; {GIVE}"
    assert "kypho-kg: t.csv:4, nrs: painNrs is 'bad'" in done.err
    assert not any(patient in done.err for patient in ("QX", "QY", "QZ"))
    assert not (tmp_path / "new").exists()
    (tmp_path / "t.csv").write_text("pid,lid,day,nrs\nQX,a,2026-03-02,5\nQY,,,6\n")
    done = kypho(tmp_path / "t.csv", *table, "-o", tmp_path / "out")
    assert (done.code, len(verdicts(tmp_path / "out"))) == (0, 1), "who has no lesion needs no date"
    (tmp_path / "t.csv").write_text("pid,lid,day,nrs\nQX,a,,5\n")
    assert kypho(tmp_path / "t.csv", *table, "-o", tmp_path / "out").code == 2
    assert (tmp_path / "out" / "facts" / "cases.parquet").is_file(), "what was there stays"
    assert not (tmp_path / "out" / "facts.draft").exists()


def test_what_was_rejected_is_told_whatever_ends_the_run(kypho: Kypho, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(DATED)
    (tmp_path / "t.csv").write_text("pid,lid,day,nrs\np,a,2026-03-02,bad\n")
    given = (tmp_path / "t.csv", "--mapping", tmp_path / "map.yaml", "-o", tmp_path / "out", *FEW)
    for option in (("--entry", "painNsr"), ("--index", tmp_path / "no.csv"), ("--memory", "0.1")):
        done = kypho(*given, *option)
        assert done.code in (2, 3)
        assert "kypho-kg: t.csv:2, nrs: painNrs is 'bad'" in done.err


def test_a_table_in_csv(facts: Path, kypho: Kypho, tmp_path: Path) -> None:
    from pyarrow import csv as arrow_csv

    (tmp_path / "t").mkdir()
    for name in ("facts", "cases"):
        table = parquet.read_table(facts / f"{name}.parquet")
        kinds = [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema]
        arrow_csv.write_csv(table.cast(pa.schema(kinds)), tmp_path / "t" / f"{name}.csv")
    assert kypho(tmp_path / "t", "-o", tmp_path / "a", *FEW).code == 0
    assert kypho(facts, "-o", tmp_path / "b", *FEW).code == 0
    assert verdicts(tmp_path / "a") == verdicts(tmp_path / "b")


def test_a_malformed_patient_costs_only_itself(facts: Path, kypho: Kypho, tmp_path: Path) -> None:
    shutil.copytree(facts, tmp_path / "t")
    cases = parquet.read_table(tmp_path / "t" / "cases.parquet").to_pylist()
    cases[3]["state"] = "Ohio"
    parquet.write_table(pa.Table.from_pylist(cases, cases_schema()), tmp_path / "t" / "cases.parquet")
    done = kypho(tmp_path / "t", "-o", tmp_path / "out", *FEW)
    assert done.code == 3
    rejected = rows(tmp_path / "out" / "rejected.csv")
    assert {r["patient"] for r in rejected} == {cases[3]["patient"]}
    assert f"{len(rejected)} cases were not judged" in done.err
    assert cases[3]["patient"] not in done.err + done.out
    assert len(verdicts(tmp_path / "out")) == len(cases) - len(rejected)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--index", "no.csv", "--entry", "painNrs"], 2, "give --index or --entry, not both"),
        (["--as-of", "2026-01-01", "--entry", "painNrs"], 2, "not both"),
        (["--as-of", "01.01.2026"], 2, "is no date"),
        (["--patients", "no.txt"], 2, "give --evidence or --graphs too"),
        (["--evidence", "--patients", "no.txt"], 2, "--patients no.txt: No such file"),
        (["--index", "no.csv"], 3, "no.csv: cannot be read"),
        (["--entry", "painNsr"], 2, "expected the name of a feature"),
        (["--assume", "hope"], 2, "unknown policy 'hope'"),
        (["-g", "cms-l99"], 2, "unknown guideline 'cms-l99'"),
        (["-g", "nice-ta279", "--sweep", "cms-l34228/LCD-I1=4"], 2, "cms-l34228 is not asked: add it with --guideline"),
        (["--sweep", "cms-l34228/LCD-I1"], 2, "expected CLAUSE"),
        (["--compare", "docs"], 2, "--compare docs: expected the folder 'ontology' of a version"),
        (["--memory", "0.1"], 2, "--memory 0.1: too little for this table"),
    ],
)
def test_wrong_options(options: list[str], code: int, said: str, facts: Path, kypho: Kypho, tmp_path: Path) -> None:
    done = kypho(facts, "-o", tmp_path / "out", *options)
    assert (done.code, said in done.err) == (code, True), done.err
    assert not (tmp_path / "out" / "verdicts").exists()
    assert "Traceback" not in done.err


def test_a_wrong_path(facts: Path, kypho: Kypho, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = kypho(facts, "-o", tmp_path / "file" / "out", *FEW)
    assert done.code == 2
    assert "cannot write" in done.err
    done = kypho(tmp_path / "nothing", "-o", tmp_path / "out")
    assert done.code == 3
    assert "no such file or folder" in done.err


@pytest.mark.skipif(sys.platform != "linux" or not Path("/dev/full").exists(), reason="there is no full device")
def test_graphs_of_some(facts: Path, kypho: Kypho, tmp_path: Path) -> None:
    target = tmp_path / "some.nq"
    done = kypho(facts, "-o", tmp_path / "out", *FEW, "--graphs", target, "--verdict", "cms-l34228=Undetermined")
    assert done.code == 0
    wanted = {row["patient"] for row in verdicts(tmp_path / "out") if row["cms-l34228"] == "Undetermined"}
    found = set(re.findall(r"<urn:kypho:patient:([^/>]+)/graph/judged>", target.read_text()))
    assert found == wanted != set()
    assert re.fullmatch(rf"some.nq: [\d,]+ quads of {len(wanted)} patients", done.err.splitlines()[-1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--verdict", "nice-ta279=Candidate"], "--verdict says whose graphs are written: give --graphs too"),
        (["--graphs", "x.nq", "--verdict", "nice-ta279=Perhaps"], "expected GUIDELINE=VERDICT, the verdict one of"),
        (["--backend", "spark", "--entry", "onsetDate"], "--backend spark reads one fact table, without --entry"),
        (["--backend", "spark", "--evidence"], "--compare and --evidence are not there with --backend spark"),
    ],
)
def test_wrong_options_of_backends_and_graphs(
    options: list[str], said: str, facts: Path, kypho: Kypho, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = kypho(facts, "-o", tmp_path / "out", *FEW, *options)
    assert done.code == 2
    assert said in done.err


def test_a_full_disk(facts: Path, kypho: Kypho, tmp_path: Path) -> None:
    assert kypho(facts, "-o", tmp_path / "out", *FEW).code == 0
    (tmp_path / "out" / "counts" / "part-00000.npz").unlink()
    (tmp_path / "out" / "verdicts" / "part-00000.draft").symlink_to("/dev/full")
    done = kypho(facts, "-o", tmp_path / "out", *FEW)
    assert done.code == 2
    assert "cannot write" in done.err
    assert "No space left" in done.err


def test_several_processes_from_the_command_line(facts: Path, tmp_path: Path) -> None:
    keep = {k: v for k, v in os.environ.items() if k not in {"FORCE_COLOR", "COLUMNS"}}
    command = [
        sys.executable,
        "-m",
        "kypho_kg",
        "cohort",
        str(facts),
        "-o",
        str(tmp_path / "o"),
        *FEW,
        "--processes",
        "2",
    ]
    done = subprocess.run(command, cwd=ROOT, env=keep, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "Verdicts on" in done.stdout


# --------------------------------------------------------------------------------------------------------------------
# The page


class Seen(HTMLParser):
    """What a reader sees, and what the page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [v or "" for k, v in attrs if k in {"src", "href", "data", "srcset"}]
        if tag in {"script", "link", "iframe", "img", "object"}:
            self.fetched.append(tag)
        if tag not in {"meta", "rect", "path"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"meta", "rect", "path"}:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def page(
    facts: Path, knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("page")
    command = [
        sys.executable,
        "-m",
        "kypho_kg",
        "cohort",
        str(facts),
        "-o",
        str(out),
        "--html",
        "--json",
        "--processes",
    ]
    sweep = ["1", "--sweep", "cms-l34228:weeksSinceOnset@12=8,12"]
    done = subprocess.run([*command, *sweep], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return (out / "report.html").read_text("utf-8"), json.loads(done.stdout), out


def test_the_page_holds_the_numbers(page: tuple[str, dict[str, Any], Path]) -> None:
    text, summary, _ = page
    seen = Seen(text)
    assert seen.fetched == []
    assert seen.open == []
    for heading in ("What the sources say", "Attrition", "Where the sources agree", "What is missing", "Asked beside"):
        assert heading in seen.text
    for row in summary["attrition"][:40]:
        assert row["label"] in seen.text
    for row in summary["verdict_counts"]:
        assert row["guideline"] in seen.text
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="10"', text)]
    assert len(widths) > 300
    assert max(widths) <= 100


def test_what_a_patient_writes_is_no_markup(page: tuple[str, dict[str, Any], Path], knowledge: Knowledge) -> None:
    summary = page[1]
    tables = {k: v for k, v in summary.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
    hostile = "<script>alert(1)</script>"
    report = CohortReport(summary["run"], tables, summary["cases"], {hostile: 3}, 2, [hostile])
    text = cohort_page(report, knowledge, "kypho-kg")
    assert "<script" not in text
    assert "2 cases were not judged" in Seen(text).text
    assert cohort_page(report, knowledge, "kypho-kg") == text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; no page was opened")
def test_a_browser_opens_and_prints_it(page: tuple[str, dict[str, Any], Path], tmp_path: Path) -> None:
    assert CHROMIUM
    path, picture, pdf = page[2] / "report.html", tmp_path / "page.png", tmp_path / "page.pdf"
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --v=0"
    )
    for action in (f"--screenshot={picture}", f"--print-to-pdf={pdf}"):
        command = [
            CHROMIUM,
            *quiet.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1280,2000",
            action,
        ]
        done = subprocess.run(
            [*command, path.as_uri()], check=True, capture_output=True, text=True, encoding="utf-8", timeout=120
        )
        assert "CONSOLE" not in done.stderr
    assert picture.stat().st_size > 50_000
    assert 5 <= len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) <= 60
