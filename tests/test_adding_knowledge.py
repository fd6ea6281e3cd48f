"""The recipes of CONTRIBUTING.md, followed to the letter: new knowledge is Turtle, and no Python is touched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
from builders import EXAMPLES, PREFIXES, ROOT, between, example, iri

from kypho_kg import catalogue, querying
from kypho_kg.candidacy import assess
from kypho_kg.loading import read_knowledge
from kypho_kg.mappings import read_mappings
from kypho_kg.sources.patient_file import read_patient_file
from kypho_kg.validation import check_knowledge_base

RECIPES = re.findall(r"```turtle\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)
MAPPING = re.search(r"```tsv\n(.*?\n)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)[1]
NEW = "https://w3id.org/kypho/guidelines/example-2030"


def recipe(*names: str) -> str:
    """The Turtle blocks that define all these subjects."""
    found = [block for block in RECIPES if any(re.search(rf"^{name}$", block, re.MULTILINE) for name in names)]
    assert len(found) == len(names)
    return "\n".join(found)


class House:
    """A copy of the project as it would be checked out, with its own ontology."""

    def __init__(self, root):
        self.root = root
        for name in ("kypho_kg", "ontology", "shapes", "queries"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "_data"))

    def append(self, file: str, turtle: str) -> None:
        with (self.root / "ontology" / file).open("a", encoding="utf-8") as out:
            out.write(PREFIXES + turtle)

    def run(self, *arguments: object, code: int = 0) -> str:
        """stdout of the command line, run as a user would."""
        done = subprocess.run(
            [sys.executable, "-m", "kypho_kg", *map(str, arguments)],
            cwd=self.root, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """The house after all recipes: a finding, a quantity and a guideline of two clauses."""
    made = House(tmp_path_factory.mktemp("house"))
    made.append("modules/safety.ttl", recipe("kypho:RheumatoidArthritis"))
    made.append("modules/imaging.ttl", recipe("kypho:spinalCanalDiameter"))
    with (made.root / "ontology/mappings/icd10cm.sssom.tsv").open("a", encoding="utf-8") as table:
        table.write(MAPPING)
    text = PREFIXES + f"PREFIX example-2030: <{NEW}/>\n" + recipe("example-2030:EX-R1", "example-2030:guideline")
    (made.root / "ontology/guidelines/example-2030.ttl").write_text(text, "utf-8")
    made.append("kypho.ttl", f"<https://w3id.org/kypho> owl:imports <{NEW}> .")
    catalog = made.root / "ontology/catalog-v001.xml"
    entry = f'<uri name="{NEW}" uri="guidelines/example-2030.ttl"/>\n</catalog>'
    catalog.write_text(catalog.read_text("utf-8").replace("</catalog>", entry), "utf-8")
    return made


@pytest.fixture(scope="module")
def patient(house):
    """The T4 patient with the new finding and the new quantity recorded, and an INR above the new limit."""
    text = (EXAMPLES / "constructed/t4-outpatient.yaml").read_text("utf-8")
    text = text.replace("\nfacts:\n", "\nfacts:\n  RheumatoidArthritis: present\n", 1)
    text = text.replace("    facts:\n", "    facts:\n      spinalCanalDiameter: {value: 1.4, unit: cm}\n", 1)
    file = house.root / "patient.yaml"
    file.write_text(text.replace("inr: {value: 1.1,", "inr: {value: 1.4,"), "utf-8")
    return file


@pytest.fixture(scope="module")
def verdicts(house, patient):
    """What the command line says of the patient, by guideline."""
    [case] = json.loads(house.run("assess", patient, "--format", "json"))["cases"]
    return {a["guideline"]: a for a in case["assessments"]}


@pytest.fixture(scope="module")
def extended(house):
    """The knowledge base of the house."""
    return read_knowledge(house.root / "ontology")


def test_the_new_guideline_is_listed_and_shown(house, extended):
    assert "example-2030" in {catalogue.summary(g)["id"] for g in extended.guidelines.values()}
    page = house.run("guidelines", "show", "example-2030")
    assert "Caution when the INR is above 1.3." in page
    assert "Example guideline 2030, section 4.2" in page


def test_the_new_guideline_conforms_to_the_shapes(extended):
    assert check_knowledge_base(extended) > 0


def test_the_new_guideline_assesses_a_patient(verdicts):
    found = verdicts["example-2030"]
    assert found["verdict"] == "CandidateWithCaution"
    assert found["cautions"]["met"] == ["example-2030/EX-R1"]
    assert found["in_force"] is False  # it begins in 2030


def test_the_new_guideline_is_explained(house, patient):
    page = house.run("explain", patient, "--guideline", "example-2030")
    assert "[met] example-2030/EX-R1" in page
    assert "INR 1.4 (asked: > 1.3" in page


def test_the_new_finding_and_quantity_are_features_like_any_other(extended, patient):
    rows = querying.run(extended, "features")
    assert {"RheumatoidArthritis", "spinalCanalDiameter"} <= {value for row in rows for value in row.values()}
    facts = {f.feature: f for f in read_patient_file(patient, extended).facts}
    assert facts[iri("RheumatoidArthritis")].polarity == "present"
    assert facts[iri("spinalCanalDiameter")].value == between(14, 14)


def test_one_row_gives_the_new_finding_its_code(house, extended):
    mappings = read_mappings(house.root / "ontology/mappings", extended)
    assert [f.feature.name for f in mappings.facts("ICD10CM:M06.9", extended)] == ["RheumatoidArthritis"]
    answer = json.loads(house.run("ontology", "find", "M06.9", "--format", "json"))
    assert [s["feature"] for s in answer["states"]] == ["RheumatoidArthritis"]
    rows = json.loads(house.run("query", "codes-of-a-term", "--format", "json"))
    assert [r["code"] for r in rows if r["term"] == "RheumatoidArthritis"] == ["M06.9"]


def test_a_row_for_a_term_that_is_not_there_is_refused(tmp_path):
    bare = House(tmp_path / "bare")
    with (bare.root / "ontology/mappings/icd10cm.sssom.tsv").open("a", encoding="utf-8") as table:
        table.write(MAPPING)
    assert bare.run("ontology", "find", "M06.9", code=4) == ""


def test_the_other_guidelines_say_what_they_said(verdicts):
    [case] = assess(example("constructed/t4-outpatient"), validate=False).cases
    before = {a.guideline.id: a.verdict for a in case.assessments}
    assert {id_: a["verdict"] for id_, a in verdicts.items()} == {**before, "example-2030": "CandidateWithCaution"}


def test_a_new_clause_on_the_new_finding_decides(house, patient, tmp_path):
    more = House(tmp_path / "more")
    shutil.rmtree(more.root / "ontology")
    shutil.copytree(house.root / "ontology", more.root / "ontology")
    clause = (
        recipe("example-2030:EX-R1")
        .replace("EX-R1", "EX-A1")
        .replace("ContraindicatesRelatively", "ContraindicatesAbsolutely")
        .replace("orderNumber 2", "orderNumber 3")
    )
    start, end = clause.index("owl:someValuesFrom [ a owl:Restriction ;"), clause.index("\nexample-2030:EX-A1\n")
    atom = "[ a owl:Restriction ; owl:onProperty kypho:hasFinding ; owl:someValuesFrom kypho:RheumatoidArthritis ] ] ."
    more.append(
        "guidelines/example-2030.ttl",
        f"PREFIX example-2030: <{NEW}/>\n{clause[:start]} owl:someValuesFrom {atom}\n{clause[end:]}\n"
        "example-2030:guideline kypho:hasRecommendation example-2030:EX-A1 .",
    )
    [case] = json.loads(more.run("assess", patient, "-g", "example-2030", "--format", "json"))["cases"]
    assert case["assessments"][0]["verdict"] == "Contraindicated"


def test_a_guideline_that_the_catalog_does_not_know_stops_everything(house, patient, tmp_path):
    broken = House(tmp_path / "broken")
    broken.append("kypho.ttl", f"<https://w3id.org/kypho> owl:imports <{NEW}> .")
    assert broken.run("assess", patient, code=4) == ""
