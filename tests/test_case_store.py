"""The store of a folder: what is loaded, what a crash leaves, and what queries on it answer."""

from __future__ import annotations

import csv
import io
import json
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyoxigraph as ox
import pytest
from builders import every
from typer.testing import CliRunner

from kypho_kg import querying, sparql
from kypho_kg.candidacy import ALL, assess
from kypho_kg.case_graph import ASSERTED, KINDS, case_graphs, graph_name
from kypho_kg.case_store import LOADED, CaseStore, Failure, Options, Outcome, read_manifest, reading, remarks
from kypho_kg.cli import app
from kypho_kg.errors import EngineError, InputError, UsageError
from kypho_kg.intake import read_records, read_sources, stream_sources
from kypho_kg.knowledge import Knowledge
from kypho_kg.query_worker import ask_apart
from kypho_kg.record import Record
from kypho_kg.store import Literal, Query, Store, Term
from kypho_kg.vocabulary import KYPHO, TYPE

ROOT = Path(__file__).resolve().parent.parent
NAMES = "biopsy-pending stale-visit three-levels-one-session seven-weeks-old".split()
FILES = [ROOT / "examples" / "constructed" / f"{name}.yaml" for name in NAMES]
ONE = ("cms-l34228",)
FEW = Options(guidelines=ONE)


@pytest.fixture(scope="module")
def records(knowledge: Knowledge) -> list[Record]:
    found, problems = read_records(FILES, knowledge)
    assert problems == []
    return found


