"""Conversion, training and evaluation reach for no network, and files belong to their user as the umask says."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.images import class_folder, encoded, smooth, write

ROOT = Path(__file__).parents[2]
# Every Python process runs this first. Sockets between processes of one machine by a path stay allowed: the workers of
# a conversion talk so.
FORBID = r"""
import os, sys
def watch(event, arguments):
    if not event.startswith("socket.") or event in ("socket.__new__", "socket.gethostname"):
        return
    spoken = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg")
    if event in spoken and not isinstance(arguments[1], tuple):  # a path, or no address
        return
    with open(os.environ["REACHED"], "a") as file:
        file.write(f"{event} {arguments[1:]} {sys.argv}\n")
    raise OSError("the network is forbidden here")
sys.addaudithook(watch)
"""


def python(tmp_path: Path, *words: object) -> subprocess.CompletedProcess[str]:
    write(tmp_path / "site" / "sitecustomize.py", FORBID.encode())
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "site"), "REACHED": str(tmp_path / "reached"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_watch_sees_a_connection(tmp_path: Path) -> None:
    for call in ("socket.create_connection(('127.0.0.1', 9))", "socket.getaddrinfo('example.org', 80)"):
        found = python(tmp_path, "-c", f"import socket; {call}")
        assert found.returncode == 1 and "the network is forbidden" in found.stderr
    assert len((tmp_path / "reached").read_text().splitlines()) == 2


def test_nothing_reaches_for_the_network(tmp_path: Path) -> None:
    pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
    for split in ("train", "test"):
        class_folder(tmp_path / "photos" / split, each=12)
    write(tmp_path / "photos" / "train" / "cat" / "url.jpg", encoded(smooth(20, 20), comment=b"http://example.org"))
    data, run = tmp_path / "p.beton", tmp_path / "run"
    convert = ["-m", "tools.convert", tmp_path / "photos", data, "--workers", 2]
    train = [
        "train.py", "--method", "moco", "--recipe", "cifar10", "--data", data, "--output", run, "--epochs", 1,
        "--batch-size", 8, "--width", 4, "--hidden", 16, "--dim", 8, "--queue-size", 16, "--crop-size", 16,
        "--bn-splits", 1, "--no-compile", "--precision", "fp32", "--warmup-epochs", 0, "--threads", 1,
    ]  # fmt: skip
    evaluate = ["eval.py", "knn", "--run", run, "--data", data, "--val-data", tmp_path / "p-test.beton"]
    before = os.umask(0o077)
    try:
        for words in (convert, train, evaluate):
            found = python(tmp_path, *words)
            assert found.returncode == 0, (words, found.stdout[-2000:], found.stderr[-3000:])
    finally:
        os.umask(before)
    assert not (tmp_path / "reached").exists(), (tmp_path / "reached").read_text()
    made = [data, *run.rglob("*")]
    assert len(made) > 8
    for path in made:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
