"""The soak: what counts as flat and as steady, and a short one of a real run."""

import json
import signal

import pytest

from tests.support import runs
from tools.soak import judge, main, read_rates


@pytest.fixture(autouse=True)
def term():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def samples(memory=lambda at: 500.0, threads=lambda at: 7, files=lambda at: 40):
    return [
        {"at_s": float(at), "rss_mib": memory(at), "threads": threads(at), "files": files(at)}
        for at in range(0, 1800, 2)
    ]


def rates(slow_down=1.0):
    """Rows of 10 s; the second half of the run has `slow_down` times the throughput of the first."""
    return [(10.0 * row, 1000 * (1 if row <= 90 else slow_down)) for row in range(1, 181)]


def test_a_run_that_grows_before_the_warm_up_only_is_flat():
    result = judge(samples(lambda at: min(500.0, 100.0 + 10 * at)), rates(), 180, 60)
    assert result["flat"] and result["rss_mib_per_hour"] == pytest.approx(0, abs=1e-6)
    assert result["samples_per_s_first"] == result["samples_per_s_last"] == 100 and result["last_to_first"] == 1


@pytest.mark.parametrize(
    "grown",
    [
        {"memory": lambda at: 500 + at / 3600 * 61},
        {"threads": lambda at: 7 + at // 900},
        {"files": lambda at: 40 + at // 100},
    ],
)
def test_what_grows_is_not_flat(grown):
    assert not judge(samples(**grown), rates(), 180, 60)["flat"]


def test_a_run_that_slows_down_is_not_steady():
    assert judge(samples(), rates(0.96), 180, 60)["flat"]
    result = judge(samples(), rates(0.9), 180, 60)
    assert not result["flat"] and result["last_to_first"] == 0.9
    with pytest.raises(ValueError, match="let it run longer"):
        judge(samples()[:20], rates(), 180, 60)


def test_rates_are_on_the_clock_of_training(tmp_path):
    rows = [{"step": 0, "samples_seen": 0, "knn_top1": 3.0}]
    rows += [{"samples_seen": 160 * n, "samples_per_s": 80.0, "loss": 1.0} for n in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_rates(tmp_path) == [(2.0, 160), (4.0, 160)]


@pytest.mark.processes
def test_a_short_soak(tmp_path, capsys):
    pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
    data = runs.make_data(tmp_path)
    words = runs.arguments(data.train, knn_every=0, epochs=None, log_every=2)
    own = ["--minutes", "0.08", "--warm-up", "0.02", "--every", "0.1", "--out", str(tmp_path / "soak")]
    assert main([*own, "--", *words]) in (0, 1)  # seconds are too short to judge
    assert "threads per hour: " in capsys.readouterr().out
    found = json.loads((tmp_path / "soak/soak.json").read_text())
    assert found["rss_mib_last"] > 100 and found["threads_last"] >= 2 and found["samples_per_s_last"] > 0
