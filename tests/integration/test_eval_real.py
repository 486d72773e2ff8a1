"""eval.py on a real run: a network that train.py trained, images that the loader decodes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import eval as program
from models.evaluation import feature_extractor as passes
from models.evaluation.knn_monitor import KnnMonitor
from models.storage import checkpoint
from models.storage.encoder import from_run
from pipelines import open_dataset
from pipelines.formats.dataset import image_names
from pipelines.plan.views import evaluation
from tests.support import gloo, runs
from tests.support.datasets import converted, photos
from tests.support.images import encoded, smooth, write


@pytest.fixture(scope="module")
def run(whole, tmp_path_factory):
    return shutil.copytree(whole[0], tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def measured(run, data):
    """kNN by the program itself."""
    sets = ("--data", data.train, "--val-data", data.held_out, "--device", "cpu")
    done = runs.command("eval.py", "knn", "--run", run, *sets, "--baselines")
    assert done.returncode == 0, done.stderr
    return done


def test_knn_is_written_with_its_protocol_and_baselines(run, data, measured):
    written = json.loads((run / "eval-knn.json").read_text())
    assert written["protocol"]["id"] == "knn-k20-t0.1-cosine-student"
    assert set(written["baselines"]) == {"untrained network", "raw pixels"}
    for row in (written, *written["baselines"].values()):
        assert 0 <= row["top1"] <= row["top5"] == 100  # of three classes, all are among the first five
    assert (written["step"], written["classes"], written["image_size"]) == (60, 3, 16)
    assert (written["data"]["number"], written["val_data"]["number"]) == (48, 12)
    assert written["data"]["checksum"] == open_dataset(data.train).checksum
    for text in ("knn-k20-t0.1-cosine-student", "untrained network", "raw pixels", f"{written['top1']:.2f}"):
        assert text in measured.stdout
    assert measured.stderr == ""


def test_knn_is_what_the_monitor_said_at_the_end_of_the_run(run, measured):
    summary = json.loads((run / "summary.json").read_text())
    written = json.loads((run / "eval-knn.json").read_text())
    assert written["protocol"]["id"] == summary["knn_protocol"]
    assert written["top1"] == pytest.approx(summary["knn_top1"], abs=1e-3)


def test_linear_is_written_with_its_protocol(run, data, monkeypatch, capsys):
    sets = ("--data", data.train, "--val-data", data.held_out, "--device", "cpu")
    assert runs.in_process(program, monkeypatch, "linear", "--run", run, *sets, "--epochs", 30) == 0
    written = json.loads((run / "eval-linear.json").read_text())
    assert written["protocol"]["id"] == "linear-cached-sgd-lr1-b256-e30-student"
    assert 0 <= written["top1"] <= written["top5"] == 100 and written["baselines"] == {}
    assert f"{written['top1']:.2f}" in capsys.readouterr().out


def test_an_unlabelled_part_of_the_bank_changes_nothing(run, data, tmp_path, monkeypatch):
    """Half of the labels taken away: the result is that of the other half alone."""
    encoder, bank, queries = from_run(run), open_dataset(data.train), open_dataset(data.held_out)
    labels = np.where(np.arange(48) % 2 == 0, bank.labels, -1)
    mixed = replace(bank, labels=labels)
    opened = {str(data.train): mixed, str(data.held_out): queries}
    monkeypatch.setattr("tools.evaluation.data.open_dataset", lambda path, check: opened[path])
    copy = shutil.copytree(run, tmp_path / "run")
    words = ("knn", "--run", copy, "--data", data.train, "--val-data", data.held_out, "--device", "cpu")
    assert runs.in_process(program, monkeypatch, *words) == 0
    written = json.loads((copy / "eval-knn.json").read_text())
    monitor = KnnMonitor(mixed, queries, evaluation(16), 1000, 12, threads=1)
    expected = monitor.measure(encoder.backbone)
    monitor.close()
    assert written["data"]["number"] == 24 and written["top1"] == pytest.approx(expected, abs=1e-3)


def test_weights_in_a_file_measure_as_the_run_does(run, data, measured, tmp_path, monkeypatch):
    weights = load_file(checkpoint.newest(run / "checkpoints")[0].path / "model.safetensors")
    part = {
        name.removeprefix("student."): value for name, value in weights.items() if name.startswith("student.backbone")
    }
    mean = json.loads((run / "config.json").read_text())["data"]
    save_file(part, tmp_path / "w.safetensors", {"mean": str(mean["mean"]), "std": str(mean["std"])})
    words = ("knn", "--weights", tmp_path / "w.safetensors", "--stem", "small", "--image-size", 16)
    assert runs.in_process(program, monkeypatch, *words, "--data", data.train, "--val-data", data.held_out) == 0
    own = json.loads((tmp_path / "w.safetensors.eval-knn.json").read_text())
    assert own["top1"] == json.loads((run / "eval-knn.json").read_text())["top1"]


def test_errors_are_one_line_and_exit_code_2(run, data, tmp_path, monkeypatch, capfd):
    def fails(message, run=run, bank=data.train, queries=data.held_out, *more):
        words = ("knn", "--run", run, "--data", bank, "--val-data", queries, *more)
        assert runs.in_process(program, monkeypatch, *words) == 2
        error = capfd.readouterr().err
        assert error.startswith("eval.py: ") and error.count("\n") == 1 and message in error, error

    for number in range(4):
        write(tmp_path / "flat" / f"{number}.jpg", encoded(smooth(40, 40, number), quality=90))
    unlabelled = converted(tmp_path / "flat", tmp_path / "flat.beton").path
    others = photos(tmp_path / "others", classes=2, each=3).path
    fails("is no run of train.py: it has no config.json", run=tmp_path)
    fails("there is no data set", bank=tmp_path / "no.beton")
    fails(f"--data {unlabelled} has no labels; evaluation needs labelled images", bank=unlabelled)
    fails(f"--val-data {unlabelled} has no labels", queries=unlabelled)
    fails("--data and --val-data differ in their classes (3, 2): only one has class2", queries=others)
    empty = shutil.copytree(run, tmp_path / "empty")
    shutil.rmtree(empty / "checkpoints")
    fails("holds no checkpoint that can be read", run=empty)
    damaged = photos(tmp_path / "damaged", each=4)
    with open(damaged.path, "r+b") as file:
        file.seek(int(damaged.table.offset[5]))
        file.write(bytes(200))
    words = ("knn", "--run", run, "--data", data.train, "--val-data", damaged.path)
    fails("are not those of its card", queries=damaged.path)
    assert runs.in_process(program, monkeypatch, *words, "--verify", "none") == 2
    named, refused = capfd.readouterr().err.splitlines()
    assert "image 5 is damaged" in named and "eval.py: 1 image of" in refused and "convert" in refused


@pytest.mark.parametrize(
    "words", [("knn",), ("linear", "--epochs", 5, "--sweep"), ("finetune", "--epochs", 2), ("retrieve",)]
)
def test_seeds_shares_baselines_and_classes(words, run, data, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    sets = ("--run", copy, "--data", data.train, "--val-data", data.held_out, "--device", "cpu", "--threads", 1)
    share = () if words[0] == "retrieve" else ("--labels", "50%", "--seeds", "0,1,2")
    assert runs.in_process(program, monkeypatch, *words, *sets, *share, "--baselines", "--per-class") == 0
    written = json.loads((copy / f"eval-{words[0]}.json").read_text())
    main = "recall@1" if words[0] == "retrieve" else "top1"
    low, high = written["interval"][main]
    assert low <= written[main] <= high
    assert [(row["class"], row["images"]) for row in written["per_class"]] == [(f"class{i}", 4) for i in range(3)]
    assert sum(row[main] for row in written["per_class"]) / 3 == pytest.approx(written[main], abs=1e-3)
    if share:
        assert written["protocol"]["id"].endswith("-student-labels-50%") and written["protocol"]["labels"] == "50%"
        assert [row["seed"] for row in written["seeds"]] == [0, 1, 2]
        assert {row["labelled_images"] for row in written["seeds"]} == {24}
        assert "Student's t over 3 seeds" in written["interval"]["kind"]
    expected = {"untrained network"} | ({"raw pixels"} if words[0] != "finetune" else set())
    assert set(written["baselines"]) == expected
    assert written["pretraining"]["method"] == "clim" and written["processes"] == 1
    assert "by class" in capsys.readouterr().out


def test_the_best_checkpoint_stands_beside_the_newest(run, data, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    last = checkpoint.newest(copy / "checkpoints")[0]
    weights = {name: torch.zeros_like(value) for name, value in last.model.items()}
    earlier = shutil.copytree(last.path, last.path.with_name("step-00000007"))
    save_file(weights, earlier / "model.safetensors")
    state = json.loads((earlier / "state.json").read_text())
    (earlier / "state.json").write_text(json.dumps(state | {"step": 7, "knn_step": 7, "knn_top1": 100.0}))
    checkpoint.write_manifest(earlier)
    sets = ("--run", copy, "--data", data.train, "--val-data", data.held_out, "--device", "cpu")
    assert runs.in_process(program, monkeypatch, "knn", *sets) == 0
    both = json.loads((copy / "eval-knn.json").read_text())
    assert (both["step"], both["best_step"]) == (60, 7)
    assert both["best"]["protocol"]["id"] == "knn-k20-t0.1-cosine-student-best"
    assert both["best"]["top1"] != both["top1"] and "best" in capsys.readouterr().out
    assert runs.in_process(program, monkeypatch, "knn", *sets, "--checkpoint", "best") == 0
    alone = json.loads((copy / "eval-knn.json").read_text())
    assert (alone["step"], alone["top1"]) == (7, both["best"]["top1"])
    assert alone["protocol"] == both["best"]["protocol"] and "step-00000007" in alone["encoder"]
    assert runs.in_process(program, monkeypatch, "knn", *sets, "--checkpoint", "newest") == 0
    newest = json.loads((copy / "eval-knn.json").read_text())
    assert (newest["step"], newest["best"], newest["top1"]) == (60, None, both["top1"])


def test_transfer_to_other_classes_is_normalised_as_trained(run, tmp_path, monkeypatch):
    folder = tmp_path / "other"
    for kind, each in (("bank", 12), ("queries", 5)):
        for label in range(2):
            for number in range(each):
                picture = smooth(24, 24, 100 * label + number) // 3 + np.uint8(150 * label)
                write(folder / kind / f"kind{label}" / f"{number}.jpg", encoded(picture, quality=95))
    bank, queries = (converted(folder / kind, folder / f"{kind}.beton") for kind in ("bank", "queries"))
    means = []
    real = passes.make_loader
    monkeypatch.setattr(passes, "make_loader", lambda data, *a, **k: means.append(data.mean) or real(data, *a, **k))
    copy = shutil.copytree(run, tmp_path / "run")
    words = ("knn", "--run", copy, "--data", bank.path, "--val-data", queries.path, "--device", "cpu")
    assert runs.in_process(program, monkeypatch, *words) == 0
    written = json.loads((copy / "eval-knn.json").read_text())
    assert written["classes"] == 2 and [row["class"] for row in written["per_class"]] == ["kind0", "kind1"]
    assert written["top1"] == 100  # black and white
    trained = json.loads((copy / "config.json").read_text())["data"]
    assert set(means) == {tuple(trained["mean"])} and bank.mean != tuple(trained["mean"])
    assert written["pretraining"]["checksum"] == trained["checksum"] != written["data"]["checksum"]


def test_a_published_list_says_whose_labels_are_used(run, data, tmp_path, monkeypatch, capfd):
    names = [name for name in image_names(open_dataset(data.train)) if name.endswith(("/1.jpg", "/2.jpg"))]
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n")
    copy = shutil.copytree(run, tmp_path / "run")
    sets = ("--run", copy, "--data", data.train, "--val-data", data.held_out, "--device", "cpu")
    words = ("linear", *sets, "--epochs", 3, "--label-list", tmp_path / "list.txt")
    assert len(names) == 6 and runs.in_process(program, monkeypatch, *words) == 0
    written = json.loads((copy / "eval-linear.json").read_text())
    assert written["labelled_images"] == 6 and written["protocol"]["labels"].startswith("list ")
    before = (copy / "eval-linear.json").read_text()
    (tmp_path / "list.txt").write_text("class0/1.jpg\nclass9/1.jpg\n")
    capfd.readouterr()
    assert runs.in_process(program, monkeypatch, *words) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "line 2" in error and "class9/1.jpg" in error
    assert (copy / "eval-linear.json").read_text() == before


@pytest.mark.parametrize(
    ("words", "launcher"),
    [
        (("knn",), "torchrun"),
        (("linear", "--epochs", 5), None),
        (("finetune", "--epochs", 2, "--precision", "fp32"), None),
        (("retrieve",), None),
    ],
)
def test_two_processes_give_the_number_of_one(words, launcher, run, data, tmp_path, monkeypatch):
    sets = ("--data", data.train, "--val-data", data.held_out, "--device", "cpu", "--threads", 1)
    one, two = (shutil.copytree(run, tmp_path / name) for name in ("one", "two"))
    assert runs.in_process(program, monkeypatch, words[0], "--run", one, *sets, *words[1:]) == 0
    line = (words[0], "--run", two, *sets, *words[1:])
    if launcher:
        done = [runs.command("-m torch.distributed.run --standalone --nproc_per_node 2 -- eval.py", *line)]
    else:
        done = gloo.run_program("eval", line, line)
    assert [process.returncode for process in done] == [0] * len(done), done[0].stderr
    assert sum(process.stdout.count("written to") for process in done) == 1
    single, shared = (json.loads((folder / f"eval-{words[0]}.json").read_text()) for folder in (one, two))
    assert (single["processes"], shared["processes"]) == (1, 2)
    for figure in ("top1", "top5", "recall@1", "recall@10", "map"):
        assert (figure in single) == (figure in shared)
        assert single.get(figure) == pytest.approx(shared.get(figure), abs=1e-3)
    assert single["per_class"] == shared["per_class"] or words[0] == "retrieve"


def test_a_wrong_option_is_one_line(run, data, monkeypatch, capfd):
    sets = ("--run", run, "--data", data.train, "--val-data", data.held_out)
    for words in (
        ("knn", *sets, "--colour", "red"),
        ("knn", *sets, "--k", "0"),
        ("guess", *sets),
        ("knn", "--run", run),
    ):
        assert runs.in_process(program, monkeypatch, *words) == 2
        error = capfd.readouterr().err
        assert error.startswith("eval.py: ") and error.count("\n") == 1, error


def test_the_trained_features_are_not_those_of_the_untrained_network(run):
    encoder = from_run(run)
    fresh, trained = encoder.untrained().state_dict(), encoder.backbone.state_dict()
    assert all(trained[name].shape == value.shape for name, value in fresh.items())
    assert not torch.equal(fresh["conv1.weight"], trained["conv1.weight"])
