"""One patient, told by every kind of source, has the same facts and the same verdicts."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import one_patient as write
import pytest
from oracle import samples, thresholds

from kypho_kg import assess
from kypho_kg.intake import read_sources
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.loading import load_knowledge
from kypho_kg.mappings import load_mappings
from kypho_kg.plausibility import limits
from kypho_kg.record import Fact, Range, Record


@pytest.fixture(scope="module")
def codes(knowledge: Knowledge) -> write.Codes:
    return write.Codes(knowledge, load_mappings(knowledge))


def numbers(feature: Feature) -> list[Decimal]:
    """Values at the limits in use and just beside them, as far as they are believed."""
    k = load_knowledge()
    found = limits().get(feature.iri)
    every = samples(thresholds(k).get(feature.iri, (Decimal(5),)))
    fit = [x for x in every if found is None or Range.exactly(x).within(found.range)]
    fit = [x for x in fit if not (found and found.whole) or x == x.to_integral_value()]
    return fit or [Decimal(5)]


def said(record: Record) -> set[tuple[object, ...]]:
    """The facts, up to their source."""

    def key(f: Fact) -> tuple[object, ...]:
        time = f.time and (f.time.start, f.time.end)
        value = (f.value.low, f.value.high) if isinstance(f.value, Range) else f.value
        return f.subject, f.feature, value, f.polarity, f.mood, f.status, f.cause, time

    return set(map(key, record.facts))


def sources(drawn: write.Drawn, folder: Path, *, dates: bool) -> dict[str, tuple[Path, Path | None]]:
    facts, mapping = write.table(drawn, folder)
    found = {
        "patient file": (write.patient_file(drawn, folder), None),
        "FHIR": (write.fhir(drawn, folder), None),
        "table": (facts, mapping),
        "RDF": (write.turtle(drawn, folder), None),
    }
    return found if dates else {**found, "OMOP": (write.omop(drawn, folder), None)}


def same_everywhere(seed: int, knowledge: Knowledge, codes: write.Codes, folder: Path, *, dates: bool = False) -> None:
    drawn = write.draw(random.Random(seed).choice, codes, numbers, dates=dates)
    found: dict[str, Record] = {}
    for name, (path, mapping) in sources(drawn, folder, dates=dates).items():
        intake = read_sources([path], knowledge, mapping=mapping)
        assert intake.problems == [], name
        (found[name],) = intake.records
    first = found["patient file"]
    verdicts = told(first, knowledge)
    assert any(verdicts.values())
    for name, record in found.items():
        assert record.patient == write.ID
        assert set(record.lesions) == set(first.lesions), name
        assert said(record) == said(first), name
        assert told(record, knowledge) == verdicts, name


def told(record: Record, knowledge: Knowledge) -> dict[tuple[str, str], tuple[object, ...]]:
    answer = assess(record, as_of=write.AS_OF, knowledge=knowledge, guidelines=["all"], validate=False)
    return {
        (case.lesion.id, a.guideline.id): (a.verdict, *(c.truth for c in a.clauses))
        for case in answer.cases
        for a in case.assessments
    }


@pytest.mark.parametrize("seed", range(20))
def test_the_same_everywhere(seed: int, knowledge: Knowledge, codes: write.Codes, tmp_path: Path) -> None:
    same_everywhere(seed, knowledge, codes, tmp_path)


@pytest.mark.parametrize("seed", range(20, 28))
def test_the_same_with_dates(seed: int, knowledge: Knowledge, codes: write.Codes, tmp_path: Path) -> None:
    """Everywhere but in OMOP, which has no form for the date of a feature."""
    same_everywhere(seed, knowledge, codes, tmp_path, dates=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 600))
def test_the_same_everywhere_at_length(seed: int, knowledge: Knowledge, codes: write.Codes, tmp_path: Path) -> None:
    same_everywhere(seed, knowledge, codes, tmp_path, dates=seed % 2 == 1)


def test_what_only_our_own_codes_say_is_drawn(knowledge: Knowledge, codes: write.Codes) -> None:
    """Findings, choices, categories and dates of the lesion too: with fewer kinds the comparison would show less."""
    seen: set[tuple[str, str]] = set()
    for seed in range(28):
        drawn = write.draw(random.Random(seed).choice, codes, numbers, dates=seed >= 20)
        mine = [i for i in drawn.items if i.code.system == write.OWN]
        seen |= {(str(i.code.stated[0].feature.kind), "lesion" if i.lesion else "patient") for i in mine}
    assert {("finding", "lesion"), ("choice", "lesion"), ("category", "lesion"), ("None", "lesion")} <= seen
    assert {("finding", "patient"), ("quantity", "patient")} <= seen


def test_a_change_shows(knowledge: Knowledge, codes: write.Codes, tmp_path: Path) -> None:
    """The comparison can fail: a day later is another fact."""
    drawn = write.draw(random.Random(3).choice, codes, numbers)
    one = read_sources([write.fhir(drawn, tmp_path)], knowledge).records[0]
    moved = tmp_path / "bundle.json"
    moved.write_text(moved.read_text().replace(drawn.items[0].day.isoformat(), "2019-01-01"))
    other = read_sources([moved], knowledge).records[0]
    assert said(one) != said(other)
