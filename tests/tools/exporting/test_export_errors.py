"""What export refuses, and what a full disk leaves: one line, and nothing that was there is touched."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tools.export
import tools.exporting.onnx_file
from tests.support.datasets import photos
from tests.support.run_folders import files, write_measured_run, write_run
from tools.export import main


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("data"), each=6)


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    return write_measured_run(tmp_path_factory.mktemp("runs") / "run", dataset)


def test_existing_files_are_left_as_they_are(run, tmp_path, capsys):
    for name in ("w.safetensors", "w.md", "w.onnx"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("precious")
        words = [str(run), str(folder / "w.safetensors"), "--onnx", str(folder / "w.onnx")]
        assert main(words) == 2
        assert f"{folder / name} exists and is left as it is; --force replaces it" in capsys.readouterr().err
        assert files(folder) == [name] and (folder / name).read_text() == "precious"
    assert main([str(run), str(tmp_path / "w.md" / "w.safetensors"), "--force"]) == 0
    assert (tmp_path / "w.md" / "w.md").read_text().startswith("# w\n")


def test_bad_input_is_one_line(run, dataset, tmp_path, monkeypatch, capsys):
    vit, _ = write_run(tmp_path / "vit", dataset, backbone="vit_small", stem="imagenet")
    empty, _ = write_run(tmp_path / "empty", dataset)
    (tmp_path / "file").write_text("")
    for file in (empty / "checkpoints").glob("*/*"):
        file.unlink()
    out, inside = tmp_path / "out" / "w.safetensors", tmp_path / "file" / "w.safetensors"
    cases = [
        ([tmp_path / "nowhere", out], r"is no run of train\.py"),
        ([empty, out], "holds no checkpoint"),
        ([run, inside], "cannot be written: "),
        ([run, out.with_suffix(".pt")], r"must end in \.safetensors"),
        ([run, out, "--onnx", tmp_path / "w.txt"], r"must end in \.onnx"),
        ([run, out, "--layout", "keras"], "unknown --layout 'keras'; take one of torchvision, timm"),
        ([vit, out, "--layout", "torchvision"], "torchvision has no vit_small; take --layout timm"),
        ([run, out, "--data", tmp_path / "no.beton"], "there is no data set"),
        ([run], "the following arguments are required: out"),
    ]
    before = files(tmp_path)
    for words, message in cases:
        assert main(list(map(str, words))) == 2
        error = capsys.readouterr().err
        assert re.search(message, error) and error.count("\n") == 1, error
        assert files(tmp_path) == before
    monkeypatch.setattr(tools.exporting.onnx_file, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert main([str(run), str(out), "--onnx", str(tmp_path / "w.onnx")]) == 2
    assert capsys.readouterr().err == "tools.export: --onnx needs onnxscript: pip install onnxscript\n"
    assert files(tmp_path) == before


def test_a_missing_stock_library_is_told_with_its_command(dataset, tmp_path, monkeypatch, capsys):
    folder, _ = write_run(tmp_path / "run", dataset, width=64)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setenv("COLUMNS", "250")
    assert main([str(folder), str(tmp_path / "w.safetensors")]) == 0
    assert "not compared: torchvision does not import here" in capsys.readouterr().out
    assert "pip install torchvision" in (tmp_path / "w.md").read_text()


@pytest.mark.processes
def test_a_full_disk_leaves_earlier_files(run, tmp_path):
    """A limit on the size of files, in a process of its own, stands for the disk."""
    out = tmp_path / "w.safetensors"
    assert main([str(run), str(out)]) == 0
    earlier = out.read_bytes(), out.with_suffix(".md").read_bytes()
    limit = len(earlier[0]) // 2
    program = (
        f"import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
        "runpy.run_module('tools.export', run_name='__main__')"
    )
    line = [sys.executable, "-c", program, str(run), str(out), "--force"]
    root, bare = Path(tools.export.__file__).parent.parent, os.environ | {"PYTHONPATH": ""}
    done = subprocess.run(line, cwd=root, env=bare, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "tools.export: " in done.stderr and "File too large" in done.stderr
    assert (out.read_bytes(), out.with_suffix(".md").read_bytes()) == earlier
    assert files(tmp_path) == ["w.md", "w.safetensors"]


@pytest.mark.slow
def test_a_small_disk_leaves_earlier_files(run, small_disk, capsys):
    disk = small_disk(1 << 30)
    out, onnx = disk / "w.safetensors", disk / "w.onnx"
    words = [str(run), str(out), "--onnx", str(onnx)]
    assert main(words) == 0
    earlier = {path.name: path.read_bytes() for path in disk.iterdir()}
    small_disk(int(1.5 * sum(map(len, earlier.values()))), "remount")
    capsys.readouterr()
    assert main([*words, "--force"]) == 2
    told = f"tools.export: {out} cannot be written: No space left on device; files that existed before are unchanged\n"
    assert capsys.readouterr().err == told
    assert {path.name: path.read_bytes() for path in disk.iterdir()} == earlier
