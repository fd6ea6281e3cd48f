"""The axiom profile, what a feature and a guideline must say, and a knowledge base that is incomplete."""

from __future__ import annotations

import shutil

import pytest
from builders import ROOT, TEST_CLAUSE, defined_as, every, knowledge_with, ontology_with, refusals

from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.loading import import_closure, read_knowledge
from kypho_kg.store import Triples

RESTRICTION = "[ a owl:Restriction ; owl:onProperty kypho:hasFinding ; owl:someValuesFrom kypho:Pregnancy ]"
FEMALE = "[ a owl:Restriction ; owl:onProperty kypho:sex ; owl:hasValue kypho:Female ; rdfs:subClassOf {} ]"
NOT = "[ a owl:Class ; owl:complementOf {} ]"

# -- axioms

AXIOMS = {
    "a domain": ("kypho:sex rdfs:domain kypho:Patient .", "sex domain Patient: outside the axiom profile"),
    "a sub-property": (
        "kypho:painNrs rdfs:subPropertyOf kypho:x .",
        "painNrs subPropertyOf x: outside the axiom profile",
    ),
    "an inverse": ("kypho:hasLesion owl:inverseOf kypho:lesionOf .", "hasLesion inverseOf lesionOf"),
    "two properties that are one": ("kypho:sex owl:equivalentProperty kypho:gender .", "sex equivalentProperty gender"),
    "two individuals that are one": ("kypho:Male owl:sameAs kypho:Man .", "Male sameAs Man"),
    "a key": ("kypho:Patient owl:hasKey ( kypho:age ) .", "Patient hasKey"),
    "a disjoint union": ("kypho:Case owl:disjointUnionOf ( kypho:A kypho:B ) .", "Case disjointUnionOf"),
    "a transitive property": ("kypho:hasLesion a owl:TransitiveProperty .", "hasLesion is declared TransitiveProperty"),
    "a symmetric property": ("kypho:hasLesion a owl:SymmetricProperty .", "hasLesion is declared SymmetricProperty"),
    "a second role chain": (
        "kypho:indexLesion owl:propertyChainAxiom ( kypho:hasLesion kypho:hasFinding ) .",
        "indexLesion: the only role chain is hasLesion o hasFinding -> hasFinding",
    ),
    "another chain to findings": (
        "kypho:hasFinding owl:propertyChainAxiom ( kypho:indexLesion kypho:hasFinding ) .",
        "hasFinding: the only role chain is",
    ),
    "an existential on a class": (
        f"kypho:Pregnancy rdfs:subClassOf {RESTRICTION} .",
        "Pregnancy SubClassOf hasFinding restriction: an existential or covering on a class",
    ),
    "a covering": (
        "kypho:SpinalInfection rdfs:subClassOf [ a owl:Class ; "
        "owl:unionOf ( kypho:Discitis kypho:VertebralOsteomyelitis ) ] .",
        "SpinalInfection SubClassOf anonymous class: an existential or covering on a class",
    ),
    "a defined finding": (
        f"kypho:Pregnancy owl:equivalentClass {RESTRICTION} .",
        "Pregnancy: a finding is primitive and has no definition",
    ),
    "a general axiom": (
        f"{RESTRICTION} rdfs:subClassOf kypho:Patient .",
        "a general axiom that is no closure 'choice value x SubClassOf not (hasFinding some C)': "
        "hasFinding SubClassOf Patient",
    ),
    "a closure that asserts a finding": (FEMALE.format(RESTRICTION) + " .", "a general axiom that is no closure"),
    "a closure on a heading": (
        FEMALE.format(NOT.format(RESTRICTION.replace("Pregnancy", "SafetyFinding"))) + " .",
        "a general axiom that is no closure",
    ),
    "a closure on a finding of another bearer": (
        FEMALE.format(NOT.format(RESTRICTION.replace("Pregnancy", "Retropulsion"))) + " .",
        "a general axiom that is no closure",
    ),
    "a closure of a value that the choice does not have": (
        FEMALE.replace("Female", "Stable").format(NOT.format(RESTRICTION)) + " .",
        "a general axiom that is no closure",
    ),
}


@pytest.mark.parametrize("kind", every(3, AXIOMS))
def test_an_axiom_outside_the_profile_is_refused_by_name(tmp_path, kind):
    turtle, message = AXIOMS[kind]
    assert message in refusals(tmp_path, turtle)


