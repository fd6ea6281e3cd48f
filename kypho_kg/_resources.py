"""Where the ontology, shapes and queries are; nobody else knows."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def resource_dir(name: str) -> Path:
    """The folder ``ontology``, ``shapes`` or ``queries``, installed or in a checkout.

    :raises FileNotFoundError: when it is in neither place.
    """
    package = Path(str(files("kypho_kg")))
    candidates = (package / "_data" / name, package.parent / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"no folder {name}: tried {' and '.join(map(str, candidates))}")
