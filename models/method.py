"""The interface that every method implements and the loop drives.

Data flows one way: `views` tells the pipeline what to make, `forward` turns a batch into a loss (inside DDP),
`after_step` moves what follows the weights (teachers, schedules), `before_epoch` looks at the whole data set
where a method needs that.
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

#: This process's part of the data set's pooled features, from an evaluation pass of the given network.
Extract = Callable[[nn.Module], LocalFeatures]


@dataclass(frozen=True)
class Losses:
    """A step's scalar loss, and its named parts (detached scalars) for the log."""

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
    """A self-supervised method: student, whatever else it trains with, and its loss."""

    views: tuple[View, ...]
    pairing: Pairing | None = None  # partners that the plan draws from; kept in checkpoints
    constant_lr: tuple[str, ...] = ()  # beginnings of parameter names whose learning rate stays at its peak
    soft_label_temperatures: tuple[float, ...] = ()  # of the teacher's relations to each queue, for the monitor
    mixes = False  # whether some batches have partners
    step = 0  # optimizer steps done
    steps_per_epoch = 1
    total_steps = 1

    def begin(self, step: int, steps_per_epoch: int, epochs: int) -> None:
        """Called once before training, at step 0 or where a run resumes: for schedules of the method's own."""
        self.step, self.steps_per_epoch, self.total_steps = step, steps_per_epoch, steps_per_epoch * epochs

    def forward(self, batch: Batch) -> Losses:
        """The loss of one batch of this process; runs inside DDP, gathers over processes what the method shares."""
        raise NotImplementedError

    def kind(self, step: int) -> str:
        """Which computation optimizer step `step` is. Steps of one kind differ in tensors and scheduled numbers only.

        A recorded step is recorded once for each kind, so whatever branches on the step in `forward` gives a kind.
        """
        return "step"

    def kinds(self, first_step: int) -> dict[str, int]:
        """Every kind of step from `first_step` to the end of the run, and the first step of that kind."""
        return {self.kind(first_step): first_step}

    def schedule(self, step: int) -> dict[str, float]:
        """The scheduled numbers of optimizer step `step` that `forward` and `update_teachers` read; most have none."""
        return {}

    def shuffle_keys(self, mixed: bool) -> tuple[tuple[int, ...], ...]:
        """The keys of the permutations that `forward` shuffles teachers' batches by, in the order of their use.

        Args:
            mixed: whether the batch has partners.
        """
        return ()

    def order(self, batch: Batch, key: tuple[int, ...]) -> Tensor:
        """The permutation [G] of the global batch that belongs to a key: the batch's, or drawn from its seed."""
        if batch.orders:
            return batch.orders[self.shuffle_keys(batch.partner is not None).index(key)]
        return batch_permutation(len(batch.index) * world()[1], batch.seed, *key)

    def number(self, batch: Batch, name: str) -> float | Tensor:
        """A scheduled number of this step: the batch's, or where it has none, what the schedule says."""
        return batch.numbers[name] if batch.numbers else self.schedule(self.step)[name]

    def update_teachers(self, numbers: Mapping[str, float | Tensor]) -> None:
        """Moves whatever follows the student, after the optimizer's step; most methods with a teacher override it.

        Args:
            numbers: those of `schedule` for this step.
        """

    def after_step(self, step: int) -> None:
        """Called once after optimizer step `step` (from 0): teachers follow, and the next step begins."""
        self.update_teachers(self.schedule(step))
        self.step = step + 1

    def before_epoch(self, epoch: int, extract: Extract) -> None:
        """Called before each epoch, for what looks at the whole data set (CLIM renews `pairing`); most do nothing."""

    def encoder(self) -> Backbone:
        """The trained backbone: what evaluation and export use."""
        raise NotImplementedError
