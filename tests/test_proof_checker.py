"""The independent checker of proofs: right proofs pass, and one wrong step is seen."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import PREFIXES, TODAY, A, asked, between, clause, example, fact, inferred, iri, span
from strategies import AS_OF, INDEX, Pick, by_random, draw_record, in_session

from kypho_kg import derivation, proof_checker
from kypho_kg.criteria import Op
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.evaluation import Evaluator, Proof, Truth
from kypho_kg.inference import infer
from kypho_kg.knowledge import Knowledge
from kypho_kg.proof_checker import CheckedCase, faults, truth
from kypho_kg.record import LESION, PATIENT, Fact, Polarity, Record
from kypho_kg.store import Triples, parse_turtle
from kypho_kg.vocabulary import KYPHO

CASE = CheckedCase(A, True, TODAY)
B = LESION + "b"
TEST = "urn:test:"


# -- conditions


def link(name: str, inner: str) -> str:
    return f"[ a owl:Restriction ; owl:onProperty kypho:{name} ; owl:someValuesFrom {inner} ]"


def has(name: str) -> str:
    return link("hasFinding", f"kypho:{name}")


def value(name: str, *values: str) -> str:
    if len(values) == 1:
        return f"[ a owl:Restriction ; owl:onProperty kypho:{name} ; owl:hasValue kypho:{values[0]} ]"
    return link(name, f"[ a owl:Class ; owl:oneOf ( {' '.join('kypho:' + v for v in values)} ) ]")


def number(name: str, **facets: str) -> str:
    bounds = " ".join(f"[ xsd:{facet} {bound} ]" for facet, bound in facets.items())
    datatype = f"[ a rdfs:Datatype ; owl:onDatatype xsd:decimal ; owl:withRestrictions ( {bounds} ) ]"
    return link(name, datatype)


def every(*parts: str) -> str:
    return f"[ a owl:Class ; owl:intersectionOf ( {' '.join(parts)} ) ]"


def some(*parts: str) -> str:
    return f"[ a owl:Class ; owl:unionOf ( {' '.join(parts)} ) ]"


def no(part: str) -> str:
    return f"[ a owl:Class ; owl:complementOf {part} ]"


def patient(inner: str) -> str:
    return link("concernsPatient", inner)


def lesion(inner: str) -> str:
    return link("indexLesion", inner)


def procedure(inner: str) -> str:
    return link("forProcedure", inner)


CONDITIONS = {
    "Infected": patient(has("SpinalInfection")),
    "NotInfected": no(patient(has("SpinalInfection"))),
    "Compressed": lesion(has("NeuralImpingement")),
    "PatientCompressed": patient(has("NeuralImpingement")),
    "OneOfTwo": lesion(link("hasFinding", some("kypho:MarrowEdemaOnMri", "kypho:UptakeOnBoneScan"))),
    "Malignant": lesion(link("primaryEtiology", "kypho:MalignantEtiology")),
    "Severe": lesion(value("painSeverity", "SeverePain")),
    "High": lesion(value("bilskyGrade", "Bilsky2", "Bilsky3")),
    "Spine": lesion(link("vertebralLevel", "kypho:LevelT5ToL5")),
    "Male": patient(value("sex", "Male")),
    "Pregnant": patient(has("Pregnancy")),
    "Pain": lesion(number("painNrs", minInclusive="5.0", maxExclusive="8.0")),
    "Canal": lesion(number("canalCompromisePercent", minExclusive="20.0")),
    "Lowest": lesion(number("lowest", maxInclusive="20.0")),
    "Old": patient(number("age", minInclusive="65.0")),
    "Balloon": procedure(value("technique", "BalloonKyphoplasty")),
    "Bleeding": patient(has("UncorrectedCoagulopathy")),
    "Unstable": lesion(has("SpinalInstability")),
    "CanalFound": lesion(has("CanalCompromise")),
    "Both": every("kypho:Case", "test:Pain", "test:Malignant"),
    "Either": some("test:Pain", "test:Malignant"),
    "TwoOfThree": some(
        every("test:Pain", "test:Malignant"), every("test:Pain", "test:Severe"), every("test:Malignant", "test:Severe")
    ),
    "Band-Strict": lesion(number("weeksSinceOnset", maxExclusive="6.0")),
    "Band-Lenient": lesion(number("weeksSinceOnset", maxExclusive="8.0")),
    "Circle": some("test:Pain", "test:Circle"),
    "Enumeration": lesion("[ a owl:Class ; owl:oneOf ( kypho:Male ) ]"),
    "Unlinked": has("Pregnancy"),
}


@pytest.fixture(scope="module")
def triples(knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> Triples:
    """The ontology with the conditions of these tests."""
    rows = [f"test:{name} a owl:Class ; owl:equivalentClass {text} ." for name, text in CONDITIONS.items()]
    rows.append(
        "test:Band a owl:Class ; kypho:strictReading test:Band-Strict ; kypho:lenientReading test:Band-Lenient ."
    )
    rows.append("kypho:lowest kypho:featureKind kypho:QuantityFeature ; kypho:selectionRule kypho:LowestInWindow .")
    path = tmp_path_factory.mktemp("conditions") / "conditions.ttl"
    path.write_text(f"{PREFIXES}PREFIX test: <{TEST}>\n" + "\n".join(rows), encoding="utf-8")
    return Triples([*knowledge.triples, *parse_turtle(path)])


def lowest(low: object, high: object) -> Fact:
    return Fact(A, iri("lowest"), between(low, high))


# -- one fact


def met(name: str, *facts: Fact) -> tuple[str, bool | None, tuple[Fact, ...]]:
    return name, True, facts


def not_met(name: str, *facts: Fact) -> tuple[str, bool | None, tuple[Fact, ...]]:
    return name, False, facts


def open_(name: str, *facts: Fact) -> tuple[str, bool | None, tuple[Fact, ...]]:
    return name, None, facts


ROWS = [
    # findings: subclass and superclass, patient and lesion
    met("Infected", fact("SpinalInfection")),
    met("Infected", fact("Discitis")),
    open_("Infected", fact("ActiveInfection")),
    not_met("Infected", fact("SpinalInfection", "absent")),
    not_met("Infected", fact("ActiveInfection", "absent")),
    open_("Infected", fact("Discitis", "absent")),
    open_("Infected", fact("Discitis", "indeterminate")),
    open_("Infected"),
    not_met("NotInfected", fact("Discitis")),
    met("NotInfected", fact("ActiveInfection", "absent")),
    met("Compressed", fact("SpinalCordCompression")),
    open_("Compressed", fact("SpinalCordCompression", on=PATIENT)),
    open_("Compressed", fact("SpinalCordCompression", on=B)),
    not_met("Compressed", fact("NeuralImpingement", "absent")),
    not_met("Compressed", fact("NeuralImpingement", "absent", on=PATIENT)),
    open_("Compressed", fact("NeuralImpingement", "absent", on=B)),
    met("PatientCompressed", fact("SpinalCordCompression")),
    met("PatientCompressed", fact("SpinalCordCompression", on=B)),
    not_met("PatientCompressed", fact("NeuralImpingement", "absent", on=PATIENT)),
    open_("PatientCompressed", fact("NeuralImpingement", "absent")),
    met("OneOfTwo", fact("UptakeOnBoneScan")),
    open_("OneOfTwo", fact("UptakeOnBoneScan", "absent")),
    not_met("OneOfTwo", fact("UptakeOnBoneScan", "absent"), fact("MarrowEdemaOnMri", "absent")),
    # categories
    met("Malignant", fact("primaryEtiology", "MalignantEtiology")),
    met("Malignant", fact("primaryEtiology", "MultipleMyeloma")),
    open_("Malignant", fact("primaryEtiology", "NeoplasticEtiology")),
    open_("Malignant", fact("primaryEtiology", "LesionEtiology")),
    not_met("Malignant", fact("primaryEtiology", "PrimaryOsteoporosis")),
    not_met("Malignant", fact("primaryEtiology", "NeoplasticEtiology", absent=True)),
    not_met("Malignant", fact("primaryEtiology", "MalignantEtiology", absent=True)),
    open_("Malignant", fact("primaryEtiology", "MultipleMyeloma", absent=True)),
    open_("Malignant", fact("primaryEtiology", "MultipleMyeloma", on=B)),
    # choices
    met("Severe", fact("painSeverity", "SeverePain")),
    not_met("Severe", fact("painSeverity", "MildPain")),
    not_met("Severe", fact("painSeverity", {"MildPain", "ModeratePain"})),
    open_("Severe", fact("painSeverity", {"SeverePain", "ModeratePain"})),
    not_met("Severe", fact("painSeverity", "SeverePain", absent=True)),
    open_("Severe", fact("painSeverity", "MildPain", absent=True)),
    met(
        "Severe",
        fact("painSeverity", {"SeverePain", "ModeratePain"}),
        fact("painSeverity", "ModeratePain", absent=True),
    ),
    met(
        "Severe",
        fact("painSeverity", {"SeverePain", "ModeratePain"}),
        fact("painSeverity", {"SeverePain", "MildPain"}),
    ),
    met("High", fact("bilskyGrade", {"Bilsky2", "Bilsky3"})),
    not_met("High", fact("bilskyGrade", "Bilsky1C")),
    open_("High", fact("bilskyGrade", "Bilsky3", absent=True)),
    not_met("High", fact("bilskyGrade", "Bilsky2", absent=True), fact("bilskyGrade", "Bilsky3", absent=True)),
    met("Spine", fact("vertebralLevel", {"T11", "T12"})),
    not_met("Spine", fact("vertebralLevel", "T4")),
    open_("Spine", fact("vertebralLevel", {"T4", "T5"})),
    open_("Balloon", fact("technique", {"BalloonKyphoplasty", "Vertebroplasty"})),
    met("Balloon", fact("technique", "BalloonKyphoplasty")),
    # a finding that a value excludes excludes the value
    not_met("Male", fact("Pregnancy")),
    open_("Male", fact("Pregnancy", "absent")),
    # quantities: within, at and beyond the limits
    met("Pain", fact("painNrs", 5)),
    met("Pain", fact("painNrs", "7.9999")),
    not_met("Pain", fact("painNrs", "4.9999")),
    not_met("Pain", fact("painNrs", 8)),
    met("Pain", fact("painNrs", between(5, 8, high_open=True))),
    open_("Pain", fact("painNrs", between(5, 8))),
    not_met("Pain", fact("painNrs", between(8))),
    not_met("Pain", fact("painNrs", between(None, 5, high_open=True))),
    open_("Pain", fact("painNrs", between(None, 5))),
    open_("Pain", fact("painNrs", between(5))),
    met("Pain", fact("painNrs", between(5)), fact("painNrs", between(None, 7))),
    open_("Canal", fact("canalCompromisePercent", between(20))),
    met("Canal", fact("canalCompromisePercent", between(20, low_open=True))),
    not_met("Canal", fact("canalCompromisePercent", 20)),
    # contradictions decide nothing
    open_("Infected", fact("Discitis"), fact("ActiveInfection", "absent")),
    open_("PatientCompressed", fact("SpinalCordCompression"), fact("NeuralImpingement", "absent", on=PATIENT)),
    open_("Malignant", fact("primaryEtiology", "MultipleMyeloma"), fact("primaryEtiology", "PrimaryOsteoporosis")),
    open_("Severe", fact("painSeverity", "SeverePain"), fact("painSeverity", "SeverePain", absent=True)),
    open_("Pain", fact("painNrs", 5), fact("painNrs", 6)),
    # composites
    met("Both", fact("painNrs", 5), fact("primaryEtiology", "MultipleMyeloma")),
    open_("Both", fact("painNrs", 5)),
    not_met("Both", fact("painNrs", 8)),
    met("Either", fact("painNrs", 5)),
    open_("Either", fact("painNrs", 8)),
    not_met("Either", fact("painNrs", 8), fact("primaryEtiology", "PrimaryOsteoporosis")),
    met("TwoOfThree", fact("painNrs", 5), fact("painSeverity", "SeverePain")),
    open_("TwoOfThree", fact("painNrs", 5), fact("painSeverity", "MildPain")),
    not_met("TwoOfThree", fact("painNrs", 8), fact("painSeverity", "MildPain")),
    # a band that the source leaves open
    met("Band", fact("weeksSinceOnset", "5.9999")),
    open_("Band", fact("weeksSinceOnset", 6)),
    open_("Band", fact("weeksSinceOnset", "7.9999")),
    not_met("Band", fact("weeksSinceOnset", 8)),
]


@pytest.mark.parametrize(("name", "expected", "facts"), ROWS, ids=[f"{i}-{row[0]}" for i, row in enumerate(ROWS)])
def test_a_proof_is_right_only_for_the_truth_that_its_facts_give(triples, name, expected, facts):
    assert truth(triples, TEST + name, facts, CASE) is expected
    for claimed in (True, False):
        found = faults(triples, TEST + name, claimed, facts, CASE)
        words = {True: "met", False: "not met", None: "unknown"}
        wrong = f"{TEST}{name} should be {words[claimed]} by these facts alone and is {words[expected]}"
        assert found == ([] if claimed is expected else [wrong])


WINDOWS = [
    met("Canal", fact("canalCompromisePercent", between(10, 30)), fact("canalCompromisePercent", between(21, 25))),
    open_("Canal", fact("canalCompromisePercent", between(10, 30)), fact("canalCompromisePercent", between(5, 20))),
    not_met("Canal", fact("canalCompromisePercent", between(10, 20)), fact("canalCompromisePercent", 0)),
    open_("Canal", fact("canalCompromisePercent", between(None, 20)), fact("canalCompromisePercent", between(10))),
    met("Lowest", lowest(10, 30), lowest(15, 20)),
    open_("Lowest", lowest(10, 30), lowest(20, 40)),
    not_met("Lowest", lowest(21, 40), lowest(30, 31)),
]


@pytest.mark.parametrize(("name", "expected", "facts"), WINDOWS)
def test_of_several_values_in_a_window_the_highest_or_the_lowest_counts(triples, name, expected, facts):
    assert truth(triples, TEST + name, facts, CASE) is expected


# -- one step wrong


def test_a_missing_fact_is_seen(triples):
    whole = [fact("painNrs", 5), fact("primaryEtiology", "MultipleMyeloma")]
    assert faults(triples, TEST + "Both", True, whole, CASE) == []
    for left in whole:
        assert faults(triples, TEST + "Both", True, [left], CASE) == [
            f"{TEST}Both should be met by these facts alone and is unknown"
        ]


def test_a_superfluous_fact_is_named(triples):
    facts = [fact("painNrs", 5), fact("primaryEtiology", "MultipleMyeloma")]
    assert faults(triples, TEST + "Either", True, facts, CASE) == [
        f"{TEST}Either is met without painNrs too",
        f"{TEST}Either is met without primaryEtiology too",
    ]
    facts = [fact("painNrs", 8), fact("Pregnancy")]
    assert faults(triples, TEST + "Both", False, facts, CASE) == [f"{TEST}Both is not met without Pregnancy too"]


def test_the_same_fact_twice_is_one_too_many(triples):
    assert len(faults(triples, TEST + "Pain", True, [fact("painNrs", 5)] * 2, CASE)) == 2


def test_no_facts_prove_only_what_needs_none(triples):
    assert len(faults(triples, TEST + "Pain", True, [], CASE)) == 1


def test_a_link_that_leads_nowhere_is_unknown(triples):
    balloon, pain = fact("technique", "BalloonKyphoplasty"), fact("painNrs", 5)
    assert truth(triples, TEST + "Balloon", [balloon], replace(CASE, in_session=False)) is None
    assert truth(triples, TEST + "Pain", [pain], replace(CASE, lesion="")) is None
    assert truth(triples, TEST + "Pain", [pain], replace(CASE, lesion=B)) is None


@pytest.mark.parametrize("name", ["Circle", "Enumeration", "Unlinked", "NoSuchClass"])
def test_what_is_no_condition_is_refused(triples, name):
    with pytest.raises(KnowledgeBaseError):
        truth(triples, TEST + name, [], CASE)


# -- time goes on


@pytest.mark.parametrize(
    ("weeks", "time", "expected"),
    [(4, "2026-02-17", True), (4, "2026-02-16", None), (6, "2026-02-17", None), (6, "2026-02-16", False),
     (4, None, True), (4, "2026-02", None), (5, "2026-03", True), (8, "2020", False)],
)  # fmt: skip
def test_a_stated_duration_goes_on(triples, weeks, time, expected):
    assert truth(triples, TEST + "Band", [fact("weeksSinceOnset", weeks, time)], CASE) is expected


@pytest.mark.parametrize(
    ("age", "time", "expected"),
    [(64, "2025-03-02", None), (64, "2025-03-01", True), (64, "2026-03-01", None), (64, "2026-03-02", False),
     (65, "2020", True), (60, "2021", None), (59, "2021", None), (58, "2021", False), (63, "2024-03-02", None),
     (62, "2024-03-02", False), (61, "2024-03-02", False)],
)  # fmt: skip
def test_a_stated_age_goes_on(triples, age, time, expected):
    assert truth(triples, TEST + "Old", [fact("age", age, time)], CASE) is expected


def test_time_goes_on_as_in_the_engine():
    draw = random.Random(5)
    for _ in range(300):
        year, month, day = draw.choice(range(2015, 2026)), draw.choice(range(1, 13)), draw.choice(range(1, 29))
        time = span(draw.choice([f"{year}", f"{year}-{month:02}", f"{year}-{month:02}-{day:02}", "2026", "2026-03"]))
        low, high = draw.choice([(3, 3), (3, 7), (None, 3), (3, None)])
        stated = between(low, high, low_open=draw.random() < 0.3)
        for unit in ("d", "wk", "a"):
            expected = derivation.advance(stated, time.until(TODAY), TODAY, unit)
            found = proof_checker._later(proof_checker._interval(stated), time, TODAY, unit)
            assert found == proof_checker._interval(expected)


# -- derived facts


def derived(premises: tuple[Fact, ...], name: str, rule: str, said: str = "present", **more: object) -> Fact:
    return fact(name, said, rule=iri(rule), premises=premises, **more)


BRIDGED = derived((fact("inr", "1.81"),), "UncorrectedCoagulopathy", "InrBridge")
CLOSED = derived((fact("sex", "Male"),), "Pregnancy", "ClosureOfValue", "absent")
LISTED = derived((fact("ProblemListDocumented"),), "Pregnancy", "ProblemListClosure", "absent")
EMPTY_CANAL = derived((fact("canalCompromisePercent", 0),), "CanalCompromise", "CanalZeroBridge", "absent")
SCORED = replace(fact("sinsScore", 13), rule=iri("ScoreTotal"), premises=(fact("painNrs", 5),))
UNSTABLE = derived((SCORED,), "SpinalInstability", "SinsBridge")


@pytest.mark.parametrize(
    ("name", "expected", "given"),
    [("Bleeding", True, BRIDGED), ("Pregnant", False, CLOSED), ("Pregnant", False, LISTED),
     ("CanalFound", False, EMPTY_CANAL), ("Unstable", True, UNSTABLE)],
)  # fmt: skip
def test_what_follows_by_a_rule_may_be_used(triples, name, expected, given):
    assert faults(triples, TEST + name, expected, [given], CASE) == []


@pytest.mark.parametrize(
    ("name", "expected", "given", "problem"),
    [
        (
            "Bleeding",
            True,
            replace(BRIDGED, premises=(fact("inr", "1.8"),)),
            "premises do not meet the bridge InrBridge",
        ),
        ("Bleeding", True, replace(BRIDGED, premises=()), "premises do not meet the bridge InrBridge"),
        ("Bleeding", True, replace(BRIDGED, rule=iri("PlateletBridge")), "do not meet the bridge PlateletBridge"),
        (
            "Bleeding",
            True,
            replace(BRIDGED, rule=iri("OfFiveBridge")),
            "OfFiveBridge does not conclude that it is present",
        ),
        ("Bleeding", False, replace(BRIDGED, polarity=Polarity.ABSENT), "does not conclude that it is absent"),
        ("Bleeding", True, replace(BRIDGED, subject=A), "does not speak of a lesion:a"),
        ("Bleeding", True, replace(BRIDGED, rule=iri("NoSuchRule")), "unknown rule 'NoSuchRule'"),
        ("Bleeding", True, replace(BRIDGED, rule=""), "unknown rule ''"),
        ("CanalFound", True, replace(EMPTY_CANAL, polarity=Polarity.PRESENT), "does not conclude that it is present"),
        ("Unstable", True, replace(UNSTABLE, subject=B), "do not meet the bridge SinsBridge"),
        ("Pregnant", False, replace(CLOSED, premises=(fact("sex", "Female"),)), "no value that excludes it"),
        ("Pregnant", False, replace(CLOSED, premises=(fact("sex", {"Male", "Female"}),)), "no value that excludes it"),
        ("Pregnant", True, replace(CLOSED, polarity=Polarity.PRESENT), "no value that excludes it"),
        ("Infected", False, replace(CLOSED, feature=iri("SpinalInfection")), "no value that excludes it"),
        ("Infected", False, replace(LISTED, feature=iri("SpinalInfection")), "ProblemListClosure does not close it"),
        ("Pregnant", True, replace(LISTED, polarity=Polarity.PRESENT), "ProblemListClosure does not close it"),
        ("Pregnant", False, replace(LISTED, premises=()), "do not meet the policy rule ProblemListClosure"),
        ("Unstable", True, replace(UNSTABLE, premises=(replace(SCORED, rule=iri("NoSuchRule")),)), "unknown rule"),
        (
            "Unstable",
            True,
            replace(UNSTABLE, premises=(replace(SCORED, rule=iri("TrendOfSeries")),)),
            "not computed by",
        ),
    ],
)
def test_what_does_not_follow_is_seen(triples, name, expected, given, problem):
    found = faults(triples, TEST + name, expected, [given], CASE)
    about = [f for f in found if problem in f]
    assert len(about) == 1
    assert about[0].split()[0] in {given.feature.removeprefix(KYPHO), "sinsScore"}
    assert f"in the proof of {TEST}{name}: " in about[0]


def test_a_premise_is_checked_through_the_facts_that_rest_on_it(triples):
    score = replace(SCORED, premises=(replace(BRIDGED, premises=()),))
    found = faults(triples, TEST + "Unstable", True, [replace(UNSTABLE, premises=(score,))], CASE)
    assert found == [
        f"UncorrectedCoagulopathy in the proof of {TEST}Unstable: its premises do not meet the bridge InrBridge"
    ]


def test_premises_are_no_facts_of_the_proof(triples):
    """They justify the derived fact, and give the condition nothing themselves."""
    carrier = derived((fact("canalCompromisePercent", 25),), "CanalCompromise", "CanalPercentBridge")
    assert truth(triples, TEST + "Canal", [carrier], CASE) is None


# -- beside the engine


def deciding(proof: Proof, wanted: Truth) -> Iterator[Fact]:
    """The facts of the leaves that have the truth by which a tree is decided."""
    if proof.criterion.op is Op.NOT:
        wanted = Truth(2 - wanted)
    for child in proof.children:
        yield from deciding(child, wanted)
    if not proof.children and proof.truth is wanted:
        yield from proof.facts


def problems_of(triples: Triples, proof: Proof, case: CheckedCase) -> list[str]:
    """What the checker says against a decided proof, apart from what is too much in it."""
    facts = tuple(deciding(proof, proof.truth))
    found = faults(triples, proof.criterion.name, proof.truth is Truth.MET, facts, case)
    return [f for f in found if not f.endswith(" too")]


def dated(record: Record, pick: Pick) -> Record:
    """The record with times, and with some of it stated a second time."""
    again = [f for f in record.facts if pick((True, False, False))]
    stated = [replace(f, time=span(t) if (t := pick(TIMES)) else None) for f in (*record.facts, *again)]
    return replace(record, facts=tuple(stated))


TIMES = ("", "2026-03-02", "2026-03-01", "2026-02-20", "2026-02", "2026-01-01", "2025-09-01", "2025", "2024-06-01")


@pytest.mark.parametrize("seed", range(100))
def test_the_engine_proves_what_it_says(knowledge, seed):
    pick = by_random(seed)
    record = dated(draw_record(pick, knowledge), pick) if seed % 3 else draw_record(pick, knowledge)
    guideline = knowledge.guidelines[pick(sorted(knowledge.guidelines))]
    policies = list(knowledge.policies.values()) if seed % 2 else []
    snapshot = infer(record, knowledge, AS_OF, bridges=knowledge.bridges.values(), policies=policies)
    evaluator = Evaluator(snapshot, INDEX, in_session(record))
    case = CheckedCase(INDEX, in_session(record), AS_OF)
    for recommendation in guideline.recommendations:
        proof = evaluator.evaluate(recommendation.criterion)
        if proof.truth is Truth.UNKNOWN:
            continue
        assert problems_of(knowledge.triples, proof, case) == []
        facts = list(deciding(proof, proof.truth))
        if facts:  # less is known with one fact less, and nothing turns into its opposite
            facts.remove(pick(facts))
            weaker = truth(knowledge.triples, proof.criterion.name, facts, case)
            assert weaker in {None, proof.truth is Truth.MET}


def test_a_shipped_example_is_proven_down_to_its_stated_ages(knowledge):
    of = example("constructed/t4-outpatient")
    treated = of.procedure is not None
    found = [
        problems_of(knowledge.triples, proof, CheckedCase(INDEX, treated, of.as_of or TODAY))
        for id_, guideline in knowledge.guidelines.items()
        for recommendation in guideline.recommendations[:3]
        for proof in [clause(of, f"{id_}/{recommendation.clause}")]
        if proof.truth is not Truth.UNKNOWN
    ]
    assert found
    assert not any(found)


def test_a_value_that_a_finding_bars_rests_on_that_finding(triples):
    snapshot = inferred(fact("Pregnancy"))
    proof = Evaluator(snapshot, A, has_procedure=True).evaluate(asked("sex", "Male"), PATIENT)
    assert proof.truth is Truth.NOT_MET
    assert faults(triples, TEST + "Male", False, proof.facts, CASE) == []


# -- independence


def test_the_checker_shares_nothing_with_the_engines():
    tree = ast.parse(Path(str(proof_checker.__file__)).read_text("utf-8"))
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {f"kypho_kg.{m}" for m in ("errors", "record", "store", "vocabulary")}
    standard = {"__future__", "collections.abc", "dataclasses", "datetime", "decimal", "typing"}
    assert plain == set()
    assert froms <= allowed | standard
    assert all(node.level == 0 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    taken = {
        a.name
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and n.module == "kypho_kg.record"
        for a in n.names
    }
    assert taken <= {"LESION", "PATIENT", "PROCEDURE", "Fact", "Polarity", "Range", "TimeSpan"}
    methods = {"intersection", "within", "until", "days_until", "wholly_after", "shifted", "negated", "exact"}
    assert {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)} & methods == {
        "intersection"
    }  # of frozenset
