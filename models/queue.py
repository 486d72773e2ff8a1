"""A ring buffer of keys: the negatives of MoCo and CLIM, the anchors of soft labels, the support set of NNCLR.

It takes batches of any size, also one that does not divide the queue or is larger than it, and wraps around. It is part
of the state dict and never synchronises with the host. It gathers nothing: push what `distributed.gather` returns, and
all processes hold the same queue.

Shapes: Q aligned queues, K keys in each, D features, B keys of a (global) batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipelines.compiled import hot

if TYPE_CHECKING:
    from models.training.config import Training


class QueueSettings:
    """The check that the settings of every method with a queue share; the settings class declares the field."""

    queue_size: int

    def check(self, training: Training) -> None:
        """Refuse a queue that is smaller than a batch, in which a step's keys would push each other out.

        Raises:
            ValueError: the queue does not hold a whole batch.
        """
        if self.queue_size < training.batch_size:
            raise ValueError(
                f"queue_size is {self.queue_size}, less than a batch of {training.batch_size}; "
                "raise --queue-size or lower --batch-size"
            )


class KeyQueue(nn.Module):
    """`count` aligned queues that share one pointer: row j of each comes from the same sample.

    Args:
        size: K, keys in each queue.
        dim: D, width of a key.
        count: number of queues.
        normalize: store L2-normalised keys (MNCL keeps them as they are).
        seed: of the random unit vectors that fill the queues at first, the same on every process.

    Attributes:
        rows: [Q, K, D] float32, the keys. In the state dict.
        pointer: int64 scalar tensor, the row that the next key is written to. In the state dict.
        filled: int64 scalar tensor, keys pushed so far, at most K; the other rows are still random. In the state dict.

    Raises:
        ValueError: a size, width or count below 1.
    """

    rows: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int, count: int = 1, normalize: bool = True, seed: int = 0) -> None:
        super().__init__()
        if min(size, dim, count) < 1:
            raise ValueError(f"queue of {count} x {size} x {dim}; count, size and width must be at least 1")
        self.size = size
        self.count = count
        self.normalize = normalize
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("rows", F.normalize(torch.randn(count, size, dim, generator=generator), dim=-1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, *keys_BD: Tensor) -> None:
        """Write one batch [B, D] into each queue, over the oldest keys, as if the keys were pushed one by one.

        Raises:
            ValueError: not one batch for each queue, or batches of different or wrong shapes.
        """
        dim = self.rows.shape[2]
        if len(keys_BD) != self.count or any(k.shape != (len(keys_BD[0]), dim) for k in keys_BD):
            shapes = ", ".join(str(tuple(key.shape)) for key in keys_BD)
            raise ValueError(f"queue takes {self.count} batches [B, {dim}] of one size; got {shapes or 'none'}")
        batch = len(keys_BD[0])
        skipped = max(0, batch - self.size)  # keys that later ones of the same batch would overwrite
        keys_QBD = torch.stack([key[skipped:].detach() for key in keys_BD])
        _write(self.rows, self.pointer, self.filled, keys_QBD, skipped, self.normalize)

    def live(self, i: int = 0) -> Tensor:
        """Return queue `i` itself, [K, D], without a copy; the next push changes it.

        For `models.relations`, which keeps nothing of a queue for the backward pass. Use `keys` to keep it.
        """
        return self.rows[i]

    def keys(self, i: int = 0) -> Tensor:
        """Return a copy [K, D] of queue `i`, which no later push changes."""
        return self.rows[i].clone()

    @torch.no_grad()
    def mean_cosine(self) -> float:
        """Return the mean cosine over all pairs of different keys of a queue, of the queue where it is largest.

        It is 0 for independent keys and 1 where all are one vector; also 0 before the queue is full. Synchronises with
        the device.
        """
        if self.size < 2 or int(self.filled) < self.size:
            return 0.0
        # |sum of unit keys|^2 holds each pair twice, and each key with itself.
        squares_Q = F.normalize(self.rows, dim=-1).sum(1).square().sum(1)
        return float(((squares_Q - self.size) / (self.size * (self.size - 1))).max())

    def extra_repr(self) -> str:
        return f"size={self.size}, dim={self.rows.shape[2]}, count={self.count}, normalize={self.normalize}"


@hot
def _write(rows_QKD: Tensor, pointer: Tensor, filled: Tensor, keys_QBD: Tensor, skipped: int, normalize: bool) -> None:
    """Write keys from the pointer on, after skipping `skipped` rows, and advance the pointer, all in place."""
    size, batch = rows_QKD.shape[1], skipped + keys_QBD.shape[1]
    keys_QBD = keys_QBD.float()
    if normalize:
        keys_QBD = F.normalize(keys_QBD, dim=-1)
    # The pointer stays on the device: reading it here would synchronise with the host in every step.
    row_B = (pointer + torch.arange(skipped, batch, device=rows_QKD.device)) % size
    rows_QKD.index_copy_(1, row_B, keys_QBD.to(rows_QKD.dtype))
    pointer.add_(batch).remainder_(size)
    filled.add_(batch).clamp_(max=size)
