"""The equations on similarities against loops in float64, values and gradients; and who gets none."""

import math

import pytest
import torch
from torch import Tensor

from models.relations import info_nce, nearest_keys, nt_xent, soft_label_cross_entropy

B, K, D = 16, 512, 32


def unit(row: Tensor) -> Tensor:
    return row / row.norm()


def naive_info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    losses = []
    for q, k in zip(query, key, strict=True):
        positive = (unit(q) @ unit(k) / temperature).exp()
        negatives = sum(((unit(q) @ unit(n)) / temperature).exp() for n in queue)
        losses.append(-(positive / (positive + negatives)).log())
    return torch.stack(losses)


def naive_soft_label(
    student: Tensor,
    teacher: Tensor,
    queue: Tensor,
    student_t: float,
    teacher_t: float,
    teacher_queue: Tensor | None = None,
) -> Tensor:
    losses = []
    anchors = queue if teacher_queue is None else teacher_queue
    for s, t in zip(student, teacher, strict=True):
        target = torch.stack([(unit(t) @ unit(n) / teacher_t).exp() for n in anchors])
        guess = torch.stack([(unit(s) @ unit(n) / student_t).exp() for n in queue])
        losses.append(-(target / target.sum() * (guess / guess.sum()).log()).sum())
    return torch.stack(losses)


def naive_nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    rows = [unit(row) for row in [*first, *second]]
    total = torch.zeros((), dtype=first.dtype)
    for i in range(len(rows)):
        j = (i + len(first)) % len(rows)
        others = sum((rows[i] @ rows[k] / temperature).exp() for k in range(len(rows)) if k != i)
        total = total - ((rows[i] @ rows[j] / temperature).exp() / others).log()
    return total / len(rows)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def relative(value: Tensor, reference: Tensor) -> float:
    return ((value.double() - reference).norm() / reference.norm()).item()


