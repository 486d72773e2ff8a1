"""Warns about a run that goes wrong without failing: a loss that jumps, keys or features that are all alike.

    loss spike    A logged loss is more than 10 robust standard deviations above the median of the last 50 logged ones.
                  A robust standard deviation is 1.4826 times the median absolute deviation, which equals the standard
                  deviation for normal noise; it is taken to be at least 1 % of the median. Tested from 20 losses on,
                  and reported once for each spike.
    dead queue    The mean cosine between the keys of a full queue is above 0.99, so that its negatives carry no
                  information.

    collapse      The features of measured images are nearly one vector: their effective rank (from 1 to their width)
                  is below 1.5, or, once training has begun, their spread (from 0 to 1) is below 0.01. Tested where the
                  quality of the features is measured, and reported once until it ends.

The recent losses are part of the run's state, so that a resumed run warns exactly where an undisturbed one does.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from models.method import Method
from models.queue import KeyQueue
from tools.run.state import RunState

WINDOW = 50  # the number of recent losses
JUDGED_FROM = 20  # the number of losses from which on a loss can be a spike
DEVIATIONS = 10.0  # robust standard deviations above the median
LEAST_SHARE = 0.01  # the smallest standard deviation, as a share of the median
DEAD_COSINE = 0.99
ONE_DIRECTION = 1.5  # effective rank; an untrained network has 4 and more even on images of one colour
NO_SPREAD = 0.01


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
        self._collapsed = False

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

    def check_features(self, row: Mapping[str, Any]) -> list[str]:
        """Test a row of the quality monitor; return lines to show.

        Args:
            row: with `feature_rank` and `feature_spread`.
        """
        rank, spread, before = row["feature_rank"], row["feature_spread"], self._collapsed
        untrained = self._state.step == 0
        self._collapsed = rank < ONE_DIRECTION or (spread < NO_SPREAD and not untrained)
        if not self._collapsed or before:
            return []
        cause = "look at the images (tools.preview views) and at each channel's deviation (tools.doctor --data FILE)"
        when = "before training, " if untrained else ""
        return [
            f"WARNING: {when}the features of all images are nearly the same (effective rank {rank:.2f}, where 1 is "
            f"one direction; spread {spread:.4f}, where 0 is one vector): collapsed; {cause}"
        ]


def deviations(loss: float, recent: list[float]) -> float:
    """Return by how many robust standard deviations a loss exceeds the median of recent ones; 0 if they are too few."""
    if len(recent) < JUDGED_FROM:
        return 0.0
    median = statistics.median(recent)
    scatter = 1.4826 * statistics.median(abs(value - median) for value in recent)
    return (loss - median) / max(scatter, LEAST_SHARE * abs(median), 1e-12)
