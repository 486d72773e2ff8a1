"""An image that is not the one of the table is found before a decoder trusts it, by every executor."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.formats.card import DatasetError
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.inspection import Inspection, jpeg_sides
from pipelines.formats.opening import open_dataset
from tests.support.datasets import converted
from tests.support.images import class_folder, encoded, smooth
from tools.fuzzing.read_all import cut


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 20, "optimize": True}, {"exif": b"x" * 99}])
@pytest.mark.parametrize("shape", [(1, 1), (300, 7), (40, 513)])
def test_sides_are_pillows(shape: tuple[int, int], options: dict[str, object]) -> None:
    for mode in ("RGB", "L", "CMYK"):
        data = encoded(Image.fromarray(smooth(*shape)).convert(mode), **options)
        assert jpeg_sides(memoryview(data)) == shape
        # Decoders skip bytes between segments, bytes of 255 before a marker, and markers without a length.
        assert jpeg_sides(memoryview(data[:2] + b"\xff\xff\xff\x01\xff\xd0ab\xff\xfe\0\4..\xff" + data[2:])) == shape


@settings(max_examples=200, deadline=None, database=None)
@given(st.binary(max_size=80), st.integers(0, 700))
def test_any_header(front: bytes, left: int) -> None:
    for data in (front, b"\xff\xd8" + front, encoded(smooth(20, 30))[:left], b"\xff\xd8" + b"\xff\xe0" * 40):
        sides = jpeg_sides(memoryview(data))
        assert sides is None or all(0 <= side < 65536 for side in sides)


def harm(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("loader", ["ffcv", "resident", "dali"])
@pytest.mark.parametrize("form", ["beton", "shards"])
def test_other_sides_become_grey(tmp_path: Path, form: str, loader: str) -> None:
    """FFCV's decoder alone would report success, having filled a part of its buffer."""
    pytest.importorskip("nvidia.dali" if loader == "dali" else "ffcv")
    name = "p.beton" if form == "beton" else "p"
    dataset = converted(class_folder(tmp_path / "photos", side=40), tmp_path / name, "--format", form)
    sound = cut(dataset, loader)
    assert sound.views is not None and not sound.replaced
    with EncodedImages(dataset) as images:
        data = images[2].tobytes()
    smaller = encoded(Image.open(io.BytesIO(data)).resize((20, 20)), quality=50)
    assert len(smaller) <= len(data)
    harm(dataset.table.files[0], int(dataset.table.offset[2]), smaller.ljust(len(data), b"\0"))
    with pytest.raises(DatasetError, match="are not those of its card"):
        open_dataset(tmp_path / name)
    made = cut(open_dataset(tmp_path / name, check="none"), loader)
    assert made.replaced == {2} and made.views is not None
    assert (made.views[2] == 128).all()
    assert (np.delete(made.views, 2, axis=0) == np.delete(sound.views, 2, axis=0)).all()


@pytest.mark.parametrize("loader", ["ffcv", "resident", "dali"])
def test_a_bit_that_still_decodes(tmp_path: Path, loader: str) -> None:
    """Shards keep a digest of each image, so one turned bit is noticed wherever it lies; unless that is not wanted."""
    pytest.importorskip("nvidia.dali" if loader == "dali" else "ffcv")
    dataset = converted(class_folder(tmp_path / "photos", each=40), tmp_path / "p", "--format", "shards")
    assert dataset.number == 80
    number = 4  # not among the 64 that are compared at opening
    place = int(dataset.table.offset[number] + dataset.table.size[number]) - 20
    harm(dataset.table.files[0], place, bytes([dataset.table.files[0].read_bytes()[place] ^ 1]))
    assert cut(open_dataset(tmp_path / "p"), loader).replaced == {number}
    assert open_dataset(tmp_path / "p", check="none").table.digest is None
    with pytest.raises(DatasetError, match=f"1 of them, first image {number} in shard-000000.tar"):
        open_dataset(tmp_path / "p", check="full")


def test_each_image_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = converted(class_folder(tmp_path / "photos"), tmp_path / "p", "--format", "shards")
    looked: list[int] = []
    with EncodedImages(dataset) as images:
        inspection = Inspection(dataset, images)
        inspect = inspection._inspect
        monkeypatch.setattr(inspection, "_inspect", lambda numbers: looked.extend(numbers.tolist()) or inspect(numbers))
        for numbers in ([0, 3], [3, 0, 1], [1]):
            assert not inspection.damaged(np.array(numbers)).any()
    assert looked == [0, 3, 1]