CASES = {
    "info_nce": (info_nce, naive_info_nce, [(B, D), (B, D), (K, D)], (0.2,), 1),
    "info_nce sharp": (info_nce, naive_info_nce, [(B, D), (B, D), (K, D)], (0.07,), 1),
    "soft label": (soft_label_cross_entropy, naive_soft_label, [(B, D), (B, D), (K, D)], (0.1, 0.04), 1),
    "nt_xent": (nt_xent, naive_nt_xent, [(B, D), (B, D)], (0.5,), 2),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_naive_float64_reference(case: str) -> None:
    function, naive, shapes, temperatures, trained = CASES[case]
    exact = [random(*shape, seed=i) for i, shape in enumerate(shapes)]
    single = [tensor.detach().float().requires_grad_() for tensor in exact]
    reference, value = naive(*exact, *temperatures), function(*single, *temperatures)
    assert value.dtype == torch.float32
    assert relative(value, reference) < 1e-6
    reference.mean().backward()
    value.mean().backward()
    for tensor, expected in zip(single[:trained], exact, strict=False):
        assert relative(tensor.grad, expected.grad) < 1e-6
    assert all(tensor.grad is None for tensor in single[trained:])  # no gradient to teachers, keys and queues
    double = [tensor.detach().requires_grad_() for tensor in exact]
    torch.testing.assert_close(function(*double, *temperatures), reference, rtol=1e-12, atol=1e-12)


def test_teacher_may_look_at_another_aligned_queue() -> None:
    student, teacher, queue, other = (random(n, D, seed=i) for i, n in enumerate((B, B, K, K)))
    value = soft_label_cross_entropy(student, teacher, queue, 0.08, 0.04, other)
    torch.testing.assert_close(value, naive_soft_label(student, teacher, queue, 0.08, 0.04, other))
    value.sum().backward()
    assert student.grad is not None
    assert teacher.grad is queue.grad is other.grad is None
    with pytest.raises(ValueError, match="one length"):
        soft_label_cross_entropy(student, teacher, queue, 0.08, 0.04, other[1:])


def test_first_losses_are_near_the_logarithm_of_the_queue() -> None:
    queue = torch.nn.functional.normalize(random(4096, 128, seed=2), dim=1)
    loss = soft_label_cross_entropy(random(8, 128), random(8, 128, seed=1), queue, 0.1, 0.04).mean()
    assert math.log(4096) - 0.1 < loss.item() < math.log(4096) + 1


def test_identical_relations_cost_the_teachers_entropy() -> None:
    query, queue = random(B, D), random(K, D, seed=1)
    p = torch.softmax(
        torch.nn.functional.normalize(query, dim=1) @ torch.nn.functional.normalize(queue, dim=1).T / 0.1, 1
    )
    torch.testing.assert_close(soft_label_cross_entropy(query, query, queue, 0.1, 0.1), -(p * p.log()).sum(1))


def test_single_precision_under_autocast() -> None:
    query, key, queue = (random(n, D, seed=i).detach().float() for i, n in enumerate((B, B, K)))
    plain = [
        info_nce(query, key, queue, 0.07),
        soft_label_cross_entropy(query, key, queue, 0.1, 0.04),
        nt_xent(query, key, 0.1),
    ]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = [
            info_nce(query, key, queue, 0.07),
            soft_label_cross_entropy(query, key, queue, 0.1, 0.04),
            nt_xent(query, key, 0.1),
        ]
        assert (query @ queue.T).dtype == torch.bfloat16
    for one, other in zip(plain, mixed, strict=True):
        assert torch.equal(one, other)


def test_finite_at_extreme_temperatures_and_for_zero_rows() -> None:
    query = torch.zeros(2, D, requires_grad=True)
    queue = random(K, D).detach().float()
    for temperature in (1e-3, 1e3):
        loss = info_nce(query, queue[:2], queue, temperature).sum() + nt_xent(queue[:4], queue[4:8], temperature)
        assert torch.isfinite(loss)


@pytest.mark.parametrize("temperature", [0.0, -0.1])
def test_temperature_must_be_positive(temperature: float) -> None:
    rows = torch.randn(4, 8)
    with pytest.raises(ValueError, match="give more than 0"):
        info_nce(rows, rows, rows, temperature)
    with pytest.raises(ValueError, match="give more than 0"):
        nt_xent(rows, rows, temperature)
    with pytest.raises(ValueError, match="give more than 0"):
        soft_label_cross_entropy(rows, rows, rows, 0.1, temperature)


def test_rows_of_a_part_of_the_batch_are_those_of_the_whole() -> None:
    first, second = random(6, D), random(6, D, seed=1)
    parts = [nt_xent(first[r::2], second[r::2], 0.5, first, second, torch.arange(3) * 2 + r) for r in range(2)]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, nt_xent(first, second, 0.5))
    with pytest.raises(ValueError, match="both views"):
        nt_xent(first, second, 0.5, first)


def test_nearest_key_is_the_one_with_the_largest_cosine() -> None:
    query, queue = random(B, D), random(K, D, seed=1)
    key, row = nearest_keys(query, queue)
    cosine = torch.stack([torch.stack([unit(q) @ unit(n) for n in queue]) for q in query])
    assert torch.equal(row, cosine.argmax(1))
    torch.testing.assert_close(key, torch.nn.functional.normalize(queue, dim=1)[row].detach())
    assert not key.requires_grad


@pytest.mark.parametrize("function", [info_nce, soft_label_cross_entropy])
def test_compiles_without_a_graph_break(function: object) -> None:
    rows, temperatures = torch.randn(8, 4), (0.1,) if function is info_nce else (0.1, 0.04)
    compiled = torch.compile(function, fullgraph=True, backend="eager")  # type: ignore[call-overload]
    torch.testing.assert_close(compiled(rows, rows, rows, *temperatures), function(rows, rows, rows, *temperatures))  # type: ignore[operator]
