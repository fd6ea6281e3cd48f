"""Mappings: the SSSOM files against their tools and classifications, what a code states, and what it does not."""

from __future__ import annotations

import csv
import importlib.resources
import json
import re
import subprocess
import sys
from collections import Counter

import pytest
import rdflib
from builders import ROOT, iri
from typer.testing import CliRunner

from kypho_kg import querying
from kypho_kg.cli import app
from kypho_kg.errors import InputError, KnowledgeBaseError, UsageError
from kypho_kg.intake_report import IntakeReport
from kypho_kg.mappings import (
    ASSIGNING,
    GRAPH,
    OWN,
    PREDICATES,
    Mappings,
    load_mappings,
    read_mappings,
    read_sssom,
    read_systems,
    value_owners,
)
from kypho_kg.record import Polarity
from kypho_kg.sources.omop import read_omop
from kypho_kg.store import Literal, Store
from kypho_kg.term_search import find
from kypho_kg.vocabulary import DEFINITION, LABEL, SKOS, local

FOLDER = ROOT / "ontology" / "mappings"
FILES = sorted(FOLDER.glob("*.sssom.tsv"))
WITHOUT_LABELS = {"snomed-other", "cpt", "atc"}


def table(path):
    """Header as text, columns and rows, without any code of the package."""
    lines = path.read_text("utf-8").splitlines()
    header = [line[1:] for line in lines if line.startswith("#")]
    cells = [line.split("\t") for line in lines if not line.startswith("#")]
    assert all(len(row) == len(cells[0]) for row in cells)
    return "\n".join(header), cells[0], [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]


@pytest.fixture(scope="module")
def mappings(knowledge) -> Mappings:
    return load_mappings(knowledge)


@pytest.fixture(scope="module")
def icd10cm():
    """The package that ships the classification; it takes seconds to load."""
    return pytest.importorskip("simple_icd_10_cm")


def codes_of(mappings, prefix):
    return sorted({r.code for r in mappings.rows if r.prefix == prefix})


# --------------------------------------------------------------------------------------------------------------------
# The files

PARSE = """
import json, sys
from sssom.parsers import parse_sssom_table
from sssom.validators import validate
counts = {}
for path in sys.argv[1:]:
    parsed = parse_sssom_table(path)
    validate(parsed, fail_on_error=True)
    counts[path] = len(parsed.df)
print(json.dumps(counts))
"""


