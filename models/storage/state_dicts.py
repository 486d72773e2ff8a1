"""Which backbone a state dict is of: by its keys, which are torchvision's or timm's, and by the shapes under them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from models.networks.backbone import Backbone
from models.networks.backbones import STEMS

_PREFIXES = ("student.backbone.", "backbone.", "")  # where a state dict may hold the student's backbone
_RESNET, _VIT = "conv1.weight", "patch_embed.proj.weight"  # the keys by which they are known


def backbone_part(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of the student's backbone, without their prefix and without a classifier."""
    for prefix in _PREFIXES:
        part = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        if _RESNET in part or _VIT in part:
            return {key: value for key, value in part.items() if not key.startswith(("fc.", "head."))}
    return {}


def guessed(part: Mapping[str, Tensor]) -> dict[str, Any]:
    """Architecture as far as the shapes tell it: not a small stem's max-pool, nor the size of a ResNet's images."""
    if _is(part, "pos_embed", 3) and _is(part, _VIT, 4):
        side = round((part["pos_embed"].shape[1] - 1) ** 0.5) * part[_VIT].shape[-1]
        return {
            "backbone": "vit_small",
            "width": part["pos_embed"].shape[2] // 6,
            "stem": "imagenet",
            "image_size": side,
        }
    if not _is(part, _RESNET, 4):
        return {}
    name = (
        "resnet50" if "layer1.0.conv3.weight" in part else "resnet34" if "layer1.2.conv1.weight" in part else "resnet18"
    )
    width, _, kernel, _ = part[_RESNET].shape
    return {"backbone": name, "width": width} | ({"stem": "imagenet", "image_size": 224} if kernel == 7 else {})


def unsaid(missing: Iterable[str], weights: Mapping[str, Tensor]) -> str:
    """What to do where neither the file nor the shapes of its weights say some facts of the architecture."""
    names = list(missing)
    if "backbone" in names:
        held = _few(list(weights))
        return f"nothing says the network's 'backbone': it holds {held}, no keys of torchvision's ResNets or timm's ViT"
    told = f"nothing says the network's {' and '.join(map(repr, names))}"
    options = {"stem": f"--stem {'|'.join(STEMS)}", "image_size": "--image-size PIXELS"}
    return (
        f"{told}; give {' and '.join(options.get(name, name) for name in names)} (load_encoder: {'=, '.join(names)}=)"
    )


def misfit(backbone: Backbone, part: Mapping[str, Tensor]) -> str:
    """How the entries differ from those of the backbone, and the stem that they would fit."""
    own = backbone.state_dict()
    lacking = [key for key in own if key not in part and not key.endswith("num_batches_tracked")]
    foreign = [key for key in part if key not in own]
    unlike = [key for key in part if key in own and part[key].shape != own[key].shape]
    said = [f"it lacks {_few(lacking)}"] if lacking else []
    said += [f"it has {_few(foreign)} besides"] if foreign else []
    said += [f"{key} is {_sides(part[key])} and not {_sides(own[key])}" for key in unlike[:1]]
    if _RESNET in unlike and part[_RESNET].shape[2:] != own[_RESNET].shape[2:]:
        said.append(
            "its first convolution is that of --stem "
            + ("imagenet" if _sides(part[_RESNET]).endswith("7x7") else "small or small_pool")
        )
    return "; ".join(said)


def _is(part: Mapping[str, Tensor], key: str, dimensions: int) -> bool:
    return key in part and part[key].ndim == dimensions


def _few(keys: list[str]) -> str:
    """The first keys, and how many more; escaped, for they are anybody's."""
    first = ", ".join(ascii(key[:80])[1:-1] for key in keys[:2])
    return f"{first or 'no tensors'}{f' and {len(keys) - 2} more' if len(keys) > 2 else ''}"


def _sides(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"
