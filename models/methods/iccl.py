"""ICCL: the relation between similarity and clustering losses (Ge, Liu, Gui et al.; TIP 2023, arXiv 2301.03041).

The idea:
 - Comparing two views of one image (BYOL, SimSiam) says nothing about how images relate. A clustering loss does.
 - The embedding itself is read as the logits of K soft clusters (K is its width): no prototypes, no Sinkhorn, no queue.
 - Each view predicts the other's assignment; only a uniformity term on the mean assignment keeps clusters apart.
 - The first half of training uses the similarity alone; over the next tenth the clustering loss is faded in.

    L = (1 - w) L_sim + w (lambda L_uni + L_ce)               w: 0 up to epoch E0, linear to 1 at E1
    m_v = softmax(n(q_v) / tau_2), s_v = softmax(n(p_v) / tau_1)      n: L2 normalisation
    L_ce = -1/2 [ mean_b sum_k m_1 log s_2 + mean_b sum_k m_2 log s_1 ]
    L_uni = -log K - mean_k log(mean of s over the global batch and both views)_k

p are predictions, q targets. Variant "momentum": q comes from a teacher, L_sim is BYOL's (sum of squared distances,
0 to 8). Variant "plain": q is the network's own embedding without gradient, L_sim is SimSiam's (-1 to 1); published
with a rotation to the targets' principal directions (`pca`) and tau_1 = |m| for each sample (`adaptive`).

Differences from the authors' code (which has no licence: nothing is copied), and why:
 - lambda is the *effective* weight. Their all-reduce hides L_uni's gradient from autograd, so that W processes train
   with lambda / W: their launcher's four make 1.25 of the configured 5, and 0.25 of 1. Use those values to reproduce
   it.
 - log s comes from log_softmax and its mean from logsumexp: exact, where theirs replaces -inf by the smallest number.
 - The principal directions are fitted on all processes' targets, with a fixed sign, by eigh (torch.eig is gone).
 - Convolutions and the ViT are initialised as everywhere in this project (theirs: uniform of the same variance).
 - The second head of their repository (RCC, without the partition function) is not built: its role is unknown.

Shapes: B samples of this process, N of all processes, K embedding width = clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.clustering import (
    adaptive_temperature,
    cross_view_cross_entropy,
    log_assignment,
    log_mean,
    principal_rotation,
    ramp,
    uniformity,
)
from models.distributed import gather, gather_with_gradient
from models.losses.cosine import negative_cosine, squared_distance
from models.method import Losses
from models.methods.siamese import Outputs, Siamese
from models.methods.view_settings import ViewSettings
from models.networks.backbone import Backbone
from models.networks.heads import LastNorm, mlp
from models.networks.sync_norm import SyncBatchNorm1d
from models.options import option
from pipelines.batch import Batch

if TYPE_CHECKING:
    from models.training.config import Training

VARIANTS = ("momentum", "plain")


@dataclass(frozen=True)
class Settings(ViewSettings):
    """The options that ICCL adds to a training recipe."""

    variant: str = option(
        "momentum",
        "source of the targets (momentum: a teacher; plain: the network itself, as in SimSiam)",
        choices=VARIANTS,
    )
    hidden: int = option(4096, "hidden width of projector and predictor", at_least=1)
    dim: int = option(512, "width of the embedding, which is the number of clusters", at_least=1)
    ema: float = option(
        0.99, "initial momentum of the teacher, per step; rises to 1 along half a cosine", at_least=0, at_most=1
    )
    student_temperature: float = option(
        0.1, "temperature tau_1 of the student; with --adaptive, the momentum variant's upper limit", above=0
    )
    teacher_temperature: float = option(0.07, "temperature tau_2 of the targets", above=0)
    adaptive: bool = option(False, "temperature tau_1 of each sample by the norm of the assignment that it predicts")
    pca: int = option(0, "principal directions that the clustering sees; 0 for no rotation")
    uniformity: float = option(5.0, "weight lambda of L_uni, the effective one for any number of processes", at_least=0)
    ramp_start: float = option(0.5, "share of the training after which the clustering fades in", at_least=0, at_most=1)
    ramp_end: float = option(
        0.6, "share of the training after which the clustering is used alone", at_least=0, at_most=1
    )
    freeze_patches: bool = option(False, "random patch embedding of a ViT that is not trained")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ramp_end < self.ramp_start:
            raise ValueError(f"the ramp ends at {self.ramp_end}, before it starts at {self.ramp_start}")
        if not 0 <= self.pca <= self.dim:
            raise ValueError(f"pca is {self.pca}; give 0 (none) to the embedding's {self.dim}")

    def check(self, training: Training) -> None:
        """Refuse a rotation that the batch cannot determine.

        Raises:
            ValueError: there are fewer targets in a batch than directions.
        """
        if self.pca > 2 * training.batch_size:
            raise ValueError(f"pca of {self.pca} directions from the {2 * training.batch_size} targets of a batch")


class Iccl(Siamese):
    """BYOL or SimSiam, whose loss turns into a clustering loss during the training."""

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        momentum = settings.variant == "momentum"
        widths = (backbone.dim, settings.hidden, settings.hidden, settings.dim)
        last: LastNorm = "none" if momentum else "plain"
        projector = mlp(widths, batch_norm=True, last_batch_norm=last, bias=False, norm=SyncBatchNorm1d)
        bottleneck = (settings.dim, settings.hidden, settings.dim)
        predictor = mlp(bottleneck, batch_norm=True, bias=False, last_bias=not momentum, norm=SyncBatchNorm1d)
        if momentum:
            for module in (*projector.modules(), *predictor.modules()):
                if isinstance(module, nn.Linear):  # deviation 1 / sqrt(inputs); the plain variant keeps torch's default
                    bound = math.sqrt(3 / module.in_features)
                    nn.init.uniform_(module.weight, -bound, bound)
        if settings.freeze_patches and isinstance(patches := getattr(backbone, "patch_embed", None), nn.Module):
            patches.requires_grad_(False)
        super().__init__(backbone, settings.views(2), projector, predictor, settings.ema if momentum else None)
        self.settings = settings

    def forward(self, batch: Batch) -> Losses:
        out = self.outputs(batch)
        if self.settings.variant == "momentum":
            one = squared_distance(out.first_BD, out.target_second_BD)
            similarity = one + squared_distance(out.second_BD, out.target_first_BD)
        else:
            one = negative_cosine(out.first_BD, out.target_second_BD)
            similarity = (one + negative_cosine(out.second_BD, out.target_first_BD)) / 2
        terms = {"similarity": similarity.detach()}
        if self.kind(self.step) == "similarity":
            return Losses(similarity, terms)
        weight = self.number(batch, "clustering_weight")
        cross_entropy, uniform = self._clustering(out)
        total = (1 - weight) * similarity + weight * (self.settings.uniformity * uniform + cross_entropy)
        return Losses(total, terms | {"cross_entropy": cross_entropy.detach(), "uniformity": uniform.detach()})

    def kind(self, step: int) -> str:
        return "clustering" if self._clustering_weight(step) > 0 else "similarity"

    def kinds(self, first_step: int) -> dict[str, int]:
        epoch_starts = range(-first_step % self.steps_per_epoch + first_step, self.total_steps, self.steps_per_epoch)
        return {self.kind(step): step for step in [*reversed(epoch_starts), first_step]}

    def schedule(self, step: int) -> dict[str, float]:
        return super().schedule(step) | {"clustering_weight": self._clustering_weight(step)}

    def _clustering_weight(self, step: int) -> float:
        """Return w at a step; it changes once an epoch, as published."""
        epochs = self.total_steps / self.steps_per_epoch
        start, end = (limit * epochs for limit in (self.settings.ramp_start, self.settings.ramp_end))
        return ramp(step // self.steps_per_epoch, start, end)

    def _clustering(self, out: Outputs) -> tuple[Tensor, Tensor]:
        """Return L_ce of this process's samples, and L_uni of the global batch."""
        settings = self.settings
        if settings.pca:
            targets_NK = gather(torch.cat([out.target_first_BD, out.target_second_BD]))
            rotation = principal_rotation(targets_NK, settings.pca)
            out = Outputs(*(rotation.apply(rows_BK) for rows_BK in out))
        first_BK, second_BK = (
            log_assignment(rows_BK, settings.teacher_temperature).exp()
            for rows_BK in (out.target_first_BD, out.target_second_BD)
        )
        tau_first: float | Tensor = settings.student_temperature
        tau_second: float | Tensor = settings.student_temperature
        if settings.adaptive:  # each view predicts the other view's target, so it takes the norm of that target
            limit = settings.student_temperature if settings.variant == "momentum" else None
            tau_first, tau_second = adaptive_temperature(second_BK, limit), adaptive_temperature(first_BK, limit)
        log_first_BK = log_assignment(out.first_BD, tau_first)
        log_second_BK = log_assignment(out.second_BD, tau_second)
        mean_1K = log_mean(torch.cat([log_first_BK, log_second_BK]))[None]
        uniform = uniformity(gather_with_gradient(mean_1K))
        return cross_view_cross_entropy(first_BK, second_BK, log_first_BK, log_second_BK), uniform
