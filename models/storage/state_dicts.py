"""Recognising the backbone of a state dict: by its keys, which are torchvision's or timm's, and by tensor shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from models.networks.backbone import Backbone
from models.networks.backbones import STEMS

_PREFIXES = ("student.backbone.", "backbone.", "")  # where a state dict may hold the student's backbone
_RESNET, _VIT = "conv1.weight", "patch_embed.proj.weight"  # the keys by which they are known


def backbone_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of the student's backbone, without their prefix and without a classifier."""
    for prefix in _PREFIXES:
        state = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        if _RESNET in state or _VIT in state:
            return {key: value for key, value in state.items() if not key.startswith(("fc.", "head."))}
    return {}


def guessed(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the architecture as far as shapes show it.

    They do not show whether a small stem has a max-pool, nor the size of a ResNet's images.
    """
    if _is(state, "pos_embed", 3) and _is(state, _VIT, 4):
        side = round((state["pos_embed"].shape[1] - 1) ** 0.5) * state[_VIT].shape[-1]
        return {
            "backbone": "vit_small",
            "width": state["pos_embed"].shape[2] // 6,
            "stem": "imagenet",
            "image_size": side,
        }
    if not _is(state, _RESNET, 4):
        return {}
    if "layer1.0.conv3.weight" in state:
        name = "resnet50"
    else:
        name = "resnet34" if "layer1.2.conv1.weight" in state else "resnet18"
    width, _, kernel, _ = state[_RESNET].shape
    return {"backbone": name, "width": width} | ({"stem": "imagenet", "image_size": 224} if kernel == 7 else {})


def unsaid(missing: Iterable[str], weights: Mapping[str, Tensor]) -> str:
    """Return the advice for facts of the architecture that neither the file nor the shapes of its weights show."""
    names = list(missing)
    if "backbone" in names:
        held = _few(list(weights))
        return f"nothing says the network's 'backbone': it holds {held}, no keys of torchvision's ResNets or timm's ViT"
    problem = f"nothing says the network's {' and '.join(map(repr, names))}"
    options = {"stem": f"--stem {'|'.join(STEMS)}", "image_size": "--image-size PIXELS"}
    given = " and ".join(options.get(name, name) for name in names)
    return f"{problem}; give {given} (load_encoder: {'=, '.join(names)}=)"


def misfit(backbone: Backbone, state: Mapping[str, Tensor]) -> str:
    """Return how the entries differ from those of the backbone, and the stem that they would fit."""
    own = backbone.state_dict()
    lacking = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    foreign = [key for key in state if key not in own]
    unlike = [key for key in state if key in own and state[key].shape != own[key].shape]
    said = [f"it lacks {_few(lacking)}"] if lacking else []
    said += [f"it has {_few(foreign)} besides"] if foreign else []
    said += [f"{key} is {_sides(state[key])} and not {_sides(own[key])}" for key in unlike[:1]]
    if _RESNET in unlike and state[_RESNET].shape[2:] != own[_RESNET].shape[2:]:
        said.append(
            "its first convolution is that of --stem "
            + ("imagenet" if _sides(state[_RESNET]).endswith("7x7") else "small or small_pool")
        )
    return "; ".join(said)


def _is(state: Mapping[str, Tensor], key: str, dimensions: int) -> bool:
    return key in state and state[key].ndim == dimensions


def _few(keys: list[str]) -> str:
    """Return the first keys and the number of the others; escaped, as they come from any file."""
    first = ", ".join(ascii(key[:80])[1:-1] for key in keys[:2])
    return f"{first or 'no tensors'}{f' and {len(keys) - 2} more' if len(keys) > 2 else ''}"


def _sides(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"