@pytest.fixture(scope="module")
def full(knowledge: Knowledge, records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the patients under all guidelines."""
    folder = tmp_path_factory.mktemp("full") / "store"
    with CaseStore(folder, knowledge, Options()) as store:
        assert list(store.load(records)) == [Outcome.NEW] * len(records)
    return folder


EMPTY: list[Path] = []
"""A store with the knowledge base alone, which tests copy: it takes a second to write."""


@pytest.fixture(scope="module", autouse=True)
def empty(knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> None:
    EMPTY[:] = [tmp_path_factory.mktemp("empty") / "store"]
    with CaseStore(EMPTY[0], knowledge, FEW):
        pass


def load(folder: Path, knowledge: Knowledge, records: list[Record], options: Options = FEW, *, again: bool = False):
    if not (folder / "manifest.json").exists():
        shutil.copytree(EMPTY[0], folder, dirs_exist_ok=True)
    with CaseStore(folder, knowledge, options) as store:
        return list(store.load(records, again=again))


def quads(folder: Path) -> set[str]:
    """The lines of a store that are about patients; they have no blank nodes."""
    with reading(folder) as rdf:
        store = ox.Store.read_only(str(rdf))
        graphs = [g for g in store.named_graphs() if not g.value.startswith("https:")]
        lines = {f"{q} ." for g in graphs for q in store.quads_for_pattern(None, None, None, g)}
    return {line for line in lines if not line.startswith("<https:")}


def of_patient(lines: set[str], record: Record) -> set[str]:
    name = graph_name(record, "").removesuffix("/graph/")
    return {line for line in lines if f"<{name}/graph/" in line or f"<{name}> <urn:kypho:store:" in line}


# -- the same answers


def bag(rows: list[tuple[Term | None, ...]]) -> Counter[str]:
    return Counter(map(repr, rows))


@pytest.mark.parametrize("name", every(4, [n for n in querying.bundled() if not querying.is_quality_rule(n)]))
def test_bundled_queries_answer_as_on_files(
    name: str, knowledge: Knowledge, records: list[Record], full: Path, in_memory: dict[str, Store]
) -> None:
    text = querying.query_text(name)
    if not in_memory:
        every = list(knowledge.guidelines)
        graphs = case_graphs(assess(r, knowledge=knowledge, guidelines=every, validate=False) for r in records)
        mapped = querying.mapping_graph(knowledge, querying.query_text("codes-of-a-term"))
        in_memory["plain"] = Store(knowledge.triples, graphs, union=True)
        in_memory["mapped"] = Store(knowledge.triples, {**graphs, **mapped}, union=True)
        in_memory["folder"] = Store.opened(full / "rdf")
    on_files = in_memory["mapped" if querying.mapping_graph(knowledge, text) else "plain"].result(Query(text))
    on_store = in_memory["folder"].result(Query(text))
    assert on_store.columns == on_files.columns
    assert bag(normal(on_store.rows)) == bag(normal(on_files.rows))


def normal(rows: list[tuple[Term | None, ...]]) -> list[tuple[Term | None, ...]]:
    """Concatenations in an order of their own."""
    return [
        tuple(Literal(", ".join(sorted(t.text.split(", ")))) if isinstance(t, Literal) else t for t in row)
        for row in rows
    ]


@pytest.fixture(scope="module")
def in_memory() -> dict[str, Store]:
    return {}


def test_some_bundled_queries_give_rows_here(full: Path) -> None:
    store = Store.opened(full / "rdf")
    on_patients = [t for t in map(querying.query_text, querying.bundled()) if querying.asks_about_patients(t)]
    assert sum(bool(store.result(Query(text)).rows) for text in on_patients) > len(on_patients) / 2


def test_each_patient_has_graphs_that_say_what_they_are(full: Path, records: list[Record]) -> None:
    lines = quads(full)
    for record in records:
        for kind in KINDS:
            name = graph_name(record, kind)
            assert f"<{name}> <{TYPE}> <{KYPHO}{kind.capitalize()}Graph> <{name}> ." in lines
    assert lines == set.union(*(of_patient(lines, r) for r in records))


# -- loading


def test_loading_again_leaves_the_same_quads(knowledge: Knowledge, records: list[Record], tmp_path: Path) -> None:
    assert load(tmp_path, knowledge, records) == [Outcome.NEW] * 4
    first = quads(tmp_path)
    assert load(tmp_path, knowledge, records) == [Outcome.UNCHANGED] * 4
    assert load(tmp_path, knowledge, records, again=True) == [Outcome.REPLACED] * 4
    assert quads(tmp_path) == first
    assert load(tmp_path / "other", knowledge, records[::-1]) == [Outcome.NEW] * 4
    assert quads(tmp_path / "other") == first


def test_a_load_replaces_all_of_the_patient_and_no_other(
    knowledge: Knowledge, records: list[Record], tmp_path: Path
) -> None:
    load(tmp_path, knowledge, records)
    before = quads(tmp_path)
    shorter = replace(records[0], facts=records[0].facts[:-1])
    assert load(tmp_path, knowledge, [shorter], Options(facts_only=True)) == [Outcome.REPLACED]
    after = quads(tmp_path)
    assert {f"/graph/{k}" for k in KINDS if any(f"/graph/{k}" in x for x in of_patient(after, shorter))} == {
        "/graph/asserted"
    }
    for record in records[1:]:
        assert of_patient(after, record) == of_patient(before, record)


@pytest.mark.parametrize(
    "change",
    [
        {"as_of": date(2026, 7, 1)},
        {"assume": ("problem-list",)},
        {"bridges": False},
        {"facts_only": True},
        {"guidelines": ("nice-ta279",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_options_judge_again(
    change: dict[str, object], knowledge: Knowledge, records: list[Record], tmp_path: Path
) -> None:
    load(tmp_path, knowledge, records[:1])
    assert load(tmp_path, knowledge, records[:1], replace(FEW, **change)) == [Outcome.REPLACED]


def test_another_knowledge_base_replaces_and_is_told(
    knowledge: Knowledge, records: list[Record], tmp_path: Path
) -> None:
    load(tmp_path, knowledge, records[:2])
    other = Knowledge(knowledge.triples, "other", "0" * 64)
    assert load(tmp_path, other, records[:1]) == [Outcome.REPLACED]
    assert read_manifest(tmp_path)["knowledge_base"] == {"version": "other", "sha256": "0" * 64}
    found = Store.opened(tmp_path / "rdf").result(LOADED)
    (told,) = remarks(found, knowledge)
    assert told.startswith("1 patients of the store were loaded with another knowledge base (sha256 000000000000")
    everything = Store.opened(tmp_path / "rdf").dump().decode()
    counted = Counter(re.findall(r"<(https://w3id.org/kypho)> \.$", everything, re.MULTILINE))
    assert counted == {"https://w3id.org/kypho": len(set(knowledge.triples))}


def test_a_bad_patient_costs_the_others_nothing(knowledge: Knowledge, records: list[Record], tmp_path: Path) -> None:
    twice = replace(records[1], lesions=records[1].lesions * 2)
    undated = replace(records[2], as_of=None)
    found = load(tmp_path, knowledge, [records[0], twice, undated, records[3]])
    assert [type(x) for x in found] == [Outcome, Failure, Failure, Outcome]
    said = [str(x.problem) for x in found if isinstance(x, Failure)]
    assert "two lesions have this id" in said[0]
    assert "--as-of" in said[1]
    assert not any(x.engine for x in found if isinstance(x, Failure))
    lines = quads(tmp_path)
    assert [bool(of_patient(lines, r)) for r in records] == [True, False, False, True]


def test_an_engine_that_fails_leaves_the_old_patient(
    knowledge: Knowledge, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tmp_path, knowledge, records[:1])
    before = quads(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise EngineError("the verdict query failed")

    monkeypatch.setattr("kypho_kg.case_store.assess", fail)
    (failure,) = load(tmp_path, knowledge, records[:1], again=True)
    assert isinstance(failure, Failure)
    assert failure.engine
    assert quads(tmp_path) == before


def test_odd_texts_and_ids_are_written_as_they_are(knowledge: Knowledge, records: list[Record], tmp_path: Path) -> None:
    odd = replace(
        records[0], patient="a/graph/judged> . } ; DROP ALL #", notes=('"}} ; DROP ALL ; \\ \n\r\t\u2028 \U0001f9b4',)
    )
    assert load(tmp_path, knowledge, [records[1], odd]) == [Outcome.NEW] * 2
    assert load(tmp_path, knowledge, [odd], again=True) == [Outcome.REPLACED]
    with reading(tmp_path) as rdf:
        notes = Store.opened(rdf).select(f"SELECT ?n {{ ?r <{KYPHO}recordNote> ?n FILTER(CONTAINS(?n, 'DROP')) }}")
    assert [row["n"] for row in notes] == [Literal(odd.notes[0])]
    assert of_patient(quads(tmp_path), records[1])


# -- the folder


def test_one_writer_and_no_reader_beside_it(knowledge: Knowledge, records: list[Record], tmp_path: Path) -> None:
    with CaseStore(tmp_path, knowledge, FEW) as store:
        with pytest.raises(EngineError, match="try again"):
            CaseStore(tmp_path, knowledge, FEW)
        with pytest.raises(EngineError, match="a load is running"), reading(tmp_path):
            pass
        store.put(records[0])
    with reading(tmp_path), reading(tmp_path), pytest.raises(EngineError, match="query"):
        CaseStore(tmp_path, knowledge, FEW)
    load(tmp_path, knowledge, records[:1])


def test_folders_that_are_no_store_are_left_alone(knowledge: Knowledge, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine", "utf-8")
    with pytest.raises(UsageError, match="other files"):
        CaseStore(tmp_path, knowledge, FEW)
    with pytest.raises(UsageError, match=r"notes\.txt"):
        CaseStore(file, knowledge, FEW)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    for text in ('{"format": 2}', "[]", "{", ""):
        folder = tmp_path / "old"
        folder.mkdir(exist_ok=True)
        (folder / "manifest.json").write_text(text, "utf-8")
        with pytest.raises(UsageError, match=r"format|no store"):
            CaseStore(folder, knowledge, FEW)


def test_unknown_policies_and_guidelines_make_no_store(knowledge: Knowledge, tmp_path: Path) -> None:
    for options in (Options(assume=("no-such",)), Options(guidelines=("no-such",))):
        with pytest.raises(UsageError):
            CaseStore(tmp_path / "store", knowledge, options)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_says_how_patients_were_judged(knowledge: Knowledge, full: Path) -> None:
    manifest = read_manifest(full)
    assert manifest["format"] == 1
    assert manifest["knowledge_base"] == {"version": knowledge.version, "sha256": knowledge.sha256}
    assert manifest["options"] == {
        **{"as_of": None, "assume": [], "guidelines": [ALL], "bridges": True, "facts_only": False}
    }


def test_a_large_load_ends_with_compact_files(
    knowledge: Knowledge, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    monkeypatch.setattr("kypho_kg.case_store.DiskStore.compact", lambda _: done.append(1))
    facts = Options(facts_only=True)
    load(tmp_path, knowledge, records, facts)
    assert done == []
    monkeypatch.setattr("kypho_kg.case_store._COMPACT_AFTER", 100)
    load(tmp_path, knowledge, records, facts)
    assert done == [], "nothing was written"
    load(tmp_path, knowledge, records, facts, again=True)
    assert done == [1]
    first = quads(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("kypho_kg.case_store._COMPACT_AFTER", 100)
    monkeypatch.setattr("kypho_kg.case_store._FLUSH_AFTER", 100)
    load(tmp_path, knowledge, records, facts, again=True)
    assert quads(tmp_path) == first


# -- a crash

CHILD = """
import pickle, sys
from pathlib import Path
from kypho_kg.case_store import CaseStore, Options
from kypho_kg.loading import load_knowledge
records = pickle.loads(Path(sys.argv[2]).read_bytes())
with CaseStore(Path(sys.argv[1]), load_knowledge(), Options(guidelines=("cms-l34228",))) as store:
    print("open", flush=True)
    for _ in store.load(records):
        print("done", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_a_killed_load_leaves_each_patient_old_or_new(
    knowledge: Knowledge, records: list[Record], tmp_path: Path
) -> None:
    """Replaced and new patients alike; the next load goes on and ends with the same store."""
    old = [replace(records[i % 4], patient=f"p{i}") for i in range(8)]
    new = [replace(r, notes=("seen again",)) for r in old]
    load(tmp_path / "old", knowledge, old)
    load(tmp_path / "new", knowledge, new)
    was, will = quads(tmp_path / "old"), quads(tmp_path / "new")
    folder, file = tmp_path / "store", tmp_path / "records"
    file.write_bytes(pickle.dumps(new))
    load(folder, knowledge, old[:5])
    moments = random.Random(7)
    finished: list[int] = []
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), str(file)], stdout=subprocess.PIPE, cwd=ROOT
        )
        with child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"open\n"
            for _ in range(moments.randrange(4)):
                child.stdout.readline()
            time.sleep(moments.random() * 0.1)
            child.kill()
        lines = quads(folder)
        states = []
        for i, record in enumerate(new):
            mine = of_patient(lines, record)
            former = of_patient(was, record) if i < 5 else set()
            assert mine in (former, of_patient(will, record)), f"patient {i} is torn"
            states.append(mine == of_patient(will, record))
        finished.append(sum(states))
    assert finished == sorted(finished)
    assert finished[-1] > 0
    outcomes = load(folder, knowledge, new)
    assert outcomes.count(Outcome.UNCHANGED) == finished[-1]
    assert quads(folder) == will


