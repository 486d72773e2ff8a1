"""How a training process meets its machine: Accelerate, threads, precision."""

from __future__ import annotations

import os
from argparse import Namespace
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from models.method import Method
from models.training.config import Training
from pipelines.compiled import compile_hot_path
from pipelines.printable import shown
from tools.command_line import Failure
from tools.run.cuda_graphs import compile_backbones

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def device_of(text: str | None) -> torch.device:
    """The device that `--device` names; where nothing is named, the GPU, or the CPU of a machine without one.

    Raises:
        Failure: this machine has no such device.
    """
    count = torch.cuda.device_count()
    try:
        device = torch.device(text or ("cuda" if count else "cpu"))
    except RuntimeError:
        raise Failure(f"--device is '{shown(text or '')}'; take cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise Failure(f"--device is '{device}'; take cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise Failure(f"--device is '{device}', but torch finds no such GPU here; take cpu, or ask tools.doctor")
    return device


def make_accelerator(options: Namespace) -> Accelerator:
    """Accelerate for this machine: its GPUs where there are some, else the CPU.

    Raises:
        Failure: a precision that the machine does not have.
    """
    on_gpu = torch.cuda.is_available()
    if options.precision == "fp16" and not on_gpu:
        raise Failure("--precision fp16 needs a GPU; take bf16 or fp32 on a CPU")
    return Accelerator(
        cpu=not on_gpu,
        mixed_precision="no" if options.precision == "fp32" else options.precision,
        gradient_accumulation_steps=options.accumulate,
        log_with=options.log_with,
        project_dir=options.output or "runs",
        # Each process keeps the batch statistics of its own groups; they are averaged before they are used.
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(seconds=options.peer_timeout)),
        ],
    )


def check_parts(training: Training, parts: int) -> None:
    """Refuses a batch that cannot be made in `parts`.

    Raises:
        Failure: batch, parts and batch-norm groups do not go together.
    """
    if training.batch_size % parts:
        raise Failure(f"--batch-size {training.batch_size} does not divide into --accumulate {parts} parts")
    if (training.batch_size // parts) % training.bn_splits:
        raise Failure(f"--accumulate {parts} leaves parts that --bn-splits {training.bn_splits} does not divide")


def use_compiler(enabled: bool, method: Method, accelerator: Accelerator, parts: int) -> None:
    """Compiles what pays on this device at its first use: the one meaning of `--compile`.

    Everywhere the hot path, whose reads of a queue become one pass. On CUDA also the backbones of student and teachers,
    inside DDP: batch norms, activations and sums between convolutions are fused; and a single process that makes its
    batches in one part, of views of one size, starts a pass with one call (`recorded.py`). A CPU gains a few per cent
    from that and waits half a minute for it. What is compiled is kept between runs.
    """
    compile_hot_path(enabled, accelerator.process_index)
    if enabled and accelerator.device.type == "cuda":
        sizes = {view.size for view in method.views}
        compile_backbones(method, record=accelerator.num_processes == parts == len(sizes) == 1)


def use_threads(asked: int) -> int:
    """Gives this process its share of the cores, or as many threads as were asked for; returns how many."""
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = asked or max(1, len(os.sched_getaffinity(0)) // local_processes)
    torch.set_num_threads(threads)  # launchers set OMP_NUM_THREADS to 1, which would leave cores idle
    return threads
