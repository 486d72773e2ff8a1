"""Backbones: torchvision's and timm's keys and sizes, stems, stage maps, and errors."""

import pytest
import torch
from torch import nn

from models.networks.backbones import NAMES, _downsample, build_backbone
from models.networks.norm import SplitBatchNorm2d
from models.networks.vit import VisionTransformer


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "count", "dim", "keys"),
    [
        # torchvision's published counts less the classifier: 11,689,512, 21,797,672 and 25,557,032.
        ("resnet18", 11_689_512 - 513 * 1000, 512, 120),
        ("resnet34", 21_797_672 - 513 * 1000, 512, 216),
        ("resnet50", 25_557_032 - 2049 * 1000, 2048, 318),
    ],
)
def test_resnets_are_torchvisions(name: str, count: int, dim: int, keys: int) -> None:
    with torch.device("meta"):
        network = build_backbone(name)
    assert parameters(network) == count
    assert network.dim == dim
    state = network.state_dict()
    assert len(state) == keys
    for key in ("conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight"):
        assert key in state
    assert ("layer4.2.bn3.num_batches_tracked" in state) == (name == "resnet50")
    assert not any(key.startswith("fc") for key in state)


def test_bottleneck_strides_in_its_3x3_convolution() -> None:
    with torch.device("meta"):
        block = build_backbone("resnet50").get_submodule("layer2.0")
    assert block.get_submodule("conv1").stride == (1, 1)
    assert block.get_submodule("conv2").stride == (2, 2)


