"""Networks as their authors write them, in plain torch and small: the truth for weights that are read from their files.

Nothing here uses the project's networks. `ResNet18` has torchvision's names, `CifarResNet18` those of the many ResNets
for CIFAR (lightly's among them), `ViT` timm's; attention is written as its formula.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.name = shortcut
        if stride > 1:
            layers = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            self.add_module(shortcut, layers)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (getattr(self, self.name)(x) if hasattr(self, self.name) else x))


def children(width: int, conv1: nn.Conv2d, pool: bool, shortcut: str = "downsample") -> dict[str, nn.Module]:
    """The parts of a ResNet-18 in the order in which they are applied."""
    stages, inputs = {}, width
    for number in range(4):
        outputs = width * 2**number
        blocks = [BasicBlock(inputs, outputs, 1 + (number > 0), shortcut), BasicBlock(outputs, outputs, 1, shortcut)]
        stages[f"layer{number + 1}"], inputs = nn.Sequential(*blocks), outputs
    first = {"conv1": conv1, "bn1": nn.BatchNorm2d(width), "relu": nn.ReLU()}
    return first | ({"maxpool": nn.MaxPool2d(3, 2, 1)} if pool else {}) | stages


def lively(network: nn.Module) -> nn.Module:
    """The network with norms that all differ, in evaluation mode: no two weights can be mixed up."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def resnet18(kind: str = "imagenet", width: int = 8, seed: int = 0) -> nn.Sequential:
    """A ResNet-18 without classifier: torchvision's, lightly's for CIFAR, or solo-learn's for CIFAR."""
    torch.manual_seed(seed)
    conv1 = {
        "imagenet": nn.Conv2d(3, width, 7, 2, 3, bias=False),
        "lightly": nn.Conv2d(3, width, 3, 1, 1, bias=False),
        "solo": nn.Conv2d(3, width, 3, 1, 2, bias=False),
    }[kind]
    parts = children(width, conv1, kind == "imagenet", "shortcut" if kind == "lightly" else "downsample")
    network = nn.Sequential()
    for name, part in parts.items():
        network.add_module(name, part)
    network.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flat", nn.Flatten())
    return lively(network)  # type: ignore[return-value]


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weights = (qkv[0] @ qkv[1].transpose(-2, -1) * (dim // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ qkv[2]).transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(x * 0.5 * (1 + torch.erf(x / 2**0.5)))


class Scale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, epsilon: float, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, epsilon), nn.LayerNorm(dim, epsilon)
        self.attn, self.mlp = Attention(dim, heads), Mlp(dim)
        self.ls1, self.ls2 = (Scale(dim), Scale(dim)) if scaled else (nn.Identity(), nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """A ViT for images of 32 px with patches of 8, so narrow and shallow that it is quick."""

    def __init__(
        self,
        dim: int = 128,
        heads: int = 2,
        depth: int = 2,
        epsilon: float = 1e-6,
        pool: str = "token",
        scaled: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, dim))
        self.patch_embed = PatchEmbed(8, dim)
        self.blocks = nn.Sequential(*(Block(dim, heads, epsilon, scaled) for _ in range(depth)))
        self.norm = nn.Identity() if pool == "mean_norm" else nn.LayerNorm(dim, epsilon)
        self.fc_norm = nn.LayerNorm(dim, epsilon) if pool == "mean_norm" else nn.Identity()
        self.pool = pool
        lively(self)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1) + self.pos_embed
        x = self.norm(self.blocks(x))
        return x[:, 0] if self.pool == "token" else self.fc_norm(x[:, 1:].mean(1))
