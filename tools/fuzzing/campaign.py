"""Runs fuzzing cases in child processes, restarts a child that dies or hangs, and counts what became of each case."""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import IO, Any

BAD = ("CRASH", "HANG", "MEMORY", "WRONG", "LEAK")  # the outcomes that are findings
START_SECONDS = 180  # the longest that a child may take to import its libraries, make its data and compile
LEAK_MEBIBYTES, LEAK_HANDLES = 300, 5  # growth of a child after its first cases from which on it is a leak


class Child:
    """A child process (`tools.fuzzing.child`) and a queue of the JSON messages that it prints.

    Args:
        options: the options of `tools.fuzz`.
        folder: the child's folder for temporary files; its errors go to FOLDER.errors.
        start: the first case that it runs.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, start: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.errors = folder.with_suffix(".errors")
        words = [options.subject, folder, options.seed, start, options.stop, options.workers, options.memory]
        command = [sys.executable, "-X", "faulthandler", "-m", "tools.fuzzing.child", *map(str, words), options.loaders]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
        self._lines: queue.Queue[bytes] = queue.Queue()
        assert self.process.stdout is not None
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def _read(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            self._lines.put(line)
        self._lines.put(b"")

    def next_message(self, seconds: float) -> dict[str, Any] | None:
        """Wait for the child's next message; return None if the child has ended.

        Raises:
            TimeoutError: no message came within so many seconds.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        message: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return message

    def end(self) -> str:
        """Kill the child, and return its exit code and the end of its error output."""
        self.process.kill()
        code = self.process.wait()
        return f"exit code {code}\n{self.errors.read_bytes()[-3000:].decode('utf-8', 'replace')}"


class Campaign:
    """All cases of one call of `tools.fuzz`, spread over several children.

    Args:
        options: the options of `tools.fuzz`.
        folder: a folder for temporary files.

    Attributes:
        cases: the number of cases that have been tried.
        counts: for each stage, how often each outcome was met.
        findings: (case, stage, outcome, details) for every bad outcome.
        growth: the largest growth of a child's memory after its first cases, in MiB.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.counts: dict[str, Counter[str]] = {}
        self.findings: list[tuple[int, str, str, str]] = []
        self.cases = 0
        self.growth = 0.0
        self._deadline = time.monotonic() + options.seconds if options.seconds else float("inf")
        self._lock = threading.Lock()

    def run(self) -> None:
        """Try all cases, or as many as the time allows. Worker w of W has the cases w, w + W, w + 2 W, ..."""
        threads = [threading.Thread(target=self._work, args=(worker,)) for worker in range(self.options.workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, worker: int) -> None:
        start: int = self.options.start + worker
        while start < self.options.stop and time.monotonic() < self._deadline:
            start = self._follow(Child(self.options, self.folder / f"child{worker}", start), start)

    def _follow(self, child: Child, start: int) -> int:
        """Follow a child until it ends, and return the case that the next child starts with."""
        running: int | None = None  # the case that the child has begun and not ended
        first = start
        try:
            message = child.next_message(START_SECONDS)
            while message is not None:
                if "begin" in message:
                    running = message["begin"]
                elif "end" in message:
                    assert running is not None
                    self._count(running, message["outcomes"])
                    start, running = running + self.options.workers, None
                elif "memory" in message:
                    self._check_growth(message, start)
                if time.monotonic() > self._deadline:
                    return int(self.options.stop)
                slow = running in (None, first)  # the first case creates what later ones use again
                message = child.next_message(START_SECONDS if slow else self.options.case_seconds)
        except TimeoutError:
            outcome, details = "HANG", child.end()
        else:
            if start >= self.options.stop:
                return start
            outcome, details = "CRASH", child.end()
        finally:
            child.end()
        if running is None:
            raise SystemExit(f"tools.fuzz: a child process ended before it tried case {start}: {details}")
        self._count(running, [("process", outcome, details)])
        return running + int(self.options.workers)

    def _check_growth(self, message: dict[str, Any], start: int) -> None:
        self.growth = max(self.growth, message["memory"])
        if message["memory"] > LEAK_MEBIBYTES or message["handles"] > LEAK_HANDLES:
            grown = f"{message['memory']:.0f} MiB and {message['handles']} open files"
            self.findings.append((start, "process", "LEAK", f"{grown} more at the end than after the first cases"))

    def _count(self, case: int, outcomes: list[Any]) -> None:
        with self._lock:
            self.cases += 1
            for stage, outcome, details in outcomes:
                self.counts.setdefault(stage, Counter())[outcome] += 1
                if outcome in BAD:
                    self.findings.append((case, stage, outcome, details))
