"""Quality of the ontology: rules as SPARQL queries, their levels and the exceptions from them as data.

A rule is a file ``queries/qc/RULE.rq`` that selects ``?subject``, and optionally ``?property`` and ``?value``, once for
each violation. ``profile.tsv`` gives every rule a level; ``waivers.tsv`` names subjects that a rule leaves alone, with
a reason and a date. Queries see all files as one graph, and each file as a graph named like its ontology.
"""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kypho_kg._resources import resource_dir
from kypho_kg.errors import KnowledgeBaseError, KyphoKGError
from kypho_kg.loading import import_closure
from kypho_kg.store import Literal, Store, Term, Triple, Triples
from kypho_kg.vocabulary import OWL, TYPE, local


class Level(StrEnum):
    """How bad a violation of a rule is."""

    ERROR = "ERROR"
    """The check fails."""
    WARN = "WARN"
    """Listed."""
    INFO = "INFO"
    """Counted."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    name: str
    level: Level
    query: str


@dataclass(frozen=True, slots=True)
class Waiver:
    """A subject that one rule leaves alone."""

    rule: str
    subject: str
    """As findings show it."""
    reason: str
    date: datetime.date


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One violation of a rule, with names shortened as in :func:`kypho_kg.vocabulary.local`."""

    rule: str
    subject: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What the rules found, by level, waived violations aside."""

    rules: int
    violations: Mapping[Level, tuple[Violation, ...]]
    waived: int

    def __str__(self) -> str:
        errors, warnings, notes = (len(self.violations[level]) for level in Level)
        counts = f"{self.rules} rules, {errors} errors, {warnings} warnings, {notes} notes, {self.waived} waived"
        return "\n".join((counts, *(f"       warning: {found}" for found in self.violations[Level.WARN])))


def read_rules(folder: Path) -> tuple[Rule, ...]:
    """The rules of a folder with their levels.

    :raises KnowledgeBaseError: when rules and profile do not name each other one to one, or a level is unknown.
    """
    queries = {path.stem: path.read_text("utf-8") for path in sorted(folder.glob("*.rq"))}
    levels: dict[str, Level] = {}
    wrong = []
    for number, (name, level) in _rows(folder / "profile.tsv", ("rule", "level")):
        if name in levels or name not in queries or level not in set(Level):
            what = "named twice" if name in levels else "unknown rule" if name not in queries else "unknown level"
            wrong.append(f"profile.tsv:{number}: {name} {level}: {what}")
        else:
            levels[name] = Level(level)
    named = {line.split()[1] for line in wrong}
    wrong += [f"profile.tsv: rule {name} has no level" for name in queries if name not in levels | dict.fromkeys(named)]
    if wrong:
        raise KnowledgeBaseError(wrong)
    return tuple(Rule(name, levels[name], query) for name, query in queries.items())


def read_waivers(folder: Path, names: Iterable[str]) -> tuple[Waiver, ...]:
    """The exceptions from the rules of a folder.

    :raises KnowledgeBaseError: on an unknown rule, a missing reason, a bad date, or the same exception twice.
    """
    names = set(names)
    found: dict[tuple[str, str], Waiver] = {}
    wrong = []
    for number, (rule, subject, reason, date) in _rows(folder / "waivers.tsv", ("rule", "subject", "reason", "date")):
        try:
            day = datetime.date.fromisoformat(date)
        except ValueError:
            wrong.append(f"waivers.tsv:{number}: {date!r} is no date such as 2026-11-22")
            continue
        if rule not in names:
            wrong.append(f"waivers.tsv:{number}: unknown rule {rule}")
        elif not subject or not reason:
            wrong.append(f"waivers.tsv:{number}: a waiver needs a subject and a reason")
        elif (rule, subject) in found:
            wrong.append(f"waivers.tsv:{number}: {rule} {subject}: named twice")
        found[rule, subject] = Waiver(rule, subject, reason, day)
    if wrong:
        raise KnowledgeBaseError(wrong)
    return tuple(found.values())


def _rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    """Rows of a table with their line numbers."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)) or [[]]
    except (OSError, UnicodeDecodeError) as error:
        raise KnowledgeBaseError(f"{path.name}: {error}") from None
    wrong = [n for n, row in enumerate(rows, start=2) if len(row) != len(columns)]
    if tuple(header) != columns or wrong:
        where = f"{path.name}:{wrong[0]}" if wrong else path.name
        raise KnowledgeBaseError(f"{where}: expected the columns {', '.join(columns)}, separated by tabs")
    return [(n, [field.strip() for field in row]) for n, row in enumerate(rows, start=2)]


