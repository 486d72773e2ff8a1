"""The start of a training from an encoder that is trained already: `--init` of train.py.

The encoder of a run, or the one in a file of weights (this project's or others'), takes the place of the random weights
in the backbones of student and teachers. Heads, queues and the optimizer start as always.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.method import Method
from models.networks.backbone import Backbone
from models.networks.backbones import VIT_FACTS, VITS, published_heads
from models.networks.vit import resized_positions
from models.storage.checkpoint import list_checkpoints
from models.storage.encoder import Encoder, from_run, from_weights
from models.training.config import Training
from pipelines import Dataset
from tools.command_line import Failure
from tools.run.options import RunOptions
from tools.run.process_group import check_agreement
from tools.run.resume import started_with


def start_from_weights(
    options: RunOptions, training: Training, dataset: Dataset, method: Method
) -> tuple[dict[str, Any] | None, list[str]]:
    """Load the encoder that `--init` names into every backbone of the method. Every process calls it.

    Nothing is loaded where a checkpoint will take the place of all weights.

    Returns:
        what config.json records, None without `--init`; lines to show: what was taken, left, assumed and changed.

    Raises:
        Failure: the encoder is not the network of the recipe; or a run that has no checkpoint yet was started from
            weights, and is resumed without them; or processes have other weights.
        EncoderError: there is no encoder.
    """
    record, lines = _loaded(options, training, dataset, method)
    check_agreement({"init": record["digest"] if record else "none"})
    return record, lines


def _loaded(
    options: RunOptions, training: Training, dataset: Dataset, method: Method
) -> tuple[dict[str, Any] | None, list[str]]:
    if options.resume and list_checkpoints(options.folder / "checkpoints"):
        return None, []
    if options.init is None:
        _refuse_random_weights(options)
        return None, []
    path = Path(options.init)
    usual = _architecture(training)
    if path.is_dir():
        encoder = from_run(path)
    else:
        views = {"image_size": training.image_size}
        encoder = from_weights(path, options.init_network, usual | views, resize=training.resize)
    _refuse_another_network(path, encoder, usual)
    state = encoder.backbone.state_dict()
    lines = [f"starts from {encoder.source}: {note}" for note in encoder.notes or ("took the encoder alone",)]
    if "pos_embed" in state:
        before, side = state["pos_embed"], training.image_size // training.patch
        state["pos_embed"] = resized_positions(before, side, side)
        if state["pos_embed"] is not before:
            lines.append(f"its position table was resized (bicubic) to {side} x {side}, for --image-size")
    backbones = [module for module in method.modules() if isinstance(module, Backbone)]
    for backbone in backbones:
        backbone.load_state_dict(state)
    lines.append(f"{len(backbones)} backbones (student, teachers) start from it; heads and queues start anew")
    source = {"path": str(path), "source": str(encoder.source), "step": encoder.step}
    record = source | {"digest": _digest(state), "said": lines}
    return record, [*lines, *_normalisation(encoder, dataset)]


def _architecture(training: Training) -> dict[str, Any]:
    """Return the facts of the recipe's network."""
    facts = {"backbone": training.backbone, "width": training.width, "stem": training.stem}
    if training.backbone not in VITS:
        return facts
    facts |= {name: getattr(training, name) for name in VIT_FACTS if name != "initialisation"}
    return facts | {"heads": training.heads or published_heads(training.backbone, training.width)}


def _refuse_another_network(path: Path, encoder: Encoder, wanted: Mapping[str, Any]) -> None:
    """Refuse an encoder that the recipe's network is not.

    Raises:
        Failure: names the first fact that differs, and the options for the encoder's network.
    """
    found = {"backbone": encoder.architecture["name"], **encoder.architecture}
    ours, theirs = _comparable(wanted), _comparable(found)
    if ours.keys() != theirs.keys():
        ours, theirs = {"backbone": wanted["backbone"]}, {"backbone": found["backbone"]}
    for name in theirs:
        if ours.get(name) != theirs[name]:
            facts = ("backbone", "width", *(["stem"] if found["backbone"] not in VITS else []))
            options = " ".join(f"--{fact} {found[fact]}" for fact in facts)
            if name in VIT_FACTS:
                options = f"--{name.replace('_', '-')} {theirs[name]}"
                options = f"--no-{name.replace('_', '-')}" if theirs[name] is False else options
            raise Failure(
                f"--init {path} has {name} {theirs[name]}, and this run {ours.get(name)}; give {options} to train it"
            )


def _comparable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that make a network, with the numbers that 0 stands for."""
    name = facts["backbone"]
    if name not in VITS:
        return {"backbone": name, "width": facts["width"], "stem": facts["stem"]}
    units, depth = VITS[name]
    return {
        "channels": units * facts["width"],
        "depth": facts.get("depth") or depth,
        "patch": facts.get("patch", 16),
        "heads": facts.get("heads") or published_heads(name, facts["width"]),
        "qkv_bias": facts.get("qkv_bias", True),
        "final_norm": facts.get("final_norm", True),
        "pool": facts.get("pool", "token"),
        "norm_epsilon": facts.get("norm_epsilon", 1e-6),
    }


def _refuse_random_weights(options: RunOptions) -> None:
    """Refuse to start a run again from random weights that was started from others."""
    recorded = (started_with(options) or {}).get("init")
    if isinstance(recorded, dict):
        raise Failure(
            f"the run starts from {recorded.get('path')} and has no checkpoint yet; give --init with it again"
        )


def _normalisation(encoder: Encoder, dataset: Dataset) -> list[str]:
    """Return the line about images that are normalised in another way than the encoder's."""
    if encoder.mean is None or encoder.std is None:
        return [
            f"it does not say how its images were normalised: here by mean {_numbers(dataset.mean)} and std "
            f"{_numbers(dataset.std)}; --mean R,G,B and --std R,G,B give others"
        ]
    pairs = zip([*encoder.mean, *encoder.std], [*dataset.mean, *dataset.std], strict=True)
    if all(abs(theirs - ours) < 1e-3 for theirs, ours in pairs):
        return []
    return [
        f"its images were normalised by mean {_numbers(encoder.mean)} and std {_numbers(encoder.std)}, here they are "
        f"by {_numbers(dataset.mean)} and {_numbers(dataset.std)}; --mean R,G,B and --std R,G,B give others"
    ]


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.4g}" for value in values)


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else b"")
    return digest.hexdigest()[:16]
