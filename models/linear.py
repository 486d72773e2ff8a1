"""The linear probe on cached features: one linear layer, trained on features that were computed once.

Shapes: N samples, D features, C classes, B samples of a step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.protocols import LinearProtocol


def train_linear(
    features_ND: Tensor, labels_N: Tensor, classes: int, protocol: LinearProtocol, seed: int = 0
) -> nn.Linear:
    """A linear classifier trained by `protocol`, a pure function of its arguments on one device.

    Weights start at N(0, 0.01), biases at 0, as in MSVQ's released probe. Epochs run through a new permutation each,
    the last batch may be smaller. The features are used as they are, without normalisation.

    Args:
        features_ND: float32, on the device that shall train.
        labels_N: 0 to C - 1.

    Raises:
        ValueError: no samples, or a label outside the classes.
        FloatingPointError: the classifier diverged.
    """
    if len(labels_N) == 0:
        raise ValueError("linear probe without labelled samples")
    if int(labels_N.min()) < 0 or int(labels_N.max()) >= classes:
        raise ValueError(f"linear probe: labels {int(labels_N.min())} to {int(labels_N.max())} for {classes} classes")
    device = features_ND.device
    labels_N = labels_N.to(device)
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(features_ND.shape[1], classes)
    with torch.no_grad():
        layer.weight.normal_(0, 0.01, generator=generator)
        layer.bias.zero_()
    layer.to(device)
    optimizer = torch.optim.SGD(
        layer.parameters(), protocol.lr, protocol.momentum, 0, protocol.weight_decay, protocol.nesterov
    )
    steps = math.ceil(len(labels_N) / protocol.batch_size)
    for epoch in range(protocol.epochs):
        order_N = torch.randperm(len(labels_N), generator=generator).to(device)
        for step, rows_B in enumerate(torch.split(order_N, protocol.batch_size)):
            share = (epoch * steps + step) / (protocol.epochs * steps)
            optimizer.param_groups[0]["lr"] = protocol.lr * (1 + math.cos(math.pi * share)) / 2
            loss = F.cross_entropy(layer(features_ND[rows_B]), labels_N[rows_B])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            optimizer.step()
    if not all(bool(torch.isfinite(parameter).all()) for parameter in layer.parameters()):
        raise FloatingPointError(f"the linear probe diverged at learning rate {protocol.lr:g}; take a smaller one")
    return layer


@torch.no_grad()
def linear_scores(layer: nn.Linear, features_ND: Tensor) -> Tensor:
    """[N, C] logits."""
    scores_NC: Tensor = layer(features_ND)
    return scores_NC
