"""The command line: what it prints where, its exit codes, and what it does with bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import NamedTuple

import pytest
from bad_input import ALL, GOOD
from builders import EXAMPLES, ROOT, ontology_with
from test_patient_file import OVER, as_json

from kypho_kg import cli, loading
from kypho_kg import verdicts as judging
from kypho_kg.loading import read_knowledge
from kypho_kg.sources.yaml_tree import Node, read_tree

T4 = EXAMPLES / "constructed/t4-outpatient.yaml"
ESCAPE = "\x1b"


class Run(NamedTuple):
    """What a call left behind."""

    code: int
    out: str
    err: str

    @property
    def data(self):
        """stdout as JSON."""
        return json.loads(self.out)


@pytest.fixture
def kypho(monkeypatch, capsys):
    """Runs the command line in this process."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["kypho-kg", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        code = end.value.code
        return Run(code if isinstance(code, int) else 0, out, err)

    return run


@pytest.fixture
def file(tmp_path):
    """Writes a file and returns its path."""

    def write(text: str | bytes, name: str = "patient.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Runs the command line as a process of its own."""
    keep = {k: v for k, v in os.environ.items() if k not in {"FORCE_COLOR", "NO_COLOR", "COLUMNS"}}
    return subprocess.run(
        [sys.executable, "-m", "kypho_kg", *map(str, arguments)],
        cwd=ROOT, env={**keep, **environment}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def verdicts(run: Run) -> dict[str, str]:
    """The verdicts of the only case, by guideline."""
    [case] = run.data["cases"]
    return {a["guideline"]: a["verdict"] for a in case["assessments"]}


def leaves(proof):
    return [leaf for child in proof["children"] for leaf in leaves(child)] if "children" in proof else [proof]


def facts_of(run: Run, feature: str):
    """The facts on a feature in all proofs of the only case."""
    [case] = run.data["cases"]
    proofs = [c["proof"] for a in case["assessments"] for c in a["clauses"]]
    return [f for p in proofs for leaf in leaves(p) for f in leaf.get("facts", ()) if f["feature"] == feature]


# -- exit 0


def test_an_answer_of_no_is_an_answer(kypho):
    run = kypho("assess", T4, "-g", "evicore-cmm-607")
    assert (run.code, run.err) == (0, "")
    assert "CRITERIA NOT MET" in run.out


def test_json_is_the_only_thing_on_stdout(kypho):
    run = kypho("assess", T4, "--format", "json")
    assert run.code == 0
    assert run.data["schema_version"] == "1"
    assert run.out.startswith("{")
    assert verdicts(run)["cms-l34228"] == "Candidate"
    assert run.data["rejected"] == []


def test_many_cases_are_shown_as_a_matrix(kypho):
    files = sorted((EXAMPLES / "constructed").glob("t*.yaml"))
    run = kypho("assess", *files)
    assert run.code == 0
    assert "three-levels-one-session" in run.out
    assert "yes = candidate" in run.out


def test_version_and_help(kypho):
    assert re.match(r"kypho-kg \d+\.\d+\.\d+, knowledge base [\d-]+, sha256 [0-9a-f]{64}\n", kypho("--version").out)
    run = kypho("assess", "--help")
    assert run.code == 0
    for option in ("--as-of", "--with", "--guideline", "--assume", "--no-bridge", "--state", "--payer", "--format"):
        assert option in run.out


def test_a_record_without_lesion_has_no_case_and_says_so(kypho, file):
    empty = file("format: kypho-patient/1\npatient: {id: p}\nas_of: 2026-03-02\n")
    assert "no vertebral lesion, so there is no case" in kypho("assess", empty).out
    data = kypho("assess", empty, "--format", "json").data
    assert (data["cases"], [w["patient"] for w in data["without_case"]]) == ([], ["p"])


def test_validate_says_what_conforms(kypho, file):
    run = kypho("validate", file(GOOD))
    assert (run.code, run.out) == (0, "patient.yaml: conforms (7 facts, 1 lesion)\n")


def test_guidelines_are_listed_and_shown(kypho, knowledge):
    assert {g["id"] for g in kypho("guidelines", "list", "--format", "json").data} == set(knowledge.guidelines)
    assert all(id_ in kypho("guidelines", "list").out for id_ in knowledge.guidelines)
    shown = kypho("guidelines", "show", "cms-l34228", "--format", "json").data
    assert len(shown["recommendations"]) == len(knowledge.guidelines["cms-l34228"].recommendations)
    page = kypho("guidelines", "show", "cms-l34228").out
    assert "pain (NRS): >= 5" in page
    assert "Not for: " in page


def test_queries_are_listed_and_run(kypho, file):
    assert "features" in kypho("query", "list").out
    assert any("painNrs" in row.values() for row in kypho("query", "features", "--format", "json").data)
    own = file("SELECT ?g WHERE { ?g a <https://w3id.org/kypho#Guideline> }", "own.rq")
    listed = kypho("guidelines", "list", "--format", "json").data
    assert len(kypho("query", own, "--format", "json").data) == len(listed) > 90
    assert "nice-ta279" in kypho("query", own).out


def test_the_installation_is_checked(kypho):
    run = kypho("doctor")
    assert run.code == 0
    assert "knowledge base" in run.out


def test_the_bundled_ontology_passes_its_check(kypho):
    run = kypho("ontology", "check", "--no-reasoner")
    assert (run.code, run.out.count("ok  ")) == (0, 4), run.out


# -- exit 2: the call is wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["assess", T4, "--guideline", "nice"],
            "unknown guideline 'nice'; did you mean nice-cg75-2008, nice-ng35-2016, nice-ta279?",
        ),
        (["assess", T4, "--guideline", "cms-l34229"], "did you mean cms-l34228"),
        (["assess", T4, "--guideline", "zzz"], "unknown guideline 'zzz'; 'guidelines list' lists all"),
        (["assess", T4, "--assume", "hope"], "unknown policy 'hope'; known: age-sex, problem-list"),
        (["assess", T4, "--payer", "Acme"], "unknown payer 'Acme'; known: Aetna, AustralianMedicare"),
        (["assess", T4, "--state", "Texas"], "--state 'Texas' is no postal code; expected two capitals such as OH"),
        (["assess", T4, "--as-of", "yesterday"], "--as-of 'yesterday' is no date; expected YYYY-MM-DD"),
        (["assess", T4, "--as-of", "2026-02-30"], "--as-of '2026-02-30' is no date; expected YYYY-MM-DD"),
        (["explain", T4, "-g", "nice-ta279", "--lesion", "z"], "no such lesion; the record has: a (T4)"),
        (["explain", T4, "-g", "nice-ta279", "--level", "L1"], "no such lesion; the record has: a (T4)"),
        (["guidelines", "show", "nice"], "unknown guideline 'nice'"),
        (["query", "nothing"], "unknown query 'nothing'"),
        (["assess"], "Missing argument"),
        (["assess", T4, "--unknown"], "No such option"),
        (["explain", T4], "Missing option"),
        (["assess", T4, "--format", "xml"], "'xml'"),
    ],
    ids=lambda a: " ".join(map(str, a[2:])) or a[0] if isinstance(a, list) else "",
)
def test_a_wrong_call_is_exit_2_with_what_would_be_right(kypho, arguments, message):
    run = kypho(*arguments)
    assert (run.code, run.out) == (2, "")
    assert message in run.err
    assert "Traceback" not in run.err


