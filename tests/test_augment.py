"""Each photometric operation against Pillow or OpenCV, whole chains against a naive loop over samples."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from pipelines import color
from pipelines.augment import Augment, Operations, fused
from pipelines.blur import gaussian_blur, kernel_radius
from pipelines.photometric import (
    BLUR,
    BRIGHTNESS,
    CHANNEL_ORDERS,
    CONTRAST,
    GRAYSCALE,
    HUE,
    JITTER_ORDERS,
    ORDER,
    PERMUTE,
    SATURATION,
    SOLARIZE,
    photometric_numbers,
)
from pipelines.random_numbers import key
from pipelines.views import View, contrastive, evaluation

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRONG = replace(
    contrastive(24), jitter=(0.8, 0.8, 1.0, 0.5), jitter_p=0.9, grayscale_p=0.3, solarize_p=0.4, permute_p=0.6
)
FACTORS = (0.0, 0.3, 0.6, 1.0, 1.4, 2.0)
Picture = NDArray[np.float64]


def pictures(count: int, size: int) -> NDArray[np.uint8]:
    """[N, size, size, 3]: smooth fields, some with noise, some with flat saturated, black, white and grey patches."""
    rng = np.random.default_rng(0)
    field = rng.uniform(0, 255, (count, 5, 5, 3)).astype(np.float32)
    smooth = np.stack([cv2.resize(one, (size, size), interpolation=cv2.INTER_CUBIC) for one in field])
    smooth[1::3] += rng.normal(0, 25, smooth[1::3].shape)
    patches = np.array([[255, 0, 0], [0, 255, 255], [0, 0, 0], [255, 255, 255], [90, 90, 90]])
    smooth[2::3, : size // 3, : len(patches) * 2] = np.repeat(patches, 2, axis=0)
    return np.asarray(np.clip(np.rint(smooth), 0, 255), dtype=np.uint8)


def planes(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images).permute(3, 0, 1, 2).flatten(2).float()


def back(x_CNP: Tensor, size: int) -> Picture:
    return x_CNP.view(3, -1, size, size).permute(1, 2, 3, 0).double().numpy()


# A naive reference: one picture [H, W, 3] of float64, one operation at a time.


def naive_luma(x: Picture) -> Picture:
    return np.asarray((19595 * x[..., 0] + 38470 * x[..., 1] + 7471 * x[..., 2]) / 65536)


def naive_hue(x: Picture, turns: float) -> Picture:
    out = np.empty_like(x)
    for where in np.ndindex(x.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*x[where] / 255)
        out[where] = np.array(colorsys.hsv_to_rgb((h + turns) % 1, s, v)) * 255
    return out


def naive_jitter(x: Picture, operation: int, number: float) -> Picture:
    if operation == HUE:
        return naive_hue(x, number)
    grey = naive_luma(x)[..., None]
    other = {BRIGHTNESS: 0 * grey, CONTRAST: grey.mean() + 0 * grey, SATURATION: grey}[operation]
    return np.asarray(np.clip(other + number * (x - other), 0, 255))


def naive_blur(x: Picture, sigma: float, radius: int) -> Picture:
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        pad = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
        x = np.apply_along_axis(np.convolve, axis, np.pad(x, pad, mode="reflect"), taps, "valid")
    return x


def naive_chain(image: NDArray[np.uint8], numbers: NDArray[np.float32], radius: int) -> Picture:
    x = image.astype(np.float64)
    if (numbers[:4] != (1, 1, 1, 0)).any():
        for operation in JITTER_ORDERS[int(numbers[ORDER])]:
            x = naive_jitter(x, operation, float(numbers[operation]))
    if numbers[GRAYSCALE]:
        x = np.repeat(naive_luma(x)[..., None], 3, axis=2)
    if numbers[BLUR]:
        x = naive_blur(x, float(numbers[BLUR]), radius)
    x = np.where(x < numbers[SOLARIZE], x, 255 - x)
    x = x[..., list(CHANNEL_ORDERS[int(numbers[PERMUTE])])]
    return (x / 255 - MEAN) / STD


def pillow(enhance: type, images: NDArray[np.uint8], factor: float) -> Picture:
    return np.stack([np.asarray(enhance(Image.fromarray(one)).enhance(factor)) for one in images]).astype(float)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("operation", [BRIGHTNESS, CONTRAST, SATURATION])
def test_blends_within_one_level_of_pillow(operation: int, factor: float) -> None:
    images = pictures(9, 24)
    enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[operation]
    ours = back(color.JITTER[operation](planes(images), torch.full((9, 1), factor)), 24)
    # Pillow cuts its result down to a whole level, and rounds the grey that it blends with.
    assert np.abs(np.floor(ours + 1e-4) - pillow(enhance, images, factor)).max() <= 1
    naive = np.stack([naive_jitter(one.astype(float), operation, factor) for one in images])
    np.testing.assert_allclose(ours, naive, atol=1e-3)


@pytest.mark.parametrize("turns", [-0.5, -0.31, -0.1, 0.0, 0.02, 0.1, 0.25, 0.5])
def test_hue_equals_the_hsv_round_trip(turns: float) -> None:
    images = pictures(9, 24)
    ours = back(color.hue(planes(images), torch.full((9, 1), turns)), 24)
    naive = np.stack([naive_hue(one.astype(float), turns) for one in images])
    np.testing.assert_allclose(ours, naive, atol=1e-2)
    # OpenCV's float HSV counts degrees.
    for one, mine in zip(images, ours, strict=True):
        hsv = cv2.cvtColor(one.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + 360 * turns) % 360
        assert np.abs(mine - 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).max() < 0.5


@pytest.mark.parametrize("shift", [0, 20, 200])
def test_hue_near_pillows_rounded_one(shift: int) -> None:
    """torchvision cuts hue to 255 steps of up to 6 levels, and its 8-bit sum loses one more where it wraps at 256."""
    images = pictures(9, 24)
    ours = back(color.hue(planes(images), torch.full((9, 1), shift / 255)), 24)
    for one, mine in zip(images, ours, strict=True):
        hsv = np.array(Image.fromarray(one).convert("HSV"))
        wraps = hsv[..., 0].astype(int) + shift > 255
        hsv[..., 0] += np.uint8(shift)
        theirs = np.asarray(Image.fromarray(hsv, mode="HSV").convert("RGB")).astype(float)
        apart = np.abs(mine - theirs)
        assert apart[~wraps].mean() < 1.5
        assert apart[~wraps].max() < 6.5
        assert apart.max() < 12.5


def test_gray_solarize_and_permutation() -> None:
    images = pictures(6, 24)
    grey = back(color.grayscale(planes(images)), 24)
    assert np.abs(grey[..., 0] - [np.asarray(Image.fromarray(one).convert("L")) for one in images]).max() < 0.51
    assert (grey[..., :1] == grey).all()
    for threshold in (0, 100, 128, 256):
        ours = back(color.solarize(planes(images), torch.full((6, 1), float(threshold))), 24)
        theirs = [np.asarray(ImageOps.solarize(Image.fromarray(one), threshold)) for one in images]
        np.testing.assert_array_equal(ours, np.stack(theirs))
    order = torch.tensor(CHANNEL_ORDERS).T
    ours = back(color.permute_channels(planes(images), order), 24)
    np.testing.assert_array_equal(ours, [one[..., list(o)] for one, o in zip(images, CHANNEL_ORDERS, strict=True)])


def test_blur_equals_opencv() -> None:
    images = pictures(8, 24)
    sigmas = (0.0, 0.01, 0.1, 0.15, 0.5, 1.0, 1.7, 2.0)
    radius = kernel_radius(2.0, 24)
    ours = gaussian_blur(planes(images).view(3, 8, 24, 24), torch.tensor(sigmas), radius).permute(1, 2, 3, 0).numpy()
    for one, mine, sigma in zip(images.astype(np.float32), ours, sigmas, strict=True):
        if sigma < 0.15:
            np.testing.assert_allclose(mine, one, atol=1e-3)
            continue
        side = 2 * radius + 1
        same = cv2.GaussianBlur(one, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(mine, same, atol=2e-3)
        whole = cv2.GaussianBlur(one, (35, 35), sigma, borderType=cv2.BORDER_REFLECT_101)
        assert np.abs(mine - whole).max() < 0.5
    assert kernel_radius(2.0, 224) == 6
    assert kernel_radius(2.0, 4) == 3
    assert kernel_radius(2.0, 1) == 0


def batch(view: View, count: int) -> tuple[NDArray[np.uint8], Tensor, Tensor]:
    images = pictures(count, view.size)
    numbers = torch.from_numpy(photometric_numbers(view, key(4, np.arange(count))))
    return images, torch.from_numpy(images).permute(0, 3, 1, 2), numbers


def constants(device: str = "cpu") -> tuple[Tensor, Tensor]:
    made = Augment((), MEAN, STD, torch.device(device))
    return made.scale_C, made.shift_C


def on_cpu(view: View, tensor: Tensor, numbers: Tensor, dtype: torch.dtype = torch.float32, threads: int = 1) -> Tensor:
    """The view by the kernels."""
    augment = Augment([view], MEAN, STD, torch.device("cpu"), dtype, threads=threads)
    (made,) = augment([tensor], numbers[None])
    augment.close()
    return made


def by_torch(view: View, tensor: Tensor, numbers: Tensor) -> Tensor:
    return fused(tensor, numbers, *constants(), Operations.of(view), torch.float32)


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
    monkeypatch.setattr("pipelines.augment.find_spec", lambda _: None)
    ours = on_cpu(STRONG, tensor, numbers)
    assert (ours - expected).abs().gt(1e-3).float().mean() < 1e-4


def test_weak_view_is_the_normalisation_alone() -> None:
    images, tensor, numbers = batch(evaluation(16), 5)
    assert Operations.of(evaluation(16)) == Operations((), False, 0, False, False)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        (ours,) = Augment([evaluation(16)], MEAN, STD, torch.device("cpu"), dtype)([tensor], numbers[None])
        assert ours.dtype == dtype
        expected = torch.from_numpy((images / 255 - MEAN) / STD).permute(0, 3, 1, 2)
        torch.testing.assert_close(ours.double(), expected, atol=tolerance, rtol=tolerance)


def test_views_are_owned_channels_last_and_independent_of_the_batch() -> None:
    views = (STRONG, contrastive(16))
    augment = Augment(views, MEAN, STD, torch.device("cpu"))
    tensors, numbers = zip(*(batch(view, 30)[1:] for view in views), strict=True)
    before = [tensor.clone() for tensor in tensors]
    first = augment(tensors, torch.stack(numbers))
    kept = [view.clone() for view in first]
    single = augment([tensor[7:8] for tensor in tensors], torch.stack(numbers)[:, 7:8])
    augment([255 - tensor for tensor in tensors], torch.stack(numbers))
    for i in range(2):
        assert first[i].is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(tensors[i], before[i])
        assert torch.equal(first[i], kept[i])
        torch.testing.assert_close(first[i][7:8], single[i], atol=1e-5, rtol=0)
    assert augment([tensor[:0] for tensor in tensors], torch.stack(numbers)[:, :0])[0].shape == (0, 3, 24, 24)


def test_fused_schedule_is_one_graph() -> None:
    torch._dynamo.reset()
    graphs = CompileCounter()
    compiled = torch.compile(fused, fullgraph=True, backend=graphs)
    for count in (12, 24, 18, 12):
        _, tensor, numbers = batch(STRONG, count)
        arguments = (tensor, numbers, *constants(), Operations.of(STRONG), torch.float32)
        torch.testing.assert_close(compiled(*arguments), fused(*arguments), atol=1e-5, rtol=0)
    assert graphs.frame_count <= 2  # one for the first batch, one for any other size


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compile", [False, True])
def test_cuda_agrees_with_the_cpu(compile: bool) -> None:
    view = replace(STRONG, solarize_p=0.0)
    _, tensor, numbers = batch(view, 64)
    (expected,) = Augment([view], MEAN, STD, torch.device("cpu"))([tensor], numbers[None])
    device = torch.device("cuda")
    augment = Augment([view], MEAN, STD, device, compile=compile)
    (ours,) = augment([tensor.to(device)], numbers[None])
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours.cpu(), expected, atol=1e-4, rtol=0)
