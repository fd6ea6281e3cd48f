"""Every bundled competency query, and every one on explanations, has a question and gives its expected rows.

Rows are compared on both engines, in any order unless the query orders them. What grows with the ontology may have
further rows: a column whose name ends in ``+`` says so, and one that ends in ``>=`` holds counts that may be larger.
``python -m tests.test_competency NAME...`` writes the rows of queries as they are now into their files; what it writes
is to be read before it is kept.
"""

from __future__ import annotations

import csv
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import rdflib
from typer.testing import CliRunner

from kypho_kg import __version__, querying
from kypho_kg._resources import resource_dir
from kypho_kg.candidacy import Answer, assess
from kypho_kg.case_graph import ASSERTED, INFERRED, JUDGED, case_graphs
from kypho_kg.cli import app
from kypho_kg.errors import UsageError
from kypho_kg.intake import read_patient_file, read_records
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge
from kypho_kg.store import Literal, Store, Term, Triple
from kypho_kg.vocabulary import graph_kind

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = ROOT / "tests" / "competency"
EXPLAINING = sorted(p.stem for p in (resource_dir("queries") / "explain").glob("*.rq"))
NAMES = sorted([*EXPLAINING, *(p.stem for p in (resource_dir("queries") / "competency").glob("*.rq"))])
CONSTRUCTED = """
    anticoagulated-inr-high anticoagulated-inr-normal biopsy-pending contradicting-infection-notes
    cord-compression-metastasis draft-request onset-about-three-months pacemaker-bone-scan pain-in-words-only
    seven-weeks-old stale-visit three-levels-one-session
"""
PUBLISHED = "coa-01 hem-01 inf-01 neo-02 ost-02"
PATIENTS = [
    *(ROOT / "examples" / "constructed" / f"{name}.yaml" for name in CONSTRUCTED.split()),
    *(ROOT / "examples" / "published" / f"{name}.yaml" for name in PUBLISHED.split()),
]
GUIDELINES = """
    cms-l34228 cms-l38201 colorado-dowc-2014 evicore-cmm-607 nice-ta279 seed-guidelines seed-research
""".split()
"""The patients are assessed under these alone: a further guideline leaves the answers about them as they are."""
ASSUMED = ["problem-list", "age-sex"]
"""Under these policies, and also under a guideline that nobody read at its source, for the queries on explanations."""
UNREAD = "cirse-2017"
HEADER = ("Question", "Why it matters", "Source")

Cell = float | tuple[str, ...]
Row = dict[str, str]


def answers(knowledge: Knowledge, *, explaining: bool = False) -> list[Answer]:
    """The fixed patients, assessed under the fixed guidelines."""
    records, problems = read_records(PATIENTS, knowledge)
    assert problems == []
    names, assumed = ([*GUIDELINES, UNREAD], ASSUMED) if explaining else (GUIDELINES, [])
    if explaining:
        records = [*records, read_patient_file(ROOT / "examples" / "constructed" / "problem-list-only.yaml", knowledge)]
    return [assess(r, knowledge=knowledge, guidelines=names, assume=assumed, validate=False) for r in records]


