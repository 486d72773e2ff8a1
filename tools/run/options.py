"""The command line of train.py: the options of a run, and an option for every value of the recipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.methods.recipes import names
from models.methods.registry import REGISTRY
from models.options import as_text, check_options, describe, option
from models.training.config import Training
from models.training.precision import DTYPES, usual_precision
from pipelines.executors.choose import LOADERS
from pipelines.formats.opening import CHECKS
from tools.command_line import Failure, OneLineParser, add_option

_EPILOG = """\
A value that is not given comes from the recipe; train.py --method NAME --recipe NAME --help shows the recipe's values.

  accelerate launch train.py --method clim --data data/photos.beton
  torchrun --nproc_per_node 2 train.py --method clim --data data/photos.beton   # several processes on CPUs
"""


@dataclass(frozen=True)
class RunOptions:
    """The options of a run, apart from the values of its recipe. config.json holds them under "options"."""

    method: str = option("", f"the method to train (required): {', '.join(sorted(REGISTRY))}")
    data: str = option("", "the converted training images (required)")
    val_data: str | None = option(
        None, "the converted labelled images of the kNN monitor (default: FILE-test or FILE-val, if one exists)"
    )
    verify: str = option("sample", "how many images are compared with their checksums before training", choices=CHECKS)
    recipe: str | None = option(
        None, "the named set of hyper-parameters (default: chosen by the source and image size of the data set)"
    )
    output: str | None = option(None, "the folder of the run (default: runs/METHOD-DATA)")
    seed: int = option(0, "the seed of the initial weights, the order, the crops and the colours", at_least=0)
    init: str | None = option(
        None,
        "the file of weights, or the run, whose encoder student and teachers start from (default: random weights)",
        metavar="PATH",
    )
    init_network: str | None = option(
        None,
        "the name of the network in --init that holds several, such as teacher (none: the one its authors evaluate)",
        metavar="NAME",
    )
    resume: bool = option(False, "continue the run in the output folder from its newest valid checkpoint")
    extend: float | None = option(
        None,
        "the learning rate from which the epochs that --resume --epochs N adds to a run fall to 0 along half a cosine "
        "(none: a finished run is not extended)",
        above=0,
    )
    force: bool = option(False, "move a run that is in the output folder aside and start a new one")
    max_steps: int = option(0, "the number of steps after which to stop; 0: all steps of all epochs", at_least=0)
    loader: str = option("auto", "the library that decodes and crops the images", choices=LOADERS)
    threads: int = option(
        0,
        "the number of threads of each process, for decoding and for computing on a CPU; 0: its share of the cores",
        at_least=0,
    )
    precision: str = option(
        "",
        "the number type of the network's passes: bf16, fp16, fp32. Usually bf16 where the device multiplies it "
        "itself; fp16 needs a GPU. Similarities and losses are always computed in fp32; on a GPU, the convolutions of "
        "fp32 use TF32",
        choices=tuple(DTYPES),
    )
    accumulate: int = option(
        1, "the number of micro-batches that an optimizer step is split into to save memory", at_least=1
    )
    compile: bool = option(
        True,
        "compilation at the first step: of the losses over the queue, and on a GPU also of backbones. "
        "Compiled code is kept for later runs in ~/.cache/likeness or $TORCHINDUCTOR_CACHE_DIR",
    )
    log_every: int = option(10, "the number of steps between rows of metrics.jsonl", at_least=1)
    checkpoint_every: int = option(
        0, "the number of steps between checkpoints; 0: one at the end of each epoch", at_least=0
    )
    keep: int = option(
        2, "the number of newest checkpoints to keep, beside the one with the best kNN accuracy", at_least=1
    )
    knn_every: int = option(
        1, "the number of epochs between kNN evaluations; 0: only before and after training", at_least=0
    )
    knn_bank: int = option(
        50000, "the largest number of labelled training images that the kNN monitor searches", at_least=1
    )
    record: bool = option(
        True, "recording of the whole step as one CUDA graph, on a GPU with one process and without fp16"
    )
    peer_timeout: int = option(
        300, "the number of seconds after which a process that does not answer ends the run", at_least=1
    )
    log_with: str | None = option(
        None,
        "the tracker that gets the metrics, beside metrics.jsonl: tensorboard, wandb (default: none)",
        choices=(None, "tensorboard", "wandb"),
    )
    images_every: int = option(10, "the number of epochs between pictures for the tracker; 0: no pictures", at_least=0)

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.output or f"runs/{self.method}-{Path(self.data).stem}")


def parse(arguments: Sequence[str] | None = None) -> tuple[RunOptions, dict[str, Any]]:
    """Return the run's options, and the values of the recipe that the command line gives.

    Args:
        arguments: the command line; None takes the one that this process was started with.

    Raises:
        Failure: an option does not exist, or has a value that is not allowed.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    first = OneLineParser(add_help=False, allow_abbrev=False)  # finds out whose options the second parser offers
    first.add_argument("--method", choices=sorted(REGISTRY))
    first.add_argument("--recipe")
    known = first.parse_known_args(arguments)[0]
    parser, recipe_fields = _build(known.method, known.recipe)
    given = vars(parser.parse_args(arguments))
    if not given["method"] or not given["data"]:
        raise Failure("give --method NAME and --data FILE; --help lists them")
    options = RunOptions(**{item.name: given[item.name] for item in fields(RunOptions)})
    _check(options)
    return options, {name: given[name] for name in recipe_fields if given[name] is not None}


def _check(options: RunOptions) -> None:
    try:
        check_options(options)
    except ValueError as error:
        raise Failure(str(error)) from None
    if options.resume and options.force:
        raise Failure("--resume continues a run and --force starts a new one; give one of them")
    if options.extend is not None and not options.resume:
        raise Failure("--extend adds epochs to a run that is resumed; give --resume and --epochs too")
    if options.init_network and not options.init:
        raise Failure("--init-network names a network in the file of --init; give --init PATH too")
    if options.log_with and find_spec(options.log_with) is None:
        raise Failure(f"--log-with {options.log_with} needs its package: pip install {options.log_with}")


def _build(method: str | None, recipe: str | None) -> tuple[OneLineParser, list[str]]:
    """Return the parser, and the names of its options that are values of a recipe.

    Args:
        method: the method whose options are offered; None offers those of all methods.
        recipe: the recipe whose values are shown as defaults.
    """
    parser = OneLineParser(
        prog="train.py",
        description="Train an image encoder without labels.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group = parser.add_argument_group("run")
    for item in describe(RunOptions):
        default = usual_precision() if item.name == "precision" else item.default
        if item.name == "method":
            item = replace(item, choices=tuple(sorted(REGISTRY)))  # also methods that were registered later
        add_option(group, item, item.help_with(default), default)
    row = REGISTRY[method].rows.get(recipe or "", {}) if method else {}
    chosen = [method] if method else sorted(REGISTRY)
    recipe_fields: list[str] = []
    for title, cls in [("training", Training), *((f"method {name}", REGISTRY[name].settings) for name in chosen)]:
        group = parser.add_argument_group(f"{title} (values of the recipe: {recipe or 'chosen by --recipe'})")
        for item in describe(cls):
            if item.name in recipe_fields:
                continue  # an option that several methods share
            recipe_fields.append(item.name)
            usual = f"usually {as_text(item.default)}"
            if item.name in row:
                usual = f"default: {as_text(row[item.name].value)}, {row[item.name].source}"
            add_option(group, item, f"{item.help_with(None)} ({usual})")
    if method:
        parser.epilog = f"Recipes of {method}: {', '.join(names(method))}\n\n" + _EPILOG
    return parser, recipe_fields