def test_a_circle_of_subclasses_is_refused_with_the_whole_way(tmp_path):
    said = refusals(tmp_path, "kypho:ActiveInfection rdfs:subClassOf kypho:Discitis .")
    circle = (
        next(line for line in said.splitlines() if "circle" in line).removeprefix("subclass circle: ").split(" -> ")
    )
    assert circle[0] == circle[-1]
    assert set(circle) == {"ActiveInfection", "Discitis", "SpinalInfection"}


ALLOWED = {
    "a closure of a value": FEMALE.replace("Female", "Male").format(
        NOT.format(RESTRICTION.replace("Pregnancy", "Hypothyroidism"))
    )
    + " .",
    "a hierarchy of annotations": (
        "kypho:shortNote a owl:AnnotationProperty ; rdfs:subPropertyOf rdfs:comment ; rdfs:domain kypho:Case ."
    ),
    "a term that is out of use": "kypho:OldFinding a owl:Class ; owl:deprecated true .",
    "disjointness of two classes": "kypho:Radiculopathy owl:disjointWith kypho:Hypertension .",
}


@pytest.mark.parametrize("kind", every(3, ALLOWED))
def test_what_the_profile_allows_is_read(tmp_path, kind):
    knowledge = knowledge_with(tmp_path, ALLOWED[kind])
    assert len(knowledge.value_closures) == (2 if kind == "a closure of a value" else 1)
    assert knowledge.disjoint(*(f"https://w3id.org/kypho#{n}" for n in ("Radiculopathy", "Hypertension"))) is (
        kind == "disjointness of two classes"
    )


# -- features

FINDING = """
kypho:Test a owl:Class ; rdfs:label "test"@en ; rdfs:subClassOf kypho:SafetyFinding ;
    kypho:bearer kypho:Patient ; kypho:acquisition kypho:History ; kypho:changeability kypho:CanChange .
"""
QUANTITY = """
kypho:test a owl:DatatypeProperty , owl:FunctionalProperty ; rdfs:label "test"@en ; rdfs:range xsd:decimal ;
    kypho:featureKind kypho:QuantityFeature ; kypho:bearer kypho:Patient ; kypho:ucumUnit "kg" ;
    kypho:acquisition kypho:History ; kypho:changeability kypho:CanChange .
"""
CHOICE = """
kypho:test a owl:ObjectProperty , owl:FunctionalProperty ; rdfs:label "test"@en ; rdfs:range kypho:TestValue ;
    kypho:featureKind kypho:ChoiceFeature ; kypho:bearer kypho:Patient ;
    kypho:acquisition kypho:History ; kypho:changeability kypho:CanChange .
kypho:TestValue a owl:Class ; owl:equivalentClass [ a owl:Class ; owl:oneOf ( kypho:One kypho:Two ) ] .
[] a owl:AllDifferent ; owl:distinctMembers ( kypho:One kypho:Two ) .
"""
CATEGORY = """
kypho:test a owl:ObjectProperty , owl:FunctionalProperty ; rdfs:label "test"@en ; rdfs:range kypho:Root ;
    kypho:featureKind kypho:CategoryFeature ; kypho:categoryRoot kypho:Root ; kypho:bearer kypho:Patient ;
    kypho:acquisition kypho:History ; kypho:changeability kypho:CanChange .
kypho:Root a owl:Class ; rdfs:subClassOf kypho:CategoryValue .
kypho:Left a owl:Class ; rdfs:subClassOf kypho:Root . kypho:Right a owl:Class ; rdfs:subClassOf kypho:Root .
[] a owl:AllDisjointClasses ; owl:members ( kypho:Left kypho:Right ) .
"""


@pytest.mark.parametrize(
    "turtle", [FINDING, QUANTITY, CHOICE, CATEGORY], ids=["finding", "quantity", "choice", "category"]
)
def test_a_new_feature_of_each_kind_is_read(tmp_path, turtle):
    knowledge = knowledge_with(tmp_path, turtle)
    assert ("Test" if turtle == FINDING else "test") in knowledge.by_name


