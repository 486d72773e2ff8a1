"""Evaluations of a run, out of the files that eval.py leaves."""

import json

import pytest

from tools.options import Failure
from tools.run_results import latest, results_of


def test_every_evaluation_of_a_run_is_found(tmp_path):
    """The history holds what a later evaluation of the same name replaced, and the best checkpoint's row beside."""
    seen = {"path": "data/test.beton", "number": 12}
    best = {"protocol": {"id": "knn-best"}, "top1": 60.0}
    history = [
        {"protocol": {"id": "knn"}, "top1": 10.0, "step": 4, "val_data": seen},
        {"protocol": {"id": "knn"}, "top1": 50.0, "step": 9, "val_data": seen, "best": best, "best_step": 6},
        {"protocol": {"id": "retrieve"}, "recall@1": 30.0, "map": 20.0, "bank_images": 7, "step": 9, "val_data": seen},
        {"protocol": {"id": "knn"}, "top1": 51.0, "interval": {"kind": "95 %", "top1": [40.0, 60.0]}, "step": 9,
         "val_data": seen},
    ]  # fmt: skip
    (tmp_path / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    (tmp_path / "eval-knn.json").write_text(json.dumps(history[-1]))
    results = results_of(tmp_path)
    assert [(r.protocol, r.step, dict(r.values)) for r in latest(results)] == [
        ("knn", 9, {"top1": 51.0}), ("knn-best", 6, {"top1": 60.0}), ("retrieve", 9, {"recall@1": 30.0, "map": 20.0}),
    ]  # fmt: skip
    assert latest(results)[0].intervals == {"top1": (40.0, 60.0)}
    assert [r.values["top1"] for r in latest(results, 4) if r.protocol == "knn"] == [10.0]
    assert [r.step for r in latest(results, 5) if r.protocol == "knn"] == [9]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"top1": 1}', '{"protocol": {"id": 1}, "top1": "good"}', '{"protocol": 3}']
)
def test_what_is_no_evaluation_is_named(tmp_path, text):
    (tmp_path / "eval-knn.json").write_text(text)
    with pytest.raises(Failure, match=r"eval-knn\.json is no evaluation that can be read; measure again with eval\.py"):
        results_of(tmp_path)


def test_a_run_that_was_not_evaluated(tmp_path):
    assert results_of(tmp_path) == []
