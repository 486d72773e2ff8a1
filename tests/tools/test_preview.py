"""The contact sheets: right size, pictures in every cell, frames by label, and clear refusals."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from models.storage import checkpoint
from tests.support import runs
from tests.support.datasets import photos
from tools import preview

CELL, STEP, EDGE, TOP = 112, 118, 6, 18


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return runs.make_data(tmp_path_factory.mktemp("preview"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        words = runs.arguments(data.train, output=run, max_steps=4, mix_alpha=0.3)
        assert runs.in_process(train, patch, *words) == 0
    return run


def cell(sheet, row, column):
    top, left = TOP + EDGE + row * STEP, EDGE + column * STEP
    return np.asarray(sheet)[top : top + CELL, left : left + CELL].astype(int)


def made(capsys, *words):
    assert preview.main([str(word) for word in words]) == 0
    out = words[3] if words[0] == "partners" else words[2]
    sheet = Image.open(out).convert("RGB")
    assert capsys.readouterr().out == f"{out}: {sheet.width} x {sheet.height}\n"
    return sheet


def test_the_sheet_of_views_shows_each_view_of_each_sample(data, tmp_path, capsys):
    words = ("views", data.train, tmp_path / "new" / "views.png", "--recipe", "cifar10", "--samples", 5)
    sheet = made(capsys, *words)
    assert sheet.size == (5 * STEP + EDGE, 5 * STEP + EDGE + TOP)  # the image and four views; five rows
    pictures = [[cell(sheet, row, column) for column in range(5)] for row in range(5)]
    for row in pictures:
        assert all(picture.std() > 2 for picture in row)
        assert not np.array_equal(row[1], row[2])  # query and key are different crops
    wholes = [row[0].mean() for row in pictures]
    assert len({round(value, 3) for value in wholes}) == 5
    again = made(capsys, *words, "--force")
    assert np.array_equal(np.asarray(sheet), np.asarray(again))
    other = made(capsys, *words, "--seed", 1, "--force")
    assert not np.array_equal(np.asarray(sheet), np.asarray(other))


def test_the_recipe_is_chosen_as_in_training(data, tmp_path, capsys):
    sheet = made(capsys, "views", data.train, tmp_path / "views.png", "--samples", 2)
    assert sheet.size == (5 * STEP + EDGE, 2 * STEP + EDGE + TOP)


@pytest.mark.whole_run
def test_the_sheet_of_partners_frames_them_by_label(data, run, tmp_path, capsys):
    sheet = made(capsys, "partners", run, data.train, tmp_path / "partners.png", "--samples", 6)
    assert sheet.size == (7 * STEP + EDGE, 6 * STEP + EDGE + TOP)
    dataset = train.open_dataset(data.train)
    pairing = checkpoint.newest(run / "checkpoints")[0].pairing
    able = np.flatnonzero(pairing.count > 0)
    anchors = np.sort(np.random.default_rng(0).choice(able, 6, replace=False))
    seen = set()
    for row, anchor in enumerate(anchors):
        chosen = pairing.pool[pairing.start[anchor] : pairing.start[anchor] + pairing.count[anchor]][:5]
        assert cell(sheet, row, 0).std() > 2 and cell(sheet, row, 6).std() > 2
        for column, partner in enumerate(chosen, 1):
            same = dataset.labels[anchor] == dataset.labels[partner]
            frame = cell(sheet, row, column)[0, 50]
            assert tuple(frame) == ((40, 160, 70) if same else (210, 50, 50))
            assert cell(sheet, row, column)[5:-5, 5:-5].std() > 2
            seen.add(bool(same))
        for column in range(len(chosen) + 1, 6):
            assert (cell(sheet, row, column) == 255).all()
    assert seen == {True, False}


def refused(capsys, *words):
    assert preview.main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tools.preview: ") and error.count("\n") == 1
    return error


@pytest.mark.whole_run
def test_what_cannot_be_shown_is_one_line(data, run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "sheet.png"
    assert "there is no data set" in refused(capsys, "views", tmp_path / "no.beton", out)
    assert "method clim has no recipe 'no'" in refused(capsys, "views", data.train, out, "--recipe", "no")
    assert "unknown file extension" in refused(capsys, "views", data.train, tmp_path / "sheet.tape")
    assert "holds no checkpoint; train it first" in refused(capsys, "partners", tmp_path, data.train, out)
    other = photos(tmp_path / "other", each=5).path
    assert f"{run} was not trained on {other}" in refused(capsys, "partners", run, other, out)
    early = tmp_path / "early"
    words = runs.arguments(data.train, output=early, max_steps=1, start_epoch=5)
    assert runs.in_process(train, monkeypatch, *words) == 0
    capsys.readouterr()
    error = refused(capsys, "partners", early, data.train, out)
    assert "has selected no partners at step 1; train past the method's start epoch" in error
    assert "unrecognized arguments: --colour" in refused(capsys, "views", data.train, out, "--colour")
    assert not out.exists()


def test_a_damaged_image_is_grey_and_one_line(tmp_path, capsys):
    dataset = photos(tmp_path, each=2)
    with open(dataset.path, "r+b") as file:
        file.seek(int(dataset.table.offset[3]))
        file.write(bytes(200))
    capsys.readouterr()
    assert preview.main(["views", str(dataset.path), str(tmp_path / "sheet.png"), "--samples", "6"]) == 0
    error = capsys.readouterr().err
    assert "image 3 is damaged" in error and error.count("\n") == 1


@pytest.mark.whole_run
def test_a_run_of_other_code_is_one_line(data, run, tmp_path, capsys):
    import shutil

    copy = shutil.copytree(run, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"method": "magic"}))
    assert "unknown method 'magic'" in refused(capsys, "partners", copy, data.train, tmp_path / "sheet.png")


def test_a_file_that_exists_stays_unless_force_says_otherwise(data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "sheet.png"
    out.write_bytes(b"mine")
    words = ("views", data.train, out, "--recipe", "cifar10", "--samples", 1)
    assert refused(capsys, *words) == f"tools.preview: {out} exists and is left as it is; --force replaces it\n"
    assert "is a folder; name a file" in refused(capsys, "views", data.train, tmp_path)

    def full(self, file):
        file.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        assert "No space left on device" in refused(capsys, *words, "--force")
    assert out.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [out]
    assert made(capsys, *words, "--force").size[0] > 100 and list(tmp_path.iterdir()) == [out]


@pytest.mark.whole_run
def test_damaged_checkpoints_and_configurations_are_told_as_such(data, run, tmp_path, capsys):
    import shutil

    copy, out = shutil.copytree(run, tmp_path / "run"), tmp_path / "sheet.png"
    (copy / "config.json").write_text('{"recipe": []}')
    assert "config.json lacks method; is it a run of train.py?" in refused(capsys, "partners", copy, data.train, out)
    for path in (copy / "checkpoints").glob("*/model.safetensors"):
        path.write_bytes(b"")
    assert "is damaged and was skipped (model.safetensors: " in refused(capsys, "partners", copy, data.train, out)
