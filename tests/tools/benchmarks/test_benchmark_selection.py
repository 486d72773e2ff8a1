"""The selection's benchmark: the same mixture for any number of processes, every contender, and growth over sizes."""

import json

import pytest
import torch

from models.distributed import world
from models.search.sharded_features import all_gather_rows
from tests.support import gloo
from tools import benchmark
from tools.benchmarks import search, selection
from tools.benchmarks.measure import Settings


def gathered(number):
    part = selection.mixture(number, "cpu")
    return all_gather_rows(part.number_M, part.features_MD)


@pytest.mark.processes
def test_processes_share_one_mixture():
    expected = gathered(20_000)
    assert torch.equal(expected[0], torch.arange(20_000)) and world() == (0, 1)
    for rank in gloo.run(gathered, 2, 20_000):
        assert all(torch.equal(own, other) for own, other in zip(rank, expected, strict=True))


def test_cases_compare_and_tell_the_growth(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(selection, "CLUSTERS", 16)
    monkeypatch.setattr(selection, "COMPARED", 600)
    out = tmp_path / "selection.json"
    words = ["selection", "--sizes", "600,1200", "--repeats", "1", "--threads", "1", "--json", str(out)]
    assert benchmark.main(words) == 0
    first, second = json.loads(out.read_text())["benchmarks"]["selection"]
    assert next(iter(first["contenders"])) == "ours" and list(second["contenders"]) == ["ours"]
    assert second["cpu_seconds"] > 0 and second["contenders"]["ours"]["peak_mib"] > 0
    assert "growth" not in first and "for 2 times the samples (N^" in second["growth"]
    assert first["samples"] == 600 and first["contenders"]["ours"]["median"] > 0
    assert benchmark.main(["selection", "--sizes", "0"]) == 2
    assert "--sizes must be at least 1" in capsys.readouterr().err


def test_the_parts_are_compared_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(search, "CLUSTERS", 16)
    monkeypatch.setattr(search, "QUERIES", 300)
    out = tmp_path / "search.json"
    assert benchmark.main(["search", "--sizes", "600", "--repeats", "1", "--threads", "1", "--json", str(out)]) == 0
    cases = json.loads(out.read_text())["benchmarks"]["search"]
    assert [case["case"] for case in cases] == ["neighbours of 300 among 600", "k-means of 600"]
    assert all(next(iter(case["contenders"])) == "ours" for case in cases)
    part = selection.mixture(600, "cpu")
    for baseline in selection.baselines(part.features_MD, 1):
        theirs = baseline.search(part.features_MD[:300].numpy(), 11)[:, 1:]
        assert (
            search.neighbors(part.features_MD, part.number_M).sort(1).values == theirs.sort(1).values
        ).float().mean() > 0.999


def test_the_others_find_what_ours_finds(monkeypatch):
    monkeypatch.setattr(selection, "CLUSTERS", 16)
    part = selection.mixture(800, "cpu")
    others = selection.baselines(part.features_MD, 1)
    if not others:
        pytest.skip("neither faiss nor scikit-learn is installed")
    found = selection.select(part, "paper", 0, 10, 16, 10)
    share = float(found.count_N.float().mean()) / 10
    for baseline in others:
        neighbors_Nk = baseline.search(part.features_MD.numpy(), 11)
        assert torch.equal(neighbors_Nk[:, 0], torch.arange(800))
        assert (neighbors_Nk[:, 1:].sort(1).values == found.neighbors_Nk.long().sort(1).values).float().mean() > 0.999
        # Clusters differ by their start, the share of central neighbours does not.
        assert float(selection.select_with(baseline, part.features_MD).float().mean()) == pytest.approx(share, abs=0.05)
    assert Settings().sizes == (50_000,)
