"""MoCo v2: momentum contrast (He et al., arXiv 1911.05722) with the changes of Chen et al., arXiv 2003.04297.

The idea:
 - A query should find its own image's key among the keys of many other images.
 - Keys come from a teacher that follows the student slowly, so that old keys stay comparable with new ones.
 - Old keys wait in a queue: the number of negatives does not depend on the batch.
 - Version 2 adds a head with a hidden layer, blur, and a cosine learning rate.

    L = -log( e^{q.k/tau} / (e^{q.k/tau} + sum_{n in Q} e^{q.n/tau}) )

q is the student's embedding of one view, k the teacher's of another view of the same image, both from the same strong
augmentation. The loss is asymmetric: one query, one key, one backward pass. The teacher's batch is shuffled, so that a
key shares its batch statistics with other samples than its query does. The keys enter the queue Q after the loss.

Differences from the authors' code:
 - Batch statistics are those of 8 groups of the global batch, as on their 8 GPUs, for any number of processes.
 - The teacher moves after the step, not before the forward pass, which is equivalent (models/methods/momentum.py).
 - The queue is part of the checkpoint and takes any batch size.
 - The small-data rows are those of the experiments of MSVQ's authors, with one difference: their loss is symmetric
   (two backward passes); the published rows beside MSVQ's are of one pass, as here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from models.distributed import gather
from models.method import Losses
from models.methods.momentum import MomentumMethod, MomentumSettings, embedding
from models.networks.backbone import Backbone
from models.networks.norm import shuffled
from models.options import option
from models.relations import info_nce
from pipelines.batch import Batch


@dataclass(frozen=True)
class Settings(MomentumSettings):
    """The options that MoCo adds to a training recipe."""

    view_count: ClassVar[int] = 2

    temperature: float = option(0.2, "temperature tau of the contrastive loss", above=0)


class Moco(MomentumMethod):
    """One query, one key, one queue of negatives; the views are (query, key)."""

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        super().__init__(embedding(backbone, settings), settings)
        self.settings = settings
        self.views = settings.views(2)

    def forward(self, batch: Batch) -> Losses:
        query, key = batch.views
        query_BD = self.student(query)
        key_BD = shuffled(self.teacher, key, self.order(batch, ()))
        loss_B = info_nce(query_BD, key_BD, self.queue.live(), self.settings.temperature)
        self.queue.push(gather(key_BD))
        return Losses(loss_B.mean())
