"""Tables: CSV, TSV (also gzipped) and Parquet by a declared mapping file, wide or long, to one record per patient.

A cell that cannot be read is rejected with its place, and costs the rest of the row nothing.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kypho_kg import record as r
from kypho_kg.criteria import Op
from kypho_kg.intake_report import IntakeReport
from kypho_kg.knowledge import Knowledge
from kypho_kg.mappings import Mappings, load_mappings
from kypho_kg.sources import table_mapping as tm
from kypho_kg.sources.fact_reader import FactReader, Problems, nearest
from kypho_kg.sources.table_files import Table, open_table
from kypho_kg.sources.table_mapping import folded
from kypho_kg.sources.table_starter import Starter, quoted
from kypho_kg.vocabulary import KYPHO, TYPE, local
from kypho_kg.vocabulary import PATIENT as PATIENT_CLASS
from kypho_kg.vocabulary import PROCEDURE as PROCEDURE_CLASS

_MAX_KNOWN = 10_000
_MAX_REJECTED = 1000  # of one column; a million bad cells say no more, and would not fit
_GUESSES = {"patient": "patient patientid patid pid mrn subjectid personid id", "lesion": "lesion lesionid",
            "level": "level vertebrallevel vertebra", "as_of": "asof asofdate indexdate", "time": "time"}  # fmt: skip
_LONG_GUESSES = {key: key for key in "feature code system value unit polarity mood status cause reason".split()}
_EXTRA = {"polarity": "polarity", "mood": "mood", "status": "verification", "cause": "cause", "reason": "reason"}


def read_table(
    path: Path, mapping: Path, knowledge: Knowledge, report: IntakeReport, codes: Mappings | None = None
) -> Iterator[r.Record]:
    """The patients of a table, in the order of their first rows.

    :param mapping: the file that says which column is what (docs/tables.md).
    :param codes: what codes mean; by default the bundled mappings.
    :raises InputError: when the mapping is wrong, with every problem; or the table cannot be read.
    """
    m = tm.read_mapping(mapping, knowledge)
    table = open_table(path, m, {name for _, name in m.used})
    m.check(table.header, table.file)
    by_codes = (codes or load_mappings(knowledge)) if "code" in m.plain else None
    return _Reader(table, m, knowledge, report, by_codes).records()


class _Person:
    """One patient, while rows are read."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.lesions: dict[str, None] = {}
        self.facts: dict[r.Fact, r.Fact] = {}
        self.proposed = False
        self.once: dict[str, tuple[Any, int]] = {}
        """What a patient has once, with the row that says it; ``None`` where two rows disagree."""


