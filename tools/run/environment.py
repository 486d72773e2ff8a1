"""What a result depends on beside its settings: versions, commit and machine. Every file of results records them."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pipelines.threads import usable_cores

#: CPU instruction sets that decide how fast matrices are multiplied.
_INSTRUCTIONS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16")
_PACKAGES = ("torch", "accelerate", "numpy", "ffcv", "numba", "nvidia-dali-cuda130")


def commit() -> str | None:
    """Return the commit of this source tree, with "+changes" if files differ from it; None if git knows none."""
    words = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run([*words, "--dirty=+changes"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def versions(*further: str) -> dict[str, str]:
    """Return the versions of Python, of the packages that results depend on, and of `further` ones, if installed."""
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, *further):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return the hardware of this process: CPU, its relevant instruction sets, usable cores, and GPU."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    capabilities = torch.cpu.get_capabilities()
    instructions = [name for name in _INSTRUCTIONS if capabilities.get(name)]
    return {"cpu": _processor(), "instructions": instructions, "cores": usable_cores(), "gpu": gpu}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
