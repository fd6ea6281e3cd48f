"""Generated patients: batches of facts and cases from a population (docs/synth.md).

Every number is a function of the seed, the name of what is drawn and the number of the patient, so a patient is the
same in every batch and in every number of patients. Generated patients are nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np

from kypho_kg.knowledge import Knowledge
from kypho_kg.synth_aims import Aims
from kypho_kg.synth_draws import MICRO, SLOTS, Bools, Floats, Ints, Table, uniforms
from kypho_kg.synth_population import (
    BINARY,
    LESION_LEVEL,
    PATIENT_LEVEL,
    PROCEDURE_LEVEL,
    WORD,
    Branch,
    Draw,
    Population,
)  # fmt: skip
from kypho_kg.synth_rows import (
    NONE,
    Block,
    cases_batch,
    facts_batch,
    joined,
    whole_day,
)  # fmt: skip
from kypho_kg.synth_trouble import Planted, Troubles, planted

BATCH = 10_000
"""Patients of a batch."""
_VALUE, _MISSING, _ABSENT, _PLANT = range(4)
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Rates:
    """How much is left out, contradicted, dirty, and built towards a clause."""

    missing: float = 0.3
    """Chance that a feature is not recorded, before the factor that the population gives it."""
    contradictions: float = 0.02
    """Chance that what is recorded of a feature is contradicted."""
    dirty: float = 0.01
    """Chance that what is recorded of a feature is dirty in one of several ways."""
    aimed: float = 0.2
    """Share of the patients that are built towards a clause and a truth."""


@dataclass(slots=True)
class Batch:
    """Some patients."""

    facts: Any
    cases: Any
    planted: Planted
    expected: list[tuple[int, str, str]] = field(default_factory=list)
    """Number of the patient, clause and truth in words, of its lesion ``a``."""


class Generator:
    """Draws the patients of a population.

    :param aims: what patients can be aimed at; needed where ``rates.aimed`` is not 0.
    """

    def __init__(
        self, population: Population, knowledge: Knowledge, seed: int, rates: Rates, aims: Aims | None = None
    ) -> None:
        self.p = population
        self.seed = seed
        self.rates = rates
        self.aims = aims
        self.words = list(population.words)
        self.features = sorted(knowledge.by_name)
        self.codes = {name: i for i, name in enumerate(self.features)}
        self.levels = {d.name: d.level for d in population.draws}
        documents = sorted({d.document for d in population.draws if d.document})
        self.sources = ["generated", *documents, "aimed at a clause"]
        self.troubles = Troubles(knowledge, population, self.codes, rates.contradictions, rates.dirty)
        if aims:
            aims.prepare(self.codes, self.words)

    def batches(self, count: int, size: int = BATCH) -> Iterator[Batch]:
        """Patients 0 to ``count`` - 1; the next batch is drawn while the caller deals with the last one."""
        starts = range(0, count, size)
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self.batch, 0, min(size, count))
            for start in starts:
                now = ahead.result()
                after = start + size
                if after < count:
                    ahead = pool.submit(self.batch, after, min(size, count - after))
                yield now

    def batch(self, first: int, count: int) -> Batch:
        """The patients from ``first`` on."""
        return _Drawing(self, first, count).batch()


class _Drawing:
    """One batch while it is drawn."""

    def __init__(self, generator: Generator, first: int, count: int) -> None:
        self.g = generator
        self.p = generator.p
        self.first, self.count = first, count
        frame = self._four("frame")
        self.as_of = self.p.first.toordinal() - _EPOCH + np.floor(frame[:, 0] * self.p.days).astype(np.int64)
        lesions = self.p.lesions.pick(frame[:, 1])
        grid = np.arange(SLOTS) < lesions[:, None]
        self.owner, self.slot = (x.astype(np.int64) for x in np.nonzero(grid))
        aim = self._four("aim")
        self.aimed: Bools = aim[:, 0] < generator.rates.aimed if generator.aims else np.zeros(count, dtype=bool)
        self.aim = aim
        self.proposed: Bools = (frame[:, 2] < self.p.proposed) | self.aimed
        self.named: Bools = self.proposed & (frame[:, 3] < self.p.session_named)
        self.latent: dict[str, Ints] = {}
        self.blocks: list[Block] = []
        self.planted: list[Planted] = []

    def _four(self, stream: str) -> Floats:
        return uniforms(self.g.seed, stream, self.first, self.count)

    def _u(self, draw: Draw, purpose: int, more: str = "") -> Floats:
        """One uniform number for each patient or lesion."""
        if draw.level == LESION_LEVEL:
            return self._four(f"{draw.name}/{purpose}{more}")[self.owner, self.slot]
        return self._four(draw.name + more)[:, purpose]

    def batch(self) -> Batch:
        for draw in self.p.draws:
            self.latent[draw.name] = self._values(draw)
            if draw.feature:
                self._record(draw)
        expected: list[tuple[int, str, str]] = []
        marks, kept = planted(self.planted), None
        if self.g.aims and self.aimed.any():
            marks, kept, expected = self._aim(marks)
        block = joined(self.blocks)
        rows = np.arange(len(block)) if kept is None else np.nonzero(kept)[0]
        rows = rows[np.argsort(block["unit"][rows], kind="stable")]
        facts = facts_batch(block.taken(rows), self.first, self.g.features, self.g.words, self.g.sources)
        return Batch(facts, self._cases(), marks.numbered(self.first), expected)

    def _cases(self) -> Any:
        later = self.p.service.pick(self._four("service")[:, 0]) // MICRO
        state = self.p.states.pick(self._four("state")[:, 0])
        further = self._four("session")[self.owner, self.slot] < self.p.further
        proposed, named = self.proposed[self.owner], self.named[self.owner]
        columns = {
            "unit": self.owner * 8 + self.slot + 1,
            "as_of": self.as_of[self.owner],
            "proposed": proposed,
            "named": named,
            "session": proposed & (~named | (self.slot == 0) | further),
            "service": np.where(proposed, (self.as_of + later)[self.owner], NONE),
            "state": np.where(proposed, state[self.owner], NONE),
        }
        return cases_batch(columns, self.first, self.g.words)

    # -- values

    def _seen(self, name: str, level: str) -> Ints:
        """The values of an earlier draw, for each patient or lesion."""
        values = self.latent[name]
        return values[self.owner] if level == LESION_LEVEL and self.g.levels[name] == PATIENT_LEVEL else values

    def _values(self, draw: Draw) -> Ints:
        u = self._u(draw, _VALUE)
        values = np.zeros(len(u), dtype=np.int64)
        left = np.ones(len(u), dtype=bool)
        for branch in draw.branches:
            here = left & self._holds(branch, draw.level, len(u))
            left &= ~here
            made = branch.distribution
            if isinstance(made, Table):
                values[here] = made.pick(u[here])
            else:
                values[here] = made.of_values(self._seen(made.of, draw.level)[here], u[here])
        return self._apart(draw, values) if draw.distinct else values

    def _holds(self, branch: Branch, level: str, length: int) -> Bools:
        here = np.ones(length, dtype=bool)
        for c in branch.conditions:
            values = self._seen(c.name, level)
            if c.codes is not None:
                here &= np.isin(values, c.codes)
            if c.low is not None:
                here &= values >= c.low
            if c.high is not None:
                here &= values <= c.high
        return here

    def _apart(self, draw: Draw, values: Ints) -> Ints:
        """No two lesions of a patient with the same value: the next of the list where one is taken."""
        table = draw.branches[-1].distribution
        if not isinstance(table, Table) or len(table.values) < SLOTS:
            return values
        grid = np.full((self.count, SLOTS), -1, dtype=np.int64)
        place = {int(v): i for i, v in enumerate(table.values)}
        grid[self.owner, self.slot] = np.vectorize(place.__getitem__, otypes=[np.int64])(values)
        for slot in range(1, SLOTS):
            for _ in range(slot):
                taken = (grid[:, :slot] == grid[:, slot : slot + 1]).any(axis=1) & (grid[:, slot] >= 0)
                grid[taken, slot] = (grid[taken, slot] + 1) % len(table.values)
        chosen: Ints = table.values[grid[self.owner, self.slot]]
        return chosen

    # -- rows

    def _record(self, draw: Draw) -> None:
        """The rows of a feature: what is not missing, with earlier values and with planted trouble."""
        assert draw.feature
        values = self.latent[draw.name]
        lesion = draw.level == LESION_LEVEL
        units = self.owner * 8 + self.slot + 1 if lesion else np.arange(self.count, dtype=np.int64) * 8
        patients = units >> 3
        kept = self._u(draw, _MISSING) >= self.g.rates.missing * draw.missing
        if draw.level == PROCEDURE_LEVEL:
            kept &= self.proposed
        if draw.kind == BINARY:
            kept &= (values == 1) | (self._u(draw, _ABSENT) < draw.stated_absent)
        ago = self._seen(draw.dated, draw.level) // MICRO if draw.dated else None
        rows = np.nonzero(kept)[0]
        block = self._block(draw, values[rows], units[rows], None if ago is None else ago[rows])
        chance, which = self._u(draw, _PLANT)[rows], self._u(draw, _VALUE, "/plant")[rows]
        other = self._u(draw, _MISSING, "/plant")[rows]
        more, marks = self.g.troubles.plant(draw, block, self.as_of[patients[rows]], chance, which, other)
        self.planted.append(marks)
        self.blocks += [block, *more]
        if draw.series and ago is not None:
            series = draw.series
            count = series.count.pick(self._u(draw, _VALUE, "/count")) // MICRO
            table = [b.distribution for b in draw.branches]
            low = min(int(t.values.min()) if isinstance(t, Table) else t.low for t in table)
            high = max(int(t.values.max()) if isinstance(t, Table) else t.high for t in table)
            for number in range(1, int(series.count.values.max()) // MICRO):
                change = series.change.pick(self._u(draw, _VALUE, f"/change{number}"))
                values = np.clip(values + change, low, high)
                rows = np.nonzero(kept & (count > number))[0]
                self.blocks.append(self._block(draw, values[rows], units[rows], ago[rows] + series.days * number))

    def _block(self, draw: Draw, values: Ints, units: Ints, ago: Ints | None) -> Block:
        assert draw.feature
        day = self.as_of[units >> 3]
        columns: dict[str, Any] = {
            "unit": units,
            "feature": self.g.codes[draw.name],
            "source": self.g.sources.index(draw.document) if draw.document else 0,
        }
        if draw.kind == BINARY:
            columns["polarity"] = 1 - values
        elif draw.kind == WORD:
            columns["value"] = values
        elif draw.feature.kind is None:
            columns["date"] = day - values // MICRO
        else:
            columns["low"], columns["high"] = values, values.copy()
        if ago is not None:
            columns["start"], columns["end"] = whole_day(day - ago)
        return Block(columns)

    # -- answers known by construction

    def _aim(self, marks: Planted) -> tuple[Planted, Bools, list[tuple[int, str, str]]]:
        """Put the facts of a recipe in the place of whatever could bear on its clause.

        Gives what is planted still, which rows are left, and what is to be expected.
        """
        aims = self.g.aims
        assert aims
        who = np.nonzero(self.aimed)[0]
        recipe = np.full(self.count, -1, dtype=np.int64)
        recipe[who] = [aims.choose(*self.aim[i, 1:].tolist()) for i in who.tolist()]
        group = np.where(recipe >= 0, aims.clause_of[recipe], -1)
        kept = [~aims.clears[group[b["unit"] >> 3], b["feature"]] for b in self.blocks]
        facts, counts = aims.facts, np.diff(aims.starts)[recipe[who]]
        owners = np.repeat(who, counts)
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = aims.starts[recipe[owners]] + offsets
        start, end = whole_day(self.as_of[owners])
        added = Block({
            "unit": owners * 8 + facts["unit"][rows],
            **{name: facts[name][rows] for name in ("feature", "polarity", "value", "low", "high", "cause")},
            "start": start, "end": end, "source": len(self.g.sources) - 1,
        })  # fmt: skip
        self.blocks.append(added)
        expected = [(self.first + i, *aims.names[recipe[i]]) for i in who.tolist()]
        left = np.concatenate([*kept, np.ones(len(added), dtype=bool)])
        return marks.without(aims.clears, group), left, expected
