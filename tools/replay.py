"""Repeats the step at which a run stopped because something was not finite, and shows where that begins.

    python -m tools.replay runs/clim-photos/nonfinite-step-00000123

Exit code 0: it happens here too. 1: everything is finite here. 2: the folder cannot be used.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from models.method import Method
from models.training.precision import DTYPES
from pipelines import Batch
from pipelines.printable import printable
from tools.command_line import Failure, OneLineParser, guarded_main
from tools.run.accelerator import device_of
from tools.run.nonfinite_files import read_batches, read_method

#: What reading a folder raises that was edited or is damaged.
_UNUSABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    RuntimeError,
    SafetensorError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.replay", lambda: replay_folder(arguments))


def replay_folder(arguments: Sequence[str] | None) -> int:
    """Restore the state before the step and repeat the step; return the exit code."""
    options = parse(arguments)
    device = device_of(options.device).type
    try:
        facts, config = (json.loads((options.folder / name).read_text()) for name in ("step.json", "config.json"))
        method = read_method(options.folder, facts, config)
        batches = read_batches(options.folder, facts)
        precision = DTYPES[facts["precision"]]
        title = f"step {facts['step']} of {config['method']}, in the run: {facts['reason']}"
    except _UNUSABLE as error:
        reason = " ".join(str(error).split())[:300]
        raise Failure(f"{options.folder} cannot be replayed ({type(error).__name__}: {reason})") from None
    print(printable(title))
    return int(not replay(method.to(device), batches, precision, device))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="tools.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder RUN/nonfinite-step-N")
    parser.add_argument(
        "--device", metavar="NAME", help="the device to compute on, cpu or cuda (default: a GPU, if there is one)"
    )
    return parser.parse_args(arguments)


def replay(method: Method, batches: Sequence[Batch], precision: torch.dtype, device: str) -> bool:
    """Make the forward and backward passes of a step, and print what is not finite.

    Returns:
        Whether anything was not finite.
    """
    report("before the step, of the tensors of the state", method.state_dict())
    views = {
        f"view {number} of micro-batch {micro_batch}": view
        for micro_batch, batch in enumerate(batches)
        for number, view in enumerate(batch.views)
    }
    report("of the batch", views)
    autocast = torch.autocast(device, precision, enabled=precision != torch.float32)
    found = False
    for batch in batches:
        with nonfinite_modules(method) as modules, autocast:
            losses = method(on_device(batch, device))
        if modules:
            print(f"forward: {modules[0]} is the first whose output is not finite")
        terms = ", ".join(f"{name} {float(value.detach()):g}" for name, value in losses.terms.items())
        print(f"loss: {float(losses.total.detach()):g}{f' ({terms})' if terms else ''}")
        torch.autograd.backward(losses.total)
        found = found or bool(modules) or not bool(losses.total.isfinite())
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return report("of the gradients", gradients) or found


def report(title: str, tensors: Mapping[str, Tensor]) -> bool:
    """Print how many tensors are not finite, and a line for each of the first ten; return whether there is one."""
    counts = {name: int((~tensor.isfinite()).sum()) for name, tensor in tensors.items() if tensor.is_floating_point()}
    counts = {name: count for name, count in counts.items() if count}
    print(f"{title}: {len(counts)} of {len(tensors)} are not finite" if counts else f"{title}: all are finite")
    for name, count in list(counts.items())[:10]:
        print(f"    {name}: {count} of {tensors[name].numel()} values")
    return bool(counts)


@contextmanager
def nonfinite_modules(method: nn.Module) -> Iterator[list[str]]:
    """Collect the innermost modules whose output is not finite, in the order in which they run within the context."""
    found: list[str] = []

    def hook_of(name: str) -> Any:
        def check_output(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and not bool(output.isfinite().all()):
                finite_input = all(bool(x.isfinite().all()) for x in inputs if isinstance(x, Tensor))
                found.append(f"{name} ({type(module).__name__}; its input is {'' if finite_input else 'not '}finite)")

        return check_output

    leaves = [(name, module) for name, module in method.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(hook_of(name)) for name, module in leaves]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def on_device(batch: Batch, device: str) -> Batch:
    """Return the batch on a device, its views channels-last as the loader makes them."""
    views = tuple(view.to(device, memory_format=torch.channels_last) for view in batch.views)
    partner = None if batch.partner is None else on_device(batch.partner, device)
    box = None if batch.box is None else batch.box.to(device)
    return Batch(views, batch.index.to(device), batch.label.to(device), batch.seed, partner, box)


if __name__ == "__main__":
    sys.exit(main())
