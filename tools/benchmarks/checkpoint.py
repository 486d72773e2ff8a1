"""What a checkpoint costs training: windows of steps with a checkpoint written beside them, and windows without.

MoCo with ResNet-18 and a queue of 65,536 keys of 128 numbers, batch size 256, on a batch that is ready. In bfloat16, or
in float32 on a CPU that only emulates bfloat16: the faster the steps, the more a checkpoint costs beside them.

A window is a few steps and several times as long as the writing of a checkpoint. If the writing lasts longer, the
window waits for it, and that time counts. Windows with and without a checkpoint come in pairs whose order alternates,
so that a machine that slows down favours neither. Checkpoints are written to the folder for temporary files ($TMPDIR).

"share lost every 50 steps" is by how much a window with a checkpoint is longer (the median over the pairs), as a share
of the duration of 50 steps. It includes copying, and what writing takes away from training. On a CPU a window is much
shorter than 50 steps, so that noise within a window changes the share little; the quartiles over the pairs show how
much. "copy ms" is how long a step waits for the copy.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from models import build, resolve
from models.training.optim import build_optimizer
from models.training.precision import multiplies_bfloat16
from pipelines import Batch
from tools.benchmarks.measure import Case, Settings, milliseconds, synchronize
from tools.run.checkpoint_writer import CheckpointWriter

_BATCH, _QUEUE, _EVERY = 256, 65_536, 50
_WRITES = 3  # a window is at least this many times as long as the writing of a checkpoint
_WITH, _WITHOUT = "with a checkpoint", "without"


def cases(settings: Settings) -> Iterator[Case]:
    yield of_network(64, _BATCH, _QUEUE, settings)


def of_network(width: int, batch_size: int, queue: int, settings: Settings) -> Case:
    """Measure the milliseconds of a window of steps, with a checkpoint at its start and without."""
    torch.manual_seed(0)
    device = torch.device(settings.device)
    fast_bfloat16 = multiplies_bfloat16(device)
    dtype = torch.bfloat16 if fast_bfloat16 else torch.float32
    recipe = resolve("moco", "cifar10", width=width, batch_size=batch_size, queue_size=queue)
    method = build("moco", recipe)
    # torch's stub lacks memory_format beside a device
    method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    method.begin(0, 1000, 1)
    optimizer = build_optimizer(method.named_parameters(), "sgd", 0.01, 0.9, 5e-4)
    views = tuple(torch.randn(batch_size, 3, view.size, view.size, device=device, dtype=dtype) for view in method.views)
    index = torch.arange(batch_size, device=device)
    batch = Batch(views, index, index, 0)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16):
            losses = method(batch)
        torch.autograd.backward(losses.total)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(0)

    copies: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        writer = CheckpointWriter(Path(folder) / "checkpoints", 2, True)

        def save() -> None:
            started = time.perf_counter()
            writer.save(method, optimizer, {"step": len(copies)})
            copies.append(1000 * (time.perf_counter() - started))

        def save_alone() -> None:
            save()
            writer.wait()

        step()
        save_alone()  # allocates the memory of the copies
        writes = [milliseconds(save_alone, settings.device)() for _ in range(3)]
        alone = milliseconds(step, settings.device)()
        steps = min(_EVERY, math.ceil(_WRITES * statistics.median(writes) / alone))

        def window(checkpoint: bool) -> float:
            def run() -> None:
                if checkpoint:
                    save()
                for _ in range(steps):
                    step()
                synchronize(settings.device)
                writer.wait()

            return milliseconds(run, settings.device)()

        values: dict[str, list[float]] = {_WITH: [], _WITHOUT: []}
        for number in range(settings.repeats):
            for name in (_WITH, _WITHOUT) if number % 2 else (_WITHOUT, _WITH):
                values[name].append(window(name == _WITH))
        size = sum(file.stat().st_size for file in next(Path(folder).glob("checkpoints/step-*")).iterdir()) / 2**20
    fifty = _EVERY / steps * statistics.median(values[_WITHOUT])
    shares = [(one - other) / fifty for one, other in zip(values[_WITH], values[_WITHOUT], strict=True)]
    low, middle, high = statistics.quantiles(shares, n=4) if len(shares) > 1 else shares * 3
    facts = {
        "share lost every 50 steps": round(middle, 5),
        "quartiles of the pairs": [round(low, 5), round(high, 5)],
        "pairs": len(shares),
        "copy ms": round(statistics.median(copies), 1),
        "copy and write ms, with nothing beside": round(statistics.median(writes), 1),
        "size MiB": round(size, 1),
        "network": f"ResNet-18, width {width}",
        "batch": batch_size,
        "queue": queue,
        "precision": str(dtype).removeprefix("torch."),
    }
    return Case(f"{steps} steps of moco", "ms", values, facts=facts)