# -- sources


def test_a_stream_gives_the_records_that_reading_all_gives(knowledge: Knowledge, tmp_path: Path) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text("format: kypho-patient/1\npatient: {id: stale-visit}\nfacts: {inr: 1.1}\n", "utf-8")
    bad = tmp_path / "bad.yaml"
    bad.write_text("format: kypho-patient/1\n", "utf-8")
    over = tmp_path / "over.yaml"
    over.write_text(
        "format: kypho-patient/1\npatient: {id: biopsy-pending}\nauthor: a reviewer\nreason: seen on the chart\n"
        "facts: {inr: 1.2}\n",
        "utf-8",
    )
    paths = [*FILES, bad, extra]
    whole = read_sources(paths, knowledge, [over])
    seen: list[int] = []
    stream = stream_sources(paths, knowledge, [over], read=lambda: seen.append(1))
    assert len(seen) == 5
    assert stream.patients == 4
    assert list(stream.records) == whole.records
    assert list(map(str, stream.problems)) == list(map(str, whole.problems))
    assert [r.source for r in stream.reports] == [r.source for r in whole.reports]


def test_a_patient_that_contradicts_itself_costs_the_others_nothing(knowledge: Knowledge, tmp_path: Path) -> None:
    clash = tmp_path / "clash.yaml"
    clash.write_text("format: kypho-patient/1\npatient: {id: stale-visit}\nas_of: 2020-01-01\n", "utf-8")
    stream = stream_sources([*FILES, clash], knowledge)
    assert {r.patient for r in stream.records} == set(NAMES) - {"stale-visit"}
    assert len(stream.problems) == 1
    with pytest.raises(InputError):
        stream_sources([FILES[0]], knowledge, [clash])


