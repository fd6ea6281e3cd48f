"""The quality rules: each has an example that fails and one that passes, and the ontology is clean."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import rdflib
from rdflib import OWL, RDF, BNode, Dataset, URIRef

from kypho_kg import querying
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.quality import (
    Checks,
    Level,
    Rule,
    Waiver,
    bundled_checks,
    bundled_rules,
    check_bundled,
    check_quality,
    read_rules,
    read_waivers,
)
from kypho_kg.store import Literal, Term, Triple
from kypho_kg.vocabulary import local

ROOT = Path(__file__).resolve().parent.parent
ONTOLOGY = ROOT / "ontology"
EXAMPLES = Path(__file__).parent / "data" / "qc"
RULES = {rule.name: rule for rule in bundled_rules()}
Row = tuple[str, ...]


def example(rule: str, which: str) -> Path:
    (path,) = (EXAMPLES / rule).glob(f"{which}.*")
    return path


def dataset(path: Path) -> Dataset:
    """An example as rules see it: every graph by its name, and all of them together as the default graph."""
    whole = Dataset()
    if path.suffix == ".trig":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # rdflib's parser uses its own deprecated names
            whole.parse(path, format="trig")
    else:
        graph = rdflib.Graph().parse(path, format="turtle")
        name = next(graph.subjects(RDF.type, OWL.Ontology), URIRef("urn:example"))
        for triple in graph:
            whole.graph(name).add(triple)
    for s, p, o, _ in list(whole.quads()):
        whole.default_graph.add((s, p, o))
    return whole


def plain(term: rdflib.term.Node, stem: str = "x") -> Term:
    if isinstance(term, rdflib.Literal):
        return Literal(str(term), str(term.datatype or rdflib.XSD.string), term.language or "")
    return f"_:{stem}{term}" if isinstance(term, BNode) else str(term)


def checks(path: Path) -> Checks:
    """An example for the rules, one file for each of its graphs."""
    graphs: dict[object, list[Triple]] = {}
    whole = dataset(path)
    for graph in whole.graphs():
        if graph.identifier != whole.default_graph.identifier:
            rows = graphs.setdefault(graph.identifier, [])
            for s, p, o in graph:
                subject = plain(s)
                assert isinstance(subject, str)
                rows.append((subject, str(p), plain(o)))
    return Checks(graphs.values())


def by_rdflib(whole: Dataset, rule: Rule) -> set[Row]:
    """The rows of a rule in rdflib; names of blank nodes do not count."""
    return {
        tuple("_" if isinstance(v, BNode) else f"{v} {getattr(v, 'language', None) or ''}".strip() for v in row if v)
        for row in whole.query(rule.query)
    }


def by_oxigraph(where: Checks, rule: Rule) -> set[Row]:
    def text(term: Term) -> str:
        if isinstance(term, Literal):
            return f"{term.text} {term.language}".strip()
        return "_" if term.startswith("_:") else term

    return {tuple(text(row[k]) for k in ("subject", "property", "value") if k in row)
            for row in where.store.select(rule.query)}  # fmt: skip


# -- the rules


def test_every_rule_has_its_two_examples() -> None:
    assert {p.name for p in EXAMPLES.iterdir() if p.is_dir()} == set(RULES)
    found = {name: sorted(p.stem for p in (EXAMPLES / name).iterdir()) for name in RULES}
    assert {name: stems for name, stems in found.items() if stems != ["fail", "pass"]} == {}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_finds_what_it_is_for(name: str) -> None:
    path = example(name, "fail")
    prefixes = dict(re.findall(r"@prefix (\w+): <([^>]*)>", path.read_text("utf-8")))
    (expected,) = re.findall(r"^# Expected: (\S+)$", path.read_text("utf-8"), re.MULTILINE)
    prefix, _, rest = expected.partition(":")
    iri = expected.strip("<>") if expected.startswith("<") else prefixes.get(prefix, "") + rest
    found = {violation.subject for violation in checks(path).violations(RULES[name])}
    assert found == {"a node of Example" if expected == "_" else local(iri)}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_leaves_alone_what_is_right(name: str) -> None:
    assert checks(example(name, "pass")).violations(RULES[name]) == ()


@pytest.mark.parametrize("name", RULES)
def test_the_examples_differ_in_little(name: str) -> None:
    """A rule that finds the one and not the other finds it for the right reason."""
    fail, ok = (set(dataset(example(name, which)).default_graph) for which in ("fail", "pass"))
    fail, ok = ({tuple("_" if isinstance(t, BNode) else t for t in row) for row in rows} for rows in (fail, ok))
    assert 1 <= len(fail ^ ok) <= 4


@pytest.mark.parametrize("which", ["fail", "pass"])
@pytest.mark.parametrize("name", RULES)
def test_rdflib_and_oxigraph_agree_on_the_examples(name: str, which: str) -> None:
    path = example(name, which)
    assert by_rdflib(dataset(path), RULES[name]) == by_oxigraph(checks(path), RULES[name])


# -- the ontology


def test_the_ontology_is_clean() -> None:
    report = check_bundled()
    assert {level: list(map(str, report.violations[level])) for level in (Level.ERROR, Level.WARN)} == {
        Level.ERROR: [],
        Level.WARN: [],
    }
    assert report.rules == len(RULES) > 40


def test_every_file_is_a_graph_of_its_own() -> None:
    names = bundled_checks().store.select("SELECT DISTINCT ?g WHERE { GRAPH ?g { ?s ?p ?o } }")
    assert len(names) == len(list(ONTOLOGY.rglob("*.ttl")))


def test_a_rule_run_as_a_query_sees_the_files() -> None:
    store = querying.quality_store("missing-import")
    assert store is not None
    assert store.ask(f"ASK {{ GRAPH <https://w3id.org/kypho/modules/core> {{ ?s a <{OWL.Class}> }} }}")
    assert querying.quality_store("features") is None


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_rdflib_and_oxigraph_agree_on_the_ontology(name: str) -> None:
    """rdflib takes minutes for the rules that look into each file."""
    whole = Dataset()
    for path in ONTOLOGY.rglob("*.ttl"):
        graph = rdflib.Graph().parse(path)
        home = whole.graph(next(graph.subjects(RDF.type, OWL.Ontology)))
        for triple in graph:
            home.add(triple)
            whole.default_graph.add(triple)
    assert by_rdflib(whole, RULES[name]) == by_oxigraph(bundled_checks(), RULES[name])


# -- profile and waivers


BAD = Rule("bad", Level.ERROR, "SELECT ?subject WHERE { ?subject <urn:p> ?o }")
HINT = Rule("hint", Level.WARN, "SELECT ?subject ?value WHERE { ?subject <urn:p> ?value }")
FACTS: tuple[Triple, ...] = (("urn:a", "urn:p", Literal("1")), ("urn:b", "urn:p", Literal("2")))


def waiver(rule: str, subject: str) -> Waiver:
    import datetime

    return Waiver(rule, subject, "for a reason", datetime.date(2026, 11, 22))


def test_levels_and_waivers() -> None:
    report = check_quality(Checks([FACTS]), (BAD, HINT), [waiver("bad", "urn:a")])
    assert [str(v) for v in report.violations[Level.ERROR]] == ["bad: urn:b"]
    assert [str(v) for v in report.violations[Level.WARN]] == ["hint: urn:a ('1')", "hint: urn:b ('2')"]
    assert report.violations[Level.INFO] == ()
    assert str(report).splitlines() == [
        "2 rules, 1 errors, 2 warnings, 0 notes, 1 waived",
        "       warning: hint: urn:a ('1')",
        "       warning: hint: urn:b ('2')",
    ]


def test_a_waiver_that_waives_nothing_is_an_error() -> None:
    with pytest.raises(KnowledgeBaseError, match="bad urn:c: nothing to waive"):
        check_quality(Checks([FACTS]), [BAD], [waiver("bad", "urn:c")])


@pytest.mark.parametrize("query", ["SELECT ?s WHERE { ?s ?p ?o }", "ASK { ?s ?p ?o }", "SELECT ?subject WHERE {"])
def test_a_query_that_is_no_rule(query: str) -> None:
    with pytest.raises(KnowledgeBaseError, match=r"bad\.rq"):
        Checks([FACTS]).violations(Rule("bad", Level.ERROR, query))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bad.rq").write_text(BAD.query)
    (tmp_path / "profile.tsv").write_text("rule\tlevel\nbad\tERROR\n")
    (tmp_path / "waivers.tsv").write_text("rule\tsubject\treason\tdate\nbad\turn:a\tfor a reason\t2026-11-22\n")
    return tmp_path


def test_a_folder_of_rules(folder: Path) -> None:
    rules = read_rules(folder)
    assert rules == (BAD,)
    assert read_waivers(folder, [r.name for r in rules]) == (waiver("bad", "urn:a"),)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "rule bad has no level"),
        ("bad\tFATAL\n", "profile.tsv:2: bad FATAL: unknown level"),
        ("bad\terror\n", "profile.tsv:2: bad error: unknown level"),
        ("bad\tERROR\nbad\tWARN\n", "profile.tsv:3: bad WARN: named twice"),
        ("bad\tERROR\ngood\tWARN\n", "profile.tsv:3: good WARN: unknown rule"),
        ("bad ERROR\n", "profile.tsv:2: expected the columns rule, level, separated by tabs"),
    ],
)
def test_a_profile_that_does_not_fit(folder: Path, rows: str, message: str) -> None:
    (folder / "profile.tsv").write_text("rule\tlevel\n" + rows)
    with pytest.raises(KnowledgeBaseError) as caught:
        read_rules(folder)
    assert caught.value.violations == (message if message.startswith("profile") else f"profile.tsv: {message}",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("good\turn:a\tso\t2026-11-22", "unknown rule good"),
        ("bad\t\tso\t2026-11-22", "needs a subject and a reason"),
        ("bad\turn:b\t \t2026-11-22", "needs a subject and a reason"),
        ("bad\turn:b\tso\t22.11.2026", "no date"),
        ("bad\turn:a\tso\t2026-11-22", "named twice"),
        ("bad\turn:b\tso", "expected the columns rule, subject, reason, date"),
    ],
)
def test_a_waiver_that_does_not_fit(folder: Path, row: str, message: str) -> None:
    with (folder / "waivers.tsv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(KnowledgeBaseError, match=rf"^waivers\.tsv:3: .*{message}"):
        read_waivers(folder, [BAD.name])


@pytest.mark.parametrize("name", ["profile.tsv", "waivers.tsv"])
def test_a_table_that_is_missing_or_headless(folder: Path, name: str) -> None:
    def read() -> None:
        read_waivers(folder, [r.name for r in read_rules(folder)])

    (folder / name).write_text("")
    with pytest.raises(KnowledgeBaseError, match=f"{name}: expected the columns"):
        read()
    (folder / name).unlink()
    with pytest.raises(KnowledgeBaseError, match=name):
        read()
