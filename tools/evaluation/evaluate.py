"""What `eval.py` does: an encoder, two labelled data sets and a protocol; a table and a file come out."""

from __future__ import annotations

import contextlib
import json
import os
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn

from models.distributed import world
from models.evaluation.feature_extractor import FeatureExtractor
from models.evaluation.features import NotFinite
from models.evaluation.input_settings import input_settings
from models.evaluation.protocols import Protocol
from models.storage.encoder import Encoder, EncoderError, RawPixels, from_run, from_weights
from models.training.precision import DTYPES
from pipelines.plan.views import evaluation
from pipelines.printable import printable
from tools.command_line import Failure
from tools.evaluation.data import Images, described, open_images
from tools.evaluation.options import protocol_of
from tools.evaluation.run_protocol import Measure
from tools.evaluation.tables import show, show_classes
from tools.run.accelerator import device_of, use_threads
from tools.run.environment import versions
from tools.run.process_group import check_agreement


def evaluate(options: Namespace, console: Console) -> None:
    """Measures, prints and writes one protocol for one encoder.

    Raises:
        Failure, ValueError, OSError, FloatingPointError: it cannot be measured; nothing has been written.
    """
    started = time.perf_counter()
    device = join_processes(options.device)
    encoders = encoders_of(options)
    encoder = encoders["newest"]
    images = open_images(options, encoder)
    check_agreement({"data": f"{images.bank.checksum} {images.queries.checksum}"})
    protocol = chosen_protocol(options, images, device)
    measure = Measure(images, encoder, passes(options, encoder, device, protocol.precision), device)

    rows: dict[str, dict[str, Any]] = {}
    for name, network, row_protocol in networks(options, encoders, protocol):
        try:
            rows[name] = {"protocol": row_protocol.as_dict(), **measure(network, row_protocol)}
        except NotFinite as error:
            raise Failure(f"{encoders['best' if name == 'best' else 'newest'].source}: {error}") from None
    first, *others = rows
    result = {
        **rows[first],
        "best": rows.get("best") if first != "best" else None,
        "best_step": encoders["best"].step if "best" in encoders else None,
        "baselines": {name: rows[name] for name in others if name != "best"},
        "data": described(images.bank), "val_data": described(images.queries), "classes": len(images.bank.classes),
        "pretraining": run_facts(options.run), "precision": protocol.precision,
        "image_size": encoder.image_size, "mean": images.bank.mean, "std": images.bank.std,
        "loader": options.loader, "pixels": protocol.pixels, "same_images": images.same,
        "encoder": str(encoders[first if first == "best" else "newest"].source),
        "step": encoders[first if first == "best" else "newest"].step, "seed": options.seeds[0],
        "device": str(device), "processes": world()[1], "seconds": round(time.perf_counter() - started, 2),
        "versions": versions(),
    }  # fmt: skip
    if world()[0]:
        return  # the first process speaks and writes
    for note in (*encoder.notes, *notes(options, encoders, images)):
        console.print(printable(note), markup=False)
    show(rows, protocol, images.queries, console)
    if options.per_class:
        show_classes(rows[first]["per_class"], console)
    console.print(printable(f"written to {write(options, result)}"), markup=False)


