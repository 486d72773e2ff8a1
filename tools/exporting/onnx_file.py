"""Writes a backbone as ONNX, and runs such a file: normalised images [B, 3, s, s] to pooled features [B, D], any B.

The file contains the weights, and the same metadata as the exported safetensors.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.networks.backbone import Backbone
from tools.command_line import Failure

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class _Pooled(nn.Module):
    """A backbone that returns its pooled features only, without the maps of its stages."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.backbone(images).pooled
        return pooled


def check_packages() -> None:
    """Check that the packages for ONNX are installed.

    Raises:
        Failure: one is missing.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise Failure(f"--onnx needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def write_onnx(path: Path, backbone: Backbone, size: int, facts: Mapping[str, str]) -> None:
    """Write a backbone in evaluation mode to one file.

    Args:
        size: s, the side of the images in pixels.
        facts: the metadata of the file.

    Raises:
        Failure: torch cannot express the network as ONNX.
        OSError: the file cannot be written.
    """
    example = torch.zeros(2, 3, size, size)  # two images: the exporter would take a batch size of 1 for a constant
    log = logging.getLogger("torch.onnx")
    level_before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Pooled(backbone).eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            )
    except RuntimeError as error:
        raise Failure(f"the network cannot be written as ONNX ({str(error).splitlines()[0]})") from None
    finally:
        log.setLevel(level_before)
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces with paths of this machine
    program.model.metadata_props.update(facts)
    program.save(path, external_data=False)


def onnx_features(path: Path, images_BCHW: Tensor) -> Tensor:
    """Return the features [B, D] that onnxruntime computes on the CPU for all images in one batch.

    Raises:
        Failure: the first image has other features in a batch of its own.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (together_BD,) = session.run(["features"], {"images": images_BCHW.numpy()})
    (alone_1D,) = session.run(["features"], {"images": images_BCHW[:1].numpy()})
    if not np.allclose(alone_1D, together_BD[:1], rtol=1e-4, atol=1e-4 * float(np.abs(together_BD).max())):
        raise Failure("the ONNX file gives an image other features alone than in a batch; nothing was written")
    return torch.from_numpy(together_BD)
