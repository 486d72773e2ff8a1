"""Whole chains of photometric operations, by the CPU's kernels and by torch, against a naive loop over samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.augmentation import color_kernels
from pipelines.augmentation.augment import make_augment
from pipelines.augmentation.operations import Normalization, Operations
from pipelines.augmentation.torch_augment import fused
from pipelines.plan.photometric import (
    ORDER,
    photometric_numbers,
)
from pipelines.plan.random_numbers import key
from pipelines.plan.views import View, contrastive, evaluation
from pipelines.transfer import to_device_together
from tests.support.naive_colors import MEAN, STD, naive_chain, pictures

STRONG = replace(
    contrastive(24), jitter=(0.8, 0.8, 1.0, 0.5), jitter_p=0.9, grayscale_p=0.3, solarize_p=0.4, permute_p=0.6
)


def batch(view: View, count: int) -> tuple[NDArray[np.uint8], Tensor, Tensor]:
    images = pictures(count, view.size)
    numbers = torch.from_numpy(photometric_numbers(view, key(4, np.arange(count))))
    return images, torch.from_numpy(images).permute(0, 3, 1, 2), numbers


def on_cpu(view: View, tensor: Tensor, numbers: Tensor, dtype: torch.dtype = torch.float32, threads: int = 1) -> Tensor:
    """The view by the kernels."""
    augment = make_augment([view], MEAN, STD, torch.device("cpu"), dtype, threads=threads)
    (made,) = augment([tensor], [numbers[None]])
    augment.close()
    return made


def by_torch(view: View, tensor: Tensor, numbers: Tensor) -> Tensor:
    return fused(tensor, numbers, *Normalization.of(MEAN, STD, tensor.device), Operations.of(view), torch.float32)


@pytest.mark.parametrize("schedule", [on_cpu, by_torch])
def test_chain_equals_naive_reference(schedule: Callable[[View, Tensor, Tensor], Tensor]) -> None:
    images, tensor, numbers = batch(STRONG, 70)
    assert len(np.unique(numbers[:, ORDER])) > 15
    ours = schedule(STRONG, tensor, numbers)
    rows = zip(images, numbers.numpy(), strict=True)
    naive = np.stack([naive_chain(image, row, Operations.of(STRONG).blur_radius) for image, row in rows])
    apart = np.abs(ours.permute(0, 2, 3, 1).numpy() - naive)
    # A value within rounding of the solarisation threshold may fall on either side of it.
    assert (apart > 1e-3).mean() < 1e-4
    assert np.median(apart) < 1e-5


@pytest.mark.parametrize("name", ["jitter_p", "grayscale_p", "blur_p", "solarize_p", "permute_p"])
def test_schedules_agree_where_an_operation_cannot_happen(name: str) -> None:
    view = replace(STRONG, solarize_p=0.0, jitter=(0.4, 0.0, 0.4, 0.1))  # contrast has no strength in any slot
    view = replace(view, **{name: 0.0})  # type: ignore[arg-type]
    _, tensor, numbers = batch(view, 40)
    torch.testing.assert_close(on_cpu(view, tensor, numbers), by_torch(view, tensor, numbers), atol=1e-4, rtol=0)


def test_kernels_round_to_bfloat16_as_torch_does() -> None:
    _, tensor, numbers = batch(STRONG, 40)
    exact = on_cpu(STRONG, tensor, numbers)
    assert torch.equal(on_cpu(STRONG, tensor, numbers, torch.bfloat16), exact.bfloat16())
    assert torch.equal(on_cpu(STRONG, tensor, numbers, torch.float16), exact.half())


@pytest.mark.parametrize("size", [1, 2, 5, 13])
def test_kernels_on_pictures_smaller_than_a_blur(size: int) -> None:
    view = replace(contrastive(size), blur_p=1.0)
    tensor = torch.randint(0, 256, (9, 3, size, size), dtype=torch.uint8)
    numbers = torch.from_numpy(photometric_numbers(view, key(4, np.arange(9))))
    torch.testing.assert_close(on_cpu(view, tensor, numbers), by_torch(view, tensor, numbers), atol=1e-4, rtol=0)


def test_threads_change_no_bit() -> None:
    _, tensor, numbers = batch(STRONG, 37)
    assert torch.equal(on_cpu(STRONG, tensor, numbers, threads=3), on_cpu(STRONG, tensor, numbers))
    planar = tensor.contiguous()  # any memory layout
    assert torch.equal(on_cpu(STRONG, planar, numbers), on_cpu(STRONG, tensor, numbers))


def test_without_numba_the_torch_schedule_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    _, tensor, numbers = batch(STRONG, 12)
    expected = on_cpu(STRONG, tensor, numbers)
    monkeypatch.setattr("pipelines.augmentation.augment.find_spec", lambda _: None)
    ours = on_cpu(STRONG, tensor, numbers)
    assert (ours - expected).abs().gt(1e-3).float().mean() < 1e-4


def test_weak_view_is_the_normalisation_alone() -> None:
    images, tensor, numbers = batch(evaluation(16), 5)
    assert Operations.of(evaluation(16)) == Operations((), False, 0, False, False)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        ours = on_cpu(evaluation(16), tensor, numbers, dtype)
        assert ours.dtype == dtype
        expected = torch.from_numpy((images / 255 - MEAN) / STD).permute(0, 3, 1, 2)
        torch.testing.assert_close(ours.double(), expected, atol=tolerance, rtol=tolerance)


def test_views_are_owned_channels_last_and_independent_of_the_batch() -> None:
    views = (STRONG, contrastive(16))
    augment = make_augment(views, MEAN, STD, torch.device("cpu"))
    batches = [batch(view, 30)[1:] for view in views]
    tensors, numbers = [tensor for tensor, _ in batches], torch.stack([numbers for _, numbers in batches])
    before = [tensor.clone() for tensor in tensors]
    first = augment(tensors, [numbers])
    kept = [view.clone() for view in first]
    single = augment([tensor[7:8] for tensor in tensors], [numbers[:, 7:8]])
    augment([255 - tensor for tensor in tensors], [numbers])
    for i in range(2):
        assert first[i].is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(tensors[i], before[i])
        assert torch.equal(first[i], kept[i])
        torch.testing.assert_close(first[i][7:8], single[i], atol=1e-5, rtol=0)
    assert augment([tensor[:0] for tensor in tensors], [numbers[:, :0]])[0].shape == (0, 3, 24, 24)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("triton", [False, True])
def test_cuda_agrees_with_the_cpu(triton: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    view = replace(STRONG, solarize_p=0.0)
    _, tensor, numbers = batch(view, 64)
    expected = on_cpu(view, tensor, numbers)
    device = torch.device("cuda")
    if not triton:
        monkeypatch.setattr("pipelines.triton_support.find_spec", lambda _: None)
    augment = make_augment([view], MEAN, STD, device)
    assert ("Triton is not installed" in augment.note) == (not triton)
    plan = SimpleNamespace(photometric_VSP=numbers[None].numpy())
    images = [tensor.to(device)]
    (ours,) = augment(images, to_device_together(augment.numbers(images, plan), device))  # type: ignore[arg-type]
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours.cpu(), expected, atol=1e-4, rtol=0)


def test_a_first_compilation_is_announced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    view = View(16)
    on_cpu(view, *batch(view, 8)[1:])
    augment = make_augment([view], MEAN, STD, torch.device("cpu"))
    try:
        assert augment.note == ""
        fresh = SimpleNamespace(stats=SimpleNamespace(cache_path=str(tmp_path)))
        monkeypatch.setattr(color_kernels, "augment", fresh)
        assert "compiled for this machine" in augment.note
    finally:
        augment.close()
