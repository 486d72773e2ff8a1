"""Two and four gloo processes against one with the whole batch: gathers, gradients, batch norm, queues, features.

All checks share one start of the processes: `everything` runs on each rank, and the tests compare what came back.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.distributed import (
    gather,
    gather_with_gradient,
    local_rows,
    mean_over_processes,
    positions,
    sum_over_processes,
    world,
)
from models.evaluation.features import extract
from models.networks.norm import (
    SplitBatchNorm2d,
    average_running_statistics,
    batch_permutation,
    forward_views,
    shuffled,
)
from models.queue import KeyQueue
from models.relations import info_nce, nt_xent
from tests.support import gloo

BATCH, SPLITS, STEPS = 16, 4, 50


def network(processes: int) -> nn.Sequential:
    torch.manual_seed(0)
    norm = SplitBatchNorm2d(6, SPLITS // processes)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    ).double()


def global_batch(step: int) -> Tensor:
    return torch.randn(BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def averaged(gradients: list[Tensor]) -> list[Tensor]:
    """What DDP leaves: the mean over processes."""
    return [mean_over_processes(gradient) for gradient in gradients]


class Loader:
    """Parts of 12 samples (0 to 10, and 12) in batches of 4: one comes twice, and the last batch has one sample."""

    def epoch(self, epoch: int) -> Any:
        order = torch.tensor([3, 1, 2, 0, 9, 8, 7, 6, 5, 4, 3, 12, 10])
        for index in order.split(4):
            local = local_rows(index)
            images = local.double()[:, None, None, None].expand(-1, 3, 8, 8).float()
            yield SimpleNamespace(views=(images,), index=local)


def everything() -> dict[str, Any]:
    """Every check's values on this rank; those of the global batch are gathered, so that all ranks can be compared."""
    rank, processes = world()
    result: dict[str, Any] = {"world": (rank, processes)}

    numbers = torch.arange(BATCH * 3).view(BATCH, 3)
    result["gather"] = gather(local_rows(numbers))
    result["positions"] = gather(positions(BATCH // processes))
    result["sum"] = sum_over_processes(torch.tensor(float(rank + 1)))

    # A loss over the gathered whole with different weights on every row: each rank adds its own part of it.
    rows = (
        local_rows(torch.linspace(-1, 1, BATCH, dtype=torch.float64)[:, None] * torch.ones(3)).clone().requires_grad_()
    )
    whole = gather_with_gradient(rows)
    weights = torch.arange(BATCH, dtype=torch.float64)[:, None] + rank
    (whole.square() * weights).sum().backward()
    result["gather_gradient"] = gather(rows.grad if rows.grad is not None else rows)

    # NT-Xent through a split batch norm: loss, gradients as DDP averages them, running statistics.
    student = network(processes)
    first, second = (student(local_rows(global_batch(step))) for step in (0, 1))
    everyone = (gather_with_gradient(first), gather_with_gradient(second), positions(len(first)))
    loss = nt_xent(first, second, 0.2, *everyone)
    loss.backward()
    result["nt_xent"] = mean_over_processes(loss)
    result["nt_xent_gradient"] = averaged([p.grad for p in student.parameters() if p.grad is not None])
    average_running_statistics(student)
    result["running"] = [student[1].running_mean.clone(), student[1].running_var.clone()]

    # A queue fed by a shuffled teacher over many steps, at a batch that does not divide it.
    teacher, queue = network(processes), KeyQueue(50, 5)
    student.zero_grad()
    losses = []
    for step in range(STEPS):
        images = local_rows(global_batch(step))
        keys = shuffled(teacher, images, batch_permutation(BATCH, 7, step))
        if step >= STEPS - 2:
            loss = info_nce(student(images), keys, queue.keys(), 0.2).mean()
            loss.backward()
            losses.append(mean_over_processes(loss))
        queue.push(gather(keys))
    result["queue"], result["pointer"] = queue.keys(), int(queue.pointer)
    result["info_nce"] = losses
    result["info_nce_gradient"] = averaged([p.grad for p in student.parameters() if p.grad is not None])
    result["views"] = [gather(y) for y in forward_views(teacher, [local_rows(global_batch(step)) for step in (3, 4)])]
    result["features"] = extract(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), Loader())
    return result


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return everything()


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return gloo.run(everything, request.param)


def test_gather_is_in_the_order_of_the_global_batch(alone: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    assert [rank["world"] for rank in ranks] == [(number, len(ranks)) for number in range(len(ranks))]
    for rank in ranks:
        assert torch.equal(rank["gather"], torch.arange(BATCH * 3).view(BATCH, 3))
        assert torch.equal(rank["positions"], torch.arange(BATCH))
        assert rank["sum"] == sum(range(1, len(ranks) + 1))
    assert torch.equal(alone["gather"], ranks[0]["gather"])


def test_gradient_of_a_gather_is_the_sum_over_ranks(ranks: list[dict[str, Any]]) -> None:
    rows = torch.linspace(-1, 1, BATCH, dtype=torch.float64)[:, None] * torch.ones(3)
    weights = sum(torch.arange(BATCH, dtype=torch.float64)[:, None] + number for number in range(len(ranks)))
    for rank in ranks:
        torch.testing.assert_close(rank["gather_gradient"], 2 * rows * weights)


@pytest.mark.parametrize(
    "what", ["nt_xent", "nt_xent_gradient", "running", "info_nce", "info_nce_gradient", "queue", "views", "features"]
)
def test_ranks_equal_one_process(alone: dict[str, Any], ranks: list[dict[str, Any]], what: str) -> None:
    tolerance = {"queue": 1e-6, "info_nce": 1e-6, "info_nce_gradient": 1e-6}.get(what, 1e-9)  # queues are float32
    for rank in ranks:
        torch.testing.assert_close(rank[what], alone[what], rtol=tolerance, atol=tolerance)


def test_queues_are_identical_on_all_ranks(alone: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert torch.equal(rank["queue"], ranks[0]["queue"])
        assert rank["pointer"] == alone["pointer"] == STEPS * BATCH % 50


def test_extract_gives_every_sample_once_in_order(alone: dict[str, Any]) -> None:
    torch.testing.assert_close(alone["features"], torch.tensor([*range(11), 12.0])[:, None].expand(-1, 3))


def test_extract_misses_no_sample() -> None:
    with pytest.raises(RuntimeError, match="gave 12 samples of 13"):
        extract(nn.Flatten(), Loader(), 13)


def test_extract_restores_each_modules_mode() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Flatten()).train()
    model[1].eval()
    first = extract(model, Loader())
    assert torch.equal(first, extract(model, Loader()))  # no dropout while it runs
    assert model.training
    assert model[0].training
    assert not model[1].training
