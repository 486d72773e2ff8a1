"""95 % confidence intervals of a measured share, over seeds and over test images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

Z = statistics.NormalDist().inv_cdf(0.975)


def over_seeds(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Return (mean, standard deviation, low, high): Student's t interval of the mean of two or more values.

    The deviation is that of a sample, with n - 1.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("an interval over seeds needs two of them or more")
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = t_quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return mean, deviation, mean - half, mean + half


def wilson(hits: float, number: int) -> tuple[float, float]:
    """Return Wilson's interval (JASA 1927) of a share: `hits` right ones of `number` images; within 0 to 1."""
    share = hits / number
    centre = share + Z * Z / (2 * number)
    half = Z * math.sqrt(share * (1 - share) / number + Z * Z / (4 * number * number))
    scale = 1 + Z * Z / number
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def normal(mean: float, deviation: float, number: int) -> tuple[float, float]:
    """Return the normal interval of a mean over many images, for values other than hits, such as average precision."""
    half = Z * deviation / math.sqrt(number)
    return mean - half, mean + half


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t with an integer number of degrees of freedom, by bisection."""
    low, high = Z, 13.0  # the quantile for infinitely many degrees of freedom, and a bound above that for one
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def _t_within(t: float, freedom: int) -> float:
    """Return P(|T| < t) by the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term, total = 1.0, 0.0
    for i in range(freedom // 2):
        total += term
        term *= square * ((2 * i + 2) / (2 * i + 3) if odd else (2 * i + 1) / (2 * i + 2))
    if not odd:
        return sine * total
    return 2 / math.pi * (angle + sine * math.cos(angle) * total)
