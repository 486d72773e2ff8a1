"""The Triton kernels compile for a GPU, which the interpreter cannot show, and only for a run's first batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.mark.processes
def test_every_kernel_becomes_machine_code_before_the_second_batch(tmp_path: Path) -> None:
    """Whatever the number of samples, and whether views were cut on the host or not."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.support.compile_kernels"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split("\n")) == {"cut_pillow", "cut_area", "luma_sums", "columns", "rows", ""}
