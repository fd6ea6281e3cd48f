"""All rules over all guidelines, with the exceptions that are declared; also of a file of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kypho_kg._resources import resource_dir
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.lint.rules import LOAD_CODES, RULES, Finding, Severity, lint_guideline, unread_clauses
from kypho_kg.loading import import_closure, read_knowledge, with_file
from kypho_kg.quality import Waiver, read_waivers
from kypho_kg.store import Triples
from kypho_kg.vocabulary import KYPHO, SKOS, TYPE


@dataclass(frozen=True, slots=True)
class LintReport:
    """What lint found."""

    guidelines: tuple[str, ...]
    findings: tuple[Finding, ...]
    waived: tuple[tuple[Finding, Waiver], ...]

    @property
    def clean(self) -> bool:
        """Whether there is nothing that an author must look at."""
        return all(f.severity is Severity.NOTE for f in self.findings)

    def __str__(self) -> str:
        counts = [f"{sum(f.severity is s for f in self.findings)} {s}s" for s in Severity]
        return f"{len(self.guidelines)} guidelines: {', '.join(counts)}, {len(self.waived)} waived"


def lint(ids: Sequence[str] = (), file: Path | None = None) -> LintReport:
    """Lint the bundled guidelines, some of them, or those of a file that comes to the knowledge base.

    :param file: a Turtle file; its guidelines are linted, whatever the ids.
    :raises UsageError: for an unknown id.
    :raises KnowledgeBaseError: when the bundled knowledge base itself is broken, or the file cannot be read.
    """
    root = resource_dir("ontology")
    files = import_closure(root)
    if file:
        files = with_file(root, files, file)
        own = Triples(files[file])
        ids = [own.text(g, SKOS + "notation") for g in own.subjects(TYPE, KYPHO + "Guideline")]
        if not ids:
            raise KnowledgeBaseError(f"{file.name}: holds no guideline")
    unread = tuple(unread_clauses(Triples(t for rows in files.values() for t in rows)))
    try:
        knowledge = read_knowledge(root, instead=file)
    except KnowledgeBaseError as error:
        if not file:
            raise
        refused = (Finding("refused", Severity.ERROR, file.name, line) for line in error.violations)
        return LintReport(tuple(ids), (*unread, *(() if unread else refused)), ())
    chosen = [knowledge.guideline(i) for i in ids] if ids else list(knowledge.guidelines.values())
    found = [f for g in chosen for f in lint_guideline(knowledge, g)]
    names = [*(r.code for r in RULES), *LOAD_CODES]
    waivers = {(w.rule, w.subject): w for w in read_waivers(root / "guidelines", names)}
    waived = tuple((f, waivers[f.code, f.subject]) for f in found if (f.code, f.subject) in waivers)
    left = [f for f in found if (f.code, f.subject) not in waivers]
    if not file:
        left += _unused(waivers.values(), waived, ids)
    return LintReport(tuple(g.id for g in chosen), tuple(left), waived)


def _unused(
    waivers: Iterable[Waiver], waived: Iterable[tuple[Finding, Waiver]], ids: Sequence[str]
) -> Iterator[Finding]:
    """Waivers on the guidelines that were linted, all of them where none is named, that nothing needed."""
    used = {w for _, w in waived}
    for w in waivers:
        if w not in used and (not ids or w.subject.partition("/")[0] in ids):
            yield Finding("unused-waiver", Severity.WARNING, w.subject, f"there is no {w.rule} to waive")
