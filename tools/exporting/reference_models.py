"""The classes of torchvision and timm that exported weights fit: as networks, and as Python code for the model card.

The keys of a ResNet are the same in torchvision, in timm and in this project; those of the ViT are timm's. Neither
library has the small-image stems, so the library's network gets this project's first convolution, and an identity in
place of its max-pool if this project's stem has none. The classifier is removed, so that the network returns pooled
features. What differs among ViTs of the same shapes (heads, biases, norms) is given to timm's constructor.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from models.networks.backbones import UNPOOLED, VITS, published_heads
from tools.command_line import Failure

LAYOUTS = ("torchvision", "timm")
_RESNETS = ("resnet18", "resnet34", "resnet50")
_EPSILON = 1e-6  # of its layer norms


def chosen_layout(given: str | None, backbone: str) -> str:
    """Return the library whose keys the file will have: `given`, or torchvision for a ResNet and timm for a ViT.

    Raises:
        Failure: the library is unknown, or has no such network.
    """
    layout = given or ("timm" if backbone.startswith("vit") else "torchvision")
    if layout not in LAYOUTS:
        raise Failure(f"unknown --layout '{layout}'; take one of {', '.join(LAYOUTS)}")
    if layout == "torchvision" and backbone.startswith("vit"):
        raise Failure(f"torchvision has no {backbone}; take --layout timm")
    return layout


def missing_class(layout: str, architecture: Mapping[str, Any]) -> str:
    """Return why no class of the library can hold these weights; empty if one can."""
    name, width = architecture["name"], architecture["width"]
    return f"{layout} has {name} with a width of 64 only, not {width}" if name in _RESNETS and width != 64 else ""


def reference_code(layout: str, architecture: Mapping[str, Any]) -> list[str]:
    """Return lines of Python that create `model`, the network that `reference_network` returns."""
    name, stem = architecture["name"], architecture["stem"]
    if name not in _RESNETS:
        own_name, unusual = _timms_vit(architecture)
        arguments = [f"num_classes=0, img_size={architecture['image_size']}"]
        arguments += [f"{argument}={value!r}".replace("'", '"') for argument, value in unusual.items()]
        epsilon, lines = architecture.get("norm_epsilon", _EPSILON), ["import torch", "import timm"]
        if epsilon != _EPSILON:
            lines.insert(0, "from functools import partial")
            arguments.append(f"norm_layer=partial(torch.nn.LayerNorm, eps={epsilon})")
        lines.append(f'model = timm.create_model("{own_name}", {", ".join(arguments)})')
        return lines if architecture.get("final_norm", True) else [*lines, "model.norm = torch.nn.Identity()"]
    if layout == "timm":
        lines = ["import torch", "import timm", f'model = timm.create_model("{name}", num_classes=0)']
    else:
        lines = [
            "import torch",
            "import torchvision",
            f"model = torchvision.models.{name}()",
            "model.fc = torch.nn.Identity()",
        ]
    if stem != "imagenet":
        lines.append(f"model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, {_padding(stem)}, bias=False)")
    return [*lines, "model.maxpool = torch.nn.Identity()"] if stem in UNPOOLED else lines


def reference_network(layout: str, architecture: Mapping[str, Any]) -> nn.Module:
    """Return the library's network with this project's stem and no classifier: images [B, 3, s, s] to features [B, D].

    Raises:
        ImportError: the library is missing, or does not fit this version of torch.
    """
    name, stem = architecture["name"], architecture["stem"]
    library = _imported(layout)
    model: Any
    if name not in _RESNETS:
        own_name, unusual = _timms_vit(architecture)
        size = architecture["image_size"]
        norm = partial(nn.LayerNorm, eps=architecture.get("norm_epsilon", _EPSILON))
        model = library.create_model(own_name, num_classes=0, img_size=size, norm_layer=norm, **unusual)
        model.norm = model.norm if architecture.get("final_norm", True) else nn.Identity()
    elif layout == "timm":
        model = library.create_model(name, num_classes=0)
    else:
        model = getattr(library.models, name)()
        model.fc = nn.Identity()
    if name in _RESNETS and stem != "imagenet":
        model.conv1 = nn.Conv2d(3, 64, 3, 1, _padding(stem), bias=False)
        model.maxpool = nn.Identity() if stem in UNPOOLED else model.maxpool
    network: nn.Module = model
    return network


def _padding(stem: str) -> int:
    """Return the padding of a small-image stem, in pixels."""
    return 2 if stem == "small_pad2" else 1


def _timms_vit(architecture: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of timm's nearest ViT, and the arguments of its constructor in which a ViT differs from it."""
    name, width = architecture["name"], architecture["width"]
    nearest = "vit_small" if name == "vit" else name
    heads, depth = VITS[nearest]
    usual = {"embed_dim": 64 * heads, "num_heads": heads, "depth": depth, "patch_size": 16, "qkv_bias": True}
    own = {
        "embed_dim": width * VITS[name][0],
        "num_heads": architecture.get("heads") or published_heads(name, width),
        "depth": architecture.get("depth") or depth,
        "patch_size": architecture.get("patch", 16),
        "qkv_bias": architecture.get("qkv_bias", True),
    }
    unusual = {argument: value for argument, value in own.items() if value != usual[argument]}
    if architecture.get("pool") == "mean":
        unusual |= {"global_pool": "avg", "fc_norm": False}
    return f"{nearest}_patch16_224", unusual


def version(layout: str) -> str:
    """Return the name and version of a library that can be imported."""
    return f"{layout} {_imported(layout).__version__}"


def _imported(layout: str) -> Any:
    """Import a library.

    Raises:
        ImportError: one line with the reason and the command that installs the library.
    """
    try:
        if layout == "timm":
            import timm

            return timm
        import torchvision

        return torchvision
    except (
        ImportError,
        RuntimeError,
        AttributeError,
        OSError,
    ) as error:  # RuntimeError: built for another version of torch
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ImportError(f"{layout} does not import here ({reason}); pip install {layout}") from None
