"""Converts images to the files that training reads: `python -m tools.convert SOURCE OUT`; see its --help."""

# Every worker process imports this file again, so heavy imports are inside the functions.
from __future__ import annotations

import contextlib
import errno
import signal
import sys
import time
from typing import NoReturn

from pipelines.printable import printable
from tools.command_line import Failure, guarded_main
from tools.conversion.options import parse
from tools.conversion.process_pool import WorkerError
from tools.conversion.tree import SourceError
from tools.staging import TargetError


def _terminated(number: int, frame: object) -> NoReturn:
    """Handle SIGTERM: raise, so that staging folders and worker processes are cleaned up."""
    raise SystemExit(128 + number)


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0 if the data set was written, 1 if it was not, 2 for wrong usage."""
    return guarded_main("tools.convert", lambda: _convert_or_merge(argv))


def _convert_or_merge(argv: list[str] | None) -> int:
    from tools.conversion.convert import convert, merge
    from tools.conversion.summary import describe_source, list_bad, list_written, progress_bar, summarise
    from tools.conversion.tree import BadFiles

    arguments = parse(argv)
    out = printable(str(arguments.out or arguments.merge))
    with contextlib.suppress(ValueError):  # raised outside the main thread, where no handler can be set
        signal.signal(signal.SIGTERM, _terminated)
    started = time.perf_counter()
    try:
        if arguments.merge is not None:
            merged = merge(arguments)
            with contextlib.suppress(BrokenPipeError):
                print(f"merged in {time.perf_counter() - started:.1f} s:")
                list_written(merged)
            return 0
        source, written = convert(arguments, progress_bar, lambda source: describe_source(source, arguments.out))
    except BadFiles as error:
        print(
            "tools.convert: nothing was written; these files cannot be converted (leave them out with --skip-bad):",
            file=sys.stderr,
        )
        list_bad(error.bad, None)
        return 1
    except KeyboardInterrupt:
        raise Failure("interrupted; nothing was written", code=130) from None
    except OSError as error:
        raise Failure(_disk_error(error, out), code=1) from None
    except (SourceError, TargetError, WorkerError) as error:
        raise Failure(str(error), code=1) from None
    with contextlib.suppress(BrokenPipeError):  # the files are written, even if nobody reads the summary
        summarise(source, written, time.perf_counter() - started)
    return 0


def _disk_error(error: OSError, out: str) -> str:
    """Return an operating-system error in words that say what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {out} is full; nothing was written. Free some space or give another target"
    if error.errno == errno.EFBIG:
        return f"{out} would exceed the largest file size allowed here (ulimit -f); nothing was written"
    return f"{error}; nothing was written"


if __name__ == "__main__":
    sys.exit(main())
