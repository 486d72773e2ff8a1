"""SIGTERM and SIGINT ask a run to stop at the end of its step; a second one stops it at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

STOPPED = 143  # exit code of a run that a signal ended: 128 + SIGTERM
_WATCHED = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """A context in which the first signal only sets `received`."""

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._receive) for number in _WATCHED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