FEATURES = {
    "two bearers": (FINDING, "kypho:Test kypho:bearer kypho:VertebralLesion .", "Test: needs exactly one bearer"),
    "a bearer of no features": (
        FINDING.replace("bearer kypho:Patient", "bearer kypho:Case"), "", "Test: needs exactly one bearer"),
    "no bearer": (QUANTITY.replace("kypho:bearer kypho:Patient ;", ""), "", "test: needs exactly one bearer"),
    "no label": (QUANTITY.replace('rdfs:label "test"@en ;', ""), "", "test: needs a label"),
    "no acquisition": (
        FINDING.replace("; kypho:acquisition kypho:History", ""), "", "Test: needs a way of acquisition with a burden"),
    "an acquisition without burden": (
        FINDING.replace("History", "Guesswork"), "", "Test: needs a way of acquisition with a burden"),
    "no changeability": (
        FINDING.replace("; kypho:changeability kypho:CanChange", ""), "", "Test: needs a changeability: CanChange"),
    "an unknown changeability": (
        FINDING.replace("CanChange", "MayChange"), "", "Test: needs a changeability: CanChange, CannotChange, Only"),
    "an unknown selection rule": (
        QUANTITY, "kypho:test kypho:selectionRule kypho:Oldest .", "test: unknown selection rule Oldest"),
    "an unknown derivation": (
        QUANTITY, "kypho:test kypho:derivedBy kypho:Magic .", "test: unknown kind of derivation Magic"),
    "a lookback other than that of the whole": (
        FINDING, "kypho:Test rdfs:subClassOf kypho:Pregnancy ; kypho:lookbackDays 31 .",
        "Test and Pregnancy: a finding and its superclass have the same lookback"),
    "a quantity with several values": (
        QUANTITY.replace(", owl:FunctionalProperty", ""), "", "test: a quantity must be functional"),
    "a choice with several values": (
        CHOICE.replace(", owl:FunctionalProperty", ""), "", "test: a choice must be functional"),
    "a category with several values": (
        CATEGORY.replace(", owl:FunctionalProperty", ""), "", "test: a category must be functional"),
    "a quantity of another type": (
        QUANTITY.replace("xsd:decimal", "xsd:double"), "", "test: a quantity has the range xsd:decimal"),
    "a quantity without unit": (
        QUANTITY.replace('kypho:ucumUnit "kg" ;', ""), "", "test: a quantity needs a UCUM unit"),
    "a choice of anything": (
        CHOICE.replace("range kypho:TestValue", "range kypho:Case"), "",
        "test: the range of a choice is a class defined by an enumeration"),
    "a choice of perhaps equal individuals": (
        CHOICE.replace("owl:distinctMembers ( kypho:One kypho:Two )", "owl:distinctMembers ( kypho:One )"), "",
        "test: its individuals are not declared all different"),
    "a category without a root": (
        CATEGORY.replace("kypho:categoryRoot kypho:Root ;", ""), "", "test: a category needs a root of its tree"),
    "a category whose tree is a net": (
        CATEGORY, "kypho:Both a owl:Class ; rdfs:subClassOf kypho:Left , kypho:Right .",
        "Both: a value of test has exactly one parent"),
    "a category with siblings that may overlap": (
        CATEGORY, "kypho:Third a owl:Class ; rdfs:subClassOf kypho:Root .",
        "siblings in the tree of test must be disjoint"),
}  # fmt: skip


@pytest.mark.parametrize("kind", every(3, FEATURES))
def test_a_feature_that_says_too_little_is_refused_by_name(tmp_path, kind):
    turtle, more, message = FEATURES[kind]
    assert message in refusals(tmp_path, turtle + more)


# -- guidelines

PREGNANT = (
    "[ a owl:Restriction ; owl:onProperty kypho:concernsPatient ; owl:someValuesFrom "
    "[ a owl:Restriction ; owl:onProperty kypho:hasFinding ; owl:someValuesFrom kypho:Pregnancy ] ]"
)
CLAUSE = defined_as(PREGNANT)


def test_a_clause_that_says_all_it_must_is_read(tmp_path):
    clauses = knowledge_with(tmp_path, CLAUSE).guidelines["seed-research"].recommendations
    assert [r.id for r in clauses][-1] == "seed-research/TEST"


