"""The cost of a checkpoint, on a tiny network: every number is there, and the files were written."""

import pytest

from tools.benchmarks.checkpoint import of_network
from tools.benchmarks.measure import Settings


def test_a_checkpoint_is_measured_beside_none():
    row = of_network(4, 16, 64, 2, Settings(repeats=2)).row()
    assert list(row["contenders"]) == ["with a checkpoint", "without"]
    share = (row["contenders"]["with a checkpoint"]["median"] / row["contenders"]["without"]["median"] - 1) / 25
    assert row["share lost every 50 steps"] == pytest.approx(share, abs=2e-3)
    assert (
        row["copy ms"] > 0 and row["copy and write ms, with nothing beside"] > row["copy ms"] and row["size MiB"] > 0.3
    )
