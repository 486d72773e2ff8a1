"""What `tools.convert` prints on a terminal: progress, what was written, and which files are bad."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipelines.formats.card import card_path, skipped_path
from pipelines.formats.channels import uniform_channels
from pipelines.printable import printable
from tools.conversion.convert_source import Written, target
from tools.conversion.source import Source
from tools.conversion.system_files import summary as kinds_of
from tools.conversion.write_split import Progress as Advance

LISTED = 20  # bad files that are named; the others are counted


@contextmanager
def progress_bar(total: int) -> Iterator[Advance]:
    """Show a bar with rate and time left on a terminal, and nothing elsewhere.

    It is drawn by a thread of its own, on a duplicate of file descriptor 2: while an image is decoded, the descriptor
    itself may lead to where the lines of C libraries are caught.
    """
    if not os.isatty(2):
        yield lambda count: None
        return
    columns = (
        TextColumn("converting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} images/s"),
        TimeRemainingColumn(),
    )
    with os.fdopen(os.dup(2), "w") as terminal, Progress(*columns, console=Console(file=terminal)) as bar:
        task = bar.add_task("", total=total, rate=0.0)
        started, done = time.perf_counter(), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar.update(task, advance=count, rate=done / max(time.perf_counter() - started, 1e-9))

        yield advance


def describe_source(source: Source, out: Path) -> None:
    """Print the tree that was understood: the splits, their files, their classes, and what is ignored."""
    below = f", below {printable(source.root)}" if source.root else ""
    print(f"{printable(source.name)} ({printable(source.kind)}{below}):")
    for split, items in source.splits.items():
        counts = Counter(item.label for item in items)
        unlabelled = counts.pop(-1, 0)
        words = _classes([(source.classes[label], counts[label]) for label in sorted(counts)])
        if unlabelled:
            words.append(f"{unlabelled:,} unlabelled" if counts else "unlabelled")
        name = printable(target(out, split).name)
        print(f"  {split or 'train'} -> {name}: {len(items):,} images, {', '.join(words)}")
    if source.ignored:
        print(f"  ignored: {printable(kinds_of(source.ignored))}")
    print_notes(source)


def print_notes(source: Source) -> None:
    """Print the notes that were not printed yet."""
    for note in source.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    source.notes.clear()


def _classes(counts: list[tuple[str, int]], most: int = 6) -> list[str]:
    """Name every class with its images, or of many classes the first ones and the range of their sizes."""
    if not counts:
        return []
    named = ", ".join(f"{printable(name)} {count:,}" for name, count in counts[:most])
    if len(counts) <= most:
        return [f"{len(counts)} class{'es' if len(counts) > 1 else ''}: {named}"]
    numbers = [count for _, count in counts]
    low, high = min(numbers), max(numbers)
    sizes = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return [f"{len(counts):,} classes of {sizes} images: {named} ..."]


def list_bad(bad: list[tuple[str, str]], full_list: Path | None) -> None:
    """Print (name, reason) of some files, and where all of them are listed."""
    for name, reason in bad[:LISTED]:
        print(f"  {printable(name)}: {printable(reason)}", file=sys.stderr)
    if len(bad) > LISTED:
        where = f", all in {printable(str(full_list))}" if full_list else ""
        print(f"  and {len(bad) - LISTED} more{where}", file=sys.stderr)


def summarise(source: Source, written: list[Written], seconds: float) -> None:
    """Print what was converted, how fast, and what image libraries said of which file."""
    print_notes(source)
    if source.warned:
        print(f"warnings of image libraries, of {len({name for name, _ in source.warned}):,} images:", file=sys.stderr)
        list_bad(source.warned, None)
    number = sum(split.card["number"] for split in written)
    print(
        f"{printable(source.kind)}: {number:,} images, {len(source.classes)} classes, "
        f"{seconds:.1f} s ({number / max(seconds, 1e-9):,.0f} images/s); {len(source.ignored)} other files ignored"
    )
    list_written(written)


def list_written(written: list[Written]) -> None:
    """Print one line for each split, and the files that were skipped."""
    for split in written:
        card = split.card
        stored = ", ".join(f"{count:,} {kind}" for kind, count in card["settings"]["stored"].items() if count)
        line = f"  {printable(str(split.path))}: {card['number']:,} images ({card['labelled']:,} labelled; {stored}), "
        line += f"{card['file']['bytes'] / 1e6:.1f} MB"
        for kind, lengths in card["file"].items():
            if isinstance(lengths, list):  # the lengths of many files of one kind
                line += f" in {len(lengths)} {kind}"
        if "mean" in card:  # else it is a part
            mean, std = (" ".join(f"{value:.4f}" for value in card[key]) for key in ("mean", "std"))
            line += f", mean {mean}, std {std}; card {card_path(split.path).name}"
        print(line)
        for note in uniform_channels(card["mean"], card["std"]) if "mean" in card else ():
            print(f"note: {printable(split.path.name)}: {note}", file=sys.stderr)
    skipped = [(name, reason) for split in written for name, reason in split.card["settings"]["skipped"]]
    if skipped:
        print(f"left out {len(skipped)} files that cannot be converted:", file=sys.stderr)
        full_list = skipped_path(written[0].path)
        list_bad(skipped, full_list if full_list.exists() else None)
