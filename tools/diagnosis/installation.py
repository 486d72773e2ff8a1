"""What is installed and works: each check examines one thing, and gives a remedy where it fails."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from pipelines import Dataset
from pipelines.formats.channels import uniform_channels
from pipelines.threads import usable_cores
from tools.diagnosis.checkout import PACKAGES, ROOT, foreign_packages

SHARED_MEMORY = Path("/dev/shm")
_GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was examined.
        found: what the check found.
        state: "ok", "slow" (it works, another way is faster) or "missing".
        remedy: a command or advice, empty if nothing needs to be done.
    """

    name: str
    found: str
    state: str = "ok"
    remedy: str = ""


def checks() -> Iterator[Check]:
    """Run all checks, in the order of the report."""
    yield own_packages()
    yield torch_build()
    yield ffcv_kernels()
    yield jpeg_library()
    yield dali()
    yield compiler()
    yield threads()
    yield memory()
    yield shared_memory()


def own_packages() -> Check:
    """Check that the project's packages are not hidden by folders of the same names on Python's path."""
    if problem := foreign_packages():
        found, _, remedy = problem.partition(": ")
        return Check("packages", found, "missing", remedy)
    return Check("packages", f"{', '.join(PACKAGES)} of {ROOT}")


def torch_build() -> Check:
    """Check torch, and whether it sees a GPU that the machine has."""
    version = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return Check("GPU", f"{version}, {torch.cuda.device_count()} x {', '.join(sorted(names))}")
    if shutil.which("nvidia-smi"):
        why = "built without CUDA" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
        return Check("GPU", f"{version} ({why}) sees none, nvidia-smi is there", "missing", "pip install torch")
    return Check("GPU", f"{version}, none; everything runs on the CPU")


def ffcv_kernels() -> Check:
    """Check FFCV's library, which decodes and crops .beton files."""
    from pipelines.executors.ffcv_kernels import INSTALL, load

    def use() -> str:
        load()
        return f"ffcv {metadata.version('ffcv')}"

    return _usable("ffcv", use, INSTALL)


def jpeg_library() -> Check:
    """Check the libjpeg-turbo that FFCV's library is linked to; this process knows it once that library is loaded."""
    loaded = re.search(r"\S*libturbojpeg\S*", Path("/proc/self/maps").read_text())
    if loaded:
        return Check("libjpeg-turbo", Path(loaded[0]).name)
    return Check(
        "libjpeg-turbo", "not loaded", "missing", "apt-get install libturbojpeg0-dev, then tools/setup.sh ffcv"
    )


def dali() -> Check:
    """Check DALI, which decodes on a GPU."""

    def use() -> str:
        import nvidia.dali

        return f"nvidia-dali {nvidia.dali.__version__}"

    return _usable("DALI", use, "tools/setup.sh dali", "missing" if torch.cuda.is_available() else "ok")


def compiler() -> Check:
    """Check the C++ compiler, without which the hot path runs uncompiled on a CPU."""
    found = next((path for name in ("g++", "clang++", "c++") if (path := shutil.which(name))), None)
    if found:
        return Check("C++ compiler", found)
    return Check("C++ compiler", "none; the hot path runs uncompiled", "slow", "apt-get install g++")


def threads() -> Check:
    """Check how many cores this process may use, and whether the environment keeps torch from using them."""
    cores = usable_cores()
    given = os.environ.get("OMP_NUM_THREADS")
    if given and given.isdigit() and int(given) < cores:
        return Check(
            "threads",
            f"{cores} cores, OMP_NUM_THREADS={given}",
            "slow",
            "unset OMP_NUM_THREADS (train.py sets its own)",
        )
    return Check("threads", f"{cores} cores, torch uses {torch.get_num_threads()}")


def memory() -> Check:
    """Check the memory that is free or can be freed: the file cache and a resident data set live in it."""
    free, total = (_meminfo(name) / _GIB for name in ("MemAvailable", "MemTotal"))
    state = "ok" if free > 2 else "slow"
    return Check(
        "memory", f"{free:.1f} of {total:.1f} GiB free", state, "" if state == "ok" else "close other programs"
    )


def shared_memory() -> Check:
    """Check /dev/shm, through which processes exchange tensors."""
    if not SHARED_MEMORY.is_dir():
        return Check("shared memory", f"no {SHARED_MEMORY}", "slow", f"mount -t tmpfs tmpfs {SHARED_MEMORY}")
    free = shutil.disk_usage(SHARED_MEMORY).free / _GIB
    if free < 0.25:
        return Check(
            "shared memory",
            f"{free:.2f} GiB free",
            "slow",
            "in a container: --shm-size 1g (nccl needs it between GPUs)",
        )
    return Check("shared memory", f"{free:.1f} GiB free")


def file_cache(path: Path) -> Check:
    """Check whether a data set fits into the memory that the file cache may take, so that epochs read no disk."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size, free = sum(file.stat().st_size for file in files) / _GIB, _meminfo("MemAvailable") / _GIB
    if size < 0.8 * free:
        return Check("file cache", f"{size:.2f} GiB of data, {free:.1f} GiB free: it fits")
    remedy = "convert with a smaller --max-size or --quality, or keep the file on a fast local disk"
    found = f"{size:.1f} GiB of data, {free:.1f} GiB free: every epoch reads the disk"
    return Check("file cache", found, "slow", remedy)


def channels(dataset: Dataset) -> Check:
    """Check whether each channel of a data set varies, as a network learns nothing from one that does not."""
    mean, std = dataset.card["mean"], dataset.card["std"]
    if not (lines := uniform_channels(mean, std)):
        return Check("channels", "red, green and blue vary")
    remedy = "check the files; for pictures of one channel, save it as grey"
    return Check("channels", "; ".join(lines), "slow", remedy)


def _usable(name: str, use: Callable[[], str], remedy: str, absent: str = "missing") -> Check:
    """Return the check of something that `use` imports and describes."""
    try:
        return Check(name, use())
    except ImportError as error:
        reason = str(error).splitlines()[0]
        return Check(name, f"not usable ({reason})" if absent == "missing" else "not installed", absent, remedy)


def _meminfo(name: str) -> int:
    """Return the bytes that the kernel reports for `name`."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
