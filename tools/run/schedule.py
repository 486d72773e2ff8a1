"""When a run is kept, measured and shown: functions of its step, which tell a resumed run what it still owes."""

from __future__ import annotations

from dataclasses import dataclass

from tools.run.options import RunOptions


@dataclass(frozen=True)
class Schedule:
    """Attributes:
    steps_per_epoch: optimizer steps.
    last_step: of the run, inside an epoch or at the end of one.
    checkpoint_every: steps; 0: at the end of each epoch.
    knn_every: epochs; 0: only at the start and the end.
    images_every: epochs; 0: never.
    """

    steps_per_epoch: int
    last_step: int
    checkpoint_every: int
    knn_every: int
    images_every: int

    @staticmethod
    def of(options: RunOptions, steps_per_epoch: int, last_step: int) -> Schedule:
        """As train.py's options say."""
        return Schedule(steps_per_epoch, last_step, options.checkpoint_every, options.knn_every, options.images_every)

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends with this step, or the run inside one."""
        return step == self.last_step or step % self.steps_per_epoch == 0

    def checkpoint_due(self, step: int) -> bool:
        """Whether a checkpoint is due; the untrained network can be made again."""
        return step > 0 and (step == self.last_step or step % (self.checkpoint_every or self.steps_per_epoch) == 0)

    def eval_due(self, step: int) -> bool:
        """Whether features are measured: of the untrained network, then every so many epochs, and at the end."""
        return step == 0 or step >= self.last_step or self._every(self.knn_every, step)

    def images_due(self, step: int) -> bool:
        """Whether pictures are due: every so many epochs, and at the end."""
        return self.images_every > 0 and (step >= self.last_step or (step > 0 and self._every(self.images_every, step)))

    def _every(self, epochs: int, step: int) -> bool:
        return epochs > 0 and step % (epochs * self.steps_per_epoch) == 0
