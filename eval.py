"""Measure an encoder on labelled images, by protocols that have names.

    python eval.py knn    --run runs/clim-photos --data data/photos.beton --val-data data/photos-val.beton --baselines
    python eval.py linear --run runs/clim-photos --data data/photos.beton --val-data data/photos-val.beton

`--data` is what is learned from (the bank, the probe's training set), `--val-data` what is classified. Prints a table
and writes DIR/eval-<name>.json, or beside the weights file <file>.eval-<name>.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from models.encoder import Encoder, RawPixels, from_run, from_weights
from models.features import extract
from models.knn import knn_predict, topk_accuracy
from models.linear import linear_scores, train_linear
from models.protocols import KnnProtocol, LinearProtocol
from pipelines import Dataset, make_loader, open_dataset
from pipelines.damage import DecodeError
from pipelines.views import evaluation
from tools.options import Failure, OneLineParser


def main() -> int:
    try:
        evaluate(parse(), Console())
    except (Failure, ValueError, OSError, FloatingPointError, ModuleNotFoundError, DecodeError) as error:
        print(f"eval.py: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate(options: argparse.Namespace, console: Console) -> None:
    """Measures, prints and writes one protocol for one encoder."""
    started = time.perf_counter()
    encoder = from_run(options.run) if options.run else from_weights(options.weights, options.stem, options.image_size)
    for note in encoder.notes:
        console.print(note, markup=False)
    bank, queries = (as_trained(open_dataset(path), encoder) for path in (options.data, options.val_data))
    check_labels(bank, queries)
    protocol = chosen_protocol(options, bank)

    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    networks: dict[str, nn.Module] = {"trained": encoder.backbone}
    if options.baselines:
        networks |= {"untrained network": encoder.untrained(), "raw pixels": RawPixels()}
    rows = {}
    for name, network in networks.items():
        rows[name] = measure(network, bank, queries, encoder, protocol, device, options)

    show(rows, protocol, queries, console)
    file = f"eval-{options.name}.json"
    out = options.run / file if options.run else Path(f"{options.weights}.{file}")
    result = {
        "protocol": protocol.as_dict(), **rows["trained"],
        "baselines": {name: row for name, row in rows.items() if name != "trained"},
        "data": described(bank), "val_data": described(queries), "classes": len(bank.classes),
        "image_size": encoder.image_size, "encoder": str(encoder.source), "step": encoder.step, "seed": options.seed,
        "device": str(device), "seconds": round(time.perf_counter() - started, 2),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }  # fmt: skip
    out.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"written to {out}", markup=False)


def measure(
    network: nn.Module,
    bank: Dataset,
    queries: Dataset,
    encoder: Encoder,
    protocol: KnnProtocol | LinearProtocol,
    device: torch.device,
    options: argparse.Namespace,
) -> dict[str, float]:
    """Top-1 and top-5 accuracy in percent of one network."""
    network = network.to(memory_format=torch.channels_last).to(device)  # type: ignore[call-overload]  # torch's stub lacks it
    train_ND, train_labels_N = features(network, bank, encoder, device, options)
    test_ND, test_labels_N = features(network, queries, encoder, device, options)
    classes = len(bank.classes)
    if isinstance(protocol, KnnProtocol):
        scores = knn_predict(test_ND, train_ND, train_labels_N, protocol.k, protocol.temperature, classes)
    else:
        scores = linear_scores(train_linear(train_ND, train_labels_N, classes, protocol, options.seed), test_ND)
    return {f"top{k}": round(topk_accuracy(scores, test_labels_N, k), 4) for k in (1, 5)}


def features(
    network: nn.Module, dataset: Dataset, encoder: Encoder, device: torch.device, options: argparse.Namespace
) -> tuple[Tensor, Tensor]:
    """Features and labels of the labelled samples of a data set, in its order."""
    view = evaluation(encoder.image_size, encoder.image_keep)
    with make_loader(
        dataset, [view], options.images, loader=options.loader, device=device, shuffle=False, drop_last=False
    ) as loader:
        features_ND = extract(network, loader, dataset.number)
        if loader.replaced:
            images = "image" if loader.replaced == 1 else "images"
            raise Failure(f"{loader.replaced} {images} of {dataset.path} cannot be decoded; convert the data set again")
    labels_N = torch.from_numpy(dataset.labels.astype(np.int64)).to(device)
    labelled = labels_N >= 0
    return (features_ND, labels_N) if bool(labelled.all()) else (features_ND[labelled], labels_N[labelled])


def as_trained(dataset: Dataset, encoder: Encoder) -> Dataset:
    """The data set, to be normalised by the channel statistics that the encoder was trained with."""
    return (
        dataset if encoder.mean is None or encoder.std is None else replace(dataset, mean=encoder.mean, std=encoder.std)
    )


def check_labels(bank: Dataset, queries: Dataset) -> None:
    for option, dataset in (("--data", bank), ("--val-data", queries)):
        if not dataset.classes or not (dataset.labels >= 0).any():
            raise Failure(f"{option} {dataset.path} has no labels; evaluation needs labelled images")
    if bank.classes != queries.classes:
        unlike = sorted(set(bank.classes) ^ set(queries.classes))
        what = f"only one has {', '.join(unlike[:5])}" if unlike else "in another order"
        raise Failure(
            f"--data and --val-data differ in their classes ({len(bank.classes)}, {len(queries.classes)}): {what}"
        )


def chosen_protocol(options: argparse.Namespace, bank: Dataset) -> KnnProtocol | LinearProtocol:
    """The usual protocol for this bank with what the command line changes; a change shows in its id."""
    usual = KnnProtocol.for_bank(int((bank.labels >= 0).sum())) if options.name == "knn" else LinearProtocol()
    given = {field.name: getattr(options, field.name, None) for field in fields(usual)}
    return replace(usual, **{name: value for name, value in given.items() if value is not None})


def described(dataset: Dataset) -> dict[str, Any]:
    return {"path": str(dataset.path), "number": int((dataset.labels >= 0).sum()), "checksum": dataset.checksum}


def show(
    rows: dict[str, dict[str, float]], protocol: KnnProtocol | LinearProtocol, queries: Dataset, console: Console
) -> None:
    table = Table(title=f"{protocol.id}, {int((queries.labels >= 0).sum()):,} images of {len(queries.classes)} classes")
    table.add_column("encoder")
    table.add_column("top-1 %", justify="right")
    table.add_column("top-5 %", justify="right")
    for name, row in rows.items():
        table.add_row(name, f"{row['top1']:.2f}", f"{row['top5']:.2f}")
    console.print(table)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    source = common.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, metavar="DIR", help="a run of train.py; its newest checkpoint is measured")
    source.add_argument(
        "--weights", type=Path, metavar="FILE", help="a backbone as .safetensors, as tools.export writes"
    )
    common.add_argument("--data", required=True, metavar="PATH", help="labelled images to learn from, converted")
    common.add_argument("--val-data", required=True, metavar="PATH", help="labelled images to classify, converted")
    common.add_argument("--baselines", action="store_true", help="rows for the untrained network and for raw pixels")
    common.add_argument("--images", type=positive, default=512, help="images of a forward pass (default: %(default)s)")
    common.add_argument("--loader", default="auto", help="auto or ffcv (default: %(default)s)")
    common.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    common.add_argument("--seed", type=int, default=0, help="of the linear probe (default: %(default)s)")
    common.add_argument("--stem", help="with --weights: imagenet, small or small_pool, where the file does not say")
    common.add_argument("--image-size", type=positive, help="with --weights: side of the views in pixels, the same")
    parser = OneLineParser(prog="eval.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="name", required=True)
    knn = commands.add_parser("knn", parents=[common], help="weighted k-nearest-neighbour classification")
    knn.add_argument("--k", type=positive, help="neighbours (default: 200, or 20 for a bank under 10,000)")
    knn.add_argument("--temperature", type=float, help=f"of the weights (default: {KnnProtocol.temperature})")
    linear = commands.add_parser("linear", parents=[common], help="a linear classifier on frozen features")
    linear.add_argument("--lr", type=float, help=f"peak learning rate (default: {LinearProtocol.lr})")
    linear.add_argument("--epochs", type=positive, help=f"passes over the features (default: {LinearProtocol.epochs})")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main())
