"""Sets a training process up for its machine: the device, Accelerate, compilation and threads."""

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
from tools.run.tuning import tune


def device_of(text: str | None) -> torch.device:
    """Return the device that `--device` names, or by default the GPU if there is one and else the CPU.

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
    """Return an Accelerator for this machine, on its GPUs if it has any and else on the CPU.

    Raises:
        ValueError: the machine does not support the precision.
    """
    tune()
    on_gpu = torch.cuda.is_available()
    check_precision(options.precision, torch.device("cuda" if on_gpu else "cpu"))
    return Accelerator(
        cpu=not on_gpu,
        mixed_precision="no" if options.precision == "fp32" else options.precision,
        gradient_accumulation_steps=options.accumulate,
        log_with=options.log_with,
        project_dir=str(options.folder),
        # DDP must not overwrite the batch norms' running statistics with those of process 0: each process keeps its
        # own until `average_running_statistics` averages them after the step.
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(seconds=options.peer_timeout)),
        ],
    )


def use_compiler(enabled: bool, method: Method, accelerator: Accelerator) -> None:
    """Compile at first use whatever gains from it on this device. This is what `--compile` means.

    - On every device the hot path, the losses over a queue, which then read the queue in one pass.
    - On CUDA also the backbones of student and teachers, inside DDP, where batch norms, activations and sums between
      convolutions are fused. A CPU would gain a few per cent from it and wait half a minute for the compiler.

    Compiled code is kept between runs.
    """
    compile_hot_path(enabled, accelerator.process_index)
    if enabled and accelerator.device.type == "cuda":
        compile_backbones(method)


def recorder_for(options: RunOptions, accelerator: Accelerator) -> Recorder | None:
    """Return what records steps here: CUDA graphs for one process on a GPU, otherwise nothing."""
    return None if why_not_recorded(options, accelerator.device, accelerator.num_processes) else CudaGraphs()


def why_not_recorded(options: RunOptions, device: torch.device, processes: int) -> str:
    """Return the reason for which steps are not recorded on a device; an empty text if they are."""
    if device.type != "cuda":
        return "no GPU"
    if not options.compile:
        return "--no-compile"
    if not options.record:
        return "--no-record"
    if processes > 1:
        return f"{processes} processes, whose collectives are not recorded"
    if options.precision == "fp16":
        return "fp16, whose scaler reads the device each step"
    return ""


def use_threads(requested: int) -> int:
    """Let torch use the given number of threads, or this process's share of the cores if it is 0; return the number."""
    threads = share_of_cores(requested)
    torch.set_num_threads(threads)  # launchers set OMP_NUM_THREADS to 1, which would leave cores idle
    return threads
