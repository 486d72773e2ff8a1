"""The command line of train.py: the run's own options, and every value of the recipe as an option."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from models.methods.recipes import names
from models.methods.registry import REGISTRY
from models.options import describe
from models.training.config import Training
from models.training.native_dtypes import usual_precision
from pipelines.executors.choose import LOADERS
from pipelines.formats.opening import CHECKS
from tools.command_line import Failure, OneLineParser

_EPILOG = """\
Values of a recipe that are not given come from it: --method NAME --recipe NAME --help shows them.

  accelerate launch train.py --method clim --data data/photos.beton
  torchrun --nproc_per_node 2 train.py --method clim --data data/photos.beton   # several processes on CPUs
"""


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The run's options, and the recipe's fields that were given a value.

    Raises:
        Failure: an unknown option or value.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    first = OneLineParser(add_help=False, allow_abbrev=False)
    first.add_argument("--method", choices=sorted(REGISTRY))
    first.add_argument("--recipe")
    method, recipe = (vars(first.parse_known_args(arguments)[0])[name] for name in ("method", "recipe"))
    parser, recipe_fields = _build(method, recipe)
    options = parser.parse_args(arguments)
    if options.method is None or options.data is None:
        raise Failure("give --method NAME and --data FILE; --help lists them")
    chosen = {name: vars(options).pop(name) for name in recipe_fields}
    return options, {name: value for name, value in chosen.items() if value is not None}


def _build(method: str | None, recipe: str | None) -> tuple[argparse.ArgumentParser, list[str]]:
    parser = OneLineParser(
        prog="train.py",
        description="Train an image encoder without labels.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run = parser.add_argument_group("run")
    add = _adder(run)
    run.add_argument("--method", choices=sorted(REGISTRY), help="what to train (required)")
    run.add_argument("--data", metavar="FILE", help="converted training images (required)")
    add("--val-data", None, "converted labelled images for the kNN monitor; none: FILE-test or FILE-val, if there", str)
    add("--verify", "sample", "images compared with their checksums at the start: sample (64), full or none", str)
    add("--recipe", None, "row of hyper-parameters; none: by the data set's source and size", str)
    add("--output", None, "folder of the run; none: runs/METHOD-DATA", str)
    add("--seed", 0, "fixes initialisation, order, crops and colours", int)
    add("--resume", False, "go on from the newest valid checkpoint of the run", bool)
    add("--force", False, "start anew in a folder that holds a run, which is moved aside", bool)
    add("--max-steps", 0, "stop after this many steps; 0: at the end of the last epoch", int)
    loop = parser.add_argument_group("loop")
    add = _adder(loop)
    add("--loader", "auto", f"data path: {', '.join(LOADERS)}", str)
    add(
        "--threads",
        0,
        "threads of each process, for decoding and for a CPU's arithmetic; 0: its share of the cores",
        int,
    )
    precisions = "bf16, where the device multiplies it itself; fp16 (GPU only) or fp32; similarities and losses in fp32"
    add("--precision", usual_precision(), precisions, str)
    add("--accumulate", 1, "parts that a batch is made in, to save memory", int)
    add(
        "--compile",
        True,
        "compile at the first step what pays: on a CPU the losses over the queue, on a GPU also backbones and "
        "augmentation; kept between runs in ~/.cache/likeness or $TORCHINDUCTOR_CACHE_DIR",
        bool,
    )
    add("--log-every", 10, "steps between rows of metrics.jsonl", int)
    add("--checkpoint-every", 0, "steps between checkpoints; 0: at the end of each epoch", int)
    add("--keep", 2, "newest checkpoints kept, and beside them the one with the best kNN", int)
    add("--knn-every", 1, "epochs between kNN evaluations; 0: only at the start and the end", int)
    add("--knn-bank", 50000, "labelled training images in the kNN bank, at most", int)
    add("--peer-timeout", 300, "seconds without a sign of another process after which the run ends", int)
    add("--log-with", None, "tracker: tensorboard or wandb; none: metrics.jsonl only", str)
    add("--images-every", 10, "epochs between pictures for the tracker; 0: none", int)
    chosen = [method] if method else sorted(REGISTRY)
    known = [("training", Training), *((f"method {name}", REGISTRY[name].settings) for name in chosen)]
    row = REGISTRY[method].rows.get(recipe or "", {}) if method else {}
    recipe_fields: list[str] = []
    for title, cls in known:
        group = parser.add_argument_group(f"{title} (values of the recipe: {recipe or 'chosen by --recipe'})")
        for name, default, help in describe(cls):
            if name in recipe_fields:
                continue  # two methods share it
            recipe_fields.append(name)
            shown = (
                f"default: {_text(row[name].value)}, {row[name].source}" if name in row else f"usually {_text(default)}"
            )
            _adder(group)(f"--{name.replace('_', '-')}", None, f"{help} ({shown})", type(default), like=default)
    if method:
        parser.epilog = f"Recipes of {method}: {', '.join(names(method))}\n\n" + _EPILOG
    return parser, recipe_fields


def _adder(group: argparse._ArgumentGroup) -> Callable[..., None]:
    def add(flag: str, default: Any, help: str, kind: type, like: Any = None) -> None:
        text = help if default is None or "default" in help else f"{help} (default: {_text(default)})"
        text = text.replace("%", "%%")
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
        elif kind is tuple:
            element = type(like[0]) if like else int
            group.add_argument(flag, type=_list_of(element), default=default, metavar="A,B,...", help=text)
        else:
            read = _number if kind is float else kind
            group.add_argument(flag, type=read, default=default, metavar=_METAVARS.get(kind, "TEXT"), help=text)

    return add


_METAVARS = {int: "N", float: "X"}
_LARGEST = 3.4e38  # what training computes in holds no larger number


def _number(text: str) -> float:
    number = float(text)
    if not abs(number) < _LARGEST:
        raise ValueError(text)
    return number


_number.__name__ = "finite float"  # what argparse calls it


def _list_of(element: type) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        return tuple((_number if element is float else element)(part) for part in text.split(","))

    parse.__name__ = f"list of {element.__name__}"
    return parse


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def check_run(options: argparse.Namespace) -> None:
    """Refuses run options that make no sense.

    Raises:
        Failure: naming the option, its value and what it may be.
    """
    choices = {
        "precision": ("bf16", "fp16", "fp32"),
        "log_with": (None, "tensorboard", "wandb"),
        "loader": LOADERS,
        "verify": CHECKS,
    }
    for name, allowed in choices.items():
        if getattr(options, name) not in allowed:
            given = ", ".join(str(value) for value in allowed if value)
            raise Failure(f"--{name.replace('_', '-')} is '{getattr(options, name)}'; take one of {given}")
    if options.resume and options.force:
        raise Failure("--resume goes on with a run and --force starts a new one; give one of them")
    if options.log_with and find_spec(options.log_with) is None:
        raise Failure(f"--log-with {options.log_with} needs its package: pip install {options.log_with}")
    for name in ("accumulate", "log_every", "keep", "knn_bank", "peer_timeout"):
        if getattr(options, name) < 1:
            raise Failure(f"--{name.replace('_', '-')} is {getattr(options, name)}; give at least 1")
    for name in ("max_steps", "checkpoint_every", "knn_every", "images_every", "threads", "seed"):
        if getattr(options, name) < 0:
            raise Failure(f"--{name.replace('_', '-')} is {getattr(options, name)}; give 0 or more")
