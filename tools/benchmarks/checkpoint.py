"""What a checkpoint costs training: steps during which one is copied and written, beside steps without.

MoCo with ResNet-18 and a queue of 65,536 keys of 128 numbers, batch 256, bfloat16, on batches that are there. A window
is long enough for the write to end in it (two steps of a small CPU take many seconds). "Share lost every 50 steps" is
what a window with a checkpoint takes longer, as a share of 50 steps: copying, and what writing takes from training.
"Copy" is how long a step waits. Checkpoints go into the folder for temporary files ($TMPDIR).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from models import build, resolve
from models.optim import build_optimizer
from pipelines import Batch
from tools.benchmarks.measure import Case, Settings, synchronize, take_turns
from tools.checkpoint_writer import CheckpointWriter

_BATCH, _QUEUE, _EVERY = 256, 65_536, 50


def cases(settings: Settings) -> Iterator[Case]:
    yield of_network(64, _BATCH, _QUEUE, 2 if settings.device == "cpu" else _EVERY, settings)


def of_network(width: int, batch_size: int, queue: int, steps: int, settings: Settings) -> Case:
    """Milliseconds of `steps` steps, with a checkpoint at the start of the window and without."""
    torch.manual_seed(0)
    device = torch.device(settings.device)
    recipe = resolve("moco", "cifar10", width=width, batch_size=batch_size, queue_size=queue)
    method = build("moco", recipe)
    # torch's types do not know this argument
    method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    method.begin(0, 1000, 1)
    optimizer = build_optimizer(method.named_parameters(), "sgd", 0.01, 0.9, 5e-4)
    views = tuple(
        torch.randn(batch_size, 3, view.size, view.size, device=device, dtype=torch.bfloat16) for view in method.views
    )
    index = torch.arange(batch_size, device=device)
    batch = Batch(views, index, index, 0)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            losses = method(batch)
        torch.autograd.backward(losses.total)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(0)

    copies: list[float] = []
    writes: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        writer = CheckpointWriter(Path(folder) / "checkpoints", 2, True)

        def window(checkpoint: bool) -> float:
            synchronize(settings.device)
            started = time.perf_counter()
            for number in range(steps):
                step()
                if checkpoint and number == 0:
                    before = time.perf_counter()
                    writer.save(method, optimizer, {"step": len(copies)})
                    copies.append(1000 * (time.perf_counter() - before))
            synchronize(settings.device)
            took = 1000 * (time.perf_counter() - started)
            writer.wait()
            if checkpoint:
                before = time.perf_counter()
                writer.save(method, optimizer, {"step": len(copies)})
                writer.wait()
                writes.append(1000 * (time.perf_counter() - before))
            return took

        window(True)  # makes the memory of the copies
        values = take_turns(
            {"with a checkpoint": lambda: window(True), "without": lambda: window(False)}, settings.repeats
        )
        size = sum(file.stat().st_size for file in next(Path(folder).glob("checkpoints/step-*")).iterdir()) / 2**20
    more = statistics.median(values["with a checkpoint"]) - statistics.median(values["without"])
    share = more / (_EVERY / steps * statistics.median(values["without"]))
    facts = {
        "share lost every 50 steps": round(share, 4), "copy ms": round(statistics.median(copies[1:]), 1),
        "copy and write ms, with nothing beside": round(statistics.median(writes), 1), "size MiB": round(size, 1),
        "network": f"ResNet-18, width {width}", "batch": batch_size, "queue": queue,
    }  # fmt: skip
    return Case(f"{steps} steps of moco", "ms", values, facts=facts)
