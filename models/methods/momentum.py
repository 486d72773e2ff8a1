"""The base of MoCo v2, ReSSL, MSVQ and CGH: a student, a teacher that follows it, and a queue of the teacher's keys.

Each of them compares a student's view with the teacher's view of the same image over that queue. They differ in the
views, in the number of teachers and queues, and in the loss.

In the authors' code the teacher moves at the start of a step, before the forward pass, towards the student as the last
optimizer step made it. Here it moves at the end of a step (`after_step`). That is equivalent: the teacher starts as a
copy, so their first move changes nothing, and every forward pass sees the same two networks.

Shapes: B samples of this process, G samples of the global batch, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from models.distributed import gather, local_rows
from models.method import Embedding, Method
from models.methods.view_settings import ViewSettings
from models.networks.backbone import Backbone
from models.networks.heads import mlp
from models.networks.norm import forward_views, shuffled, views_can_join
from models.networks.teacher import Teacher
from models.options import option
from models.queue import KeyQueue, QueueSettings
from pipelines.plan.views import View


@dataclass(frozen=True)
class MomentumSettings(ViewSettings, QueueSettings):
    """The options that these methods add to a training recipe."""

    view_count: ClassVar[int] = 1

    hidden: int = option(2048, "width of the head's hidden layer", at_least=1)
    dim: int = option(128, "width of the embedding", at_least=1)
    queue_size: int = option(4096, "keys kept in each queue", at_least=1)
    ema: float = option(0.99, "momentum of the teacher, per step", at_least=0, at_most=1)

    def weak(self, flip: float) -> View:
        """Return a teacher's view: crop and flip, no colours."""
        return View(self.crop_size, (self.crop_scale, 1.0), flip=flip)


class MomentumMethod(Method):
    """A student with a momentum teacher and aligned queues; subclasses define the loss."""

    def __init__(self, student: nn.Module, settings: MomentumSettings, queues: int = 1) -> None:
        super().__init__()
        self.student = student
        self.teacher = Teacher(student)
        self.queue = KeyQueue(settings.queue_size, settings.dim, count=queues)
        self.ema = settings.ema

    def shuffle_keys(self, mixed: bool) -> tuple[tuple[int, ...], ...]:
        return ((),)

    def update_teachers(self, numbers: Mapping[str, float | Tensor]) -> None:
        self.teacher.update(self.student, self.ema)

    def encoder(self) -> Backbone:
        return cast(Backbone, self.student.backbone)


def embedding(backbone: Backbone, settings: MomentumSettings) -> Embedding:
    """Return the student: a backbone with a head of two linear layers with biases and without batch norm."""
    return Embedding(backbone, mlp((backbone.dim, settings.hidden, settings.dim)))


@torch.no_grad()
def shuffled_views(teacher: nn.Module, views: Sequence[Tensor], orders: Sequence[Tensor]) -> list[Tensor]:
    """Return the teacher's outputs for several views of one size, each from a batch shuffled over all processes.

    Each view has its own shuffle and its own batch statistics. It takes one forward pass where every batch norm can
    keep the views apart, otherwise one pass for each view.

    Args:
        views: [B, 3, s, s] each.
        orders: a permutation [G] int64 of the global batch for each view.
    """
    if not views_can_join(teacher):
        return [shuffled(teacher, view, order_G) for view, order_G in zip(views, orders, strict=True)]
    orders_G = [order_G.to(views[0].device, non_blocking=True) for order_G in orders]
    shuffled_B = [
        gather(view).index_select(0, local_rows(order_G)) for view, order_G in zip(views, orders_G, strict=True)
    ]
    outputs_BD = forward_views(teacher, shuffled_B)
    return [
        gather(output_BD).index_select(0, local_rows(torch.argsort(order_G)))
        for output_BD, order_G in zip(outputs_BD, orders_G, strict=True)
    ]
