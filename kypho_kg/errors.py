"""All exceptions of the package.

.. code-block:: text

    KyphoKGError                     base of all; ``exit_code`` is what the command line returns
    ├─ UsageError                    2  the call itself is wrong (no date, unknown guideline or policy)
    ├─ InputError                    3  a record or file is malformed; lists every Problem found
    ├─ KnowledgeBaseError            4  the ontology is outside its profile, incomplete or inconsistent
    └─ EngineError                   5  an engine failed or ran out of time; never a verdict
       └─ ShapeError                 5  a SHACL shape is broken or had no target
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class KyphoKGError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class UsageError(KyphoKGError):
    """The call is wrong: a missing date, an unknown guideline, policy or query."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input, and what would be right."""

    where: str
    """File with line, and the field: ``file.yaml:7, lesions[0].facts.someFeature``."""
    what: str
    """The value and what is wrong with it."""
    expected: str = ""
    """What would be right; empty where the first sentence says it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; expected {self.expected}" if self.expected else "")


class InputError(KyphoKGError):
    """A record or file cannot be read. Carries every problem found, not the first."""

    exit_code = 3

    def __init__(self, problems: Sequence[Problem] | Problem) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class KnowledgeBaseError(KyphoKGError):
    """The knowledge base is outside its profile, incomplete or inconsistent.

    ``violations`` names each offending class, property or axiom.
    """

    exit_code = 4

    def __init__(self, violations: Sequence[str] | str) -> None:
        self.violations = (violations,) if isinstance(violations, str) else tuple(violations)
        super().__init__("\n".join(self.violations))


class EngineError(KyphoKGError):
    """A reasoner, store or validator failed or ran out of time."""

    exit_code = 5


class ShapeError(EngineError):
    """A SHACL shape is broken, or a validation checked nothing."""
