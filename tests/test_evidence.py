"""The evidence of the ontology against a table written by hand from the sources, and the rules that it keeps."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

import pytest

from kypho_kg.store import Literal, Store

TABLE = Path(__file__).parent / "tables" / "evidence.csv"
KYPHO = "https://w3id.org/kypho#"
PREFIXES = f"""
PREFIX kypho: <{KYPHO}>
PREFIX dcterms: <http://purl.org/dc/terms/>
PREFIX obo: <http://purl.obolibrary.org/obo/>
PREFIX rdfs: <http://www.w3.org/2000/01/rdf-schema#>
"""
MARKS = {
    "seen": "ReadAtSource",
    "seen-2nd": "ReadInSecondarySource",
    "memory": "Unverified",
    "memory-low": "Unverified",
}
SEED_OUTCOMES = {f"G{i}" for i in (*range(14, 18), *range(24, 31))} | {"R10"} | {f"R{i}" for i in range(17, 23)}
"""The statements of the founding summary on what the procedure achieves and what it costs."""

AGAINST = (
    "vertos-iv-vas-difference-12-months invest-pain-difference-1-month buchbinder-pain cochrane-no-benefit "
    "asbmr-vertebroplasty sanli-placebo"
).split()
FOR = (
    "vapour-nrs-below-4-14-days vertos-v-vas-difference-12-months free-pcs-difference-1-month acr-2022-early"
).split()


@pytest.fixture(scope="module")
def store(knowledge):
    return Store(knowledge.triples)


def rows(store, query):
    """The rows of a query, values as text and IRIs by their local names."""
    return [
        {k: v.text if isinstance(v, Literal) else v.removeprefix(KYPHO) for k, v in row.items()}
        for row in store.select(PREFIXES + query)
    ]


def number(text):
    return Decimal(text) if text else None


def name(text):
    return text.removeprefix("evidence-")


# --- the table


COLUMNS = ("study", "measure", "value", "low", "high", "n", "mark")


def test_every_statement_is_as_the_table_says(store):
    """No row is missing, none is left over, and no figure, number of participants or mark differs."""
    found = rows(
        store,
        """
        SELECT ?statement ?study ?measure ?value ?low ?high ?n ?mark WHERE {
          ?statement a kypho:EvidenceStatement ; kypho:fromStudy ?study ; kypho:measure ?measure ; kypho:mark ?mark .
          OPTIONAL { ?statement kypho:measuredValue ?value }
          OPTIONAL { ?statement kypho:lowerBound ?low }
          OPTIONAL { ?statement kypho:upperBound ?high }
          OPTIONAL { ?statement kypho:participants ?n }
        }""",
    )

    def key(study, measure, value, low, high, n, mark):
        return study, measure, number(value), number(low), number(high), number(n), mark

    ours = {
        name(r["statement"]): key(*(r.get(c, "").removeprefix("study-" if c == "study" else "") for c in COLUMNS))
        for r in found
    }
    with TABLE.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    theirs = {r["statement"]: key(*(MARKS[r[c]] if c == "mark" else r[c] for c in COLUMNS)) for r in lines}
    assert len(found) == len(ours), "a statement has one value of each property"
    assert len(lines) == len(theirs) == 246
    assert ours == theirs


def test_number_of_statements_and_studies(store):
    statements = rows(store, "SELECT ?s WHERE { ?s a kypho:EvidenceStatement }")
    studies = rows(store, "SELECT ?s WHERE { ?s a kypho:Study }")
    used = rows(store, "SELECT DISTINCT ?s WHERE { ?x kypho:fromStudy ?s }")
    assert len(statements) == 246, "each stands in the table, so each has a study"
    assert {r["s"] for r in studies} == {r["s"] for r in used}, "every study has a statement"


# --- spot checks


PROPERTIES = (
    "arm comparator comparatorValue baselineValue pValue eventCount denominator comparatorEventCount "
    "comparatorDenominator followUpTime followUpUnit ucumUnit direction studyDesign figureType detectionMethod "
    "aboutOutcome valueQualifier"
).split()


def statement(store, local):
    """All values of the named properties of a statement."""
    found = rows(store, f"SELECT ?p ?o WHERE {{ <{KYPHO}evidence-{local}> ?p ?o }}")
    return {r["p"]: r["o"] for r in found if r["p"] in PROPERTIES}


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (
            "free-pcs-difference-1-month",
            "aboutOutcome=PhysicalHealthImprovement direction=ShowsBenefit studyDesign=RandomisedTrial "
            "arm=BalloonKyphoplasty comparator=NonSurgicalManagementArm figureType=DifferenceBetweenGroups "
            "ucumUnit={score} followUpTime=1 followUpUnit=mo",
        ),
        (
            "vapour-nrs-below-4-14-days",
            "aboutOutcome=PainRelief direction=ShowsBenefit studyDesign=ShamControlledTrial arm=Vertebroplasty "
            "comparator=ShamProcedureArm figureType=Proportion ucumUnit=% comparatorValue=21 pValue=0.011 "
            "followUpTime=14 followUpUnit=d",
        ),
        (
            "kaviar-leakage-balloon-kyphoplasty",
            "aboutOutcome=CementLeakage direction=ShowsHarm studyDesign=RandomisedTrial arm=BalloonKyphoplasty "
            "comparator=Vertebroplasty figureType=Proportion ucumUnit=% comparatorValue=82 pValue=0.047 "
            "eventCount=157 denominator=214 comparatorEventCount=164 comparatorDenominator=201 "
            "detectionMethod=DetectionByCt",
        ),
        (
            "cafe-rdq-balloon-kyphoplasty-1-month",
            "aboutOutcome=DisabilityReduction direction=ShowsBenefit studyDesign=RandomisedTrial "
            "arm=BalloonKyphoplasty figureType=MeanFigure ucumUnit={score} baselineValue=17.6 followUpTime=1 "
            "followUpUnit=mo",
        ),
        (
            "vertos-iv-height-loss-odds-ratio",
            "aboutOutcome=FurtherVertebralHeightLoss direction=ShowsBenefit studyDesign=ShamControlledTrial "
            "arm=ShamProcedureArm comparator=Vertebroplasty figureType=OddsRatio ucumUnit=1",
        ),
        (
            "seed-pain-improvement",
            "aboutOutcome=PainRelief direction=ShowsBenefit studyDesign=FoundingSummary arm=BalloonKyphoplasty "
            "figureType=Proportion ucumUnit=% valueQualifier=>",
        ),
        (
            "buchbinder-pain",
            "aboutOutcome=PainRelief direction=ShowsNoDifference studyDesign=ShamControlledTrial arm=Vertebroplasty "
            "comparator=ShamProcedureArm",
        ),
    ],
)
def test_spot_check(store, local, expected):
    assert statement(store, local) == dict(pair.split("=", 1) for pair in expected.split())


@pytest.mark.parametrize(
    ("local", "comparator", "baseline"),
    [
        ("crandall-relief-2-weeks", "87", None),
        ("crandall-height-acute", None, "58"),
        ("crandall-height-chronic", None, "56"),
        ("crandall-near-normal-height", "26", None),
        ("free-24-kyphosis-correction", "0.8", None),
        ("cafe-rdq-non-surgical-1-month", None, "18.2"),
        ("vapour-height-loss", "63", None),
        ("vertos-ii-vas-change-1-month", "-2.7", None),
        ("vertos-ii-vas-change-12-months", "-3.7", None),
        ("vertos-ii-new-fractures", "30", None),
        ("vertos-ii-patients-with-new-fractures", "21", None),
        ("vertos-ii-height-loss", "35", None),
        ("vertos-iv-vas-12-months", "4.75", None),
        ("vertos-iv-height-loss", "45", None),
        ("vertos-iv-new-fractures", "28", None),
        ("vertos-iv-patients-with-new-fractures", "19", None),
        ("vertos-v-vas-vertebroplasty-12-months", None, "7.6"),
        ("vertos-v-vas-infiltration-12-months", None, "7.3"),
        ("invest-crossover-1-year", "16", None),
        ("buchbinder-baseline-pain", "7.1", None),
        ("buchbinder-baseline-duration", "9.5", None),
        ("buchbinder-baseline-early", "32", None),
        ("sakos-responders-12-months", "87.3", None),
        ("evolve-nrs-change-7-days", None, "8.7"),
        ("evolve-odi-change-12-months", None, "63.4"),
        ("evolve-pcs-change-12-months", None, "24.2"),
        ("evolve-eq-5d-change-12-months", None, "0.383"),
        ("kaviar-new-fractures-12-months", "57", None),
        ("kaviar-new-fractures-24-months", "64", None),
        ("pmc2899985-vas", None, "8.1"),
        ("perez-vas", None, "8.7"),
        ("of-optimised-accuracy", None, "73"),
        ("of-optimised-no-advice", None, "37"),
    ],
)
def test_second_figures(store, local, comparator, baseline):
    """The figure of the comparator, and the one before treatment."""
    found = statement(store, local)
    assert number(found.get("comparatorValue")) == number(comparator)
    assert number(found.get("baselineValue")) == number(baseline)


def test_shares_agree_with_their_counts(store):
    """A percentage is its count over its denominator, rounded as the source does."""
    found = rows(
        store,
        """
        SELECT ?s ?value ?events ?all WHERE {
          ?s kypho:figureType kypho:Proportion ; kypho:measuredValue ?value ; kypho:eventCount ?events ;
             kypho:denominator ?all
        }""",
    )
    assert len(found) >= 12
    for r in found:
        step = Decimal("0.5") if "." not in r["value"].removesuffix(".0") else Decimal("0.05")
        assert abs(100 * Decimal(r["events"]) / Decimal(r["all"]) - Decimal(r["value"])) <= step, r["s"]


def test_counts_agree_with_their_figures(store):
    """A number of events is the figure itself."""
    found = rows(
        store,
        """
        SELECT ?s ?value ?events WHERE {
          ?s kypho:figureType kypho:CountFigure ; kypho:measuredValue ?value ; kypho:eventCount ?events
        }""",
    )
    assert len(found) >= 15
    assert [r["s"] for r in found if Decimal(r["value"]) != Decimal(r["events"])] == []


def test_percentages_lie_between_0_and_100(store):
    found = rows(
        store,
        """
        SELECT ?s ?value WHERE {
          ?s kypho:figureType kypho:Proportion ; kypho:ucumUnit "%" ;
             (kypho:measuredValue|kypho:comparatorValue|kypho:baselineValue|kypho:lowerBound|kypho:upperBound) ?value
        }""",
    )
    assert len(found) > 50
    assert [r["s"] for r in found if not 0 <= Decimal(r["value"]) <= 100] == []


def test_units_are_ucum_codes(store):
    units = {
        r["u"] for r in rows(store, "SELECT DISTINCT ?u WHERE { ?s a kypho:EvidenceStatement ; kypho:ucumUnit ?u }")
    }
    assert units == set("1 % {score} {#} mm deg s h d wk".split())


# --- contradictions


def contradictions(store):
    found = rows(store, "SELECT ?one ?other WHERE { ?one kypho:contradicts ?other }")
    return {(name(r["one"]), name(r["other"])) for r in found}


def test_contradiction_holds_both_ways(store):
    pairs = contradictions(store)
    assert len(pairs) == 88
    assert pairs == {(other, one) for one, other in pairs}
    assert [p for p in pairs if p[0] == p[1]] == []


def test_the_trials_that_disagree_stand_side_by_side(store):
    pairs = contradictions(store)
    assert {(a, f) for a in AGAINST for f in FOR} <= pairs
    assert {direction(store, a) for a in AGAINST} == {"ShowsNoDifference"}
    assert {direction(store, f) for f in FOR} == {"ShowsBenefit"}


def direction(store, local):
    return statement(store, local)["direction"]


def test_corrected_figure_stands_beside_the_remembered_one(store):
    assert ("vertos-ii-vas-raw-difference-1-month", "vertos-ii-vas-difference-1-month") in contradictions(store)


def test_panels_disagree(store):
    assert ("rand-us-augmentation", "nass-osteoporotic-cement-appropriate") in contradictions(store)


# --- leakage


LEAKAGE = "?outcome rdfs:subClassOf* kypho:CementLeakage . ?s kypho:aboutOutcome ?outcome ."


def test_every_statement_on_leakage_says_how_it_was_looked_for(store):
    every = rows(store, f"SELECT DISTINCT ?s WHERE {{ {LEAKAGE} }}")
    method = rows(store, f"SELECT DISTINCT ?s WHERE {{ {LEAKAGE} ?s kypho:detectionMethod ?m }}")
    assert len(every) == 15
    assert {r["s"] for r in every} == {r["s"] for r in method}


def test_leakage_runs_from_9_to_82_percent_of_patients_and_levels(store):
    """The lowest share of a single series is 9 %; a review of malignant fractures gives 6 % of levels."""
    found = rows(
        store,
        f"""
        SELECT ?s ?value ?method WHERE {{ {LEAKAGE}
          ?s kypho:figureType kypho:Proportion ; kypho:measuredValue ?value ; kypho:detectionMethod ?method }}""",
    )
    share = {name(r["s"]): Decimal(r["value"]) for r in found}
    assert share.pop("bouza-leakage") == 6
    assert (min(share.values()), max(share.values())) == (9, 82)
    ct = {name(r["s"]) for r in found if r["method"] == "DetectionByCt"}
    assert ct == {"kaviar-leakage-balloon-kyphoplasty", "kaviar-leakage-vertebroplasty"}
    assert min(share[s] for s in ct) > max(v for s, v in share.items() if s not in ct)


# --- the founding summary, outcomes and arms


def test_every_outcome_of_the_founding_summary_is_a_statement(store):
    found = rows(
        store,
        """
        SELECT ?id ?design WHERE {
          ?s a kypho:EvidenceStatement ; kypho:seedStatement ?id ; kypho:studyDesign ?design
        }""",
    )
    assert {r["id"] for r in found} == SEED_OUTCOMES
    assert {r["design"] for r in found} == {"FoundingSummary"}


def test_outcomes_are_no_findings_and_cannot_be_recorded(store, knowledge):
    outcomes = {r["c"] for r in rows(store, "SELECT ?c WHERE { ?c rdfs:subClassOf* kypho:Outcome }")}
    assert len(outcomes) == 66
    findings = {r["c"] for r in rows(store, "SELECT ?c WHERE { ?c rdfs:subClassOf* kypho:Finding }")}
    assert outcomes & findings == set()
    assert outcomes & set(knowledge.by_name) == set()


def test_statements_are_about_outcomes(store):
    about = {r["c"] for r in rows(store, "SELECT DISTINCT ?c WHERE { ?s kypho:aboutOutcome ?c }")}
    outcomes = {r["c"] for r in rows(store, "SELECT ?c WHERE { ?c rdfs:subClassOf* kypho:Outcome }")}
    assert about <= outcomes


def test_arms_are_techniques_or_study_arms(store):
    used = {r["a"] for r in rows(store, "SELECT DISTINCT ?a WHERE { ?s kypho:arm|kypho:comparator ?a }")}
    known = {
        r["a"] for r in rows(store, "SELECT ?a WHERE { ?a a ?c FILTER(?c IN (kypho:Technique, kypho:TreatmentArm)) }")
    }
    assert used <= known
    assert {"BalloonKyphoplasty", "Vertebroplasty", "ShamProcedureArm"} <= used


def test_every_statement_is_a_sentence(store):
    texts = [r["t"] for r in rows(store, "SELECT ?s ?t WHERE { ?s a kypho:EvidenceStatement ; obo:IAO_0000115 ?t }")]
    assert len(texts) == 246
    assert [t for t in texts if not t.endswith(".") or not t[0].isupper()] == []


def test_what_a_policy_tells_of_a_trial_is_second_hand(store):
    found = rows(
        store,
        """
        SELECT ?s ?mark WHERE {
          ?s a kypho:EvidenceStatement ; dcterms:bibliographicCitation ?c ; kypho:mark ?mark .
          FILTER(REGEX(?c, "as (told|quoted) in"))
        }""",
    )
    assert len(found) == 13
    assert {r["mark"] for r in found} == {"ReadInSecondarySource"}
