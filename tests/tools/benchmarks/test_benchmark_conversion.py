"""The photos of the conversion benchmark, and that FFCV's writer and ours write the same images."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from pipelines import open_dataset
from pipelines.formats.beton_format import read_table
from tests.support.images import encoded, smooth, write
from tools.benchmarks import conversion
from tools.benchmarks.measure import Settings
from tools.benchmarks.photos import PHOTOS, write_photos


def test_photos_are_joined_from_real_ones_or_generated(tmp_path, monkeypatch):
    for number in range(4):
        write(tmp_path / "real" / f"{number}.jpg", encoded(smooth(50, 70, number), quality=95))
    monkeypatch.setenv(PHOTOS, str(tmp_path / "real"))
    assert write_photos(tmp_path / "joined", (121, 90), 3) == "photos"
    assert [Image.open(path).size for path in sorted((tmp_path / "joined").iterdir())] == [(121, 90)] * 3
    monkeypatch.delenv(PHOTOS)
    assert write_photos(tmp_path / "made", (60, 40), 2) == "generated photos (60 px square)"
    assert [Image.open(path).size for path in sorted((tmp_path / "made").iterdir())] == [(60, 60)] * 2


@pytest.mark.processes
def test_both_writers_reduce_the_same_photos(tmp_path, monkeypatch):
    monkeypatch.delenv(PHOTOS, raising=False)
    write_photos(tmp_path / "photos", (400, 300), 24)
    case = conversion.reduce("24 photos", tmp_path, Settings(repeats=1))
    assert list(case.values) == ["ours", "FFCV's writer"] and min(case.median(name) for name in case.values) > 0
    ours, theirs = open_dataset(tmp_path / "ours.beton"), read_table(tmp_path / "theirs.beton")
    assert (ours.heights == conversion.MAX_SIZE).all()
    assert np.abs(ours.heights - theirs.height).max() <= 1 and np.abs(ours.widths - theirs.width).max() <= 1
