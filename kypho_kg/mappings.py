"""Mappings between terms of the ontology and the codes of terminologies, read from SSSOM files.

A mapping says how a code (the object) stands to a term of ours (the subject). Only an exact match and a narrow match
(the code is narrower than the term) let a record with the code fall under the term: :meth:`Mappings.codes` and
:meth:`Mappings.facts` give these alone. The other predicates serve search, and a row with the modifier ``Not``
withdraws what it names. One code may have several rows: it then states several facts. A row that says ``absent`` in
``ext_polarity`` rules its term out: "no known X" is related to X, and no kind of it.

The terms of the ontology are codes too, of the terminology :data:`OWN`: the code is the local name of a term that a
record can state, as it is written, and means that term. There is no row for them.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import MappingProxyType
from typing import Final

from kypho_kg._resources import resource_dir
from kypho_kg.criteria import Op
from kypho_kg.errors import InputError, KnowledgeBaseError, Problem
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.record import Polarity
from kypho_kg.rollups import RollUp, RollUps, folded, is_rollup, read_rollups, table_lines
from kypho_kg.store import Literal, Triple
from kypho_kg.terminologies import System, local_system, plain_name, read_systems
from kypho_kg.vocabulary import KYPHO, SKOS, TYPE

GRAPH: Final = "https://w3id.org/kypho/mappings"
"""The named graph of the mappings."""

EXACT: Final = "skos:exactMatch"
NARROW: Final = "skos:narrowMatch"
OWN: Final = "kypho"
"""The prefix of the terminology whose codes are the terms of the ontology themselves."""
ASSIGNING: Final = (EXACT, NARROW)
PREDICATES: Final = (*ASSIGNING, "skos:closeMatch", "skos:broadMatch", "skos:relatedMatch")

_REQUIRED = ("subject_id", "predicate_id", "object_id", "mapping_justification")
_HEADER = ("mapping_set_id", "license")
_RULES_OUT: Final = "skos:relatedMatch"
"""The predicate of a row that rules its term out: whoever does not know ``ext_polarity`` is told nothing wrong."""
_EXPECTED: Final = "a SSSOM table, or a roll-up table with the columns system, code and ingredient"
ANSWERS: Final[Mapping[str, Polarity]] = {f"{KYPHO}{p.capitalize()}Polarity": p for p in Polarity}
"""Terms whose codes answer a question, whatever was asked."""


@dataclass(frozen=True, slots=True)
class TermMapping:
    """One row of a SSSOM file."""

    subject: str
    """IRI of our term."""
    predicate: str
    """CURIE of the SKOS predicate."""
    negated: bool
    prefix: str
    """CURIE prefix of the terminology."""
    code: str
    label: str = ""
    """The terminology's label of the code; empty where its licence asks for that."""
    confidence: Decimal | None = None
    comment: str = ""
    evidence: str = ""
    source: str = ""
    """File and line."""
    absent: bool = False
    """Whether a record with the code rules the term out."""

    @property
    def assigns(self) -> bool:
        """Whether a record with the code falls under the term."""
        return self.predicate in ASSIGNING and not self.negated

    @property
    def curie(self) -> str:
        """The code with its prefix."""
        return f"{self.prefix}:{self.code}"


@dataclass(frozen=True, slots=True)
class CodedFact:
    """What a code says in terms of features: that a finding is there or not, or which value a feature has."""

    feature: Feature
    value: str | None
    """IRI of the value of a category or choice; ``None`` for a finding, and for a quantity, whose value the record
    gives."""
    mapping: TermMapping
    absent: bool = False
    """Whether the code rules the finding or the value out."""
    ingredient: str = ""
    """CURIE of the ingredient through which the code of a product states this; empty for a code of its own."""


