"""How a network sees images: precision and pixels, as the ids of protocols name them."""

import torch

from models.evaluation.input_settings import InputSettings, input_settings
from pipelines.plan.views import evaluation


def test_the_usual_conditions_are_not_in_an_id():
    assert InputSettings().in_id == ""
    assert [InputSettings(*seen).in_id for seen in (("bf16",), ("fp32", "bilinear"), ("fp16", "bicubic"))] == [
        "-bf16", "-bilinear", "-fp16-bicubic",
    ]  # fmt: skip


def test_the_settings_are_those_of_the_view_and_of_its_numbers():
    assert [input_settings(evaluation(16, 1.0, resize)).pixels for resize in ("area", "bilinear")] == [
        "area",
        "bilinear",
    ]
    kinds = [
        input_settings(evaluation(16), dtype=dtype, loader="dali").precision
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    ]
    assert kinds == ["fp32", "bf16", "fp16"]
