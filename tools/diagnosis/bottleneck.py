"""Says which stage limits training, from the speeds of all stages, and what to do about it that is not done yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from models.training.precision import multiplies_bfloat16
from pipelines import Dataset, View
from pipelines.executors.resident import LIMIT, decoded_bytes, forecast
from pipelines.threads import usable_cores
from tools.diagnosis.stage_speeds import Speeds

ENOUGH = 0.95  # together / trained from which on the network is the limit
_SHRINK = 1.5  # images stored larger than this multiple of the largest view are decoded for nothing


@dataclass(frozen=True)
class InUse:
    """What the measured training used, so that no advice asks for it.

    Attributes:
        loader: ffcv, dali or resident.
        precision: bf16, fp16 or fp32.
        compile: whether what gains from it was compiled.
        threads: of the loader and of torch.
    """

    device: torch.device
    loader: str
    precision: str
    compile: bool
    threads: int


@dataclass(frozen=True)
class Verdict:
    """The limiting stage, the reason for that verdict, and a remedy."""

    stage: str
    reason: str
    remedy: str


def verdict(speeds: Speeds, dataset: Dataset, views: Iterable[View], used: InUse) -> Verdict:
    """Return which stage limits, why, and what to do about it; or that the measurement cannot be believed."""
    if not speeds.possible:
        reason = f"training from the loader was measured at {speeds.efficiency:.0%} of the step alone, which cannot be"
        remedy = "nothing by this measurement: other work disturbed it; measure on an idle machine, longer (--seconds)"
        return Verdict("unknown", reason, remedy)
    if speeds.efficiency >= ENOUGH:
        reason = f"training from the loader runs at {speeds.efficiency:.0%} of the step alone"
        return Verdict("the network", reason, f"nothing in the data path; {_faster_step(used)}")
    seconds_cut, seconds_colours = 1 / speeds.cut, max(0.0, 1 / speeds.loaded - 1 / speeds.cut)
    if used.device.type == "cpu" and speeds.loaded > 4 * speeds.trained:
        ratio = speeds.loaded / speeds.trained
        reason = f"the loader alone is {ratio:.0f} times as fast as the step, but they share the cores"
        return Verdict("the cores", reason, _more_cores(used))
    if seconds_cut < seconds_colours:
        reason = f"colours take {seconds_colours / (seconds_cut + seconds_colours):.0%} of the loader's time"
        lacks_triton = used.device.type == "cuda" and find_spec("triton") is None
        return Verdict("the augmentation", reason, "pip install triton" if lacks_triton else _more_cores(used))
    reason = f"decoding and cropping take {seconds_cut / (seconds_cut + seconds_colours):.0%} of the loader's time"
    return Verdict("decoding and cropping", reason, _decode_less(dataset, views, used))


def _faster_step(used: InUse) -> str:
    """Return what makes a step faster."""
    if used.precision == "fp32" and multiplies_bfloat16(used.device):
        return "a faster step comes with --precision bf16"
    if not used.compile:
        return "a faster step comes with --compile"
    return "a faster step comes with a smaller network, smaller views or a faster device only"


def _more_cores(used: InUse) -> str:
    """Return how training gets more cores."""
    if used.threads < usable_cores():
        return f"--threads {usable_cores()}: {used.threads} of {usable_cores()} cores are used"
    return "more cores for the process" + (", or a GPU" if used.device.type == "cpu" else "")


def _decode_less(dataset: Dataset, views: Iterable[View], used: InUse) -> str:
    """Return what makes decoding cheaper."""
    if used.loader != "resident" and forecast(dataset, used.device)[0] <= LIMIT:
        return f"--loader resident: the decoded set takes {decoded_bytes(dataset) / 2**30:.2f} GiB"
    side, largest = int(min(dataset.heights.mean(), dataset.widths.mean())), max(view.size for view in views)
    if side > _SHRINK * largest:
        return f"python -m tools.convert {dataset.path} OUT --max-size {int(_SHRINK * largest)}: images are {side} px"
    if used.device.type == "cuda" and used.loader != "dali":
        return "--loader dali: it decodes on the GPU"
    return _more_cores(used)
