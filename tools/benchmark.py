"""Measures this machine: ours beside named alternatives, in one run, taking turns.

    python -m tools.benchmark loader [--json FILE]

`loader`: crops and flips of several views of each JPEG, uint8, from one .beton file that is made for the purpose.
Beside it FFCV's own Loader with one pipeline per view, which decodes (and compiles) once a view. "normalised" is what
training gets: the same views through the whole loader, as float32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from pipelines import Dataset, View, make_loader, open_dataset
from pipelines.beton import BetonExecutor
from pipelines.loader import cut_ahead
from pipelines.plan import Plan
from pipelines.prefetch import Prefetch
from tools.run_folder import machine, versions
from tools.sample_images import write_jpegs

NOISY = 0.25  # spread of the repeats, (largest - smallest) / median, above which a measurement is flagged


@dataclass(frozen=True)
class Case:
    """Views of square JPEGs of one size."""

    name: str
    side: int
    number: int
    batch_size: int
    views: tuple[View, ...]


CASES = (
    Case("4 x 32 px views of 64 px JPEGs", 64, 12_000, 256, (View(32),) * 4),
    Case("2 x 224 + 4 x 96 px views of 256 px JPEGs", 256, 1_200, 64, (View(224),) * 2 + (View(96, (0.05, 0.2)),) * 4),
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument(
        "what", nargs="?", default="loader", choices=["loader"], help="what to measure (default: loader)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contender; medians count (default: 5)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    options = parser.parse_args(arguments)
    if options.repeats < 1 or options.threads < 1:
        print("tools.benchmark: --repeats and --threads must be at least 1", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(case, Path(folder), options.repeats, options.threads) for case in CASES]
    result = {
        "benchmark": options.what, "machine": machine(), "versions": versions(), "threads": options.threads,
        "repeats": options.repeats, "load_average": os.getloadavg()[0], "cases": rows,
    }  # fmt: skip
    show(result, Console())
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def measure(case: Case, folder: Path, repeats: int, threads: int) -> dict[str, Any]:
    """Samples per second of every contender, which take turns; and how long each one's first batch takes."""
    dataset = converted(case, folder)
    contenders: dict[str, Callable[[int], Iterator[Any]]] = {}
    first_batch: dict[str, float] = {}
    started = time.perf_counter()
    contenders["ours"] = our_epochs(dataset, case, threads)
    next(iter(contenders["ours"](0)))
    first_batch["ours"] = time.perf_counter() - started
    loader = make_loader(dataset, case.views, case.batch_size, threads=threads)
    contenders["ours, normalised"] = loader.epoch
    try:
        started = time.perf_counter()
        contenders["FFCV Loader"] = stock_epochs(dataset, case, threads)
        for _ in contenders["FFCV Loader"](0):
            first_batch.setdefault("FFCV Loader", time.perf_counter() - started)
    except ModuleNotFoundError as error:
        print(f"FFCV Loader is left out: {error}", file=sys.stderr)
        contenders.pop("FFCV Loader", None)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(1, repeats + 1):
        for name, epoch in contenders.items():
            torch.set_num_threads(threads)  # FFCV's Loader changes it
            started, samples = time.perf_counter(), 0
            for batch in epoch(repeat):
                samples += case.batch_size
                del batch
            rates[name].append(samples / (time.perf_counter() - started))
    loader.close()
    return {
        "case": case.name,
        "samples_per_s": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "spread": {
            name: round((max(values) - min(values)) / statistics.median(values), 3) for name, values in rates.items()
        },
        "first_batch_s": {name: round(seconds, 2) for name, seconds in first_batch.items()},
        "ratio": round(statistics.median(rates["ours"]) / statistics.median(rates["FFCV Loader"]), 2)
        if "FFCV Loader" in rates
        else None,
    }


def converted(case: Case, folder: Path) -> Dataset:
    """The case's images as a .beton, through the project's own conversion."""
    from tools.convert import main as convert

    source, target = folder / f"{case.side}", folder / f"{case.side}.beton"
    write_jpegs(source, case.number, case.side)
    if convert([str(source), str(target)]):
        raise RuntimeError(f"the benchmark's images could not be converted to {target}")
    return open_dataset(target)


def our_epochs(dataset: Dataset, case: Case, threads: int) -> Callable[[int], Iterator[Any]]:
    """Plan and executor behind the loader's prefetching, without the photometric part."""
    executor = BetonExecutor(dataset, case.views, threads)
    plan = Plan(dataset.heights, dataset.widths, case.views, case.batch_size)

    def epoch(number: int) -> Iterator[Any]:
        cut = cut_ahead(executor, lambda step: plan.batch(number, step), plan.steps)
        yield from Prefetch(lambda step: next(cut)[1], plan.steps, 2, torch.device("cpu"), iter)

    return epoch


def stock_epochs(dataset: Dataset, case: Case, threads: int) -> Callable[[int], Iterator[Any]]:
    """FFCV's Loader as its documentation makes several views: one pipeline for each."""
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline.pipeline_spec import PipelineSpec
    from ffcv.transforms import RandomHorizontalFlip, ToTensor, ToTorchImage

    pipelines: dict[str, Any] = {"label": None, "image": None}
    for number, view in enumerate(case.views):
        assert view.scale is not None
        decoder = RandomResizedCropRGBImageDecoder((view.size, view.size), scale=view.scale, ratio=view.ratio)
        steps = [RandomHorizontalFlip(view.flip), ToTensor(), ToTorchImage()]
        pipelines[f"view{number}"] = PipelineSpec("image", decoder=decoder, transforms=steps)
    loader = Loader(
        str(dataset.path), case.batch_size, num_workers=threads, order=OrderOption.RANDOM, drop_last=True,
        os_cache=True, pipelines=pipelines,
    )  # fmt: skip
    return lambda number: iter(loader)


def show(result: dict[str, Any], console: Console) -> None:
    """Prints the results as a table."""
    where = result["machine"]
    table = Table(
        title=f"loader, samples/s, medians of {result['repeats']} runs, {result['threads']} threads, {where['cpu']}"
    )
    for column in ("case", "contender", "samples/s", "spread", "first batch"):
        table.add_column(column, justify="left" if column in ("case", "contender") else "right")
    for row in result["cases"]:
        for name, rate in row["samples_per_s"].items():
            spread, first = row["spread"][name], row["first_batch_s"].get(name)
            flag = " noisy" if spread > NOISY else ""
            table.add_row(row["case"], name, f"{rate:,.0f}", f"{spread:.0%}{flag}", f"{first:.1f} s" if first else "")
        if row["ratio"]:
            table.add_row("", "[bold]ours / FFCV Loader", f"[bold]{row['ratio']:.2f}x", "", "")
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
