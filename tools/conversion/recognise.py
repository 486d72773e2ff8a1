"""Which data set a source is. A new kind of source is one module, and one line in `SOURCES`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.printable import printable
from tools.conversion.brace_pattern import is_pattern, pattern_tree
from tools.conversion.cifar import cifar
from tools.conversion.class_tars import class_tars
from tools.conversion.digits import digits
from tools.conversion.existing_dataset import converted
from tools.conversion.idx import idx
from tools.conversion.image_folder import image_folder
from tools.conversion.nested_tars import expand_tars
from tools.conversion.open_source import open_tree
from tools.conversion.parquet import parquet
from tools.conversion.path_table import path_table
from tools.conversion.source import TRAIN, Request, Source
from tools.conversion.stl10 import stl10
from tools.conversion.tiny_imagenet import tiny_imagenet
from tools.conversion.tree import BadFiles, SourceError, SourceTree
from tools.conversion.webdataset import webdataset

# Asked in this order; the first that does not return None has recognised the tree.
SOURCES: tuple[Callable[[SourceTree, Request], Source | None], ...] = (
    lambda tree, request: cifar(tree),
    lambda tree, request: stl10(tree),
    idx,
    tiny_imagenet,
    parquet,
    path_table,
    webdataset,
    class_tars,
    image_folder,
)


def recognise(tree: SourceTree, request: Request) -> Source:
    """Read the layout of a tree: that of a published data set, otherwise an image folder. Other splits than that of the
    training images are left out where no image belongs to them.

    Raises:
        SourceError: it cannot be used.
        BadFiles: there are files, but none that can be a training image.
    """
    source = _read(tree, request)
    source.splits = {split: items for split, items in source.splits.items() if items}
    if TRAIN in source.splits:
        return source
    if source.bad:
        raise BadFiles(source.bad)
    raise SourceError(f"nothing to convert: the training split of {printable(tree.name)} holds no images")


def _read(tree: SourceTree, request: Request) -> Source:
    tree = expand_tars(tree)
    if request.folder:
        tree = tree.inside(request.folder)
    if request.layout != "auto" or request.labels is not None:
        return image_folder(tree, request)
    found = (source(tree, request) for source in SOURCES)
    return next(source for source in found if source is not None)


def find_source(name: str, scratch: Path, request: Request) -> Source:
    """Open the source that SOURCE names on the command line.

    Args:
        name: a path, or "digits".
        scratch: folder for the unpacked copy of a compressed tar.

    Raises:
        SourceError: there is no such source, or it cannot be used.
    """
    if is_pattern(name):
        return recognise(pattern_tree(name), request)
    ready = digits() if name == "digits" else converted(Path(name))
    if ready is None:
        return recognise(open_tree(Path(name), scratch, request.follow_links), request)
    if request != Request():
        options = "--follow-links, --folder, --layout, --classes and --labels"
        raise SourceError(f"{printable(name)} says itself what its images are; leave out {options}")
    return ready


def check_exists(name: str) -> None:
    """Refuse a SOURCE that is not there, before a folder is made for what would be converted.

    Raises:
        SourceError: neither a path that exists nor a name.
    """
    if name != "digits" and not is_pattern(name) and not Path(name).exists():
        raise SourceError(f"there is no source {printable(name)}; give a folder, a zip, a tar, or digits")
