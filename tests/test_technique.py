"""The module of techniques and alternatives: orders without gaps, statements with sources, answers to questions."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
import rdflib
from rdflib import RDF, RDFS, Namespace, URIRef

from kypho_kg import querying

ONTOLOGY = Path(__file__).resolve().parent.parent / "ontology"
KYPHO = Namespace("https://w3id.org/kypho#")
SOURCE = URIRef("http://purl.org/dc/terms/source")
DESCRIBED = {
    "BalloonKyphoplasty",
    "BalloonKyphoplastyWithStent",
    "ImplantAugmentation",
    "RadiofrequencyKyphoplasty",
    "Sacroplasty",
    "Vertebroplasty",
}
STATEMENTS = ("PreferenceStatement", "TechniqueAdvice", "FollowUpDuty", "DeviceClearance")


@pytest.fixture(scope="module")
def graph():
    """The module with the one whose techniques it describes."""
    merged = rdflib.Graph().parse(ONTOLOGY / "modules" / "technique.ttl")
    return merged.parse(ONTOLOGY / "modules" / "procedure.ttl")


def local(term):
    return str(term).removeprefix(str(KYPHO))


def members(graph, cls):
    """The individuals of a class and of its subclasses."""
    return {s for c in graph.transitive_subjects(RDFS.subClassOf, KYPHO[cls]) for s in graph.subjects(RDF.type, c)}


def order_faults(graph, technique):
    """What breaks the order of the steps of a technique."""
    numbers = {s: int(n) for s in graph.subjects(KYPHO.stepOf, technique) for n in graph.objects(s, KYPHO.stepNumber)}
    ordered = sorted(numbers, key=lambda s: numbers[s])
    faults = [] if sorted(numbers.values()) == list(range(1, len(numbers) + 1)) else ["numbers are not 1, 2, 3, ..."]
    for step, following in zip(ordered, [*ordered[1:], None], strict=True):
        if list(graph.objects(step, KYPHO.precedes)) != ([following] if following else []):
            faults.append(f"{local(step)} precedes the wrong step")
    return faults


def test_every_technique_is_described(graph):
    assert {local(t) for t in graph.subjects(RDF.type, KYPHO.Technique)} == DESCRIBED
    assert {local(t) for t in graph.objects(None, KYPHO.stepOf)} == DESCRIBED
    assert {local(t) for t in graph.objects(None, KYPHO.aimOf)} == DESCRIBED


@pytest.mark.parametrize("technique", sorted(DESCRIBED))
def test_steps_form_one_unbroken_order(graph, technique):
    assert len(list(graph.subjects(KYPHO.stepOf, KYPHO[technique]))) > 2
    assert order_faults(graph, KYPHO[technique]) == []


def test_a_broken_order_is_noticed():
    turtle = """
    PREFIX k: <https://w3id.org/kypho#>
    k:A k:stepOf k:T . k:B k:stepOf k:T . k:C k:stepOf k:T .
    k:A k:stepNumber 1 ; k:precedes k:C .
    k:B k:stepNumber 2 ; k:precedes k:C .
    k:C k:stepNumber %d .
    """
    assert order_faults(rdflib.Graph().parse(data=turtle % 3), KYPHO.T) == ["A precedes the wrong step"]
    assert len(order_faults(rdflib.Graph().parse(data=turtle % 4), KYPHO.T)) == 2


def test_each_step_belongs_to_one_technique(graph):
    owners = {s: list(graph.objects(s, KYPHO.stepOf)) for s in graph.subjects(RDF.type, KYPHO.ProcedureStep)}
    assert {local(s) for s, found in owners.items() if len(found) != 1} == set()


def test_each_step_has_a_participant_and_a_mark(graph):
    steps = set(graph.subjects(RDF.type, KYPHO.ProcedureStep))
    assert {local(s) for s in steps if not set(graph.objects(s, KYPHO.hasParticipant))} == set()
    assert {local(s) for s in steps if len(list(graph.objects(s, KYPHO.mark))) != 1} == set()


def test_links_stay_in_their_ranges(graph):
    """No axiom reports a link to the wrong kind of thing, so the ranges are checked here."""
    properties = {p for p in graph.subjects(RDFS.isDefinedBy) if (p, RDFS.range, None) in graph}
    wrong = set()
    for prop in properties:
        allowed = {s for r in graph.objects(prop, RDFS.range) for s in members(graph, local(r))}
        if allowed:
            wrong |= {
                f"{local(s)} {local(prop)} {local(o)}" for s, o in graph.subject_objects(prop) if o not in allowed
            }
    assert wrong == set()


@pytest.mark.parametrize("cls", STATEMENTS)
def test_each_statement_has_mark_and_address(graph, cls):
    statements = members(graph, cls)
    assert len(statements) >= 10
    assert {local(s) for s in statements if len(list(graph.objects(s, KYPHO.mark))) != 1} == set()
    addresses = {s: [str(o) for o in graph.objects(s, SOURCE)] for s in statements}
    assert {local(s) for s, found in addresses.items() if not found} == set()
    assert [o for found in addresses.values() for o in found if not re.fullmatch(r"https?://\S+\.\S+", o)] == []


def test_each_preference_has_kind_option_and_situation(graph):
    for statement in members(graph, "PreferenceStatement"):
        assert len(list(graph.objects(statement, KYPHO.preferenceKind))) == 1, statement
        assert len(list(graph.objects(statement, KYPHO.situationInWords))) == 1, statement
        options = set(graph.objects(statement, KYPHO.prefersOption))
        assert options, statement
        assert not options & set(graph.objects(statement, KYPHO.overOption)), statement
        if (statement, KYPHO.inCombination, rdflib.Literal(True)) in graph:
            assert len(options) > 1, statement


def test_a_preference_over_something_says_over_what(graph):
    over = {"PreferredFirst", "PreferredInstead"}
    for statement in members(graph, "PreferenceStatement"):
        if {local(k) for k in graph.objects(statement, KYPHO.preferenceKind)} & over:
            assert set(graph.objects(statement, KYPHO.overOption)), statement


def test_rating_numbers_agree_with_their_categories(knowledge):
    """7 to 9 usually appropriate, 4 to 6 may be, 1 to 3 usually not: the panels' own bands."""
    bands = {
        "UsuallyAppropriate": range(7, 10),
        "MayBeAppropriate": range(4, 7),
        "UsuallyNotAppropriate": range(1, 4),
    }
    rated = [x for g in knowledge.guidelines.values() for r in g.recommendations for x in r.ratings]
    assert len(rated) > 150
    numbered = [x for x in rated if x.number is not None]
    assert {x.category for x in numbered} == bands.keys()
    assert [x.option for x in numbered if x.number not in bands[x.category]] == []


