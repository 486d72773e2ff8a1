"""Reading weights from a file: tensors by name, and the file's metadata. Nothing in a file can run code.

The first bytes decide what a file is, whatever its name ends in:

safetensors      tensors and a table of texts
torch.save       nested dictionaries of tensors, read by `torch.load` with `weights_only`, which makes tensors and plain
                 containers and refuses everything else. The records that training programs put beside the weights
                 (`_RECORDS`) are read as objects without content.
"""

from __future__ import annotations

import json
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_WRAPPERS = ("state_dict", "model", "net", "network", "weights")
_DEPTH = 8  # of nested dictionaries
#: Beginnings of files that hold no weights that can be read, and what to do about each.
_FOREIGN = {
    b"version https://git-lfs": "it is a pointer of Git LFS and not the file itself; run git lfs pull",
    b"\x1f\x8b": "it is compressed; unpack it with gunzip first",
    b"BZh": "it is compressed; unpack it with bunzip2 first",
    b"\xfd7zXZ": "it is compressed; unpack it with unxz first",
    b"\x89HDF": "it is an HDF5 file, as of Keras; save its weights with PyTorch or as safetensors",
    b"<": "it is a web page and not the file itself; download it again",
}


class WeightsError(ValueError):
    """The file holds no weights that can be read; the message is one line."""


class _Record:
    """Takes the place of an object that is not weights: it keeps nothing and runs nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


#: Classes of which training programs store objects beside the weights, and what is made of these.
_RECORDS: tuple[tuple[Any, str], ...] = (
    (_Record, "argparse.Namespace"),
    *((_Record, f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")),
    *((_Record, f"numpy.{name}") for name in ("dtype", "float64", "float32", "int64")),
    *((_Record, f"numpy.dtypes.{name}DType") for name in ("Float64", "Float32", "Int64", "Bool")),
    *((_Record, f"pathlib.{name}") for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
    *((_Record, f"pathlib._local.{name}") for name in ("Path", "PosixPath", "WindowsPath")),
    *((_Record, f"omegaconf.{name}") for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
    *((_Record, f"omegaconf.{name}") for name in ("base.ContainerMetadata", "base.Metadata", "nodes.AnyNode")),
    *((dict, f"{package}.utilities.{name}.AttributeDict") for package, name in (
        ("pytorch_lightning", "parsing"), ("lightning_fabric", "data"), ("lightning.fabric", "data"),
        ("lightning.pytorch", "parsing"),
    )),
)  # fmt: skip


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all tensors of a file, on the CPU, and its metadata.

    Returns:
        tensors by name, in which the names of nested dictionaries are joined by dots; the file's texts by name, each as
        a JSON value if it is one, otherwise as it is.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or a pickle that would do more than hold weights.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    try:
        with path.open("rb") as file:
            first = file.read(32)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror})") from None
    if first[8:9] == b"{" or not first:
        return _safetensors(path)
    if first.startswith((b"PK\x03\x04", b"PK\x05\x06")) or first[:1] == b"\x80":
        return _torch(path), {}
    for beginning, remedy in _FOREIGN.items():
        if first.lstrip().startswith(beginning):
            raise WeightsError(f"{path} holds no weights: {remedy}")
    if tarfile.is_tarfile(path):
        raise WeightsError(f"{path} is a tar archive and no weights file; unpack it and give the file inside")
    begins = ascii(first[:12].decode("latin-1"))
    raise WeightsError(
        f"{path} cannot be read as safetensors, nor as what torch.save writes: it begins with {begins}, as neither does"
    )


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = {key: _parsed(value) for key, value in (file.metadata() or {}).items()}
            return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors ({error})") from None


def _torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(_RECORDS)), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of old pickle protocols
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes from anywhere: the unpickler and the zip reader raise nearly every kind
        if kind := _other_zip(path):
            raise WeightsError(f"{path} {kind}") from None
        raise WeightsError(
            f"{path} is refused: it is damaged, or holds more than weights and could run code ({_reason(error)}); "
            "if you trust it, save its state dict again, with torch.save or as safetensors"
        ) from None
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds a {type(found).__name__} and no state dict")
    tensors = dict(_flat(found))
    for name, value in tensors.items():
        if value.layout is not torch.strided or value.is_nested or value.is_complex() or value.is_meta:
            raise WeightsError(f"{path} holds {name!r}, which is sparse, nested, complex or without values")
    for name in _WRAPPERS:
        if tensors and all(key.startswith(f"{name}.") for key in tensors):
            tensors = {key.removeprefix(f"{name}."): value for key, value in tensors.items()}
    return tensors


def _flat(entries: dict[Any, Any], prefix: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dictionaries; an optimizer's, which are under numbers, are left out."""
    for name, value in entries.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            yield prefix + name, value.detach()
        elif isinstance(name, str) and isinstance(value, dict) and depth:
            yield from _flat(value, f"{prefix}{name}.", depth - 1)


def _other_zip(path: Path) -> str:
    """Return what a zip file is that torch does not read; empty for a damaged or a hostile one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return ""
    if any(name.endswith(".npy") for name in names):
        return "holds arrays of NumPy, as of JAX; save them under the keys of a PyTorch network"
    if any(name.endswith("constants.pkl") for name in names):
        return "is a TorchScript program, which runs code; save its state dict, with torch.save or as safetensors"
    return "" if any(name.endswith("data.pkl") for name in names) else "is a zip archive without weights; unpack it"


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
