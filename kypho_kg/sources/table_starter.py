"""Entries of a mapping file to start from: what the names of a table make certain, and the rest as comments."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from kypho_kg.criteria import Op
from kypho_kg.knowledge import Knowledge
from kypho_kg.sources.table_mapping import MEMBERS, folded
from kypho_kg.vocabulary import local


class Starter:
    """Entries of a mapping, for columns or texts that may name a feature."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.k = knowledge
        self.names = {folded(t): f for f in knowledge.features.values() for t in (f.plain, f.label)}
        self.names |= {folded(f.name): f for f in knowledge.features.values()}

    def entry(self, name: str, texts: Sequence[str]) -> Iterator[str]:
        """The lines of one entry; commented out unless its name is known, as are the texts that are not."""
        feature = self.names.get(folded(name))
        off = "" if feature else "# "
        near = feature or next((self.names[n] for n in difflib.get_close_matches(folded(name), self.names, n=1)), None)
        yield f"  {off}{quoted(name)}:"
        yield f"    {off}feature: " + (f"{near.name}  # {'' if feature else 'perhaps '}{near.label}" if near else "")
        known: dict[str, str] = {v: v for v in MEMBERS["polarity"]} if near and near.kind is Op.FINDING else {}
        for value in near.values if near else ():
            known |= {folded(t): local(value) for t in (self.k.plain(value), self.k.label(value), local(value))}
        if near and near.unit:
            yield f"    # unit: {quoted(near.unit)}  # or {', '.join(near.accepts) or 'no other'}"
        sure = [text for text in texts if feature and folded(text) in known]
        yield f"    {'' if sure else '# '}values:"
        for text in texts:
            yield f"      {'' if text in sure else '# '}{quoted(text)}: {known.get(folded(text), '')}"


def quoted(text: str) -> str:
    """A text as YAML, on one line."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'
