"""Heads: layers of every published shape, and the hypercolumn against its steps written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.networks.heads import HypercolumnNeck, mlp


def layers(head: nn.Sequential) -> str:
    names = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            names.append(f"{layer.in_features}-{layer.out_features}{'' if layer.bias is None else 'b'}")
        elif isinstance(layer, nn.BatchNorm1d):
            names.append("bn" if layer.affine else "bn0")
        else:
            names.append("relu")
    return " ".join(names)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (mlp([512, 2048, 128]), "512-2048b relu 2048-128b"),  # MSVQ, ReSSL, MoCo v2, CLIM
        (mlp([8, 16, 4], batch_norm=True), "8-16b bn relu 16-4b"),  # BYOL, MNCL's predictor
        (mlp([8, 8, 8, 8], True, "plain", False), "8-8 bn relu 8-8 bn relu 8-8 bn0"),  # SimSiam, ICCL-B
        (mlp([8, 4, 8], True, bias=False, last_bias=True), "8-4 bn relu 4-8b"),  # SimSiam's predictor
        (mlp([8, 16, 16, 4], True, bias=False), "8-16 bn relu 16-16 bn relu 16-4"),  # ICCL-A
        (mlp([8, 16, 16, 4], True, "affine"), "8-16b bn relu 16-16b bn relu 16-4b bn"),  # MNCL, NNCLR
        (mlp([8, 4]), "8-4b"),
    ],
)
def test_layers(head: nn.Sequential, expected: str) -> None:
    assert layers(head) == expected


def test_one_width_is_an_error() -> None:
    with pytest.raises(ValueError, match="two widths"):
        mlp([8])


def test_hypercolumn_equals_its_steps() -> None:
    neck = HypercolumnNeck({"layer3": 4, "layer4": 8}, middle=8, hidden=16, out=6)
    maps = {"layer3": torch.randn(3, 4, 14, 14, requires_grad=True), "layer4": torch.randn(3, 8, 7, 7)}
    embedding = neck(maps)
    column = torch.cat([F.avg_pool2d(maps["layer3"], 2), maps["layer4"]], 1)  # halving bilinearly is a 2 x 2 mean
    x = torch.einsum("bchw,oc->bohw", column, neck.conv.weight[:, :, 0, 0])
    x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(embedding, neck.mlp(x.relu().mean((2, 3))), rtol=1e-4, atol=1e-5)
    assert neck.conv.bias is None
    embedding.sum().backward()
    assert maps["layer3"].grad is not None
    assert maps["layer3"].grad.abs().sum() > 0


def test_hypercolumn_of_a_stage_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="no stage layer3, layer4; it has tokens"):
        HypercolumnNeck({"tokens": 8}, 8, 8, 8)