def test_sssom_keeps_every_row():
    """Validation drops bad rows in silence: what was parsed is counted against the file."""
    paths = list(map(str, FILES))
    done = subprocess.run([sys.executable, "-c", PARSE, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parsed = json.loads(done.stdout.splitlines()[-1])
    assert parsed == {str(path): len(table(path)[2]) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name.partition(".")[0])
def test_file_is_in_order(path):
    header, columns, rows = table(path)
    name = path.name.removesuffix(".sssom.tsv")
    assert f"mapping_set_id: https://w3id.org/kypho/mappings/{name}" in header
    for key in ("license", "subject_source", "object_source", "mapping_set_version", "mapping_date", "sssom_version"):
        assert re.search(rf"^{key}: .+", header, re.MULTILINE), key
    assert ("object_label" in columns) is (name not in WITHOUT_LABELS)
    key = ("subject_id", "predicate_id", "object_id", "predicate_modifier")
    keys = [tuple(row[k] for k in key) for row in rows]
    assert keys == sorted(set(keys))
    assert {row["predicate_id"] for row in rows} <= set(PREDICATES)
    assert {row["predicate_modifier"] for row in rows} <= {"", "Not"}
    assert len({row["object_id"].partition(":")[0] for row in rows}) == 1
    assert all(row["ext_evidence"] and row["mapping_justification"] == "semapv:ManualMappingCuration" for row in rows)
    assert not re.search(r"/(work|tmp|home)/", path.read_text("utf-8"))


def test_subject_labels_are_those_of_the_ontology(knowledge):
    wrong = [
        (path.name, row["subject_id"])
        for path in FILES
        for row in table(path)[2]
        if row["subject_label"] != knowledge.label(iri(row["subject_id"].removeprefix("kypho:")))
    ]
    assert wrong == []


def test_curie_maps_agree_with_the_table_of_systems(knowledge, mappings):
    for system in read_systems(FOLDER / "systems.tsv"):
        assert mappings.system(system.prefix) == system
        for name in filter(None, (system.fhir_system, system.omop_vocabulary)):
            assert mappings.system(name) == mappings.system(f"{name}/") == system
    assert set(mappings.systems) == {r.prefix for r in mappings.rows} | {OWN}
    for path in FILES:  # a stem of its own would be refused
        assert read_sssom(path, knowledge, list(mappings.systems.values()))[1] == []


def test_system_of_the_who_classification_is_not_the_american_one(mappings):
    assert mappings.system("http://hl7.org/fhir/sid/icd-10") is None
    assert mappings.codes("M80.08XA", "http://hl7.org/fhir/sid/icd-10") == ()


def test_notices():
    """Each licence asks for its words."""
    said = {path.name.removesuffix(".sssom.tsv"): table(path)[0] for path in FILES}
    notice = (ROOT / "NOTICE").read_text("utf-8")
    for words, name in (
        ("Global Patient Set", "snomed-gps"),
        ("does not endorse", "snomed-gps"),
        ("This material contains content from LOINC (http://loinc.org).", "loinc"),
        ("American Medical Association", "cpt"),
        ("WHO Collaborating Centre for Drug Statistics Methodology", "atc"),
        ("Human Phenotype Ontology", "hpo"),
    ):
        assert words in said[name]
        assert words in re.sub(r"\s+", " ", notice)
    for name in ("Mondo", "Uberon", "NCI Thesaurus", "Human Disease Ontology", "RxNorm", "RadLex", "ICD-10-PCS"):
        assert name in notice


def test_no_descriptor_of_a_licensed_code(mappings):
    """Neither CPT nor SNOMED CT outside the Global Patient Set brings more than the number."""
    for name in ("cpt", "snomed-other"):
        _, columns, rows = table(FOLDER / f"{name}.sssom.tsv")
        assert "object_label" not in columns
        assert all(re.fullmatch(r"(CPT|SCTID):\d+", row["object_id"]) for row in rows)
    assert {r.label for r in mappings.rows if r.prefix in ("CPT", "ATC")} == {""}
    gps = {row["object_id"] for row in table(FOLDER / "snomed-gps.sssom.tsv")[2]}
    assert gps.isdisjoint(row["object_id"] for row in table(FOLDER / "snomed-other.sssom.tsv")[2])


def test_every_row_of_the_terminology_list_is_accounted_for(mappings):
    """The list that the mappings were made from: each of its 808 rows has become rows, or says why not."""
    with (ROOT / "tests/tables/terminology-accounting.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 808
    assert Counter(bool(row["rows"]) for row in rows)[False] == 20
    for row in rows:
        assert row["rows"] or row["remark"]
        prefix = "SCTID" if row["system"] == "SNOMEDCT" else row["system"]
        have = {
            f"{r.predicate[5:-5]}:{local(r.subject)}" for r in mappings.search(row["code"], prefix) if not r.negated
        }
        assert set(row["rows"].split()) <= have, row


# --------------------------------------------------------------------------------------------------------------------
# The codes

FAMILIES = ("S22.0", "S32.0", "M48.4", "M48.5", "M80.08", "M80.88", "M84.48", "M84.58", "M84.68")


def test_icd10cm_codes_are_valid(mappings, icd10cm):
    assert [c for c in codes_of(mappings, "ICD10CM") if not icd10cm.is_valid_item(c)] == []
    titles = {r.code: r.label for r in mappings.rows if r.prefix == "ICD10CM"}
    assert {c: t for c, t in titles.items() if t != icd10cm.get_description(c)} == {}


def test_every_billable_vertebral_fracture_code_is_there(mappings, icd10cm):
    leaves = {c for root in FAMILIES for c in icd10cm.get_descendants(root) if icd10cm.is_leaf(c)}
    assert len(leaves) == 552
    assert leaves <= set(codes_of(mappings, "ICD10CM"))
    silent = {c for c in leaves if not any(local(f.subject).startswith("Fracture") for f in mappings.codes(c))}
    assert silent == {c for c in leaves if c.startswith("M84")}  # their site need not be a vertebra


def test_header_rows_say_so(mappings, icd10cm):
    """A code that cannot be billed is marked where it states a fracture."""
    for row in mappings.rows:
        if row.prefix == "ICD10CM" and row.code.startswith(FAMILIES) and not row.negated:
            assert icd10cm.is_leaf(row.code) is ("header, not billable" not in row.comment), row.source


def test_seventh_characters_that_do_not_exist(mappings):
    for code in ("M48.56XK", "M48.56XP", "S22.060P", "S32.010P"):
        assert mappings.search(code) == ()


def test_icd10pcs_codes_are_valid(mappings):
    path = importlib.resources.files("drg") / "data/tuva/icd_10_pcs.csv"
    known = {line.partition(",")[0].strip('"') for line in path.read_text("utf-8").splitlines()}
    assert len(known) > 70_000
    assert set(codes_of(mappings, "ICD10PCS")) <= known


MULTIPLY = [
    [(i + j) % 5 if i < 5 and j < 5 else (i + j - 5) % 5 + 5 if i < 5 else (i - j) % 5 + 5 if j < 5 else (i - j) % 5
     for j in range(10)] for i in range(10)
]  # fmt: skip
PERMUTE = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
for _ in range(6):
    PERMUTE.append([PERMUTE[-1][PERMUTE[1][n]] for n in range(10)])


def verhoeff(number: str) -> bool:
    check = 0
    for place, digit in enumerate(reversed(number)):
        check = MULTIPLY[check][PERMUTE[place % 8][int(digit)]]
    return check == 0


def test_verhoeff_is_that_of_the_books():
    assert verhoeff("2363")
    assert not verhoeff("2364")
    assert not verhoeff("3263")


def test_snomed_ids_have_their_check_digit(mappings):
    assert {r.code for r in mappings.rows if r.prefix == "SCTID" and not verhoeff(r.code)} == {"447766008"}
    assert all(r.negated for r in mappings.search("447766008"))


def test_loinc_codes_have_their_check_digit(mappings):
    def check_digit(number):
        doubled = (int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(number)))
        return -sum(d // 10 + d % 10 for d in doubled) % 10

    assert check_digit("72514") == 3
    codes = [c for c in codes_of(mappings, "LOINC") if not c.startswith("LA")]  # answers are numbered otherwise
    assert len(codes) == 80
    assert [c for c in codes if check_digit(c.split("-")[0]) != int(c.split("-")[1])] == []


# --------------------------------------------------------------------------------------------------------------------
# What a code states

AGE = "DiagnosedOsteoporosis primaryEtiology=OsteoporoticEtiology"
PAIR = "lesionKind=FractureLesion primaryEtiology=TraumaticEtiology"
STATES = {
    # osteoporotic: no level, no kind of osteoporosis
    "M80.08XA": f"{AGE} lesionKind=FractureLesion PathologicalFracture FractureUnderActiveTreatment "
    "primaryDiagnosisCode=IcdM8008XA",
    "M80.08XK": f"{AGE} lesionKind=FractureLesion PathologicalFracture FractureNonUnion",
    "M80.88XP": f"{AGE} lesionKind=FractureLesion PathologicalFracture FractureMalunion",
    "M80.08XS": f"{AGE} FractureSequela primaryDiagnosisCode=IcdM8008XS",  # no current fracture
    "M80.08": f"{AGE} lesionKind=FractureLesion PathologicalFracture",
    # collapsed: no etiology; malunion does not exist here
    "M48.56XA": "lesionKind=FractureLesion FractureUnderActiveTreatment",
    "M48.55XG": "lesionKind=FractureLesion DelayedFractureHealing",
    "M48.56XS": "FractureSequela",
    "M48.44XA": "lesionKind=FractureLesion FatigueFracture FractureUnderActiveTreatment",
    # the site need not be a vertebra
    "M84.48XA": "",
    "M84.58XK": "",
    "M84.58XA": "primaryDiagnosisCode=IcdM8458XA",
    # traumatic: T1 to T4 and L1 to L5 by name, from T5 on in pairs
    "S22.040D": f"{PAIR} fractureMorphology=WedgeFracture vertebralLevel=T4 FractureHealing",
    "S22.050A": f"{PAIR} fractureMorphology=WedgeFracture FractureUnderActiveTreatment",
    "S22.080K": f"{PAIR} fractureMorphology=WedgeFracture FractureNonUnion",
    "S22.009A": f"{PAIR} FractureUnderActiveTreatment",
    "S32.010A": f"{PAIR} fractureMorphology=WedgeFracture vertebralLevel=L1 FractureUnderActiveTreatment",
    "S32.011B": f"{PAIR} fractureMorphology=BurstFracture vertebralLevel=L1 FractureUnderActiveTreatment OpenFracture",
    "S32.012A": f"{PAIR} fractureMorphology=BurstFracture vertebralLevel=L1 FractureUnderActiveTreatment "
    "SpinalInstability",
    "S32.058G": f"{PAIR} vertebralLevel=L5 DelayedFractureHealing",
    "S32.012S": "primaryEtiology=TraumaticEtiology vertebralLevel=L1 FractureSequela",
    # a disease of the patient is not the etiology of a lesion
    "C90.00": "DiagnosedMultipleMyeloma secondaryDiagnosisCode=IcdC9000",
    "C79.51": "BoneMetastasis secondaryDiagnosisCode=IcdC7951",
    "M81.0": "DiagnosedOsteoporosis",
    "SCTID:94602001": "KnownMalignancy primaryEtiology=MetastaticEtiology",
    "SCTID:302941001": "",  # non-union of any bone
    "SCTID:61032001": "vertebralLevel=L1",
    "UBERON:0011050": "vertebralLevel=T8",
    # quantities, drugs, studies
    "LOINC:72514-3": "painNrs",
    "LOINC:38267-1": "boneDensityTScore",
    "LOINC:38265-5": "",  # the forearm
    "RXNORM:11289": "WarfarinTherapy",
    "RXNORM:2670": "CodeineTherapy",
    "ATC:B01AB": "AnticoagulantTherapy",
    "ATC:M01A": "",  # holds other drugs too
    "LOINC:24968-0": "SpineMriDone",
    "ICD10PCS:0QU03JZ": "",  # a pair of codes means kyphoplasty
    "ICD10PCS:XNU0356": "technique=ImplantAugmentation",
    "CPT:22514": "procedureCode=Cpt22514",
    "CPT:22511": "procedureCode=Cpt22511 technique=Vertebroplasty",
    "R65.21": "SystemicInfection Shock",
    "Z79.01": "AnticoagulantTherapy",
    "D68.32": "AnticoagulantInducedBleeding",
}


@pytest.mark.parametrize("code", STATES)
def test_code_states(code, mappings, knowledge):
    facts = mappings.facts(code, knowledge)
    found = {f.feature.name + (f"={local(f.value)}" if f.value else "") for f in facts}
    assert found == set(STATES[code].split())


def test_a_code_of_a_pair_of_levels_names_none(mappings):
    levels = {iri(f"{r}{n}") for r, last in (("T", 12), ("L", 5)) for n in range(1, last + 1)}
    for prefix in ("S22.05", "S22.06", "S22.07", "S22.08", "S22.00", "S32.00"):
        rows = [r for r in mappings.rows if r.prefix == "ICD10CM" and r.code.startswith(prefix)]
        assert rows
        assert not [r for r in rows if r.subject in levels]


def test_only_exact_and_narrow_put_a_record_under_a_term(mappings):
    for row in mappings.rows:
        assert (row in mappings.codes(row.code, row.prefix)) is (row.predicate in ASSIGNING and not row.negated)
        assert row in mappings.search(row.code, row.prefix)


TRAPS = [
    ("Retropulsion", "SCTID:35136003"),
    ("BalloonKyphoplasty", "SCTID:429616001"),
    ("VertebralAugmentation", "SCTID:447766008"),
    ("RespiratoryFailure", "SCTID:39871006"),
    ("boneDensityTScore", "LOINC:38265-5"),
    ("SignificantHeightLoss", "ICD10CM:R29.890"),
    ("VertebralHaemangioma", "ICD10CM:D18.09"),
    ("VertebralOsteonecrosis", "ICD10CM:M87.28"),
    ("VertebralOsteonecrosis", "ICD10CM:M48.36"),
    ("BoneCementAllergy", "ICD10CM:Z91.048"),
    ("AnticoagulantTherapy", "ICD10CM:D68.32"),
    ("AspirinTherapy", "ICD10CM:Z79.02"),
    ("OsteoporoticEtiology", "ICD10CM:M48.5"),
    ("NeoplasticVertebralFracture", "ICD10CM:M84.58"),
    ("Discitis", "MONDO:0006728"),
    ("ClopidogrelTherapy", "RXNORM:2670"),
    ("RivaroxabanTherapy", "RXNORM:221147"),
    ("ApixabanTherapy", "RXNORM:321064"),
    ("AlendronateTherapy", "RXNORM:3002"),
    ("EdoxabanTherapy", "RXNORM:1364347"),
    ("BalloonKyphoplasty", "ICD10PCS:0QU03JZ"),
    ("StereotacticRadiotherapyGiven", "ICD10PCS:D026DZZ"),
]


@pytest.mark.parametrize(("term", "code"), TRAPS)
def test_traps_are_recorded_and_assign_nothing(term, code, mappings):
    rows = [r for r in mappings.search(code) if r.subject == iri(term)]
    assert any(r.negated and r.predicate in ASSIGNING and r.comment for r in rows)
    assert iri(term) not in {r.subject for r in mappings.codes(code)}


def test_no_row_says_what_another_denies(mappings):
    denied = {(r.subject, r.predicate, r.curie) for r in mappings.rows if r.negated}
    assert len(denied) > 30
    assert [r.source for r in mappings.rows if not r.negated and (r.subject, r.predicate, r.curie) in denied] == []


# --------------------------------------------------------------------------------------------------------------------
# Reading and looking up


@pytest.mark.parametrize(
    "written", ["ICD10CM:M80.08XA", "icd10cm:m80.08xa", "http://hl7.org/fhir/sid/icd-10-cm|M80.08XA", "M8008XA"]
)
def test_ways_to_write_a_code(written, mappings):
    assert mappings.search(written) == mappings.search("M80.08XA", "ICD10CM") != ()


def test_prefix_inside_a_coding_is_understood(mappings):
    assert (
        mappings.search("HP:0002953", "http://human-phenotype-ontology.org") == mappings.search("0002953", "HP") != ()
    )


def test_code_of_another_system_is_not_found(mappings):
    assert mappings.search("1191", "http://loinc.org") == ()
    assert mappings.search("1191", "no such system") == ()
    assert mappings.search("no-such-code") == ()


HEADER = """#curie_map:
#  kypho: https://w3id.org/kypho#
#  LOCAL: https://example.org/codes/
#  ICD10CM: http://purl.bioontology.org/ontology/ICD10CM/
#mapping_set_id: https://example.org/own
#license: https://creativecommons.org/publicdomain/zero/1.0/
subject_id\tpredicate_id\tpredicate_modifier\tobject_id\tmapping_justification\tconfidence
"""
CURATED = "semapv:ManualMappingCuration"


def own_file(tmp_path, *rows, header=HEADER):
    path = tmp_path / "own.sssom.tsv"
    path.write_text(header + "".join("\t".join(row) + "\n" for row in rows), "utf-8")
    return path


def test_file_of_a_user_adds_and_withdraws(tmp_path, knowledge, mappings):
    path = own_file(
        tmp_path,
        ("kypho:Fever", "skos:exactMatch", "", "LOCAL:F1", CURATED, "0.9"),
        ("kypho:Fever", "skos:narrowMatch", "Not", "ICD10CM:R50.9", CURATED, ""),
    )
    more = load_mappings(knowledge, [path])
    assert [f.feature.name for f in more.facts("LOCAL:F1", knowledge)] == ["Fever"]
    assert [f.feature.name for f in mappings.facts("R50.9", knowledge)] == ["Fever"]
    assert more.facts("R50.9", knowledge) == ()
    assert (iri("Fever"), SKOS + "exactMatch", "https://example.org/codes/F1") in set(more.triples())
    assert more.sha256 != mappings.sha256 == load_mappings(knowledge).sha256


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (("kypho:Fevre", "skos:exactMatch", "", "LOCAL:F1", CURATED, ""), "8, subject_id: 'kypho:Fevre' is no term"),
        (
            ("other:Fever", "skos:exactMatch", "", "LOCAL:F1", CURATED, ""),
            "8, subject_id: 'other:Fever'; expected prefix",
        ),
        (
            ("kypho:Fever", "owl:sameAs", "", "LOCAL:F1", CURATED, ""),
            "8, predicate_id: 'owl:sameAs'; expected skos:exact",
        ),
        (
            ("kypho:Fever", "skos:exactMatch", "No", "LOCAL:F1", CURATED, ""),
            "8, predicate_modifier: 'No'; expected Not",
        ),
        (
            ("kypho:Fever", "skos:exactMatch", "", "NOWHERE:F1", CURATED, ""),
            "8, object_id: 'NOWHERE:F1'; expected prefix",
        ),
        (("kypho:Fever", "skos:exactMatch", "", "F1", CURATED, ""), "8, object_id: 'F1'; expected prefix"),
        (("kypho:Fever", "skos:exactMatch", "", "LOCAL:", CURATED, ""), "8, object_id: 'LOCAL:'; expected prefix"),
        (("kypho:Fever", "skos:exactMatch", "", "LOCAL:F1", "", ""), "8, mapping_justification: empty"),
        (("kypho:Fever", "skos:exactMatch", "", "LOCAL:F1", CURATED, "1.1"), "8, confidence: '1.1'; expected a number"),
        (("kypho:Fever", "skos:exactMatch", "", "LOCAL:F1", CURATED, "NaN"), "8, confidence: 'NaN'; expected a number"),
        (
            ("kypho:Fever", "skos:exactMatch", "", "LOCAL:F1", CURATED, "high"),
            "8, confidence: 'high'; expected a number",
        ),
        (("kypho:Fever", "skos:exactMatch"), "8: the row has more or fewer cells"),
    ],
)
def test_bad_rows_are_named(cells, words, tmp_path, knowledge):
    with pytest.raises(InputError) as caught:
        load_mappings(knowledge, [own_file(tmp_path, cells)])
    assert f"own.sssom.tsv:{words}" in str(caught.value)


def test_every_bad_row_is_named_at_once(tmp_path, knowledge):
    rows = [("kypho:Fever", "skos:exactMatch", "", f"NOWHERE:{i}", CURATED, "") for i in range(3)]
    with pytest.raises(InputError) as caught:
        load_mappings(knowledge, [own_file(tmp_path, *rows)])
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("subject_id\tobject_id\n", "the header has no license"),
        (HEADER.replace("predicate_id", "relation"), "own.sssom.tsv:7: missing column predicate_id"),
        (HEADER.replace("ontology/ICD10CM/", "x/"), "curie_map ICD10CM"),
        ("", "the header has no mapping_set_id"),
    ],
)
def test_bad_headers_are_named(header, words, tmp_path, knowledge):
    with pytest.raises(InputError) as caught:
        load_mappings(knowledge, [own_file(tmp_path, header=header)])
    assert words in str(caught.value)


