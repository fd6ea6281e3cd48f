"""Many cases at once say what each says alone: truths, causes, verdicts, dates, counts, and what is asked beside."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from builders import ROOT
from cohorts import marked, records
from pyarrow import csv, parquet

from kypho_kg.candidacy import CaseAnswer, assess
from kypho_kg.cohort import evidence
from kypho_kg.cohort.counts import STEPS
from kypho_kg.cohort.index import entries, read_index
from kypho_kg.cohort.judge import judge
from kypho_kg.cohort.layout import CAUSES, NO_CAUSE, layout_of
from kypho_kg.cohort.logic import MET
from kypho_kg.cohort.run import CLAUSES, COUNTS, EVIDENCE, FLIPS, VERDICTS, Options, Outcome, run, sizes
from kypho_kg.cohort.source import FactTable, as_parquet, facts_of
from kypho_kg.cohort.summaries import COLUMNS, missing_most, summaries
from kypho_kg.cohort.sweep import read_sweep
from kypho_kg.cohort.verdicts import conclusions, in_force
from kypho_kg.criteria import ATOMS, Op
from kypho_kg.errors import InputError, UsageError
from kypho_kg.evaluation import Evaluator, lesion_subject
from kypho_kg.fact_rows import cases_schema, facts_schema
from kypho_kg.fact_table import read_fact_table, write_fact_table
from kypho_kg.guidelines import DECIDING
from kypho_kg.inference import infer
from kypho_kg.intake import mark_invalid
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge
from kypho_kg.proof_json import cause_of
from kypho_kg.record import LESION, PATIENT, Fact, Lesion, Mood, Polarity, Range, Record, TimeSpan
from kypho_kg.synth import Generator, Rates
from kypho_kg.synth_aims import Aims
from kypho_kg.synth_population import find_population
from kypho_kg.synth_reader import read_population
from kypho_kg.synth_run import synthesize
from kypho_kg.verdicts import VERDICTS as WORDS
from kypho_kg.verdicts import conclude
from kypho_kg.vocabulary import KYPHO, local

TRUTH = {0: False, 1: None, 2: True}
FEW = ("cms-l34228", "nice-ta279", "cirse-2017", "acr-vcf-2022")


def part_of(folder: Path) -> tuple[pa.Table, pa.Table]:
    """The facts and the cases of a folder."""
    table = FactTable(folder)
    cases = table.dated(None, None)
    (part,) = table.parts(cases, cases.num_rows)
    return facts_of(part), cases


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parquet.read_table(folder / name).to_pylist()
    return found


# --------------------------------------------------------------------------------------------------------------------
# Engine against engine


def differences(
    folder: Path,
    first: int,
    number: int,
    *,
    bridges: bool = True,
    policies: Sequence[str] = (),
    shapes: bool = False,
    whole: bool = False,
) -> list[tuple[Any, ...]]:
    """Everything in which many at once and one by one differ on random records.

    :param whole: compare with ``assess`` and not only with the evaluator.
    """
    k = load_knowledge()
    layout = layout_of(k)
    drawn = list(records(first, number, k))
    assert write_fact_table(drawn, folder).rejected == []
    facts, cases = part_of(folder)
    rules = [k.policy(p) for p in policies]
    judged = judge(facts, cases, layout, bridges=bridges, policies=rules)
    assert not judged.rejected.any(), judged.reasons.keys()
    clauses = [r for g in k.guidelines.values() for r in g.recommendations]
    truths = [judged.logic.truth(layout.shared(r.criterion)) for r in clauses]
    causes = [judged.logic.cause(layout.shared(r.criterion)) for r in clauses]
    verdicts = {g.id: (*conclusions(judged, g, layout), in_force(judged, g, layout)) for g in k.guidelines.values()}
    wrong: list[tuple[Any, ...]] = []
    row = 0
    for r in drawn:
        known = mark_invalid(r) if shapes else marked(r)
        assert r.as_of
        active = tuple(k.bridges.values()) if bridges else ()
        snapshot = infer(known, k, r.as_of, bridges=active, policies=tuple(rules))
        answers = assess(known, knowledge=k, guidelines=["all"], validate=False).cases if whole else ()
        for i, lesion in enumerate(r.lesions):
            treated = r.procedure is not None and (r.procedure.lesions is None or lesion.id in r.procedure.lesions)
            evaluator = Evaluator(snapshot, lesion_subject(lesion.id), treated)
            for j, clause in enumerate(clauses):
                proof = evaluator.evaluate(clause.criterion)
                cause = None if causes[j][row] == NO_CAUSE else str(CAUSES[causes[j][row]])
                if (int(proof.truth), cause_of(proof)) != (truths[j][row], cause):
                    wrong.append(
                        (r.patient, lesion.id, clause.id, proof.truth.name, cause_of(proof), truths[j][row], cause)
                    )
            for a in answers[i].assessments if whole else ():
                v, ends, force = (x[row] for x in verdicts[a.guideline.id])
                mine = WORDS[v], tuple(w for n, w in enumerate(WORDS) if int(ends) >> n & 1), TRUTH[int(force)]
                if mine != (a.verdict, a.conclusion.reachable, a.in_force):
                    wrong.append((r.patient, lesion.id, a.guideline.id, mine, a.verdict, a.conclusion.reachable))
            row += 1
    assert row == cases.num_rows
    return wrong


@pytest.mark.parametrize("block", range(5))
def test_truths_and_causes_equal_those_of_one_case(block: int, tmp_path: Path) -> None:
    assert differences(tmp_path, 400 * block, 300) == []


def test_verdicts_equal_those_of_one_case(tmp_path: Path) -> None:
    assert differences(tmp_path, 100_000, 150, whole=True) == []


@pytest.mark.parametrize("policy", ["problem-list", "age-sex", "single-etiology"])
def test_assumptions_equal_those_of_one_case(policy: str, tmp_path: Path) -> None:
    assert differences(tmp_path, 200_000, 80, policies=[policy]) == []


def test_no_bridge_equals_that_of_one_case(tmp_path: Path) -> None:
    assert differences(tmp_path, 300_000, 80, bridges=False) == []


def test_limits_are_those_of_the_shapes(tmp_path: Path) -> None:
    assert differences(tmp_path, 400_000, 60, shapes=True) == []


@pytest.mark.slow
def test_a_hundred_thousand_cases_equal_those_of_one_case(tmp_path: Path) -> None:
    size, number = 2_500, 32  # four lesions to three records
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        jobs = [
            pool.submit(differences, tmp_path / str(i), 1_000_000 + size * i, size, whole=i % 16 == 0)
            for i in range(number)
        ]
        assert [x for job in jobs for x in job.result()[:3]] == []


# --------------------------------------------------------------------------------------------------------------------
# Generated patients: one run, looked at from several sides


def generate(folder: Path, k: Knowledge, number: int, seed: int, rates: Rates) -> Path:
    population = read_population(find_population("us-referrals"), k)
    synthesize(Generator(population, k, seed, rates, Aims(k, ())), k, number, folder, "facts")
    return folder


@pytest.fixture(scope="module")
def generated(knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("generated"), knowledge, 1500, 5, Rates(0.3, 0.02, 0.01, 0.5))


def judged_to(out: Path, source: Path, options: Options | None = None, **how: Any) -> Outcome:
    k = load_knowledge()
    table = FactTable(source)
    how = {"processes": 1, "part": 1000, **how}
    cases = how.pop("cases", None)
    return run(
        table,
        table.dated(None, None) if cases is None else cases,
        out,
        k,
        options or Options(tuple(k.guidelines)),
        **how,
    )


@pytest.fixture(scope="module")
def done(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    out = tmp_path_factory.mktemp("done")
    return out, judged_to(out, generated)


def test_generated_answers_are_found(generated: Path, done: tuple[Path, Outcome]) -> None:
    expected = parquet.read_table(generated / "expected.parquet").to_pylist()
    clauses = {(r["patient"], r["lesion"]): r for r in rows_of(done[0], CLAUSES)}
    words = {"met": True, "not met": False, "unknown": None}
    found = [clauses[e["patient"], e["lesion"]][e["clause"]] for e in expected]
    assert len(found) > 300
    assert {e["truth"] for e in expected} == set(words)
    assert [e for e, f in zip(expected, found, strict=True) if words[e["truth"]] != f] == []


def test_tables_have_a_row_for_each_case(generated: Path, done: tuple[Path, Outcome], knowledge: Knowledge) -> None:
    keys = parquet.read_table(generated / "cases.parquet", columns=["patient", "lesion", "as_of"]).to_pylist()
    ids = list(knowledge.guidelines)
    policies = [g.id for g in knowledge.guidelines.values() if g.is_policy]
    for name, columns in (
        (VERDICTS, {*ids, *(f"{p} in force" for p in policies)}),
        (CLAUSES, {r.id for g in knowledge.guidelines.values() for r in g.recommendations}),
    ):
        rows = rows_of(done[0], name)
        assert [{c: r[c] for c in ("patient", "lesion", "as_of")} for r in rows] == keys
        assert set(rows[0]) == {"patient", "lesion", "as_of", *columns}


def test_counts_are_those_of_the_tables(done: tuple[Path, Outcome]) -> None:
    out, outcome = done
    verdicts, clauses = rows_of(out, VERDICTS), rows_of(out, CLAUSES)
    tables = {s.name: s.dicts() for s in summaries(outcome.asked, outcome.counts)}
    for row in tables["verdict_counts"]:
        assert {w: row[w] for w in WORDS if row[w]} == Counter(v[row["guideline"]] for v in verdicts)
    for row in tables["clause_counts"]:
        said = Counter(c[row["clause"]] for c in clauses)
        assert (row["met"], row["not_met"], row["unknown"]) == (said[True], said[False], said[None])
        assert sum(row[str(c)] for c in CAUSES) == row["unknown"]
    for row in tables["missingness"]:
        assert row["known"] + sum(row[str(c)] for c in CAUSES) == len(clauses)


def test_what_keeps_verdicts_open_is_that_of_the_proofs(tmp_path: Path, knowledge: Knowledge) -> None:
    drawn = list(records(700, 60, knowledge))
    write_fact_table(drawn, tmp_path / "t")
    outcome = judged_to(tmp_path / "out", tmp_path / "t", part=25)
    wanted: Counter[str] = Counter()
    for r in drawn:
        for case in assess(marked(r), knowledge=knowledge, guidelines=["all"], validate=False).cases:
            wanted.update(kept_open(case, knowledge))
    rows = _table(outcome, "missingness")
    assert len(wanted) > 40
    assert {row["feature"]: row["keeps_open"] for row in rows if row["keeps_open"]} == wanted
    most = missing_most(rows)
    assert [row["feature"] for row in most] == sorted(wanted, key=lambda f: (-wanted[f], f))


def kept_open(case: CaseAnswer, k: Knowledge) -> set[str]:
    """The features that keep a deciding clause of an open verdict unknown, by the proofs of one case."""
    leaves = [
        leaf.criterion
        for a in case.assessments
        if a.verdict in ("Undetermined", "CandidateScreeningOpen")
        for c in a.clauses
        if c.recommendation.effect in DECIDING and not c.recommendation.reading
        for leaf in c.proof.unknown_leaves()
        if leaf.criterion.op is not Op.OPEN
    ]
    return {k.features[x.term].name for leaf in leaves for x in leaf.walk() if x.op in ATOMS}


def test_attrition_is_that_of_plain_sql(done: tuple[Path, Outcome]) -> None:
    """Each number once more by SQL on the table of clauses, where unknown is NULL."""
    out, outcome = done
    rows = {(s["guideline"], s["step"]): s for s in _table(outcome, "attrition")}
    assert len(rows) > 150
    with duckdb.connect() as con:
        con.read_parquet(str(out / CLAUSES / "*.parquet")).create_view("c")
        for guideline in outcome.asked.guidelines:
            steps = [s for s in outcome.asked.steps if s.guideline == guideline.id]
            truth = [" OR ".join(f'"{r.id}"' for r in s.clauses) for s in steps]
            passed = [f"(NOT ({t}))" if s.fails_if == MET else f"({t})" for s, t in zip(steps, truth, strict=True)]
            for i, t in enumerate(truth):
                before = " AND ".join(f"({p} IS NOT FALSE)" for p in passed[:i]) or "TRUE"
                others = [p for j, p in enumerate(passed) if j != i]
                rest = " AND ".join(f"({p} IS TRUE)" for p in others) or "TRUE"
                wanted = [
                    before,
                    f"{before} AND ({t}) IS TRUE",
                    f"{before} AND ({t}) IS FALSE",
                    f"{before} AND ({t}) IS NULL",
                    f"{before} AND {passed[i]} IS NOT FALSE",
                    " AND ".join(f"({p} IS TRUE)" for p in passed[: i + 1]),
                    f"{rest} AND {passed[i]} IS FALSE",
                    f"{rest} AND {passed[i]} IS NULL",
                ]
                counts = ", ".join(f"count(*) FILTER (WHERE {w})" for w in wanted)
                row = rows[guideline.id, i + 1]
                found = con.execute(f"SELECT {counts} FROM c").fetchall()[0]
                assert found == tuple(row[s.replace(" ", "_")] for s in STEPS), (guideline.id, i + 1)


def _table(outcome: Outcome, name: str) -> list[dict[str, Any]]:
    tables = summaries(outcome.asked, outcome.counts, outcome.beside, outcome.moves)
    return next(t.dicts() for t in tables if t.name == name)


def test_the_last_step_leaves_the_candidates(done: tuple[Path, Outcome]) -> None:
    certain = {r["guideline"]: r["certain"] for r in _table(done[1], "attrition")}
    checked = 0
    for row in _table(done[1], "verdict_counts"):
        if not row["Rated"] and not row["NoVerdict"]:
            yes = row["Candidate"] + row["CandidateWithCaution"] + row["CandidateScreeningOpen"]
            assert certain[row["guideline"]] == yes, row["guideline"]
            checked += 1
    assert checked > 50


def test_agreement_is_that_of_the_verdicts(done: tuple[Path, Outcome]) -> None:
    out, outcome = done
    says = dict.fromkeys(("Candidate", "CandidateWithCaution"), "yes") | dict.fromkeys(
        ("Contraindicated", "NotIndicated"), "no"
    )
    verdicts = rows_of(out, VERDICTS)
    said = {g.id: [says.get(v[g.id]) for v in verdicts] for g in outcome.asked.guidelines}
    table = _table(outcome, "agreement")
    assert sum(r["both_decide"] > 0 for r in table) > 500
    for row in table[::7]:
        pairs = Counter(zip(said[row["guideline"]], said[row["other"]], strict=True))
        for a in ("yes", "no"):
            for b in ("yes", "no"):
                assert row[f"{a}_{b}"] == pairs[a, b]
        both = sum(n for (a, b), n in pairs.items() if a and b)
        one = sum(n for (a, b), n in pairs.items() if bool(a) != bool(b))
        assert (row["both_decide"], row["one_decides"], row["neither_decides"]) == (both, one, pairs[None, None])
        same = pairs["yes", "yes"] + pairs["no", "no"]
        assert row["agree"] == same
        if row["kappa"] != "":
            yes = [sum(n for p, n in pairs.items() if p[i] == "yes" and p[1 - i]) / both for i in (0, 1)]
            chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
            assert row["kappa"] == pytest.approx((same / both - chance) / (1 - chance), abs=1e-4)


# --------------------------------------------------------------------------------------------------------------------
# The same answer, however it is computed


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file() and p.suffix != ".json"
    }


def test_parts_and_processes_change_nothing(generated: Path, done: tuple[Path, Outcome], tmp_path: Path) -> None:
    whole, outcome = done
    other = judged_to(tmp_path / "b", generated, processes=2, part=301)
    assert other.parts > 4
    for name in (VERDICTS, CLAUSES):
        assert rows_of(tmp_path / "b", name) == rows_of(whole, name)
    assert summaries(other.asked, other.counts) == summaries(outcome.asked, outcome.counts)
    judged_to(tmp_path / "c", generated, processes=1, part=301)
    assert contents(tmp_path / "b") == contents(tmp_path / "c")


def test_a_run_that_was_killed_goes_on(generated: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RUN, str(generated), str(tmp_path / "cut")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()  # the first part is there
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    before = {p.name for p in (tmp_path / "cut" / COUNTS).glob("*.npz")}
    assert before
    stray = tmp_path / "cut" / VERDICTS / "part-00003.draft"
    stray.write_bytes(b"half")
    outcome = judged_to(tmp_path / "cut", generated, Options(FEW), part=200)
    assert 1 <= outcome.reused < outcome.parts
    stray.unlink(missing_ok=True)
    judged_to(tmp_path / "whole", generated, Options(FEW), part=200)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


_RUN = f"""
import sys
from pathlib import Path
from kypho_kg.cohort.run import Options, run
from kypho_kg.cohort.source import FactTable
from kypho_kg.loading import load_knowledge
table = FactTable(Path(sys.argv[1]))
def told(done, of):
    if done:
        print(done, flush=True)
        sys.stdin.read(0)
        import time; time.sleep(0.2)
