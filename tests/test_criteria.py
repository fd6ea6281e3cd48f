"""Class expressions to criterion trees: what is in the profile, and what is refused by name."""

from __future__ import annotations

import itertools

import pytest
from builders import TEST_CLAUSE, asked, between, defined_as, every, iri, knowledge_with, refusals

from kypho_kg.criteria import Criterion, Op, at_least_of
from kypho_kg.vocabulary import GUIDELINES

TEST = GUIDELINES + "seed-research/TestCondition"


def some(prop: str, filler: str) -> str:
    return f"[ a owl:Restriction ; owl:onProperty kypho:{prop} ; owl:someValuesFrom {filler} ]"


def value(prop: str, individual: str) -> str:
    return f"[ a owl:Restriction ; owl:onProperty kypho:{prop} ; owl:hasValue kypho:{individual} ]"


def combined(construct: str, *parts: str) -> str:
    return f"[ a owl:Class ; owl:{construct} ( {' '.join(parts)} ) ]"


def negated(part: str) -> str:
    return f"[ a owl:Class ; owl:complementOf {part} ]"


def one_of(*names: str) -> str:
    return combined("oneOf", *(f"kypho:{n}" for n in names))


def decimal(*facets: str) -> str:
    limits = " ".join(f"[ {facet} ]" for facet in facets)
    return f"[ a rdfs:Datatype ; owl:onDatatype xsd:decimal ; owl:withRestrictions ( {limits} ) ]"


def patient(part: str) -> str:
    return some("concernsPatient", part)


def lesion(part: str) -> str:
    return some("indexLesion", part)


def finding(name: str) -> str:
    return some("hasFinding", f"kypho:{name}")


def compiled(folder, expression: str, more: str = "") -> Criterion:
    k = knowledge_with(folder, defined_as(expression) + more)
    return next(r.criterion for r in k.guidelines["seed-research"].recommendations if r.clause == "TEST")


# -- what the profile holds

ATOMS = {
    "a finding": (patient(finding("Pregnancy")), asked("Pregnancy")),
    "a finding of a lesion asked of its patient": (patient(finding("Retropulsion")), asked("Retropulsion")),
    "one of several findings": (
        patient(some("hasFinding", combined("unionOf", "kypho:Pregnancy", "kypho:Discitis"))),
        Criterion(Op.OR, (asked("Pregnancy"), asked("Discitis"))),
    ),
    "a category": (
        lesion(some("primaryEtiology", "kypho:MalignantEtiology")),
        asked("primaryEtiology", "MalignantEtiology"),
    ),
    "one of several categories": (
        lesion(some("primaryEtiology", combined("unionOf", "kypho:MultipleMyeloma", "kypho:LymphomaOfBone"))),
        Criterion(Op.OR, (asked("primaryEtiology", "MultipleMyeloma"), asked("primaryEtiology", "LymphomaOfBone"))),
    ),
    "a choice": (lesion(value("painTrend", "Stable")), asked("painTrend", "Stable")),
    "one of several individuals": (
        lesion(some("painTrend", one_of("Stable", "Worsening"))),
        asked("painTrend", {"Stable", "Worsening"}),
    ),
    "a class defined by individuals": (
        lesion(some("vertebralLevel", "kypho:LevelT1ToT4")),
        asked("vertebralLevel", {"T1", "T2", "T3", "T4"}),
    ),
    "a quantity from": (lesion(some("painNrs", decimal("xsd:minInclusive 5.0"))), asked("painNrs", between(5))),
    "a quantity above": (
        lesion(some("painNrs", decimal("xsd:minExclusive 5.5"))),
        asked("painNrs", between("5.5", low_open=True)),
    ),
    "a quantity between": (
        lesion(some("painNrs", decimal("xsd:minInclusive 5.0", "xsd:maxExclusive 8.0"))),
        asked("painNrs", between(5, 8, high_open=True)),
    ),
}


@pytest.mark.parametrize("kind", every(3, ATOMS))
def test_each_kind_of_atom_behind_its_link(tmp_path, kind):
    expression, inner = ATOMS[kind]
    tree = compiled(tmp_path, expression)
    assert (tree.op, tree.children, tree.name) == (Op.LINK, (inner,), TEST)


