"""The README shows what the program prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLE = "examples/constructed/onset-about-three-months.yaml"
BLOCKS = [b.rstrip("\n") for b in re.findall(r"^```text\n(.*?)^```", README, re.S | re.M)]
COMMANDS = [
    ["assess", EXAMPLE, "-g", "cms-l34228", "-g", "evicore-cmm-607"],
    ["explain", EXAMPLE, "--guideline", "cms-l34228"],
]


def printed(arguments):
    """Standard output, without what changes with every edit of the ontology."""
    done = subprocess.run(
        [sys.executable, "-m", "kypho_kg", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return settled(done.stdout)


def settled(text):
    text = re.sub(r"sha256 [0-9a-f]{12}", "sha256 ...", text)
    return "\n".join(line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize(("arguments", "block"), list(zip(COMMANDS, BLOCKS, strict=True)), ids=["assess", "explain"])
def test_output_in_the_readme_is_real(arguments, block):
    """Each block is a part of what the command prints."""
    assert settled(block) in printed(arguments)


def test_every_command_is_in_the_readme():
    """A command that is not documented does not exist for its user."""
    from kypho_kg.cli import app, guidelines_app, ontology_app

    names = [c.callback.__name__.replace("_", " ") for c in app.registered_commands]
    names += [f"guidelines {c.name}" for c in guidelines_app.registered_commands]
    names += [f"ontology {c.name}" for c in ontology_app.registered_commands]
    missing = [n for n in names if f"`{n}" not in README]
    assert missing == []
