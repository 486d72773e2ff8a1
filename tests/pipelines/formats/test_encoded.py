"""Encoded bytes without copies: the same of a .beton and of shards, from few open files, and safe to hold."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.formats.card import DatasetError
from pipelines.formats.dataset import Dataset
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.image_table import JPEG, RAW
from pipelines.formats.opening import read_digests
from tests.support.datasets import converted
from tests.support.images import encoded, smooth, write


@pytest.fixture(scope="module", params=["beton", "shards"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three photos of about 40 KB, which shards of the least size split, and a small PNG, which is stored raw."""
    root = tmp_path_factory.mktemp(request.param)
    noise = np.random.default_rng(0).integers(0, 256, (3, 600, 800, 3), dtype=np.uint8)
    for number, picture in enumerate(noise):
        write(root / "photos" / "cat" / f"{number}.jpg", encoded(picture, quality=90))
    write(root / "photos" / "cat" / "3.png", encoded(smooth(6, 9), "PNG"))
    name = "out.beton" if request.param == "beton" else "out"
    return converted(root / "photos", root / name, "--format", request.param, "--shard-size", "1")


def test_bytes_of_the_source(dataset: Dataset) -> None:
    source = dataset.path.parent / "photos" / "cat"
    with EncodedImages(dataset) as images:
        assert len(images) == 4 and images.mode.tolist() == [JPEG] * 3 + [RAW]
        for number in (2, 0, 1, 0):
            assert images[number].tobytes() == (source / f"{number}.jpg").read_bytes()
            assert not images[number].flags.writeable and not images[number].flags.owndata
            assert np.shares_memory(images[number], images.image_file(number))
        assert (images[3].reshape(6, 9, 3) == smooth(6, 9)).all()
        assert (np.asarray(Image.open(io.BytesIO(images.image_file(3).tobytes()))) == smooth(6, 9)).all()


def test_arrays_outlive_the_reader(dataset: Dataset) -> None:
    with EncodedImages(dataset) as images:
        held, copy = images[1], images[1].copy()
    assert (held == copy).all()


def test_few_files_are_open(dataset: Dataset) -> None:
    before = len(os.listdir("/proc/self/fd"))
    images = EncodedImages(dataset, max_mapped=1)
    assert len(os.listdir("/proc/self/fd")) == before  # nothing is opened that is not asked for
    for number in (0, 1, 2, 3, 0):
        assert len(images[number]) == dataset.table.size[number]
        assert len(os.listdir("/proc/self/fd")) == before + 1
    images.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_threads_side_by_side(dataset: Dataset) -> None:
    with EncodedImages(dataset, max_mapped=1) as images, ThreadPoolExecutor(4) as pool:
        expected = [images[number].tobytes() for number in range(4)]
        numbers = np.random.default_rng(0).integers(0, 4, 400).tolist()
        for number, data in zip(numbers, pool.map(lambda number: images[number].tobytes(), numbers), strict=True):
            assert data == expected[number]


@pytest.mark.parametrize("left", [0, 1000])
def test_a_file_that_was_cut_meanwhile(dataset: Dataset, left: int) -> None:
    path: Path = dataset.table.files[0]
    data = path.read_bytes()
    try:
        with EncodedImages(dataset) as images:
            path.write_bytes(data[:left])
            with pytest.raises(DatasetError, match="open the data set again") as caught:
                images[0]
            assert path.name in str(caught.value) and "\n" not in str(caught.value)
    finally:
        path.write_bytes(data)


def test_digests_do_not_depend_on_threads(dataset: Dataset) -> None:
    assert read_digests(dataset, threads=1) == read_digests(dataset, threads=3, chunk=1)
