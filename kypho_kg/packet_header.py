"""The head of a request for prior authorization: its fields, and what fills them.

The fields themselves are data (``ontology/modules/billing.ttl``). A value comes from the record, from the command line
or from a header file, and is never made up: a field without one stays blank.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from kypho_kg.applicability import choice_of_procedure
from kypho_kg.errors import InputError
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.mappings import EXACT, load_mappings
from kypho_kg.record import LESION, PROCEDURE, Fact, Range, TimeSpan, Value
from kypho_kg.snapshot import Snapshot
from kypho_kg.sources.fact_reader import Problems
from kypho_kg.sources.yaml_tree import Node, read_tree
from kypho_kg.store import Triples
from kypho_kg.vocabulary import DEFINITION, KYPHO, SKOS, TYPE
from kypho_kg.vocabulary import LESION as LESION_CLASS
from kypho_kg.vocabulary import PATIENT as PATIENT_CLASS
from kypho_kg.words import choice_words, value_words

FORMAT = "kypho-packet-header/1"


@dataclass(frozen=True, slots=True)
class RequestField:
    """A field of the head of a request, as the ontology declares it."""

    iri: str
    key: str
    """``group.field``, as a header file names it."""
    group: str
    """Label of its group in plain words."""
    label: str
    definition: str
    type: str
    """``text``, ``code``, ``date`` or ``number``."""
    several: bool
    record_only: bool
    """Whether a header file may not give it, because policies are chosen or judged by it."""
    pattern: str
    form: str
    """The pattern in words."""
    filled_from: tuple[str, ...]
    """IRIs of the features whose values fill it."""


class Origin(StrEnum):
    """Where the value of a field came from."""

    RECORD = "record"
    OPTION = "option"
    HEADER = "header"
    BLANK = "blank"


@dataclass(frozen=True, slots=True)
class Filled:
    """A field with its values, none where it stays blank."""

    field: RequestField
    values: tuple[str, ...] = ()
    origin: Origin = Origin.BLANK
    source: str = ""
    """The document or the place from which the values were taken."""
    asked_by: tuple[str, ...] = ()
    """Ids of the policies of the packet that ask for the field."""
    recorded: tuple[str, ...] = ()
    """What the record says, where the header file says something else."""
    notes: tuple[str, ...] = ()
    """What the knowledge base can say to help; nothing of it is filled in."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a header file gives."""

    file: str = ""
    author: str = ""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By the key of the field."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says of the service in place of the record."""

    state: str | None = None
    payer: str | None = None


def request_fields(k: Knowledge) -> tuple[RequestField, ...]:
    """The fields in their order."""
    return _fields(k.triples)


@functools.lru_cache(maxsize=4)
def _fields(t: Triples) -> tuple[RequestField, ...]:
    def order(iri: str) -> int:
        return t.whole_number(iri, KYPHO + "orderNumber") or 0

    return tuple(_field(t, iri) for iri in sorted(t.subjects(TYPE, KYPHO + "RequestField"), key=order))


def _field(t: Triples, iri: str) -> RequestField:
    group = t.resource(iri, KYPHO + "inFieldGroup") or ""
    return RequestField(
        iri=iri,
        key=t.text(iri, SKOS + "notation"),
        group=t.text(group, KYPHO + "plainLabel"),
        label=t.text(iri, KYPHO + "plainLabel"),
        definition=t.text(iri, DEFINITION),
        type=t.text(iri, KYPHO + "fieldType"),
        several=t.text(iri, KYPHO + "takesSeveral") == "true",
        record_only=t.text(iri, KYPHO + "fromRecordOnly") == "true",
        pattern=t.text(iri, KYPHO + "valuePattern"),
        form=t.text(iri, KYPHO + "valueForm"),
        filled_from=t.resources(iri, KYPHO + "filledFrom"),
    )


# -- the header file


