"""Which file beside the training images is taken for the kNN monitor: a split of the same conversion, and no other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from models.evaluation.held_out import find_held_out
from pipelines import Dataset, open_dataset
from pipelines.formats.card import read_card, write_card
from pipelines.formats.conversion_mark import KEY
from tests.support.datasets import converted
from tests.support.images import class_folder, encoded, smooth, write
from tools.convert import main


def two_splits(root: Path, held_out: str = "test", each: int = 3) -> Path:
    class_folder(root / "train", each=each)
    class_folder(root / held_out, each=2, side=20 + each)
    return root


def without_mark(path: Path) -> None:
    """As files were written before there were marks."""
    card = read_card(path)
    del card[KEY]
    write_card(path, card)


def taken(train: Dataset) -> tuple[str | None, str]:
    found = find_held_out(open_dataset(train.path))
    return found.dataset.path.name if found.dataset else None, "\n".join(found.notes)


@pytest.mark.parametrize("form", ["beton", "shards"])
def test_a_split_of_the_same_conversion_is_taken(tmp_path: Path, form: str) -> None:
    name = "p.beton" if form == "beton" else "p"
    train = converted(two_splits(tmp_path / "new"), tmp_path / name, "--format", form)
    file, notes = taken(train)
    assert file == name.replace("p", "p-test", 1)
    held_out = open_dataset(tmp_path / str(file))
    assert notes == f"held-out images: {held_out.path}, 4 labelled, checksum {held_out.checksum}"
    said = train.card[KEY], held_out.card[KEY]
    assert said[0]["mark"] == said[1]["mark"] and said[0]["splits"] == said[1]["splits"] == ["", "test"]
    assert (said[0]["split"], said[1]["split"]) == ("", "test")


def test_a_held_out_file_of_another_data_set_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.beton"
    converted(two_splits(tmp_path / "old"), out)
    capsys.readouterr()
    new = converted(class_folder(tmp_path / "new", ("dog", "cat"), each=4), out, "--force")
    assert "p-test.beton stays; it is from another conversion (source old)" in capsys.readouterr().err
    file, notes = taken(new)
    assert file is None
    assert "p-test.beton is not from the conversion of p.beton (sources old and new)" in notes
    named = find_held_out(new, tmp_path / "p-test.beton")  # which is the user's own word
    assert named.dataset is not None and named.facts is not None and named.facts["source"] == "old"


def test_of_two_neighbours_the_sibling_is_taken(tmp_path: Path) -> None:
    out = tmp_path / "p.beton"
    converted(two_splits(tmp_path / "old", "val"), out)
    new = converted(two_splits(tmp_path / "new", "test", each=4), out, "--force")
    file, notes = taken(new)
    assert file == "p-test.beton"
    assert "p-val.beton is not from the conversion" in notes


def test_files_without_a_mark_are_taken_with_a_line(tmp_path: Path) -> None:
    train = converted(two_splits(tmp_path / "new"), tmp_path / "p.beton")
    without_mark(tmp_path / "p-test.beton")
    assert taken(train)[0] is None  # one of the two knows that they do not belong together
    without_mark(train.path)
    file, notes = taken(train)
    assert file == "p-test.beton"
    assert "p-test.beton is taken by its name alone" in notes and "sources new and new" in notes


def test_a_mark_is_kept_in_another_format_and_size(tmp_path: Path) -> None:
    converted(two_splits(tmp_path / "new"), tmp_path / "p.beton")
    for name, options in {"s": ["--format", "shards"], "small.beton": ["--max-size", "12"]}.items():
        train = converted(tmp_path / "p.beton", tmp_path / name, *options)
        split = (tmp_path / name).with_name(f"{Path(name).stem}-test{Path(name).suffix}")
        converted(tmp_path / "p-test.beton", split, *options)
        assert taken(train)[0] == split.name
    without_mark(tmp_path / "p.beton")
    assert KEY not in converted(tmp_path / "p.beton", tmp_path / "q.beton").card


def test_parts_of_another_conversion_s_split_are_not_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """OUT's parts are of one source, and OUT-test's, which merging finds by their name, of another."""
    for source in ("old", "new"):
        folder = two_splits(tmp_path / source / "photos", each=3 + (source == "new"))
        for part in ("1/2", "2/2"):
            words = [str(folder), str(tmp_path / source / "s"), "--format", "shards", "--workers", "1", "--shard", part]
            assert main(words) == 0
    for part in (tmp_path / "old").glob("s-test.part-*"):
        shutil.rmtree(tmp_path / "new" / part.name)
        part.rename(tmp_path / "new" / part.name)
    capsys.readouterr()
    assert main(["--merge", str(tmp_path / "new" / "s")]) == 1
    assert "the parts of s-test are not those of s" in capsys.readouterr().err
    assert not (tmp_path / "new" / "s").exists()


def test_siblings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "photos" / "train").parent
    write(folder / "val" / "0.jpg", encoded(smooth(20, 20)))
    class_folder(folder / "test")
    train = converted(folder, tmp_path / "p.beton")
    file, notes = taken(train)
    assert file == "p-test.beton" and "p-val.beton is not taken, as its images have no labels" in notes
    test = tmp_path / "p-test.beton"
    write_card(test, read_card(test) | {"classes": ["cat", "newt", "dog"]})
    file, notes = taken(train)
    assert file is None
    assert "p-test.beton is not taken, as it has other classes (3) than p.beton (2)" in notes
