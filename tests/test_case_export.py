"""A case as an ontology file: what the header says, names that are safe, and what a reasoner makes of the file."""

from __future__ import annotations

import gc
import re
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from builders import EXAMPLES, example, fact, record, session
from test_cli import kypho  # noqa: F401 - a fixture

from kypho_kg.candidacy import Answer, assess
from kypho_kg.case_export import CATALOG, case_text, case_triples, file_name, write_cases
from kypho_kg.errors import UsageError
from kypho_kg.evaluation import Evaluator, lesion_subject
from kypho_kg.knowledge import Knowledge
from kypho_kg.owl_export import case_axioms, case_iri
from kypho_kg.reasoning import classes_of, entailments
from kypho_kg.record import Record
from kypho_kg.report import DISCLAIMER
from kypho_kg.store import Literal, Triples, parse_turtle
from kypho_kg.vocabulary import CASE, DCTERMS, LABEL, OWL, TYPE

FOLDER = Path(__file__).resolve().parent.parent / "ontology"
T4 = EXAMPLES / "constructed/t4-outpatient.yaml"
TWO = EXAMPLES / "constructed/two-levels-one-session.yaml"
GOLDEN = [
    "constructed/cord-compression-metastasis",
    *(pytest.param(f"constructed/{n}", marks=pytest.mark.slow) for n in ("t4-outpatient", "pregnant")),
]
ODD = ["Müller, Ann", "../../etc/passwd", "a/b:c*?", "CON", "x" * 300, "名前", "%41", "<>&\"'", "-", "..", "a b#c"]


def answer(of: Record, **options: object) -> Answer:
    return assess(of, as_of=of.as_of or date(2026, 3, 2), validate=False, guidelines=["cms-l34228"], **options)


def read(text: str, tmp_path: Path) -> Triples:
    path = tmp_path / "read.ttl"
    path.write_text(text, "utf-8")
    return Triples(parse_turtle(path))


def catalog(folder: Path) -> dict[str, Path]:
    """The catalog of a folder of cases: where each ontology is."""
    return {
        e.get("name", ""): Path(urllib.request.url2pathname(urllib.parse.urlparse(e.get("uri", "")).path))
        for e in ET.parse(folder / CATALOG).getroot()
    }


def odd(patient: str, *lesions: str) -> Record:
    made = record(fact("Myelopathy", on=f"lesion:{lesions[0]}"), lesions=lesions, procedure=session(lesions[0]))
    return replace(made, patient=patient)


# -- one case


def test_the_header(tmp_path):
    of = example("constructed/t4-outpatient")
    t = read(case_text([answer(of)]), tmp_path)
    (ontology,) = t.subjects(TYPE, OWL + "Ontology")
    assert t.resources(ontology, OWL + "imports") == ("https://w3id.org/kypho",)
    assert t.resource(ontology, OWL + "versionIRI") == f"{ontology}/2026-03-02"
    assert t.text(ontology, DCTERMS + "title") == "Patient t4-outpatient, lesion a (T4), as of 2026-03-02"
    assert DISCLAIMER in t.text(ontology, DCTERMS + "description")
    k = answer(of).knowledge
    assert k.sha256 in t.text(ontology, OWL + "versionInfo")
    assert k.version in t.text(ontology, OWL + "versionInfo")


def test_every_individual_has_a_label_of_its_own(tmp_path):
    for lesion in answer(example("constructed/two-levels-one-session")).cases:
        of = answer(example("constructed/two-levels-one-session"))
        t = Triples(case_triples(of, lesion))
        individuals = t.subjects(TYPE, OWL + "NamedIndividual")
        labels = [t.texts(i, LABEL) for i in individuals]
        assert [len(texts) for texts in labels] == [1] * len(individuals)
        assert len(set(labels)) == len(labels)


