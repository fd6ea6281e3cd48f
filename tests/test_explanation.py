"""Reasons, near misses, what nobody read, what to get next, who disagrees: and each proof, checked."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pyoxigraph as ox
import pytest
from builders import EXAMPLES, TODAY, between, changed, clause, example, fact, iri, record, session, unknown
from jsonschema import Draft202012Validator
from strategies import by_random, draw_record
from typer.testing import CliRunner

from kypho_kg import cubes, narrative
from kypho_kg.candidacy import ClauseResult, assess
from kypho_kg.case_graph import case_graphs
from kypho_kg.checking import check
from kypho_kg.cli import app
from kypho_kg.disagreement import Side
from kypho_kg.evaluation import Truth
from kypho_kg.explanation import explain
from kypho_kg.intake import read_records
from kypho_kg.missing import missing
from kypho_kg.next_steps import fragment
from kypho_kg.reasons import Standing, near_misses, reasons_of, standing, unread_facts, untouched_clauses
from kypho_kg.record import Cause, Mood
from kypho_kg.report import case_json
from kypho_kg.snapshot import resolve
from kypho_kg.store import serialized
from kypho_kg.verdicts import RULES
from kypho_kg.vocabulary import local

FILES = sorted(p for folder in ("constructed", "published") for p in (EXAMPLES / folder).glob("*.yaml"))
RUNNER = CliRunner()


def explained(of, *guidelines, **more):
    return explain(assess(of, guidelines=guidelines or None, validate=False, **more))[0]


def run(*args):
    return RUNNER.invoke(app, [str(a) for a in args])


# -- reasons


def sets(of, id_):
    proof = clause(of, id_)
    snapshot = explained(of, id_.partition("/")[0]).case.snapshot
    a = explained(of, id_.partition("/")[0]).case.assessments[0]
    row = next(c for c in a.clauses if c.recommendation.id == id_)
    assert row.truth is proof.truth
    return {frozenset(local(f.feature) for f in r) for r in reasons_of(snapshot, row).sets}


def test_every_independent_reason_not_the_first():
    """Oedema on MRI and uptake on bone scan are each enough."""
    of = changed(example("constructed/t4-outpatient"), fact("UptakeOnBoneScan", time="2026-02-20"))
    found = sets(of, "cms-l34228/LCD-I1")
    assert len(found) == 2
    assert {s & {"MarrowEdemaOnMri", "UptakeOnBoneScan"} for s in found} == {
        frozenset({"MarrowEdemaOnMri"}), frozenset({"UptakeOnBoneScan"}),
    }  # fmt: skip


def test_each_finding_that_supports_a_class_is_a_reason():
    of = record(fact("VertebralOsteomyelitis"), fact("Discitis"), fact("Septicaemia"))
    assert {"VertebralOsteomyelitis"} in sets(of, "cms-l34228/LCD-A2")
    assert all(len(s) == 1 for s in sets(of, "cms-l34228/LCD-A2"))
    assert len(sets(of, "cms-l34228/LCD-A2")) == 3


def test_a_refusal_needs_each_alternative_refused():
    of = record(fact("MarrowEdemaOnMri", "absent"), fact("UptakeOnBoneScan", "absent"), fact("weeksSinceOnset", 3))
    assert sets(of, "cms-l34228/LCD-I1") == {frozenset({"MarrowEdemaOnMri", "UptakeOnBoneScan"})}


def test_no_reason_while_it_is_unknown(knowledge):
    a = explained(record(), "cms-l34228").case.assessments[0]
    snapshot = resolve(record(), knowledge, TODAY)
    assert {reasons_of(snapshot, c).sets for c in a.clauses if c.truth is Truth.UNKNOWN} == {()}


@pytest.mark.parametrize(
    ("value", "distance"),
    [(between(4, "4.9"), "-0.1"), (4, -1), (between(2, 5, high_open=True), 0), (3, None), (between(1, 2), None)],
)
def test_near_misses_of_numbers_and_ranges(value, distance):
    """Within a quarter of the limit; further off is no near miss."""
    proof = clause(record(fact("painNrs", value), fact("hospitalStatus", "NotHospitalised")), "cms-l34228/LCD-I2")
    found = {str(leaf.distance) for leaf in near_misses(proof) if leaf.criterion.range == between(5)}
    assert found == ({str(distance)} if distance is not None else set())


def test_standing(knowledge):
    """Asserted, derived, bridged, assumed."""
    of = record(fact("inr", 3), fact("sex", "Male"), fact("ProblemListDocumented"), lesions=("a",), procedure=session())
    answer = assess(of, guidelines=["cms-l34228"], assume=["problem-list"], validate=False)
    facts = {
        f
        for c in answer.cases
        for a in c.assessments
        for r in a.clauses
        for leaf in r.proof.leaves()
        for f in leaf.facts
    }
    told = {(local(f.feature), standing(knowledge, f)) for f in facts}
    assert ("UncorrectedCoagulopathy", Standing.BRIDGED) in told
    assert ("Pregnancy", Standing.DERIVED) in told
    assert all(standing(knowledge, f) is Standing.ASSUMED for f in answer.cases[0].assessments[0].assumed.assumptions)
    assert standing(knowledge, of.facts[0]) is Standing.ASSERTED


def test_what_nobody_read_and_what_matched_nothing():
    of = record(fact("painNrs", 8), fact("Hypothyroidism"), fact("inr", 1, "2020-01-01"), fact("Fever", mood="planned"))
    e = explained(of, "cms-l34228")
    assert [local(f.feature) for f in e.unread] == ["Fever", "Hypothyroidism"]
    silent = {c.recommendation.clause for c in untouched_clauses(e.case.assessments[0])}
    assert "LCD-A1" in silent
    assert "LCD-I2" not in silent
    assert unread_facts(e.case) == e.unread


# -- proofs, checked


@pytest.mark.parametrize("part", range(4))
def test_every_proof_of_every_example_checks(knowledge, part):
    records, problems = read_records(FILES[part::8], knowledge)
    assert not problems
    checked = check([assess(r, knowledge=knowledge, guidelines=["all"], assume=["problem-list"]) for r in records])
    assert checked.faults == ()
    assert checked.reasons > 100 * len(records)


@pytest.mark.slow
def test_every_proof_of_all_examples_checks(knowledge):
    records, _ = read_records(FILES, knowledge)
    assert check([assess(r, knowledge=knowledge, guidelines=["all"]) for r in records]).faults == ()


def test_proofs_of_random_cases_check(knowledge):
    answers = [
        assess(draw_record(by_random(seed), knowledge), knowledge=knowledge, guidelines=["all"], validate=False)
        for seed in range(25)
    ]
    checked = check(answers)
    assert checked.faults == ()
    assert checked.reasons >= checked.clauses > 500


def test_a_wrong_proof_is_found(knowledge, monkeypatch):
    """The checker is no echo: a truth that is turned around is refused, and the command fails."""
    answer = assess(example("constructed/t4-outpatient"), guidelines=["cms-l34228"], validate=False)
    case = answer.cases[0]
    a = case.assessments[0]
    turned = [
        ClauseResult(c.recommendation, replace(c.proof, truth=Truth(2 - c.truth), children=c.proof.children))
        for c in a.clauses
        if c.truth is not Truth.UNKNOWN
    ]
    wrong = replace(answer, cases=(replace(case, assessments=(replace(a, clauses=tuple(turned)),)),))
    assert len(check([wrong]).faults) >= len(turned) / 2
    monkeypatch.setattr("kypho_kg.checking.faults", lambda *_: ["no"])
    result = run("assess", EXAMPLES / "constructed" / "t4-outpatient.yaml", "-g", "cms-l34228", "--check")
    assert result.exit_code != 0


# -- the rules as data


def test_the_rules_are_those_of_the_query():
    """The same table as docs/verdicts.md, which another test holds to the query."""
    import test_verdicts

    words = {"met": Truth.MET, "not met": Truth.NOT_MET}
    rows = test_verdicts.rules()
    effect = test_verdicts.EFFECT
    for combination in test_verdicts.COMBINATIONS:
        truths = {
            effect[g]: "met" if c == "none" else c for g, c in zip(test_verdicts.GROUPS, combination, strict=True)
        }
        fits = (v for v, parts in RULES if all(words.get(truths[e]) is t for e, t in parts.items()))
        assert next(fits, "Undetermined") == test_verdicts.by_table(combination), combination
    assert rows


# -- what is missing, what next


def test_too_many_combinations_are_owned_up_to(monkeypatch):
    """Beyond the bound the sets are still right, and the answer says that some may be left out."""
    of = record(fact("primaryEtiology", "PrimaryOsteoporosis"))
    whole = missing(*_case(of, "cms-l34228"))
    monkeypatch.setattr(cubes, "LARGEST", 6)
    some = missing(*_case(of, "cms-l34228"))
    assert (whole.exact, some.exact) == (True, False)
    known = {p.features for p in whole.possible}
    assert {p.features for p in some.possible} <= known
    text = "\n".join(s.lead for s in narrative.narrate(explained(of, "cms-l34228"), _case(of, "cms-l34228")[1]))
    assert "left out" in text


def _case(of, guideline):
    e = explained(of, guideline)
    return e.case, e.case.assessments[0]


def test_a_band_that_the_source_leaves_open_is_named():
    case, a = _case(example("published/ost-02"), "cms-l34228")
    assert [local(b) for b in missing(case, a).bands] == ["cms-l34228/LCD-I2-Condition"]


def test_where_the_source_alone_leaves_it_open_nothing_is_missing():
    """Whether observation counts as being in hospital is not said; no fact settles that."""
    case, a = _case(example("constructed/observation-stay"), "cms-l34228")
    found = missing(case, a)
    assert (found.decisive, found.possible, found.reachable) == ((), (), ("Undetermined",))
    assert [local(b) for b in found.bands] == ["cms-l34228/LCD-I2-Condition"]


def test_next_steps_rank_by_what_they_settle_and_by_burden():
    steps = explained(example("published/ost-02")).steps
    worth = [s.worth for s in steps]
    assert worth == sorted(worth, reverse=True)
    assert steps[0].feature.name == "painNrs"
    assert steps[0].feature.burden == 1
    mri = next(s for s in steps if s.feature.name == "MarrowEdemaOnMri")
    assert steps.index(mri) > steps.index(steps[0])


def test_what_cannot_be_assessed_has_alternatives():
    of = changed(example("constructed/pacemaker-bone-scan"), without=["UptakeOnBoneScan"])
    e = explained(of, "cms-l34228")
    assert "MarrowEdemaOnMri" not in {s.feature.name for s in e.steps}
    row = next(u for u in e.unobtainable if u.feature.name == "MarrowEdemaOnMri")
    assert row.reason == "pacemaker"
    assert "UptakeOnBoneScan" in {local(f) for _, f in row.instead}


def test_the_form_goes_out_and_comes_back(tmp_path):
    """The form has just the fields in question; blank ones say nothing, filled ones settle the verdict."""
    patient = EXAMPLES / "published" / "ost-02.yaml"
    form = tmp_path / "form.yaml"
    asked = ("next", patient, "--lesion", "t12", "-g", "cms-l34228", "--form", form, "--most", "40")
    assert run(*asked).exit_code == 0
    text = form.read_text("utf-8")
    assert "painNrs:  # history taking: pain from 0 to 10" in text
    blank = run("assess", patient, "-g", "cms-l34228", "--with", form, "--format", "json")
    assert "needs author and reason" in str(blank.exception)
    form.write_text(text.replace("author:  #", "author: A. Nurse  #"), "utf-8")
    unfilled = json.loads(run("assess", patient, "-g", "cms-l34228", "--with", form, "--format", "json").stdout)
    assert unfilled["cases"][0]["assessments"][0]["verdict"] == "Undetermined"
    form.write_text(form.read_text("utf-8").replace("Pregnancy:  #", "Pregnancy: present  #"), "utf-8")
    filled = json.loads(run("assess", patient, "-g", "cms-l34228", "--with", form, "--format", "json").stdout)
    assert filled["cases"][0]["assessments"][0]["verdict"] == "Contraindicated"


def test_a_form_for_everything_can_be_read(knowledge, tmp_path):
    """Every feature of every example finds its place in the form."""
    for path in FILES[::9]:
        records, _ = read_records([path], knowledge)
        for e in explain(assess(records[0], knowledge=knowledge, validate=False)):
            text = fragment(e.case, e.steps).replace("author:  #", "author: me  #")
            (tmp_path / "form.yaml").write_text(text, "utf-8")
            again, problems = read_records([path], knowledge, [tmp_path / "form.yaml"])
            assert problems == []
            assert again[0].facts == records[0].facts


# -- disagreement


def test_who_disagrees_and_on_what():
    found = explained(example("constructed/cord-compression-metastasis")).disagreement
    sides = {c.side: {m.assessment.guideline.id for m in c.members} for c in found.clusters}
    assert "cms-l38201" in sides[Side.YES]
    assert "seed-guidelines" in sides[Side.NO]
    refusing = next(c for c in found.clusters if c.side is Side.NO)
    assert all(m.clauses or m.any_of for m in refusing.members)
    for m in refusing.members:
        assert not m.features or m.features & set(found.separating)
    for feature in found.separating:
        rest = set(found.separating) - {feature}
        assert any(m.features and not m.features & rest for m in refusing.members)


def test_agreement_separates_nothing():
    found = explained(record(), "cms-l34228").disagreement
    assert found.separating == ()


# -- forms


def test_rdf_forms_hold_the_same_triples(knowledge):
    answers = [assess(example("published/neo-02"), validate=False)]
    graphs = case_graphs(answers)
    trig, turtle = (serialized(graphs, apart=apart) for apart in (True, False))
    quads = set(ox.parse(trig, format=ox.RdfFormat.TRIG))
    assert {q.graph_name.value for q in quads} == set(graphs)
    assert {q.triple for q in quads} == {q.triple for q in ox.parse(turtle, format=ox.RdfFormat.TURTLE)}
    assert serialized(case_graphs(answers), apart=True) == trig
    assert "kypho:hasReason" in trig


def test_markdown_and_terminal_tell_the_same():
    path = EXAMPLES / "constructed" / "t4-outpatient.yaml"
    table = run("explain", path, "-g", "cms-l34228").output
    document = run("explain", path, "-g", "cms-l34228", "--format", "md").output
    for title in ("Clauses", "What would change the verdict"):
        assert title in table
        assert f"## {title}" in document
    assert "\\[" in document or "[met]" in document


def test_causes_of_unknown_say_what_to_do(knowledge):
    for cause in Cause:
        assert knowledge.triples.text(iri(cause), iri("advice")), cause


def test_a_cause_is_told_with_its_advice():
    of = record(fact("primaryEtiology", "PrimaryOsteoporosis"), unknown("MarrowEdemaOnMri", reason="blurred"))
    e = explained(of, "cms-l34228")
    sections = {s.title: s for s in narrative.narrate(e, e.case.assessments[0])}
    row = next(n for n in sections["What is missing"].nodes if "oedema" in n.text)
    assert any("clarified or repeated" in note for note in row.notes)


def test_timeline_and_two_dates():
    path = EXAMPLES / "constructed" / "stale-visit.yaml"
    assert run("timeline", path, "-g", "cms-l34228").exit_code == 0
    rows = json.loads(run("timeline", path, "-g", "cms-l34228", "--format", "json").stdout)
    assert rows[0]["turns"]
    assert "two dates" in str(run("timeline", path, "--compare").exception)
    both = [EXAMPLES / "constructed" / n for n in ("stale-visit.yaml", "pregnant.yaml")]
    assert "one patient" in str(run("timeline", *both).exception)


def test_orders_are_shown_as_pending():
    of = record(fact("MarrowEdemaOnMri", mood=Mood.ORDERED), fact("primaryEtiology", "PrimaryOsteoporosis"))
    e = explained(of, "cms-l34228")
    step = next(s for s in e.steps if s.feature.name == "MarrowEdemaOnMri")
    assert step.causes == (Cause.PENDING,)


def test_a_file_that_is_not_there():
    result = run("next", Path("nowhere.yaml"))
    assert (result.exit_code, result.stdout) == (3, "")


@pytest.mark.parametrize("name", ["published/ost-02", "constructed/t4-outpatient", "constructed/seven-weeks-old"])
def test_a_whole_explanation_conforms_to_the_schema(name):
    """With what would flip each verdict, and every possible set."""
    schema = json.loads((files("kypho_kg") / "schemas" / "assessment.schema.json").read_text("utf-8"))
    validator = Draft202012Validator({"$ref": "#/$defs/case", "$defs": schema["$defs"]})
    for e in explain(assess(example(name), guidelines=["cms-l34228", "evicore-cmm-607"], validate=False)):
        data = json.loads(json.dumps(case_json(e, whole=True), allow_nan=False))
        assert [error.message for error in validator.iter_errors(data)] == []
        assert all("flips" in a for a in data["assessments"])
