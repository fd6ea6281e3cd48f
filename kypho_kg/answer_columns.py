"""The columns of the tables of answers, with their meanings: the one source of files, dictionary and docs page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Kind(StrEnum):
    """What a cell holds."""

    TEXT = "text"
    LIST = "list of texts"
    DATE = "date"
    NUMBER = "number"
    TRUTH = "true or false"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, with its meaning."""

    name: str
    kind: Kind
    meaning: str


def _columns(*rows: tuple[str, Kind, str]) -> tuple[Column, ...]:
    return tuple(Column(*row) for row in rows)


_CASE = _columns(
    ("patient", Kind.TEXT, "id of the patient in the record"),
    ("lesion", Kind.TEXT, "id of the lesion in the record"),
    ("as_of", Kind.DATE, "date on which the record was read"),
    ("guideline", Kind.TEXT, "id of the guideline"),
)

TABLES: Final[Mapping[str, tuple[Column, ...]]] = {
    "verdicts": _CASE
    + _columns(
        ("level", Kind.LIST, "vertebral levels of which the lesion has one, from cranial to caudal"),
        ("technique", Kind.LIST, "proposed techniques of which one holds"),
        ("in_session", Kind.TRUTH, "whether the proposed procedure includes the lesion"),
        ("constructed", Kind.TRUTH, "whether the record is made up"),
        ("title", Kind.TEXT, "title of the guideline"),
        ("version", Kind.TEXT, "version of the guideline"),
        ("layer", Kind.TEXT, "kind of source"),
        ("in_force", Kind.TRUTH, "whether it applies by service date, place and payer; empty where not known"),
        ("verdict", Kind.TEXT, "the verdict with nothing assumed"),
        ("label", Kind.TEXT, "the verdict in the words of the layer"),
        ("reachable", Kind.LIST, "verdicts in which it can still end"),
        ("reading", Kind.TEXT, "alternative reading that the verdict follows; empty for none"),
        ("assumed_verdict", Kind.TEXT, "the verdict under the assumption policies; empty without any"),
        ("assumed_policies", Kind.LIST, "names of the assumption policies"),
        ("unbridged_verdict", Kind.TEXT, "the verdict without bridges; empty where no clause used one"),
        ("bridges", Kind.LIST, "bridges that the clauses used"),
        ("cautions_met", Kind.LIST, "relative contraindications that are met"),
        ("cautions_unknown", Kind.LIST, "relative contraindications not screened yet"),
        ("documentation_missing", Kind.LIST, "documentation duties that are not shown to be fulfilled"),
        ("unverified", Kind.LIST, "clauses that nobody read at a source"),
        ("missing", Kind.LIST, "features to find out: the least burdensome decisive set, else all that is unknown"),
        ("missing_settles", Kind.TRUTH, "whether these settle the verdict whatever they turn out to be; "
         "empty where nothing is missing"),
        ("unobtainable", Kind.LIST, "features on which the verdict depends and that cannot be assessed"),
        ("kb_version", Kind.TEXT, "version of the knowledge base"),
        ("kb_sha256", Kind.TEXT, "hash of the knowledge base"),
    ),
    "clauses": _CASE
    + _columns(
        ("clause", Kind.TEXT, "id of the clause"),
        ("effect", Kind.TEXT, "what follows when it is met"),
        ("label", Kind.TEXT, "the clause in short"),
        ("truth", Kind.TEXT, "met, not met or unknown"),
        ("cause", Kind.TEXT, "why it is unknown: of several causes the one that says most"),
        ("counted", Kind.TRUTH, "whether it enters the verdict; not where it belongs to another reading"),
        ("feature", Kind.LIST, "features that decide it, or that leave it unknown"),
        ("feature_truth", Kind.LIST, "for each feature: truth of what is asked of it"),
        ("value", Kind.LIST, "for each feature: what is recorded, with / between; empty for nothing"),
        ("limit", Kind.LIST, "for each feature: the number or values asked for; empty for a finding"),
        ("unit", Kind.LIST, "for each feature: unit of value and limit (UCUM)"),
        ("date", Kind.LIST, "for each feature: date of what is recorded, as stated; empty where stated as current"),
        ("number", Kind.NUMBER, "the recorded number, where one feature decides and its value is one number"),
        ("day", Kind.DATE, "the date of that number or statement, where one feature decides and it is one day"),
        ("distance", Kind.NUMBER, "distance of the number nearest to its limit: positive on the side asked for"),
        ("source", Kind.LIST, "where the facts were recorded: document, date and author, or else file and line"),
        ("quote", Kind.LIST, "what is quoted from there"),
        ("verification", Kind.TEXT, "how the text of the clause was verified"),
        ("citation", Kind.TEXT, "where the clause stands"),
        ("url", Kind.TEXT, "address of the source"),
    ),
    "without_case": _columns(
        ("patient", Kind.TEXT, "id of the patient in the record"),
        ("as_of", Kind.DATE, "date on which the record was read"),
        ("reason", Kind.TEXT, "why there is no case"),
    ),
}  # fmt: skip
"""The columns of each table, in their order."""

DICTIONARY: Final = "columns"
"""Name of the table that says what the columns mean."""
DICTIONARY_COLUMNS: Final = tuple(Column(name, Kind.TEXT, "") for name in ("table", "column", "type", "meaning"))
METADATA: Final = "csv-metadata.json"
"""Name of the file that says the same in the form of the W3C (CSV on the Web)."""
SEPARATOR: Final = "; "
"""Between the entries of a list in CSV."""


def dictionary() -> Iterator[dict[str, str]]:
    """The rows of the data dictionary."""
    for table, columns in TABLES.items():
        for c in columns:
            yield {"table": table, "column": c.name, "type": str(c.kind), "meaning": c.meaning}


_DATATYPES = {
    Kind.DATE: "date",
    Kind.NUMBER: "decimal",
    Kind.TRUTH: {"base": "boolean", "format": "true|false"},
}


def csvw() -> dict[str, Any]:
    """The metadata of the CSV files after the W3C recommendation *Metadata Vocabulary for Tabular Data*."""
    described = [*TABLES.items(), (DICTIONARY, DICTIONARY_COLUMNS)]
    return {
        "@context": ["http://www.w3.org/ns/csvw", {"@language": "en"}],
        "tables": [
            {"url": f"{name}.csv", "tableSchema": {"columns": [_csvw_column(c) for c in columns]}}
            for name, columns in described
        ],
    }


def _csvw_column(c: Column) -> dict[str, Any]:
    row: dict[str, Any] = {"name": c.name, "titles": c.name, "datatype": _DATATYPES.get(c.kind, "string")}
    if c.meaning:
        row["dc:description"] = c.meaning
    return {**row, "separator": SEPARATOR} if c.kind is Kind.LIST else row
