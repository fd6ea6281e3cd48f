"""A population as data: which values its patients have how often, by source (docs/synth.md).

The file names features by the local names of the ontology; a name or value that the ontology does not know is an
error. This module knows the kinds of distributions and nothing that is drawn from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np

from kypho_kg.criteria import Op
from kypho_kg.errors import InputError
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.plausibility import limits
from kypho_kg.record import is_postal_code
from kypho_kg.sources.fact_reader import Problems, nearest
from kypho_kg.sources.yaml_tree import Node, read_tree
from kypho_kg.synth_draws import (
    LARGEST,
    MICRO,
    SLOTS,
    Distribution,
    Linear,
    Table,
    gaussian,
    lognormal,
    poisson,
    table,
    uniform,
    whole,
)  # fmt: skip
from kypho_kg.synth_population import (
    BINARY,
    LESION_LEVEL,
    NUMBER,
    PATIENT_LEVEL,
    WORD,
    Branch,
    Condition,
    Draw,
    Population,
    Series,
)
from kypho_kg.vocabulary import KYPHO, local

FORMAT = "kypho-population/1"
ASSUMPTION = "assumption"
"""The source of a number for which none was found."""

_NUMBERS: Mapping[str, tuple[tuple[str, ...], Callable[[Mapping[str, Decimal]], Table]]] = {
    "gaussian": (("mean", "sd", "min", "max", "step"), gaussian),
    "lognormal": (("median", "sigma", "min", "max", "step"), lognormal),
    "uniform": (("min", "max", "step"), uniform),
    "poisson": (("mean", "min", "max"), poisson),
}
_LINEAR = ("of", "times", "plus", "min", "max", "step")
_KINDS = (*_NUMBERS, "linear", "categorical", "bernoulli", "fixed")
_DRAW = (
    *_KINDS, "cases", "hidden", "missing", "stated_absent", "dated", "document", "series", "distinct", "source",
)  # fmt: skip
_TOP = ("format", "name", "title", "description", "sources", "index", "lesions", "procedure", "draws")
_PROCEDURE = ("proposed", "session_named", "further_lesions", "service_days", "states", "source")


def read_population(path: Path, knowledge: Knowledge) -> Population:
    """Read and check a population.

    :raises InputError: with every problem: file, line, field, value and what would be right.
    """
    return _Reader(knowledge).read(read_tree(path))


class _Reader:
    def __init__(self, knowledge: Knowledge) -> None:
        self.k = knowledge
        self.problems = Problems()
        self.known: dict[str, Draw] = {}
        self.sources: dict[str, str] = {}
        self.population: Population

    def read(self, root: Node) -> Population:
        top = self.problems.mapping(root, _TOP) or {}
        if "format" not in top or top["format"].value != FORMAT:
            self.problems.add(top.get("format", root), "format is missing or another", f"format: {FORMAT}")
        for key in ("name", "index", "lesions", "procedure", "draws"):
            if key not in top:
                self.problems.add(root, f"{key} is missing", f"{key}: ...")
        if self.problems.found:
            raise InputError(self.problems.found)
        title = self.problems.text(top["title"], "title") if "title" in top else ""
        span = self._keys(top["index"], ("first", "days"))
        first = self.problems.time(span.get("first"))
        one = table([MICRO], [1])
        self.population = Population(
            self.problems.text(top["name"], "name"), title, first.start.date() if first else date(2000, 1, 1),
            int(self._number(span.get("days", top["index"]), Decimal(1), Decimal(3660)) or 1), one, 0, 0, 0, one, one,
        )  # fmt: skip
        if "sources" in top:
            self.sources = {n: self.problems.text(c, "a citation") for n, c in self._entries(top["sources"])}
        self._frame(top)
        for name, node in self._entries(top["draws"]):
            draw = self._draw(name, node)
            if draw:
                self.known[name] = draw
                self.population.draws.append(draw)
        if self.problems.found:
            raise InputError(self.problems.found)
        return self.population

    def _frame(self, top: Mapping[str, Node]) -> None:
        """How many lesions a patient has, and what is proposed."""
        p = self.population
        lesions = self._keys(top["lesions"], ("categorical", "source"))
        counts = {int(n.value): s for n, s in self._weights(lesions.get("categorical"))
                  if isinstance(n.value, str) and n.value.isdigit() and 1 <= int(n.value) <= SLOTS}  # fmt: skip
        if counts and sum(counts.values()) > 0:
            p.lesions = table(list(counts), list(counts.values()))
        else:
            self.problems.add(top["lesions"], "no numbers of lesions", f"categorical: weights of 1 to {SLOTS}")
        self._source(top["lesions"], lesions)
        procedure = self._keys(top["procedure"], _PROCEDURE)
        self._source(top["procedure"], procedure)
        p.proposed, p.session_named, p.further = (
            self._share(procedure.get(n), top["procedure"], n) for n in ("proposed", "session_named", "further_lesions")
        )
        service = procedure.get("service_days")
        found = self._distribution(service, None, True) if service else None
        if isinstance(found, Table):
            p.service = found
        else:
            self.problems.add(service or top["procedure"], "service_days is missing", "a distribution of days")
        states = self._weights(procedure.get("states"))
        for node, _ in states:
            if not is_postal_code(str(node.value)):
                self.problems.add(node, f"state {node.shown}", "two capitals such as OH")
        if states and sum(w for _, w in states) > 0:
            p.states = table([p.code(str(n.value)) for n, _ in states], [w for _, w in states])
        else:
            self.problems.add(top["procedure"], "states are missing", "states: {OH: 1}")

    # -- pieces

    def _entries(self, node: Node) -> list[tuple[str, Node]]:
        if not isinstance(node.value, dict):
            self.problems.add(node, node.shown, "a map")
        return list(node.items())

    def _keys(self, node: Node | None, keys: tuple[str, ...]) -> Mapping[str, Node]:
        return self.problems.mapping(node, keys) or {}

    def _source(self, node: Node, entries: Mapping[str, Node]) -> str:
        said = self.problems.text(entries["source"], "source") if "source" in entries else ""
        if said not in {ASSUMPTION, *self.sources}:
            what = f"source {said!r}" if said else "source is missing"
            self.problems.add(entries.get("source", node), what, f"a key of sources, or {ASSUMPTION}")
        return self.sources.get(said, said)

    def _number(self, node: Node, low: Decimal | None = None, high: Decimal | None = None) -> Decimal | None:
        number = node.number()
        if number is None or (low is not None and number < low) or (high is not None and number > high):
            within = f" from {low} to {high}" if low is not None else ""
            self.problems.add(node, node.shown, f"a number{within}")
            return None
        return number

    def _share(self, node: Node | None, parent: Node, name: str) -> float:
        if node is None:
            self.problems.add(parent, f"{name} is missing", "a share from 0 to 1")
            return 0.0
        return float(self._number(node, Decimal(0), Decimal(1)) or 0)

    def _weights(self, node: Node | None) -> list[tuple[Node, float]]:
        """The names of a map of weights, as nodes, with their weights."""
        found = []
        for name, child in self._entries(node) if node is not None else ():
            factor = self._number(child, Decimal(0), Decimal(10) ** 6)
            if factor is not None:
                found.append((Node(child.file, child.path, child.line, name), float(factor)))
        return found

    # -- draws

    def _draw(self, name: str, node: Node) -> Draw | None:
        before = len(self.problems.found)
        entries = self._keys(node, _DRAW)
        feature, level = self.k.by_name.get(name), ""
        if "hidden" in entries:
            level = {"patient": PATIENT_LEVEL, "lesion": LESION_LEVEL}.get(str(entries["hidden"].value), "")
            if feature or not level:
                self.problems.add(
                    entries["hidden"], entries["hidden"].shown, "patient or lesion, and no feature's name"
                )
            feature = None
        elif feature is None:
            expected = nearest(name, sorted(self.k.by_name)) or "a feature of the ontology, or hidden: patient"
            self.problems.add(node, f"unknown feature {name!r}", expected)
            return None
        else:
            level = local(feature.bearer)
        branches = self._branches(node, entries, feature, level)
        series = self._series(entries["series"], feature) if "series" in entries else None
        dated = self.problems.text(entries["dated"], "dated") if "dated" in entries else ""
        if dated and not (dated in self.known and self._is_days(dated) and self._reaches(dated, level)):
            self.problems.add(entries["dated"], f"dated is {dated!r}", "an earlier hidden draw of days")
        factor = self._number(entries["missing"], Decimal(0), Decimal(10)) if "missing" in entries else Decimal(1)
        stated = self._share(entries["stated_absent"], node, "") if "stated_absent" in entries else 1.0
        document = self.problems.text(entries["document"], "document") if "document" in entries else ""
        source = self._source(node, entries)
        if len(self.problems.found) > before:
            return None
        distinct = "distinct" in entries and entries["distinct"].value == "true"
        kind = self._kind(feature, entries)
        return Draw(
            name, feature, level, branches, kind, float(factor or 0), stated, dated, document, source, series, distinct
        )

    def _kind(self, feature: Feature | None, entries: Mapping[str, Node]) -> str:
        if feature:
            return {Op.FINDING: BINARY, Op.QUANTITY: NUMBER, None: NUMBER}.get(feature.kind, WORD)
        inner = [entries, *(dict(item.items()) for item in self.problems.sequence(entries.get("cases")))]
        if any(kind in e for e in inner for kind in (*_NUMBERS, "linear")):
            return NUMBER
        return BINARY if any("bernoulli" in e for e in inner) else WORD

    def _is_days(self, name: str) -> bool:
        return self.known[name].kind == NUMBER and min(self._values(self.known[name]), default=0) >= 0

    def _reaches(self, name: str, level: str) -> bool:
        """Whether a draw of a level can depend on another."""
        return self.known[name].level in (PATIENT_LEVEL, level)

    def _branches(
        self, node: Node, entries: Mapping[str, Node], feature: Feature | None, level: str
    ) -> tuple[Branch, ...]:
        if "cases" not in entries:
            found = self._distribution(node, feature, False, entries, level)
            return (Branch((), found),) if found else ()
        if any(kind in entries for kind in _KINDS):
            self.problems.add(node, "cases beside a distribution", "one of them")
        branches = []
        items = self.problems.sequence(entries["cases"])
        for number, item in enumerate(items, start=1):
            inner = self._keys(item, ("when", *_KINDS))
            conditions = tuple(
                c for n, w in self._entries(inner["when"]) if (c := self._condition(n, w, level))
            ) if "when" in inner else ()  # fmt: skip
            if ("when" in inner) is (number == len(items)):
                self.problems.add(item, "when", "conditions in every case but the last")
            found = self._distribution(item, feature, False, inner, level)
            if found:
                branches.append(Branch(conditions, found))
        if not items:
            self.problems.add(entries["cases"], "no cases", "a list of distributions, the last without when")
        return tuple(branches)

    def _condition(self, name: str, node: Node, level: str) -> Condition | None:
        if name not in self.known or not self._reaches(name, level):
            self.problems.add(node, f"{name!r} is not drawn before, or of lesions", "an earlier draw")
            return None
        draw = self.known[name]
        if isinstance(node.value, dict):
            bounds = self._keys(node, ("min", "max"))
            low, high = (self._number(bounds[n]) if n in bounds else None for n in ("min", "max"))
            if draw.kind != NUMBER or not bounds:
                self.problems.add(node, node.shown, "min and max of a number" if draw.kind == NUMBER else "values")
            return Condition(name, None, None if low is None else whole(low), None if high is None else whole(high))
        items = self.problems.sequence(node) if isinstance(node.value, list) else [node]
        codes: list[int] = []
        for item in items:
            codes += self._codes(draw, item)
        return Condition(name, np.array(sorted(set(codes)), dtype=np.int64))

    def _codes(self, draw: Draw, node: Node) -> list[int]:
        """The codes that a value stands for: of a category also its narrower ones."""
        word, feature = str(node.value), draw.feature
        if draw.kind == BINARY and word in ("present", "absent"):
            return [int(word == "present")]
        if draw.kind == NUMBER:
            self.problems.add(node, node.shown, "min and max of a number")
            return []
        if feature and feature.kind is Op.CATEGORY and KYPHO + word in feature.values:
            return [self.population.code(local(v)) for v in sorted(self.k.descendants(KYPHO + word))]
        drawn = {self.population.words[c] for c in self._values(draw)} if draw.kind == WORD else {"present", "absent"}
        known = drawn if feature is None else {local(v) for v in feature.values}
        if word not in known:
            self.problems.add(node, node.shown, nearest(word, sorted(known)) or f"a value of {draw.name}")
            return []
        return [self.population.code(word)]

    @staticmethod
    def _values(draw: Draw) -> set[int]:
        """All values of the tables of a draw."""
        tables = [b.distribution for b in draw.branches if isinstance(b.distribution, Table)]
        return {int(v) for t in tables for v in t.values}

    def _series(self, node: Node, feature: Feature | None) -> Series | None:
        entries = self._keys(node, ("count", "days", "change"))
        if feature is None or feature.kind is not Op.QUANTITY or set(entries) != {"count", "days", "change"}:
            self.problems.add(node, "series", "count, days and change, of a quantity")
            return None
        count, change = (self._distribution(entries[n], None, True) for n in ("count", "change"))
        days = self._number(entries["days"], Decimal(1), Decimal(3660))
        if not (isinstance(count, Table) and isinstance(change, Table) and days):
            return None
        return Series(count, int(days), change)

    # -- distributions

    def _distribution(
        self, node: Node, feature: Feature | None, number: bool, entries: Mapping[str, Node] | None = None,
        level: str = "",
    ) -> Distribution | None:  # fmt: skip
        """The one distribution of a map; of a feature, it must fit its kind and its limits."""
        entries = entries if entries is not None else self._keys(node, _KINDS)
        given = [kind for kind in _KINDS if kind in entries]
        if len(given) != 1:
            self.problems.add(node, " and ".join(given) or "no distribution", f"one of {', '.join(_KINDS)}")
            return None
        kind, inner = given[0], entries[given[0]]
        numbers = kind in _NUMBERS or kind == "linear"
        wanted = feature.kind if feature else None
        fits = {Op.FINDING: kind == "bernoulli", Op.QUANTITY: numbers or kind == "fixed", None: numbers or not feature}
        if (feature and not fits.get(wanted, kind in ("categorical", "fixed"))) or (number and not numbers):
            self.problems.add(inner, f"{kind} does not fit", "a distribution of the kind of the feature")
            return None
        try:
            if kind == "bernoulli":
                share = self._share(inner, node, kind)
                return table([1, 0], [share, 1 - share])
            if kind == "linear":
                return self._linear(inner, feature, level)
            if kind in _NUMBERS:
                return self._within(inner, feature, self._of_numbers(kind, inner))
            return self._of_words(kind, inner, feature)
        except ValueError as error:
            self.problems.add(inner, str(error), "another number")
            return None

    def _of_numbers(self, kind: str, node: Node) -> Table | None:
        names, make = _NUMBERS[kind]
        entries = self._keys(node, names)
        numbers = {n: self._number(entries[n]) for n in names if n in entries}
        if missing := [n for n in names if n not in numbers]:
            self.problems.add(node, f"{', '.join(missing)} is missing", f"{kind}: {', '.join(names)}")
            return None
        sure = {n: v for n, v in numbers.items() if v is not None}
        return make(sure) if len(sure) == len(names) else None

    def _of_words(self, kind: str, node: Node, feature: Feature | None) -> Table | None:
        if feature is not None and feature.kind is Op.QUANTITY:
            fixed = self._number(node)
            return None if fixed is None else self._within(node, feature, table([whole(fixed)], [1]))
        rows = self._weights(node) if kind == "categorical" else [(node, 1.0)]
        for name, _ in rows:
            if feature and KYPHO + str(name.value) not in feature.values:
                known = sorted(map(local, feature.values))
                self.problems.add(name, name.shown, nearest(str(name.value), known) or f"a value of {feature.name}")
        return table([self.population.code(str(n.value)) for n, _ in rows], [w for _, w in rows])

    def _linear(self, node: Node, feature: Feature | None, level: str) -> Linear | None:
        entries = self._keys(node, _LINEAR)
        of = self.problems.text(entries["of"], "of") if "of" in entries else ""
        if of not in self.known or self.known[of].kind != NUMBER or not self._reaches(of, level):
            self.problems.add(entries.get("of", node), f"of is {of!r}", "an earlier draw of a number")
            return None
        plus = self._distribution(entries["plus"], None, True) if "plus" in entries else None
        numbers = [self._number(entries.get(n, node)) for n in ("times", "min", "max", "step")]
        if None in numbers or isinstance(plus, Linear):
            return None
        times, low, high, step = (n or Decimal(0) for n in numbers)
        if step <= 0 or low > high or (high - low) / step > LARGEST * 100:
            raise ValueError("min must not lie above max, and step must be positive")
        ends = table([whole(low), whole(high)], [1, 1])
        self._within(node, feature, ends)
        return Linear(of, float(times), plus, whole(low), whole(high), whole(step))

    def _within(self, node: Node, feature: Feature | None, found: Table | None) -> Table | None:
        """Complain of values that a shape would not believe: what is wrong is planted, and not drawn."""
        bound = limits().get(feature.iri) if feature and found else None
        if found and feature and bound:
            low, high = bound.range.low, bound.range.high
            values = found.values
            if (
                (low is not None and values.min() < whole(low))
                or (high is not None and values.max() > whole(high))
                or (bound.whole and (values % MICRO).any())
            ):
                self.problems.add(node, f"values that {feature.name} cannot have", f"values in {bound.range}")
        return found
