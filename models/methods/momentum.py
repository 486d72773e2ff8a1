"""What MoCo v2, ReSSL, MSVQ and CGH share: a student, a teacher that follows it, and a queue of the teacher's keys.

Each of them compares a student's view with the teacher's view of the same image over that queue. They differ in the
views, in how many teachers and queues there are, and in the loss; their own files say how.

In the authors' code the teacher moves at the start of a step, before the forward pass, towards the student that the
last optimizer step left. Here it moves at the end of a step (`after_step`). That is the same: the teacher starts as a
copy, so that the first move of theirs changes nothing, and every forward pass sees the same two networks.

B samples of this process, G samples of the global batch, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from models.distributed import gather, local_rows
from models.method import Embedding, Method
from models.methods.view_settings import ViewSettings, positive, share
from models.networks.backbone import Backbone
from models.networks.backbones import ResNet
from models.networks.heads import mlp
from models.networks.norm import forward_views, shuffled, views_can_join
from models.networks.teacher import Teacher
from models.options import option
from models.queue import KeyQueue, QueueSettings
from pipelines.plan.views import View


@dataclass(frozen=True)
class MomentumSettings(ViewSettings, QueueSettings):
    """What these methods add to a training recipe, and what of it makes no sense."""

    hidden: int = option(2048, "width of the head's hidden layer")
    dim: int = option(128, "width of the embedding")
    queue_size: int = option(4096, "keys kept in each queue")
    ema: float = option(0.99, "momentum of the teacher, per step")
    default_conv1: bool = option(False, "the first convolution starts at torch's default, the others at He's")

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(hidden=self.hidden, dim=self.dim, queue_size=self.queue_size)
        share(ema=self.ema)

    def weak(self, flip: float) -> View:
        """A teacher's view: crop and flip, no colours."""
        return View(self.crop_size, (self.crop_scale, 1.0), flip=flip)


class MomentumMethod(Method):
    """A student with a momentum teacher and aligned queues; subclasses say what they learn from them."""

    def __init__(self, student: nn.Module, settings: MomentumSettings, queues: int = 1) -> None:
        super().__init__()
        if settings.default_conv1:
            reset_first_convolution(cast(Backbone, student.backbone))
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
    """The student: a backbone with a head of two linear layers, biases, no batch norm."""
    return Embedding(backbone, mlp((backbone.dim, settings.hidden, settings.dim)))


def reset_first_convolution(backbone: Backbone) -> None:
    """Gives a ResNet's first convolution torch's default start: MSVQ's code puts it in after the others got He's."""
    if isinstance(backbone, ResNet):
        backbone.conv1.reset_parameters()


@torch.no_grad()
def shuffled_views(teacher: nn.Module, views: Sequence[Tensor], orders: Sequence[Tensor]) -> list[Tensor]:
    """The teacher's outputs for several views [B, 3, s, s], each from a batch that is shuffled over all processes.

    Each view has a shuffle and batch statistics of its own. One pass where every batch norm is a split one, which keeps
    the views apart; otherwise one pass for each view.

    Args:
        orders: a permutation [G] of the global batch for each view.
    """
    if not views_can_join(teacher):
        return [shuffled(teacher, view, order_G) for view, order_G in zip(views, orders, strict=True)]
    orders_G = [order_G.to(views[0].device, non_blocking=True) for order_G in orders]
    parts = [gather(view).index_select(0, local_rows(order_G)) for view, order_G in zip(views, orders_G, strict=True)]
    outputs_BD = forward_views(teacher, parts)
    return [
        gather(output_BD).index_select(0, local_rows(torch.argsort(order_G)))
        for output_BD, order_G in zip(outputs_BD, orders_G, strict=True)
    ]
