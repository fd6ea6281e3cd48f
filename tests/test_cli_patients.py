"""``--patient``: one or some of the patients of the sources, by every command that reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import EXAMPLES
from test_cli import Run, kypho  # noqa: F401 - a fixture
from test_cli_sources import said

from kypho_kg import candidacy, crosscheck, intake
from kypho_kg.cli_shared import knowledge
from kypho_kg.errors import UsageError
from kypho_kg.fact_table import write_fact_table
from kypho_kg.intake import read_records, read_sources, stream_sources
from kypho_kg.record import Record

Kypho = Callable[..., Run]
NAMES = ("biopsy-pending", "stale-visit", "three-levels-one-session", "seven-weeks-old", "pain-in-words-only")
FILES = [EXAMPLES / "constructed" / f"{name}.yaml" for name in NAMES]
ONE, OTHER = "stale-visit", "seven-weeks-old"
POLICY = "cms-l34228"
HERE = ("--state", "CA", "--payer", "Medicare")
UNKNOWN = "kypho-kg: --patient: 'nobody' is in none of the sources; expected an id as a source writes it\n"
READING = {
    "assess": ["-g", POLICY],
    "explain": ["-g", POLICY],
    "next": ["-g", POLICY],
    "timeline": ["-g", POLICY],
    "packet": [*HERE],
    "validate": [],
    "reason": [],
}
ABOUT_ONE = {
    "packet": ["packet", *HERE],
    "timeline": ["timeline", "-g", POLICY],
    "reason": ["reason"],
    "a page": ["assess", "-g", POLICY, "--format", "html"],
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five patients as one source."""
    folder = tmp_path_factory.mktemp("patients") / "table"
    records, problems = read_records(FILES, knowledge())
    assert problems == []
    assert write_fact_table(records, folder).patients == len(NAMES)
    return folder


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whom the shapes were asked about."""
    seen: list[str] = []
    validate = intake.validate_record

    def watched(record: Record):
        seen.append(record.patient)
        return validate(record)

    monkeypatch.setattr(intake, "validate_record", watched)
    return seen


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who was assessed."""
    seen: list[str] = []
    assess = candidacy.assess

    def watched(record: Record, **options):
        seen.append(record.patient)
        return assess(record, **options)

    monkeypatch.setattr(candidacy, "assess", watched)
    return seen


def names_nobody(text: str, *but: str) -> bool:
    return not any(name in text for name in NAMES if name not in but)


# -- the chosen, and nobody else


def test_the_answer_is_that_of_the_patient_alone(
    kypho: Kypho,  # noqa: F811
    table: Path,
    checked: list[str],
    judged: list[str],
) -> None:
    run = kypho("assess", table, "--patient", ONE, "-g", POLICY, "--format", "json")
    assert (run.code, run.err) == (0, "")
    assert (checked, judged) == ([ONE], [ONE])
    alone = kypho("assess", FILES[NAMES.index(ONE)], "-g", POLICY, "--format", "json")
    assert said(run.data) == said(alone.data) != []


def test_the_option_is_repeatable_and_an_id_counts_once(kypho: Kypho, table: Path, checked: list[str]) -> None:  # noqa: F811
    twice = ("--patient", OTHER, "--patient", ONE, "--patient", OTHER)
    run = kypho("assess", table, *twice, "-g", POLICY, "--format", "json")
    assert run.code == 0
    assert [c["patient"] for c in run.data["cases"]] == checked == [OTHER, ONE], "in the order of the source"


