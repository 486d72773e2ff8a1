"""A third on-disk format is a reader, a writer and one line of the registry: conversion, opening and loaders take it.

The toy format is a folder with one blob.npy, all images one after the other, and index.npy, their table.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from pipelines import Dataset, make_loader
from pipelines.executors.choose import EXECUTORS
from pipelines.formats.card import DatasetError
from pipelines.formats.dataset import image_names
from pipelines.formats.digests import hexadecimal
from pipelines.formats.format import Format, Sample, WriterOptions
from pipelines.formats.image_table import ImageTable
from pipelines.formats.opening import open_dataset, verify
from pipelines.formats.registry import FORMATS, WRITERS, format_of
from pipelines.plan.views import contrastive
from tests.support.datasets import converted, photos
from tests.support.images import encoded, smooth, write
from tools.convert import main

ROW = np.dtype([(name, "<i8") for name in ("offset", "size", "mode", "height", "width", "label")] + [("digest", "V16")])
START = 128  # bytes of the header of a .npy of one dimension


# Reading: what would be blob_format.py.
def is_blob(path: Path) -> bool:
    return (path / "index.npy").is_file()


def file_facts(path: Path) -> dict[str, Any]:
    index, length = (path / "index.npy").read_bytes(), (path / "blob.npy").stat().st_size
    return {"bytes": length + len(index), "checksum": hexadecimal(index), "blobs": [length]}


def checked_table(path: Path, recorded: dict[str, Any]) -> ImageTable:
    if file_facts(path) != {key: recorded[key] for key in ("bytes", "checksum", "blobs")}:
        raise ValueError(f"{path} is not the folder that its card describes")
    rows: NDArray[Any] = np.load(path / "index.npy", allow_pickle=False)
    return ImageTable(
        files=(path / "blob.npy",),
        lengths=tuple(recorded["blobs"]),
        file=np.zeros(len(rows), np.int32),
        mode=rows["mode"].astype(np.uint8),
        height=rows["height"].astype(np.int32),
        width=rows["width"].astype(np.int32),
        offset=rows["offset"],
        size=rows["size"],
        label=rows["label"],
        digest=np.ascontiguousarray(rows["digest"]),
    )


BLOB = Format("blob", "a folder with one array", True, "", False, is_blob, file_facts, checked_table)


# Writing: what would be blob_writer.py.
class BlobWriter:
    def __init__(self, path: Path, options: WriterOptions) -> None:
        path.mkdir()
        self.path = path
        self.rows: list[tuple[Any, ...]] = []
        self.data = bytearray()

    def add(self, sample: Sample) -> int:
        sample.check(max_bytes=1 << 20)
        offset, size = START + len(self.data), len(sample.data)
        row = (offset, size, sample.mode, sample.height, sample.width, sample.label, sample.digest)
        self.rows.append(row)
        self.data += sample.data
        return len(self.rows) - 1

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            np.save(self.path / "blob.npy", np.frombuffer(self.data, np.uint8))
            np.save(self.path / "index.npy", np.array(self.rows, ROW))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the registry."""
    monkeypatch.setitem(FORMATS, "blob", BLOB)
    monkeypatch.setitem(WRITERS, "blob", BlobWriter)


@pytest.fixture
def beton(tmp_path: Path) -> Dataset:
    """JPEGs of mixed sizes and a raw image."""
    write(tmp_path / "photos" / "class0" / "raw.png", encoded(smooth(20, 30), "PNG"))
    made: Dataset = photos(tmp_path)
    return made


def blob(tmp_path: Path, *options: str) -> Dataset:
    made: Dataset = converted(tmp_path / "photos", tmp_path / "p", "--format", "blob", *options)
    return made


