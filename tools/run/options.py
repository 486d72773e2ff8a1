"""The command line of train.py: the options of a run, and every value of the recipe as an option."""

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
Values of a recipe that are not given come from it: --method NAME --recipe NAME --help shows them.

  accelerate launch train.py --method clim --data data/photos.beton
  torchrun --nproc_per_node 2 train.py --method clim --data data/photos.beton   # several processes on CPUs
"""


@dataclass(frozen=True)
class RunOptions:
    """What a run was asked to do, apart from its recipe. config.json keeps it under "options"."""

    method: str = option("", "the method to train (required)")
    data: str = option("", "the converted training images (required)")
    val_data: str | None = option(
        None, "the converted labelled images of the kNN monitor; none: FILE-test or FILE-val, where it exists"
    )
    verify: str = option("sample", "how many images are compared with their checksums at the start", choices=CHECKS)
    recipe: str | None = option(None, "the row of hyper-parameters; none: by the source and size of the data set")
    output: str | None = option(None, "the folder of the run; none: runs/METHOD-DATA")
    seed: int = option(0, "the seed of initial weights, order, crops and colours", at_least=0)
    resume: bool = option(False, "continue from the newest valid checkpoint of the run")
    force: bool = option(False, "start again in a folder that holds a run, after moving that run aside")
    max_steps: int = option(0, "the number of steps after which to stop; 0: the end of the last epoch", at_least=0)
    loader: str = option("auto", "the data path", choices=LOADERS)
    threads: int = option(
        0,
        "the threads of each process, for decoding and for a CPU's arithmetic; 0: its share of the cores",
        at_least=0,
    )
    precision: str = option(
        "",
        "the number type of the network's passes: bf16, fp16, fp32. Usually bf16 where the device multiplies it "
        "itself; fp16 needs a GPU. Similarities and losses are always computed in fp32",
        choices=tuple(DTYPES),
    )
    accumulate: int = option(1, "the micro-batches of an optimizer step; more of them save memory", at_least=1)
    compile: bool = option(
        True,
        "compilation at the first step of what pays: on a CPU the losses over the queue, on a GPU also backbones and "
        "augmentation; kept between runs in ~/.cache/likeness or $TORCHINDUCTOR_CACHE_DIR",
    )
    log_every: int = option(10, "the steps between rows of metrics.jsonl", at_least=1)
    checkpoint_every: int = option(0, "the steps between checkpoints; 0: the end of each epoch", at_least=0)
    keep: int = option(2, "the number of newest checkpoints to keep, beside the one with the best kNN", at_least=1)
    knn_every: int = option(1, "the epochs between kNN evaluations; 0: only at the start and the end", at_least=0)
    knn_bank: int = option(50000, "the largest number of labelled training images in the kNN bank", at_least=1)
    peer_timeout: int = option(
        300, "the seconds without a sign of another process after which the run ends", at_least=1
    )
    log_with: str | None = option(None, "the tracker; none: metrics.jsonl only", choices=(None, "tensorboard", "wandb"))
    images_every: int = option(10, "the epochs between pictures for the tracker; 0: none", at_least=0)

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.output or f"runs/{self.method}-{Path(self.data).stem}")


def parse(arguments: Sequence[str] | None = None) -> tuple[RunOptions, dict[str, Any]]:
    """The run's options, and the recipe's fields that were given a value.

    Raises:
        Failure: an option that does not exist, or a value that it may not have.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    first = OneLineParser(add_help=False, allow_abbrev=False)
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
        raise Failure("--resume goes on with a run and --force starts a new one; give one of them")
    if options.log_with and find_spec(options.log_with) is None:
        raise Failure(f"--log-with {options.log_with} needs its package: pip install {options.log_with}")


def _build(method: str | None, recipe: str | None) -> tuple[OneLineParser, list[str]]:
    """The parser, and the names of the options that are fields of a recipe."""
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
                continue  # two methods share it
            recipe_fields.append(item.name)
            usual = f"usually {as_text(item.default)}"
            if item.name in row:
                usual = f"default: {as_text(row[item.name].value)}, {row[item.name].source}"
            add_option(group, item, f"{item.help_with(None)} ({usual})")
    if method:
        parser.epilog = f"Recipes of {method}: {', '.join(names(method))}\n\n" + _EPILOG
    return parser, recipe_fields
