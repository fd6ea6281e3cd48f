"""Patient files: ``kypho-patient/1`` in YAML 1.2 or JSON (docs/patient-file.md, schemas/patient.schema.json).

Feature names are the ontology's local names, and the kind of a value follows from the ontology.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

from kypho_kg.errors import InputError, Problem
from kypho_kg.knowledge import Knowledge
from kypho_kg.record import (
    LESION,
    PATIENT,
    PROCEDURE,
    Fact,
    Lesion,
    Procedure,
    Record,
    Source,
    TimeSpan,
    is_postal_code,
)
from kypho_kg.sources.fact_reader import FactReader, Problems
from kypho_kg.sources.yaml_tree import Node, read_tree
from kypho_kg.vocabulary import KYPHO, local
from kypho_kg.vocabulary import LESION as LESION_CLASS
from kypho_kg.vocabulary import PATIENT as PATIENT_CLASS
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS

FORMAT = "kypho-patient/1"
_TOP = ("format", "patient", "as_of", "constructed", "citation", "url", "notes", "facts", "lesions", "procedure",
        "author", "reason")  # fmt: skip
_PATIENT = {"age": "age", "birth_date": "birthDate", "sex": "sex"}
PROCEDURE_FEATURES = {"technique": "technique", "setting": "placeOfService", "payer": "payer", "cement": "cementType",
                      "levels": "sessionLevelCount"}  # fmt: skip
"""Keys of the procedure in a patient file, with the features that they state."""


def read_patient_file(path: Path, knowledge: Knowledge) -> Record:
    """Read one patient file.

    :raises InputError: with every problem found, each with file, line, field, value and what would be right.
    """
    return _Reader(path, knowledge).read()


def read_overlay(path: Path, knowledge: Knowledge) -> Record:
    """Read a file for ``--with``: a patient file with ``author`` and ``reason``.

    :raises InputError: as :func:`read_patient_file`, and when author or reason is missing.
    """
    return _Reader(path, knowledge, overlay=True).read()


class _Reader:
    def __init__(self, path: Path, knowledge: Knowledge, *, overlay: bool = False) -> None:
        self.k = knowledge
        self.path = path
        self.overlay = overlay
        self.problems = Problems()

    def read(self) -> Record:
        root = read_tree(self.path)
        top = self.problems.mapping(root, _TOP)
        if top is None:
            raise InputError(self.problems.found)
        form = top.get("format")
        if form is None or form.value != FORMAT:
            self.problems.add(form or root, f"format is {form.shown if form else 'missing'}", f"format: {FORMAT}")
            raise InputError(self.problems.found)
        author, reason = (self._text(top, n) for n in ("author", "reason"))
        if self.overlay and not (author and reason):
            self.problems.add(root, "a file for --with needs author and reason", "who changed the facts, and why")
        reader = FactReader(self.k, self.problems, author=author, reason=reason, blanks=self.overlay)
        facts: list[Fact] = []
        person = self.problems.mapping(top.get("patient"), ("id", *_PATIENT)) or {}
        identity = self._text(person, "id")
        if not identity and not self.overlay and not self.problems.found:
            self.problems.add(top.get("patient") or root, "the patient has no id", "patient: {id: ...}")
        for key, name in _PATIENT.items():
            if key in person:
                facts += reader.facts(person[key], self.k.by_name[name], PATIENT)
        if "facts" in top:
            facts += reader.block(top["facts"], PATIENT, (PATIENT_CLASS, LESION_CLASS))
        lesions = self._lesions(top.get("lesions"), reader, facts)
        procedure = self._procedure(top.get("procedure"), reader, facts, lesions)
        constructed, citation = self._yes(top.get("constructed")), self._text(top, "citation")
        notes = [self.problems.text(n, "a note") for n in self.problems.sequence(top.get("notes"))]
        if url := self._text(top, "url"):
            citation = f"{citation} {url}".strip()
        as_of = self._as_of(top.get("as_of"))
        if self.overlay and "as_of" in top:
            self.problems.add(top["as_of"], "as_of in a file for --with", "--as-of")
        self._check_birth(person.get("birth_date"), as_of)
        if self.problems.found:
            raise InputError(self.problems.found)
        return Record(
            patient=identity,
            lesions=tuple(lesions),
            facts=tuple(facts),
            procedure=procedure,
            as_of=as_of,
            files=(self.path.name,),
            constructed=constructed,
            citation=citation,
            notes=tuple(notes),
        )

    def _yes(self, node: Node | None) -> bool:
        if node is not None and node.value not in ("true", "false"):
            self.problems.add(node, f"constructed is {node.shown}", "true or false")
        return node is not None and node.value == "true"

    def _text(self, entries: Mapping[str, Node], key: str) -> str:
        node = entries.get(key)
        if node is None or node.value is None:
            return ""
        if not isinstance(node.value, str):
            self.problems.add(node, f"{key} is {node.shown}", "a text")
            return ""
        return node.value

    def _as_of(self, node: Node | None) -> date | None:
        span = self.problems.time(node)
        if span is None or node is None:
            return None
        if span.start.date() != span.end.date():
            self.problems.add(node, f"as_of {node.shown} is no full date", "YYYY-MM-DD")
        return span.start.date()

    def _check_birth(self, node: Node | None, as_of: date | None) -> None:
        if node is None or as_of is None or not isinstance(node.value, str):
            return
        try:
            born = TimeSpan.parse(node.value)
        except ValueError:
            return
        if born.start.date() > as_of:
            self.problems.add(node, f"birth_date {node.shown} lies after as_of {as_of}", "an earlier date")

    def _lesions(self, node: Node | None, reader: FactReader, facts: list[Fact]) -> list[Lesion]:
        lesions: list[Lesion] = []
        for item in self.problems.sequence(node):
            entries = self.problems.mapping(item, ("id", "level", "facts"))
            if entries is None:
                continue
            before = len(self.problems.found)
            id_ = self._text(entries, "id")
            if len(self.problems.found) > before:
                continue
            if not id_:
                self.problems.add(item, "a lesion without id", "id: a short name, unique in the file")
                continue
            if any(lesion.id == id_ for lesion in lesions):
                self.problems.add(entries["id"], f"lesion id {id_!r} stands twice", "one id for each lesion")
                continue
            lesions.append(Lesion(id_))
            if "level" in entries and not (self.overlay and entries["level"].value is None):
                facts += self._level(entries["level"], reader, LESION + id_)
            if "facts" in entries:
                facts += reader.block(entries["facts"], LESION + id_, (LESION_CLASS,))
        return lesions

    def _level(self, node: Node, reader: FactReader, subject: str) -> list[Fact]:
        """One level, a list of which one holds, or a region."""
        feature = self.k.by_name["vertebralLevel"]
        names = [n for n in node.value if isinstance(n, Node)] if isinstance(node.value, list) else [node]
        chosen: set[str] = set()
        if not names:
            self.problems.add(
                node, "level is a list without a level", "one level, a list of which one holds, or a region"
            )
        regions = {local(r): r for r in self.k.triples.subjects(_TYPE, KYPHO + "SpinalRegion")}
        for item in names:
            text = str(item.value)
            if text in regions:
                chosen.update(self.k.triples.subjects(KYPHO + "inRegion", regions[text]))
            elif KYPHO + text in feature.values:
                chosen.add(KYPHO + text)
            else:
                order = sorted(feature.values, key=self.k.level_order)
                first, last = local(order[0]), local(order[-1])
                self.problems.add(
                    item,
                    f"level {item.shown} is no vertebral level",
                    f"{first} to {last}, or one of {', '.join(sorted(regions))}",
                )
        return [reader.make(node, feature, subject, frozenset(chosen))] if chosen else []

    def _procedure(
        self, node: Node | None, reader: FactReader, facts: list[Fact], lesions: Iterable[Lesion]
    ) -> Procedure | None:
        if node is None:
            return None
        entries = self.problems.mapping(node, (*PROCEDURE_FEATURES, "lesions", "service_date", "state", "facts"))
        if entries is None:
            return None
        for key, name in PROCEDURE_FEATURES.items():
            if key in entries:
                facts += reader.facts(entries[key], self.k.by_name[name], PROCEDURE)
        if "facts" in entries:
            facts += reader.block(entries["facts"], PROCEDURE, (PROCEDURE_CLASS,))
        treated: tuple[str, ...] | None = None
        if "lesions" in entries:
            known = {lesion.id for lesion in lesions}
            listed = self.problems.sequence(entries["lesions"])
            treated = tuple(dict.fromkeys(str(n.value) for n in listed))
            for item in listed:
                if str(item.value) not in known and not self.overlay:
                    expected = f"one of {', '.join(sorted(known)) or '(no lesion in the file)'}"
                    self.problems.add(item, f"lesion {item.shown} is not in the file", expected)
        state = self._text(entries, "state")
        if state and not is_postal_code(state):
            self.problems.add(entries["state"], f"state {state!r} is no postal code", "two capitals such as OH")
        return Procedure(treated, self.problems.time(entries.get("service_date")), state or None)


_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"


def merge(records: Iterable[Record]) -> list[Record]:
    """Records of the same patient become one; the order of patients is kept.

    :raises InputError: when two files of a patient disagree on the as-of date or the procedure.
    """
    merged: dict[str, Record] = {}
    for record in records:
        known = merged.get(record.patient)
        merged[record.patient] = record if known is None else _merged(known, record)
    return list(merged.values())


def _merged(a: Record, b: Record) -> Record:
    where = f"{a.place} and {b.place}, of one patient"
    if a.as_of and b.as_of and a.as_of != b.as_of:
        raise InputError(Problem(where, f"as_of is {a.as_of} and {b.as_of}", "one date; or override it with --as-of"))
    if a.procedure and b.procedure and a.procedure != b.procedure:
        raise InputError(Problem(where, "each file proposes another procedure", "one proposed procedure"))
    known = {lesion.id for lesion in a.lesions}
    return replace(
        a,
        lesions=a.lesions + tuple(lesion for lesion in b.lesions if lesion.id not in known),
        facts=a.facts + b.facts,
        procedure=a.procedure or b.procedure,
        as_of=a.as_of or b.as_of,
        files=a.files + b.files,
        constructed=a.constructed or b.constructed,
        citation="; ".join(dict.fromkeys(filter(None, (a.citation, b.citation)))),
        notes=a.notes + b.notes,
        mappings=tuple(sorted({*a.mappings, *b.mappings})),
    )


def overlay(record: Record, over: Record) -> Record:
    """A record with the facts of an overlay; what they replace stays in the record, marked as overridden."""
    replaced = {(f.subject, f.feature) for f in over.facts}
    source = next((f.source for f in over.facts), Source(", ".join(over.files)))
    kept = tuple(replace(f, overridden_by=source) if (f.subject, f.feature) in replaced else f for f in record.facts)
    known = {lesion.id for lesion in record.lesions}
    procedure = record.procedure
    if over.procedure:
        old = record.procedure or Procedure()
        procedure = Procedure(
            over.procedure.lesions or old.lesions,
            over.procedure.service_date or old.service_date,
            over.procedure.state or old.state,
        )
    return replace(
        record,
        lesions=record.lesions + tuple(lesion for lesion in over.lesions if lesion.id not in known),
        facts=kept + over.facts,
        procedure=procedure,
        files=record.files + over.files,
    )
