"""The optimizer and the learning rate that the values of a recipe ask for."""

from __future__ import annotations

from torch.optim import Optimizer

from models.method import Method
from models.training.config import Training
from models.training.optim import build_optimizer, cosine_schedule


def make_optimizer(training: Training, method: Method) -> Optimizer:
    """Return the optimizer of the method's trained parameters, at the peak learning rate."""
    return build_optimizer(
        method.named_parameters(),
        training.optimizer,
        training.lr,
        training.momentum,
        training.weight_decay,
        exclude_norm_and_bias=not training.decay_norm_and_bias,
        constant=method.constant_lr,
    )


def learning_rate(training: Training, steps_per_epoch: int, step: int, epochs: int | None = None) -> float:
    """Return the learning rate of an optimizer step, counted from 0: linear warm-up, then half a cosine.

    Args:
        epochs: the length of the schedule; None takes that of the training.

    Raises:
        ValueError: the warm-up is as long as the run.
    """
    return training.lr * cosine_schedule(
        step, steps_per_epoch, epochs or training.epochs, training.warmup_epochs, training.lr_per_epoch
    )
