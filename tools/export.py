"""Takes the encoder out of a run: weights under stock keys, checked on real images, with a model card beside them.

    python -m tools.export runs/clim-photos clim.safetensors                       torchvision's keys (a ViT: timm's)
    python -m tools.export runs/clim-photos clim.safetensors --onnx clim.onnx      and the network as ONNX

Writes OUT.safetensors, whose metadata say what it is, and OUT.md. Nothing gets its name before all of it has been read
back and its features equal the run's: in this project's network, in the stock class where that library is installed,
and in onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from safetensors.torch import load_file, save
from torch import Tensor

from models.storage.encoder import Encoder, from_run, from_weights
from models.storage.load_encoder import FrozenEncoder
from pipelines import Dataset
from pipelines.printable import printable
from tools.command_line import Failure, OneLineParser, guarded_main
from tools.exporting.model_card import Card
from tools.exporting.onnx_file import check_packages, onnx_features, write_onnx
from tools.exporting.parity_check import LIMIT, ONNX_LIMIT, Checked, compared, data_of, real_images
from tools.exporting.reference_models import LAYOUTS, chosen_layout, missing_class, stock_lines, stock_network, version
from tools.run.environment import versions
from tools.run.evaluations import Measured, damaged_lines, latest, results_of, titles
from tools.run.record import read_run
from tools.staging import Staging


def main(arguments: Sequence[str] | None = None) -> int:
    def run() -> None:
        export(parse(arguments), Console(soft_wrap=True))

    return guarded_main("tools.export", run)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="tools.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run of train.py")
    parser.add_argument("out", type=Path, help="file to write, .safetensors; the card is written beside it, .md")
    parser.add_argument("--layout", help=f"keys: {' or '.join(LAYOUTS)} (default: torchvision; timm for a ViT)")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="also write the network as ONNX")
    parser.add_argument(
        "--checkpoint", choices=("newest", "best"), default="newest", help="best: by the kNN monitor (default: newest)"
    )
    parser.add_argument("--data", help="converted images to compare features on (default: the run's own)")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    return parser.parse_args(arguments)


def export(options: argparse.Namespace, console: Console) -> list[Checked]:
    """Writes, checks, and only then names the files; returns what was checked.

    Raises:
        Failure: something the user can mend; nothing was written.
    """
    card_file = options.out.with_suffix(".md")
    check_targets(options, card_file)
    config, encoder = read_run(options.run).config, from_run(options.run, options.checkpoint)
    results = latest(results_of(options.run), encoder.step)
    layout = chosen_layout(options.layout, encoder.architecture["name"])
    for note in (*encoder.notes, *damaged_lines(options.run)):
        console.print(printable(note), markup=False)
    frozen, dataset = FrozenEncoder(encoder), data_of(config, options.data)
    images_BCHW = real_images(dataset, frozen)
    with torch.no_grad():
        expected_BD = frozen(images_BCHW)
    facts = metadata(encoder, config, results, layout, data_name(config, dataset))

    def page(checks: Sequence[Checked]) -> str:
        return Card(
            options.out.name, options.onnx.name if options.onnx else "", layout,
            stock_lines(layout, encoder.architecture), encoder, config, results, json.loads(facts["data"])["name"],
            f"{dataset.name}, {len(images_BCHW)} of {dataset.number:,}", checks, facts.get("commit", ""),
        ).text()  # fmt: skip

    try:
        checks = publish(options, encoder, facts, images_BCHW, expected_BD, page)
    except OSError as error:
        reason = error.strerror or error
        raise Failure(f"{options.out} cannot be written: {reason}; what was there before is as it was") from None
    show(checks, console)
    written = [options.out, card_file, *([options.onnx] if options.onnx else [])]
    console.print(f"written: {', '.join(printable(str(path)) for path in written)}", markup=False)
    return checks


def publish(
    options: argparse.Namespace,
    encoder: Encoder,
    facts: dict[str, str],
    images_BCHW: Tensor,
    expected_BD: Tensor,
    page: Callable[[Sequence[Checked]], str],
) -> list[Checked]:
    """Makes the files in hidden folders, reads them back, and gives them their names, the weights last.

    Args:
        page: the card, of what was checked.

    Raises:
        Failure: the features differ.
        OSError: the disk refuses something.
    """
    with ExitStack() as places:
        place = places.enter_context(Staging(options.out))
        weights = place.folder / options.out.name
        card = weights.with_suffix(".md")
        state = encoder.backbone.state_dict()
        write(weights, save({key: value.contiguous() for key, value in state.items()}, facts))
        checks = [*check_weights(weights, facts["layout"], images_BCHW, expected_BD)]
        if options.onnx:
            onnx_place = places.enter_context(Staging(options.onnx))
            onnx = onnx_place.folder / options.onnx.name
            write_onnx(onnx, encoder.backbone, encoder.image_size, facts)
            checks.append(compared("onnxruntime", onnx_features(onnx, images_BCHW), expected_BD, ONNX_LIMIT))
            sync(onnx)
        write(card, page(checks).encode())
        if options.onnx:
            onnx_place.commit([(onnx, options.onnx)], [])
        place.commit([(card, options.out.with_suffix(".md")), (weights, options.out)], [])
        return checks


def check_targets(options: argparse.Namespace, card_file: Path) -> None:
    """Refuses names that the files cannot have, before anything is computed."""
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


def metadata(
    encoder: Encoder, config: dict[str, Any], results: Sequence[Measured], layout: str, data: str
) -> dict[str, str]:
    """What the files say of themselves: texts, JSON where a value is no text. `from_weights` reads these names."""
    architecture, names = encoder.architecture, titles(results)
    facts: dict[str, Any] = {
        "format": "pt", "layout": layout, "load_with": "\n".join(stock_lines(layout, architecture)),
        "method": config["method"], "recipe_name": config.get("recipe_name"), "recipe": config["recipe"],
        "sources": config.get("sources", {}), "backbone": architecture["name"],
        **{name: architecture[name] for name in ("width", "stem", "image_size")}, "crop_ratio": encoder.crop_ratio,
        "mean": encoder.mean, "std": encoder.std, "step": encoder.step, "samples_seen": encoder.samples_seen,
        "data": {"name": data, **{name: config["data"].get(name) for name in ("number", "checksum")}},
        "input": "images [B, 3, image_size, image_size], RGB, (pixel / 255 - mean) / std",
        "results": [
            {
                "protocol": result.protocol, "data": result.data, "images": result.images, "step": result.step,
                **result.values, "intervals": result.intervals,
                **({"case": names[result.key]} if names[result.key] != result.protocol else {}),
            }
            for result in results
        ],
        "commit": config.get("commit"), "trained_with": config.get("versions"),
        "exported_with": versions("safetensors"),
    }  # fmt: skip
    if why_not := missing_class(layout, architecture):
        facts["load_with"] = f"{why_not}; load it with: models.load_encoder(FILE)"
    known = {name: value for name, value in facts.items() if value is not None}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}


def data_name(config: dict[str, Any], dataset: Dataset) -> str:
    """What the training images are called: by their source where they are at hand, else by their file."""
    own = config["data"]
    return dataset.name if dataset.checksum == own.get("checksum") else Path(str(own.get("path"))).stem


def check_weights(path: Path, layout: str, images_BCHW: Tensor, expected_BD: Tensor) -> Iterator[Checked]:
    """Reads a file back, into this project's network and into the stock class, and compares features.

    Raises:
        Failure: they differ.
    """
    encoder = from_weights(path)
    with torch.no_grad():
        yield compared("this project's network, read back", FrozenEncoder(encoder)(images_BCHW), expected_BD)
        what = f"{layout}'s {encoder.architecture['name']}"
        try:
            if why_not := missing_class(layout, encoder.architecture):
                raise ImportError(why_not)
            network = stock_network(layout, encoder.architecture)
        except ImportError as error:
            yield Checked(what, None, LIMIT, f"not compared: {error}")
            return
        network.load_state_dict(load_file(path))
        yield compared(f"{what} ({version(layout)})", network.eval()(images_BCHW), expected_BD)


def write(path: Path, content: bytes) -> None:
    """Writes a file through to the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Waits until a file that a library wrote is on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def show(checks: Sequence[Checked], console: Console) -> None:
    table = Table(title="features against the run's network: largest difference over largest feature")
    table.add_column("read by")
    table.add_column("difference", justify="right")
    table.add_column("limit", justify="right")
    for check in checks:
        found = check.why_not if check.difference is None else f"{check.difference:.1e}"
        table.add_row(Text(check.what), Text(found), "" if check.difference is None else f"{check.limit:g}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
