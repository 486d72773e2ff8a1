"""The photometric numbers have the distributions of torchvision's transforms, and stay where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pipelines.plan.photometric import (
    BLUR,
    BRIGHTNESS,
    CHANNEL_ORDERS,
    CONTRAST,
    GRAYSCALE,
    HUE,
    JITTER_ORDERS,
    NUMBERS,
    ORDER,
    PERMUTE,
    SATURATION,
    SOLARIZE,
    photometric_numbers,
)
from pipelines.plan.random_numbers import key, uniform
from pipelines.plan.views import View, contrastive, evaluation

VIEW = View(
    32, jitter=(0.4, 0.7, 1.0, 0.1), jitter_p=0.8, grayscale_p=0.2, blur_p=0.5, solarize_p=0.3, permute_p=0.6,
    solarize_threshold=100.0,
)  # fmt: skip
SAMPLES = 20_000
GOLDEN = [
    [1.3511825, 0.9569249, 1.3575958, 0.0122241, 20.0, 0.0, 1.3871742, 256.0, 1.0],
    [1.2065468, 0.8502436, 1.05231, 0.0818803, 18.0, 0.0, 0.5432776, 256.0, 2.0],
]


def reference(view: View, rng: np.random.Generator) -> list[float]:
    """One sample's numbers, drawn the way the source of torchvision's transforms draws them."""
    row = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 256.0, 0.0]
    if rng.random() < view.jitter_p:  # RandomApply([ColorJitter])
        order = rng.permutation(4)
        row[ORDER] = JITTER_ORDERS.index(tuple(int(i) for i in order))
        for i in range(3):
            row[i] = rng.uniform(max(0, 1 - view.jitter[i]), 1 + view.jitter[i])
        row[HUE] = rng.uniform(-view.jitter[3], view.jitter[3])
    row[GRAYSCALE] = float(rng.random() < view.grayscale_p)
    if rng.random() < view.blur_p:
        row[BLUR] = rng.uniform(*view.blur_sigma)
    if rng.random() < view.solarize_p:
        row[SOLARIZE] = view.solarize_threshold
    if rng.random() < view.permute_p:
        row[PERMUTE] = CHANNEL_ORDERS.index(tuple(int(i) for i in rng.permutation(3)))
    return row


@pytest.fixture(scope="module")
def ours() -> NDArray[np.float32]:
    return photometric_numbers(VIEW, key(0, np.arange(SAMPLES)))


@pytest.fixture(scope="module")
def theirs() -> NDArray[np.float64]:
    rng = np.random.default_rng(1)
    return np.array([reference(VIEW, rng) for _ in range(SAMPLES)])


@pytest.mark.parametrize("column", [BRIGHTNESS, CONTRAST, SATURATION, HUE, BLUR])
def test_factors_have_the_distribution_of_the_reference(
    column: int, ours: NDArray[np.float32], theirs: NDArray[np.float64]
) -> None:
    assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    none = 0 if column in (HUE, BLUR) else 1
    drawn = ours[ours[:, column] != none, column]
    low, high = VIEW.blur_sigma if column == BLUR else (none - VIEW.jitter[column], none + VIEW.jitter[column])
    assert drawn.min() >= np.float32(low)
    assert drawn.max() <= np.float32(high)
    assert stats.kstest(drawn, "uniform", (low, high - low)).pvalue > 1e-3


@pytest.mark.parametrize("column", [ORDER, GRAYSCALE, SOLARIZE, PERMUTE])
def test_choices_have_the_distribution_of_the_reference(
    column: int, ours: NDArray[np.float32], theirs: NDArray[np.float64]
) -> None:
    values = np.unique(theirs[:, column])
    assert set(np.unique(ours[:, column])) == set(values)
    table = [[(rows[:, column] == value).sum() for value in values] for rows in (ours, theirs)]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_jitter_comes_whole_and_in_every_order(ours: NDArray[np.float32]) -> None:
    jittered = ours[:, BRIGHTNESS] != 1
    for column in (CONTRAST, SATURATION, HUE):
        np.testing.assert_array_equal(jittered, ours[:, column] != (0 if column == HUE else 1))
    assert (ours[~jittered, ORDER] == 0).all()
    counts = np.bincount(ours[jittered, ORDER].astype(int), minlength=24)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert len(set(JITTER_ORDERS)) == 24
    assert CHANNEL_ORDERS[0] == (0, 1, 2)


def test_numbers_of_a_sample_are_independent(ours: NDArray[np.float32]) -> None:
    rows = ours[ours[:, BRIGHTNESS] != 1]
    correlation = np.corrcoef(rows.T) - np.eye(NUMBERS)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(len(rows))
    neighbours = [np.corrcoef(ours[:-1, i], ours[1:, i])[0, 1] for i in range(NUMBERS)]
    assert np.abs(neighbours).max() < 4 / np.sqrt(SAMPLES)


def test_switching_one_operation_off_leaves_the_others() -> None:
    keys = key(5, np.arange(500))
    base = photometric_numbers(VIEW, keys)
    without = {
        "jitter_p": [BRIGHTNESS, CONTRAST, SATURATION, HUE, ORDER],
        "grayscale_p": [GRAYSCALE],
        "blur_p": [BLUR],
        "solarize_p": [SOLARIZE],
        "permute_p": [PERMUTE],
    }
    for name, columns in without.items():
        changed = photometric_numbers(replace(VIEW, **{name: 0.0}), keys)  # type: ignore[arg-type]
        rest = [i for i in range(NUMBERS) if i not in columns]
        np.testing.assert_array_equal(changed[:, rest], base[:, rest])
        none = photometric_numbers(evaluation(32), keys)
        np.testing.assert_array_equal(changed[:, columns], none[:, columns])


def test_golden_numbers_and_counters() -> None:
    """The numbers of a run must not change under it; the first comes from counter 65, past the geometry's."""
    keys = key(3, np.arange(2))
    numbers = photometric_numbers(replace(contrastive(32), jitter_p=1.0, blur_p=1.0, permute_p=1.0), keys)
    np.testing.assert_allclose(numbers[:, BRIGHTNESS], 0.6 + 0.8 * uniform(keys, 1, start=65)[:, 0], rtol=1e-6)
    np.testing.assert_allclose(numbers, GOLDEN, rtol=1e-5)
    assert numbers.dtype == np.float32
    assert photometric_numbers(contrastive(32), keys[:0]).shape == (0, NUMBERS)
