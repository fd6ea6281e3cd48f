"""Random records as a hospital keeps them: dated, ordered, refuted, contradicted; for the tests of cohorts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from strategies import AS_OF, by_random, draw_record

from kypho_kg.criteria import Op
from kypho_kg.knowledge import Knowledge
from kypho_kg.plausibility import believable
from kypho_kg.record import Cause, Fact, Mood, Polarity, Range, Record, Status, TimeSpan

DAYS = (0, 1, 2, 3, 5, 7, 8, 10, 20, 29, 30, 31, 32, 60, 90, 91, 120, 183, 184, 300, 366, 800, -2)
"""Days before the as-of date, at the lookbacks and windows in use and beside them."""
SERVICE = (None, "2026-02", "2024-05-05", "2015")


def record(seed: int, k: Knowledge) -> Record:
    """One random record, the same for the same seed."""
    rng = random.Random(seed)
    drawn = draw_record(by_random(seed), k)
    facts = [g for f in drawn.facts for _ in range(1 + (rng.random() < 0.25)) if _says(g := _changed(f, k, rng), k)]
    procedure = drawn.procedure
    if procedure:
        day = rng.choice(SERVICE)
        service = TimeSpan.parse(day) if day else None
        procedure = replace(procedure, state=rng.choice(["TX", "OH", "CA", None]), service_date=service)
    return replace(drawn, patient=f"p{seed:07}", facts=tuple(facts), procedure=procedure)


def records(first: int, number: int, k: Knowledge) -> Iterator[Record]:
    """Random records in the order of their patients."""
    return (record(seed, k) for seed in range(first, first + number))


def _says(f: Fact, k: Knowledge) -> bool:
    """Whether a fact can be written: one that is present has a value, unless it is a finding."""
    if isinstance(f.value, Range):
        return f.value.low is not None or f.value.high is not None
    return f.value is not None or k.features[f.feature].kind is Op.FINDING or f.polarity is Polarity.INDETERMINATE


def _changed(f: Fact, k: Knowledge, rng: random.Random) -> Fact:
    if rng.random() < 0.6:
        f = replace(f, time=_time(rng))
    x, values = rng.random(), sorted(k.features[f.feature].values)
    flipped = Polarity.ABSENT if f.polarity is Polarity.PRESENT else Polarity.PRESENT
    if x < 0.04:
        return replace(f, mood=rng.choice([Mood.PLANNED, Mood.ORDERED]))
    if x < 0.10:
        return replace(f, status=rng.choice(list(Status)))
    if x < 0.16:
        return replace(f, polarity=Polarity.INDETERMINATE, cause=rng.choice([None, *Cause]), value=None)
    if x < 0.20 and k.features[f.feature].kind is Op.FINDING:
        return replace(f, polarity=flipped)
    if x < 0.26 and isinstance(f.value, frozenset):
        return replace(f, value=frozenset(rng.sample(values, rng.choice([1, 1, 2]))), polarity=_either(rng))
    if x < 0.26 and isinstance(f.value, str):
        return replace(f, value=rng.choice(values), polarity=_either(rng))
    if x < 0.26 and isinstance(f.value, Range) and f.value.exact is not None:
        return replace(f, value=Range.exactly(f.value.exact + rng.choice([-1, 1, 0, Decimal("0.0001")])))
    return f


def _either(rng: random.Random) -> Polarity:
    return rng.choice([Polarity.PRESENT, Polarity.ABSENT])


def _time(rng: random.Random) -> TimeSpan:
    day, x = AS_OF - timedelta(days=rng.choice(DAYS)), rng.random()
    if x < 0.7:
        return TimeSpan.of(day)
    if x < 0.9:
        return TimeSpan.parse(str(day)[: 7 if x < 0.85 else 4])
    return TimeSpan.parse(f"{day}T{rng.randrange(24):02}:{rng.randrange(60):02}")


def marked(one: Record) -> Record:
    """The record with implausible values marked, as the shapes would; without the shapes, which take long."""
    return replace(one, facts=tuple(replace(f, invalid="limit") if not believable(f) else f for f in one.facts))
