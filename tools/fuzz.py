"""Harms images, data sets and checkpoints in every way that is known, and looks whether anything breaks.

    python -m tools.fuzz images --number 10000 --seed 1        # through conversion, and through each executor
    python -m tools.fuzz containers --number 2000 --seed 1     # data sets of every format, card, names, checkpoint
    python -m tools.fuzz images --seed 1 --case 137            # one case again, in a child process as before

The cases run in child processes with a limit of memory and of time for each. What may become of a case:

    refused                by one line          accepted unchanged   the harm did not touch what counts
    replaced               by grey, counted     accepted, as told    another content, where checking was turned off
                                                                     or the card was made to fit
    CRASH HANG MEMORY      what the names say   WRONG                taken as sound, and it is not
    LEAK                   memory or open files grew over the cases

Exit code 1 if any of the last five was met; then the harmed file is kept and the command that repeats it printed.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import IO, Any

from tools.command_line import OneLineParser, guarded_main

BAD = ("CRASH", "HANG", "MEMORY", "WRONG", "LEAK")
START_SECONDS = 180  # for a child to import its libraries, to make its data and to compile
LEAK_MEBIBYTES, LEAK_HANDLES = 300, 5  # growth of one child after its first cases


class Child:
    """One child process and the lines that it says."""

    def __init__(self, options: argparse.Namespace, folder: Path, start: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.errors = folder.with_suffix(".errors")
        words = [options.subject, folder, options.seed, start, options.stop, options.workers, options.memory]
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "tools.fuzzing.child", *map(str, words), options.loaders],
                stdout=subprocess.PIPE, stderr=errors, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        self._lines: queue.Queue[bytes] = queue.Queue()
        assert self.process.stdout is not None
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def _read(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            self._lines.put(line)
        self._lines.put(b"")

    def next(self, seconds: float) -> dict[str, Any] | None:
        """What it says next; None where it ended.

        Raises:
            TimeoutError: it said nothing for so long.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        found: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return found

    def end(self) -> str:
        """Ends it, and gives how it ended and its last words."""
        self.process.kill()
        code = self.process.wait()
        return f"exit code {code}\n{self.errors.read_bytes()[-3000:].decode('utf-8', 'replace')}"


class Fuzzing:
    """All cases, over some children; `counts` and `findings` hold what came of them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.counts: dict[str, Counter[str]] = {}
        self.findings: list[tuple[int, str, str, str]] = []
        self.cases = 0
        self.growth = 0.0
        self._deadline = time.monotonic() + options.seconds if options.seconds else float("inf")
        self._lock = threading.Lock()

    def run(self) -> None:
        workers = range(self.options.workers)
        threads = [threading.Thread(target=self._work, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, worker: int) -> None:
        start: int = self.options.start + worker
        while start < self.options.stop and time.monotonic() < self._deadline:
            start = self._with_child(Child(self.options, self.folder / f"child{worker}", start), start)

    def _with_child(self, child: Child, start: int) -> int:
        """Follows a child to its end; returns the case to go on with."""
        number: int | None = None
        first = start
        try:
            said = child.next(START_SECONDS)
            while said is not None:
                if "begin" in said:
                    number = said["begin"]
                elif "end" in said:
                    assert number is not None
                    self._count(number, said["outcomes"])
                    start, number = number + self.options.workers, None
                elif "memory" in said:
                    self._grown(said, start)
                if time.monotonic() > self._deadline:
                    return int(self.options.stop)
                patient = number in (None, first)  # its first case builds what the others use again
                said = child.next(START_SECONDS if patient else self.options.case_seconds)
        except TimeoutError:
            outcome, words = "HANG", child.end()
        else:
            if start >= self.options.stop:
                return start
            outcome, words = "CRASH", child.end()
        finally:
            child.end()
        if number is None:
            raise SystemExit(f"tools.fuzz: a child process ended before it tried case {start}: {words}")
        self._count(number, [("process", outcome, words)])
        return number + int(self.options.workers)

    def _grown(self, said: dict[str, Any], start: int) -> None:
        self.growth = max(self.growth, said["memory"])
        if said["memory"] > LEAK_MEBIBYTES or said["handles"] > LEAK_HANDLES:
            words = f"{said['memory']:.0f} MiB and {said['handles']} files more at the end than after the first cases"
            self.findings.append((start, "process", "LEAK", words))

    def _count(self, number: int, outcomes: list[Any]) -> None:
        with self._lock:
            self.cases += 1
            for stage, outcome, detail in outcomes:
                self.counts.setdefault(stage, Counter())[outcome] += 1
                if outcome in BAD:
                    self.findings.append((number, stage, outcome, detail))


def main(words: list[str] | None = None) -> int:
    return guarded_main("tools.fuzz", lambda: fuzz(_options(words)))


def fuzz(options: argparse.Namespace) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        fuzzing = Fuzzing(options, Path(folder))
        fuzzing.run()
        seconds = time.monotonic() - began
        print(
            f"{fuzzing.cases:,} mutated {options.subject} (seed {options.seed}, loaders {options.loaders}) "
            f"in {seconds:.0f} s; memory grew by {fuzzing.growth:.0f} MiB at most"
        )
        for stage, counter in sorted(fuzzing.counts.items()):
            print(f"  {stage}: " + ", ".join(f"{count:,} {outcome}" for outcome, count in counter.most_common()))
        for number, stage, outcome, detail in fuzzing.findings[:20]:
            print(f"{outcome} in {stage}, case {number}: {detail}")
            print(f"  kept in {keep(options, number, Path(folder) / 'kept')}; again with:")
            print(f"  python -m tools.fuzz {options.subject} --seed {options.seed} --case {number}")
    return int(bool(fuzzing.findings))


def keep(options: argparse.Namespace, number: int, scratch: Path) -> Path:
    """Writes the files of a case into the folder for findings."""
    from tools.fuzzing.child import cases

    kept: Path = options.keep / f"{options.subject}-{options.seed}-{number}"
    scratch.mkdir(exist_ok=True)
    for name, data in cases(options.subject, scratch, options.seed, ()).case(number):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(data)
    return kept


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="tools.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=["images", "containers"])
    parser.add_argument("--number", type=int, default=1000, metavar="N", help="cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of all cases (default: %(default)s)")
    parser.add_argument("--case", type=int, metavar="N", help="only this one")
    parser.add_argument("--seconds", type=float, default=0, metavar="T", help="stop after these (default: at the end)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="child processes (default: %(default)s)")
    parser.add_argument(
        "--memory", type=int, default=3072, metavar="MIB", help="of a case beyond its libraries (default: %(default)s)"
    )
    parser.add_argument(
        "--case-seconds", type=float, default=30, metavar="T", help="after which a case hangs (default: %(default)s)"
    )
    parser.add_argument(
        "--loaders", default=_installed(), metavar="A,B", help="executors to try (default: %(default)s)"
    )
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), metavar="FOLDER", help="for findings (default: %(default)s)"
    )
    options = parser.parse_args(words)
    options.start, options.stop = (0, options.number) if options.case is None else (options.case, options.case + 1)
    return options


def _installed() -> str:
    from pipelines.executors.choose import EXECUTORS  # here, because it imports torch

    return ",".join(spec.name for spec in EXECUTORS.values() if spec.installed())


if __name__ == "__main__":
    sys.exit(main())
