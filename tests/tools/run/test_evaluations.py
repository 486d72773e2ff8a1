"""Evaluations of a run, out of the files that eval.py leaves."""

import json

import pytest

from tools.command_line import Failure
from tools.run.evaluations import damaged_lines, latest, results_of, titles


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


def evaluated(protocol="knn-k20", step=4, seed=0, size=16, **more):
    sets = {name: {"path": f"data/{name}.beton", "checksum": f"sum of {name}", "number": 9} for name in ("a", "b", "q")}
    sets["other b"] = sets["b"] | {"checksum": "another sum"}
    names = {"data": sets[more.pop("data", "a")], "val_data": sets[more.pop("val_data", "q")]}
    return {"protocol": {"id": protocol}, "top1": 1.0, "step": step, "seed": seed, "image_size": size, **names, **more}


def written(folder, *evaluations):
    folder.joinpath("evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evaluations))
    return results_of(folder)


def named(folder, *evaluations):
    return sorted(titles(latest(written(folder, *evaluations))).values())


def test_results_that_cannot_be_compared_stand_apart(tmp_path):
    assert named(tmp_path, evaluated(), evaluated(top1=2.0), evaluated(step=2)) == ["knn-k20"]
    assert named(tmp_path, evaluated(), evaluated(data="b"), evaluated("linear", data="b")) == [
        "knn-k20, from a", "knn-k20, from b", "linear",
    ]  # fmt: skip
    assert named(tmp_path, evaluated(data="b"), evaluated(data="other b")) == [
        "knn-k20, from b (another )", "knn-k20, from b (sum of b)",
    ]  # fmt: skip
    assert named(tmp_path, evaluated(), evaluated(size=32)) == ["knn-k20, 16 px", "knn-k20, 32 px"]
    assert named(tmp_path, evaluated(), evaluated(seed=1)) == ["knn-k20"]  # nothing was drawn
    for protocol in ("linear", "knn-student-labels-10%"):
        several = evaluated(protocol, seeds=[{"seed": 0}, {"seed": 1}])
        assert named(tmp_path, evaluated(protocol), several) == [f"{protocol}, seed 0", f"{protocol}, seed 0,1"]


def test_numbers_on_the_images_that_were_learned_from_are_marked(tmp_path):
    same = {"data": "q", "val_data": "q"}
    assert named(tmp_path, evaluated("linear", **same), evaluated("retrieve-leave-one-out", **same)) == [
        "linear, on the images it learned from", "retrieve-leave-one-out",
    ]  # fmt: skip
    assert [r.same_images for r in written(tmp_path, evaluated(), evaluated(**same))] == [False, True]


def test_a_damaged_line_is_left_out_and_named(tmp_path):
    whole = json.dumps(evaluated())
    history = tmp_path / "evaluations.jsonl"
    history.write_text(f"{whole}\n{whole[:30]}\n{json.dumps(evaluated('linear'))}\n{whole[:9]}")
    assert [result.protocol for result in results_of(tmp_path)] == ["knn-k20", "linear"]
    assert damaged_lines(tmp_path) == [
        f"{history}, line {number}, is no evaluation that can be read and was left out" for number in (2, 4)
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"top1": 1}', '{"protocol": {"id": 1}, "top1": "good"}', '{"protocol": 3}']
)
def test_what_is_no_evaluation_is_named(tmp_path, text):
    (tmp_path / "eval-knn.json").write_text(text)
    with pytest.raises(Failure, match=r"eval-knn\.json is no evaluation that can be read; measure again with eval\.py"):
        results_of(tmp_path)


def test_a_run_that_was_not_evaluated(tmp_path):
    assert results_of(tmp_path) == []
