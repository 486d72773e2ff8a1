"""One copy for all arrays of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipelines.transfer import ALIGN, to_device_together

ARRAYS: list[NDArray[Any]] = [
    np.arange(5, dtype=np.int64) - 2,
    np.array([[True], [False], [True]]),
    np.zeros((2, 0, 3), np.float32),
    np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::2],  # not contiguous
    np.arange(7, dtype=np.int32),
]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_arrays_arrive_as_they_are(device: str) -> None:
    sent = to_device_together(ARRAYS, torch.device(device))
    assert len({tensor.untyped_storage().data_ptr() for tensor in sent}) == 1
    for tensor, array in zip(sent, ARRAYS, strict=True):
        assert tensor.device.type == device and (tensor.data_ptr() % ALIGN == 0 or not tensor.numel())
        assert tensor.shape == array.shape and torch.equal(tensor.cpu(), torch.from_numpy(np.ascontiguousarray(array)))
        assert tensor.cpu().numpy().dtype == array.dtype


def test_nothing_to_send() -> None:
    assert to_device_together([], torch.device("cpu")) == []
