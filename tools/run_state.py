"""How far a run is: what checkpoints carry beside tensors, what it refuses to go on from, and what it ends with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import torch

from models import checkpoint
from models.method import Method
from tools.options import Failure
from tools.run_folder import RunFolder


def fresh_state(options: Namespace, config: Mapping[str, Any]) -> dict[str, Any]:
    """The state at step 0.

    `best_top1` is the highest kNN accuracy after any training; `seconds` is training time over all resumes; `rows` are
    the rows of metrics that belong to it; the last line is what must stay the same when the run goes on.
    """
    return {
        "step": 0, "samples_seen": 0, "seconds": 0.0, "rows": 0, "loss": None,
        "knn_top1": None, "knn_step": None, "best_top1": None,
        "recent_losses": [], "in_spike": False, "skipped_steps": 0,
        "method": config["method"], "seed": options.seed, "accumulate": options.accumulate,
        "data_checksum": config["data"]["checksum"], "recipe": config["recipe"],
    }  # fmt: skip


def refuse_another_run(checkpoint: dict[str, Any], asked: dict[str, Any]) -> None:
    """Compares what a checkpoint's run was with what is asked for now.

    Raises:
        Failure: another method, seed or recipe value, or other data.
    """
    fixed = {name: asked[name] for name in ("method", "seed", "accumulate")}
    for name, value in (fixed | asked["recipe"]).items():
        was = (checkpoint | checkpoint["recipe"]).get(name)
        if was != value:
            raise Failure(f"the run was started with {name} {was}, not {value}; give the same, or another --output")
    if checkpoint["data_checksum"] != asked["data_checksum"]:
        raise Failure("the run was trained on other data than --data; give that, or another --output")


def go_on(
    folder: RunFolder, method: Method, optimizer: torch.optim.Optimizer, scaler: Any, state: dict[str, Any]
) -> list[str]:
    """Restores the newest valid checkpoint into method, optimizer, fp16's scaler and `state`; what to tell about it.

    Raises:
        Failure: it is of another run; or there are checkpoints, and none can be read: nothing is touched then.
    """
    found, notes = checkpoint.newest(folder.checkpoints)
    if found is None and notes:
        raise Failure(
            f"none of the {len(notes)} checkpoints in {folder.checkpoints} can be read: {notes[0]}; "
            "mend that, or start anew with --force instead of --resume"
        )
    if found is None:
        folder.rewind(0)
        return [*notes, f"{folder.checkpoints} holds no checkpoint; starting from the first step"]
    refuse_another_run(found.state, state)
    found.apply(method, optimizer)
    state |= {name: value for name, value in found.state.items() if name != "optimizer"}
    if scaler is not None and "scaler" in state:
        scaler.load_state_dict(state["scaler"])
    folder.rewind(state["rows"])
    return [*notes, f"resumed from {found.path}"]


def summary(state: Mapping[str, Any], config: Mapping[str, Any], knn_protocol: str | None) -> dict[str, Any]:
    """What summary.json holds."""
    return {
        "method": state["method"], "final_loss": state["loss"], "knn_top1": state["knn_top1"],
        "knn_protocol": knn_protocol, "step": state["step"], "samples_seen": state["samples_seen"],
        "seconds": round(state["seconds"], 2), "versions": config["versions"], "machine": config["machine"],
    }  # fmt: skip