GUIDELINES = {
    "no effect": (
        CLAUSE.replace("kypho:effect kypho:Advises ;", ""), "seed-research/TEST: needs one effect of DefinesScope"),
    "two effects": (
        CLAUSE.replace("kypho:Advises", "kypho:Advises , kypho:Requires"), "seed-research/TEST: needs one effect of"),
    "an unknown effect": (CLAUSE.replace("kypho:Advises", "kypho:Forbids"), "seed-research/TEST: needs one effect of"),
    "no condition": (
        CLAUSE.replace("kypho:condition seed-research:TestCondition ;", ""),
        "seed-research/TEST: needs one condition, has 0"),
    "two conditions": (
        CLAUSE.replace("kypho:condition ", "kypho:condition seed-research:SEED-R6-Condition , "),
        "seed-research/TEST: needs one condition, has 2"),
    "no mark": (
        CLAUSE.replace("kypho:mark kypho:ReadAtSource ;", ""),
        "seed-research/TEST: a clause needs a verification mark and a citation"),
    "no citation": (
        CLAUSE.replace('dcterms:bibliographicCitation "a test"', 'rdfs:comment "a test"'),
        "seed-research/TEST: a clause needs a verification mark and a citation"),
    "the id of another clause": (
        CLAUSE.replace('"seed-research/TEST"', '"seed-research/SEED-R6"'),
        "seed-research/SEED-R6: the notation must be unique and begin with seed-research/"),
    "the id of another guideline": (
        CLAUSE.replace('"seed-research/TEST"', '"nice-ta279/TEST"'),
        "nice-ta279/TEST: the notation must be unique and begin with seed-research/"),
    "a conjunct of no pathway": (
        CLAUSE.replace("kypho:Advises", "kypho:RequiresWithinPathway"),
        "seed-research/TEST: is no conjunct of the pathway (none)"),
    "a conjunct that its pathway does not hold": (
        CLAUSE.replace("kypho:Advises ;", "kypho:RequiresWithinPathway ; kypho:conjunctOf seed-research:SEED-R2 ;"),
        "seed-research/TEST: is no conjunct of the pathway seed-research/SEED-R2"),
    "no clause at all": (
        'kypho:empty a owl:NamedIndividual , kypho:Guideline ; skos:notation "empty" .',
        "empty: a guideline without recommendations"),
}  # fmt: skip


@pytest.mark.parametrize("kind", every(3, GUIDELINES))
def test_a_guideline_that_says_too_little_is_refused_by_clause(tmp_path, kind):
    turtle, message = GUIDELINES[kind]
    assert message in refusals(tmp_path, turtle)


def test_a_conjunct_of_a_pathway_is_one_of_its_operands(tmp_path):
    within = TEST_CLAUSE.replace("Advises ;", "RequiresWithinPathway ; kypho:conjunctOf seed-research:P ;")
    pathway = f"""{within}
    seed-research:TestCondition owl:equivalentClass {PREGNANT} .
    seed-research:guideline kypho:hasRecommendation seed-research:P .
    seed-research:P a owl:NamedIndividual , kypho:Recommendation ; skos:notation "seed-research/P" ;
        kypho:orderNumber 98 ; kypho:effect kypho:Indicates ; kypho:condition seed-research:PCondition ;
        kypho:mark kypho:ReadAtSource ; dcterms:bibliographicCitation "a test" .
    seed-research:PCondition a owl:Class ; owl:equivalentClass [ a owl:Class ; owl:intersectionOf (
        seed-research:TestCondition seed-research:SEED-R6-Condition ) ] ."""
    found = knowledge_with(tmp_path, pathway).guidelines["seed-research"].by_clause("TEST")
    assert found.conjunct_of == "seed-research/P"


RULES = {
    "a bridge to a heading": (
        'kypho:B a kypho:Bridge ; kypho:bridgeName "b" ; kypho:bridgeConclusion kypho:SafetyFinding .',
        "B: the conclusion 'SafetyFinding' is no recordable finding",
    ),
    "a policy that closes a heading": (
        "kypho:P a kypho:AssumptionPolicy ; kypho:hasClosure kypho:C . kypho:C kypho:closes kypho:SafetyFinding .",
        "C: closes something that is no recordable finding",
    ),
    "a policy that closes nothing": (
        "kypho:P a kypho:AssumptionPolicy ; kypho:hasClosure kypho:C .",
        "C: closes something that is no recordable finding",
    ),
    "a policy under a condition of something else": (
        "kypho:P a kypho:AssumptionPolicy ; kypho:hasClosure kypho:C . kypho:C kypho:closes kypho:Pregnancy ; "
        "kypho:closureCondition kypho:N . kypho:N owl:equivalentClass [ a owl:Restriction ; "
        "owl:onProperty kypho:hasFinding ; owl:someValuesFrom kypho:FusionPlanned ] .",
        "N: is no condition of Patient",
    ),
}


@pytest.mark.parametrize("kind", every(3, RULES))
def test_a_bridge_or_policy_that_cannot_work_is_refused_by_name(tmp_path, kind):
    turtle, message = RULES[kind]
    assert message in refusals(tmp_path, turtle)


