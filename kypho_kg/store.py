"""RDF parsing, storage and SPARQL: the only importer of pyoxigraph.

Terms leave this module as plain Python: an IRI is a ``str``, a blank node a ``str`` that begins with ``_:``, and a
literal a :class:`Literal`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

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


def _term(term: Term) -> _Object:
    if not isinstance(term, Literal):
        return _node(term)
    if term.language:
        return ox.Literal(term.text, language=term.language)
    return ox.Literal(term.text, datatype=ox.NamedNode(term.datatype))


_Object = ox.Literal | ox.NamedNode | ox.BlankNode | ox.Triple


def _oxigraph(triple: Triple, graph: str = "") -> ox.Quad:
    s, p, o = triple
    return ox.Quad(_node(s), ox.NamedNode(p), _term(o), ox.NamedNode(graph) if graph else None)


@dataclass(frozen=True, slots=True)
class Query:
    """A query with values for some of its variables and the most rows that are wanted."""

    text: str
    bindings: Mapping[str, Term] = field(default_factory=dict)
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a query gives; ``None`` stands for a variable without a value.

    Of an ASK it is one row ``answer``, of a CONSTRUCT the rows ``subject``, ``predicate``, ``object``.
    """

    form: str
    """``select``, ``construct`` or ``ask``."""
    columns: tuple[str, ...]
    rows: list[tuple[Term | None, ...]]
    cut: bool = False
    """Whether there are more rows than were wanted."""


class Store:
    """A graph that answers SPARQL, in memory or, read-only, from a folder.

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

    @classmethod
    def loaded(cls, dump: bytes) -> Self:
        """A store of what :meth:`dump` gave, with the same union."""
        union, _, quads = dump.partition(b"\n")
        store = cls(union=union == b"union")
        store._store.bulk_load(quads, format=ox.RdfFormat.N_QUADS)
        return store

    @classmethod
    def opened(cls, folder: Path) -> Self:
        """The store of a folder, read-only; a plain pattern reaches all of its graphs.

        :raises EngineError: when the folder holds no store that can be read.
        """
        store = cls.__new__(cls)
        store._union = True
        try:
            store._store = ox.Store.read_only(str(folder))
        except (OSError, ValueError) as error:
            raise EngineError(f"{folder}: the store cannot be read: {error}") from None
        return store

    def dump(self) -> bytes:
        """All that the store holds, for :meth:`loaded`."""
        return (b"union\n" if self._union else b"apart\n") + (self._store.dump(format=ox.RdfFormat.N_QUADS) or b"")

    def result(self, query: Query) -> Result:
        """The result of any query.

        :raises UsageError: when the query does not parse, or a value is given for what is none of its variables.
        :raises EngineError: when the engine fails.
        """
        if query.bindings and isinstance(plain := self._run(query.text), ox.QuerySolutions):
            known = [v.value for v in plain.variables]
            if unknown := sorted(query.bindings.keys() - known):
                raise UsageError(f"{', '.join(unknown)}: no column of the query; known: {', '.join(known)}")
        found = self._run(query.text, query.bindings)
        if isinstance(found, ox.QueryBoolean):
            return Result("ask", ("answer",), [(Literal(str(bool(found)).lower(), XSD + "boolean"),)])
        rows: list[tuple[Term | None, ...]] = []
        columns: tuple[str, ...] = ("subject", "predicate", "object")
        triples = isinstance(found, ox.QueryTriples)
        if isinstance(found, ox.QuerySolutions):
            columns = tuple(v.value for v in found.variables)
        try:
            for row in found:
                if query.limit is not None and len(rows) == query.limit:
                    return Result("construct" if triples else "select", columns, rows, cut=True)
                rows.append(tuple(None if term is None else _plain_object(term) for term in row))
        except (OSError, RuntimeError, ValueError) as error:
            raise EngineError(f"SPARQL engine: {error}") from error
        return Result("construct" if triples else "select", columns, rows)

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

    def _run(
        self, query: str, bindings: Mapping[str, Term] | None = None
    ) -> ox.QuerySolutions | ox.QueryBoolean | ox.QueryTriples:
        values: dict[ox.Variable, _Object] = {
            ox.Variable(name): _term(value) for name, value in (bindings or {}).items()
        }
        try:
            return self._store.query(query, use_default_graph_as_union=self._union, substitutions=values)
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


def _lines(rows: Iterable[Triple]) -> str:
    """N-Triples, which SPARQL reads too."""
    return (ox.serialize((_oxigraph(row).triple for row in rows), format=ox.RdfFormat.N_TRIPLES) or b"").decode()


class DiskStore:
    """A store in a folder, open for writing: graphs of one owner come and go together.

    What is noted of an owner stands in a graph of its own and is written in the same transaction as the graphs.
    """

    NOTES = "urn:kypho:store"
    """The graph of the notes; a note is a property ``urn:kypho:store:NAME`` with a text."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, or make it.

        :raises EngineError: when it cannot be opened, as when another process has it open.
        """
        try:
            self._store = ox.Store(str(folder))
        except (OSError, ValueError) as error:
            raise EngineError(f"{folder}: the store cannot be opened: {error}") from None
        self._notes = ox.NamedNode(self.NOTES)

    def notes(self, owner: str) -> dict[str, str]:
        """What is noted of an owner, by name; nothing if it was never written."""
        found = self._store.quads_for_pattern(ox.NamedNode(owner), None, None, self._notes)
        return {q.predicate.value.removeprefix(self.NOTES + ":"): str(getattr(q.object, "value", "")) for q in found}

    def replace(
        self, owner: str, graphs: Mapping[str, Iterable[Triple]], notes: Mapping[str, str], former: Iterable[str] = ()
    ) -> None:
        """Write the graphs and notes of an owner in one transaction: after a crash all of it is there, or nothing.

        :param former: names of graphs of the owner that go, whether or not they are there.
        :raises EngineError: when they cannot be written.
        """
        said = [(owner, f"{self.NOTES}:{name}", Literal(text)) for name, text in notes.items()]
        whole = {self.NOTES: said, **graphs}
        try:
            if not self.notes(owner):
                self._store.extend([_oxigraph(row, name) for name, rows in whole.items() for row in rows])
                return
            drop = [f"DROP SILENT GRAPH {ox.NamedNode(name)}" for name in dict.fromkeys([*former, *graphs])]
            old = f"DELETE WHERE {{ GRAPH {self._notes} {{ {ox.NamedNode(owner)} ?name ?text }} }}"
            data = "".join(f"GRAPH {ox.NamedNode(name)} {{\n{_lines(rows)}}}\n" for name, rows in whole.items())
            self._store.update(";\n".join([*drop, old, f"INSERT DATA {{\n{data}}}"]))
        except (OSError, RuntimeError, SyntaxError, ValueError) as error:
            raise EngineError(f"the store cannot be written: {error}") from error

    def compact(self) -> None:
        """Put the files in order: fewer, smaller and faster to ask; takes time by the size of the store."""
        self._store.optimize()

    def flush(self) -> None:
        """Write everything from memory to disk."""
        self._store.flush()

    def close(self) -> None:
        """Flush and let go of the folder."""
        self._store.flush()
        del self._store
