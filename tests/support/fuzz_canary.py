"""Cases that do what fuzzing must notice; each number its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

kept: list[object] = []


class Canary:
    def __init__(self, folder: Path, seed: int, loaders: tuple[str, ...]) -> None:
        pass

    def case(self, number: int) -> list[tuple[str, bytes]]:
        return [("case", b"%d" % number)]

    def run(self, number: int) -> list[tuple[str, str, str]]:
        if number == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 3:
            time.sleep(60)
        if number == 5:
            bytearray(1 << 30)
        if number == 7:
            raise KeyError("unexpected")
        if number == 9:
            os._exit(0)
        return [("canary", "WRONG" if number == 8 else "refused", f"case {number}")]


class Leak(Canary):
    def run(self, number: int) -> list[tuple[str, str, str]]:
        kept.append(open(os.devnull))  # noqa: SIM115
        return [("canary", "refused", "")]
