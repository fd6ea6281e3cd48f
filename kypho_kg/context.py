"""Our JSON-LD context, made from the ontology, graphs as compact JSON-LD, and checks that a document fetches nothing.

The context maps every local name of ours to its IRI and says of which type the values of a property are: a plain
string is an exact decimal, a date or a term where the property holds one.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn
from xml.parsers import expat

from kypho_kg.criteria import Op
from kypho_kg.errors import InputError, Problem
from kypho_kg.knowledge import Knowledge
from kypho_kg.store import Term, Triple
from kypho_kg.vocabulary import DCTERMS, GUIDELINES, KYPHO, OWL, PROV, RDF, RDFS, SKOS, TYPE, XSD

CONTEXT_IRI: Final = "https://w3id.org/kypho/context"
"""The name of the context; it is resolved here and never fetched."""

_PREFIXES = {
    "dcterms": DCTERMS,
    "guidelines": GUIDELINES,
    "kypho": KYPHO,
    "prov": PROV,
    "rdf": RDF,
    "rdfs": RDFS,
    "skos": SKOS,
    "xsd": XSD,
}
_LINK = "@vocab"
_ANNOTATIONS = {
    "xsd:date": "asOf recordedFrom recordedUntil serviceDate",
    "xsd:decimal": "distanceToLimit rangeHigh rangeLow",
    "xsd:boolean": "bridgesActive constructed rangeHighExcluded rangeLowExcluded searchWasExact",
    "xsd:integer": "numberOfFeatures",
    _LINK: "feature possibleType recordedClass ruledOut yieldedBy",
}
"""Types of values of the annotation properties of records and verdicts, to which OWL gives no range."""
_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)


def context(knowledge: Knowledge) -> dict[str, Any]:
    """The context for the terms of a knowledge base; the same knowledge base gives the same context."""
    return {"@version": 1.1, "@vocab": KYPHO, **_PREFIXES, **_terms(knowledge)}


def as_jsonld(graphs: Mapping[str, Iterable[Triple]], knowledge: Knowledge) -> str:
    """Named graphs as compact JSON-LD with the context inlined; the same triples give the same text.

    :param graphs: triples by the name of their graph; an empty name is the default graph.
    """
    terms = _terms(knowledge)
    content: list[dict[str, Any]] = []
    for name, triples in sorted(graphs.items()):
        nodes = _nodes(triples, terms)
        content += [{"@id": name, "@graph": nodes}] if name else nodes
    return json.dumps({"@context": context(knowledge), "@graph": content}, ensure_ascii=False, indent=1) + "\n"


def refuse(where: str, what: str, expected: str = "") -> NoReturn:
    """Refuse a document.

    :raises InputError: always.
    """
    raise InputError(Problem(where, what, expected))


def local_document(file: str, data: bytes, knowledge: Knowledge, deepest: int) -> bytes:
    """A JSON-LD document with our own context in the place of its name, so that nothing is left to fetch.

    :raises InputError: when the document is no JSON, is nested too deep, or names any other context.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) > len(dict(pairs)):
            refuse(file, "a key stands twice in one object", "each key once")
        return dict(pairs)

    def copied(value: Any, depth: int, *, naming: bool = False) -> Any:
        if depth > deepest:
            refuse(file, "nested too deep", f"at most {deepest} levels")
        if naming and isinstance(value, str):
            if value != CONTEXT_IRI:
                refuse(file, f"the remote context {value[:100]!r}", f"{CONTEXT_IRI}, or the context itself")
            return context(knowledge)
        if isinstance(value, list):
            return [copied(x, depth + 1, naming=naming) for x in value]
        if not isinstance(value, dict):
            return value
        if "@import" in value:
            refuse(file, "a context with @import", "the context itself; nothing is fetched")
        return {k: copied(x, depth + 1, naming=k == "@context") for k, x in value.items() if k != "@version"}

    try:
        # A number with a point stays a text with its digits; the context says that it is a decimal.
        tree = json.loads(data.decode("utf-8-sig"), object_pairs_hook=once, parse_float=str, parse_constant=str)
        return json.dumps(copied(tree, 0)).encode()
    except json.JSONDecodeError as error:
        refuse(f"{file}:{error.lineno}", f"not valid JSON: {error.msg}", "JSON-LD in UTF-8")
    except ValueError:
        refuse(file, "not valid JSON: no UTF-8, or a number with thousands of digits", "JSON-LD in UTF-8")
    except RecursionError:
        refuse(file, "nested too deep", f"at most {deepest} levels")


