"""The loader: plan -> executor -> augmentation -> batch. The next batches are made while the current one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.augmentation.augment import Augment, make_augment
from pipelines.batch import Batch
from pipelines.executors.choose import make_executor
from pipelines.executors.executor import Decoded, Executor, Images
from pipelines.formats.dataset import Dataset
from pipelines.plan.pairing import Pairing
from pipelines.plan.plan import BatchPlan, Plan
from pipelines.plan.views import View
from pipelines.prefetch import Prefetch
from pipelines.threads import share_of_cores
from pipelines.transfer import to_device_together

_DEPTH = 2  # finished batches that wait; besides them one is augmented, one is cut ahead, and one is in use


class Loader:
    """Batches of views, epoch by epoch; a context manager. `make_loader` makes it.

    Attributes:
        dataset: the data set.
        steps: number of batches of an epoch.
        plan: which samples and random numbers the batches have.
        note: one line that says which executor was chosen, and why.
        on_batch: called before each batch is handed out; an exception that it raises ends the epoch there.
    """

    def __init__(
        self,
        dataset: Dataset,
        plan: Plan,
        executor: Executor,
        augment: Augment,
        device: torch.device,
        note: str = "",
        on_batch: Callable[[], object] = lambda: None,
    ) -> None:
        self.dataset, self.steps, self.note, self.on_batch = dataset, plan.steps, note, on_batch
        self.plan, self._executor, self._augment, self._device = plan, executor, augment, device
        self._running: list[Prefetch[Batch]] = []

    def epoch(self, epoch: int, start_step: int = 0, pairing: Pairing | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch.

        Args:
            epoch: number of the epoch, which seeds all random decisions.
            start_step: the first batch to make, for a run that resumes inside an epoch.
            pairing: the candidates for partners; None = batches without partners.

        Raises:
            DecodeError: every image of a batch is damaged.
            RuntimeError: the loader was closed meanwhile.
        """
        count = max(0, self.steps - start_step)
        cut = cut_ahead(self._executor, lambda number: self.plan.batch(epoch, start_step + number, pairing), count)
        running = Prefetch(lambda number: self._make(*next(cut)), count, _DEPTH, self._device, _tensors)
        self._running.append(running)
        try:
            for batch in running:
                self.on_batch()
                yield batch
        finally:
            running.close()
            self._running.remove(running)

    def warm_up(self, epoch: int, step: int) -> None:
        """Make a batch in the calling thread and drop it, so that all that the data path compiles is compiled.

        Args:
            epoch, step: of the batch; the first one of the run, so that no image is met that the run does not meet.

        Raises:
            DecodeError: every image of the batch is damaged.
        """
        plan = self.plan.batch(epoch, step)
        self._make(plan, self._executor.start(plan)())

    @contextmanager
    def parked(self) -> Iterator[None]:
        """A context in which no thread makes batches: for whoever compiles or records what runs on the device."""
        with ExitStack() as rests:
            for running in list(self._running):
                rests.enter_context(running.parked())
            yield

    @property
    def replaced(self) -> int:
        """Number of damaged images that this process has met and replaced by grey ones."""
        return len(self._executor.damage.numbers)

    @property
    def counts(self) -> dict[str, int]:
        """Counts for the metrics of a step; empty while no image is damaged."""
        return {"replaced_images": self.replaced} if self.replaced else {}

    def _make(self, plan: BatchPlan, images: Images) -> Batch:
        if not isinstance(images, Decoded):
            images = [view.to(self._device, non_blocking=True) for view in images]
        arrays: list[NDArray[Any]] = [plan.source_S, self.dataset.labels[plan.source_S].astype(np.int64)]
        if plan.box_B4 is not None:
            arrays.append(plan.box_B4)
        sent = to_device_together([*arrays, *self._augment.numbers(images, plan)], self._device)
        views = self._augment(images, sent[len(arrays) :])
        index_S, label_S, count = sent[0], sent[1], plan.count
        batch = Batch(tuple(view[:count] for view in views), index_S[:count], label_S[:count], plan.seed)
        if plan.box_B4 is None:
            return batch
        partner = Batch(tuple(view[count:] for view in views), index_S[count:], label_S[count:], plan.seed)
        return replace(batch, partner=partner, box=sent[2])

    def close(self) -> None:
        """End all threads, also those of an epoch that was left early."""
        for running in list(self._running):
            running.close()
        self._augment.close()
        self._executor.close()

    def __len__(self) -> int:
        return self.steps

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def cut_ahead(
    executor: Executor, plan_of: Callable[[int], BatchPlan], count: int
) -> Iterator[tuple[BatchPlan, Images]]:
    """Yield plan and images of batches 0 to `count` - 1; each is started before the one before it is waited for.

    Args:
        plan_of: returns the plan of a batch, given its number.
    """
    started: deque[tuple[BatchPlan, Callable[[], Images]]] = deque()
    for number in range(count + 1):
        if number < count:
            plan = plan_of(number)
            started.append((plan, executor.start(plan)))
        if number > 0:
            plan, finish = started.popleft()
            yield plan, finish()


def make_loader(
    dataset: Dataset,
    views: Sequence[View],
    batch_size: int,
    *,
    seed: int = 0,
    loader: str = "auto",
    device: torch.device | str = "cpu",
    rank: int = 0,
    world: int = 1,
    shuffle: bool = True,
    drop_last: bool = True,
    fill_to: int = 0,
    subset: NDArray[np.int64] | None = None,
    dtype: torch.dtype = torch.float32,
    threads: int | None = None,
    on_batch: Callable[[], object] = lambda: None,
) -> Loader:
    """Make a loader of `views` of `dataset`.

    Args:
        batch_size: number of samples of a global batch, over all processes.
        seed: together with the epoch it fixes every random number of the data path.
        loader: "ffcv", "dali", "resident", or "auto"; see `executors/choose.py`.
        device: where the batches go.
        rank, world: this process is number `rank` of `world`; each makes its share of every global batch.
        shuffle, drop_last, fill_to, subset: as in `Plan`.
        dtype: of the normalised views.
        threads: decoding threads; None = all cores that this process may use.
        on_batch: as in `Loader`; every one of several processes calls it equally often.

    Raises:
        ValueError: an option is wrong, the batch does not fit the data or the processes, or the data set does not fit
            into memory.
        ModuleNotFoundError: the executor's package is not installed.
    """
    device = torch.device(device)
    plan = Plan(
        dataset.heights,
        dataset.widths,
        views,
        batch_size,
        seed=seed,
        subset=subset,
        rank=rank,
        world=world,
        shuffle=shuffle,
        drop_last=drop_last,
        fill_to=fill_to,
    )
    threads = share_of_cores(threads or 0)
    executor, note = make_executor(loader, dataset, plan, device, threads)
    augment = make_augment(plan.views, dataset.mean, dataset.std, device, dtype, threads=threads)
    return Loader(dataset, plan, executor, augment, device, note + augment.note, on_batch)


def _tensors(batch: Batch) -> Iterator[Tensor]:
    """Yield all tensors of a batch, those of its partner included."""
    own = (tensor for tensor in (*batch.views, batch.index, batch.label, batch.box) if tensor is not None)
    return own if batch.partner is None else chain(own, _tensors(batch.partner))
