"""From a recognised source to finished files: all splits are written, or none."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.formats.card import DatasetError, part_path, read_card, skipped_path, write_card
from pipelines.formats.conversion_mark import KEY, are_siblings, marks, split_path
from pipelines.formats.format import Format
from pipelines.formats.registry import format_of
from pipelines.printable import printable
from tools.conversion.shard_parts import Part
from tools.conversion.source import TRAIN, Source
from tools.conversion.split_names import SPLITS
from tools.conversion.tree import BadFiles
from tools.conversion.write_split import Options, Progress, convert_split
from tools.staging import Staging, TargetError


@dataclass(frozen=True)
class Written:
    """A finished split: its file or folder, and its card (for one machine's part, what it says of itself)."""

    path: Path
    card: dict[str, Any]


def target(out: Path, suffix: str, part: Part | None = None) -> Path:
    """Return where a split goes: photos.beton, and for the split "test" photos-test.beton."""
    path = split_path(out, suffix)
    return path if part is None else part.path(path)


def check_targets(out: Path, suffixes: list[str], force: bool, form: Format, part: Part | None = None) -> None:
    """Refuse, before any work, to replace what must not be replaced.

    Args:
        suffixes: keys of the splits.
        force: whether files of an earlier conversion are replaced.
        form: the format to write.

    Raises:
        TargetError: a file or folder is in the way; the message names it.
    """
    for suffix in suffixes:
        path = target(out, suffix, part)
        if not form.is_folder and path.is_dir():
            raise TargetError(
                f"the target {printable(str(path))} is a folder; give a file name, such as photos{form.suffix}"
            )
        if form.is_folder and path.exists() and not _replaceable(path):
            raise TargetError(
                f"the target {printable(str(path))} exists and holds no {form.name}; give the name of a folder to make"
            )
        for existing in form.files_at(path):
            if existing.exists() and not force:
                raise TargetError(
                    f"the target {printable(str(existing))} exists; give another name, or --force to replace it"
                )


def left_beside(out: Path, source: Source) -> list[str]:
    """Return a line for each split of an earlier conversion that lies beside OUT and is not replaced by this one."""
    lines = []
    for split in sorted(set(SPLITS.values()) - source.splits.keys()):
        path = target(out, split)
        if split == TRAIN or format_of(path) is None:
            continue
        with contextlib.suppress(DatasetError):
            card = read_card(path)
            if source.conversion is not None and are_siblings({KEY: source.conversion}, card, split) is not False:
                continue
            lines.append(
                f"{printable(str(path))} stays; it is from another conversion (source "
                f"{printable(str(card.get('source')))}), and training takes it only if it is named with --val-data"
            )
    return lines


def _replaceable(folder: Path) -> bool:
    """Whether it is a folder that conversion may have made, or an empty one."""
    return folder.is_dir() and (
        format_of(folder) is not None or part_path(folder).is_file() or not any(folder.iterdir())
    )


def convert_source(source: Source, out: Path, staging: Staging, options: Options, progress: Progress) -> list[Written]:
    """Convert every split, or a part of each, into the staging folder, and then give all of them their names.

    Raises:
        BadFiles: some files are bad and `skip_bad` is off, or all are bad. Nothing was written.
        SourceError: a converted source is damaged. Nothing was written.
        OSError, WorkerError: nothing was written.
    """
    if not options.settings.keep:
        source = replace(source, card=None)  # its images may change
    bad = list(source.bad)
    done: list[Written] = []
    for suffix in source.splits:
        path = target(out, suffix, options.part)
        done.append(Written(path, convert_split(source, suffix, staging.folder / path.name, options, bad, progress)))
    empty = options.part is None and any(written.card["number"] == 0 for written in done)
    if bad and (not options.skip_bad or empty):
        raise BadFiles(bad)
    made = [staging.folder / written.path.name for written in done]
    if options.part is None:
        write_cards(dict(zip(source.splits, done, strict=True)), made, source.conversion)
    if bad:
        write_skipped(made[0], bad)
    moves = [
        pair
        for a, written in zip(made, done, strict=True)
        for pair in zip(options.format.files_at(a), options.format.files_at(written.path), strict=True)
    ]
    obsolete = [b for a, b in moves if not a.exists()]  # of an earlier conversion
    staging.commit([(a, b) for a, b in moves if a.exists()], remove=obsolete)
    return done


def write_cards(done: dict[str, Written], made: list[Path], inherited: dict[str, Any] | None) -> None:
    """Write the cards of all splits, with the mark by which they know each other.

    Args:
        done: split -> what was written.
        made: where the files of each split are now.
        inherited: what the card of a converted source says of its conversion; None for other sources.
    """
    said = marks({split: written.card["checksum"] for split, written in done.items()})
    for (split, written), path in zip(done.items(), made, strict=True):
        conversion = said[split] if inherited is None else inherited
        if conversion:
            written.card[KEY] = conversion
        write_card(path, written.card)


def write_skipped(path: Path, bad: list[tuple[str, str]]) -> None:
    """Write the list of skipped files, (name, reason), among the companions of the data set at `path`."""
    lines = "".join(f"{printable(name)}: {printable(reason)}\n" for name, reason in bad)
    skipped_path(path).write_text(lines, encoding="utf-8")
