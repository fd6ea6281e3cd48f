"""OWL class expressions as criterion trees: the one algebra that every engine reads.

A criterion tree holds named classes, ``and``, ``or``, ``not``, *at least n of*, the kinds of features of a case and
the pairs of strict and lenient readings. Whatever else a class expression contains is refused by name
(``docs/criterion-profile.md``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.record import Range
from kypho_kg.store import Literal, Triples
from kypho_kg.vocabulary import (
    CASE,
    EQUIVALENT,
    HAS_FINDING,
    KYPHO,
    LESION,
    ON_PROPERTY,
    OWL,
    PATIENT,
    PROCEDURE,
    SUBCLASS,
    TYPE,
    XSD,
    local,
)


class Op(StrEnum):
    """The operators of the algebra."""

    AND = "and"
    OR = "or"
    NOT = "not"
    AT_LEAST = "atLeast"
    OPEN = "open"
    LINK = "link"
    FINDING = "finding"
    CATEGORY = "category"
    CHOICE = "choice"
    QUANTITY = "quantity"


ATOMS = frozenset({Op.FINDING, Op.CATEGORY, Op.CHOICE, Op.QUANTITY})


@dataclass(frozen=True, slots=True)
class Criterion:
    """A node of a criterion tree."""

    op: Op
    children: tuple[Criterion, ...] = ()
    """Operands. Of an open node: the strict and the lenient reading. Of a link: the one inner criterion."""
    term: str = ""
    """IRI of the class of a finding, or of the property of any other atom or of a link."""
    values: frozenset[str] = frozenset()
    """Category: the class asked for. Choice: the individuals of which any will do."""
    range: Range | None = None
    """Quantity: the values asked for, in the unit of the feature."""
    n: int = 0
    """At least n of the children."""
    name: str = ""
    """IRI of the named class that this node defines, empty for an anonymous expression."""

    def walk(self) -> Iterator[Criterion]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class FeatureKinds:
    """What the compiler must know of the features, by IRI: kind, bearer, and the values of choices and categories."""

    kinds: Mapping[str, Op]
    bearers: Mapping[str, str]
    values: Mapping[str, frozenset[str]]


_LINKS = {KYPHO + "concernsPatient": PATIENT, KYPHO + "indexLesion": LESION, KYPHO + "forProcedure": PROCEDURE}
_FACETS = {"minInclusive": (0, False), "minExclusive": (0, True), "maxInclusive": (1, False), "maxExclusive": (1, True)}
_EXPRESSION = {OWL + "intersectionOf", OWL + "unionOf", OWL + "complementOf", OWL + "oneOf", ON_PROPERTY}


class Compiler:
    """Compiles the named classes of one ontology, each once."""

    def __init__(self, triples: Triples, features: FeatureKinds) -> None:
        self._triples = triples
        self._features = features
        self._done: dict[tuple[str, str], Criterion] = {}
        self._open: list[str] = []

    def named(self, iri: str, bearer: str = CASE) -> Criterion:
        """The tree of a named, defined class of cases, or of another bearer.

        :raises KnowledgeBaseError: outside the profile, on a cycle, an unknown feature or a wrong bearer.
        """
        key = (iri, bearer)
        if key in self._done:
            return self._done[key]
        if iri in self._open:
            raise KnowledgeBaseError(f"cyclic definition: {' -> '.join(map(local, [*self._open, iri]))}")
        self._open.append(iri)
        try:
            tree = self._defined(iri, bearer)
        finally:
            self._open.pop()
        self._done[key] = tree
        return tree

    def _defined(self, iri: str, bearer: str) -> Criterion:
        definitions = self._triples.objects(iri, EQUIVALENT)
        strict = self._triples.resource(iri, KYPHO + "strictReading")
        lenient = self._triples.resource(iri, KYPHO + "lenientReading")
        if strict or lenient:
            if not (strict and lenient) or definitions:
                self._fail("a class with readings has a strict and a lenient one and no definition of its own", iri)
            assert strict
            assert lenient
            for lower, upper in ((strict, iri), (iri, lenient)):
                if upper not in self._triples.objects(lower, SUBCLASS):
                    self._fail(f"{local(lower)} must be a subclass of {local(upper)}", iri)
            return Criterion(Op.OPEN, (self.named(strict, bearer), self.named(lenient, bearer)), name=iri)
        if len(definitions) != 1:
            kind = "has no definition" if not definitions else "has more than one definition"
            self._fail(f"named class {kind}; a clause uses defined classes and features only", iri)
        definition = definitions[0]
        if not isinstance(definition, str):
            self._fail("is defined by a literal", iri)
        assert isinstance(definition, str)
        tree = self._expression(definition, bearer)
        return replace(tree, name=iri) if not tree.name else Criterion(Op.AND, (tree,), name=iri)

    def _fail(self, what: str, where: str = "") -> None:
        name = where or (self._open[-1] if self._open else "")
        raise KnowledgeBaseError(f"{local(name)}: {what}")

    def _expression(self, node: str, bearer: str) -> Criterion:
        t = self._triples
        if not node.startswith("_:"):
            return self.named(node, bearer)
        constructs = [p for p in t.predicates(node) if p in _EXPRESSION]
        if len(constructs) != 1:
            self._fail("an anonymous class that is no expression of the profile: " + self._constructs(node))
        construct = constructs[0]
        if construct == ON_PROPERTY:
            return self._restriction(node, bearer)
        if construct == OWL + "complementOf":
            inner = t.resource(node, construct)
            if inner is None:
                self._fail("complement of nothing")
            assert inner is not None
            return Criterion(Op.NOT, (self._expression(inner, bearer),))
        if construct == OWL + "oneOf":
            self._fail("oneOf stands only behind a choice")
        operands = self._members(node, construct)
        if construct == OWL + "intersectionOf":
            operands = [o for o in operands if o != bearer]  # whatever is asked here is one
        elif bearer in operands:
            self._fail(f"a union with {local(bearer)} itself holds of every one")
        children = tuple(self._expression(o, bearer) for o in operands)
        if not children:
            self._fail(f"{construct.removeprefix(OWL)} of nothing")
        if len(children) == 1:
            return children[0]
        if construct == OWL + "intersectionOf":
            return Criterion(Op.AND, children)
        return at_least_of(children) or Criterion(Op.OR, children)

    def _members(self, node: str, construct: str) -> list[str]:
        """The members of the list behind a construct, which are classes or individuals and never literals."""
        head = self._triples.resource(node, construct)
        members = self._triples.items(head) if head else ()
        for member in members:
            if isinstance(member, Literal):
                self._fail(f"{construct.removeprefix(OWL)} holds the literal {member.text!r}")
        return [m for m in members if isinstance(m, str)]

    def _constructs(self, node: str) -> str:
        return ", ".join(sorted(p.rsplit("#", 1)[-1] for p in self._triples.predicates(node) if p != TYPE)) or "nothing"

    def _restriction(self, node: str, bearer: str) -> Criterion:
        t = self._triples
        prop = t.resource(node, ON_PROPERTY) or ""
        used = {p for p in t.predicates(node)} - {TYPE, ON_PROPERTY}
        some, value = OWL + "someValuesFrom", OWL + "hasValue"
        if len(used) != 1 or not used <= {some, value}:
            self._fail(f"{local(prop)} {self._constructs(node)}: only 'some' and 'value' are in the profile")
        if prop in _LINKS:
            if bearer != CASE:
                self._fail(f"link {local(prop)} starts at a case, not at a {local(bearer)}")
            inner = self._filler(node, some, prop)
            return Criterion(Op.LINK, (self._expression(inner, _LINKS[prop]),), term=prop)
        if bearer == CASE:
            self._fail(f"{local(prop)} is no link: reach it through the patient, the lesion or the procedure")
        if prop == HAS_FINDING:
            return self._finding(self._filler(node, some, prop), bearer)
        kind = self._features.kinds.get(prop)
        if kind is None:
            self._fail(f"unknown feature {local(prop)}")
        if self._features.bearers.get(prop) != bearer:
            owner = local(self._features.bearers[prop])
            self._fail(f"wrong bearer: {local(prop)} is recorded of {owner}, not of {local(bearer)}")
        if kind is Op.CHOICE:
            return Criterion(Op.CHOICE, term=prop, values=self._individuals(node, prop))
        filler = self._filler(node, some, prop)
        if kind is Op.CATEGORY:
            return self._union(filler, lambda cls: self._category(prop, cls))
        return Criterion(Op.QUANTITY, term=prop, range=self._range(filler, prop))

    def _filler(self, node: str, construct: str, prop: str) -> str:
        filler = self._triples.resource(node, construct)
        if filler is None:
            self._fail(f"{local(prop)} needs 'some' with a class")
        assert filler is not None
        return filler

    def _union(self, node: str, leaf: Callable[[str], Criterion]) -> Criterion:
        if not node.startswith("_:"):
            return leaf(node)
        if self._triples.resource(node, OWL + "unionOf") is None:
            given = self._constructs(node)
            self._fail(f"a finding or category is a named class or a union of named classes, not {given}")
        members = self._members(node, OWL + "unionOf")
        if not members:
            self._fail("unionOf of nothing")
        return Criterion(Op.OR, tuple(self._union(m, leaf) for m in members))

    def _category(self, prop: str, cls: str) -> Criterion:
        if cls not in self._features.values[prop]:
            self._fail(f"{local(cls)} is no value of the category {local(prop)}")
        return Criterion(Op.CATEGORY, term=prop, values=frozenset({cls}))

    def _finding(self, node: str, bearer: str) -> Criterion:
        def leaf(cls: str) -> Criterion:
            if self._features.kinds.get(cls) is not Op.FINDING:
                self._fail(f"unknown finding {local(cls)}")
            owner = self._features.bearers[cls]
            # What a lesion has, its patient has; nothing else crosses.
            if owner != bearer and not (bearer == PATIENT and owner == LESION):
                self._fail(f"wrong bearer: {local(cls)} is recorded of {local(owner)}, not of {local(bearer)}")
            return Criterion(Op.FINDING, term=cls)

        return self._union(node, leaf)

    def _individuals(self, node: str, prop: str) -> frozenset[str]:
        value = self._triples.resource(node, OWL + "hasValue")
        if value is not None:
            named = frozenset({value})
        else:
            filler = self._filler(node, OWL + "someValuesFrom", prop)
            if not filler.startswith("_:"):
                filler = self._triples.resource(filler, EQUIVALENT) or filler
            if self._triples.resource(filler, OWL + "oneOf") is None:
                self._fail(f"choice {local(prop)} needs a value, an enumeration or a class defined by one")
            named = frozenset(self._members(filler, OWL + "oneOf"))
        strange = named - self._features.values[prop]
        if strange or not named:
            what = ", ".join(sorted(map(local, strange))) or "an empty enumeration"
            self._fail(f"choice {local(prop)}: {what} is none of its values")
        return named

    def _range(self, node: str, prop: str) -> Range:
        t = self._triples
        head = t.resource(node, OWL + "withRestrictions")
        if t.resource(node, OWL + "onDatatype") != XSD + "decimal" or head is None:
            self._fail(f"quantity {local(prop)} needs facets on xsd:decimal")
        assert head is not None
        bounds: list[Decimal | None] = [None, None]
        open_ = [False, False]
        for facet in t.items(head):
            for predicate in t.predicates(str(facet)):
                name = predicate.removeprefix(XSD)
                literal = t.objects(str(facet), predicate)[0]
                if name not in _FACETS or not isinstance(literal, Literal) or literal.datatype != XSD + "decimal":
                    self._fail(f"quantity {local(prop)}: facet {name} must be a decimal bound")
                assert isinstance(literal, Literal)
                side, is_open = _FACETS[name]
                if bounds[side] is not None:
                    self._fail(f"quantity {local(prop)} has two {'upper' if side else 'lower'} limits")
                bounds[side], open_[side] = Decimal(literal.text), is_open
        low, high = bounds
        if low is None and high is None:
            self._fail(f"quantity {local(prop)} has no limit")
        if low is not None and high is not None and (low > high or (low == high and any(open_))):
            self._fail(f"quantity {local(prop)}: no number lies between {low} and {high}")
        return Range(_tidy(low), _tidy(high), open_[0], open_[1])


def _tidy(value: Decimal | None) -> Decimal | None:
    if value is None:
        return None
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()


def at_least_of(disjuncts: tuple[Criterion, ...]) -> Criterion | None:
    """*At least n of* m criteria, recognised from the union of all conjunctions of n of them; else ``None``."""
    if any(d.op is not Op.AND or d.name for d in disjuncts):
        return None
    sizes = {len(d.children) for d in disjuncts}
    members = tuple(dict.fromkeys(c for d in disjuncts for c in d.children))
    n, m = min(sizes), len(members)
    if len(sizes) != 1 or n < 2 or m <= n or len(disjuncts) != math.comb(m, n):
        return None
    wanted = {frozenset(c) for c in itertools.combinations(members, n)}
    return Criterion(Op.AT_LEAST, members, n=n) if {frozenset(d.children) for d in disjuncts} == wanted else None
