"""RDF parsing, storage and SPARQL: the only importer of pyoxigraph.

Terms leave this module as plain Python: an IRI is a ``str``, a blank node a ``str`` that begins with ``_:``, and a
literal a :class:`Literal`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyoxigraph as ox

from kypho_kg.errors import EngineError, KnowledgeBaseError, UsageError
from kypho_kg.vocabulary import KYPHO, SKOS

XSD = "http://www.w3.org/2001/XMLSchema#"


class Literal(NamedTuple):
    """An RDF literal: lexical form, datatype IRI and language tag (empty where there is none)."""

    text: str
    datatype: str = XSD + "string"
    language: str = ""


Term = str | Literal
Triple = tuple[str, str, Term]


class Triples:
    """A read-only index of triples by subject and by object, in the order of the files."""

    def __init__(self, triples: Iterable[Triple]) -> None:
        self._by_subject: dict[str, dict[str, list[Term]]] = defaultdict(lambda: defaultdict(list))
        self._by_object: dict[Term, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._count = 0
        for s, p, o in triples:
            self._by_subject[s][p].append(o)
            self._by_object[o][p].append(s)
            self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Triple]:
        for s, properties in self._by_subject.items():
            for p, objects in properties.items():
                for o in objects:
                    yield s, p, o

    def objects(self, subject: str, predicate: str) -> tuple[Term, ...]:
        """All objects of a subject and a predicate."""
        properties = self._by_subject.get(subject)
        return tuple(properties.get(predicate, ())) if properties else ()

    def resources(self, subject: str, predicate: str) -> tuple[str, ...]:
        """The objects that are IRIs or blank nodes."""
        return tuple(o for o in self.objects(subject, predicate) if isinstance(o, str))

    def resource(self, subject: str, predicate: str) -> str | None:
        """The first object that is an IRI or a blank node."""
        return next(iter(self.resources(subject, predicate)), None)

    def text(self, subject: str, predicate: str) -> str:
        """The first literal as text, empty where there is none."""
        return next((o.text for o in self.objects(subject, predicate) if isinstance(o, Literal)), "")

    def texts(self, subject: str, predicate: str) -> tuple[str, ...]:
        """All literals as text."""
        return tuple(o.text for o in self.objects(subject, predicate) if isinstance(o, Literal))

    def whole_number(self, subject: str, predicate: str) -> int | None:
        """The one literal as a whole number, ``None`` where there is none.

        :raises KnowledgeBaseError: when there are several, or the one is no whole number.
        """
        found = self.texts(subject, predicate)
        if not found:
            return None
        if len(found) > 1 or not found[0].isascii() or not found[0].isdigit():
            name, what = (x.rpartition("#")[2] for x in (subject, predicate))
            raise KnowledgeBaseError(f"{name} {what} {', '.join(map(repr, found))}: expected one whole number")
        return int(found[0])

    def referrers(self, node: str) -> tuple[str, ...]:
        """The subjects that point at a node by any predicate."""
        return tuple(s for subjects in self._by_object.get(node, {}).values() for s in subjects)

    def owner(self, node: str) -> str:
        """The named term whose axioms hold a blank node; the last blank node where there is none."""
        seen: set[str] = set()
        while node.startswith("_:") and node not in seen:
            seen.add(node)
            node = next(iter(self.referrers(node)), node)
        return node

    def subjects(self, predicate: str, obj: Term) -> tuple[str, ...]:
        """All subjects of a predicate and an object."""
        properties = self._by_object.get(obj)
        return tuple(properties.get(predicate, ())) if properties else ()

    def predicates(self, subject: str) -> tuple[str, ...]:
        """The predicates of a subject."""
        return tuple(self._by_subject.get(subject, ()))

    def items(self, head: str) -> tuple[Term, ...]:
        """The members of an RDF list.

        :raises KnowledgeBaseError: when the list is broken or runs in a circle.
        """
        rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
        members: list[Term] = []
        seen: set[str] = set()
        while head != rdf + "nil":
            first, rest = self.objects(head, rdf + "first"), self.resources(head, rdf + "rest")
            if head in seen or len(first) != 1 or len(rest) != 1:
                raise KnowledgeBaseError(f"broken RDF list at {head}")
            seen.add(head)
            members.append(first[0])
            head = rest[0]
        return tuple(members)


def parse_turtle(path: Path) -> list[Triple]:
    """Parse one Turtle file; blank nodes are kept apart from those of other files.

    :raises KnowledgeBaseError: when the file is missing or is not Turtle.
    """
    try:
        prefix = f"_:{path.parent.name}-{path.stem}-"
        return [
            (_plain(q.subject, prefix), q.predicate.value, _plain_object(q.object, prefix))
            for q in ox.parse(path=str(path), format=ox.RdfFormat.TURTLE)
        ]
    except (OSError, SyntaxError, ValueError) as error:
        raise KnowledgeBaseError(f"{path.name}: {error}") from None


def _plain(term: object, prefix: str = "_:") -> str:
    if isinstance(term, ox.NamedNode):
        return str(term.value)
    if isinstance(term, ox.BlankNode):
        return prefix + term.value
    raise EngineError(f"term of an unexpected kind: {term}")


def _plain_object(term: object, prefix: str = "_:") -> Term:
    if isinstance(term, ox.Literal):
        return Literal(term.value, term.datatype.value, term.language or "")
    return _plain(term, prefix)


def _node(term: str) -> ox.NamedNode | ox.BlankNode:
    return ox.BlankNode(term[2:].replace("-", "")) if term.startswith("_:") else ox.NamedNode(term)


def _oxigraph(triple: Triple, graph: str = "") -> ox.Quad:
    s, p, o = triple
    if isinstance(o, Literal):
        value: ox.Literal | ox.NamedNode | ox.BlankNode = (
            ox.Literal(o.text, language=o.language)
            if o.language
            else ox.Literal(o.text, datatype=ox.NamedNode(o.datatype))
        )
    else:
        value = _node(o)
    return ox.Quad(_node(s), ox.NamedNode(p), value, ox.NamedNode(graph) if graph else None)


class Store:
    """An in-memory graph that answers SPARQL.

    :param named: further graphs by name, which ``GRAPH`` reaches and a plain pattern does not.
    :param union: a plain pattern reaches the named graphs too.
    """

    def __init__(
        self,
        triples: Iterable[Triple] = (),
        named: Mapping[str, Iterable[Triple]] | None = None,
        *,
        union: bool = False,
    ) -> None:
        self._store = ox.Store()
        self._union = union
        self._store.extend(map(_oxigraph, triples))
        for name, rows in (named or {}).items():
            self._store.extend(_oxigraph(row, name) for row in rows)

    def select(self, query: str) -> list[dict[str, Term]]:
        """Rows of a SELECT query; an unbound variable has no key.

        :raises UsageError: when the query does not parse or is no SELECT.
        """
        result = self._run(query)
        if not isinstance(result, ox.QuerySolutions):
            raise UsageError("expected a SELECT query")
        names = [v.value for v in result.variables]
        return [{n: _plain_object(row[n]) for n in names if row[n] is not None} for row in result]

    def construct(self, query: str) -> list[Triple]:
        """Triples of a CONSTRUCT query.

        :raises UsageError: when the query does not parse or is no CONSTRUCT.
        """
        result = self._run(query)
        if not isinstance(result, ox.QueryTriples):
            raise UsageError("expected a CONSTRUCT query")
        return [(_plain(t.subject), t.predicate.value, _plain_object(t.object)) for t in result]

    def ask(self, query: str) -> bool:
        """The answer of an ASK query.

        :raises UsageError: when the query does not parse or is no ASK.
        """
        result = self._run(query)
        if not isinstance(result, ox.QueryBoolean):
            raise UsageError("expected an ASK query")
        return bool(result)

    def form(self, query: str) -> str:
        """``select``, ``construct`` or ``ask``."""
        result = self._run(query)
        return {ox.QuerySolutions: "select", ox.QueryTriples: "construct"}.get(type(result), "ask")

    def _run(self, query: str) -> ox.QuerySolutions | ox.QueryBoolean | ox.QueryTriples:
        try:
            return self._store.query(query, use_default_graph_as_union=self._union)
        except SyntaxError as error:
            raise UsageError(f"SPARQL: {error}") from None
        except (OSError, RuntimeError, ValueError) as error:
            raise EngineError(f"SPARQL engine: {error}") from error


def serialized(named: Mapping[str, Iterable[Triple]], *, apart: bool) -> str:
    """Named graphs as TriG, or all of their triples as Turtle; the same triples give the same text.

    :param apart: whether each graph keeps its name.
    """
    quads = [
        _oxigraph(row, name if apart else "") for name, rows in named.items() for row in sorted(set(rows), key=repr)
    ]
    prefixes = {"kypho": KYPHO, "skos": SKOS, "xsd": XSD, "prov": "http://www.w3.org/ns/prov#"}
    form = ox.RdfFormat.TRIG if apart else ox.RdfFormat.TURTLE
    written = ox.serialize(quads if apart else (q.triple for q in quads), format=form, prefixes=prefixes)
    return (written or b"").decode()


def refuse_remote(query: str) -> None:
    """Refuse a query that would reach outside the graph it is given.

    The text is parsed, not searched, so that comments and escapes hide nothing; what the parser does not know is
    refused too.

    :raises UsageError: on SERVICE, FROM, FROM NAMED, an update, or a text that is no SPARQL 1.1 query.
    """
    from rdflib.plugins.sparql.parser import parseQuery

    try:
        parsed = repr(parseQuery(query))
    except Exception as error:  # rdflib raises pyparsing's and others' exceptions
        raise UsageError(f"not a SPARQL 1.1 query: {error}") from None
    # The name of a grammar production in the printed tree. A literal that contains it is refused too: fail closed.
    for production, keyword in (("ServiceGraphPattern", "SERVICE"), ("DatasetClause", "FROM")):
        if production in parsed:
            raise UsageError(f"{keyword} is not allowed: a query reads only the graph it is given")
