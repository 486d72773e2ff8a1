"""Writes the files of an export into hidden folders, verifies what was written, and only then gives them their names.

B images, C channels, H x W pixels, D features.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from models.storage.atomic_files import sync_file
from models.storage.encoder import Encoder, from_run, from_weights
from models.storage.load_encoder import FrozenEncoder
from tools.command_line import Failure
from tools.exporting.file_metadata import data_name, file_metadata
from tools.exporting.model_card import Card
from tools.exporting.onnx_file import check_packages, onnx_features, write_onnx
from tools.exporting.parity_check import LIMIT, ONNX_LIMIT, Checked, compared, data_of, real_images
from tools.exporting.reference_models import (
    chosen_layout,
    missing_class,
    reference_code,
    reference_network,
    version,
)
from tools.run.evaluations import damaged_lines, latest, results_of
from tools.run.record import read_run
from tools.staging import Staging


@dataclass(frozen=True)
class Exported:
    """The comparisons that an export made, and the files that it wrote."""

    checks: list[Checked]
    files: list[Path]


def export(options: argparse.Namespace, note: Callable[[str], object]) -> Exported:
    """Write, verify and then publish the files that the options of tools.export ask for.

    Args:
        note: called with each line to show about files of the run that are damaged.

    Raises:
        Failure, ValueError: nothing was written, and files that existed before are unchanged.
    """
    card_file = options.out.with_suffix(".md")
    check_targets(options, card_file)
    config, encoder = read_run(options.run).config, from_run(options.run, options.checkpoint)
    results = latest(results_of(options.run), encoder.step)
    layout = chosen_layout(options.layout, encoder.architecture["name"])
    for line in (*encoder.notes, *damaged_lines(options.run)):
        note(line)
    frozen, dataset = FrozenEncoder(encoder), data_of(config, options.data)
    images_BCHW = real_images(dataset, frozen)
    with torch.no_grad():
        expected_BD = frozen(images_BCHW)
    name = data_name(config, dataset)
    facts = file_metadata(encoder, config, results, layout, name)

    def card(checks: Sequence[Checked]) -> str:
        return Card(
            weights=options.out.name,
            onnx=options.onnx.name if options.onnx else "",
            layout=layout,
            stock=reference_code(layout, encoder.architecture),
            encoder=encoder,
            config=config,
            results=results,
            data=name,
            compared=f"{dataset.name}, {len(images_BCHW)} of {dataset.number:,}",
            checks=checks,
            commit=facts.get("commit", ""),
        ).text()

    try:
        checks = publish(options, encoder, facts, images_BCHW, expected_BD, card)
    except OSError as error:
        reason = error.strerror or error
        raise Failure(f"{options.out} cannot be written: {reason}; files that existed before are unchanged") from None
    files = [options.out, card_file, *([options.onnx] if options.onnx else [])]
    return Exported(checks, files)


def check_targets(options: argparse.Namespace, card_file: Path) -> None:
    """Check, before anything is computed, that the files may be written under their names.

    Raises:
        Failure: a wrong suffix, a folder, a file that --force does not allow to replace, or a missing package.
    """
    for path, suffix in ((options.out, ".safetensors"), (options.onnx, ".onnx")):
        if path is not None and path.suffix != suffix:
            raise Failure(f"the file {path} must end in {suffix}")
    if options.onnx:
        check_packages()
    for path in (options.out, card_file, options.onnx):
        if path is not None and path.is_dir():
            raise Failure(f"{path} is a folder; name a file")
        if path is not None and os.path.lexists(path) and not options.force:
            raise Failure(f"{path} exists and is left as it is; --force replaces it")


def publish(
    options: argparse.Namespace,
    encoder: Encoder,
    facts: dict[str, str],
    images_BCHW: Tensor,
    expected_BD: Tensor,
    card: Callable[[Sequence[Checked]], str],
) -> list[Checked]:
    """Write the files into hidden folders, read them back, and give them their names, the weights last.

    Args:
        facts: the metadata of the files.
        images_BCHW, expected_BD: images, and their features by the run's own network.
        card: returns the text of the model card, given the comparisons.

    Raises:
        Failure: the features differ.
        OSError: the disk is full or cannot be written.
    """
    with ExitStack() as folders:
        staging = folders.enter_context(Staging(options.out))
        weights = staging.folder / options.out.name
        state = {key: value.contiguous() for key, value in encoder.backbone.state_dict().items()}
        _write(weights, save(state, facts))
        checks = [*check_weights(weights, facts["layout"], images_BCHW, expected_BD)]
        if options.onnx:
            onnx_staging = folders.enter_context(Staging(options.onnx))
            onnx = onnx_staging.folder / options.onnx.name
            write_onnx(onnx, encoder.backbone, encoder.image_size, facts)
            checks.append(compared("onnxruntime", onnx_features(onnx, images_BCHW), expected_BD, ONNX_LIMIT))
            sync_file(onnx)
        card_file = weights.with_suffix(".md")
        _write(card_file, card(checks).encode())
        if options.onnx:
            onnx_staging.commit([(onnx, options.onnx)], [])
        staging.commit([(card_file, options.out.with_suffix(".md")), (weights, options.out)], [])
        return checks


def check_weights(path: Path, layout: str, images_BCHW: Tensor, expected_BD: Tensor) -> Iterator[Checked]:
    """Read a weights file into this project's network and into the library's class, and compare their features.

    Raises:
        Failure: the features differ.
    """
    encoder = from_weights(path)
    with torch.no_grad():
        yield compared("this project's network, read back", FrozenEncoder(encoder)(images_BCHW), expected_BD)
        title = f"{layout}'s {encoder.architecture['name']}"
        try:
            if why_not := missing_class(layout, encoder.architecture):
                raise ImportError(why_not)
            network = reference_network(layout, encoder.architecture)
        except ImportError as error:
            yield Checked(title, None, LIMIT, f"not compared: {error}")
            return
        network.load_state_dict(load_file(path))
        yield compared(f"{title} ({version(layout)})", network.eval()(images_BCHW), expected_BD)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    sync_file(path)
