"""The file format: ours is read by FFCV, FFCV's by us, and a damaged file is told in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.formats.beton_format import HEADER, metadata_dtype, read_table
from pipelines.formats.beton_writer import BetonWriter, page_size_for
from pipelines.formats.format import Sample, SampleError
from pipelines.formats.image_table import JPEG, RAW
from tests.support.images import encoded, smooth


def sample(mode: int, height: int, width: int, label: int, data: bytes) -> Sample:
    """A sample whose digest and position a .beton does not store."""
    return Sample(mode, height, width, label, data, bytes(16), 0)


def make(path: Path, number: int = 5, page_size: int = 1 << 12) -> list[bytes]:
    rng = np.random.default_rng(1)
    pixels = [rng.integers(0, 256, (8 + i, 10, 3), dtype=np.uint8).tobytes() for i in range(number)]
    with BetonWriter(path, number + 3, page_size) as writer:
        for i, data in enumerate(pixels):
            assert writer.add(sample(RAW, 8 + i, 10, i - 1, data)) == i
    return pixels


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.beton"
    pixels = make(path, 40)
    table = read_table(path)
    data = path.read_bytes()
    assert [data[o : o + s] for o, s in zip(table.offset, table.size, strict=True)] == pixels
    assert table.height.tolist() == list(range(8, 48))
    assert set(table.width) == {10}
    assert table.label.tolist() == list(range(-1, 39))
    assert table.height.dtype == np.int32
    assert table.offset.dtype == table.size.dtype == table.label.dtype == np.int64
    assert (table.offset // 4096 == (table.offset + table.size - 1) // 4096).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.beton"]


def test_bad_samples_leave_the_file_usable(tmp_path: Path) -> None:
    path = tmp_path / "a.beton"
    bad = [(JPEG, 9, 9, b"x" * 5000), (RAW, 2, 2, b"x" * 11), (JPEG, 70000, 1, b"x"), (JPEG, 1, 1, b"")]
    with BetonWriter(path, 3, 1 << 12) as writer:
        writer.add(sample(JPEG, 4, 4, 0, b"x" * 100))
        for mode, height, width, data in bad:
            with pytest.raises(SampleError):
                writer.add(sample(mode, height, width, 0, data))
        writer.add(sample(JPEG, 4, 4, 1, b"y" * 100))
    assert read_table(path).label.tolist() == [0, 1]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        with BetonWriter(tmp_path / "a.beton", 3) as writer:
            writer.add(sample(JPEG, 4, 4, 0, b"x" * 100))
            raise KeyError

    with pytest.raises(KeyError):
        stopped()
    assert not list(tmp_path.iterdir())


def test_page_size() -> None:
    assert page_size_for(10) == 8 << 20
    assert page_size_for((8 << 20) + 1) == 16 << 20


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d[:10], "cut short"),
        (lambda d: d[:3000], "cut short"),
        (lambda d: d[:-5], "not whole|cut short"),
        (lambda d: b"\x89PNG" + d[4:], "version"),
        (lambda d: b"", "cut short"),
        (lambda d: d[:8] + (10**15).to_bytes(8, "little") + d[16:], "metadata"),
        (lambda d: d[:4] + (12345).to_bytes(4, "little") + d[8:], "power of two"),
        (lambda d: d[:8] + bytes(8) + d[16:], "no samples"),
        (lambda d: d[:2106] + b"\x07" + d[2107:], "sample 0 is neither"),
        (lambda d: d[:2107] + b"\0\0" + d[2109:], "sample 0 has no pixels"),
        (lambda d: d[:2107] + b"\x0b\0" + d[2109:], "sample 0 is raw but"),
        (lambda d: d[:2111] + b"\xff" * 8 + d[2119:], "allocation table does not list"),
        (lambda d: d[:-8] + b"\xff" * 8, "sample 4 ends outside"),
        (lambda d: d[:-8] + b"\xff" + d[-7:], "sample 4"),
    ],
)
def test_damaged(tmp_path: Path, edit, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.beton"
    make(path)
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.slow
def test_layout_is_ffcvs() -> None:
    types = pytest.importorskip("ffcv.types")
    fields = pytest.importorskip("ffcv.fields")
    ours, theirs = metadata_dtype([2, 1]), types.get_metadata_type([fields.RGBImageField(), fields.IntField()])
    assert ours == theirs
    assert types.HeaderType == HEADER


@pytest.mark.slow
def test_ffcvs_loader_reads_ours(tmp_path: Path) -> None:
    loader = pytest.importorskip("ffcv.loader")
    rgb = pytest.importorskip("ffcv.fields.rgb_image")
    basics = pytest.importorskip("ffcv.fields.basics")
    from ffcv.transforms import ToTensor

    images = [smooth(16, 16, i) for i in range(8)]
    with BetonWriter(tmp_path / "a.beton", 8) as writer:
        for i, image in enumerate(images):
            if i % 2:
                writer.add(sample(RAW, 16, 16, i, image.tobytes()))
            else:
                writer.add(sample(JPEG, 16, 16, -1, encoded(image, quality=98, subsampling=0)))
    pipelines = {"image": [rgb.SimpleRGBImageDecoder(), ToTensor()], "label": [basics.IntDecoder(), ToTensor()]}
    order = loader.OrderOption.SEQUENTIAL
    reader = loader.Loader(str(tmp_path / "a.beton"), 8, num_workers=1, order=order, pipelines=pipelines, os_cache=True)
    ((got, label),) = list(reader)
    assert label[:, 0].tolist() == [-1, 1, -1, 3, -1, 5, -1, 7]
    for i, image in enumerate(images):
        assert np.abs(got[i].numpy().astype(int) - image).max() <= (0 if i % 2 else 12)


@pytest.mark.slow
def test_we_read_ffcvs(tmp_path: Path) -> None:
    writer = pytest.importorskip("ffcv.writer")
    from ffcv.fields import FloatField, IntField, NDArrayField, RGBImageField

    images = [smooth(9, 7, i) for i in range(30)]
    fields = {
        "weight": FloatField(),
        "vector": NDArrayField(np.dtype("<f4"), (3,)),
        "image": RGBImageField(write_mode="raw"),
        "index": IntField(),
        "label": IntField(),
    }
    rows = [(0.5, np.zeros(3, np.float32), image, 1000 + i, i) for i, image in enumerate(images)]
    path = tmp_path / "b.beton"
    writer.DatasetWriter(str(path), fields, num_workers=2).from_indexed_dataset(rows, chunksize=4)
    table, data = read_table(path), path.read_bytes()
    assert table.label.tolist() == list(range(30))
    for i, image in enumerate(images):
        assert data[table.offset[i] : table.offset[i] + table.size[i]] == image.tobytes()
