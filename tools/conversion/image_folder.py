"""Folders of image files: their classes and splits (see `folder_layout.py`), and the files that lie beside images."""

from __future__ import annotations

from pathlib import Path as FilePath

from pipelines.printable import printable
from tools.conversion.byte_locations import ByteRange
from tools.conversion.file_kinds import FOREIGN, IMAGE_ENDINGS, ending, is_companion, is_image, is_text, no_image
from tools.conversion.folder_layout import Layout, Path, folder_layout
from tools.conversion.label_list import LabelList
from tools.conversion.nested_tars import packed_archive
from tools.conversion.source import Request, Source, byte_order
from tools.conversion.split_classes import joined_classes, labelled_items
from tools.conversion.split_names import split_name
from tools.conversion.system_files import summary as kinds_of
from tools.conversion.tree import SourceError, SourceTree


def image_folder(tree: SourceTree, request: Request) -> Source:
    """Read a tree of image files.

    Raises:
        SourceError: no images, folders that could mean several things, or splits that do not fit together.
    """
    paths: dict[Path, ByteRange] = {tuple(name.split("/")): place for name, place in tree.files.items()}
    images = [path for path in paths if is_image(path[-1])]
    if not images:
        raise SourceError(_nothing(tree))
    layout = folder_layout(images, request.layout)
    kind = "image folder with splits" if len(layout.splits) > 1 else "image folder"
    source = Source(tree.name, kind, (), {}, list(tree.bad), root="/".join(layout.root))
    source.bad += [("/".join(path), reason) for path, reason in layout.odd]
    ignored, bad = _others(paths, images, layout)
    source.bad += bad
    source.notes += [*layout.notes, *_unused_lists(ignored, layout)]
    if request.labels is None:
        source.notes += _unused_tables(ignored, layout)
    source.ignored = tree.ignored | {"/".join(path) for path in (*ignored, *layout.left_out)}

    named = {split: dict(part) for split, part in layout.splits.items()}
    if request.labels is not None:
        _label(named, request.labels, source)
    numeric = request.labels is not None
    source.classes = joined_classes({split: set(part.values()) for split, part in named.items()}, request, numeric)
    rows = {
        split: sorted(
            (("/".join(path), name, paths[path]) for path, name in part.items()),
            key=lambda row: (byte_order(row[1] or ""), byte_order(row[0])),
        )
        for split, part in named.items()
    }
    source.splits = labelled_items(rows, source.classes)
    return source


def _label(named: dict[str, dict[Path, str | None]], file: FilePath, source: Source) -> None:
    """Give the images without a class, or if all have one, all images, the labels of a list."""
    images = {"/".join(path): split for split, part in named.items() for path, name in part.items() if name is None}
    images = images or {"/".join(path): split for split, part in named.items() for path in part}
    listed = LabelList(file, images)
    source.notes += listed.notes
    source.kind += f", labels from {file.name}"
    about = {images[image] for image in listed.labels}  # a list may be about one split
    for image, split in images.items():
        path = tuple(image.split("/"))
        if image in listed.labels:
            named[split][path] = listed.labels[image]
        elif split in about:
            del named[split][path]
            source.bad.append((image, f"has no line in {file.name}"))


def _nothing(tree: SourceTree) -> str:
    """Say why no image was found: links that were not followed, pictures of foreign kinds, or nothing at all."""
    message = f"nothing to convert: {printable(tree.name)} holds no images ({IMAGE_ENDINGS})"
    packed = packed_archive(tree)
    if packed:
        return (
            f"{message}; {printable(packed)} is a compressed archive inside it, which is not opened: give it as SOURCE"
        )
    foreign = [name for name in tree.files if ending(name) in FOREIGN]
    if foreign:
        return f"{message}; {printable(foreign[0])} {no_image(foreign[0])}"
    if tree.bad:
        name, reason = tree.bad[0]
        more = f", and {len(tree.bad) - 1} more entries cannot be used" if len(tree.bad) > 1 else ""
        return f"{message}; {printable(name)} {reason}{more}"
    return f"{message}; ignored: {printable(kinds_of(tree.ignored))}" if tree.ignored else message


def _unused_lists(ignored: list[Path], layout: Layout) -> list[str]:
    """Say that texts named as splits, such as train.txt and test.txt, are not used."""
    found = {}
    for path in ignored:
        known = split_name(path[-1].rpartition(".")[0])
        if is_text(path[-1]) and known and len(layout.splits) == 1:
            found[known.split] = "/".join(path)
    if len(found) < 2:
        return []
    named = " and ".join(sorted(found.values()))
    return [f"{named} look like lists of splits; they are not used, and all images are one split"]


def _unused_tables(ignored: list[Path], layout: Layout) -> list[str]:
    """Say that tables lie beside images without labels."""
    unlabelled = [split for split, part in layout.splits.items() if all(name is None for name in part.values())]
    tables = sorted("/".join(path) for path in ignored if ending(path[-1]) in (".csv", ".tsv"))
    if not unlabelled or not tables:
        return []
    return [f"{tables[0]} lies beside images without labels; if it lists them, take --labels FILE"]


def _others(
    paths: dict[Path, ByteRange], images: list[Path], layout: Layout
) -> tuple[list[Path], list[tuple[str, str]]]:
    """Divide the files that are no images into those to ignore, and (name, reason) of those that should be images."""
    left_out = set(layout.left_out)
    kept = {path[:depth] for path in images if path not in left_out for depth in range(len(path))}
    left_folders = {path[:depth] for path in left_out for depth in range(len(path))} - kept
    folders = {path[:-1] for path in images}
    above = {folder[:depth] for folder in folders for depth in range(len(folder))}
    flat = {path[:-1] for part in layout.splits.values() for path, name in part.items() if name is None}
    ignored: list[Path] = []
    bad: list[tuple[str, str]] = []
    for path in paths:
        name, folder = path[-1], path[:-1]
        if is_image(name):
            continue
        if any(folder[: depth + 1] in left_folders for depth in range(len(folder))):
            fine = True
        elif ending(name) in FOREIGN:
            fine = False
        elif is_companion(name):
            fine = True
        elif folder in folders:  # beside images: a text may describe unlabelled ones
            fine = folder in flat and is_text(name)
        else:
            fine = folder in above or is_text(name)
        if fine:
            ignored.append(path)
        else:
            bad.append(("/".join(path), no_image(name)))
    return ignored, bad
