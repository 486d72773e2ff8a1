"""Fine-tuning: the backbone and a linear classifier trained end to end on labelled images, in one process or several.

It starts from the student backbone of a checkpoint. Crops and flips come from the plan, so a step of N processes sees
the batch of one, however unevenly they share it, and their batch norms share its statistics. Every labelled image is
seen once in each epoch.

Shapes: B images, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.distributed import mean_over_processes, world
from models.evaluation.feature_extractor import refuse_damaged
from models.evaluation.features import NotFinite
from models.networks.backbone import Backbone
from models.networks.backbones import build_backbone
from models.networks.sync_norm import SyncBatchNorm2d
from models.training.optim import scheduled
from models.training.precision import DTYPES
from pipelines import Dataset, View, make_loader

if TYPE_CHECKING:
    from models.evaluation.protocols.finetune import FinetuneProtocol


class Classifier(nn.Module):
    """A backbone and a linear layer: images [B, 3, s, s] to logits [B, C].

    The layer is initialised from N(0, 0.01), with zero biases.
    """

    def __init__(self, backbone: Backbone, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.dim, classes)
        nn.init.normal_(self.head.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.head.bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BC: Tensor = self.head(self.backbone(images_BCHW).pooled)
        return logits_BC


def finetune(
    weights: dict[str, Tensor],
    architecture: Mapping[str, Any],
    dataset: Dataset,
    number_N: NDArray[np.int64],
    view: View,
    protocol: FinetuneProtocol,
    seed: int,
    loading: dict[str, Any],
) -> tuple[Classifier, dict[str, Any]]:
    """Train a classifier on the images with these numbers.

    Args:
        weights: state dict of the backbone to start from; it is not changed.
        architecture: arguments of `build_backbone`.
        view: the evaluation view; the training crops have its size and filter.
        loading: keyword arguments of `make_loader` (device, rank, world, threads, loader).

    Returns:
        The trained network, and facts about its training as JSON.

    Raises:
        ValueError: too few images for so many processes, damaged images among them, or weights that are not finite.
        FloatingPointError: the training diverged.
    """
    device, processes = torch.device(loading["device"]), world()[1]
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise NotFinite("the network's weights are not finite; take an earlier checkpoint")
    batch_size = even_batch(len(number_N), protocol.batch_size)
    fewest = len(number_N) % batch_size or batch_size
    if batch_size < 2 or fewest < processes:
        raise ValueError(
            f"{len(number_N)} labelled images cannot be fine-tuned on by {processes} processes in batches of {fewest} "
            "and more; give more labels, a larger --batch-size, or fewer processes"
        )
    generator = torch.Generator().manual_seed(seed)
    backbone = build_backbone(**architecture, batch_norm=SyncBatchNorm2d if processes > 1 else None)
    backbone.load_state_dict(weights)
    network = Classifier(backbone, len(dataset.classes), generator)
    network.to(device=device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    groups: list[dict[str, Any]] = [
        {"params": list(network.backbone.parameters()), "peak": protocol.lr_backbone},
        {"params": list(network.head.parameters()), "peak": protocol.lr_head},
    ]
    optimizer = torch.optim.SGD(groups, protocol.lr_head, protocol.momentum, weight_decay=protocol.weight_decay)
    model = nn.parallel.DistributedDataParallel(network, broadcast_buffers=False) if processes > 1 else network
    dtype = DTYPES[protocol.precision]
    norms = [module for module in network.modules() if isinstance(module, SyncBatchNorm2d)]
    losses = []
    crop = View(view.size, scale=protocol.crop_scale, resize=view.resize, flip=0.5)
    with make_loader(
        dataset, [crop], batch_size, subset=number_N, drop_last=False, seed=seed, dtype=dtype, **loading
    ) as loader:
        model.train()
        for epoch in range(protocol.epochs):
            total = torch.zeros((), device=device)
            for step, batch in enumerate(loader.epoch(epoch), epoch * loader.steps):
                share = scheduled(protocol.schedule, step, loader.steps, protocol.epochs, protocol.drops)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * share
                counts = shares(min(batch_size, len(number_N) - step % loader.steps * batch_size), processes)
                for norm in norms:
                    norm.counts = counts if len(set(counts)) > 1 else None
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    logits_BC = model(batch.views[0])
                weight = len(batch.label) * processes / sum(counts)  # DDP averages over processes
                loss = weight * F.cross_entropy(logits_BC.float(), batch.label)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimizer.step()
                total += loss.detach()
            losses.append(float(mean_over_processes(total)) / loader.steps)
            if not np.isfinite(losses[-1]):
                raise FloatingPointError(f"fine-tuning diverged in epoch {epoch}; take smaller rates")
        refuse_damaged(loader, device)
    facts = {"labelled_images": len(number_N), "first_loss": round(losses[0], 5), "last_loss": round(losses[-1], 5)}
    return network, facts


def even_batch(number: int, largest: int) -> int:
    """Return the largest batch size up to `largest` that leaves no last batch of less than half of it.

    An epoch has `number` images. A batch norm would learn little from a last batch of a few images, and several
    processes could not share it.
    """
    size = min(number, largest)
    while 0 < number % size < size / 2:
        size -= 1
    return size


def shares(batch: int, processes: int) -> list[int]:
    """Return how many images of a global batch each process has, in the loader's order."""
    return [len(range(rank, batch, processes)) for rank in range(processes)]