run(table, table.dated(None, None), Path(sys.argv[2]), load_knowledge(), Options({FEW!r}), processes=1, part=200,
    progress=told)
"""


def test_another_run_needs_another_folder(generated: Path, tmp_path: Path) -> None:
    judged_to(tmp_path, generated, Options(FEW))
    with pytest.raises(UsageError, match=r"holds another run \(guidelines differ\)"):
        judged_to(tmp_path, generated, Options(FEW[:2]))
    same = judged_to(tmp_path, generated, Options(FEW))
    assert same.reused == same.parts > 1
    assert judged_to(tmp_path, generated, Options(FEW[:2]), again=True).reused == 0
    with pytest.raises(UsageError, match="needs more --memory"):
        judged_to(tmp_path, generated, Options(FEW[:2]), part=500)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(UsageError, match=r"run\.json is no manifest"):
        judged_to(tmp_path, generated, Options(FEW))


def test_data_that_changed_is_another_run(knowledge: Knowledge, tmp_path: Path) -> None:
    write_fact_table([simple("a", 5)], tmp_path / "t")
    judged_to(tmp_path / "out", tmp_path / "t", Options(FEW))
    write_fact_table([simple("a", 6)], tmp_path / "t")
    with pytest.raises(UsageError, match="data sha256 differ"):
        judged_to(tmp_path / "out", tmp_path / "t", Options(FEW))


def test_it_cannot_be_written(generated: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot write"):
        judged_to(tmp_path / "file", generated, Options(FEW))


def test_ids_may_be_numbers_or_texts(generated: Path, tmp_path: Path) -> None:
    for name in ("facts", "cases"):
        table = parquet.read_table(generated / f"{name}.parquet")
        texts = pc.utf8_lpad(table["patient"].cast(pa.string()), 8, "0")
        parquet.write_table(table.set_column(0, "patient", texts), tmp_path / f"{name}.parquet", row_group_size=9999)
    judged_to(tmp_path / "out", tmp_path, Options(FEW), part=700)
    judged_to(tmp_path / "numbers", generated, Options(FEW), part=700)
    for name in (VERDICTS, CLAUSES):
        texts = rows_of(tmp_path / "out", name)
        assert [{**r, "patient": int(r["patient"])} for r in texts] == rows_of(tmp_path / "numbers", name)


def test_csv_says_the_same(tmp_path: Path, knowledge: Knowledge) -> None:
    write_fact_table(records(0, 60, knowledge), tmp_path / "parquet")
    (tmp_path / "csv").mkdir()
    for name, schema in (("facts", facts_schema()), ("cases", cases_schema())):
        table = parquet.read_table(tmp_path / "parquet" / f"{name}.parquet")
        plain = [f.with_type(pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in schema]
        csv.write_csv(table.cast(pa.schema(plain)), tmp_path / "csv" / f"{name}.csv")
    with pytest.raises(InputError, match="is CSV"):
        FactTable(tmp_path / "csv")
    as_parquet(tmp_path / "csv", tmp_path / "made")
    judged_to(tmp_path / "a", tmp_path / "parquet", Options(FEW))
    judged_to(tmp_path / "b", tmp_path / "made", Options(FEW))
    for name in (VERDICTS, CLAUSES):
        assert rows_of(tmp_path / "a", name) == rows_of(tmp_path / "b", name)


def test_other_forms_of_parquet_say_the_same(tmp_path: Path, knowledge: Knowledge) -> None:
    """Small row groups, several files, plain and large texts, other time units, no statistics, rows out of order."""
    write_fact_table(records(0, 60, knowledge), tmp_path / "one")
    for name, schema in (("facts", facts_schema()), ("cases", cases_schema())):
        table = parquet.read_table(tmp_path / "one" / f"{name}.parquet")
        kinds = {pa.timestamp("s"): pa.timestamp("ns")}
        plain = [
            f.with_type(pa.large_string() if pa.types.is_dictionary(f.type) else kinds.get(f.type, f.type))
            for f in schema
        ]
        table = table.cast(pa.schema(plain))
        (tmp_path / "many" / name).mkdir(parents=True)
        half = table.num_rows // 2
        for number, piece in enumerate((table.slice(half), table.slice(0, half))):
            path = tmp_path / "many" / name / f"{number}.parquet"
            parquet.write_table(piece, path, row_group_size=37, write_statistics=False)
    judged_to(tmp_path / "a", tmp_path / "one", Options(FEW))
    judged_to(tmp_path / "b", tmp_path / "many", Options(FEW), part=20)
    for name in (VERDICTS, CLAUSES):
        assert rows_of(tmp_path / "a", name) == rows_of(tmp_path / "b", name)


# --------------------------------------------------------------------------------------------------------------------
# Dates


def simple(patient: str, pain: int, *facts: Fact, day: str = "2026-02-20", lesions: tuple[str, ...] = ("a",)) -> Record:
    """A patient with pain at the first lesion."""
    of_pain = Fact(LESION + "a", KYPHO + "painNrs", Range.exactly(pain), time=TimeSpan.parse(day), unit="{score}")
    return Record(patient, tuple(map(Lesion, lesions)), (of_pain, *facts), None, date(2026, 3, 1))


def indexed(table: FactTable, *rows: tuple[str, str | None, str], folder: Path) -> pa.Table:
    path = folder / "index.csv"
    path.write_text("patient,lesion,date\n" + "".join(f"{p},{x or ''},{d}\n" for p, x, d in rows))
    return table.dated(None, read_index(path, table.cases.schema.field("patient").type))


def test_each_case_on_several_dates(tmp_path: Path, knowledge: Knowledge) -> None:
    drawn = list(records(500, 40, knowledge))
    write_fact_table(drawn, tmp_path / "t")
    table = FactTable(tmp_path / "t")
    days = ["2025-03-02", "2026-02-01", "2026-03-01", "2027-01-01"]
    some = [(r.patient, None, d) for i, r in enumerate(drawn) for d in days[: 1 + i % 4]]
    cases = indexed(table, *some, folder=tmp_path)
    judged_to(tmp_path / "out", tmp_path / "t", Options(FEW), cases=cases, part=17)
    found = {(r["patient"], r["lesion"], r["as_of"]): r for r in rows_of(tmp_path / "out", VERDICTS)}
    assert len(found) == sum(len(r.lesions) * (1 + i % 4) for i, r in enumerate(drawn))
    for i, r in enumerate(drawn):
        for d in days[: 1 + i % 4]:
            answered = assess(
                marked(r), as_of=date.fromisoformat(d), knowledge=knowledge, guidelines=FEW, validate=False
            )
            for case in answered.cases:
                row = found[r.patient, case.lesion.id, answered.as_of]
                assert {a.guideline.id: a.verdict for a in case.assessments} == {g: row[g] for g in FEW}


def test_an_index_names_lesions_or_patients(tmp_path: Path) -> None:
    write_fact_table([simple(p, 5, lesions=("a", "b")) for p in "pqrs"], tmp_path / "t")
    table = FactTable(tmp_path / "t")
    cases = indexed(
        table, ("p", "b", "2026-03-01"), ("q", None, "2026-03-02"), ("r", "z", "2026-03-01"), folder=tmp_path
    )
    assert table.notes == {"entries of the index without a case": 1}
    outcome = judged_to(tmp_path / "out", tmp_path / "t", Options(FEW), cases=cases)
    rows = [(r["patient"], r["lesion"], str(r["as_of"])) for r in rows_of(tmp_path / "out", VERDICTS)]
    assert rows == [("p", "b", "2026-03-01"), ("q", "a", "2026-03-02"), ("q", "b", "2026-03-02")]
    assert int(outcome.counts.cases[0]) == 3
    assert outcome.left == {}


def test_an_event_gives_the_date(tmp_path: Path, knowledge: Knowledge) -> None:
    onset = Fact(LESION + "a", KYPHO + "onsetDate", TimeSpan.parse("2026-01"), unit="")
    planned = Fact(
        LESION + "b", KYPHO + "painNrs", Range.exactly(3), mood=Mood.PLANNED, time=TimeSpan.parse("2020-01-01")
    )
    two = [simple("p", 5, onset, planned, lesions=("a", "b")), simple("q", 6, day="2026-02")]
    write_fact_table(two, tmp_path)
    table, layout = FactTable(tmp_path), layout_of(knowledge)

    def found(event: str) -> list[tuple[str, str | None, str]]:
        return [(r["patient"], r["lesion"], str(r["date"])) for r in entries(table, event, layout).to_pylist()]

    assert found("painNrs") == [("p", "a", "2026-02-20"), ("q", "a", "2026-02-28")]
    assert found("painNrs+14") == [("p", "a", "2026-03-06"), ("q", "a", "2026-03-14")]
    assert found("onsetDate+28") == [("p", "a", "2026-02-28")]
    for wrong in ("painNsr", "painNrs+", "painNrs-3", ""):
        with pytest.raises(UsageError, match="expected the name of a feature"):
            entries(table, wrong, layout)


def test_a_kind_of_the_finding_is_the_event(tmp_path: Path, knowledge: Knowledge) -> None:
    narrow, wide = "Discitis", "ActiveInfection"
    assert knowledge.subsumes(KYPHO + wide, KYPHO + narrow)
    fact = Fact(PATIENT, KYPHO + narrow, time=TimeSpan.parse("2026-02-01"))
    absent = Fact(PATIENT, KYPHO + wide, polarity=Polarity.ABSENT, time=TimeSpan.parse("2025-02-01"))
    write_fact_table([simple("p", 5, fact, absent)], tmp_path)
    rows = entries(FactTable(tmp_path), wide, layout_of(knowledge)).to_pylist()
    assert rows == [{"patient": "p", "lesion": None, "date": date(2026, 2, 1)}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("patient,lesion\np,a\n", "missing column date"),
        ("patient,lesion,date\np,a,\n", "1 rows without date"),
        ("patient,lesion,date\n,a,2026-03-01\n", "1 rows without patient"),
        (
            "patient,lesion,date\np,a,2026-03-01\np,a,01.03.2026\n",
            "index.csv: row 2, date: no date; expected YYYY-MM-DD",
        ),
        ("patient,date,date\np,2026-03-01,2026-03-02\n", "column date comes twice"),
        ("patient,lesion,date\np,a,2026-03-01\n\nSECRET,a\n", "index.csv: row 2: 2 cells; expected 3, as in the first"),
        (
            "patient,lesion,date\np,a,2026-03-01\nSECRET,a,b,c\n",
            "index.csv: row 2: 4 cells; expected 3, as in the first",
        ),
        ("patient,lesion,date\np,a,SECRET\n", "index.csv: row 1, date: no date"),
        ("patient,lesion,date\np,SECRET \udcff,2026-03-01\n", "cannot be read; expected CSV in UTF-8"),
        ("", "cannot be read"),
        ("patient,lesion,date\n", "holds no row"),
    ],
)
def test_a_wrong_index_is_explained(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=re.escape(said)) as bad:
        read_index(tmp_path / "index.csv", pa.string())
    assert "SECRET" not in str(bad.value)


def test_an_index_of_patients_whose_ids_are_no_numbers(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("patient,date\n7,2026-03-01\nSECRET,2026-03-01\nSECRET2,2026-03-01\n")
    with pytest.raises(InputError) as bad:
        read_index(tmp_path / "index.csv", pa.int64())
    assert [str(p) for p in bad.value.problems] == [
        f"index.csv: row {n}, patient: no id like those of the cases; expected whole numbers" for n in (2, 3)
    ]


def test_an_index_in_parquet_shows_no_cell(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"patient": ["p", "q"], "date": ["2026-03-01", "SECRET"]}), tmp_path / "i.parquet")
    with pytest.raises(InputError, match="row 2, date: no date; expected YYYY-MM-DD") as bad:
        read_index(tmp_path / "i.parquet", pa.string())
    assert "SECRET" not in str(bad.value)


def test_a_case_without_a_date_is_an_error(tmp_path: Path) -> None:
    write_fact_table([simple("p", 5)], tmp_path)
    table = parquet.read_table(tmp_path / "cases.parquet")
    parquet.write_table(table.set_column(2, "as_of", pa.nulls(1, pa.date32())), tmp_path / "cases.parquet")
    with pytest.raises(InputError, match="1 of 1 cases have no as-of date; expected a date in the table, --as-of"):
        FactTable(tmp_path).dated(None, None)
    assert FactTable(tmp_path).dated(date(2026, 1, 1), None)["as_of"].to_pylist() == [date(2026, 1, 1)]


# --------------------------------------------------------------------------------------------------------------------
# What is malformed


def broken(folder: Path, name: str, column: str, row: int, value: Any) -> None:
    """Write something else into one cell."""
    path = folder / f"{name}.parquet"
    rows = parquet.read_table(path).to_pylist()
    rows[row][column] = value
    schema = facts_schema() if name == "facts" else cases_schema()
    parquet.write_table(pa.Table.from_pylist(rows, schema), path)


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("facts", "feature", "painNsr"),
        ("facts", "feature", None),
        ("facts", "lesion", "z"),
        ("facts", "polarity", "maybe"),
        ("facts", "mood", None),
        ("facts", "status", "sure"),
        ("facts", "low", Decimal(9)),
        ("facts", "low", None),
        ("facts", "value", "Lumbar"),
        ("facts", "cause", "Because"),
        ("facts", "time_end", None),
        ("facts", "date_start", date(2026, 1, 1)),
        ("cases", "lesion", None),
        ("cases", "lesion", ""),
        ("cases", "state", "Texas"),
        ("cases", "service_end", date(2026, 1, 1)),
    ],
)
def test_a_patient_with_a_malformed_row_is_left_out(
    name: str, column: str, value: Any, tmp_path: Path, knowledge: Knowledge
) -> None:
    """Just where a reader of single records leaves it out; and it costs nobody else anything."""
    from kypho_kg.record import Procedure

    three = [replace(simple(p, 5), procedure=Procedure()) for p in "pqr"]
    write_fact_table(three, tmp_path / "t")
    judged_to(tmp_path / "good", tmp_path / "t", Options(FEW))
    broken(tmp_path / "t", name, column, 1, value)
    report = IntakeReport("t")
    read = [r.patient for r in read_fact_table(tmp_path / "t", knowledge, report)]
    open_below = (name, column, value) == ("facts", "low", None)  # then it is a range without a lower end
    assert read == (["p", "q", "r"] if open_below else ["p", "r"])
    outcome = judged_to(tmp_path / "bad", tmp_path / "t", Options(FEW))
    assert [r["patient"] for r in rows_of(tmp_path / "bad", VERDICTS)] == read
    told = outcome.rejected.to_pylist()
    assert [t["patient"] for t in told] == ([] if open_below else ["q"])
    assert all(re.match(r"(facts|cases): \w", t["reason"]) for t in told)
    if not open_below:
        assert int(outcome.counts.cases[0]) == 2
        good = [r for r in rows_of(tmp_path / "good", VERDICTS) if r["patient"] != "q"]
        assert rows_of(tmp_path / "bad", VERDICTS) == good


@pytest.mark.parametrize("column", ["as_of", "has_procedure", "session_named", "state"])
def test_lesions_of_a_patient_must_say_the_same(column: str, tmp_path: Path) -> None:
    write_fact_table([simple("p", 5, lesions=("a", "b")), simple("q", 5)], tmp_path)
    other = {"as_of": date(2020, 1, 1), "state": "TX"}.get(column, True)
    broken(tmp_path, "cases", column, 1, other)
    table = FactTable(tmp_path)
    assert table.cases["patient"].to_pylist() == ["q"]
    reasons = {r["reason"] for r in table.rejected.to_pylist()}
    assert reasons == {f"cases: {column} differs between lesions of the patient"}


def test_a_lesion_that_stands_twice(tmp_path: Path) -> None:
    write_fact_table([simple("p", 5, lesions=("a", "b")), simple("q", 5)], tmp_path)
    broken(tmp_path, "cases", "lesion", 1, "a")
    assert [(r["patient"], r["reason"]) for r in FactTable(tmp_path).rejected.to_pylist()] == [
        ("p", "cases: the lesion stands twice")
    ] * 2


def test_facts_without_a_case_are_told(tmp_path: Path) -> None:
    write_fact_table([simple(p, 5) for p in "pqrst"], tmp_path / "t")
    path = tmp_path / "t" / "cases.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.filter(pc.is_in(table["patient"], value_set=pa.array(["q", "s"]))), path)
    for part in (1, 10):
        outcome = judged_to(tmp_path / f"out{part}", tmp_path / "t", Options(FEW), part=part)
        assert outcome.left == {"facts without a case that is judged": 3}


def changed(folder: Path, name: str, change: Any) -> None:
    path = folder / f"{name}.parquet"
    parquet.write_table(change(parquet.read_table(path)), path)


def typed(column: str, kind: pa.DataType) -> Any:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(column)
        return table.set_column(place, column, pa.nulls(table.num_rows, kind))

    return change


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("facts", lambda t: t.drop_columns(["polarity"]), "facts.parquet: missing column polarity; expected patient, "),
        ("cases", lambda t: t.drop_columns(["state", "as_of"]), "cases.parquet: missing column as_of, state"),
        ("facts", typed("low", pa.float64()), "facts.parquet, column low: of type double; expected the type number"),
        ("facts", typed("feature", pa.int64()), "facts.parquet, column feature: of type int64; expected the type text"),
        ("facts", typed("time_start", pa.timestamp("s", "UTC")), "column time_start: of type timestamp"),
        ("cases", typed("as_of", pa.string()), "cases.parquet, column as_of: of type string; expected the type date"),
        ("cases", typed("patient", pa.float64()), "column patient: of type double; expected the type text or whole"),
        ("facts", typed("patient", pa.int64()), "patient has several types; expected numbers in all files, or texts"),
        ("cases", typed("patient", pa.string()), "cases.parquet, patient: empty; expected the id of a patient"),
    ],
)
def test_a_malformed_table_is_explained(name: str, change: Any, said: str, tmp_path: Path) -> None:
    write_fact_table([simple("p", 5), simple("q", 5)], tmp_path)
    changed(tmp_path, name, change)
    with pytest.raises(InputError, match=re.escape(said)):
        FactTable(tmp_path)


def test_a_number_that_would_be_cut_is_explained(tmp_path: Path) -> None:
    write_fact_table([simple("p", 5), simple("q", 5)], tmp_path / "t")
    fine = pa.array([Decimal("5.00000001")] * 2, pa.decimal128(20, 8))
    changed(tmp_path / "t", "facts", lambda t: t.set_column(t.schema.get_field_index("low"), "low", fine))
    with pytest.raises(InputError, match=r"facts\.parquet: cannot be read: "):
        judged_to(tmp_path / "out", tmp_path / "t", Options(FEW))
    with pytest.raises(InputError, match=r"facts\.parquet: cannot be read: "):
        judged_to(tmp_path / "out2", tmp_path / "t", Options(FEW), processes=2, part=1)


def test_no_parquet_and_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no table facts"):
        FactTable(tmp_path)
    (tmp_path / "facts.parquet").write_bytes(b"no")
    (tmp_path / "cases.parquet").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read"):
        FactTable(tmp_path)


# --------------------------------------------------------------------------------------------------------------------
# Evidence


def test_evidence_is_that_of_the_proofs(tmp_path: Path, knowledge: Knowledge) -> None:
    drawn = list(records(700, 40, knowledge))
    write_fact_table(drawn, tmp_path / "t")
    judged_to(tmp_path / "out", tmp_path / "t", Options(FEW, evidence=True), part=25)
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows_of(tmp_path / "out", EVIDENCE):
        found.setdefault((row["patient"], row["lesion"], row["clause"]), []).append(row)
    compared = dated = 0
    for r in drawn:
        for case in assess(marked(r), knowledge=knowledge, guidelines=FEW, validate=False).cases:
            for clause in (c for a in case.assessments for c in a.clauses):
                rows = found[r.patient, case.lesion.id, clause.recommendation.id]
                assert {(x["clause_truth"], x["clause_cause"]) for x in rows} == {
                    (clause.truth.words, cause_of(clause.proof))
                }
                mine = {(x["feature"], x["asked"], x["truth"]) for x in rows}
                for leaf in (x for x in clause.proof.leaves() if x.criterion.op in ATOMS):
                    name = local(leaf.criterion.term)
                    compared += 1
                    assert any(f == name and t == leaf.truth.words for f, _, t in mine), (r.patient, name)
                    one = [x for x in rows if x["feature"] == name]
                    days = {f.time.end.date() for f in leaf.facts if f.time and not f.rule}
                    if len(leaf.facts) == 1 and days and leaf.truth.words == "met" and not leaf.facts[0].rule:
                        dated += 1
                        assert min(*days, r.as_of or date.max) in {x["date"] for x in one}, (r.patient, name)
    assert compared > 1000
    assert dated > 50


def test_evidence_of_one_patient_in_full(tmp_path: Path) -> None:
    infection = Fact(PATIENT, KYPHO + "ActiveInfection", polarity=Polarity.ABSENT, time=TimeSpan.parse("2026-02"))
    levels = frozenset({KYPHO + "T11", KYPHO + "T12"})
    more = (
        infection,
        Fact(LESION + "a", KYPHO + "vertebralLevel", levels),
        Fact(LESION + "a", KYPHO + "primaryEtiology", KYPHO + "PrimaryOsteoporosis", time=TimeSpan.parse("2026-01-05")),
        Fact(LESION + "a", KYPHO + "weeksSinceOnset", Range(Decimal(5), None, low_open=True)),
    )
    write_fact_table([simple("p", 7, *more), simple("q", 7)], tmp_path / "t")
    judged_to(
        tmp_path / "out",
        tmp_path / "t",
        Options(tuple(load_knowledge().guidelines), evidence=True, patients=("p", "nobody")),
    )
    rows = rows_of(tmp_path / "out", EVIDENCE)
    assert {r["patient"] for r in rows} == {"p"}

    def told(feature: str, *columns: str) -> set[tuple[Any, ...]]:
        return {tuple(r[c] for c in columns) for r in rows if r["feature"] == feature}

    assert told("ActiveInfection", "value", "truth", "date") == {("absent", "not met", date(2026, 2, 28))}
    assert told("vertebralLevel", "value", "date", "low") == {("T11|T12", None, None)}
    assert told("primaryEtiology", "value", "date") == {("PrimaryOsteoporosis", date(2026, 1, 5))}
    assert told("weeksSinceOnset", "low", "high", "low_open", "high_open") == {(Decimal(5), None, True, None)}
    assert told("painNrs", "low", "high", "low_open", "date") == {(Decimal(7), Decimal(7), False, date(2026, 2, 20))}
    assert ("not met", None) not in told("KnownMalignancy", "truth", "value")


# --------------------------------------------------------------------------------------------------------------------
# Asked beside


def test_a_sweep_is_the_changed_clause(generated: Path, tmp_path: Path, knowledge: Knowledge) -> None:
    """At the limit as it is nothing moves; at others, case by case what the changed clause says of it."""
    sweep = "cms-l34228/LCD-I1:weeksSinceOnset@12=6..14/2"
    outcome = judged_to(tmp_path, generated, Options(FEW, sweeps=(sweep,)))
    rows = _table(outcome, "beside")
    assert [r["value"] for r in rows] == ["6", "8", "10", "12", "14"]
    moved = _table(outcome, "moves")
    assert moved
    assert {m["value"] for m in moved} <= {"6", "8", "10", "14"}
    now = next(r for r in _table(outcome, "verdict_counts") if r["guideline"] == "cms-l34228")
    assert {w: rows[3][w] for w in WORDS} == {w: now[w] for w in WORDS}
    for row in rows:
        gained = Counter({w: row[w] - now[w] for w in WORDS})
        for m in moved:
            if m["value"] == row["value"]:
                gained[m["to"]] -= m["cases"]
                gained[m["from"]] += m["cases"]
        assert not any(gained.values())
    changed_, plain = read_sweep(sweep, knowledge)[0].guideline, knowledge.guideline("cms-l34228")
    report = IntakeReport("generated")
    counted: Counter[tuple[str, str]] = Counter()
    wanted = 60
    chosen = list(_some(read_fact_table(generated, knowledge, report), wanted))
    for r in chosen:
        assert r.as_of
        snapshot = infer(marked(r), knowledge, r.as_of, bridges=tuple(knowledge.bridges.values()))
        for lesion in r.lesions:
            treated = r.procedure is not None and (r.procedure.lesions is None or lesion.id in r.procedure.lesions)
            evaluator = Evaluator(snapshot, lesion_subject(lesion.id), treated)
            keys = {("a", ""): plain, ("b", ""): changed_}
            rows = {
                key: [(c, evaluator.evaluate(c.criterion).truth) for c in g.recommendations if not c.reading]
                for key, g in keys.items()
            }
            found = conclude(rows)
            counted[found["a", ""].verdict, found["b", ""].verdict] += 1
    table = FactTable(generated)
    ids = pa.array([int(r.patient) for r in chosen])
    some = table.dated(None, None)
    some = some.filter(pc.is_in(some["patient"], value_set=ids))
    some = some.append_column("asked", pa.array([True] * some.num_rows))
    part = judged_to(tmp_path / "some", generated, Options(FEW, sweeps=(sweep,)), cases=some)
    mine = {(m["from"], m["to"]): m["cases"] for m in _table(part, "moves") if m["value"] == "6"}
    assert mine == {pair: n for pair, n in counted.items() if pair[0] != pair[1]}
    assert mine


def _some(found: Iterator[Record], number: int) -> Iterator[Record]:
    for i, r in enumerate(found):
        if i % 4 == 0:
            yield r
        if i >= 4 * number:
            return


def test_a_sweep_of_a_guideline_moves_all_its_clauses(knowledge: Knowledge) -> None:
    one = read_sweep("cms-l34228/LCD-I1:weeksSinceOnset@12=8", knowledge)[0].guideline
    all_ = read_sweep("cms-l34228:weeksSinceOnset@12=8", knowledge)[0].guideline
    plain = knowledge.guideline("cms-l34228")

    def differ(other: Any) -> set[str]:
        pairs = zip(plain.recommendations, other.recommendations, strict=True)
        return {a.clause for a, b in pairs if a.criterion != b.criterion}

    assert differ(one) == {"LCD-I1"}
    assert differ(all_) > {"LCD-I1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "expected CLAUSE"),
        ("cms-l34228/LCD-I1:weeksSinceOnset", "expected CLAUSE"),
        ("cms-l99/LCD-I1=4", "unknown guideline 'cms-l99'"),
        ("cms-l34228/LCD-Z=4", "cms-l34228 has no clause 'LCD-Z'"),
        ("cms-l34228/LCD-I1:painNrs=4", "no such limit; cms-l34228/LCD-I1 asks for weeksSinceOnset@12"),
        ("cms-l34228/LCD-I1:weeksSinceOnset@11=4", "no such limit"),
        ("cms-l34228=4", "more than one limit fits"),
        ("cms-l34228/LCD-I1=x", "'x' is no number"),
        ("cms-l34228/LCD-I1=1.2345678", "at most six decimal places"),
        ("cms-l34228/LCD-I1=9..4", "the lower value first"),
        ("cms-l34228/LCD-I1=4..9/0", "a step above 0"),
        ("cms-l34228/LCD-I1=0..9999", "10,000 values; expected at most 1,000"),
        ("cms-l34228/LCD-I1=NaN", "expected a number"),
    ],
)
def test_a_wrong_sweep_is_explained(text: str, said: str, knowledge: Knowledge) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        read_sweep(text, knowledge)


def test_values_of_a_sweep(knowledge: Knowledge) -> None:
    def values(text: str) -> list[str]:
        return [b.value for b in read_sweep(f"cms-l34228/LCD-I1={text}", knowledge)]

    assert values("4..6") == ["4", "5", "6"]
    assert values("4..7/2") == ["4", "6"]
    assert values("4..5/0.5") == ["4", "4.5", "5"]
    assert values("4,8, 8") == ["4", "8"]


def test_an_assumption_stands_beside(tmp_path: Path, knowledge: Knowledge) -> None:
    """The strict verdict stays, and the assumed one is that of the single-case engine."""
    drawn = list(records(200_000, 120, knowledge))
    write_fact_table(drawn, tmp_path / "t")
    outcome = judged_to(tmp_path / "out", tmp_path / "t", Options(FEW, policies=("age-sex", "single-etiology")))
    found = {(r["patient"], r["lesion"]): r for r in rows_of(tmp_path / "out", VERDICTS)}
    moved: Counter[tuple[str, str, str]] = Counter()
    for r in drawn:
        answered = assess(
            marked(r), knowledge=knowledge, guidelines=FEW, assume=["age-sex", "single-etiology"], validate=False
        )
        for case in answered.cases:
            for a in case.assessments:
                row = found[r.patient, case.lesion.id]
                assert a.assumed
                assert (row[a.guideline.id], row[f"{a.guideline.id} assumed"]) == (
                    a.verdict,
                    a.assumed.conclusion.verdict,
                )
                if a.verdict != a.assumed.conclusion.verdict:
                    moved[a.guideline.id, a.verdict, a.assumed.conclusion.verdict] += 1
    told = {(m["guideline"], m["from"], m["to"]): m["cases"] for m in _table(outcome, "moves")}
    assert told == moved
    assert {m["name"] for m in _table(outcome, "moves")} <= {"age-sex+single-etiology"}


def test_two_knowledge_bases(generated: Path, tmp_path: Path, knowledge: Knowledge) -> None:
    older = tmp_path / "ontology"
    shutil.copytree(ROOT / "ontology", older)
    path = older / "guidelines" / "cms-l34228.ttl"
    text = path.read_text("utf-8")
    assert "xsd:maxInclusive 12.0" in text
    path.write_text(text.replace("xsd:maxInclusive 12.0", "xsd:maxInclusive 8.0"), "utf-8")
    outcome = judged_to(tmp_path / "out", generated, Options(FEW, older=older), part=700)
    same = judged_to(tmp_path / "same", generated, Options(FEW, older=ROOT / "ontology"))
    assert _table(same, "moves") == []
    assert rows_of(tmp_path / "same", FLIPS) == []
    flips = rows_of(tmp_path / "out", FLIPS)
    assert flips
    assert {f["guideline"] for f in flips} == {"cms-l34228"}
    now = {(r["patient"], r["lesion"]): r["cms-l34228"] for r in rows_of(tmp_path / "out", VERDICTS)}
    assert all(now[f["patient"], f["lesion"]] == f["to"] != f["from"] for f in flips)
    told = {(m["from"], m["to"]): m["cases"] for m in _table(outcome, "moves")}
    assert told == Counter((f["from"], f["to"]) for f in flips)


# --------------------------------------------------------------------------------------------------------------------
# Memory, and the dictionary


def test_less_memory_gives_smaller_parts(generated: Path, knowledge: Knowledge) -> None:
    table, all_ = FactTable(generated), Options(tuple(knowledge.guidelines))
    found = [sizes(table, 1_000_000, gib, 4, all_) for gib in (1, 2, 4, 64)]
    assert [n for n, _ in found] == sorted(n for n, _ in found)
    assert found[-1] == (4, 25_000)
    assert sizes(table, 1_000_000, 2, 1, all_)[1] >= sizes(table, 1_000_000, 1, 1, all_)[1]
    assert sizes(table, 1_000_000, 2, 1, replace(all_, evidence=True))[1] <= sizes(table, 1_000_000, 2, 1, all_)[1]
    with pytest.raises(UsageError, match=r"--memory 0\.2: too little for this table; expected at least 0\.\d"):
        sizes(table, 1_000_000, 0.2, 4, all_)


def test_the_page_in_the_docs_names_every_column() -> None:
    text = (ROOT / "docs" / "cohort.md").read_text("utf-8")
    for name, meaning in evidence.MEANING.items():
        assert f"| `{name}` | {meaning} |" in text
    for table, columns in COLUMNS.items():
        section = text.partition(f"### {table}.csv")[2].partition("\n### ")[0]
        assert section, table
        known = {str(c) for c in CAUSES} | set(WORDS)
        for column in columns:
            assert column in known or f"`{column}`" in section, (table, column)
