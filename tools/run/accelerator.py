"""How a training process meets its machine: Accelerate, threads, precision."""

from __future__ import annotations

from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from models.method import Method
from models.training.precision import check_precision
from pipelines.compiled import compile_hot_path
from pipelines.printable import printable
from pipelines.threads import share_of_cores
from tools.command_line import Failure
from tools.run.compiled_backbones import compile_backbones
from tools.run.options import RunOptions
from tools.run.recordings import CudaGraphs, Recorder


def device_of(text: str | None) -> torch.device:
    """The device that `--device` names; where nothing is named, the GPU, or the CPU of a machine without one.

    Raises:
        Failure: this machine has no such device.
    """
    count = torch.cuda.device_count()
    try:
        device = torch.device(text or ("cuda" if count else "cpu"))
    except RuntimeError:
        raise Failure(f"--device is '{printable(text or '')}'; take cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise Failure(f"--device is '{device}'; take cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise Failure(f"--device is '{device}', but torch finds no such GPU here; take cpu, or ask tools.doctor")
    return device


def make_accelerator(options: RunOptions) -> Accelerator:
    """Accelerate for this machine: its GPUs where it has any, otherwise the CPU.

    Raises:
        ValueError: a precision that the machine does not have.
    """
    on_gpu = torch.cuda.is_available()
    check_precision(options.precision, torch.device("cuda" if on_gpu else "cpu"))
    return Accelerator(
        cpu=not on_gpu,
        mixed_precision="no" if options.precision == "fp32" else options.precision,
        gradient_accumulation_steps=options.accumulate,
        log_with=options.log_with,
        project_dir=str(options.folder),
        # Each process keeps the batch statistics of its own groups; they are averaged before they are used.
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(seconds=options.peer_timeout)),
        ],
    )


def use_compiler(enabled: bool, method: Method, accelerator: Accelerator) -> None:
    """Compiles what pays on this device at its first use: the one meaning of `--compile`.

    Everywhere the hot path, whose reads of a queue become one pass. On CUDA also the backbones of student and teachers,
    inside DDP, as far as they train: batch norms, activations and sums between convolutions are fused. A CPU gains a
    few per cent from that and waits half a minute for it. What is compiled is kept between runs.
    """
    compile_hot_path(enabled, accelerator.process_index)
    if enabled and accelerator.device.type == "cuda":
        compile_backbones(method)


def recorder_for(options: RunOptions, accelerator: Accelerator) -> Recorder | None:
    """What records whole steps here: CUDA graphs for one process on a GPU, otherwise nothing.

    Several processes would need collectives in a graph, and fp16's scaler reads the device in each step.
    """
    able = accelerator.device.type == "cuda" and accelerator.num_processes == 1 and options.precision != "fp16"
    return CudaGraphs() if able and options.compile and options.record else None


def use_threads(asked: int) -> int:
    """Gives this process its share of the cores, or as many threads as were asked for; returns how many."""
    threads = share_of_cores(asked)
    torch.set_num_threads(threads)  # launchers set OMP_NUM_THREADS to 1, which would leave cores idle
    return threads
