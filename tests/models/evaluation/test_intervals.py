"""Intervals against scipy's."""

import math

import pytest

from models.evaluation.intervals import normal, over_seeds, t_quantile, wilson

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 30, 99, 1000])
def test_quantiles_of_student(freedom):
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_over_seeds():
    values = [60.1, 60.9, 59.5, 61.0]
    mean, deviation, low, high = over_seeds(values)
    expected = stats.t.interval(0.95, 3, stats.tmean(values), stats.sem(values))
    assert (mean, deviation) == pytest.approx((stats.tmean(values), stats.tstd(values)))
    assert (low, high) == pytest.approx(expected)
    with pytest.raises(ValueError, match="needs two of them"):
        over_seeds([1.0])


@pytest.mark.parametrize(("hits", "number"), [(0, 7), (7, 7), (1, 3), (4455, 10_000), (9999, 10_000)])
def test_wilson(hits, number):
    expected = stats.binomtest(hits, number).proportion_ci(0.95, "wilson")
    assert wilson(hits, number) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_normal():
    assert normal(0.5, 0.2, 400) == pytest.approx(stats.norm.interval(0.95, 0.5, 0.2 / math.sqrt(400)))
