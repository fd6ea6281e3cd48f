"""Criterion trees, and the verdicts of guidelines, as boolean expressions of Ibis over the table of ``wide.py``.

NULL is the unknown: SQL's *and*, *or* and *not* have the tables of Kleene's logic. Where SQL would say more or less
than the tree - a range, a choice of several, at least n of - a CASE says what is met and what is not.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

from kypho_kg.cohort.counts import Asked
from kypho_kg.cohort.layout import PROCEDURES, Layout
from kypho_kg.cohort.logic import BLOCKS
from kypho_kg.cohort.verdicts import EMPTY, GROUPS, all_of, scope_alone
from kypho_kg.cohort.wide import ENDS, IN_SESSION, NUMBER, class_of, column, wide_schema
from kypho_kg.criteria import Criterion, Op
from kypho_kg.evaluation import Truth
from kypho_kg.guidelines import INDICATES, RATES, REQUIRES, SCOPE, Guideline
from kypho_kg.verdicts import RULES, UNDETERMINED

if TYPE_CHECKING:
    import ibis.expr.types as ir

CASES = "cases"
"""The name of the table."""
VERDICT = "verdict"
KEY = ("patient", "lesion", "as_of")


class Dialect(StrEnum):
    """The SQL of which engine."""

    DUCKDB = "duckdb"
    SPARK = "spark"


_IBIS = {Dialect.DUCKDB: "duckdb", Dialect.SPARK: "databricks"}
"""Ibis writes Spark's SQL without Spark only under the name of Databricks."""


class Expressions:
    """Truths over one table, each part of a tree built once."""

    def __init__(self, table: ir.Table, layout: Layout) -> None:
        self.table, self.layout = table, layout
        self._known: dict[tuple[Criterion, int], ir.BooleanValue] = {}

    def truth(self, c: Criterion, block: int = -1) -> ir.BooleanValue:
        """The truth of a criterion as a boolean expression.

        :param block: the subjects of which an inner part is asked; none for a whole condition.
        """
        key = c, block
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._truth(c, block)
        return found

    def _truth(self, c: Criterion, block: int) -> ir.BooleanValue:
        if c.op is Op.LINK:
            return self._linked(c)
        if c.op in _ATOMS:
            return _ATOMS[c.op](self, c, block)
        truths = [self.truth(child, block) for child in c.children]
        if c.op is Op.AND:
            return functools.reduce(operator.and_, truths)
        if c.op is Op.OR:
            return functools.reduce(operator.or_, truths)
        if c.op is Op.NOT:
            return ~truths[0]
        if c.op is Op.AT_LEAST:
            met = functools.reduce(operator.add, (_cases((t, 1), other=0) for t in truths))
            possible = functools.reduce(operator.add, (_cases((~t, 0), other=1) for t in truths))
            return _cases((met >= c.n, True), (possible < c.n, False))
        strict, lenient = truths
        return _cases((strict, True), (~lenient, False))

    def _linked(self, c: Criterion) -> ir.BooleanValue:
        block = BLOCKS[c.term]
        inner = self.truth(c.children[0], block)
        return _cases((self.table[IN_SESSION], inner)) if block == PROCEDURES else inner

    def _column(self, c: Criterion, block: int) -> ir.BooleanValue:
        return self.table[column(block, c.term, class_of(c)) if c.op is Op.CATEGORY else column(block, c.term)]

    def _choice(self, c: Criterion, block: int) -> ir.BooleanValue:
        """Met if it is one of these and can be no other, not met if it can be none of these."""
        values = self.layout.values[self.layout.place[c.term]]
        asked = _any(self.table[column(block, c.term, v)] for v in values if v in c.values)
        others = [self.table[column(block, c.term, v)] for v in values if v not in c.values]
        surely = asked & ~_any(others) if others else asked
        return _cases((surely, True), (~asked, False))

    def _quantity(self, c: Criterion, block: int) -> ir.BooleanValue:
        """Met if the whole interval lies in the range, not met if none of it does."""
        asked = c.range
        assert asked is not None
        low, high, low_open, high_open = (self.table[column(block, c.term, end)] for end in ENDS)
        met, not_met = [], []
        if asked.low is not None:
            limit = _number(asked.low)
            met.append((low > limit) | ((low == limit) & low_open) if asked.low_open else low >= limit)
            not_met.append(high <= limit if asked.low_open else (high < limit) | ((high == limit) & high_open))
        if asked.high is not None:
            limit = _number(asked.high)
            met.append((high < limit) | ((high == limit) & high_open) if asked.high_open else high <= limit)
            not_met.append(low >= limit if asked.high_open else (low > limit) | ((low == limit) & low_open))
        if not met:
            return _cases((low.notnull() | high.notnull(), True))
        return _cases((functools.reduce(operator.and_, met), True), (_any(not_met), False))


