"""Momentum teachers: the update, what it leaves alone, and the schedule."""

import math

import pytest
import torch
from torch import nn

from models.networks.teacher import Teacher, cosine_momentum


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def test_update_is_the_average_and_leaves_buffers() -> None:
    student = network()
    teacher = Teacher(student)
    start = [parameter.clone() for parameter in teacher.parameters()]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    student(torch.randn(8, 4))  # moves the student's running statistics
    teacher.update(student, 0.99)
    for mine, was, theirs in zip(teacher.parameters(), start, student.parameters(), strict=True):
        torch.testing.assert_close(mine, 0.99 * was + 0.01 * theirs)
    assert teacher.network[1].running_mean.abs().sum() == 0
    assert student[1].running_mean.abs().sum() > 0


def test_no_gradient_and_nothing_shared() -> None:
    student = network()
    teacher = Teacher(student)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher(torch.randn(8, 4, requires_grad=True)).requires_grad
    assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.parameters()}
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_train_mode_uses_its_own_batch_statistics() -> None:
    teacher = Teacher(network()).train()
    teacher(torch.randn(8, 4) + 3)
    assert int(teacher.network[1].num_batches_tracked) == 1


@pytest.mark.parametrize(("momentum", "share"), [(0.0, 1.0), (1.0, 0.0)])
def test_ends_of_the_range(momentum: float, share: float) -> None:
    student, teacher = nn.Linear(2, 2), Teacher(nn.Linear(2, 2))
    was = teacher.network.weight.clone()
    teacher.update(student, momentum)
    torch.testing.assert_close(teacher.network.weight, was.lerp(student.weight, share))


def test_cosine_momentum() -> None:
    values = [cosine_momentum(step, 100, 0.996) for step in range(101)]
    assert values[0] == pytest.approx(0.996)
    assert values[100] == 1
    assert values == sorted(values)
    assert values[25] == pytest.approx(1 - 0.004 * (math.cos(math.pi / 4) + 1) / 2)
    assert cosine_momentum(200, 100, 0.996) == 1


def test_errors_are_one_line() -> None:
    teacher = Teacher(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"momentum is 1\.1"):
        teacher.update(nn.Linear(2, 2), 1.1)
    with pytest.raises(ValueError, match="differ in their parameters"):
        teacher.update(nn.Linear(2, 3), 0.9)
    with pytest.raises(ValueError, match="0 steps"):
        cosine_momentum(0, 0, 0.9)
