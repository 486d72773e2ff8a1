"""ReSSL: relational self-supervised learning (Zheng et al., NeurIPS 2021, arXiv 2107.09282).

The idea:
 - Images are not simply same or different: how an image relates to *many* others is worth learning.
 - A teacher gives the similarity of its view to each key of a queue; that distribution is the student's soft label.
 - The teacher sees a weak view (crop and flip) and is sharper than the student, so that its label can be trusted.
 - There are no positive and no negative pairs: the image's own key is not among the columns.

    p = softmax(t.Q / tau_t),  s = softmax(z.Q / tau_s),  L = -sum_{j in Q} p_j log s_j

z is the student's embedding of a strong view, t the teacher's of a weak view of the same image, Q the queue of earlier
t. The loss is not symmetric. The teacher's batch is shuffled. t enters Q after the loss.

Differences from the published code:
 - The teacher moves after the step, not before the forward pass, which is equivalent (models/methods/momentum.py).
 - The queue is part of the checkpoint and takes any batch size.
 - The small-data rows are those of the experiments of MSVQ's authors (split batch norm in 8 groups, weak views mirrored
   with probability 0.9); the ImageNet row is what CGH's code took over from ReSSL's.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.distributed import gather
from models.method import Losses
from models.methods.momentum import MomentumMethod, MomentumSettings, embedding
from models.networks.backbone import Backbone
from models.networks.norm import shuffled
from models.options import option
from models.relations import soft_label_cross_entropy
from pipelines.batch import Batch


@dataclass(frozen=True)
class Settings(MomentumSettings):
    """The options that ReSSL adds to a training recipe."""

    weak_flip: float = option(0.5, "probability of mirroring a weak view", at_least=0, at_most=1)
    student_temperature: float = option(0.1, "temperature of the student's relations", above=0)
    teacher_temperature: float = option(
        0.04, "temperature of the teacher's relations, which are sharper than the student's", above=0
    )


class Ressl(MomentumMethod):
    """A strong view learns the relations of a weak one; the views are (strong, weak)."""

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        super().__init__(embedding(backbone, settings), settings)
        self.settings = settings
        self.views = (*settings.views(1), settings.weak(settings.weak_flip))
        self.soft_label_temperatures = (settings.teacher_temperature,)

    def forward(self, batch: Batch) -> Losses:
        strong, weak = batch.views
        student_BD = self.student(strong)
        teacher_BD = shuffled(self.teacher, weak, self.order(batch, ()))
        loss_B = soft_label_cross_entropy(
            student_BD,
            teacher_BD,
            self.queue.live(),
            self.settings.student_temperature,
            self.settings.teacher_temperature,
        )
        self.queue.push(gather(teacher_BD))
        return Losses(loss_B.mean())
