"""The cost of a checkpoint, on a tiny network: every number is there, and it is that of the pairs."""

import statistics

import pytest

from tools.benchmarks.checkpoint import of_network
from tools.benchmarks.measure import Settings


@pytest.mark.slow
def test_a_checkpoint_is_measured_beside_none():
    case = of_network(8, 16, 64, Settings(repeats=3))
    row = case.row()
    assert list(row["contenders"]) == ["with a checkpoint", "without"]
    steps = int(case.name.split()[0])
    pairs = zip(*case.values.values(), strict=True)
    shares = [(one - other) * steps / 50 / case.median("without") for one, other in pairs]
    assert row["share lost every 50 steps"] == pytest.approx(statistics.median(shares), abs=2e-5)
    low, high = row["quartiles of the pairs"]
    assert low <= row["share lost every 50 steps"] <= high and row["pairs"] == 3 and 1 <= steps <= 50
    assert row["copy and write ms, with nothing beside"] > row["copy ms"] > 0 and row["size MiB"] > 0.3
