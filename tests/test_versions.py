"""Guidelines side by side, two versions of one, the policies in force, and the summary over all."""

from __future__ import annotations

import io
import json
from datetime import date
from pathlib import Path

import pytest
from builders import EXAMPLES, ROOT, fact, record, session
from rich.console import Console
from test_cli import kypho  # noqa: F401 - a fixture
from test_disagreement import MEDICARE, changed
from test_vignettes import patient_file
from typer.testing import CliRunner

from kypho_kg import catalogue
from kypho_kg.applicability import Place, payers_of
from kypho_kg.candidacy import assess
from kypho_kg.cli import app
from kypho_kg.comparison import Change, canonical, compare, diff
from kypho_kg.inference import infer
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Procedure, TimeSpan
from kypho_kg.summary import print_counts, print_summary
from kypho_kg.vocabulary import local

PATIENTS = sorted((EXAMPLES / "constructed").glob("*.yaml"))[:6]


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.stdout


# -- two guidelines


def test_comparison_puts_limits_side_by_side(knowledge: Knowledge) -> None:
    found = compare(knowledge, knowledge.guideline("cms-l34228"), knowledge.guideline("evicore-cmm-607"))
    rows = {local(r.feature): r for r in found.rows}
    pain = rows["painNrs"]
    assert {u.asked for u in pain.left} == {">= 8", ">= 5"}
    assert {u.asked for u in pain.right} == {">= 7"}
    assert not pain.same
    assert {u.asked for u in rows["sessionLevelCount"].left} == {"> 3"}
    assert "> 2" in {u.asked for u in rows["sessionLevelCount"].right}
    both = [bool(r.left) and bool(r.right) for r in found.rows]
    assert both == sorted(both, reverse=True)  # what both read comes first


def test_comparison_finds_equal_conditions_with_other_effects(knowledge: Knowledge) -> None:
    found = compare(knowledge, knowledge.guideline("cms-l34228"), knowledge.guideline("cms-l38213"))
    pairs = {(a.id, b.id): (a.effect, b.effect) for a, b in found.equal}
    effects = pairs["cms-l34228/LCD-A3", "cms-l38213/LCD-L38213-R1"]
    assert effects == ("ContraindicatesAbsolutely", "ContraindicatesRelatively")


def test_compare_names_the_patients_that_flip_and_the_clauses() -> None:
    files = [EXAMPLES / "constructed" / "t4-outpatient.yaml", EXAMPLES / "constructed" / "pregnant.yaml"]
    told = json.loads(run("guidelines", "compare", "cms-l34228", "evicore-cmm-607", *files, "--format", "json"))
    flips = {f["patient"]: f for f in told["flips"]}
    assert (flips["t4-outpatient"]["left"], flips["t4-outpatient"]["right"]) == ("Candidate", "NotIndicated")
    assert "evicore-cmm-607/EVI-L2" in {c["id"] for c in flips["t4-outpatient"]["clauses"]}
    text = run("guidelines", "compare", "cms-l34228", "evicore-cmm-607", *files)
    assert "pain (NRS)" in text
    assert "of the cases of 2 files differ" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("compare", "cms-l34228", "nonsense"), 2, "nonsense"),
        (("diff", "cms-l34228", "missing.ttl"), 2, "no such file"),
        (("compare", "cms-l34228", "cms-l38201", "missing.yaml"), 3, "missing.yaml"),
        (("compare", "cms-l34228", "cms-l38201", PATIENTS[0], "--as-of", "soon"), 2, "YYYY-MM-DD"),
        (("show", "nonsense"), 2, "nonsense"),
    ],
)
def test_wrong_calls_are_answered_in_a_line(kypho, arguments, code, words) -> None:  # noqa: F811
    result = kypho("guidelines", *map(str, arguments))
    assert result.code == code
    assert words in result.err
    assert "Traceback" not in result.err


# -- two versions


