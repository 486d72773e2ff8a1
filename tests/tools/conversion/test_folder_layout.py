"""What the folders of an image folder mean: the same in a folder and in every kind of archive, and never guessed."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from pipelines.formats.opening import open_dataset
from tests.support.conversion import assert_only_understood, one_line, refused
from tests.support.images import encoded, smooth, write
from tools.conversion.folder_layout import folder_layout
from tools.conversion.split_names import split_name, splits_among
from tools.conversion.tree import SourceError
from tools.convert import main

TWO = {"pie": 2, "soup": 3}
# layout: the files below the data set's folder, and the images of each class (None: unlabelled) in each split.
LAYOUTS = {
    "classes": (["pie/{pie}", "soup/{soup}"], {"": TWO}),
    "flat": (["{pie}", "{soup}"], {"": {None: 5}}),
    "one folder alone": (["images/pie/{pie}", "images/soup/{soup}", "meta/train.txt"], {"": TWO}),
    "many alone": (["a/b/c/pie/{pie}", "a/b/c/soup/{soup}", "a/README.md"], {"": TWO}),
    "flat below folders": (["a/images/{pie}", "a/images/{soup}"], {"": {None: 5}}),
    "prefixed splits": (
        [f"seg_{s}/seg_{s}/{c}/{{{c}}}" for s in ("train", "test") for c in TWO] + ["seg_pred/seg_pred/{pred}"],
        {"": TWO, "test": TWO, "pred": {None: 2}},
    ),
    "a challenge": (
        [f"LAB/Data/SET/train/{c}/{{{c}}}" for c in TWO]
        + ["LAB/Data/SET/val/{val}", "LAB/Annotations/val/1.xml", "solution.csv"],
        {"": TWO, "val": {None: 3}},
    ),
    "thumbnails": (
        [f"{c}/{{{c}}}" for c in TWO]
        + ["pie/@eaDir/0.jpg/SYNOPHOTO_THUMB_XL.jpg", "soup/Thumbs.db", "__MACOSX/pie/._0.jpg", ".git/0.jpg"]
        + ["pie/.DS_Store", "#recycle/old/0.jpg", "$RECYCLE.BIN/soup/0.jpg", "lost+found/1.jpg"],
        {"": TWO},
    ),
    "COCO": (["train2017/{pie}", "val2017/{val}", "annotations/x.json"], {"": {None: 2}, "val": {None: 3}}),
    "Roboflow": (
        ["train/images/{pie}", "train/labels/0.txt", "valid/images/{val}", "valid/labels/0.txt", "data.yaml"],
        {"": {None: 2}, "val": {None: 3}},
    ),
    "words": (
        [f"{s}/{c}/{{{c}}}" for s in ("Training_Set", "TestSet", "validation-images") for c in TWO],
        {"": TWO, "test": TWO, "val": TWO},
    ),
    "splits in classes": (
        [f"{c}/{s}/{{{c}}}" for s in ("train", "test") for c in TWO],
        {"": TWO, "test": TWO},
    ),
    "a lone class beside several": (
        ["train/pie/{pie}", "train/soup/{soup}", "test/pie/{pie}"],
        {"": TWO, "test": {"pie": 2}},
    ),
    "a class called train": (["bus/{pie}", "train/{soup}"], {"": {"bus": 2, "train": 3}}),
    "names like splits": (
        ["train_station/{pie}", "test_tube/{soup}"],
        {"": {"train_station": 2, "test_tube": 3}},
    ),
}
NUMBER = {"pie": 2, "soup": 3, "val": 3, "pred": 2}


def make(root: Path, patterns: list[str]) -> Path:
    """The files of a layout; every image differs by its path below the split."""
    for pattern in patterns:
        key = next((key for key in NUMBER if f"{{{key}}}" in pattern), None)
        if key is None:
            write(root / pattern, encoded(smooth(6, 6)) if pattern.endswith(".jpg") else b"x")
        for i in range(NUMBER[key] if key else 0):
            name = pattern.replace(f"{{{key}}}", f"{key}{i}.jpg")
            write(root / name, encoded(smooth(8, 8 + i, len(name))))
    return root


def archived(folder: Path, kind: str) -> Path:
    path = folder.with_name(f"packed.{kind}")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            for file in sorted(folder.rglob("*"), reverse=True):
                packed.write(file, file.relative_to(folder.parent))
    elif kind == "bare.tar":  # without the folder's own name
        with tarfile.open(path, "w") as tar:
            tar.add(folder, ".")
    else:
        with tarfile.open(path, f"w:{kind[4:]}") as tar:
            tar.add(folder, folder.name)
    return path


def summary(out: Path) -> dict[str, object]:
    """All that a conversion wrote but for the names, in which an archive has one folder more."""
    written = {}
    for path in sorted(out.parent.glob("p*.beton")):
        dataset = open_dataset(path)
        card = {name: value for name, value in dataset.card.items() if name not in ("source", "names_checksum", "file")}
        written[path.name] = (path.read_bytes(), card, dataset.labels.tolist())
    return written


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_archive_and_its_folder_are_the_same(tmp_path: Path, layout: str) -> None:
    patterns, expected = LAYOUTS[layout]
    folder = make(tmp_path / "some data", patterns)
    results = []
    for kind in ("folder", "tar", "tar.gz", "zip", "bare.tar"):
        out = tmp_path / kind / "p.beton"
        assert main([str(archived(folder, kind) if kind != "folder" else folder), str(out), "--workers", "1"]) == 0
        results.append(summary(out))
    assert all(result == results[0] for result in results)
    found = {}
    for split in expected:
        dataset = open_dataset(tmp_path / "tar" / (f"p-{split}.beton" if split else "p.beton"))
        names = [dataset.classes[label] if label >= 0 else None for label in dataset.labels]
        found[split] = {name: names.count(name) for name in names}
    assert found == expected
    assert len(results[0]) == len(expected)


@pytest.mark.parametrize(
    ("patterns", "message", "options"),
    [
        (["train/pie/{pie}", "test/pie/{pie}", "extra/pie/{pie}"], "'extra' is none; take --folder train", "splits"),
        (["train/pie/{pie}", "train/soup/{soup}", "extra/pie/{pie}"], "train looks like a split", "splits"),
        (["images/{pie}", "masks/{soup}"], "'images' is no name of a class; take --folder images", "classes"),
        (["val/pie/{pie}", "test/pie/{pie}"], "no train; take --folder test", "classes"),
        (["train/pie/{pie}", "training/pie/{pie}", "test/pie/{pie}"], "mean the same split", "classes"),
        (["trainA/{pie}", "testA/{pie}", "trainB/{soup}", "testB/{soup}"], "are several data sets", "classes"),
        (["cable/train/good/{pie}", "cable/test/bad/{pie}", "nut/train/good/{pie}", "nut/test/bad/{pie}"],
         "2 folders have splits and classes of their own", "classes"),
        (["train/train/{pie}", "train/val/{pie}", "test/{pie}"], "in a split and has splits of its own", "classes"),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], patterns: list[str], message: str, options: str
) -> None:
    folder = make(tmp_path / "data", patterns)
    text = one_line(refused(capsys, folder, tmp_path / "out" / "p.beton"))
    assert message in text and "--folder" in text
    assert main([str(folder), str(tmp_path / "p.beton"), "--workers", "1", "--layout", options]) == 0


def test_a_folder_alone_and_flat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "data", ["x/train/pie/{pie}", "x/val/pie/{pie}", "x/val/soup/{soup}"])
    for source in (folder, archived(folder, "zip")):
        inside = "data/x/val" if source != folder else "x/val"
        out = tmp_path / f"from {source.name}" / "p.beton"
        assert main([str(source), str(out), "--folder", inside, "--workers", "1"]) == 0
        assert open_dataset(out).classes == ("pie", "soup")
        assert not out.with_name("p-val.beton").exists()
    assert main([str(folder), str(tmp_path / "f.beton"), "--layout", "flat", "--workers", "1"]) == 0
    assert open_dataset(tmp_path / "f.beton").labels.tolist() == [-1] * 7
    capsys.readouterr()
    assert "holds no files in a folder y; it holds x" in one_line(
        refused(capsys, folder, tmp_path / "g.beton", "--folder", "y")
    )


def test_the_tree_is_printed_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "data", ["a/train/pie/{pie}", "a/train/soup/{soup}", "a/test/pie/{pie}", "a/x.txt"])
    write(folder / "a" / "train" / "pie" / "@eaDir" / "0.jpg" / "thumb.jpg", b"x")
    write(folder / "a" / "train" / "pie" / "broken.jpg", b"x")
    assert main([str(folder), str(tmp_path / "p.beton"), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert_only_understood(printed)
    assert printed.splitlines() == [
        "data (image folder with splits, below a):",
        "  train -> p.beton: 6 images, 2 classes: pie 3, soup 3",
        "  test -> p-test.beton: 2 images, 1 class: pie 2",
        "  ignored: *.txt, @eaDir",
    ]


def test_folders_below_classes_and_lists_of_splits_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Places365 has a/airfield, a/alley, b/bank; Food-101 lists its splits in texts."""
    folder = make(tmp_path / "data", ["a/airfield/{pie}", "a/alley/{soup}", "b/bank/{pred}", "meta/train.txt"])
    write(folder / "meta" / "test.txt", b"x")
    assert main([str(folder), str(tmp_path / "p.beton"), "--workers", "1"]) == 0
    said = capsys.readouterr().err
    assert "such as a/airfield, which count as the class a; --layout leaves" in said
    assert "meta/test.txt and meta/train.txt look like lists of splits; they are not used" in said
    assert open_dataset(tmp_path / "p.beton").classes == ("a", "b")
    assert main([str(folder), str(tmp_path / "q.beton"), "--workers", "1", "--layout", "leaves"]) == 0
    assert open_dataset(tmp_path / "q.beton").classes == ("a/airfield", "a/alley", "b/bank")


