"""The photometric half of the plan: which colour operations a view gets, and how strong.

Distributions are those of torchvision: ColorJitter inside RandomApply, RandomGrayscale, GaussianBlur inside
RandomApply, RandomSolarize, and RandomChannelPermutation inside RandomApply.

S = samples. One row of numbers holds everything that `augmentation/augment.py` needs for one view of a sample.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from pipelines.plan.random_numbers import uniform
from pipelines.plan.views import View

# Columns of the numbers. "none" is the value that leaves the picture unchanged.
BRIGHTNESS = 0  # factor, none = 1
CONTRAST = 1  # factor, none = 1
SATURATION = 2  # factor, none = 1
HUE = 3  # shift in turns of the colour circle, none = 0
ORDER = 4  # row of JITTER_ORDERS; 0 without jitter
GRAYSCALE = 5  # 1 = grey, none = 0
BLUR = 6  # standard deviation in pixels of the view, none = 0
SOLARIZE = 7  # values from this threshold on (0 to 255) are inverted, none = 256
PERMUTE = 8  # row of CHANNEL_ORDERS, none = 0
NUMBERS = 9

_UNCHANGED = np.array([1, 1, 1, 0, 0, 0, 0, 256, 0], dtype=np.float32)  # the "none" value of every column

JITTER_ORDERS = tuple(permutations((BRIGHTNESS, CONTRAST, SATURATION, HUE)))  # operations are named by their columns
CHANNEL_ORDERS = tuple(permutations((0, 1, 2)))  # output channel i is input channel CHANNEL_ORDERS[row][i]

# Each random number has its own counter, so switching an operation off does not change the numbers of another one.
FIRST_COUNTER = 64  # crops.py uses the counters below
(
    _JITTER_COIN,
    _BRIGHTNESS,
    _CONTRAST,
    _SATURATION,
    _HUE,
    _ORDER,
    _GRAYSCALE_COIN,
    _BLUR_COIN,
    _BLUR_SIGMA,
    _SOLARIZE_COIN,
    _PERMUTE_COIN,
    _PERMUTE,
    _COUNTERS,
) = range(13)


def photometric_numbers(view: View, key_S: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return every photometric number of one view of S samples.

    Args:
        view: the description to draw from.
        key_S: uint64 [S], one key for each (seed, epoch, sample, view).

    Returns:
        float32 [S, NUMBERS], with the columns named above.
    """
    if not any(view.photometric_probabilities):
        return np.tile(_UNCHANGED, (len(key_S), 1))
    draw = np.moveaxis(uniform(key_S, _COUNTERS, start=FIRST_COUNTER), -1, 0)
    jittered = draw[_JITTER_COIN] < view.jitter_p
    numbers = np.empty((len(key_S), NUMBERS), dtype=np.float32)
    strengths = zip(
        (BRIGHTNESS, CONTRAST, SATURATION), (_BRIGHTNESS, _CONTRAST, _SATURATION), view.jitter, strict=False
    )
    for column, counter, strength in strengths:
        low, high = max(0.0, 1 - strength), 1 + strength
        numbers[:, column] = np.where(jittered, low + (high - low) * draw[counter], 1)
    numbers[:, HUE] = np.where(jittered, view.jitter[3] * (2 * draw[_HUE] - 1), 0)
    numbers[:, ORDER] = np.where(jittered, np.floor(draw[_ORDER] * len(JITTER_ORDERS)), 0)
    numbers[:, GRAYSCALE] = draw[_GRAYSCALE_COIN] < view.grayscale_p
    low, high = view.blur_sigma
    numbers[:, BLUR] = np.where(draw[_BLUR_COIN] < view.blur_p, low + (high - low) * draw[_BLUR_SIGMA], 0)
    numbers[:, SOLARIZE] = np.where(draw[_SOLARIZE_COIN] < view.solarize_p, view.solarize_threshold, 256)
    permuted = draw[_PERMUTE_COIN] < view.permute_p
    numbers[:, PERMUTE] = np.where(permuted, np.floor(draw[_PERMUTE] * len(CHANNEL_ORDERS)), 0)
    return numbers
