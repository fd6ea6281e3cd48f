"""The terminologies that records name their codes by, with every name and URI of each."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kypho_kg.errors import KnowledgeBaseError

_COLUMNS = ("prefix", "name", "fhir_system", "other_systems", "omop_vocabulary", "aliases", "iri_stem")


@dataclass(frozen=True, slots=True)
class System:
    """A terminology, with the names it has in records."""

    prefix: str
    """The prefix of its CURIEs."""
    name: str
    iri_stem: str
    fhir_system: str = ""
    omop_vocabulary: str = ""
    names: frozenset[str] = frozenset()
    """Every name and URI that means this terminology, as :func:`plain_name` gives it."""

    @property
    def stem(self) -> str:
        """The beginning of its IRIs, as :func:`plain_name` gives it."""
        return plain_name(self.iri_stem)


def plain_name(name: str) -> str:
    """A name or URI without what writers do differently: case, and a separator at the end."""
    return name.strip().rstrip("/#|").lower()


def local_system(prefix: str, stem: str) -> System:
    """A terminology that a file of a user brings along.

    A record may name it by the prefix, or by the URI with which its codes begin: the stem
    ``https://example.org/codes/`` is the FHIR system ``https://example.org/codes``.
    """
    return System(prefix, prefix, stem, names=frozenset({plain_name(prefix), plain_name(stem)} - {""}))


def read_systems(path: Path) -> tuple[System, ...]:
    """The terminologies with their names, from a table.

    :raises KnowledgeBaseError: when the table is missing or lacks a column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = set(_COLUMNS) - set(table.fieldnames or ())
            if missing:
                raise KnowledgeBaseError(f"{path.name}:1: missing column {', '.join(sorted(missing))}")
            return tuple(map(_system, table))
    except (OSError, UnicodeDecodeError) as error:
        raise KnowledgeBaseError(f"{path.name}: cannot be read: {error}") from None


def _system(row: Mapping[str, str]) -> System:
    names = [row["prefix"], row["name"], row["fhir_system"], row["omop_vocabulary"]]
    names += row["aliases"].split("|") + row["other_systems"].split("|")
    return System(
        prefix=row["prefix"],
        name=row["name"],
        iri_stem=row["iri_stem"],
        fhir_system=row["fhir_system"],
        omop_vocabulary=row["omop_vocabulary"],
        names=frozenset(plain_name(n) for n in names if n.strip()),
    )
