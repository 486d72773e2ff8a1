"""MNCL: multi-network contrastive learning, global and local (Li, Long, Li; 2023, arXiv 2306.15930; later MNCLGLF).

The idea:
 - A trained network's prediction p of a complete view is contrasted with the embeddings of two networks that get no
   gradient.
 - Global: a momentum network, whose embedding is replaced by its nearest neighbour in a queue (as in NNCLR).
 - Local: the trained weights themselves, without gradient, on the quarters of another view; the features of each pair
   of quarters are averaged before the projector, which gives six embeddings of one view (as in Fast-MoCo).
 - Three views of an image take the roles in turn: 1 and 2 locally, 1 and 3 globally.

    L = a L_loc + b L_glob,  a = 1, b = 6
    L_glob = 1/2 NTX(NN(k_3), p_1) + 1/2 NTX(NN(k_1), p_3)                 NTX: SimCLR's loss on 2B rows
    L_loc = 1/12 sum_s [ CE(p_2 . c_1^s / tau, own) + CE(p_1 . c_2^s / tau, own) ]        s: the six pairs of quarters

p_v = predictor(student(x_v)), k_v = teacher(x_v), c_v^s the local embeddings, all L2-normalised. The queue keeps k_3
as it is, pushed after the searches.

Differences from the authors' code, and why:
 - There, p is detached in L_loc: the local branch trains nothing, although the paper's figure trains p with both
   losses. `mode="figure"` (default) keeps the gradient; `mode="released"` drops it. State which one a number is of.
 - There, L_loc is right on one process only. Here p stays local, c is gathered, labels count in the global batch.
 - The teacher starts as a copy of the student (theirs: another random network) and has no gradient. It moves after the
   optimizer's step instead of before its next forward pass: the same weights.
 - The queue is in the checkpoint. Both temperatures are options; the published one is 1.
 - Quarters update the running batch statistics as in their code, where they are almost half of what evaluation uses,
   unless `patch_statistics` is off.

Shapes: B samples of this process, N of the global batch, D embedding, K queue, V views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.distributed import gather, gather_with_gradient, positions
from models.losses.batch_contrast import matching_cross_entropy
from models.losses.patches import pair_means, quarters, running_statistics_kept
from models.method import Embedding, Losses, Method
from models.methods.view_settings import ViewSettings
from models.networks.backbone import Backbone
from models.networks.heads import mlp
from models.networks.norm import forward_views
from models.networks.sync_norm import SyncBatchNorm1d
from models.networks.teacher import Teacher
from models.options import option
from models.queue import KeyQueue, QueueSettings
from models.relations import nearest_keys, nt_xent
from pipelines.batch import Batch

MODES = ("figure", "released")


@dataclass(frozen=True)
class Settings(ViewSettings, QueueSettings):
    """The options that MNCL adds to a training recipe."""

    view_count: ClassVar[int] = 3

    mode: str = option(
        "figure", "form of the local loss (figure: trains the prediction; released: trains nothing)", choices=MODES
    )
    hidden: int = option(2048, "hidden width of the projector", at_least=1)
    dim: int = option(2048, "width of the embedding", at_least=1)
    predictor_hidden: int = option(512, "hidden width of the predictor", at_least=1)
    global_temperature: float = option(1.0, "temperature of the global loss", above=0)
    local_temperature: float = option(1.0, "temperature of the local loss", above=0)
    global_weight: float = option(6.0, "weight b of the global loss", at_least=0)
    local_weight: float = option(1.0, "weight a of the local loss", at_least=0)
    queue_size: int = option(16384, "embeddings in which neighbours are searched", at_least=1)
    ema: float = option(0.99, "momentum of the teacher, per step", at_least=0, at_most=1)
    patch_statistics: bool = option(True, "updates of the student's running batch statistics by the quarters")
    random_gains: bool = option(
        False, "initial gains of the heads' batch norms from U(0, 1) instead of 1, as in the published code"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_size % 2:
            raise ValueError(f"crop size is {self.crop_size}; mncl cuts views into quarters, give an even number")


class Mncl(Method):
    """Three views, and three networks of two sets of weights."""

    constant_lr = ("predictor.",)

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.views = settings.views(3)
        widths = (backbone.dim, settings.hidden, settings.hidden, settings.dim)
        projector = mlp(widths, batch_norm=True, last_batch_norm="affine", norm=SyncBatchNorm1d)
        bottleneck = (settings.dim, settings.predictor_hidden, settings.dim)
        self.predictor = mlp(bottleneck, batch_norm=True, norm=SyncBatchNorm1d)
        if settings.random_gains:
            for module in (*projector, *self.predictor):
                if isinstance(module, nn.BatchNorm1d):
                    nn.init.uniform_(module.weight)
        self.student = Embedding(backbone, projector)
        self.teacher = Teacher(self.student)
        self.queue = KeyQueue(settings.queue_size, settings.dim, normalize=False)

    def forward(self, batch: Batch) -> Losses:
        first, second, third = batch.views
        prediction_1BD, prediction_2BD, prediction_3BD = forward_views(
            self.predictor, forward_views(self.student, batch.views)
        )
        local_1N6D, local_2N6D = self.local([first, second])
        key_1BD, key_3BD = forward_views(self.teacher, [first, third])
        near_BD, _ = nearest_keys(torch.cat([key_1BD, key_3BD]), self.queue.live())
        near_1BD, near_3BD = near_BD.chunk(2)
        self.queue.push(gather(key_3BD))

        shared = (self._contrast(near_3BD, prediction_1BD) + self._contrast(near_1BD, prediction_3BD)) / 2
        if self.settings.mode == "released":
            prediction_1BD, prediction_2BD = prediction_1BD.detach(), prediction_2BD.detach()
        own = (self._match(prediction_2BD, local_1N6D) + self._match(prediction_1BD, local_2N6D)) / 2
        total = self.settings.local_weight * own + self.settings.global_weight * shared
        return Losses(total, {"local": own.detach(), "global": shared.detach()})

    @torch.no_grad()
    def local(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Return [N, 6, D] for each view: six local embeddings of every image of the global batch, without gradient."""
        kept = nullcontext() if self.settings.patch_statistics else running_statistics_kept(self.student)
        with kept:
            features_V4BD = forward_views(self.student.backbone, [quarters(view) for view in views])
            local_V6BD = forward_views(self.student.head, [pair_means(features_4BD) for features_4BD in features_V4BD])
        return [gather(local_6BD.view(6, len(views[0]), -1).transpose(0, 1)) for local_6BD in local_V6BD]

    def _contrast(self, near_BD: Tensor, prediction_BD: Tensor) -> Tensor:
        """Return NTX of neighbours and predictions, over the global batch."""
        all_near_ND, all_prediction_ND = gather(near_BD), gather_with_gradient(prediction_BD)
        position_B = positions(len(near_BD), near_BD.device)
        temperature = self.settings.global_temperature
        return nt_xent(near_BD, prediction_BD, temperature, all_near_ND, all_prediction_ND, position_B)

    def _match(self, prediction_BD: Tensor, local_N6D: Tensor) -> Tensor:
        """Return the mean over the six blocks of the loss of finding one's own local embedding."""
        position_B = positions(len(prediction_BD), prediction_BD.device)
        tau = self.settings.local_temperature
        blocks = [matching_cross_entropy(prediction_BD, key_ND, position_B, tau) for key_ND in local_N6D.unbind(1)]
        return torch.stack(blocks).mean()

    def update_teachers(self, numbers: Mapping[str, float | Tensor]) -> None:
        self.teacher.update(self.student, self.settings.ema)

    def encoder(self) -> Backbone:
        return self.student.backbone
