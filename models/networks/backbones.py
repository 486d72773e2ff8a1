"""Backbones: ResNet-18/34/50 with three stems, and the function that builds any backbone by name.

State-dict keys are torchvision's (conv1, bn1, layer1.0.conv1 ... layer4.2.bn3, no fc), so weights travel both ways.
He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385; the stride of a bottleneck is in its 3x3
convolution, as in torchvision. The ViT is in `vit.py`.

Shapes: B images, D pooled features, C channels, H x W pixels of a map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.backbone import Backbone, BatchNorm, Features
from models.networks.block_norm import InterleavedMaps, from_blocks, to_blocks
from models.networks.norm import SplitBatchNorm2d
from models.networks.vit import VisionTransformer

STEMS = ("imagenet", "small", "small_pool")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an identity (ResNet-18 and 34)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, batch_norm: BatchNorm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = batch_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = batch_norm(width)
        self.downsample = _downsample(inputs, width, stride, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)

    def last_norm(self) -> nn.Module:
        """Return the batch norm before the addition."""
        return self.bn2


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around an identity (ResNet-50)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, batch_norm: BatchNorm) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = batch_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = batch_norm(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = batch_norm(outputs)
        self.downsample = _downsample(inputs, outputs, stride, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)

    def last_norm(self) -> nn.Module:
        """Return the batch norm before the addition."""
        return self.bn3


def _downsample(inputs: int, outputs: int, stride: int, batch_norm: BatchNorm) -> nn.Sequential | None:
    """Return the shortcut of a block that changes the shape; None for an identity."""
    if stride == 1 and inputs == outputs:
        return None
    kind = _OddShortcut if stride > 1 and inputs % 8 else nn.Conv2d
    return nn.Sequential(kind(inputs, outputs, 1, stride, bias=False), batch_norm(outputs))


class _OddShortcut(nn.Conv2d):
    """A strided 1x1 convolution of a channel count that 8 does not divide; it picks the pixels before it convolves.

    For the gradient of its weights, torch 2.13 reads channels-last pixels in blocks of 8 channels on processors without
    AVX-512, and writes the last block beyond the end of its memory: seen with 2 to 6 channels.
    """

    def forward(self, x: Tensor) -> Tensor:
        down, right = self.stride
        return F.conv2d(x[:, :, ::down, ::right], self.weight)


class ResNet(Backbone):
    """A residual network of four stages; the pooled features are the mean over the last map.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        layers: number of blocks in each of the four stages.
        width: channels of the first stage; 64 is the published network, smaller ones train on a CPU.
        stem: "imagenet" is 7x7 with stride 2 and a max-pool; "small" is 3x3 with stride 1 and no pool (CIFAR);
            "small_pool" is 3x3 with stride 1 and the max-pool (STL-10 and Tiny-ImageNet at 64 px).
        zero_init_residual: initialise each block's last batch-norm gain at 0 (Goyal et al., arXiv 1706.02677).
        default_conv1: leave the first convolution with torch's default initialisation, where the others have He's.
        batch_norm: makes the batch norms; None takes `nn.BatchNorm2d`.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, int, int, int],
        width: int = 64,
        stem: str = "imagenet",
        zero_init_residual: bool = False,
        default_conv1: bool = False,
        batch_norm: BatchNorm | None = None,
    ) -> None:
        super().__init__()
        norm = batch_norm or nn.BatchNorm2d
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = norm(width)
        self.maxpool = nn.Identity() if stem == "small" else nn.MaxPool2d(3, 2, 1)

        def stage(inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
            blocks = [block(inputs, width, stride, norm)]
            blocks += [block(width * block.expansion, width, 1, norm) for _ in range(count - 1)]
            return nn.Sequential(*blocks)

        outputs = [width * 2**i * block.expansion for i in range(4)]
        self.layer1 = stage(width, width, layers[0], 1)
        self.layer2 = stage(outputs[0], width * 2, layers[1], 2)
        self.layer3 = stage(outputs[1], width * 4, layers[2], 2)
        self.layer4 = stage(outputs[2], width * 8, layers[3], 2)
        self.dim = outputs[3]
        self.widths = {f"layer{i + 1}": channels for i, channels in enumerate(outputs)}

        for module in self.modules():
            if isinstance(module, SplitBatchNorm2d):
                module.blocks = True  # `forward` sorts the batch once
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if default_conv1:
            self.conv1.reset_parameters()
        if zero_init_residual:
            for gain in self._last_gains():
                nn.init.zeros_(gain)

    def _last_gains(self) -> Iterator[Tensor]:
        for module in self.modules():
            if isinstance(module, BasicBlock | Bottleneck):
                yield module.last_norm().get_parameter("weight")

    def forward(self, images_BCHW: Tensor) -> Features:
        groups = self.bn1.groups if self.training and isinstance(self.bn1, SplitBatchNorm2d) else 1
        x = to_blocks(images_BCHW, groups)
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        maps = {}
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = maps[name] = self.get_submodule(name)(x)
        pooled = from_blocks(x.mean((2, 3)), groups)
        return Features(pooled, maps if groups == 1 else InterleavedMaps(maps, groups))


@dataclass(frozen=True)
class _Shape:
    block: type[BasicBlock] | type[Bottleneck]
    layers: tuple[int, int, int, int]


_RESNETS = {
    "resnet18": _Shape(BasicBlock, (2, 2, 2, 2)),
    "resnet34": _Shape(BasicBlock, (3, 4, 6, 3)),
    "resnet50": _Shape(Bottleneck, (3, 4, 6, 3)),
}
NAMES = (*_RESNETS, "vit_small")
#: Arguments of `build_backbone` that only a ViT has, and that the shapes of its weights do not tell.
VIT_FACTS = ("heads", "qkv_bias", "final_norm", "norm_epsilon", "initialisation")


def build_backbone(
    name: str,
    width: int = 64,
    stem: str = "imagenet",
    zero_init_residual: bool = False,
    batch_norm: BatchNorm | None = None,
    image_size: int = 224,
    *,
    default_conv1: bool = False,
    heads: int = 6,
    qkv_bias: bool = True,
    final_norm: bool = True,
    norm_epsilon: float = 1e-6,
    initialisation: str = "timm",
) -> Backbone:
    """Return the backbone called `name`, freshly initialised from torch's global generator.

    Args:
        width: channels of a ResNet's first stage, or a sixth of a ViT's width; 64 is the published size of both.
        stem, zero_init_residual, batch_norm, default_conv1: as in `ResNet`.
        image_size: side of the training images in pixels; only a ViT's position table needs it.
        heads, qkv_bias, final_norm, norm_epsilon, initialisation: as in `VisionTransformer`.

    Raises:
        ValueError: the name or the stem is unknown, or does not fit the backbone.
    """
    if name not in NAMES:
        raise ValueError(f"unknown backbone '{name}'; choose from {', '.join(NAMES)}")
    if stem not in STEMS:
        raise ValueError(f"unknown stem '{stem}'; choose from {', '.join(STEMS)}")
    if width < 1:
        raise ValueError(f"backbone width is {width}; give at least 1 channel")
    if name == "vit_small":
        return VisionTransformer(
            image_size,
            dim=6 * width,
            heads=heads,
            qkv_bias=qkv_bias,
            final_norm=final_norm,
            norm_epsilon=norm_epsilon,
            initialisation=initialisation,
        )
    shape = _RESNETS[name]
    return ResNet(shape.block, shape.layers, width, stem, zero_init_residual, default_conv1, batch_norm)
