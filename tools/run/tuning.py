"""How cuDNN and the compiler choose among kernels that compute the same: one setting for every program that trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Tuning:
    """A way to choose kernels.

    Attributes:
        cudnn_benchmark: cuDNN times its algorithms at the first convolution of each shape and keeps the fastest,
            instead of choosing by rules (`torch.backends.cudnn.benchmark`).
        inductor: values of `torch._inductor.config` that differ from torch's own, such as
            {"coordinate_descent_tuning": True}.
    """

    cudnn_benchmark: bool = False
    inductor: Mapping[str, Any] = field(default_factory=dict)


#: What train.py, the doctor and the benchmarks use: torch's defaults, because nothing else has been measured to pay.
#: `python -m tools.gpu_check tuning-msvq tuning-resnet50` times the alternatives on a GPU.
TUNING = Tuning()


def tune(tuning: Tuning = TUNING) -> None:
    """Set how kernels are chosen, for this process; call it before anything is compiled."""
    torch.backends.cudnn.benchmark = tuning.cudnn_benchmark
    if tuning.inductor:
        from torch._inductor import config  # importing it takes a second

        for name, value in tuning.inductor.items():
            setattr(config, name, value)