def read_header(path: Path, k: Knowledge) -> Header:
    """Read a header file: ``format``, ``author``, and a map of fields for each group.

    :raises InputError: with every problem found, each with file, line, field and what would be right.
    """
    root, problems = read_tree(path), Problems()
    groups: dict[str, list[RequestField]] = {}
    for one in request_fields(k):
        groups.setdefault(one.key.partition(".")[0], []).append(one)
    top = problems.mapping(root, ("format", "author", *groups)) or {}
    form = top.get("format")
    if not problems.found and (form is None or form.value != FORMAT):
        problems.add(form or root, f"format is {form.shown if form else 'missing'}", f"format: {FORMAT}")
    author = problems.text(top["author"], "author").strip() if "author" in top else ""
    if not problems.found and not author:
        problems.add(root, "the file has no author", "author: who fills in the request")
    values: dict[str, tuple[str, ...]] = {}
    for name, fields in groups.items():
        if name not in top or top[name].value is None:
            continue
        by_name = {one.key.partition(".")[2]: one for one in fields}
        for key, node in (problems.mapping(top[name], tuple(by_name)) or {}).items():
            if found := _read(node, by_name[key], problems):
                values[by_name[key].key] = found
    if problems.found:
        raise InputError(problems.found)
    return Header(path.name, author, values)


def _read(node: Node, one: RequestField, problems: Problems) -> tuple[str, ...]:
    """The values of a field; none where it was left blank. A message holds the place and the form, not the value."""
    if node.value is None:
        return ()
    if one.record_only:
        what = "is not taken from a header file, because policies are chosen or judged by it"
        problems.add(node, what, "it in the record, or in a file for --with")
        return ()
    if isinstance(node.value, list) and not one.several:
        problems.add(node, "a list", "one value")
        return ()
    found = []
    for item in node.value if isinstance(node.value, list) else [node]:
        text = item.value.strip() if isinstance(item.value, str) else ""
        if not text:
            problems.add(item, f"is {item.shown if not isinstance(item.value, str) else 'empty'}", one.form or "a text")
        elif not text.isprintable() or len(text) > 200:
            problems.add(item, "is too long or holds control characters", "a text of one line, 200 characters at most")
        elif (one.pattern and not re.fullmatch(one.pattern, text)) or (one.type == "date" and not _is_date(text)):
            problems.add(item, "is not of the form that the field takes", one.form)
        else:
            found.append(text)
    return tuple(dict.fromkeys(found))


def _is_date(text: str) -> bool:
    try:
        TimeSpan.parse(text)
    except ValueError:
        return False
    return True


# -- filling


def fill(
    snapshot: Snapshot, header: Header, given: Given, lesions: Sequence[str], asked: Mapping[str, Iterable[str]]
) -> tuple[Filled, ...]:
    """Every field with what the record, the command line or the header file says, in this order of the fields.

    :param lesions: ids of the lesions that the request is about.
    :param asked: for the IRI of a field the ids of the policies that ask for it.
    """
    filled = []
    for one in request_fields(snapshot.knowledge):
        recorded, origin, source = _recorded(snapshot, one, given, lesions)
        typed = header.values.get(one.key, ())
        notes = tuple(_code_notes(snapshot, lesions)) if _takes_procedure_codes(snapshot.knowledge, one) else ()
        by = tuple(asked.get(one.iri, ()))
        if typed:
            other = recorded if recorded != typed else ()
            filled.append(Filled(one, typed, Origin.HEADER, f"{header.file} ({header.author})", by, other, notes))
        else:
            blank = not recorded
            filled.append(
                Filled(one, recorded, Origin.BLANK if blank else origin, "" if blank else source, by, (), notes)
            )
    return tuple(filled)


