"""What is shipped: the wheel and the source distribution hold the data, and the wheel works outside the tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import kypho_kg

ROOT = Path(__file__).resolve().parent.parent
DATA = ("ontology", "shapes", "queries")
NO_CLI = not (ROOT / "kypho_kg" / "cli.py").exists()
WITHOUT_CLI = "there is no command line yet"

pytestmark = pytest.mark.wheel


def files_of(folder: str) -> set[str]:
    """The files of a folder of the tree, relative to the root, without hidden ones and caches."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel made from it, without the network."""
    folder = tmp_path_factory.mktemp("built")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("kypho_kg-*.whl")
    return path


@pytest.fixture(scope="module")
def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a folder of their own; dependencies come from the environment of the tests."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    done = run(*pip, "--no-index", "--no-deps", "--target", target, wheel, cwd=target)
    assert done.returncode == 0, done.stderr
    return target


def test_wheel_holds_the_data_of_the_tree(wheel_names: set[str]) -> None:
    expected = {f"kypho_kg/_data/{name}" for folder in DATA for name in files_of(folder)}
    assert {name for name in wheel_names if name.startswith("kypho_kg/_data/")} == expected
    assert "kypho_kg/_data/ontology/kypho.ttl" in expected


def test_wheel_holds_the_package_and_nothing_else(wheel_names: set[str]) -> None:
    code = {name for name in wheel_names if ".dist-info/" not in name and not name.startswith("kypho_kg/_data/")}
    assert code == files_of("kypho_kg")
    assert "kypho_kg/py.typed" in code


def test_wheel_carries_both_licences_and_the_notices(wheel_names: set[str]) -> None:
    licences = {name.partition("/licenses/")[2] for name in wheel_names if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", "ontology/LICENSE"}


def test_sdist_holds_the_data_of_the_tree(built: Path) -> None:
    (path,) = built.glob("kypho_kg-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    missing = {name for folder in (*DATA, "kypho_kg", "tests", "examples") for name in files_of(folder)} - names
    assert missing == set()
    assert {"LICENSE", "Makefile", "NOTICE", "README.md", "pyproject.toml"} <= names


def test_version_is_said_once(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == kypho_kg.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    match = re.search(r"(?m)^## \[?(\d[^\]\s]*)", changelog)
    assert match
    assert match.group(1) == kypho_kg.__version__


def test_imports_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "import kypho_kg; print(kypho_kg.__file__)"
    done = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(done.stdout.strip()) == installed / "kypho_kg" / "__init__.py", done.stderr


def test_finds_its_data_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "from kypho_kg._resources import resource_dir; print(resource_dir('ontology'))"
    done = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(done.stdout.strip()) == installed / "kypho_kg" / "_data" / "ontology", done.stderr


@pytest.mark.skipif(NO_CLI, reason=WITHOUT_CLI)
@pytest.mark.parametrize("arguments", [("--help",), ("guidelines", "list")], ids=" ".join)
def test_command_line_runs_from_the_wheel(installed: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(sys.executable, "-m", "kypho_kg", *arguments, cwd=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


@pytest.mark.skipif(NO_CLI, reason=WITHOUT_CLI)
def test_console_script_names_something_that_exists(installed: Path, tmp_path: Path) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts == {"kypho-kg": "kypho_kg.cli:main"}
    code = "from kypho_kg.cli import main; assert callable(main)"
    assert run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).returncode == 0