@pytest.mark.parametrize("inputs", [2, 4, 6, 8, 12])
def test_strided_shortcuts_of_odd_widths(inputs: int) -> None:
    shortcut = _downsample(inputs, 2 * inputs, 2, torch.nn.BatchNorm2d)
    assert shortcut is not None
    conv = shortcut[0].to(memory_format=torch.channels_last)
    x = torch.randn(16, inputs, 7, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    y, picked = conv(x), x.detach()[:, :, ::2, ::2]
    slope = torch.randn_like(y)
    y.backward(slope)
    torch.testing.assert_close(y, torch.einsum("nihw,oi->nohw", picked, conv.weight[:, :, 0, 0]))
    expected = torch.einsum("nohw,nihw->oi", slope, picked)
    torch.testing.assert_close(conv.weight.grad[:, :, 0, 0], expected, rtol=1e-4, atol=1e-4)
    assert list(conv.state_dict()) == ["weight"] and conv.stride == (2, 2)


def test_vit_small_has_timms_keys_and_size() -> None:
    with torch.device("meta"):
        network = build_backbone("vit_small")
    assert parameters(network) == 22_050_664 - 385 * 1000  # timm's vit_small_patch16_224 less its classifier
    state = network.state_dict()
    assert state["pos_embed"].shape == (1, 197, 384)
    assert state["cls_token"].shape == (1, 1, 384)
    assert state["patch_embed.proj.weight"].shape == (384, 3, 16, 16)
    names = {"norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"}
    expected = {f"blocks.{n}.{name}.{part}" for n in range(12) for name in names for part in ("weight", "bias")}
    rest = {"pos_embed", "cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"}
    assert set(state) == expected | rest


@pytest.mark.parametrize(
    ("stem", "size", "side"), [("imagenet", 64, 2), ("small", 32, 4), ("small_pool", 64, 4), ("small", 24, 3)]
)
def test_stems_and_stage_maps(stem: str, size: int, side: int) -> None:
    network = build_backbone("resnet18", width=4, stem=stem).eval()
    pooled, maps = network(torch.randn(2, 3, size, size))
    assert pooled.shape == (2, network.dim) == (2, 32)
    assert {name: x.shape[1] for name, x in maps.items()} == network.widths
    assert maps["layer4"].shape[2:] == (side, side)
    assert maps["layer3"].shape[2:] == (2 * side, 2 * side)
    torch.testing.assert_close(pooled, maps["layer4"].mean((2, 3)))


def test_initialisation_he_normal_fan_out_and_zero_last_gain() -> None:
    network = build_backbone("resnet18", width=32, zero_init_residual=True)
    weight = network.get_parameter("layer3.1.conv1.weight")
    assert weight.std().item() == pytest.approx((2 / (weight.shape[0] * 9)) ** 0.5, rel=0.02)
    assert network.get_parameter("layer3.1.bn2.weight").abs().sum() == 0
    assert network.get_parameter("layer3.1.bn1.weight").min() == 1


def test_batch_norm_is_what_the_caller_makes_and_keys_stay() -> None:
    plain = build_backbone("resnet18", width=4)
    split = build_backbone("resnet18", width=4, batch_norm=lambda channels: SplitBatchNorm2d(channels, 4))
    assert sum(isinstance(module, SplitBatchNorm2d) for module in split.modules()) == 20
    plain.load_state_dict(split.state_dict())
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(plain.eval()(images).pooled, split.eval()(images).pooled)


def test_vit_runs_at_other_sizes_and_attention_equals_the_formula() -> None:
    network = VisionTransformer(image_size=32, patch=8, dim=24, depth=2, heads=3)
    pooled, maps = network(torch.randn(2, 3, 32, 32))
    assert pooled.shape == (2, 24)
    assert maps["tokens"].shape == (2, 24, 4, 4)
    assert network(torch.randn(2, 3, 48, 32)).maps["tokens"].shape == (2, 24, 6, 4)
    attention = network.get_submodule("blocks.0.attn")
    x_BTD = torch.randn(2, 5, 24)
    qkv = attention.qkv(x_BTD).reshape(2, 5, 3, 3, 8)  # timm's layout: (query, key, value), head, width of a head
    query, key, value = (qkv[:, :, i].transpose(1, 2) for i in range(3))
    weights = torch.softmax(query @ key.transpose(2, 3) / 8**0.5, -1)
    expected = attention.proj((weights @ value).transpose(1, 2).reshape(2, 5, 24))
    torch.testing.assert_close(attention(x_BTD), expected)


#: What ICCL's ViT has where DeiT's has something else.
ICCL = {"heads": 12, "qkv_bias": False, "final_norm": False, "norm_epsilon": 1e-5, "initialisation": "torch"}


def test_heads_biases_norms_and_epsilon_of_a_vit_are_options() -> None:
    network, usual = build_backbone("vit_small", width=4, **ICCL), build_backbone("vit_small", width=4)
    lacking = {"norm.weight", "norm.bias", *(f"blocks.{n}.attn.qkv.bias" for n in range(12))}
    assert set(usual.state_dict()) - set(network.state_dict()) == lacking
    norms = [module.eps for module in network.modules() if isinstance(module, nn.LayerNorm)]
    assert norms == [1e-5] * 24 and {m.eps for m in usual.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    images = torch.randn(2, 3, 224, 224)
    attention = network.get_submodule("blocks.3.attn")
    assert attention.heads == 12 and usual.get_submodule("blocks.3.attn").heads == 6
    pooled = network(images).pooled
    seen: list[torch.Tensor] = []
    network.get_submodule("blocks.11").register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert torch.equal(network(images).pooled, pooled) and torch.equal(seen[0][:, 0], pooled)  # the raw class token


def test_attention_of_many_heads_equals_the_formula() -> None:
    attention = build_backbone("vit_small", width=8, **ICCL).get_submodule("blocks.0.attn")
    x_BTD = torch.randn(2, 5, 48)
    query, key, value = attention.qkv(x_BTD).reshape(2, 5, 3, 12, 4).permute(2, 0, 3, 1, 4).unbind(0)
    weights = torch.softmax(query @ key.transpose(2, 3) / 4**0.5, -1)
    torch.testing.assert_close(attention(x_BTD), attention.proj((weights @ value).transpose(1, 2).reshape(2, 5, 48)))


def test_initial_values_of_a_vit() -> None:
    torch.manual_seed(0)
    usual, iccl = build_backbone("vit_small", width=32), build_backbone("vit_small", width=32, **ICCL)
    assert usual.get_parameter("pos_embed").std().item() == pytest.approx(0.02, rel=0.05)
    assert usual.get_parameter("blocks.0.mlp.fc1.weight").std().item() == pytest.approx(0.02, rel=0.05)
    for name in ("pos_embed", "cls_token"):
        assert iccl.get_parameter(name).std().item() == pytest.approx(192**-0.5, rel=0.15)
    weight, bias = (iccl.get_parameter(f"blocks.0.mlp.fc1.{name}") for name in ("weight", "bias"))
    bound = 192**-0.5  # torch's default: uniform within 1 / sqrt(inputs), weights and biases
    assert 0.95 * bound < weight.abs().max() <= bound and 0.9 * bound < bias.abs().max() <= bound


def test_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"a width of 384 does not divide into 7 heads; give --heads that divide it"):
        build_backbone("vit_small", heads=7)
    with pytest.raises(ValueError, match="initialisation is 'zeros'; take one of timm, torch"):
        build_backbone("vit_small", initialisation="zeros")


def test_a_first_convolution_with_torchs_default() -> None:
    default = build_backbone("resnet18", stem="small", default_conv1=True)
    bound = 27**-0.5  # uniform within 1 / sqrt(3 x 3 x 3)
    assert 0.98 * bound < default.get_parameter("conv1.weight").abs().max() <= bound
    he = build_backbone("resnet18", stem="small").get_parameter("conv1.weight")
    assert he.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_frozen_patch_embedding() -> None:
    network = VisionTransformer(image_size=32, dim=24, depth=1, heads=3, freeze_patches=True)
    assert not any(parameter.requires_grad for parameter in network.patch_embed.parameters())


@pytest.mark.parametrize(
    "arguments", [{"name": "resnet19"}, {"name": "resnet18", "stem": "big"}, {"name": "resnet18", "width": 0}]
)
def test_bad_arguments_are_one_line(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown|width") as raised:
        build_backbone(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)
    if arguments["name"] not in NAMES:
        assert all(name in str(raised.value) for name in NAMES)


def test_vit_size_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match="30 px do not divide into patches of 16 px; give a multiple of 16"):
        build_backbone("vit_small", image_size=30)