def test_the_axioms_are_those_of_the_case_and_dates_are_only_told():
    of = answer(example("constructed/t4-outpatient"))
    (case,) = of.cases
    rows = case_triples(of, case)
    axioms = case_axioms(case.snapshot, "a", case.in_session)
    ontology = f"{case_iri(case.record, 'a')}/ontology"
    assert [row for row in rows if row[0] != ontology and row[1] != LABEL] == axioms
    told = {p for s, p, o in rows if isinstance(o, Literal) and re.search(r"\d{4}-\d\d", o.text)}
    assert told <= {LABEL, DCTERMS + "title", DCTERMS + "description", OWL + "versionInfo"}


def test_left_out_bridges_are_told():
    of = answer(example("constructed/t4-outpatient"), bridges=False)
    assert "no bridges" in str(case_triples(of, of.cases[0]))


def test_two_lesions_at_one_level_are_two_cases(tmp_path):
    of = record(
        fact("vertebralLevel", "L1", on="lesion:a"), fact("vertebralLevel", "L1", on="lesion:b"), lesions=("a", "b")
    )
    paths = write_cases([answer(of)], tmp_path)
    assert len(set(paths)) == 2
    indices = {
        t.resource(case, "https://w3id.org/kypho#indexLesion")
        for t in (Triples(parse_turtle(p)) for p in paths)
        for case in t.subjects(TYPE, CASE)
    }
    assert len(indices) == 2


# -- files


@pytest.mark.parametrize("patient", ODD)
def test_odd_ids_give_safe_names_and_sound_files(patient, tmp_path):
    of = answer(odd(patient, patient, "a"))
    paths = write_cases([of], tmp_path / "out")
    assert len({p.name.casefold() for p in paths}) == 2
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in paths} | {CATALOG}
    for path, case in zip(paths, of.cases, strict=True):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,100}\.ttl", path.name)
        t = Triples(parse_turtle(path))
        assert case_iri(of.record, case.lesion.id) in t.subjects(TYPE, CASE)
        (title,) = (t.text(s, DCTERMS + "title") for s in t.subjects(TYPE, OWL + "Ontology"))
        assert title.startswith(f"Patient {patient}, lesion {case.lesion.id} (")


def test_names_tell_ids_apart():
    ids = [("a-b", "c"), ("a", "b-c"), ("A", "b-c"), ("a", "b/c"), ("a", "b?c"), *((odd_id, "a") for odd_id in ODD)]
    names = [file_name(answer(odd(patient, lesion)).cases[0]).casefold() for patient, lesion in ids]
    assert len(set(names)) == len(names)


def test_the_same_bytes_in_every_run(tmp_path):
    texts = []
    for folder in ("one", "two"):
        paths = write_cases([answer(example("constructed/two-levels-one-session"))], tmp_path / folder)
        texts.append({p.name: p.read_bytes() for p in (*paths, tmp_path / folder / CATALOG)})
    assert texts[0] == texts[1]
    again = write_cases([answer(example("constructed/two-levels-one-session"))], tmp_path / "one")
    assert {p.name: p.read_bytes() for p in again}.items() <= texts[0].items()


def test_the_catalog_leads_to_every_file_of_the_knowledge_base(tmp_path):
    write_cases([answer(example("constructed/t4-outpatient"))], tmp_path)
    entries = catalog(tmp_path)
    assert set(entries.values()) == {p for p in FOLDER.rglob("*.ttl") if p.stem in {n.split("/")[-1] for n in entries}}
    imported = {o for path in entries.values() for _, p, o in parse_turtle(path) if p == OWL + "imports"}
    assert imported | {"https://w3id.org/kypho"} == set(entries)
    for name, path in entries.items():
        assert Triples(parse_turtle(path)).subjects(TYPE, OWL + "Ontology") == (name,)


