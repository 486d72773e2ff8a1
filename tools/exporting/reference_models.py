"""The classes of torchvision and timm that exported weights fit: how to make one, in words of Python and in fact.

Keys of a ResNet are the same in torchvision, in timm and here; those of the ViT are timm's. The small-image stems are
in neither library: there the stock network gets our first convolution, and no max-pool where ours has none. Its pooled
features are taken, so it has no classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tools.command_line import Failure

LAYOUTS = ("torchvision", "timm")
_RESNETS = ("resnet18", "resnet34", "resnet50")
_VIT = "vit_small_patch16_224"


def chosen_layout(given: str | None, backbone: str) -> str:
    """The library whose keys the file will have: torchvision's for a ResNet, timm's for a ViT, unless told otherwise.

    Raises:
        Failure: the library has no such network.
    """
    layout = given or ("timm" if backbone.startswith("vit") else "torchvision")
    if layout not in LAYOUTS:
        raise Failure(f"unknown --layout '{layout}'; take one of {', '.join(LAYOUTS)}")
    if layout == "torchvision" and backbone.startswith("vit"):
        raise Failure(f"torchvision has no {backbone}; take --layout timm")
    return layout


def missing_class(layout: str, architecture: Mapping[str, Any]) -> str:
    """Why no class of the library holds these weights; empty where one does."""
    name, width = architecture["name"], architecture["width"]
    return f"{layout} has {name} with a width of 64 only, not {width}" if name in _RESNETS and width != 64 else ""


def stock_lines(layout: str, architecture: Mapping[str, Any]) -> list[str]:
    """Python that makes `model`, the network of `stock_network`."""
    name, stem = architecture["name"], architecture["stem"]
    if name not in _RESNETS:
        wide = "" if architecture["width"] == 64 else f", embed_dim={6 * architecture['width']}"
        side = architecture["image_size"]
        return [
            "import torch",
            "import timm",
            f'model = timm.create_model("{_VIT}", num_classes=0, img_size={side}{wide})',
        ]
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


def stock_network(layout: str, architecture: Mapping[str, Any]) -> nn.Module:
    """The library's network with our stem and without a classifier, from images [B, 3, s, s] to features [B, D].

    Raises:
        ImportError: the library is missing, or does not go with this torch.
    """
    name, stem = architecture["name"], architecture["stem"]
    library = _imported(layout)
    model: Any
    if name not in _RESNETS:
        sizes = {"img_size": architecture["image_size"], "embed_dim": 6 * architecture["width"]}
        model = library.create_model(_VIT, num_classes=0, **sizes)
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


def version(layout: str) -> str:
    """Name and version of an imported library."""
    return f"{layout} {_imported(layout).__version__}"


def _imported(layout: str) -> Any:
    try:
        if layout == "timm":
            import timm

            return timm
        import torchvision

        return torchvision
    except (ImportError, RuntimeError, AttributeError, OSError) as error:  # RuntimeError: built for another torch
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ImportError(f"{layout} does not import here ({reason}); pip install {layout}") from None
