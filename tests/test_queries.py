"""Every bundled query runs, and gives the same rows on Oxigraph and on rdflib."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import rdflib

from kypho_kg import querying
from kypho_kg._resources import resource_dir
from kypho_kg.errors import UsageError
from kypho_kg.mappings import GRAPH
from kypho_kg.store import Literal, Store, refuse_remote

NAMES = sorted(
    n
    for n in querying.bundled()
    if GRAPH not in querying.query_text(n)  # codes: test_mappings.py
    and "**Problem:**" not in querying.query_text(n)  # quality rules: test_qc.py
)


@pytest.fixture(scope="module")
def rdflib_graph(knowledge):
    """The knowledge base on the second engine."""
    graph = rdflib.Graph()

    def node(term):
        if isinstance(term, Literal):
            datatype = None if term.language else rdflib.URIRef(term.datatype)
            return rdflib.Literal(term.text, lang=term.language or None, datatype=datatype)
        return rdflib.BNode(re.sub(r"\W", "", term)) if term.startswith("_:") else rdflib.URIRef(term)

    for s, p, o in knowledge.triples:
        graph.add((node(s), rdflib.URIRef(p), node(o)))
    return graph


@pytest.mark.parametrize("name", NAMES)
def test_same_rows_on_both_engines(name, knowledge, rdflib_graph):
    """Rows are compared as a bag: numbers by value, and the parts of a concatenation without their order."""
    text = querying.query_text(name)

    def value(text):
        try:
            return float(text)
        except ValueError:
            return tuple(sorted(text.split(", ")))

    ours = Counter(
        tuple(sorted((k, value(v.text if isinstance(v, Literal) else v)) for k, v in row.items()))
        for row in Store(knowledge.triples).select(text)
    )
    theirs = Counter(
        tuple(sorted((str(k), value(str(v))) for k, v in row.asdict().items() if v is not None))
        for row in rdflib_graph.query(text)
    )
    assert ours, "a bundled query without a row shows nothing"
    assert ours == theirs


def test_seed_is_covered(knowledge):
    """All 55 statements of the founding summary are there; each condition of candidacy is carried by a clause."""
    expected = [f"G{i}" for i in range(1, 31)] + [f"R{i}" for i in range(1, 23)] + ["D1", "D2", "D3"]
    rows = {row["statement"]: row for row in querying.run(knowledge, "seed-coverage")}
    assert sorted(rows) == sorted(expected)
    working = {"indication", "selection", "contraindication", "technique"}
    assert [s for s, r in rows.items() if r["kind"] in working and not r["carriedBy"]] == []


def test_pattern_that_rdflib_answers_wrongly_is_not_used():
    """VALUES with OPTIONAL and !bound silently drops rows in rdflib."""
    for path in resource_dir("queries").rglob("*.rq"):
        text = re.sub(r"#.*", "", path.read_text("utf-8"))
        assert not ("VALUES" in text and "OPTIONAL" in text and re.search(r"!\s*bound", text, re.I)), path.name


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * { SERVICE <http://example.org/> { ?s ?p ?o } }",
        "SELECT * { { \\u0053ERVICE <http://example.org/> { ?s ?p ?o } } }",
        "SELECT * { { SELECT * { OPTIONAL { SERVICE SILENT <http://example.org/> { ?s ?p ?o } } } } }",
        "SELECT * FROM <file:///etc/hostname> { ?s ?p ?o }",
        "SELECT * FROM NAMED <http://example.org/> { GRAPH ?g { ?s ?p ?o } }",
        "DELETE WHERE { ?s ?p ?o }",
        "LOAD <http://example.org/>",
        "SELECT * { ?s ?p",
    ],
)
def test_query_that_reaches_outside_is_refused(query):
    """Neither SERVICE nor FROM nor an update, however it is written."""
    with pytest.raises(UsageError):
        refuse_remote(query)


def test_own_query_file(knowledge, tmp_path):
    """A user's own file runs, in each of the three forms."""
    file = tmp_path / "own.rq"
    head = "PREFIX k: <https://w3id.org/kypho#> "
    file.write_text(head + "ASK { k:Finding a ?x }", "utf-8")
    assert querying.run(knowledge, str(file)) == [{"answer": "true"}]
    file.write_text(head + "CONSTRUCT { k:T1 k:levelOrder ?n } WHERE { k:T1 k:levelOrder ?n }", "utf-8")
    assert querying.run(knowledge, str(file)) == [{"subject": "T1", "predicate": "levelOrder", "object": "8"}]
    with pytest.raises(UsageError, match="seed-coverage"):
        querying.run(knowledge, "no-such-query")
