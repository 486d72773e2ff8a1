"""Every kind of source, made small: the right images, labels, classes and splits."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.formats.dataset import Dataset, image_names
from pipelines.formats.opening import open_dataset, verify
from tests.support.images import class_folder, encoded, smooth, stored, write
from tools.convert import main


def convert(source: Path | str, out: Path, *options: str) -> Dataset:
    assert main([str(source), str(out), "--workers", "1", *options]) == 0
    dataset = open_dataset(out)
    verify(dataset)
    return dataset


def pack(folder: Path, archive: Path) -> Path:
    """Packs `folder` under its own name; the kind is the archive's ending."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(folder.rglob("*"), reverse=True):
                packed.write(path, path.relative_to(folder.parent))
            packed.writestr("__MACOSX/photos/._0.jpg", b"junk")
    else:
        with tarfile.open(archive, "w:" + archive.suffix[1:].replace("tar", "")) as packed_tar:
            packed_tar.add(folder, f"./{folder.name}")
    return archive


def split_folder(root: Path) -> Path:
    for i, name in enumerate(("train", "valid", "test", "unlabeled")):
        class_folder(root / name, each=4 - i)
    write(root / "SOURCE.txt", b"from somewhere")
    return root


def test_class_folders(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "photos", ("b", "a", "Z"))
    write(folder / "a" / "deep" / "er.PNG", encoded(smooth(9, 9), "PNG"))
    write(folder / "README.md", b"x")
    write(folder / "labels.csv", b"x")
    write(folder / "a" / ".hidden.jpg", b"x")
    write(folder / "a" / "Thumbs.db", b"x")
    dataset = convert(folder, tmp_path / "new" / "deeper" / "p.beton")
    assert dataset.classes == ("Z", "a", "b")
    assert image_names(dataset)[3:7] == ["a/0.jpg", "a/1.jpg", "a/2.jpg", "a/deep/er.PNG"]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert dataset.card["settings"]["stored"] == {"untouched": 9, "re-encoded": 0, "raw": 1}
    data = dataset.path.read_bytes()
    start, size = dataset.table.offset[0], dataset.table.size[0]
    assert data[start : start + size] == (folder / "Z" / "0.jpg").read_bytes()


def test_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / "flat" / f"{i}.jpg", encoded(smooth(10, 10, i)))
    write(tmp_path / "flat" / "notes.txt", b"x")
    dataset = convert(tmp_path / "flat", tmp_path / "p.beton")
    assert dataset.labels.tolist() == [-1] * 3
    assert dataset.classes == ()
    assert dataset.card["labelled"] == 0


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_archives_equal_their_folder(tmp_path: Path, ending: str) -> None:
    folder = split_folder(tmp_path / "photos")
    archive = pack(folder, tmp_path / f"x.{ending}")
    plain = convert(folder, tmp_path / "a" / "p.beton")
    packed = convert(archive, tmp_path / "b" / "p.beton")
    assert plain.path.read_bytes() == packed.path.read_bytes()
    assert plain.checksum == packed.checksum
    files = ["p-test.beton", "p-unlabeled.beton", "p-val.beton", "p.beton"]
    for folder in (plain.path.parent, packed.path.parent):
        assert sorted(os.listdir(folder)) == sorted(f + e for f in files for e in ("", ".json", ".names"))
    numbers = [open_dataset(packed.path.with_name(name)).number for name in files]
    assert numbers == [4, 2, 6, 8]
    assert open_dataset(packed.path.with_name("p-val.beton")).classes == plain.classes == ("cat", "dog")
    assert set(open_dataset(packed.path.with_name("p-unlabeled.beton")).labels) == {-1}
    assert image_names(packed)[0] == "photos/train/cat/0.jpg"


def test_archives_of_flat_images_and_of_one_class(tmp_path: Path) -> None:
    """A folder that is alone is no class, whether an archive put it there or somebody else."""
    flat = tmp_path / "flat"
    write(flat / "0.jpg", encoded(smooth(10, 10)))
    assert convert(pack(flat, tmp_path / "f.zip"), tmp_path / "f.beton").classes == ()
    with zipfile.ZipFile(tmp_path / "g.zip", "w") as archive:
        archive.write(flat / "0.jpg", "0.jpg")
    assert convert(tmp_path / "g.zip", tmp_path / "g.beton").classes == ()
    write(tmp_path / "one" / "cat" / "0.jpg", encoded(smooth(10, 10)))
    assert convert(tmp_path / "one", tmp_path / "one.beton").classes == ()
    assert convert(tmp_path / "one", tmp_path / "two.beton", "--layout", "classes").classes == ("cat",)


def test_hard_links_in_a_tar(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "photos", each=1)
    os.link(folder / "cat" / "0.jpg", folder / "dog" / "1.jpg")
    dataset = convert(pack(folder, tmp_path / "x.tar"), tmp_path / "p.beton")
    assert dataset.labels.tolist() == [0, 1, 1]