def test_what_assess_wrote_is_loaded_as_it_was(knowledge: Knowledge, records: list[Record], tmp_path: Path) -> None:
    """TriG out, load, and the same graphs: asserted, inferred and judged."""
    run = CliRunner().invoke(app, ["assess", *map(str, FILES), "--guideline", "cms-l34228", "--format", "trig"])
    assert run.exit_code == 0, run.output
    file = tmp_path / "all.trig"
    file.write_text(run.stdout, "utf-8")
    stream = stream_sources([file], knowledge)
    assert Counter(load(tmp_path / "store", knowledge, list(stream.records))) == {Outcome.NEW: 4}
    assert stream.problems == []
    memory = ox.Store()  # it keeps the value of a number and not its digits: 1.0 is 1
    memory.load(run.stdout.encode(), format=ox.RdfFormat.TRIG)
    written = set(map(str, memory))
    with reading(tmp_path / "store") as rdf:
        found = {str(q) for q in ox.Store.read_only(str(rdf)) if "/graph/" in q.graph_name.value}
    assert found == written


# -- the command line


def invoke(*arguments: object) -> tuple[int, str, str, BaseException | None]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    wrong = None if isinstance(result.exception, SystemExit) else result.exception
    return result.exit_code, result.stdout, result.stderr, wrong


