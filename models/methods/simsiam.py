"""SimSiam: simple Siamese representation learning (Chen, He; CVPR 2021, arXiv 2011.10566).

The idea:
 - BYOL without a teacher: one network sees both views, and one side of each comparison gets no gradient.
 - A predictor on the other side and that stopped gradient are enough to prevent collapse; no negatives, no queue.
 - The predictor keeps the peak learning rate while the rest follows the cosine, to adapt to the latest embeddings z.

    L = -1/2 [ cos(p_1, stop z_2) + cos(p_2, stop z_1) ]        (means over the batch; -1 to 1)

z_v = projector(backbone(x_v)), p_v = predictor(z_v). The heads' batch norms use the statistics of the global batch.

Differences from the authors' code, and why:
 - The projector's last linear layer has no bias: the published one has a frozen bias, which its batch norm cancels.
 - The projector's hidden width is an option: the code takes the backbone's (2048), and narrow networks have less.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.losses.cosine import negative_cosine
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
    """The options that SimSiam adds to a training recipe."""

    layers: int = option(3, "linear layers of the projector: 3, or 2 as in the paper's CIFAR-10 network", at_least=1)
    hidden: int = option(2048, "hidden width of the projector", at_least=1)
    dim: int = option(2048, "width of the embedding", at_least=1)
    predictor_hidden: int = option(512, "hidden width of the predictor", at_least=1)


class SimSiam(Siamese):
    """Each view's prediction follows the network's own embedding of the other view."""

    constant_lr = ("predictor.",)

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        widths = (backbone.dim, *[settings.hidden] * (settings.layers - 1), settings.dim)
        projector = mlp(widths, batch_norm=True, last_batch_norm="plain", bias=False, norm=SyncBatchNorm1d)
        bottleneck = (settings.dim, settings.predictor_hidden, settings.dim)
        predictor = mlp(bottleneck, batch_norm=True, bias=False, last_bias=True, norm=SyncBatchNorm1d)
        super().__init__(backbone, settings.views(2), projector, predictor)
        self.settings = settings

    def forward(self, batch: Batch) -> Losses:
        out = self.outputs(batch)
        first = negative_cosine(out.first_BD, out.target_second_BD)
        return Losses((first + negative_cosine(out.second_BD, out.target_first_BD)) / 2)
