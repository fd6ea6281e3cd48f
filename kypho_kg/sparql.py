"""The text of a query: what it may not do, its variables, and the parameters that its header declares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from kypho_kg.errors import UsageError
from kypho_kg.vocabulary import XSD

TEXT, NAME, NUMBER, WHOLE, DATE = "text", "name of the ontology", "number", "whole number", "date"
TYPES = (TEXT, NAME, NUMBER, WHOLE, DATE)
"""The types of parameters, as a header writes them: ``# **Parameters:** patient (text), weeks (number)``."""

_REMOTE = ("SERVICE", "FROM", "LOAD")
_DECLARED = re.compile(r"^# \*\*Parameters:\*\* (.*)$", re.MULTILINE)
_TYPED = re.compile(r"(\w+) \(([^()]*)\)")
_ASCII_ESCAPE = re.compile(r"\\u00[0-7][0-9a-f]|\\U000000[0-7][0-9a-f]", re.IGNORECASE)
_TOKEN = re.compile(
    r'''
    (?P<string> """(?:[^"\\]|\\.|"(?!""))*""" | \'\'\'(?:[^'\\]|\\.|'(?!\'\'))*\'\'\'
              | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' )
  | (?P<iri> <[^<>"{}|^`\\\x00-\x20]*> )
  | (?P<comment> \#[^\n]* )
  | (?P<variable> [?$]\w+ )
  | (?P<name> [\w.-]*:[\w.:%\\-]* )
  | (?P<word> @?[A-Za-z]\w* )
    ''',
    re.VERBOSE | re.DOTALL,
)  # fmt: skip


def refuse_remote(query: str) -> str:
    """Refuse a query that would reach outside the graph it is given; the text as both parsers read it alike.

    Two readings must find it clean: the grammar, so that no way of writing hides a word, and the words themselves, so
    that no difference between the parser that checks and the engine that runs does. What the parser does not know is
    refused too. Line ends become those on which all agree where a comment ends.

    :raises UsageError: on SERVICE, FROM, FROM NAMED, LOAD, an update, an escape in place of a plain character, or a
        text that is no SPARQL 1.1 query.
    """
    from rdflib.plugins.sparql.parser import parseQuery

    query = re.sub(r"\r\n?", "\n", query)
    if escape := _ASCII_ESCAPE.search(query):
        # One engine reads it before it looks for strings and comments, another after.
        raise UsageError(f"{escape.group()} is not allowed in a query: write the character itself")
    for kind, text in _tokens(query):
        if kind == "word" and text.upper() in _REMOTE:
            raise _outside(text.upper())
    try:
        parsed = repr(parseQuery(query))
    except Exception as error:  # rdflib raises pyparsing's and others' exceptions
        raise UsageError(f"not a SPARQL 1.1 query: {error}") from None
    # The name of a grammar production in the printed tree. A literal that contains it is refused too: fail closed.
    for production, keyword in (("ServiceGraphPattern", "SERVICE"), ("DatasetClause", "FROM")):
        if production in parsed:
            raise _outside(keyword)
    return query


def _outside(keyword: str) -> UsageError:
    return UsageError(f"{keyword} is not allowed: a query reads only the graph it is given")


def _tokens(query: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(query):
        yield match.lastgroup or "", match.group()


def variables(query: str) -> tuple[str, ...]:
    """The names of the variables of a query, in the order in which they come."""
    return tuple(dict.fromkeys(text[1:] for kind, text in _tokens(query) if kind == "variable"))


def parameters(query: str) -> dict[str, str]:
    """The parameters that the header of a query declares, with their types.

    :raises UsageError: for a type that there is not.
    """
    declared = _DECLARED.search(query)
    found = dict(_TYPED.findall(declared[1])) if declared else {}
    for name, type_ in found.items():
        if type_ not in TYPES:
            raise UsageError(f"{name} is declared as {type_!r}; expected one of {', '.join(TYPES)}")
    return found


def literal(text: str, type_: str) -> tuple[str, str]:
    """Lexical form and datatype IRI of a text, a number or a date.

    :raises ValueError: for what is none of that type; the message says what would be right.
    """
    if type_ == NUMBER:
        if not re.fullmatch(r"[-+]?(\d+(\.\d*)?|\.\d+)", text, re.ASCII):
            raise ValueError("a number such as 7.5")
        return text, XSD + "decimal"
    if type_ == WHOLE:
        if not re.fullmatch(r"[-+]?\d+", text, re.ASCII):
            raise ValueError("a whole number")
        return text, XSD + "integer"
    if type_ == DATE:
        try:
            return date.fromisoformat(text).isoformat(), XSD + "date"
        except ValueError:
            raise ValueError("a date YYYY-MM-DD") from None
    return text, XSD + "string"