def test_without_a_date_nothing_is_assessed(kypho, file):
    undated = file(GOOD.replace("as_of: 2026-03-02\n", ""))
    run = kypho("assess", undated)
    assert (run.code, run.out) == (2, "")
    assert run.err == "kypho-kg: patient.yaml: no as-of date; give one in the file (as_of) or with --as-of\n"
    assert kypho("assess", undated, "--as-of", "2026-03-02").code == 0


def test_a_query_that_reaches_outside_is_refused(kypho, file):
    out = file("SELECT * WHERE { SERVICE <https://example.org/sparql> { ?s ?p ?o } }", "out.rq")
    run = kypho("query", out)
    assert run.code == 2
    assert "SERVICE is not allowed" in run.err


def test_a_usage_error_does_not_hide_a_bad_file(kypho, file):
    undated = file(GOOD.replace("as_of: 2026-03-02\n", ""))
    run = kypho("assess", undated, file(ALL["level T13"].data, "bad.yaml"))
    assert run.code == 2
    assert "T13" in run.err
    assert "no as-of date" in run.err


# -- exit 3: bad input


def test_all_bad_files_are_reported_once_and_the_good_one_is_assessed(kypho, file):
    bad = [file(bad.data, f"bad-{i}.yaml") for i, bad in enumerate(ALL.values())]
    run = kypho("assess", *bad[:5], file(GOOD, "good.yaml"), *bad[5:], "--format", "json", "-g", "nice-ta279")
    assert run.code == 3
    assert [c["patient"] for c in run.data["cases"]] == ["good"]
    assert "Traceback" not in run.err
    lines = run.err.splitlines()
    assert len(lines) == len(run.data["rejected"]) == len(ALL)
    for i, bad_file in enumerate(ALL.values()):
        [line] = [text for text in lines if text.startswith(f"kypho-kg: bad-{i}.yaml")]
        assert line.startswith(f"kypho-kg: bad-{i}.yaml{bad_file.where}")
        assert bad_file.what in line
        assert bad_file.expected in line
    assert [f"kypho-kg: {r['where']}" for r in run.data["rejected"]] == [
        line[: len(f"kypho-kg: {r['where']}")] for line, r in zip(lines, run.data["rejected"], strict=True)
    ]