def test_patient_files_of_others_cost_nothing(kypho: Kypho, checked: list[str], tmp_path: Path) -> None:  # noqa: F811
    """A file that violates a shape is another patient's business."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        "format: kypho-patient/1\npatient: {id: w}\nas_of: 2026-03-02\nfacts: {inr: 500}\n"
        "lesions: [{id: a, level: L1}]\n",
        "utf-8",
    )
    assert kypho("validate", wrong).code == 3
    checked.clear()
    run = kypho("validate", wrong, *FILES, "--patient", ONE)
    assert (run.code, run.err, checked) == (0, "", [ONE])
    assert run.out.startswith(f"{ONE}.yaml: conforms")
    assert run.out.count("\n") == 1
    own = kypho("validate", wrong, *FILES, "--patient", "w")
    assert (own.code, own.out) == (3, "")
    assert own.err.startswith("kypho-kg: wrong.yaml:4, patient: inr is 500.")
    assert "none of the sources" not in own.err, "the patient is there"


def test_sources_of_the_patient_are_still_merged(kypho: Kypho, table: Path, tmp_path: Path) -> None:  # noqa: F811
    more = tmp_path / "more.yaml"
    more.write_text(
        f"format: kypho-patient/1\npatient: {{id: {OTHER}}}\nfacts: {{CementOrOpacifierAllergy: present}}\n", "utf-8"
    )
    run = kypho("assess", table, more, "--patient", OTHER, "-g", POLICY, "--format", "json")
    assert run.code == 0
    [case] = run.data["cases"]
    [assessment] = case["assessments"]
    [clause] = [c for c in assessment["clauses"] if c["id"] == f"{POLICY}/LCD-R2"]
    assert (clause["truth"], clause["cause"]) == ("unknown", "Conflicting"), "the table rules it out"


def test_an_overlay_is_about_the_patient_that_was_chosen(kypho: Kypho, table: Path, tmp_path: Path) -> None:  # noqa: F811
    over = tmp_path / "over.yaml"
    head = "format: kypho-patient/1\nauthor: A. Reader\nreason: seen today\n"
    text = head + "{}facts: {{CementOrOpacifierAllergy: present}}\n"
    over.write_text(text.format(""), "utf-8")
    asked = ("assess", table, "--with", over, "-g", POLICY, "--format", "json")
    assert kypho(*asked).code == 3, "of five it is not known which"
    run = kypho(*asked, "--patient", ONE)
    assert (run.code, len(run.data["cases"])) == (0, 1)
    over.write_text(text.format(f"patient: {{id: {OTHER}}}\n"), "utf-8")
    run = kypho(*asked, "--patient", ONE)
    assert (run.code, run.out) == (3, "")
    assert f"patient '{OTHER}' is not among those read" in run.err


def test_a_malformed_row_of_somebody_is_still_told(kypho: Kypho, tmp_path: Path) -> None:  # noqa: F811
    rows = tmp_path / "rows.csv"
    rows.write_text("id,lesion,level,pain\n1,a,L1,7\n2,a,L17,8\n3,a,L3,6\n", "utf-8")
    mapping = tmp_path / "rows.yaml"
    mapping.write_text(
        "format: kypho-table/1\nshape: wide\npatient: id\nlesion: lesion\nlevel: level\nas_of: {fixed: 2026-03-02}\n"
        "columns: {pain: painNrs}\n",
        "utf-8",
    )
    run = kypho("assess", rows, "--mapping", mapping, "--patient", "3", "-g", POLICY, "--format", "json")
    assert run.code == 3
    assert run.err.startswith("kypho-kg: rows.csv:3, level: ")
    assert [c["patient"] for c in run.data["cases"]] == ["3"]
    run = kypho("assess", rows, "--mapping", mapping, "--patient", "nobody", "-g", POLICY)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("kypho-kg: rows.csv:3, level: "), "the row may be the one that was meant"
    assert run.err.endswith(UNKNOWN)


# -- an id that is not there


@pytest.mark.parametrize("command", READING)
def test_an_unknown_id_is_a_wrong_call(kypho: Kypho, table: Path, judged: list[str], command: str) -> None:  # noqa: F811
    run = kypho(command, table, *READING[command], "--patient", "nobody")
    assert (run.code, run.out, run.err, judged) == (2, "", UNKNOWN, [])


@pytest.mark.parametrize("near", ["", " ", ONE[:-1], ONE.upper(), f" {ONE}", f"{ONE}*"])
def test_an_id_is_taken_as_it_is(kypho: Kypho, table: Path, near: str) -> None:  # noqa: F811
    run = kypho("validate", table, "--patient", near)
    assert (run.code, run.out) == (2, "")
    assert f"{near!r} is in none of the sources" in run.err
    assert names_nobody(run.err, *([ONE] if ONE in near else []))


def test_one_of_two_ids_is_unknown(kypho: Kypho, table: Path, judged: list[str]) -> None:  # noqa: F811
    run = kypho("assess", table, "--patient", ONE, "--patient", "nobody", "--patient", "none")
    assert (run.code, run.out, judged) == (2, "", [])
    assert run.err.startswith("kypho-kg: --patient: 'nobody', 'none' are in none of the sources; ")


# -- commands about one patient


@pytest.mark.parametrize("what", ABOUT_ONE)
def test_of_many_one_must_be_chosen(kypho: Kypho, table: Path, judged: list[str], what: str) -> None:  # noqa: F811
    command, *options = ABOUT_ONE[what]
    for files, number in (([table], len(NAMES)), ([table, "--patient", ONE, "--patient", OTHER], 2)):
        run = kypho(command, *files, *options)
        assert (run.code, run.out, judged) == (2, "", [])
        assert run.err.endswith(f" is about one patient; the files name {number}: name one with --patient ID\n")
        assert names_nobody(run.err)


@pytest.mark.parametrize("what", [name for name in ABOUT_ONE if name != "reason"])
def test_the_chosen_one_is_answered(kypho: Kypho, table: Path, what: str) -> None:  # noqa: F811
    command, *options = ABOUT_ONE[what]
    run = kypho(command, table, *options, "--patient", ONE)
    assert run.code == 0, run.err
    alone = kypho(command, FILES[NAMES.index(ONE)], *options)
    assert alone.code == 0
    assert names_nobody(run.out, ONE)
    assert ONE in run.out if what != "timeline" else run.out == alone.out != ""


def test_the_reasoner_is_asked_about_the_chosen(
    kypho: Kypho,  # noqa: F811
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(crosscheck, "compare", lambda record, *_: asked.append(record.patient) or [])
    monkeypatch.setattr(crosscheck, "print_comparison", lambda *_: True)
    assert kypho("reason", table, "--patient", OTHER).code == 0
    assert asked == [OTHER]


@pytest.mark.parametrize("what", ABOUT_ONE)
def test_a_source_without_a_patient_is_told(kypho: Kypho, what: str, tmp_path: Path) -> None:  # noqa: F811
    """Nothing is wrong with an empty list of resources, and nobody is in it."""
    empty = tmp_path / "empty.ndjson"
    empty.write_text("", "utf-8")
    command, *options = ABOUT_ONE[what]
    run = kypho(command, empty, *options)
    assert (run.code, run.out, run.err) == (2, "", "kypho-kg: no patient in the sources\n")


def test_a_form_is_for_one_lesion(kypho: Kypho, table: Path, tmp_path: Path) -> None:  # noqa: F811
    form = tmp_path / "form.yaml"
    asked = ("next", table, "-g", POLICY, "--form", form)
    assert "name one with --patient ID" in kypho(*asked).err
    assert not form.exists()
    run = kypho(*asked, "--patient", "three-levels-one-session")
    assert (run.code, run.out) == (2, "")
    assert "there are 3: name one with --lesion" in run.err
    assert kypho(*asked, "--patient", ONE).code == 0
    assert form.exists()


@pytest.mark.parametrize("command", [["assess"], ["next"], ["explain"], ["explain", "--level", "C1"]])
def test_an_unknown_lesion_lists_no_lesions_of_many(kypho: Kypho, table: Path, command: list[str]) -> None:  # noqa: F811
    lesion = ["--lesion", "zz"] if len(command) == 1 else command[1:]
    asked = (command[0], table, "-g", POLICY, *lesion)
    run = kypho(*asked)
    assert (run.code, run.out) == (2, "")
    assert run.err.endswith(f" of {len(NAMES)} patients: name one with --patient ID\n")
    alone = kypho(*asked, "--patient", ONE)
    assert alone.code == 2
    assert "--patient" not in alone.err


# -- queries and the store


def test_a_query_is_asked_of_the_chosen(kypho: Kypho, table: Path, judged: list[str]) -> None:  # noqa: F811
    run = kypho("query", "verdicts-of-patients", table, "--patient", ONE, "--format", "json")
    assert run.code == 0
    assert {row["patient"] for row in run.data} == {ONE}
    assert judged == [ONE]


def test_a_store_gets_the_chosen(kypho: Kypho, table: Path, checked: list[str], tmp_path: Path) -> None:  # noqa: F811
    store = tmp_path / "store"
    run = kypho("load", table, "--patient", ONE, "--facts-only", "--store", store)
    assert (run.code, checked) == (0, [ONE])
    assert run.out.endswith(": 1 of 1 patients: 1 new, 0 replaced, 0 unchanged\n")
    again = kypho("load", table, "--patient", ONE, "--patient", OTHER, "--facts-only", "--store", store)
    assert again.out.endswith(": 2 of 2 patients: 1 new, 0 replaced, 1 unchanged\n")
    assert kypho("load", table, "--patient", "nobody", "--facts-only", "--store", store).err.endswith(UNKNOWN)
    run = kypho("query", "stale-facts", "--store", store, "--patient", ONE)
    assert (run.code, run.out) == (2, "")
    assert "--param patient=ID" in run.err


def test_without_files_there_is_nobody_to_choose(kypho: Kypho) -> None:  # noqa: F811
    run = kypho("query", "features", "--patient", ONE)
    assert (run.code, run.out) == (2, "")
    assert "give some" in run.err


# -- the same in Python


def test_only_the_chosen_are_kept(table: Path) -> None:
    stream = stream_sources([table], knowledge(), patients=[ONE])
    assert (stream.patients, [r.patient for r in stream.records]) == (1, [ONE])
    whole = read_sources([table], knowledge())
    found = read_sources([table], knowledge(), patients={ONE, OTHER})
    assert found.records == [r for r in whole.records if r.patient in {ONE, OTHER}]
    assert [r.records for r in found.reports] == [len(NAMES)], "what was read is told of the whole source"
    for read in (read_sources, stream_sources):
        with pytest.raises(UsageError, match="'nobody' is in none"):
            read([table], knowledge(), patients=["nobody"])


def test_bundles_of_others_are_not_kept(tmp_path: Path) -> None:
    """FHIR comes bundle by bundle, and a patient may come again."""
    lines = [
        {"resourceType": "Bundle", "type": "collection", "entry": [
            {"resource": {"resourceType": "Patient", "id": id_, "gender": "female", **more}},
        ]}
        for id_, more in (("a", {}), ("b", {"birthDate": "1950"}), ("a", {"birthDate": "1940"}))
    ]  # fmt: skip
    path = tmp_path / "bundles.ndjson"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    [record] = read_sources([path], knowledge(), patients=["a"]).records
    assert record.patient == "a"
    assert [str(f.value) for f in record.facts if f.feature.endswith("birthDate")] == ["1940"]