def test_missing_file_is_named(tmp_path, knowledge):
    with pytest.raises(InputError, match=r"none\.sssom\.tsv: cannot be read"):
        load_mappings(knowledge, [tmp_path / "none.sssom.tsv"])


def test_broken_bundle_is_an_error_of_the_knowledge_base(tmp_path, knowledge):
    with pytest.raises(KnowledgeBaseError, match=r"systems\.tsv: cannot be read"):
        read_mappings(tmp_path, knowledge)
    (tmp_path / "systems.tsv").write_text("prefix\tname\n", "utf-8")
    with pytest.raises(KnowledgeBaseError, match="missing column aliases, fhir_system"):
        read_mappings(tmp_path, knowledge)
    (tmp_path / "systems.tsv").write_text((FOLDER / "systems.tsv").read_text("utf-8"), "utf-8")
    own_file(tmp_path, ("kypho:Fevre", "skos:exactMatch", "", "LOCAL:F1", CURATED, ""))
    with pytest.raises(KnowledgeBaseError, match="is no term of the ontology"):
        read_mappings(tmp_path, knowledge)


# --------------------------------------------------------------------------------------------------------------------
# Our own terms as codes


def own(code, knowledge, mappings, system="https://w3id.org/kypho"):
    return [(f.feature.name, f.value and local(f.value), f.absent) for f in mappings.facts(code, knowledge, system)]


