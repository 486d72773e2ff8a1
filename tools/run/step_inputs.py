"""The inputs of a training step in memory that stays where it is, so that a recorded step finds them there.

Images, labels and rectangles are copied from the loader's batch. Everything else that changes from step to step (the
permutations of ShuffleBN, the learning rate, a method's scheduled numbers) is computed on the host, packed into one
piece of memory and sent to the device in one copy. Nothing of this happens inside the step.

G samples of the global batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from models.distributed import world
from models.method import Method
from pipelines import Batch

_SLOTS = 4  # host copies of the packed numbers; the device may still read those of earlier steps


class StepInputs:
    """Fixed memory for the inputs of one method's steps.

    Args:
        method: whose permutations and scheduled numbers it holds.
        batch_size: images of a micro-batch of this process.
        device: of the step.

    Attributes:
        lr: float32 [], the learning rate of the step; the optimizer reads it there.
    """

    def __init__(self, method: Method, batch_size: int, device: torch.device) -> None:
        self._method, self._device = method, device
        self._names = sorted(method.schedule(0))
        rows = max(len(method.shuffle_keys(mixed)) for mixed in (False, True))
        shape = (rows, batch_size * world()[1])
        self._packed = _Packed(shape, 1 + len(self._names), device)
        on_gpu = device.type == "cuda"
        self._slots = [_Packed(shape, 1 + len(self._names), pinned=True) for _ in range(_SLOTS if on_gpu else 0)]
        self._sent: list[torch.cuda.Event | None] = [None] * len(self._slots)
        self._next = 0
        self._fixed: dict[bool, Batch] = {}
        self.lr = self._packed.numbers[0]

    def load(self, batch: Batch, step: int, lr: float) -> Batch:
        """Copies the inputs of a step; returns the batch that lies in the fixed memory.

        Args:
            batch: of the loader. It may be changed once the device has read it, in the order of the current stream.
            step: of the optimizer, from 0.
        """
        mixed = batch.partner is not None
        fixed = self._fixed.get(mixed)
        if fixed is None:
            fixed = self._fixed[mixed] = _like(batch)
        torch._foreach_copy_(_tensors(fixed), _tensors(batch), non_blocking=True)
        keys = self._method.shuffle_keys(mixed)
        orders_G = [self._method.order(batch, key) for key in keys]
        schedule = self._method.schedule(step)
        self._send(orders_G, [lr, *(schedule[name] for name in self._names)])
        numbers = dict(zip(self._names, self._packed.numbers[1:].unbind(), strict=True))
        return replace(fixed, seed=batch.seed, orders=self._packed.orders[: len(keys)].unbind(), numbers=numbers)

    def _send(self, orders_G: Sequence[Tensor], numbers: Sequence[float]) -> None:
        if not self._slots:
            self._packed.fill(orders_G, numbers)
            return
        slot, self._next = self._next, (self._next + 1) % _SLOTS
        if (earlier := self._sent[slot]) is not None:
            earlier.synchronize()  # of four steps ago: it has long been read
        self._slots[slot].fill(orders_G, numbers)
        self._packed.memory.copy_(self._slots[slot].memory, non_blocking=True)
        self._sent[slot] = torch.cuda.current_stream(self._device).record_event()


class _Packed:
    """Permutations int64 [rows, G] and numbers float32 [count] in one piece of memory."""

    def __init__(
        self, shape: tuple[int, int], count: int, device: torch.device | None = None, pinned: bool = False
    ) -> None:
        rows, size = shape
        length = 8 * rows * size
        self.memory = torch.zeros(length + 4 * count, dtype=torch.uint8, device=device, pin_memory=pinned)
        self.orders = self.memory[:length].view(torch.int64).view(rows, size)
        self.numbers = self.memory[length:].view(torch.float32)

    def fill(self, orders_G: Sequence[Tensor], numbers: Sequence[float]) -> None:
        for row, order_G in enumerate(orders_G):
            self.orders[row] = order_G
        self.numbers.copy_(torch.tensor(numbers, dtype=torch.float32))


def _like(batch: Batch) -> Batch:
    """A batch of new memory in the shapes of another one."""
    return Batch(
        tuple(torch.empty_like(view) for view in batch.views),
        torch.empty_like(batch.index),
        torch.empty_like(batch.label),
        batch.seed,
        None if batch.partner is None else _like(batch.partner),
        None if batch.box is None else torch.empty_like(batch.box),
    )


def _tensors(batch: Batch) -> list[Tensor]:
    """The images, labels and rectangles of a batch and its partner."""
    own = [*batch.views, batch.index, batch.label, *([] if batch.box is None else [batch.box])]
    return own if batch.partner is None else own + _tensors(batch.partner)
