"""What train.py says to a user's mistakes: one line, exit code 2, nothing lost."""

import json
import sys

import pytest

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from tests.support import runs
from tests.support.datasets import photos
from tests.support.runs import LAST


def flat(folder):
    """Unlabelled images."""
    from tests.support.datasets import converted
    from tests.support.images import encoded, smooth, write

    for number in range(20):
        write(folder / "flat" / f"{number}.jpg", encoded(smooth(40, 40, number), quality=90))
    return converted(folder / "flat", folder / "flat.beton").path


def one_line(capfd):
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and error.startswith("train.py: "), error
    return error


WRONG = {
    "unknown option": ({"colour": "red"}, "unrecognized arguments: --colour red"),
    "abbreviated option": ({"epoch": 3}, "unrecognized arguments: --epoch 3"),
    "not a number": ({"epochs": "many"}, "argument --epochs: invalid int value: 'many'"),
    "not finite": ({"lr": "inf"}, "argument --lr: invalid finite float value: 'inf'"),
    "not a number of training": ({"temperature": "1e39"}, "argument --temperature: invalid finite float value: '1e39'"),
    "not a list": ({"resolutions": "16,x"}, "argument --resolutions: invalid list of int value: '16,x'"),
    "no method": ({"method": None}, "give --method NAME and --data FILE"),
    "unknown method": ({"method": "magic"}, "argument --method: invalid choice: 'magic' (choose from"),
    "no recipe": ({"recipe": "nonsense"}, "method clim has no recipe 'nonsense'; take one of cifar10"),
    "too few images": ({"batch_size": 64}, "48 images, fewer than one batch of 64; lower the batch size"),
    "long warm-up": ({"warmup_epochs": 20}, "warm-up of 20.0 epochs in a run of 20; give"),
    "fp16": ({"precision": "fp16"}, "--precision fp16 needs a GPU; take bf16 or fp32 on a CPU"),
    "precision": ({"precision": "fp8"}, "--precision is 'fp8'; take one of bf16, fp16, fp32"),
    "accumulate": ({"accumulate": 3}, "--batch-size 16 does not divide into --accumulate 3 micro-batches"),
    "no micro-batches": ({"accumulate": 0}, "--accumulate is 0; give at least 1"),
    "groups": ({"bn_splits": 3}, "a batch of 16 does not split into 3 batch-norm groups (bn_splits)"),
    "loader": ({"loader": "tape"}, "--loader is 'tape'; take one of auto"),
    "optimizer": ({"optimizer": "magic"}, "--optimizer is 'magic'; take one of sgd"),
    "backbone": ({"backbone": "magic"}, "--backbone is 'magic'; take one of resnet18"),
    "learning rate": ({"lr": -1}, "--lr is -1.0; give a number above 0"),
    "method's value": ({"rule": "magic"}, "--rule is 'magic'; take one of paper, snapshot"),
    "tracker": ({"log_with": "paper"}, "--log-with is 'paper'; take one of tensorboard, wandb"),
    "too many clusters": ({"clusters": 500}, "500"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_one_line_and_exit_code_2(case, data, tmp_path, monkeypatch, capfd):
    changed, message = WRONG[case]
    assert runs.in_process(train, monkeypatch, *runs.options(data, tmp_path / "run", **changed)) == 2
    assert message in one_line(capfd)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_program_itself_ends_with_code_2(tmp_path):
    done = runs.command("train.py", "--method", "clim", "--data", tmp_path / "no.beton")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("train.py: there is no data set")


def test_data_that_cannot_be_used(data, tmp_path, monkeypatch, capfd):
    def fails(words, message):
        assert runs.in_process(train, monkeypatch, *words) == 2
        assert message in one_line(capfd)

    run = tmp_path / "run"
    fails(runs.arguments(None, output=run), "give --method NAME and --data FILE")
    fails(runs.options(data, run, data=tmp_path / "no.beton"), f"there is no data set {tmp_path / 'no.beton'}")
    fails(runs.options(data, run, data=tmp_path), f"{tmp_path} is a folder; convert it first")
    fails(runs.options(data, run, val_data=tmp_path / "no.beton"), "there is no data set")
    others = photos(tmp_path / "others", classes=2, each=3).path
    fails(runs.options(data, run, val_data=others), "have different classes; give --val-data of the same ones")
    unlabelled = flat(tmp_path)
    fails(runs.options(data, run, data=unlabelled), "have different classes; give --val-data of the same ones")
    fails(runs.options(data, run, data=unlabelled, val_data=unlabelled), "kNN needs labels in both")
    assert not run.exists()


def test_unlabelled_data_train_without_the_monitor(tmp_path, monkeypatch, capfd):
    run = tmp_path / "run"
    words = runs.arguments(flat(tmp_path), output=run, max_steps=2)
    assert runs.in_process(train, monkeypatch, *words) == 0
    assert "no labelled images for the kNN monitor; give them with --val-data" in capfd.readouterr().out
    assert json.loads((run / "summary.json").read_text())["knn_top1"] is None
    assert len(runs.rows(run, "loss")) == 2 and not runs.rows(run, "partner_chance")
    assert [row["step"] for row in runs.rows(run, "feature_rank")] == [0, 2]  # quality needs no labels


def test_an_output_that_cannot_be_written(data, tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("")
    for output, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "run", "Not a directory")):
        assert runs.in_process(train, monkeypatch, *runs.options(data, output)) == 2
        assert one_line(capfd) == f"train.py: cannot write the run's folder {output}: {reason}; take another --output\n"


def test_a_run_is_never_overwritten_or_mixed_with_another(whole, data, tmp_path, monkeypatch, capfd):
    run = whole[0]
    before = (run / "metrics.jsonl").read_bytes()

    def fails(words, message):
        assert runs.in_process(train, monkeypatch, *words) == 2
        assert message in one_line(capfd)

    fails(
        runs.options(data, run),
        f"{run} holds a run; go on with --resume, move it aside with --force, or take another --output",
    )
    fails(
        runs.options(data, run, lr=0.1, resume=True),
        "the run was started with lr 0.06, not 0.1; give the same, or another --output",
    )
    fails(
        runs.options(data, run, resolutions="16", resume=True),
        "the run was started with resolutions [16, 12], not [16]",
    )
    fails(runs.options(data, run, seed=1, resume=True), "the run was started with seed 0, not 1; give the same")
    fails(
        runs.options(data, run, accumulate=2, resume=True),
        "the run was started with accumulate 1, not 2; give the same",
    )
    other = photos(tmp_path / "other", each=17).path
    fails(
        runs.options(data, run, data=other, resume=True),
        "the run was trained on other data than --data; give that, or another --output",
    )
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_start_that_failed_does_not_block_the_folder(data, tmp_path, monkeypatch, capfd):
    run = tmp_path / "run"
    assert runs.in_process(train, monkeypatch, *runs.options(data, run, clusters=500)) == 2
    one_line(capfd)
    assert [row["step"] for row in runs.rows(run)] == [0]  # the untrained network was measured
    assert runs.in_process(train, monkeypatch, *runs.options(data, run, max_steps=1)) == 0
    assert [row["step"] for row in runs.rows(run, "knn_top1")] == [0, 1]


def test_a_tracker_that_is_not_installed(data, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "path", [])  # no package can be found, whatever this machine has
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in ("tensorboard", "wandb"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        assert runs.in_process(train, monkeypatch, *runs.options(data, tmp_path / "run", log_with=name)) == 2
        assert one_line(capfd) == f"train.py: --log-with {name} needs its package: pip install {name}\n"


def test_a_damaged_image_is_told_in_one_line_and_counted_in_the_metrics(tmp_path, monkeypatch, capfd):
    dataset = photos(tmp_path, each=16)
    with open(dataset.path, "r+b") as file:
        file.seek(int(dataset.table.offset[20]))
        file.write(bytes(200))
    words = runs.arguments(dataset.path, output=tmp_path / "run", start_epoch=100, log_every=1)
    capfd.readouterr()
    assert runs.in_process(train, monkeypatch, *words) == 2
    assert "--verify none" in one_line(capfd)
    assert runs.in_process(train, monkeypatch, *words, "--verify", "none") == 0
    told = [line for line in capfd.readouterr().err.splitlines() if "damaged" in line]
    assert len(told) == 1 and f"{dataset.path}: image 20 is damaged and cannot be decoded; a grey one" in told[0]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["replaced_images"] for row in rows if "loss" in row][-1] == 1


@pytest.mark.parametrize("lr", [1e30, 3e38])
def test_a_loss_that_is_no_number_ends_the_run_in_one_line(lr, data, tmp_path, monkeypatch, capfd):
    words = runs.options(data, tmp_path / "run", lr=lr, warmup_epochs=0, checkpoint_every=LAST)
    assert runs.in_process(train, monkeypatch, *words) == 2
    assert "lower --lr, or take --precision fp32" in one_line(capfd)
    assert not (tmp_path / "run/checkpoints").exists()


def test_features_that_are_no_numbers_end_the_run_in_one_line(data, tmp_path, monkeypatch, capfd):
    """The weights are finite, and whatever they make of an image is not."""
    words = runs.options(data, tmp_path / "run", lr=3e38, warmup_epochs=0, max_steps=1)
    assert runs.in_process(train, monkeypatch, *words) == 2
    assert "the features of 48 of 48 images are not finite: the network's weights are broken" in one_line(capfd)
    assert [row["step"] for row in runs.rows(tmp_path / "run", "feature_rank")] == [0]
    assert "NaN" not in (tmp_path / "run/metrics.jsonl").read_text()
