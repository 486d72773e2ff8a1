"""The stages of `tools.gpu_check`, in the order of their worth. Each is an entry here and a module of this folder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A measurement that runs in a process of its own.

    Attributes:
        name: what the command line and the result files call it.
        summary: what it measures, in one line.
        module: a module of this folder; its function `rows` takes a `Context` and `arguments`, and yields results as
            JSON, each as soon as it is known.
        seconds: about how long it takes on an H100; it is not begun if less is left.
        cache: the name of the folder with compiled code that it shares with other stages. A stage that measures how
            long a first step takes has one that nobody filled before.
    """

    name: str
    summary: str
    module: str
    arguments: tuple[str, ...] = ()
    seconds: int = 30
    cache: str = "shared"


def _step(recipe: str, summary: str, seconds: int) -> Stage:
    return Stage(f"step-{recipe}", summary, "steps", (recipe,), seconds, recipe)


STAGES = {
    stage.name: stage
    for stage in (
        Stage("tests", "the tests that need a GPU: pytest -m cuda", "cuda_tests", seconds=60),
        _step("msvq", "MSVQ's step: ResNet-18, four views of 32 px", 60),
        _step("vit", "SimCLR's step: ViT-S/16, two views of 224 px", 40),
        _step("clim", "CLIM's step: ResNet-18, views of 32 and 24 px, all mixed", 60),
        _step("moco", "MoCo's step: ResNet-18, two views of 32 px", 50),
        _step("resnet50", "MoCo's step: ResNet-50, two views of 224 px", 60),
        Stage("paper", "MSVQ's training beside plain PyTorch in the way of the paper's code", "paper", cache="msvq"),
        Stage("decode", "two views of 224 px from photos: DALI, FFCV and resident", "decode"),
        Stage("hotpath", "the losses over a queue of 65,536 keys beside the plain formula", "hotpath"),
        Stage("selection", "CLIM's selection of partners among 50,000 samples", "selection", seconds=15),
        Stage("checkpoint", "the training time that writing checkpoints costs", "checkpoint", seconds=20),
        Stage("tuning-msvq", "choices of cuDNN and the compiler, for MSVQ's step", "tuning", ("msvq",), 40, "msvq"),
        Stage(
            "tuning-resnet50",
            "choices of cuDNN and the compiler, for the ResNet-50's step",
            "tuning",
            ("resnet50",),
            40,
            "resnet50",
        ),
    )
}
