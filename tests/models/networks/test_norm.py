"""Split and shuffled batch norm against loops over the groups, in one process; several: test_distributed.py."""

import pytest
import torch
from torch import Tensor, nn

from models import build
from models.networks.norm import (
    SplitBatchNorm2d,
    average_running_statistics,
    batch_permutation,
    forward_views,
    shuffled,
)
from pipelines.batch import Batch
from tests.support import gloo

SIZES = {"clim": {"resolutions": (16, 12), "queue_size": 40}}


def by_group(norm: SplitBatchNorm2d, x_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output and running statistics by one ordinary batch norm for each group."""
    y, means, variances = torch.empty_like(x_NCHW), [], []
    for group in range(norm.splits):
        one = nn.BatchNorm2d(norm.num_features, dtype=norm.weight.dtype)
        one.load_state_dict(norm.state_dict())
        y[group :: norm.splits] = one(x_NCHW[group :: norm.splits])
        means.append(one.running_mean)
        variances.append(one.running_var)
    return y, torch.stack(means).mean(0), torch.stack(variances).mean(0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_one_batch_norm_for_each_interleaved_group(memory_format: torch.memory_format) -> None:
    norm = SplitBatchNorm2d(5, 4).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    x = torch.randn(12, 5, 6, 7, dtype=torch.float64) * 3 + 1
    for _ in range(3):
        expected, mean, variance = by_group(norm, x)
        inputs = x.clone(memory_format=memory_format).requires_grad_()
        y = norm(inputs)
        assert y.is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)
    assert int(norm.num_batches_tracked) == 3
    weight = torch.randn_like(x)
    (gradient,) = torch.autograd.grad((y * weight).sum(), inputs)
    reference = x.clone().requires_grad_()
    (by_group(norm, reference)[0] * weight).sum().backward()
    torch.testing.assert_close(gradient, reference.grad)


def test_evaluation_and_one_split_are_ordinary_and_keys_stay() -> None:
    split, plain = SplitBatchNorm2d(3, 2), nn.BatchNorm2d(3)
    split(torch.randn(4, 3, 5, 5))
    plain.load_state_dict(split.state_dict())
    x = torch.randn(3, 3, 5, 5)
    assert torch.equal(split.eval()(x), plain.eval()(x))
    one = SplitBatchNorm2d(3, 1)
    assert torch.equal(one(x), nn.BatchNorm2d(3)(x))


def test_batch_that_does_not_divide_is_one_line() -> None:
    with pytest.raises(ValueError, match="batch of 6 does not divide into the 4 groups"):
        SplitBatchNorm2d(3, 4)(torch.randn(6, 3, 2, 2))
    with pytest.raises(ValueError, match="0 groups"):
        SplitBatchNorm2d(3, 0)


def test_keeps_autocast_types() -> None:
    x = torch.randn(8, 4, 3, 3).bfloat16()
    assert SplitBatchNorm2d(4, 2)(x).dtype == torch.bfloat16


def test_permutation_is_a_function_of_its_key() -> None:
    one = batch_permutation(64, 0, 5, 1)
    assert torch.equal(one, batch_permutation(64, 0, 5, 1))
    assert sorted(one.tolist()) == list(range(64))
    others = [batch_permutation(64, 0, 5, 2), batch_permutation(64, 0, 6, 1), batch_permutation(64, 1, 5, 1)]
    assert not any(torch.equal(one, other) for other in others)


def test_shuffle_changes_company_not_order() -> None:
    images, order = torch.randn(8, 3, 4, 4), batch_permutation(8, 1)
    assert torch.equal(shuffled(lambda x: x.flatten(1), images, order), images.flatten(1))
    norm = SplitBatchNorm2d(3, 4)
    expected = torch.empty_like(images)
    expected[order] = norm(images[order])
    assert torch.equal(shuffled(norm, images, order), expected)
    first, second = shuffled(lambda x: (x + 1, x.mean((1, 2, 3))), images, order)
    torch.testing.assert_close(first, images + 1)
    torch.testing.assert_close(second, images.mean((1, 2, 3)))
    with pytest.raises(ValueError, match="permutation of 7 for a global batch of 8"):
        shuffled(norm, images, torch.arange(7))


def test_views_in_one_pass_keep_their_own_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), SplitBatchNorm2d(4, 2), nn.Flatten()).double()
    views = [torch.randn(6, 3, 5, 5, dtype=torch.float64) * scale for scale in (1, 3, 9)]
    together = forward_views(model, views)
    for view, output in zip(views, together, strict=True):
        torch.testing.assert_close(output, model(view))
    assert model[1].splits == 2


def test_views_in_one_pass_move_the_running_statistics_as_far_as_one_pass_each() -> None:
    norm = SplitBatchNorm2d(3, 2).double()
    view = torch.randn(6, 3, 5, 5, dtype=torch.float64) * 2 + 1
    alone = SplitBatchNorm2d(3, 2).double()
    for _ in range(3):
        alone(view)
    forward_views(norm, [view] * 3)
    torch.testing.assert_close(norm.running_mean, alone.running_mean)
    torch.testing.assert_close(norm.running_var, alone.running_var)
    assert norm.num_batches_tracked == alone.num_batches_tracked


@pytest.mark.parametrize("name", ["simclr", "byol", "simsiam", "iccl", "nnclr", "mncl", "clim"])
def test_methods_run_the_views_of_one_network_in_one_pass(name: str) -> None:
    """As often as there are networks and resolutions, and with the outputs of one pass for each view."""
    method = build(name, "cifar10", width=4, bn_splits=1, batch_size=8, **SIZES.get(name, {"crop_size": 16})).double()
    views = tuple(torch.randn(8, 3, view.size, view.size, dtype=torch.float64) for view in method.views)
    partner = Batch(views, torch.arange(8), torch.zeros(8), 1) if name == "clim" else None
    batch = Batch(views, torch.arange(8), torch.zeros(8), 0, partner, torch.rand(8, 4) if partner else None)
    teacher = getattr(method, "teacher", None)
    calls = {"student": 0, "teacher": 0}
    for role, network in (("student", method.encoder()), ("teacher", teacher and teacher.network.backbone)):
        if network is not None:
            network.register_forward_hook(lambda *_, role=role: calls.update({role: calls[role] + 1}))
    method(batch)
    sizes = len({view.size for view in method.views})
    local = 1 if name == "mncl" else 0  # the quarters, which are smaller
    assert calls == {"student": sizes + local, "teacher": sizes if teacher else 0}

    student = method.get_submodule("student")
    same_size = [view for view in views if view.shape == views[0].shape]
    for together, view in zip(forward_views(student, same_size), same_size, strict=True):
        torch.testing.assert_close(together, student(view))


def test_views_in_one_pass_refuse_a_norm_that_would_mix_them() -> None:
    model = nn.Sequential(SplitBatchNorm2d(3, 2), nn.BatchNorm2d(3))
    views = [torch.randn(4, 3, 2, 2)] * 2
    with pytest.raises(ValueError, match="would mix 2 views"):
        forward_views(model, views)
    assert len(forward_views(model.eval(), views)) == 2


def running_after_steps(average: bool) -> list[Tensor]:
    """Of this process, after a few steps on its own images."""
    from models.distributed import world

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), SplitBatchNorm2d(4, 2), nn.Flatten(), nn.Linear(144, 6), nn.BatchNorm1d(6)
    )
    torch.manual_seed(world()[0])
    for _ in range(5):
        network(torch.randn(8, 3, 8, 8))
        if average:
            average_running_statistics(network)
    return [buffer for name, buffer in network.named_buffers() if "running" in name]


@pytest.mark.processes
def test_after_each_step_all_processes_hold_the_same_statistics_bit_for_bit() -> None:
    """So a checkpoint of one of them is that of all, and nothing has to be averaged before it is kept."""
    first, second = gloo.run(running_after_steps, 2, True)
    apart = gloo.run(running_after_steps, 2, False)
    assert len(first) == 4
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        assert torch.equal(one, other) and not torch.equal(apart[0][number], apart[1][number])
        torch.testing.assert_close(one, (apart[0][number] + apart[1][number]) / 2)  # averaging is linear