@pytest.mark.parametrize("command", [["assess"], ["validate"], ["explain", "-g", "nice-ta279"], ["reason"]])
def test_every_command_refuses_a_bad_file(kypho, file, command):
    run = kypho(*command, file(ALL["level T13"].data))
    assert (run.code, run.out) == (3, "")
    assert run.err.startswith(
        "kypho-kg: patient.yaml:9, lesions[0].level: level 'T13' is no vertebral level; expected C1 to S5"
    )
    assert len(run.err.splitlines()) == 1


def test_a_missing_file_costs_the_others_nothing(kypho, file, tmp_path):
    run = kypho("validate", tmp_path / "none.yaml", tmp_path, file(GOOD))
    assert run.code == 3
    assert run.out == "patient.yaml: conforms (7 facts, 1 lesion)\n"
    assert run.err.splitlines() == [
        "kypho-kg: none.yaml: cannot be read: No such file or directory",
        f"kypho-kg: {tmp_path.name}: the folder holds no NDJSON; expected files with .ndjson or .ndjson.gz",
    ]


def test_present_and_absent_at_once_is_a_conflict_in_the_answer(kypho, file):
    run = kypho("assess", file(GOOD.replace("facts:\n  inr", "facts:\n  ActiveInfection: [present, absent]\n  inr")),
                "-g", "seed-guidelines", "--format", "json")  # fmt: skip
    assert run.code == 0
    [clause] = [c for c in run.data["cases"][0]["assessments"][0]["clauses"] if c["id"] == "seed-guidelines/SEED-A1"]
    assert (clause["truth"], clause["cause"]) == ("unknown", "Conflicting")
    assert len(leaves(clause["proof"])[0]["facts"]) == 2


def test_a_query_file_that_is_not_there(kypho, tmp_path):
    run = kypho("query", tmp_path / "none.rq")
    assert run.code == 3
    assert "none.rq: cannot be read" in run.err


def test_a_bad_overlay_is_exit_3_and_no_answer(kypho, file):
    over = file(OVER.replace("author: Dr. W\n", "").replace("painNrs: 3", "painNrs: x"), "over.yaml")
    run = kypho("assess", file(GOOD), "--with", over)
    assert (run.code, run.out) == (3, "")
    lines = run.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("kypho-kg: over.yaml:") for line in lines)


@pytest.mark.parametrize("kind", ["broken YAML", "an alias bomb", "binary", "10 MB", "NRS 11"])
def test_as_a_process_too(file, kind):
    done = process("assess", file(ALL[kind].data), file(GOOD, "good.yaml"), "-g", "nice-ta279")
    assert done.returncode == 3
    assert b"Patient good" in done.stdout
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.decode().splitlines()) == 1


