"""The verdict rules: every combination of truths, by three independent ways, on two SPARQL engines."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import rdflib

from kypho_kg import verdicts
from kypho_kg.errors import EngineError
from kypho_kg.evaluation import Truth
from kypho_kg.store import Literal
from kypho_kg.verdicts import VERDICTS, conclude, derive_query, verdict_graph
from kypho_kg.vocabulary import KYPHO, local

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ("scope", "absolute", "exclusion", "requirement", "indication", "relative")
EFFECT = dict(
    zip(
        GROUPS,
        ("DefinesScope", "ContraindicatesAbsolutely", "Excludes", "Requires", "Indicates", "ContraindicatesRelatively"),
        strict=True,
    )
)
WORDS = {"met": Truth.MET, "not met": Truth.NOT_MET, "unknown": Truth.UNKNOWN}
COMBINATIONS = [
    c for c in itertools.product(*[(*WORDS, "none") if g == "indication" else tuple(WORDS) for g in GROUPS])
]


def rules():
    """The decision table of docs/verdicts.md."""
    text = (ROOT / "docs" / "verdicts.md").read_text("utf-8").partition("decision table:")[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [(tuple(r[:-1]), r[-1]) for r in rows[2:]]


def by_table(combination):
    """The verdict by the first fitting row; no indication counts as met."""
    plain = tuple("met" if c == "none" else c for c in combination)
    return next(v for pattern, v in rules() if all(p in ("*", c) for p, c in zip(pattern, plain, strict=True)))


def ends_by_trying(combination):
    """Every completion of the unknown groups."""
    options = [("met", "not met") if c == "unknown" else (c,) for c in combination]
    found = {by_table(c) for c in itertools.product(*options)}
    return tuple(v for v in VERDICTS if v in found)


def clause(template, effect, name):
    iri = f"https://example.org/{name}"
    return replace(template, iri=iri, id=f"test/{name}", effect=effect, reading="")


@pytest.fixture(scope="module")
def variants(knowledge):
    """One assessment for each combination, with one clause for each group."""
    template = knowledge.guidelines["seed-research"].recommendations[0]
    made = {}
    for number, combination in enumerate(COMBINATIONS):
        rows = [
            (clause(template, EFFECT[g], g), WORDS[truth])
            for g, truth in zip(GROUPS, combination, strict=True)
            if truth != "none"
        ]
        made[f"c{number}", ""] = rows
    return made


def test_all_combinations(variants):
    """Query, decision table and trying agree, and the published table is what they say."""
    found = conclude(variants)
    rows = []
    for number, combination in enumerate(COMBINATIONS):
        got = found[f"c{number}", ""]
        assert got.verdict == by_table(combination), combination
        assert got.reachable == ends_by_trying(combination), combination
        rows.append([*combination, got.verdict, " ".join(got.reachable)])
    assert len(rows) == 972
    with (ROOT / "docs" / "verdict-table.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1:] == rows


def rdflib_graph(triples):
    graph = rdflib.Graph()
    for s, p, o in triples:
        graph.add(
            (rdflib.URIRef(s), rdflib.URIRef(p), rdflib.Literal(o.text) if isinstance(o, Literal) else rdflib.URIRef(o))
        )
    return graph


def test_rdflib_says_the_same(variants):
    """The deciding query gives the same verdicts on the second engine (every eleventh combination)."""
    some = dict(itertools.islice(variants.items(), 0, None, 11))
    expected = conclude(some)
    result = rdflib_graph(verdict_graph(some)).query(derive_query("verdict")).graph
    for (id_, variant), conclusion in expected.items():
        node = rdflib.URIRef(f"urn:kypho:assessment/{id_}/{variant}")
        assert [local(str(o)) for o in result.objects(node, rdflib.URIRef(KYPHO + "verdict"))] == [conclusion.verdict]
        ends = {local(str(o)) for o in result.objects(node, rdflib.URIRef(KYPHO + "reachable"))}
        assert ends == set(conclusion.reachable), variant


def test_many_clauses_in_one_group(knowledge):
    """Groups of several clauses: one met absolute contraindication is enough, one unknown keeps it open."""
    template = knowledge.guidelines["seed-research"].recommendations[0]

    def verdict(*truths):
        rows = [(clause(template, "ContraindicatesAbsolutely", f"a{i}"), t) for i, t in enumerate(truths)]
        rows.append((clause(template, "Indicates", "i"), Truth.MET))
        return conclude({("g", ""): rows})["g", ""].verdict

    assert verdict(Truth.NOT_MET, Truth.UNKNOWN, Truth.MET) == "Contraindicated"
    assert verdict(Truth.NOT_MET, Truth.UNKNOWN, Truth.NOT_MET) == "Undetermined"
    assert verdict(Truth.NOT_MET, Truth.NOT_MET) == "Candidate"


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        (["Rates", "ContraindicatesAbsolutely"], "Rated"),
        (["Advises"], "NoVerdict"),
        (["ContraindicatesRelatively"], "NoVerdict"),
    ],
)
def test_guideline_that_judges_nothing(knowledge, effects, expected):
    """Neither requirement nor indication: rated or no verdict, and outside its scope not applicable."""
    template = knowledge.guidelines["seed-research"].recommendations[0]
    rows = [(clause(template, e, f"x{i}"), Truth.MET) for i, e in enumerate(effects)]
    assert conclude({("g", ""): rows})["g", ""].verdict == expected
    out = [*rows, (clause(template, "DefinesScope", "s"), Truth.NOT_MET)]
    assert conclude({("g", ""): out})["g", ""].verdict == "NotApplicable"


@pytest.mark.parametrize("change", ["missing", "double"])
def test_each_recommendation_has_exactly_one_truth(knowledge, monkeypatch, change):
    """A clause without a truth, or with two, is an engine error and never a verdict."""
    template = knowledge.guidelines["seed-research"].recommendations[0]
    rows = [(clause(template, "Indicates", "i"), Truth.MET), (clause(template, "Requires", "r"), Truth.MET)]
    original = verdict_graph

    def broken(variants):
        triples = list(original(variants))
        truths = [t for t in triples if t[1] == KYPHO + "truth"]
        if change == "missing":
            triples.remove(truths[0])
        else:
            s, p, _ = truths[0]
            triples.append((s, p, KYPHO + "NotMet"))
        return triples

    monkeypatch.setattr(verdicts, "verdict_graph", broken)
    with pytest.raises(EngineError, match="exactly one truth"):
        conclude({("g", ""): rows})