def test_what_became_of_each_variant(knowledge: Knowledge) -> None:
    changes = diff(knowledge.guideline("acr-vcf-2018"), knowledge.guideline("acr-vcf-2022"))
    told = {(c.old.clause if c.old else None, c.new.clause if c.new else None): c for c in changes}
    renumbered = told["ACR18-V4", "ACR22-V2"]
    assert renumbered.kind is Change.CHANGED
    assert {"condition", "ratings"} <= set(renumbered.fields)
    assert told[None, "ACR22-V5"].kind is Change.ADDED
    assert told["ACR18-V8", None].kind is Change.REMOVED


def test_a_version_against_itself_is_the_same(knowledge: Knowledge) -> None:
    for g in knowledge.guidelines.values():
        assert {c.kind for c in diff(g, g)} == {Change.SAME}


def test_diff_of_an_edited_file_names_the_clause_and_who_flips(tmp_path: Path) -> None:
    text = (ROOT / "ontology" / "guidelines" / "cms-l34228.ttl").read_text("utf-8")
    edited = tmp_path / "cms-l34228.ttl"
    assert text.count("xsd:maxInclusive 12.0") == 1
    edited.write_text(text.replace("xsd:maxInclusive 12.0", "xsd:maxInclusive 4.0"), "utf-8")
    file = EXAMPLES / "constructed" / "t4-outpatient.yaml"
    told = json.loads(run("guidelines", "diff", "cms-l34228", edited, file, "--format", "json"))
    changed_ = [c for c in told["clauses"] if c["kind"] != "same"]
    assert [(c["new"], c["fields"]) for c in changed_] == [("cms-l34228/LCD-I1", ["condition"])]
    [flip] = told["flips"]
    assert (flip["left"], flip["right"]) == ("Candidate", "NotIndicated")
    assert [c["id"] for c in flip["clauses"] if c["truth"] == "not met"] == ["cms-l34228/LCD-I1"]
    words = run("guidelines", "diff", "cms-l34228", edited, file)
    assert "- " in words
    assert "<= 4 wk" in words
    assert "21 clauses are the same" in words


def test_an_edited_file_that_is_broken_is_told_with_its_clause(kypho, tmp_path) -> None:  # noqa: F811
    text = (ROOT / "ontology" / "guidelines" / "cms-l34228.ttl").read_text("utf-8")
    edited = tmp_path / "edited.ttl"
    edited.write_text(text.replace("xsd:maxInclusive 12.0", 'xsd:maxInclusive "12"^^xsd:double'), "utf-8")
    result = kypho("guidelines", "diff", "cms-l34228", str(edited))
    assert result.code == 4
    assert "weeksSinceOnset" in result.err
    edited.write_text("not turtle", "utf-8")
    result = kypho("guidelines", "diff", "cms-l34228", str(edited))
    assert result.code in {3, 4}
    assert "edited.ttl" in result.err
    assert "Traceback" not in result.err


def test_equal_conditions_are_equal_in_any_order(knowledge: Knowledge) -> None:
    a = knowledge.guideline("cms-l34106").by_clause("LCD-I2")
    b = knowledge.guideline("cms-l33569").by_clause("LCD-I2")
    assert a is not None
    assert b is not None
    assert canonical(a.criterion) == canonical(b.criterion)


# -- which sources are asked


def chosen(knowledge: Knowledge, procedure: Procedure | None, *facts, state=None, payer=None, day=date(2026, 3, 2)):
    snapshot = infer(record(*facts, procedure=procedure, as_of=day), knowledge, day, bridges=())
    return {g.id for g in Place(snapshot, state, payers_of(snapshot, payer)).default()}


def medicare(states: str, **more) -> Procedure:
    return session("a", state=states, **more)


@pytest.mark.parametrize(
    ("state", "policies"),
    [
        ("CA", {"cms-l34228"}), ("WA", {"cms-l34106", "cms-wiser-2026"}), ("IL", {"cms-l33569"}),
        ("FL", {"cms-l34976"}),
        ("TX", {"cms-l35130", "cms-wiser-2026"}), ("OH", {"cms-l38201", "cms-wiser-2026"}), ("IA", {"cms-l38213"}),
        ("GA", {"cms-l38737"}), ("PR", {"cms-l34976"}),
    ],
)  # fmt: skip
def test_the_state_picks_the_contractor(knowledge: Knowledge, state: str, policies: set[str]) -> None:
    outpatient = fact("placeOfService", "HospitalOutpatient")
    found = chosen(knowledge, medicare(state), outpatient, payer="Medicare")
    assert {g for g in found if knowledge.guideline(g).is_policy} == policies


