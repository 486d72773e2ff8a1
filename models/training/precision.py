"""Number types of a network's forward passes by name, and which of them a device computes natively."""

from __future__ import annotations

import torch

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def precision_of(dtype: torch.dtype) -> str:
    """Return the name of a number type: bf16, fp16, fp32 or fp64."""
    return str(dtype).removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 natively: GPUs do, and CPUs with AVX-512 BF16 or AMX.

    Other CPUs emulate it, which takes several times as long.
    """
    has = torch.cpu.get_capabilities() if device.type == "cpu" else {"avx512_bf16": True}
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def usual_precision() -> str:
    """Return the default precision of training on this machine: bf16 where it is fast, otherwise fp32."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16" if multiplies_bfloat16(device) else "fp32"


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that training on `device` does not support.

    Raises:
        ValueError: fp16 without a GPU, whose gradient scaler it needs.
    """
    if precision == "fp16" and device.type != "cuda":
        raise ValueError("--precision fp16 needs a GPU; take bf16 or fp32 on a CPU")
