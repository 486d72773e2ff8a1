"""Batch norm over the global batch: one set of statistics for all processes.

torch's own `SyncBatchNorm` runs on GPUs only. This one is built on `distributed.gather_with_gradient`, so it runs
wherever torch.distributed does, and W processes train exactly what one with the whole batch would: forward pass,
gradients and running statistics. Processes bring the same number of samples unless `counts` gives each one's number.

    mean = mean_w m_w        var = mean_w [ v_w + (m_w - mean)^2 ]        m_w, v_w of process w, weighted by its samples

This form takes one collective in each direction, and does not lose the variance next to a large mean, as a sum of
squares would. With one process, and in evaluation, it is torch's batch norm. State-dict keys are those of torch's
batch norm.

Several views may pass at once, interleaved (`norm.forward_views`): each has its own statistics, in one collective.

Shapes: N samples of this process, C channels, W processes, V views.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.distributed import gather_with_gradient, world


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Base for both shapes. The constructor is torch's: `num_features`, `eps`, `momentum`, `affine`.

    Attributes:
        views: the number of views in one pass: row n * V + v is view v of sample n.
        counts: the number of samples of each process, all above 0; None where they are equal.
    """

    views = 1
    counts: Sequence[int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world()[1] == self.views == 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()  # statistics never in half precision
            x_NVC = wide.reshape(-1, self.views, *wide.shape[1:])
            var_VC, mean_VC = torch.var_mean(x_NVC, [0, *range(3, x_NVC.ndim)], correction=0)
            mean_WVC, var_WVC = gather_with_gradient(torch.cat([mean_VC, var_VC], 1)[None]).chunk(2, 2)
            mean_VC = self._over_processes(mean_WVC)
            var_VC = self._over_processes(var_WVC + (mean_WVC - mean_VC).square())
            samples = sum(self.counts) if self.counts else len(mean_WVC) * len(x) // self.views
            self._update_running(mean_VC.mean(0), var_VC.mean(0), samples * x[0].numel() // x.shape[1])
            scale_VC = (var_VC + self.eps).rsqrt()
            if self.affine:
                scale_VC = scale_VC * self.weight
            shift_VC = -mean_VC * scale_VC
            if self.affine:
                shift_VC = shift_VC + self.bias
            shape = (1, *mean_VC.shape, *[1] * (x.ndim - 2))
            return torch.addcmul(shift_VC.view(shape), x_NVC, scale_VC.view(shape)).flatten(0, 1).to(x.dtype)

    def _over_processes(self, value_WVC: Tensor) -> Tensor:
        """Return the mean over processes, weighted by their numbers of samples."""
        if self.counts is None:
            return value_WVC.mean(0)
        share_W = value_WVC.new_tensor(self.counts) / sum(self.counts)
        mean_VC: Tensor = torch.tensordot(share_W, value_WVC, 1)
        return mean_VC

    @torch.no_grad()
    def _update_running(self, mean_C: Tensor, var_C: Tensor, count: int) -> None:
        """Take one step of the running statistics for each view; the variance is the unbiased one, as in torch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(self.views)
        if self.momentum is None:
            share = self.views / int(self.num_batches_tracked)
        else:
            share = 1 - (1 - self.momentum) ** self.views
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), share)
        self.running_var.lerp_((var_C * (count / max(count - 1, 1))).to(self.running_var.dtype), share)


class SyncBatchNorm1d(SyncBatchNorm, nn.BatchNorm1d):
    """For heads, [N, C]: `heads.mlp(..., norm=SyncBatchNorm1d)`."""


class SyncBatchNorm2d(SyncBatchNorm, nn.BatchNorm2d):
    """For maps, [N, C, H, W]: `build_backbone(..., batch_norm=SyncBatchNorm2d)`."""