class Mappings:
    """Lookups over the rows of one or more SSSOM and roll-up files. Made by :func:`load_mappings`."""

    def __init__(
        self,
        rows: Iterable[TermMapping],
        systems: Iterable[System],
        sha256: str = "",
        rollups: Iterable[RollUp] = (),
    ) -> None:
        self.rows = tuple(rows)
        self.systems: Mapping[str, System] = MappingProxyType({s.prefix: s for s in systems})
        self.sha256 = sha256
        self.rollups = RollUps(rollups)
        self._names = {name: s.prefix for s in self.systems.values() for name in s.names}
        self._withdrawn = {(r.subject, r.predicate, r.prefix, r.code) for r in self.rows if r.negated}
        self._by_code: dict[str, list[TermMapping]] = defaultdict(list)
        self._by_term: dict[str, list[TermMapping]] = defaultdict(list)
        for row in self.rows:
            self._by_code[folded(row.code)].append(row)
            self._by_term[row.subject].append(row)

    def system(self, name: str) -> System | None:
        """The terminology of a CURIE prefix, a FHIR system URI, an OID, an OMOP vocabulary id or another known name."""
        prefix = self._names.get(plain_name(name))
        return self.systems[prefix] if prefix else None

    def search(self, code: str, system: str = "") -> tuple[TermMapping, ...]:
        """All rows of a code, whatever their predicate; rows with ``Not`` too.

        :param code: bare, as a CURIE, or as ``system|code``; case and dots do not matter.
        :param system: any name of a terminology; empty for any terminology. An unknown one has no rows.
        """
        code, prefix = self._place(code, system)
        own = self._rows(code, prefix)
        denied = {r.subject for r in own if r.negated and r.predicate in ASSIGNING}
        through = (r for end, part in self._parts(code, prefix) for r in self._rows(part, end))
        return (*own, *(r for r in through if r.subject not in denied))

    def codes(self, code: str, system: str = "") -> tuple[TermMapping, ...]:
        """The rows by which a record with the code falls under a term: exact and narrow, and not withdrawn."""
        return tuple(r for r in self.search(code, system) if self._holds(r) and r.assigns)

    def answer(self, code: str, system: str) -> Polarity | None:
        """What a code answers to any question: yes, no or unclear; none where it is no such code, or several."""
        own = self._own(*self._place(code, system))
        said = {ANSWERS[r.subject] for r in (*own, *self.codes(code, system)) if r.subject in ANSWERS}
        return said.pop() if len(said) == 1 else None

    def _place(self, code: str, system: str) -> tuple[str, str | None]:
        """A code as it was typed, bare and with the prefix of its terminology: empty for any, none for an unknown."""
        for separator in ("|", ":"):
            before, found, after = code.rpartition(separator)
            if found and self.system(before):
                system, code = system or before, after
        known = self.system(system) if system else None
        return code, known.prefix if known else None if system else ""

    def _rows(self, code: str, prefix: str | None) -> tuple[TermMapping, ...]:
        return tuple(r for r in self._by_code.get(folded(code), ()) if prefix in ("", r.prefix))

    @staticmethod
    def _own(code: str, prefix: str | None) -> tuple[TermMapping, ...]:
        """What a code of our own means: the term of that name, whether or not there is one."""
        return (TermMapping(KYPHO + code, EXACT, False, OWN, code),) if prefix == OWN else ()

    def _parts(self, code: str, prefix: str | None) -> tuple[tuple[str, str], ...]:
        return () if prefix is None else self.rollups.ingredients(code, prefix)

    def of_term(self, iri: str) -> tuple[TermMapping, ...]:
        """The rows of a term that are not withdrawn."""
        return tuple(r for r in self._by_term.get(iri, ()) if self._holds(r))

    def facts(self, code: str, knowledge: Knowledge, system: str = "") -> tuple[CodedFact, ...]:
        """What a record with the code states, one entry per feature and value.

        A term that no record can state (a structure, a derived type) gives no fact. A fact of a lesion or a procedure
        holds for the one that the record ties the code to, and for none where it ties it to none.
        """
        owners = value_owners(knowledge)
        own, prefix = self._place(code, system)
        found: dict[tuple[str, str | None, bool], CodedFact] = {}
        for row in (*self._own(own, prefix), *self.search(code, system)):
            if not self._holds(row) or not (row.assigns or row.absent):
                continue
            feature = knowledge.features.get(row.subject)
            pairs = [(feature, None)] if feature else [(f, row.subject) for f in owners.get(row.subject, ())]
            part = "" if folded(row.code) == folded(own) else row.curie
            for owner, value in pairs:
                found.setdefault((owner.iri, value, row.absent), CodedFact(owner, value, row, row.absent, part))
        return tuple(found.values())

    def triples(self) -> Iterator[Triple]:
        """The positive rows as SKOS, with the notation, label and terminology of each code."""
        described = set()
        for row in self.rows:
            if not self._holds(row):
                continue
            system = self.systems[row.prefix]
            iri = system.iri_stem + row.code
            yield row.subject, SKOS + row.predicate.partition(":")[2], iri
            if iri not in described:
                described.add(iri)
                yield iri, SKOS + "notation", Literal(row.code)
                if system.fhir_system:
                    yield iri, SKOS + "inScheme", system.fhir_system
                if row.label:
                    yield iri, SKOS + "prefLabel", Literal(row.label)

    def _holds(self, row: TermMapping) -> bool:
        return not row.negated and (row.subject, row.predicate, row.prefix, row.code) not in self._withdrawn