def test_load_and_query_commands(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    bad = tmp_path / "bad.yaml"
    bad.write_text("format: kypho-patient/1\n", "utf-8")
    code, out, err, _ = invoke("load", FILES[1], bad, "--store", folder, "--facts-only")
    assert code == 3
    assert out == f"{folder}: 1 of 1 patients: 1 new, 0 replaced, 0 unchanged\n"
    assert "bad.yaml" in err
    code, out, err, _ = invoke("query", "verdicts-of-patients", "--store", folder, "--format", "json")
    assert (code, json.loads(out)) == (0, [])
    assert "1 patients of the store are not judged" in err
    code, out, _, _ = invoke("load", *FILES[:2], "--store", folder)
    assert (code, out) == (0, f"{folder}: 2 of 2 patients: 1 new, 1 replaced, 0 unchanged\n")
    code, out, err, _ = invoke("query", "stale-facts", "--store", folder, "--format", "json")
    assert (code, err) == (0, "")
    on_files = invoke("query", "stale-facts", *FILES[:2], "--format", "json")
    assert json.loads(out) == json.loads(on_files[1]) != []


def test_mistakes_on_the_command_line(tmp_path: Path, full: Path) -> None:
    for arguments, said in (
        (["load", FILES[0], "--store", tmp_path / "s", "--facts-only", "--no-bridge"], "judges nothing"),
        (["load", FILES[0], "--store", tmp_path / "s", "--as-of", "soon"], "expected YYYY-MM-DD"),
        (["query", "features", FILES[0], "--store", full], "not both"),
        (["query", "features", "--store", tmp_path / "none"], "no store"),
        (["query", "features", "--store", full, "--as-of", "2026-01-01"], "give some"),
        (["query", "missing-label", "--store", full], "does not hold them"),
        (["query", "features", "--timeout", "0"], "above 0"),
        (["query", "stale-facts", "--store", full, "--format", "ttl"], "CONSTRUCT"),
    ):
        code, out, _, wrong = invoke(*arguments)
        assert code != 0, arguments
        assert isinstance(wrong, UsageError), arguments
        assert said in str(wrong)
        assert out == ""
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / "none").exists()


def test_progress_is_on_stderr_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kypho_kg.cli_store._EVERY", 2)
    code, out, err, _ = invoke("load", *FILES, "--store", tmp_path / "s", "--facts-only")
    assert code == 0
    assert out.count("\n") == 1
    assert err == "read 2 patients\nread 4 patients\nloaded 2 of 4 patients\nloaded 4 of 4 patients\n"


# -- parameters, forms, limits


