"""Conversion to every on-disk format from the same JPEGs, and random reading of each.

encode    converts a folder of JPEG files
copy      converts one format into another, which copies the encoded images as they are
read      sums every byte of every image through `EncodedImages`, in the same random order for all formats

Encoding and copying end when the files are synced, so that the disk counts.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import numpy as np

from pipelines import Dataset, open_dataset
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.registry import FORMATS
from tools.benchmarks.measure import Case, Settings, take_turns
from tools.conversion.convert import convert
from tools.conversion.options import parse
from tools.conversion.synthetic_images import write_jpegs

SIDES = {64: 20_000, 256: 3_000}  # side in pixels -> number of images


def cases(settings: Settings) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as name:
        for side, number in SIDES.items():
            folder = Path(name) / str(side)
            write_jpegs(folder / "jpegs", number, side)
            yield from measure(f"{number:,} JPEGs of {side} px", number, folder, settings)
            shutil.rmtree(folder)


def measure(name: str, number: int, folder: Path, settings: Settings) -> Iterator[Case]:
    """Images/s of encoding, of copying from each format to each other one, and of reading."""
    forms = reversed(FORMATS.values())  # the default is last: the others are compared with it
    outs = {form.name: folder / f"set-{form.name}{form.suffix}" for form in forms}

    def rate(source: Path, out: Path, form: str) -> Callable[[], float]:
        return lambda: number / seconds(source, out, form, settings.threads)

    encoding = {form: rate(folder / "jpegs", out, form) for form, out in outs.items()}
    values = take_turns(encoding, settings.repeats)
    sets = {form: open_dataset(out) for form, out in outs.items()}
    sizes = {form: round(dataset.card["file"]["bytes"] / 1e6, 1) for form, dataset in sets.items()}
    yield Case(f"encode {name}", "images/s", values, facts={"megabytes": sizes})
    copying = {
        f"{one} to {other}": rate(outs[one], folder / f"copy-{outs[other].name}", other)
        for one, other in permutations(outs, 2)
    }
    yield Case(f"copy {name}", "images/s", take_turns(copying, settings.repeats))
    order = np.random.default_rng(0).permutation(number).tolist()
    reading = {kind: read(dataset, order) for kind, dataset in sets.items()}
    yield Case(f"read {name} in random order", "images/s", take_turns(reading, settings.repeats))


def seconds(source: Path, out: Path, form: str, workers: int) -> float:
    """How long one conversion takes."""
    words = [str(source), str(out), "--format", form, "--workers", str(workers), "--force"]
    started = time.perf_counter()
    convert(parse(words))
    return time.perf_counter() - started


def read(dataset: Dataset, order: list[int]) -> Callable[[], float]:
    """Return a contender that reads all images in the given order and returns the images/s."""

    def run() -> float:
        started = time.perf_counter()
        with EncodedImages(dataset) as images:
            for number in order:
                images[number].sum()
        return len(order) / (time.perf_counter() - started)

    return run
