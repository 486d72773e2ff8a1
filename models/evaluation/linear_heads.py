"""Linear classifiers on frozen features: one for each learning rate of a sweep, all trained on the same batches.

A sweep reads the features once: the logits of all classifiers are one matrix product, their gradients another, and each
classifier takes its own step. The classifiers do not influence each other, so a sweep equals training its rates one by
one, up to the rounding of a matrix product of another width.

    error = softmax(x W_h' + b_h) - onehot(label)        for each classifier h, divided by the samples that it counts
    SGD     v = momentum v + (error' x + decay W)        W = W - lr_h (v, or with Nesterov: gradient + momentum v)
    LARS    as in `models/training/lars.py`: each weight matrix is scaled by its own norms, biases take a plain step

Shapes: H classifiers, N samples, D features, C classes, B samples of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from models.training.optim import scheduled

if TYPE_CHECKING:
    from models.evaluation.protocols.linear import LinearProtocol

_ETA = 0.001  # LARS


class LabelledBatch(NamedTuple):
    """One training batch: features [B, D], labels [B], and which samples are hidden from blind classifiers [B] bool."""

    features: Tensor
    labels: Tensor
    hidden: Tensor | None


class Heads:
    """H linear classifiers with the same initial weights, from N(0, 0.01), and zero biases.

    Args:
        rates: the peak learning rate of each classifier.
        width: D.
        steps: steps of an epoch.
        blind: which classifiers do not see hidden samples; None where nothing is hidden.

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
        self._momentum = [torch.zeros_like(self.weight_HCD), torch.zeros_like(self.bias_HC)]
        self._rate_H = torch.tensor(rates, device=device)
        self._blind_H = None if blind is None else torch.tensor(blind, device=device)
        self._protocol, self._steps, self._step = protocol, steps, 0

    @torch.no_grad()
    def train_step(self, batch: LabelledBatch) -> None:
        """Take one optimizer step with every classifier."""
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
        self._update(gradients, self._rate_H * share)
        self._step += 1

    def _update(self, gradients: list[Tensor], rate_H: Tensor) -> None:
        momentum, decay = self._protocol.momentum, self._protocol.weight_decay
        lars = self._protocol.optimizer == "lars"
        for value, buffer, gradient in zip((self.weight_HCD, self.bias_HC), self._momentum, gradients, strict=True):
            matrix = value.dim() == 3
            rate = rate_H.view(-1, *[1] * (value.dim() - 1))
            if lars:
                ratio = _trust_ratio(value, gradient, decay) if matrix else 1.0
                buffer.mul_(momentum).add_(rate * ratio * gradient.add_(value, alpha=decay if matrix else 0.0))
                value.sub_(buffer)
                continue
            buffer.mul_(momentum).add_(gradient.add_(value, alpha=decay))
            value.sub_(rate * (gradient.add_(buffer, alpha=momentum) if self._protocol.nesterov else buffer))

    def _logits(self, features_BD: Tensor) -> Tensor:
        heads, classes, width = self.weight_HCD.shape
        logits = torch.addmm(self.bias_HC.flatten(), features_BD, self.weight_HCD.view(-1, width).T)
        return logits.view(-1, heads, classes)

    @torch.no_grad()
    def scores(self, features_ND: Tensor, head: int) -> Tensor:
        """Return the logits [N, C] of one classifier."""
        return torch.addmm(self.bias_HC[head], features_ND, self.weight_HCD[head].T)

    def finite(self, head: int) -> bool:
        """Return whether a classifier has not diverged."""
        return bool(torch.isfinite(self.weight_HCD[head]).all() and torch.isfinite(self.bias_HC[head]).all())


def _trust_ratio(value_HCD: Tensor, gradient_HCD: Tensor, decay: float) -> Tensor:
    """Return LARS's ratio of norms [H, 1, 1]."""
    value_norm_H, gradient_norm_H = value_HCD.flatten(1).norm(dim=1), gradient_HCD.flatten(1).norm(dim=1)
    ratio_H = _ETA * value_norm_H / (gradient_norm_H + decay * value_norm_H)
    return torch.where((value_norm_H > 0) & (gradient_norm_H > 0), ratio_H, 1.0)[:, None, None]


def train_heads(
    heads: Heads,
    batches: Callable[[int], Iterator[LabelledBatch]],
    epochs: int,
    after_epoch: Callable[[Heads], object] = lambda heads: None,
) -> Heads:
    """Train all classifiers on the batches of every epoch, and return them."""
    for epoch in range(epochs):
        for batch in batches(epoch):
            heads.train_step(batch)
        after_epoch(heads)
    return heads


def cached_batches(
    features_ND: Tensor, label_N: Tensor, hidden_N: Tensor | None, size: int, generator: torch.Generator
) -> Callable[[int], Iterator[LabelledBatch]]:
    """Return epochs over cached features: each a new permutation, whose last batch may be smaller."""

    def epoch(_: int) -> Iterator[LabelledBatch]:
        order_N = torch.randperm(len(label_N), generator=generator).to(features_ND.device)
        for row_B in torch.split(order_N, size):
            yield LabelledBatch(features_ND[row_B], label_N[row_B], None if hidden_N is None else hidden_N[row_B])

    return epoch


def train_on_cached(
    features_ND: Tensor,
    label_N: Tensor,
    classes: int,
    protocol: LinearProtocol,
    seed: int = 0,
    hidden_N: Tensor | None = None,
    after_epoch: Callable[[Heads], object] = lambda heads: None,
) -> Heads:
    """Train classifiers on features that were computed once; on one device a pure function of its arguments.

    Args:
        features_ND: float32, on the device that trains; not normalised here.
        label_N: 0 to C - 1.
        hidden_N: bool; given, there are twice as many classifiers, and the second half does not see these samples.
        after_epoch: called after every epoch.

    Raises:
        ValueError: no samples, or a label outside the classes.
    """
    if len(label_N) == 0:
        raise ValueError("linear probe without labelled samples")
    if int(label_N.min()) < 0 or int(label_N.max()) >= classes:
        raise ValueError(f"linear probe: labels {int(label_N.min())} to {int(label_N.max())} for {classes} classes")
    generator = torch.Generator().manual_seed(seed)
    steps = math.ceil(len(label_N) / protocol.batch_size)
    rates, blind = rates_and_blindness(protocol, hidden_N is not None)
    heads = Heads(rates, features_ND.shape[1], classes, protocol, steps, generator, features_ND.device, blind)
    label_N = label_N.to(features_ND.device)
    batches = cached_batches(features_ND, label_N, hidden_N, protocol.batch_size, generator)
    return train_heads(heads, batches, protocol.epochs, after_epoch)


def rates_and_blindness(protocol: LinearProtocol, choosing: bool) -> tuple[list[float], list[bool] | None]:
    """Return the classifiers' rates and which are blind. To choose among rates, a blind classifier joins each."""
    rates = list(protocol.lr)
    return (rates * 2, [False] * len(rates) + [True] * len(rates)) if choosing else (rates, None)