def test_no_statement_of_the_module_is_judged_as_a_clause(knowledge):
    """The module is knowledge to read: none of it is a recommendation."""
    ids = {r.iri for g in knowledge.guidelines.values() for r in g.recommendations}
    assert not any(i.startswith(str(KYPHO)) for i in ids)


def test_seed_statements_are_carried(graph):
    carried = defaultdict(set)
    for term, statement in graph.subject_objects(KYPHO.seedStatement):
        carried[str(statement)].add(local(term))
    assert carried == {
        "G11": {"KyphoplastyBalloonInsertion"},
        "G12": {"KyphoplastyBalloonInflation", "BoneCavity"},
        "G13": {"KyphoplastyCementInjection"},
        "G14": {"FractureStabilisationAim"},
        "G15": {"HeightRestorationAim"},
        "G16": {"MicromotionPreventionAim"},
        "G17": {"SpineStabilisationAim"},
        "G23": {"KyphoplastyAnaesthesia", "ConsciousSedation", "GeneralAnaesthesia"},
        "G24": {"ShortHospitalStay"},
        "R1": {"BalloonKyphoplasty", "FractureReductionAim", "FractureStabilisationAim"},
        "R9": {"PainAndFunctionAim"},
        "R14": {"AdviceLargeDefect"},
    }


