"""What the pages of docs/ show is what the code does."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from bad_input import swap
from builders import EXAMPLES, PREFIXES, ROOT, defined_as, knowledge_with, refusals
from test_cli import kypho  # noqa: F401 - a fixture
from test_schemas import PATIENT, complaints, document

from kypho_kg.criteria import Op
from kypho_kg.errors import InputError
from kypho_kg.intake import read_records, reject_invalid
from kypho_kg.sources.patient_file import read_overlay, read_patient_file
from kypho_kg.vocabulary import GUIDELINES, KYPHO

DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def rows(page: str, title: str) -> list[tuple[str, str]]:
    """The rows of the table whose first column has this title."""
    table = (DOCS / page).read_text("utf-8").partition(f"| {title} |")[2].partition("\n\n")[0]
    return [(a.strip().strip("`"), b.strip()) for a, b in re.findall(r"^\| (.*?) \| (.*?) \|$", table, re.MULTILINE)]


# -- patient-file.md

WHOLE = [b for b in blocks("patient-file.md", "yaml") if b.startswith("format:")]
PIECES = [b for b in blocks("patient-file.md", "yaml") if not b.startswith("format:")]


def test_the_example_is_a_good_file_and_its_correction_a_good_overlay(tmp_path, knowledge):
    example, correction = WHOLE
    (tmp_path / "example.yaml").write_text(example)
    (tmp_path / "correction.yaml").write_text(correction)
    record = read_patient_file(tmp_path / "example.yaml", knowledge)
    reject_invalid(record, knowledge)
    assert read_overlay(tmp_path / "correction.yaml", knowledge).facts
    [corrected], problems = read_records([tmp_path / "example.yaml"], knowledge, [tmp_path / "correction.yaml"])
    assert problems == []
    assert sum(f.overridden_by is not None for f in corrected.facts) == 2
    assert complaints(PATIENT, document(example)) == complaints(PATIENT, document(correction)) == []


@pytest.mark.parametrize("piece", PIECES, ids=lambda p: p.partition(":")[0])
def test_every_form_that_is_shown_is_read(tmp_path, knowledge, piece):
    places = {"Patient": [], "VertebralLesion": []}
    for entry in re.split(r"\n(?=\w)", piece.strip()):
        bearer = knowledge.by_name[entry.partition(":")[0]].bearer.rpartition("#")[2]
        places[bearer].append(entry.replace("\n", "\n      "))
    facts = "".join(f"\n  {e}" for e in places["Patient"]) or " {}"
    own = "".join(f"\n      {e}" for e in places["VertebralLesion"]) or " {}"
    head = "format: kypho-patient/1\npatient: {id: p}\nas_of: 2026-03-02"
    text = f"{head}\nfacts:{facts}\nlesions:\n  - id: a\n    facts:{own}\n"
    (tmp_path / "piece.yaml").write_text(text)
    record = read_patient_file(tmp_path / "piece.yaml", knowledge)
    reject_invalid(record, knowledge)
    assert len(record.facts) >= sum(map(len, places.values()))
    assert complaints(PATIENT, document(text)) == []


@pytest.mark.parametrize(("written", "message"), rows("patient-file.md", "in the lesion's facts"))
def test_every_message_that_is_shown_is_said(tmp_path, knowledge, written, message):
    (tmp_path / "patient.yaml").write_text(swap("painNrs: 6", written))
    with pytest.raises(InputError) as bad:
        reject_invalid(read_patient_file(tmp_path / "patient.yaml", knowledge), knowledge)
    [problem] = bad.value.problems
    assert str(problem).partition(": ")[2] == message


# -- assessment-json.md


def lies_in(part, whole) -> bool:
    """Whether everything shown is in the answer: keys of maps, and items of lists in some order."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and lies_in(v, whole[k]) for k, v in part.items())
    if isinstance(part, list):
        return (
            isinstance(whole, list)
            and (not part) <= (not whole)
            and all(any(lies_in(i, w) for w in whole) for i in part)
        )
    return part == whole


def test_the_answer_that_is_shown_is_given(kypho):  # noqa: F811
    [shown] = blocks("assessment-json.md", "json")
    file = EXAMPLES / "constructed/onset-about-three-months.yaml"
    given = kypho("assess", file, "-g", "cms-l34228", "--format", "json").data
    assert lies_in(json.loads(shown), given)


