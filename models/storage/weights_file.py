"""Reading weights from a file: tensors by name, and the file's metadata. Nothing in a file can run code.

.safetensors            tensors and a table of texts
.pt .pth .bin .ckpt     a state dict, alone or as the entry "state_dict" or "model", read by `torch.load` with
                        `weights_only`, which makes tensors and plain containers and refuses everything else
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_NESTED = ("state_dict", "model")


class WeightsError(ValueError):
    """The file holds no weights that can be read; the message is one line."""


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all tensors of a file, on the CPU, and its metadata.

    Returns:
        tensors by name; the file's texts by name, each as a JSON value if it is one, otherwise as it is.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or a pickle that would do more than hold weights.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    return (_state_dict(path), {}) if path.suffix.lower() in TORCH_SUFFIXES else _safetensors(path)


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = {key: _parsed(value) for key, value in (file.metadata() or {}).items()}
            return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors ({error})") from None


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes from anywhere: the unpickler and the zip reader raise nearly every kind
        raise WeightsError(
            f"{path} is refused: it is damaged, or holds more than weights and could run code ({_reason(error)}); "
            "if you trust it, save its state dict again, with torch.save or as safetensors"
        ) from None
    for name in _NESTED:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds a {type(found).__name__} and no state dict")
    return {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _reason(error: Exception) -> str:
    """Return what torch found, without its advice, which ends by advising to let the file run its code."""
    text = str(error)
    named = re.search(r"WeightsUnpickler error:\s*(.*)", text)
    said = named.group(1) if named else text.partition("\n")[0].partition(". ")[0]
    if said.startswith("Unsupported operand"):
        said += ", as of pickle protocol 4 or newer"
    return f"{type(error).__name__}: {ascii(said.strip()[:120])[1:-1]}"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
