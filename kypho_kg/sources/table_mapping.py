"""Mapping files of tables: ``kypho-table/1`` in YAML or JSON (docs/tables.md, schemas/mapping.schema.json).

A mapping file says which column of a table is what, and what the texts in it mean. A meaning is written as in a patient
file and read by the same reader, so that both have the same forms and the same messages.
"""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from kypho_kg.criteria import Op
from kypho_kg.errors import InputError
from kypho_kg.knowledge import Feature, Knowledge
from kypho_kg.record import Cause, Mood, Polarity, Status, TimeSpan
from kypho_kg.sources.fact_reader import FactReader, Problems, nearest
from kypho_kg.sources.patient_file import PROCEDURE_FEATURES
from kypho_kg.sources.yaml_tree import Node, read_tree

FORMAT = "kypho-table/1"
LEVEL = "vertebralLevel"
PROCEDURE_KEYS = (*PROCEDURE_FEATURES, "state", "service_date", "lesions")
SOURCE_KEYS = ("document", "date", "author", "quote")
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
ISO = "iso"
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_BOUND = re.compile(rf"(<=|>=|[<>≤≥])\s*({_NUMBER})", re.ASCII)
_BOUNDS = {"<": "below", "<=": "max", "≤": "max", ">": "above", ">=": "min", "≥": "min"}
_RANGE = re.compile(rf"({_NUMBER})\s*(?:-|–|\.\.|to)\s*({_NUMBER})", re.ASCII)  # noqa: RUF001 - as people write it
MEMBERS: Mapping[str, tuple[StrEnum, ...]] = {
    **{"polarity": tuple(Polarity), "mood": tuple(Mood), "status": tuple(Status)},
    "cause": (Cause.NOT_ASSESSABLE, Cause.PENDING, Cause.INDETERMINATE, Cause.IN_WORDS_ONLY),
}
_PLAIN = ("patient", "lesion", "as_of", "time")
_LONG = ("feature", "code", "system", "value", "unit", "reason")
_COMMON = ("format", "shape", "delimiter", "encoding", "decimal", "ranges", "sorted", "date_format", "missing", *_PLAIN,
           "level", "source", "procedure")  # fmt: skip
_KEYS = {"wide": (*_COMMON, "columns"), "long": (*_COMMON, *_LONG, *MEMBERS, "features")}
_OF_A_COLUMN = ("column", "fixed", "values", "missing", "date_format")
_OF_A_FEATURE = ("values", "missing", "date_format", "unit", "time", "polarity")


