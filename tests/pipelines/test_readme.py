"""The walk in pipelines/README.md names files and functions that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "pipelines" / "README.md").read_text()
WALK = re.findall(r"^    ([\w/]+\.py) +([\w.]+(?:, \w+)*)", TEXT, re.MULTILINE)


def file_of(name: str) -> Path:
    """The file, named from the root or from pipelines/."""
    found = [folder / name for folder in (ROOT / "pipelines", ROOT) if (folder / name).is_file()]
    assert found, f"there is no {name}"
    return found[0]


def defined(path: Path) -> set[str]:
    """Names of functions, classes and methods of a file, the last as Class.method."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_the_walk_is_found() -> None:
    assert 15 < len(WALK) <= 25


@pytest.mark.parametrize(("name", "functions"), WALK)
def test_every_step_exists(name: str, functions: str) -> None:
    assert set(functions.split(", ")) <= defined(file_of(name))


def test_every_file_exists() -> None:
    """Those with a folder; names with NEW are what a reader makes."""
    for name in re.findall(r"[a-z_]+/[\w/]+\.py", TEXT):
        if "NEW" not in name:
            assert file_of(name)