def test_a_catalog_of_others_is_not_overwritten(tmp_path):
    (tmp_path / CATALOG).write_text((FOLDER / CATALOG).read_text())
    with pytest.raises(UsageError, match="catalog of another folder"):
        write_cases([answer(example("constructed/t4-outpatient"))], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [CATALOG]


# -- the command


def test_one_case_to_stdout(kypho, tmp_path):  # noqa: F811 - the fixture
    run = kypho("assess", T4, "--format", "owl")
    assert run.code == 0
    written = kypho("assess", T4, "--format", "owl", "-o", tmp_path)
    (path,) = tmp_path.glob("*.ttl")
    assert written.out == f"{path}\n"
    assert path.read_text("utf-8") == run.out


def test_several_cases_need_a_choice_or_a_folder(kypho, tmp_path):  # noqa: F811
    run = kypho("assess", TWO, "--format", "owl")
    assert (run.code, run.out) == (2, "")
    assert "--lesion" in run.err
    assert "-o" in run.err
    ids = [x.id for x in example("constructed/two-levels-one-session").lesions]
    for lesion in ids:
        assert f"lesion {lesion} (" in kypho("assess", TWO, "--format", "owl", "--lesion", lesion).out
    assert len(kypho("assess", TWO, "--format", "owl", "-o", tmp_path).out.splitlines()) == len(ids)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "owl", "--lesion", "zz"], "no lesion 'zz'; known: a"),
        (["-o", "out"], "--output goes with --format owl"),
        (["--format", "owl", "--assume", "problem-list"], "holds no verdict"),
        (["--format", "owl", "--guideline", "cms-l34228"], "holds no verdict"),
        (["--format", "owl", "-o", str(T4)], "cannot write there"),
    ],
)
def test_mistakes(kypho, arguments, said):  # noqa: F811
    run = kypho("assess", T4, *arguments)
    assert (run.code, run.out) == (2, "")
    assert said in run.err


def test_a_lesion_can_be_picked_in_every_format(kypho):  # noqa: F811
    cases = kypho("assess", TWO, "--format", "json", "--lesion", "b").data["cases"]
    assert [c["lesion"]["id"] for c in cases] == ["b"]


def test_a_record_without_lesion(kypho, tmp_path):  # noqa: F811
    path = tmp_path / "none.yaml"
    path.write_text("format: kypho-patient/1\npatient: {id: p, age: 70}\nas_of: 2026-03-02\nlesions: []\n")
    run = kypho("assess", path, "--format", "owl")
    assert run.code == 2
    assert "a record without lesion" in run.err
    run = kypho("assess", path, "--format", "owl", "-o", tmp_path / "out")
    assert run.code == 2
    assert not (tmp_path / "out").exists()


# -- the reasoner


@pytest.mark.reasoner
@pytest.mark.parametrize("path", GOLDEN)
def test_the_reasoner_says_of_the_file_what_we_say(knowledge: Knowledge, tmp_path: Path, path: str) -> None:
    of = answer(example(path))
    for case, file in zip(of.cases, write_cases([of], tmp_path), strict=True):
        classes = [c for g in knowledge.guidelines.values() for c in classes_of(g)]
        evaluator = Evaluator(case.snapshot, lesion_subject(case.lesion.id), case.in_session)
        ours = {c: evaluator.evaluate(knowledge.criterion(c)).truth for c in classes}
        iri = case_iri(case.record, case.lesion.id)
        assert entailments(knowledge, parse_turtle(file), iri, classes, timeout=300) == ours


@pytest.mark.reasoner
@pytest.mark.slow
def test_owlapi_opens_the_folder_by_its_own_catalog(tmp_path: Path) -> None:
    owlapi = pytest.importorskip("owlapi", reason="the tests have no OWLAPI")
    of = answer(example("constructed/t4-outpatient"))
    (path,) = write_cases([of], tmp_path)
    loaded = owlapi.load(path, catalog(tmp_path))
    assert len(list(loaded.getOWLOntologyManager().getOntologies())) == len(catalog(tmp_path)) + 1
    assert owlapi.violations(loaded) == []
    del loaded
    gc.collect()  # Java frees what Python no longer holds
