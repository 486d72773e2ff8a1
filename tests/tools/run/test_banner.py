"""The banner says in which form steps run, and why not in a faster one."""

from types import SimpleNamespace

import pytest
import torch

from tools.run.accelerator import recorder_for
from tools.run.banner import step_form


@pytest.mark.parametrize(
    ("device", "processes", "changed", "line"),
    [
        ("cuda", 1, {}, "recorded, one CUDA graph for each kind of step"),
        ("cuda", 1, {"record": False}, "compiled, not recorded (--no-record)"),
        ("cuda", 8, {}, "compiled, not recorded (8 processes, whose collectives are not recorded)"),
        (
            "cuda",
            1,
            {"precision": "fp16"},
            "compiled, not recorded (fp16, whose scaler reads the device each step)",
        ),
        ("cuda", 1, {"compile": False}, "plain (--no-compile)"),
        ("cpu", 1, {}, "plain, its losses compiled (no GPU)"),
        ("cpu", 2, {"compile": False}, "plain (no GPU)"),
    ],
)
def test_the_form_of_a_step(device, processes, changed, line):
    options = SimpleNamespace(**{"compile": True, "record": True, "precision": "bf16"} | changed)
    accelerator = SimpleNamespace(device=torch.device(device), num_processes=processes)
    assert step_form(options, accelerator) == line
    if not line.startswith("recorded"):
        assert recorder_for(options, accelerator) is None