def test_every_key_of_an_assessment_is_explained(kypho):  # noqa: F811
    page = (DOCS / "assessment-json.md").read_text("utf-8")
    given = kypho("assess", EXAMPLES / "constructed/t4-outpatient.yaml", "--format", "json").data
    keys = {*given, *given["cases"][0], *given["cases"][0]["assessments"][0]} - {
        "title",
        "categories",
        "files",
        "disclaimer",
    }
    assert [k for k in sorted(keys) if f"`{k}`" not in page and f'"{k}"' not in page] == []


# -- criterion-profile.md

TURTLE = blocks("criterion-profile.md", "turtle")
TEST = "PREFIX test: <https://w3id.org/kypho/guidelines/test/>\n"


def test_every_construct_that_is_shown_is_read_for_what_it_is_said_to_be(tmp_path):
    _closure, *definitions = TURTLE
    knowledge = knowledge_with(tmp_path, TEST + "\n".join(definitions))
    names = re.findall(r"^test:(\w+) a owl:Class", "\n".join(definitions), re.MULTILINE)
    read = {name: knowledge.criterion(f"{GUIDELINES}test/{name}") for name in names}
    assert {name: tree.op for name, tree in read.items() if tree.op is not Op.LINK} == {
        "AChoice": Op.AND, "Combined": Op.AND, "AtLeastTwo": Op.AT_LEAST, "Band": Op.OPEN,
    }  # fmt: skip
    inner = {name: tree.children[0].op for name, tree in read.items() if tree.op is Op.LINK}
    assert inner == {
        "OfThePatient": Op.FINDING, "OneOfTwoFindings": Op.OR, "ACategory": Op.CATEGORY, "AQuantity": Op.QUANTITY,
        "Under6": Op.QUANTITY, "Under8": Op.QUANTITY,
    }  # fmt: skip
    assert {node.op for tree in read.values() for node in tree.walk()} == set(Op)


def test_the_closure_that_is_shown_is_allowed(tmp_path):
    assert len(knowledge_with(tmp_path, PREFIXES + TURTLE[0]).value_closures) == 2


@pytest.mark.parametrize(("definition", "message"), rows("criterion-profile.md", "definition"))
def test_every_refusal_that_is_shown_is_given(tmp_path, definition, message):
    assert message in refusals(tmp_path, defined_as(definition))


# -- guidelines.md


def test_the_page_on_guidelines_names_every_source_in_its_layer(knowledge):
    page = (DOCS / "guidelines.md").read_text("utf-8")
    table = page.partition("<!-- sources")[2].partition("The layers speak differently")[0]
    for layer in knowledge.layers:
        mine = {g.id for g in knowledge.guidelines.values() if KYPHO + g.layer == layer}
        clauses = sum(len(knowledge.guideline(g).recommendations) for g in mine)
        [said] = re.findall(
            rf"^\*\*{knowledge.plain(layer).capitalize()}\*\* \((\d+) sources,\s(\d+)\sclauses\):(.*?)\.$",
            table, re.MULTILINE | re.DOTALL,
        )  # fmt: skip
        assert (int(said[0]), int(said[1])) == (len(mine), clauses)
        assert set(re.findall(r"`([^`]+)`", said[2])) == mine


def test_the_page_on_guidelines_counts_the_marks(knowledge):
    marks = Counter(r.mark for g in knowledge.guidelines.values() for r in g.recommendations)
    said = dict(
        re.findall(r"^\| ([a-z' ]+) \| .* \| (\d+) \|$", (DOCS / "guidelines.md").read_text("utf-8"), re.MULTILINE)
    )
    assert {name: int(n) for name, n in said.items()} == {knowledge.plain(KYPHO + m): n for m, n in marks.items()}
    unread = sum(g.rests_on_unverified for g in knowledge.guidelines.values())
    assert unread == 9
    assert "Nine sources have such a clause" in (DOCS / "guidelines.md").read_text("utf-8")


def test_the_page_on_guidelines_shows_a_topic_as_it_is():
    [block] = blocks("guidelines.md", "turtle")
    text = (ROOT / "ontology" / "guidelines" / "conflicts.ttl").read_text("utf-8")
    whole = text[text.index("conflicts:C12\n") :].partition("\n\n")[0]
    assert all(line in whole for line in block.splitlines())
