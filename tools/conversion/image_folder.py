"""Image folders: which folder is a split, which is a class, and what is only a companion of the images.

cat/1.jpg dog/2.jpg                      class sub-folders, one split (deeper folders belong to their class)
1.jpg 2.jpg                              flat: unlabelled
train/cat/1.jpg test/cat/2.jpg           splits: where every folder is named as one, and there is a train
photos/train/...                         any of these below one folder, as archives have it
train/<id>/images/1.JPEG val/images/...  Tiny-ImageNet, the labels of val in val_annotations.txt
"""

from __future__ import annotations

import os
import re
from collections import defaultdict

from pipelines.decoding.image_file import SUFFIXES
from pipelines.printable import printable
from tools.conversion.byte_locations import ByteRange, Item
from tools.conversion.source import TRAIN, Source, byte_order
from tools.conversion.tree import SourceError, SourceTree, read_member

SPLITS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "unlabeled": "unlabeled",
    "unlabelled": "unlabeled",
}
UNLABELLED_SPLITS = ("unlabeled",)
ANNOTATIONS = "val_annotations.txt"
# Companions of images wherever they lie; other files that are no images are refused inside a class folder.
COMPANION = re.compile(
    r"(readme|licen[cs]e|source|copying|notice|authors|citation|changelog)\b.*|thumbs\.db|desktop\.ini|.*\.md|.*_boxes\.txt",
    re.IGNORECASE,
)
_TEXTS = ".txt .json .jsonl .csv .tsv .xml .html .yaml .yml .pdf .md .log .sh .py .mat .npy .npz .pkl"
TEXTS = frozenset(_TEXTS.split(" "))

Paths = dict[tuple[str, ...], ByteRange]


