"""Whatever bytes lie there, our parsers read them or refuse them in one line: no other error, no hang."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.formats.beton_format import read_table
from pipelines.formats.beton_writer import BetonWriter
from pipelines.formats.card import DatasetError, card_path, read_names, sealed, write_names
from pipelines.formats.format import Sample
from pipelines.formats.image_table import RAW, ImageTable
from pipelines.formats.opening import open_dataset
from pipelines.formats.shard_format import INDEX, RECORD, checked_table, file_facts, index_bytes, read_index
from tests.support.datasets import converted
from tests.support.images import class_folder, encoded, smooth
from tools.conversion import stl10
from tools.conversion.cifar import cifar
from tools.conversion.open_source import open_tree
from tools.conversion.tree import SourceError

FEW = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def harm(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A few bytes replaced, then perhaps cut or lengthened."""
    places = draw(st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=4))
    share, more = draw(st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.5])), draw(st.binary(max_size=30))

    def apply(data: bytes) -> bytes:
        harmed = bytearray(data)
        for place, piece in places:
            at = int(place * len(data))
            harmed[at : at + len(piece)] = piece
        return bytes(harmed[: int(share * len(data))]) + more * (share < 1)

    return apply


def within(table: ImageTable) -> None:
    """Every image lies in its file, and a raw one is as large as its sides say."""
    lengths = np.array(table.lengths)[table.file]
    assert (table.offset >= 0).all() and (table.size > 0).all() and (table.offset + table.size <= lengths).all()
    raw = table.mode == RAW
    assert (table.size == table.height.astype(np.int64) * table.width * 3)[raw].all()


def one_line(error: BaseException, path: Path) -> None:
    text = str(error)
    assert "\n" not in text and (str(path) in text or path == Path())


@FEW
@given(harm())
def test_beton(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.beton"
    with BetonWriter(path, 6, 1 << 12) as writer:
        for number in range(5):
            writer.add(Sample(RAW, 4, 5, number, bytes(60), bytes(16), number))
    path.write_bytes(harm(path.read_bytes()))
    try:
        within(read_table(path))
    except ValueError as error:
        one_line(error, path)


@FEW
@given(st.lists(st.tuples(st.sampled_from(RECORD.names), st.integers(0, 2**64 - 1)), max_size=3), harm(), st.booleans())
def test_index(tmp_path: Path, edits: list[tuple[str, int]], harm: Callable[[bytes], bytes], by_bytes: bool) -> None:
    records = np.zeros(3, dtype=RECORD)
    records["offset"], records["size"], records["mode"], records["height"], records["width"] = 512, 60, RAW, 4, 5
    for name, value in edits:
        if name != "digest":
            records[name][value % 3] = np.uint64(value).astype(records.dtype[name])
    (tmp_path / "shard-000000.tar").write_bytes(bytes(2048))
    data = index_bytes(records, 1)
    (tmp_path / INDEX).write_bytes(harm(data) if by_bytes else data)
    try:
        read_index(tmp_path / INDEX)
        within(checked_table(tmp_path, file_facts(tmp_path)))
    except ValueError as error:
        one_line(error, tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("card")
    dataset = converted(class_folder(root / "photos"), root / "photos.beton")
    return dataset.path, card_path(dataset.path).read_text()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@FEW
@given(st.sampled_from(["number", "classes", "mean", "std", "checksum", "source", "file", "version", "more"]), VALUES)
def test_card_values(made: tuple[Path, str], key: str, value: object) -> None:
    path, text = made
    card = json.loads(text) | {key: value}
    with contextlib.suppress(TypeError, AttributeError):
        card = sealed(card)
    card_path(path).write_text(json.dumps(card))
    try:
        assert open_dataset(path).number == 6
    except DatasetError as error:
        one_line(error, path)


@FEW
@given(harm(), st.booleans())
def test_card_bytes(made: tuple[Path, str], harm: Callable[[bytes], bytes], foreign: bool) -> None:
    path, text = made
    card_path(path).write_bytes(harm(b"" if foreign else text.encode()))
    try:
        assert open_dataset(path).classes == ("cat", "dog")
    except DatasetError as error:
        one_line(error, path)


@FEW
@given(st.lists(st.binary(max_size=9)))
def test_names(tmp_path: Path, names: list[bytes]) -> None:
    texts = [name.decode("utf-8", "surrogateescape") for name in names]
    write_names(tmp_path / "x", texts)
    assert read_names(tmp_path / "x") == texts
    (tmp_path / "x.names").write_bytes(b"".join(names))
    read_names(tmp_path / "x")


@FEW
@given(st.sampled_from(["tar", "tar.gz", "tar.xz", "tar.bz2", "zip"]), harm())
def test_archives(tmp_path: Path, ending: str, harm: Callable[[bytes], bytes]) -> None:
    path, picture = tmp_path / f"x.{ending}", encoded(smooth(6, 6))
    if ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("a/0.jpg", "b/1.jpg"):
                archive.writestr(name, picture)
    else:
        with tarfile.open(path, f"w:{ending[4:]}" if "." in ending else "w") as packed:
            for name in ("a/0.jpg", "b/" + "n" * 120 + ".jpg"):
                member = tarfile.TarInfo(name)
                member.size = len(picture)
                packed.addfile(member, io.BytesIO(picture))
    path.write_bytes(harm(path.read_bytes()))
    with tempfile.TemporaryDirectory(dir=tmp_path) as scratch:
        try:
            tree = open_tree(path, Path(scratch))
            assert all(place.offset >= 0 for place in tree.files.values())
        except SourceError as error:
            one_line(error, path)
            assert os.listdir(scratch) == []
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.startswith("x.")] == []


@FEW
@given(st.binary(max_size=20), st.integers(-3, 3), st.sampled_from(["cifar", "cifar-100", "stl10"]))
def test_binary_batches(tmp_path: Path, names: bytes, more: int, kind: str) -> None:
    """Files of a published layout with whatever in them: taken, or refused by name."""
    if kind == "stl10":
        files = {"train_X.bin": bytes(2 * stl10.BYTES + more), "train_y.bin": names[:2], "class_names.txt": names}
    elif kind == "cifar":
        files = {"data_batch_1.bin": bytes([*names[:1], 0]) * 1537 + bytes(max(0, more)), "batches.meta.txt": names}
    else:
        files = {"train.bin": names + bytes(2 * 3074 + more), "test.bin": b"", "fine_label_names.txt": names}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    tree = open_tree(tmp_path, tmp_path)
    try:
        source = cifar(tree) or stl10.stl10(tree)
        assert source is not None and all(-1 <= item.label < len(source.classes) for item in source.splits[""])
    except SourceError as error:
        one_line(error, Path())
    finally:
        for name in files:
            (tmp_path / name).unlink()
