"""What several test files share: a tiny data set, a run on it that nothing disturbed, and a small disk."""

import contextlib
import io
import os
import subprocess

import pytest


def pytest_configure(config):
    """What holds bit for bit holds on a CPU: a GPU is seen by `-m cuda` alone."""
    if "cuda" not in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    pytest.importorskip("ffcv", reason="ffcv is not installed")
    from tests.support import runs

    return runs.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of an undisturbed run, and what it printed."""
    import train
    from tests.support import runs

    run = tmp_path_factory.mktemp("whole") / "run"
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        assert runs.in_process(train, patch, *runs.options(data, run)) == 0
    return run, output.getvalue()


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of so many bytes, or changes its size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(size, *more):
        line = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *more]), "tmpfs", str(folder)]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        return folder

    yield sized
    subprocess.run(["umount", str(folder)], capture_output=True)
