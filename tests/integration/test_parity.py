"""One plan, all executors: the same boxes exactly, the same pixels within the bounds of one table.

`python -m tests.integration.test_parity` prints what was measured beside each bound.
"""

import gc
import threading
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
pytest.importorskip("nvidia.dali", reason="nvidia-dali is not installed")

from pipelines import View, make_loader
from pipelines.executors.dali import DaliExecutor
from pipelines.executors.decode import decoder
from pipelines.executors.ffcv import FfcvExecutor
from pipelines.executors.resident import ResidentExecutor, decoded_images
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.image_table import RAW
from pipelines.plan.plan import Plan
from pipelines.plan.views import RESIZE, contrastive, evaluation
from tests.support.datasets import converted, photos
from tests.support.images import write
from tests.support.reference_resize import resized
from tools.conversion.synthetic_images import write_jpegs

CPU = torch.device("cpu")
CALTECH = Path(__file__).parents[3] / "shared/data/caltech101-small.zip"
NAMES = ("ffcv", "dali", "resident")

GEOMETRIES = {
    "whole": evaluation(32),
    "shrunk": View(24, (0.5, 1.0), flip=0.0),
    "shrunk, mirrored": View(24, (0.5, 1.0), flip=1.0),
    "enlarged": View(96, (0.05, 0.2), flip=0.0),
    "enlarged, mirrored": View(96, (0.05, 0.2), flip=1.0),
    "a side of each": View(64, (0.5, 0.8), ratio=(0.4, 2.5)),
}
VIEWS = {f"{name}, {resize}": replace(view, resize=resize) for resize in RESIZE for name, view in GEOMETRIES.items()}
EXECUTORS = {
    "ffcv": lambda dataset, views: FfcvExecutor(dataset, views, 2),
    "resident": lambda dataset, views: FfcvExecutor(dataset, views, 2, images=decoded_images(dataset, CPU, 2)),
    "resident, torch": lambda dataset, views: ResidentExecutor(dataset, views, decoded_images(dataset, CPU, 2)),
    "dali": lambda dataset, views: DaliExecutor(dataset, views, 2, CPU, 64),
}

KINDS = ("smooth", "raw", "spectrum", "caltech")

# The largest mean and the largest single difference that any view may have, in levels of 255, of each pair of
# executors: by the area filter, and by Pillow's filters. "reference" is FFCV's decode, resized by Pillow or OpenCV.
BOUNDS = {
    ("ffcv", "reference"): {"area": (0, 0), "pillow": (0, 0)},
    ("resident", "ffcv"): {"area": (0, 0), "pillow": (0, 0)},
    ("resident, torch", "ffcv"): {"area": (0.2, 1), "pillow": (0, 0)},
    ("dali", "ffcv"): {"area": (0, 0), "pillow": (0, 0)},
}


class ReferenceExecutor:
    """The naive reference: FFCV's pixels, each crop by Pillow's or OpenCV's resize."""

    def __init__(self, dataset, views):
        self.dataset, self.views = dataset, views

    def start(self, plan):
        pictures = [self.pixels(int(number)) for number in plan.source_S]
        found = []
        for view, crop_S4, flip_S in zip(self.views, plan.crop_VS4, plan.flip_VS, strict=True):
            cut = []
            for picture, (top, left, height, width), flip in zip(pictures, crop_S4, flip_S, strict=True):
                pixels = resized(picture.crop((left, top, left + width, top + height)), view.size, view.resize)
                cut.append(pixels[:, ::-1] if flip else pixels)
            found.append(torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2))
        return lambda: found

    def pixels(self, number):
        pixels = np.empty((self.dataset.heights[number], self.dataset.widths[number], 3), np.uint8)
        with EncodedImages(self.dataset) as images:
            if images.mode[number] == RAW:
                pixels[:] = images[number].reshape(pixels.shape)
            else:
                assert decoder()(images[number], pixels)
        return Image.fromarray(pixels)

    def close(self):
        pass


EXECUTORS["reference"] = ReferenceExecutor
folders = []


@cache
def dataset_of(kind, suffix=".beton"):
    folders.append(TemporaryDirectory())
    root = Path(folders[-1].name)
    if kind == "smooth":
        return photos(root)
    if kind == "raw":
        return photos(root, kind="PNG")
    if kind == "spectrum":
        write_jpegs(root / "source", 32, 80)
    else:
        with zipfile.ZipFile(CALTECH) as archive:
            names = [name for name in archive.namelist() if name.endswith(".jpg")][::60][:32]
            for number, name in enumerate(names):
                write(root / "source" / f"{number}.jpg", archive.read(name))
    return converted(root / "source", root / "photos.beton")


@cache
def pixels_of(kind, name):
    dataset, views = dataset_of(kind), tuple(VIEWS.values())
    executor = EXECUTORS[name](dataset, views)
    found = executor.start(Plan(dataset.heights, dataset.widths, views, 24).batch(0, 0))()
    executor.close()
    return [view.int() for view in found]


