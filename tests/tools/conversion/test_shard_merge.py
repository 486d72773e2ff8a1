"""A conversion split over machines gives what one machine gives; a part that does not fit is named."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.formats.card import DatasetError, names_path
from pipelines.formats.dataset import Dataset
from pipelines.formats.opening import open_dataset
from tests.support.conversion import convert_part, mixed, same
from tests.support.datasets import converted
from tests.support.images import class_folder, encoded, write
from tools.conversion.byte_locations import Item
from tools.conversion.shard_parts import Part
from tools.conversion.source import fingerprint
from tools.convert import main


def merged(out: Path) -> Dataset:
    assert main(["--merge", str(out)]) == 0
    return open_dataset(out)


def test_parts_cover_everything_once() -> None:
    for images in (0, 1, 5, 100, 1001):
        for of in (1, 2, 3, 7):
            parts = [Part(number, of).range(images) for number in range(1, of + 1)]
            assert [image for part in parts for image in part] == list(range(images))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("of", [1, 3, 20])
def test_equals_one_machine(tmp_path: Path, of: int) -> None:
    """With 20 parts of 11 images some are empty."""
    folder = mixed(tmp_path / "photos")
    whole = converted(folder, tmp_path / "whole", "--format", "shards")
    for number in range(of, 0, -1):  # in any order
        convert_part(folder, tmp_path / "s", f"{number}/{of}")
    joined = merged(tmp_path / "s")
    same(whole, joined)
    keys = [path.read_bytes() for path in joined.table.files]
    assert len(keys) == min(of, 11)
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "whole", "s"}
    same(whole, converted(joined.path, tmp_path / "back.beton"))


def test_images_and_keys_are_those_of_one_machine(tmp_path: Path) -> None:
    """Joined, the tars hold the same members with the same bytes."""
    import tarfile

    def members(dataset: Dataset) -> list[tuple[str, bytes]]:
        found = []
        for file in dataset.table.files:
            with tarfile.open(file) as tar:
                found += [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
        return found

    folder = mixed(tmp_path / "photos")
    write(folder / "cat" / "0bad.jpg", b"x")
    whole = converted(folder, tmp_path / "whole", "--format", "shards", "--skip-bad")
    for number in (1, 2):
        convert_part(folder, tmp_path / "s", f"{number}/2", "--skip-bad")
    joined = merged(tmp_path / "s")
    assert members(joined) == members(whole)
    same(whole, joined)
    assert (joined.path / "skipped.txt").read_text() == (whole.path / "skipped.txt").read_text()


def test_splits_and_another_place(tmp_path: Path) -> None:
    for machine in "ab":
        for split in ("train", "test"):
            class_folder(tmp_path / machine / "photos" / split, each=2 if split == "test" else 5)
    whole = converted(tmp_path / "a" / "photos", tmp_path / "whole", "--format", "shards", "--max-size", "20")
    for number, machine in enumerate("ab", 1):
        convert_part(tmp_path / machine / "photos", tmp_path / "s", f"{number}/2", "--max-size", "20")
    same(whole, merged(tmp_path / "s"))
    same(open_dataset(tmp_path / "whole-test"), open_dataset(tmp_path / "s-test"))


def test_parts_of_a_converted_source(tmp_path: Path) -> None:
    beton = converted(mixed(tmp_path / "photos"), tmp_path / "a.beton")
    for number in (1, 2):
        convert_part(beton.path, tmp_path / "s", f"{number}/2")
    same(beton, merged(tmp_path / "s"))


def test_a_part_is_no_data_set(tmp_path: Path) -> None:
    part = convert_part(class_folder(tmp_path / "photos"), tmp_path / "s", "1/2")
    with pytest.raises(DatasetError, match=r"is one part of a conversion.*--merge .*/s$"):
        open_dataset(part)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)


def replaced(two: Path, other: Path) -> None:
    shutil.rmtree(two)
    shutil.copytree(other, two)


def edit(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "part.json").read_text())
    (folder / "part.json").write_text(json.dumps(card | changes))


HARM = [
    (lambda one, two, three: shutil.rmtree(two), "1 of 3 parts missing: s.part-2-of-3;"),
    (lambda one, two, three: replaced(two, three), "s.part-2-of-3 holds part 3 of 3, doubled or renamed"),
    (lambda one, two, three: two.rename(one.parent / "s.part-1-of-4"), "in 3 and of one in 4, such as s.part-1-of-4"),
    (lambda one, two, three: shutil.copytree(two, one.parent / "s.part-4-of-3"), "s.part-4-of-3 is no part of 3"),
    (lambda one, two, three: truncate(two / "shard-000000.tar"), "s.part-2-of-3.*shard-000000.tar has .*cut short"),
    (lambda one, two, three: (two / "shard-000000.tar").unlink(), "s.part-2-of-3.*lacks its shard shard-000000.tar"),
    (lambda one, two, three: (two / "index").unlink(), "s.part-2-of-3.*lacks its index"),
    (lambda one, two, three: truncate(two / "index"), "s.part-2-of-3.*index"),
    (lambda one, two, three: flip(two / "index", 60), "s.part-2-of-3.*checksum differs"),
    (lambda one, two, three: shutil.copy(three / "index", two / "index"), "s.part-2-of-3.*is not the index"),
    (lambda one, two, three: (two / "names").unlink(), "s.part-2-of-3 is not complete: names"),
    (lambda one, two, three: (two / "names").write_text("x\n"), "s.part-2-of-3 is damaged: its names"),
    (lambda one, two, three: (two / "part.json").unlink(), "s.part-2-of-3 is not complete: part.json"),
    (lambda one, two, three: truncate(two / "part.json"), "s.part-2-of-3 is damaged"),
    (lambda one, two, three: edit(two, job={}), "s.part-2-of-3 is damaged: 'source'"),
    (lambda one, two, three: edit(two, part=7), "s.part-2-of-3 is damaged"),
    (lambda one, two, three: flip(two / "shard-000000.tar", 800), "s.part-2-of-3 is damaged: 1 images changed"),
]


@pytest.mark.parametrize(("harm", "message"), HARM)
def test_parts_that_are_refused(tmp_path: Path, harm, message: str, capsys) -> None:  # type: ignore[no-untyped-def]
    folder = class_folder(tmp_path / "photos")
    parts = [convert_part(folder, tmp_path / "s", f"{number}/3") for number in (1, 2, 3)]
    refused(tmp_path / "s", message, capsys, lambda: harm(*parts))


def refused(out: Path, message: str, capsys, harm=lambda: None) -> None:  # type: ignore[no-untyped-def]
    """The merge says one line, and leaves all as it is."""
    harm()
    before = sorted(path for path in out.parent.rglob("*") if "photos" not in path.parts)
    capsys.readouterr()
    assert main(["--merge", str(out)]) == 1
    text = capsys.readouterr().err
    assert text.startswith("tools.convert: ") and text.count("\n") == 1
    assert re.search(message, text), text
    assert before == sorted(path for path in out.parent.rglob("*") if "photos" not in path.parts)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        (("--max-size", "20"), None, r"s.part-2-of-2 and s.part-1-of-2 differ in the --max-size \(20, not None\)"),
        (("--quality", "50"), None, r"differ in the --quality \(50, not None\)"),
        (("--skip-bad",), None, r"differ in the --skip-bad \(True, not False\)"),
        ((), "more", r"s.part-2-of-2 and s.part-1-of-2 differ in the number of images in the source \(7, not 6\)"),
        ((), "renamed", "differ in the list of images"),
    ],
)
def test_parts_of_different_conversions(tmp_path: Path, options, change, message, capsys) -> None:  # type: ignore[no-untyped-def]
    folder = class_folder(tmp_path / "photos")
    convert_part(folder, tmp_path / "s", "1/2")
    if change == "more":
        shutil.copy(folder / "dog" / "0.jpg", folder / "dog" / "new.jpg")
    if change == "renamed":
        (folder / "dog" / "0.jpg").rename(folder / "dog" / "00.jpg")
    convert_part(folder, tmp_path / "s", "2/2", *options)
    refused(tmp_path / "s", message, capsys)


def test_another_source(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    convert_part(class_folder(tmp_path / "photos"), tmp_path / "s", "1/2")
    convert_part(class_folder(tmp_path / "photos" / "other"), tmp_path / "s", "2/2")
    refused(tmp_path / "s", r"differ in the source \(other, not photos\)", capsys)
    refused(tmp_path / "nothing", "there are no parts of .*nothing; make each with", capsys)
    refused(tmp_path / "nowhere" / "s", "there are no parts of", capsys)


def test_an_existing_target(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    folder = class_folder(tmp_path / "photos")
    converted(folder, tmp_path / "s", "--format", "shards")
    part = convert_part(folder, tmp_path / "s", "1/1")
    refused(tmp_path / "s", "exists; give another name, or --force", capsys)
    names_path(tmp_path / "s").unlink()
    assert main(["--merge", str(tmp_path / "s"), "--force"]) == 0
    assert names_path(tmp_path / "s").exists() and not part.exists()


def test_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise OSError("no links here")

    folder = class_folder(tmp_path / "photos")
    whole = converted(folder, tmp_path / "whole", "--format", "shards")
    for number in (1, 2):
        convert_part(folder, tmp_path / "s", f"{number}/2")
    monkeypatch.setattr(os, "link", no_link)
    same(whole, merged(tmp_path / "s"))


def test_bounded_shards_stay_as_they_are(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 800, 800, 3), dtype=np.uint8)
    for number, picture in enumerate(noise):
        write(tmp_path / "photos" / "cat" / f"{number}.jpg", encoded(picture, quality=90))
    for number in (1, 2):
        part = convert_part(tmp_path / "photos", tmp_path / "s", f"{number}/2", "--shard-size", "1")
        assert len(list(part.glob("*.tar"))) == 2
    joined = merged(tmp_path / "s")
    assert len(joined.table.files) == 4 and max(joined.table.lengths) <= 1 << 20


def test_each_split_s_list_of_images_is_summed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(items: list[Item]) -> str:
        seen.append(len(items))
        return fingerprint(items)

    monkeypatch.setattr("tools.conversion.source.fingerprint", counted)
    for number, split in enumerate(("train", "val", "test"), 2):
        class_folder(tmp_path / "photos" / split, each=number)
    convert_part(tmp_path / "photos", tmp_path / "s", "1/2")
    assert sorted(seen) == [4, 6, 8]