class Data:
    """The knowledge base on both engines: alone, with the patients, and with the codes of its terms."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self.graphs = case_graphs(answers(knowledge))
        self._explaining: Mapping[str, Iterable[Triple]] = {}
        self._stores: dict[str, Store] = {}
        self._rdflib: dict[str, rdflib.Graph] = {}

    def _named(self, text: str) -> tuple[str, Mapping[str, Iterable[Triple]]]:
        if any(text == querying.query_text(name) for name in EXPLAINING):
            self._explaining = self._explaining or case_graphs(answers(self.knowledge, explaining=True))
            return "explained patients", self._explaining
        if querying.asks_about_patients(text):
            return "patients", self.graphs
        mapped = querying.mapping_graph(self.knowledge, text)
        return ("codes" if mapped else "alone"), mapped

    def store(self, text: str) -> Store:
        kind, named = self._named(text)
        if kind not in self._stores:
            self._stores[kind] = Store(self.knowledge.triples, named, union=True)
        return self._stores[kind]

    def rdflib(self, text: str) -> rdflib.Graph | None:
        """A dataset only for a query that names a graph: one graph of everything is much faster to ask."""
        kind, named = self._named(text)
        if kind == "codes":
            return None  # many codes, compared in test_mappings.py
        kind += " apart" * ("GRAPH" in text)
        if kind not in self._rdflib:
            whole = rdflib.Dataset(default_union=True) if "GRAPH" in text else rdflib.Graph()
            copy(self.knowledge.triples, whole.default_graph if isinstance(whole, rdflib.Dataset) else whole)
            for name, triples in named.items():
                copy(triples, whole.graph(name) if isinstance(whole, rdflib.Dataset) else whole)
            self._rdflib[kind] = whole
        return self._rdflib[kind]


def copy(triples: Iterable[Triple], graph: rdflib.Graph) -> None:
    for s, p, o in triples:
        graph.add((node(s), rdflib.URIRef(p), node(o)))


def node(term: Term) -> rdflib.URIRef | rdflib.BNode | rdflib.Literal:
    if isinstance(term, Literal):
        # rdflib keeps plain and xsd:string literals apart, RDF 1.1 does not.
        plain = term.language or term.datatype == str(rdflib.XSD.string)
        datatype = None if plain else rdflib.URIRef(term.datatype)
        return rdflib.Literal(term.text, lang=term.language or None, datatype=datatype)
    return rdflib.BNode(re.sub(r"\W", "", term)) if term.startswith("_:") else rdflib.URIRef(term)


@pytest.fixture(scope="module")
def data(knowledge: Knowledge) -> Data:
    return Data(knowledge)


def cell(text: str) -> Cell:
    """A number by its value, a concatenation without its order."""
    try:
        return float(text)
    except ValueError:
        return tuple(sorted(text.split(", ")))


def bag(rows: Iterable[Row]) -> Counter[tuple[tuple[str, Cell], ...]]:
    return Counter(tuple(sorted((k, cell(v)) for k, v in row.items() if v)) for row in rows)


def told(term: Term) -> str:
    """A value as the files have it: what changes with every version stands there by its name."""
    shown = querying.shown(term)
    k = load_knowledge()
    names = {k.sha256: "SHA256", f"knowledge base {k.version}": "knowledge base VERSION"}
    return {**names, f"kypho-kg {__version__}": "kypho-kg VERSION"}.get(shown, shown)


def of_oxigraph(data: Data, text: str) -> list[Row]:
    return [{k: told(v) for k, v in row.items()} for row in data.store(text).select(text)]


def of_rdflib(graph: rdflib.Graph, text: str) -> list[Row]:
    return [
        {
            str(k): told(Literal(str(v)) if isinstance(v, rdflib.Literal) else str(v))
            for k, v in row.asdict().items()
            if v is not None
        }
        for row in graph.query(text)
        if isinstance(row, rdflib.query.ResultRow)
    ]


class Expected(NamedTuple):
    """The rows of a file."""

    rows: list[Row]
    marks: dict[str, str]
    """The mark of each column: ``+``, ``>=`` or none."""


def expected(name: str) -> Expected:
    with (EXPECTED / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    columns = [re.fullmatch(r"(\w+)(\+|>=)?", cell) for cell in head]
    marks = {c[1]: c[2] or "" for c in columns if c}
    assert len(marks) == len(head), "a column's name is a word"
    return Expected([dict(zip(marks, row, strict=True)) for row in rows], marks)


def ordered_by(text: str, columns: Sequence[str]) -> list[str]:
    """The leading columns by which a query orders its rows."""
    found = re.search(r"^ORDER BY (.*)$", text, re.MULTILINE)
    keys = re.findall(r"\?(\w+)", found.group(1)) if found else []
    return list(itertools.takewhile(lambda key: key in columns, keys))


LONG_ON_RDFLIB = """
    absolute-contraindications-compared disagreement-on-acute features-most-guidelines-read
    features-of-the-type-families readers-of-a-feature who-disagrees-on-what
