"""The folder of a report: whole or absent, and never made over something that is not a report."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tools.command_line import Failure

PAGE, LIST = "report.html", "report.json"


def check_own(out: Path) -> None:
    """Refuses a place that holds anything but a report.

    Raises:
        Failure: a file, or a folder with something in it that no report has written.
    """
    if not out.exists() and not out.is_symlink():
        return
    elsewhere = "take another --out"
    if not out.is_dir() or out.is_symlink():
        raise Failure(f"{out} is not a folder; {elsewhere}")
    there = {path.name for path in out.iterdir()}
    try:
        own = set(json.loads((out / LIST).read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        own = set()
    if foreign := sorted(there - own - ({LIST} if own else set())):
        raise Failure(f"{out} holds {foreign[0]}, which is not of a report; {elsewhere}")


def publish(out: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files into a hidden folder beside `out`, which then takes its name.

    Raises:
        Failure: see `check_own`; or the disk is full or cannot be written, and an earlier report is still there.
    """
    check_own(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _replace(out, files)
    except OSError as error:
        raise Failure(f"cannot write {out}: {error.strerror}; make room, or take another --out") from None


def _replace(out: Path, files: Mapping[str, bytes]) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    partial, before = scratch / "report", scratch / "before"
    try:
        partial.mkdir()  # unlike mkdtemp's, one for those whom the user's umask admits
        for name, content in files.items():
            (partial / name).write_bytes(content)
        (partial / LIST).write_text(json.dumps({"made_by": "tools.report", "files": sorted(files)}) + "\n")
        if out.exists():
            out.rename(before)
        partial.rename(out)
    finally:
        if before.exists() and not out.exists():
            before.rename(out)
        shutil.rmtree(scratch, ignore_errors=True)
