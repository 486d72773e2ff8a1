"""Linear classifiers on frozen features: one for each learning rate of a sweep, all trained by the same batches.

A sweep reads the features once: the logits of all classifiers are one matrix product, their gradients another, and each
takes its own step. What one of them becomes does not depend on the others, so a sweep equals training its rates one by
one, to the rounding of a product of another width.

    error = softmax(x W_h' + b_h) - onehot(label)        of every classifier h, divided by the samples that it counts
    SGD     v = momentum v + (error' x + decay W)        W = W - lr_h (v, or with Nesterov gradient + momentum v)
    LARS    as in `lars.py`, each classifier's weights scaled by their own norms; biases take a plain step

Shapes: H classifiers, N samples, D features, C classes, B samples of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.evaluation.protocols import LinearProtocol
from models.training.optim import scheduled

_ETA = 0.001  # LARS


class Labelled(NamedTuple):
    """A batch of a probe's training: features [B, D], labels [B], and which samples are hidden [B] bool, or None."""

    features: Tensor
    labels: Tensor
    hidden: Tensor | None


class Heads:
    """H linear classifiers with the same initial weights, from N(0, 0.01) with zero biases.

    Args:
        rates: the peak learning rate of each.
        blind: which of them do not see hidden samples; None where nothing is hidden.
        steps: of an epoch.

    Attributes:
        weight_HCD, bias_HC: float32.
    """

    def __init__(
        self,
        rates: Sequence[float],
        width: int,
        classes: int,
        protocol: LinearProtocol,
        steps: int,
        generator: torch.Generator,
        device: torch.device,
        blind: Sequence[bool] | None = None,
    ) -> None:
        start_CD = torch.empty(classes, width).normal_(0, 0.01, generator=generator)
        self.weight_HCD = start_CD.repeat(len(rates), 1, 1).to(device)
        self.bias_HC = torch.zeros(len(rates), classes, device=device)
        self._speed = [torch.zeros_like(self.weight_HCD), torch.zeros_like(self.bias_HC)]
        self._rate_H = torch.tensor(rates, device=device)
        self._blind_H = None if blind is None else torch.tensor(blind, device=device)
        self._protocol, self._steps, self._step = protocol, steps, 0

    @torch.no_grad()
    def learn(self, batch: Labelled) -> None:
        """One step of every classifier."""
        features_BD = batch.features
        error_BHC = torch.softmax(self._logits(features_BD), 2)
        error_BHC[torch.arange(len(features_BD), device=features_BD.device), :, batch.labels] -= 1
        if batch.hidden is None or self._blind_H is None:
            error_BHC /= len(features_BD)
        else:
            counts_BH = ~(batch.hidden[:, None] & self._blind_H)
            error_BHC *= (counts_BH / counts_BH.sum(0).clamp_min(1))[:, :, None]
        gradients = [
            (error_BHC.flatten(1).T @ features_BD).view_as(self.weight_HCD),
            error_BHC.sum(0),
        ]
        share = scheduled(self._protocol.schedule, self._step, self._steps, self._protocol.epochs, self._protocol.drops)
        self._move(gradients, self._rate_H * share)
        self._step += 1

    def _move(self, gradients: list[Tensor], rate_H: Tensor) -> None:
        momentum, decay = self._protocol.momentum, self._protocol.weight_decay
        lars = self._protocol.optimizer == "lars"
        for value, speed, gradient in zip((self.weight_HCD, self.bias_HC), self._speed, gradients, strict=True):
            matrix = value.dim() == 3
            rate = rate_H.view(-1, *[1] * (value.dim() - 1))
            if lars:
                ratio = _trust(value, gradient, decay) if matrix else 1.0
                speed.mul_(momentum).add_(rate * ratio * gradient.add_(value, alpha=decay if matrix else 0.0))
                value.sub_(speed)
                continue
            speed.mul_(momentum).add_(gradient.add_(value, alpha=decay))
            value.sub_(rate * (gradient.add_(speed, alpha=momentum) if self._protocol.nesterov else speed))

    def _logits(self, features_BD: Tensor) -> Tensor:
        heads, classes, width = self.weight_HCD.shape
        logits = torch.addmm(self.bias_HC.flatten(), features_BD, self.weight_HCD.view(-1, width).T)
        return logits.view(-1, heads, classes)

    @torch.no_grad()
    def scores(self, features_ND: Tensor, head: int) -> Tensor:
        """[N, C] logits of one classifier."""
        return torch.addmm(self.bias_HC[head], features_ND, self.weight_HCD[head].T)

    def finite(self, head: int) -> bool:
        """Whether a classifier has not diverged."""
        return bool(torch.isfinite(self.weight_HCD[head]).all() and torch.isfinite(self.bias_HC[head]).all())


