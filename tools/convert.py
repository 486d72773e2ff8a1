"""Converts images to the files that training reads: python -m tools.convert SOURCE OUT; its --help says all."""

# Every worker process imports this file once more, so what is heavy is imported in the functions.
from __future__ import annotations

import argparse
import contextlib
import errno
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines.formats.card import card_path
from tools.conversion.encode import Settings
from tools.conversion.open_source import SourceError, Tree, open_tree, shown
from tools.conversion.options import check_usage, parser
from tools.conversion.process_pool import WorkerError
from tools.conversion.source import TRAIN, Source
from tools.staging import Staging, TargetError

if TYPE_CHECKING:
    from tools.conversion.convert_source import Written

LISTED = 20  # bad files that are named; the rest is counted


def recognise(tree: Tree) -> Source:
    """The layout of a tree: a published data set's own, else an image folder."""
    from tools.conversion.cifar import cifar
    from tools.conversion.image_folder import image_folder
    from tools.conversion.stl10 import stl10

    return cifar(tree) or stl10(tree) or image_folder(tree)


def _source(name: str, scratch: Path, follow_links: bool) -> Source:
    from tools.conversion.existing_dataset import converted

    if name == "digits":
        from tools.conversion.digits import digits

        return digits()
    return converted(Path(name)) or recognise(open_tree(Path(name), scratch, follow_links))


def _staging(out: Path) -> Staging:
    staging = Staging(out)
    if staging.completed:
        print(f"note: an earlier conversion to {shown(str(out))} was killed; it is complete now", file=sys.stderr)
    for folder in staging.unclear:
        print(
            f"note: another conversion to {shown(str(out))} runs or was killed, which cannot be told on a file system "
            f"without locks; if none runs, remove {shown(str(folder))}",
            file=sys.stderr,
        )
    return staging


def _run(arguments: argparse.Namespace) -> tuple[Source, list[Written]]:
    from tools.conversion import convert_source as conversion
    from tools.conversion.write_split import Options

    out, form, part = arguments.out, arguments.format, arguments.shard
    conversion.check_targets(out, [TRAIN], arguments.force, form, part)
    if arguments.source != "digits" and not Path(arguments.source).exists():
        raise SourceError(f"there is no source {shown(arguments.source)}; give a folder, a zip, a tar, or digits")
    settings = Settings(arguments.max_size, arguments.quality, arguments.max_pixels)
    options = Options(form, settings, arguments.workers, arguments.skip_bad, arguments.shard_size << 20, part)
    with _staging(conversion.target(out, TRAIN, part)) as staging:
        source = _source(arguments.source, staging.folder, arguments.follow_links)
        conversion.check_targets(out, list(source.splits), arguments.force, form, part)
        whole = [len(items) for items in source.splits.values()]
        with _progress(sum(whole) if part is None else sum(len(part.range(images)) for images in whole)) as advance:
            return source, conversion.convert(source, out, staging, options, advance)


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
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    number = sum(split.card["number"] for split in written)
    print(
        f"{shown(source.kind)}: {number:,} images, {len(source.classes)} classes, "
        f"{seconds:.1f} s ({number / max(seconds, 1e-9):,.0f} images/s); {source.ignored} other files ignored"
    )
    _list_written(written)


def _list_written(written: list[Written]) -> None:
    from tools.conversion.convert_source import skipped_path

    for split in written:
        card = split.card
        stored = ", ".join(f"{count:,} {kind}" for kind, count in card["settings"]["stored"].items() if count)
        line = f"  {shown(str(split.path))}: {card['number']:,} images ({card['labelled']:,} labelled; {stored}), "
        line += f"{card['file']['bytes'] / 1e6:.1f} MB"
        if "shards" in card["file"]:
            line += f" in {len(card['file']['shards'])} shards"
        if "mean" in card:  # else it is a part
            mean, std = (" ".join(f"{value:.4f}" for value in card[key]) for key in ("mean", "std"))
            line += f", mean {mean}, std {std}; card {card_path(split.path).name}"
        print(line)
    skipped = [(name, reason) for split in written for name, reason in split.card["settings"]["skipped"]]
    if skipped:
        print(f"left out {len(skipped)} files that cannot be converted:", file=sys.stderr)
        full_list = skipped_path(written[0].path)
        _list_bad(skipped, full_list if full_list.exists() else None)


def _merge(arguments: argparse.Namespace) -> list[Written]:
    from tools.conversion.shard_merge import merge

    with _staging(arguments.merge) as staging:
        return merge(arguments.merge, staging, arguments.force)


def _stop(message: str, code: int = 1) -> int:
    print(f"convert: {message}", file=sys.stderr)
    return code


def _terminated(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code: 0 done, 1 not done, 2 wrong usage."""
    made = parser()
    arguments = made.parse_args(argv)
    check_usage(made, arguments)
    out = shown(str(arguments.out or arguments.merge))
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, _terminated)
    from tools.conversion.convert_source import BadFiles

    started = time.perf_counter()
    try:
        if arguments.merge is not None:
            merged = _merge(arguments)
            with contextlib.suppress(BrokenPipeError):
                print(f"merged in {time.perf_counter() - started:.1f} s:")
                _list_written(merged)
            return 0
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
        if error.errno == errno.EFBIG:
            return _stop(f"{out} would be larger than a file may be here (ulimit -f); nothing was written")
        return _stop(f"{error}; nothing was written")
    with contextlib.suppress(BrokenPipeError):  # the files are there, whoever stopped reading
        _summary(source, written, time.perf_counter() - started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
