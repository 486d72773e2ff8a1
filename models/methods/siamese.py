"""The base of BYOL, SimSiam and ICCL: each of two views predicts the target embedding of the other.

The targets come from a momentum teacher or, without one, are the network's own embeddings without gradient.

Shapes: B samples of this process, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from models.method import Embedding, Method
from models.methods.momentum import shuffled_views
from models.networks.backbone import Backbone
from models.networks.norm import forward_views
from models.networks.teacher import Teacher, cosine_momentum
from pipelines.batch import Batch
from pipelines.plan.views import View


class Outputs(NamedTuple):
    """Predictions p_1, p_2 (trained) and targets q_1, q_2 (without gradient), [B, D] each, not normalised."""

    first_BD: Tensor
    second_BD: Tensor
    target_first_BD: Tensor
    target_second_BD: Tensor


class Siamese(Method):
    """Two views, a student with a predictor, and a teacher if there is one.

    Args:
        projector: from pooled features to embeddings; the teacher has a copy.
        predictor: from embeddings to predictions; only the student has one.
        ema: the teacher's initial momentum; None for no teacher.
        ema_rises: whether the momentum rises to 1 along half a cosine; otherwise it stays.
        shuffle: whether the teacher's batches are shuffled, as in MoCo.
    """

    def __init__(
        self,
        backbone: Backbone,
        views: tuple[View, ...],
        projector: nn.Module,
        predictor: nn.Module,
        ema: float | None = None,
        ema_rises: bool = True,
        shuffle: bool = False,
    ) -> None:
        super().__init__()
        self.views = views
        self.student = Embedding(backbone, projector)
        self.predictor = predictor
        self.ema, self.ema_rises, self.shuffle = ema, ema_rises, shuffle
        self.teacher = None if ema is None else Teacher(self.student)

    def outputs(self, batch: Batch) -> Outputs:
        """Return predictions and targets of both views; batch statistics are per view, as in the authors' code."""
        embeddings = forward_views(self.student, batch.views)
        predictions = forward_views(self.predictor, embeddings)
        if self.teacher is None:
            targets = [embedding_BD.detach() for embedding_BD in embeddings]
        elif self.shuffle:
            orders = [self.order(batch, key) for key in self.shuffle_keys(mixed=False)]
            targets = shuffled_views(self.teacher, batch.views, orders)
        else:
            targets = forward_views(self.teacher, batch.views)
        return Outputs(*predictions, *targets)

    def shuffle_keys(self, mixed: bool) -> tuple[tuple[int, ...], ...]:
        return ((0,), (1,)) if self.shuffle else ()

    def schedule(self, step: int) -> dict[str, float]:
        """Return the share of its distance to the student that the teacher moves after this step."""
        if self.ema is None:
            return {}
        if not self.ema_rises:
            return {"teacher_share": 1 - self.ema}
        # Steps are counted from 1 here, as in ICCL's published code: the last one does not move the teacher.
        return {"teacher_share": 1 - cosine_momentum(step + 1, self.total_steps, self.ema)}

    def update_teachers(self, numbers: Mapping[str, float | Tensor]) -> None:
        if self.teacher is not None:
            self.teacher.follow(self.student, numbers["teacher_share"])

    def encoder(self) -> Backbone:
        return self.student.backbone
