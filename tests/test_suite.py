"""The suite keeps its shape: what tests import, where they lie, and that the quick ones start nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import gloo, started

TESTS = Path(__file__).resolve().parent
MODULES = sorted(TESTS.rglob("*.py"))


def imported(path):
    """What a module of tests/ imports of tests/."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "tests":
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "tests")


def test_modules_share_by_support_and_not_by_importing_each_other():
    wrong = {(path.name, name) for path in MODULES for name in imported(path) if not name.startswith("tests.support")}
    assert wrong == set()


def test_every_helper_says_what_it_is_for():
    silent = [
        path.name for path in (TESTS / "support").glob("*.py") if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_folders_mirror_the_tree():
    folders = {path.parent.relative_to(TESTS) for path in MODULES if path.name.startswith("test_")}
    missing = {folder for folder in folders - {Path("integration")} if not (TESTS.parent / folder).is_dir()}
    assert missing == set()


@pytest.mark.processes
def test_processes_are_noticed():
    """conftest.py fails a test that has started something and lacks the mark for it."""
    assert started.marks == set()
    subprocess.run(["true"], check=True)
    assert started.marks == set()
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert started.marks == {"processes"}
    started.marks.clear()
    assert gloo.run(abs, 2, -1) == [1, 1]
    assert started.marks == {"processes"}
    sys.audit(started.WHOLE_RUN)
    assert started.marks == {"processes", "whole_run"}