class _Reader:
    def __init__(
        self, table: Table, m: tm.TableMapping, k: Knowledge, report: IntakeReport, codes: Mappings | None
    ) -> None:
        self.table, self.m, self.k, self.report, self.codes = table, m, k, report, codes
        self.place = {name: place for place, name in enumerate(table.header)}
        self.cells: Sequence[str] = ()
        self.dates: dict[tm.Column, r.TimeSpan | None] = {}
        self.known: dict[tuple[Any, ...], list[r.Fact]] = {}
        self.row, self.person, self.lesion, self.rejected = 0, _Person(""), "", Counter[str]()
        self.own = functools.cache(lambda f: tm.Column(feature=k.features[f], missing=m.missing, formats=m.formats))
        regions = k.triples.subjects(TYPE, KYPHO + "SpinalRegion")
        self.regions = {local(s): [local(o) for o in k.triples.subjects(KYPHO + "inRegion", s)] for s in regions}
        self.others = sorted(set(table.header) - {name for _, name in m.used})

    def records(self) -> Iterator[r.Record]:
        """One record per patient."""
        people: dict[str, _Person] = {}
        orders: list[Any] = [str, str.casefold, lambda id_: (len(id_), id_) if id_.isdecimal() else None]
        for row, cells in filter(lambda numbered: any(numbered[1]), self.table.rows):
            self.row, self.cells, self.dates = row, cells, {}
            self.report.saw("row")
            if not (id_ := self._id()):
                continue
            if self.m.sorted and people and id_ not in people:
                [before] = people
                still = [o for o in orders if None not in (o(before), o(id_)) and o(before) < o(id_)]
                if not still:
                    what = "this patient belongs before that of the row above, and may have been read already"
                    self._reject(self.m.plain["patient"].name, what, "rows sorted by patient, or no sorted: true")
                    continue
                orders = still
                yield self._done(people.pop(before))
            self.person = people.setdefault(id_, _Person(id_))
            self._read()
        if not self.report.read["row"]:  # perhaps because the header runs on into all there is
            self.report.left("table", "no row below the first")
        yield from map(self._done, people.values())

    def _id(self) -> str:
        if len(self.cells) != len(self.table.header):
            what = f"the row has {len(self.cells)} cells, the table {len(self.table.header)} columns"
            self._reject("", what, "as many")
            return ""
        for name in self.others:  # names alone: a header that runs on into the first row is as wide as no row
            self.report.left("column", f"{name!r} is not in the mapping")
        self.others = []
        if not (id_ := self._text(column := self.m.plain["patient"])):
            self._reject(column.name, "a row without a patient", "the id of one")
        return id_

    def _done(self, person: _Person) -> r.Record:
        self.report.records += 1
        treated, self.row = person.once.get("lesions", (None, 0))
        if unknown := sorted(set(treated or ()) - set(person.lesions)):
            person.once["lesions"] = None, self.row
            what = f"lesions {', '.join(map(repr, unknown))} of the session are not in the table"
            self._reject(self.m.procedure["lesions"].name, what, f"ids among {', '.join(person.lesions) or '(none)'}")
        said = {key: value for key, (value, _) in person.once.items()}
        proposed = r.Procedure(*map(said.get, ("lesions", "service_date", "state"))) if person.proposed else None
        lesions, facts = tuple(map(r.Lesion, person.lesions)), tuple(person.facts.values())
        by = (self.codes.sha256,) if self.codes else ()
        return r.Record(person.id, lesions, facts, proposed, said.get("as_of"), (self.table.file,), mappings=by)

    def _read(self) -> None:
        """One row of a patient."""
        m, person = self.m, self.person
        said = {key: self._text(column) for key, column in m.plain.items()}
        self.lesion = said.get("lesion", "")
        if self.lesion:
            person.lesions.setdefault(self.lesion)
        for key, column in [("as_of", m.plain.get("as_of")), *m.procedure.items()]:
            if column and (text := self._text(column)):
                person.proposed |= key in m.procedure
                self._once(key, column, text)
        source = {key: self._text(column) for key, column in m.source.items()}
        if source.get("date"):
            source["date"] = str(self._date(m.source["date"]) or "")
        stated = r.Source(f"{self.table.file}:{self.row}", **source)
        self.source = r.Source(stated.origin) if m.long else stated  # a level repeated in each row is one fact
        self.unplaced = replace(self.source, origin="")
        for column in m.columns:
            if text := self._text(column):
                self._state(column, text, column.name or column.fixed, {}, ("column", column.name))
        if not m.long:
            return
        self.source, self.unplaced = stated, replace(stated, origin="")
        extra = {name: said[key] for key, name in _EXTRA.items() if said.get(key)}
        where = m.plain.get("value", m.plain.get("feature", m.plain.get("code", tm.Column()))).name
        if named := said.get("feature"):
            known = [self.own(self.k.by_name[named].iri)] if named in self.k.by_name else []
            for column in (found := m.features.get(named, known)):
                text = self._text(m.plain["value"], column) if "value" in m.plain else ""
                self._state(column, text, where, extra, ("feature", named))
            if not found:
                expected = nearest(named, {**self.k.by_name, **m.features}) or "a feature of the ontology"
                self._reject(m.plain["feature"].name, f"unknown feature {named!r}", expected)
        elif said.get("code"):
            self._code(said["code"], said.get("system", ""), said.get("value", ""), where, extra)
        elif said.get("value") or extra.keys() & {"polarity", "cause"}:
            self._reject(where, "a row without a feature", "its name, or a code")

    def _code(self, code: str, system: str, value: str, where: str, extra: dict[str, str]) -> None:
        """What a code states of the patient, and of the lesion of its row."""
        assert self.codes
        if system and not self.codes.system(system):
            column = self.m.plain["system"]
            return self._reject(column.name, f"unknown system {system!r}", f"one of {', '.join(self.codes.systems)}")
        coded = self.codes.facts(code, self.k, system)
        if not coded:
            self.report.passed("code", f"{system}|{code}".lstrip("|"))
        for item in coded:
            feature, text, more = item.feature, value, extra
            if feature.bearer == PROCEDURE_CLASS or (feature.bearer != PATIENT_CLASS and not self.lesion):
                self.report.left("code", "says something of a lesion or procedure that its row is not tied to")
                continue
            if item.value and value in ("", *r.Polarity):
                text, more = local(item.value), {"polarity": value, **extra} if value else extra
            elif item.value:
                self._reject(where, f"{value!r} beside a code that is a value itself", ", ".join(r.Polarity))
                continue
            elif feature.kind is Op.FINDING and not value and "cause" not in extra:
                more = {"polarity": "present", **extra}
            if item.absent and "cause" not in extra:
                if (said := more.get("polarity") or value) not in ("", *r.Polarity):
                    self._reject(where, f"{value!r} beside a code that rules something out", ", ".join(r.Polarity))
                    continue  # that "no known ..." does not hold leaves it open
                ruled = r.Polarity.ABSENT if said in ("", r.Polarity.PRESENT) else r.Polarity.INDETERMINATE
                text, more = text if item.value else "", {**more, "polarity": str(ruled)}
            self._state(self.own(feature.iri), text, where, more, ("code", f"{system}|{code}".lstrip("|")))
        return None

    def _once(self, key: str, column: tm.Column, text: str) -> None:
        """What is said of the patient or the procedure once."""
        value: Any = text
        if key == "lesions":
            value = tuple(dict.fromkeys(t.strip() for t in text.split("|")))
        elif key == "state" and not r.is_postal_code(text):
            return self._reject(column.name, f"state {text!r} is no postal code", "two capitals such as OH")
        elif key != "state":
            if (value := self._date(column)) is None:
                return None
            if key == "as_of" and value.start.date() != value.end.date():
                return self._reject(column.name, f"as_of {text!r} is no full date", "YYYY-MM-DD")
            value = value.start.date() if key == "as_of" else value
        before, row = self.person.once.setdefault(key, (value, self.row))
        if before != value:
            self.person.once[key] = None, row
            expected = "all lesions of the session in each row, such as a|b" if key == "lesions" else "one per patient"
            self._reject(column.name, f"{key} is {text!r}, and not so in row {row}; neither counts", expected)
        return None

    def _state(self, column: tm.Column, text: str, where: str, extra: dict[str, str], kind: tuple[str, str]) -> None:
        """The facts of one cell, read as they would be in a patient file, once all that is said of it can be read."""
        feature, more, time = column.feature, dict(extra), None
        assert feature
        polarity, cause = more.pop("polarity", "") or str(column.polarity or ""), more.pop("cause", "")
        if not (text or polarity or cause):
            return self.report.left("row", "neither a value nor a polarity")
        dated = column.time or self.m.plain.get("time")
        if dated and self._text(dated) and (time := self._date(dated)) is None:
            return None  # what it dates would count as current
        unit = column.unit or self.m.plain.get("unit")
        if unit and feature.kind is Op.QUANTITY and self._text(unit):
            more["unit"] = self._text(unit)
        text = "" if column.polarity and feature.kind is Op.FINDING else text
        tied = r.LESION + self.lesion if self.lesion else r.PATIENT
        subject = {PATIENT_CLASS: r.PATIENT, PROCEDURE_CLASS: r.PROCEDURE}.get(feature.bearer, tied)
        key = (column, text, polarity, cause, *more.items())
        if (facts := self.known.get(key)) is None:
            problems = Problems()
            try:
                said = tm.worded(text, column, self.m, self.regions, polarity, cause)
            except ValueError as error:
                return self._reject(where, f"{feature.name}: {error}")
            node = tm.located([{**more, **entries} for entries in said], self.table.file, self.row, where)
            facts = FactReader(self.k, problems).facts(node, feature, "")
            for problem in problems.found:
                self._reject(where, problem.what, problem.expected)
            if not problems.found and len(self.known) < _MAX_KNOWN:
                self.known[key] = facts
        for fact in facts:
            fact = replace(fact, subject=subject, time=time or fact.time, source=self.source)
            self.person.facts.setdefault(replace(fact, source=self.unplaced), fact)
            self.person.proposed |= subject == r.PROCEDURE
            self.report.took(*kind, feature.name)
        return None

    def _text(self, column: tm.Column, feature: tm.Column | None = None) -> str:
        """The text of a cell as the mapping reads it; empty where nothing is recorded."""
        if not column.name:
            return column.fixed
        cell = self.cells[self.place[column.name]]
        text = cell if isinstance(cell, tm.IsoDate) else cell.strip()
        if not text or text in (feature or column).says:
            return text
        if text in column.texts:
            return column.texts[text]
        return "" if text in column.missing or (feature and text in feature.missing) else text

    def _date(self, column: tm.Column) -> r.TimeSpan | None:
        if column not in self.dates:  # what cannot be read is rejected once
            try:
                self.dates[column] = tm.read_date(self._text(column), column.formats)
            except ValueError as error:
                self._reject(column.name, str(error))
                self.dates[column] = None
        return self.dates[column]

    def _reject(self, column: str, what: str, expected: str = "") -> None:
        self.rejected[column] += 1
        if self.rejected[column] > _MAX_REJECTED:
            return self.report.left("cell", f"rejected in column {column!r}, beyond {_MAX_REJECTED:,} that are listed")
        where = f"{self.table.file}:{self.row}" + (f", {column}" if column else "")
        return self.report.reject(where, what, expected)


