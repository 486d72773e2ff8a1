"""Conversion to every on-disk format from the same JPEGs, and random reading of each; FFCV's own writer beside ours.

reduce    converts a folder of photos to a longer side of 256 pixels at quality 90, by two processes each. Ours also
          decodes every image with a check for damage, and stores checksums, mean and deviation; FFCV's writer does not.
          The photos are those of the folder in the environment variable LIKENESS_PHOTOS, joined four by four to
          the two sizes, or generated ones. Only the time from the first images on counts, as processes start at
          different speeds: ours from the end of the first chunk, and the images that may be done by then do not count.
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
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path

import numpy as np

from pipelines import Dataset, open_dataset
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.registry import FORMATS
from tools.benchmarks import ffcv_writer
from tools.benchmarks.measure import Case, Settings, take_turns
from tools.benchmarks.photos import write_photos
from tools.conversion.convert import convert
from tools.conversion.encoding_pool import chunk_size
from tools.conversion.options import parse
from tools.conversion.synthetic_images import write_jpegs

PHOTO_SIZES, PHOTO_NUMBER = ((427, 320), (500, 375)), 2_000
MAX_SIZE, QUALITY, WORKERS = 256, 90, 2
SIDES = {64: 20_000, 256: 3_000}  # side in pixels -> number of images


def cases(settings: Settings) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as name:
        for size in PHOTO_SIZES:
            folder = Path(name) / "x".join(map(str, size))
            real = write_photos(folder / "photos", size, PHOTO_NUMBER)
            yield reduce(f"{PHOTO_NUMBER:,} {real} of {size[0]} x {size[1]} px", folder, settings)
            shutil.rmtree(folder)
        for side, number in SIDES.items():
            folder = Path(name) / str(side)
            write_jpegs(folder / "jpegs", number, side)
            yield from measure(f"{number:,} JPEGs of {side} px", number, folder, settings)
            shutil.rmtree(folder)


def reduce(name: str, folder: Path, settings: Settings) -> Case:
    """Images/s of reducing the JPEGs in folder/photos, ours and FFCV's writer."""
    paths = sorted((folder / "photos").glob("*.jpg"))

    def ours() -> float:
        return reduced_per_second(folder / "photos", folder / "ours.beton", len(paths))

    def theirs() -> float:
        return len(paths) / ffcv_writer.seconds(paths, folder / "theirs.beton", MAX_SIZE, QUALITY, WORKERS)

    values = take_turns({"ours": ours, "FFCV's writer": theirs}, settings.repeats)
    return Case(f"reduce {name} to {MAX_SIZE}, quality {QUALITY}", "images/s", values, facts={"processes": WORKERS})


def reduced_per_second(source: Path, out: Path, number: int) -> float:
    """Convert a folder, and return the images/s from the end of the first chunk to the synced files."""
    ended: list[float] = []

    @contextmanager
    def progress(total: int) -> Iterator[Callable[[int], None]]:
        yield lambda count: ended.append(time.perf_counter())

    words = ["--max-size", str(MAX_SIZE), "--quality", str(QUALITY), "--workers", str(WORKERS), "--force"]
    convert(parse([str(source), str(out), *words]), progress)
    uncounted = WORKERS * chunk_size(number, WORKERS)
    return (number - uncounted) / (time.perf_counter() - ended[0])


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