def check_xml(file: str, data: bytes, deepest: int) -> None:
    """Refuse a document type, with which entities come, and tags that are nested too deep.

    :raises InputError: for these, and where the document is no XML.
    """
    parser, depth = expat.ParserCreate(), 0

    def here() -> str:
        return f"{file}:{parser.CurrentLineNumber}"

    def doctype(*_: object) -> None:
        refuse(here(), "a DOCTYPE", "RDF/XML without a document type and entities")

    def element(*opened: object) -> None:
        nonlocal depth
        depth += 1 if len(opened) == 2 else -1
        if depth > deepest:
            refuse(here(), "nested too deep", f"at most {deepest} levels")

    parser.StartDoctypeDeclHandler, parser.StartElementHandler, parser.EndElementHandler = doctype, element, element
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last two: an encoding that is none
        refuse(here(), f"not valid XML: {error}", "well-formed RDF/XML")


def _terms(knowledge: Knowledge) -> dict[str, dict[str, str]]:
    """What is said of properties in the context: IRI and type of the values, by local name."""
    t = knowledge.triples
    types = {KYPHO + name: type_ for type_, names in _ANNOTATIONS.items() for name in names.split()}
    for iri in t.subjects(TYPE, OWL + "ObjectProperty"):
        types[iri] = _LINK
    for iri in t.subjects(TYPE, OWL + "DatatypeProperty"):
        range_ = t.resource(iri, RDFS + "range")
        if range_ and range_.startswith(XSD) and range_ != XSD + "string":
            types[iri] = "xsd:" + range_.removeprefix(XSD)
    for feature in knowledge.features.values():
        if feature.kind is None:
            types[feature.iri] = "xsd:date"
        elif feature.kind is not Op.FINDING:
            types[feature.iri] = "xsd:decimal" if feature.kind is Op.QUANTITY else _LINK
    ours = {iri.removeprefix(KYPHO): type_ for iri, type_ in types.items() if iri.startswith(KYPHO)}
    return {n: {"@id": f"kypho:{n}", "@type": ours[n]} for n in sorted(ours) if _NAME.fullmatch(n)}


def _nodes(triples: Iterable[Triple], terms: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """One flat object for each subject, sorted."""
    rows: dict[str, dict[str, set[Term]]] = defaultdict(lambda: defaultdict(set))
    for s, p, o in triples:
        rows[s][p].add(o)
    nodes = []
    for subject in sorted(rows):
        node: dict[str, Any] = {"@id": subject}
        types = rows[subject].pop(TYPE, set())
        if types:
            node["@type"] = _few(sorted(_compact(str(o)) for o in types))
        for predicate, objects in sorted(rows[subject].items()):
            key = _compact(predicate)
            type_ = terms.get(key, {}).get("@type", "")
            node[key] = _few([_value(o, type_) for o in sorted(objects, key=repr)])
        nodes.append(node)
    return nodes


def _few(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _compact(iri: str) -> str:
    """The local name of a term of ours, a name with a prefix, or the IRI itself."""
    local = iri.removeprefix(KYPHO)
    if local != iri and _NAME.fullmatch(local) and local not in _PREFIXES:
        return local
    for prefix, namespace in _PREFIXES.items():
        rest = iri.removeprefix(namespace)
        if rest != iri and _PATH.fullmatch(rest):
            return f"{prefix}:{rest}"
    return iri


def _value(term: Term, type_: str) -> Any:
    if isinstance(term, str):
        return _compact(term) if type_ == _LINK else {"@id": term}
    datatype = _compact(term.datatype)
    if term.language:
        return {"@value": term.text, "@language": term.language}
    if datatype == (type_ or "xsd:string"):
        return term.text
    return {"@value": term.text} if datatype == "xsd:string" else {"@value": term.text, "@type": datatype}
