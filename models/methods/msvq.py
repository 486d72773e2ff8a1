"""MSVQ: multiple sample views and queues (Peng, Long, Li; Knowledge-Based Systems 283, 2024; arXiv 2305.05370).

The idea:
 - ReSSL's soft label comes from one weak view and one teacher. A single label may be wrong about other images.
 - Two teachers follow the student at different speeds, each with a queue of its own keys.
 - Three weak views, two for the slow teacher and one for the fast one, give three soft labels of the same image.
 - One strong view learns all three; their errors average out.

    H(p, s) = -sum_{j in Q} p_j log s_j
    L = 1/3 [ H(p2, s1) + H(p3, s1) + H(p4, s2) ]
    p2, p3 = softmax(z2.Q1 / tau_t), softmax(z3.Q1 / tau_t)   teacher 1 on views 2 and 3, over its queue
    p4     = softmax(z4.Q2 / tau_t)                           teacher 2 on view 4, over its queue
    s1, s2 = softmax(z1.Q1 / tau_s), softmax(z1.Q2 / tau_s)   the student on the strong view, over both

Each teacher batch is shuffled on its own; batch statistics are those of 8 interleaved groups. After the loss z2 enters
Q1 and z4 enters Q2; z3 enters none. The paper's figure shows a KL divergence, the code a cross-entropy: their gradients
are the same.

Differences from the published code:
 - Teachers move after the step, not before the forward pass, which is equivalent (models/methods/momentum.py).
 - Queues are part of the checkpoint (theirs are lost on a resume), take any batch size, and hold normalised keys
   (theirs are normalised when read: the same relations).
 - Both views of teacher 1 take one forward pass, each with the statistics of its own groups. Its running statistics,
   which nothing reads, then make one step where the code makes two.
 - Several processes gather the keys and shuffle over all of them; the published code supports one GPU only.

Shapes: B batch, D embedding, K queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.distributed import gather
from models.method import Losses
from models.methods.momentum import MomentumMethod, MomentumSettings, embedding, shuffled_views
from models.networks.backbone import Backbone
from models.networks.norm import shuffled
from models.networks.teacher import Teacher
from models.options import option
from models.relations import soft_label_cross_entropy
from pipelines.batch import Batch


@dataclass(frozen=True)
class Settings(MomentumSettings):
    """The options that MSVQ adds to a training recipe; `ema` is that of teacher 1."""

    second_ema: float = option(0.95, "momentum of the second teacher, per step", at_least=0, at_most=1)
    weak_flip: float = option(0.9, "probability of mirroring a weak view", at_least=0, at_most=1)
    student_temperature: float = option(0.1, "temperature of the student's relations", above=0)
    teacher_temperature: float = option(
        0.04, "temperature of both teachers' relations, which are sharper than the student's", above=0
    )


def three_soft_labels(
    student_BD: Tensor,
    first_teacher_BD: tuple[Tensor, Tensor],
    second_teacher_BD: Tensor,
    first_queue_KD: Tensor,
    second_queue_KD: Tensor,
    student_temperature: float,
    teacher_temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return MSVQ's three cross-entropies (arXiv 2305.05370), whose mean is the loss.

    Args:
        student_BD: z1, the only input that gets a gradient.
        first_teacher_BD: z2 and z3, related to the first queue.
        second_teacher_BD: z4, related to the second queue.

    Returns:
        H(p2, s1), H(p3, s1) and H(p4, s2), [B] each, in nats.
    """
    views_2BD = torch.stack(first_teacher_BD)  # both views relate to the same queue: one pass over it
    second_B, third_B = soft_label_cross_entropy(
        student_BD, views_2BD, first_queue_KD, student_temperature, teacher_temperature
    ).unbind()
    fourth_B = soft_label_cross_entropy(
        student_BD, second_teacher_BD, second_queue_KD, student_temperature, teacher_temperature
    )
    return second_B, third_B, fourth_B


class Msvq(MomentumMethod):
    """Two teachers with a queue each; the views are (strong, weak, weak, weak)."""

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        # Both queues take a batch in the same step, so one pointer serves both; their rows are never compared.
        super().__init__(embedding(backbone, settings), settings, queues=2)
        self.settings = settings
        self.second_teacher = Teacher(self.student)
        self.views = (*settings.views(1), *[settings.weak(settings.weak_flip)] * 3)
        self.soft_label_temperatures = (settings.teacher_temperature,) * 2

    def forward(self, batch: Batch) -> Losses:
        strong, second, third, fourth = batch.views
        student_BD = self.student(strong)
        second_BD, third_BD = shuffled_views(
            self.teacher, (second, third), [self.order(batch, (2,)), self.order(batch, (3,))]
        )
        fourth_BD = shuffled(self.second_teacher, fourth, self.order(batch, (4,)))
        losses_B = three_soft_labels(
            student_BD,
            (second_BD, third_BD),
            fourth_BD,
            self.queue.live(0),
            self.queue.live(1),
            self.settings.student_temperature,
            self.settings.teacher_temperature,
        )
        total = torch.stack(losses_B).mean()
        self.queue.push(gather(second_BD), gather(fourth_BD))
        names = ("teacher1_view2", "teacher1_view3", "teacher2_view4")
        return Losses(total, {name: loss_B.detach().mean() for name, loss_B in zip(names, losses_B, strict=True)})

    def shuffle_keys(self, mixed: bool) -> tuple[tuple[int, ...], ...]:
        return (2,), (3,), (4,)  # the numbers of the teachers' views

    def update_teachers(self, numbers: Mapping[str, float | Tensor]) -> None:
        super().update_teachers(numbers)
        self.second_teacher.update(self.student, self.settings.second_ema)