def test_a_zip_with_backslashes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        for name in ("photos\\pie\\0.jpg", "photos\\soup\\0.jpg"):
            member = zipfile.ZipInfo(name)
            member.create_system = 0  # Windows
            packed.writestr(member, encoded(smooth(8, 8)))
    assert main([str(tmp_path / "x.zip"), str(tmp_path / "p.beton"), "--workers", "1"]) == 0
    assert open_dataset(tmp_path / "p.beton").classes == ("pie", "soup")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", ""), ("Training", ""), ("TRAIN", ""), ("train2017", ""), ("seg_train", ""), ("imagesTrain", ""),
        ("trainset", ""), ("ILSVRC2012_img_val", "val"), ("validation", "val"), ("testing_images", "test"),
        ("asl_alphabet_test", "test"), ("unlabelled", "unlabeled"),
        ("trainer", None), ("contest", None), ("trainval", None), ("train_val", None), ("evaluate", None), ("1", None),
    ],
)  # fmt: skip
def test_names_of_splits(name: str, split: str | None) -> None:
    found = split_name(name)
    assert (found.split if found else None) == split


def test_siblings_share_their_other_words() -> None:
    assert splits_among(["a_train", "a_test", "b"]) == {"a_train": "", "a_test": "test"}
    assert splits_among(["train_station", "test_tube", "bus"]) == {}
    with pytest.raises(SourceError, match="are several data sets"):
        folder_layout([(name, "0.jpg") for name in ("trainA", "testA", "trainB", "testB")])


