"""CGH: cross-context learning between global and hypercolumn features (Gao, Feng, Patras; WACV 2024, arXiv 2308.13392).

The idea:
 - A network's last feature is abstract; its hypercolumn (the maps of stages 3 and 4 together) keeps finer detail.
 - Both are embedded, by a student on a strong view and a teacher on a weak one, with a queue of teacher keys for each.
 - As in ReSSL, relations to the queue are the soft labels, but swapped: global relations learn from the teacher's
   hypercolumn relations, and vice versa. Column j of both queues is the same sample, which makes the swap meaningful.
 - In the first epochs InfoNCE within each context fades out while the relations fade in.

    T(k, Q; tau) = softmax(k.Q / tau),  CE(p, y) = -sum_j p_j log softmax(y)_j
    L_gh = CE( T(k_h, Q_h; 0.08), z_g.Q_g / 0.10 )        the student's global relations learn from the hypercolumn's
    L_hg = CE( T(k_g, Q_g; 0.04), z_h.Q_h / 0.08 )        the student's hypercolumn relations learn from the global ones
    L = (1 - a) [ InfoNCE(z_g, k_g; Q_g) + InfoNCE(z_h, k_h; Q_h) ] + a (L_gh + L_hg) / 2,   a = min(1, epoch / 5)

z are the student's and k the teacher's embeddings, g global and h hypercolumn. The loss is not symmetric. The teacher's
batch is shuffled, and both outputs are put back in order by the same permutation; both keys enter their queues after
the loss. With `crops`, further and smaller strong views give global relations only; L_gh is then the mean over all
strong views.

Differences from the published code:
 - The teacher (with neck and both heads) moves after the step, not before its forward pass, which is equivalent
   (models/methods/momentum.py).
 - Any batch size works, also one that does not divide the queues, and any map size: the code asserts a last map of at
   most 7.
 - Weight decay on ImageNet spares all vectors. The code selects by name and misses the downsample and neck batch norms.
 - The neck's batch norm is never split, as in the code: its statistics are those of one process, so that W processes
   equal one process whose neck has W groups.
 - Centring of the teacher's logits, which the published configuration turns off, is left out.

Shapes: B batch, D embedding, K queue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.distributed import gather
from models.method import Losses
from models.methods.momentum import MomentumMethod, MomentumSettings
from models.networks.backbone import Backbone
from models.networks.heads import HypercolumnNeck, mlp
from models.networks.norm import shuffled
from models.options import option
from models.relations import info_nce, soft_label_cross_entropy
from pipelines.batch import Batch
from pipelines.plan.views import View


@dataclass(frozen=True)
class Settings(MomentumSettings):
    """The options that CGH adds to a training recipe; `hidden` and `dim` are those of both heads."""

    weak_flip: float = option(0.5, "probability of mirroring the weak view", at_least=0, at_most=1)
    stages: tuple[str, ...] = option(("layer3", "layer4"), "stages whose maps make the hypercolumn, shallow first")
    global_teacher_temperature: float = option(0.04, "temperature of the teacher's global relations", above=0)
    global_student_temperature: float = option(0.1, "temperature of the student's global relations", above=0)
    hyper_teacher_temperature: float = option(0.08, "temperature of the teacher's hypercolumn relations", above=0)
    hyper_student_temperature: float = option(0.08, "temperature of the student's hypercolumn relations", above=0)
    contrast_temperature: float = option(0.2, "temperature of the InfoNCE that the first epochs fade out", above=0)
    contrast_epochs: float = option(
        5.0, "epochs over which InfoNCE fades out; long enough to fill the queues", at_least=0
    )
    swap: bool = option(True, "learning of each context from the other; without it each learns from itself (ablation)")
    crops: tuple[int, ...] = option((), "sides of further strong views, in pixels; published: 192,160,128,96")
    crop_low: tuple[float, ...] = option(
        (0.172, 0.143, 0.114, 0.086), "smallest shares of the image that the further views cover"
    )
    crop_high: tuple[float, ...] = option(
        (0.86, 0.715, 0.571, 0.429), "largest shares of the image that the further views cover"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stages:
            raise ValueError("stages is empty; name at least one stage, such as layer4")
        if len(self.crops) > min(len(self.crop_low), len(self.crop_high)):
            raise ValueError(f"{len(self.crops)} crops need as many crop_low and crop_high")
        self.further_views()  # View refuses what is out of range

    def further_views(self) -> list[View]:
        """Return the multi-crop views."""
        (strong,) = self.views(1)
        sizes = zip(self.crops, self.crop_low, self.crop_high, strict=False)
        return [replace(strong, size=side, scale=(low, high)) for side, low, high in sizes]


class GlobalAndHypercolumn(nn.Module):
    """A backbone with both heads: images [B, 3, s, s] to global and hypercolumn embeddings [B, D], not normalised."""

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        super().__init__()
        hidden, dim = settings.hidden, settings.dim
        self.backbone = backbone
        self.head = mlp((backbone.dim, hidden, dim))
        self.neck = HypercolumnNeck(backbone.widths, backbone.dim, hidden, dim, settings.stages)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(images)
        return self.head(features.pooled), self.neck(features.maps)

    def only_global(self, images: Tensor) -> Tensor:
        """Return the global embedding [B, D] alone."""
        global_BD: Tensor = self.head(self.backbone(images).pooled)
        return global_BD


class Context(NamedTuple):
    """One of the two embeddings: the student's and the teacher's, the queue of its keys, and its temperatures."""

    student_BD: Tensor
    key_BD: Tensor
    queue_KD: Tensor
    student_temperature: float
    teacher_temperature: float


def relate(learner: Context, teacher: Context) -> Tensor:
    """Return [B], the cross-entropy of a student over its own queue against a teacher over the teacher's own queue."""
    return soft_label_cross_entropy(
        learner.student_BD,
        teacher.key_BD,
        learner.queue_KD,
        learner.student_temperature,
        teacher.teacher_temperature,
        teacher.queue_KD,
    )