class Checks:
    """The triples that rules are run on.

    :param files: the triples of each file; one graph of its own for each that declares an ontology.
    """

    def __init__(self, files: Iterable[Iterable[Triple]]) -> None:
        contents = [tuple(rows) for rows in files]
        self._triples = Triples(row for rows in contents for row in rows)
        graphs = {s: rows for rows in contents for s, p, o in rows if p == TYPE and o == OWL + "Ontology"}
        self.store = Store(self._triples, graphs)
        # The store renames blank nodes.
        self._blank = {"_:" + s[2:].replace("-", ""): s for s, _, _ in self._triples if s.startswith("_:")}

    def violations(self, rule: Rule) -> tuple[Violation, ...]:
        """All violations of a rule, in order of their names.

        :raises KnowledgeBaseError: when the query is no SELECT or does not give a subject.
        """
        try:
            rows = self.store.select(rule.query)
        except KyphoKGError as error:
            raise KnowledgeBaseError(f"{rule.name}.rq: {error}") from None
        if any("subject" not in row for row in rows):
            raise KnowledgeBaseError(f"{rule.name}.rq: a row has no ?subject")
        found = {
            Violation(
                rule.name,
                self._shown(row["subject"]),
                ", ".join(self._shown(row[key]) for key in ("property", "value") if key in row),
            )
            for row in rows
        }
        return tuple(sorted(found))

    def _shown(self, term: Term) -> str:
        if isinstance(term, Literal):
            return repr(term.text)
        return (
            f"a node of {local(self._triples.owner(self._blank.get(term, term)))}"
            if term.startswith("_:")
            else local(term)
        )


def check_quality(checks: Checks, rules: Iterable[Rule], waivers: Iterable[Waiver] = ()) -> QualityReport:
    """Run the rules.

    :raises KnowledgeBaseError: when a waiver is not needed; it would hide a later violation.
    """
    rules, waived = tuple(rules), {(w.rule, w.subject): 0 for w in waivers}
    violations: dict[Level, list[Violation]] = {level: [] for level in Level}
    for rule in rules:
        for found in checks.violations(rule):
            key = (found.rule, found.subject)
            if key in waived:
                waived[key] += 1
            else:
                violations[rule.level].append(found)
    unused = [f"waivers.tsv: {rule} {subject}: nothing to waive" for (rule, subject), n in waived.items() if not n]
    if unused:
        raise KnowledgeBaseError(unused)
    return QualityReport(len(rules), {k: tuple(v) for k, v in violations.items()}, sum(waived.values()))


def bundled_rules() -> tuple[Rule, ...]:
    """The rules of this project."""
    return read_rules(resource_dir("queries") / "qc")


def bundled_checks() -> Checks:
    """The ontology, file by file."""
    return Checks(import_closure(resource_dir("ontology")).values())


def check_bundled() -> QualityReport:
    """Run the project's rules on its ontology, with the project's waivers.

    :raises KnowledgeBaseError: when rules, profile, waivers or files do not fit together.
    """
    rules = bundled_rules()
    return check_quality(
        bundled_checks(), rules, read_waivers(resource_dir("queries") / "qc", [rule.name for rule in rules])
    )
