"""What is missing and what would flip a verdict: sets of facts against the engine itself, on random cases."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from strategies import AS_OF, by_random, draw_record

from kypho_kg.candidacy import assess
from kypho_kg.flips import flips
from kypho_kg.missing import OPEN_VERDICTS, missing
from kypho_kg.prospects import Prospects
from kypho_kg.record import Cause
from kypho_kg.supposing import suppose
from kypho_kg.verdicts import VERDICTS
from kypho_kg.vocabulary import local

JUDGING = {"Requires", "Indicates"}
MOST = 48


def judged(record, knowledge, guideline):
    case = assess(record, knowledge=knowledge, guidelines=[guideline], as_of=AS_OF, validate=False).cases[0]
    return case, case.assessments[0]


def drawn(knowledge, seed):
    """A random record aimed at a clause of a guideline that judges, with the judgement."""
    rng = random.Random(seed)
    guideline = rng.choice(
        [g for g in knowledge.guidelines.values() if {r.effect for r in g.recommendations} & JUDGING]
    )
    record = draw_record(by_random(seed), knowledge, [r.criterion for r in guideline.recommendations])
    return rng, *judged(record, knowledge, guideline.id)


def choices(rng, way):
    """A cell and a value for each feature of a way."""
    rows = []
    for wanted in way:
        cell = rng.choice(wanted.variable.cells_of(wanted.cells))
        rows.append((wanted.variable, cell, rng.choice(cell.samples())))
    return rows


def after(knowledge, case, a, rows):
    return judged(suppose(case, rows), knowledge, a.guideline.id)[1]


def said(rows):
    return [(v.subject, local(v.feature), str(value or cell.present)) for v, cell, value in rows]


def completions(rng, variables):
    """All combinations of cells, or some of them where there are many."""
    cells = [[(v, cell, rng.choice(cell.samples())) for cell in v.cells] for v in variables]
    if math.prod(map(len, cells)) <= MOST:
        return list(itertools.product(*cells)), True
    return [tuple(map(rng.choice, cells)) for _ in range(MOST // 4)], False


def is_possible(space, rows):
    """Whether the ontology allows the combination."""
    index = {(v.subject, v.feature): i for i, v in enumerate(space.variables)}
    cover = [space.frame.everything]
    for v, cell, _ in rows:
        cover.append(space.frame.only(index[v.subject, v.feature], 1 << v.cells.index(cell)))
    named = [index[v.subject, v.feature] for v, _, _ in rows]
    within = [c for c in space.impossible if not space.frame.changed(c) & ~space.frame.support(named)]
    return not space.frame.both(*cover, tuple(within))


def check_possible(knowledge, rng, case, a, found):
    """Completing a possible set as stated gives the stated verdict; leaving out any one of its facts does not."""
    for possible in rng.sample(found.possible, min(3, len(found.possible))):
        rows = choices(rng, rng.choice(possible.ways))
        assert after(knowledge, case, a, rows).verdict == possible.verdict, (possible.verdict, said(rows))
        for i in rng.sample(range(len(rows)), min(2, len(rows))):
            less = rows[:i] + rows[i + 1 :]
            assert after(knowledge, case, a, less).verdict != possible.verdict, (possible.verdict, said(less))


def check_decisive(knowledge, rng, case, a, found):
    """Whatever the values of a decisive set, the verdict is settled; without one of its features it may stay open."""
    space = Prospects(case, a)
    for some in rng.sample(found.decisive, min(2, len(found.decisive))):
        for rows in completions(rng, some)[0]:
            if not is_possible(space, rows):
                continue
            then = after(knowledge, case, a, rows)
            causes = {leaf.gap.cause for c in then.counted for leaf in c.proof.unknown_leaves() if leaf.gap}
            banded = bool(found.bands) and Cause.LEFT_OPEN in causes
            assert then.verdict != a.verdict or banded, said(rows)
        left_out = rng.choice(some)
        less, all_of_them = completions(rng, [v for v in some if v is not left_out])
        if all_of_them:
            verdicts = {after(knowledge, case, a, rows).verdict for rows in less if is_possible(space, rows)}
            assert a.verdict in verdicts, ("decisive without", local(left_out.feature))


def check_flips(knowledge, seed):
    """A flip flips, and where it takes two changes no single one does."""
    rng, case, a = drawn(knowledge, seed)
    where = f"seed {seed}: {a.guideline.id} {a.verdict}"
    space = Prospects(case, a, changing=True)
    found = flips(case, a, missing(case, a))
    changes = {v: 0 for v in VERDICTS} | {f.verdict: f.changes for f in found}
    for flip in found:
        for way in rng.sample(flip.ways, min(2, len(flip.ways))):
            rows = choices(rng, way)
            assert len(rows) == flip.changes, where
            assert after(knowledge, case, a, rows).verdict == flip.verdict, (where, flip.verdict, said(rows))
    singles = [(v, cell, cell.samples()[0]) for v in space.variables for cell in v.cells]
    for row in rng.sample(singles, min(12, len(singles))):
        verdict = after(knowledge, case, a, [row]).verdict
        unsure = verdict in OPEN_VERDICTS and a.verdict.startswith("Candidate")
        assert verdict == a.verdict or unsure or changes[verdict] == 1, (where, verdict, said([row]))


def check(knowledge, seed):
    rng, case, a = drawn(knowledge, seed)
    found = missing(case, a)
    if found is None:
        return
    where = f"seed {seed}: {a.guideline.id} {a.verdict}"
    assert set(found.reachable) <= {*a.conclusion.reachable, a.verdict}, where
    assert found.exact, where
    try:
        check_possible(knowledge, rng, case, a, found)
        check_decisive(knowledge, rng, case, a, found)
    except AssertionError as error:
        raise AssertionError(f"{where}: {error}") from error
    if a.verdict in OPEN_VERDICTS and not found.decisive:
        assert found.blocked or not found.possible, where


@pytest.mark.parametrize("part", range(4))
def test_sets_against_the_engine(knowledge, part):
    for seed in range(40 * part, 40 * (part + 1)):
        check(knowledge, seed)
        check_flips(knowledge, seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_many_sets_against_the_engine(knowledge, part):
    for seed in range(1000 + 250 * part, 1000 + 250 * (part + 1)):
        check(knowledge, seed)
        check_flips(knowledge, seed)
