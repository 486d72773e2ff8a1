"""A conversion from its parsed command line to finished files: `tools.convert` without its terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from pipelines.formats.registry import FORMATS
from pipelines.printable import printable
from tools.conversion.convert_source import Written, check_targets, convert_source, left_beside, target
from tools.conversion.encode import Settings
from tools.conversion.options import AUTO
from tools.conversion.pixel_values import range_of_all
from tools.conversion.recognise import check_exists, find_source
from tools.conversion.shard_merge import merge_parts
from tools.conversion.source import TRAIN, Request, Source
from tools.conversion.tree import SourceError
from tools.conversion.write_split import Options, Progress
from tools.staging import Staging


@contextmanager
def no_progress(total: int) -> Iterator[Progress]:
    """A progress report that goes nowhere."""
    yield lambda count: None


def convert(
    arguments: argparse.Namespace,
    progress: Callable[[int], AbstractContextManager[Progress]] = no_progress,
    understood: Callable[[Source], None] = lambda source: None,
) -> tuple[Source, list[Written]]:
    """Convert the source that a parsed command line names; all of its splits are written, or none.

    Args:
        arguments: from `options.parse`.
        progress: given the number of images, returns a context manager; its value is called with the number of images
            that were just done.
        understood: given the source before anything of it is written.

    Raises:
        BadFiles, SourceError, TargetError, WorkerError, OSError: nothing was written.
    """
    out, form, part = arguments.out, FORMATS[arguments.format], arguments.shard
    check_targets(out, [TRAIN], arguments.force, form, part)
    check_exists(arguments.source)
    scale = None if arguments.range == AUTO else arguments.range
    settings = Settings(arguments.max_size, arguments.quality, arguments.max_pixels, scale)
    options = Options(form, settings, arguments.workers, arguments.skip_bad, arguments.shard_size << 20, part)
    request = Request(arguments.follow_links, arguments.folder, arguments.layout, arguments.classes, arguments.labels)
    with _staging(target(out, TRAIN, part)) as staging:
        source = find_source(arguments.source, staging.folder, request)
        check_targets(out, list(source.splits), arguments.force, form, part)
        if arguments.range and source.card is not None:
            raise SourceError(
                f"--range is for values as files have them, and {printable(arguments.source)} holds 8 bits; "
                "convert the files that it was made of"
            )
        source.notes += left_beside(out, source) if part is None else []
        understood(source)
        if arguments.range == AUTO:
            options = _with_range_of_all(source, options)
        counts = [len(items) for items in source.splits.values()]
        with progress(sum(counts) if part is None else sum(len(part.range(images)) for images in counts)) as advance:
            return source, convert_source(source, out, staging, options, advance)


def _with_range_of_all(source: Source, options: Options) -> Options:
    items = [item for items in source.splits.values() for item in items]
    scale = range_of_all(items, options.settings.max_pixels, options.workers)
    source.notes.append(f"--range auto took the values {scale.low:g} to {scale.high:g}")
    return replace(options, settings=replace(options.settings, scale=scale))


def merge(arguments: argparse.Namespace) -> list[Written]:
    """Join the parts of a conversion that was split over machines.

    Raises:
        SourceError, TargetError: nothing was changed.
    """
    with _staging(arguments.merge) as staging:
        return merge_parts(arguments.merge, staging, arguments.force)


def _staging(out: Path) -> Staging:
    staging = Staging(out)
    if staging.completed:
        print(
            f"note: an earlier conversion to {printable(str(out))} was killed; it is complete now",
            file=sys.stderr,
        )
    for folder in staging.unclear:
        print(
            f"note: another conversion to {printable(str(out))} runs or was killed, and without locks on this file "
            f"system nobody can tell which; if none runs, remove {printable(str(folder))}",
            file=sys.stderr,
        )
    return staging
