"""The report of small runs: what is in it, what is left out, what is refused, and that nothing is lost."""

import base64
import io
import json
import re
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from tests.support import runs
from tests.support.reported_runs import pictures, trained
from tools import report
from tools.reporting.embedding_map import tsne
from tools.reporting.neighbors import confusion

pytestmark = pytest.mark.whole_run

FEW = ("--queries", "2")  # rows of the gallery: to pack them as PNG takes long
MOMENTUM = {
    "resolutions": None, "neighbors": None, "clusters": None, "whiten": None, "start-epoch": None,
    "refresh-epochs": None, "mix-probability": None, "crop-size": 16, "hidden": 16,
}  # fmt: skip


def text(out):
    return (out / "report.html").read_text()


def titles(out):
    return re.findall("<h2>(.*?)</h2>", text(out))


# ---- what is in it ------------------------------------------------------------------------------------------------


def test_the_page_holds_every_picture(reported):
    names = {path.name for path in reported.glob("*.png")}
    assert {"training.png", "knn.png", "quality.png", "purity.png", "speed.png", "map.png", "map-classes.png",
            "neighbors.png", "confusion.png"} < names  # fmt: skip
    partners = sorted(name for name in names if name.startswith("partners-"))
    assert partners[0] == "partners-00000003.png" and len(partners) >= 2  # several times
    inside = re.findall(r'src="data:image/(png|jpeg);base64,([^"]+)"', text(reported))
    assert len(inside) == len(names)
    sizes = {Image.open(io.BytesIO(base64.b64decode(data))).size for _, data in inside}
    assert sizes == {Image.open(reported / name).size for name in names}
    for name in names:
        assert np.asarray(Image.open(reported / name).convert("L")).std() > 5, name  # something is drawn
    assert set(json.loads((reported / "report.json").read_text())["files"]) == names | {"report.html"}


def test_numbers_stand_beside_their_protocols(reported, clim):
    page, summary = text(reported), json.loads((clim / "summary.json").read_text())
    last = runs.rows(clim, "knn_top1")[-1]
    row = f"<td>kNN top-1 at step 12</td><td>{last['knn_top1']:.2f} %</td><td>{summary['knn_protocol']}</td>"
    assert row in page
    # 48 images vote on 15, as they did in training: the report's own number is the monitor's.
    assert f"kNN top-1 {last['knn_top1']:.2f} % ({summary['knn_protocol']}; 15 held-out images, 48 training" in page
    for name in ("feature_spread", "feature_rank", "alignment", "uniformity", "queue_age"):
        value = runs.rows(clim, name)[-1][name]
        assert f"<td>{name}</td>" in page and f"<td>{value:.4g}</td>" in page
    assert "quality-n48-student" in page


def test_nothing_of_the_data_is_code(reported):
    page = text(reported)
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "<img src=x" not in page and "<script" not in page
    assert "default-src 'none'" in page and not re.search(r"(src|href|url)\s*[=(]\s*[\"']?\s*(https?:)?//", page)
    assert len(page.encode()) < 5_000_000


def test_evaluations_are_shown(clim, tmp_path):
    run = shutil.copytree(clim, tmp_path / "run")
    newest = {"protocol": {"id": "<linear>"}, "top1": 41.983, "interval": {"top1": [39.8, 44.21]}, "processes": 1}
    best = {"protocol": {"id": "<linear>-best"}, "top1": 43.5, "seconds": 12.5, "labelled_images": 48}
    images = {"val_data": {"number": 15, "path": "/a/held_out.beton"}, "step": 12, "best_step": 6, "seed": 0}
    (run / "eval-linear.json").write_text(json.dumps(newest | {"best": best} | images))
    (run / "evaluations.jsonl").write_text("torn\n")
    assert report.main([str(run), *FEW]) == 0
    page = text(run / "report")
    row = "<td>eval.py: top1</td><td>41.98 %</td><td>&lt;linear&gt;</td><td>39.80 to 44.21</td>"
    assert f"{row}<td>15 of held_out</td><td>12</td>" in page
    row = "<td>eval.py: top1</td><td>43.50 %</td><td>&lt;linear&gt;-best</td><td></td>"
    assert f"{row}<td>15 of held_out</td><td>6</td>" in page
    assert page.count("<td>eval.py") == 2  # nothing but measures: no seconds, processes or numbers of images
    assert "evaluations.jsonl, line 1, is no evaluation that can be read and was left out" in page


def test_counts_of_a_confusion():
    label, said = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 2, 0])
    naive = np.zeros((4, 4), int)
    for row, column in zip(label.tolist(), said.tolist(), strict=True):
        naive[row, column] += 1
    assert np.array_equal(confusion(label, said, 4), naive)


@pytest.mark.parametrize("count", [5, 60])
def test_a_map_puts_alike_images_together(count):
    rng = np.random.default_rng(0)
    group = np.arange(count) % 2
    features = np.where(group[:, None] == 0, [5.0, 0, 0, 0], [0, 0, 5.0, 0]) + 0.1 * rng.standard_normal((count, 4))
    place = tsne(features.astype(np.float32), 0)
    assert place.shape == (count, 2) and place.min() >= 0 and place.max() <= 1
    if count > 5:
        near = np.linalg.norm(place[:, None] - place, axis=2)
        np.fill_diagonal(near, np.inf)
        assert (group[near.argmin(1)] == group).mean() > 0.9


