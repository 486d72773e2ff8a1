"""Batch norm over the whole global batch: one set of statistics for all processes.

torch's own `SyncBatchNorm` runs on GPUs only. This one is made of `distributed.gather_with_gradient`, so it runs
wherever torch.distributed does, and W processes train exactly what one with the whole batch would: forward, gradients
and running statistics. Every process must bring the same number of samples.

    mean = mean_w m_w        var = mean_w [ v_w + (m_w - mean)^2 ]        m_w, v_w of process w

This form takes one collective each way and does not lose the variance of a large mean, as a sum of squares would.
With one process, and in evaluation, it is torch's batch norm. State-dict keys are those of torch's batch norm.

Shapes: N samples of this process, C channels, W processes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.distributed import gather_with_gradient, world


class _SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What both shapes share. Constructor as torch's: `num_features`, `eps`, `momentum`, `affine`."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world()[1] == 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()  # statistics never in half precision
            var_C, mean_C = torch.var_mean(wide, [0, *range(2, x.ndim)], correction=0)
            mean_WC, var_WC = gather_with_gradient(torch.cat([mean_C, var_C])[None]).chunk(2, 1)
            mean_C = mean_WC.mean(0)
            var_C = (var_WC + (mean_WC - mean_C).square()).mean(0)
            self._follow(mean_C, var_C, len(mean_WC) * x.numel() // x.shape[1])
            scale_C = (var_C + self.eps).rsqrt()
            if self.affine:
                scale_C = scale_C * self.weight
            shift_C = -mean_C * scale_C
            if self.affine:
                shift_C = shift_C + self.bias
            shape = (1, -1, *[1] * (x.ndim - 2))
            return torch.addcmul(shift_C.view(shape), wide, scale_C.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, var_C: Tensor, count: int) -> None:
        """One step of the running statistics; the variance that they keep is the unbiased one, as in torch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), share)
        self.running_var.lerp_((var_C * (count / max(count - 1, 1))).to(self.running_var.dtype), share)


class SyncBatchNorm1d(_SyncBatchNorm, nn.BatchNorm1d):
    """For heads, [N, C]: `heads.mlp(..., norm=SyncBatchNorm1d)`."""


class SyncBatchNorm2d(_SyncBatchNorm, nn.BatchNorm2d):
    """For maps, [N, C, H, W]: `build_backbone(..., batch_norm=SyncBatchNorm2d)`."""
