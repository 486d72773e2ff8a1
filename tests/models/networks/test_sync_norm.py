"""Synchronised batch norm in one process, where it is torch's; over several: test_methods_distributed_heads.py."""

import pytest
import torch
from torch import nn

from models.networks.backbones import build_backbone
from models.networks.heads import mlp
from models.networks.sync_norm import SyncBatchNorm1d, SyncBatchNorm2d


@pytest.mark.parametrize(
    ("ours", "torchs", "shape"),
    [(SyncBatchNorm1d, nn.BatchNorm1d, (8, 5)), (SyncBatchNorm2d, nn.BatchNorm2d, (4, 5, 3, 3))],
)
def test_one_process_is_torchs_batch_norm(ours, torchs, shape):
    norm, reference = ours(5), torchs(5)
    assert norm.state_dict().keys() == reference.state_dict().keys()
    norm.load_state_dict(reference.state_dict())
    for _ in range(2):
        x = torch.randn(shape) * 3 + 1
        assert torch.equal(norm(x), reference(x))
    assert torch.equal(norm.running_var, reference.running_var)
    assert torch.equal(norm.eval()(x), reference.eval()(x))
    with pytest.raises(ValueError, match="expected"):
        norm(torch.randn(1, 2, 3, 4, 5))


def test_fits_heads_and_backbones():
    head = mlp([8, 16, 4], batch_norm=True, last_batch_norm="plain", norm=SyncBatchNorm1d)
    assert [type(layer) for layer in head if isinstance(layer, nn.BatchNorm1d)] == [SyncBatchNorm1d] * 2
    assert not head[-1].affine
    network = build_backbone("resnet18", width=4, stem="small", batch_norm=SyncBatchNorm2d)
    plain = build_backbone("resnet18", width=4, stem="small")
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert all(isinstance(m, SyncBatchNorm2d) for m in network.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 4, 3)])
def test_interleaved_views_have_statistics_of_their_own(shape: tuple[int, ...]) -> None:
    kind = SyncBatchNorm1d if len(shape) == 2 else SyncBatchNorm2d
    together, alone = kind(5).double(), kind(5).double()
    x = torch.randn(shape, dtype=torch.float64) * 3 + 1
    together.views = 3
    y = together(x)
    for view in range(3):
        torch.testing.assert_close(y[view::3], kind(5).double()(x[view::3]))
    same = x[::3]
    together.load_state_dict(alone.state_dict())
    together(same.repeat_interleave(3, 0))
    for _ in range(3):
        alone(same)
    torch.testing.assert_close(together.running_mean, alone.running_mean)
    torch.testing.assert_close(together.running_var, alone.running_var)
    assert together.num_batches_tracked == alone.num_batches_tracked