def test_parameters_are_bound_by_their_declared_type(knowledge: Knowledge, full: Path) -> None:
    every, _ = querying.ask_store(knowledge, "verdicts-of-patients", full)
    for param, column, value in (
        ("patient=stale-visit", "patient", Literal("stale-visit")),
        ("guideline=cms-l34228", "guideline", Literal("cms-l34228")),
        ("verdict=NotApplicable", "verdict", KYPHO + "NotApplicable"),
        ("?verdict=kypho:NotApplicable", "verdict", KYPHO + "NotApplicable"),
    ):
        some, _ = querying.ask_store(knowledge, "verdicts-of-patients", full, params=[param])
        place = every.columns.index(column)
        assert some.rows == [row for row in every.rows if row[place] == value] != []
    nothing, _ = querying.ask_store(knowledge, "verdicts-of-patients", full, params=['patient=" } DROP ALL'])
    assert nothing.rows == []


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ("patient", "expected NAME=VALUE"),
        ("pateint=x", "known: patient \\(text\\), guideline \\(text\\)"),
        ("case=x", "no column of the query; known: patient, lesion, guideline, verdict"),
        ("verdict=Candidat", "did you mean Candidate"),
        ("verdict=<urn:x>", "no name of the ontology"),
    ],
)
def test_wrong_parameters_name_what_is_known(param: str, said: str, knowledge: Knowledge, full: Path) -> None:
    with pytest.raises(UsageError, match=said):
        querying.ask_store(knowledge, "verdicts-of-patients", full, params=[param])
    with pytest.raises(UsageError, match="twice"):
        querying.ask_store(knowledge, "verdicts-of-patients", full, params=["patient=a", "patient=b"])


def test_values_without_a_declared_type_are_read_by_their_form(knowledge: Knowledge) -> None:
    xsd = "http://www.w3.org/2001/XMLSchema#"
    for value, term in (
        ("7", Literal("7", xsd + "integer")),
        ("-7.5", Literal("-7.5", xsd + "decimal")),
        ("2026-03-01", Literal("2026-03-01", xsd + "date")),
        ("2026-02-30", Literal("2026-02-30")),
        ('"7"', Literal("7")),
        ("a b", Literal("a b")),
        ("", Literal("")),
        ("<urn:x:y>", "urn:x:y"),
        ("<urn:x y>", Literal("<urn:x y>")),
        ("kypho:inr", KYPHO + "inr"),
    ):
        assert querying.bindings(knowledge, "SELECT ?a { ?a ?b ?c }", [f"a={value}"]) == {"a": term}


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [("number", "7", "seven"), ("whole number", "7", "7.5"), ("date", "2026-03-01", "2026-02-30")],
)
def test_declared_types_are_checked(type_: str, good: str, bad: str, knowledge: Knowledge) -> None:
    text = f"# # x\n# **Parameters:** a ({type_})\nSELECT ?a {{ ?a ?b ?c }}"
    assert querying.bindings(knowledge, text, [f"a={good}"])
    with pytest.raises(UsageError, match="expected a"):
        querying.bindings(knowledge, text, [f"a={bad}"])
    with pytest.raises(UsageError, match="expected one of"):
        querying.bindings(knowledge, text.replace(type_, "thing"), ["a=1"])


def test_declared_parameters_are_columns_of_their_query(full: Path) -> None:
    store = Store.opened(full / "rdf")
    declared = {n: sparql.parameters(querying.query_text(n)) for n in querying.bundled()}
    assert sum(map(bool, declared.values())) >= 5
    for name, parameters in declared.items():
        if parameters:
            assert set(parameters) <= set(store.result(Query(querying.query_text(name), limit=0)).columns), name


