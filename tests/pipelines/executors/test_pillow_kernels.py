"""The compiled bilinear and bicubic resize equals Pillow's bit for bit: every size, both directions, at the borders."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("numba", reason="numba is not installed")
pytest.importorskip("cv2", reason="OpenCV, which FFCV brings, is not installed")

from pipelines.executors import pillow_kernels
from tests.support.reference_resize import resized


def cut(picture, box, size, resize):
    top, left, height, width = box
    target = np.empty((size, size, 3), np.uint8)
    memory = picture.reshape(-1)[3 * (top * picture.shape[1] + left) :]
    pillow_kernels.resize(memory, 3 * picture.shape[1], height, width, resize == "bicubic", target)
    return target


def pictures():
    """Noise, which shows every weight, and edges from black to white, at which the cubic overshoots and is clipped."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (97, 130, 3)).astype(np.uint8)
    return noise, np.where(noise > 200, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
def test_any_box_of_any_size_equals_pillows(resize):
    rng = np.random.default_rng(1)
    for picture in pictures():
        for size in (1, 2, 7, 24, 32, 96, 97, 224):
            for _ in range(12):
                box = rng.integers(1, np.array(picture.shape[:2]) + 1)
                place = rng.integers(0, np.array(picture.shape[:2]) - box + 1)
                crop = picture[place[0] : place[0] + box[0], place[1] : place[1] + box[1]]
                expected = resized(Image.fromarray(crop), size, resize)
                assert np.array_equal(cut(picture, (*place, *box), size, resize), expected)


@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
def test_pixels_beyond_the_crop_have_no_weight(resize):
    picture = pictures()[0]
    other = picture.copy()
    other[:10], other[60:], other[:, :20], other[:, 90:] = 0, 255, 255, 0
    for size in (16, 50, 70, 128):
        assert np.array_equal(*(cut(one, (10, 20, 50, 70), size, resize) for one in (picture, other)))


@pytest.mark.parametrize("cubic", [False, True])
def test_weights_are_inside_the_crop_and_sum_to_one(cubic):
    for length in (1, 2, 3, 31, 32, 33, 200, 4000):
        for size in (1, 32, 224):
            first_D, weight_DT = pillow_kernels.weights(length, size, cubic)
            assert first_D.min() >= 0 and first_D.max() + weight_DT.shape[1] <= length
            assert np.abs(weight_DT.sum(1) / 2**22 - 1).max() < 1e-4
