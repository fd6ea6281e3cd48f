"""Verdicts of many cases: the bundled query is asked once for every combination of truths, and then looked up.

So there is no second copy of the rules (``queries/derive/verdict.rq``).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kypho_kg.applicability import with_narrower
from kypho_kg.cohort import columns
from kypho_kg.cohort.judge import Judged
from kypho_kg.cohort.layout import Bytes, Flags, Layout, Words
from kypho_kg.cohort.logic import MET, NOT_MET, UNKNOWN
from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Truth
from kypho_kg.guidelines import (
    ABSOLUTE,
    EXCLUDES,
    INDICATES,
    RATES,
    RELATIVE,
    REQUIRES,
    SCOPE,
    Guideline,
    Recommendation,
)
from kypho_kg.verdicts import VERDICTS, conclude

GROUPS = (SCOPE, REQUIRES, INDICATES, EXCLUDES, ABSOLUTE, RELATIVE)
_ALL_OF = frozenset({SCOPE, REQUIRES})
"""Groups that are met if all their clauses are; the others if one is."""
EMPTY = {SCOPE: MET, REQUIRES: MET, INDICATES: MET, EXCLUDES: NOT_MET, ABSOLUTE: NOT_MET, RELATIVE: NOT_MET}
"""The truth of a group without a clause."""
_BASE = 3 ** np.arange(len(GROUPS))


def _clause(effect: str) -> Recommendation:
    return Recommendation(f"urn:kypho:any/{effect}", f"any/{effect}", effect, Criterion(Op.AND), "", "", "", "", "", 0)


@functools.cache
def _tables() -> tuple[Bytes, Words, Mapping[bool, tuple[Bytes, Words]]]:
    """Verdict and reachable verdicts, as bits, for each combination of the truths of groups; and of scope alone."""
    combinations = list(itertools.product(Truth, repeat=len(GROUPS)))
    judging = {
        (str(i), ""): [(_clause(e), t) for e, t in zip(GROUPS, c, strict=True)] for i, c in enumerate(combinations)
    }
    others = {
        (f"{rated}{int(scope)}", ""): [(_clause(SCOPE), scope)] + [(_clause(RATES), Truth.MET)] * rated
        for rated in (False, True)
        for scope in Truth
    }
    found = conclude({**judging, **others})

    def codes(keys: Sequence[str]) -> tuple[Bytes, Words]:
        verdicts = [VERDICTS.index(found[key, ""].verdict) for key in keys]
        ends = [sum(1 << VERDICTS.index(v) for v in found[key, ""].reachable) for key in keys]
        return np.array(verdicts, np.uint8), np.array(ends, np.uint64)

    place = [int(np.dot(c, _BASE)) for c in combinations]
    verdicts, ends = codes([str(i) for i in range(len(combinations))])
    by_place = np.argsort(place)
    return verdicts[by_place], ends[by_place], {r: codes([f"{r}{int(t)}" for t in Truth]) for r in (False, True)}


def all_of(group: str) -> bool:
    """Whether a group is met if all its clauses are; the others are if one is."""
    return group in _ALL_OF


def scope_alone(rated: bool) -> tuple[str, str, str]:
    """The verdicts of a guideline without requirement or indication: its scope not met, unknown, met.

    :param rated: whether it rates.
    """
    not_met, unknown, met = (VERDICTS[code] for code in _tables()[2][rated][0])
    return not_met, unknown, met


def conclusions(judged: Judged, guideline: Guideline, layout: Layout) -> tuple[Bytes, Words]:
    """The verdict of every case as its place in ``VERDICTS``, and those that it can still become as bits."""
    truths: dict[str, list[Bytes]] = {effect: [] for effect in GROUPS}
    rates = False
    for r in guideline.recommendations:
        if r.reading:
            continue
        rates |= r.effect == RATES
        if r.effect in truths:
            truths[r.effect].append(judged.logic.truth(layout.shared(r.criterion)))
    verdicts, ends, scope_alone = _tables()
    n = len(judged.subjects.owner)
    place = np.zeros(n, np.int64)
    scope = np.full(n, MET, np.uint8)
    for effect, base in zip(GROUPS, _BASE, strict=True):
        fold = np.minimum if effect in _ALL_OF else np.maximum
        group = functools.reduce(fold, truths[effect]) if truths[effect] else np.full(n, EMPTY[effect], np.uint8)
        scope = group if effect == SCOPE else scope
        place += group.astype(np.int64) * base
    if not truths[REQUIRES] and not truths[INDICATES]:
        verdicts, ends, place = *scope_alone[rates], scope.astype(np.int64)
    return verdicts[place], ends[place]


def in_force(judged: Judged, g: Guideline, layout: Layout) -> Bytes:
    """Whether a policy applies to each case, as a truth (compare ``applicability.py``)."""
    s = judged.subjects
    n = len(s.patients)
    answers: list[Bytes] = []

    if g.effective_from:
        day = _day(g.effective_from)
        answers.append(_compare(s.service_start >= day, s.service_end >= day))
    if g.effective_until:
        day = _day(g.effective_until)
        answers.append(_compare(s.service_end <= day, s.service_start <= day))
    if g.states:
        here = columns.truths(pc.is_in(s.state, value_set=pa.array(g.states, pa.string())))
        answers.append(_compare(here, columns.nulls(s.state)))
    for name, bound in (("payer", g.payers), ("placeOfService", g.settings)):
        if bound:
            answers.append(_choice(judged, layout, name, bound))
    every = functools.reduce(np.minimum, answers) if answers else np.full(n, MET, np.uint8)
    return every[s.owner]


def _choice(judged: Judged, layout: Layout, name: str, bound: Sequence[str]) -> Bytes:
    feature = layout.number(name)
    known = judged.snapshot.series.bits[layout.slot[feature], judged.subjects.block(1)]
    covered_values = with_narrower(layout.k, bound)
    covered = np.uint64(layout.bits(feature, [v for v in layout.values[feature] if v in covered_values]))
    touches = [v for v in layout.values[feature] if with_narrower(layout.k, [v]) & covered_values]
    possible = np.uint64(layout.bits(feature, touches))
    surely, possibly = (known & ~covered) == 0, (known & possible) != 0
    return np.where(known == 0, np.uint8(UNKNOWN), _compare(surely, possibly))


def _compare(surely: Flags, possibly: Flags) -> Bytes:
    return np.where(surely, np.uint8(MET), np.where(possibly, np.uint8(UNKNOWN), np.uint8(NOT_MET)))


def _day(day: date) -> int:
    return (day - date(1970, 1, 1)).days
