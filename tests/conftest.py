"""Shared fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def knowledge() -> Knowledge:
    """The bundled knowledge base."""
    return load_knowledge()
