"""Published settings of linear evaluation: a row for each, with its source.

    row              data                    source
    msvq             small images            MSVQ's code: SGD Nesterov, lr 1.0, batch 256, 100 epochs, cosine per step
    msvq-stl10       STL-10                  the same, with random crops of 64 pixels; tested at 96
    mnn              CIFAR, Tiny-ImageNet    Benchmark-Methods-For-MNN (MSVQ's authors): lr 30, x0.1 at 60 and 80 of 100
    simsiam          ImageNet                SimSiam's code: LARS, lr 1.6, batch 4096, 90 epochs, cosine per epoch
    simclr           ImageNet                SimCLR's code: SGD Nesterov, lr 1.6, batch 4096, 90 epochs, cosine per step
    clim             ImageNet                CLIM's code (MoCo's main_lincls): lr 30, x0.1 at 60 and 80 of 100 epochs
    cgh              ImageNet                CGH's code: lr 0.3, cosine per step
    iccl             ImageNet, ResNet-50     ICCL's code: lr 0.3, weight decay 1e-6, cosine per epoch
    iccl-vit         ImageNet, ViT           the same with batch 1024, lr 0.4, no weight decay
    iccl-imagenette  Imagenette              ICCL's code: SGD Nesterov, lr 3.2, batch 4096, cosine per epoch
    mncl             CIFAR, Tiny-ImageNet    MNCL's code: LARS, lr 0.8, 90 epochs, cosine per step

All of them initialise from N(0, 0.01) with zero biases, crop with the default scale and flip (`--augment`), and were
published with the best epoch on the test set; this project reports the last epoch, and the best one beside it on
request (`--best-epoch`). Which tensors MNCL's LARS scales is unknown: here the bias takes a plain step, as vectors do
in `models/training/lars.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Values of the fields of `LinearProtocol` that differ from its defaults, which are the row "msvq".
ROWS: dict[str, Mapping[str, Any]] = {
    "msvq": {},
    "msvq-stl10": {"crop_size": 64, "source": "MSVQ's code, STL-10"},
    "mnn": {
        "lr": (30.0,),
        "schedule": "drops",
        "drops": (0.6, 0.8),
        "source": "Benchmark-Methods-For-MNN, main_linear_eval.py",
    },
    "simsiam": {
        "lr": (1.6,),
        "epochs": 90,
        "optimizer": "lars",
        "nesterov": False,
        "batch_size": 4096,
        "schedule": "cosine per epoch",
        "source": "SimSiam's code, main_lincls.py",
    },
    "simclr": {
        "lr": (1.6,),
        "epochs": 90,
        "batch_size": 4096,
        "weight_decay": 1e-6,
        "source": "SimCLR's code, README",
    },
    "clim": {
        "lr": (30.0,),
        "nesterov": False,
        "schedule": "drops",
        "drops": (0.6, 0.8),
        "source": "CLIM's code, main_lincls.py",
    },
    "cgh": {"lr": (0.3,), "nesterov": False, "source": "CGH's code"},
    "iccl": {
        "lr": (0.3,),
        "nesterov": False,
        "weight_decay": 1e-6,
        "schedule": "cosine per epoch",
        "source": "ICCL's code, ImageNet ResNet-50",
    },
    "iccl-vit": {
        "lr": (0.4,),
        "nesterov": False,
        "batch_size": 1024,
        "schedule": "cosine per epoch",
        "source": "ICCL's code, ImageNet ViT",
    },
    "iccl-imagenette": {
        "lr": (3.2,),
        "batch_size": 4096,
        "schedule": "cosine per epoch",
        "source": "ICCL's code, Imagenette",
    },
    "mncl": {"lr": (0.8,), "epochs": 90, "optimizer": "lars", "nesterov": False, "source": "MNCL's code"},
}

_PUBLISHED = {
    ("clim", "imagenet"): "clim",
    ("clim", "imagenette"): "clim",
    ("cgh", "imagenet"): "cgh",
    ("ressl", "imagenet"): "cgh",  # ReSSL's own code has the same: lr 0.3, no Nesterov, cosine per step
    ("simsiam", "imagenet"): "simsiam",
    ("simclr", "imagenet"): "simclr",
    **{
        (method, recipe): "mnn"
        for method in ("byol", "simclr", "nnclr")
        for recipe in ("cifar10", "cifar100", "tiny_imagenet")
    },
    ("iccl", "imagenet"): "iccl",
    ("iccl", "imagenet_vit"): "iccl-vit",
    ("iccl", "imagenette"): "iccl-imagenette",
}


def published(method: str, recipe: str) -> str:
    """Return the row that a method's authors give for a recipe's data set, and MSVQ's where they are silent.

    "msvq" is also what makes methods comparable: one probe for all.
    """
    usual = "mncl" if method == "mncl" else "msvq-stl10" if recipe == "stl10" else "msvq"
    return _PUBLISHED.get((method, recipe), usual)