class IsoDate(str):
    """The text of a cell that its table stores as a date, whatever format the mapping declares for texts."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """What a mapping says of one column, or a text that stands for every row."""

    name: str = ""
    fixed: str = ""
    texts: Mapping[str, str] = field(default_factory=dict)
    """What a text of the file is read as."""
    missing: frozenset[str] = frozenset()
    formats: tuple[str, ...] = ()
    feature: Feature | None = None
    says: Mapping[str, Node] = field(default_factory=dict)
    """What a text of the file states, as in a patient file."""
    unit: Column | None = None
    time: Column | None = None
    polarity: Polarity | None = None


@dataclass(slots=True)
class TableMapping:
    """One mapping file."""

    long: bool = False
    delimiter: str = ""
    encoding: str = "utf-8-sig"
    decimal: str = "."
    ranges: bool = False
    sorted: bool = False
    missing: frozenset[str] = frozenset()
    formats: tuple[str, ...] = ()
    plain: dict[str, Column] = field(default_factory=dict)
    """Columns that are no feature, by key of the mapping."""
    source: dict[str, Column] = field(default_factory=dict)
    procedure: dict[str, Column] = field(default_factory=dict)
    """Columns of the state, the service date and the lesions of the session."""
    columns: list[Column] = field(default_factory=list)
    """Columns of features: in a long table, of the level and the procedure alone."""
    features: dict[str, list[Column]] = field(default_factory=dict)
    """Columns of features by their text in the mapping: in a long table, by the text that names the feature."""
    used: list[tuple[Node, str]] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)

    def check(self, header: Sequence[str], file: str) -> None:
        """Compare the columns that are named with those of a table.

        :raises InputError: with these and all other problems of the mapping.
        """
        for node, name in self.used:
            if (count := header.count(name)) != 1:
                expected = "a name for each column" if count else self._column_like(name, header)
                what = f"{file} has {count or 'no'} column{'s' * (count > 1)} {name!r}"
                self.problems.add(node, what, expected)
        if self.problems.found:
            raise InputError(self.problems.found)

    def _column_like(self, name: str, header: Sequence[str]) -> str:
        """What may have been meant, by its place: a first row that is no header, or not all of it, holds values."""
        if not {named for _, named in self.used} & set(header):
            return f"a first row with the names of the {len(header)} columns"
        same = [i for i, cell in enumerate(header) if folded(cell) == folded(name) != ""]
        close = same or [header.index(cell) for cell in difflib.get_close_matches(name, header, n=3)]
        places = [f"column {i + 1}" + (f", {header[i]!r}" if same else "") for i in sorted(close)]
        if not places:
            return f"one of its {len(header)} columns"
        return f"{' or '.join(places)} (did you mean {'that' if len(places) == 1 else 'one of these'}?)"


def read_mapping(path: Path, knowledge: Knowledge) -> TableMapping:
    """Read a mapping file; what is wrong in it is raised by :meth:`TableMapping.check`, or here if it is no such."""
    return _Reader(path, knowledge).read()


def read_date(text: str, formats: Sequence[str]) -> TimeSpan:
    """A date as precise as its format, never padded.

    :raises ValueError: when the text has none of the formats.
    """
    if isinstance(text, IsoDate) or not formats:
        return TimeSpan.parse(text)
    for form in formats:
        try:
            if form == ISO:
                return TimeSpan.parse(text)
            moment = datetime.strptime(text, form)
        except ValueError:
            continue
        used = set(re.findall(r"%(.)", form))
        length = 19 if "H" in used else 10 if "d" in used else 7 if used & set("mbB") else 4
        return TimeSpan.parse(moment.isoformat()[:length])
    raise ValueError(f"{text!r} is no date of the form {' or '.join(formats)}")


def located(value: Any, file: str, row: int, column: str) -> Node:
    """A value as it would stand in a patient file, at its place in a table."""
    if isinstance(value, Node):
        return value
    if isinstance(value, dict):
        value = {key: located(child, file, row, column) for key, child in value.items()}
    elif isinstance(value, list):
        value = [located(child, file, row, column) for child in value]
    return Node(file, column, row, value)


def worded(
    text: str, column: Column, m: TableMapping, regions: Mapping[str, Sequence[str]], polarity: str, cause: str
) -> list[dict[str, Any]]:
    """What a cell says, in the words of a patient file.

    :raises ValueError: when the text cannot be put so.
    """
    feature = column.feature
    assert feature
    finding = feature.kind is Op.FINDING
    if polarity and polarity not in MEMBERS["polarity"]:
        raise ValueError(f"polarity {polarity!r} is none of {', '.join(MEMBERS['polarity'])}")
    if cause and polarity not in ("", Polarity.INDETERMINATE):
        raise ValueError(f"{polarity}, with the cause {cause!r} of being unknown")
    if cause:
        in_words = cause == Cause.IN_WORDS_ONLY and feature.kind is Op.QUANTITY and text
        return [{"words": text} if in_words else {"unknown": cause}]
    unclear = text == Polarity.INDETERMINATE and not finding and text not in column.says
    if unclear or polarity == Polarity.INDETERMINATE:
        return [{"value": polarity} if finding else {"unknown": str(Cause.INDETERMINATE)}]
    if finding and not text:
        return [{"value": polarity}]
    nodes = _list(column.says.get(text))
    said: list[dict[str, Any]] = [n.value if isinstance(n.value, dict) else {"value": n.value} for n in nodes]
    said = said or [_plainly(text, feature, column, m, regions)]
    if not polarity or (polarity == Polarity.PRESENT and not finding):
        return said
    values = [entries.get("value") for entries in said]
    if values != [polarity] if finding else feature.kind not in (Op.CHOICE, Op.CATEGORY) or None in values:
        raise ValueError(f"{text!r} beside {polarity}")
    return said if finding else [{"absent": value} for value in values]


def _plainly(
    text: str, feature: Feature, column: Column, m: TableMapping, regions: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    if feature.kind is None:
        return {"value": str(read_date(text, column.formats))}
    if feature.kind is Op.CHOICE and ("|" in text or feature.name == LEVEL):
        names = [level for name in text.split("|") for level in regions.get(name.strip(), (name.strip(),))]
        return {"one_of": names} if len(names) > 1 else {"value": names[0]}
    if feature.kind is not Op.QUANTITY:
        return {"value": text}
    if m.decimal == "," and "." in text:
        raise ValueError(f"{text!r} has a point, and the decimal sign is a comma")
    number = text.replace(m.decimal, ".")
    bounds = {_BOUNDS[sign]: bound for sign, bound in _BOUND.findall(number)}
    if bounds and not _BOUND.sub("", number, count=len(bounds)).strip():
        return bounds
    match = _RANGE.fullmatch(number) if m.ranges else None
    return {"min": match[1], "max": match[2]} if match else {"value": number}


class _Reader:
    def __init__(self, path: Path, knowledge: Knowledge) -> None:
        self.k = knowledge
        self.m = TableMapping()
        self.root = read_tree(path)
        self.problems = self.m.problems
        self.facts = FactReader(knowledge, self.problems)

    def read(self) -> TableMapping:
        given = dict(self.root.items())
        for key, allowed in (("format", (FORMAT,)), ("shape", tuple(_KEYS))):
            if (node := given.get(key)) is None or node.value not in allowed:
                what = f"{key} is {node.shown if node else 'missing'}"
                self.problems.add(node or self.root, what, f"{key}: {' or '.join(allowed)}")
                raise InputError(self.problems.found)
        m, shape = self.m, str(given["shape"].value)
        top = self.problems.mapping(self.root, _KEYS[shape]) or {}
        m.long = shape == "long"
        self._manner(top)
        plain = {key: node for key, node in top.items() if key in (*_PLAIN, *_LONG, *MEMBERS)}
        for columns, nodes in ((m.plain, plain), (m.source, self._map(top.get("source"), SOURCE_KEYS))):
            found = {key: self._column(node, _OF_A_COLUMN, of=MEMBERS.get(key, ())) for key, node in nodes.items()}
            columns.update({key: column for key, column in found.items() if column})
        proposed = self._map(top.get("procedure"), PROCEDURE_KEYS)
        for key, node in ({"level": top["level"], **proposed} if "level" in top else proposed).items():
            feature = self.k.by_name.get(PROCEDURE_FEATURES.get(key, LEVEL if key == "level" else ""))
            keys = (*_OF_A_COLUMN[:2], *_OF_A_FEATURE) if feature else _OF_A_COLUMN
            if (column := self._column(node, keys, feature)) and feature:
                m.columns.append(replace(column, time=column.time or Column()))  # not dated by the row's other columns
            elif column:
                m.procedure[key] = column
        self._named(self._map(top.get("features" if m.long else "columns")))
        if "patient" not in top:
            self.problems.add(self.root, "no column of the patient", "patient: the name of a column")
        if m.long and not {"feature", "code"} & set(top):
            self.problems.add(self.root, "neither feature nor code", "feature: or code: the name of a column")
        return m

    def _named(self, nodes: Mapping[str, Node]) -> None:
        """The columns of features, or in a long table the texts that name one."""
        for name, node in nodes.items():
            columns = self.m.features[name.strip()] = []
            for item in _list(node):
                given = dict(item.items()).get("feature") if isinstance(item.value, dict) else item
                said = given.value if given and isinstance(given.value, str) else ""
                if feature := self.k.by_name.get(said):
                    column = self._column(item, ("feature", *_OF_A_FEATURE), feature, name.strip())
                    columns += [column] if column else []
                else:
                    expected = nearest(said, self.k.by_name) or "a feature of the ontology (kypho-kg query features)"
                    what = f"unknown feature {given.shown}" if given else "no feature"
                    self.problems.add(given or item, what, expected)
            if not self.m.long:
                self.m.used.append((node, name.strip()))
                self.m.columns += columns

    def _map(self, node: Node | None, keys: Sequence[str] | None = None) -> Mapping[str, Node]:
        """The entries of a map; none where all that it held is commented out."""
        if node is None or node.value is None:
            return {}
        return self.problems.mapping(node, [key for key, _ in node.items()] if keys is None else keys) or {}

    def _manner(self, top: Mapping[str, Node]) -> None:
        m = self.m
        m.formats, m.missing = self._formats(top.get("date_format")), self._missing(top.get("missing"))
        m.ranges = "ranges" in top and self._one_of(top["ranges"], ("true", "false")) == "true"
        m.sorted = "sorted" in top and self._one_of(top["sorted"], ("true", "false")) == "true"
        if node := top.get("decimal"):
            m.decimal = self._one_of(node, (".", ",")) or "."
        if node := top.get("delimiter"):
            m.delimiter = DELIMITERS.get(str(node.value), str(node.value))
            if not re.fullmatch(r"[\t!-~]", m.delimiter) or m.delimiter.isalnum() or m.delimiter == '"':
                self.problems.add(node, f"delimiter is {node.shown}", f"{', '.join(DELIMITERS)} or one sign")
        if node := top.get("encoding"):
            try:
                name = codecs.lookup(str(node.value)).name
                b"a".decode(name, "replace")
                m.encoding = m.encoding if name == "utf-8" else name
            except (LookupError, ValueError):
                self.problems.add(node, f"encoding {node.shown} is unknown", "utf-8, latin-1, cp1252 or another one")

    def _one_of(self, node: Node, allowed: Sequence[str]) -> str:
        if node.value in allowed:
            return str(node.value)
        what = f"{node.path.rpartition('.')[2]} is {node.shown}"
        self.problems.add(node, what, f"one of {', '.join(map(repr, allowed))}")
        return ""

    def _missing(self, node: Node | None) -> frozenset[str]:
        return frozenset(self.problems.text(n, "a text that means nothing").strip() for n in _list(node))

    def _formats(self, node: Node | None) -> tuple[str, ...]:
        formats = tuple(self.problems.text(n, "a format of dates") for n in _list(node))
        for form in formats:
            parts = re.findall(r"%(.?)", form)
            day, hour, month = "d" in parts, "H" in parts, bool({*parts} & {*"mbB"})
            sound = {*parts} <= {*"YmbBdHMS"} and "Y" in parts and month >= day >= hour == ("M" in parts)
            if form and form != ISO and not (sound and len(parts) == len({*parts}) and node):
                expected = "iso, or such as %d.%m.%Y: a year as %Y, a day only with its month"
                self.problems.add(_list(node)[0], f"date_format {form!r}", expected)
        return formats

    def _column(
        self, node: Node, keys: Sequence[str], feature: Feature | None = None, name: str = "", of: Sequence[str] = ()
    ) -> Column | None:
        """A column by its name, which may be given beside the node, or a map that says more of it."""
        entries: Mapping[str, Node] | None = {} if name else {"column": node}
        if not isinstance(node.value, str):
            entries = self.problems.mapping(node, keys)
        if entries is None:
            return None
        fixed = ""
        if not name and ("column" in entries) == ("fixed" in entries):
            self.problems.add(node, "both column and fixed" if "column" in entries else "no column", "column or fixed")
            return None
        if "column" in entries:
            name = self.problems.text(entries["column"], "column").strip()
            self.m.used.append((entries["column"], name))
        elif "fixed" in entries:
            fixed = self.problems.text(entries["fixed"], "fixed").strip()
        given = self._map(entries.get("values"))
        texts: dict[str, str] = {}
        says: dict[str, Node] = {}
        for text, child in given.items():
            if of:
                texts[text.strip()] = self._one_of(child, of)
            elif feature is None or feature.name == LEVEL:  # a level may be a region, which the table's reader knows
                texts[text.strip()] = self.problems.text(child, "a value")
            else:
                if child.value == Polarity.INDETERMINATE and feature.kind is not Op.FINDING:
                    child = replace(child, value={"unknown": replace(child, value=str(Cause.INDETERMINATE))})
                self.facts.facts(child, feature, "")  # for the problems that it finds
                says[text.strip()] = child
        missing = self.m.missing | self._missing(entries.get("missing"))
        formats = self._formats(entries.get("date_format")) or self.m.formats
        unit = self._unit(entries["unit"], feature) if feature and "unit" in entries else None
        time = self._column(entries["time"], _OF_A_COLUMN) if "time" in entries else None
        polarity = self._polarity(entries["polarity"], feature, given) if feature and "polarity" in entries else None
        return Column(name, fixed, texts, missing, formats, feature, says, unit, time, polarity)

    def _unit(self, node: Node, feature: Feature) -> Column | None:
        units = (feature.unit, *feature.accepts) if feature.kind is Op.QUANTITY else ()
        if isinstance(node.value, str) and node.value not in units:
            expected = f"one of {', '.join(units)}" if units else "no unit"
            self.problems.add(node, f"unit {node.shown} of {feature.name}", expected)
        return Column(fixed=node.value) if isinstance(node.value, str) else self._column(node, _OF_A_COLUMN)

    def _polarity(self, node: Node, feature: Feature, values: Mapping[str, Node]) -> Polarity | None:
        if feature.kind in (Op.QUANTITY, None):
            self.problems.add(node, f"polarity of {feature.name}", "none; a number or date is not ruled out")
        elif feature.kind is Op.FINDING and values:
            self.problems.add(node, "both values and polarity", "values, or one polarity for any text")
        elif found := self._one_of(node, MEMBERS["polarity"]):
            return Polarity(found)
        return None


def _list(node: Node | None) -> list[Node]:
    """The items of a list, or the one item."""
    if node is None:
        return []
    return node.value if isinstance(node.value, list) else [node]


def folded(name: str) -> str:
    """A name without what people write in different ways."""
    return "".join(c for c in name.casefold() if c.isalnum())
