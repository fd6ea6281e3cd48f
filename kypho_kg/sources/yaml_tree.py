"""YAML 1.2 and JSON as a tree of values that know their line; limits on size, depth, aliases and documents.

JSON is read by the same parser, since YAML 1.2 contains it. Scalars stay text until a reader asks for a number, so
that ``no`` is a word and ``1.10`` keeps its digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

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
        if not isinstance(self.value, str) or self.quoted:
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
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(Problem(file, f"the file has {size:,} bytes", f"at most {MAX_BYTES:,}"))
        text = path.read_bytes().decode("utf-8")
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

    yaml = YAML(typ="safe", pure=True)
    try:
        _check_events(yaml.parse(text), file)
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        what = " ".join(str(error.problem or error.context or "syntax error").split())
        raise InputError(Problem(f"{file}{line}", f"not valid YAML: {what}")) from None
    except (YAMLError, ValueError) as error:
        raise InputError(Problem(file, f"not valid YAML: {' '.join(str(error).split())}")) from None
    if root is None:
        raise InputError(Problem(file, "the file is empty", "a map that begins with format: kypho-patient/1"))
    return _convert(root, file, "")


def _check_events(events: object, file: str) -> None:
    from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent

    depth = count = documents = 0
    assert isinstance(events, Iterator)
    for event in events:
        count += 1
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, AliasEvent):
            raise InputError(Problem(f"{file}:{line}", f"alias *{event.anchor}", "the value itself; aliases are off"))
        if isinstance(event, DocumentStartEvent):
            documents += 1
        if isinstance(event, CollectionStartEvent):
            depth += 1
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > MAX_NODES or documents > 1:
            what = "more than one document" if documents > 1 else "nested too deep" if depth > MAX_DEPTH else "too many values"
            raise InputError(Problem(f"{file}:{line}", what, f"one document, {MAX_DEPTH} levels, {MAX_NODES:,} values"))


def _convert(node: object, file: str, path: str) -> Node:
    from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

    assert isinstance(node, ScalarNode | MappingNode | SequenceNode)
    line = node.start_mark.line + 1
    if isinstance(node, ScalarNode):
        null = str(node.tag).endswith(":null") and not node.style
        return Node(file, path, line, None if null else str(node.value), quoted=bool(node.style))
    if isinstance(node, SequenceNode):
        return Node(file, path, line, [_convert(n, file, f"{path}[{i}]") for i, n in enumerate(node.value)])
    entries: dict[str, Node] = {}
    for key_node, value_node in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            raise InputError(Problem(f"{file}:{key_line}", "a key that is a map or a list", "a name"))
        key = str(key_node.value)
        where = f"{path}.{key}" if path else key
        if key in entries:
            raise InputError(Problem(f"{file}:{key_line}, {where}", "the key stands twice in one map", "each key once"))
        entries[key] = _convert(value_node, file, where)
    return Node(file, path, line, entries)
