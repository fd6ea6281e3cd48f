"""YAML 1.2 and JSON as a tree of values that know their line; limits on size, depth, aliases and documents.

JSON is read by the same parser, since YAML 1.2 contains it. Scalars stay text until a reader asks for a number, so
that ``no`` is a word and ``1.10`` keeps its digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn

from kypho_kg.errors import InputError, Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 50_000


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file with its path and line."""

    file: str
    path: str
    line: int
    value: str | dict[str, Node] | list[Node] | None
    quoted: bool = False

    @property
    def where(self) -> str:
        """``file:line, path``."""
        return f"{self.file}:{self.line}" + (f", {self.path}" if self.path else "")

    @property
    def shown(self) -> str:
        """The value for an error message, cut short."""
        if isinstance(self.value, dict):
            return "a map"
        if isinstance(self.value, list):
            return "a list"
        if self.value is None:
            return "nothing"
        return repr(self.value if len(self.value) <= 60 else self.value[:57] + "...")

    def number(self) -> Decimal | None:
        """The scalar as a finite decimal number, or ``None``."""
        if not isinstance(self.value, str) or self.quoted or not _NUMBER.fullmatch(self.value):
            return None
        try:
            number = Decimal(self.value)
        except InvalidOperation:
            return None
        return number if number.is_finite() and abs(number.adjusted()) < 30 else None

    def items(self) -> Iterator[tuple[str, Node]]:
        """Entries of a map."""
        if isinstance(self.value, dict):
            yield from self.value.items()


def read_tree(path: Path) -> Node:
    """Read one file.

    :raises InputError: when it cannot be read, is too large or too deep, is no text, not YAML, holds aliases,
        duplicate keys or several documents, or is empty.
    """
    file = path.name
    try:
        with path.open("rb") as stream:  # a device or a pipe has no size, so the limit is on what is read
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            size = path.stat().st_size
            what = f"the file has {size:,} bytes" if size > MAX_BYTES else "the input has no end"
            raise InputError(Problem(file, what, f"at most {MAX_BYTES:,} bytes"))
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"byte {error.start} is no UTF-8; the file is binary or in another encoding"
        raise InputError(Problem(file, what, "YAML or JSON in UTF-8")) from None
    except OSError as error:
        raise InputError(Problem(file, f"cannot be read: {error.strerror}")) from None
    return parse_tree(text, file)


def parse_tree(text: str, file: str) -> Node:
    """Read a text as :func:`read_tree` does."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return _Builder(file).build(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        what = " ".join(str(error.problem or error.context or "syntax error").split())
        raise InputError(Problem(f"{file}{line}", f"not valid YAML: {what}")) from None
    except (YAMLError, ValueError) as error:
        raise InputError(Problem(file, f"not valid YAML: {' '.join(str(error).split())}")) from None


_NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?", re.ASCII)  # as in the core schema of YAML 1.2
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


class _Builder:
    """Builds the tree from the parser's events in one pass; limits are checked before anything is built."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.count = 0

    def build(self, events: Iterator[Any]) -> Node:
        from ruamel.yaml.events import DocumentStartEvent, StreamEndEvent, StreamStartEvent

        root: Node | None = None
        for event in events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    self._refuse(event, "more than one document", "one document")
                root = self._node(next(events), events, "", 0)
            elif isinstance(event, StreamStartEvent | StreamEndEvent):
                continue
        if root is None or root.value is None:
            what = "a map that begins with format: kypho-patient/1"
            raise InputError(Problem(self.file, "the file is empty", what))
        return root

    def _refuse(self, event: Any, what: str, expected: str) -> NoReturn:
        raise InputError(Problem(f"{self.file}:{event.start_mark.line + 1}", what, expected))

    def _node(self, event: Any, events: Iterator[Any], path: str, depth: int) -> Node:
        from ruamel.yaml.events import AliasEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent

        self.count += 1
        if isinstance(event, AliasEvent):
            self._refuse(event, f"alias *{event.anchor}", "the value itself; aliases are off")
        if depth > MAX_DEPTH or self.count > MAX_NODES:
            what = "nested too deep" if depth > MAX_DEPTH else "too many values"
            self._refuse(event, what, f"at most {MAX_DEPTH} levels and {MAX_NODES:,} values")
        line = event.start_mark.line + 1
        if isinstance(event, ScalarEvent):
            quoted = bool(event.style)
            null = not quoted and event.value in _NULL
            return Node(self.file, path, line, None if null else str(event.value), quoted)
        if isinstance(event, MappingStartEvent):
            return Node(self.file, path, line, self._entries(events, path, depth))
        items: list[Node] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            items.append(self._node(event, events, f"{path}[{len(items)}]", depth + 1))
        return Node(self.file, path, line, items)

    def _entries(self, events: Iterator[Any], path: str, depth: int) -> dict[str, Node]:
        from ruamel.yaml.events import MappingEndEvent, ScalarEvent

        entries: dict[str, Node] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                self._refuse(event, "a key that is no plain name", "a name")
            key = str(event.value)
            where = f"{path}.{key}" if path else key
            if key in entries:
                line = event.start_mark.line + 1
                what = "the key stands twice in one map"
                raise InputError(Problem(f"{self.file}:{line}, {where}", what, "each key once"))
            line = event.start_mark.line + 1
            child = self._node(next(events), events, where, depth + 1)
            # A value that is left out begins, for the parser, where the next thing does.
            entries[key] = replace(child, line=line) if child.value is None else child
        return entries
