"""Published settings of linear evaluation, a row each, with what the specifications say of it.

    row              of                      where it says so
    msvq             small images            MSVQ's code: SGD Nesterov, lr 1.0, batch 256, 100 epochs, cosine per step
    clim             ImageNet                CLIM's code (MoCo's main_lincls): lr 30, x0.1 at 60 and 80 of 100 epochs
    cgh              ImageNet                CGH's code: lr 0.3, cosine per step
    iccl             ImageNet, ResNet-50     ICCL's code: lr 0.3, weight decay 1e-6, cosine per epoch
    iccl-vit         ImageNet, ViT           the same with batch 1024, lr 0.4, no weight decay
    iccl-imagenette  Imagenette              ICCL's code: SGD Nesterov, lr 3.2, batch 4096, cosine per epoch
    mncl             CIFAR, Tiny-ImageNet    MNCL's code: LARS, lr 0.8, 90 epochs, cosine per step

All start at N(0, 0.01) with zero biases, crop with the default scale and flip (`--augment`), and were published with
the best epoch on the test set; here the last epoch counts. Which tensors MNCL's LARS scales is not known: the bias
takes a plain step, as vectors do in `lars.py`.
"""

from __future__ import annotations

from models.evaluation.protocols import LinearProtocol

LINEAR: dict[str, LinearProtocol] = {
    "msvq": LinearProtocol(),
    "clim": LinearProtocol(
        lr=(30.0,), nesterov=False, schedule="drops", drops=(0.6, 0.8), settings="clim",
        source="CLIM's code, main_lincls.py",
    ),
    "cgh": LinearProtocol(lr=(0.3,), nesterov=False, settings="cgh", source="CGH's code"),
    "iccl": LinearProtocol(
        lr=(0.3,), nesterov=False, weight_decay=1e-6, schedule="cosine per epoch", settings="iccl",
        source="ICCL's code, ImageNet ResNet-50",
    ),
    "iccl-vit": LinearProtocol(
        lr=(0.4,), nesterov=False, batch_size=1024, schedule="cosine per epoch", settings="iccl-vit",
        source="ICCL's code, ImageNet ViT",
    ),
    "iccl-imagenette": LinearProtocol(
        lr=(3.2,), batch_size=4096, schedule="cosine per epoch", settings="iccl-imagenette",
        source="ICCL's code, Imagenette",
    ),
    "mncl": LinearProtocol(
        lr=(0.8,), epochs=90, optimizer="lars", nesterov=False, settings="mncl", source="MNCL's code",
    ),
}  # fmt: skip
_PUBLISHED = {
    ("clim", "imagenet"): "clim",
    ("clim", "imagenette"): "clim",
    ("cgh", "imagenet"): "cgh",
    ("iccl", "imagenet"): "iccl",
    ("iccl", "imagenet_vit"): "iccl-vit",
    ("iccl", "imagenette"): "iccl-imagenette",
}


def published(method: str, recipe: str) -> str:
    """The row that a method's specification gives for a recipe's data set; small images take MSVQ's where it is silent.

    "msvq" is also what makes methods comparable: one probe for all.
    """
    return "mncl" if method == "mncl" else _PUBLISHED.get((method, recipe), "msvq")