@functools.lru_cache(maxsize=4)
def value_owners(knowledge: Knowledge) -> Mapping[str, tuple[Feature, ...]]:
    """The category and choice features that have a term as a value."""
    owners: dict[str, list[Feature]] = defaultdict(list)
    for feature in knowledge.features.values():
        if feature.kind in (Op.CATEGORY, Op.CHOICE):
            for value in feature.values:
                owners[value].append(feature)
    return {value: tuple(sorted(fs, key=lambda f: f.iri)) for value, fs in owners.items()}


def read_sssom(path: Path, declared: Knowledge, known: Sequence[System] = ()) -> tuple[list[TermMapping], list[System]]:
    """The rows of one SSSOM file, and the terminologies that its header adds to the known ones.

    :param declared: the knowledge base that must declare every subject.
    :raises InputError: with every problem: file, line, column and value.
    """
    lines = table_lines(path, "a SSSOM table in UTF-8")
    start = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    header, prefixes = _header([line[1:] for line in lines[:start]])
    lacking = [key for key in _HEADER if key not in header]
    problems = [Problem(f"{path.name}:1", f"the header has no {key}", _EXPECTED) for key in lacking]
    reader = csv.DictReader(lines[start:], delimiter="\t", quoting=csv.QUOTE_NONE)
    columns = reader.fieldnames or ()
    problems += [Problem(f"{path.name}:{start + 1}", f"missing column {c}") for c in _REQUIRED if c not in columns]
    if problems:
        raise InputError(problems)
    stems = {s.prefix: s.iri_stem for s in known}
    for prefix, stem in prefixes.items():
        if stems.setdefault(prefix, stem) != stem:
            what = f"curie_map {prefix}: {stem!r} is not what it is elsewhere"
            problems.append(Problem(f"{path.name}:1", what, repr(stems[prefix])))
    is_term = functools.cache(lambda iri: bool(declared.triples.objects(iri, TYPE)))
    rows, file = [], path.name
    for number, cells in enumerate(reader, start=start + 2):
        wrong = list(_row_problems(cells, f"{file}:{number}", prefixes, is_term))
        problems += wrong
        if not wrong:
            rows.append(_row(cells, f"{file}:{number}", prefixes))
    renamed, added = _own_systems({r.prefix for r in rows}, prefixes, known)
    for prefix, system in renamed.items():
        if plain_name(prefix) in system.names and plain_name(prefixes[prefix]) not in {*system.names, system.stem}:
            what = f"curie_map {prefix}: {prefixes[prefix]!r} is not what it is elsewhere"
            problems.append(Problem(f"{path.name}:1", what, repr(system.iri_stem)))
    if problems:
        raise InputError(problems)
    return [replace(r, prefix=renamed[r.prefix].prefix) if r.prefix in renamed else r for r in rows], added


def _own_systems(
    used: Iterable[str], prefixes: Mapping[str, str], known: Sequence[System]
) -> tuple[dict[str, System], list[System]]:
    """Of the prefixes of a file: those that are other names of known terminologies, and new terminologies."""
    by_name = {name: s for s in known for name in (*s.names, s.stem) if name}
    new = sorted(set(used) - {s.prefix for s in known})
    found = {p: by_name.get(plain_name(prefixes[p])) or by_name.get(plain_name(p)) for p in new}
    return {p: s for p, s in found.items() if s}, [local_system(p, prefixes[p]) for p in new if not found[p]]


_decimal = functools.lru_cache(maxsize=64)(Decimal)


