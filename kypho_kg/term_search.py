"""The term for whatever is in a record: by code, or by words of labels and names."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kypho_kg.criteria import Op
from kypho_kg.errors import UsageError
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import CodedFact, Mappings, TermMapping, value_owners
from kypho_kg.vocabulary import DEFINITION, KYPHO, LABEL, OWL, RDF, TYPE, local

if TYPE_CHECKING:
    from rich.console import Console

_KINDS = {Op.FINDING: "finding", Op.CATEGORY: "category", Op.CHOICE: "choice", Op.QUANTITY: "quantity", None: "date"}
_SHOWN_TERMS = 10
_SHOWN_CODES = 12


@dataclass(frozen=True, slots=True)
class Found:
    """A term, and the rows of the code that led to it (none for a search by words)."""

    iri: str
    rows: tuple[TermMapping, ...] = ()


def find(k: Knowledge, mappings: Mappings, text: str) -> tuple[list[Found], tuple[CodedFact, ...]]:
    """The terms for a code or for words, best first, and what a record with the code states.

    :param text: a code, bare or with its system (``PREFIX:code``, ``system|code``), or words.
    :raises UsageError: when nothing is found, with the nearest names.
    """
    rows = mappings.search(text)
    if rows:
        by_term: dict[str, list[TermMapping]] = {}
        for row in sorted(rows, key=lambda r: (r.negated, not r.assigns, r.prefix, r.subject)):
            by_term.setdefault(row.subject, []).append(row)
        return [Found(iri, tuple(found)) for iri, found in by_term.items()], mappings.facts(text, k)
    asked = _words(text)
    ranked = sorted((r, local(i).lower(), i) for i in _terms(k) if (r := _rank(k, mappings, i, asked)) is not None)
    if asked and ranked:
        return [Found(iri) for _, _, iri in ranked], ()
    names = {n: local(i) for i in _terms(k) if _stated(k, i) for n in (local(i).lower(), k.label(i).lower())}
    near = dict.fromkeys(names[n] for n in difflib.get_close_matches(text.strip().lower(), names, n=5, cutoff=0.5))
    raise UsageError(f"nothing found for {text!r}" + (f"; nearest: {', '.join(near)}" if near else ""))


def _terms(k: Knowledge) -> Iterator[str]:
    """The named terms of the vocabulary."""
    kinds = (OWL + "Class", OWL + "NamedIndividual", OWL + "ObjectProperty", OWL + "DatatypeProperty")
    found = {iri for kind in kinds for iri in k.triples.subjects(TYPE, kind)} | set(k.features)
    return (iri for iri in sorted(found) if iri.startswith(KYPHO) and k.triples.text(iri, LABEL))


def _stated(k: Knowledge, iri: str) -> bool:
    """Whether a record can state the term."""
    return iri in k.features or iri in value_owners(k)


@functools.cache
def _words(text: str) -> tuple[str, ...]:
    """Lower-case words; British and American spelling fall together."""
    plain = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text).lower()
    plain = re.sub("[ao]e", "e", plain.translate(str.maketrans("äéöüë", "aeoue"))).replace("our", "or")
    return tuple(re.findall(r"[a-z0-9]+", plain))


def _rank(k: Knowledge, mappings: Mappings, iri: str, asked: tuple[str, ...]) -> tuple[int, int, int] | None:
    """How well the term fits: the kind of fit, whether a record can state it, and how much else its name says."""
    names = [_words(k.label(iri)), _words(local(iri)), _words(k.plain(iri))]
    for place, fits in enumerate((_same, _has_words, _has_beginnings)):
        if any(fits(asked, name) for name in names):
            return place, not _stated(k, iri), min(len(name) for name in names if fits(asked, name))
    if any(_has_words(asked, _words(row.label)) for row in mappings.of_term(iri)):
        return 3, not _stated(k, iri), len(names[0])
    return None


def _same(asked: tuple[str, ...], name: tuple[str, ...]) -> bool:
    return asked == name


def _has_words(asked: tuple[str, ...], name: tuple[str, ...]) -> bool:
    return set(asked) <= set(name)


def _has_beginnings(asked: tuple[str, ...], name: tuple[str, ...]) -> bool:
    return all(any(word.startswith(a) for word in name) for a in asked)


def describe(k: Knowledge, mappings: Mappings, found: Found) -> dict[str, Any]:
    """Everything about a term that a reader of a record wants to know."""
    iri, feature = found.iri, k.features.get(found.iri)
    owners = value_owners(k).get(iri, ())
    about: dict[str, Any] = {
        "term": local(iri),
        "iri": iri,
        "kind": _kind(k, iri),
        "bearer": local(feature.bearer if feature else owners[0].bearer if owners else "") or None,
        "label": k.label(iri),
        "plain_label": k.triples.text(iri, KYPHO + "plainLabel") or None,
        "definition": k.triples.text(iri, DEFINITION) or None,
        "unit": (feature.unit if feature else "") or None,
        "other_units": sorted(feature.accepts) if feature else [],
        "values": sorted(map(local, feature.values), key=_natural) if feature else [],
        "value_of": [f.name for f in owners],
        "codes": [_code(row) for row in mappings.of_term(iri)],
    }
    if found.rows:
        about["found_by"] = [_code(row) for row in found.rows]
    return about


def _kind(k: Knowledge, iri: str) -> str:
    feature = k.features.get(iri)
    if feature:
        return _KINDS[feature.kind]
    if iri in value_owners(k):
        return "value"
    kinds = set(k.triples.resources(iri, TYPE))
    if OWL + "Class" in kinds:
        return "class"
    return "property" if kinds & {OWL + "ObjectProperty", OWL + "DatatypeProperty", RDF + "Property"} else "individual"


def _natural(name: str) -> tuple[str | int, ...]:
    """A key by which T2 stands before T10."""
    parts = re.split(r"(\d+)", name)
    return tuple(int(p) if i % 2 else p for i, p in enumerate(parts))


def _code(row: TermMapping) -> dict[str, Any]:
    return {
        "code": row.curie,
        "label": row.label or None,
        "predicate": ("not " if row.negated else "") + row.predicate,
        "assigns": row.assigns,
        "comment": row.comment or None,
    }


def fact_words(k: Knowledge, fact: CodedFact) -> str:
    """What a code states, in names of the ontology."""
    value = local(fact.value) if fact.value else "as recorded" if fact.feature.kind is Op.QUANTITY else "present"
    if fact.absent:
        value = f"not {value}" if fact.value else "ruled out"
    through = f", through {fact.ingredient}" if fact.ingredient else ""
    return f"{fact.feature.name}: {value} ({local(fact.feature.bearer)}{through})"


def as_json(k: Knowledge, mappings: Mappings, text: str) -> dict[str, Any]:
    """The answer as data."""
    found, facts = find(k, mappings, text)
    return {
        "asked": text,
        "states": [
            {
                "feature": f.feature.name,
                "bearer": local(f.feature.bearer),
                "value": local(f.value) if f.value else None,
                "code": f.mapping.curie,
            }
            | ({"absent": True} if f.absent else {})
            for f in facts
        ],
        "terms": [describe(k, mappings, f) for f in found],
    }


def print_found(console: Console, k: Knowledge, mappings: Mappings, text: str) -> None:
    """The answer as text."""
    from rich.text import Text

    def say(line: str, style: str = "") -> None:
        console.print(Text(line, style))

    found, facts = find(k, mappings, text)
    if found[0].rows:
        for curie in sorted({f"{r.curie} {r.label}".strip() for f in found for r in f.rows}):
            say(curie, "bold")
        say("A record with this code states:" if facts else "A record with this code states nothing by itself.")
        for fact in facts:
            say(f"  {fact_words(k, fact)}")
        say("")
    for one in found[:_SHOWN_TERMS]:
        _print_term(say, describe(k, mappings, one))
    if len(found) > _SHOWN_TERMS:
        more = ", ".join(local(f.iri) for f in found[_SHOWN_TERMS : 2 * _SHOWN_TERMS])
        say(f"and {len(found) - _SHOWN_TERMS} more: {more}" + (" ..." if len(found) > 2 * _SHOWN_TERMS else ""))


def _print_term(say: Any, about: dict[str, Any]) -> None:
    kind = about["kind"] + (f" of {', '.join(about['value_of'])}" if about["value_of"] else "")
    say(f"{about['term']}: {about['label']}", "bold")
    say(f"  {kind}" + (f", of a {about['bearer']}" if about["bearer"] else ""))
    if about["plain_label"]:
        say(f"  in plain words: {about['plain_label']}")
    if about["definition"]:
        say(f"  {about['definition']}")
    if about["unit"]:
        say(f"  unit: {', '.join((about['unit'], *about['other_units']))}")
    if about["values"]:
        say(f"  values: {', '.join(about['values'])}")
    codes = about.get("found_by") or about["codes"]
    for row in codes[:_SHOWN_CODES]:
        name, note = (f" {row['label']}" if row["label"] else ""), (f" ({row['comment']})" if row["comment"] else "")
        say(f"  {row['predicate'].replace('skos:', '').removesuffix('Match'):>11}  {row['code']}{name}{note}", "dim")
    if len(codes) > _SHOWN_CODES:
        say(f"  and {len(codes) - _SHOWN_CODES} more codes; --format json has all", "dim")
    say("")
