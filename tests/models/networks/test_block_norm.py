"""Batch norm by blocks: against interleaved groups through a whole network, and its two forms against each other."""

import pytest
import torch
from torch import Tensor, nn

from models.networks.backbones import build_backbone
from models.networks.block_norm import block_batch_norm, from_blocks, to_blocks, written_out
from models.networks.norm import SplitBatchNorm2d


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_sorting_and_its_inverse(memory_format: torch.memory_format) -> None:
    x = torch.randn(12, 5, 2, 3).contiguous(memory_format=memory_format)
    blocks = to_blocks(x, 4)
    assert torch.equal(blocks, torch.cat([x[group::4] for group in range(4)]))
    assert blocks.is_contiguous(memory_format=memory_format)
    assert torch.equal(from_blocks(blocks, 4), x)
    assert to_blocks(x, 1) is x
    assert torch.equal(from_blocks(to_blocks(x[:, :, 0, 0], 3), 3), x[:, :, 0, 0])


def result(form: object, dtype: torch.dtype) -> list[Tensor]:
    """Output, moved statistics and gradients of one form on the same numbers."""
    assert callable(form)
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(12, 5, 3, 4, generator=generator).to(dtype) * 2 + 1 for _ in range(2))
    wide = torch.promote_types(dtype, torch.float32)
    gain, bias = torch.rand(5, generator=generator).to(wide) + 0.5, torch.randn(5, generator=generator).to(wide)
    mean, variance = torch.zeros(4, 5, dtype=wide), torch.ones(4, 5, dtype=wide)
    inputs = [one.requires_grad_() for one in (x.contiguous(memory_format=torch.channels_last), gain, bias)]
    y = form(*inputs, mean, variance, 0.1, 1e-5)
    return [y, mean, variance, *torch.autograd.grad((y * weight).sum(), inputs)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_written_out_equals_torchs_own(dtype: torch.dtype, tolerance: float) -> None:
    for ours, theirs in zip(result(written_out, dtype), result(block_batch_norm, dtype), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def test_a_compiled_norm_is_one_graph_of_the_written_out_form() -> None:
    torch._dynamo.reset()
    norm = SplitBatchNorm2d(5, 4)
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    x = torch.randn(8, 5, 3, 3)
    expected = norm(x)
    after_one = norm.running_mean.clone()
    nn.Module.load_state_dict(norm, {**norm.state_dict(), "running_mean": torch.zeros(5)})
    torch.testing.assert_close(compiled(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norm.running_mean, after_one)


def test_a_network_of_blocks_equals_one_of_interleaved_groups() -> None:
    torch.manual_seed(0)
    network = build_backbone("resnet18", width=4, batch_norm=lambda channels: SplitBatchNorm2d(channels, 4)).double()
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    start = {name: value.clone() for name, value in network.state_dict().items()}

    def run() -> tuple[list[Tensor], dict[str, Tensor]]:
        network.zero_grad()
        pooled, maps = network(images)
        ((pooled**3).sum() + maps["layer3"].square().sum()).backward()
        found = [pooled, *(maps[name] for name in maps), *(p.grad for p in network.parameters() if p.grad is not None)]
        return found, {name: value.clone() for name, value in network.state_dict().items()}

    sorted_once, state = run()
    assert len(sorted_once) == 1 + 4 + len(list(network.parameters()))
    network.load_state_dict(start)
    for module in network.modules():
        if isinstance(module, SplitBatchNorm2d):
            module.blocks = False  # each sorts and unsorts by itself, so that between them the order is the batch's
    # The network sorts its batch still: what it is given is unsorted first, what it returns is sorted back.
    kept, images = images, from_blocks(images, 4)
    loose, loose_state = run()
    images = kept
    for ours, theirs in zip(sorted_once[1:5], loose[1:5], strict=True):
        torch.testing.assert_close(ours, to_blocks(theirs, 4))
    torch.testing.assert_close(sorted_once[0], to_blocks(loose[0], 4))
    for ours, theirs in zip(sorted_once[5:], loose[5:], strict=True):
        torch.testing.assert_close(ours, theirs)
    for name, value in state.items():
        torch.testing.assert_close(value, loose_state[name])
