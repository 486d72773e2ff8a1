"""eval.py from the command line to the JSON file, on images that a fake loader makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from models.evaluation.protocols.knn import KnnProtocol
from models.storage.encoder import Encoder, from_run
from tests.support.encoder_runs import write_run
from tests.support.fake_images import FakeLoader, call, dataset
from tools.evaluation.tables import show_classes


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sets = {
        "train": dataset("train"), "val": dataset("val", 40, 1), "flat": dataset("flat", classes=()),
        "mixed": dataset("mixed", unlabelled=30), "other": dataset("other", classes=("a", "b", "d")),
        "order": dataset("order", classes=("b", "a", "c")),
    }  # fmt: skip
    monkeypatch.setattr("tools.evaluation.data.open_dataset", lambda path, check: sets[str(path)])
    monkeypatch.setattr("models.evaluation.feature_extractor.make_loader", FakeLoader)
    FakeLoader.normalised_by.clear()
    return write_run(tmp_path / "run")


def test_knn_writes_protocol_and_baselines(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call(
        monkeypatch,
        "knn",
        "--run",
        run,
        "--data",
        "train",
        "--val-data",
        "val",
        "--k",
        5,
        "--baselines",
        "--device",
        "cpu",
    )
    assert code == 0
    written = json.loads((run / "eval-knn.json").read_text())
    assert written["protocol"]["id"] == "knn-k5-t0.1-cosine-student"
    assert set(written["baselines"]) == {"untrained network", "raw pixels"}
    assert written["baselines"]["raw pixels"]["top1"] > 80
    assert written["top5"] == 100
    assert written["step"] == 12
    assert (written["data"]["number"], written["val_data"]["number"]) == (90, 40)
    assert "knn-k5-t0.1-cosine-student" in capsys.readouterr().out
    assert set(FakeLoader.normalised_by) == {(0.5, 0.4, 0.3)}  # the run's channel statistics, not the data's own


def test_linear_writes_its_own_file_and_ignores_unlabelled_images(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = call(
        monkeypatch, "linear", "--run", run, "--data", "mixed", "--val-data", "val", "--epochs", 5, "--device", "cpu"
    )
    assert code == 0
    written = json.loads((run / "eval-linear.json").read_text())
    assert written["protocol"]["id"] == "linear-cached-sgd-lr1-b256-e5-student"
    assert written["data"]["number"] == 60
    assert 0 <= written["top1"] <= written["top5"] == 100


@pytest.mark.parametrize(
    ("data", "held_out", "message"),
    [
        ("flat", "val", "--data flat has no labels"),
        ("train", "flat", "--val-data flat has no labels"),
        ("train", "other", "differ in their classes (3, 3): only one has c, d"),
        ("train", "order", "differ in their classes (3, 3): in another order"),
    ],
)
def test_data_that_cannot_be_measured_on(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: str,
    held_out: str,
    message: str,
) -> None:
    assert call(monkeypatch, "knn", "--run", run, "--data", data, "--val-data", held_out) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("knn", "--labels", "10"), "--labels is '10'; give 'all' or a percentage such as 10%"),
        (("knn", "--labels", "10%", "--label-list", "x"), "argument --label-list: not allowed with argument --labels"),
        (("knn", "--seeds", "0,0"), "--seeds 0,0 names a seed twice"),
        (("knn", "--seeds", "0,-1"), "--seeds is 0,-1; give 0 or more"),
        (("linear", "--settings", "magic"), "--settings is 'magic'; take published, or one of msvq, msvq-stl10, mnn"),
        (("linear", "--lr", "0.1,0"), "--lr is 0.1,0; give numbers above 0"),
        (("linear", "--sweep", "--lr", "1"), "argument --lr: not allowed with argument --sweep"),
        (("linear", "--lr", "1,2", "--labels", "1%"), "no class has two labels, so none can be held out"),
        (("finetune", "--lr-backbone", "-1"), "--lr-backbone is -1.0; give a number above 0"),
        (("linear", "--lr", "inf"), "argument --lr: invalid list of finite float value: 'inf'"),
        (("finetune", "--lr-head", "nan"), "argument --lr-head: invalid finite float value: 'nan'"),
        (("knn", "--temperature", "nan"), "argument --temperature: invalid finite float value: 'nan'"),
        (("retrieve", "--k", "0,5"), "--k is 0,5; give whole numbers above 0, such as 1,5,10"),
        (("retrieve", "--k", "1,91"), "--k is 91, but there are 90 images to find; give at most as many"),
        (("knn", "--k", "91"), "--k is 91, but there are 90 images to find; give at most as many"),
        (("knn", "--stem", "small"), "--stem goes with --weights alone; leave it out"),
        (("knn", "--image-size", "16"), "--image-size goes with --weights alone; leave it out"),
        (("knn", "--device", "tape"), "--device is 'tape'; take cpu or cuda"),
        (("retrieve", "--labels", "10%"), "unrecognized arguments: --labels 10%"),
        (("knn", "--loader", "magic"), "--loader is 'magic'; take one of auto, ffcv, dali, resident"),
    ],
)
def test_options_that_make_no_sense_are_one_line_and_overwrite_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    there = ("--run", run, "--data", "train", "--val-data", "val", "--device", "cpu")
    (run / f"eval-{words[0]}.json").write_text("kept")
    assert call(monkeypatch, words[0], *there, *words[1:]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error
    assert (run / f"eval-{words[0]}.json").read_text() == "kept" and not (run / "evaluations.jsonl").exists()


def test_every_result_is_kept_though_the_file_holds_the_last(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ("--run", run, "--data", "train", "--val-data", "val", "--device", "cpu")
    for k in (3, 5):
        assert call(monkeypatch, "knn", *there, "--k", k) == 0
    rows = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [row["protocol"]["k"] for row in rows] == [3, 5]
    assert json.loads((run / "eval-knn.json").read_text()) == rows[1]


def test_a_torn_last_line_costs_that_line_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "evaluations.jsonl").write_text('{"protocol": {"id": "knn')
    there = ("--run", run, "--data", "train", "--val-data", "val", "--device", "cpu")
    assert call(monkeypatch, "knn", *there) == call(monkeypatch, "knn", *there) == 0
    torn, *rows, last = (run / "evaluations.jsonl").read_text().split("\n")
    assert torn == '{"protocol": {"id": "knn' and last == "" and [json.loads(row)["step"] for row in rows] == [12, 12]


def test_the_same_images_and_how_they_were_seen_are_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a precision that is not the usual one."""
    there = ("--run", run, "--data", "val", "--device", "cpu", "--precision", "bf16")
    for held_out, same in (("val", True), ("train", False)):
        assert call(monkeypatch, "knn", *there, "--val-data", held_out) == 0
        written = json.loads((run / "eval-knn.json").read_text())
        assert written["same_images"] is same and written["loader"] == "auto"
        assert written["protocol"]["id"].startswith("knn-k20-t0.1-cosine-student-bf16")


