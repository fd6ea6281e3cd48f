"""Generated patients: the same for the same seed, as the population says, wrong where planted, and true where aimed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from builders import ROOT
from pyarrow import parquet
from ruamel.yaml import YAML
from typer.testing import CliRunner

from kypho_kg.candidacy import assess
from kypho_kg.cli import app
from kypho_kg.criteria import Op
from kypho_kg.errors import InputError, UsageError
from kypho_kg.evaluation import Truth
from kypho_kg.fact_table import records_of
from kypho_kg.fhir_forms import FORM
from kypho_kg.fhir_synth import (
    BEFORE,
    INCOMPLETE,
    LEVEL,
    ORDER,
    OVERRIDDEN,
    SHARED,
    STATE,
    UNSAID,
    VOID,
    FhirWriter,
    as_line,
)
from kypho_kg.inference import infer
from kypho_kg.intake import mark_invalid, reject_invalid
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import load_mappings
from kypho_kg.plausibility import limits
from kypho_kg.record import (
    LESION,
    PATIENT,
    PROCEDURE,
    Cause,
    Fact,
    Lesion,
    Mood,
    Polarity,
    Procedure,
    Range,
    Record,
    Source,
    Status,
    TimeSpan,
)
from kypho_kg.snapshot import Snapshot
from kypho_kg.sources.fhir import read_fhir
from kypho_kg.sources.fhir_codes import between
from kypho_kg.sources.patient_file import read_patient_file
from kypho_kg.synth import Generator, Rates
from kypho_kg.synth_aims import Aims
from kypho_kg.synth_answers import bearing, recipes
from kypho_kg.synth_draws import MICRO, gaussian, lognormal, poisson, table, uniforms
from kypho_kg.synth_files import patient_file
from kypho_kg.synth_population import Population, find_population, populations
from kypho_kg.synth_reader import read_population
from kypho_kg.synth_run import synthesize
from kypho_kg.synth_trouble import KINDS
from kypho_kg.vocabulary import KYPHO, local

NOTHING = Rates(missing=0, contradictions=0, dirty=0, aimed=0)
CLEAN = Rates(missing=0.3, contradictions=0, dirty=0, aimed=0)
runner = CliRunner()


@pytest.fixture(scope="module")
def population(knowledge: Knowledge) -> Population:
    return read_population(find_population("us-referrals"), knowledge)


@pytest.fixture(scope="module")
def aims(knowledge: Knowledge) -> Aims:
    return Aims(knowledge)


def records(generator: Generator, count: int, k: Knowledge) -> Iterator[Record]:
    for batch in generator.batches(count):
        yield from records_of(batch.facts, batch.cases, k)


# --------------------------------------------------------------------------------------------------------------------
# Distributions


def numbers(**given: object) -> dict[str, Decimal]:
    return {name: Decimal(str(value)) for name, value in given.items()}


def test_the_first_and_the_last_value_can_be_picked() -> None:
    found = table([3, 5, 9], [1, 0, 1]).pick(np.array([0.0, 0.4999, 0.5, 1 - 2**-53]))
    assert found.tolist() == [3, 3, 9, 9]


def test_a_gaussian_is_cut_off_at_its_limits_and_has_its_mean() -> None:
    made = gaussian(numbers(mean=5, sd=2, min=0, max=10, step="0.5"))
    values = made.pick(np.linspace(0, 1, 200_001)[:-1]) / MICRO
    assert (values.min(), values.max()) == (0, 10)
    assert abs(values.mean() - 5) < 0.01
    assert 1.8 < values.std() < 2
    assert (values * 2 == np.rint(values * 2)).all()


def test_a_lognormal_has_its_median() -> None:
    made = lognormal(numbers(median=40, sigma="0.9", min=1, max=2000, step=1))
    assert abs(float(np.median(made.pick(np.linspace(0, 1, 100_001)[:-1]))) / MICRO - 40) <= 1


def test_a_poisson_has_its_shares() -> None:
    made = poisson(numbers(mean=2, min=0, max=30))
    values = made.pick(np.linspace(0, 1, 1_000_001)[:-1]) // MICRO
    assert abs((values == 0).mean() - np.exp(-2)) < 1e-4
    assert abs((values == 3).mean() - np.exp(-2) * 8 / 6) < 1e-4


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [float("nan"), 1], [float("inf"), 1]])
def test_weights_that_are_none(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        table(list(range(len(weights))), weights)


def test_the_numbers_of_a_patient_depend_on_nothing_else() -> None:
    whole = uniforms(5, "x", 0, 100)
    assert (uniforms(5, "x", 37, 10) == whole[37:47]).all()
    assert not (uniforms(5, "y", 0, 100) == whole).any()
    assert not (uniforms(6, "x", 0, 100) == whole).any()
    assert ((whole >= 0) & (whole < 1)).all()


# --------------------------------------------------------------------------------------------------------------------
# The population

SCHEMA = json.loads((ROOT / "kypho_kg" / "schemas" / "population.schema.json").read_text("utf-8"))
EXAMPLE = (ROOT / "docs" / "synth.md").read_text("utf-8").partition("```yaml\n")[2].partition("```")[0]


def plain(text: str) -> Any:
    """A YAML text as the schema sees it: keys are texts, dates too."""
    return json.loads(json.dumps(YAML(typ="safe", pure=True).load(text), default=str))


@pytest.mark.parametrize("text", [*(p.read_text("utf-8") for p in populations().values()), EXAMPLE])
def test_populations_have_the_form(text: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(plain(text), SCHEMA)


def test_every_bundled_number_has_a_source(population: Population) -> None:
    found = Counter(d.source == "assumption" for d in population.draws)
    assert found[False] >= 15
    assert [d.name for d in population.draws if d.source != "assumption" and "http" not in d.source] == []


def read(text: str, folder: Path, k: Knowledge) -> Population:
    path = folder / "p.yaml"
    path.write_text(text, "utf-8")
    return read_population(path, k)


def test_the_example_of_the_page(knowledge: Knowledge, tmp_path: Path) -> None:
    made = Generator(read(EXAMPLE, tmp_path, knowledge), knowledge, 1, NOTHING)
    found = list(records(made, 400, knowledge))
    assert {local(f.feature) for r in found for f in r.facts} == {
        "sex", "KnownMalignancy", "primaryEtiology", "painNrs", "onsetDate"
    }  # fmt: skip
    for record in found:
        assert reject_invalid(record, knowledge) is None


WRONG = {
    "format": ("kypho-population/1", "kypho-population/9", "format: kypho-population/1"),
    "feature": ("painNrs:", "painNsr:", "unknown feature 'painNsr'; expected painNrs (did you mean that?)"),
    "value": ("OsteolyticMetastasis: 0.6", "OsteolyticMetastases: 0.6", "'OsteolyticMetastases'"),
    "source": ("source: registry}\n  KnownMal", "source: elsewhere}\n  KnownMal", "source 'elsewhere'"),
    "kind": ("{bernoulli: 0.1,", "{fixed: 1,", "fixed does not fit"),
    "share": ("bernoulli: 0.1", "bernoulli: 1.1", "a number from 0 to 1"),
    "limit": ("min: 0, max: 10", "min: 0, max: 11", "values that painNrs cannot have"),
    "order": ("when: {KnownMalignancy: present}", "when: {painNrs: {min: 1}}", "an earlier draw"),
    "dated": ("dated: visitDays\n    source", "dated: sex\n    source", "an earlier hidden draw of days"),
    "last case": (
        "- {fixed: PrimaryOsteoporosis}",
        "- {when: {sex: Male}, fixed: PrimaryOsteoporosis}",
        "but the last",
    ),
    "negative": ("{Female: 0.7", "{Female: -0.7", "a number from 0"),
    "state": ("{OH: 2", "{Ohio: 2", "two capitals"),
    "lesions": ("categorical: {1: 0.8, 2: 0.2}", "categorical: {5: 1}", "weights of 1 to 4"),
    "steps": ("max: 700, step: 1", "max: 700, step: 0", "step must be positive"),
    "missing key": ("sd: 2, ", "", "sd is missing"),
    "unknown key": ("hidden: patient", "hiden: patient", "unknown key 'hiden'"),
    "no number": ("days: 30", "days: many", "a number from 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_population_is_told(name: str, knowledge: Knowledge, tmp_path: Path) -> None:
    before, after, message = WRONG[name]
    assert before in EXAMPLE
    with pytest.raises(InputError) as caught:
        read(EXAMPLE.replace(before, after), tmp_path, knowledge)
    assert message in str(caught.value)
    assert str(caught.value).startswith("p.yaml:")


def test_an_empty_population(knowledge: Knowledge, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="draws is missing"):
        read("format: kypho-population/1\n", tmp_path, knowledge)


def test_an_unknown_population() -> None:
    with pytest.raises(UsageError, match="known: us-referrals"):
        find_population("nowhere")


# --------------------------------------------------------------------------------------------------------------------
# Patients


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_bytes(
    population: Population, knowledge: Knowledge, aims: Aims, tmp_path: Path
) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        synthesize(Generator(population, knowledge, seed, Rates(), aims), knowledge, 300, tmp_path / name, batch=128)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["facts.parquet"] != files(tmp_path / "c")["facts.parquet"]
    assert set(files(tmp_path / "a")) == {"facts.parquet", "cases.parquet", "planted.parquet", "expected.parquet"}


def test_a_patient_is_the_same_in_every_number_and_batch(
    population: Population, knowledge: Knowledge, aims: Aims
) -> None:
    made = Generator(population, knowledge, 3, Rates(), aims)
    (whole,) = made.batches(200)
    parts = list(made.batches(130, 50))
    for table_ in ("facts", "cases"):
        one = pa.Table.from_batches([getattr(whole, table_)])
        many = pa.concat_tables(pa.Table.from_batches([getattr(p, table_)]) for p in parts)
        one = one.filter(pc.less(one["patient"], 130))
        assert one.to_pylist() == many.to_pylist()
    assert [e for e in whole.expected if e[0] < 130] == [e for p in parts for e in p.expected]
    p = whole.planted
    mine = [row for row in zip(p.unit, p.feature, p.kind, strict=True) if row[0] < 130 * 8]
    assert mine == [
        row for p in (part.planted for part in parts) for row in zip(p.unit, p.feature, p.kind, strict=True)
    ]


def test_without_rates_everything_is_recorded_and_nothing_contradicts(
    population: Population, knowledge: Knowledge
) -> None:
    always = {d.name for d in population.draws if d.feature and d.stated_absent == 1 and d.level != "ProposedProcedure"}
    for record in records(Generator(population, knowledge, 5, NOTHING), 100, knowledge):
        assert record.as_of
        assert always <= {local(f.feature) for f in record.facts}
        reject_invalid(record, knowledge)
        snapshot = infer(record, knowledge, record.as_of, bridges=knowledge.bridges.values())
        gaps = [(feature, state.gap.cause) for (_, feature), state in snapshot.values.items()]
        gaps += [(feature, gap.cause) for rows in snapshot.gaps.values() for feature, gap in rows]
        assert [gap for gap in gaps if gap[1] is Cause.CONFLICTING] == []


def test_the_rate_of_what_is_missing(population: Population, knowledge: Knowledge) -> None:
    counts = {}
    for rate in (0.0, 0.3, 1.0):
        made = Generator(population, knowledge, 5, replace(NOTHING, missing=rate))
        counts[rate] = Counter(local(f.feature) for r in records(made, 400, knowledge) for f in r.facts)
    assert abs(counts[0.3]["bodyMassIndex"] / counts[0.0]["bodyMassIndex"] - 0.7) < 0.07
    assert counts[1.0]["bodyMassIndex"] == 0
    assert counts[1.0]["sex"] > 300


def test_shares_are_those_of_the_population(population: Population, knowledge: Knowledge) -> None:
    (batch,) = Generator(population, knowledge, 8, NOTHING).batches(4000)
    facts = pa.Table.from_batches([batch.facts])

    def of(name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = facts.filter(pc.equal(facts["feature"].cast(pa.string()), name)).to_pylist()
        return rows

    assert 1.2 < batch.cases.num_rows / 4000 < 1.45
    levels = Counter(row["value"] for row in of("vertebralLevel"))
    assert {name for name, _ in levels.most_common(3)} == {"L1", "T12", "L2"}
    taken = Counter((row["patient"], row["value"]) for row in of("vertebralLevel"))
    assert max(taken.values()) == 1
    opioid = Counter(row["polarity"] for row in of("OpioidTherapy"))
    assert abs(opioid["present"] / 4000 - 0.605) < 0.03
    assert {row["value"] for row in of("sex")} == {"Female", "Male"}
    pregnant = {row["patient"] for row in of("Pregnancy") if row["polarity"] == "present"}
    assert pregnant.isdisjoint({row["patient"] for row in of("sex") if row["value"] == "Male"})


# --------------------------------------------------------------------------------------------------------------------
# What is planted


def marks_of(made: Generator, count: int) -> dict[tuple[str, str, str], set[str]]:
    found: dict[tuple[str, str, str], set[str]] = {}
    for batch in made.batches(count):
        p = batch.planted
        for unit, feature, kind in zip(p.unit.tolist(), p.feature.tolist(), p.kind.tolist(), strict=True):
            subject = LESION + "abcd"[(unit & 7) - 1] if unit & 7 else PATIENT
            found.setdefault((str(unit >> 3), subject, made.features[feature]), set()).add(KINDS[kind])
    return found


def gap_of(snapshot: Snapshot, subject: str, name: str) -> Cause | None:
    feature = snapshot.knowledge.by_name[name]
    if feature.kind is Op.FINDING:
        known = snapshot.supports(subject, feature.iri) or snapshot.refutations(subject, feature.iri)
        return None if known else snapshot.finding_gap(subject, feature.iri).cause
    state = snapshot.value(subject, feature.iri)
    return None if state.facts else state.gap.cause


def test_contradictions_conflict(population: Population, knowledge: Knowledge) -> None:
    made = Generator(population, knowledge, 5, replace(NOTHING, contradictions=0.02))
    marks = marks_of(made, 150)
    snapshots = {r.patient: infer(r, knowledge, r.as_of, bridges=()) for r in records(made, 150, knowledge) if r.as_of}
    seen: Counter[str] = Counter()
    for (patient, subject, name), kinds in marks.items():
        (kind,) = kinds
        seen[kind] += 1
        if knowledge.by_name[name].bearer.endswith("Procedure"):
            continue
        cause = gap_of(snapshots[patient], subject, name)
        if kind in ("opposite", "unequal", "broader class", "narrower class"):
            assert cause is Cause.CONFLICTING, (patient, subject, name, kind)
    assert set(seen) == {"opposite", "unequal", "broader class", "narrower class", "changed"}


def test_what_changed_long_ago_does_not_conflict(population: Population, knowledge: Knowledge) -> None:
    made = Generator(population, knowledge, 5, replace(NOTHING, contradictions=0.02))
    marks = marks_of(made, 150)
    by_patient: dict[str, set[str]] = {}
    for (patient, _, _), kinds in marks.items():
        by_patient.setdefault(patient, set()).update(kinds)
    alone = {p for p, kinds in by_patient.items() if kinds == {"changed"}}
    assert len(alone) >= 5
    for record in records(made, 150, knowledge):
        if record.patient in alone and record.as_of:
            snapshot = infer(record, knowledge, record.as_of, bridges=())
            for patient, subject, name in marks:
                if patient == record.patient:
                    assert gap_of(snapshot, subject, name) is not Cause.CONFLICTING


def test_dirty_records_are_what_they_are_called(population: Population, knowledge: Knowledge) -> None:
    made = Generator(population, knowledge, 5, replace(NOTHING, dirty=0.05))
    marks = marks_of(made, 150)
    found = {r.patient: r for r in records(made, 150, knowledge)}
    bounds = limits()

    def shows(kind: str, fact: Fact, record: Record) -> bool:
        feature = knowledge.features[fact.feature]
        assert record.as_of
        today = TimeSpan.of(record.as_of)
        exact = fact.value.exact if isinstance(fact.value, Range) else None
        highest = bounds[fact.feature].range.high if fact.feature in bounds else None
        return {
            "provisional": fact.status == "provisional",
            "entered in error": fact.status == "entered-in-error",
            "refuted": fact.status == "refuted",
            "ordered only": fact.mood == "ordered",
            "after the as-of date": fact.time is not None and fact.time.wholly_after(today),
            "stale": fact.time is not None and fact.time.days_until(record.as_of)[1] > (feature.lookback or 10**6),
            "partial date": fact.time is not None and len(str(fact.time)) == 7,
            "range": isinstance(fact.value, Range) and exact is None,
            "implausible": exact is not None and highest is not None and exact > highest,
        }[kind]

    seen: Counter[str] = Counter()
    for (patient, subject, name), kinds in marks.items():
        record = found[patient]
        subject = "procedure" if knowledge.by_name[name].bearer.endswith("Procedure") else subject
        mine = [f for f in record.facts if (f.subject, local(f.feature)) == (subject, name)]
        for kind in kinds:
            seen[kind] += 1
            assert any(shows(kind, f, record) for f in mine), (patient, name, kind)
    assert set(seen) == {
        "provisional", "entered in error", "refuted", "ordered only", "after the as-of date", "stale", "partial date",
        "range", "implausible",
    }  # fmt: skip


def test_an_implausible_value_counts_as_unknown(population: Population, knowledge: Knowledge) -> None:
    made = Generator(population, knowledge, 5, replace(NOTHING, dirty=0.05))
    wrong = {key for key, kinds in marks_of(made, 40).items() if "implausible" in kinds}
    assert wrong
    for record in records(made, 40, knowledge):
        invalid = {(record.patient, f.subject, local(f.feature)) for f in mark_invalid(record).facts if f.invalid}
        assert invalid == {key for key in wrong if key[0] == record.patient}


# --------------------------------------------------------------------------------------------------------------------
# Answers known by construction


def test_every_clause_can_be_met_and_left_unknown(knowledge: Knowledge) -> None:
    clauses = [r for g in knowledge.guidelines.values() for r in g.recommendations]
    truths = {r.id: {x.truth for x in recipes(knowledge, r)} for r in clauses}
    assert [id_ for id_, found in truths.items() if not {Truth.MET, Truth.UNKNOWN} <= found] == []
    never = [id_ for id_, found in truths.items() if Truth.NOT_MET not in found]
    assert len(never) <= 2, "conditions that no facts make false"


def hold(made: Generator, count: int, k: Knowledge) -> Counter[str]:
    """Compare every expected truth with that of the single-case engine."""
    seen: Counter[str] = Counter()
    for batch in made.batches(count):
        expected = {str(i): (clause, truth) for i, clause, truth in batch.expected}
        for record in records_of(batch.facts, batch.cases, k):
            if record.patient not in expected:
                continue
            clause, truth = expected[record.patient]
            answer = assess(record, knowledge=k, guidelines=[clause.partition("/")[0]], validate=False)
            (assessment,) = answer.cases[0].assessments
            (got,) = [c.truth.words for c in assessment.clauses if c.recommendation.id == clause]
            assert got == truth, (record.patient, clause)
            seen[truth] += 1
    return seen


def test_the_engine_agrees_with_what_was_aimed(population: Population, knowledge: Knowledge, aims: Aims) -> None:
    made = Generator(population, knowledge, 17, Rates(aimed=1), aims)
    seen = hold(made, 300, knowledge)
    assert seen.total() == 300
    assert min(seen.values()) > 60


@pytest.mark.slow
def test_the_engine_agrees_with_thousands(population: Population, knowledge: Knowledge, aims: Aims) -> None:
    made = Generator(population, knowledge, 19, Rates(contradictions=0.05, dirty=0.05, aimed=1), aims)
    assert hold(made, 5000, knowledge).total() == 5000
    aimed_at = {clause.partition("/")[0] for b in made.batches(5000) for _, clause, _ in b.expected}
    assert aimed_at == {g.id for g in knowledge.guidelines.values() if g.recommendations}


def test_aimed_values_conform(population: Population, knowledge: Knowledge, aims: Aims) -> None:
    made = Generator(population, knowledge, 23, Rates(dirty=0, aimed=1), aims)
    for record in records(made, 60, knowledge):
        reject_invalid(record, knowledge)


def test_nothing_is_planted_at_the_features_of_an_aimed_clause(
    population: Population, knowledge: Knowledge, aims: Aims
) -> None:
    made = Generator(population, knowledge, 29, Rates(contradictions=0.3, dirty=0.3, aimed=1), aims)
    (batch,) = made.batches(60)
    clauses = {r.id: r for g in knowledge.guidelines.values() for r in g.recommendations}
    clause_of = {i: clause for i, clause, _ in batch.expected}
    planted = batch.planted
    assert len(planted) > 500
    for unit, feature in zip(planted.unit.tolist(), planted.feature.tolist(), strict=True):
        tree = clauses[clause_of[unit >> 3]].criterion
        reach = bearing(knowledge, [c.term for c in tree.walk() if not c.children])
        assert knowledge.by_name[made.features[feature]].iri not in reach


def test_only_the_chosen_guidelines_are_aimed_at(population: Population, knowledge: Knowledge) -> None:
    chosen = next(g.id for g in knowledge.guidelines.values() if len(g.recommendations) > 5)
    made = Generator(population, knowledge, 1, Rates(aimed=1), Aims(knowledge, [chosen]))
    (batch,) = made.batches(50)
    assert {clause.partition("/")[0] for _, clause, _ in batch.expected} == {chosen}
    with pytest.raises(UsageError, match="unknown guideline"):
        Aims(knowledge, ["nothing"])


def test_the_mix_of_verdicts(population: Population, knowledge: Knowledge) -> None:
    """Neither all undetermined nor all one verdict."""
    seen: Counter[str] = Counter()
    for record in records(Generator(population, knowledge, 2, CLEAN), 60, knowledge):
        answer = assess(record, knowledge=knowledge, guidelines=["cms-l34228", "cirse-2017"], validate=False)
        seen.update(a.verdict for case in answer.cases for a in case.assessments)
    assert len(seen) >= 4
    assert seen["Undetermined"] < 0.75 * seen.total()


# --------------------------------------------------------------------------------------------------------------------
# Files


def content(facts: tuple[Fact, ...]) -> Counter[object]:
    return Counter((f.subject, f.feature, f.value, f.polarity, f.mood, f.time, f.status, f.cause) for f in facts)


def test_patient_files_say_the_same(population: Population, knowledge: Knowledge, aims: Aims, tmp_path: Path) -> None:
    for record in records(Generator(population, knowledge, 5, Rates(), aims), 40, knowledge):
        path = tmp_path / "p.yaml"
        path.write_text(patient_file(record, knowledge), "utf-8")
        back = read_patient_file(path, knowledge)
        assert content(back.facts) == content(record.facts)
        assert (back.patient, back.lesions, back.procedure, back.as_of) == (
            record.patient, record.lesions, record.procedure, record.as_of
        )  # fmt: skip


def test_clean_patient_files_conform(population: Population, knowledge: Knowledge, aims: Aims, tmp_path: Path) -> None:
    made = Generator(population, knowledge, 5, Rates(dirty=0), aims)
    summary = synthesize(made, knowledge, 12, tmp_path, "patient")
    paths = sorted(tmp_path.glob("*.yaml"))
    assert (len(paths), summary.patients) == (12, 12)
    for path in paths:
        reject_invalid(read_patient_file(path, knowledge), knowledge)


class ReadBack:
    """Generated patients, as they were and as our reader reads them out of Bundles."""

    def __init__(self, before: list[Record], k: Knowledge, folder: Path) -> None:
        self.k, self.before = k, before
        self.writer = FhirWriter(k, load_mappings(k))
        self.bundles: dict[str, Any] = {}
        self.lacks: dict[str, frozenset[str]] = {}
        for record in before:
            self.bundles[record.patient] = self.writer.bundle(record)
            self.lacks[record.patient] = self.writer.lacks
        path = folder / "bundles.ndjson"
        path.write_text("".join(as_line(b) + "\n" for b in self.bundles.values()), "utf-8")
        self.report = IntakeReport("t")
        self.after = {r.patient: r for r in read_fhir(path, k, self.report)}

    def names(self, record: Record) -> dict[str, str]:
        """The subjects as the reader names them, by the level of the lesion."""
        level = self.k.by_name["vertebralLevel"].iri
        at = {f.value: f.subject for f in self.after[record.patient].facts if f.feature == level}
        mine = [f for f in record.facts if f.feature == level and f.polarity is Polarity.PRESENT]
        return {f.subject: at[f.value] for f in mine if f.status is Status.CONFIRMED and f.value in at}

    def said(self, record: Record, names: dict[str, str]) -> Counter[object]:
        """The facts; one without a date is of the as-of date, and a level of whatever date."""
        assert record.as_of
        day, level = TimeSpan.of(record.as_of), self.k.by_name["vertebralLevel"].iri
        facts = (replace(f, subject=names.get(f.subject, f.subject), time=f.time or day) for f in record.facts)
        return content(tuple(replace(f, time=None) if f.feature == level else f for f in facts))

    def answers(self, record: Record, names: dict[str, str], day: date) -> dict[tuple[str, str], dict[str, object]]:
        """The verdict and the truth of each clause, by lesion and guideline."""
        answer = assess(record, as_of=day, knowledge=self.k, guidelines=["all"], validate=False)
        return {
            (names.get(LESION + case.lesion.id, LESION + case.lesion.id), a.guideline.id): {
                "verdict": a.verdict,
                **{c.recommendation.id: c.truth for c in a.clauses},
            }
            for case in answer.cases
            for a in case.assessments
        }

    def both(self, record: Record) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """The answers to the record as it was and as it was read."""
        assert record.as_of
        was = self.answers(record, self.names(record), record.as_of)
        return was, self.answers(self.after[record.patient], {}, record.as_of)

    @property
    def complete(self) -> list[Record]:
        return [r for r in self.before if not self.lacks[r.patient]]


@pytest.fixture(scope="module")
def read_back(
    population: Population, knowledge: Knowledge, aims: Aims, tmp_path_factory: pytest.TempPathFactory
) -> ReadBack:
    made = Generator(population, knowledge, 5, Rates(), aims)
    return ReadBack(list(records(made, 150, knowledge)), knowledge, tmp_path_factory.mktemp("fhir"))


def test_fhir_says_the_same_of_what_it_carries(read_back: ReadBack) -> None:
    assert (read_back.report.rejected, len(read_back.after)) == ([], 150)
    assert not read_back.report.unmapped
    total = 0
    for record in read_back.before:
        theirs = read_back.said(replace(read_back.after[record.patient], as_of=record.as_of), {})
        assert not theirs - read_back.said(record, read_back.names(record))
        total += theirs.total()
    writer = read_back.writer
    assert total == writer.carried.total() > 10_000
    lost = sum(len(r.facts) for r in read_back.before) - total
    assert lost == writer.left_out.total() - sum(n for what, n in writer.left_out.items() if what.startswith(STATE))
    assert lost < 0.06 * total


def test_a_bundle_says_whether_it_lacks_something(read_back: ReadBack) -> None:
    assert 40 <= len(read_back.complete) <= 110
    for record in read_back.before:
        found = read_back.bundles[record.patient]
        assert (INCOMPLETE in found["meta"]["tag"]) is bool(read_back.lacks[record.patient])
        assert found["timestamp"] == f"{record.as_of}T00:00:00Z"


def test_complete_bundles_have_the_same_verdicts(read_back: ReadBack) -> None:
    """Under all guidelines, each clause too."""
    seen: Counter[object] = Counter()
    for record in read_back.complete[:30]:
        was, now = read_back.both(record)
        assert was == now, record.patient
        seen.update(a["verdict"] for a in was.values())
    assert len(seen) >= 5


def test_bundles_are_valid(read_back: ReadBack) -> None:
    from fhir.resources.R4B.bundle import Bundle

    for record in read_back.before[:40]:
        Bundle.model_validate_json(as_line(read_back.bundles[record.patient]))


@pytest.mark.slow
def test_what_is_lacking_bears_on_what_differs(
    population: Population, knowledge: Knowledge, aims: Aims, tmp_path: Path
) -> None:
    """A clause on which nothing that is lacking bears has the same truth; so have the expected ones."""
    made = Generator(population, knowledge, 11, Rates(contradictions=0.05, dirty=0.05, aimed=0.5), aims)
    expected = {str(i): (clause, truth) for b in made.batches(600) for i, clause, truth in b.expected}
    back = ReadBack(list(records(made, 600, knowledge)), knowledge, tmp_path)
    terms = {r.id: r.criterion for g in knowledge.guidelines.values() for r in g.recommendations}
    reach = {
        id_: {local(f) for f in bearing(knowledge, [c.term for c in tree.walk() if not c.children])}
        for id_, tree in terms.items()
    }
    same = differs = held = 0
    for record in back.before:
        lacks = back.lacks[record.patient]
        was, now = back.both(record)
        for key in was.keys() & now.keys():
            for clause, truth in was[key].items():
                if clause == "verdict" or reach[clause] & lacks:
                    differs += truth != now[key][clause]
                else:
                    assert truth == now[key][clause], (record.patient, key, clause)
                    same += 1
        if not lacks:
            assert was == now
        clause, truth = expected.get(record.patient, ("", ""))
        first = back.names(record).get(LESION + "a")
        if clause and first and not reach[clause] & lacks:
            assert now[first, clause.partition("/")[0]][clause].words == truth
            held += 1
    assert same > 100_000
    assert differs > 100
    assert held > 200


# -- one record at a time


def told(record: Record, k: Knowledge, folder: Path) -> tuple[Record, ReadBack]:
    back = ReadBack([record], k, folder)
    assert back.report.rejected == []
    return back.after[record.patient], back


def lesion_record(k: Knowledge, *facts: Fact, **more: Any) -> Record:
    """A lesion at L1 of 2026-01-10, with further facts."""
    day = TimeSpan.parse("2026-01-10")
    at = Fact("lesion:a", k.by_name["vertebralLevel"].iri, frozenset({KYPHO + "L1"}), time=day)
    kind = Fact("lesion:a", k.by_name["lesionKind"].iri, KYPHO + "FractureLesion", time=day)
    return Record("p", (Lesion("a"),), (at, kind, *facts), as_of=date(2026, 3, 1), **more)


def of_lesion(k: Knowledge, name: str, time: str | None = "2026-02-01", **more: Any) -> Fact:
    f = k.by_name[name]
    return Fact("lesion:a", f.iri, time=TimeSpan.parse(time) if time else None, unit=f.unit, **more)


ODD: dict[str, dict[str, Any]] = {
    "ruled out": {"name": "painTrend", "value": frozenset({KYPHO + "Worsening"}), "polarity": Polarity.ABSENT},
    "one of two": {"name": "painTrend", "value": frozenset({KYPHO + "Worsening", KYPHO + "Stable"})},
    "a class ruled out": {"name": "fractureMorphology", "value": KYPHO + "BurstFracture", "polarity": Polarity.ABSENT},
    "a bound": {"name": "heightLossPercent", "value": Range(Decimal("20.5"), None, low_open=True)},
    "a range": {"name": "heightLossPercent", "value": Range(Decimal(20), Decimal(30))},
    "a month": {"name": "onsetDate", "value": TimeSpan.parse("2025-12")},
    "some day": {"name": "onsetDate", "value": between(TimeSpan.parse("2025-12-03"), TimeSpan.parse("2025-12-09"))},
    "long before": {"name": "Retropulsion", "time": "2019-05"},
    "pending": {"name": "MarrowEdemaOnMri", "polarity": Polarity.INDETERMINATE, "cause": Cause.PENDING},
    "not assessable": {"name": "MarrowEdemaOnMri", "polarity": Polarity.INDETERMINATE, "cause": Cause.NOT_ASSESSABLE},
    "in words": {"name": "painNrs", "polarity": Polarity.INDETERMINATE, "cause": Cause.IN_WORDS_ONLY, "words": "bad"},
    "ordered": {"name": "MarrowEdemaOnMri", "mood": Mood.ORDERED},
    "planned long before": {"name": "MarrowEdemaOnMri", "mood": Mood.PLANNED, "time": "2019-05-02"},
    "provisional": {"name": "MarrowEdemaOnMri", "status": Status.PROVISIONAL},
    "unconfirmed": {"name": "MarrowEdemaOnMri", "status": Status.UNCONFIRMED},
    "refuted": {"name": "MarrowEdemaOnMri", "status": Status.REFUTED},
    "entered in error": {"name": "painNrs", "value": Range.exactly(3), "status": Status.ENTERED_IN_ERROR},
    "undated": {"name": "MarrowEdemaOnMri", "polarity": Polarity.ABSENT, "time": None},
}


@pytest.mark.parametrize("name", ODD)
def test_forms_that_are_read_back(name: str, knowledge: Knowledge, tmp_path: Path) -> None:
    record = lesion_record(knowledge, of_lesion(knowledge, **ODD[name]))
    after, back = told(record, knowledge, tmp_path)
    assert back.said(replace(after, as_of=record.as_of), {}) == back.said(record, {"lesion:a": "lesion:l1"})
    assert (back.lacks["p"], back.writer.left_out.total()) == (frozenset(), 0)


LOST: dict[str, tuple[dict[str, Any], str, bool]] = {
    "open at an end": ({"name": "heightLossPercent", "value": Range(Decimal(1), Decimal(2), True)}, FORM, True),
    "differential of a lesion": ({"name": "Retropulsion", "status": Status.DIFFERENTIAL}, VOID, True),
    "another cause": ({"name": "Retropulsion", "polarity": Polarity.INDETERMINATE, "cause": Cause.INVALID}, FORM, True),
    "absent and ordered": ({"name": "Retropulsion", "polarity": Polarity.ABSENT, "mood": Mood.ORDERED}, ORDER, False),
    "a refuted number": ({"name": "painNrs", "value": Range.exactly(3), "status": Status.REFUTED}, VOID, False),
    "refuted long before": ({"name": "Retropulsion", "status": Status.REFUTED, "time": "2019-05"}, BEFORE, False),
    "overridden": ({"name": "Retropulsion", "overridden_by": Source("x")}, OVERRIDDEN, False),
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_what_is_left_out_has_its_reason(name: str, knowledge: Knowledge, tmp_path: Path) -> None:
    more, why, counts = LOST[name]
    _, back = told(lesion_record(knowledge, of_lesion(knowledge, **more)), knowledge, tmp_path)
    assert back.writer.left_out == {f"{why}: {more['name']}": 1}
    assert back.lacks["p"] == (frozenset({more["name"]}) if counts else frozenset())


def test_a_lesion_without_one_sure_level_is_left_out(knowledge: Knowledge, tmp_path: Path) -> None:
    other = of_lesion(knowledge, "vertebralLevel", value=frozenset({KYPHO + "L2"}))
    after, back = told(lesion_record(knowledge, other), knowledge, tmp_path)
    assert (after.lesions, set(back.writer.left_out)) == ((), {f"{LEVEL}: vertebralLevel", f"{LEVEL}: lesionKind"})
    assert {"vertebralLevel", "painNrs"} < back.lacks["p"]
    wrong = replace(other, status=Status.ENTERED_IN_ERROR)
    after, back = told(lesion_record(knowledge, wrong), knowledge, tmp_path)
    assert (len(after.lesions), back.lacks["p"]) == (1, frozenset())


def test_two_lesions_of_one_level_are_left_out(knowledge: Knowledge, tmp_path: Path) -> None:
    one = lesion_record(knowledge)
    two = tuple(replace(f, subject="lesion:b") for f in one.facts)
    after, back = told(replace(one, lesions=(Lesion("a"), Lesion("b")), facts=one.facts + two), knowledge, tmp_path)
    assert after.lesions == ()
    assert {what.partition(":")[0] for what in back.writer.left_out} == {SHARED}


def test_the_proposed_procedure(knowledge: Knowledge, tmp_path: Path) -> None:
    def proposed(name: str, value: str = "", **more: Any) -> Fact:
        held = frozenset({KYPHO + value}) if value else None
        return Fact(PROCEDURE, knowledge.by_name[name].iri, held, **more)

    facts = [proposed("technique", "BalloonKyphoplasty"), proposed("payer", "Medicare"), proposed("FusionPlanned")]
    plan = Procedure(("a",), TimeSpan.parse("2026-03-04"), "TX")
    after, back = told(lesion_record(knowledge, *facts, procedure=plan), knowledge, tmp_path)
    assert after.procedure == Procedure(("l1",), TimeSpan.parse("2026-03-04"))
    assert {f.feature for f in after.facts if f.subject == PROCEDURE} == {f.feature for f in facts}
    assert (back.writer.left_out, back.lacks["p"]) == ({f"{STATE}: state": 1}, frozenset())

    absent = proposed("ProphylacticIntent", polarity=Polarity.ABSENT)
    after, back = told(lesion_record(knowledge, *facts, absent, procedure=plan), knowledge, tmp_path)
    assert back.lacks["p"] == {"ProphylacticIntent"}
    after, back = told(lesion_record(knowledge, procedure=Procedure()), knowledge, tmp_path)
    assert (after.procedure, back.writer.left_out) == (None, {f"{UNSAID}: procedure": 1})
    assert {"technique", "payer"} < back.lacks["p"]


def test_the_example_of_the_page_in_fhir(population: Population, knowledge: Knowledge) -> None:
    page = (ROOT / "docs" / "synth.md").read_text("utf-8").partition("## FHIR")[2]
    example = json.loads(page.partition("```json\n")[2].partition("```")[0])
    made = Generator(population, knowledge, 1, Rates(), Aims(knowledge))
    bundle = FhirWriter(knowledge, load_mappings(knowledge)).bundle(next(records(made, 1, knowledge)))
    assert example in [entry["resource"] for entry in json.loads(as_line(bundle))["entry"]]


# --------------------------------------------------------------------------------------------------------------------
# The command


def test_the_command(tmp_path: Path) -> None:
    done = runner.invoke(app, ["synth", "-n", "20", "--seed", "4", "-o", str(tmp_path / "x")])
    assert done.exit_code == 0
    assert done.stdout.startswith("20 patients, ")
    assert "planted: " in done.stdout
    for name, last in (("expected", ["clause", "truth"]), ("planted", ["feature", "kind"])):
        names = parquet.read_table(tmp_path / "x" / f"{name}.parquet").column_names
        assert names == ["patient", "lesion", *last]


def test_the_command_tells_what_fhir_lacks(tmp_path: Path) -> None:
    done = runner.invoke(app, ["synth", "-n", "20", "--format", "fhir", "--aimed", "0", "-o", str(tmp_path)])
    assert done.exit_code == 0
    assert "left out: " in done.stdout
    assert "of the procedure, and more than a request can say" in done.stdout
    assert "aimed: none" in done.stdout
    assert len((tmp_path / "bundles.ndjson").read_text("utf-8").splitlines()) == 20


def test_the_command_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    for arguments, error in (
        (["--population", "nowhere", "-o", str(tmp_path)], UsageError),
        (["-n", "2", "-o", str(tmp_path / "file")], UsageError),
        (["-n", "2", "-g", "nothing", "-o", str(tmp_path)], UsageError),
    ):
        done = runner.invoke(app, ["synth", *arguments])
        assert isinstance(done.exception, error)
    assert runner.invoke(app, ["synth", "-n", "0", "-o", str(tmp_path)]).exit_code == 2
    assert runner.invoke(app, ["synth", "--missing", "1.5", "-o", str(tmp_path)]).exit_code == 2
