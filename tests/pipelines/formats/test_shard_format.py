"""Shards: plain tars for everyone else, and an index that is trusted only as far as it can be checked."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.formats.digests import image_digest
from pipelines.formats.format import Sample, SampleError
from pipelines.formats.image_table import JPEG, RAW
from pipelines.formats.shard_format import (
    HEADER,
    INDEX,
    RECORD,
    checked_table,
    file_facts,
    index_bytes,
    is_shard_folder,
    read_index,
    shard_name,
)
from pipelines.formats.shard_writer import ShardWriter, tar_header
from tests.support.images import encoded, smooth

SAMPLES = [(JPEG, 20, 30 + i, i % 3 - 1, encoded(smooth(20, 30 + i, i))) for i in range(7)]
SAMPLES.append((RAW, 5, 4, 2, smooth(5, 4).tobytes()))


def make(folder: Path, shard_size: int = 1 << 20) -> Path:
    folder.mkdir()
    with ShardWriter(folder, len(SAMPLES) + 2, shard_size) as writer:
        for number, (mode, height, width, label, data) in enumerate(SAMPLES):
            sample = Sample(mode, height, width, label, data, image_digest(data), 10 * number)
            assert writer.add(sample) == number
    return folder


def table_of(folder: Path):  # type: ignore[no-untyped-def]
    return checked_table(folder, file_facts(folder))


@pytest.mark.parametrize(("shard_size", "shards"), [(1 << 20, 1), (8192, 3), (1, 8)])
def test_index_finds_every_image(tmp_path: Path, shard_size: int, shards: int) -> None:
    folder = make(tmp_path / "s", shard_size)
    table = table_of(folder)
    assert len(table.files) == shards and [file.name for file in table.files] == [shard_name(i) for i in range(shards)]
    assert all(length <= shard_size or shards == 8 for length in table.lengths)
    for number, (mode, height, width, label, data) in enumerate(SAMPLES):
        stored = table.files[table.file[number]].read_bytes()
        assert stored[table.offset[number] : table.offset[number] + table.size[number]] == data
        facts = (table.mode[number], table.height[number], table.width[number], table.label[number])
        assert facts == (mode, height, width, label)


def test_tar_reads_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "s", 8192)
    names = [
        name
        for file in sorted(folder.glob("*.tar"))
        for name in subprocess.run(["tar", "tf", file], capture_output=True, text=True, check=True).stdout.split()
    ]
    expected = []
    for number, (mode, _, _, label, _) in enumerate(SAMPLES):
        expected.append(f"{10 * number:09d}.{'ppm' if mode == RAW else 'jpg'}")
        expected += [f"{10 * number:09d}.cls"] if label >= 0 else []
    assert names == expected


def test_webdataset_reads_it(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    folder = make(tmp_path / "s", 8192)
    urls = [str(file) for file in sorted(folder.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"{10 * number:09d}" for number in range(len(SAMPLES))]
    for sample, (mode, height, width, label, data) in zip(samples, SAMPLES, strict=True):
        assert sample.get("cls", -1) == label
        if mode == RAW:
            assert (sample["ppm"] == np.frombuffer(data, np.uint8).reshape(height, width, 3)).all()
        else:
            assert (sample["jpg"] == np.asarray(Image.open(io.BytesIO(data)))).all()


@pytest.mark.parametrize(
    ("name", "size"), [(b"000000000.jpg", 1), (b"123456789.cls", 0), (b"1234567890123.ppm", 1 << 31)]
)
def test_headers_are_tarfiles_own(name: bytes, size: int) -> None:
    member = tarfile.TarInfo(name.decode())
    member.size = size
    assert tar_header(name, size) == member.tobuf(tarfile.USTAR_FORMAT)


def test_same_samples_same_bytes(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", 8192), make(tmp_path / "b", 8192)
    assert all((second / file.name).read_bytes() == file.read_bytes() for file in first.iterdir())


def test_samples_that_do_not_fit(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, 3) as writer:
        for mode, height, width, data in (
            (JPEG, 0, 5, b"x"),
            (JPEG, 5, 70000, b"x"),
            (RAW, 2, 2, b"x"),
            (JPEG, 2, 2, b""),
        ):
            with pytest.raises(SampleError):
                writer.add(Sample(mode, height, width, 0, data, bytes(16), 0))
        writer.add(Sample(*SAMPLES[0], bytes(16), 0))
    assert len(table_of(tmp_path)) == 1


def test_an_error_leaves_no_index(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), ShardWriter(tmp_path, 3) as writer:
        writer.add(Sample(*SAMPLES[0], bytes(16), 0))
        raise KeyboardInterrupt
    assert not (tmp_path / INDEX).exists()


def test_what_is_a_shard_folder(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "index").write_bytes(b"of the photos")
    assert not is_shard_folder(tmp_path / "photos")
    folder = make(tmp_path / "s")
    assert is_shard_folder(folder)
    (folder / shard_name(0)).unlink()
    assert is_shard_folder(folder)


def rewritten(folder: Path, column: str, number: int, value: int) -> None:
    """The index with one number changed, and a checksum that fits."""
    records, shards = read_index(folder / INDEX)
    records = records.copy()
    records[column][number] = value
    (folder / INDEX).write_bytes(index_bytes(records, shards))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("shard", 9, "sample 3 lies in a shard that does not exist"),
        ("offset", 100, "sample 3 lies outside its shard"),
        ("offset", 1 << 62, "sample 3 lies outside its shard"),
        ("size", 0, "sample 3 ends outside its shard"),
        ("size", (1 << 32) - 1, "sample 3 ends outside its shard"),
        ("mode", 2, "sample 3 is neither JPEG nor raw"),
        ("mode", 1, "sample 3 is raw but its size"),
        ("mode", 256, "sample 3 is neither JPEG nor raw"),
        ("height", 0, "sample 3 has no pixels"),
    ],
)
def test_hostile_index(tmp_path: Path, column: str, value: int, message: str) -> None:
    folder = make(tmp_path / "s", 8192)
    rewritten(folder, column, 3, value)
    with pytest.raises(ValueError, match=message) as caught:
        table_of(folder)
    assert "\n" not in str(caught.value) and INDEX in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data[:-1], "is cut short or edited"),
        (lambda data: data + b"x", "is cut short or edited"),
        (lambda data: data[:20], "is no index of shards"),
        (lambda data: b"x" + data[1:], "is no index of shards"),
        (lambda data: data[:-1] + b"x", "checksum differs"),
        (lambda data: data[: HEADER.itemsize + 3] + b"x" + data[HEADER.itemsize + 4 :], "checksum differs"),
    ],
)
def test_damaged_index(tmp_path: Path, edit, message: str) -> None:  # type: ignore[no-untyped-def]
    folder = make(tmp_path / "s")
    (folder / INDEX).write_bytes(edit((folder / INDEX).read_bytes()))
    with pytest.raises(ValueError, match=message):
        read_index(folder / INDEX)


def test_record_size_is_the_documented_one() -> None:
    assert RECORD.itemsize == 44 and HEADER.itemsize == 40
