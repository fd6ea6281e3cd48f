"""The published JSON Schemas against what is read and written."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import bad_input
import pytest
from bad_input import GOOD
from builders import EXAMPLES, ROOT, TODAY, every, fact, record, session, unknown
from jsonschema import Draft202012Validator
from test_cli import kypho  # noqa: F401 - a fixture
from test_patient_file import OVER, as_json

from kypho_kg.candidacy import assess
from kypho_kg.criteria import Op
from kypho_kg.guidelines import EFFECTS
from kypho_kg.record import Cause, Mood, Polarity, Status
from kypho_kg.report import answers_json
from kypho_kg.sources.yaml_tree import parse_tree, read_tree
from kypho_kg.verdicts import VERDICTS
from kypho_kg.vocabulary import KYPHO, TYPE, local

SCHEMAS = ROOT / "kypho_kg" / "schemas"
FILES = sorted(EXAMPLES.glob("*/*.yaml"))


def schema(name: str) -> dict:
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))


PATIENT = Draft202012Validator(schema("patient"))
ANSWER = Draft202012Validator(schema("assessment"))
CASE = Draft202012Validator({"$ref": "#/$defs/case", "$defs": schema("assessment")["$defs"]})


def document(text: str):
    """A patient file as JSON sees it: numbers are numbers, dates and names are texts."""
    return json.loads(as_json(parse_tree(text, "x")))


def complaints(validator, data) -> list[str]:
    return [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(data)]


def test_the_answer_names_the_mapping_sets():
    given = [
        assess(replace(record(), patient=p, mappings=sets))
        for p, sets in (("p", ("f1" * 32, "0a" * 32)), ("q", ("0a" * 32,)))
    ]
    data = answers_json(given, [], "kypho-kg test")
    assert data["run"]["mappings"] == ["0a" * 32, "f1" * 32]
    assert complaints(ANSWER, data) == []
    assert answers_json([], [], "kypho-kg test")["run"]["mappings"] == []


@pytest.mark.parametrize("name", ["patient", "assessment"])
def test_a_schema_is_a_schema_and_has_its_address(name):
    Draft202012Validator.check_schema(schema(name))
    assert schema(name)["$id"] == f"https://w3id.org/kypho/schemas/{name}.schema.json"
    assert schema(name)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_object_of_the_schemas_is_closed():
    def walk(node):
        if isinstance(node, dict):
            if "properties" in node and node.get("type") in ("object", ["object", "null"]) and node is not body:
                assert node.get("additionalProperties") is False, list(node["properties"])
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    for name in ("patient", "assessment"):
        root = schema(name)
        body = root["$defs"].get("factBody")  # closed where it is used
        walk(root)


def test_the_words_of_the_schemas_are_those_of_the_code(knowledge):
    answer, file = schema("assessment")["$defs"], schema("patient")["$defs"]
    assert answer["verdict"]["enum"] == list(VERDICTS)
    assert answer["cause"]["enum"] == list(Cause)
    assert set(answer["proof"]["properties"]["op"]["enum"]) == set(Op)
    assert set(answer["clause"]["properties"]["effect"]["enum"]) == set(EFFECTS)
    for said, of in ((answer["factBody"]["properties"], "status"), (file["fact"]["properties"], "verification")):
        assert said["mood"]["enum"] == list(Mood)
        assert said[of]["enum"] == list(Status)
    assert answer["factBody"]["properties"]["polarity"]["enum"] == list(Polarity)
    marks = set(answer["clause"]["properties"]["verification"]["enum"])
    assert {r.mark for g in knowledge.guidelines.values() for r in g.recommendations} <= marks
    assert {KYPHO + m for m in marks} == set(knowledge.triples.subjects(TYPE, KYPHO + "VerificationMark"))


def test_the_levels_of_the_schema_are_those_of_the_ontology(knowledge):
    level = Draft202012Validator(schema("patient")["$defs"]["level"])
    names = {local(v) for v in knowledge.by_name["vertebralLevel"].values}
    regions = {local(r) for r in knowledge.triples.subjects(TYPE, KYPHO + "SpinalRegion")}
    assert all(level.is_valid(n) for n in names | regions)
    tried = {f"{letter}{number}" for letter in "CTLSX" for number in range(15)}
    assert {n for n in tried if level.is_valid(n)} == names


# -- patient files


@pytest.mark.parametrize("path", every(3, FILES), ids=lambda p: p.stem)
def test_every_example_conforms(path):
    assert complaints(PATIENT, json.loads(as_json(read_tree(path)))) == []


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        OVER,
        bad_input.nrs("[{value: 62, unit: mm}, {min: 4, below: 7}, {words: severe}, {unknown: Pending}, 6]"),
        bad_input.swap("painNrs: 6", "painTrend: {one_of: [Stable, Worsening]}"),
        bad_input.swap("painNrs: 6", "primaryEtiology: {absent: MalignantEtiology, verification: provisional}"),
        bad_input.swap("age: 75", "birth_date: 1950"),
        bad_input.swap("level: L1", "level: [T11, ThoracicSpine]"),
        bad_input.nrs(
            "{value: 6, time: 2026-03-01T08:30, mood: planned, source: {document: note, date: 2026-03, quote: x}}"
        ),
    ],
)
def test_every_form_conforms(text):
    assert complaints(PATIENT, document(text)) == []


SEEN_BY_THE_READER_ALONE = {
    # names and units are the ontology's, values are the shapes'
    *("an unknown feature", "an unknown feature of no likeness", "a feature of the patient in a lesion"),
    *("a feature of the procedure in the patient", "an unknown choice", "an unknown category", "an unknown technique"),
    *("a patient of an unknown sex", "a finding that is a number", "a wrong unit", "a unit of another feature"),
    *("a number in words", "a number in quotes", "a yes for a number", "not a number", "YAML's not a number"),
    *("infinity", "an enormous number", "a comma", "absent of a number"),
    # what JSON Schema cannot say
    *(
        "an impossible date",
        "an as_of that does not exist",
        "a source of an impossible date",
        "a birth after the as_of",
    ),
    *("bounds the wrong way round", "an empty range", "a duplicate lesion id", "a procedure of an unknown lesion"),
}


@pytest.mark.parametrize("kind", [k for k in bad_input.CONTENT if k not in SEEN_BY_THE_READER_ALONE])
def test_a_bad_document_does_not_conform(kind):
    assert complaints(PATIENT, document(bad_input.CONTENT[kind].text))


@pytest.mark.parametrize(
    "text",
    [
        OVER + "as_of: 2026-03-02\n",
        OVER.replace("reason: measured again\n", ""),
        "[]",
        bad_input.nrs("true"),
        bad_input.nrs("{value: 6, unknown: Pending}"),
        bad_input.nrs("[[6]]"),
        bad_input.swap("as_of: 2026-03-02", "as_of: 2026-03-02T10:00"),
        bad_input.swap("lesions: [a]", "lesions: a"),
    ],
)
def test_more_bad_documents_do_not_conform(text):
    assert complaints(PATIENT, document(text))


# -- answers


def pieces(data, seen: dict[str, set[str]]):
    """An answer in pieces: what a definition of the schema checks by reference is cut out and kept once.

    Proofs repeat one another: checking each of their nodes once takes seconds instead of minutes.
    """
    if isinstance(data, list):
        return [pieces(item, seen) for item in data]
    if not isinstance(data, dict):
        return data
    cut = {}
    for key, value in data.items():
        name = {"children": "proof", "proof": "proof", "facts": "fact", "premises": "fact", "clauses": "clause"}.get(
            key
        )
        items = value if isinstance(value, list) else [value]
        inner = pieces(items, seen)
        if name and items and isinstance(items[0], dict):
            seen.setdefault(name, set()).update(json.dumps(i, sort_keys=True) for i in inner)
            inner = [SAMPLES[name]]
        cut[key] = inner if isinstance(value, list) else inner[0]
    return cut


_FACT = {
    **{"subject": "patient", "feature": "f", "polarity": "present", "value": None, "unit": None, "time": "2026"},
    **{"mood": "observed", "status": "confirmed", "standing": "asserted", "source": "", "origin": ""},
}
_PROOF = {"op": "finding", "term": "f", "truth": "met", "facts": [_FACT]}
_CLAUSE = {
    **{"id": "g/c", "effect": "Advises", "label": "c", "truth": "met", "cause": None, "verification": "ReadAtSource"},
    **{"citation": "c", "url": "", "reasons": [], "all_reasons": True, "near_misses": [], "proof": _PROOF},
}
SAMPLES = {"fact": _FACT, "proof": _PROOF, "clause": _CLAUSE}


def faults(data) -> list[str]:
    """What is wrong with an answer, piece by piece."""
    seen: dict[str, set[str]] = {}
    found = complaints(ANSWER, pieces(data, seen))
    for name, texts in seen.items():
        validator = Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": ANSWER.schema["$defs"]})
        found += [f"{name} {c}" for text in texts for c in complaints(validator, json.loads(text))]
    return found


@pytest.fixture(scope="module", params=[5, pytest.param(1, marks=pytest.mark.slow)])
def step(request):
    """One of how many examples is taken; all take minutes."""
    return request.param


@pytest.fixture(scope="module")
def answers(knowledge, step):
    """The answers to examples, and to a record with every cause of an unknown."""
    from kypho_kg.intake import read_patient_file

    odd = record(
        fact("vertebralLevel", {"T11", "T12"}),
        fact("painNrs", 6, status="refuted"),
        fact("inr", 3, "2025-01-01"),
        unknown("MarrowEdemaOnMri", reason="moved"),
        fact("painSeverity", "SeverePain"),
        fact("Pregnancy"),
        fact("sex", "Male"),
        fact("heightLossPercent", 200, invalid="heightLossPercent: 0 to 100"),
        lesions=("a", "b"),
        procedure=session("a"),
        as_of=TODAY,
    )
    records = [odd, record(lesions=()), *(read_patient_file(path, knowledge) for path in FILES[::step])]
    return [assess(r, knowledge=knowledge, assume=["problem-list", "age-sex"], validate=False) for r in records]


def test_every_answer_conforms(answers, step):
    data = json.loads(json.dumps(answers_json(answers, [], "test"), allow_nan=False))
    assert faults(data) == []
    assert len(data["cases"]) > len(FILES[::step])
    assert len(data["without_case"]) == 1
    causes = {c["cause"] for case in data["cases"] for a in case["assessments"] for c in a["clauses"]}
    assert len(causes) > 9  # nearly every cause occurs


def test_what_the_command_line_prints_conforms(kypho):  # noqa: F811
    run = kypho("assess", *FILES[::6], "--format", "json", "--assume", "problem-list")
    assert run.code == 0
    assert len(run.data["cases"]) >= len(FILES[::6])
    assert faults(run.data) == []


def test_what_explain_prints_conforms(kypho):  # noqa: F811
    for name in ("constructed/t4-outpatient", "published/ost-02"):
        run = kypho("explain", EXAMPLES / f"{name}.yaml", "-g", "cms-l34228", "--format", "json")
        assert [c for case in run.data for c in complaints(CASE, case)] == []


def test_an_answer_to_nothing_conforms(kypho, tmp_path):  # noqa: F811
    (tmp_path / "bad.yaml").write_text("[]")
    run = kypho("assess", tmp_path / "bad.yaml", "--format", "json")
    assert run.code == 3
    assert run.data["run"]["knowledge_base"] is None
    assert complaints(ANSWER, run.data) == []


def first(data, key):
    """The first object of the answer that has a key."""
    if isinstance(data, dict):
        if key in data:
            return data
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            found = first(item, key)
            if found is not None:
                return found
    return None


BROKEN = {
    "a key too many": lambda d: d.update(extra=1),
    "a key too few": lambda d: d.pop("disclaimer"),
    "another version": lambda d: d.update(schema_version="2"),
    "a short hash": lambda d: d["run"]["knowledge_base"].update(sha256="abc"),
    "an unknown verdict": lambda d: first(d, "verdict").update(verdict="Approved"),
    "a verdict that can end nowhere": lambda d: first(d, "reachable").update(reachable=[]),
    "an unknown truth": lambda d: first(d, "verification").update(truth="true"),
    "a cause of a clause that is known": lambda d: first(d, "verification").update(cause="Stale", truth="met"),
    "no cause of a clause that is unknown": lambda d: first(d, "verification").update(cause=None, truth="unknown"),
    "an unknown effect": lambda d: first(d, "effect").update(effect="Forbids"),
    "an unknown operator": lambda d: first(d, "op").update(op="xor"),
    "a leaf that rests on nothing": lambda d: first(d, "facts").pop("facts"),
    "a number without a threshold": lambda d: first(d, "threshold").pop("threshold"),
    "a threshold without a number": lambda d: first(d, "threshold")["threshold"].pop("value"),
    "a fact without a source": lambda d: first(d, "polarity").pop("source"),
    "a fact with a strange key": lambda d: first(d, "polarity").update(colour="red"),
    "a rule without premises": lambda d: first(d, "rule").pop("premises"),
    "a date that is no day": lambda d: first(d, "constructed").update(as_of="2026-03"),
    "an assumption in the strict verdict": lambda d: first(d, "assumptions").update(assumptions=["x"]),
    "a subject of no kind": lambda d: first(d, "polarity").update(subject="a"),
}


@pytest.fixture(scope="module")
def sound():
    """A sound answer to one patient."""
    from kypho_kg.intake import read_patient_file
    from kypho_kg.loading import load_knowledge

    path = EXAMPLES / "constructed/t4-outpatient.yaml"
    answer = assess(read_patient_file(path, load_knowledge()), guidelines=["evicore-cmm-607"], validate=False)
    return json.loads(json.dumps(answers_json([answer], [], "test")))


def test_a_sound_answer_conforms_as_a_whole(sound):
    assert complaints(ANSWER, sound) == faults(sound) == []


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_answer_does_not_conform(sound, kind):
    broken = copy.deepcopy(sound)
    BROKEN[kind](broken)
    assert complaints(ANSWER, broken)
    assert faults(broken)
