"""A disk that is full, or a file that may not grow, during a conversion: one line, and what was there stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.formats.opening import open_dataset, verify
from tests.support.images import class_folder, encoded, write

ROOT = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--mount", "--map-root-user"]


def large_source(root: Path) -> Path:
    """About 14 MB of JPEGs."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 600, 800, 3), dtype=np.uint8)
    for number, picture in enumerate(noise):
        write(root / "cat" / f"{number}.jpg", encoded(picture, quality=85))
    return root


def shell(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script, "bash", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


SMALL_DISK = """
    mount -t tmpfs -o size=8m tmpfs /mnt && cd /mnt
    convert="$1 -m tools.convert --format $2 --workers 1 --shard-size 4"
    $convert "$3" "/mnt/$5" > /dev/null || exit 98
    before=$(find . -type f -exec md5sum {} + | sort)
    $convert "$4" "/mnt/$5" --force
    code=$?
    [ "$(find . -type f -exec md5sum {} + | sort)" = "$before" ] || exit 99
    exit $code
"""


@pytest.mark.parametrize("form", ["beton", "shards"])
def test_a_small_disk(tmp_path: Path, form: str) -> None:
    """A disk that the program alone sees, with an earlier data set under the same name."""
    if subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    few, many = class_folder(tmp_path / "few"), large_source(tmp_path / "photos")
    name = "p.beton" if form == "beton" else "p"
    found = subprocess.run(
        [*NAMESPACE, "bash", "-c", SMALL_DISK, "bash", sys.executable, form, few, many, name],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert found.returncode == 1, found
    assert found.stderr == (
        f"tools.convert: the disk of /mnt/{name} is full; nothing was written. Free some space or give another target\n"
    )


@pytest.mark.parametrize("form", ["beton", "shards"])
def test_files_that_may_not_grow(tmp_path: Path, form: str) -> None:
    source, out = large_source(tmp_path / "photos"), tmp_path / ("p.beton" if form == "beton" else "p")
    convert = f'{sys.executable} -m tools.convert "$1" "$2" --format {form} --workers 1 --shard-size 64'
    assert shell(convert, class_folder(tmp_path / "few"), out).returncode == 0
    found = shell(f"ulimit -f 3000; {convert} --force", source, out)
    assert found.returncode == 1
    assert (
        found.stderr
        == f"tools.convert: {out} would exceed the largest file size allowed here (ulimit -f); nothing was written\n"
    )
    assert {path.name for path in tmp_path.iterdir()} - {f"{out.name}.json", f"{out.name}.names"} == {
        "photos", "few", out.name,
    }  # fmt: skip
    dataset = open_dataset(out)
    assert dataset.number == 6
    verify(dataset)
