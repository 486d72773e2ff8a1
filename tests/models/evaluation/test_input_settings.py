"""How a network sees images: precision and pixels, as the ids of protocols name them."""

from types import SimpleNamespace

import numpy as np
import torch

from models.evaluation import input_settings as module
from models.evaluation.input_settings import InputSettings, input_settings
from pipelines.executors.choose import EXECUTORS


def dataset(form):
    sides = np.full(4, 8)
    return SimpleNamespace(path=module.__file__, format=form, number=4, checksum=form, heights=sides, widths=sides)


def test_the_usual_conditions_are_not_in_an_id():
    assert InputSettings().in_id == ""
    assert [InputSettings(*seen).in_id for seen in (("bf16",), ("fp32", "dali"), ("fp16", "area+dali"))] == [
        "-bf16", "-dali", "-fp16-area+dali",
    ]  # fmt: skip


def test_loaders_of_the_same_pixels_are_alike(monkeypatch):
    taken = {"beton": "ffcv", "shards": "dali"}

    def choose(loader, data, device, shuffle):
        return EXECUTORS[taken[data.format] if loader == "auto" else loader], ""

    monkeypatch.setattr(module, "choose", choose)
    beton, shards = dataset("beton"), dataset("shards")
    for loader in ("ffcv", "resident"):
        assert input_settings((beton, shards), loader).pixels == "area"
    assert input_settings((beton, shards), "dali").pixels == "dali"
    assert input_settings((beton, beton)).pixels == "area"
    assert input_settings((beton, shards)).pixels == "area+dali"
    kinds = [input_settings([beton], dtype=dtype).precision for dtype in (torch.float32, torch.bfloat16, torch.float16)]
    assert kinds == ["fp32", "bf16", "fp16"]
