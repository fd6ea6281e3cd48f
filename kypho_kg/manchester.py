"""OWL axioms in words that people read: Manchester syntax with local names, for the constructs of the axiom profile.

For reading only: every construct of OWL 2 that the axiom profile knows is written, any other is shown as triples.
"""

from __future__ import annotations

from collections.abc import Callable

from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.store import Literal, Term, Triple, Triples
from kypho_kg.vocabulary import EQUIVALENT, ON_PROPERTY, OWL, RDFS, SUBCLASS, TYPE, XSD, local

_FACETS = {"minInclusive": ">=", "minExclusive": ">", "maxInclusive": "<=", "maxExclusive": "<"}
_JOINED = {"intersectionOf": " and ", "unionOf": " or "}
_FILLED = {"someValuesFrom": "some", "allValuesFrom": "only", "hasValue": "value"}
_BETWEEN = {
    SUBCLASS: "SubClassOf",
    EQUIVALENT: "EquivalentTo",
    OWL + "disjointWith": "DisjointWith",
    RDFS + "range": "Range",
    RDFS + "domain": "Domain",
    RDFS + "subPropertyOf": "SubPropertyOf",
}
_SETS = {"AllDisjointClasses": "DisjointClasses", "AllDifferent": "DifferentIndividuals"}


class Renderer:
    """Writes axioms of an ontology.

    :param triples: the triples in which the blank nodes of the axioms are described.
    :param name: how an IRI is written; the local name by default.
    """

    def __init__(self, triples: Triples, name: Callable[[str], str] = local) -> None:
        self._triples = triples
        self._name = name

    def axiom(self, triple: Triple) -> str:
        """The axiom that begins with a triple; for a set of disjoint or different things, its type."""
        s, p, o = triple
        subject = self.expression(s)
        if p == TYPE and isinstance(o, str):
            kind = o.removeprefix(OWL)
            if kind in _SETS:
                return f"{_SETS[kind]}: {', '.join(self._members(s))}"
            return f"Functional: {subject}" if kind == "FunctionalProperty" else f"{subject} Type {self.expression(o)}"
        if p == OWL + "propertyChainAxiom" and isinstance(o, str):
            return f"{' o '.join(map(self.expression, self._triples.items(o)))} SubPropertyOf {subject}"
        return f"{subject} {_BETWEEN.get(p, self._name(p))} {self.expression(o)}"

    def expression(self, term: Term, *, inner: bool = False) -> str:
        """A class, data range, individual or value; in parentheses where it is a part and needs them."""
        if isinstance(term, Literal):
            return term.text if term.datatype.startswith(XSD) and term.datatype != XSD + "string" else repr(term.text)
        if not term.startswith("_:"):
            return f"xsd:{term.removeprefix(XSD)}" if term.startswith(XSD) else self._name(term)
        text, single = self._anonymous(term)
        return text if single or not inner else f"({text})"

    def _anonymous(self, node: str) -> tuple[str, bool]:
        """The text of a blank node, and whether it stands without parentheses as a part."""
        t = self._triples
        for name, word in _JOINED.items():
            if head := t.resource(node, OWL + name):
                return word.join(self.expression(item, inner=True) for item in t.items(head)), False
        if head := t.resource(node, OWL + "oneOf"):
            return f"{{{', '.join(map(self.expression, t.items(head)))}}}", True
        if other := t.resource(node, OWL + "complementOf"):
            return f"not {self.expression(other, inner=True)}", False
        if head := t.resource(node, OWL + "withRestrictions"):
            facets = [f for item in t.items(head) for f in self._facet(str(item))]
            return f"{self.expression(t.resource(node, OWL + 'onDatatype') or '')}[{', '.join(facets)}]", True
        for name, word in _FILLED.items():
            if values := t.objects(node, OWL + name):
                prop = self.expression(t.resource(node, ON_PROPERTY) or "")
                return f"{prop} {word} {self.expression(values[0], inner=True)}", False
        rows = (f"{self._name(p)} {self.expression(o)}" for p in t.predicates(node) for o in t.objects(node, p))
        return f"[{'; '.join(rows)}]", True

    def _facet(self, node: str) -> list[str]:
        return [f"{sign} {value}" for f, sign in _FACETS.items() for value in self._triples.texts(node, XSD + f)]

    def _members(self, node: str) -> list[str]:
        for predicate in ("members", "distinctMembers"):
            if head := self._triples.resource(node, OWL + predicate):
                return [self.expression(item) for item in self._triples.items(head)]
        raise KnowledgeBaseError(f"{node}: a set of disjoint or different things without members")