def test_train_can_be_a_class(tmp_path: Path) -> None:
    dataset = convert(class_folder(tmp_path / "photos", ("bus", "train")), tmp_path / "p.beton")
    assert dataset.classes == ("bus", "train")


def test_links_that_go_round_end(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "photos")
    (folder / "cat" / "again").symlink_to(folder)
    (folder / "bird").symlink_to(folder / "dog")
    dataset = convert(folder, tmp_path / "p.beton")
    assert dataset.classes == ("bird", "cat", "dog")
    assert dataset.number == 9


def test_names_in_any_encoding(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "photos")
    odd = os.fsdecode(b"caf\xe9")
    write(folder / odd / "na\nme \u4e2d.jpg", encoded(smooth(10, 10)))
    dataset = convert(folder, tmp_path / "p.beton")
    assert dataset.card["classes"] == sorted((odd, "cat", "dog"), key=os.fsencode)
    assert dataset.classes == ("caf\\udce9", "cat", "dog")  # as they can be printed
    assert f"{odd}/na\nme \u4e2d.jpg" in image_names(dataset)


def cifar_batch(number: int, seed: int, key: str = "labels") -> dict[bytes, object]:
    data = np.random.default_rng(seed).integers(0, 256, (number, 3072), dtype=np.uint8)
    return {b"data": data, key.encode(): [i % 3 for i in range(number)], b"filenames": [b"x.png"] * number}


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar10_python(tmp_path: Path, protocol: int) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    batches = {f"data_batch_{i}": cifar_batch(4, i) for i in range(1, 6)} | {"test_batch": cifar_batch(5, 9)}
    batches["batches.meta"] = {b"label_names": [b"c", b"a", b"b"], b"num_vis": 3072}
    for name, batch in batches.items():
        write(folder / name, pickle.dumps(batch, protocol))
    write(folder / "readme.html", b"")
    for source in (folder, pack(folder, tmp_path / "cifar-10-python.tar.gz")):
        dataset = convert(source, tmp_path / "c.beton", "--force")
        assert dataset.classes == ("c", "a", "b")
        assert dataset.labels.tolist() == [0, 1, 2, 0] * 5
        expected = batches["data_batch_2"][b"data"][1].reshape(3, 32, 32).transpose(1, 2, 0)
        assert (stored(dataset.path)[5] == expected).all()
        assert open_dataset(tmp_path / "c-test.beton").number == 5


def test_cifar100_python(tmp_path: Path) -> None:
    for name, number in (("train", 6), ("test", 3)):
        batch = cifar_batch(number, 1, "fine_labels") | {b"coarse_labels": [0] * number}
        write(tmp_path / "c100" / name, pickle.dumps(batch))
    write(tmp_path / "c100" / "meta", pickle.dumps({"fine_label_names": ["x", "y", "z"], "coarse_label_names": ["w"]}))
    dataset = convert(tmp_path / "c100", tmp_path / "c.beton")
    assert dataset.classes == ("x", "y", "z")
    assert dataset.labels.tolist() == [0, 1, 2] * 2


@pytest.mark.parametrize("front", [1, 2])
def test_cifar_binary(tmp_path: Path, front: int) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (4, 3072 + front), dtype=np.uint8)
    rows[:, :front] = 0
    rows[:, front - 1] = [1, 0, 1, 0]
    train, test, meta = (
        ("data_batch_1.bin", "test_batch.bin", "batches.meta.txt")
        if front == 1
        else ("train.bin", "test.bin", "fine_label_names.txt")
    )
    write(tmp_path / "b" / train, rows.tobytes())
    write(tmp_path / "b" / test, rows[:1].tobytes())
    write(tmp_path / "b" / meta, b"x\ny\n\n")
    for source in (
        tmp_path / "b",
        pack(tmp_path / "b", tmp_path / "b.zip"),
        pack(tmp_path / "b", tmp_path / "b.tar.gz"),
    ):
        dataset = convert(source, tmp_path / "c.beton", "--force")
        assert dataset.labels.tolist() == [1, 0, 1, 0]
        assert (stored(dataset.path)[2] == rows[2, front:].reshape(3, 32, 32).transpose(1, 2, 0)).all()


def test_stl10(tmp_path: Path) -> None:
    folder = tmp_path / "stl10_binary"
    images = {name: np.stack([smooth(96, 96, seed + i) for i in range(2)]) for seed, name in enumerate("abc")}
    for name, part in zip("abc", ("train", "test", "unlabeled"), strict=True):
        write(folder / f"{part}_X.bin", images[name].transpose(0, 3, 2, 1).tobytes())
    write(folder / "train_y.bin", bytes([2, 1]))
    write(folder / "test_y.bin", bytes([1, 2]))
    write(folder / "class_names.txt", b"plane\nbird\n")
    for source in (folder, pack(folder, tmp_path / "stl10_binary.tar.gz")):
        dataset = convert(source, tmp_path / "s.beton", "--force")
        assert dataset.labels.tolist() == [1, 0, -1, -1]
        assert open_dataset(tmp_path / "s-labelled.beton").labels.tolist() == [1, 0]
        assert open_dataset(tmp_path / "s-test.beton").labels.tolist() == [0, 1]
        for got, expected in zip(stored(dataset.path), [*images["a"], *images["c"]], strict=True):
            assert np.abs(got.astype(int) - expected).max() <= 10


