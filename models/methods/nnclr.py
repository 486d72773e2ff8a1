"""NNCLR: nearest-neighbour contrastive learning (Dwibedi et al.; ICCV 2021, arXiv 2104.14548).

The idea:
 - SimCLR's positive is another view of the same image. NNCLR replaces it by its nearest neighbour in a queue: the
   embedding of some earlier image. Positives then vary more than any augmentation makes them.
 - A predictor (as BYOL's) predicts the neighbour; the other predictions of the batch are the negatives.

    L = 1/2 [ l(NN(z_1), p_2) + l(NN(z_2), p_1) ]
    l(n, p) = mean_i -log( e^{n_i.p_i/tau} / sum_k e^{n_i.p_k/tau} )        (all L2-normalised; k over the global batch)

z_v = projector(backbone(x_v)), p_v = predictor(z_v), and NN(z) is the queue's key with the largest cosine, without
gradient. z_1 enters the queue after the search. The heads' batch norms use the statistics of the global batch.

Differences from the authors' description (no code is published), and why:
 - The term with rows and columns exchanged, which the paper adds and finds without effect, is an option
   (`both_directions`), off as in its pseudo-code. Benchmark-Methods-For-MNN, in which MSVQ's authors ran NNCLR, has it,
   so it is on in the rows for small images. Its queue takes the keys of the second view; here it is the first one's.

Shapes: B samples of this process, N of all processes, D embedding, K queue.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.distributed import gather, gather_with_gradient, positions
from models.losses.batch_contrast import matching_cross_entropy
from models.method import Embedding, Losses, Method
from models.methods.view_settings import ViewSettings
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
    """The options that NNCLR adds to a training recipe."""

    hidden: int = option(2048, "hidden width of the projector", at_least=1)
    dim: int = option(256, "width of the embedding", at_least=1)
    predictor_hidden: int = option(4096, "hidden width of the predictor", at_least=1)
    temperature: float = option(0.1, "temperature tau of the loss", above=0)
    queue_size: int = option(98304, "embeddings in which neighbours are searched", at_least=1)
    both_directions: bool = option(
        False, "mean of two losses: each neighbour finds its prediction, and each prediction its neighbour"
    )


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
        # One search for both views, in the queue as it was before this batch.
        neighbor_BD, row_B = nearest_keys(torch.cat([first_BD, second_BD]), self.queue.live())
        near_first_BD, near_second_BD = neighbor_BD.chunk(2)
        temperature = self.settings.temperature
        losses = []
        for near_BD, prediction_BD in ((near_first_BD, prediction_second_BD), (near_second_BD, prediction_first_BD)):
            predictions_ND = gather_with_gradient(prediction_BD)
            losses.append(matching_cross_entropy(near_BD, predictions_ND, position_B, temperature))
            if self.settings.both_directions:
                losses.append(matching_cross_entropy(prediction_BD, gather(near_BD), position_B, temperature))
        self.queue.push(gather(first_BD))
        return Losses(torch.stack(losses).mean(), {"neighbors_agree": _agreement(row_B)})

    def encoder(self) -> Backbone:
        return self.student.backbone


def _agreement(row_B: torch.Tensor) -> torch.Tensor:
    """Return the share of images whose two views have the same nearest neighbour."""
    first_B, second_B = row_B.chunk(2)
    return (first_B == second_B).float().mean()
