"""Kypho KG: candidacy for percutaneous vertebral augmentation, derived from a knowledge graph with its proof.

The front door: read a record, assess it, look at the answer. It supports a clinician's own review, decides nothing and
is no medical device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kypho_kg.errors import EngineError, InputError, KnowledgeBaseError, KyphoKGError, UsageError

if TYPE_CHECKING:
    from kypho_kg.candidacy import Answer, Assessment, assess
    from kypho_kg.intake import read_records
    from kypho_kg.loading import load_knowledge
    from kypho_kg.record import Fact, Record

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Assessment",
    "EngineError",
    "Fact",
    "InputError",
    "KnowledgeBaseError",
    "KyphoKGError",
    "Record",
    "UsageError",
    "__version__",
    "assess",
    "load_knowledge",
    "read_records",
]

_HOMES = {
    "Answer": "candidacy",
    "Assessment": "candidacy",
    "assess": "candidacy",
    "read_records": "intake",
    "load_knowledge": "loading",
    "Fact": "record",
    "Record": "record",
}


def __getattr__(name: str) -> object:
    # Engines import lazily, so that ``--help`` and ``--version`` are instant.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"kypho_kg.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'kypho_kg' has no attribute {name!r}")
