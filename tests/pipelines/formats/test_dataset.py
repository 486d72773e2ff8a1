"""The card: what is opened is what was converted, and anything else is told in one line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pipelines.formats.card import DatasetError, card_path, read_names, sealed, write_names
from pipelines.formats.dataset import image_names
from pipelines.formats.opening import open_dataset, verify
from tests.support.images import class_folder, stored
from tools.convert import main


@pytest.fixture
def made(tmp_path: Path) -> Path:
    out = tmp_path / "photos.beton"
    assert main([str(class_folder(tmp_path / "photos")), str(out), "--workers", "1"]) == 0
    return out


def test_open(made: Path) -> None:
    dataset = open_dataset(str(made))
    assert dataset.number == 6
    assert dataset.format == "beton"
    assert dataset.name == "photos"
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.heights.tolist() == [24] * 6
    assert dataset.widths.tolist() == [24, 28, 32] * 2
    assert dataset.card["class_counts"] == [3, 3]
    images = stored(made)
    for channel in range(3):
        shares = [image[..., channel] / 255 for image in images]
        mean = sum(share.mean() for share in shares) / 6
        square = sum((share**2).mean() for share in shares) / 6
        assert dataset.mean[channel] == pytest.approx(mean, abs=1e-6)
        assert dataset.std[channel] == pytest.approx((square - mean**2) ** 0.5, abs=1e-6)
    assert image_names(dataset) == [f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(3)]
    verify(dataset)


def edit(path: Path, **changes: object) -> None:
    card = json.loads(card_path(path).read_text())
    card.update(changes)
    card = {key: value for key, value in card.items() if value is not None}
    card_path(path).write_text(json.dumps(sealed(card) if isinstance(card.get("file"), dict) else card))


def fails(path: Path, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(path)
    assert "\n" not in str(caught.value)


def test_missing(made: Path, tmp_path: Path) -> None:
    fails(tmp_path / "no.beton", "there is no data set .*no.beton.*tools.convert")
    fails(tmp_path, "is a folder; convert it")
    card_path(made).unlink()
    fails(made, "no card photos.beton.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"number": 7}, "holds 6 images and its card says 7"),
        ({"format": "x"}, "not a card"),
        ({"version": 9}, "version 9"),
        ({"classes": ["cat"]}, "label beyond the 1 classes"),
        ({"mean": [0.1, 0.2]}, "mean is no list of three numbers; convert"),
        ({"std": [0.1, 0.2, 7]}, "outside 0 to 1"),
        ({"std": [0.1, 0.2, 10**400]}, "outside 0 to 1"),
        ({"mean": "0.1"}, "mean is no list"),
        ({"checksum": None}, "lacks 'checksum'"),
        ({"checksum": 7}, "checksum is no checksum"),
        ({"sample_checksum": []}, "sample_checksum is no checksum"),
        ({"sample_checksum": "0" * 32}, "are not those of its card"),
        ({"number": 6.0}, "no whole number"),
        ({"number": 10**400}, "no whole number"),
        ({"classes": "catdog"}, "no list of names"),
        ({"classes": [["cat"], "dog"]}, "no list of names"),
        ({"source": {}}, "source is no name"),
        ({"file": 3}, "file describes no files"),
        ({"file": {"bytes": -1, "checksum": ""}}, "file's bytes is no length"),
        ({"file": {}}, "lacks 'bytes'"),
    ],
)
def test_edited_card(made: Path, changes: dict[str, object], message: str) -> None:
    edit(made, **changes)
    fails(made, message)


def test_a_card_that_was_edited_by_hand(made: Path) -> None:
    text = card_path(made).read_text()
    card_path(made).write_text(text.replace('"dog"', '"fog"'))
    fails(made, "was edited or damaged")
    card_path(made).write_text(text.replace("\n", " "))
    assert open_dataset(made).classes == ("cat", "dog")


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, '{"a": NaN}', '{"a": ' + "9" * 5000 + "}", "\udcff"])
def test_broken_card(made: Path, text: str) -> None:
    card_path(made).write_bytes(text.encode("utf-8", "surrogateescape"))
    fails(made, "cannot be read")


def test_pipes_do_not_hold_us_up(made: Path) -> None:
    card = card_path(made).read_bytes()
    card_path(made).unlink()
    os.mkfifo(card_path(made))
    fails(made, "cannot be read .it is no regular file")
    card_path(made).unlink()
    card_path(made).write_bytes(card)
    made.unlink()
    os.mkfifo(made)
    fails(made, "has 0 bytes")


def test_truncated_file(made: Path) -> None:
    data = made.read_bytes()
    made.write_bytes(data[:-24])
    fails(made, "cut short or still being copied")


def test_edited_table(made: Path) -> None:
    data = bytearray(made.read_bytes())
    data[2106 + 16] ^= 1  # the first label
    made.write_bytes(data)
    fails(made, "not the file that its card describes")


def test_another_files_card(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.beton"
    assert main([str(class_folder(tmp_path / "more", each=4)), str(other), "--workers", "1"]) == 0
    shutil.copy(card_path(other), card_path(made))
    fails(made, "photos.beton has .* bytes and its card says")


def test_verify_finds_damaged_pixels(made: Path) -> None:
    dataset = open_dataset(made)
    data = bytearray(made.read_bytes())
    data[int(dataset.table.offset[3]) + 50] ^= 1
    made.write_bytes(data)
    with pytest.raises(DatasetError, match="are damaged"):
        verify(open_dataset(made, check="none"))
    with pytest.raises(DatasetError, match="are damaged"):
        open_dataset(made, check="full")
    fails(made, "are not those of its card .checksum of 64 of them.; convert .* --verify none")
    with pytest.raises(ValueError, match="no check 'some'"):
        open_dataset(made, check="some")


def test_a_card_without_the_sample_is_taken(made: Path) -> None:
    edit(made, sample_checksum=None)
    assert open_dataset(made).number == 6


def test_names_keep_odd_characters(made: Path) -> None:
    names = ["a\nb", "c\\n", "\\", "caf\udce9", "x\r", ""]
    write_names(made, names)
    assert read_names(made) == names
    assert image_names(open_dataset(made)) == []  # they are not those of the card
