"""The stream is fixed for ever (golden values), looks random, and its permutations are permutations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

from pipelines.plan.random_numbers import ROUNDS, bits, key, permute, uniform


def splitmix(word: int) -> int:
    """The same finaliser with Python's integers."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
    return word ^ (word >> 31)


GOLDEN = 0x9E3779B97F4A7C15
GOLDEN_KEY = 12667891210911057165
GOLDEN_BITS = [11801670211898564004, 13940728638052636206, 13598668969614156201]
GOLDEN_SMALL = [0, 1, 5, 4, 2, 3, 7, 6]
GOLDEN_LARGE = [908978, 1147656, 202566, 711550, 521867]


def naive_key(*parts: int) -> int:
    state = len(parts)
    for part in parts:
        state = splitmix(state ^ splitmix((part + GOLDEN) % 2**64))
    return state


def naive_bits(word: int, j: int) -> int:
    return splitmix(word ^ splitmix((j + 1) * GOLDEN % 2**64))


def test_golden_values() -> None:
    """A change of these numbers changes every run that anyone resumes."""
    assert int(key(1, 2)) == GOLDEN_KEY
    assert bits(key(1, 2), 3).tolist() == GOLDEN_BITS
    assert permute(7, np.arange(8), 8).tolist() == GOLDEN_SMALL
    assert permute(7, np.arange(5), 1_281_167).tolist() == GOLDEN_LARGE


def test_equal_to_naive() -> None:
    rng = np.random.default_rng(0)
    parts = rng.integers(-(2**63), 2**63 - 1, size=(20, 3))
    keys = key(parts[:, 0], parts[:, 1], parts[:, 2])
    assert keys.tolist() == [naive_key(*map(int, row)) for row in parts]
    assert bits(keys, 4, start=9).tolist() == [[naive_bits(int(k), 9 + j) for j in range(4)] for k in keys]


def test_keys_broadcast_wrap_and_keep_order() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns when a uint64 scalar overflows; the hash must stay on arrays
        grid = key(5, np.arange(4)[:, None], np.arange(3, dtype=np.int32))
        assert grid.shape == (4, 3)
        assert grid.dtype == np.uint64
        assert grid[2, 1] == key(5, 2, 1)
        assert key(1, 2) != key(2, 1)
        assert key(0) != key(0, 0)
        assert key(-1) == key(2**64 - 1) == key(np.int64(-1))
        assert key(3).shape == ()
        assert uniform(key(3), 5).shape == (5,)
        assert uniform(grid, 0).shape == (4, 3, 0)
    with pytest.raises(TypeError, match="integers"):
        key(np.array([0.5]))


def test_number_depends_on_its_counter_only() -> None:
    keys = key(1, np.arange(10))
    whole = uniform(keys, 100)
    np.testing.assert_array_equal(whole[:, 64:70], uniform(keys, 6, start=64))
    np.testing.assert_array_equal(whole[3], uniform(keys[3], 100))
    assert whole.min() >= 0
    assert whole.max() < 1


def test_arguments_stay_unchanged() -> None:
    parts, keys = np.arange(5, dtype=np.uint64), key(np.arange(5))
    before = keys.copy()
    key(parts, parts)
    bits(keys, 3)
    assert parts.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(keys, before)


