"""MNIST's idx files, also packed by gzip: MNIST, Fashion-MNIST, KMNIST, EMNIST.

    train-images-idx3-ubyte.gz  train-labels-idx1-ubyte.gz      OUT
    t10k-images-idx3-ubyte.gz   t10k-labels-idx1-ubyte.gz       OUT-test

A file begins with 0, 0, the type (8: unsigned bytes), the number of dimensions, and the dimensions as big-endian
integers. EMNIST's pictures are stored column by column and are turned. Classes have the numbers of the labels as names.

Memory: packed images are unpacked whole, 47 MB for 60,000 of 28 x 28; of others nothing is read here but the labels.
"""

from __future__ import annotations

import gzip
import io
import posixpath
import re
import struct
import zlib
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.printable import printable
from tools.conversion.byte_locations import MAX_BYTES, STORED, ByteRange, GreyPlane, Item
from tools.conversion.source import TRAIN, Request, Source
from tools.conversion.split_names import split_name
from tools.conversion.tree import SourceError, SourceTree, read_member

_IMAGES = re.compile(r"(.*?)[-_.]?images[-_.]idx3[-_.]ubyte(\.gz)?", re.IGNORECASE | re.DOTALL)


class _Images(NamedTuple):
    """The file of a split's images, and what its name says."""

    name: str
    stem: str
    split: str


def idx(tree: SourceTree, request: Request) -> Source | None:
    """Return the images of idx files, if the tree holds some; they keep their order.

    Raises:
        SourceError: a file is damaged, labels are missing, or two data sets lie beside each other.
    """
    files = [found for name in tree.files if (found := _images_file(name))]
    if not files:
        return None
    by_split = {file.split: file for file in files}
    if len(by_split) < len(files) or TRAIN not in by_split:
        names = ", ".join(printable(file.name) for file in files[:4])
        raise SourceError(f"{names} are not the images of one data set; keep one data set in a folder")
    source = Source(tree.name, "idx files", (), {}, list(tree.bad))
    parts, used = {}, set()
    for split in sorted(by_split):
        file = by_split[split]
        labels_name = _labels_file(file, tree)
        label_N = _read(labels_name, tree.files[labels_name], 1)
        parts[split] = (file, label_N)
        used |= {file.name, labels_name}
    values = np.unique(np.concatenate([label_N for _, label_N in parts.values()]))
    source.classes = tuple(map(str, values.tolist()))
    for split, (file, label_N) in parts.items():
        turned = "emnist" in file.stem.lower()
        number_N = np.searchsorted(values, label_N)
        contents = _contents(file.name, tree.files[file.name], turned)
        if len(contents) != len(label_N):
            raise SourceError(
                f"{printable(file.name)} has {len(contents)} images and {len(label_N)} labels; get it again"
            )
        if turned:
            source.notes.append(f"{file.name}: EMNIST stores pictures column by column; they are turned upright")
        source.splits[split] = [
            Item(f"{file.name}#{number}", label, content)
            for number, (label, content) in enumerate(zip(number_N.tolist(), contents, strict=True))
        ]
    source.ignored = tree.others(used)
    return source


def _images_file(name: str) -> _Images | None:
    match = _IMAGES.fullmatch(posixpath.basename(name))
    if not match:
        return None
    known = split_name(match[1])
    split = "test" if match[1].lower().startswith("t10k") else known.split if known else TRAIN
    return _Images(name, match[1], split)


def _labels_file(images: _Images, tree: SourceTree) -> str:
    folder, base = posixpath.split(images.name)
    wanted = base.lower().replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    for name in tree.files:
        if posixpath.dirname(name) == folder and posixpath.basename(name).lower().removesuffix(".gz") == wanted:
            return name
    raise SourceError(f"{printable(wanted)} is missing beside {printable(images.name)}; get all files of the data set")


def _header(name: str, data: bytes, dimensions: int) -> tuple[int, ...]:
    size = 4 + 4 * dimensions
    if len(data) < size or data[:4] != bytes((0, 0, 8, dimensions)):
        raise SourceError(f"{printable(name)} is no idx file of bytes with {dimensions} dimensions; get it again")
    return struct.unpack(f">{dimensions}I", data[4:size])


def _read(name: str, place: ByteRange, dimensions: int) -> NDArray[np.uint8]:
    """Return the whole array of an idx file."""
    data = read_member(name, place)
    if data.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(f"{printable(name)} is damaged ({error}); get it again") from None
    shape = _header(name, data[: 4 + 4 * dimensions], dimensions)
    start = 4 + 4 * dimensions
    if prod(shape) != len(data) - start or not prod(shape):
        raise SourceError(f"{printable(name)} has {len(data) - start:,} bytes for {shape}; get it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _contents(name: str, place: ByteRange, turned: bool) -> list[NDArray[np.uint8] | GreyPlane]:
    """Return where each image is, or where the file is packed, its pixels [H, W]."""
    if name.lower().endswith(".gz") or place.packing != STORED:
        images_NHW = _read(name, place, 3)
        return list(images_NHW.transpose(0, 2, 1) if turned else images_NHW)
    number, height, width = _header(name, read_member(name, place._replace(size=16)), 3)
    size = place.size if place.size >= 0 else _length(place)
    if size - 16 != number * height * width or not number * height * width:
        raise SourceError(f"{printable(name)} has {size - 16:,} bytes for {number} x {height} x {width}; get it again")
    return [
        GreyPlane(ByteRange(place.path, place.offset + 16 + i * height * width, height * width), height, width, turned)
        for i in range(number)
    ]


def _length(place: ByteRange) -> int:
    with open(place.path, "rb") as file:
        return file.seek(0, 2) - place.offset