# -- exit 4 and 5: a broken knowledge base, a failing engine


def test_a_broken_knowledge_base_is_exit_4_and_names_every_axiom(kypho, tmp_path, monkeypatch):
    turtle = "kypho:sex rdfs:domain kypho:Patient . kypho:hasLesion owl:inverseOf kypho:lesionOf ."
    root = ontology_with(tmp_path, turtle)
    monkeypatch.setattr(loading, "load_knowledge", lambda: read_knowledge(root))
    run = kypho("assess", T4)
    assert (run.code, run.out) == (4, "")
    assert sorted(run.err.splitlines()) == [
        "kypho-kg: hasLesion inverseOf lesionOf: outside the axiom profile",
        "kypho-kg: sex domain Patient: outside the axiom profile",
    ]


def test_an_engine_that_gives_no_verdict_is_exit_5_and_never_a_verdict(kypho, monkeypatch):
    query = "CONSTRUCT { ?s ?p ?o } WHERE { ?s ?p ?o FILTER(false) }"
    real = judging.derive_query
    monkeypatch.setattr(judging, "derive_query", lambda name: query if name == "verdict" else real(name))
    run = kypho("assess", T4)
    assert (run.code, run.out) == (5, "")
    assert "expected one verdict, got none" in run.err


@pytest.mark.reasoner
def test_a_reasoner_that_runs_out_of_time_is_exit_5(kypho):
    run = kypho("reason", T4, "--timeout", "0.01")
    assert (run.code, run.out) == (5, "")
    assert "did not finish within 0.01 s" in run.err


# -- the date


def test_another_date_is_taken_and_said_so(kypho):
    run = kypho("assess", T4, "--as-of", "2026-12-31", "--format", "json")
    assert run.err == "t4-outpatient.yaml: as of 2026-12-31, not 2026-03-02 as the file says\n"
    assert run.data["run"]["as_of"] == run.data["cases"][0]["as_of"] == "2026-12-31"
    assert verdicts(run)["cms-l34228"] == "NotIndicated"
    assert kypho("assess", T4, "--as-of", "2026-03-02").err == ""


# -- overlays, merging, options


def test_an_overlay_changes_the_answer_and_both_facts_stay(kypho, file):
    text = (
        "format: kypho-patient/1\nauthor: Dr. W\nreason: asked again\n"
        "lesions: [{id: a, facts: {painNrs: {value: 3, time: 2026-03-01}}}]\n"
    )
    run = kypho("assess", T4, "--with", file(text, "over.yaml"), "--format", "json")
    assert verdicts(run)["cms-l34228"] == "NotIndicated"
    used = facts_of(run, "painNrs")
    assert {f["value"] for f in used} == {3}
    assert {(f["source"], f["reason"]) for f in used} == {("Dr. W", "asked again")}
    ignored = [f for f in run.data["cases"][0]["ignored"] if f["feature"] == "painNrs"]
    assert [(f["value"], f["because"]) for f in ignored] == [(5, "overridden by Dr. W"), (6, "overridden by Dr. W")]
    page = kypho("explain", T4, "-g", "cms-l34228", "--with", file(text, "over.yaml")).out
    assert "Dr. W" in page


def test_two_files_of_a_patient_are_one_case(kypho, file):
    more = file("format: kypho-patient/1\npatient: {id: good}\nfacts: {Pregnancy: present}\n", "more.yaml")
    run = kypho("assess", file(GOOD), more, "-g", "cms-l34228", "--format", "json")
    [case] = run.data["cases"]
    assert case["files"] == ["patient.yaml", "more.yaml"]
    assert facts_of(run, "Pregnancy")[0]["polarity"] == "present"


