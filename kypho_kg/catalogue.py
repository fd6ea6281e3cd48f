"""Guidelines as lists and checklists that can be held beside the original."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kypho_kg.criteria import Criterion, Op
from kypho_kg.guidelines import EFFECTS, UNVERIFIED, Guideline, Recommendation
from kypho_kg.knowledge import Knowledge
from kypho_kg.vocabulary import KYPHO, local
from kypho_kg.words import asked_words

if TYPE_CHECKING:
    from rich.console import Console

_WORDS = {Op.AND: "all of", Op.OR: "any of", Op.NOT: "not"}


def summary(g: Guideline) -> dict[str, Any]:
    """What a list shows of a guideline."""
    return {
        "id": g.id,
        "title": g.title,
        "layer": g.layer,
        "publisher": g.publisher,
        "version": g.version,
        "effective_from": str(g.effective_from) if g.effective_from else None,
        "effective_until": str(g.effective_until) if g.effective_until else None,
        "states": list(g.states),
        "payers": [local(p) for p in g.payers],
        "settings": [local(s) for s in g.settings],
        "replaces": list(g.replaces),
        "clauses": len(g.recommendations),
        "in_default_set": not g.rests_on_unverified,
        "citation": g.citation,
        "url": g.url,
    }


def details(k: Knowledge, g: Guideline) -> dict[str, Any]:
    """A guideline with its clauses as data."""
    return {
        **summary(g),
        "use": g.use,
        "misuse": g.misuse,
        "licence": g.licence,
        "note": g.note or None,
        "readings": g.readings,
        "recommendations": [
            {
                "id": r.id,
                "effect": r.effect,
                "label": r.label,
                "text": r.text,
                "condition": condition_lines(k, r.criterion),
                "mark": r.mark,
                "citation": r.citation,
                "url": r.url,
                "due": r.due or None,
                "reading": r.reading or None,
                "conjunct_of": r.conjunct_of or None,
                "strength": r.strength or None,
                "grade": r.grade or None,
                "replaces": list(r.replaces),
                "note": r.note or None,
                "ratings": [
                    {"option": x.label, "category": x.category, "number": x.number, "proposed": x.is_proposed}
                    for x in r.ratings
                ],
            }
            for r in g.recommendations
        ],
    }


def condition_lines(k: Knowledge, c: Criterion, depth: int = 0) -> list[str]:
    """A criterion tree as indented lines."""
    pad = "  " * depth
    if c.op is Op.LINK and c.children:
        return condition_lines(k, c.children[0], depth)
    if c.op is Op.FINDING:
        return [pad + k.label(c.term)]
    if not c.children:
        return [f"{pad}{k.label(c.term)}: {asked_words(k, c)}"]
    if c.op is Op.OPEN:
        strict, lenient = c.children
        return [
            f"{pad}surely met if ({k.plain(strict.name)}):",
            *condition_lines(k, strict, depth + 1),
            f"{pad}left open by the source, and not met unless ({k.plain(lenient.name)}):",
            *condition_lines(k, lenient, depth + 1),
        ]
    words = f"at least {c.n} of" if c.op is Op.AT_LEAST else _WORDS[c.op]
    return [f"{pad}{words}", *(line for child in c.children for line in condition_lines(k, child, depth + 1))]


def print_list(console: Console, k: Knowledge) -> None:
    """All guidelines as a table, by layer."""
    from rich.table import Table
    from rich.text import Text

    table = Table("Id", "Title", "Version", "Where", "Clauses", "Never read")
    for layer in k.layers:
        mine = [g for g in k.guidelines.values() if KYPHO + g.layer == layer]
        if not mine:
            continue
        table.add_section()
        table.add_row(Text(k.plain(layer).upper(), style="bold"))
        for g in mine:
            unread = sum(r.mark == UNVERIFIED for r in g.recommendations)
            title = g.title + "".join(f"; succeeds {old}" for old in g.replaces)
            cells = (g.id, title, _version(g), _where(k, g), str(len(g.recommendations)), str(unread or ""))
            table.add_row(*map(Text, cells))
    console.print(table)


def _version(g: Guideline) -> str:
    return g.version + (f", until {g.effective_until}" if g.effective_until else "")


def _where(k: Knowledge, g: Guideline) -> str:
    return ", ".join((*g.states, *map(k.label, (*g.payers, *g.settings)))) or "anywhere"


def print_guideline(console: Console, k: Knowledge, g: Guideline) -> None:
    """One guideline as a checklist, grouped by effect."""
    from rich.text import Text

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style))

    say(f"{g.id}: {g.title}", "bold")
    say(f"{g.publisher}, {g.version}, {k.label(KYPHO + g.layer)}")
    if g.effective_from or g.effective_until:
        say(f"in force from {g.effective_from or '?'} to {g.effective_until or 'further notice'}")
    if g.is_policy:
        say(f"applies to {_where(k, g)}")
    if g.replaces:
        say(f"succeeds {', '.join(g.replaces)}")
    say(f"Use: {g.use}")
    say(f"Not for: {g.misuse}")
    say(f"Rights: {g.licence}")
    if g.note:
        say(f"Note: {g.note}")
    say(f"{g.citation} {g.url}", "dim")
    for effect in EFFECTS:
        clauses = [r for r in g.recommendations if r.effect == effect]
        if clauses:
            say(f"\n{k.plain(KYPHO + effect).upper()}", "bold")
        for r in clauses:
            _print_clause(say, k, r, g)


def _print_clause(say: Any, k: Knowledge, r: Recommendation, g: Guideline) -> None:
    extra = [k.plain(KYPHO + r.due)] if r.due else []
    if r.reading:
        extra.append(f"only in the reading: {g.readings[r.reading]}")
    if r.conjunct_of:
        extra.append(f"part of {r.conjunct_of}")
    if r.strength or r.grade:
        extra.append(", ".join(filter(None, (r.strength and f"strength {r.strength}", r.grade and f"grade {r.grade}"))))
    say(f"[ ] {r.clause}: {r.text}" + (f" ({'; '.join(extra)})" if extra else ""))
    for line in condition_lines(k, r.criterion, 2):
        say(line)
    for category, labels in _by_category(r).items():
        say(f"    {category}: {', '.join(labels)}")
    if r.note:
        say(f"    note: {r.note}", "dim")
    elsewhere = "" if (r.citation, r.url) == (g.citation, g.url) else f": {r.citation} {r.url}"
    say(f"    {k.plain(KYPHO + r.mark)}{elsewhere}", "dim")


def _by_category(r: Recommendation) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for x in r.ratings:
        found.setdefault(x.words, []).append(x.label + (f" ({x.number})" if x.number is not None else ""))
    return found
