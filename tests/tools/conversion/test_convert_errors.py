"""What goes wrong is one clear line, exit code 1, and nothing half written."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from pipelines.formats.card import card_path, read_card, sealed, write_json
from pipelines.formats.opening import open_dataset
from tests.support.conversion import one_line, refused
from tests.support.images import class_folder, encoded, smooth, write
from tools.convert import main


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = class_folder(tmp_path / "photos")
    write(folder / "cat" / "cut.jpg", encoded(smooth(64, 64), quality=95)[:-100])
    write(folder / "dog" / "text.png", b"no image")
    write(folder / "dog" / "empty.png", b"")
    write(folder / "dog" / "notes.doc", b"x")
    write(folder / "loose.jpg", encoded(smooth(8, 8)))
    (folder / "dog" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "dog" / "pipe.jpg")
    (folder / "dog" / "zero.jpg").symlink_to("/dev/zero")
    return folder


def test_bad_files_stop_it(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    text = refused(capsys, mixed, tmp_path / "out" / "p.beton")
    assert "nothing was written" in text
    for name, reason in (
        ("cat/cut.jpg", "truncated"),
        ("dog/text.png", "is not an image"),
        ("dog/empty.png", "is empty"),
        ("dog/notes.doc", "is not an image (ends in .doc)"),
        ("loose.jpg", "has no class"),
        ("dog/gone.jpg", "No such file"),
        ("dog/pipe.jpg", "is no regular file"),
        ("dog/zero.jpg", "is a link out of the source"),
    ):
        assert any(name in line and reason in line for line in text.splitlines()), (name, text)


@pytest.mark.parametrize("workers", [1, 2])
def test_skip_bad(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int) -> None:
    out = tmp_path / "p.beton"
    assert main([str(mixed), str(out), "--skip-bad", "--workers", str(workers)]) == 0
    assert "left out 8 files" in capsys.readouterr().err
    dataset = open_dataset(out)
    assert dataset.number == 6
    assert len(dataset.card["settings"]["skipped"]) == 8
    assert len(Path(f"{out}.skipped.txt").read_text().splitlines()) == 8


def test_many_bad_files_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = class_folder(tmp_path / "photos")
    for i in range(30):
        write(folder / "cat" / f"bad{i}.jpg", b"x")
    text = refused(capsys, folder, tmp_path / "p.beton")
    assert "and 10 more" in text
    assert len(text.splitlines()) == 22


def test_all_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "photos" / "cat" / "bad.jpg", b"x")
    assert "cat/bad.jpg" in refused(capsys, tmp_path / "photos", tmp_path / "p.beton", "--skip-bad")


def test_existing_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    for split in ("train", "test"):
        class_folder(folder / split)
    out = tmp_path / "p.beton"
    for name in ("p.beton", "p-test.beton", "p.beton.json"):
        (tmp_path / name).write_bytes(b"precious")
        assert f"{name} exists" in one_line(refused(capsys, folder, out))
        assert (tmp_path / name).read_bytes() == b"precious"
        (tmp_path / name).unlink()
    out.write_bytes(b"old")
    assert main([str(folder), str(out), "--workers", "1", "--force"]) == 0
    assert open_dataset(out).number == 6
    capsys.readouterr()
    out.unlink()
    out.mkdir()
    assert "is a folder" in one_line(refused(capsys, folder, out, "--force"))


def test_sources_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out" / "p.beton"
    assert "there is no source" in one_line(refused(capsys, tmp_path / "nowhere", out))
    (tmp_path / "empty").mkdir()
    assert "nothing to convert" in one_line(refused(capsys, tmp_path / "empty", out))
    text = write(tmp_path / "text.tar.gz", b"just text")
    assert "neither a folder nor" in one_line(refused(capsys, text, out))
    class_folder(tmp_path / "photos")
    shutil.make_archive(str(tmp_path / "a"), "gztar", tmp_path / "photos")
    cut = write(tmp_path / "cut.tar.gz", (tmp_path / "a.tar.gz").read_bytes()[:-900])
    assert "damaged" in one_line(refused(capsys, cut, out))


@pytest.mark.parametrize(
    "settings", [None, {}, {"stored": {"raw": "6"}, "skipped": []}, {"stored": {}, "skipped": [1]}]
)
def test_a_converted_source_whose_card_is_somebody_else_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: object
) -> None:
    source = tmp_path / "p.beton"
    assert main([str(class_folder(tmp_path / "photos")), str(source), "--workers", "1"]) == 0
    capsys.readouterr()
    write_json(card_path(source), sealed(read_card(source) | {"settings": settings}))
    text = one_line(refused(capsys, source, tmp_path / "shards", "--format", "shards"))
    assert "p.beton.json lacks what conversion writes" in text


def test_splits_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.beton"
    class_folder(tmp_path / "a" / "train")
    class_folder(tmp_path / "a" / "test", ("cat", "newt"))
    assert "class 'newt' is in the split test but not in train" in one_line(refused(capsys, tmp_path / "a", out))
    class_folder(tmp_path / "b" / "train")
    class_folder(tmp_path / "b" / "test")
    class_folder(tmp_path / "b" / "extra")
    assert "'extra' is none" in one_line(refused(capsys, tmp_path / "b", out))
    class_folder(tmp_path / "c" / "val")
    class_folder(tmp_path / "c" / "test")
    assert "no train" in one_line(refused(capsys, tmp_path / "c", out))


def test_unwritable_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = class_folder(tmp_path / "photos")
    write(tmp_path / "file", b"")
    for parent in (tmp_path / "file", Path("/proc")):
        assert "cannot be written" in one_line(refused(capsys, folder, parent / "p.beton"))


def test_disk_full(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = class_folder(tmp_path / "photos")
    monkeypatch.setattr(os, "pwrite", full)
    assert "is full; nothing was written" in one_line(refused(capsys, folder, tmp_path / "p.beton"))


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch /tmp/likeness-was-here",)


def test_malicious_pickle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "test", "meta"):
        write(tmp_path / "c" / name, pickle.dumps({"data": Evil()}))
    text = one_line(refused(capsys, tmp_path / "c", tmp_path / "p.beton"))
    assert "system" in text
    assert not Path("/tmp/likeness-was-here").exists()


def test_damaged_and_hostile_zip_members(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/0.jpg", encoded(smooth(40, 40)))
        archive.writestr("a/1.jpg", encoded(smooth(40, 40, 1)))
        archive.writestr("../../a/2.jpg", encoded(smooth(40, 40, 1)))
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[data.index(b"\xff\xd9") - 20] ^= 255
    (tmp_path / "x.zip").write_bytes(data)
    assert "a/0.jpg: is damaged in the archive" in refused(capsys, tmp_path / "x.zip", tmp_path / "p.beton")


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("name", ["data_batch_1.bin", "batches.meta.txt"])
def test_damaged_batches_in_a_zip(tmp_path: Path, capsys: pytest.CaptureFixture[str], packing: int, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", packing) as archive:
        archive.writestr("batches.meta.txt", "cat\ndog\n" * 20)
        archive.writestr("data_batch_1.bin", bytes(3073))
        start = archive.getinfo(name).header_offset + 30 + len(name)
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[start : start + 8] = b"\xff" * 8
    (tmp_path / "x.zip").write_bytes(data)
    text = one_line(refused(capsys, tmp_path / "x.zip", tmp_path / "p.beton"))
    assert f"{name} of the source cannot be used: is damaged in the archive" in text


def test_killed_worker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    picture = encoded(smooth(3000, 3000), "PNG", compress_level=1)
    write(folder / "cat" / "0.png", picture)
    for i in range(1, 60):
        os.link(folder / "cat" / "0.png", folder / "cat" / f"{i}.png")
    stop = threading.Event()

    def kill() -> None:
        while not stop.is_set():
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        text = refused(capsys, folder, tmp_path / "p.beton", workers=2)
    finally:
        stop.set()
        killer.join()
    assert "a worker process was killed" in one_line(text)


@pytest.mark.processes
def test_terminated_program_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write(folder / "cat" / "0.png", encoded(smooth(3000, 3000), "PNG", compress_level=1))
    for i in range(1, 60):
        os.link(folder / "cat" / "0.png", folder / "cat" / f"{i}.png")
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "tools.convert", str(folder), str(tmp_path / "out" / "p.beton"), "--workers", "2"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3], stderr=subprocess.PIPE)
    while not list((tmp_path / "out").rglob("*.tmp")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"Traceback" not in errors
    assert not list((tmp_path / "out").iterdir())


def test_usage() -> None:
    for arguments in (
        [],
        ["a"],
        ["a", "b", "--quality", "0"],
        ["a", "b", "--max-size", "x"],
        ["a", "b", "--workers", "0"],
    ):
        assert main(arguments) == 2


@pytest.mark.parametrize("kind", ["idx", "cifar", "stl10", "table"])
def test_what_cannot_be_read_beside_a_published_data_set_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    files = {
        "idx": {
            "train-images-idx3-ubyte": struct.pack(">2xBB3I", 8, 3, 1, 4, 4) + bytes(16),
            "train-labels-idx1-ubyte": struct.pack(">2xBBI", 8, 1, 1) + bytes(1),
        },
        "cifar": {"data_batch_1.bin": bytes(3073), "batches.meta.txt": b"cat\n"},
        "stl10": {"train_X.bin": bytes(3 * 96 * 96), "train_y.bin": b"\1"},
        "table": {"all.csv": b"../0.jpg,cat\n"},
    }
    for name, data in files[kind].items():
        write(tmp_path / "set" / name, data)
    (tmp_path / "set" / "more").symlink_to(tmp_path / "gone")
    text = refused(capsys, tmp_path / "set", tmp_path / "p.beton")
    assert "more: is a link that leads nowhere" in text


def test_a_split_of_the_same_conversion_beside_a_copy_is_not_called_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        class_folder(tmp_path / "photos" / split)
    assert main([str(tmp_path / "photos"), str(tmp_path / "p.beton"), "--workers", "1"]) == 0
    for name in ("-test", ""):
        source, out = tmp_path / f"p{name}.beton", tmp_path / f"q{name}.beton"
        assert main([str(source), str(out), "--workers", "1"]) == 0
    assert "stays" not in capsys.readouterr().err
    assert main([str(tmp_path / "photos" / "train"), str(tmp_path / "q.beton"), "--workers", "1", "--force"]) == 0
    assert "q-test.beton stays; it is from another conversion (source photos)" in capsys.readouterr().err
