"""One tar for each class, in a folder or in one large tar, as ImageNet's training images are published."""

from __future__ import annotations

import posixpath
import re

from tools.conversion.byte_locations import Item
from tools.conversion.file_kinds import is_image
from tools.conversion.source import TRAIN, Request, Source, byte_order
from tools.conversion.split_names import split_name
from tools.conversion.tree import SourceTree

# "web-000012", "00012": parts of one data set, cut anywhere. "n01440764" is a class.
SHARD = re.compile(r"(.*[-_.])?\d{3,}", re.DOTALL)


def class_tars(tree: SourceTree, request: Request) -> Source | None:
    """Return the images of one tar a class, if every image lies directly in a tar that is named as a class."""
    if not tree.tars:
        return None
    images = [name for name in tree.files if is_image(name)]
    folders = {posixpath.dirname(name) for name in images}
    if not images or not folders <= set(tree.tars) or len({posixpath.dirname(folder) for folder in folders}) > 1:
        return None
    names = {folder: posixpath.basename(folder) for folder in folders}
    if any(SHARD.fullmatch(name) or split_name(name) for name in names.values()):
        return None
    classes = tuple(sorted(names.values(), key=byte_order))
    number = {name: label for label, name in enumerate(classes)}
    items = [
        Item(name, number[names[posixpath.dirname(name)]], tree.files[name]) for name in sorted(images, key=byte_order)
    ]
    items.sort(key=lambda item: item.label)
    return Source(tree.name, "tars of classes", classes, {TRAIN: items}, list(tree.bad), tree.others(images))