def test_files_in_a_folder_that_is_left_out_are_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(
        tmp_path / "data", ["train/pie/{pie}", "test/pie/{pie}", "extra/{soup}", "extra/1.txt", "extra/b/2.doc"]
    )
    assert main([str(folder), str(tmp_path / "p.beton"), "--layout", "splits", "--workers", "1"]) == 0
    assert open_dataset(tmp_path / "p.beton").card["settings"]["ignored"] == 5
    write(folder / "train" / "pie" / "1.doc", b"x")
    capsys.readouterr()
    text = refused(capsys, folder, tmp_path / "q.beton", "--layout", "splits")
    assert "train/pie/1.doc: is not an image" in text and "extra" not in text


@pytest.mark.parametrize("splits", [["train", "test"], ["train"]])
def test_classes_that_are_named_as_a_split(tmp_path: Path, splits: list[str]) -> None:
    """Among the folders inside a split, one that is named as a split is a class."""
    patterns = [f"{split}/{name}/{{pie}}" for split in splits for name in ("bus", "train_station")]
    folder = make(tmp_path / "data", [*patterns, "extra/{soup}"])
    assert main([str(folder), str(tmp_path / "p.beton"), "--layout", "splits", "--workers", "1"]) == 0
    for name in ["p.beton", "p-test.beton"][: len(splits)]:
        dataset = open_dataset(tmp_path / name)
        assert dataset.classes == ("bus", "train_station") and dataset.labels.tolist() == [0, 0, 1, 1]


def test_the_user_s_own_thumbnails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "thumbnails", ["thumbnails/pie/{pie}", "thumbnails/soup/{soup}", "_thumbs/0.jpg"])
    assert main([str(folder), str(tmp_path / "p.beton"), "--workers", "1"]) == 0
    assert open_dataset(tmp_path / "p.beton").classes == ("pie", "soup")
    empty = make(tmp_path / "data", [".thumbnails/pie/0.jpg", "@__thumb/0.jpg"])
    capsys.readouterr()
    text = one_line(refused(capsys, empty, tmp_path / "q.beton"))
    assert "holds no images" in text and "; ignored: .thumbnails, @__thumb" in text
