"""Replays the step at which a run stopped because something was not finite, and shows where that begins.

    python -m tools.replay runs/clim-photos/nonfinite-step-00000123

Exit code 0: it happens here too. 1: all is finite here. 2: the folder cannot be used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from models import build, resolve
from models.method import Method
from models.storage import checkpoint
from models.training.config import with_current_names
from models.training.precision import DTYPES
from pipelines import Batch
from pipelines.printable import printable
from tools.command_line import Failure, OneLineParser, guarded_main
from tools.run.accelerator import device_of
from tools.run.nonfinite_guard import unnamed

_UNUSABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, SafetensorError,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.replay", lambda: replay_folder(arguments))


def replay_folder(arguments: Sequence[str] | None) -> int:
    """Restores what a run saved of its step and makes the step again; 0 if it is finite now."""
    parser = OneLineParser(prog="tools.replay", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="RUN/nonfinite-step-...")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU where there is one)")
    options = parser.parse_args(arguments)
    device = device_of(options.device).type
    try:
        facts, config = (json.loads((options.folder / name).read_text()) for name in ("step.json", "config.json"))
        method = restored(options.folder, facts, config)
        batches = saved_batches(options.folder, facts)
        precision = DTYPES[facts["precision"]]
        told = f"step {facts['step']} of {config['method']}, in the run: {facts['reason']}"
    except _UNUSABLE as error:
        reason = " ".join(str(error).split())[:300]
        raise Failure(f"{options.folder} cannot be replayed ({type(error).__name__}: {reason})") from None
    print(printable(told))
    return int(not replay(method.to(device), batches, precision, device))


def restored(folder: Path, facts: Mapping[str, Any], config: Mapping[str, Any]) -> Method:
    """The method as it was before the step."""
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in with_current_names(config["recipe"]).items()}
    method = build(config["method"], resolve(config["method"], config["recipe_name"], **values))
    method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types do not know it alone
    saved = checkpoint.load(folder / "before" / f"step-{facts['step'] - 1:08d}")
    method.load_state_dict(saved.model)
    method.begin(facts["step"] - 1, facts["steps_per_epoch"], config["recipe"]["epochs"])
    return method.train()


def saved_batches(folder: Path, facts: Mapping[str, Any]) -> list[Batch]:
    """The parts of the step's global batch: sample m of process r of W is its sample m W + r."""
    files = [load((folder / f"batch-process-{rank}.safetensors").read_bytes()) for rank in range(facts["processes"])]
    parts = []
    for number, seed in enumerate(facts["seeds"]):
        names = [name for name in files[0] if name.startswith(f"{number} ")]
        joined = {name.split(" ", 1)[1]: torch.stack([f[name] for f in files], 1).flatten(0, 1) for name in names}
        parts.append(unnamed(joined, seed))
    return parts


def replay(method: Method, batches: Sequence[Batch], precision: torch.dtype, device: str) -> bool:
    """Forward and backward of one step; prints what is not finite and returns whether anything is."""
    show("before the step, of the tensors of the state", method.state_dict())
    show(
        "of the batch", {f"view {n} of part {p}": v for p, part in enumerate(batches) for n, v in enumerate(part.views)}
    )
    autocast = torch.autocast(device, precision, enabled=precision != torch.float32)
    found = False
    for batch in batches:
        with first_outputs(method) as first, autocast:
            losses = method(moved(batch, device))
        if first:
            print(f"forward: {first[0]} is the first whose output is not finite")
        parts = ", ".join(f"{name} {float(value.detach()):g}" for name, value in losses.terms.items())
        print(f"loss: {float(losses.total.detach()):g}{f' ({parts})' if parts else ''}")
        torch.autograd.backward(losses.total)
        found = found or bool(first) or not bool(losses.total.isfinite())
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return show("of the gradients", gradients) or found


def show(what: str, tensors: Mapping[str, Tensor]) -> bool:
    """A line for each tensor with values that are not finite, at most ten; whether there is one."""
    wrong = {name: int((~tensor.isfinite()).sum()) for name, tensor in tensors.items() if tensor.is_floating_point()}
    wrong = {name: count for name, count in wrong.items() if count}
    print(f"{what}: {len(wrong)} of {len(tensors)} are not finite" if wrong else f"{what}: all are finite")
    for name, count in list(wrong.items())[:10]:
        print(f"    {name}: {count} of {tensors[name].numel()} values")
    return bool(wrong)


@contextmanager
def first_outputs(method: nn.Module) -> Iterator[list[str]]:
    """Collects the innermost modules whose output is not finite, in the order in which they ran."""
    found: list[str] = []

    def looker(name: str) -> Any:
        def check_output(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and not bool(output.isfinite().all()):
                came = all(bool(x.isfinite().all()) for x in inputs if isinstance(x, Tensor))
                found.append(f"{name} ({type(module).__name__}; its input is {'' if came else 'not '}finite)")

        return check_output

    leaves = [(name, module) for name, module in method.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(looker(name)) for name, module in leaves]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def moved(batch: Batch, device: str) -> Batch:
    """The batch on a device, its views channels-last as the loader makes them."""
    views = tuple(view.to(device, memory_format=torch.channels_last) for view in batch.views)
    partner = None if batch.partner is None else moved(batch.partner, device)
    box = None if batch.box is None else batch.box.to(device)
    return Batch(views, batch.index.to(device), batch.label.to(device), batch.seed, partner, box)


if __name__ == "__main__":
    sys.exit(main())