def test_what_are_the_steps_of_balloon_kyphoplasty(knowledge):
    rows = [r for r in querying.run(knowledge, "steps-of-a-procedure") if r["technique"] == "BalloonKyphoplasty"]
    assert [int(r["number"]) for r in rows] == list(range(1, len(rows) + 1))
    assert [r["step"].removeprefix("Kyphoplasty") for r in rows] == [
        "Anaesthesia",
        "Positioning",
        "ImageGuidance",
        "Access",
        "Biopsy",
        "BalloonInsertion",
        "BalloonInflation",
        "BalloonWithdrawal",
        "CementPreparation",
        "CementInjection",
        "CementHardening",
        "Closure",
    ]
    by_step = {r["step"].removeprefix("Kyphoplasty"): r for r in rows}
    assert [s for s, r in by_step.items() if r["optional"] == "true"] == ["Biopsy"]
    assert "inflatable bone tamp" in by_step["BalloonInflation"]["with"]
    assert "aim: restored height" in by_step["BalloonInflation"]["aims"]
    assert by_step["Closure"]["mark"] == "Unverified"


def test_when_do_sources_prefer_surgery(knowledge):
    rows = [
        r
        for r in querying.run(knowledge, "alternatives-and-when")
        if r["group"] == "surgical treatment option" and r["kind"] in {"preferred instead", "preferred first"}
    ]
    assert {r["statement"].removeprefix("Preference") for r in rows} == {
        "Acr22SurgeryOsteoporotic",
        "Acr22SurgeryPathologic",
        "BilskyDecompression",
        "HaemangiomaDeficit",
        "KummellDeficit",
        "KummellStageThree",
        "NassSurgeryStenosisDeficit",
        "OfTypeFourFive",
    }
    assert {r["mark"] for r in rows if "OfType" in r["statement"]} == {"Unverified"}


def test_sources_that_disagree_stand_side_by_side(knowledge):
    rows = querying.run(knowledge, "alternatives-and-when")
    kinds = {r["kind"] for r in rows if r["option"] == "vertebroplasty"}
    assert {"advised against", "one of several options"} <= kinds


def test_rating_of_radiotherapy_beside_augmentation(knowledge):
    rows = [r for r in querying.run(knowledge, "ratings-of-alternatives") if r["scenario"] == "acr-vcf-2022/ACR22-V9"]
    assert [int(r["rating"]) for r in rows] == [8, 8, 7, 7, 5, 4]
    assert {r["option"] for r in rows[:2]} == {"radiotherapy", "surgical consultation"}


def test_advice_for_a_large_defect(knowledge):
    rows = [r for r in querying.run(knowledge, "technique-advice") if r["advice"] == "AdviceLargeDefect"]
    assert [r["clause"] for r in rows] == ["seed-research/SEED-C1"]
    assert "slowly" in rows[0]["text"]


def test_follow_up_duties(knowledge):
    rows = {r["duty"]: r for r in querying.run(knowledge, "follow-up-duties")}
    assert "BoneDensityReferral" in rows["DutyBoneDensityLcd"]["recorded"]
    assert "LCD-I3" in rows["DutyBoneDensityLcd"]["clauses"]
    assert [d for d, r in rows.items() if r["withdrawn"] == "true"] == ["DutyRegistryLcdHistory"]
    assert "2 to 4 weeks" in rows["DutyVisitRand"]["timing"]


def test_trauma_is_cleared_for_the_implant_only(knowledge):
    """The cement label names no trauma; the implant was cleared for it in 2021."""
    rows = querying.run(knowledge, "device-clearances")
    trauma = {r["number"] for r in rows if r.get("number") and "traumatic fracture" in r["covers"].lower()}
    assert trauma == {"K211238"}
    kiva = [r for r in rows if r.get("number") == "K132817"]
    assert {(r["product"], r["year"]) for r in kiva} == {("Kiva VCF treatment system", "2014")}
