"""NNCLR: nearest-neighbour contrastive learning, "With a little help from my friends" (Dwibedi et al.; ICCV 2021,
arXiv 2104.14548).

The idea:
 - SimCLR's positive is another view of the same image. NNCLR takes the nearest neighbour of that view instead: an
   embedding of some earlier image, from a queue. Positives then vary more than any augmentation does.
 - A predictor (as BYOL's) guesses the neighbour; the batch's other predictions are the negatives.

    L = 1/2 [ l(NN(z_1), p_2) + l(NN(z_2), p_1) ]
    l(n, p) = mean_i -log( e^{n_i.p_i/tau} / sum_k e^{n_i.p_k/tau} )        (all L2-normalised; k over the global batch)

z_v = projector(backbone(x_v)), p_v = predictor(z_v), NN(z) the queue's key with the largest cosine, without gradient.
The queue takes z_1 after the look-up. Statistics of the heads' batch norms are those of the global batch.

What differs from the authors' description (no code is released), and why:
 - The term with rows and columns exchanged, which the paper adds and finds without effect, is left out, as in its
   pseudo-code.

B samples of this process, N of all, D embedding, K queue.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.distributed import gather, gather_with_gradient, positions
from models.losses.batch_contrast import matching_cross_entropy
from models.method import Embedding, Losses, Method
from models.methods.view_settings import ViewSettings, positive
from models.networks.backbone import Backbone
from models.networks.heads import mlp
from models.networks.norm import forward_views
from models.networks.sync_norm import SyncBatchNorm1d
from models.options import option
from models.queue import KeyQueue, QueueSettings
from models.relations import nearest_keys
from pipelines.batch import Batch


@dataclass(frozen=True)
class Settings(ViewSettings, QueueSettings):
    """What NNCLR adds to a training recipe."""

    hidden: int = option(2048, "hidden width of the projector")
    dim: int = option(256, "width of the embedding")
    predictor_hidden: int = option(4096, "hidden width of the predictor")
    temperature: float = option(0.1, "tau of the loss")
    queue_size: int = option(98304, "embeddings in which neighbours are looked up")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.views(2)
        positive(
            hidden=self.hidden, dim=self.dim, predictor_hidden=self.predictor_hidden, temperature=self.temperature,
            queue_size=self.queue_size,
        )  # fmt: skip


class Nnclr(Method):
    """Contrast with the nearest neighbours of the other view."""

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.views = settings.views(2)
        widths = (backbone.dim, settings.hidden, settings.hidden, settings.dim)
        projector = mlp(widths, batch_norm=True, last_batch_norm="affine", norm=SyncBatchNorm1d)
        self.student = Embedding(backbone, projector)
        bottleneck = (settings.dim, settings.predictor_hidden, settings.dim)
        self.predictor = mlp(bottleneck, batch_norm=True, norm=SyncBatchNorm1d)
        self.queue = KeyQueue(settings.queue_size, settings.dim)

    def forward(self, batch: Batch) -> Losses:
        first_BD, second_BD = forward_views(self.student, batch.views)
        prediction_first_BD, prediction_second_BD = forward_views(self.predictor, [first_BD, second_BD])
        position_B = positions(len(first_BD), first_BD.device)
        # One look-up for both views, in the queue as it stood before this batch.
        neighbor_BD, row_B = nearest_keys(torch.cat([first_BD, second_BD]), self.queue.live())
        near_first_BD, near_second_BD = neighbor_BD.chunk(2)
        temperature = self.settings.temperature
        losses = [
            matching_cross_entropy(near_BD, gather_with_gradient(prediction_BD), position_B, temperature)
            for near_BD, prediction_BD in ((near_first_BD, prediction_second_BD), (near_second_BD, prediction_first_BD))
        ]
        self.queue.push(gather(first_BD))
        return Losses(torch.stack(losses).mean(), {"neighbors_agree": _agree(row_B)})

    def encoder(self) -> Backbone:
        return self.student.backbone


def _agree(row_B: torch.Tensor) -> torch.Tensor:
    """The share of images whose two views have the same nearest neighbour."""
    first_B, second_B = row_B.chunk(2)
    return (first_B == second_B).float().mean()