def test_conversion_writes_it_and_opening_reads_it(tmp_path: Path, beton: Dataset, capsys: Any) -> None:
    dataset = blob(tmp_path)
    assert "MB in 1 blobs, mean" in capsys.readouterr().out
    assert sorted(file.name for file in dataset.path.iterdir()) == ["blob.npy", "card.json", "index.npy", "names"]
    assert (dataset.format, dataset.checksum, dataset.number) == ("blob", beton.checksum, 25)
    assert image_names(dataset) == image_names(beton) and (dataset.labels == beton.labels).all()
    verify(dataset)
    again = converted(dataset.path, tmp_path / "again.beton")  # its images are a source, copied byte for byte
    assert again.path.read_bytes() == beton.path.read_bytes()
    assert converted(beton.path, tmp_path / "q", "--format", "blob").checksum == dataset.checksum


@pytest.mark.parametrize("name", EXECUTORS)
def test_every_executor_cuts_the_same_views(tmp_path: Path, beton: Dataset, name: str) -> None:
    if not EXECUTORS[name].installed():
        pytest.skip(f"{EXECUTORS[name].package} is not installed")
    views = (contrastive(24), contrastive(16))
    with (
        make_loader(blob(tmp_path), views, 5, loader=name) as loader,
        make_loader(beton, views, 5, loader=name) as expected,
    ):
        for one, other in zip(loader.epoch(0), expected.epoch(0), strict=True):
            assert torch.equal(one.index, other.index) and torch.equal(one.label, other.label)
            assert all(map(torch.equal, one.views, other.views))


def test_a_damaged_one_is_refused_or_counted(tmp_path: Path, beton: Dataset) -> None:
    dataset = blob(tmp_path)
    data = bytearray((dataset.path / "blob.npy").read_bytes())
    data[int(dataset.table.offset[3]) + 30] ^= 1
    (dataset.path / "blob.npy").write_bytes(data)
    with pytest.raises(DatasetError, match="are not those of its card"):
        open_dataset(dataset.path)
    with pytest.raises(DatasetError, match="1 of them, first image 3 in blob"):
        verify(open_dataset(dataset.path, check="none"))
    (dataset.path / "blob.npy").write_bytes(data[:-1])
    with pytest.raises(DatasetError, match=f"{dataset.path} is not the folder that its card describes"):
        open_dataset(dataset.path)


def test_conversion_knows_what_it_may_replace_and_split(tmp_path: Path, beton: Dataset, capsys: Any) -> None:
    blob(tmp_path)
    blob(tmp_path, "--force")
    words = [str(tmp_path / "photos"), str(tmp_path / "p"), "--format", "blob", "--workers", "1"]
    for wrong, message in (
        (words, "exists; give another name, or --force"),
        ([*words, "--shard", "1/2"], "--shard needs --format shards; blob can be made of the merged result"),
        ([words[0], str(tmp_path / "p.beton"), *words[2:]], "p.beton is a name for --format beton"),
        ([words[0], words[0], *words[2:], "--force"], "photos exists and holds no blob"),
        ([*words[:2], "--workers", "1", "--force"], "p is a folder; give a file name, such as photos.beton"),
    ):
        assert main(wrong) in (1, 2)
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main([*words[:2], "--format", "pickle"]) == 2
    assert "choose from" in capsys.readouterr().err


@pytest.mark.processes
def test_conversion_starts_without_torch() -> None:
    """Every one of its worker processes imports what the command imports."""
    code = "import sys, tools.convert, tools.conversion.encoding_pool; assert not {'torch', 'numba'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_formats_are_told_apart_by_their_files(tmp_path: Path, beton: Dataset) -> None:
    shards = converted(tmp_path / "photos", tmp_path / "s", "--format", "shards")
    for dataset in (beton, shards, blob(tmp_path)):
        found = format_of(dataset.path)
        assert found is not None and found.name == dataset.format
    beton.path.rename(tmp_path / "without-suffix")
    assert format_of(tmp_path / "without-suffix") is FORMATS["beton"]
    assert [format_of(path) for path in (tmp_path, tmp_path / "nothing", Path(__file__), Path("/dev/null"))] == [
        None
    ] * 4
    with pytest.raises(DatasetError, match=r"test_registry.py is no converted data set; convert it first"):
        open_dataset(__file__)