def difference(kind, name, reference, view):
    number = list(VIEWS).index(view)
    gap = (pixels_of(kind, name)[number] - pixels_of(kind, reference)[number]).abs()
    return float(gap.float().mean()), int(gap.max())


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("name", "reference", "kind"),
    [
        pytest.param(*pair, kind, marks=pytest.mark.shared_data if kind == "caltech" else ())
        for pair in BOUNDS
        for kind in KINDS
    ],
)
def test_executors_agree_within_the_stated_bound(name, reference, kind, view):
    if kind == "caltech" and not CALTECH.exists():
        pytest.skip("the development images are not beside the checkout")
    mean, largest = difference(kind, name, reference, view)
    bound = BOUNDS[name, reference]["area" if VIEWS[view].resize == "area" else "pillow"]
    assert mean <= bound[0] and largest <= bound[1]
    assert pixels_of(kind, name)[list(VIEWS).index(view)].float().std() > 10


@cache
def both_formats():
    beton = dataset_of("smooth")
    return beton, converted(beton.path, beton.path.parent / "shards", "--format", "shards")


@pytest.mark.parametrize("name", NAMES)
def test_shards_give_the_pixels_of_the_beton(name):
    views = (View(32), evaluation(16))
    found = []
    for dataset in both_formats():
        with make_loader(dataset, views, 6, loader=name, threads=2) as loader:
            found.append(list(loader.epoch(1)))
    assert [dataset.format for dataset in both_formats()] == ["beton", "shards"]
    for first, second in zip(*found, strict=True):
        assert torch.equal(first.index, second.index) and all(map(torch.equal, first.views, second.views))


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_every_index_comes_once_an_epoch_in_any_world_with_the_pixels_of_one(name, world):
    dataset, views = dataset_of("smooth"), (contrastive(24),)
    with make_loader(dataset, views, 8, loader=name, threads=1) as loader:
        whole = list(loader.epoch(2))
    parts = []
    for rank in range(world):
        with make_loader(dataset, views, 8, loader=name, threads=1, rank=rank, world=world) as loader:
            parts.append(list(loader.epoch(2)))
    index = torch.cat([batch.index for part in parts for batch in part])
    assert sorted(index.tolist()) == list(range(24))
    for rank, part in enumerate(parts):
        for batch, one in zip(part, whole, strict=True):
            assert torch.allclose(batch.views[0], one.views[0][rank::world], atol=1e-5)


@pytest.mark.parametrize("name", EXECUTORS)
def test_a_held_batch_is_never_overwritten(name):
    dataset, views = dataset_of("smooth"), (View(32), View(32), View(24))
    plan, executor = Plan(dataset.heights, dataset.widths, views, 4), EXECUTORS[name](dataset_of("smooth"), views)
    held = [executor.start(plan.batch(0, step))() for step in range(3)]
    copies = [[view.clone() for view in batch] for batch in held]
    for step in range(3, 9):
        for view in executor.start(plan.batch(step // 6, step % 6))():
            view.fill_(7)
        gc.collect()
    executor.close()
    assert all(torch.equal(*pair) for pairs in map(zip, held, copies) for pair in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_epochs_that_are_left_early_disturb_no_later_one_and_leave_no_thread(name):
    dataset, views, process = dataset_of("smooth"), (View(32),), psutil.Process()
    threads = []
    for _ in range(4):
        with make_loader(dataset, views, 4, loader=name, threads=2) as loader:
            expected = list(loader.epoch(7))
            for _ in range(5):
                next(loader.epoch(3))
                for number, batch in zip(range(3), loader.epoch(7), strict=False):
                    assert torch.equal(batch.views[0], expected[number].views[0])
        gc.collect()
        threads.append((threading.active_count(), process.num_threads()))
    assert threads[-1] == threads[1]  # what a library starts once stays


@pytest.mark.parametrize("name", NAMES)
def test_two_loaders_and_two_epochs_of_one_run_at_once(name):
    dataset, views = dataset_of("smooth"), (View(32),)
    options = {"loader": name, "threads": 1}
    with make_loader(dataset, views, 4, **options) as first, make_loader(dataset, views, 4, **options) as second:
        expected = list(first.epoch(0))
        for triple in zip(expected, first.epoch(0), second.epoch(0), first.epoch(0), strict=True):
            assert all(torch.equal(batch.views[0], triple[0].views[0]) for batch in triple)


if __name__ == "__main__":
    for name, reference in BOUNDS:
        for kind in KINDS:
            print(f"{name} beside {reference}, {kind}: bounds {BOUNDS[name, reference]}")
            for view in VIEWS:
                mean, largest = difference(kind, name, reference, view)
                print(f"    {view:20} {mean:.2f} {largest:4}")