@pytest.mark.parametrize("system", ["https://w3id.org/kypho", "https://w3id.org/kypho#", "kypho", "KYPHO"])
def test_a_term_is_a_code(system, knowledge, mappings):
    assert own("painNrs", knowledge, mappings, system) == [("painNrs", None, False)]
    assert own("Retropulsion", knowledge, mappings, system) == [("Retropulsion", None, False)]
    assert own("L1", knowledge, mappings, system) == [("vertebralLevel", "L1", False)]
    assert own(f"{system}|L1", knowledge, mappings, "") == [("vertebralLevel", "L1", False)]


def test_every_term_that_a_record_can_state_is_a_code_of_itself_alone(knowledge, mappings):
    for term in (*knowledge.features, *value_owners(knowledge)):
        found = mappings.facts(local(term), knowledge, OWN)
        assert [f.value or f.feature.iri for f in found] == [term]
        assert (found[0].mapping.curie, found[0].ingredient) == (f"{OWN}:{local(term)}", "")


@pytest.mark.parametrize(
    "code", ["painnrs", "PAINNRS", "pain.Nrs", "l1", "VertebralLesion", "PresentPolarity", "", "x"]
)
def test_no_other_name_is_a_code(code, knowledge, mappings):
    assert own(code, knowledge, mappings) == []


