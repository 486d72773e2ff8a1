"""The architecture of a network as far as the names and shapes of its weights show it, and what they leave open."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from models.networks.backbone import Backbone
from models.networks.backbones import HEAD_WIDTH, STEMS, VITS

_RESNET, _VIT = "conv1.weight", "patch_embed.proj.weight"  # the keys by which they are known


def guessed(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the architecture as far as shapes show it.

    They do not show whether a small stem has a max-pool, the size of a ResNet's images, nor the number of heads of a
    ViT, which is taken as one for 64 channels.
    """
    if _is(state, "pos_embed", 3) and _is(state, _VIT, 4):
        return _guessed_vit(state)
    if not _is(state, _RESNET, 4):
        return {}
    if "layer1.0.conv3.weight" in state:
        name = "resnet50"
    else:
        name = "resnet34" if "layer1.2.conv1.weight" in state else "resnet18"
    width, _, kernel, _ = state[_RESNET].shape
    return {"backbone": name, "width": width} | ({"stem": "imagenet", "image_size": 224} if kernel == 7 else {})


def leaves_open(name: str, facts: Mapping[str, Any]) -> bool:
    """Return whether shapes do not show a fact, of which `facts` from `guessed` may hold what is usual."""
    return name not in facts or name in ("heads", "norm_epsilon") or (name == "pool" and facts[name] == "token")


def _guessed_vit(state: Mapping[str, Tensor]) -> dict[str, Any]:
    dim, patch = state["pos_embed"].shape[2], state[_VIT].shape[-1]
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    sizes = {(HEAD_WIDTH * heads, blocks): name for name, (heads, blocks) in VITS.items() if name != "vit"}
    name = sizes.get((dim, depth), "vit")
    heads = {"heads": dim // HEAD_WIDTH} if dim % HEAD_WIDTH == 0 else {}
    return {
        "backbone": name,
        "width": dim if name == "vit" else HEAD_WIDTH,
        "stem": "imagenet",
        "image_size": table_side(state) * patch,
        "patch": patch,
        "depth": depth,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "final_norm": "norm.weight" in state,
        "pool": "mean_norm" if "fc_norm.weight" in state else "token",
        "norm_epsilon": 1e-6,
        **heads,
    }


def table_side(state: Mapping[str, Tensor]) -> int:
    """Return the patches along a side of a ViT's position table, rounded down if it is no square and a class token."""
    return math.isqrt(max(0, state["pos_embed"].shape[1] - 1))


def unsaid(missing: Iterable[str], held: Iterable[str]) -> str:
    """Return the advice for facts of the architecture that neither the file nor the shapes of its weights show.

    Args:
        held: the names of what the file holds.
    """
    names = list(missing)
    if "backbone" in names:
        what = few(list(held))
        return f"nothing says the network's 'backbone': it holds {what}, no keys of torchvision's ResNets or timm's ViT"
    problem = f"nothing says the network's {' and '.join(map(repr, names))}"
    options = {"stem": f"--stem {'|'.join(STEMS)}", "image_size": "--image-size PIXELS", "heads": "--heads N"}
    given = " and ".join(options.get(name, name) for name in names)
    return f"{problem}; give {given} (load_encoder: {'=, '.join(names)}=)"


def misfit(backbone: Backbone, state: Mapping[str, Tensor]) -> str:
    """Return how the entries differ from those of the backbone, and the stem that they would fit."""
    own = backbone.state_dict()
    lacking = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    foreign = [key for key in state if key not in own]
    unlike = [key for key in state if key in own and state[key].shape != own[key].shape]
    said = [f"it lacks {few(lacking)}"] if lacking else []
    said += [f"it has {few(foreign)} besides"] if foreign else []
    said += [f"{key} is {_sides(state[key])} and not {_sides(own[key])}" for key in unlike[:1]]
    if _RESNET in unlike and state[_RESNET].shape[2:] != own[_RESNET].shape[2:]:
        said.append(
            "its first convolution is that of --stem "
            + ("imagenet" if _sides(state[_RESNET]).endswith("7x7") else "small or small_pool")
        )
    return "; ".join(said)


def _is(state: Mapping[str, Tensor], key: str, dimensions: int) -> bool:
    return key in state and state[key].ndim == dimensions


def few(keys: list[str]) -> str:
    """Return the first keys and the number of the others; escaped, as they come from any file."""
    first = ", ".join(ascii(key[:80])[1:-1] for key in keys[:2])
    return f"{first or 'no tensors'}{f' and {len(keys) - 2} more' if len(keys) > 2 else ''}"


def _sides(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"
