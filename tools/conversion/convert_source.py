"""From a recognised source to finished files: all splits are written, or none is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.formats import shard_format
from pipelines.formats.card import card_path, names_path
from pipelines.printable import printable
from tools.conversion.shard_parts import Part, part_file
from tools.conversion.source import TRAIN, Source
from tools.conversion.write_split import Options, Progress, convert_split
from tools.staging import Staging, TargetError


class BadFiles(ValueError):
    """Files that cannot be converted, as (name, reason)."""

    def __init__(self, bad: list[tuple[str, str]]) -> None:
        super().__init__(f"{len(bad)} files cannot be converted")
        self.bad = bad


@dataclass(frozen=True)
class Written:
    """A finished split: its file or folder, and its card (of a part, what it says of itself)."""

    path: Path
    card: dict[str, Any]


def target(out: Path, suffix: str, part: Part | None = None) -> Path:
    """photos.beton, and for the split "test" photos-test.beton."""
    path = out if suffix == TRAIN else out.with_name(f"{out.stem}-{suffix}{out.suffix}")
    return path if part is None else part.path(path)


def skipped_path(path: Path) -> Path:
    return path / "skipped.txt" if path.is_dir() else Path(f"{path}.skipped.txt")


def check_targets(out: Path, suffixes: list[str], force: bool, form: str, part: Part | None = None) -> None:
    """Refuses, before any work, what must not be replaced.

    Raises:
        TargetError: a file is in the way, by name.
    """
    for suffix in suffixes:
        path = target(out, suffix, part)
        if form == "beton" and path.is_dir():
            raise TargetError(f"the target {printable(str(path))} is a folder; give a file name, such as photos.beton")
        if form == "shards" and path.exists() and not (path.is_dir() and _replaceable(path)):
            raise TargetError(
                f"the target {printable(str(path))} exists and holds no shards; give the name of a folder to make"
            )
        files = (path, card_path(path), names_path(path)) if form == "beton" else (path,)
        for existing in files:
            if existing.exists() and not force:
                raise TargetError(
                    f"the target {printable(str(existing))} exists; give another name, or --force to replace it"
                )


def _replaceable(folder: Path) -> bool:
    return shard_format.is_shard_folder(folder) or part_file(folder).is_file() or not any(folder.iterdir())


def convert_source(source: Source, out: Path, staging: Staging, options: Options, progress: Progress) -> list[Written]:
    """Converts every split, or a part of each, into the staging folder and moves what is finished to its place.

    Raises:
        BadFiles: some files are bad and bad ones are not to be skipped, or none is good. Nothing was written.
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
    if bad:
        write_skipped(made[0], bad)
    places: list[tuple[Path, Path]] = []
    for a, written in zip(made, done, strict=True):
        if options.format == "shards":
            places.append((a, written.path))
        else:  # the card moves last: until it is there, what lies under the name is told to be another file
            companions = (lambda path: path, names_path, skipped_path, card_path)
            places += [(companion(a), companion(written.path)) for companion in companions]
    moves = [(a, b) for a, b in places if a.exists()]
    staging.commit(moves, remove=[b for a, b in places if not a.exists()])  # the latter of an earlier conversion
    return done


def write_skipped(path: Path, bad: list[tuple[str, str]]) -> None:
    """Lists (name, reason) of what was left out, beside a file or in a folder."""
    lines = "".join(f"{printable(name)}: {printable(reason)}\n" for name, reason in bad)
    skipped_path(path).write_text(lines, encoding="utf-8")