def test_policies_stand_beside_the_strict_verdict(kypho):
    record = EXAMPLES / "constructed/problem-list-only.yaml"
    run = kypho("assess", record, "--assume", "problem-list", "-g", "seed-guidelines", "--format", "json")
    [assessment] = run.data["cases"][0]["assessments"]
    assert run.data["run"]["assumed"] == ["problem-list"]
    assert assessment["verdict"] == "Undetermined"
    assert assessment["assumed"]["verdict"] != "Undetermined"
    assert {f["feature"] for f in assessment["assumed"]["assumptions"]} >= {"ActiveInfection", "Coagulopathy"}
    page = kypho("assess", record, "--assume", "problem-list", "-g", "seed-guidelines").out
    assert "assumed absent: " in page


def test_bridges_can_be_left_out(kypho):
    record = EXAMPLES / "constructed/anticoagulated-inr-high.yaml"
    with_bridge = kypho("assess", record, "-g", "seed-guidelines", "--format", "json")
    without = kypho("assess", record, "-g", "seed-guidelines", "--no-bridge", "--format", "json")
    assert verdicts(with_bridge) == {"seed-guidelines": "Contraindicated"}
    assert verdicts(without) == {"seed-guidelines": "Undetermined"}
    assert "inr-above-1.8" in with_bridge.data["cases"][0]["assessments"][0]["bridges"]
    assert without.data["run"]["bridges"] is False


def test_the_proof_of_one_guideline(kypho):
    page = kypho("explain", T4, "-g", "evicore-cmm-607").out
    assert "[met] evicore-cmm-607/EVI-L2 must not hold: level outside T5 to L5" in page
    assert "off by 1" in page
    [case] = kypho("explain", T4, "-g", "evicore-cmm-607", "--level", "T4", "--format", "json").data
    assert [a["guideline"] for a in case["assessments"]] == ["evicore-cmm-607"]


# -- terminals


def test_no_escape_codes_where_nobody_looks():
    done = process("assess", T4, "-g", "nice-ta279")
    assert done.returncode == 0
    assert ESCAPE.encode() not in done.stdout + done.stderr
    assert max(map(len, done.stdout.decode().splitlines())) == 160


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("environment", "coloured"), [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)]
)
def test_a_terminal_has_colours_unless_they_are_turned_off(environment, coloured):
    import pty

    main, side = pty.openpty()
    keep = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
    with subprocess.Popen(
        [sys.executable, "-m", "kypho_kg", "guidelines", "show", "nice-ta279"],
        cwd=ROOT, env={**keep, **environment}, stdout=side, stderr=side, stdin=side,
    ) as child:  # fmt: skip
        os.close(side)
        page = b""
        while True:
            try:
                piece = os.read(main, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            page += piece
        child.wait(timeout=60)
    os.close(main)
    assert child.returncode == 0
    assert b"NICE" in page
    assert (ESCAPE.encode() in page) is coloured


def test_a_reader_that_stops_listening_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "kypho_kg", "assess", str(T4), "--format", "json"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout.read(10)
        child.stdout.close()
        assert b"Traceback" not in child.stderr.read()


# -- the same patient, written in another way


def turned(node: Node) -> str:
    """The file as JSON with every map in the opposite order."""
    if isinstance(node.value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {turned(v)}" for k, v in reversed(node.value.items())) + "}"
    if isinstance(node.value, list):
        return "[" + ", ".join(map(turned, node.value)) + "]"
    return as_json(node)


def without_origin(data):
    """An answer without the files and lines from which it was read."""
    if isinstance(data, list):
        return [without_origin(item) for item in data]
    if isinstance(data, dict):
        return {k: without_origin(v) for k, v in data.items() if k not in {"origin", "files", "patient.yaml"}}
    return re.sub(r"^[\w-]+\.(yaml|json):\d+$", "LINE", data) if isinstance(data, str) else data


@pytest.mark.parametrize(
    "name",
    ["constructed/t4-outpatient", "constructed/contradicting-infection-notes", "published/ost-02", "published/neo-02"],
)
def test_order_and_notation_of_a_file_change_nothing(kypho, file, name):
    path = EXAMPLES / f"{name}.yaml"
    tree = read_tree(path)
    plain = without_origin(kypho("assess", path, "--format", "json").data)
    for text in (as_json(tree), turned(tree)):
        other = kypho("assess", file(text, "other.json"), "--format", "json").data
        assert without_origin(other) == plain
