"""CLIM: center-wise local image mixture (Li, Zhang, Xiong; BMVC 2021, arXiv 2011.02697).

The idea:
 - MoCo v2 pulls together views of one image. CLIM also pulls an image towards similar images.
 - Similar means near *and* central: those of an image's nearest neighbours that lie closer to its cluster's centre.
 - The chosen partner is no plain positive: it is cut-mixed into the query, and both keys share the loss.
 - Every image is seen at several resolutions, each crop drawn on its own, and every pair of resolutions is compared.

    L = 1/R^2 sum_{r,s} [ lambda_r l(q_r, k_s; Q_s) + (1 - lambda_r) l(q_r, k'_s; Q_s) ]
    l(q, k; Q) = -log( e^{q.k/tau} / (e^{q.k/tau} + sum_{n in Q} e^{q.n/tau}) )

q_r is the student's embedding of the mixed view at resolution r, k_s and k'_s the teacher's of a clean view of anchor
and partner at resolution s, Q_s the queue of that resolution. Only anchor keys enter the queues.

Differences from the authors' published code, and why:
 - The selection is the paper's (neighbours closer to the centre). The code has no neighbour search: it draws from 50
   positions around the anchor in a list that is sorted by class, which leaks labels. `rule="snapshot"` offers its
   centre criterion (closer than the cluster's average) with a uniform draw from the cluster instead of that window.
 - The rectangle is relative: the code applies the pixels of 224 to 160 and keeps a lambda that is wrong there.
 - An anchor without a partner trains alone (lambda = 1), as in MoCo v2. Any number of resolutions is possible.
 - Mixing is drawn once per *global* batch, so that N processes train exactly what one would.

Shapes: B batch, D embedding, K queue, R resolutions of queries, S of keys, P positive keys (the anchor's, the
partner's).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.distributed import gather
from models.losses.mixture import cutmix
from models.method import Embedding, Extract, Losses, Method
from models.methods import clim_selection as selection
from models.methods.momentum import shuffled_views
from models.networks.backbone import Backbone
from models.networks.heads import mlp
from models.networks.teacher import Teacher
from models.options import check_options, option
from models.queue import KeyQueue, QueueSettings
from models.relations import info_nce
from models.search.sharded_features import LocalFeatures
from pipelines.batch import Batch
from pipelines.plan.pairing import Pairing
from pipelines.plan.views import contrastive

RULES = ("paper", "snapshot")


@dataclass(frozen=True)
class Settings(QueueSettings):
    """The options that CLIM adds to a training recipe."""

    resolutions: tuple[int, ...] = option((224, 160), "sides of the views, in pixels")
    crop_scale: float = option(0.2, "smallest share of the image that a crop covers")
    flip: float = option(0.5, "probability of mirroring a view")
    blur: float = option(0.5, "probability of blurring a view (sigma 0.1 to 2 pixels)")
    dim: int = option(128, "width of the embedding", at_least=1)
    temperature: float = option(0.2, "temperature tau of the contrastive loss", above=0)
    queue_size: int = option(65536, "keys kept per resolution", at_least=1)
    ema: float = option(0.999, "momentum of the teacher, per step", at_least=0, at_most=1)
    rule: str = option("paper", "rule that selects partners (paper: neighbours closer to the centre)", choices=RULES)
    neighbors: int = option(10, "number k of nearest neighbours searched per image", at_least=1)
    clusters: int = option(1000, "number m of clusters in k-means", at_least=1)
    kmeans_iterations: int = option(30, "iterations of Lloyd's algorithm in k-means")
    whiten: int = option(128, "whitened components used for the search; 0 takes the features as they are")
    refresh_epochs: int = option(10, "epochs between two selections", at_least=1)
    start_epoch: int = option(0, "first epoch with partners; plain MoCo v2 before it")
    mix_probability: float = option(0.8, "share of the steps that mix", at_least=0, at_most=1)
    mix_alpha: float = option(1.0, "parameter alpha of Beta(alpha, alpha), from which lambda is drawn", above=0)

    def __post_init__(self) -> None:
        check_options(self)
        if not self.resolutions or min(self.resolutions) < 8:
            raise ValueError(f"resolutions are {self.resolutions}; give at least one side of 8 pixels or more")


class Clim(Method):
    """MoCo v2 with mixed-in partners and several resolutions; views are (query, key) for each resolution in turn."""

    mixes = True

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.views = tuple(
            replace(contrastive(size, (settings.crop_scale, 1.0)), flip=settings.flip, blur_p=settings.blur)
            for size in settings.resolutions
            for _ in ("query", "key")
        )
        self.student = Embedding(backbone, mlp((backbone.dim, backbone.dim, settings.dim)))
        self.teacher = Teacher(self.student)
        self.queue = KeyQueue(settings.queue_size, settings.dim, count=len(settings.resolutions))

    def forward(self, batch: Batch) -> Losses:
        query, kept = list(batch.views[0::2]), None
        if batch.partner is not None and batch.box is not None:
            mixed = [cutmix(own, other, batch.box) for own, other in zip(query, batch.partner.views[0::2], strict=True)]
            query, kept = [view for view, _ in mixed], [kept_B for _, kept_B in mixed]
        query_RBD = [self.student(view) for view in query]
        with torch.no_grad():
            first_RBD, *others_RBD = self._keys(batch)
            second_RBD = others_RBD[0] if others_RBD else first_RBD

        # Queries of all resolutions take one pass over each queue, whichever keys they must find.
        query_R1BD = torch.stack(query_RBD)[:, None]
        keys_PSBD, weight_RPB = [first_RBD], query_R1BD.new_ones(1)
        if kept is not None:
            kept_RB = torch.stack(kept)
            keys_PSBD, weight_RPB = [first_RBD, second_RBD], torch.stack([kept_RB, 1 - kept_RB], 1)
        pairs_SRB = []
        for s, key_PBD in enumerate(zip(*keys_PSBD, strict=True)):
            loss_RPB = info_nce(query_R1BD, torch.stack(key_PBD), self.queue.live(s), self.settings.temperature)
            pairs_SRB.append((weight_RPB * loss_RPB).sum(1))
        total = torch.stack(pairs_SRB).mean()
        self.queue.push(*[gather(key_BD) for key_BD in first_RBD])
        share = total.new_zeros(()) if kept is None else 1 - kept[0].mean()
        return Losses(total, {"partner_share": share.detach()})

    def _keys(self, batch: Batch) -> list[list[Tensor]]:
        """Return the teacher's embeddings of the clean key views, S times [B, D]: of anchors, then of any partners.

        Views of one resolution take one forward pass, each in its own shuffled batch.
        """
        images = [batch] if batch.partner is None else [batch, batch.partner]
        found_SPBD = [
            shuffled_views(
                self.teacher,
                [one.views[2 * s + 1] for one in images],
                [self.order(batch, (role, s)) for role, _ in enumerate(images)],
            )
            for s in range(len(self.settings.resolutions))
        ]
        return [list(keys) for keys in zip(*found_SPBD, strict=True)]

    def shuffle_keys(self, mixed: bool) -> tuple[tuple[int, ...], ...]:
        """A key (role, resolution) for each pass of the teacher; role 0 is the anchor's, 1 the partner's."""
        roles = 2 if mixed else 1
        return tuple((role, s) for s in range(len(self.settings.resolutions)) for role in range(roles))

    def update_teachers(self, numbers: Mapping[str, float | Tensor]) -> None:
        # The paper's code moves the teacher between the student's and the teacher's forward: the same weights as here.
        self.teacher.update(self.student, self.settings.ema)

    def before_epoch(self, epoch: int, extract: Extract) -> None:
        since = epoch - self.settings.start_epoch
        if since >= 0 and since % self.settings.refresh_epochs == 0:
            self.pairing = select(extract(self.student.backbone), self.settings)

    def encoder(self) -> Backbone:
        return self.student.backbone


def select(local: LocalFeatures, settings: Settings) -> Pairing:
    """Choose the partners of every sample; all processes call it with their shares of the features.

    Args:
        local: pooled features of this process's samples.

    Raises:
        ValueError: the data set is smaller than the number of neighbours or clusters.
    """
    candidates = selection.select(
        local, settings.rule, settings.whiten, settings.neighbors, settings.clusters, settings.kmeans_iterations
    )

    def array(tensor: Tensor, kind: type[np.integer]) -> np.ndarray:
        return tensor.cpu().numpy().astype(kind, copy=False)

    return Pairing(
        array(candidates.pool, np.int32),
        array(candidates.start_N, np.int64),
        array(candidates.count_N, np.int32),
        settings.mix_probability,
        settings.mix_alpha,
        array(candidates.neighbors_Nk, np.int32),
    )