_ATOMS = {
    Op.FINDING: Expressions._column,
    Op.CATEGORY: Expressions._column,
    Op.CHOICE: Expressions._choice,
    Op.QUANTITY: Expressions._quantity,
}


def _any(truths: Iterable[ir.BooleanValue]) -> ir.BooleanValue:
    return functools.reduce(operator.or_, truths)


def _cases(*branches: tuple[ir.BooleanValue, object], other: object = None) -> ir.Value:
    import ibis

    return ibis.cases(*branches, else_=other)


def _number(value: Decimal) -> ir.Value:
    import ibis

    if value == value.to_integral_value():
        return ibis.literal(int(value))
    # A decimal, never a float: in a float 1.8 is another number, and NaN is above all.
    return ibis.literal(str(value)).cast(f"decimal({NUMBER.precision}, {NUMBER.scale})")


# --------------------------------------------------------------------------------------------------------------------
# Clauses and verdicts


def wide_relation(asked: Asked, name: str = CASES) -> ir.Table:
    """The table as Ibis knows it, before there is any data."""
    import ibis

    return ibis.table(ibis.Schema.from_pyarrow(wide_schema(asked)), name=name)


def clause_table(table: ir.Table, asked: Asked) -> ir.Table:
    """One row for each case, and one column for each clause: TRUE, FALSE, or NULL for unknown."""
    e = Expressions(table, asked.layout)
    return table.select(*KEY, **{r.id: e.truth(r.criterion) for r in asked.clauses})


def verdict(clauses: ir.Table, guideline: Guideline) -> ir.StringValue:
    """The verdict of a guideline, from the columns of its clauses."""
    import ibis

    truths: dict[str, list[ir.BooleanValue]] = {effect: [] for effect in GROUPS}
    for r in guideline.recommendations:
        if r.effect in truths and not r.reading:
            truths[r.effect].append(clauses[r.id])
    groups: dict[str, ir.BooleanValue] = {
        effect: functools.reduce(operator.and_ if all_of(effect) else operator.or_, own)
        for effect, own in truths.items()
        if own
    }
    if REQUIRES not in groups and INDICATES not in groups:
        rated = any(r.effect == RATES and not r.reading for r in guideline.recommendations)
        not_met, unknown, met = scope_alone(rated)
        if SCOPE not in groups:
            return ibis.literal(met)
        return ibis.cases((groups[SCOPE], met), (~groups[SCOPE], not_met), else_=unknown)
    branches = []
    for name, wanted in RULES:
        condition = _rule(wanted, groups)
        if condition is not None:
            branches.append((condition, name))
    return ibis.cases(*branches, else_=UNDETERMINED)


def _rule(wanted: Mapping[str, Truth], groups: Mapping[str, ir.BooleanValue]) -> ir.BooleanValue | None:
    """When a rule fits, or nothing where it cannot: a group without a clause has a truth of its own."""
    conditions = []
    for effect, truth in wanted.items():
        if effect in groups:
            conditions.append(groups[effect] if truth is Truth.MET else ~groups[effect])
        elif EMPTY[effect] != truth:
            return None
    return functools.reduce(operator.and_, conditions)


def verdict_table(clauses: ir.Table, guidelines: Iterable[Guideline]) -> ir.Table:
    """One row for each case, and one column for the verdict of each guideline."""
    return clauses.select(*KEY, **{g.id: verdict(clauses, g) for g in guidelines})


def sql(relation: ir.Table, dialect: Dialect = Dialect.DUCKDB) -> str:
    """A relation as the SQL of an engine."""
    import ibis

    return str(ibis.to_sql(relation, dialect=_IBIS[dialect]))


def guideline_sql(layout: Layout, guideline: Guideline, dialect: Dialect = Dialect.DUCKDB) -> str:
    """One query for the truths of the clauses of a guideline and its verdict, over the table of docs/cohort-sql.md."""
    import ibis

    asked = Asked(layout, (guideline,))
    truths = clause_table(wide_relation(asked), asked)
    named = ibis.table(truths.schema(), name="clauses")
    judged = sql(named.select(*named.columns, **{VERDICT: verdict(named, guideline)}), dialect)
    inner = "\n".join("  " + line for line in sql(truths, dialect).splitlines())
    return f"WITH clauses AS (\n{inner}\n)\n{judged};\n"
