"""Shared fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run, and no time limit for one: machines differ, and the first one may load the ontology.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


@pytest.fixture(scope="session")
def knowledge() -> Knowledge:
    """The bundled knowledge base."""
    return load_knowledge()
