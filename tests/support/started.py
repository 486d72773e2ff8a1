"""What the running test has started: a test that is not quick has to say so by a mark, or `make test-quick` grows.

A Python process is seen where `subprocess` starts it; `tests.support.gloo` and `tests.support.runs` tell the rest by
audit events.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

#: Marks of tests that `make test-quick` leaves out, as it does all of tests/integration.
LEFT_OUT = ("processes", "whole_run", "slow")
PROCESSES, WHOLE_RUN = "likeness.tests.processes", "likeness.tests.whole_run"

#: Marks that the running test should have.
marks: set[str] = set()


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what starts; an audit hook, which sees every event of this process."""
    if event == PROCESSES or (event == "subprocess.Popen" and is_python(arguments[0])):
        marks.add("processes")
    elif event == WHOLE_RUN:
        marks.add("whole_run")


def is_python(program: object) -> bool:
    return Path(str(program)).resolve() == Path(sys.executable).resolve()
