"""The benchmark of evaluation on tiny sizes: both kNN contenders find the same, and both passes the same features."""

import json

import pytest
import torch

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from tests.support.datasets import photos
from tools import benchmark
from tools.benchmarks import evaluation
from tools.benchmarks.measure import Settings


def test_knn_contenders_agree():
    case = evaluation.neighbors(600, evaluation.Sizes(queries=100, dimensions=512), Settings(1))
    top1 = case.facts["top-1"]
    assert top1["ours"] == top1["scikit-learn"] and 20 < top1["ours"] < 100
    assert set(case.values) == set(case.peak_mib) == {"ours", "scikit-learn"}


def test_passes_of_a_data_set(tmp_path, monkeypatch):
    seen = []
    real = evaluation.forward

    def forward(network, ready):
        seen.append([len(batch) for batch in ready])
        return real(network, ready)

    monkeypatch.setattr(evaluation, "forward", forward)
    sizes = evaluation.Sizes(width=4, images=20, batch_size=8)
    case = evaluation.extraction(photos(tmp_path, each=8), torch.bfloat16, sizes, Settings(2))
    assert seen == [[8], [8, 8, 4], [8, 8, 4]]
    assert case.name == "features of 20 images, bfloat16" and case.facts["efficiency"] > 0
    assert {len(values) for values in case.values.values()} == {2}


def test_it_is_one_of_the_benchmarks(monkeypatch, tmp_path):
    small = evaluation.Sizes(queries=50, dimensions=16)
    monkeypatch.setattr(evaluation, "cases", lambda settings: iter([evaluation.neighbors(300, small, settings)]))
    out = tmp_path / "evaluation.json"
    assert benchmark.main(["evaluation", "--repeats", "1", "--threads", "1", "--json", str(out)]) == 0
    (case,) = json.loads(out.read_text())["benchmarks"]["evaluation"]
    assert next(iter(case["contenders"])) == "ours"
