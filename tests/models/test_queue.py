"""The key queue against a plain list, for batches of every size."""

import copy

import pytest
import torch
from torch.nn import functional as F

from models.queue import KeyQueue


def naive(size: int, start: torch.Tensor, batches: list[torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Keys one by one into a list, the pointer stepping round."""
    rows, pointer = list(start), 0
    for batch in batches:
        for key in batch:
            rows[pointer] = key / key.norm()
            pointer = (pointer + 1) % size
    return torch.stack(rows), pointer


@pytest.mark.parametrize("sizes", [(4, 4, 4), (3, 3, 3, 3), (7, 5), (10,), (11, 2), (25, 3), (1,) * 13, (0, 4)])
def test_any_batch_size_equals_one_by_one(sizes: tuple[int, ...]) -> None:
    queue = KeyQueue(10, 3)
    start = queue.keys()
    batches = [torch.randn(size, 3) for size in sizes]
    for batch in batches:
        queue.push(batch)
    rows, pointer = naive(10, start, batches)
    torch.testing.assert_close(queue.keys(), rows)
    assert int(queue.pointer) == pointer
    assert int(queue.filled) == min(10, sum(sizes))


def test_starts_with_random_unit_rows_that_the_seed_fixes() -> None:
    queue, same, other = KeyQueue(64, 8, 2, seed=1), KeyQueue(64, 8, 2, seed=1), KeyQueue(64, 8, 2, seed=2)
    torch.testing.assert_close(queue.keys(0).norm(dim=1), torch.ones(64))
    assert torch.equal(queue.rows, same.rows)
    assert not torch.equal(queue.rows, other.rows)
    assert not torch.equal(queue.keys(0), queue.keys(1))


def test_aligned_queues_share_the_pointer() -> None:
    queue = KeyQueue(5, 2, count=2)
    for _ in range(3):
        first = torch.randn(4, 2)
        queue.push(first, -first)
    torch.testing.assert_close(queue.keys(0), -queue.keys(1))
    assert int(queue.pointer) == 12 % 5


def test_stores_normalised_float32_from_half_precision() -> None:
    queue = KeyQueue(4, 8)
    queue.push(10 * torch.randn(4, 8).bfloat16())
    assert queue.keys().dtype == torch.float32
    torch.testing.assert_close(queue.keys().norm(dim=1), torch.ones(4))


def test_raw_keys_on_request() -> None:
    queue, keys = KeyQueue(4, 2, normalize=False), 10 * torch.randn(4, 2)
    queue.push(keys)
    assert torch.equal(queue.keys(), keys)


def test_a_later_push_changes_no_snapshot_and_no_gradient() -> None:
    queue, query = KeyQueue(8, 4), torch.randn(3, 4, requires_grad=True)
    snapshot = queue.keys()
    before = snapshot.clone()
    loss = (F.normalize(query, dim=1) @ snapshot.T).logsumexp(1).sum()
    queue.push(torch.randn(8, 4))
    assert torch.equal(snapshot, before)
    loss.backward()  # raises if autograd finds its saved tensor changed


def test_no_gradient_into_pushed_keys() -> None:
    queue, keys = KeyQueue(8, 4), torch.randn(3, 4, requires_grad=True)
    queue.push(keys)
    assert not queue.keys().requires_grad


def test_state_dict_restores_rows_pointer_and_count() -> None:
    queue = KeyQueue(7, 3)
    queue.push(torch.randn(5, 3))
    assert set(queue.state_dict()) == {"rows", "pointer", "filled"}
    restored = KeyQueue(7, 3, seed=9)
    restored.load_state_dict(copy.deepcopy(queue.state_dict()))
    keys = torch.randn(4, 3)
    queue.push(keys)
    restored.push(keys)
    assert torch.equal(queue.rows, restored.rows)
    assert int(restored.pointer) == 9 % 7
    assert int(restored.filled) == 7


def test_push_compiles_without_a_graph_break() -> None:
    queue = KeyQueue(7, 3)
    reference = copy.deepcopy(queue)
    push = torch.compile(queue.push, fullgraph=True, backend="eager")
    for _ in range(3):
        keys = torch.randn(4, 3)
        push(keys)
        reference.push(keys)
    assert torch.equal(queue.rows, reference.rows)


@pytest.mark.parametrize(
    "keys", [(), (torch.zeros(2, 3),), (torch.zeros(2, 3), torch.zeros(3, 3)), (torch.zeros(2, 4),) * 2]
)
def test_wrong_batches_are_one_line(keys: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(ValueError, match=r"queue takes 2 batches \[B, 3\] of one size; got"):
        KeyQueue(7, 3, count=2).push(*keys)


def test_empty_queue_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        KeyQueue(0, 3)
