"""A tape runs operations again without Python, and refuses what no recording can hold, naming the line."""

import pytest
import torch

from models.networks.norm import batch_permutation
from tools.run.tape import Tape, Unrecordable


def test_a_replay_reads_the_memory_and_not_the_code():
    x, factor, python = torch.ones(3), torch.tensor(2.0), [10.0]
    total = torch.zeros(3)

    def step():
        total.add_(x * factor + python[0])
        return x * factor

    replay, result = Tape().record(step)
    assert total.tolist() == [12.0] * 3
    x.fill_(3)
    factor.fill_(5)
    python[0] = 1000.0  # baked in while recording, as a CUDA graph would have it
    replay()
    assert result.tolist() == [15.0] * 3 and total.tolist() == [12.0 + 15 + 10] * 3


def test_backward_and_views_are_replayed():
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    x = torch.tensor([[1.0, 1.0]])
    seen = torch.zeros(2)

    def step():
        weight.grad = None
        (x * weight)[:, 1:].square().sum().backward()
        seen.copy_(weight.grad)

    replay, _ = Tape().record(step)
    x.fill_(2.0)
    replay()
    assert seen.tolist() == [0.0, 2 * (2 * 3) * 2]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda: torch.ones(2).sum().item(), "reads a value of the device"),
        (lambda: bool(torch.ones(()) > 0), "reads a value of the device"),
        (lambda: torch.ones(3).nonzero(), "makes a result whose shape depends on values"),
        (lambda: torch.ones(3)[torch.ones(3) > 0], "makes a result whose shape depends on values"),
        (lambda: torch.rand(2), "draws random numbers"),
        (lambda: torch.nn.functional.dropout(torch.ones(2)), "draws random numbers"),
        (lambda: batch_permutation(8, 1), "draws random numbers"),
    ],
)
def test_what_no_recording_can_hold_is_refused(step, reason):
    with pytest.raises(Unrecordable, match=reason):
        Tape().record(step)


def test_attention_draws_for_dropout_alone():
    query = torch.randn(1, 2, 4, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    replay, result = Tape().record(lambda: attend(query, query, query))
    query.normal_()
    replay()
    assert torch.equal(result, attend(query, query, query))
    with pytest.raises(Unrecordable, match="draws random numbers"):
        Tape().record(lambda: attend(query, query, query, dropout_p=0.5))


def test_the_line_is_named():
    with pytest.raises(Unrecordable, match=r"^models/networks/norm\.py:\d+ draws random numbers \(aten\.randperm"):
        Tape().record(lambda: batch_permutation(8, 1))
