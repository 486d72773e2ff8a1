"""SimCLR: a simple framework for contrastive learning (Chen, Kornblith, Norouzi, Hinton; ICML 2020, arXiv 2002.05709).

The idea:
 - Two strongly augmented views of each image; each must be distinguished from all other views of the batch.
 - The batch itself gives the negatives: no queue, no teacher. Large batches help.
 - The loss is taken on a projection that is discarded afterwards.

    l(i, j) = -log( e^{cos(z_i, z_j)/tau} / sum_{k != i} e^{cos(z_i, z_k)/tau} )        k over the 2N views of the batch
    L = mean of l over both directions of all N pairs

With several processes the views are gathered with gradient: the loss is that of the global batch. The heads' batch
norms use the statistics of the global batch, too.

The rows for small images are those of Benchmark-Methods-For-MNN, in which MSVQ's authors ran SimCLR. There the
negatives are the other images' second views only (`same_view_negatives` off):

    L = 1/2 [ CE(z_1 z_2^T / tau, own) + CE(z_2 z_1^T / tau, own) ]        rows of cosines over the N images

Differences from the authors' code (TensorFlow), and why:
 - Batch statistics are per view (each view is a batch of its own); theirs are of both views together. The first loss
   then differs by some percent, and later ones less.
 - The projector's last batch norm has a bias, theirs only a gain; one vector of `dim` numbers.
 - Blur has the sigma and no kernel size of its own, as everywhere in this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.distributed import gather_with_gradient, positions
from models.losses.batch_contrast import matching_cross_entropy
from models.method import Embedding, Losses, Method
from models.methods.view_settings import ViewSettings
from models.networks.backbone import Backbone
from models.networks.heads import mlp
from models.networks.norm import forward_views
from models.networks.sync_norm import SyncBatchNorm1d
from models.options import option
from models.relations import nt_xent
from pipelines.batch import Batch

if TYPE_CHECKING:
    from models.training.config import Training


@dataclass(frozen=True)
class Settings(ViewSettings):
    """The options that SimCLR adds to a training recipe."""

    hidden: int = option(
        2048, "hidden width of the projector, for which the paper takes the backbone's width", at_least=1
    )
    dim: int = option(128, "width of the embedding", at_least=1)
    temperature: float = option(0.1, "temperature tau of the loss", above=0)
    same_view_negatives: bool = option(
        True, "negatives from the same view of other images too; otherwise only from their other view"
    )

    def check(self, training: Training) -> None:
        """Refuse a batch without negatives.

        Raises:
            ValueError: the batch is one image.
        """
        if training.batch_size < 2:
            raise ValueError(f"a batch of {training.batch_size} has no negatives; give --batch-size 2 or more")


class SimClr(Method):
    """NT-Xent on two views."""

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.views = settings.views(2)
        widths = (backbone.dim, settings.hidden, settings.dim)
        head = mlp(widths, batch_norm=True, last_batch_norm="affine", bias=False, norm=SyncBatchNorm1d)
        self.student = Embedding(backbone, head)

    def forward(self, batch: Batch) -> Losses:
        first_BD, second_BD = forward_views(self.student, batch.views)
        all_first_ND, all_second_ND = gather_with_gradient(first_BD), gather_with_gradient(second_BD)
        position_B = positions(len(first_BD), first_BD.device)
        temperature = self.settings.temperature
        if not self.settings.same_view_negatives:
            one = matching_cross_entropy(first_BD, all_second_ND, position_B, temperature)
            return Losses((one + matching_cross_entropy(second_BD, all_first_ND, position_B, temperature)) / 2)
        return Losses(nt_xent(first_BD, second_BD, temperature, all_first_ND, all_second_ND, position_B))

    def encoder(self) -> Backbone:
        return self.student.backbone