def is_image(name: str) -> bool:
    """By its ending, in any case of letters."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def image_folder(tree: SourceTree) -> Source:
    """Reads the layout of a tree of image files.

    Raises:
        SourceError: no images, or splits that do not fit together.
    """
    paths: Paths = {tuple(name.split("/")): place for name, place in tree.files.items()}
    images = [path for path in paths if is_image(path[-1])]
    if not images:
        endings = ", ".join(sorted(SUFFIXES))
        raise SourceError(f"nothing to convert: {printable(tree.name)} holds no images ({endings})")
    depth = 1 if len({path[0] for path in images}) == 1 and min(map(len, images)) >= 3 else 0
    above = [path for path in paths if len(path) <= depth]  # beside the one wrapping folder
    source = Source(tree.name, "image folder", (), {}, list(tree.bad), tree.ignored + len(above))

    tops = {path[depth] for path in images if len(path) > depth + 1}
    parts: dict[str, dict[tuple[str, ...], tuple[str, ...]]] = defaultdict(dict)  # split -> path below it -> path
    if _has_splits(tops):
        source.kind = "image folder with splits"
        for path in paths:
            rest = path[depth:]
            if len(rest) > 1 and rest[0].lower() in SPLITS:
                parts[SPLITS[rest[0].lower()]][rest[1:]] = path
            elif len(rest) == 1 and is_image(rest[0]):
                source.bad.append(("/".join(path), "lies beside the splits' folders, so it belongs to none"))
            elif rest:
                source.ignored += 1
    else:
        parts[TRAIN] = {path[depth:]: path for path in paths if len(path) > depth}

    labels = _tiny_imagenet(parts, paths)
    if labels:
        source.kind = "Tiny-ImageNet"
    named = {suffix: _split(suffix, part, source, labels) for suffix, part in parts.items()}
    source.classes = _classes(named)
    number = {name: label for label, name in enumerate(source.classes)}
    for suffix in sorted(named):  # TRAIN, the empty suffix, comes first
        entries = sorted(named[suffix], key=lambda entry: (byte_order(entry[0] or ""), byte_order("/".join(entry[1]))))
        items = [Item("/".join(path), -1 if name is None else number[name], paths[path]) for name, path in entries]
        if items:
            source.splits[suffix] = items
    if TRAIN not in source.splits:
        raise SourceError(
            f"nothing to convert: the training split of {printable(tree.name)} holds no images that can be used"
        )
    return source


def _has_splits(tops: set[str]) -> bool:
    known = {top for top in tops if top.lower() in SPLITS}
    trains = {top for top in known if SPLITS[top.lower()] == TRAIN}
    if len(known) < 2 and known != tops:
        return False  # a class may well be called "train"
    if known != tops and trains:
        odd = sorted(tops - known, key=byte_order)[0]
        raise SourceError(
            f"the folders {', '.join(sorted(known))} look like splits but {printable(odd)!r} is none; "
            "move it away, or give the folder of one split"
        )
    if known != tops or not known:
        return False
    if not trains:
        raise SourceError(f"found the splits {', '.join(sorted(known))} but no train; give the folder of one of them")
    doubled = len(known) != len({SPLITS[top.lower()] for top in known})
    if doubled:
        raise SourceError(f"two of the folders {', '.join(sorted(known))} mean the same split; keep one of them")
    return True


def _tiny_imagenet(parts: dict[str, dict[tuple[str, ...], tuple[str, ...]]], paths: Paths) -> dict[str, str]:
    """Class of each validation image, if this is Tiny-ImageNet as it comes; else nothing."""
    val = parts.get("val", {})
    notes = val.get((ANNOTATIONS,))
    if notes is None or not any(path[0] == "images" for path in val):
        return {}
    text = read_member("/".join(notes), paths[notes])
    try:
        rows = [line.split("\t") for line in text.decode("utf-8").splitlines() if line]
        return {row[0]: row[1] for row in rows}
    except (ValueError, IndexError) as error:
        raise SourceError(
            f"{printable('/'.join(notes))} cannot be read ({error}); unpack Tiny-ImageNet again"
        ) from None


def _split(
    suffix: str, part: dict[tuple[str, ...], tuple[str, ...]], source: Source, labels: dict[str, str]
) -> list[tuple[str | None, tuple[str, ...]]]:
    """(class or None, path) of each image of a split; the rest is counted or listed in `source`."""
    flat = all(len(rest) == 1 for rest in part if is_image(rest[-1]))
    entries: list[tuple[str | None, tuple[str, ...]]] = []
    for rest, path in part.items():
        name = rest[-1]
        if not is_image(name):
            text = os.path.splitext(name)[1].lower() in TEXTS
            if labels or COMPANION.fullmatch(name) or (len(rest) == 1 and (text or not flat)):
                source.ignored += 1
            else:
                ending = os.path.splitext(name)[1]
                source.bad.append(
                    ("/".join(path), f"is not an image (ends in {ending})" if ending else "is not an image")
                )
        elif flat or suffix in UNLABELLED_SPLITS or (labels and suffix == "test"):
            entries.append((None, path))
        elif labels and suffix == "val":
            if name in labels:
                entries.append((labels[name], path))
            else:
                source.bad.append(("/".join(path), f"has no line in {ANNOTATIONS}"))
        elif len(rest) == 1:
            source.bad.append(("/".join(path), "lies beside the class folders, so it has no class"))
        else:
            entries.append((rest[0], path))
    return entries


def _classes(named: dict[str, list[tuple[str | None, tuple[str, ...]]]]) -> tuple[str, ...]:
    """One sorted list for all splits: that of the training split, or if that is unlabelled, that of the others."""
    found = {suffix: {name for name, _ in entries if name is not None} for suffix, entries in named.items()}
    classes = found.get(TRAIN) or set().union(*found.values())
    for suffix, names in found.items():
        extra = sorted(names - classes, key=byte_order)
        if extra:
            raise SourceError(
                f"class {printable(extra[0])!r} is in the split {suffix} but not in train ({len(extra)} such); "
                "the splits must share their classes"
            )
    return tuple(sorted(classes, key=byte_order))
