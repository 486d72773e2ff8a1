"""SimCLR's recipes (arXiv 2002.05709).

ImageNet: the command in the authors' README, which has the paper's defaults; its pixels are not normalised. Small
images: MSVQ's authors ran SimCLR on CIFAR and Tiny-ImageNet (Benchmark-Methods-For-MNN) and published 87.72 % on
CIFAR-10; STL-10 is inferred from Tiny-ImageNet. Photos and digits have views, head and temperature of the CIFAR-10
experiment in the paper's appendix B.9 (colour strength 0.5, no blur), and the optimizer of the other baselines
(`small.py`).
"""

from __future__ import annotations

from models.recipe_tables import small, unpublished
from models.recipe_tables.sources import Row, code, ours, paper
from models.recipe_tables.trunks import beside_msvq, large_batch

_METHOD: Row = {
    "zero_init_residual": code(True),
    "crop_scale": paper(0.08),
    "flip": paper(0.5),
    "jitter": paper((0.4, 0.4, 0.4, 0.1)),
    "jitter_p": paper((0.8,)),
    "grayscale": paper(0.2),
    "blur": paper((0.0,)),
    "hidden": paper(512),
    "dim": paper(128),
    "temperature": paper(0.5),
    "same_view_negatives": paper(True),
}
_IMAGENET: Row = {
    **large_batch(code),
    "mean": code((0.0, 0.0, 0.0)),
    "std": code((1.0, 1.0, 1.0)),
    "epochs": code(100),
    "lr": code(4.8),  # 0.3 for a batch of 256
    "weight_decay": code(1e-6),
    "jitter": code((0.8, 0.8, 0.8, 0.2)),
    "blur": code((0.5,)),
    "blur_sigma": code((0.1, 2.0)),
    "hidden": code(2048),
    "dim": code(128),
    "temperature": code(0.1),
    "same_view_negatives": code(True),
}


_SMALL = {"temperature": 0.2, "same_view_negatives": False}

ROWS: dict[str, Row] = {
    "imagenet": _IMAGENET,
    "photos": {**small.CIFAR, **unpublished.PHOTOS, **_METHOD},
    **beside_msvq(_SMALL, "queue_size", "ema"),
    "digits": {**_METHOD, **small.DIGITS, "hidden": ours(128), "dim": ours(64)},
}