def test_tiny_imagenet(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    for wnid in ("n02", "n01"):
        for i in range(2):
            write(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", encoded(smooth(64, 64, i)))
        write(root / "train" / wnid / f"{wnid}_boxes.txt", b"x")
    for i in range(2):
        write(root / "val" / "images" / f"val_{i}.JPEG", encoded(smooth(64, 64, 5 + i)))
        write(root / "test" / "images" / f"test_{i}.JPEG", encoded(smooth(64, 64, 7 + i)))
    write(root / "val" / "val_annotations.txt", b"val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n")
    write(root / "wnids.txt", b"n01\nn02\n")
    for source in (root, pack(root, tmp_path / "t.zip")):
        dataset = convert(source, tmp_path / "t.beton", "--force")
        assert dataset.classes == ("n01", "n02")
        assert dataset.card["layout"] == "Tiny-ImageNet"
        val = open_dataset(tmp_path / "t-val.beton")
        pairs = dict(zip((Path(n).name for n in image_names(val)), val.labels.tolist(), strict=True))
        assert pairs == {"val_0.JPEG": 1, "val_1.JPEG": 0}
        assert open_dataset(tmp_path / "t-test.beton").labels.tolist() == [-1, -1]


def test_digits(tmp_path: Path) -> None:
    load = pytest.importorskip("sklearn.datasets").load_digits
    dataset, test = convert("digits", tmp_path / "d.beton"), open_dataset(tmp_path / "d-test.beton")
    assert dataset.number + test.number == 1797
    assert dataset.classes == tuple("0123456789")
    assert np.ptp(np.bincount(test.labels)) <= 2
    names = [int(name.split("#")[1]) for name in image_names(test)]
    loaded = load()
    assert (loaded.target[names] == test.labels).all()
    assert (stored(test.path)[7][..., 1] == np.rint(loaded.images[names[7]] * 255 / 16)).all()


def test_workers_do_not_change_the_result(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "photos", each=40)
    one = convert(folder, tmp_path / "a" / "p.beton")
    two = convert(folder, tmp_path / "b" / "p.beton", "--workers", "2")
    for ending in ("", ".json", ".names"):
        assert Path(f"{one.path}{ending}").read_bytes() == Path(f"{two.path}{ending}").read_bytes()


def test_names_that_no_terminal_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Latin-1 bytes, a colour, a turned direction: kept in the card and the list, printable wherever they are met."""
    names = ("caf\udce9", "\x1b[31mred", "\u202egnp.exe", "日本")
    folder = class_folder(tmp_path / "phot\udcf6s", names, each=1)
    beton = convert(folder, tmp_path / "p.beton")
    again = convert(beton.path, tmp_path / "shards", "--format", "shards")
    smaller = convert(beton.path, tmp_path / "smaller.beton", "--max-size", "8")
    for dataset in (beton, again, smaller):
        assert dataset.classes == ("\\x1b[31mred", "caf\\udce9", "\\u202egnp.exe", "日本")
        assert sorted(dataset.card["classes"]) == sorted(names)
        assert dataset.name == "phot\\udcf6s" and dataset.card["source"] == "phot\udcf6s"
        assert {name.split("/")[0] for name in image_names(dataset)} == set(names)
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


@pytest.mark.shared_data
def test_real_photos(tmp_path: Path) -> None:
    archive = Path(__file__).parents[4] / "shared" / "data" / "caltech101-small.zip"
    if not archive.exists():
        pytest.skip("no ../shared/data/caltech101-small.zip")
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist()[1:2000:40]:
            write(tmp_path / "part" / name, packed.read(name))
    dataset = convert(tmp_path / "part", tmp_path / "p.beton", "--max-size", "128")
    assert dataset.number >= 40
    assert max(dataset.heights.max(), dataset.widths.max()) == 128
    assert len(stored(dataset.path)) == dataset.number
    shutil.rmtree(tmp_path / "part")


def test_zip_with_extra_header_fields(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("a/0.png")
        info.extra = b"\x99\x99\x04\x00abcd"
        archive.writestr(info, encoded(smooth(5, 5), "PNG"))
        archive.writestr("b/0.png", encoded(smooth(5, 5, 1), "PNG"))
    dataset = convert(write(tmp_path / "x.zip", buffer.getvalue()), tmp_path / "p.beton")
    assert dataset.classes == ("a", "b")
    assert (stored(dataset.path)[0] == smooth(5, 5)).all()
