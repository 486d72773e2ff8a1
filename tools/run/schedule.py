"""When a run saves, evaluates and shows pictures: functions of its step alone, so that a resumed run does the same."""

from __future__ import annotations

from dataclasses import dataclass

from tools.run.options import RunOptions


@dataclass(frozen=True)
class Schedule:
    """What is due at which step.

    Attributes:
        steps_per_epoch: the number of optimizer steps of an epoch.
        last_step: the step with which the run ends, within an epoch or at its end.
        checkpoint_every: steps between checkpoints; 0: at the end of each epoch.
        knn_every: epochs between evaluations; 0: only before the first step and after the last.
        images_every: epochs between pictures; 0: never.
    """

    steps_per_epoch: int
    last_step: int
    checkpoint_every: int
    knn_every: int
    images_every: int

    @staticmethod
    def of(options: RunOptions, steps_per_epoch: int, last_step: int) -> Schedule:
        """Return the schedule that train.py's options ask for."""
        return Schedule(steps_per_epoch, last_step, options.checkpoint_every, options.knn_every, options.images_every)

    def ends_epoch(self, step: int) -> bool:
        """Return whether an epoch, or the run within an epoch, ends with this step."""
        return step == self.last_step or step % self.steps_per_epoch == 0

    def checkpoint_due(self, step: int) -> bool:
        """Return whether a checkpoint is due. Step 0 needs none, because the seed restores the untrained network."""
        return step > 0 and (step == self.last_step or step % (self.checkpoint_every or self.steps_per_epoch) == 0)

    def eval_due(self, step: int) -> bool:
        """Return whether an evaluation is due: of the untrained network, every `knn_every` epochs, and at the end."""
        return step == 0 or step >= self.last_step or self._every(self.knn_every, step)

    def images_due(self, step: int) -> bool:
        """Return whether pictures are due: every `images_every` epochs and at the end."""
        return self.images_every > 0 and (step >= self.last_step or (step > 0 and self._every(self.images_every, step)))

    def _every(self, epochs: int, step: int) -> bool:
        return epochs > 0 and step % (epochs * self.steps_per_epoch) == 0