def test_a_state_on_the_command_line_goes_before_that_of_the_file(knowledge: Knowledge) -> None:
    found = chosen(knowledge, medicare("CA"), state="OH", payer="Medicare")
    assert "cms-l38201" in found
    assert "cms-l34228" not in found


def test_the_day_of_service_picks_the_version(knowledge: Knowledge) -> None:
    early = medicare("IL", service_date=TimeSpan.parse("2019-05-01"))
    late = medicare("IL", service_date=TimeSpan.parse("2024-05-01"))
    assert "cms-l33569" not in chosen(knowledge, early, payer="Medicare")
    assert "cms-l33569" in chosen(knowledge, late, payer="Medicare")
    partly = medicare("IL", service_date=TimeSpan.parse("2020"))  # began in December of that year
    assert "cms-l33569" in chosen(knowledge, partly, payer="Medicare")


def test_a_withdrawn_source_is_asked_only_for_its_time(knowledge: Knowledge) -> None:
    assert "nice-cg75-2008" not in chosen(knowledge, None)
    assert "nice-cg75-2008" in chosen(knowledge, None, day=date(2015, 6, 1))


def test_only_the_newest_version_is_asked(knowledge: Knowledge) -> None:
    found = chosen(knowledge, None)
    assert "acr-vcf-2022" in found
    assert not {"acr-vcf-2013", "acr-vcf-2018", "sir-coagulation-2012"} & found


def test_a_source_that_rests_on_an_unread_clause_is_not_asked_unless_it_binds(knowledge: Knowledge) -> None:
    unread = {g.id for g in knowledge.guidelines.values() if g.rests_on_unverified}
    assert {"cirse-2017", "dvo-2017", "nccn-pain", "cms-l35130"} <= unread
    assert not unread & chosen(knowledge, None)
    assert unread & chosen(knowledge, medicare("TX"), payer="Medicare") == {"cms-l35130"}


@pytest.mark.parametrize(
    ("payer", "policies"),
    [
        ("Aetna", {"aetna-cpb-0016", "evicore-cmm-607"}),
        ("BlueCrossBlueShieldOfAlabama", {"bcbs-al-mp-004", "bcbsa-6-01-38", "evicore-cmm-607"}),
        ("NationalHealthService", {"nhs-ebi-vertebral-augmentation", "nhs-hny-2025"}),
        ("AustralianMedicare", {"msac-1466-2016"}),
    ],
)
def test_a_payer_brings_the_policies_of_its_kind(knowledge: Knowledge, payer: str, policies: set[str]) -> None:
    found = chosen(knowledge, session("a"), payer=payer)
    assert {g for g in found if knowledge.guideline(g).payers} == policies


def test_a_payer_named_by_its_kind_may_be_any_of_them(knowledge: Knowledge) -> None:
    day = date(2026, 3, 2)
    snapshot = infer(record(procedure=session("a"), as_of=day), knowledge, day, bridges=())
    place = Place(snapshot, None, payers_of(snapshot, "CommercialPayer"))
    assert place.in_force(knowledge.guideline("evicore-cmm-607")) is True
    assert place.in_force(knowledge.guideline("aetna-cpb-0016")) is None
    assert place.in_force(knowledge.guideline("nhs-hny-2025")) is False


def test_the_place_of_service_decides_on_prior_authorization(knowledge: Knowledge) -> None:
    inpatient, outpatient = (fact("placeOfService", p) for p in ("HospitalInpatient", "HospitalOutpatient"))
    assert "cms-wiser-2026" not in chosen(knowledge, medicare("OH"), inpatient, payer="Medicare")
    assert "cms-wiser-2026" in chosen(knowledge, medicare("OH"), outpatient, payer="Medicare")
    before = chosen(knowledge, medicare("OH"), outpatient, payer="Medicare", day=date(2025, 12, 1))
    assert "cms-wiser-2026" not in before


