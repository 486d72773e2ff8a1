"""Which number types a device computes in itself: a CPU that only emulates bfloat16 takes several times as long."""

from __future__ import annotations

import torch


def multiplies_bfloat16(device: torch.device) -> bool:
    """GPUs do; of CPUs those with AVX-512 BF16 or AMX."""
    has = torch.cpu.get_capabilities() if device.type == "cpu" else {"avx512_bf16": True}
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def usual_precision() -> str:
    """That of training on this machine, where none is asked for."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16" if multiplies_bfloat16(device) else "fp32"
