"""Small methods, batches that fit them, and loops that their equations must equal."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models import build
from models.method import Method
from models.methods.registry import REGISTRY
from models.networks.norm import batch_permutation
from models.training.config import Training
from pipelines.batch import Batch

SMALL = {"width": 4, "crop_size": 16, "hidden": 16, "dim": 8, "queue_size": 40, "bn_splits": 1, "batch_size": 8}


#: Sizes that some methods have.
FURTHER = {"predictor_hidden": 16, "resolutions": (16, 12)}


#: Values with which a method is that of its paper; the rows for small images are as MSVQ's authors ran it.
PAPER: dict[str, dict[str, object]] = {
    "byol": {"bn_splits": 1, "ema_rises": True, "loss_scale": 1.0, "last_bias": False, "shuffle": False},
    "simclr": {"bn_splits": 1, "temperature": 0.5, "same_view_negatives": True},
    "nnclr": {"bn_splits": 1, "temperature": 0.1, "both_directions": False},
}


def small(name: str, **overrides: object) -> Method:
    """A method of the smallest sizes that it has options for."""
    known = {field.name for cls in (Training, REGISTRY[name].settings) for field in fields(cls)}
    sizes = {field: value for field, value in (SMALL | FURTHER).items() if field in known}
    torch.manual_seed(0)
    return build(name, "cifar10", **(sizes | overrides))


def batch_for(method: Method, count: int = 8, seed: int = 0, label: int = 0) -> Batch:
    """Noise of the sizes and the type that a method takes."""
    generator = torch.Generator().manual_seed(seed)
    kind = next(method.parameters()).dtype
    views = tuple(torch.randn(count, 3, v.size, v.size, generator=generator, dtype=kind) for v in method.views)
    return Batch(views, torch.arange(count), torch.full((count,), label), seed)


def with_partners(method: Method, batch: Batch) -> Batch:
    """The batch as CLIM gets it in most steps: each sample has a partner and a box, but the first trains alone."""
    box = torch.tensor([0.1, 0.1, 0.6, 0.6]).repeat(len(batch.index), 1)
    box[0] = 0
    return replace(batch, partner=batch_for(method, len(batch.index), batch.seed + 1), box=box)


def unshuffled(teacher: torch.nn.Module, view: Tensor, *key: int) -> Tensor:
    """What a teacher says of a shuffled batch, put back in order; written out for one process."""
    order = batch_permutation(len(view), *key)
    output = teacher(view[order])
    back = torch.empty_like(output)
    back[order] = output
    return back


def cross_entropy(student: Tensor, teacher: Tensor, queue: Tensor, student_t: float, teacher_t: float) -> Tensor:
    """-sum_j p_j log s_j of one sample, one key at a time, in float64."""
    student, teacher, queue = (normalize(t.double(), dim=-1) for t in (student, teacher, queue))
    p = torch.stack([torch.exp(teacher @ key / teacher_t) for key in queue])
    s = torch.stack([torch.exp(student @ key / student_t) for key in queue])
    return -((p / p.sum()).detach() * torch.log(s / s.sum())).sum()


def contrast(query: Tensor, key: Tensor, queue: Tensor, tau: float) -> Tensor:
    """-log of the share of one's own key, one negative at a time, in float64."""
    query, key, queue = (normalize(t.double(), dim=-1) for t in (query, key, queue))
    own = torch.exp(query @ key / tau)
    return -torch.log(own / (own + sum(torch.exp(query @ other / tau) for other in queue)))


def gradients(method: Method) -> list[Tensor]:
    return [p.grad.clone() for p in method.parameters() if p.grad is not None]


def close(first: list[Tensor], second: list[Tensor], tolerance: float) -> bool:
    """Relative to the whole gradient."""
    one, other = (torch.cat([t.flatten().double() for t in tensors]) for tensors in (first, second))
    return bool((one - other).norm() <= tolerance * other.norm())