def test_a_collapsed_network_still_has_a_map():
    place = tsne(np.ones((30, 4), np.float32), 0)
    assert np.isfinite(place).all()


# ---- without labels, other methods, unfinished runs ---------------------------------------------------------------


def test_a_run_without_labels(tmp_path):
    data = pictures(tmp_path / "data", 40, names=())
    run = trained(tmp_path / "run", data, max_steps=6)
    assert report.main([str(run), *FEW]) == 0
    out = run / "report"
    assert "kNN accuracy" in titles(out) and "Left out: the run had no labelled images to classify." in text(out)
    assert "Colours by class are left out" in text(out) and "no held-out ones are known" in text(out)
    assert "Left out: it needs labels of both the training and the held-out images." in text(out)
    assert not (out / "map-classes.png").exists() and not (out / "purity.png").exists()
    assert (out / "neighbors.png").exists() and list(out.glob("partners-*.png"))


@pytest.mark.parametrize("method", ["cgh", "msvq"])
def test_other_methods(method, labelled, tmp_path):
    run = trained(tmp_path / "run", labelled.train, method=method, max_steps=6, **MOMENTUM)
    assert report.main([str(run), "--val-data", str(labelled.held_out), *FEW]) == 0
    page = text(run / "report")
    assert "<td>teacher_entropy</td>" in page and "<td>teacher_entropy_2</td>" in page
    assert ("Hypercolumns" in titles(run / "report")) == (method == "cgh")
    assert "Anchors, partners and mixtures" not in titles(run / "report")
    if method == "cgh":
        assert Image.open(run / "report" / "hypercolumns.png").width > 500


def test_a_run_that_goes_on(clim, tmp_path):
    run = shutil.copytree(clim, tmp_path / "run")
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "epoch"')  # being written
    assert report.main([str(run), *FEW]) == 0
    assert "<td>unfinished, step 12 of 12</td>" in text(run / "report")
    assert "Left out, with everything that needs features: the run has no checkpoint yet." in text(run / "report")


# ---- what is refused ----------------------------------------------------------------------------------------------


def refused(capsys, *words):
    capsys.readouterr()
    assert report.main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tools.report: ") and error.count("\n") == 1
    return error


def test_runs_that_cannot_be_read(clim, tmp_path, capsys):
    assert "is no run of train.py: it has no config.json" in refused(capsys, tmp_path)
    run = shutil.copytree(clim, tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text(lines[0] + "oops\n" + lines[1])
    assert "metrics.jsonl line 2 is damaged; remove that line" in refused(capsys, run)
    (run / "metrics.jsonl").write_text("")
    assert "holds no metrics yet; wait for the run's first row" in refused(capsys, run)
    (run / "config.json").write_text("{")
    assert "config.json is damaged" in refused(capsys, run)
    assert not (run / "report").exists()


def test_images_that_moved(clim, labelled, tmp_path, capsys):
    run = shutil.copytree(clim, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"]["path"] = str(tmp_path / "gone.beton")
    (run / "config.json").write_text(json.dumps(config))
    error = refused(capsys, run)
    assert f"no longer at {tmp_path / 'gone.beton'}; say where they are with --data FILE" in error
    for device in ("foo", "cuda:99"):
        assert f"--device is '{device}'" in refused(capsys, clim, "--device", device)
    assert "was not trained on" in refused(capsys, run, "--data", labelled.held_out)
    assert "there is no data set" in refused(capsys, run, "--data", tmp_path / "no.beton")
    assert report.main([str(run), "--data", str(labelled.train), *FEW]) == 0
    other = pictures(tmp_path / "other", 2, names=("a", "b"))
    assert "has other classes than the run's images" in refused(capsys, clim, "--val-data", other)


def test_compare_is_another_command(monkeypatch):
    seen = []
    module = SimpleNamespace(compare_runs=lambda arguments: seen.append(arguments) or 2)
    monkeypatch.setitem(sys.modules, "tools.reporting.compare_runs", module)
    assert report.main(["compare", "runs/a", "runs/b"]) == 2 and seen == [["runs/a", "runs/b"]]


def test_a_missing_library(clim, monkeypatch, capsys):
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "sklearn" else object())
    assert "pictures need scikit-learn: pip install scikit-learn" in refused(capsys, clim)


def test_a_folder_with_anything_else_is_left_alone(clim, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years")
    assert f"{tmp_path} holds thesis.txt, which is not part of a report" in refused(capsys, clim, "--out", tmp_path)
    assert "is not a folder" in refused(capsys, clim, "--out", tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_report_replaces_a_report_or_nothing(reported, clim, tmp_path, capsys):
    out = shutil.copytree(reported, tmp_path / "report")
    (out / "note.txt").write_text("mine")
    assert "holds note.txt" in refused(capsys, clim, "--out", out)
    (out / "note.txt").unlink()
    before = (out / "map.png").read_bytes()
    assert report.main([str(clim), "--out", str(out), "--images", "10", *FEW]) == 0
    assert (out / "map.png").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]  # nothing is left beside it


def test_a_full_disk_leaves_the_earlier_report(reported, clim, small_disk, capsys):
    size = sum(path.stat().st_size for path in reported.iterdir())
    disk = small_disk(int(1.5 * size))
    out = shutil.copytree(reported, disk / "report")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    words = f"cannot write {out}: No space left on device; free some disk space, or take another --out\n"
    assert words in refused(capsys, clim, "--out", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in disk.iterdir()] == ["report"]