def _trust(value_HCD: Tensor, gradient_HCD: Tensor, decay: float) -> Tensor:
    """LARS's ratio of norms [H, 1, 1]."""
    size_H, slope_H = value_HCD.flatten(1).norm(dim=1), gradient_HCD.flatten(1).norm(dim=1)
    ratio_H = _ETA * size_H / (slope_H + decay * size_H)
    return torch.where((size_H > 0) & (slope_H > 0), ratio_H, 1.0)[:, None, None]


def train_heads(heads: Heads, batches: Callable[[int], Iterator[Labelled]], epochs: int) -> Heads:
    """Trains all classifiers by every epoch's batches."""
    for epoch in range(epochs):
        for batch in batches(epoch):
            heads.learn(batch)
    return heads


def cached_batches(
    features_ND: Tensor, labels_N: Tensor, hidden_N: Tensor | None, size: int, generator: torch.Generator
) -> Callable[[int], Iterator[Labelled]]:
    """Epochs over features that are there: a new permutation each, the last batch may be smaller."""

    def epoch(_: int) -> Iterator[Labelled]:
        order_N = torch.randperm(len(labels_N), generator=generator).to(features_ND.device)
        for rows_B in torch.split(order_N, size):
            yield Labelled(features_ND[rows_B], labels_N[rows_B], None if hidden_N is None else hidden_N[rows_B])

    return epoch


def train_on_cached(
    features_ND: Tensor,
    labels_N: Tensor,
    classes: int,
    protocol: LinearProtocol,
    seed: int = 0,
    hidden_N: Tensor | None = None,
) -> Heads:
    """Classifiers trained by `protocol` on features computed once, a pure function of its arguments on one device.

    Args:
        features_ND: float32, on the device that shall train; used as they are, without normalisation.
        labels_N: 0 to C - 1.
        hidden_N: bool; with it there are twice as many classifiers, and the second half does not see these samples.

    Raises:
        ValueError: no samples, or a label outside the classes.
    """
    if len(labels_N) == 0:
        raise ValueError("linear probe without labelled samples")
    if int(labels_N.min()) < 0 or int(labels_N.max()) >= classes:
        raise ValueError(f"linear probe: labels {int(labels_N.min())} to {int(labels_N.max())} for {classes} classes")
    generator = torch.Generator().manual_seed(seed)
    steps = math.ceil(len(labels_N) / protocol.batch_size)
    rates, blind = sweep_of(protocol, hidden_N is not None)
    heads = Heads(rates, features_ND.shape[1], classes, protocol, steps, generator, features_ND.device, blind)
    labels_N = labels_N.to(features_ND.device)
    batches = cached_batches(features_ND, labels_N, hidden_N, protocol.batch_size, generator)
    return train_heads(heads, batches, protocol.epochs)


def sweep_of(protocol: LinearProtocol, choosing: bool) -> tuple[list[float], list[bool] | None]:
    """The classifiers' rates, and which are blind: where a rate is to be chosen, all rates once more."""
    rates = list(protocol.lr)
    return (rates * 2, [False] * len(rates) + [True] * len(rates)) if choosing else (rates, None)