def test_a_named_version_that_is_not_in_force_runs_and_says_so(knowledge: Knowledge) -> None:
    answer = assess(record(procedure=session("a")), knowledge=knowledge, guidelines=["nice-cg75-2008"], validate=False)
    assert answer.cases[0].assessments[0].in_force is False


# -- the summary


@pytest.fixture(scope="module")
def two_lesions(tmp_path_factory, knowledge):
    file = EXAMPLES / "constructed" / "two-levels-one-session.yaml"
    from kypho_kg.intake import read_patient_file

    return assess(read_patient_file(file, knowledge), knowledge=knowledge, guidelines=["all"], validate=False)


def printed(what, *arguments) -> str:
    console = Console(width=200, record=True, no_color=True, file=io.StringIO())
    what(console, *arguments)
    return console.export_text()


def test_the_summary_groups_by_layer_and_gives_each_no_its_reason(knowledge, two_lesions) -> None:
    text = printed(print_summary, two_lesions)
    places = [text.index(knowledge.plain(layer).upper()) for layer in knowledge.layers]
    assert places == sorted(places)
    for case in two_lesions.cases:
        assert f"{case.lesion.id} (" in text
    refused = [a for c in two_lesions.cases for a in c.assessments if a.verdict in {"NotIndicated", "Contraindicated"}]
    assert refused
    assert "missing: " in text
    assert "Bridges used: " in text
    for a in refused:
        row = next(line for line in text.splitlines() if f" {a.guideline.id} " in line)
        assert ": met [" in row or ": not met [" in row or a.guideline.id in row


def test_every_source_is_in_the_summary(two_lesions) -> None:
    text = printed(print_summary, two_lesions)
    assert [a.guideline.id for a in two_lesions.cases[0].assessments if a.guideline.id not in text] == []


def test_many_lesions_are_counted_by_layer(knowledge, two_lesions) -> None:
    text = printed(print_counts, [two_lesions])
    assert "coverage" in text.lower()
    assert text.count("two-levels-one-session") == len(two_lesions.cases)


def test_the_answer_tells_the_verdict_without_bridges(knowledge, tmp_path) -> None:
    path = tmp_path / "patient.json"
    base = changed(MEDICARE, lesion={"PainPrimarilyFromFracture": None, "painNrs": 6})
    path.write_text(json.dumps(patient_file(base, {}), default=str), "utf-8")
    [case] = json.loads(run("assess", path, "-g", "isass-2018", "--format", "json"))["cases"]
    [a] = case["assessments"]
    assert a["verdict"] == "Candidate"
    assert "pain-score-symptomatic" in a["bridges"]
    assert a["without_bridges"]["verdict"] == "Undetermined"
    [case] = json.loads(run("assess", path, "-g", "isass-2018", "--no-bridge", "--format", "json"))["cases"]
    assert case["assessments"][0]["verdict"] == "Undetermined"


# -- list and show


def test_the_list_is_in_layers_and_whole(knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    text = run("guidelines", "list")
    told = json.loads(run("guidelines", "list", "--format", "json"))
    assert {g["id"] for g in told} == set(knowledge.guidelines)
    assert [layer for layer in knowledge.layers if knowledge.plain(layer).upper() not in text] == []


@pytest.mark.parametrize("layer", ["CoveragePolicy", "TrialEligibility", "AppropriatenessRating", "DeviceLabel"])
def test_a_checklist_has_every_clause_its_condition_and_its_mark(knowledge: Knowledge, layer: str) -> None:
    for g in [g for g in knowledge.guidelines.values() if g.layer == layer][:4]:
        console = Console(width=10_000, record=True, no_color=True, file=io.StringIO())
        catalogue.print_guideline(console, knowledge, g)
        text = console.export_text()
        for r in g.recommendations:
            assert f"[ ] {r.clause}: {r.text}" in text
            assert knowledge.plain("https://w3id.org/kypho#" + r.mark) in text
            for x in r.ratings:
                assert x.label in text
        assert g.use in text
        assert g.misuse in text
