"""LARS: SGD whose step for each tensor is scaled by its norm over its gradient's (You et al., arXiv 1708.03888).

As in ICCL's published code (arXiv 2301.03041): the learning rate enters the momentum buffer, and excluded parameters
take a plain step without weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling. For each parameter w with gradient g, learning rate lr and momentum buffer b:

        ratio = eta |w| / (|g| + decay |w|)          1 for excluded groups, and where |w| or |g| is 0
        b = momentum b + lr ratio (g + decay w)      decay = 0 for excluded groups
        w = w - b

    A parameter group is excluded by its own key `excluded: True`.

    Raises:
        ValueError: a negative number, or a momentum of 1 or more.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.001,
    ) -> None:
        if min(lr, momentum, weight_decay, eta) < 0 or momentum >= 1:
            raise ValueError(f"LARS: lr {lr}, momentum {momentum}, weight decay {weight_decay}, eta {eta} out of range")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta, "excluded": False}
        super().__init__(parameters, defaults)

    # torch declares an overload with and one without a closure; this signature covers both.
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step, calling the closure once before it if there is one; return what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        weights: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        if not weights:
            return
        gradients = [cast(Tensor, p.grad) for p in weights]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers: list[Tensor] = [self.state[p]["momentum_buffer"] for p in weights]
        if group["excluded"]:
            steps: list[Tensor] = list(torch._foreach_mul(gradients, group["lr"]))
        else:
            decay = group["weight_decay"]
            # One vector of all ratios, so that the host never waits for a tensor.
            weight_norm = torch.stack(list(torch._foreach_norm(weights)))
            gradient_norm = torch.stack(list(torch._foreach_norm(gradients)))
            ratio = group["eta"] * weight_norm / (gradient_norm + decay * weight_norm)
            ratio = torch.where((weight_norm > 0) & (gradient_norm > 0), ratio, 1.0) * group["lr"]
            steps = list(torch._foreach_add(gradients, weights, alpha=decay))
            torch._foreach_mul_(steps, list(ratio.unbind()))
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, steps)
        torch._foreach_sub_(weights, buffers)
