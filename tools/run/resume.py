"""Continues a run from its newest valid checkpoint."""

from __future__ import annotations

import json
from typing import Any

import torch

from models.method import Method
from models.methods.recipes import recipe_of_run
from models.storage import checkpoint
from pipelines.printable import printable
from tools.command_line import Failure
from tools.run.folder import RunFolder
from tools.run.options import RunOptions
from tools.run.state import RunState, check_state


def started_with(options: RunOptions) -> dict[str, Any] | None:
    """Return config.json of the run that is resumed, whose recipe counts instead of the tables.

    Returns:
        None if nothing is resumed, the file cannot be read, or it is of another method (which `resume` refuses).

    Raises:
        Failure: --recipe names another recipe.
    """
    if not options.resume:
        return None
    try:
        config = json.loads((options.folder / "config.json").read_text())
        name, method = config["recipe_name"], config["method"]
        recipe_of_run(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if options.recipe not in (None, name) and options.method == method:
        raise Failure(f"the run was started with recipe {name}, not {options.recipe}; give that, or another --output")
    return dict(config) if options.method == method else None


def resume(
    folder: RunFolder, method: Method, optimizer: torch.optim.Optimizer, scaler: Any, state: RunState
) -> list[str]:
    """Restore the newest valid checkpoint into method, optimizer, fp16's scaler and `state`.

    Returns:
        Lines to show: which checkpoint was taken, which were skipped and why, and whether rows of metrics are missing.

    Raises:
        Failure: the checkpoint is of another run; there are checkpoints but none can be read; or the disk cannot be
            read, so that nobody knows whether there are any. Nothing has been changed then.
    """
    remedy = "fix that, or start again with --force instead of --resume"
    try:
        found, notes = checkpoint.newest(folder.checkpoints, check_state)
    except OSError as error:
        raise Failure(f"{error}; {remedy}") from None
    if found is None and notes:
        raise Failure(f"none of the {len(notes)} checkpoints in {folder.checkpoints} can be read: {notes[0]}; {remedy}")
    if found is None:
        folder.rewind(0, 0)
        return [f"{printable(str(folder.checkpoints))} holds no checkpoint; starting from the first step"]
    state.refuse_another_run(found.state)
    try:
        found.apply(method, optimizer)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise Failure(
            f"{found.path} is of another network ({reason}); use the code that started the run, or another --output"
        ) from None
    state.restore(found.state)
    if scaler is not None and state.scaler is not None:
        scaler.load_state_dict(state.scaler)
    return [*notes, f"resumed from {printable(str(found.path))}", *folder.rewind(state.step, state.rows)]
