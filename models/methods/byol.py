"""BYOL: bootstrap your own latent (Grill et al.; NeurIPS 2020, arXiv 2006.07733).

The idea:
 - Two views of an image, a student, a slowly following teacher, and no negatives at all.
 - From one view, the student's predictor predicts the teacher's embedding of the other view.
 - The predictor, the stopped gradient and the slow teacher together prevent a collapse to a constant.
 - The teacher's momentum rises to 1 over the training (`ema_rises`).

    L = |n(p_1) - n(q_2)|^2 + |n(p_2) - n(q_1)|^2        (means over the batch; n: L2 normalisation; 0 to 8)
    momentum(t) = 1 - (1 - m_0) (cos(pi t / T) + 1) / 2

p_v = predictor(student(x_v)), q_v = teacher(x_v). The heads' batch norms use the statistics of the global batch.

The rows for small images are those of Benchmark-Methods-For-MNN, in which MSVQ's authors ran BYOL: the momentum stays,
the loss is the mean of both directions, the last layers have biases, and the teacher's batch is shuffled.

Differences from the authors' code (JAX), and why:
 - Steps t are counted from 1, so that the last update has momentum 1 exactly: a difference of one step in T.
 - The recipe's `decay_norm_and_bias` decides whether biases and norm gains get weight decay and LARS scaling.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from models.losses.cosine import squared_distance
from models.method import Losses
from models.methods.siamese import Siamese
from models.methods.view_settings import ViewSettings
from models.networks.backbone import Backbone
from models.networks.heads import mlp
from models.networks.sync_norm import SyncBatchNorm1d
from models.options import option
from pipelines.batch import Batch


@dataclass(frozen=True)
class Settings(ViewSettings):
    """The options that BYOL adds to a training recipe."""

    hidden: int = option(4096, "hidden width of projector and predictor", at_least=1)
    dim: int = option(256, "width of the embedding", at_least=1)
    ema: float = option(0.996, "initial momentum of the teacher, per step; see --ema-rises", at_least=0, at_most=1)
    ema_rises: bool = option(True, "rise of the teacher's momentum to 1 along half a cosine")
    loss_scale: float = option(
        1.0, "factor of the sum of both directions' losses; 0.5 takes their mean, as MSVQ's authors do", above=0
    )
    last_bias: bool = option(False, "bias of the last layer of projector and predictor")
    shuffle: bool = option(False, "shuffled batches for the teacher, as in MoCo")


class Byol(Siamese):
    """Each view's prediction follows the teacher's embedding of the other view."""

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        def head(inputs: int) -> nn.Sequential:
            dims = (inputs, settings.hidden, settings.dim)
            return mlp(dims, batch_norm=True, last_bias=settings.last_bias, norm=SyncBatchNorm1d)

        projector, predictor = head(backbone.dim), head(settings.dim)
        views, rises, shuffle = settings.views(2), settings.ema_rises, settings.shuffle
        super().__init__(backbone, views, projector, predictor, settings.ema, rises, shuffle)
        self.settings = settings

    def forward(self, batch: Batch) -> Losses:
        out = self.outputs(batch)
        first = squared_distance(out.first_BD, out.target_second_BD)
        return Losses(self.settings.loss_scale * (first + squared_distance(out.second_BD, out.target_first_BD)))