class Cgh(MomentumMethod):
    """Two contexts that teach each other; the views are (strong, weak, further strong crops ...)."""

    student: GlobalAndHypercolumn

    def __init__(self, backbone: Backbone, settings: Settings) -> None:
        super().__init__(GlobalAndHypercolumn(backbone, settings), settings, queues=2)
        self.settings = settings
        self.views = (*settings.views(1), settings.weak(settings.weak_flip), *settings.further_views())
        self.soft_label_temperatures = (settings.global_teacher_temperature, settings.hyper_teacher_temperature)

    def forward(self, batch: Batch) -> Losses:
        strong, weak, *crops = batch.views
        settings = self.settings
        student_BD = self.student(strong)
        crop_BD = [self.student.only_global(crop) for crop in crops]
        key_BD: tuple[Tensor, Tensor] = shuffled(self.teacher, weak, self.order(batch, ()))
        image = Context(
            student_BD[0],
            key_BD[0],
            self.queue.live(0),
            settings.global_student_temperature,
            settings.global_teacher_temperature,
        )
        hyper = Context(
            student_BD[1],
            key_BD[1],
            self.queue.live(1),
            settings.hyper_student_temperature,
            settings.hyper_teacher_temperature,
        )
        teachers = (hyper, image) if settings.swap else (image, hyper)
        learners = image._replace(student_BD=torch.stack([image.student_BD, *crop_BD]))
        global_loss = relate(learners, teachers[0]).mean()
        hyper_loss = relate(hyper, teachers[1]).mean()
        total = 0.5 * (global_loss + hyper_loss)
        terms = {"global_relations": global_loss.detach(), "hyper_relations": hyper_loss.detach()}
        if self.kind(self.step) == "contrast fades":
            weight = self.number(batch, "relation_weight")
            contrast = torch.stack([self.contrast(context) for context in (image, hyper)]).sum()
            total = (1 - weight) * contrast + weight * total
            terms["contrast"] = contrast.detach()
        self.queue.push(*[gather(own_BD) for own_BD in key_BD])
        return Losses(total, terms)

    def contrast(self, context: Context) -> Tensor:
        """Return the InfoNCE of one context."""
        tau = self.settings.contrast_temperature
        return info_nce(context.student_BD, context.key_BD, context.queue_KD, tau).mean()

    def kind(self, step: int) -> str:
        return "relations" if step >= self._fading_steps else "contrast fades"

    def kinds(self, first_step: int) -> dict[str, int]:
        full = max(first_step, math.ceil(self._fading_steps))
        steps = (full, first_step) if full < self.total_steps else (first_step,)
        return {self.kind(step): step for step in steps}

    def schedule(self, step: int) -> dict[str, float]:
        """Return the weight of the relations: 0 at the first step, 1 from epoch `contrast_epochs` on."""
        return {"relation_weight": min(1.0, step / self._fading_steps) if self._fading_steps else 1.0}

    @property
    def _fading_steps(self) -> float:
        return self.settings.contrast_epochs * self.steps_per_epoch
