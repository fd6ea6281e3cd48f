"""A cohort as named graphs: what is written, and that the bundled queries say what the tables of the cohort say.

``python -m tests.test_cohort_graph NAME...`` writes the rows of queries over the examples as they are now into
``tests/cohort``; what it writes is to be read before it is kept.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import rdflib

from kypho_kg import querying
from kypho_kg._resources import resource_dir
from kypho_kg.candidacy import assess
from kypho_kg.case_graph import asserted_graph, case_graphs
from kypho_kg.case_graph import graph_name as name_of_graph
from kypho_kg.cohort.counts import Asked
from kypho_kg.cohort.graphs import KNOWLEDGE, Chosen, Exported, export_graphs, graph_name, read_verdict, write_graphs
from kypho_kg.cohort.layout import CAUSES, layout_of
from kypho_kg.cohort.run import Options, Outcome, run
from kypho_kg.cohort.source import FactTable
from kypho_kg.errors import UsageError
from kypho_kg.evaluation import Truth
from kypho_kg.fact_table import read_fact_table, write_fact_table
from kypho_kg.intake import read_records
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge
from kypho_kg.record import PATIENT, Cause, Fact, Lesion, Polarity, Record
from kypho_kg.store import Literal, Query, Store, Triple
from kypho_kg.synth import Generator, Rates
from kypho_kg.synth_population import find_population
from kypho_kg.synth_reader import read_population
from kypho_kg.synth_run import synthesize
from kypho_kg.vocabulary import KYPHO, TYPE, local

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = ROOT / "tests" / "cohort"
QUERIES = resource_dir("queries") / "cohort"
NAMES = sorted(p.stem for p in QUERIES.glob("*.rq"))
FEW = ("cms-l34228", "cms-l38201", "colorado-dowc-2014", "evicore-cmm-607", "nice-ta279", "seed-guidelines")
DECIDING = ("DefinesScope", "Requires", "Indicates", "Excludes", "ContraindicatesAbsolutely")
YES, NO = {"Candidate", "CandidateWithCaution"}, {"Contraindicated", "NotIndicated"}
Row = dict[str, str]


def text_of(name: str) -> str:
    return (QUERIES / f"{name}.rq").read_text("utf-8")


class Cohort:
    """A fact table with what was judged of it."""

    def __init__(self, folder: Path, knowledge: Knowledge, guidelines: Iterable[str]) -> None:
        self.folder = folder
        self.table = FactTable(folder)
        self.cases = self.table.dated(None, None)
        self.knowledge = knowledge
        self.asked = Asked(layout_of(knowledge), tuple(knowledge.guideline(g) for g in guidelines))

    def quads(self, chosen: Chosen | None = None, part: int = 150) -> tuple[bytes, Exported]:
        out = io.BytesIO()
        found = write_graphs(out, self.table, self.cases, self.asked, chosen, part=part)
        return out.getvalue(), found

    def run(self, out: Path) -> Outcome:
        return run(self.table, self.cases, out, self.knowledge, Options(tuple(g.id for g in self.asked.guidelines)))


def examples(folder: Path, knowledge: Knowledge) -> Cohort:
    """The bundled examples as a fact table."""
    files = sorted(
        [*(ROOT / "examples" / "constructed").glob("*.yaml"), *(ROOT / "examples" / "published").glob("*.yaml")]
    )
    records, problems = read_records(files, knowledge)
    assert problems == []
    write_fact_table(sorted(records, key=lambda r: r.patient), folder)
    return Cohort(folder, knowledge, FEW)


@pytest.fixture(scope="module")
def small(knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return examples(tmp_path_factory.mktemp("examples"), knowledge)


@pytest.fixture(scope="module")
def quads(small: Cohort) -> bytes:
    return small.quads()[0]


def store_of(quads: bytes) -> Store:
    return Store.loaded(b"union\n" + quads)


def on_oxigraph(store: Store, name: str) -> list[Row]:
    return querying.rows_of(store.result(Query(text_of(name))))


# --------------------------------------------------------------------------------------------------------------------
# The answers over the examples, on both engines


def expected(name: str) -> list[Row]:
    with (EXPECTED / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def bag(rows: Iterable[Row]) -> Counter[tuple[tuple[str, str], ...]]:
    return Counter(tuple(sorted(row.items())) for row in rows)


@pytest.fixture(scope="module")
def oxigraph(quads: bytes) -> Store:
    return store_of(quads)


@pytest.fixture(scope="module")
def dataset(quads: bytes) -> rdflib.Dataset:
    found = rdflib.Dataset(default_union=True)
    found.parse(data=quads, format="nquads")
    return found


def test_every_query_has_its_rows_and_no_rows_are_left_over() -> None:
    assert len(NAMES) >= 8
    assert sorted(p.stem for p in EXPECTED.glob("*.csv")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_as_expected_on_oxigraph(name: str, oxigraph: Store) -> None:
    rows = on_oxigraph(oxigraph, name)
    assert rows
    assert bag(rows) == bag(expected(name))


@pytest.mark.slow  # rdflib takes minutes to read the graphs
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_as_expected_on_rdflib(name: str, dataset: rdflib.Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = dataset.query(text_of(name))
        columns = [str(v) for v in found.vars or ()]
        rows = [{c: local(str(v)) for c, v in zip(columns, row, strict=True)} for row in found]  # type: ignore[arg-type]
    assert bag(rows) == bag(expected(name))


@pytest.mark.parametrize("name", NAMES)
def test_queries_ask_for_patients_and_declare_columns(name: str, knowledge: Knowledge) -> None:
    text = text_of(name)
    assert querying.asks_about_patients(text)
    assert querying.query_text(name) == text, "a query of another folder has the same name"
    store = Store(knowledge.triples, union=True)
    for parameter in querying.sparql.parameters(text):
        assert parameter in store.result(Query(text)).columns


def test_a_parameter_picks_its_rows(oxigraph: Store, knowledge: Knowledge) -> None:
    text = text_of("verdict-counts")
    bound = querying.bindings(knowledge, text, ["guideline=nice-ta279"])
    rows = querying.rows_of(oxigraph.result(Query(text, bound)))
    assert bag(rows) == bag(r for r in expected("verdict-counts") if r["guideline"] == "nice-ta279")


# --------------------------------------------------------------------------------------------------------------------
# The answers over generated patients, and the tables of the cohort


@pytest.fixture(scope="module")
def generated(knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("generated")
    population = read_population(find_population("us-referrals"), knowledge)
    synthesize(Generator(population, knowledge, 11, Rates(0.2, 0.02, 0.01, 0)), knowledge, 90, folder)
    return Cohort(folder, knowledge, knowledge.guidelines)


@pytest.fixture(scope="module")
def outcome(generated: Cohort, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    out = tmp_path_factory.mktemp("out")
    return generated.run(out), out


@pytest.fixture(scope="module")
def big(generated: Cohort) -> Store:
    return store_of(generated.quads()[0])


@pytest.fixture(scope="module")
def con(generated: Cohort, outcome: tuple[Outcome, Path]) -> duckdb.DuckDBPyConnection:
    """The tables of the cohort in long form: ``verdicts``, and ``truths`` with the effect of each clause."""
    _, out = outcome
    con = duckdb.connect()
    ids = [g.id for g in generated.asked.guidelines]
    clauses = [r for r in generated.asked.clauses if not r.reading]
    con.register(
        "effects",
        pa.table(
            {
                "clause": [r.id for r in clauses],
                "effect": [r.effect for r in clauses],
                "guideline": [r.id.partition("/")[0] for r in clauses],
            }
        ),
    )
    key = "patient::VARCHAR AS patient, lesion"
    named = ", ".join(f'"{i}"::VARCHAR AS "{i}"' for i in ids)
    of_guidelines, of_clauses = (", ".join(f'"{i}"' for i in some) for some in (ids, [r.id for r in clauses]))
    con.execute(
        f"CREATE TABLE verdicts AS UNPIVOT (SELECT {key}, {named} FROM read_parquet('{out}/verdicts/*.parquet')) "
        f"ON {of_guidelines} INTO NAME guideline VALUE verdict"
    )
    told = ", ".join(f'coalesce("{r.id}"::VARCHAR, \'unknown\') AS "{r.id}"' for r in clauses)
    con.execute(
        f"CREATE TABLE truths AS SELECT * FROM (UNPIVOT (SELECT {key}, {told} "
        f"FROM read_parquet('{out}/clauses/*.parquet')) ON {of_clauses} "
        "INTO NAME clause VALUE truth) JOIN effects USING (clause)"
    )
    con.execute(
        """
        CREATE VIEW failing AS
        SELECT patient, lesion, guideline, clause FROM truths
        WHERE (effect IN ('DefinesScope', 'Requires') AND truth = 'false')
           OR (effect IN ('Excludes', 'ContraindicatesAbsolutely') AND truth = 'true')
        UNION ALL
        SELECT patient, lesion, guideline, 'indications' FROM truths WHERE effect = 'Indicates'
        GROUP BY ALL HAVING bool_and(truth = 'false')
        """
    )
    con.execute(
        """
        CREATE VIEW open AS
        SELECT patient, lesion, guideline, clause FROM truths
        WHERE truth = 'unknown' AND effect IN ('DefinesScope', 'Requires', 'Excludes', 'ContraindicatesAbsolutely')
        UNION ALL
        SELECT patient, lesion, guideline, clause FROM truths t WHERE truth = 'unknown' AND effect = 'Indicates'
        AND (patient, lesion, guideline) NOT IN (
            SELECT (patient, lesion, guideline) FROM truths WHERE effect = 'Indicates' AND truth = 'true')
        """
    )
    return con


def rows_of(con: duckdb.DuckDBPyConnection, query: str) -> list[Row]:
    found = con.execute(query)
    columns = [d[0] for d in found.description or ()]
    return [dict(zip(columns, map(str, row), strict=True)) for row in found.fetchall()]


def test_verdict_counts(big: Store, con: duckdb.DuckDBPyConnection, outcome: tuple[Outcome, Path]) -> None:
    rows = on_oxigraph(big, "verdict-counts")
    query = "SELECT guideline, verdict, count(*) AS cases FROM verdicts GROUP BY ALL"
    assert bag(rows) == bag(rows_of(con, query))
    assert sum(int(r["cases"]) for r in rows) == int(outcome[0].counts.verdicts.sum())


def test_clause_truths(big: Store, con: duckdb.DuckDBPyConnection) -> None:
    query = """
        SELECT guideline, clause, CASE truth WHEN 'true' THEN 'Met' WHEN 'false' THEN 'NotMet' ELSE 'UnknownTruth' END
        AS truth, count(*) AS cases FROM truths GROUP BY ALL
    """
    assert bag(on_oxigraph(big, "clause-truths-of-a-cohort")) == bag(rows_of(con, query))


def test_attrition(big: Store, outcome: tuple[Outcome, Path], generated: Cohort) -> None:
    found = outcome[0]
    wanted: Counter[tuple[str, str]] = Counter()
    entering, possible = 0, 4
    for step, row in zip(generated.asked.steps, found.counts.attrition.tolist(), strict=True):
        wanted[step.guideline, step.clauses[0].id] += row[entering] - row[possible]
    rows = on_oxigraph(big, "attrition")
    assert {(r["guideline"], r["clause"]): int(r["leaving"]) for r in rows} == +wanted
    by_guideline: dict[str, list[int]] = {}
    for r in rows:
        by_guideline.setdefault(r["guideline"], []).append(int(r["place"]))
    assert all(places == sorted(set(places)) for places in by_guideline.values())


def test_missingness(big: Store, outcome: tuple[Outcome, Path], generated: Cohort) -> None:
    layout, counts = generated.asked.layout, outcome[0].counts
    wanted = {
        (layout.features[place].name, str(cause)): n
        for place, row in zip(generated.asked.features, counts.features.tolist(), strict=True)
        for cause, n in zip(CAUSES, row, strict=False)
        if n
    }
    rows = on_oxigraph(big, "missingness")
    assert {(r["feature"], r["cause"]): int(r["cases"]) for r in rows} == wanted


def test_agreement(big: Store, outcome: tuple[Outcome, Path], generated: Cohort) -> None:
    words, counts = ("yes", "no"), outcome[0].counts.agreement
    ids = [g.id for g in generated.asked.guidelines]
    wanted: dict[frozenset[tuple[str, str]], int] = {}
    for i, one in enumerate(ids):
        for j in range(i + 1, len(ids)):
            for a, said in enumerate(words):
                for b, also in enumerate(words):
                    n = int(counts[4 * i + a, 4 * j + b])
                    if n:
                        wanted[frozenset({(one, said), (ids[j], also)})] = n
    rows = on_oxigraph(big, "agreement-of-guidelines")
    found = {frozenset({(r["guideline"], r["says"]), (r["other"], r["otherSays"])}): int(r["cases"]) for r in rows}
    assert found == wanted


def test_hinges_on_one_clause(big: Store, con: duckdb.DuckDBPyConnection) -> None:
    query = """
        SELECT patient, lesion, guideline, min(clause) AS clause FROM open
        WHERE (patient, lesion, guideline) NOT IN (SELECT (patient, lesion, guideline) FROM failing)
        AND (patient, lesion, guideline) IN (
            SELECT (patient, lesion, guideline) FROM verdicts WHERE verdict = 'Undetermined')
        GROUP BY ALL HAVING count(*) = 1
    """
    wanted = rows_of(con, query)
    assert wanted
    assert bag(on_oxigraph(big, "hinges-on-one-clause")) == bag(wanted)


def test_refused_for_one_clause(big: Store, con: duckdb.DuckDBPyConnection) -> None:
    query = """
        SELECT guideline, clause, count(*) AS cases FROM (
            SELECT patient, lesion, guideline, min(clause) AS clause FROM failing
            GROUP BY ALL HAVING count(*) = 1)
        JOIN verdicts USING (patient, lesion, guideline)
        WHERE verdict IN ('NotIndicated', 'Contraindicated') AND clause != 'indications' GROUP BY ALL
    """
    wanted = rows_of(con, query)
    assert wanted
    assert bag(on_oxigraph(big, "refused-for-one-clause")) == bag(wanted)


def test_candidates_under_how_many(big: Store, con: duckdb.DuckDBPyConnection) -> None:
    query = """
        SELECT guidelines, count(*) AS cases FROM (
            SELECT patient, lesion, count(*) FILTER (verdict IN ('Candidate', 'CandidateWithCaution')) AS guidelines
            FROM verdicts GROUP BY ALL)
        GROUP BY ALL
    """
    assert bag(on_oxigraph(big, "candidates-under-how-many")) == bag(rows_of(con, query))


def open_features(records: Iterable[Record], knowledge: Knowledge) -> Iterator[tuple[str, frozenset[str]]]:
    """By the engine for one case: the guideline of each undetermined case, and what its open clauses rest on."""
    for record in records:
        answer = assess(record, knowledge=knowledge, guidelines=list(knowledge.guidelines), validate=False)
        for case in answer.cases:
            for a in case.assessments:
                if a.verdict != "Undetermined":
                    continue
                enough = bool(a.having("Indicates", Truth.MET))
                leaves = {
                    leaf.criterion.term or leaf.criterion.name
                    for c in a.counted
                    if c.recommendation.effect in DECIDING and not (enough and c.recommendation.effect == "Indicates")
                    for leaf in c.proof.unknown_leaves()
                }
                yield a.guideline.id, frozenset(map(local, leaves))


def test_open_features(generated: Cohort, knowledge: Knowledge) -> None:
    """Both queries on what keeps cases open, against the proofs of the engine for one case."""
    records = list(read_fact_table(generated.folder, knowledge, IntakeReport("generated")))[40:60]
    store = store_of(generated.quads(Chosen(patients=frozenset(r.patient for r in records)))[0])
    every: Counter[tuple[str, str]] = Counter()
    alone: Counter[tuple[str, str]] = Counter()
    for guideline, features in open_features(records, knowledge):
        every.update((guideline, f) for f in features)
        if len(features) == 1:
            alone[guideline, next(iter(features))] += 1
    assert alone

    def found(name: str) -> dict[tuple[str, str], int]:
        return {(r["guideline"], r["feature"]): int(r["cases"]) for r in on_oxigraph(store, name)}

    assert found("keeps-cases-open") == every
    assert found("hinges-on-one-feature") == alone


# --------------------------------------------------------------------------------------------------------------------
# What is written


def graphs_of(quads: bytes) -> dict[str, set[Triple]]:
    """The triples of each graph of patients."""
    store = store_of(b"".join(line for line in quads.splitlines(keepends=True) if b"/graph/" in line))
    found: dict[str, set[Triple]] = {}
    for row in store.select("SELECT ?g ?s ?p ?o WHERE { GRAPH ?g { ?s ?p ?o } }"):
        found.setdefault(str(row["g"]), set()).add((str(row["s"]), str(row["p"]), row["o"]))
    return found


def test_graphs_are_those_of_single_cases_without_proofs(small: Cohort, quads: bytes, knowledge: Knowledge) -> None:
    """What is judged stands in the whole judged graph too; what is asserted is all that was."""
    found = graphs_of(quads)
    records = list(read_fact_table(small.folder, knowledge, IntakeReport("examples")))
    assert len(found) == 3 * len(records)
    points = {KYPHO + n for n in ("hasOpenPoint", "aboutSubject", "feature", "causeOfUnknown")}
    for record in records[::4]:
        whole = case_graphs([assess(record, knowledge=knowledge, guidelines=FEW, validate=False)])
        name = graph_name(record, "judged")
        assert name == name_of_graph(record, "judged")
        mine = {t for t in found[name] if t[1] not in points and t[2] != KYPHO + "OpenPoint"}
        assert mine
        assert mine <= set(whole[name])
        verdicts = {t for t in whole[name] if t[1] == KYPHO + "verdict" and "/reading/" not in t[0]}
        assert verdicts <= mine
        asserted = graph_name(record, "asserted")
        expected_facts = {same(t) for t in asserted_graph(record)[asserted] if "/source" not in t[0]}
        assert {same(t) for t in found[asserted] if "/source" not in t[0]} == expected_facts


def same(triple: Triple) -> Triple:
    """A triple with the number of a source left out: a source is the file here, and the row there."""
    s, p, o = triple
    return (s, p, "source") if p == KYPHO + "hasSource" else (s, p, number(o))


def number(o: Any) -> Any:
    return (
        Literal(o.text.rstrip("0").rstrip(".") if "." in o.text else o.text, o.datatype)
        if isinstance(o, Literal)
        else o
    )


def test_every_open_point_is_described_once(quads: bytes) -> None:
    found = graphs_of(quads)
    linked = {t[2] for rows in found.values() for t in rows if t[1] == KYPHO + "hasOpenPoint"}
    assert linked
    told = Counter(t[0] for rows in found.values() for t in rows if t[1] == KYPHO + "causeOfUnknown")
    assert linked <= set(told)
    assert set(told.values()) == {1}
    assert {t[0] for rows in found.values() for t in rows if t[1:] == (TYPE, KYPHO + "OpenPoint")} == set(told)


def test_every_unknown_clause_says_what_is_open(quads: bytes) -> None:
    rows = store_of(quads).select(
        """
        PREFIX kypho: <https://w3id.org/kypho#>
        SELECT ?answer (COUNT(?point) AS ?n) WHERE {
          ?answer kypho:truth ?truth .
          OPTIONAL { ?answer kypho:hasOpenPoint ?point }
          BIND(?truth = kypho:UnknownTruth AS ?unknown)
        }
        GROUP BY ?answer ?unknown HAVING (?unknown != (COUNT(?point) > 0))
        """
    )
    assert rows == []


def test_same_bytes_whatever_the_parts(small: Cohort, quads: bytes, tmp_path: Path) -> None:
    again, found = small.quads(part=3)
    assert again == quads
    assert found.quads == quads.count(b"\n")
    assert found.patients == len(set(small.cases["patient"].to_pylist()))
    plain, packed = tmp_path / "a.nq", tmp_path / "a.nq.gz"
    for path in (plain, packed):
        export_graphs(path, small.table, small.cases, small.asked)
    assert plain.read_bytes() == quads
    assert gzip.decompress(packed.read_bytes()) == quads
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nq", "a.nq.gz"]


def patients_in(quads: bytes) -> set[str]:
    return {
        t[2].text
        for rows in graphs_of(quads).values()
        for t in rows
        if t[1] == KYPHO + "patientId" and isinstance(t[2], Literal)
    }


def test_only_those_who_are_chosen(small: Cohort, quads: bytes, knowledge: Knowledge) -> None:
    assert patients_in(small.quads(Chosen(patients=frozenset({"ost-02", "nobody"})))[0]) == {"ost-02"}
    guideline, verdicts = read_verdict("nice-ta279=Candidate,CandidateWithCaution", knowledge)
    some, found = small.quads(Chosen(guideline=guideline, verdicts=verdicts))
    query = """
        PREFIX kypho: <https://w3id.org/kypho#> PREFIX skos: <http://www.w3.org/2004/02/skos/core#>
        SELECT DISTINCT ?id WHERE {
          ?a kypho:byGuideline/skos:notation "nice-ta279" ; kypho:verdict ?v ; kypho:ofCase ?case .
          ?case kypho:concernsPatient/kypho:patientId ?id
          FILTER(?v IN (kypho:Candidate, kypho:CandidateWithCaution))
        }
    """
    wanted = {getattr(row["id"], "text", "") for row in store_of(quads).select(query)}
    assert wanted
    assert patients_in(some) == wanted
    assert 0 < found.patients == len(wanted) < small.cases.num_rows
    nobody, none = small.quads(Chosen(patients=frozenset()))
    assert none.patients == 0
    assert graphs_of(nobody) == {}
    assert f"<{KNOWLEDGE}>".encode() in nobody


@pytest.mark.parametrize("text", ["nice-ta279", "nice-ta279=Maybe", "=Candidate", "no-such-thing=Candidate"])
def test_a_wrong_verdict_is_explained(text: str, knowledge: Knowledge) -> None:
    with pytest.raises(UsageError):
        read_verdict(text, knowledge)


def test_a_verdict_of_a_guideline_that_is_not_asked(small: Cohort) -> None:
    with pytest.raises(UsageError, match="aaos-2010"):
        small.quads(Chosen(guideline="aaos-2010", verdicts=frozenset({"Candidate"})))


def test_several_dates_of_one_patient_are_refused(small: Cohort) -> None:
    first = small.cases["patient"][0].as_py()
    index = pa.table(
        {
            "patient": pa.array([first, first]),
            "lesion": pa.nulls(2, pa.string()),
            "date": pa.array([date(2026, 1, 1), date(2026, 2, 1)], pa.date32()),
        }
    )
    with pytest.raises(UsageError, match="one date"):
        write_graphs(io.BytesIO(), small.table, small.table.dated(None, index), small.asked)


def test_a_file_that_cannot_be_written(small: Cohort, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        export_graphs(tmp_path / "no" / "a.nq", small.table, small.cases, small.asked)


def test_a_malformed_patient_is_left_out(small: Cohort, tmp_path: Path) -> None:
    from pyarrow import parquet

    facts = parquet.read_table(small.folder / "facts.parquet")
    bad = facts["patient"][0].as_py()
    names = facts["feature"].cast(pa.string()).to_pylist()
    names[0] = "noSuchFeature"
    parquet.write_table(
        facts.set_column(facts.column_names.index("feature"), "feature", pa.array(names)), tmp_path / "facts.parquet"
    )
    (tmp_path / "cases.parquet").write_bytes((small.folder / "cases.parquet").read_bytes())
    cohort = Cohort(tmp_path, small.knowledge, FEW)
    found, told = cohort.quads()
    assert len(told.rejected) == 1
    assert patients_in(found) == set(small.cases["patient"].to_pylist()) - {bad}


def test_text_is_escaped(knowledge: Knowledge, tmp_path: Path) -> None:
    odd = 'a"b\\c\n<é> %'
    made = [Record(odd, (Lesion(odd),), (), as_of=date(2026, 3, 2))]
    write_fact_table([replace(r, files=("x",)) for r in made], tmp_path)
    cohort = Cohort(tmp_path, knowledge, FEW)
    assert patients_in(cohort.quads()[0]) == {odd}


def test_a_feature_that_somebody_wrote_down_as_not_recorded_is_missing(knowledge: Knowledge, tmp_path: Path) -> None:
    """On the table and in the graph: it was once counted as known."""
    said = Fact(PATIENT, KYPHO + "inr", None, Polarity.INDETERMINATE, cause=Cause.NOT_RECORDED)
    made = [Record("p", (Lesion("a"),), (said,), as_of=date(2026, 3, 2), files=("x",))]
    write_fact_table(made, tmp_path)
    cohort = Cohort(tmp_path, knowledge, knowledge.guidelines)
    rows = on_oxigraph(store_of(cohort.quads()[0]), "missingness")
    assert {"feature": "inr", "cause": "NotRecorded", "cases": "1"} in rows
    (tmp_path / "out").mkdir()
    counts = cohort.run(tmp_path / "out").counts.features
    place = cohort.asked.features.index(cohort.asked.layout.number("inr"))
    assert counts[place].tolist() == [0] * (len(CAUSES) - 1) + [1, 0]


def write(names: list[str], folder: Path) -> None:
    """Write the rows of queries as they are now."""
    store = store_of(examples(folder, load_knowledge()).quads()[0])
    EXPECTED.mkdir(exist_ok=True)
    for name in names or NAMES:
        rows = on_oxigraph(store, name)
        with (EXPECTED / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        write(sys.argv[1:], Path(temporary))