@pytest.mark.parametrize("construct", ["owl:allValuesFrom kypho:Patient", "owl:maxCardinality 1"])
def test_a_construct_inside_a_definition_is_named_with_its_class(tmp_path, construct):
    inside = f"[ a owl:Restriction ; owl:onProperty kypho:concernsPatient ; {construct} ]"
    said = refusals(tmp_path, defined_as(inside))
    assert "seed-research/TestCondition" in said
    assert "_:" not in said


MALFORMED = {
    "a rule for numbers on a choice": "kypho:painTrend kypho:selectionRule kypho:HighestInWindow .",
    "two lookbacks": "kypho:inr kypho:lookbackDays 3 .",
    "two units": 'kypho:inr kypho:ucumUnit "kg" .',
    "a lookback that is no number": QUANTITY + 'kypho:test kypho:lookbackDays "long" .',
    "an accepted unit without a factor": QUANTITY + 'kypho:test kypho:acceptsUnit "g" .',
    "a burden that is no number": 'kypho:Test a kypho:AcquisitionMethod ; kypho:burden "much" .'
    + QUANTITY.replace("History", "Test"),
    "an order that is no number": CLAUSE.replace("orderNumber 99", 'orderNumber "last"'),
    "a first day that is no day": 'seed-research:guideline kypho:effectiveFrom "2020" .',
}


@pytest.mark.parametrize("kind", every(3, MALFORMED))
def test_a_malformed_annotation_is_refused_and_no_crash(tmp_path, kind):
    assert refusals(tmp_path, MALFORMED[kind])


def test_all_violations_are_listed(tmp_path):
    said = refusals(
        tmp_path, "kypho:sex rdfs:domain kypho:Patient ; owl:inverseOf kypho:x ." + QUANTITY.replace('"kg"', '""')
    )
    assert len(said.splitlines()) == 3


# -- an incomplete knowledge base


def test_the_shipped_ontology_is_inside_its_profiles():
    knowledge = read_knowledge(ROOT / "ontology")
    assert knowledge.version
    assert len(knowledge.sha256) == 64


def test_the_hash_follows_every_file(tmp_path):
    before = read_knowledge(ROOT / "ontology").sha256
    assert read_knowledge(ontology_with(tmp_path / "same")).sha256 != before
    copy = shutil.copytree(ROOT / "ontology", tmp_path / "copy")
    assert read_knowledge(copy).sha256 == before


def test_an_import_outside_the_catalog_is_refused(tmp_path):
    imports = "<https://w3id.org/kypho/modules/safety> owl:imports <https://example.org/other> ."
    said = refusals(tmp_path, imports, "modules/safety.ttl")
    assert "safety.ttl: import https://example.org/other is not in catalog-v001.xml" in said


def test_a_missing_file_is_named(tmp_path):
    root = ontology_with(tmp_path)
    (root / "modules/safety.ttl").unlink()
    with pytest.raises(KnowledgeBaseError, match=r"safety\.ttl"):
        read_knowledge(root)


@pytest.mark.parametrize("catalog", ["", "<catalog>", None], ids=["empty", "broken", "missing"])
def test_a_catalog_that_cannot_be_read_is_named(tmp_path, catalog):
    root = ontology_with(tmp_path)
    (root / "catalog-v001.xml").unlink()
    if catalog is not None:
        (root / "catalog-v001.xml").write_text(catalog)
    with pytest.raises(KnowledgeBaseError, match=r"catalog-v001\.xml"):
        read_knowledge(root)


def test_broken_turtle_is_named_with_its_file(tmp_path):
    assert refusals(tmp_path, "kypho:Oops a ;", "modules/safety.ttl").startswith("safety.ttl: ")


def test_blank_nodes_of_two_files_are_kept_apart():
    files = import_closure(ROOT / "ontology")
    nodes = [{s for s, _, _ in rows if s.startswith("_:")} for rows in files.values()]
    assert sum(map(len, nodes)) == len(set().union(*nodes)) > 100


def test_a_broken_list_is_refused():
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    circle = Triples([("_:a", rdf + "first", "x"), ("_:a", rdf + "rest", "_:a")])
    with pytest.raises(KnowledgeBaseError, match="broken RDF list"):
        circle.items("_:a")
    with pytest.raises(KnowledgeBaseError, match="broken RDF list"):
        Triples([("_:a", rdf + "first", "x")]).items("_:a")
