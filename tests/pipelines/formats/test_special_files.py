"""Pipes, sockets and devices where a file should be: one line at once, whatever the place."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from models.evaluation.label_split import read_list
from pipelines.formats.card import DatasetError, card_path, names_path
from pipelines.formats.dataset import image_names
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.opening import open_dataset
from pipelines.formats.regular_file import content
from pipelines.formats.shard_format import INDEX
from tests.support.conversion import one_line, refused
from tests.support.images import class_folder, write
from tools.convert import main
from tools.staging import recover


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    def waits(number: int, frame: object) -> None:
        raise TimeoutError("it waits for ever")

    before = signal.signal(signal.SIGALRM, waits)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("/dev/zero")


@pytest.fixture(params=[fifo, device])
def special(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    made: Callable[[Path], None] = request.param
    return made


def test_content(tmp_path: Path, special: Callable[[Path], None]) -> None:
    special(tmp_path / "x")
    with pytest.raises(OSError, match="it is no regular file"):
        content(tmp_path / "x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s"))
        with pytest.raises(OSError, match="No such device"):
            content(tmp_path / "s")
    with pytest.raises(IsADirectoryError):
        content(tmp_path)
    assert content(write(tmp_path / "y", b"as it is")) == b"as it is"


@pytest.mark.parametrize("name", ["x", "x.zip", "x.tar.gz"])
def test_a_source(tmp_path: Path, special: Callable[[Path], None], name: str, capsys: pytest.CaptureFixture) -> None:
    special(tmp_path / name)
    assert "cannot be read: it is no regular file" in one_line(refused(capsys, tmp_path / name, tmp_path / "p.beton"))


@pytest.mark.parametrize(
    ("harmed", "others"),
    [
        ("train_X.bin", ["train_y.bin"]),
        ("train_y.bin", ["train_X.bin"]),
        ("class_names.txt", ["train_X.bin", "train_y.bin"]),
        ("batches.meta", ["data_batch_1"]),
        ("data_batch_1.bin", ["batches.meta.txt"]),
        ("batches.meta.txt", ["data_batch_1.bin"]),
        ("train.bin", ["fine_label_names.txt"]),
        ("val/val_annotations.txt", ["train/a/0.jpg", "val/images/0.jpg"]),
    ],
)
def test_inside_a_source(
    tmp_path: Path, special: Callable[[Path], None], harmed: str, others: list[str], capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "source"
    special(source / harmed) if "/" not in harmed else (source / "val").mkdir(parents=True)
    special(source / harmed)
    for name in others:
        write(source / name, bytes(96 * 96 * 3))
    text = one_line(refused(capsys, source, tmp_path / "p.beton", "--follow-links"))
    assert "it is no regular file" in text or "has 0 bytes" in text


def test_an_index_in_a_source(tmp_path: Path, special: Callable[[Path], None]) -> None:
    source = class_folder(tmp_path / "source")
    special(source / INDEX)
    assert main([str(source), str(tmp_path / "p.beton"), "--skip-bad", "--workers", "1"]) == 0
    assert open_dataset(tmp_path / "p.beton").number == 6


@pytest.mark.parametrize("form", ["beton", "shards"])
def test_beside_the_images(tmp_path: Path, form: str, special: Callable[[Path], None]) -> None:
    out = tmp_path / ("p.beton" if form == "beton" else "p")
    words = [str(class_folder(tmp_path / "photos")), str(out), "--format", form, "--workers", "1"]
    assert main(words) == 0
    special(names_path(out))
    assert image_names(open_dataset(out)) == []
    card = card_path(out).read_bytes()
    special(card_path(out))
    with pytest.raises(DatasetError, match=r"the card .* cannot be read \(it is no regular file\)"):
        open_dataset(out)
    card_path(out).unlink()
    card_path(out).write_bytes(card)
    opened = open_dataset(out)
    special(opened.table.files[0])
    with EncodedImages(opened) as images, pytest.raises(DatasetError, match="it is no regular file"):
        images[0]
    if form == "shards":
        special(out / INDEX)
        (out / "shard-000000.tar").unlink()
        write(out / "shard-000000.tar", bytes(opened.table.lengths[0]))
        with pytest.raises(DatasetError, match=f"{INDEX}|it is no regular file"):
            open_dataset(out)


def test_a_list_of_labels(tmp_path: Path, special: Callable[[Path], None]) -> None:
    special(tmp_path / "list")
    with pytest.raises(ValueError, match=r"the list .*/list cannot be read: it is no regular file"):
        read_list(tmp_path / "list", ["a/0.jpg"], np.zeros(1, dtype=np.int64), tmp_path)


def test_what_looks_left_by_a_killed_conversion(tmp_path: Path, special: Callable[[Path], None]) -> None:
    special(tmp_path / ".p-abcdefgh.tmp" / "lock")
    assert recover(tmp_path / "p") is False