def test_operators_and_named_classes(tmp_path):
    expression = combined(
        "intersectionOf",
        "kypho:Case",
        patient(finding("Pregnancy")),
        negated(lesion(finding("Retropulsion"))),
        "seed-research:SEED-R6-Condition",
    )
    tree = compiled(tmp_path, expression)
    assert (tree.op, len(tree.children)) == (Op.AND, 3)
    first, second, third = tree.children
    assert (first.op, second.op, second.children[0].op) == (Op.LINK, Op.NOT, Op.LINK)
    assert third.name == GUIDELINES + "seed-research/SEED-R6-Condition"
    assert [c.op for c in tree.walk()].count(Op.FINDING) == 3


def test_a_class_that_is_another_by_name_keeps_both_names(tmp_path):
    tree = compiled(tmp_path, "seed-research:SEED-R6-Condition")
    assert (tree.name, tree.op, len(tree.children)) == (TEST, Op.AND, 1)
    assert tree.children[0].name == GUIDELINES + "seed-research/SEED-R6-Condition"


def test_a_link_may_lead_to_a_defined_class_of_its_bearer(tmp_path):
    more = f" kypho:PainfulLesion a owl:Class ; owl:equivalentClass {finding('SymptomaticLesion')} ."
    tree = compiled(tmp_path, lesion("kypho:PainfulLesion"), more)
    assert tree.children[0] == Criterion(Op.FINDING, term=iri("SymptomaticLesion"), name=iri("PainfulLesion"))


# -- strict and lenient readings

UNDER_6 = lesion(some("weeksSinceOnset", decimal("xsd:maxExclusive 6.0")))
UNDER_8 = lesion(some("weeksSinceOnset", decimal("xsd:maxExclusive 8.0")))
PAIR = f"""{TEST_CLAUSE}
seed-research:Strict a owl:Class ; owl:equivalentClass {UNDER_6} .
seed-research:Lenient a owl:Class ; owl:equivalentClass {UNDER_8} .
"""
STRICT = "seed-research:TestCondition kypho:strictReading seed-research:Strict ."
LENIENT = "seed-research:TestCondition kypho:lenientReading seed-research:Lenient ."
BELOW = "seed-research:Strict rdfs:subClassOf seed-research:TestCondition ."
ABOVE = "seed-research:TestCondition rdfs:subClassOf seed-research:Lenient ."
DEFINED = "seed-research:TestCondition owl:equivalentClass seed-research:Strict ."


def test_a_pair_of_readings_is_an_open_node(tmp_path):
    tree = knowledge_with(tmp_path, PAIR + STRICT + LENIENT + BELOW + ABOVE).criterion(TEST)
    assert tree.op is Op.OPEN
    assert [c.children[0].range for c in tree.children] == [between(None, n, high_open=True) for n in (6, 8)]


@pytest.mark.parametrize(
    ("turtle", "message"),
    [
        (STRICT + BELOW, "a strict and a lenient one"),
        (LENIENT + ABOVE, "a strict and a lenient one"),
        (STRICT + LENIENT + BELOW + ABOVE + DEFINED, "no definition of its own"),
        (STRICT + LENIENT + ABOVE, "seed-research/Strict must be a subclass of seed-research/TestCondition"),
        (STRICT + LENIENT + BELOW, "seed-research/TestCondition must be a subclass of seed-research/Lenient"),
    ],
    ids=["no lenient", "no strict", "own definition", "strict not below", "lenient not above"],
)  # fmt: skip
def test_half_a_pair_is_refused(tmp_path, turtle, message):
    assert message in refusals(tmp_path, PAIR + turtle)


# -- at least n of

NAMES = ("Hypertension", "DiabetesMellitus", "Hypothyroidism", "SystemicLupusErythematosus")
MEMBERS = [asked(n) for n in NAMES]


def conjunctions(size: int, of: int) -> list[Criterion]:
    return [Criterion(Op.AND, c) for c in itertools.combinations(MEMBERS[:of], size)]


@pytest.mark.parametrize(("n", "m"), [(2, 3), (2, 4), (3, 4)])
def test_the_union_of_all_subsets_of_a_size_is_at_least_so_many(n, m):
    disjuncts = conjunctions(n, m)
    for order in (disjuncts, disjuncts[::-1], [Criterion(Op.AND, d.children[::-1]) for d in disjuncts]):
        tree = at_least_of(tuple(order))
        assert tree is not None
        assert (tree.op, tree.n, set(tree.children)) == (Op.AT_LEAST, n, set(MEMBERS[:m]))


