"""One evaluation from options to files: load the encoder and the images, measure, print a table, write the result."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console

from models.distributed import world
from models.evaluation.feature_extractor import FeatureExtractor
from models.evaluation.features import NotFinite
from models.evaluation.protocol import Protocol
from models.evaluation.task import LabelledImages, Task
from models.storage.encoder import Encoder
from models.training.precision import DTYPES
from pipelines.decoding.value_range import in_words
from pipelines.printable import printable
from tools.command_line import Failure
from tools.evaluation.data import data_facts, open_images
from tools.evaluation.encoders import load_encoders, networks
from tools.evaluation.options import EvaluationOptions
from tools.evaluation.result_file import write_result
from tools.evaluation.tables import show, show_classes
from tools.run.accelerator import device_of, use_threads
from tools.run.environment import versions
from tools.run.process_group import check_agreement


def evaluate(options: EvaluationOptions, console: Console) -> None:
    """Measure one encoder by one protocol, print a table, and write the result.

    Raises:
        Failure, ValueError, OSError, FloatingPointError: it cannot be measured; nothing has been written.
    """
    started = time.perf_counter()
    device = join_processes(options.device)
    encoders = load_encoders(options)
    images = open_images(options, encoders["newest"])
    check_agreement({"data": f"{images.bank.checksum} {images.queries.checksum}"})
    protocol = chosen_protocol(options, images, encoders["newest"])
    rows = measure(options, encoders, images, protocol, device)
    result = {
        **as_result(rows, encoders),
        **facts(options, encoders["newest"], images, protocol),
        "device": str(device),
        "processes": world()[1],
        "seconds": round(time.perf_counter() - started, 2),
        "versions": versions(),
    }
    if world()[0]:
        return  # the first process prints and writes
    for note in (*encoders["newest"].notes, *notes(options, encoders, images)):
        console.print(printable(note), markup=False)
    show(rows, protocol, images.queries, console)
    if options.per_class:
        show_classes(result["per_class"], options.protocol, console)
    console.print(printable(f"written to {write_result(options, result)}"), markup=False)


def join_processes(name: str | None) -> torch.device:
    """Return this process's device, after joining the other processes of a torchrun.

    Raises:
        Failure: this machine has no such device.
    """
    device = device_of(name)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            device = device_of(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def chosen_protocol(options: EvaluationOptions, images: LabelledImages, encoder: Encoder) -> Protocol:
    """Return the protocol of the run's newest checkpoint on these images.

    Raises:
        ValueError: a value of the protocol that does not suit the images.
    """
    pretraining = run_facts(options.run)
    known = {name: pretraining[name] for name in ("method", "recipe")} if pretraining else {}
    protocol = options.protocol.chosen(options.given, images, known)
    return replace(protocol, labels=images.labels, pixels=encoder.resize)


def measure(
    options: EvaluationOptions,
    encoders: Mapping[str, Encoder],
    images: LabelledImages,
    protocol: Protocol,
    device: torch.device,
) -> dict[str, dict[str, Any]]:
    """Return the protocol and the metrics of every network by the name of its row, the same on every process.

    Raises:
        Failure: features that are not finite; the message names the checkpoint.
    """
    encoder = encoders["newest"]
    rank, processes = world()
    loading = {
        "loader": options.loader,
        "device": device,
        "dtype": DTYPES[protocol.precision],
        "rank": rank,
        "world": processes,
        "threads": use_threads(options.threads or 0),
    }
    extractor = FeatureExtractor(encoder.view, options.images, loading)
    task = Task(images, extractor, encoder.architecture)
    rows = {}
    for name, network, row_protocol in networks(options, encoders, protocol):
        try:
            rows[name] = {"protocol": row_protocol.as_dict(), **row_protocol.evaluate(network, task)}
        except NotFinite as error:
            raise Failure(f"{encoders['best' if name == 'best' else 'newest'].source}: {error}") from None
    return rows


def as_result(rows: Mapping[str, dict[str, Any]], encoders: Mapping[str, Encoder]) -> dict[str, Any]:
    """Return the first row with the other rows inside it, and the checkpoint that it is of."""
    first, *others = rows
    encoder = encoders["best" if first == "best" else "newest"]
    return {
        **rows[first],
        "best": rows.get("best") if first != "best" else None,
        "best_step": encoders["best"].step if "best" in encoders else None,
        "baselines": {name: rows[name] for name in others if name != "best"},
        "encoder": str(encoder.source),
        "step": encoder.step,
    }


def facts(options: EvaluationOptions, encoder: Encoder, images: LabelledImages, protocol: Protocol) -> dict[str, Any]:
    """Return what else a result records: the images, the pretraining, and how the network saw the images."""
    return {
        "data": data_facts(images.bank),
        "val_data": data_facts(images.queries),
        "classes": len(images.bank.classes),
        "pretraining": run_facts(options.run),
        "precision": protocol.precision,
        "image_size": encoder.image_size,
        "mean": images.bank.mean,
        "std": images.bank.std,
        "loader": options.loader,
        "pixels": protocol.pixels,
        "same_images": images.same,
        "seed": options.seeds[0],
    }


def run_facts(run: Path | None) -> dict[str, Any] | None:
    """Return the method, recipe and data that the encoder was trained with, or None for a file of weights."""
    if run is None:
        return None
    config = json.loads((run / "config.json").read_text())
    facts = {"method": config.get("method"), "recipe": config.get("recipe_name")}
    return facts | {name: config["data"].get(name) for name in ("path", "number", "checksum")}


def notes(options: EvaluationOptions, encoders: Mapping[str, Encoder], images: LabelledImages) -> list[str]:
    """Return the lines to print above the table, about what is not as a reader would expect."""
    lines = []
    newest, best = encoders["newest"], encoders.get("best")
    if newest.mean is None or newest.std is None:
        lines.append(
            f"{options.weights} does not say how its images were normalised: all are by mean and deviation of "
            f"{images.bank.path}; --mean R,G,B and --std R,G,B give others"
        )
    if options.run and options.checkpoint == "both":
        if best is None:
            lines.append("no kept checkpoint has a kNN measured at its step, so there is no best one beside the newest")
        elif best.step == newest.step:
            lines.append(f"the newest checkpoint, of step {newest.step}, is also the best by the kNN monitor")
    given = [("--data", images.bank), ("--val-data", images.queries)]
    for option, dataset in given[:1] if images.same else given:
        if options.run and dataset.value_range != newest.value_range:
            lines.append(
                f"the encoder was trained on images with {in_words(newest.value_range)} from black to white, and "
                f"{option} {dataset.path} has {in_words(dataset.value_range)}: the same pixels differ"
            )
    if images.same:
        left_out = options.protocol.leaves_query_out
        what = "each query is left out of its own bank" if left_out else "this is no held-out accuracy"
        lines.append(f"--data and --val-data hold the same images: {what}")
    return lines
