"""What each clause should say, written from the sources without sight of the ontology, judged without our engine.

``tables/clauses-*.yaml`` holds one entry per clause in the notation of the collection of facts: conditions over its
variables. A case is a set of values of these variables, some of them missing, inexact or one of two; it becomes a
record for the engine and is judged here by Kleene's three values.
"""

from __future__ import annotations

import csv
import functools
import itertools
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from builders import between, fact, record, session
from ruamel.yaml import YAML

from kypho_kg.criteria import Op
from kypho_kg.evaluation import Truth
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import Record
from kypho_kg.vocabulary import KYPHO

TABLES = Path(__file__).parent / "tables"
NOT_MET, UNKNOWN, MET = Truth.NOT_MET, Truth.UNKNOWN, Truth.MET
Condition = Any
"""A text, or one of ``all``, ``any``, ``none``, ``not``, ``atLeast`` with its parts."""
Value = Any
"""A boolean, a pair of decimals (lowest and highest possible), or a set of possible names."""


@dataclass(frozen=True)
class Entry:
    """One clause of one guideline, or an id that is none."""

    id: str
    guideline: str
    kind: str
    effect: str
    mark: str
    strict: Condition
    lenient: Condition
    row: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.guideline}/{self.id}"


@functools.cache
def entries() -> tuple[Entry, ...]:
    """All rows, one for each guideline that holds the clause."""
    found = []
    for path in sorted(TABLES.glob("clauses-*.yaml")):
        for row in YAML(typ="safe", pure=True).load(path.read_text("utf-8")):
            named = row.get("guideline", "")
            for guideline in named if isinstance(named, list) else [named]:
                mark = row.get("mark", "")
                found.append(
                    Entry(
                        row["id"],
                        guideline,
                        row.get("kind", "clause"),
                        row.get("effect", ""),
                        mark.get(guideline, "") if isinstance(mark, dict) else mark,
                        row.get("strict", row.get("if")),
                        row.get("lenient", row.get("if")),
                        row,
                    )
                )
    return tuple(found)


def clauses() -> Iterator[Entry]:
    return (e for e in entries() if e.kind == "clause")


# -- the variables


@functools.cache
def _features() -> Mapping[str, list[str]]:
    """The features of each variable; those of variables that clauses of ours need stand beside the values."""
    with (TABLES / "variables.csv").open(encoding="utf-8", newline="") as file:
        found = {row["variable"]: row["features"].split() for row in csv.DictReader(file)}
    return found | {row["variable"]: [row["feature"]] for row in _value_rows() if row["feature"]}


