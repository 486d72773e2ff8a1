"""MSVQ's training step in plain PyTorch, which `step.py` compares with: float32, eager, one forward pass per view.

Contiguous memory, batch norm in groups by a reshape, complete similarity matrices, softmax and logarithm one after the
other, queues as plain tensors. It shares the architecture of the network with ours and nothing else. It follows the
specification in arXiv 2305.05370 and is not a copy of released code.

B batch, D embedding, K queue; images [N, C, H, W].
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.method import Embedding
from models.networks.backbones import build_backbone
from models.networks.heads import mlp


class ReshapedBatchNorm(nn.BatchNorm2d):
    """Batch norm with statistics per group of `splits` interleaved groups, computed by turning groups into channels."""

    def __init__(self, channels: int, splits: int) -> None:
        super().__init__(channels)
        self.splits = splits

    def forward(self, x_NCHW: Tensor) -> Tensor:
        n, c, h, w = x_NCHW.shape
        assert self.running_mean is not None and self.running_var is not None
        mean, variance = self.running_mean.repeat(self.splits), self.running_var.repeat(self.splits)
        gain, bias = self.weight.repeat(self.splits), self.bias.repeat(self.splits)
        y = F.batch_norm(x_NCHW.reshape(-1, c * self.splits, h, w), mean, variance, gain, bias, True, 0.1, self.eps)
        self.running_mean.copy_(mean.view(self.splits, c).mean(0))
        self.running_var.copy_(variance.view(self.splits, c).mean(0))
        return y.view(n, c, h, w)


class PaperMsvq:
    """A student, two teachers, two queues and SGD; `step` trains on one batch of four views."""

    def __init__(self, width: int, splits: int = 8, hidden: int = 2048, dim: int = 128, queue_size: int = 4096) -> None:
        backbone = build_backbone("resnet18", width, "small", batch_norm=lambda c: ReshapedBatchNorm(c, splits))
        self.student = Embedding(backbone, mlp((backbone.dim, hidden, dim)))
        self.teachers = [copy.deepcopy(self.student).requires_grad_(False) for _ in range(2)]
        self.queues = [F.normalize(torch.randn(dim, queue_size), dim=0) for _ in range(2)]
        self.pointer = 0
        self.optimizer = torch.optim.SGD(self.student.parameters(), 0.06, momentum=0.9, weight_decay=5e-4)

    def to(self, device: str) -> None:
        """Move networks and queues to a device. Call it before the first step, while the optimizer has no state."""
        for network in (self.student, *self.teachers):
            network.to(device)
        self.queues = [queue_DK.to(device) for queue_DK in self.queues]

    def step(self, views: Sequence[Tensor]) -> Tensor:
        """Make one training step on a strong and three weak views [B, 3, s, s]; return the loss."""
        with torch.no_grad():
            for teacher, momentum in zip(self.teachers, (0.99, 0.95), strict=True):
                for mine, theirs in zip(teacher.parameters(), self.student.parameters(), strict=True):
                    mine.data = mine.data * momentum + theirs.data * (1 - momentum)
        strong, *weak = views
        student_BD = F.normalize(self.student(strong), dim=1)
        keys = [self._key(self.teachers[t], view) for t, view in zip((0, 0, 1), weak, strict=True)]
        losses = []
        for key_BD, queue in zip(keys, (0, 0, 1), strict=True):
            queue_DK = self.queues[queue].clone().detach()
            soft_BK = F.softmax(key_BD @ queue_DK / 0.04, dim=1)
            losses.append(-(soft_BK * F.log_softmax(student_BD @ queue_DK / 0.1, dim=1)).sum(1).mean())
        loss = sum(losses[1:], losses[0]) / 3
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        for queue_DK, key_BD in zip(self.queues, (keys[0], keys[2]), strict=True):
            queue_DK[:, self.pointer : self.pointer + len(key_BD)] = key_BD.T
        self.pointer = (self.pointer + len(strong)) % self.queues[0].shape[1]
        return loss.detach()

    @staticmethod
    @torch.no_grad()
    def _key(teacher: nn.Module, view: Tensor) -> Tensor:
        """Return a teacher's keys, computed on a shuffled batch."""
        order = torch.randperm(len(view), device=view.device)
        return F.normalize(teacher(view[order]), dim=1)[torch.argsort(order)]
