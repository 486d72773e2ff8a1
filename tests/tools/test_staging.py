"""A conversion killed at any moment leaves nothing, or what the next call brings to an end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.formats.opening import open_dataset, verify
from tests.support.conversion import convert_part
from tests.support.images import class_folder, encoded, smooth, write
from tools.convert import main
from tools.staging import Staging, recover

ROOT = Path(__file__).parents[2]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_nothing_is_left(tmp_path: Path) -> None:
    out = tmp_path / "new" / "p.beton"
    with Staging(out) as staging:
        assert not staging.completed
        (staging.folder / "p.beton").write_bytes(b"x")
    assert left(tmp_path / "new") == set()
    with contextlib.suppress(KeyboardInterrupt), Staging(out) as staging:
        (staging.folder / "p.beton").write_bytes(b"x")
        raise KeyboardInterrupt
    assert left(tmp_path / "new") == set()


def commit(staging: Staging, out: Path) -> None:
    """A file that replaces one, a folder that replaces one, and two that go."""
    (staging.folder / "p").write_bytes(b"new")
    (staging.folder / "q").mkdir()
    (staging.folder / "q" / "x").write_bytes(b"new")
    (out.parent / "p").write_bytes(b"old")
    for name in ("q", "gone"):
        (out.parent / name).mkdir()
        (out.parent / name / "y").write_bytes(b"old")
    (out.parent / "also").write_bytes(b"old")
    moves = [(staging.folder / name, out.with_name(name)) for name in ("p", "q")]
    staging.commit(moves, remove=[out.with_name(name) for name in ("gone", "also", "never")])


def committed(folder: Path) -> None:
    assert left(folder) == {"p", "q"}
    assert (folder / "p").read_bytes() == b"new" and left(folder / "q") == {"x"}


def test_commit(tmp_path: Path) -> None:
    with Staging(tmp_path / "p") as staging:
        commit(staging, tmp_path / "p")
    committed(tmp_path)


class Killed(BaseException):
    pass


def test_killed_between_any_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call that changes the disk in turn is the last one of the process."""
    real = {name: getattr(os, name) for name in ("replace", "rename", "unlink", "rmdir")}
    for last in range(40):
        root = tmp_path / str(last)
        root.mkdir()
        done = 0

        def limited(name: str, last: int = last):  # type: ignore[no-untyped-def]
            def call(*arguments: object, **keywords: object) -> object:
                nonlocal done
                if done >= last:
                    raise Killed
                done += 1
                return real[name](*arguments, **keywords)

            return call

        staging = Staging(root / "p")
        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, limited(name))
            try:
                commit(staging, root / "p")
                ended = True
            except Killed:
                ended = False
        os.close(staging._handle)  # what the death of the process does
        pending = (staging.folder / "commit.json").exists()
        assert recover(root / "p") == pending
        if pending or ended:
            committed(root)
        else:
            assert left(root) == {"p", "q", "gone", "also"} and (root / "p").read_bytes() == b"old"
        if ended:
            assert last > 5
            return
    raise AssertionError("the commit never came to its end")


def test_a_living_process_is_left_alone(tmp_path: Path) -> None:
    with Staging(tmp_path / "p") as first, Staging(tmp_path / "p") as second:
        assert first.folder.exists() and second.folder.exists()
    assert left(tmp_path) == set()


def test_only_its_own_target(tmp_path: Path) -> None:
    others = [".p-test-abcdefgh.tmp", ".q-abcdefgh.tmp", "p-abcdefgh.tmp", ".p-abc.tmp"]
    for name in [*others, ".p-abcdefgh.tmp"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    recover(tmp_path / "p")
    assert left(tmp_path) == set(others)


def test_locks_that_a_file_system_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", lacking)
    with Staging(tmp_path / "p") as staging:
        recover(tmp_path / "p")
        assert staging.folder.exists()
    assert left(tmp_path) == set()


def test_what_is_left_where_there_are_no_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can tell whether its process lives, on this machine or another."""

    def lacking(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", lacking)
    killed = Staging(tmp_path / "p")
    os.close(killed._handle)
    assert main([str(class_folder(tmp_path / "photos")), str(tmp_path / "p"), "--workers", "1"]) == 0
    assert f"if none runs, remove {killed.folder}\n" in capsys.readouterr().err
    assert killed.folder.exists()


def killed(words: list[str], after: float) -> bool:
    """Runs a conversion and kills it; returns whether it had come to its end before. Its workers end by themselves."""
    command = [sys.executable, "-m", "tools.convert", *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **quiet)  # type: ignore[call-overload]
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    code = process.wait()
    until = time.perf_counter() + 20
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.killpg(process.pid, 0)
            assert time.perf_counter() < until, "workers outlive the program"
            time.sleep(0.05)
    return bool(code == 0)


@pytest.mark.processes
@pytest.mark.parametrize("form", ["beton", "shards"])
def test_killed_at_random_moments(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    for split in ("train", "test"):
        write(folder / split / "cat" / "0.png", encoded(smooth(300, 400), "PNG", compress_level=1))
        for number in range(1, 24):
            os.link(folder / split / "cat" / "0.png", folder / split / "cat" / f"{number}.png")
    out = tmp_path / "out" / ("p.beton" if form == "beton" else "p")
    words = [str(folder), str(out), "--format", form, "--workers", "2"]
    started = time.perf_counter()
    assert main(words) == 0
    longest = time.perf_counter() - started + 0.5  # the start of Python
    moments = random.Random(form)
    for _ in range(3):
        ended = killed([*words, "--force"], moments.uniform(0.1, longest))
        names = {name for name in left(out.parent) if not name.startswith(".")}
        assert names or not ended
        assert main([*words, "--force"]) == 0
        for suffix in ("", "-test"):
            verify(open_dataset(out.with_name(f"{out.stem}{suffix}{out.suffix}")))
        assert not [name for name in left(out.parent) if name.startswith(".")]


@pytest.mark.processes
def test_killed_merge(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "photos", each=20)
    for number in (1, 2):
        convert_part(folder, tmp_path / "out" / "s", f"{number}/2")
    moments = random.Random(0)
    for _ in range(3):
        killed(["--merge", str(tmp_path / "out" / "s")], moments.uniform(0.2, 1.0))
        if (tmp_path / "out" / "s").exists():
            break
    if main(["--merge", str(tmp_path / "out" / "s")]) == 1:  # it had been merged
        assert (tmp_path / "out" / "s").exists()
    verify(open_dataset(tmp_path / "out" / "s"))
    assert left(tmp_path / "out") == {"s"}


def test_a_completed_conversion_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    staging = Staging(tmp_path / "p")
    (staging.folder / "p").write_bytes(b"x")
    (staging.folder / "commit.json").write_text(json.dumps({"moves": [["p", "p"]], "remove": []}))
    os.close(staging._handle)
    assert main([str(class_folder(tmp_path / "photos")), str(tmp_path / "p"), "--workers", "1"]) == 1
    captured = capsys.readouterr().err
    assert "was killed; it is complete now" in captured and "exists" in captured