def test_a_term_without_its_system_is_no_code(knowledge, mappings):
    assert own("painNrs", knowledge, mappings, "") == own("painNrs", knowledge, mappings, "LOINC") == []


def test_own_answers(mappings):
    said = {
        c: mappings.answer(c, "https://w3id.org/kypho") for c in ("PresentPolarity", "AbsentPolarity", "painNrs", "")
    }
    assert said == {"PresentPolarity": Polarity.PRESENT, "AbsentPolarity": Polarity.ABSENT, "painNrs": None, "": None}
    assert mappings.answer("IndeterminatePolarity", "KYPHO") is Polarity.INDETERMINATE
    assert mappings.answer("absentpolarity", "KYPHO") is None
    assert mappings.answer("AbsentPolarity", "LOINC") is None


def test_no_row_leads_from_a_term_to_itself(mappings):
    assert mappings.search("painNrs", OWN) == mappings.codes("painNrs", OWN) == ()
    assert OWN not in {r.prefix for r in mappings.of_term(iri("painNrs"))}
    assert not [o for _, _, o in mappings.triples() if not isinstance(o, Literal) and o == iri("painNrs")]


def test_the_example_of_the_omop_page(tmp_path, knowledge):
    """Concepts of a site with our own codes say what no vocabulary has a concept for."""
    page = (ROOT / "docs" / "omop.md").read_text("utf-8").partition("## Our own codes")[2]
    concept, observation = (block.partition("```")[0] for block in page.split("```\n")[1:4:2])
    (tmp_path / "concept.csv").write_text(concept, "utf-8")
    (tmp_path / "observation.csv").write_text(observation, "utf-8")
    (tmp_path / "person.csv").write_text("person_id,gender_concept_id,year_of_birth\n17,8532,1950\n", "utf-8")
    report = IntakeReport("cdm")
    (record,) = read_omop(tmp_path, knowledge, report)
    said = {local(f.feature): (f.polarity, f.value) for f in record.facts}
    assert said["MarrowEdemaOnMri"] == (Polarity.PRESENT, None)
    assert said["painTrend"] == (Polarity.PRESENT, frozenset({iri("Worsening")}))
    assert (report.rejected, report.unmapped) == ([], {})


