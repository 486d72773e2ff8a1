"""Conversions for tests: a source with everything that occurs, refusals, parts of several machines, equality."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.formats.dataset import Dataset, image_names
from pipelines.formats.encoded import EncodedImages
from pipelines.formats.opening import verify
from tests.support.images import class_folder, encoded, smooth, write
from tools.convert import main


def refused(capsys: pytest.CaptureFixture[str], source: Path | str, out: Path, *options: str, workers: int = 1) -> str:
    """Converts, expects a refusal that leaves the folder as it was, and returns the message."""
    before = sorted(os.listdir(out.parent)) if out.parent.is_dir() else None
    assert main([str(source), str(out), "--workers", str(workers), *options]) == 1
    after = sorted(os.listdir(out.parent)) if out.parent.is_dir() else None
    assert before is None or out.parent == Path("/proc") or before == after
    captured = capsys.readouterr()
    assert_only_understood(captured.out)
    return captured.err


def assert_only_understood(output: str) -> None:
    """Nothing was printed but the tree that was understood: its name, its splits, and what was ignored."""
    lines = output.splitlines()
    assert not lines or lines[0].endswith("):")
    assert all(" -> " in line or line.startswith("  ignored: ") for line in lines[1:])


def one_line(text: str) -> str:
    assert text.count("\n") == 1
    assert text.startswith("tools.convert: ")
    return text


def mixed(root: Path) -> Path:
    """Class folders with JPEGs, a grey and a CMYK one, a small and a large PNG, and names that are hard to write."""
    folder = class_folder(root)
    write(folder / "cat" / "grey.jpg", encoded(smooth(20, 20)[..., 0]))
    write(folder / "cat" / "small.png", encoded(smooth(20, 21), "PNG"))
    write(folder / "dog" / "large.png", encoded(smooth(80, 90), "PNG"))
    write(folder / "dog" / "a\nb \\n.jpg", encoded(smooth(20, 24)))
    write(folder / "dog" / "caf\udce9.jpg", encoded(smooth(20, 25)))
    return folder


def images_of(dataset: Dataset) -> list[bytes]:
    with EncodedImages(dataset) as images:
        return [images[number].tobytes() for number in range(dataset.number)]


def same(first: Dataset, second: Dataset) -> None:
    """All that does not speak of files is equal."""
    assert images_of(first) == images_of(second)
    for name in ("heights", "widths", "labels"):
        assert (getattr(first, name) == getattr(second, name)).all()
    assert (first.table.mode == second.table.mode).all()
    assert {**first.card, "file": 0} == {**second.card, "file": 0}
    assert image_names(first) == image_names(second) != []
    verify(first)
    verify(second)


def convert_part(source: Path, out: Path, part: str, *options: str) -> Path:
    words = [str(source), str(out), "--format", "shards", "--workers", "1", "--shard", part, *options]
    assert main(words) == 0
    number, of = part.split("/")
    return out.with_name(f"{out.name}.part-{number}-of-{of}")
