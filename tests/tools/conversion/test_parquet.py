"""Parquet files as Hugging Face publishes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.formats.opening import open_dataset
from tests.support.conversion import images_of, one_line, refused
from tests.support.images import encoded, smooth, write
from tools.conversion.byte_locations import ByteRange, Item, ParquetCell
from tools.conversion.encoding_pool import chunks
from tools.conversion.parquet import _label
from tools.conversion.split_names import splits_of_paths
from tools.conversion.tree import SourceError
from tools.convert import main

PICTURES = [encoded(smooth(12, 12 + i, i)) for i in range(6)]


def table(path: Path, pictures: list[bytes], labels: list[object], names: list[str] | None = None) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    image = pyarrow.array([{"bytes": data, "path": None} for data in pictures], kind)
    made = pyarrow.table({"image": image, "label": labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(made, path, row_group_size=2)
    return path


def test_splits_classes_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    names = ["owl", "cat", "never"]
    table(folder / "data" / "train-00000-of-00002.parquet", PICTURES[:3], [1, 0, 1], names)
    table(folder / "data" / "train-00001-of-00002.parquet", PICTURES[3:4], [0], names)
    table(folder / "data" / "test-00000-of-00001.parquet", PICTURES[4:], [1, -1], names)
    write(folder / "README.md", b"x")
    assert main([str(folder), str(tmp_path / "p.beton"), "--workers", "2"]) == 0
    train, test = open_dataset(tmp_path / "p.beton"), open_dataset(tmp_path / "p-test.beton")
    assert train.classes == test.classes == ("owl", "cat", "never")  # in their order
    assert train.labels.tolist() == [1, 0, 1, 0] and test.labels.tolist() == [1, -1]
    assert images_of(train) == PICTURES[:4] and images_of(test) == PICTURES[4:]


def test_one_file_with_names_as_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "all.parquet", PICTURES[:3], ["b", "a", None])
    assert main([str(path), str(tmp_path / "p.beton"), "--workers", "1"]) == 0
    assert open_dataset(tmp_path / "p.beton").labels.tolist() == [1, 0, -1]
    path.write_bytes(path.read_bytes()[:-30])
    capsys.readouterr()
    assert "all.parquet cannot be read" in one_line(refused(capsys, path, tmp_path / "q.beton"))


def test_without_pyarrow_the_line_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    source = write(tmp_path / "train-00000-of-00001.parquet", b"PAR1")
    text = one_line(refused(capsys, source, tmp_path / "p.beton"))
    assert "parquet files need pyarrow; install it with: pip install 'likeness[parquet]'" in text


def test_splits_and_labels_by_name() -> None:
    assert splits_of_paths(["a/train-0.parquet", "a/test-0.parquet"])["a/test-0.parquet"] == "test"
    assert splits_of_paths(["train/0.parquet", "val/0.parquet"]) == {"train/0.parquet": "", "val/0.parquet": "val"}
    assert splits_of_paths(["test-0.parquet"]) == {"test-0.parquet": ""}
    for mixed in (["train-0.parquet", "more.parquet"], ["val.parquet", "test.parquet"]):
        with pytest.raises(SourceError, match="cannot be told"):
            splits_of_paths(mixed)
    assert [_label(value, ["a", "b"]) for value in (1, -1, None, 7, "x")] == ["b", None, None, "7", "x"]


def test_an_image_larger_than_the_usual_page(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2200, 2200, 3), dtype=np.uint8)
    picture = encoded(noise, quality=100, subsampling=0)
    assert len(picture) > 8 << 20
    path = table(tmp_path / "all.parquet", [PICTURES[0], picture], [0, 1])
    assert main([str(path), str(tmp_path / "p.beton"), "--workers", "1"]) == 0
    assert images_of(open_dataset(tmp_path / "p.beton")) == [PICTURES[0], picture]


def test_splits_without_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set"
    table(folder / "train-0.parquet", PICTURES[:2], [0, 1])
    table(folder / "test-0.parquet", [], [])
    assert main([str(folder), str(tmp_path / "p.beton"), "--workers", "1"]) == 0
    assert open_dataset(tmp_path / "p.beton").number == 2 and not (tmp_path / "p-test.beton").exists()
    (folder / "test-0.parquet").rename(folder / "empty")
    (folder / "train-0.parquet").rename(folder / "test-0.parquet")
    (folder / "empty").rename(folder / "train-0.parquet")
    capsys.readouterr()
    assert "the training split of set holds no images" in one_line(refused(capsys, folder, tmp_path / "q.beton"))


def test_no_task_has_images_of_two_row_groups() -> None:
    """A process reads all of a row group, so groups of the usual 100 rows are read by one process each."""
    cells = [ParquetCell(path, row // 100, row % 100, "image", 1) for path in "ab" for row in range(250)]
    items = [Item(str(number), 0, cell) for number, cell in enumerate(cells)]
    assert [len(chunk) for chunk in chunks(items, 128)] == [100, 100, 50] * 2
    assert [len(chunk) for chunk in chunks(items, 64)] == [64, 36, 64, 36, 50] * 2
    assert [item for chunk in chunks(items, 64) for item in chunk] == items
    assert [len(chunk) for chunk in chunks([Item("x", 0, ByteRange("x"))] * 300, 128)] == [128, 128, 44]
