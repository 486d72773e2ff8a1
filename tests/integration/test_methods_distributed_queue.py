"""MoCo, CLIM, ReSSL, MSVQ and CGH on two and four gloo processes against one with the whole batch.

Each rank holds batch[rank::world]. Compared are the loss, the gradient as DDP averages it, and the queues: three steps
of SGD in float64 (the queues' rows are stored from float32), then steps in float32 without training, until the queues
were filled many times over. All methods share one start of the processes.

CGH's neck has a batch norm per process by definition: the one process that W are compared with has W groups there.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from models import build
from models.distributed import gather, local_rows, mean_over_processes, world
from models.method import Method
from models.networks.norm import SplitBatchNorm2d
from pipelines.batch import Batch
from tests.support import gloo
from tests.support.small_methods import batch_for, small

METHODS = ("moco", "clim", "ressl", "msvq", "cgh")
BATCH, QUEUE, TRAINED, STEPS = 8, 20, 3, 21  # eight times through the queue, which a batch does not divide


def prepared(name: str, neck_groups: int) -> Method:
    if name == "clim":
        torch.manual_seed(0)
        sizes = {
            "width": 4,
            "resolutions": (16, 12),
            "dim": 8,
            "queue_size": QUEUE,
            "bn_splits": 4,
            "batch_size": BATCH,
        }
        return build("clim", "cifar10", **sizes).double()
    method = small(name, bn_splits=4, queue_size=QUEUE, **({"crops": (12,)} if name == "cgh" else {})).double()
    method.begin(2, 1, 20)  # CGH: in the middle of its cross-fade
    if name == "cgh":
        for network in (method.student, method.teacher.network):
            split = SplitBatchNorm2d(network.neck.bn.num_features, neck_groups).double()
            split.load_state_dict(network.neck.bn.state_dict())
            network.neck.bn = split
    return method


def whole_batch(name: str, method: Method, step: int) -> Batch:
    """Noise; for CLIM two of three batches are mixed with partners, and one anchor stays alone."""
    batch = batch_for(method, BATCH, step)
    if name != "clim" or step % 3 == 2:
        return batch
    box = torch.tensor([[0.2, 0.1, 0.7, 0.8]]).repeat(BATCH, 1)
    box[step % BATCH] = 0
    return replace(batch, partner=batch_for(method, BATCH, 1000 + step), box=box)


def part_of(batch: Batch) -> Batch:
    """This rank's samples, and their partners."""
    views = tuple(local_rows(view) for view in batch.views)
    partner = None if batch.partner is None else part_of(batch.partner)
    box = None if batch.box is None else local_rows(batch.box)
    return Batch(views, local_rows(batch.index), local_rows(batch.label), batch.seed, partner, box)


def train(name: str, neck_groups: int) -> dict[str, Any]:
    method = prepared(name, neck_groups)
    losses, gradients = [], []
    for step in range(STEPS):
        batch = part_of(whole_batch(name, method, step))
        if step >= TRAINED:
            with torch.no_grad():
                method(batch)
        else:
            total = method(batch).total
            method.zero_grad()
            total.backward()
            losses.append(mean_over_processes(total))
            trained = [p for p in method.parameters() if p.grad is not None]
            gradients.append(mean_over_processes(torch.cat([p.grad.flatten() for p in trained])))
            with torch.no_grad():
                sizes = [p.numel() for p in trained]
                for parameter, gradient in zip(trained, gradients[-1].split(sizes), strict=True):
                    parameter.sub_(0.05 * gradient.view_as(parameter))
        if step == TRAINED - 1:
            early = method.queue.rows.clone()
            method.float()
        method.after_step(step + 2)
    return {
        "loss": losses, "gradient": gradients, "early": early, "rows": method.queue.rows,
        "pointer": int(method.queue.pointer), "index": gather(part_of(batch_for(method, BATCH)).index),
    }  # fmt: skip


def everything() -> dict[str, dict[str, Any]]:
    return {name: train(name, 1) for name in METHODS}


@cache
def alone(name: str, processes: int) -> dict[str, Any]:
    return train(name, processes)


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request: pytest.FixtureRequest) -> list[dict[str, dict[str, Any]]]:
    assert world() == (0, 1)
    return gloo.run(everything, request.param)


def distance(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradient_equal_one_process(ranks: list[dict[str, dict[str, Any]]], name: str) -> None:
    """The first step to rounding; later ones as far as the float32 of the queue goes."""
    expected = alone(name, len(ranks) if name == "cgh" else 1)
    for rank in ranks:
        for step, tolerance in ((0, 1e-12), (1, 1e-5), (2, 1e-5)):
            assert rank[name]["loss"][step].item() == pytest.approx(expected["loss"][step].item(), rel=tolerance)
            assert distance(rank[name]["gradient"][step], expected["gradient"][step]) < max(tolerance, 1e-10)


@pytest.mark.parametrize("name", METHODS)
def test_queues_equal_one_process_and_are_identical_on_all_ranks(
    ranks: list[dict[str, dict[str, Any]]], name: str
) -> None:
    expected = alone(name, len(ranks) if name == "cgh" else 1)
    for rank in ranks:
        torch.testing.assert_close(rank[name]["early"], expected["early"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(rank[name]["rows"], expected["rows"], rtol=1e-4, atol=1e-4)
        assert torch.equal(rank[name]["rows"], ranks[0][name]["rows"])
        assert rank[name]["pointer"] == STEPS * BATCH % QUEUE == expected["pointer"]
        assert torch.equal(rank[name]["index"], torch.arange(BATCH))
