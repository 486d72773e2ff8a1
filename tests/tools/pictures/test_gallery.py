"""Galleries: neighbours against a sorted list, and what the sheet shows."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from tests.support.datasets import photos
from tools.pictures.contact_sheet import CELL, Cell, frame, sheet
from tools.pictures.gallery import gallery_sheet, neighbors_among

GREEN, RED = (40, 160, 70), (210, 50, 50)
STEP, ROW, EDGE, TOP = CELL + 6, CELL + 20, 6, 18


def test_neighbours_of_some_rows_leave_themselves_out():
    features = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    rows = np.array([2, 3, 29])
    similarity, found = neighbors_among(features, rows, 4)
    unit = normalize(features.double())
    for n, row in enumerate(rows):
        cosines = [(float(unit[row] @ unit[other]), other) for other in range(30) if other != row]
        best = sorted(cosines, reverse=True)[:4]
        assert found[n].tolist() == [other for _, other in best]
        assert similarity[n].tolist() == pytest.approx([cosine for cosine, _ in best], abs=1e-5)


def test_more_neighbours_than_there_are():
    assert neighbors_among(torch.eye(3), np.array([0]), 7)[1].shape == (1, 2)


def test_frames_tell_whether_classes_agree(tmp_path):
    dataset = photos(tmp_path, each=2)  # labels 0 0 1 1 2 2
    drawn = gallery_sheet(dataset, np.array([0, 3]), dataset, np.array([[1, 5], [2, 3]]), np.array([[0.9, 0.5]] * 2))
    assert drawn.size == (3 * STEP + EDGE, 2 * ROW + EDGE + TOP)
    pixels = np.asarray(drawn)
    frames = [[tuple(pixels[TOP + EDGE + row * ROW, EDGE + column * STEP + 50]) for column in (1, 2)] for row in (0, 1)]
    assert frames == [[GREEN, RED], [GREEN, GREEN]]
    whole = pixels[TOP + EDGE + ROW :, EDGE:][5 : CELL - 5, 5 : CELL - 5]  # query 3, and itself as second neighbour
    again = pixels[TOP + EDGE + ROW :, EDGE + 2 * STEP :][5 : CELL - 5, 5 : CELL - 5]
    assert np.array_equal(whole, again) and whole.std() > 2
    assert frame(-1, 0) is None and frame(2, -1) is None


def test_captions_of_any_script_and_length_fit():
    from PIL import Image

    picture = Image.new("RGB", (CELL, CELL), "blue")
    cells = [Cell(picture, None, "a very long name of a class that cannot fit"), None, Cell(picture, None, "狐\nfox")]
    drawn = np.asarray(sheet([cells], ["one", "two", "three"]))
    caption = drawn[TOP + EDGE + CELL + 1 :]
    assert (caption[:, EDGE : EDGE + CELL] < 128).any() and (caption[:, EDGE + CELL : EDGE + STEP + CELL] == 255).all()
