"""What the weights of others leave open, in one line: no shape shows it, and another value gives other features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.networks.backbones import UNPOOLED, VITS


def assumed(architecture: Mapping[str, Any], facts: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the line about the facts that neither the file nor the user gave.

    Args:
        architecture: the arguments of `build_backbone` that made the network.
        facts: all facts, with the side of the evaluation views in pixels.
        given: those that the file or the user gave.
    """
    of_network = _vit(architecture, facts) if architecture["name"] in VITS else _resnet(architecture)
    open_facts = [text for option, text in of_network if option not in given]
    if "image_size" not in given and architecture["name"] not in VITS:
        open_facts.append(f"images of {facts['image_size']} px (--image-size)")
    if "resize" not in given:
        open_facts.append("images resized by area (--resize)")
    network = f"{architecture['name']} of {facts['width']} channels" + _unit(architecture)
    return f"{network}; assumed, as its weights do not tell it: {', '.join(open_facts)}"


def _unit(architecture: Mapping[str, Any]) -> str:
    if architecture["name"] in VITS:
        return "" if architecture["name"] == "vit" else " a head"
    return " in the first stage"


def _vit(architecture: Mapping[str, Any], facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the option that changes each fact, or its name, with the fact in words."""
    heads, pool = architecture["heads"], architecture["pool"]
    dim = architecture["width"] * VITS[architecture["name"]][0]
    table, patch = architecture["image_size"], architecture["patch"]
    pooled = {"token": "class token", "mean": "mean of the patch tokens", "mean_norm": "norm of the patch tokens' mean"}
    norm = ", after the last norm" if pool != "mean_norm" and architecture["final_norm"] else ""
    norm = ", without a last norm" if not architecture["final_norm"] and pool != "mean_norm" else norm
    sides = f"position table of {table // patch} x {table // patch} patches of {patch} px"
    if facts["image_size"] != table:
        side = facts["image_size"] // patch
        sides += f", resized (bicubic) to {side} x {side}"
    return [
        ("heads", f"{heads} heads of {dim // heads} channels (--heads)"),
        ("pool", f"features are the {pooled[pool]}{norm} (--pool)"),
        ("norm_epsilon", f"LayerNorm's epsilon {architecture['norm_epsilon']:g} (--norm-epsilon)"),
        ("activation", "exact GELU"),
        ("table", f"{sides} for images of {facts['image_size']} px (--image-size)"),
    ]


def _resnet(architecture: Mapping[str, Any]) -> list[tuple[str, str]]:
    pool = "no max-pool" if architecture["stem"] in UNPOOLED else "a max-pool"
    stride = 2 if architecture["stem"] == "imagenet" else 1
    facts = [
        ("stem", f"first convolution of stride {stride} and {pool} (--stem)"),
        ("activation", "ReLU"),
        ("norm_epsilon", "batch norm's epsilon 1e-05"),
    ]
    strided = "stride of a bottleneck in its 3x3 convolution"
    return [*facts, ("stride", strided)] if architecture["name"] == "resnet50" else facts
