"""The count of an epoch's images: right for what the plan says, wrong for anything else."""

import numpy as np
import pytest
import torch

from pipelines.plan.plan import Plan
from pipelines.plan.views import View
from tests.support import gloo
from tools.run.epoch_audit import EpochCoverage

SIDES = np.full(1300, 40)  # above the size up to which permutations are sorted


def plan(rank=0, world=1, **changed):
    return Plan(SIDES, SIDES, [View(8)], 40, seed=5, rank=rank, world=world, **changed)


def counted(of, epoch=2, first=0, stop=None, changed=lambda index: index):
    count = EpochCoverage(of, torch.device("cpu"))
    count.start(epoch, first)
    for step in range(first, of.steps if stop is None else stop):
        count.add(changed(torch.from_numpy(of.batch(epoch, step).source_S)))
    return count


@pytest.mark.parametrize(("first", "stop"), [(0, None), (7, None), (0, 5), (30, 31), (4, 29)])
@pytest.mark.parametrize("subset", [None, np.arange(100, 1300, dtype=np.int64)])
def test_the_plan_is_right(first, stop, subset):
    of = plan(subset=subset, drop_last=subset is None)
    stop = stop and min(stop, of.steps)
    assert counted(of, first=min(first, of.steps - 1), stop=stop).complete()


@pytest.mark.parametrize(("first", "stop"), [(0, None), (7, None), (0, 5), (30, 33), (32, 33)])
def test_the_plan_of_a_filled_last_batch_is_right(first, stop):
    of = plan(fill_to=40)
    assert of.steps == 33 and counted(of, first=first, stop=stop).complete()
    wrong = counted(of, first=first, stop=stop)
    wrong._sum += 1
    assert not wrong.complete()


def doubled(index):
    return torch.where(torch.arange(len(index)) == 3, index[0], index)


WRONG = {
    "a batch is missing": lambda count: setattr(count, "_batches", count._batches + 1),
    "another epoch": lambda count: setattr(count, "_epoch", 3),
    "another place": lambda count: (setattr(count, "_first", 1), setattr(count, "_batches", 31)),
    "one image too many": lambda count: count._sum.add_(torch.tensor(1)),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_the_plan_is_noticed(what):
    count = counted(plan())
    WRONG[what](count)
    assert not count.complete()


def test_a_doubled_and_a_swapped_image_are_noticed():
    assert not counted(plan(), changed=doubled).complete()
    assert not counted(plan(), changed=lambda index: index.clamp(max=1298)).complete()
    assert not counted(
        plan(), changed=lambda index: index ^ 1
    ).complete()  # the sum of the numbers stays nearly the same
    assert counted(plan(), changed=lambda index: index.flip(0)).complete()  # any order


def parts(epoch, first, ranks):
    import torch.distributed as dist

    rank = ranks[dist.get_rank()] if dist.is_initialized() else 0
    return counted(plan(rank=rank, world=len(ranks)), epoch, first).complete()


@pytest.mark.processes
def test_processes_together_have_every_image():
    assert gloo.run(parts, 2, 1, 6, [0, 1]) == [True, True]
    assert gloo.run(parts, 2, 1, 0, [1, 1]) == [False, False]  # both make the same half
