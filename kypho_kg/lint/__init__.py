"""Checks of guidelines that their author wants to run, beyond what loading refuses."""

from kypho_kg.lint.gaps import Kind, LintFinding, gaps_of, kleene_gaps
from kypho_kg.lint.report import LintReport, lint
from kypho_kg.lint.rules import LOAD_CODES, RULES, Finding, Severity, lint_guideline

__all__ = [
    "LOAD_CODES", "RULES", "Finding", "Kind", "LintFinding", "LintReport", "Severity", "gaps_of", "kleene_gaps", "lint",
    "lint_guideline",
]  # fmt: skip
