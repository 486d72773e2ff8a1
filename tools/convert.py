"""Converts images to the files that training reads: python -m tools.convert SOURCE OUT.beton

A source with several splits gives one file for each: OUT.beton for training and OUT-test.beton, OUT-val.beton beside
it. Beside each file lies its card, OUT.beton.json. Either all of them are written or none.
"""

# Every worker process imports this file once more, so what is heavy is imported in the functions.
from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tools.encode import DEFAULT_QUALITY, RAW_LIMIT, Settings
from tools.source import TRAIN, Source
from tools.trees import SourceError, Tree, open_tree, shown
from tools.workers import WorkerError

if TYPE_CHECKING:
    from tools.conversion import Written

LISTED = 20  # bad files that are named; the rest is counted


def _whole(low: int, high: int) -> Any:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return parse


def parser() -> argparse.ArgumentParser:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    made = argparse.ArgumentParser(
        prog="python -m tools.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "source",
        metavar="SOURCE",
        help="an image folder (class sub-folders, or flat = unlabelled), a zip or tar of one, CIFAR-10/100 batches, "
        "STL-10 binaries, Tiny-ImageNet, or the word digits (scikit-learn's, no download)",
    )
    made.add_argument("out", metavar="OUT", type=Path, help="file to write, such as data/photos.beton")
    made.add_argument(
        "--format", choices=["beton"], default="beton", help="kind of file (default: %(default)s, FFCV's)"
    )
    made.add_argument(
        "--max-size",
        type=_whole(1, 65535),
        metavar="N",
        help="reduce images whose longer side has more than N pixels (default: keep their size)",
    )
    made.add_argument(
        "--quality",
        type=_whole(1, 100),
        metavar="N",
        help=f"JPEG quality 1 to 100 of images that must be encoded again (default: {DEFAULT_QUALITY}, and raw without "
        f"loss up to {RAW_LIMIT // 1024} KiB of pixels); JPEGs that need no change are kept byte for byte",
    )
    made.add_argument(
        "--workers", type=_whole(1, 1024), default=cores, metavar="N", help="processes (default: %(default)s)"
    )
    made.add_argument("--force", action="store_true", help="replace files that exist")
    made.add_argument("--skip-bad", action="store_true", help="leave out files that cannot be converted, and list them")
    return made


def recognise(tree: Tree) -> Source:
    """The layout of a tree: a published data set's own, else an image folder."""
    from tools.cifar import cifar
    from tools.folders import image_folder
    from tools.stl10 import stl10

    return cifar(tree) or stl10(tree) or image_folder(tree)


def _run(arguments: argparse.Namespace) -> tuple[Source, list[Written]]:
    from tools import conversion

    out: Path = arguments.out
    conversion.check_targets(out, [TRAIN], arguments.force)
    named = arguments.source == "digits"
    source_path = Path(arguments.source)
    if not named and not source_path.exists():
        raise SourceError(f"there is no source {shown(arguments.source)}; give a folder, a zip, a tar, or digits")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.stem}-", suffix=".tmp", dir=out.parent))
    except OSError as error:
        reason = error.strerror or error
        raise conversion.TargetError(
            f"the target {shown(str(out))} cannot be written: {reason}; give another, or free some space"
        ) from None
    try:
        if named:
            from tools.digits import digits

            source = digits()
        else:
            source = recognise(open_tree(source_path, staging))
        conversion.check_targets(out, list(source.splits), arguments.force)
        settings = Settings(arguments.max_size, arguments.quality)
        with _progress(sum(map(len, source.splits.values()))) as advance:
            written = conversion.convert(source, out, staging, settings, arguments.workers, arguments.skip_bad, advance)
        return source, written
    finally:
        conversion.clean_up(staging)


@contextlib.contextmanager
def _progress(total: int) -> Any:
    """A bar with rate and time left on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda count: None
        return
    columns = (
        TextColumn("converting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} images/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total, rate=0.0)
        started, done = time.perf_counter(), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar.update(task, advance=count, rate=done / max(time.perf_counter() - started, 1e-9))

        yield advance


def _list_bad(bad: list[tuple[str, str]], full_list: Path | None) -> None:
    for name, reason in bad[:LISTED]:
        print(f"  {shown(name)}: {shown(reason)}", file=sys.stderr)
    if len(bad) > LISTED:
        where = f", all in {shown(str(full_list))}" if full_list else ""
        print(f"  and {len(bad) - LISTED} more{where}", file=sys.stderr)


def _summary(source: Source, written: list[Written], seconds: float) -> None:
    from tools.conversion import skipped_path

    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    number = sum(split.card["number"] for split in written)
    print(
        f"{source.kind}: {number:,} images, {len(source.classes)} classes, "
        f"{seconds:.1f} s ({number / max(seconds, 1e-9):,.0f} images/s); {source.ignored} other files ignored"
    )
    for split in written:
        card = split.card
        stored = ", ".join(f"{count:,} {kind}" for kind, count in card["settings"]["stored"].items() if count)
        mean, std = (" ".join(f"{value:.4f}" for value in card[key]) for key in ("mean", "std"))
        print(
            f"  {shown(str(split.path))}: {card['number']:,} images ({card['labelled']:,} labelled; {stored}), "
            f"{card['file']['bytes'] / 1e6:.1f} MB, mean {mean}, std {std}; card {split.path.name}.json"
        )
    skipped = [(name, reason) for split in written for name, reason in split.card["settings"]["skipped"]]
    if skipped:
        print(f"left out {len(skipped)} files that cannot be converted:", file=sys.stderr)
        _list_bad(skipped, skipped_path(written[0].path))


def _stop(message: str, code: int = 1) -> int:
    print(f"convert: {message}", file=sys.stderr)
    return code


def _terminated(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code: 0 done, 1 not done, 2 wrong usage."""
    arguments = parser().parse_args(argv)
    out = shown(str(arguments.out))
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _terminated)
    from tools.conversion import BadFiles, TargetError

    started = time.perf_counter()
    try:
        source, written = _run(arguments)
    except BadFiles as error:
        print(
            "convert: nothing was written; these files cannot be converted (leave them out with --skip-bad):",
            file=sys.stderr,
        )
        _list_bad(error.bad, None)
        return 1
    except (SourceError, TargetError, WorkerError) as error:
        return _stop(f"{error}")
    except KeyboardInterrupt:
        return _stop("interrupted; nothing was written", 130)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _stop(f"the disk of {out} is full; nothing was written. Free some space, or give another target")
        return _stop(f"{error}; nothing was written")
    with contextlib.suppress(BrokenPipeError):  # the files are there, whoever stopped reading
        _summary(source, written, time.perf_counter() - started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