def test_broken_weights_are_one_line_that_names_the_checkpoint(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tools.evaluation.encoders.from_run", lambda *which: broken(from_run(*which)))
    there = ("--run", run, "--data", "train", "--val-data", "val", "--device", "cpu")
    for name in ("knn", "retrieve", "linear"):
        assert call(monkeypatch, name, *there) == 2
        error = capsys.readouterr().err
        assert "step-00000012: the features of " in error and "take an earlier checkpoint" in error
        assert error.count("\n") == 1 and not (run / f"eval-{name}.json").exists()


def broken(encoder: Encoder) -> Encoder:
    torch.nn.init.constant_(encoder.backbone.conv1.weight, float("nan"))
    return encoder


def test_names_of_classes_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=100)
    rows = [{"class": name, "images": 1, "top1": 1.0} for name in ("[red]x", "\x1b[31mred", "\udcff\n")]
    show_classes(rows, KnnProtocol, console)
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("[red]x", r"\x1b[31mred", r"\udcff\n"))


def test_missing_run_and_bad_numbers(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = ("--data", "train", "--val-data", "val", "--device", "cpu")
    assert call(monkeypatch, "knn", "--run", run / "no", *there) == 2
    assert "is no run of train.py" in capsys.readouterr().err
    assert call(monkeypatch, "knn", "--run", run, *there, "--temperature", 0) == 2
    assert capsys.readouterr().err == "eval.py: --temperature is 0.0; give a number above 0\n"
    assert call(monkeypatch, "knn", "--run", run, *there, "--k", 0) == 2
    assert capsys.readouterr().err == "eval.py: --k is 0; give at least 1\n"
