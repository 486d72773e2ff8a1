"""What several test files share: a tiny data set, an undisturbed run on it, and a small disk."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

# One thread in each library and no spinning: tests are small, and several pytest processes share the cores. It must be
# set before numpy and torch are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from tests.support import started

INTEGRATION = Path(__file__).parent / "integration"


def pytest_configure(config):
    """Hide the GPU from all tests but those of `-m cuda`: what holds bit for bit holds on a CPU."""
    if "cuda" not in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["TRITON_INTERPRET"] = "1"  # its kernels run on CPU tensors; read when Triton is imported
    sys.addaudithook(started.watch)


def pytest_collection_modifyitems(config, items):
    import torch

    for item in items:
        if "whole" in item.fixturenames:
            item.add_marker("whole_run")
    if "PYTEST_XDIST_WORKER" in os.environ:  # files with long tests come first, so that all processes end together
        long = {item.path for item in items if left_out(item)}
        items.sort(key=lambda item: item.path not in long)
    for item in items:
        if item.get_closest_marker("learning") and "learning" not in config.option.markexpr:
            item.add_marker(pytest.mark.skip(reason="takes minutes; run it with -m learning"))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def left_out(item):
    """Whether `make test-quick` leaves a test out."""
    return INTEGRATION in item.path.parents or any(item.get_closest_marker(mark) for mark in started.LEFT_OUT)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    started.marks.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail a test that `make test-quick` would run although it starts processes or whole runs."""
    result = yield
    if started.marks and not left_out(item):
        needed = " and ".join(f"pytest.mark.{mark}" for mark in sorted(started.marks))
        pytest.fail(f"it needs {needed}, or a place in tests/integration: see tests/README.md", pytrace=False)
    return result


@contextlib.contextmanager
def unchanged(folder):
    """Fail unless all files of the folder are at the end what they were at the start."""

    def files():
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}

    before = files()
    yield
    assert files() == before, f"a test changed {folder}, which tests share; let it take a copy"


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Images to train on and to evaluate with."""
    pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
    from tests.support import runs

    folder = tmp_path_factory.mktemp("data")
    made = runs.make_data(folder)
    with unchanged(folder):
        yield made


@pytest.fixture(scope="session")
def whole(data, tmp_path_factory):
    """The folder of an undisturbed run, and what it printed."""
    import train
    from tests.support import runs

    run = tmp_path_factory.mktemp("whole") / "run"
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        assert runs.in_process(train, patch, *runs.options(data, run)) == 0
    with unchanged(run):
        yield run, output.getvalue()


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
