"""Optimizers by name, and the learning-rate schedules of the published recipes as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from models.training.lars import LARS

NAMES = ("sgd", "lars", "adamw")


def build_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    name: str,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    exclude_norm_and_bias: bool = False,
    constant: Sequence[str] = (),
) -> Optimizer:
    """Return an optimizer over the parameters that require a gradient.

    Args:
        named_parameters: as `nn.Module.named_parameters` returns; those without gradient (teachers) are left out.
        name: "sgd", "lars" or "adamw".
        lr: the peak learning rate; `set_learning_rate` changes it.
        momentum: of SGD and LARS; AdamW takes (0.9, 0.999).
        weight_decay: an L2 term in SGD and LARS, decoupled in AdamW.
        exclude_norm_and_bias: no weight decay, and in LARS no scaling, for vectors: norm gains and all biases.
            Published code often selects by name and then misses some norms; this does not.
        constant: prefixes of names ("predictor.") whose learning rate stays at its peak, as in SimSiam and MNCL.

    Raises:
        ValueError: an unknown name, no parameters, a prefix that no parameter has, or a number out of range.
    """
    if name not in NAMES:
        raise ValueError(f"unknown optimizer '{name}'; choose from {', '.join(NAMES)}")
    trained = [(key, parameter) for key, parameter in named_parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("the optimizer got no parameter that requires a gradient")
    for start in constant:
        if not any(key.startswith(start) for key, _ in trained):
            raise ValueError(f"no parameter's name starts with '{start}', whose learning rate is to stay constant")
    # At most four groups: (scheduled or not) x (excluded or not), in the order in which they appear.
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for key, parameter in trained:
        excluded = exclude_norm_and_bias and parameter.ndim <= 1
        scheduled = not key.startswith(tuple(constant)) if constant else True
        group = groups.setdefault((excluded, scheduled), {"params": [], "excluded": excluded, "scheduled": scheduled})
        group["params"].append(parameter)
        group["weight_decay"] = 0.0 if excluded else weight_decay
    # Fused ones read a learning rate that is a tensor where it lies, so that a recorded step sees it change.
    if name == "adamw":
        return AdamW(list(groups.values()), lr, fused=True)
    if name == "lars":
        return LARS(list(groups.values()), lr, momentum)
    return SGD(list(groups.values()), lr, momentum, fused=True)


def set_learning_rate(optimizer: Optimizer, lr: float | Tensor) -> None:
    """Give `lr` to every group except those whose rate is constant; a tensor [] can be changed from step to step."""
    for group in optimizer.param_groups:
        if group.get("scheduled", True):
            group["lr"] = lr


def allocate_state(optimizer: Optimizer) -> None:
    """Makes the state that SGD, LARS and AdamW would make in their first step, in the layout of their parameters.

    A recorded step needs it before it is recorded. Fused optimizers walk through parameter, gradient and state in the
    order of memory and compare no strides: with state of another layout, as a checkpoint brings it, they would give
    wrong numbers.
    """
    for group in optimizer.param_groups:
        adaptive = "betas" in group  # AdamW, also where Accelerate has wrapped it
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            for name in ("exp_avg", "exp_avg_sq") if adaptive else ("momentum_buffer",):
                kept, state[name] = state.get(name), torch.zeros_like(parameter, memory_format=torch.preserve_format)
                if kept is not None:
                    state[name].copy_(kept)
            if adaptive:
                done = state.get("step", 0.0)
                state["step"] = torch.as_tensor(done, dtype=torch.float32).to(parameter.device, copy=True)
        if adaptive and group["params"][0].is_cuda:
            group["capturable"] = True  # what torch asks of an AdamW that is recorded


def cosine_schedule(
    step: int,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: float = 0.0,
    per_epoch: bool = False,
    warmup_start: float = 0.0,
    end: float = 0.0,
) -> float:
    """Return the share of the peak learning rate at `step` (from 0): linear warm-up, then half a cosine down to `end`.

    Args:
        warmup_epochs: length of the warm-up, 0 for none; the cosine spans the remaining epochs.
        per_epoch: whether the rate changes at the start of an epoch only (MoCo, CLIM), not at every step (MSVQ, CGH).
        warmup_start: the share at step 0 of a warm-up. MSVQ's is 0, so that the first step moves nothing.
        end: the share that the cosine reaches after the last step.

    Raises:
        ValueError: no steps, or a warm-up that is negative or as long as the run.
    """
    if steps_per_epoch < 1 or epochs < 1:
        raise ValueError(f"schedule over {epochs} epochs of {steps_per_epoch} steps; give at least 1 of each")
    if not 0 <= warmup_epochs < epochs:
        raise ValueError(f"warm-up of {warmup_epochs} epochs in a run of {epochs}; give 0 or more, less than the run")
    epoch = step // steps_per_epoch if per_epoch else step / steps_per_epoch
    if epoch < warmup_epochs:
        return warmup_start + (1 - warmup_start) * epoch / warmup_epochs
    progress = min(1.0, (epoch - warmup_epochs) / (epochs - warmup_epochs))
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2


def scheduled(name: str, step: int, steps_per_epoch: int, epochs: int, drops: Sequence[float] = ()) -> float:
    """Return the share of the peak rate at `step` by a schedule's name: "cosine", "cosine per epoch", or "drops".

    Args:
        drops: for "drops": shares of the epochs; from each on, the rate is a tenth of what it was.

    Raises:
        ValueError: an unknown name.
    """
    if name == "drops":
        epoch = step // steps_per_epoch
        return math.prod(0.1 for share in drops if epoch >= round(share * epochs))
    if name not in ("cosine", "cosine per epoch"):
        raise ValueError(f"unknown schedule '{name}'; take cosine, cosine per epoch, or drops")
    return cosine_schedule(step, steps_per_epoch, epochs, per_epoch=name == "cosine per epoch")
