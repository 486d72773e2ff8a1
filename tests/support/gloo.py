"""Run a function, or a program, on several gloo processes of this machine and bring back what they give."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.support.started import PROCESSES

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_S = 240  # a function takes seconds, on a machine under load a minute


def run(function: Callable[..., Any], processes: int, *args: Any) -> list[Any]:
    """Return what `function(*args)` returns on each of `processes` ranks, by rank.

    The function must be importable (at module level); arguments and results are what `torch.save` takes. With one
    process it runs here, without torch.distributed: the reference that the others are compared with. Each rank is a
    fresh process that knows nothing of what tests have changed in this one.

    Raises:
        AssertionError: a rank raised an exception, which the message shows, or the ranks have not ended in time.
    """
    if processes == 1:
        return [function(*args)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save((function, args), folder / "job.pt")
        codes = _ended(f"function {processes} {folder}\n", folder, processes)
        assert not any(codes), "\n".join(path.read_text() for path in folder.glob("*.txt")) or f"exit codes {codes}"
        return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(processes)]


def run_program(program: str, *words: Sequence[object]) -> list[subprocess.CompletedProcess[str]]:
    """Return how the processes of `torchrun program.py` end that have these command lines, one for each rank.

    The launcher itself is left out: where it matters, tests start it with `tests.support.runs.command`.
    """
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        folder = Path(name)
        probe.bind(("127.0.0.1", 0))
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        probe.close()
        lines = [[str(word) for word in line] for line in words]
        job = {"program": program, "words": lines, "environment": environment}
        (folder / "job.json").write_text(json.dumps(job))
        codes = _ended(f"program {len(words)} {folder}\n", folder, len(words))
        return [
            subprocess.CompletedProcess(
                lines[rank], code, (folder / f"{rank}.out").read_text(), (folder / f"{rank}.err").read_text()
            )
            for rank, code in enumerate(codes)
        ]


def _ended(job: str, folder: Path, processes: int) -> list[int]:
    """Hand a job to the server and wait until its ranks have ended; return their exit codes."""
    sys.audit(PROCESSES)
    server = _server()
    assert server.stdin and server.stdout
    try:
        server.stdin.write(job)
        server.stdin.flush()
        ready, _, _ = select.select([server.stdout], [], [], _PATIENCE_S)
        assert ready and server.stdout.readline(), f"the ranks have not ended within {_PATIENCE_S} s"
    except BaseException:
        os.killpg(server.pid, signal.SIGKILL)
        _server.cache_clear()
        raise
    return [int((folder / f"{rank}.exit").read_text()) for rank in range(processes)]


@cache
def _server() -> subprocess.Popen[str]:
    """The server of this pytest process, from the first test that needs ranks to the end."""
    line = [sys.executable, "-m", "tests.support.rank_server"]
    pipe = subprocess.PIPE
    server = subprocess.Popen(line, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, start_new_session=True)

    def end() -> None:
        assert server.stdin
        server.stdin.close()
        server.wait()

    atexit.register(end)
    return server