def asked_fields(k: Knowledge, guidelines: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """For the IRI of each field the ids of the policies that ask for it.

    :param guidelines: id and IRI of each.
    """
    asked: dict[str, list[str]] = {}
    for id_, iri in guidelines:
        for one in k.triples.resources(iri, KYPHO + "asksForField"):
            asked.setdefault(one, []).append(id_)
    return asked


def _recorded(
    snapshot: Snapshot, one: RequestField, given: Given, lesions: Sequence[str]
) -> tuple[tuple[str, ...], Origin, str]:
    """The values of a field as the record or the command line has them, with their source."""
    record, procedure = snapshot.record, snapshot.record.procedure
    where = ", ".join(record.files)
    if one.key == "beneficiary.record_id":
        return (record.patient,), Origin.RECORD, where
    if one.key == "service.date":
        date = str(procedure.service_date) if procedure and procedure.service_date else ""
        return ((date,) if date else ()), Origin.RECORD, where
    if one.key == "service.state":
        if given.state:
            return (given.state,), Origin.OPTION, "--state"
        return ((procedure.state,) if procedure and procedure.state else ()), Origin.RECORD, where
    if one.key == "service.payer" and given.payer:
        return (snapshot.knowledge.plain(KYPHO + given.payer),), Origin.OPTION, "--payer"
    values: dict[str, None] = {}
    facts: list[Fact] = []
    for iri in one.filled_from:
        feature = snapshot.knowledge.features[iri]
        for subject in _subjects(feature, lesions):
            state = snapshot.value(subject, iri)
            values.update(dict.fromkeys(_shown(snapshot.knowledge, one, state.value)))
            facts += state.facts
    source = "; ".join(dict.fromkeys(str(f.source) for f in facts))
    return tuple(values), Origin.RECORD, source


def _subjects(feature: Feature, lesions: Sequence[str]) -> Iterator[str]:
    if feature.bearer == LESION_CLASS:
        yield from (LESION + id_ for id_ in lesions)
    else:
        yield "patient" if feature.bearer == PATIENT_CLASS else PROCEDURE


def _shown(k: Knowledge, one: RequestField, value: Value) -> Iterator[str]:
    """A value as the field writes it: a code as the terminology does, anything else in words."""
    if isinstance(value, TimeSpan):
        yield str(value)[:10]
    elif isinstance(value, Range):
        yield value_words(k, value)
    elif isinstance(value, frozenset) and value:
        code = _code(k, next(iter(value))) if one.type == "code" and len(value) == 1 else ""
        yield code or " or ".join(choice_words(k, value))


def _code(k: Knowledge, iri: str) -> str:
    """The code that a value stands for exactly, empty where it stands for none."""
    return next((m.code for m in _mappings(k).of_term(iri) if m.predicate == EXACT), "")


_mappings = functools.lru_cache(maxsize=2)(load_mappings)


# -- codes that fit what is proposed


def _takes_procedure_codes(k: Knowledge, one: RequestField) -> bool:
    t = k.triples
    return any(t.resources(v, KYPHO + "codesTechnique") for f in one.filled_from for v in k.features[f].values)


def _code_notes(snapshot: Snapshot, lesions: Sequence[str]) -> Iterator[str]:
    """The codes that the knowledge base relates to the technique, the level and the number of levels."""
    k, t = snapshot.knowledge, snapshot.knowledge.triples
    techniques = choice_of_procedure(snapshot, "technique")
    if len(techniques) != 1:
        return
    codes = sorted(t.subjects(KYPHO + "codesTechnique", next(iter(techniques))))
    place = k.by_name["vertebralLevel"].iri
    known = (snapshot.value(LESION + id_, place).value for id_ in lesions)
    levels = {next(iter(v)) for v in known if isinstance(v, frozenset) and len(v) == 1}
    regions = {r for level in levels for r in t.resources(level, KYPHO + "inRegion")}
    first = [c for c in codes if regions & set(t.resources(c, KYPHO + "codesRegion"))]
    count = snapshot.value(PROCEDURE, k.by_name["sessionLevelCount"].iri).value
    number = count.exact if isinstance(count, Range) else None
    if first:
        yield f"fits the technique and the level: {' or '.join(_code(k, c) for c in first)} for the first level"
    more = [c for c in codes if t.text(c, KYPHO + "isAddOnCode") == "true"]
    if first and more and number is not None and number > 1:
        yield f"and {' or '.join(_code(k, c) for c in more)} for each further level ({number - 1})"
