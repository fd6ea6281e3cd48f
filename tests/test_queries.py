"""The query command and its own files; what the bundled queries answer is in test_competency.py and test_qc.py."""

from __future__ import annotations

import re

import pytest

from kypho_kg import querying
from kypho_kg._resources import resource_dir
from kypho_kg.errors import UsageError
from kypho_kg.sparql import refuse_remote, variables


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
        # What one parser takes for the rest of a comment, or the end of a text, and the other does not.
        "SELECT * { ?s ?p ?o #\rSERVICE <http://example.org/> { ?x ?y ?z }\n}",
        'SELECT * { ?s ?p ?o FILTER(?o != "a\\u0022) } #") SERVICE <http://example.org/> { ?x ?y ?z } }',
        "SELECT * { ?s ?p ?o #\\u000ASERVICE <http://example.org/> { ?x ?y ?z }\n}",
        "SELECT * { ?s ?p ?o \\U00000053ERVICE <http://example.org/> { ?x ?y ?z } }",
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
    with pytest.raises(UsageError, match="did you mean seed-coverage"):
        querying.run(knowledge, "seed-coverge")
    with pytest.raises(UsageError, match="query list"):
        querying.run(knowledge, "0")


def test_words_in_comments_texts_and_names_are_no_keywords():
    """A query about the date of service is a query like any other; all line ends become one."""
    text = (
        "# from which service\r\nPREFIX s: <http://example.org/service/from#>\r"
        'SELECT ?from $service { ?from s:service "SERVICE", \'it\\\'s from\', """a "FROM" b""" ; s:from $service }'
    )
    assert refuse_remote(text) == text.replace("\r\n", "\n").replace("\r", "\n")
    assert variables(text) == ("from", "service")