def test_csv_is_that_of_the_w3c(full: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.rq"
    file.write_text(
        'SELECT ?iri ?text ?none ?number { VALUES ?text { "a,b" "say \\"x\\"" "two\\nlines" "" } '
        "BIND(<urn:x> AS ?iri) BIND(1.50 AS ?number) OPTIONAL { ?iri <urn:p> ?none } } ORDER BY ?text",
        "utf-8",
    )
    code, out, _, _ = invoke("query", file, "--store", full, "--format", "csv")
    assert code == 0
    quoted = out.encode().replace(b"\r\r\n", b"\r\n").decode()
    head, *rows = csv.reader(io.StringIO(quoted, newline=""))
    assert head == ["iri", "text", "none", "number"]
    assert [row[:3] for row in sorted(rows)] == [
        ["urn:x", text, ""] for text in sorted(["a,b", 'say "x"', "two\nlines", ""])
    ]
    assert {float(row[3]) for row in rows} == {1.5}


def test_construct_gives_turtle_and_ask_an_answer(full: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.rq"
    head = f"PREFIX k: <{KYPHO}> "
    file.write_text(head + "CONSTRUCT { ?s k:patientId ?id } WHERE { ?s k:patientId ?id }", "utf-8")
    code, out, _, _ = invoke("query", file, "--store", full, "--format", "ttl", "--param", "id=stale-visit")
    assert code == 0
    (triple,) = ox.parse(out, format=ox.RdfFormat.TURTLE)
    assert triple.object == ox.Literal("stale-visit")
    file.write_text(head + 'ASK { ?s k:patientId "stale-visit" }', "utf-8")
    assert invoke("query", file, "--store", full, "--format", "csv")[1].split() == ["answer", "true"]


def test_a_cut_result_says_so(knowledge: Knowledge, full: Path) -> None:
    whole, _ = querying.ask_store(knowledge, "verdicts-of-patients", full)
    size = len(whole.rows)
    for limit, cut in ((0, True), (size - 1, True), (size, False), (size + 1, False)):
        found, _ = querying.ask_store(knowledge, "verdicts-of-patients", full, limit=limit)
        assert (len(found.rows), found.cut) == (min(limit, size), cut)
    code, out, err, _ = invoke("query", "features", "--limit-rows", "2", "--format", "json")
    assert (code, len(json.loads(out))) == (0, 2)
    assert "only the first 2 rows" in err


def test_a_query_that_takes_too_long_is_killed(full: Path, tmp_path: Path) -> None:
    file = tmp_path / "long.rq"
    file.write_text("SELECT (COUNT(*) AS ?n) { ?a ?b ?c . ?d ?e ?f . ?g ?h ?i }", "utf-8")
    start = time.monotonic()
    for where in (["--store", full], []):
        code, out, _, wrong = invoke("query", file, *where, "--timeout", "3")
        assert code != 0
        assert isinstance(wrong, EngineError)
        assert "within 3 s" in str(wrong)
        assert out == ""
    assert time.monotonic() - start < 40
    with reading(full):
        pass


def test_a_worker_that_dies_is_an_engine_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        ask_apart(tmp_path / "none", [Query("ASK {}")], 60)
    with pytest.raises(UsageError, match="SPARQL"):
        ask_apart(Store().dump(), [Query("SELECT")], 60)
    with pytest.raises(EngineError, match="ended without an answer"):
        ask_apart(b"union\n<urn:a> <urn:b> nonsense .\n", [Query("ASK {}")], 60)


def test_queries_never_change_a_store(full: Path, tmp_path: Path) -> None:
    before = quads(full)
    file = tmp_path / "own.rq"
    for text in ("DELETE WHERE { ?s ?p ?o }", "LOAD <file:///etc/hostname>", "SELECT * FROM <urn:x> { ?s ?p ?o }"):
        file.write_text(text, "utf-8")
        assert isinstance(invoke("query", file, "--store", full)[3], UsageError)
    assert quads(full) == before


def test_bundled_queries_pass_the_check_of_own_ones() -> None:
    for name in querying.bundled():
        assert sparql.refuse_remote(querying.query_text(name))


def test_what_rdf_does_not_carry_counts_as_a_change(
    knowledge: Knowledge, records: list[Record], tmp_path: Path
) -> None:
    """A session restricted to no lesion is the same triples as one that is not restricted."""
    record = records[2]
    assert record.procedure is not None
    free = replace(record, procedure=replace(record.procedure, lesions=None))
    none = replace(record, procedure=replace(record.procedure, lesions=()))
    assert load(tmp_path, knowledge, [free], Options(facts_only=True)) == [Outcome.NEW]
    asserted = {line for line in quads(tmp_path) if f"/graph/{ASSERTED}" in line}
    assert load(tmp_path, knowledge, [none], Options(facts_only=True)) == [Outcome.REPLACED]
    assert {line for line in quads(tmp_path) if f"/graph/{ASSERTED}" in line} == asserted