@pytest.mark.parametrize(
    "disjuncts",
    [
        conjunctions(2, 4)[:-1],
        [*conjunctions(2, 3)[:-1], conjunctions(2, 4)[-1]],
        [*conjunctions(2, 3)[:-1], conjunctions(2, 3)[0]],
        [*conjunctions(2, 3), conjunctions(3, 3)[0]],
        conjunctions(1, 3),
        conjunctions(3, 3),
        conjunctions(2, 2),
        [Criterion(Op.OR, d.children) for d in conjunctions(2, 3)],
        [*conjunctions(2, 3)[:-1], Criterion(Op.AND, conjunctions(2, 3)[-1].children, name=iri("Named"))],
        MEMBERS[:3],
    ],
    ids=["one subset missing", "a fourth member", "one twice", "sizes differ", "singletons", "all of them", "one pair",
         "unions", "a named subset", "no conjunctions"],
)  # fmt: skip
def test_a_near_miss_stays_a_union(disjuncts):
    assert at_least_of(tuple(disjuncts)) is None


def test_at_least_two_of_three_in_the_ontology(tmp_path):
    atoms = [patient(finding(n)) for n in NAMES[:3]]
    pairs = [combined("intersectionOf", *pair) for pair in itertools.combinations(atoms, 2)]
    tree = compiled(tmp_path, combined("unionOf", *pairs))
    assert (tree.op, tree.n, len(tree.children)) == (Op.AT_LEAST, 2, 3)


# -- what is refused

REFUSED = {
    "a class without definition": ("kypho:Primitive", "Primitive: named class has no definition"),
    "an empty class": ("[ a owl:Class ]", "no expression of the profile: nothing"),
    "an enumeration of cases": (one_of("Stable"), "oneOf stands only behind a choice"),
    "an empty conjunction": ("[ a owl:Class ; owl:intersectionOf () ]", "intersectionOf"),
    "a conjunction of nothing but case": (combined("intersectionOf", "kypho:Case"), "intersectionOf"),
    "a complement of a literal": ('[ a owl:Class ; owl:complementOf "x" ]', "complement of nothing"),
    "two constructs": (
        f"[ a owl:Class ; owl:complementOf {patient(finding('Pregnancy'))} ; owl:unionOf ( kypho:A ) ]",
        "complementOf, unionOf",
    ),
    "a definition by a literal": ('"x"', "is defined by a literal"),
    "some and value at once": (
        "[ a owl:Restriction ; owl:onProperty kypho:concernsPatient ; owl:someValuesFrom kypho:A ; "
        "owl:hasValue kypho:B ]",
        "concernsPatient hasValue, onProperty, someValuesFrom: only 'some' and 'value' are in the profile",
    ),
    "a restriction without a filler": (
        "[ a owl:Restriction ; owl:onProperty kypho:concernsPatient ]",
        "only 'some' and 'value' are in the profile",
    ),
    "a link to an individual": (value("concernsPatient", "Someone"), "concernsPatient needs 'some' with a class"),
    "a link that starts at a patient": (
        patient(lesion(finding("Retropulsion"))),
        "link indexLesion starts at a case, not at a Patient",
    ),
    "a feature asked of the case": (finding("Pregnancy"), "hasFinding is no link: reach it through the patient"),
    "a quantity asked of the case": (some("painNrs", decimal("xsd:minInclusive 5.0")), "painNrs is no link"),
    "an unknown feature": (patient(value("bloodGroup", "A")), "unknown feature bloodGroup"),
    "an unknown finding": (patient(finding("Flu")), "unknown finding Flu"),
    "a finding that is only a heading": (patient(finding("SafetyFinding")), "unknown finding SafetyFinding"),
    "a value of a lesion asked of the patient": (
        patient(some("painNrs", decimal("xsd:minInclusive 5.0"))),
        "wrong bearer: painNrs is recorded of VertebralLesion, not of Patient",
    ),
    "a finding of the patient asked of a lesion": (
        lesion(finding("Pregnancy")),
        "wrong bearer: Pregnancy is recorded of Patient, not of VertebralLesion",
    ),
    "a finding of the procedure asked of the patient": (
        patient(finding("FusionPlanned")),
        "wrong bearer: FusionPlanned is recorded of ProposedProcedure, not of Patient",
    ),
    "a finding as an individual": (patient(value("hasFinding", "Pregnancy")), "hasFinding needs 'some' with a class"),
    "a finding that is an expression": (
        patient(some("hasFinding", negated("kypho:Pregnancy"))),
        "a finding or category is a named class or a union of named classes, not complementOf",
    ),
    "a category that is an expression": (
        lesion(some("primaryEtiology", negated("kypho:MultipleMyeloma"))),
        "a finding or category is a named class or a union of named classes",
    ),
    "a choice of any value": (
        lesion(some("painTrend", combined("unionOf", "kypho:A", "kypho:B"))),
        "choice painTrend needs a value, an enumeration or a class defined by one",
    ),
    "a quantity without limits": (
        lesion(some("painNrs", "xsd:decimal")),
        "quantity painNrs needs facets on xsd:decimal",
    ),
    "a quantity of another type": (
        lesion(
            some(
                "painNrs",
                "[ a rdfs:Datatype ; owl:onDatatype xsd:double ; owl:withRestrictions ( [ xsd:minInclusive 5.0 ] ) ]",
            )
        ),
        "quantity painNrs needs facets on xsd:decimal",
    ),
    "an integer limit": (
        lesion(some("painNrs", decimal("xsd:minInclusive 5"))),
        "quantity painNrs: facet minInclusive must be a decimal bound",
    ),
    "another facet": (
        lesion(some("painNrs", decimal("xsd:totalDigits 2.0"))),
        "quantity painNrs: facet totalDigits must be a decimal bound",
    ),
}