def test_an_own_term_as_an_object_is_refused(tmp_path, knowledge):
    path = own_file(tmp_path, ("kypho:Fever", "skos:exactMatch", "", "kypho:ActiveInfection", CURATED, ""))
    with pytest.raises(
        InputError, match=r"object_id: 'kypho:ActiveInfection' means itself; expected a code of another"
    ):
        load_mappings(knowledge, [path])


# --------------------------------------------------------------------------------------------------------------------
# SPARQL and the command line


def test_queries_on_codes_give_the_same_rows_on_both_engines(knowledge, mappings):
    """On some of the codes: the second engine takes minutes for all."""
    some = [r for r in mappings.rows if r.prefix != "ICD10CM" or r.code.startswith(("S32.01", "M80.08", "M48.56"))]
    codes = list(Mappings(some, mappings.systems.values()).triples())
    store = Store(knowledge.triples, {GRAPH: codes})
    dataset = rdflib.Dataset()
    for graph, triples in ((dataset.graph(rdflib.URIRef(GRAPH)), codes), (dataset, labels(knowledge))):
        for s, p, o in triples:
            value = rdflib.Literal(o.text) if isinstance(o, Literal) else rdflib.URIRef(o)
            graph.add((rdflib.URIRef(s), rdflib.URIRef(p), value))
    texts = [t for t in map(querying.query_text, querying.bundled()) if GRAPH in t]
    assert len(texts) == 2
    for text in texts:
        ours = Counter(
            tuple(sorted(v.text if isinstance(v, Literal) else v for v in row.values())) for row in store.select(text)
        )
        theirs = Counter(tuple(sorted(map(str, row.asdict().values()))) for row in dataset.query(text))
        assert sum(ours.values()) > 5
        assert ours == theirs


