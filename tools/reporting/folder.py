"""Writes the folder of a report completely or not at all, and never over anything that is not a report."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tools.command_line import Failure

PAGE, LIST = "report.html", "report.json"


def check_own(out: Path) -> None:
    """Check that `out` does not exist, is empty, or holds nothing but a report.

    Raises:
        Failure: it is not a folder, or holds something that is not part of a report.
    """
    if not out.exists() and not out.is_symlink():
        return
    remedy = "take another --out"
    if not out.is_dir() or out.is_symlink():
        raise Failure(f"{out} is not a folder; {remedy}")
    present = {path.name for path in out.iterdir()}
    try:
        own = set(json.loads((out / LIST).read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        own = set()
    if foreign := sorted(present - own - ({LIST} if own else set())):
        raise Failure(f"{out} holds {foreign[0]}, which is not part of a report; {remedy}")


def publish(out: Path, files: Mapping[str, bytes]) -> None:
    """Write the files into a hidden folder beside `out`, and then rename that folder to `out`.

    Args:
        out: the folder of the report.
        files: the contents of the files, by name.

    Raises:
        Failure: `out` holds something else (see `check_own`), or the disk is full or cannot be written. An earlier
            report is still there.
    """
    check_own(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _replace(out, files)
    except OSError as error:
        raise Failure(f"cannot write {out}: {error.strerror}; free some disk space, or take another --out") from None


def _replace(out: Path, files: Mapping[str, bytes]) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    partial, before = scratch / "report", scratch / "before"
    try:
        partial.mkdir()  # with the permissions of the user's umask, unlike mkdtemp's private folder
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
