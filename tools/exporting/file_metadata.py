"""The metadata of exported files, which travel with the weights: what they are and how they were trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.networks.backbones import VIT_FACTS
from models.storage.encoder import Encoder
from pipelines import Dataset
from tools.exporting.reference_models import missing_class, reference_code
from tools.run.environment import versions
from tools.run.evaluations import Measured, titles


def file_metadata(
    encoder: Encoder, config: dict[str, Any], results: Sequence[Measured], layout: str, data: str
) -> dict[str, str]:
    """Return the metadata as texts; values that are not texts are JSON. `from_weights` reads these names.

    Args:
        config: what config.json of the run holds.
        results: what was measured of the run.
        layout: the library whose keys the weights have.
        data: the name of the training images.
    """
    architecture, names = encoder.architecture, titles(results)
    load_with = "\n".join(reference_code(layout, architecture))
    if why_not := missing_class(layout, architecture):
        load_with = f"{why_not}; load it with: models.load_encoder(FILE)"
    facts: dict[str, Any] = {
        "format": "pt",
        "layout": layout,
        "load_with": load_with,
        "method": config["method"],
        "recipe_name": config.get("recipe_name"),
        "recipe": config["recipe"],
        "sources": config.get("sources", {}),
        "backbone": architecture["name"],
        "width": architecture["width"],
        "stem": architecture["stem"],
        "image_size": architecture["image_size"],
        **{name: architecture.get(name) for name in VIT_FACTS},
        "crop_ratio": encoder.crop_ratio,
        "mean": encoder.mean,
        "std": encoder.std,
        "step": encoder.step,
        "samples_seen": encoder.samples_seen,
        "data": {"name": data, **{name: config["data"].get(name) for name in ("number", "checksum")}},
        "input": "images [B, 3, image_size, image_size], RGB, (pixel / 255 - mean) / std",
        "results": [_result(result, names[result.key]) for result in results],
        "commit": config.get("commit"),
        "trained_with": config.get("versions"),
        "exported_with": versions("safetensors"),
    }
    known = {name: value for name, value in facts.items() if value is not None}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}


def data_name(config: dict[str, Any], dataset: Dataset) -> str:
    """Return the name of the training images: their source if `dataset` holds them, else the name of their file."""
    trained_on = config["data"]
    if dataset.checksum == trained_on.get("checksum"):
        return dataset.name
    return Path(str(trained_on.get("path"))).stem


def _result(result: Measured, title: str) -> dict[str, Any]:
    """Return a result as JSON; `title` tells results of one protocol apart."""
    return {
        "protocol": result.protocol,
        "data": result.data,
        "images": result.images,
        "step": result.step,
        **result.values,
        "intervals": result.intervals,
        **({"case": title} if title != result.protocol else {}),
    }
