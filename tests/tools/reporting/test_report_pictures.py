"""The report's figures where there are many classes, or classes of any name; nothing is trained."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from PIL import Image

from models.storage.encoder import Encoder
from pipelines import Dataset
from tools.pictures.contact_sheet import CELL, Cell, sheet
from tools.pictures.fonts import fitting
from tools.reporting.embedding_map import _classes
from tools.reporting.features import RunFeatures, Sample
from tools.reporting.figures import COLORS, as_png, figure, label, style
from tools.reporting.hypercolumns import _scaled
from tools.reporting.neighbors import confusion_section, most_confused
from tools.reporting.page import Section, Table, page

HOSTILE = [
    "狐狸",
    "лиса",
    "a" * 300,
    "b\udcff\udc80",
    "<b>&amp;</b>",
    "$x_{$",
    "_hidden",
    "\x1b[31mred\n",
    "\U0001fae8",
]


def dataset(classes, number):
    sides, labels = np.full(number, 16, np.int32), np.arange(number) % len(classes)
    return Dataset(
        path=Path("made.beton"), format="beton", number=number, classes=tuple(classes), heights=sides, widths=sides,
        labels=labels, mean=(0.5,) * 3, std=(0.5,) * 3, checksum="c", name="made up", table=None, card={},
    )  # fmt: skip


def features(classes, each=4):
    """Features that find the class, but for every class above the fifth, which is taken for the first."""
    images = dataset(classes, each * len(classes))
    corner_ND = torch.eye(len(classes))[torch.from_numpy(images.labels % len(classes))]
    asked_ND = torch.where(torch.from_numpy(images.labels)[:, None] > 4, torch.eye(len(classes))[0], corner_ND)
    number_N = np.arange(images.number)
    encoder = Encoder(None, {}, 16, 1.0, None, None, 3, Path("w"))
    return RunFeatures(encoder, Sample(images, number_N, corner_ND), Sample(images, number_N, asked_ND), 3)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_classes_of_any_name_are_drawn_without_a_warning():
    section = confusion_section(features(HOSTILE))
    place_N2 = np.random.default_rng(0).random((90, 2))
    images = dataset(HOSTILE, 90)
    picture = _classes(images, images.labels, place_N2)
    assert all(np.asarray(Image.open(_file(one)).convert("L")).std() > 5 for one in (*section.pictures, picture))
    text = page("title \udcff", "", [section, Section("x", "", (), (Table(("",), tuple((n,) for n in HOSTILE)),))])
    text.encode()
    assert "<b>" not in text and "\x1b" not in text and r"b\udcff\udc80" in text and "狐狸" in text


def test_the_legend_leaves_room_for_the_map():
    images = dataset(["x" * 300, "y" * 300], 60)
    place_N2 = np.stack([np.linspace(0, 1, 60)] * 2, 1)
    drawn = np.asarray(Image.open(_file(_classes(images, images.labels, place_N2))).convert("RGB")).astype(int)
    colourful = np.flatnonzero((np.ptp(drawn, axis=2) > 60).any(0))
    assert (
        drawn.shape[1] - 10 > colourful.max() and np.flatnonzero((drawn < 128).any((0, 2))).max() < drawn.shape[1] - 3
    )
    assert label("x" * 300) == "x" * 21 + "..." and label("x" * 24) == "x" * 24


def test_of_many_classes_the_most_confused_are_drawn():
    classes = [f"class {n}" for n in range(60)]
    section = confusion_section(features(classes))
    assert "Drawn are the 25 of 60 classes that are confused most." in section.text
    few = confusion_section(features(classes[:8]))
    assert "Drawn are" not in few.text
    wide, narrow = (Image.open(_file(one.pictures[0])).width for one in (section, few))
    assert narrow < wide < 1700
    wrong_CC = np.zeros((5, 5), int)
    wrong_CC[3, 1], wrong_CC[0, 4] = 9, 2
    assert most_confused(wrong_CC, 2) == [1, 3] and most_confused(wrong_CC, 9) == [0, 1, 2, 3, 4]


def test_of_many_classes_the_largest_have_a_colour():
    images = dataset([f"class {n}" for n in range(60)], 200)
    label_N = np.concatenate([np.arange(60), np.full(139, 7), [-1]])
    picture = _classes(images, label_N, np.random.default_rng(0).random((200, 2)))
    assert (
        "a colour for each of the 18 classes with the most images here; images of the 42 other classes"
        in picture.caption
    )


def test_one_bright_place_leaves_the_others_apart():
    values = torch.linspace(0, 1, 400).view(20, 20).clone()
    values[0, 0] = 1000.0
    scaled = _scaled(values)
    assert scaled.min() == 0 and scaled.max() == 1 and float(scaled[10, 10]) == pytest.approx(0.525, abs=0.02)
    assert torch.equal(_scaled(torch.ones(4, 4)), torch.zeros(4, 4))


def test_captions_of_any_name():
    for name in HOSTILE:
        text, font = fitting(name)
        assert text.isprintable() and "\n" not in text and font.getlength(text) > 0
    assert fitting("fox") == fitting(" fox\n") and fitting("b\udcff")[0] == r"b\udcff"
    sheet([[Cell(Image.new("RGB", (CELL, CELL)), None, name) for name in HOSTILE]], HOSTILE)


def test_a_system_without_large_fonts(monkeypatch):
    import tools.pictures.fonts
    import tools.reporting.figures

    monkeypatch.setattr(tools.pictures.fonts, "_SYSTEM_FONTS", ("no such font.ttf",))
    monkeypatch.setattr(tools.reporting.figures, "_SYSTEM_FAMILIES", ("No Such Family",))
    caches = (tools.pictures.fonts._fonts, tools.reporting.figures._families, tools.reporting.figures._drawable)
    for cached in caches:
        cached.cache_clear()
    try:
        assert fitting("狐 fox")[0] == r"\u72d0 fox" and label("狐 fox") == r"\u72d0 fox"
        drawn = figure(2, 2)
        with style():
            drawn.add_subplot().set_title(label("狐"), color=COLORS[0])
        assert as_png(drawn, "x.png", "").png
    finally:
        for cached in caches:
            cached.cache_clear()


def _file(picture):
    return io.BytesIO(picture.png)
