"""Warnings about a run that goes wrong slowly: a loss that jumps, a queue whose keys have become one.

    loss spike    a logged loss that lies above the median of the last 50 logged ones by more than 10 times their
                  median absolute deviation (times 1.4826: a standard deviation, for normal noise), or than 10 % of
                  the median where they scatter less; judged from 20 losses on, told once for each jump
    dead queue    the mean cosine of a full queue's keys to each other is above 0.99: negatives that say nothing

The losses that the rule looks at are part of the run's state: a resumed run warns where an undisturbed one does.
"""

from __future__ import annotations

import statistics

from models.method import Method
from models.queue import KeyQueue
from tools.run.state import RunState

WINDOW, JUDGED_FROM, DEVIATIONS, LEAST_SHARE = 50, 20, 10.0, 0.01
DEAD_COSINE = 0.99


class Alarms:
    """Looks at each logged step; what it finds goes into the row of metrics and onto the screen.

    Args:
        method: whose queues are looked at.
        state: of the run; remembers the losses of the window.
    """

    def __init__(self, method: Method, state: RunState) -> None:
        self._queues = {name: module for name, module in method.named_modules() if isinstance(module, KeyQueue)}
        self._state = state
        self._dead: set[str] = set()

    def check(self, loss: float) -> tuple[dict[str, float], list[str]]:
        """(fields for the row, lines to show) of this step; both empty as long as all is well."""
        fields: dict[str, float] = {}
        lines: list[str] = []
        recent = self._state.recent_losses
        jump = deviations(loss, recent)
        if jump > DEVIATIONS:
            fields["loss_spike"] = round(jump, 1)
            if not self._state.in_spike:
                lines.append(f"WARNING: the loss jumped to {loss:.4f}, {jump:.0f} deviations above its median")
        self._state.recent_losses, self._state.in_spike = [*recent, loss][-WINDOW:], jump > DEVIATIONS
        for name, queue in self._queues.items():
            if (cosine := queue.mean_cosine()) > DEAD_COSINE:
                fields["queue_cosine"] = round(max(cosine, fields.get("queue_cosine", 0.0)), 4)
                if name not in self._dead:
                    lines.append(f"WARNING: the keys in {name} are nearly one (mean cosine {cosine:.4f}): collapsed")
                self._dead.add(name)
            else:
                self._dead.discard(name)
        return fields, lines


def deviations(loss: float, recent: list[float]) -> float:
    """How far a loss lies above the median of recent ones, in robust standard deviations; 0 before there are enough."""
    if len(recent) < JUDGED_FROM:
        return 0.0
    median = statistics.median(recent)
    scatter = 1.4826 * statistics.median(abs(value - median) for value in recent)
    return (loss - median) / max(scatter, LEAST_SHARE * abs(median), 1e-12)
