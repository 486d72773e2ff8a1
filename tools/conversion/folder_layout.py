"""Which folders of a tree are splits and which are classes. Knows names only: it opens nothing.

    cat/1.jpg  dog/2.jpg                    class folders; deeper folders belong to their class
    1.jpg  2.jpg                            flat: unlabelled
    train/cat/1.jpg  test/cat/2.jpg         splits, by the names in `split_names.py`
    cat/train/1.jpg  cat/test/2.jpg         splits inside the classes
    a/b/...                                 any of these below folders that are alone
    seg_train/seg_train/cat/1.jpg           and below a folder that is alone in its split

A folder that is alone tells nothing about its images, so it is no class: an archive of a flat folder is as flat as the
folder. What could be read in two ways is refused, with the options that choose one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from pipelines.printable import printable
from tools.conversion.source import TRAIN, byte_order
from tools.conversion.split_names import UNLABELLED_SPLITS, split_name, splits_among
from tools.conversion.tree import SourceError

Path = tuple[str, ...]
LAYOUTS = {
    "auto": "by the names of the folders",
    "splits": "the folders that are named as splits, without the others",
    "classes": "every folder is a class, whatever its name",
    "leaves": "the folder that an image lies in is its class, with the folders above it",
    "flat": "no folder counts, all images are unlabelled",
}
NO_CLASS = "lies beside the class folders, so it has no class"
NO_SPLIT = "lies beside the splits' folders, so it belongs to none"
_PICTURES = frozenset(["images", "image", "imgs", "img", "jpegimages", "jpgs"])


@dataclass
class Layout:
    """Where every image of a tree belongs.

    Attributes:
        root: the folder below which splits and classes lie; () for the source itself.
        splits: split -> path of an image -> its class, None if it has none.
        notes: lines for the user.
        odd: (path, reason) of images that belong nowhere.
        left_out: paths of images that were not asked for.
    """

    root: Path = ()
    splits: dict[str, dict[Path, str | None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    odd: list[tuple[Path, str]] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)


def folder_layout(images: list[Path], layout: str = "auto") -> Layout:
    """Return what the folders of the images mean.

    Args:
        images: paths of all images, at least one.
        layout: a key of `LAYOUTS`.

    Raises:
        SourceError: the folders could mean several things; the message offers the options.
    """
    if layout == "flat":
        return Layout(splits={TRAIN: dict.fromkeys(images)})
    nodes = {} if layout == "classes" else _split_folders({path[:-1] for path in images}, layout)
    if not nodes:
        root = _alone(images)
        if layout == "auto":
            _refuse_unclear(images, root)
        elif layout == "classes" and any(len(path) == len(root) + 1 for path in images):
            root = root[:-1]  # asked for, so a folder that is alone is a class, too
        made = Layout(root)
        made.splits[TRAIN] = _classes({path: path[len(root) :] for path in images}, made, layout)
        return made
    return _in_splits(images, nodes, layout)


def _children(folders: Iterable[Path]) -> dict[Path, set[str]]:
    children: dict[Path, set[str]] = defaultdict(set)
    for folder in folders:
        for depth in range(len(folder)):
            children[folder[:depth]].add(folder[depth])
    return children


def _split_folders(folders: set[Path], layout: str) -> dict[Path, dict[str, str]]:
    """Return folder -> name of a child -> its split, of the folders whose children are splits."""
    children = _children(folders)
    nodes: dict[Path, dict[str, str]] = {}
    for folder, names in children.items():
        try:
            named = splits_among(names)
        except ValueError as error:
            raise SourceError(f"{error}; {_choice(folder, sorted(names)[0])}") from None
        if named:
            nodes[folder] = named
    if layout == "splits":  # asked for, so one split is enough, but not among the folders inside a split
        for folder in sorted(children, key=len):
            one = {name: known.split for name in children[folder] if (known := split_name(name))}
            if one and folder not in nodes and not _below(folder, nodes):
                nodes[folder] = one
    if nested := sorted(_name(folder) for folder in nodes if _below(folder, nodes)):
        raise SourceError(
            f"the folder {nested[0]} lies beside or in a split and has splits of its own; "
            f"{_choice((), nested[0], 'classes')}"
        )
    for folder, named in nodes.items():
        _refuse_unusable(folder, named)
    return nodes


def _below(folder: Path, nodes: Container[Path]) -> bool:
    return any(folder[:depth] in nodes for depth in range(len(folder)))


def _refuse_unusable(folder: Path, named: dict[str, str]) -> None:
    names = sorted(named, key=byte_order)
    if TRAIN not in named.values():
        raise SourceError(
            f"found the splits {', '.join(map(printable, names))} but no train; {_choice(folder, names[0], 'classes')}"
        )
    for split in set(named.values()):
        same = [name for name in names if named[name] == split]
        if len(same) > 1:
            raise SourceError(
                f"two of the folders {', '.join(map(printable, names))} mean the same split; keep one of "
                f"{', '.join(map(printable, same))}, or {_choice(folder, same[0], 'classes')}"
            )


def _in_splits(images: list[Path], nodes: dict[Path, dict[str, str]], layout: str) -> Layout:
    """Sort the images into splits, then into classes: by the folders above the splits, or by those inside."""
    made = Layout(_common(nodes))
    inside: dict[str, dict[Path, Path]] = defaultdict(dict)  # split -> image -> its path below the split's folder
    outside: list[Path] = []
    for path in images:
        node = next((path[:end] for end in range(len(path)) if path[:end] in nodes), None)
        if node is None or (len(path) > len(node) + 1 and path[len(node)] not in nodes[node]):
            outside.append(path)
        elif len(path) == len(node) + 1:
            made.odd.append((path, NO_SPLIT))
        else:
            inside[nodes[node][path[len(node)]]][path] = path[len(node) + 1 :]
    if outside and layout != "splits":
        _refuse_outside(outside, nodes)
    made.left_out = outside
    if len(nodes) > 1:  # the splits are inside the classes
        rests = [rest for part in inside.values() for rest in part.values()]
        flat = {len(rest) for rest in rests} == {len(_alone(rests)) + 1}
        if not flat or len({len(node) for node in nodes}) > 1:
            first = min(map(_name, nodes), key=byte_order)
            raise SourceError(
                f"{len(nodes)} folders have splits and classes of their own, such as {first}; "
                f"{_choice((), first, 'classes')}"
            )
        made.splits = {split: {path: path[len(made.root)] for path in part} for split, part in inside.items()}
        return made
    for split, part in _without_lone_folders(inside).items():
        made.splits[split] = dict.fromkeys(part) if split in UNLABELLED_SPLITS else _classes(part, made, layout)
    return made


def _common(nodes: Iterable[Path]) -> Path:
    """The folders that all of several paths begin with."""
    paths = list(nodes)
    depth = 0
    while all(len(path) > depth for path in paths) and len({path[depth] for path in paths}) == 1:
        depth += 1
    return paths[0][:depth]


def _alone(images: Iterable[Path]) -> Path:
    """The folders at the top that are alone: all images lie below them."""
    return _common(path[:-1] for path in images)


def _without_lone_folders(inside: dict[str, dict[Path, Path]]) -> dict[str, dict[Path, Path]]:
    """Cut folders that are alone in their split, unless they are classes that another split has among several."""
    alone = {split: _alone(part.values()) for split, part in inside.items()}
    cut = {split: {path: rest[len(alone[split]) :] for path, rest in part.items()} for split, part in inside.items()}
    classes = {rest[0] for part in cut.values() for rest in part.values() if len(rest) > 1}
    for split, folders in alone.items():
        kept = next((depth for depth, name in enumerate(folders) if name in classes), len(folders))
        cut[split] = {path: rest[kept:] for path, rest in inside[split].items()}
    return cut


def _classes(part: dict[Path, Path], made: Layout, layout: str) -> dict[Path, str | None]:
    """Return image -> class by the folders of its path; None for all where no image is in a folder."""
    if all(len(rest) == 1 for rest in part.values()):
        return dict.fromkeys(part)
    made.odd += [(path, NO_CLASS) for path, rest in part.items() if len(rest) == 1]
    if layout == "leaves":
        return {path: "/".join(rest[:-1]) for path, rest in part.items() if len(rest) > 1}
    _note_deep_folders(part, made)
    return {path: rest[0] for path, rest in part.items() if len(rest) > 1}


def _note_deep_folders(part: dict[Path, Path], made: Layout) -> None:
    """Say that folders below the classes do not count, where no image lies in a class folder itself."""
    deep = {rest[:2] for rest in part.values() if len(rest) > 2}
    if len(deep) == len({folder[0] for folder in deep}) or any(len(rest) == 2 for rest in part.values()):
        return
    first = min(deep, key=lambda folder: byte_order("/".join(folder)))
    made.notes.append(
        f"every class has folders of its own, such as {_name(first)}, which count as the class {printable(first[0])}; "
        f"--layout leaves takes each of them as a class"
    )


def _refuse_unclear(images: list[Path], root: Path) -> None:
    """Refuse folders that are plainly no classes: a lone "train" with classes inside, or "images" beside "masks"."""
    tops: dict[str, set[int]] = defaultdict(set)  # folder -> how many folders lie between it and its images
    for path in images:
        if len(path) > len(root) + 1:
            tops[path[len(root)]].add(len(path) - len(root) - 2)
    names = sorted(tops, key=byte_order)
    if len(names) < 2:
        return
    for name in names:
        known = split_name(name)
        other = next(top for top in names if top != name)
        if known and not known.rest and min(tops[name]) > 0:
            raise SourceError(
                f"the folder {_name((*root, name))} looks like a split but {printable(other)!r} beside it is none; "
                f"{_choice(root, name, 'splits', 'classes')}"
            )
        if name.lower() in _PICTURES:
            raise SourceError(
                f"the folders {', '.join(map(printable, names[:5]))} all hold pictures, and {printable(name)!r} is no "
                f"name of a class; {_choice(root, name, 'classes')}"
            )


def _refuse_outside(outside: list[Path], nodes: dict[Path, dict[str, str]]) -> None:
    node, named = min(nodes.items(), key=lambda entry: byte_order(_name(entry[0])))
    odd = min(outside, key=lambda path: byte_order("/".join(path)))
    if odd[: len(node)] == node and len(odd) > len(node) + 1:
        what = printable(odd[len(node)])
    else:
        what = printable("/".join(odd[:-1])) or "."
    raise SourceError(
        f"the folders {', '.join(map(printable, sorted(named)))} look like splits but {what!r} is none; "
        f"{_choice(node, next(name for name in named if named[name] == TRAIN), 'splits', 'classes')}"
    )


def _choice(folder: Path, child: str, *layouts: str) -> str:
    """Return the options that decide: one folder alone, or a layout."""
    offers = [f"--folder {printable('/'.join((*folder, child)))} (that one alone)"]
    offers += [f"--layout {name} ({LAYOUTS[name]})" for name in layouts]
    return f"take {', or '.join(offers)}"


def _name(folder: Path) -> str:
    return printable("/".join(folder)) or "."
