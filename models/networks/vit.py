"""Vision transformer, ViT-S/16 by default, with timm's state-dict keys and torch's own attention.

Dosovitskiy et al., arXiv 2010.11929; sizes of ViT-S from Touvron et al., arXiv 2012.12877. Published networks of the
same shapes differ in what `VisionTransformer` has as options: number of heads, bias of the attention, norm after the
last block, epsilon of the norms, and initial values.

Shapes: B images, T tokens (class token first), D width of a token, H x W patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.backbone import Backbone, Features

INITIALISATIONS = ("timm", "torch")


class Attention(nn.Module):
    """Multi-head self-attention by `scaled_dot_product_attention`, which picks the fastest kernel available."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        batch, tokens, dim = x_BTD.shape
        query, key, value = self.qkv(x_BTD).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.proj(y.transpose(1, 2).reshape(batch, tokens, dim))
        return mixed


class Mlp(nn.Module):
    """Two layers with a GELU between them, applied to each token."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x_BTD)))
        return y


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, ratio: int, qkv_bias: bool, norm_epsilon: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_epsilon)
        self.attn = Attention(dim, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_epsilon)
        self.mlp = Mlp(dim, ratio * dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attn(self.norm1(x_BTD))
        y: Tensor = x_BTD + self.mlp(self.norm2(x_BTD))
        return y


class PatchEmbed(nn.Module):
    """An image cut into squares, each one a token: a convolution whose stride is its kernel size."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        tokens: Tensor = self.proj(images_BCHW)
        return tokens


class VisionTransformer(Backbone):
    """ViT-S/16 by default; the pooled features are the class token.

    Args:
        image_size: side of the training images in pixels; images of other sizes resize the position table.
        patch: side of a patch in pixels.
        dim, depth, heads: width, number of blocks, number of attention heads.
        ratio: hidden width of the MLP over `dim`.
        qkv_bias: whether queries, keys and values have a bias.
        final_norm: whether there is a layer norm after the last block.
        norm_epsilon: epsilon of every layer norm.
        initialisation: "timm" draws linear layers and positions from a truncated normal distribution (deviation 0.02)
            and starts the class token near 0; "torch" leaves linear layers with torch's default, and draws class token
            and positions from a normal distribution with deviation 1 / sqrt(dim).
        freeze_patches: whether the random patch embedding is not trained (Chen et al., arXiv 2104.02057: steadier).

    Raises:
        ValueError: the patch does not divide the image, or the heads do not divide the width.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch: int = 16,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        ratio: int = 4,
        qkv_bias: bool = True,
        final_norm: bool = True,
        norm_epsilon: float = 1e-6,
        initialisation: str = "timm",
        freeze_patches: bool = False,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(
                f"ViT: {image_size} px do not divide into patches of {patch} px; give a multiple of {patch}"
            )
        if heads < 1 or dim % heads:
            raise ValueError(f"ViT: a width of {dim} does not divide into {heads} heads; give --heads that divide it")
        if initialisation not in INITIALISATIONS:
            raise ValueError(f"ViT: initialisation is '{initialisation}'; take one of {', '.join(INITIALISATIONS)}")
        self.patch = patch
        self.dim = dim
        self.widths = {"tokens": dim}
        self.patch_embed = PatchEmbed(patch, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (image_size // patch) ** 2, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, ratio, qkv_bias, norm_epsilon) for _ in range(depth))
        self.norm: nn.Module = nn.LayerNorm(dim, eps=norm_epsilon) if final_norm else nn.Identity()
        self._initialise(initialisation)
        self.patch_embed.requires_grad_(not freeze_patches)

    def _initialise(self, initialisation: str) -> None:
        if initialisation == "torch":
            nn.init.normal_(self.cls_token, std=self.dim**-0.5)
            nn.init.normal_(self.pos_embed, std=self.dim**-0.5)
            return
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _positions(self, height: int, width: int) -> Tensor:
        """Return the position table [1, 1 + height * width, D], resized (bicubic) if the images are of another size."""
        side = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if (height, width) == (side, side):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], 1)

    def forward(self, images_BCHW: Tensor) -> Features:
        patches_BDHW = self.patch_embed(images_BCHW)
        height, width = patches_BDHW.shape[2:]
        tokens = patches_BDHW.flatten(2).transpose(1, 2)
        x_BTD = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], 1) + self._positions(height, width)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        x_BTD = self.norm(x_BTD)
        tokens_BDHW = x_BTD[:, 1:].transpose(1, 2).unflatten(2, (height, width))
        return Features(x_BTD[:, 0], {"tokens": tokens_BDHW})
