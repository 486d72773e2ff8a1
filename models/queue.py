"""A ring buffer of keys: the negatives of MoCo and CLIM, the anchors of soft labels, the support set of NNCLR.

Any batch size, also one that does not divide the queue or is larger than it; wraps around; part of the state dict;
without host synchronisation. It gathers nothing: push what `distributed.gather` returns, and all processes hold the
same queue.

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
    """What the settings of every method with a queue refuse; the dataclass beside it has the field."""

    queue_size: int

    def check(self, training: Training) -> None:
        """A queue must hold a whole batch, or a step's keys push each other out.

        Raises:
            ValueError: it does not.
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
        normalize: store L2-normalised keys (MNCL keeps raw ones).
        seed: of the random unit vectors that fill the queues at first; the same on every process.

    Attributes:
        rows: [Q, K, D] float32, the keys. In the state dict.
        pointer: int64 scalar tensor, the row that the next key takes. In the state dict.
        filled: int64 scalar tensor, keys pushed so far, at most K; the rest are still random. In the state dict.

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
        """Write one batch [B, D] into each queue, over the oldest keys, as if pushed one by one.

        Raises:
            ValueError: not one batch per queue, or batches of different or wrong shapes.
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
        """Queue `i` itself, [K, D]: costs nothing, and changes with the next push.

        For `models.relations`, which keeps nothing of a queue for backward. Whoever keeps it takes `keys`.
        """
        return self.rows[i]

    def keys(self, i: int = 0) -> Tensor:
        """A snapshot [K, D] of queue `i`: a copy, which no later push changes."""
        return self.rows[i].clone()

    @torch.no_grad()
    def mean_cosine(self) -> float:
        """Mean cosine of two different keys of a queue, over all pairs, of the queue where it is largest.

        0 for independent keys, 1 where all are one vector; 0 too before the queue is full. Waits for the device.
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
    """Writes keys from the pointer on, after `skipped` places, and moves the pointer. All in place."""
    size, batch = rows_QKD.shape[1], skipped + keys_QBD.shape[1]
    keys_QBD = keys_QBD.float()
    if normalize:
        keys_QBD = F.normalize(keys_QBD, dim=-1)
    # The pointer stays on the device: reading it here would make the host wait for every step.
    places_B = (pointer + torch.arange(skipped, batch, device=rows_QKD.device)) % size
    rows_QKD.index_copy_(1, places_B, keys_QBD.to(rows_QKD.dtype))
    pointer.add_(batch).remainder_(size)
    filled.add_(batch).clamp_(max=size)
