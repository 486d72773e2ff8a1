"""Join the parts of a conversion that was split over machines: every byte is checked, no image is encoded again.

The tars are linked to their new names (copied where the file system has no links), and the indexes are joined. What the
parts could not know is computed from all of them, so order, checksum, mean and deviation are those of one machine.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.card import DatasetError, names_path, part_path
from pipelines.formats.digests import content_checksum, hexadecimal
from pipelines.formats.opening import open_dataset, read_digests
from pipelines.formats.regular_file import content
from pipelines.formats.shard_format import (
    INDEX,
    SHARDS,
    checked_shards,
    file_facts,
    index_bytes,
    read_index,
    sample_digests,
    shard_name,
)
from pipelines.printable import printable
from tools.conversion.convert_source import Written, check_targets, target, write_cards, write_skipped
from tools.conversion.shard_parts import JOB, MOMENTS, OF_A_SPLIT, PART_FORMAT, Part, found_parts
from tools.conversion.source import TRAIN
from tools.conversion.split_statistics import describe
from tools.conversion.tree import SourceError
from tools.conversion.write_split import check_copy
from tools.staging import Staging

_LONG = ("images", "card", "classes", "conversion", "all_images")  # what a message does not quote


def merge_parts(out: Path, staging: Staging, force: bool) -> list[Written]:
    """Join the parts of `out` and of its other splits, and remove them when the result has its name.

    Raises:
        SourceError: a part is missing, doubled, truncated, damaged or of another conversion, by name.
        TargetError: `out` exists.
    """
    first = _cards(out)
    splits = next(iter(first.values()))[1]["job"]["splits"]
    check_targets(out, splits, force, SHARDS)
    done: list[Written] = []
    remove: list[Path] = []
    parts: dict[str, dict[Part, tuple[Path, dict[str, Any]]]] = {}
    for suffix in splits:
        path = target(out, suffix)
        cards = first if suffix == TRAIN else _cards(path)
        if suffix != TRAIN and (list(cards) != list(first) or _job(cards) != _job(first)):
            raise SourceError(
                f"the parts of {printable(path.name)} are not those of {printable(out.name)}; convert them again"
            )
        parts[suffix] = cards
        done.append(Written(path, _merge_split(staging.folder / path.name, cards)))
        remove += [folder for folder, _ in cards.values()]
    made = [staging.folder / written.path.name for written in done]
    inherited = next(iter(first.values()))[1]["job"]["conversion"]
    write_cards(dict(zip(splits, done, strict=True)), made, inherited)
    for path, cards in zip(made, parts.values(), strict=True):
        _check_images(path, cards)
    skipped = [(name, reason) for written in done for name, reason in written.card["settings"]["skipped"]]
    if skipped:
        write_skipped(staging.folder / out.name, skipped)
    staging.commit([(staging.folder / written.path.name, written.path) for written in done], remove)
    return done


def _cards(path: Path) -> dict[Part, tuple[Path, dict[str, Any]]]:
    """Return every part's folder and what it says of itself.

    Raises:
        SourceError: a part is missing, or belongs to another conversion.
    """
    folders = found_parts(path) if path.parent.is_dir() else {}
    if not folders:
        raise SourceError(
            f"there are no parts of {printable(str(path))}; make each with: "
            f"python -m tools.convert SOURCE {printable(str(path))} --format shards --shard i/n"
        )
    counts = sorted({part.of for part in folders})
    if len(counts) > 1:
        other = next(folder.name for part, folder in folders.items() if part.of == counts[1])
        raise SourceError(
            f"there are parts of a conversion in {counts[0]} and of one in {counts[1]}, such as {printable(other)}; "
            "remove the wrong ones"
        )
    missing = [Part(number, counts[0]) for number in range(1, counts[0] + 1) if Part(number, counts[0]) not in folders]
    if missing:
        names = ", ".join(printable(part.path(path).name) for part in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise SourceError(f"{len(missing)} of {counts[0]} parts missing: {names}{more}; convert them, then merge again")
    beyond = [folder for part, folder in folders.items() if not 1 <= part.number <= part.of]
    if beyond:
        raise SourceError(f"{printable(beyond[0].name)} is no part of {counts[0]}; remove it")
    cards = {part: (folder, _read_part(folder, part)) for part, folder in folders.items()}
    first_folder, first = next(iter(cards.values()))
    for folder, card in cards.values():
        for key, words in JOB.items():
            if card["job"].get(key) != first["job"].get(key):
                values = "" if key in _LONG else f" ({_said(card, key)}, not {_said(first, key)})"
                raise SourceError(
                    f"{printable(folder.name)} and {printable(first_folder.name)} differ in the {words}{values}; "
                    "convert one of them again"
                )
    return cards


def _job(cards: dict[Part, tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """What the parts of one split say of the conversion, without what differs between its splits."""
    job = next(iter(cards.values()))[1]["job"]
    return {key: job[key] for key in JOB if key not in OF_A_SPLIT}


def _said(card: dict[str, Any], key: str) -> str:
    return printable(str(card["job"].get(key)))


def _read_part(folder: Path, part: Part) -> dict[str, Any]:
    """Return what a part says of itself, after comparing it with its name and its files."""
    name = printable(folder.name)
    again = f"convert it again with --shard {part.number}/{part.of} --force, or copy the folder again"
    try:
        card: dict[str, Any] = json.loads(content(part_path(folder)))
        if card["format"] != PART_FORMAT:
            raise SourceError(f"{name} is no part of a conversion; {again}")
        if tuple(card["part"]) != part:
            number, of = card["part"]
            raise SourceError(f"{name} holds part {number} of {of}, doubled or renamed; {again}")
        checked_shards(folder, card["file"])
        for companion, checksum in card["companions"].items():
            if hexadecimal(content(folder / companion)) != checksum:
                raise SourceError(f"{name} is damaged: its {companion} was cut or edited; {again}")
        _ = [card["job"][key] for key in JOB], card["settings"]["stored"]
    except SourceError:
        raise
    except OSError as error:
        missing = Path(error.filename).name if error.filename else "a file"
        raise SourceError(f"{name} is not complete: {missing}: {error.strerror}; {again}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{name} is damaged: {error}; {again}") from None
    return card


def _merge_split(made: Path, cards: dict[Part, tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """Make the folder of one split, without its card, which is returned."""
    made.mkdir()
    records, moments = [], []
    count = 0  # shards so far
    with open(names_path(made), "xb") as names:
        for folder, _ in cards.values():
            of_part, shards = read_index(folder / INDEX)
            of_part = of_part.copy()
            of_part["shard"] += count
            records.append(of_part)
            moments.append(np.load(io.BytesIO(content(folder / MOMENTS)), allow_pickle=False))
            for number in range(shards):
                _link(folder / shard_name(number), made / shard_name(count))
                count += 1
            names.write(content(names_path(folder)))
        names.flush()
        os.fsync(names.fileno())
    joined = np.concatenate(records)
    if not len(joined):
        raise SourceError(f"all {len(cards)} parts of {printable(made.name)} are empty; there is nothing to merge")
    with open(made / INDEX, "xb") as file:
        file.write(index_bytes(joined, count))
        file.flush()
        os.fsync(file.fileno())
    card = _card([card for _, card in cards.values()], joined, np.concatenate(moments))
    card["file"] = file_facts(made)
    return card


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
        with open(target, "rb") as file:
            os.fsync(file.fileno())


def _card(parts: list[dict[str, Any]], records: NDArray[Any], moments: NDArray[np.float64]) -> dict[str, Any]:
    job, labels, digests = parts[0]["job"], records["label"].astype(np.int64), sample_digests(records)
    if job["card"] is not None:
        check_copy(job["card"], content_checksum(digests, labels))
        return dict(job["card"])
    heights, widths = records["height"].astype(np.int32), records["width"].astype(np.int32)
    classes = tuple(job["classes"])
    card = describe(job["source"], job["layout"], classes, heights, widths, labels, digests, moments)
    settings = dict(parts[0]["settings"])
    settings["stored"] = {kind: sum(part["settings"]["stored"][kind] for part in parts) for kind in settings["stored"]}
    settings["skipped"] = [entry for part in parts for entry in part["settings"]["skipped"]]
    return card | {"settings": settings}


def _check_images(made: Path, cards: dict[Part, tuple[Path, dict[str, Any]]]) -> None:
    """Read every image once, because a tar with the right length may still have been copied badly."""
    records, _ = read_index(made / INDEX)
    origin = [folder for folder, _ in cards.values() for _ in range(read_index(folder / INDEX)[1])]  # of each shard
    try:
        dataset = open_dataset(made, check="none")  # the next line reads all
        found = np.frombuffer(read_digests(dataset), dtype=records["digest"].dtype)
    except DatasetError as error:
        raise SourceError(f"the parts do not make a data set: {error}") from None
    wrong = np.flatnonzero(found != records["digest"])
    if len(wrong):
        part = origin[int(records["shard"][wrong[0]])]
        raise SourceError(f"{printable(part.name)} is damaged: {len(wrong)} images changed; convert or copy it again")
