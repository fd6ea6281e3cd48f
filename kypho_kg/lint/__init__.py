"""Checks of the ontology that its author wants to run, beyond what loading refuses."""

from kypho_kg.lint.gaps import Kind, LintFinding, gaps_of, kleene_gaps

__all__ = ["Kind", "LintFinding", "gaps_of", "kleene_gaps"]
