"""The front door is what it says, and every name of it is documented."""

from __future__ import annotations

import datetime

import kypho_kg
from kypho_kg import errors


def test_all_names_exist_and_are_documented():
    """``__all__`` names what is there."""
    for name in kypho_kg.__all__:
        value = getattr(kypho_kg, name)
        assert name == "__version__" or value.__doc__
    assert sorted(kypho_kg.__all__) == kypho_kg.__all__


def test_every_error_carries_its_exit_code():
    """Each exception has the exit code of its drawing."""
    codes = {"UsageError": 2, "InputError": 3, "KnowledgeBaseError": 4, "EngineError": 5, "ShapeError": 5}
    for name, code in codes.items():
        error = getattr(errors, name)
        assert issubclass(error, kypho_kg.KyphoKGError)
        assert error.exit_code == code
        assert name in errors.__doc__


def test_record_built_in_python():
    """An empty record has no lesion and so no case; nothing is guessed."""
    answer = kypho_kg.assess(kypho_kg.Record("p"), as_of=datetime.date(2026, 1, 1))
    assert answer.cases == ()


def test_version_is_in_the_changelog():
    """Changelog and package agree."""
    from pathlib import Path

    text = (Path(__file__).resolve().parent.parent / "CHANGELOG.md").read_text("utf-8")
    assert kypho_kg.__version__ in text
