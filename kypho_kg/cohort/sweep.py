"""What is asked beside: a limit at other values, assumption policies, another knowledge base; how verdicts move."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kypho_kg.cohort import columns
from kypho_kg.cohort.counts import Asked
from kypho_kg.cohort.judge import Judged, judge
from kypho_kg.cohort.layout import Bytes, Ints, Layout, layout_of
from kypho_kg.cohort.verdicts import conclusions
from kypho_kg.criteria import Criterion, Op
from kypho_kg.errors import UsageError
from kypho_kg.guidelines import Guideline, Recommendation
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Range
from kypho_kg.verdicts import VERDICTS
from kypho_kg.vocabulary import KYPHO, local

SWEEP, ASSUME, COMPARE = "sweep", "assume", "compare"
NOT_JUDGED: Final = len(VERDICTS)
"""In place of a verdict: the older knowledge base cannot read the record."""
MOST_VALUES: Final = 1000
_FORM = "CLAUSE[:FEATURE[@LIMIT]]=FROM..TO[/STEP], or VALUE,VALUE behind the sign"
_SWEEP = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?::(\w+)(?:@([-+.\d]+))?)?=(.+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Beside:
    """One question beside: a guideline with something changed."""

    kind: str
    """``sweep``, ``assume`` or ``compare``."""
    guideline: Guideline
    """As it is judged then."""
    name: str = ""
    """The clause, the policies, or the version."""
    feature: str = ""
    limit: str = ""
    """The limit that the clause has."""
    value: str = ""
    """The limit that is tried."""


# -- sweeps


def read_sweep(text: str, knowledge: Knowledge) -> tuple[Beside, ...]:
    """One question for each value of a sweep.

    :param text: ``CLAUSE[:FEATURE[@LIMIT]]=FROM..TO[/STEP]``, or the values with commas between. In place of a clause
        a guideline: all of its clauses that have the limit. The limit says which one is meant where there are several.
    :raises UsageError: when it does not read so, or the clause has no such limit.
    """
    match = _SWEEP.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--sweep {text!r}: expected {_FORM}")
    id_, name, limit, said = match.groups()
    guideline = knowledge.guideline(id_.partition("/")[0])
    clauses = guideline.recommendations
    if "/" in id_:
        one = guideline.by_clause(id_.partition("/")[2])
        if one is None:
            raise UsageError(f"--sweep {text!r}: {guideline.id} has no clause {id_.partition('/')[2]!r}")
        clauses = (one,)
    found = {limit for c in clauses for limit in _limits(c.criterion)}
    known = sorted(found, key=lambda x: (local(x[0]), x[1]))
    wanted = _number(limit, text) if limit else None
    fits = [x for x in known if (not name or x[0] == KYPHO + name) and (wanted is None or x[1] == wanted)]
    if len(fits) != 1:
        told = ", ".join(f"{local(term)}@{number}" for term, number in known) or "no number at all"
        what = "no such limit" if not fits else "more than one limit fits"
        raise UsageError(f"--sweep {text!r}: {what}; {id_} asks for {told}")
    ((term, present),) = fits
    return tuple(
        Beside(
            SWEEP,
            _moved(guideline, clauses, term, present, v, text),
            id_,
            local(term),
            f"{present:f}",
            f"{v.normalize():f}",
        )
        for v in _values(said, text)
    )


def read_sweeps(texts: Sequence[str], knowledge: Knowledge, guidelines: Sequence[str]) -> tuple[Beside, ...]:
    """All questions of several sweeps.

    :param guidelines: ids of those that are asked.
    :raises UsageError: when one does not read, or is of a guideline that is not asked.
    """
    found: list[Beside] = []
    for text in texts:
        some = read_sweep(text, knowledge)
        for one in some[:1]:
            if one.guideline.id not in guidelines:
                raise UsageError(f"--sweep {text!r}: {one.guideline.id} is not asked: add it with --guideline")
        found += some
    return tuple(found)


def _number(text: str, sweep: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise UsageError(f"--sweep {sweep!r}: {text!r} is no number; expected {_FORM}") from None
    if not number.is_finite() or number.quantize(Decimal("0.000001")) != number or abs(number) >= 10**12:
        raise UsageError(f"--sweep {sweep!r}: {text}; expected a number with at most six decimal places")
    return number


def _values(said: str, sweep: str) -> list[Decimal]:
    if ".." not in said:
        return list(dict.fromkeys(_number(part.strip(), sweep) for part in said.split(",")))
    first, _, rest = said.partition("..")
    last, _, step = rest.partition("/")
    low, high, by = _number(first.strip(), sweep), _number(last.strip(), sweep), _number(step.strip() or "1", sweep)
    if by <= 0 or low > high:
        raise UsageError(f"--sweep {sweep!r}: expected the lower value first and a step above 0")
    count = int((high - low) / by) + 1
    if count > MOST_VALUES:
        raise UsageError(f"--sweep {sweep!r}: {count:,} values; expected at most {MOST_VALUES:,}")
    return [low + i * by for i in range(count)]


def _limits(c: Criterion) -> Iterator[tuple[str, Decimal]]:
    for atom in c.walk():
        if atom.op is Op.QUANTITY and atom.range:
            yield from ((atom.term, end) for end in (atom.range.low, atom.range.high) if end is not None)


def _moved(
    guideline: Guideline, clauses: Sequence[Recommendation], term: str, limit: Decimal, value: Decimal, sweep: str
) -> Guideline:
    """The guideline with another limit in some clauses."""
    moved = {c.id: _with_limit(c.criterion, term, limit, value, sweep) for c in clauses}
    rows = tuple(replace(r, criterion=moved.get(r.id, r.criterion)) for r in guideline.recommendations)
    return replace(guideline, recommendations=rows)


def _with_limit(c: Criterion, term: str, limit: Decimal, value: Decimal, sweep: str) -> Criterion:
    if c.op is Op.QUANTITY and c.term == term and c.range:
        r = c.range
        low, high = (value if end == limit else end for end in (r.low, r.high))
        if low is not None and high is not None and (low > high or (low == high and (r.low_open or r.high_open))):
            raise UsageError(f"--sweep {sweep!r}: at {value} the clause would ask for no number at all")
        return replace(c, range=Range(low, high, r.low_open, r.high_open))
    children = tuple(_with_limit(child, term, limit, value, sweep) for child in c.children)
    return c if children == c.children else replace(c, children=children, name="")


# -- policies, and another knowledge base


def assumed(asked: Asked, policies: Sequence[str]) -> tuple[Beside, ...]:
    """The guidelines under assumption policies."""
    return tuple(Beside(ASSUME, g, "+".join(policies)) for g in asked.guidelines) if policies else ()


class Older:
    """Another knowledge base, usually an older one, whose verdicts are compared."""

    def __init__(self, knowledge: Knowledge, guidelines: Sequence[Guideline]) -> None:
        self.layout: Layout = layout_of(knowledge)
        self.guidelines = {g.id: knowledge.guidelines[g.id] for g in guidelines if g.id in knowledge.guidelines}
        if not self.guidelines:
            raise UsageError("--compare: the other knowledge base has none of these guidelines")

    def beside(self) -> tuple[Beside, ...]:
        """The guidelines that both have."""
        return tuple(Beside(COMPARE, g, self.layout.k.version) for g in self.guidelines.values())

    def verdicts(
        self, facts: pa.Table, cases: pa.Table, rows: npt.NDArray[np.intp], bridges: bool
    ) -> Mapping[str, Bytes]:
        """The verdicts on some cases; facts of features that it does not know are left out."""
        known = columns.coded(facts["feature"], lambda name: int(name in self.layout.by_name), missing=0) == 1
        judged = judge(facts if known.all() else facts.filter(pa.array(known)), cases, self.layout, bridges=bridges)
        found = {id_: conclusions(judged, g, self.layout)[0][rows] for id_, g in self.guidelines.items()}
        out = judged.rejected[rows]
        return {id_: np.where(out, np.uint8(NOT_JUDGED), verdict) for id_, verdict in found.items()}


# -- how verdicts move


def moves_of(
    beside: Sequence[Beside],
    judged: Judged,
    asked: Asked,
    rows: npt.NDArray[np.intp],
    verdicts: Sequence[Bytes],
    then: Sequence[Bytes] | None,
    old: Mapping[str, Bytes] | None,
) -> Ints:
    """For each question beside, how many cases go from which verdict to which.

    :param verdicts: of each guideline as it is, by case.
    :param then: the same under assumption policies.
    :param old: of each guideline by an older knowledge base, for ``rows`` only; they move from there.
    """
    n = len(VERDICTS) + 1
    place = {g.id: i for i, g in enumerate(asked.guidelines)}
    found = np.zeros((len(beside), n, n), np.int64)
    for i, one in enumerate(beside):
        at = place[one.guideline.id]
        now = verdicts[at][rows]
        if one.kind == SWEEP:
            pair = now, conclusions(judged, one.guideline, asked.layout)[0][rows]
        elif one.kind == ASSUME:
            assert then is not None
            pair = now, then[at][rows]
        else:
            assert old is not None
            pair = old[one.guideline.id], now
        found[i] = np.bincount(pair[0].astype(np.int64) * n + pair[1], minlength=n * n).reshape(n, n)
    return found


def flips_of(
    asked: Asked,
    keys: Mapping[str, pa.Array],
    rows: npt.NDArray[np.intp],
    verdicts: Sequence[Bytes],
    old: Mapping[str, Bytes],
) -> pa.Table:
    """The cases on which two knowledge bases differ, one row for each guideline."""
    words = pa.array([*VERDICTS, "not judged"], pa.string())
    tables = []
    for g, verdict in zip(asked.guidelines, verdicts, strict=True):
        if g.id not in old:
            continue
        before, now = old[g.id], verdict[rows]
        at = pa.array(np.flatnonzero(before != now))
        columns_ = {name: column.take(at) for name, column in keys.items()}
        columns_["guideline"] = pa.array([g.id] * len(at), pa.string())
        columns_["from"] = words.take(pa.array(before).take(at))
        columns_["to"] = words.take(pa.array(now).take(at))
        tables.append(pa.table(columns_))
    return pa.concat_tables(tables)