@functools.cache
def _value_rows() -> tuple[dict[str, str], ...]:
    with (TABLES / "values.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@functools.cache
def _values() -> Mapping[str, Mapping[str, str]]:
    """For each variable with names as values, the term of each."""
    found: dict[str, dict[str, str]] = {}
    for row in _value_rows():
        if row["value"] != "true":
            found.setdefault(row["variable"], {})[row["value"]] = row["term"]
    return found


@functools.cache
def _terms_of_true() -> Mapping[str, str]:
    """The value of a choice by which a variable that is true or false is true."""
    return {row["variable"]: row["term"] for row in _value_rows() if row["value"] == "true" and row["term"]}


LEVELS = [f"{r}{n}" for r, last in (("C", 7), ("T", 12), ("L", 5), ("S", 5)) for n in range(1, last + 1)]
BELOW = {"haemangioma_aggressive": "haemangioma"}
"""A value of which another one is the kind."""
WHOLE = {"genant_grade"}
"""Numbers that are recorded as grades."""
STATED = {
    "n_levels_session", "imaging_age_days", "of_score", "sins_score", "of_score_optimised",
}  # fmt: skip
"""Never left out of a case: where they are not stated, the engine works them out from other things."""


def feature_of(variable: str) -> str:
    return _features()[variable][0]


@functools.cache
def numbers() -> Mapping[str, tuple[Decimal, ...]]:
    """The limits that occur for each variable that is a number."""
    found: dict[str, set[Decimal]] = {}
    for e in entries():
        for text in itertools.chain(atoms(e.strict), atoms(e.lenient)):
            variable, op, asked = _read(text)
            if op in {"<", "<=", ">", ">=", "between"}:
                found.setdefault(variable, set()).update(map(Decimal, asked.split("..")))
    return {v: tuple(sorted(ns)) for v, ns in found.items()}


@functools.cache
def variables() -> tuple[str, ...]:
    """Every variable that a clause reads."""
    texts = (t for e in clauses() for t in itertools.chain(atoms(e.strict), atoms(e.lenient)))
    return tuple(sorted({_read(t)[0] for t in texts}))


def atoms(condition: Condition) -> Iterator[str]:
    if isinstance(condition, str):
        yield condition
    elif isinstance(condition, dict):
        for part in condition.values():
            yield from atoms(part["of"] if isinstance(part, dict) and "of" in part else part)
    elif isinstance(condition, list):
        for part in condition:
            yield from atoms(part)


@functools.cache
def _read(text: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"(\w+)\s+(==|!=|>=|<=|>|<|in|notin|between)\s+(.+)", text)
    assert match, f"no atom: {text!r}"
    return match[1], match[2], match[3].strip()


# -- the truth of a condition


def truth(condition: Condition, case: Mapping[str, Value]) -> Truth:
    """Kleene's value of a condition for a case."""
    if isinstance(condition, str):
        return _atom(*_read(condition), case)
    ((op, parts),) = condition.items()
    if op == "not":
        return Truth(2 - truth(parts, case))
    if op == "atLeast":
        found = sorted((truth(p, case) for p in parts["of"]), reverse=True)
        return found[parts["n"] - 1]
    found = [truth(p, case) for p in parts]
    return {"all": min(found), "any": max(found), "none": Truth(2 - max(found))}[op]


def expected(entry: Entry, case: Mapping[str, Value]) -> Truth:
    """What both readings of a band that the source leaves open agree on, else unknown."""
    found = {truth(entry.strict, case), truth(entry.lenient, case)}
    return found.pop() if len(found) == 1 else UNKNOWN


def _atom(variable: str, op: str, asked: str, case: Mapping[str, Value]) -> Truth:
    value = case.get(variable)
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        wanted = {"true": True, "false": False}[asked]
        return MET if (value is wanted) is (op == "==") else NOT_MET
    if isinstance(value, tuple):
        return _number(op, asked, value)
    if op in {"<", "<=", ">", ">="}:
        held = {_number(op, asked, (Decimal(v), Decimal(v))) for v in value}
        return held.pop() if len(held) == 1 else UNKNOWN
    names = _names(asked)
    held = {_one(v, names) for v in value}
    found = held.pop() if len(held) == 1 else UNKNOWN
    return found if op in {"==", "in"} else Truth(2 - found)


def _number(op: str, asked: str, value: tuple[Decimal, Decimal]) -> Truth:
    low, high = value
    if op == "between":
        a, b = map(Decimal, asked.split(".."))
        inside, outside = a <= low and high <= b, high < a or low > b
    else:
        x = Decimal(asked)
        test = {
            "<": lambda v: v < x, "<=": lambda v: v <= x, ">": lambda v: v > x, ">=": lambda v: v >= x,
            "==": lambda v: v == x,
        }[op]  # fmt: skip
        inside = test(low) and test(high)
        outside = not test(low) and not test(high) and not (op == "==" and low < x < high)
    return MET if inside else NOT_MET if outside else UNKNOWN


def _names(asked: str) -> frozenset[str]:
    if asked.startswith("["):
        return frozenset(x.strip() for x in asked.strip("[]").split(","))
    match = re.fullmatch(r"([CTLS]\d+)-([CTLS]\d+)", asked)
    if match:
        return frozenset(LEVELS[LEVELS.index(match[1]) : LEVELS.index(match[2]) + 1])
    return frozenset({asked})


def _one(value: str, names: frozenset[str]) -> Truth:
    if value in names or BELOW.get(value) in names:
        return MET
    return UNKNOWN if any(BELOW.get(n) == value for n in names) else NOT_MET


# -- cases


def random_case(rng: random.Random, k: Knowledge) -> dict[str, Value]:
    """Values of all variables, about a third of them missing, that contradict neither each other nor an axiom."""
    missing = rng.choice((0.05, 0.2, 0.4, 0.7))
    case: dict[str, Value] = {}
    for variable in variables():
        if variable in STATED or rng.random() > missing:
            case[variable] = _random_value(variable, rng)
    _settle(case, k)
    return case


def _random_value(variable: str, rng: random.Random) -> Value:
    if variable in numbers() and variable not in WHOLE:
        limits = numbers()[variable]
        step = Decimal(1) if variable.startswith("n_") or variable in {"age", "asa_class", "rdq"} else Decimal("0.1")
        x = rng.choice(limits) + step * rng.choice((-3, -1, 0, 0, 1, 3))
        wide = 0 if variable in STATED or variable == "age" or rng.random() < 0.85 else rng.choice((1, 4))
        low = x if variable == "bmd_t_score" else max(x, Decimal(0))
        return (low, low + step * wide)
    named = _values().get(variable)
    if named is None:
        return rng.random() < 0.5
    known = sorted(named)
    if variable in {"etiology", "fracture_morphology", "ao_type", "lesion_kind"} or rng.random() < 0.9:
        return frozenset({rng.choice(known)})
    return frozenset(rng.sample(known, 2))


def _settle(case: dict[str, Value], k: Knowledge) -> None:
    """Make the findings of a case agree with their hierarchy; what is left out is still known by one below or above."""
    finding = {v: KYPHO + feature_of(v) for v in variables() if k.by_name[feature_of(v)].kind is Op.FINDING}
    pairs = [(u, v) for u, v in itertools.permutations(finding, 2) if finding[u] in k.ancestors(finding[v])]
    changed = True
    while changed:
        changed = False
        for upper, lower in pairs:
            if case.get(lower) is True and case.get(upper) is not True:
                case[upper] = changed = True
            elif case.get(upper) is False and lower not in case:
                case[lower], changed = False, True


def as_record(case: Mapping[str, Value], k: Knowledge) -> Record:
    """The case as a patient's record."""
    facts = []
    for variable, value in case.items():
        name = feature_of(variable)
        if isinstance(value, bool):
            if k.by_name[name].kind is Op.FINDING:
                facts.append(fact(name, "present" if value else "absent"))
            else:
                facts.append(fact(name, _terms_of_true()[variable], absent=not value))
        elif isinstance(value, tuple):
            facts.append(fact(name, between(*value)))
        else:
            terms = sorted(_values()[variable][v] for v in value)
            if k.by_name[name].kind is Op.CATEGORY:
                facts.append(fact(name, terms[0]))
            else:
                facts.append(fact(name, terms))
    return record(*facts, procedure=session("a"))
