"""The interface that every method implements and the training loop calls.

`views` says which views the pipeline must make, `forward` turns a batch into a loss (inside DDP), `after_step` updates
what follows the weights (teachers, schedules), and `before_epoch` lets a method use features of the whole data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from models.distributed import world
from models.networks.backbone import Backbone
from models.networks.norm import batch_permutation
from models.search.sharded_features import LocalFeatures
from pipelines.batch import Batch
from pipelines.plan.pairing import Pairing
from pipelines.plan.views import View

#: Returns this process's share of the data set's pooled features, from an evaluation pass of the given network.
Extract = Callable[[nn.Module], LocalFeatures]


@dataclass(frozen=True)
class Losses:
    """A step's scalar loss, and its named terms (detached scalars) for the log."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class Embedding(nn.Module):
    """A backbone and the head that is trained with it: images [B, 3, s, s] to embeddings [B, D], not normalised."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.head(self.backbone(images).pooled)
        return embedding


class Method(nn.Module):
    """A self-supervised method: the student, everything else that it trains with, and its loss.

    Attributes:
        views: the views that the pipeline makes of every image, in the order of `Batch.views`.
        pairing: the partners that the plan draws from, or None; kept in checkpoints.
        constant_lr: prefixes of names of parameters whose learning rate stays at its peak.
        soft_label_temperatures: temperatures of the teacher's relations to each queue, for the quality monitor.
        mixes: whether some batches of the run have partners.
        step: the number of optimizer steps done.
        steps_per_epoch, total_steps: the length of the training in optimizer steps.
    """

    views: tuple[View, ...]
    pairing: Pairing | None = None
    constant_lr: tuple[str, ...] = ()
    soft_label_temperatures: tuple[float, ...] = ()
    mixes = False
    step = 0
    steps_per_epoch = 1
    total_steps = 1

    def begin(self, step: int, steps_per_epoch: int, epochs: int) -> None:
        """Set the length of the training; called once before it starts, at step 0 or at the step of a resumed run."""
        self.step, self.steps_per_epoch, self.total_steps = step, steps_per_epoch, steps_per_epoch * epochs

    def forward(self, batch: Batch) -> Losses:
        """Return the loss of this process's batch; runs inside DDP and gathers what the processes must share."""
        raise NotImplementedError

    def kind(self, step: int) -> str:
        """Return the name of the computation that optimizer step `step` makes.

        Steps of one kind differ in their tensors and scheduled numbers only: a recorded step is recorded once for each
        kind. A method whose `forward` branches on the step has a kind for each branch.
        """
        return "step"

    def kinds(self, first_step: int) -> dict[str, int]:
        """Return every kind of step from `first_step` to the end of the run, with a step of that kind."""
        return {self.kind(first_step): first_step}

    def schedule(self, step: int) -> dict[str, float]:
        """Return the scheduled numbers that `forward` and `update_teachers` read in optimizer step `step`, by name."""
        return {}

    def shuffle_keys(self, mixed: bool) -> tuple[tuple[int, ...], ...]:
        """Return the keys of the permutations that `forward` shuffles teachers' batches by.

        Args:
            mixed: whether the batch has partners.
        """
        return ()

    def order(self, batch: Batch, key: tuple[int, ...]) -> Tensor:
        """Return the permutation [G] of the global batch for a key: the batch's own, or one drawn from its seed."""
        if batch.orders:
            return batch.orders[self.shuffle_keys(batch.partner is not None).index(key)]
        return batch_permutation(len(batch.index) * world()[1], batch.seed, *key)

    def number(self, batch: Batch, name: str) -> float | Tensor:
        """Return a scheduled number of this step: the batch's own, or what the schedule says."""
        return batch.numbers[name] if batch.numbers else self.schedule(self.step)[name]

    def update_teachers(self, numbers: Mapping[str, float | Tensor]) -> None:
        """Move the teachers towards the student, after the optimizer's step.

        Args:
            numbers: the scheduled numbers of this step.
        """

    def after_step(self, step: int) -> None:
        """Update what follows the weights, after optimizer step `step` (from 0), and go on to the next step."""
        self.update_teachers(self.schedule(step))
        self.step = step + 1

    def before_epoch(self, epoch: int, extract: Extract) -> None:
        """Prepare an epoch where a method needs features of the whole data set (CLIM renews `pairing`).

        Args:
            extract: returns this process's share of the data set's pooled features of a network, in evaluation mode.
        """

    def encoder(self) -> Backbone:
        """Return the trained backbone, which evaluation and export use."""
        raise NotImplementedError
