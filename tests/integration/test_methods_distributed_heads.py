"""ICCL, MNCL, SimCLR, BYOL, SimSiam and NNCLR on two and four gloo processes against one with the whole batch.

Each process holds an interleaved part of the batch and runs under DDP; backbones and heads have synchronised batch
norm, which is what these methods define. In float64, so that a difference is one of meaning. All checks share one start
of the processes: `everything` runs on each rank, and the tests compare what came back.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models import Method, build, resolve
from models.clustering import log_assignment, log_mean, uniformity
from models.distributed import gather, gather_with_gradient, local_rows, mean_over_processes, world
from models.methods.registry import REGISTRY
from models.networks.backbone import Backbone, Features
from models.networks.sync_norm import SyncBatchNorm1d, SyncBatchNorm2d
from pipelines.batch import Batch
from tests.support import gloo
from tests.support.small_methods import PAPER

BATCH, STEPS, MANY, QUEUE = 16, 3, 25, 24

HEADS = {"hidden": 16, "dim": 8}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "simclr": ("simclr", {}),
    "simclr as in its paper": ("simclr", PAPER["simclr"]),
    "byol": ("byol", {}),
    "byol as in its paper": ("byol", PAPER["byol"]),
    "simsiam": ("simsiam", {"predictor_hidden": 4}),
    "nnclr": ("nnclr", {"predictor_hidden": 16, "queue_size": QUEUE}),
    "mncl": ("mncl", {"predictor_hidden": 4, "queue_size": QUEUE}),
    "mncl released": ("mncl", {"predictor_hidden": 4, "queue_size": QUEUE, "mode": "released"}),
    "iccl": ("iccl", {}),
    "iccl plain": ("iccl", {"variant": "plain", "adaptive": True, "pca": 8}),
}


class Tiny(Backbone):
    """Two convolutions with synchronised batch norm: few collectives, so that the tests are quick."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, 2, 1, bias=False), SyncBatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, 2, 1, bias=False), SyncBatchNorm2d(8)
        self.dim, self.widths = 8, {"layer1": 8}

    def forward(self, images_BCHW: Tensor) -> Features:
        x = self.bn1(self.conv1(images_BCHW)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return Features(x.mean((2, 3)), {"layer1": x})


def method_of(case: str) -> Method:
    torch.manual_seed(0)
    name, settings = CASES[case]
    values = {"width": 4, "sync_bn": True, "bn_splits": 1, "batch_size": BATCH, "crop_size": 16, **HEADS, **settings}
    if case == "simclr":  # one with a whole network, as the recipe makes it
        method = build(name, "cifar10", **values)
    else:
        method = REGISTRY[name].make(Tiny(), resolve(name, "cifar10", **values).settings)
    method.begin(11, steps_per_epoch=1, epochs=20)  # for ICCL: in the middle of its ramp
    return method.double()


def batch_of(method: Method, step: int) -> Batch:
    """This process's part of global batch `step`: three noisy pictures of each image."""
    generator = torch.Generator().manual_seed(step)
    image = torch.randn(BATCH, 3, 16, 16, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(method.views), BATCH, 3, 16, 16, generator=generator, dtype=torch.float64)
    index = local_rows(torch.arange(BATCH))
    return Batch(tuple(local_rows(image + n) for n in noise), index, index, step)


def trained(case: str) -> dict[str, Any]:
    """A few steps under DDP: the gradients of the last, losses, weights, statistics and the queue."""
    method = method_of(case)
    model: nn.Module = method if world()[1] == 1 else DistributedDataParallel(method, broadcast_buffers=False)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        total = model(batch_of(method, step)).total
        total.backward()
        losses.append(mean_over_processes(total.detach()))
        optimizer.step()
        method.after_step(11 + step)
    return {
        "losses": losses,
        "gradients": {name: p.grad for name, p in method.named_parameters() if p.grad is not None},
        "weights": {name: p.detach() for name, p in method.named_parameters()},
        "statistics": {name: b for name, b in method.named_buffers() if "running" in name},
        "queue": method.queue.rows if hasattr(method, "queue") else None,
    }


@torch.no_grad()
def filled(case: str) -> dict[str, Any]:
    """The queue after many steps of a batch that does not divide it."""
    method = method_of(case).eval()  # running statistics, because many steps of synchronised ones take long here
    for step in range(MANY):
        method(batch_of(method, step % 7))
    return {"queue": method.queue.rows, "pointer": int(method.queue.pointer)}


def normalised() -> dict[str, Any]:
    """Batch norm alone: output, gradients as DDP averages them, running statistics; and a large mean in float32."""
    result: dict[str, Any] = {}
    for name, shape in (("1d", (BATCH, 5)), ("2d", (BATCH, 5, 4, 3))):
        torch.manual_seed(1)
        norm = (SyncBatchNorm1d if name == "1d" else SyncBatchNorm2d)(5).double()
        nn.init.uniform_(norm.weight)
        nn.init.normal_(norm.bias)
        x = local_rows(3 * torch.randn(shape, dtype=torch.float64) + 1).clone().requires_grad_()
        y = norm(x)
        weight = local_rows(torch.randn(shape, dtype=torch.float64))
        (y.sin() * weight).mean().backward()
        result[name] = {
            "output": gather(y),
            "input gradient": gather(x.grad) / world()[1],  # each process's mean is over its own samples
            "gradients": [mean_over_processes(p.grad) for p in norm.parameters()],
            "statistics": dict(norm.named_buffers()),
        }
    torch.manual_seed(2)
    large = local_rows(torch.randn(BATCH, 5, dtype=torch.float64) + 1000)
    plain = SyncBatchNorm1d(5, affine=False)
    result["large mean"] = gather(plain(large.float()))
    half = plain(large.bfloat16())
    result["half precision"] = (str(half.dtype), str(plain.running_var.dtype))
    return result


def uniform() -> dict[str, Any]:
    """L_uni alone: its value and gradient over processes, through the gathered mean."""
    torch.manual_seed(3)
    layer = nn.Linear(6, 12, bias=False).double()
    rows = local_rows(torch.randn(BATCH, 6, dtype=torch.float64))
    value = uniformity(gather_with_gradient(log_mean(log_assignment(layer(rows), 0.1))[None]))
    value.backward()
    return {"value": value.detach(), "gradient": mean_over_processes(layer.weight.grad)}


def everything() -> dict[str, Any]:
    torch.set_num_threads(1)
    return {
        "trained": {case: trained(case) for case in CASES},
        "filled": {case: filled(case) for case in ("nnclr", "mncl")},
        "normalised": normalised(),
        "uniform": uniform(),
    }


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    threads = torch.get_num_threads()
    try:
        return everything()
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return gloo.run(everything, request.param)


def close(ours: Any, theirs: Any, tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("what", ["losses", "gradients", "weights", "statistics", "queue"])
@pytest.mark.parametrize("case", CASES)
def test_ranks_train_what_one_process_would(
    alone: dict[str, Any], ranks: list[dict[str, Any]], case: str, what: str
) -> None:
    expected = alone["trained"][case][what]
    for rank in ranks:
        if expected is None:
            assert rank["trained"][case][what] is None  # no queue
        else:
            close(rank["trained"][case][what], expected, 1e-6 if what == "queue" else 1e-8)  # keys pass float32
    if what == "gradients":
        assert all(gradient.abs().sum() > 0 for gradient in expected.values())


@pytest.mark.parametrize("case", ["nnclr", "mncl"])
def test_queues_are_identical_on_all_ranks_after_many_steps(
    alone: dict[str, Any], ranks: list[dict[str, Any]], case: str
) -> None:
    expected = alone["filled"][case]
    for rank in ranks:
        assert torch.equal(rank["filled"][case]["queue"], ranks[0]["filled"][case]["queue"])
        close(rank["filled"][case]["queue"], expected["queue"], 1e-6)
        assert rank["filled"][case]["pointer"] == expected["pointer"] == MANY * BATCH % QUEUE


@pytest.mark.parametrize("name", ["1d", "2d"])
def test_synchronised_batch_norm_is_that_of_the_whole_batch(
    alone: dict[str, Any], ranks: list[dict[str, Any]], name: str
) -> None:
    for rank in ranks:
        close(rank["normalised"][name], alone["normalised"][name], 1e-12)


def test_synchronised_batch_norm_keeps_the_variance_of_a_large_mean(ranks: list[dict[str, Any]]) -> None:
    torch.manual_seed(2)
    large: Tensor = torch.randn(BATCH, 5, dtype=torch.float64) + 1000
    exact = nn.BatchNorm1d(5, affine=False).double()(large.float().double())
    for rank in ranks:
        close(rank["normalised"]["large mean"].double(), exact, 1e-3)
        assert rank["normalised"]["half precision"] == ("torch.bfloat16", "torch.float32")


def test_uniformity_has_the_same_gradient_on_any_number_of_processes(
    alone: dict[str, Any], ranks: list[dict[str, Any]]
) -> None:
    for rank in ranks:
        close(rank["uniform"], alone["uniform"], 1e-12)
