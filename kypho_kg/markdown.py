"""Explanations as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kypho_kg.narrative import Node, Section


def markdown(title: str, lines: Sequence[str], sections: Iterable[Section], foot: str) -> str:
    """Sections as a Markdown document."""
    out = [f"# {_md(title)}", "", *(f"{_md(line)}  " for line in lines), ""]
    for section in sections:
        out += [f"## {section.title}", ""]
        if section.lead:
            out += [_md(section.lead), ""]
        for node in section.nodes:
            out += _bullets(node, 0)
        out.append("")
    return "\n".join([*out, f"*{_md(foot)}*", ""])


def _bullets(node: Node, depth: int) -> Iterator[str]:
    pad = "  " * depth
    mark = f"**[{node.truth.words}]** " if node.truth is not None else ""
    yield f"{pad}- {mark}{_md(node.text)}"
    for note in node.notes:
        yield f"{pad}  - *{_md(note)}*"
    for child in node.children:
        yield from _bullets(child, depth + 1)


def _md(text: str) -> str:
    """Text as Markdown shows it unchanged."""
    for mark in ("\\", "*", "_", "`", "[", "]", "<", ">"):
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")
