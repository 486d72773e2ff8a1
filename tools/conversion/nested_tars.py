"""Tars inside a source: shards in a folder, or the tars of single classes in one large tar. Nothing is unpacked.

Each tar stands for a folder of its name: n01440764.tar is listed as n01440764/. A member is a byte range of the
outermost file, however deep the tars are nested.
"""

from __future__ import annotations

from pipelines.printable import printable
from tools.conversion import archives
from tools.conversion.byte_locations import STORED
from tools.conversion.file_kinds import is_image
from tools.conversion.tree import SourceError, SourceTree

_DEPTH = 4  # of tars in tars; the published ones have one tar in another
_PACKED = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")


def expand_tars(tree: SourceTree) -> SourceTree:
    """Return the tree with the members of its tars, if it holds tars and no images.

    Raises:
        SourceError: a tar is damaged or packed, or has the name of another one or of a folder that holds its files.
    """
    if any(map(is_image, tree.files)):
        return tree
    for _ in range(_DEPTH):
        tars = [name for name in tree.files if name.lower().endswith(".tar")]
        if not tars:
            return tree
        first: dict[str, str] = {}
        for name in tars:
            same = first.setdefault(name[: -len(".tar")], name)
            if same != name:
                raise _one_folder(same, name)
            _replace_by_members(tree, name)
    raise SourceError(f"{printable(tree.name)} holds tars in tars, more than {_DEPTH} deep; unpack the outer ones")


def _replace_by_members(tree: SourceTree, name: str) -> None:
    place = tree.files.pop(name)
    folder = name[: -len(".tar")]
    if place.packing != STORED:
        raise SourceError(
            f"{printable(name)} is packed inside a zip and cannot be read in pieces; unpack the zip, or pack it again "
            "without compression"
        )
    inner = archives.inner_tar_tree(place, name)
    members = {f"{folder}/{member}": found for member, found in inner.files.items()}
    if twice := members.keys() & tree.files.keys():
        raise _one_folder(name, min(twice))
    tree.tars.append(folder)
    tree.files |= members
    tree.bad += [(f"{folder}/{member}", reason) for member, reason in inner.bad]
    tree.ignored |= {f"{folder}/{member}" for member in inner.ignored}


def _one_folder(first: str, second: str) -> SourceError:
    return SourceError(
        f"{printable(first)} and {printable(second)} would be one folder, as a tar stands for a folder of its name; "
        "rename one of them"
    )


def packed_archive(tree: SourceTree) -> str | None:
    """Return the name of an archive in the tree that is not opened, because it is compressed; None if there is none."""
    return next((name for name in tree.files if name.lower().endswith(_PACKED)), None)
