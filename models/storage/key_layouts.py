"""The names that others give to the weights of a ResNet or a ViT, and their translation into those of this project.

This project has torchvision's names for ResNets and timm's for ViTs. A layout is known by the name of its first layer,
whose weights have three input channels, and by one more name that only it has.

    torchvision, timm ResNets     conv1.weight             layer1.0.conv1.weight
    children in nn.Sequential     0.weight                 4.0.conv1.weight         lightly, PyTorch-BYOL
    timm's ViTs                   patch_embed.proj.weight  blocks.0.norm1.weight    DINO, MoCo v3, MAE
    torchvision's ViTs            conv_proj.weight         encoder.pos_embedding
    Hugging Face's ViTs           embeddings.patch_embeddings.projection.weight     embeddings.position_embeddings
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

State = dict[str, Tensor]

#: Outermost names of what a network holds beside its trunk: heads, classifiers, and what only pre-training needs.
_HEADS = re.compile(
    r"(fc|head|heads|head_drop|linear|classifier|projector|projection\w*|prototypes|predictor|mlp|pre_logits|g|"
    r"\w+_head|decoder\w*|mask_token|mask_embed|masked_embed|queue|queue_ptr|pooler)(\.|$)"
)


class Layout(NamedTuple):
    """One way to name weights.

    Attributes:
        first: the name of the first convolution.
        other: a name, or the pattern of one, that must be there too.
        translate: returns the weights under this project's names.
        facts: arguments of `build_backbone` that its networks have and shapes do not show.
    """

    first: str
    other: str
    translate: Callable[[State], State]
    facts: Mapping[str, Any] = MappingProxyType({})


def without_heads(state: Mapping[str, Tensor]) -> tuple[State, list[str]]:
    """Return the entries of the trunk alone, and the outermost names of the others."""
    trunk = {key: value for key, value in state.items() if not _HEADS.match(key)}
    return trunk, list(dict.fromkeys(key.split(".")[0] for key in state if key not in trunk))


def _resnet(state: State) -> State:
    """Rename the shortcut of the many ResNets that go back to one for CIFAR."""
    return {key.replace(".shortcut.", ".downsample."): value for key, value in state.items()}


def _numbered_resnet(state: State) -> State:
    """Name the numbered children of a ResNet: first convolution, first norm, stages; what follows is a head."""
    stages = sorted({int(key.split(".")[0]) for key in state if re.fullmatch(r"\d+\.0\.conv1\.weight", key)})
    names = {str(number): f"layer{stage}" for stage, number in enumerate(stages, 1)}
    for key, value in state.items():
        number, _, entry = key.partition(".")
        if number.isdecimal() and int(number) < stages[0] and entry == "weight":
            names[number] = "conv1" if value.ndim == 4 else "bn1"
    numbered = [key.partition(".") for key in state]
    renamed = [f"{names.get(number, f'head.{number}')}.{entry}" for number, _, entry in numbered]
    return _resnet(dict(zip(renamed, state.values(), strict=True)))


def _timm_vit(state: State) -> State:
    """Multiply the scale of each branch (LayerScale, as in DINOv2) into the branch's last layer."""
    found = dict(state)
    for key in [key for key in found if re.fullmatch(r"blocks\.\d+\.ls[12]\.gamma", key)]:
        block, branch = key.rsplit(".", 2)[0], "attn.proj" if ".ls1." in key else "mlp.fc2"
        gamma_D = found.pop(key).float()
        for entry in ("weight", "bias"):
            name = f"{block}.{branch}.{entry}"
            if name in found:
                scale = gamma_D[:, None] if entry == "weight" else gamma_D
                found[name] = found[name].float() * scale
    return found


_TORCHVISION_VIT = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
)
_HUGGING_FACE_VIT = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)


def _torchvision_vit(state: State) -> State:
    return {_substituted(key, _TORCHVISION_VIT): value for key, value in state.items()}


def _hugging_face_vit(state: State) -> State:
    """Rename, and join queries, keys and values into one layer."""
    found = {_substituted(key, _HUGGING_FACE_VIT): value for key, value in state.items()}
    for key in [key for key in found if ".attn.query." in key]:
        parts = [key.replace(".query.", f".{name}.") for name in ("query", "key", "value")]
        if all(part in found for part in parts):
            found[key.replace(".query.", ".qkv.")] = torch.cat([found.pop(part) for part in parts])
    return found


def _substituted(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, name in rules:
        key = re.sub(pattern, name, key)
    return key


LAYOUTS = (
    Layout("conv1.weight", r"layer1\.0\.conv1\.weight", _resnet),
    Layout("0.weight", r"\d+\.0\.conv1\.weight", _numbered_resnet),
    Layout("patch_embed.proj.weight", r"blocks\.0\.norm1\.weight", _timm_vit),
    Layout("conv_proj.weight", r"encoder\.pos_embedding", _torchvision_vit),
    Layout(
        "embeddings.patch_embeddings.projection.weight",
        r"embeddings\.position_embeddings",
        _hugging_face_vit,
        {"norm_epsilon": 1e-12},
    ),
)