def join_processes(asked: str | None) -> torch.device:
    """This process's device, after it has met the others of a torchrun.

    Raises:
        Failure: this machine has no such device.
    """
    device = device_of(asked)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            device = device_of(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def encoders_of(options: Namespace) -> dict[str, Encoder]:
    """The encoder as "newest", and the run's best one where that is another checkpoint, or was asked for."""
    if options.weights:
        return {"newest": from_weights(options.weights, options.stem, options.image_size, options.mean, options.std)}
    found = {"newest": from_run(options.run)}
    if options.checkpoint == "best":
        found["best"] = from_run(options.run, "best")
    elif options.checkpoint == "both":
        with contextlib.suppress(EncoderError):  # no kNN was measured at a step whose checkpoint is kept
            found["best"] = from_run(options.run, "best")
    return found


def networks(
    options: Namespace, encoders: dict[str, Encoder], protocol: Protocol
) -> list[tuple[str, nn.Module, Protocol]]:
    """What is measured: rows of the table, the first of which is the result."""
    newest, best = encoders["newest"], encoders.get("best")
    rows: list[tuple[str, nn.Module, Protocol]] = []
    if options.checkpoint != "best" or best is None:
        rows.append(("trained", newest.backbone, protocol))
    if best is not None and (not rows or best.step != newest.step):
        rows.append(("best", best.backbone, replace(protocol, checkpoint="best")))
    if options.baselines:
        rows.append(("untrained network", newest.untrained(), replace(protocol, checkpoint="untrained")))
        if options.name != "finetune":
            rows.append(("raw pixels", RawPixels(), replace(protocol, encoder="pixels", checkpoint="newest")))
    return rows


def chosen_protocol(options: Namespace, images: Images, device: torch.device) -> Protocol:
    """The protocol of the newest checkpoint.

    Raises:
        Failure: there are no such settings, or not so many neighbours.
    """
    facts = run_facts(options.run)
    run = {name: facts[name] for name in ("method", "recipe")} if facts else {}
    size = len(next(iter(images.chosen.values())))
    searched = size - 1 if options.name == "retrieve" and images.same else size
    if (k := getattr(options, "k", None)) is not None and np.max(k) > searched:
        raise Failure(f"--k is {np.max(k)}, but there are {searched} images to find; give at most as many")
    pixels = input_settings((images.bank, images.queries), options.loader, device).pixels
    protocol = replace(protocol_of(options, size, run, images.labels), pixels=pixels)
    if options.name == "retrieve" and images.same:
        return replace(protocol, bank="leave-one-out")  # type: ignore[call-arg]  # a RetrieveProtocol
    return protocol


def passes(options: Namespace, encoder: Encoder, device: torch.device, precision: str) -> FeatureExtractor:
    rank, processes = world()
    loading = {
        "loader": options.loader, "device": device, "dtype": DTYPES[precision], "rank": rank, "world": processes,
        "threads": use_threads(options.threads or 0),
    }  # fmt: skip
    return FeatureExtractor(evaluation(encoder.image_size, encoder.crop_ratio), options.images, loading)


def run_facts(run: Path | None) -> dict[str, Any] | None:
    """What the encoder was trained by and on, or None where only a file of weights is there."""
    if run is None:
        return None
    config = json.loads((run / "config.json").read_text())
    facts = {"method": config.get("method"), "recipe": config.get("recipe_name")}
    return facts | {name: config["data"].get(name) for name in ("path", "number", "checksum")}


def notes(options: Namespace, encoders: dict[str, Encoder], images: Images) -> list[str]:
    """Lines above the table: what a reader would wonder about."""
    lines = []
    if encoders["newest"].mean is None or encoders["newest"].std is None:
        lines.append(
            f"{options.weights} does not say how its images were normalised: all are by mean and deviation of "
            f"{images.bank.path}; --mean R,G,B and --std R,G,B give others"
        )
    if options.run and options.checkpoint == "both":
        best, newest = encoders.get("best"), encoders["newest"]
        if best is None:
            lines.append("no kept checkpoint has a kNN measured at its step, so there is no best one beside the newest")
        elif best.step == newest.step:
            lines.append(f"the newest checkpoint, of step {newest.step}, is also the best by the kNN monitor")
    if images.same:
        what = (
            "each query is left out of its own bank" if options.name == "retrieve" else "this is no held-out accuracy"
        )
        lines.append(f"--data and --val-data hold the same images: {what}")
    return lines


def write(options: Namespace, result: dict[str, Any]) -> Path:
    """Writes the result's file whole, adds the result to those before it, and returns the file.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    file = f"eval-{options.name}.json"
    out: Path = options.run / file if options.run else Path(f"{options.weights}.{file}")
    every = out.with_name("evaluations.jsonl") if options.run else Path(f"{options.weights}.evaluations.jsonl")
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    partial.replace(out)
    add_line(every, json.dumps(result, allow_nan=False))
    return out


def add_line(path: Path, line: str) -> None:
    """Adds a line at the end of a file, also behind one that a loss of power has torn; it is on the disk afterwards."""
    with path.open("a+b") as file:
        length = file.seek(0, os.SEEK_END)
        torn = length > 0 and os.pread(file.fileno(), 1, length - 1) != b"\n"
        file.write(("\n" * torn + line + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
