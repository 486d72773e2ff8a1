"""NNCLR's recipes (arXiv 2104.14548): its heads (2048, 2048, 256; predictor 4096) and temperature.

The authors published no code. ImageNet: the paper's values, and where it is silent those of SimCLR, whose training it
takes over. Small images: MSVQ's authors ran NNCLR on CIFAR and Tiny-ImageNet (Benchmark-Methods-For-MNN, one neighbour)
and published 87.72 % on CIFAR-10; STL-10 is inferred from Tiny-ImageNet. Photos and digits have the paper's heads, and
queue, views and optimizer of the other baselines (`small.py`).
"""

from __future__ import annotations

from models.recipe_tables import small, unpublished
from models.recipe_tables.sources import Row, inferred, ours, paper
from models.recipe_tables.trunks import beside_msvq, imagenet_statistics, large_batch

_METHOD: Row = {
    "crop_scale": ours(0.2),
    "flip": paper(0.5),
    "jitter": ours((0.4, 0.4, 0.4, 0.1)),
    "jitter_p": paper((0.8,)),
    "grayscale": paper(0.2),
    "blur": ours((0.5,)),
    "hidden": paper(2048),
    "dim": paper(256),
    "predictor_hidden": paper(4096),
    "temperature": paper(0.1),
    "queue_size": ours(4096),
    "both_directions": paper(False),
}
_IMAGENET: Row = {
    **large_batch(inferred),
    **imagenet_statistics(inferred),
    **_METHOD,
    "backbone": paper("resnet50"),
    "batch_size": paper(4096),
    "optimizer": paper("lars"),
    "epochs": paper(1000),
    "lr": inferred(4.8),
    "weight_decay": inferred(1e-6),
    "crop_scale": inferred(0.08),
    "jitter": inferred((0.8, 0.8, 0.8, 0.2)),
    "blur": inferred((0.5,)),
    "queue_size": paper(98304),
}


_SMALL = {"predictor_hidden": 2048, "temperature": 0.2, "both_directions": True}

ROWS: dict[str, Row] = {
    "imagenet": _IMAGENET,
    "photos": {**small.CIFAR, **unpublished.PHOTOS, **_METHOD},
    **beside_msvq(_SMALL, "ema"),
    "digits": {
        **_METHOD,
        **small.DIGITS,
        "hidden": ours(256),
        "dim": ours(64),
        "predictor_hidden": ours(256),
        "queue_size": ours(1024),
    },
}