""".split()
"""Paths of any length through every condition, 10 to 90 s each on rdflib."""
_OFTEN = [n for n in NAMES if n not in LONG_ON_RDFLIB][::3]
ON_RDFLIB = [n if n in _OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_as_expected(name: str, data: Data) -> None:
    text = querying.query_text(name)
    compare(name, text, of_oxigraph(data, text))


@pytest.mark.parametrize("name", ON_RDFLIB)
def test_rows_are_as_expected_on_rdflib(name: str, data: Data) -> None:
    text = querying.query_text(name)
    graph = data.rdflib(text)
    if graph is not None:
        compare(name, text, of_rdflib(graph, text))


def compare(name: str, text: str, rows: list[Row]) -> None:
    wanted, marks = expected(name)
    assert wanted, "a competency query without a row shows nothing"
    columns = list(marks)
    growing = [c for c in columns if marks[c] == ">="]
    if any(marks.values()):
        keys = [c for c in columns if c not in growing]
        found = {tuple(row.get(k, "") for k in keys): row for row in rows}
        for row in wanted:
            assert all(float(found[tuple(row[k] for k in keys)][g]) >= float(row[g]) for g in growing), row
        return
    assert bag(rows) == bag(wanted)
    keys = ordered_by(text, columns)
    assert [[cell(r.get(k, "")) for k in keys] for r in rows] == [[cell(r[k]) for k in keys] for r in wanted]


def test_there_are_enough_queries_on_knowledge_and_on_patients() -> None:
    on_patients = [n for n in NAMES if querying.asks_about_patients(querying.query_text(n))]
    assert len(NAMES) >= 60
    assert len(on_patients) >= 15


def test_every_query_has_its_rows_and_no_rows_are_left_over() -> None:
    assert sorted(p.stem for p in EXPECTED.glob("*.csv")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_header_is_complete(name: str) -> None:
    lines = querying.query_text(name).splitlines()
    assert re.match(r"# # \S", lines[0])
    said = " ".join(line.removeprefix("#").strip() for line in itertools.takewhile(lambda x: x.startswith("#"), lines))
    for field in HEADER:
        assert re.search(rf"\*\*{field}:\*\* \S", said), field
    assert re.search(r"\*\*Question:\*\* [^*]*\?", said), "a question ends with a question mark"
    assert max(map(len, lines)) <= 120


def test_no_two_queries_say_the_same() -> None:
    seen: dict[object, str] = {}
    for name in NAMES:
        rows, marks = expected(name)
        key = (frozenset(bag(rows).items()), tuple(marks))
        assert seen.setdefault(key, name) == name
    questions = Counter(re.sub(r"\s*\n# ", " ", querying.query_text(n).split("**Why")[0]) for n in NAMES)
    assert [q for q, n in questions.items() if n > 1] == []


# --------------------------------------------------------------------------------------------------------------------
# The graphs of patients


def test_the_three_graphs_can_be_derived_again(knowledge: Knowledge, data: Data) -> None:
    """Dropping what is inferred and judged and deriving it again gives the same triples."""
    again = case_graphs(answers(knowledge))
    assert {name: set(rows) for name, rows in again.items()} == {n: set(r) for n, r in data.graphs.items()}
    assert all(len(rows) == len(set(rows)) for rows in again.values())


def test_the_three_graphs_stay_apart(data: Data) -> None:
    asserted, inferred, judged = (
        {t for name, rows in data.graphs.items() if graph_kind(name) == kind for t in rows}
        for kind in (ASSERTED, INFERRED, JUDGED)
    )
    assert asserted
    assert inferred
    assert judged
    assert not judged & (asserted | inferred)
    # The value of a fact without a rule is the record's own; the snapshot only says which one counts.
    assert not {t for t in asserted & inferred if "/fact/" in t[0]}


def test_a_query_on_patients_asks_for_their_files() -> None:
    result = CliRunner().invoke(app, ["query", "stale-facts"])
    assert isinstance(result.exception, UsageError)
    assert "patient files" in str(result.exception)


def test_reading_options_without_files_are_refused() -> None:
    result = CliRunner().invoke(app, ["query", "features", "--as-of", "2026-01-01"])
    assert isinstance(result.exception, UsageError)


def test_query_command_reads_patient_files() -> None:
    stale = str(next(p for p in PATIENTS if p.stem == "stale-visit"))
    run = CliRunner()
    found = run.invoke(app, ["query", "stale-facts", stale, "--format", "json"])
    assert found.exit_code == 0
    assert found.stdout.count('"stale-visit"') == 4
    earlier = run.invoke(app, ["query", "stale-facts", stale, "--as-of", "2026-07-01", "--format", "json"])
    assert earlier.exit_code == 0
    assert earlier.stdout.strip() == "[]"


def test_query_command_reports_a_bad_file_and_answers_for_the_others(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("format: kypho-patient/1\n", "utf-8")
    stale = str(next(p for p in PATIENTS if p.stem == "stale-visit"))
    result = CliRunner().invoke(app, ["query", "stale-facts", stale, str(bad)])
    assert result.exit_code == 3
    assert "stale-visit" in result.stdout
    assert CliRunner().invoke(app, ["query", "stale-facts", str(bad)]).exit_code == 3


def test_assumed_facts_and_verdicts_stand_in_their_own_variant(knowledge: Knowledge) -> None:
    records, _ = read_records([ROOT / "examples" / "constructed" / "problem-list-only.yaml"], knowledge)
    answer = assess(records[0], knowledge=knowledge, assume=["problem-list"], validate=False)
    store = Store(knowledge.triples, case_graphs([answer]), union=True)
    rows = store.select(
        """
        PREFIX kypho: <https://w3id.org/kypho#>
        SELECT DISTINCT ?feature WHERE {
          ?inferred a kypho:InferredGraph .
          ?judged a kypho:JudgedGraph .
          GRAPH ?inferred { ?fact kypho:yieldedBy kypho:ProblemListClosure ; kypho:feature ?feature }
          GRAPH ?judged { ?variant kypho:inVariant kypho:ProblemListPolicy }
        }
        """
    )
    assumed = {f.feature for a in answer.cases[0].assessments if a.assumed for f in a.assumed.assumptions}
    assert assumed
    assert {row["feature"] for row in rows} == assumed


def write(names: Sequence[str]) -> None:
    """Write the rows of queries as they are now."""
    data = Data(load_knowledge())
    for name in names:
        rows = of_oxigraph(data, querying.query_text(name))
        marks = expected(name).marks if (EXPECTED / f"{name}.csv").is_file() else {}
        columns = list(dict.fromkeys(c for row in rows for c in row))
        with (EXPECTED / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(c + marks.get(c, "") for c in columns)
            writer.writerows([row.get(c, "") for c in columns] for row in rows)


if __name__ == "__main__":
    write(sys.argv[1:])