def _header(lines: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The scalars of a YAML header and its ``curie_map``; a SSSOM file needs no more of YAML to be read."""
    scalars: dict[str, str] = {}
    prefixes: dict[str, str] = {}
    section = ""
    for line in lines:
        key, found, value = line.strip().partition(":")
        if not found:
            continue
        value = value.strip().strip("\"'")
        if not line.startswith((" ", "\t")):
            section = key
            scalars[key] = value
        elif section == "curie_map":
            prefixes[key.strip("\"'")] = value
    return scalars, prefixes


def _row_problems(
    cells: Mapping[str, str | None], where: str, prefixes: Mapping[str, str], is_term: Callable[[str], bool]
) -> Iterator[Problem]:
    if None in cells or None in cells.values():
        yield Problem(where, "the row has more or fewer cells than the table has columns")
        return
    for column in ("subject_id", "object_id"):
        prefix, found, name = (cells[column] or "").partition(":")
        if not found or not name or prefix not in prefixes:
            expected = "prefix:name with a prefix of the curie_map"
            yield Problem(f"{where}, {column}", repr(cells[column]), expected)
        elif column == "subject_id" and not is_term(prefixes[prefix] + name):
            yield Problem(f"{where}, {column}", f"{cells[column]!r} is no term of the ontology")
        elif column == "object_id" and prefixes[prefix] == KYPHO:
            yield Problem(f"{where}, {column}", f"{cells[column]!r} means itself", "a code of another terminology")
    if cells["predicate_id"] not in PREDICATES:
        yield Problem(f"{where}, predicate_id", repr(cells["predicate_id"]), ", ".join(PREDICATES))
    if cells.get("predicate_modifier") not in (None, "", "Not"):
        yield Problem(f"{where}, predicate_modifier", repr(cells["predicate_modifier"]), "Not, or nothing")
    if (polarity := cells.get("ext_polarity")) not in (None, "", "absent"):
        yield Problem(f"{where}, ext_polarity", repr(polarity), "absent, or nothing")
    elif polarity == "absent" and (cells["predicate_id"] != _RULES_OUT or cells.get("predicate_modifier")):
        yield Problem(f"{where}, ext_polarity", f"absent beside {cells['predicate_id']}", f"{_RULES_OUT} without Not")
    if not cells["mapping_justification"]:
        yield Problem(
            f"{where}, mapping_justification", "empty", "a justification such as semapv:ManualMappingCuration"
        )
    if cells.get("confidence"):
        try:
            sure = 0 <= _decimal(cells["confidence"] or "") <= 1
        except InvalidOperation:  # also of a comparison with NaN
            sure = False
        if not sure:
            yield Problem(f"{where}, confidence", repr(cells["confidence"]), "a number from 0 to 1")


def _row(cells: Mapping[str, str], where: str, prefixes: Mapping[str, str]) -> TermMapping:
    subject, _, name = cells["subject_id"].partition(":")
    prefix, _, code = cells["object_id"].partition(":")
    sure = cells.get("confidence")
    return TermMapping(
        subject=prefixes[subject] + name,
        predicate=cells["predicate_id"],
        negated=cells.get("predicate_modifier") == "Not",
        prefix=prefix,
        code=code,
        label=cells.get("object_label") or "",
        confidence=_decimal(sure) if sure else None,
        comment=cells.get("comment") or "",
        evidence=cells.get("ext_evidence") or "",
        source=where,
        absent=cells.get("ext_polarity") == "absent",
    )


def read_mappings(root: Path, knowledge: Knowledge, extra: Iterable[Path] = ()) -> Mappings:
    """The SSSOM and roll-up files of a folder, and further files of the user, of either kind.

    :param root: folder with ``systems.tsv``, ``*.sssom.tsv`` and ``*.rollup.tsv``.
    :raises KnowledgeBaseError: when a file of the folder is wrong; every problem is listed.
    :raises InputError: when a further file is wrong.
    """
    table = root / "systems.tsv"
    systems = list(read_systems(table))
    rows: list[TermMapping] = []
    rollups: list[RollUp] = []
    problems: list[str] = []
    files = sorted((*root.glob("*.sssom.tsv"), *root.glob("*.rollup.tsv")))
    digest = hashlib.sha256()
    for path in (table, *files, *extra):
        try:
            if path == table:
                pass
            elif is_rollup(table_lines(path, _EXPECTED)):
                parts, added = read_rollups(path, systems)
                rollups += parts
                systems += added
            else:
                more, added = read_sssom(path, knowledge, systems)
                rows += more
                systems += added
        except InputError as error:
            if path not in files:
                raise
            problems += map(str, error.problems)
        else:
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    if problems:
        raise KnowledgeBaseError(problems)
    return Mappings(rows, systems, digest.hexdigest(), rollups)


def load_mappings(knowledge: Knowledge, extra: Iterable[Path] = ()) -> Mappings:
    """The bundled mappings, and further files of the user: SSSOM, or roll-ups of products to ingredients.

    :raises KnowledgeBaseError: when a bundled file is wrong.
    :raises InputError: when a file of the user is wrong, or neither.
    """
    return read_mappings(resource_dir("ontology") / "mappings", knowledge, extra)