@pytest.mark.parametrize("kind", every(3, REFUSED))
def test_what_is_outside_the_profile_is_refused_by_class_and_construct(tmp_path, kind):
    expression, message = REFUSED[kind]
    said = refusals(tmp_path, defined_as(expression))
    assert message in said
    assert "TestCondition" in said or "Primitive" in said


def test_two_definitions_are_refused(tmp_path):
    twice = defined_as(f"{patient(finding('Pregnancy'))} , {patient(finding('Discitis'))}")
    assert "seed-research/TestCondition: named class has more than one definition" in refusals(tmp_path, twice)


def test_a_cycle_is_refused_with_the_whole_way(tmp_path):
    other = f" seed-research:Other a owl:Class ; owl:equivalentClass {negated('seed-research:TestCondition')} ."
    said = refusals(tmp_path, defined_as(negated("seed-research:Other")) + other)
    circle = "seed-research/TestCondition -> seed-research/Other -> seed-research/TestCondition"
    assert f"cyclic definition: {circle}" in said


def test_every_bad_clause_is_reported_at_once(tmp_path):
    second = (
        defined_as(patient(finding("Flu")))
        .replace("seed-research:TEST ", "seed-research:SECOND ")
        .replace("seed-research/TEST", "seed-research/SECOND")
        .replace("TestCondition", "SecondCondition")
    )
    said = refusals(tmp_path, defined_as(patient(value("bloodGroup", "A"))) + second)
    assert "unknown feature bloodGroup" in said
    assert "unknown finding Flu" in said


def test_a_bad_condition_of_a_bridge_is_refused_too(tmp_path):
    bridge = """
    kypho:OddBridge a owl:NamedIndividual , kypho:Bridge ; kypho:bridgeName "odd" ;
        kypho:bridgeCondition kypho:OddCondition ; kypho:bridgeConclusion kypho:Pregnancy .
    kypho:OddCondition a owl:Class ; owl:equivalentClass """
    said = refusals(tmp_path, bridge + lesion(finding("Retropulsion")) + " .")
    assert "OddCondition: link indexLesion starts at a case, not at a Patient" in said


# -- slips of the author, which would otherwise be read as something else than OWL does

SLIPS = {
    "case in a union": combined("unionOf", "kypho:Case", patient(finding("Pregnancy"))),
    "a literal in a conjunction": combined("intersectionOf", patient(finding("Pregnancy")), '"x"'),
    "an individual of another choice": lesion(value("painTrend", "Male")),
    "a misspelt individual": lesion(some("painTrend", one_of("Stable", "Worsning"))),
    "a class of another category": lesion(some("primaryEtiology", "kypho:BurstFracture")),
    "a misspelt category": lesion(some("primaryEtiology", "kypho:Myeloma")),
    "an empty union of findings": patient(some("hasFinding", "[ a owl:Class ; owl:unionOf () ]")),
    "no individual": lesion(some("painTrend", "[ a owl:Class ; owl:oneOf () ]")),
    "two lower limits": lesion(some("painNrs", decimal("xsd:minInclusive 5.0", "xsd:minExclusive 3.0"))),
    "no limit": lesion(some("painNrs", decimal())),
    "an empty range": lesion(some("painNrs", decimal("xsd:minInclusive 5.0", "xsd:maxInclusive 3.0"))),
}


@pytest.mark.parametrize("kind", SLIPS)
def test_a_slip_of_the_author_is_refused(tmp_path, kind):
    assert "TestCondition" in refusals(tmp_path, defined_as(SLIPS[kind]))
