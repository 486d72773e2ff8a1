"""Fine-tuning: the backbone and a linear classifier trained end to end on labelled images, in several processes or one.

The student backbone alone, from its checkpoint; crops and flips come from the plan, so a step of N processes has the
batch of one, and their batch norms share its statistics. Shapes: B images, C classes, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones import Backbone, build_backbone
from models.distributed import mean_over_processes, world
from models.optim import scheduled
from models.passes import refuse_damaged
from models.protocols import FinetuneProtocol
from models.sync_norm import SyncBatchNorm2d
from pipelines import Dataset, View, make_loader

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Classifier(nn.Module):
    """Logits [B, C] of images: a backbone and a linear layer, which starts at N(0, 0.01) with zero biases."""

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
    architecture: dict[str, Any],
    dataset: Dataset,
    number_N: NDArray[np.int64],
    size: int,
    protocol: FinetuneProtocol,
    seed: int,
    loading: dict[str, Any],
) -> tuple[Classifier, dict[str, Any]]:
    """A classifier of the images with these numbers, trained by `protocol`, and facts of its training.

    Args:
        weights: of the backbone that it starts from; they stay as they are.
        architecture: arguments of `build_backbone`.
        size: side of the views in pixels.
        loading: keywords of `make_loader` (device, rank, world, threads, loader).

    Raises:
        ValueError: fewer images than processes, or damaged ones among them.
        FloatingPointError: the classifier diverged.
    """
    device, processes = torch.device(loading["device"]), world()[1]
    batch_size = min(protocol.batch_size, len(number_N)) // processes * processes
    if batch_size < max(2, processes):
        raise ValueError(f"{len(number_N)} labelled images cannot be fine-tuned on by {processes} processes")
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
    dtype = _DTYPES[protocol.precision]
    losses = []
    view = View(size, scale=protocol.crop_scale, flip=0.5)
    with make_loader(dataset, [view], batch_size, subset=number_N, seed=seed, dtype=dtype, **loading) as loader:
        model.train()
        for epoch in range(protocol.epochs):
            total = torch.zeros((), device=device)
            for step, batch in enumerate(loader.epoch(epoch), epoch * loader.steps):
                share = scheduled(protocol.schedule, step, loader.steps, protocol.epochs, protocol.drops)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * share
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    logits_BC = model(batch.views[0])
                loss = F.cross_entropy(logits_BC.float(), batch.label)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
                optimizer.step()
                total += loss.detach()
            losses.append(float(mean_over_processes(total)) / loader.steps)
            if not np.isfinite(losses[-1]):
                raise FloatingPointError(f"fine-tuning diverged in epoch {epoch}; take smaller rates")
        refuse_damaged(loader, device)
    facts = {"labelled_images": len(number_N), "first_loss": round(losses[0], 5), "last_loss": round(losses[-1], 5)}
    return network, facts
