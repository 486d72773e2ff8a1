"""The tests that need a GPU. In a rehearsal pytest collects some of them, and skips them for want of one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tools.command_line import Failure
from tools.diagnosis.checkout import ROOT
from tools.gpu_stages.context import Context

_PROCESSES = (
    4  # of pytest, if its extension xdist is installed: each of these tests leaves the GPU idle most of the time
)


def rows(context: Context) -> Iterator[dict[str, Any]]:
    """Run the tests; yield their counts and the names of those that failed.

    Raises:
        Failure: a test failed, or pytest could not run.
    """
    report = context.scratch / "tests.xml"
    parallel = ["-n", str(_PROCESSES)] if find_spec("xdist") and not context.rehearsal else []
    tests = context.size("tests", "tests/pipelines/executors")
    words = [sys.executable, "-m", "pytest", tests, "-m", "cuda", "-v", "--junitxml", str(report), *parallel]
    code = subprocess.run(words, cwd=ROOT).returncode
    if not report.exists():
        raise Failure(f"pytest ended with exit code {code} and without a report")
    found = outcomes(report)
    yield {"case": "pytest -m cuda", **found}
    if code != 0:
        raise Failure(f"{len(found['failed'])} tests failed (pytest's exit code is {code})")


def outcomes(report: Path) -> dict[str, Any]:
    """Return how many tests of a JUnit report passed and were skipped, and the names of those that failed."""
    passed, skipped, failed = 0, 0, []
    for test in ElementTree.parse(report).iter("testcase"):
        if test.find("failure") is not None or test.find("error") is not None:
            failed.append(f"{test.get('classname')}.{test.get('name')}")
        elif test.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return {"passed": passed, "skipped": skipped, "failed": failed}
