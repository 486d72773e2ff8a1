"""MNIST's idx files: the pixels, labels and splits that they hold, plain and packed, and files that are damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from pipelines.formats.opening import open_dataset
from tests.support.conversion import one_line, refused
from tests.support.images import stored, write
from tools.convert import main

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 28, 26), dtype=np.uint8)  # not square, so that turns show


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def mnist(root: Path, train: str, test: str, packed: bool, turned: bool = False) -> Path:
    for stem, rows, labels in ((train, slice(0, 4), [9, 0, 3, 9]), (test, slice(4, 6), [3, 0])):
        images = PICTURES[rows].transpose(0, 2, 1) if turned else PICTURES[rows]
        for kind, array in (("images-idx3", images), ("labels-idx1", np.array(labels))):
            data = idx(array)
            write(root / f"{stem}-{kind}-ubyte{'.gz' if packed else ''}", gzip.compress(data) if packed else data)
    return root


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("train", "test", "turned"),
    [("train", "t10k", False), ("emnist-letters-train", "emnist-letters-test", True)],
)
def test_pixels_labels_and_splits(tmp_path: Path, train: str, test: str, turned: bool, packed: bool) -> None:
    folder = mnist(tmp_path / "mnist" / "raw", train, test, packed, turned)
    assert main([str(folder.parent), str(tmp_path / "p.beton"), "--workers", "1"]) == 0
    dataset, held_out = open_dataset(tmp_path / "p.beton"), open_dataset(tmp_path / "p-test.beton")
    assert dataset.classes == held_out.classes == ("0", "3", "9")
    assert dataset.labels.tolist() == [2, 0, 1, 2] and held_out.labels.tolist() == [1, 0]
    for found, expected in zip([*stored(dataset.path), *stored(held_out.path)], PICTURES, strict=True):
        assert (found == expected[:, :, None]).all()


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: bool) -> None:
    folder, out = mnist(tmp_path / "m", "train", "t10k", packed), tmp_path / "p.beton"
    images = next(folder.glob("train-images*"))
    good = images.read_bytes()
    for data in (good[:-9], good[:7], b"", good + b"12"):
        images.write_bytes(data)
        text = one_line(refused(capsys, folder, out))
        assert images.name in text and text.endswith("again\n")
    images.write_bytes(good)
    next(folder.glob("train-labels*")).unlink()
    assert "train-labels-idx1-ubyte is missing beside" in one_line(refused(capsys, folder, out))
    mnist(folder, "train", "t10k", packed)
    write(folder / "train-labels-idx1-ubyte", idx(np.array([1, 2])))
    for name in folder.glob("train-labels*.gz"):
        name.unlink()
    assert "has 4 images and 2 labels" in one_line(refused(capsys, folder, out))
    write(folder / "other-images-idx3-ubyte", idx(PICTURES))
    assert "are not the images of one data set" in one_line(refused(capsys, folder, out))
