"""Shards and .beton hold the same images: from every source, in both directions, with the same card."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.formats.card import DatasetError, card_path, names_path, sealed
from pipelines.formats.dataset import image_names
from pipelines.formats.opening import open_dataset, verify
from tests.support.conversion import mixed, same
from tests.support.datasets import converted
from tests.support.images import class_folder, encoded, smooth, write
from tools.convert import main

SHARED = Path(__file__).parents[4] / "shared" / "data"


def test_both_directions(tmp_path: Path) -> None:
    folder = mixed(tmp_path / "photos")
    beton = converted(folder, tmp_path / "a.beton")
    shards = converted(folder, tmp_path / "a", "--format", "shards")
    assert (shards.format, beton.format) == ("shards", "beton")
    assert shards.card["settings"]["stored"] == {"untouched": 9, "re-encoded": 1, "raw": 1}
    same(beton, shards)
    same(beton, converted(beton.path, tmp_path / "b", "--format", "shards"))
    back = converted(tmp_path / "b", tmp_path / "c.beton")
    same(beton, back)
    assert back.path.read_bytes() == beton.path.read_bytes()
    same(beton, converted(shards.path, tmp_path / "d", "--format", "shards", "--workers", "2"))


@pytest.mark.slow
def test_ffcv_reads_what_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    from ffcv.reader import Reader

    converted(mixed(tmp_path / "photos"), tmp_path / "a", "--format", "shards")
    back = converted(tmp_path / "a", tmp_path / "a.beton")
    reader = Reader(str(back.path))
    assert int(reader.num_samples) == 11
    assert (reader.metadata["f0"]["height"] == back.heights).all()


def test_unlabelled(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    for number in range(3):
        write(folder / f"{number}.jpg", encoded(smooth(16, 16, number)))
    dataset = converted(folder, tmp_path / "s", "--format", "shards")
    assert dataset.labels.tolist() == [-1] * 3 and dataset.classes == ()
    names = subprocess.run(["tar", "tf", dataset.table.files[0]], capture_output=True, text=True, check=True).stdout
    assert names.split() == [f"{number:09d}.jpg" for number in range(3)]
    same(dataset, converted(dataset.path, tmp_path / "s.beton"))


def test_splits_and_skipped_files(tmp_path: Path) -> None:
    for split in ("train", "test"):
        class_folder(tmp_path / "photos" / split)
        write(tmp_path / "photos" / split / "cat" / "bad.jpg", b"x")
    options = ("--format", "shards", "--skip-bad")
    train = converted(tmp_path / "photos", tmp_path / "s", *options)
    test = open_dataset(tmp_path / "s-test")
    assert train.number == test.number == 6
    assert [name for name, _ in train.card["settings"]["skipped"]] == ["train/cat/bad.jpg"]
    assert len((train.path / "skipped.txt").read_text().splitlines()) == 2
    beton = converted(tmp_path / "photos", tmp_path / "p.beton", "--skip-bad")
    same(train, beton)
    same(test, open_dataset(tmp_path / "p-test.beton"))


def test_settings_apply_to_a_converted_source(tmp_path: Path) -> None:
    converted(class_folder(tmp_path / "photos", side=40), tmp_path / "a.beton")
    smaller = converted(
        tmp_path / "a.beton", tmp_path / "a", "--format", "shards", "--max-size", "20", "--quality", "90"
    )
    assert smaller.heights.max() <= 20 and smaller.widths.max() <= 20
    assert smaller.card["settings"]["stored"] == {"untouched": 0, "re-encoded": 6, "raw": 0}
    same(smaller, converted(smaller.path, tmp_path / "again.beton"))
    expected = converted(tmp_path / "photos", tmp_path / "e.beton", "--max-size", "20", "--quality", "90")
    assert smaller.checksum == expected.checksum and smaller.mean == expected.mean


def test_names_that_were_not_kept(tmp_path: Path) -> None:
    converted(class_folder(tmp_path / "photos"), tmp_path / "a.beton")
    names_path(tmp_path / "a.beton").unlink()
    dataset = converted(tmp_path / "a.beton", tmp_path / "a", "--format", "shards")
    assert image_names(dataset)[1] == "a.beton#1"


def test_a_damaged_source_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = converted(class_folder(tmp_path / "photos"), tmp_path / "a", "--format", "shards")
    with open(dataset.table.files[0], "r+b") as file:
        file.seek(int(dataset.table.offset[2]) + 300)
        file.write(b"\0\1\2")
    capsys.readouterr()
    assert main([str(tmp_path / "a"), str(tmp_path / "b.beton"), "--workers", "1"]) == 1
    text = capsys.readouterr().err
    assert "are not those of its card (checksum of 64 of them)" in text and text.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "a"}
    with pytest.raises(DatasetError, match=r"1 of them, first image 2 in shard-000000.tar"):
        verify(open_dataset(tmp_path / "a", check="none"))


def edited(folder: Path, change) -> None:  # type: ignore[no-untyped-def]
    card = json.loads(card_path(folder).read_text())
    change(card)
    card_path(folder).write_text(json.dumps(sealed(card) if isinstance(card.get("file"), dict) else card))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda s: (s / "shard-000001.tar").unlink(), "lacks its shard shard-000001.tar, one of 2"),
        (lambda s: (s / "shard-000000.tar").unlink(), "lacks its shard shard-000000.tar, one of 2"),
        (lambda s: truncate(s / "shard-000001.tar"), "shard-000001.tar has .* bytes and its card says .*cut short"),
        (lambda s: (s / "shard-000000.tar").write_bytes(bytes(9 << 20)), "shard-000000.tar has .*another file"),
        (lambda s: (s / "index").unlink(), "lacks its index"),
        (lambda s: truncate(s / "index"), "index is cut short or edited|is no index"),
        (lambda s: (s / "index").write_bytes(b"foreign"), "is no index of shards"),
        (lambda s: card_path(s).unlink(), "has no card card.json; copy the folder with all its files"),
        (lambda s: card_path(s).write_text("{"), "cannot be read"),
        (lambda s: edited(s, lambda card: card.update(number=9)), "holds 3 images and its card says 9"),
        (lambda s: edited(s, lambda card: card.pop("file")), "lacks 'file'"),
        (lambda s: edited(s, lambda card: card["file"].update(shards=3)), "again"),
        (lambda s: edited(s, lambda card: card["file"]["shards"].append(0)), "lacks its shard shard-000002.tar"),
        (lambda s: edited(s, lambda card: card["file"].update(checksum="0")), "is not the index that its card"),
        (lambda s: edited(s, lambda card: card.update(classes=[])), "label beyond the 0 classes"),
        (lambda s: edited(s, lambda card: card.update(std=[2, 0, 0])), "outside 0 to 1"),
    ],
)
def test_a_folder_that_was_harmed(tmp_path: Path, harm, message: str) -> None:  # type: ignore[no-untyped-def]
    noise = np.random.default_rng(0).integers(0, 256, (3, 600, 800, 3), dtype=np.uint8)
    for number, picture in enumerate(noise):
        write(tmp_path / "photos" / "cdc"[number] / f"{number}.jpg", encoded(picture, quality=85))
    made = converted(tmp_path / "photos", tmp_path / "s", "--format", "shards", "--shard-size", "1")
    assert len(made.table.files) == 2
    harm(made.path)
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(made.path)
    assert "\n" not in str(caught.value) and str(made.path) in str(caught.value)


def test_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = class_folder(tmp_path / "photos")
    words = [str(folder), str(tmp_path / "s"), "--format", "shards", "--workers", "1"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(words) == 1
    assert "exists; give another name, or --force" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
    write(tmp_path / "precious" / "thesis.txt", b"x")
    for name in ("precious", "precious/thesis.txt", "photos"):
        words[1] = str(tmp_path / name)
        assert main([*words, "--force"]) == 1
        assert "holds no shards" in capsys.readouterr().err
    assert (tmp_path / "precious" / "thesis.txt").read_bytes() == b"x"


@pytest.mark.parametrize(
    "words",
    [
        ["a", "b.beton", "--format", "shards"],
        ["a", "b", "--shard", "1/2"],
        ["a", "b", "--format", "shards", "--shard", "0/2"],
        ["a", "b", "--format", "shards", "--shard", "3/2"],
        ["a", "b", "--format", "shards", "--shard", "2"],
        ["a", "b", "--format", "shards", "--shard-size", "0"],
        ["a", "--merge", "b"],
        ["--merge", "b", "--shard", "1/2"],
    ],
)
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.startswith("tools.convert: ") and line.count("\n") == 1


@pytest.mark.shared_data
def test_photos(tmp_path: Path) -> None:
    source = SHARED / "caltech101-small.zip"
    if not source.exists():
        pytest.skip("no photos beside the checkout")
    shards = converted(source, tmp_path / "p", "--format", "shards", "--shard-size", "8", "--workers", "2")
    assert (shards.number, open_dataset(tmp_path / "p-test").number) == (2020, 1010)
    same(shards, converted(shards.path, tmp_path / "p.beton"))


PEAK = """
import resource, sys
from tools.convert import main
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.processes
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    data = encoded(np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8), quality=90)
    peaks = []
    for count in (10, 160):  # 160: 80 MB
        for number in range(count):
            write(tmp_path / f"p{count}" / "cat" / f"{number}.jpg", data)
        words = [
            f"{tmp_path}/p{count}",
            f"{tmp_path}/s{count}",
            "--format",
            "shards",
            "--shard-size",
            "8",
            "--workers",
            "1",
        ]
        ran = subprocess.run(
            [sys.executable, "-c", PEAK, *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[3],
        )
        peaks.append(int(ran.stdout.split()[-1]))
    assert (tmp_path / "s160" / "shard-000005.tar").exists()
    assert peaks[1] - peaks[0] < 40_000  # KiB
