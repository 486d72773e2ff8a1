"""Everything that is written has the mode that the user's umask gives, whatever temporary file it was before."""

import os

import pytest

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from tests.support import runs
from tools import export
from tools.convert import main
from tools.reporting.folder import PAGE, publish


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def modes(folder):
    """Of all below a folder: those of files and those of folders."""
    paths = list(folder.rglob("*"))
    assert paths
    found = ({oct(p.stat().st_mode & 0o777) for p in paths if p.is_dir() is kind} for kind in (False, True))
    return tuple(found)


def test_data_sets_and_runs(tmp_path, umask, monkeypatch):
    data = runs.make_data(tmp_path / "data")
    assert main([str(data.train), str(tmp_path / "data/shards"), "--format", "shards", "--workers", "1"]) == 0
    assert modes(tmp_path / "data") == ({"0o640"}, {"0o750"})
    words = runs.options(data, tmp_path / "run", max_steps=4, checkpoint_every=2)
    assert runs.in_process(train, monkeypatch, *words) == 0
    assert modes(tmp_path / "run") == ({"0o640"}, {"0o750"})
    assert runs.in_process(train, monkeypatch, *words, "--resume") == 0
    bad = runs.options(data, tmp_path / "bad", lr=1e18, warmup_epochs=0, knn_every=0)
    assert runs.in_process(train, monkeypatch, *bad) == 2
    assert list((tmp_path / "bad").glob("nonfinite-*")) and modes(tmp_path / "bad") == ({"0o640"}, {"0o750"})


def test_what_is_made_of_a_run(tmp_path, umask, monkeypatch):
    data = runs.make_data(tmp_path / "data")
    words = runs.options(data, tmp_path / "run", max_steps=2, checkpoint_every=2, knn_every=0)
    assert runs.in_process(train, monkeypatch, *words) == 0
    for _ in range(2):
        publish(tmp_path / "made" / "report", {PAGE: b"page"})
    assert export.main([str(tmp_path / "run"), str(tmp_path / "made" / "w.safetensors")]) == 0
    assert modes(tmp_path / "made") == ({"0o640"}, {"0o750"})
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["report", "w.md", "w.safetensors"]
