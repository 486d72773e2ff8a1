"""Which data set a source is. A new kind of source is one file of its own, and one line here."""

from __future__ import annotations

from pathlib import Path

from pipelines.printable import printable
from tools.conversion.open_source import open_tree
from tools.conversion.source import Source
from tools.conversion.tree import SourceError, SourceTree


def recognise(tree: SourceTree) -> Source:
    """Reads the layout of a tree: that of a published data set, otherwise an image folder."""
    from tools.conversion.cifar import cifar
    from tools.conversion.image_folder import image_folder
    from tools.conversion.stl10 import stl10

    return cifar(tree) or stl10(tree) or image_folder(tree)


def find_source(name: str, scratch: Path, follow_links: bool) -> Source:
    """Opens the source that SOURCE names on the command line.

    Args:
        name: a path, or "digits".
        scratch: folder for the unpacked copy of a compressed tar.
        follow_links: take links that lead out of a source folder.

    Raises:
        SourceError: there is no such source, or it cannot be used.
    """
    from tools.conversion.existing_dataset import converted

    if name == "digits":
        from tools.conversion.digits import digits

        return digits()
    return converted(Path(name)) or recognise(open_tree(Path(name), scratch, follow_links))


def check_exists(name: str) -> None:
    """Refuses a SOURCE that is not there, before a folder is made for what would be converted.

    Raises:
        SourceError: neither a path that exists nor a name.
    """
    if name != "digits" and not Path(name).exists():
        raise SourceError(f"there is no source {printable(name)}; give a folder, a zip, a tar, or digits")
