"""The selection's benchmark: the same mixture for any number of processes, every contender, and growth over sizes."""

import json

import gloo
import pytest
import torch

from models.distributed import world
from models.part import rows_of_all
from tools import benchmark
from tools.benchmarks import selection
from tools.benchmarks.measure import Settings


def gathered(number):
    part = selection.mixture(number, "cpu")
    return rows_of_all(part.number_M, part.features_MD)


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
    assert "growth" not in first and "for 2 times the samples (N^" in second["growth"]
    assert first["samples"] == 600 and first["contenders"]["ours"]["median"] > 0
    assert benchmark.main(["selection", "--sizes", "0"]) == 2
    assert "--sizes must be at least 1" in capsys.readouterr().err


def test_the_others_find_what_ours_finds(monkeypatch):
    monkeypatch.setattr(selection, "CLUSTERS", 16)
    part = selection.mixture(800, "cpu")
    found = {name: run() for name, run in selection.others(part.features_MD, 1).items()}
    if not found:
        pytest.skip("neither faiss nor scikit-learn is installed")
    share = float(selection.select(part, "paper", 0, 10, 16, 10).count_N.float().mean()) / 10
    for mask in found.values():  # clusters differ by their start, the share of central neighbours does not
        assert float(mask.float().mean()) == pytest.approx(share, abs=0.05)
    assert Settings().sizes == (50_000,)
