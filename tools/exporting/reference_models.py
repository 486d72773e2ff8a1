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

from tools.command_line import Failure

LAYOUTS = ("torchvision", "timm")
_RESNETS = ("resnet18", "resnet34", "resnet50")
_VIT = "vit_small_patch16_224"
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
        arguments = [f"num_classes=0, img_size={architecture['image_size']}"]
        arguments += [f"embed_dim={6 * architecture['width']}"] if architecture["width"] != 64 else []
        arguments += [f"{name}={value}" for name, value in _unusual_vit(architecture).items()]
        epsilon, lines = architecture.get("norm_epsilon", _EPSILON), ["import torch", "import timm"]
        if epsilon != _EPSILON:
            lines.insert(0, "from functools import partial")
            arguments.append(f"norm_layer=partial(torch.nn.LayerNorm, eps={epsilon})")
        lines.append(f'model = timm.create_model("{_VIT}", {", ".join(arguments)})')
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
        lines.append("model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)")
    return [*lines, "model.maxpool = torch.nn.Identity()"] if stem == "small" else lines


def reference_network(layout: str, architecture: Mapping[str, Any]) -> nn.Module:
    """Return the library's network with this project's stem and no classifier: images [B, 3, s, s] to features [B, D].

    Raises:
        ImportError: the library is missing, or does not fit this version of torch.
    """
    name, stem = architecture["name"], architecture["stem"]
    library = _imported(layout)
    model: Any
    if name not in _RESNETS:
        sizes = {"img_size": architecture["image_size"], "embed_dim": 6 * architecture["width"]}
        norm = partial(nn.LayerNorm, eps=architecture.get("norm_epsilon", _EPSILON))
        model = library.create_model(_VIT, num_classes=0, norm_layer=norm, **sizes, **_unusual_vit(architecture))
        model.norm = model.norm if architecture.get("final_norm", True) else nn.Identity()
    elif layout == "timm":
        model = library.create_model(name, num_classes=0)
    else:
        model = getattr(library.models, name)()
        model.fc = nn.Identity()
    if name in _RESNETS and stem != "imagenet":
        model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool = nn.Identity() if stem == "small" else model.maxpool
    network: nn.Module = model
    return network


def _unusual_vit(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of timm's constructor in which a ViT differs from timm's."""
    usual, given = {"num_heads": 6, "qkv_bias": True}, {"num_heads": "heads", "qkv_bias": "qkv_bias"}
    values = {name: architecture.get(given[name], value) for name, value in usual.items()}
    return {name: value for name, value in values.items() if value != usual[name]}


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
