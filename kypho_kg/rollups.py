"""Roll-ups: a product counts as each of its ingredients, read from tables with one row for each.

Prescriptions name products (a tablet of 5 mg), mappings name ingredients. A roll-up file leads from one to the other;
what the ingredient states is then stated of the product. A product may itself be an ingredient of another row: a
brand leads to a generic product, and that to its ingredients.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kypho_kg.errors import InputError, Problem
from kypho_kg.terminologies import System, local_system, plain_name

REQUIRED = ("system", "code", "ingredient")
COLUMNS = (*REQUIRED, "label", "ingredient_system", "ingredient_label", "source")
"""Columns of a roll-up file; others are not used. The ingredient has the system of its product unless it names one."""

_URI = re.compile(r"(?:https?://|urn:)\S+")

Code = tuple[str, str]
"""Prefix of a terminology and a code, without case and dots."""


@dataclass(frozen=True, slots=True)
class RollUp:
    """One row: a product and one of its ingredients."""

    prefix: str
    """CURIE prefix of the product's terminology."""
    code: str
    ingredient_prefix: str
    ingredient: str
    label: str = ""
    evidence: str = ""
    """Where it was read that the product has this ingredient."""
    source: str = ""
    """File and line."""


def folded(code: str) -> str:
    """A code without what writers do differently: claims drop its dots, and people its case."""
    return code.strip().replace(".", "").upper()


def table_lines(path: Path, expected: str) -> list[str]:
    """The lines of a file.

    :raises InputError: when it cannot be read.
    """
    try:
        return path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(Problem(path.name, f"cannot be read: {error.strerror}", expected)) from None
    except UnicodeDecodeError as error:
        raise InputError(Problem(path.name, f"cannot be read: byte {error.start} is no UTF-8", expected)) from None


def is_rollup(lines: Iterable[str]) -> bool:
    """Whether a table is a roll-up file, by its columns."""
    header = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    return {"system", "code", "ingredient"} <= {cell.strip() for cell in header.split("\t")}


def read_rollups(path: Path, known: Iterable[System]) -> tuple[list[RollUp], list[System]]:
    """The rows of one roll-up file, and the terminologies that it names by a URI and that nobody knew.

    :param known: the terminologies known so far.
    :raises InputError: with every problem: file, line, column and value.
    """
    lines, file = table_lines(path, "a roll-up table in UTF-8"), path.name
    start = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    reader = csv.DictReader(lines[start:], delimiter="\t", quoting=csv.QUOTE_NONE)
    columns = reader.fieldnames or ()
    problems = [Problem(f"{file}:{start + 1}", f"missing column {c}") for c in REQUIRED if c not in columns]
    if problems:
        raise InputError(problems)
    names = {name: system for system in known for name in system.names}
    added: dict[str, System] = {}

    def system(text: str) -> System | None:
        found = names.get(plain_name(text))
        if found is None and _URI.fullmatch(text.strip()):
            found = added[plain_name(text)] = names[plain_name(text)] = local_system(text.strip(), "")
        return found

    rows: list[RollUp] = []
    for number, cells in enumerate(reader, start=start + 2):
        where = f"{file}:{number}"
        wrong = list(_problems(cells, where))
        if not wrong:
            ends = [system(cells["system"]), system(cells.get("ingredient_system") or cells["system"])]
            if ends[0] and ends[1]:
                rows.append(_row(cells, where, ends[0], ends[1]))
            else:
                column = "ingredient_system" if ends[0] else "system"
                expected = f"a URI, or one of {', '.join(sorted({s.prefix for s in known}))}"
                wrong.append(Problem(f"{where}, {column}", f"{cells[column]!r} is no known terminology", expected))
        problems += wrong
    if problems:
        raise InputError(problems)
    return rows, list(added.values())


def _problems(cells: Mapping[str, str | None], where: str) -> Iterator[Problem]:
    if None in cells or None in cells.values():
        yield Problem(where, "the row has more or fewer cells than the table has columns")
        return
    for column in REQUIRED:
        if not (cells[column] or "").strip():
            yield Problem(f"{where}, {column}", "empty", "the code of a product and that of an ingredient")


def _row(cells: Mapping[str, str], where: str, product: System, ingredient: System) -> RollUp:
    return RollUp(
        prefix=product.prefix,
        code=cells["code"].strip(),
        ingredient_prefix=ingredient.prefix,
        ingredient=cells["ingredient"].strip(),
        label=(cells.get("label") or "").strip(),
        evidence=(cells.get("source") or "").strip(),
        source=where,
    )


class RollUps:
    """Look-up of ingredients."""

    def __init__(self, rows: Iterable[RollUp] = ()) -> None:
        self.rows = tuple(rows)
        self._of: dict[str, list[RollUp]] = defaultdict(list)
        for row in self.rows:
            self._of[folded(row.code)].append(row)

    def ingredients(self, code: str, prefix: str = "") -> tuple[Code, ...]:
        """The ingredients of a product, those of its ingredients included; each once, in the order of the rows.

        :param prefix: the terminology of the product; empty for any.
        """
        found: dict[Code, None] = {}
        todo = [(prefix, folded(code))]
        while todo:
            system, product = todo.pop(0)
            for row in self._of.get(product, ()):
                end = row.ingredient_prefix, folded(row.ingredient)
                if system in ("", row.prefix) and end not in found and end != (row.prefix, folded(code)):
                    found[end] = None
                    todo.append(end)
        return tuple(found)
