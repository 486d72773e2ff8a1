"""What a device computes in itself."""

import pytest
import torch

from models.training.precision import multiplies_bfloat16, usual_precision
from tools.run.options import parse

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("has", "native"),
    [
        ({}, False),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
    ],
)
def test_training_takes_bfloat16_where_the_processor_multiplies_it(has, native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert multiplies_bfloat16(CPU) is native
    assert usual_precision() == ("bf16" if native else "fp32")
    words = ["--method", "moco", "--data", "x.beton"]
    assert parse(words)[0].precision == usual_precision()
    assert parse([*words, "--precision", "bf16"])[0].precision == "bf16"


def test_a_gpu_takes_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert multiplies_bfloat16(torch.device("cuda")) and usual_precision() == "bf16"