def test_phases_of_the_diagnosis_codes(knowledge):
    """Counted over the 552 billable codes but for the 18 of M84."""
    rows = querying.run(knowledge, "diagnosis-codes-by-encounter-phase")
    found = {r["phase"]: (int(r["codes"]), int(r["codesWithLevel"])) for r in rows}
    assert sum(n for n, _ in found.values()) == 552 - 18
    assert found["fracture under active treatment"] == (170, 90)
    assert found["malunion of the fracture"] == (2, 0)


def labels(knowledge):
    """What the queries ask of a term itself, labels without their language."""
    for s, p, o in knowledge.triples:
        if p == LABEL and isinstance(o, Literal):
            yield s, p, Literal(o.text)
        elif o == iri("VertebralLevel"):
            yield s, p, o


def test_codes_of_a_term_by_query(knowledge):
    rows = querying.run(knowledge, "codes-of-a-term")
    found = {(r["match"], r["system"], r["code"]) for r in rows if r["term"] == "WarfarinTherapy"}
    assert found == {
        ("exact", "http://www.nlm.nih.gov/research/umls/rxnorm", "11289"),
        ("exact", "http://www.whocc.no/atc", "B01AA03"),
    }


def test_mappings_stay_out_of_other_queries(knowledge, mappings):
    assert querying.mapping_graph(knowledge, querying.query_text("features")) == {}
    assert len(list(mappings.triples())) > 3 * 1000
    objects = {o for s, p, o in mappings.triples() if p == SKOS + "closeMatch"}
    assert objects.isdisjoint(o for _, _, o in knowledge.triples)


