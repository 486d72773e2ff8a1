"""Several runs in one table: only what differs, every result under its protocol, and files that are not replaced."""

import json

import pytest

from tests.support.datasets import photos
from tests.support.run_folders import write_result, write_run
from tools.report import main as report
from tools.reporting.compare_runs import as_text, compare, differing, unique_names


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    data = photos(folder / "data", each=1)
    narrow, _ = write_run(folder / "narrow", data)
    wide, _ = write_run(folder / "wide", data, step=20, width=8)
    (wide / "summary.json").write_text(json.dumps({"step": 20, "samples_seen": 320, "seconds": 12.5}))
    write_result(narrow, "knn", "knn-k20", top1=40.0, top5=80.0)
    write_result(wide, "knn", "knn-k20", step=20, top1=45.0, top5=85.5)
    write_result(wide, "linear", "linear-lr1", step=12, top1=50.0)
    return narrow, wide


def test_facts(runs):
    facts = compare(runs)
    assert facts == {
        "method": ["clim", "clim"], "width": [4, 8], "state": ["unfinished, step 12", "finished"],
        "step": [12, 20], "images seen": [192, 320],
        "seconds": [None, 12.5], "images/s (median)": [108.0, 108.0], "final loss": [5.8, 5.0],
        "knn-k20: top1": [40.0, 45.0], "knn-k20: top5": [80.0, 85.5], "linear-lr1: top1": [None, 50.0],
        "linear-lr1: at step": [None, 12],
    }  # fmt: skip


def test_only_what_differs_among_those_that_have_it():
    first, second, third = {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3}, {"a": 1, "c": 3, "d": 0}
    assert differing([first, second, third]) == {"b": [2, 3, None]}


def test_a_protocol_on_two_sets_of_images_has_rows_for_each(runs, tmp_path):
    for data, top1 in (("here", 1.0), ("there", 2.0)):
        write_result(tmp_path, data, "knn-k20", data=data, top1=top1)
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_text((runs[0] / name).read_text())
    facts = compare([tmp_path, runs[0]])
    assert {name: values for name, values in facts.items() if name.endswith(("top1", "top5"))} == {
        "knn-k20, here: top1": [1.0, None], "knn-k20, there: top1": [2.0, None],
        "knn-k20, test: top1": [None, 40.0], "knn-k20, test: top5": [None, 80.0],
    }  # fmt: skip


def test_a_torn_line_is_told_and_blocks_nothing(runs, tmp_path, capsys):
    for name in ("config.json", "metrics.jsonl", "eval-knn.json"):
        (tmp_path / name).write_text((runs[0] / name).read_text())
    (tmp_path / "evaluations.jsonl").write_text('{"protocol": ')
    assert report(["compare", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "40" in printed.out and printed.err.count("\n") == 1
    assert "evaluations.jsonl, line 1, is no evaluation that can be read and was left out" in printed.err


def test_table_json_and_markdown(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    words = [*map(str, runs), "--json", str(tmp_path / "t.json"), "--markdown", str(tmp_path / "t.md")]
    assert report(["compare", *words]) == 0
    shown = capsys.readouterr().out
    assert "narrow" in shown and "knn-k20: top5" in shown and "85.5" in shown
    found = json.loads((tmp_path / "t.json").read_text())
    assert found["runs"] == ["narrow", "wide"] and found["facts"]["seconds"] == [None, 12.5]
    lines = (tmp_path / "t.md").read_text().splitlines()
    assert lines[0] == "|  | narrow | wide |" and "| seconds | - | 12.5 |" in lines
    assert {line.count("|") for line in lines} == {4}

    assert report(["compare", *words]) == 2
    assert (
        capsys.readouterr().err
        == f"tools.report compare: {tmp_path / 't.json'} exists and is left as it is; --force replaces it\n"
    )
    assert report(["compare", *words, "--force"]) == 0


def test_bad_input_is_one_line_and_writes_nothing(runs, tmp_path, capsys):
    for name in ("cut", "edited", "row", "result"):
        (tmp_path / name).mkdir()
        for file in ("config.json", "metrics.jsonl"):
            (tmp_path / name / file).write_text((runs[0] / file).read_text())
    (tmp_path / "cut" / "config.json").write_text('{"method": ')
    (tmp_path / "edited" / "config.json").write_text('{"method": "clim"}')
    (tmp_path / "row" / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    (tmp_path / "result" / "eval-knn.json").write_text('{"top1": 1}')
    cases = {
        "nowhere": "is no run of train.py: it has no config.json", "cut": "config.json is damaged",
        "edited": "config.json lacks recipe", "row": "metrics.jsonl line 2 is damaged",
        "result": "eval-knn.json is no evaluation that can be read",
    }  # fmt: skip
    for name, message in cases.items():
        assert report(["compare", str(runs[0]), str(tmp_path / name), "--json", str(tmp_path / "t.json")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert report(["compare", str(runs[0]), "--json", str(tmp_path / "no folder" / "t.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert report(["compare"]) == 2
    assert not (tmp_path / "t.json").exists()


def test_a_run_that_goes_on(runs, tmp_path):
    (tmp_path / "config.json").write_text((runs[0] / "config.json").read_text())
    (tmp_path / "metrics.jsonl").write_text('{"step": 3, "samples_seen": 48, "loss": 1.5}\n{"step": 4, "lo')
    facts = compare([tmp_path])
    expected = {
        "state": ["unfinished, step 3"],
        "step": [3],
        "images seen": [48],
        "final loss": [1.5],
        "images/s (median)": [None],
        "seconds": [None],
    }
    assert facts == {"method": ["clim"]} | expected
    config = json.loads((tmp_path / "config.json").read_text())
    config["recipe"] |= {"batch_size": 2, "epochs": 5}  # of 3 images: one step an epoch
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert compare([tmp_path])["state"] == ["unfinished, step 3 of 5"]
    config["options"]["max_steps"] = 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert compare([tmp_path, runs[1]])["state"] == ["unfinished, step 3 of 4", "finished"]
    (tmp_path / "summary.json").write_text(json.dumps({"step": 4}))
    assert "state" not in compare([tmp_path, runs[1]])


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    assert unique_names([Path("a/run"), Path("b/run"), Path("c")]) == ["a/run", "b/run", "c"]
    assert [as_text(value) for value in (None, 1200, 0.00005, 43.04, True, [32, 24], "x")] == [
        "-", "1,200", "5e-05", "43.04", "True", "32, 24", "x",
    ]  # fmt: skip