@pytest.mark.parametrize("raw", [False, True], ids=["hashed keys", "counting keys"])
def test_uniform_and_uncorrelated(raw: bool) -> None:
    keys = np.arange(4000, dtype=np.uint64) if raw else key(0, 3, np.arange(4000))
    numbers = uniform(keys, 50)
    counts = np.histogram(numbers, bins=256, range=(0, 1))[0]
    assert 1e-3 < stats.chisquare(counts).pvalue < 1 - 1e-3
    low = bits(keys, 50) & np.uint64(0xFF)
    assert 1e-3 < stats.chisquare(np.bincount(low.ravel().astype(int), minlength=256)).pvalue < 1 - 1e-3
    limit = 4 / np.sqrt(numbers.size)
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < limit
    assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < limit
    pairs = np.histogram2d(numbers[:, 0], numbers[:, 1], bins=16, range=((0, 1), (0, 1)))[0]
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_every_input_bit_reaches_every_output_bit() -> None:
    """One changed bit of a key or of a part flips each output bit in half of the cases."""
    base = key(np.arange(2000))
    for change in range(0, 64, 7):
        flipped = bits(base, 1) ^ bits(base ^ np.uint64(1 << change), 1)
        other = key(9, np.arange(2000)) ^ key(9, np.arange(2000) ^ (1 << min(change, 62)))
        for words in (flipped.ravel(), other):
            share = ((words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).mean(0)
            assert np.abs(share - 0.5).max() < 0.06  # 5 standard errors


@pytest.mark.parametrize(
    "size", [1, 2, 3, 4, 5, 7, 16, 17, 100, 1023, 1024, 1025, 2048, 4095, 4096, 4097, 60_000, 2**16 + 1]
)
def test_permutation_is_a_bijection(size: int) -> None:
    result = permute(11, np.arange(size), size)
    assert result.dtype == np.int64
    np.testing.assert_array_equal(np.sort(result), np.arange(size))


def test_permutation_by_single_positions() -> None:
    for size in (50, 5000):
        whole = permute(key(2, 3), np.arange(size), size)
        some = np.array([[49, 0], [7, 7]])
        np.testing.assert_array_equal(permute(key(2, 3), some, size), whole[some])
        assert permute(key(2, 3), np.array(5), size) == whole[5]
    assert permute(1, np.zeros(0, np.int64), 5000).shape == (0,)
    huge = permute(1, np.arange(1000), 2**40)
    assert len(set(huge.tolist())) == 1000
    assert 0 <= huge.min() < 2**33 < 2**39 < huge.max() < 2**40
    with pytest.raises(IndexError, match="outside"):
        permute(1, np.array([5]), 5)
    with pytest.raises(ValueError, match="not 0"):
        permute(1, np.zeros(0, np.int64), 0)


@pytest.mark.parametrize(("size", "trials"), [(2, 4000), (5, 4000), (9, 4000), (1500, 600), (4096, 200)])
def test_permutation_is_even(size: int, trials: int) -> None:
    """Value against position, and value against the value before it, fill a table of cells evenly."""
    cells = min(size, 16)
    place, adjacent = np.zeros((cells, cells)), np.zeros((cells, cells))
    cell = np.arange(size) * cells // size
    share = np.bincount(cell)
    expected_place = trials * np.outer(share, share) / size
    expected_adjacent = trials * (np.outer(share, share) - np.diag(share)) / size  # a value never follows itself
    for trial in range(trials):
        value = cell[permute(trial, np.arange(size), size)]
        np.add.at(place, (cell, value), 1)
        np.add.at(adjacent, (value[:-1], value[1:]), 1)
    freedom = (cells - 1) ** 2
    statistic = ((place - expected_place) ** 2 / expected_place).sum()
    # Sampling without replacement shrinks the statistic by (size - 1) / size.
    assert stats.chi2.sf(statistic * (size - 1) / size, freedom) > 1e-3
    some = expected_adjacent > 0
    statistic = ((adjacent - expected_adjacent)[some] ** 2 / expected_adjacent[some]).sum()
    assert stats.chi2.sf(statistic, max(1, some.sum() - 1)) > 1e-3


def test_different_seeds_give_unrelated_permutations() -> None:
    size = 4000
    order = [permute(seed, np.arange(size), size) for seed in range(6)]
    for i in range(6):
        for j in range(i):
            assert (order[i] == order[j]).sum() < 9  # Poisson with mean 1
            assert abs(np.corrcoef(order[i], order[j])[0, 1]) < 4 / np.sqrt(size)
    assert ROUNDS >= 6
