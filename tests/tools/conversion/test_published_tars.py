"""Data as it is published in tars: WebDataset shards, ImageNet's tar of class tars. Nothing is unpacked to the disk."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.formats.dataset import image_names
from pipelines.formats.opening import open_dataset
from tests.support.conversion import images_of, one_line, refused
from tests.support.images import encoded, smooth, write
from tools.conversion.brace_pattern import expand
from tools.conversion.source import TRAIN, Request
from tools.conversion.split_classes import joined_classes
from tools.conversion.tree import SourceError
from tools.convert import main

PICTURES = [encoded(smooth(12, 12 + i, i)) for i in range(8)]


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            made = tarfile.TarInfo(name)
            made.size = len(data)
            archive.addfile(made, io.BytesIO(data))
    return path


def shard(path: Path, start: int, kind: str, labels: list[bytes]) -> Path:
    members: dict[str, bytes] = {}
    for i, label in enumerate(labels, start):
        members |= {f"{i:06d}.jpg": PICTURES[i], f"{i:06d}.{kind}": label}
    return tar(path, members)


def convert(source: Path | str, out: Path, *options: str) -> None:
    assert main([str(source), str(out), "--workers", "1", *options]) == 0
    assert {path.name.removeprefix(".") for path in out.parent.glob(".*.tmp")} == set()


@pytest.mark.parametrize(
    ("kind", "labels", "classes"),
    [
        ("cls", [b"10", b"2\n", b"2", b"10"], ("2", "10")),
        ("cls", [b"owl", b"cat", b"cat", b"owl"], ("cat", "owl")),
        ("json", [b'{"label": 7}', b'{"label": 0, "w": 3}', b'{"label": 0}', b'{"label": 7}'], ("0", "7")),
        ("json", [b'{"class_name": "owl", "label": 1}', *[b'{"class_name": "cat", "label": 0}'] * 2,
                  b'{"label": 1, "class_name": "owl"}'], ("cat", "owl")),
        ("txt", [b"owl", b"cat", b"cat", b"owl"], ("cat", "owl")),
    ],
)  # fmt: skip
def test_labels_of_webdataset(tmp_path: Path, kind: str, labels: list[bytes], classes: tuple[str, ...]) -> None:
    """One tar, a folder of tars and a pattern of them give the same."""
    one = tar(tmp_path / "one.tar", {
        name: data for i in range(4) for name, data in ((f"{i:06d}.jpg", PICTURES[i]), (f"{i:06d}.{kind}", labels[i]))
    })  # fmt: skip
    shard(tmp_path / "many" / "web-000000.tar", 0, kind, labels[:2])
    shard(tmp_path / "many" / "web-000001.tar", 2, kind, labels[2:])
    found = []
    for source in (one, tmp_path / "many", tmp_path / "many" / "web-{000000..000001}.tar"):
        convert(source, tmp_path / "p.beton", "--force")
        found.append(open_dataset(tmp_path / "p.beton"))
        assert found[-1].labels.tolist() == [1, 0, 0, 1] and found[-1].classes == classes
        assert images_of(found[-1]) == PICTURES[:4]
    assert image_names(found[1]) == image_names(found[2])
    assert image_names(found[2])[3] == "web-000001/000003.jpg"


@pytest.mark.parametrize(
    "texts",
    [[b"a cat on a mat", b"two owls", b"a dog", b"an eel"], [b"0 0.5 0.5 0.2 0.2"] * 4, [b"many words " * 9] * 4],
)
def test_captions_and_boxes_are_no_labels(tmp_path: Path, texts: list[bytes]) -> None:
    source = shard(tmp_path / "web-000000.tar", 0, "txt", texts)
    convert(source, tmp_path / "p.beton")
    assert open_dataset(tmp_path / "p.beton").labels.tolist() == [-1] * 4


def test_our_own_shards_without_their_card(tmp_path: Path) -> None:
    """A hidden label, -1, is none; companions of images in class folders do not make them samples."""
    convert(shard(tmp_path / "a.tar", 0, "cls", [b"1", b"-1", b"0", b"1"]), tmp_path / "p.beton")
    assert open_dataset(tmp_path / "p.beton").labels.tolist() == [1, -1, 0, 1]
    for name in ("cat/1.jpg", "cat/1.png", "dog/2.jpg"):
        write(tmp_path / "photos" / name, PICTURES[0] if name.endswith("jpg") else encoded(smooth(5, 5), "PNG"))
    write(tmp_path / "photos" / "notes" / "2.json", b"{}")
    convert(tmp_path / "photos", tmp_path / "q.beton")
    assert open_dataset(tmp_path / "q.beton").labels.tolist() == [0, 0, 1]


def test_shards_of_splits_and_names_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set"
    shard(folder / "set-train-000000.tar", 0, "cls", [b"0", b"1"])
    shard(folder / "set-train-000001.tar", 2, "cls", [b"1", b"0"])
    shard(folder / "set-val-000000.tar", 4, "cls", [b"1"])
    write(folder / "classnames.txt", b"ant\nbee\n")
    convert(folder, tmp_path / "p.beton")
    train, val = open_dataset(tmp_path / "p.beton"), open_dataset(tmp_path / "p-val.beton")
    assert train.labels.tolist() == [0, 1, 1, 0] and val.labels.tolist() == [1]
    assert train.classes == val.classes == ("ant", "bee") and images_of(val) == PICTURES[4:5]
    shard(folder / "more-000000.tar", 5, "cls", [b"1"])
    capsys.readouterr()
    assert "more-000000 is none" in one_line(refused(capsys, folder, tmp_path / "q.beton"))


def test_samples_that_are_not_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = {f"{i}.{kind}": data for i in range(3) for kind, data in (("jpg", PICTURES[i]), ("cls", b"%d" % i))}
    source = tar(tmp_path / "a.tar", members | {"7.jpg": PICTURES[7]})
    assert "7.jpg: has no label in 7.cls, as the others have" in refused(capsys, source, tmp_path / "p.beton")
    source = tar(tmp_path / "b.tar", members | {"2.png": PICTURES[7]})
    text = one_line(refused(capsys, source, tmp_path / "p.beton"))
    assert "2.jpg and 2.png are images of one sample" in text and "--layout flat" in text


def class_tar(root: Path, names: list[str]) -> dict[str, bytes]:
    members = {}
    for number, name in enumerate(names):
        inner = tar(root / f"{name}.tar", {f"{name}_{i}.JPEG": PICTURES[2 * number + i] for i in range(2)})
        members[f"{name}.tar"] = inner.read_bytes()
    return members


def test_the_tar_of_class_tars(tmp_path: Path) -> None:
    names = ["n02", "n01", "n10"]
    outer = tar(tmp_path / "train.tar", class_tar(tmp_path / "inner", names))
    for source in (outer, tmp_path / "inner"):
        convert(source, tmp_path / "p.beton", "--force")
        dataset = open_dataset(tmp_path / "p.beton")
        assert dataset.classes == ("n01", "n02", "n10")
        assert dataset.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert images_of(dataset) == PICTURES[2:4] + PICTURES[:2] + PICTURES[4:6]
        assert image_names(dataset)[0] == "n01/n01_0.JPEG"
    assert {path.name for path in tmp_path.iterdir() if path.suffix == ".tar"} == {"train.tar"}


def test_imagenet_as_it_is_published(tmp_path: Path) -> None:
    folder = tmp_path / "ILSVRC2012"
    tar(folder / "ILSVRC2012_img_train.tar", class_tar(tmp_path / "inner", ["n02", "n01"]))
    tar(folder / "ILSVRC2012_img_val.tar", {f"ILSVRC2012_val_0000000{i}.JPEG": PICTURES[4 + i] for i in range(2)})
    convert(folder, tmp_path / "p.beton")
    assert open_dataset(tmp_path / "p.beton").labels.tolist() == [0, 0, 1, 1]
    assert open_dataset(tmp_path / "p-val.beton").labels.tolist() == [-1, -1]


def test_damaged_inner_tars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = class_tar(tmp_path / "inner", ["n1", "n2"])
    for data in (members["n2.tar"][:700], b"no tar" * 200, b""):
        outer = tar(tmp_path / "x.tar", members | {"n2.tar": data})
        assert "n2.tar in the source is damaged" in one_line(refused(capsys, outer, tmp_path / "p.beton"))
    nested = b"".join(PICTURES[:1])
    for _ in range(7):
        nested = tar(tmp_path / "deep.tar", {"deep.tar": nested}).read_bytes()
    text = one_line(refused(capsys, tmp_path / "deep.tar", tmp_path / "p.beton"))
    assert "holds tars in tars" in text


def test_patterns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert expand("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand("{x,y}/{0..1}.tar") == ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]
    for bad in ("{1..0}.tar", "{a..b}.tar", "{}.tar", "{0..9999999}.tar", "{0..99999}{0..99999}.tar"):
        with pytest.raises(SourceError):
            expand(bad)
    shard(tmp_path / "web-000.tar", 0, "cls", [b"1"])
    text = one_line(refused(capsys, tmp_path / "web-{000..002}.tar", tmp_path / "p.beton"))
    assert "2 of the 3 files" in text and "web-001.tar" in text


def test_memory_grows_with_the_names_and_not_with_the_pictures(tmp_path: Path) -> None:
    import tracemalloc

    from tools.conversion.recognise import find_source

    big = np.random.default_rng(0).bytes(1 << 20)
    source = tar(
        tmp_path / "web-000000.tar",
        {f"{i}.{k}": big if k == "jpg" else b"1" for i in range(40) for k in ("jpg", "cls")},
    )
    tracemalloc.start()
    try:
        assert len(find_source(str(source), tmp_path, Request()).splits[""]) == 40
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("test", [False, True])
def test_training_samples_without_a_usable_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], test: bool
) -> None:
    """No split is written alone, even if bad files are left out."""
    folder = tmp_path / "set"
    shard(folder / "set-train-000000.tar", 0, "cls", [b"", b" "])
    if test:
        shard(folder / "set-test-000000.tar", 2, "cls", [b"1", b"2"])
    text = refused(capsys, folder, tmp_path / "p.beton", "--skip-bad")
    assert "set-train-000000/000000.jpg: has no label in 000000.cls" in text and "000003" not in text


def test_two_tars_that_would_be_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "set", tmp_path / "p.beton"
    tar(folder / "cat.tar", {"0.jpg": PICTURES[0]})
    tar(folder / "cat.TAR", {"1.jpg": PICTURES[1]})
    text = one_line(refused(capsys, folder, out))
    assert "cat.tar" in text and "cat.TAR" in text and "would be one folder" in text
    (folder / "cat.TAR").unlink()
    tar(folder / "cat.tar", {"0.jpg": PICTURES[0], "0.cls": b"1"})
    write(folder / "cat" / "0.cls", b"2")
    assert "cat.tar and cat/0.cls would be one folder" in one_line(refused(capsys, folder, out))


def test_a_pattern_of_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        write(tmp_path / "set" / split / "0.jpg", PICTURES[0])
    text = one_line(refused(capsys, tmp_path / "set" / "{train,test}", tmp_path / "p.beton"))
    assert "2 of the 2 names" in text and "are folders" in text and "missing" not in text


def test_numbers_with_zeros_in_front_and_very_long_ones() -> None:
    """Equal numbers are in the order of their bytes, whatever order a set has; very long numbers are texts."""
    names = [f"{'0' * zeros}{number}" for number in (2, 10, 1) for zeros in (1, 0, 2)]
    expected = ("001", "01", "1", "002", "02", "2", "0010", "010", "10")
    assert joined_classes({TRAIN: set(names)}, Request(), numeric=True) == expected
    long = "9" * 5000
    assert joined_classes({TRAIN: {"2", "10", long}}, Request(), numeric=True) == ("10", "2", long)


def test_a_very_long_number_as_a_label(tmp_path: Path) -> None:
    source = shard(tmp_path / "a.tar", 0, "cls", [b"9" * 5000, b"10", b"2"])
    convert(source, tmp_path / "p.beton")
    assert open_dataset(tmp_path / "p.beton").labels.tolist() == [2, 0, 1]