def run(*arguments, code=0):
    done = CliRunner().invoke(app, ["ontology", "find", *arguments])
    assert done.exit_code == code, done.output
    return done.stdout


def asked(*arguments):
    return json.loads(run(*arguments, "--format", "json"))


@pytest.mark.parametrize("text", ["M80.08XA", "ICD10CM:M80.08XA", "M8008XA"])
def test_find_by_code(text):
    answer = asked(text)
    assert {"feature": "FractureUnderActiveTreatment", "bearer": "VertebralLesion", "value": None,
            "code": "ICD10CM:M80.08XA"} in answer["states"]  # fmt: skip
    [term] = [t for t in answer["terms"] if t["term"] == "FractureLesion"]
    assert (term["kind"], term["value_of"], term["bearer"]) == ("value", ["lesionKind"], "VertebralLesion")
    assert [c["assigns"] for c in term["found_by"]] == [True]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("haemoglobin", "haemoglobin"),
        ("hemoglobin", "haemoglobin"),
        ("painNrs", "painNrs"),
        ("pain nrs", "painNrs"),
        ("marrow edema", "MarrowEdemaOnMri"),
        ("osteitis deformans", "PagetDiseaseOfBone"),
        ("KNOWN malignancy", "KnownMalignancy"),
        ("warf", "WarfarinTherapy"),
        ("72514-3", "painNrs"),
    ],
)
def test_find_by_words(text, first):
    assert asked(text)["terms"][0]["term"] == first


def test_found_quantity_is_described(knowledge):
    term = asked("72514-3")["terms"][0]
    assert term["unit"] == "{score}"
    assert term["definition"] == knowledge.triples.text(iri("painNrs"), DEFINITION)
    page = run("72514-3")
    assert "painNrs: as recorded (VertebralLesion)" in page
    assert "exact  LOINC:72514-3" in page


def test_found_trap_states_nothing():
    page = run("R29.890")
    assert "states nothing by itself" in page
    assert "not narrow" in page


def test_long_answers_are_cut():
    page = run("FractureLesion")
    assert "more codes; --format json has all" in page
    assert re.search(r"^and \d+ more: ", run("fracture"), re.MULTILINE)
    assert len(asked("FractureLesion")["terms"][0]["codes"]) > 500


def test_find_names_the_nearest(knowledge, mappings):
    assert run("warfrin", code=1) == ""  # the exception leaves Typer; main() makes it exit code 2
    with pytest.raises(UsageError, match="nothing found for 'warfrin'; nearest: WarfarinTherapy"):
        find(knowledge, mappings, "warfrin")
    for nothing in ("", "?", "zzzzzzzzzz"):
        with pytest.raises(UsageError, match="nothing found"):
            find(knowledge, mappings, nothing)


def test_find_with_a_file_of_ones_own(tmp_path):
    path = own_file(tmp_path, ("kypho:Fever", "skos:exactMatch", "", "LOCAL:F1", CURATED, "0.9"))
    assert asked("LOCAL:F1", "--mappings", str(path))["states"][0]["feature"] == "Fever"
