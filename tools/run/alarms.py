"""Warns about a run that goes wrong without failing: a loss that jumps, or a queue whose keys are all alike.

    loss spike    A logged loss is more than 10 robust standard deviations above the median of the last 50 logged ones.
                  A robust standard deviation is 1.4826 times the median absolute deviation, which equals the standard
                  deviation for normal noise; it is taken to be at least 1 % of the median. Tested from 20 losses on,
                  and reported once for each spike.
    dead queue    The mean cosine between the keys of a full queue is above 0.99, so that its negatives carry no
                  information.

The recent losses are part of the run's state, so that a resumed run warns exactly where an undisturbed one does.
"""

from __future__ import annotations

import statistics

from models.method import Method
from models.queue import KeyQueue
from tools.run.state import RunState

WINDOW = 50  # the number of recent losses
JUDGED_FROM = 20  # the number of losses from which on a loss can be a spike
DEVIATIONS = 10.0  # robust standard deviations above the median
LEAST_SHARE = 0.01  # the smallest standard deviation, as a share of the median
DEAD_COSINE = 0.99


class Alarms:
    """Tests each logged step.

    Args:
        method: the method whose queues are tested.
        state: the state of the run; it remembers the recent losses.
    """

    def __init__(self, method: Method, state: RunState) -> None:
        self._queues = {name: module for name, module in method.named_modules() if isinstance(module, KeyQueue)}
        self._state = state
        self._dead: set[str] = set()

    def check(self, loss: float) -> tuple[dict[str, float], list[str]]:
        """Test a step.

        Returns:
            Fields for the step's row of metrics and lines to show; both are empty if there is nothing to report.
        """
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
    """Return by how many robust standard deviations a loss exceeds the median of recent ones; 0 if they are too few."""
    if len(recent) < JUDGED_FROM:
        return 0.0
    median = statistics.median(recent)
    scatter = 1.4826 * statistics.median(abs(value - median) for value in recent)
    return (loss - median) / max(scatter, LEAST_SHARE * abs(median), 1e-12)