def starter_mapping(path: Path, knowledge: Knowledge) -> str:
    """The text of a mapping file for a table: what its names make certain, and the rest as comments to fill in.

    :raises InputError: when the table cannot be read.
    """
    table = open_table(path, tm.TableMapping())
    columns = {
        name: dict[str, None]() for name in table.header if 0 < len(name) <= 200 and table.header.count(name) == 1
    }
    for _, cells in itertools.islice(table.rows, 20_000):
        for name, cell in zip(table.header, cells, strict=False):
            if name in columns and cell.strip():
                columns[name].setdefault(cell.strip()[:200])
    free = {folded(name): name for name in columns}
    long = "value" in free and bool({"feature", "code"} & set(free))
    lines = [
        f"# Of {quoted(table.file)}: what its names make certain. Fill in the rest, and remove its #.",
        f"format: kypho-table/1\nshape: {'long' if long else 'wide'}\ndelimiter: {quoted(table.delimiter)}",
        '# decimal: ","\n# ranges: true\n# date_format: "%d.%m.%Y"\n# missing: ["NA"]',
    ]
    guesses = _GUESSES | (_LONG_GUESSES if long else {})
    found = {key: [free[name] for name in names.split() if name in free] for key, names in guesses.items()}
    taken = {key: names[0] for key, names in found.items() if names}
    taken.setdefault("patient", next(iter(columns), ""))
    lines += [f"{key}: {quoted(taken[key])}" if key in taken else f"# {key}: " for key in guesses]
    lines.append("features:" if long else "columns:")
    starter = Starter(knowledge)
    for name in columns.get(taken.get("feature", ""), ()) if long else columns:
        if name not in (knowledge.by_name if long else taken.values()):
            lines += starter.entry(name, [] if long else list(columns[name])[:8])
    return "\n".join(lines) + "\n"
