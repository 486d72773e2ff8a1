"""Batch norm whose statistics do not leak the answer: split groups, shuffled batches, separate views.

One process imitates many: a split batch norm computes the statistics of S groups separately, as S GPUs would. Groups
are interleaved (sample n belongs to group n mod S), and processes hold interleaved shares of the global batch, so that
W processes with S / W groups each equal one process with S groups, exactly.

Split batch norm: MSVQ's published code (arXiv 2305.05370). Shuffling: MoCo, arXiv 1911.05722, section 3.3.

Shapes: N samples of this process's batch, S groups, C channels, H x W pixels, G samples of the global batch, V views.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from models.distributed import gather, local_rows, mean_over_processes, world
from models.networks.block_norm import block_batch_norm, from_blocks, to_blocks
from models.networks.sync_norm import SyncBatchNorm

Output = TypeVar("Output", Tensor, tuple[Tensor, ...])


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the statistics of `splits` interleaved groups in training; ordinary batch norm in evaluation.

    Gain and bias are shared; the running statistics are the average of what each group alone would have made of them.
    State-dict keys are those of `nn.BatchNorm2d`. Cost: sorting the batch by groups and back, unless its groups are
    contiguous already.

    Attributes:
        views: the number of views in one pass (`forward_views`); each has its own groups.
        blocks: whether the groups are contiguous: a network that sorts its batch once sets this on its batch norms.

    Raises:
        ValueError: fewer than one split; in training, a batch that the splits do not divide.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, splits: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        if splits < 1:
            raise ValueError(f"batch norm in {splits} groups; give at least 1")
        super().__init__(num_features, eps, momentum)
        self.splits, self.views = splits, 1
        self.blocks = False
        self.average_factor = momentum

    @property
    def groups(self) -> int:
        """The number of groups of a pass: row n belongs to group n mod (splits x views)."""
        return self.splits * self.views

    def forward(self, x_NCHW: Tensor) -> Tensor:
        groups = self.groups
        if not self.training or groups == 1:
            return super().forward(x_NCHW)
        mean_SC, var_SC = self.running_mean.repeat(groups, 1), self.running_var.repeat(groups, 1)
        x = x_NCHW if self.blocks else to_blocks(x_NCHW, groups)
        share = 1 - (1 - self.average_factor) ** self.views  # as long as one step for each view
        y = block_batch_norm(x, self.weight, self.bias, mean_SC, var_SC, share, self.eps)
        self.running_mean.copy_(mean_SC.mean(0))
        self.running_var.copy_(var_SC.mean(0))
        self.num_batches_tracked.add_(self.views)
        return y if self.blocks else from_blocks(y, groups)

    def extra_repr(self) -> str:
        return f"{self.num_features}, splits={self.splits}, eps={self.eps}, momentum={self.momentum}"


def batch_permutation(count: int, *key: int) -> Tensor:
    """Return a permutation [G] of the global batch, a pure function of the key: equal on every process.

    Args:
        key: seed, step, view or other integers.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randperm(count, generator=generator)


@torch.no_grad()
def shuffled(network: Callable[[Tensor], Output], images: Tensor, permutation_G: Tensor) -> Output:
    """Run a network on a permuted global batch, and restore the order of its outputs (MoCo's ShuffleBN). No gradient.

    Samples then share their batch statistics with other samples than in the student's pass. With several processes the
    images travel: each process runs its interleaved share of the permuted global batch.

    Args:
        network: maps images [N, ...] to a tensor [N, ...] or a tuple of them.
        images: [N, 3, H, W], this process's share.
        permutation_G: a permutation of the global batch, the same on every process (`batch_permutation`).

    Returns:
        What the network returns, for this process's images in their order.

    Raises:
        ValueError: the permutation is not one of the global batch.
    """
    all_images = gather(images)
    if len(permutation_G) != len(all_images):
        raise ValueError(f"a permutation of {len(permutation_G)} for a global batch of {len(all_images)}")
    order_G = permutation_G.to(images.device, non_blocking=True)
    own_images = all_images.index_select(0, local_rows(order_G))
    if images.is_contiguous(memory_format=torch.channels_last):
        own_images = own_images.contiguous(memory_format=torch.channels_last)
    inverse_N = local_rows(torch.argsort(order_G))
    outputs = network(own_images)
    if isinstance(outputs, Tensor):
        return gather(outputs).index_select(0, inverse_N)
    return tuple(gather(output).index_select(0, inverse_N) for output in outputs)


def views_can_join(network: nn.Module) -> bool:
    """Return whether `forward_views` can keep the statistics of views apart: every batch norm is one of ours."""
    norms = (module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    return all(isinstance(norm, SplitBatchNorm2d | SyncBatchNorm) for norm in norms)


def forward_views(network: nn.Module, views: Sequence[Tensor]) -> list[Tensor]:
    """Run several views [N, ...] in one pass, each with the batch statistics that it would have alone.

    The views are interleaved (row n * V + v), and every split batch norm gets V times its groups: group
    (n mod S) * V + v. Running statistics take one step as long as V steps, towards the mean over the views.

    Returns:
        The network's output [N, ...] for each view; of a backbone, the pooled features.

    Raises:
        ValueError: in training, the network has a batch norm that cannot be split.
    """
    count = len(views)
    norms = [module for module in network.modules() if isinstance(module, SplitBatchNorm2d | SyncBatchNorm)]
    if network.training and not views_can_join(network):
        raise ValueError(f"batch norms of {type(network).__name__} would mix {count} views; build them as split ones")
    for norm in norms:
        norm.views = count
    try:
        output = network(_interleaved(views))
    finally:
        for norm in norms:
            norm.views = 1
    rows: Tensor = output if isinstance(output, Tensor) else output.pooled
    return list(rows.view(-1, count, *rows.shape[1:]).unbind(1))


def _interleaved(views: Sequence[Tensor]) -> Tensor:
    """Return [N V, ...], images in channels-last memory as networks expect them."""
    if views[0].ndim != 4:
        return torch.stack(list(views), 1).flatten(0, 1)
    rows_NVHWC = torch.stack([view.permute(0, 2, 3, 1) for view in views], 1)
    return rows_NVHWC.flatten(0, 1).permute(0, 3, 1, 2)


@torch.no_grad()
def average_running_statistics(network: nn.Module) -> None:
    """Replace running means and variances by their average over processes; called after each step, on every process.

    DDP does not broadcast buffers here, so each process updates them by its own groups; their average is what one
    process with all groups would hold. After every step all processes hold the same values: evaluating or saving the
    network changes nothing, and a run that was stopped anywhere resumes bit for bit. Cost: one collective for all of
    them.
    """
    if world()[1] == 1:
        return
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    running = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    if running:
        means = torch.split(mean_over_processes(torch.cat(running)), [len(buffer) for buffer in running])
        torch._foreach_copy_(running, list(means))
