"""The command line of eval.py, and the protocol that it asks for."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from models.evaluation.label_split import parse_share
from models.evaluation.protocols import FinetuneProtocol, KnnProtocol, LinearProtocol, Protocol, RetrieveProtocol
from models.evaluation.published_linear import LINEAR, published
from pipelines.executors.choose import LOADERS
from pipelines.formats.opening import CHECKS
from tools.command_line import Failure, OneLineParser

SWEEP = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
CHECKPOINTS = ("both", "newest", "best")
#: Fields of protocols that options change.
CHANGES = ("k", "temperature", "lr", "augment", "epochs", "batch_size", "lr_backbone", "lr_head", "precision")
_DESCRIPTION = """\
Measure an encoder on labelled images, by protocols that have names.

    python eval.py knn      --run runs/clim-photos --data photos.beton --val-data photos-val.beton --baselines
    python eval.py linear   --run runs/clim-photos --data photos.beton --val-data photos-val.beton --sweep
    python eval.py finetune --run runs/clim-photos --data photos.beton --val-data photos-val.beton --labels 10%
    python eval.py retrieve --run runs/clim-photos --data photos.beton --val-data photos-val.beton
    torchrun --nproc_per_node 2 -- eval.py ...         several processes give the same numbers (torchrun needs the --)

--data is what is learned from (the bank, the labelled training images), --val-data what is classified or searched for.
Any labelled images will do, also of other classes than the encoder was trained on: they are normalised as it was used
to. Prints a table, writes DIR/eval-NAME.json, or beside the weights file FILE.eval-NAME.json, and keeps every result
as a line of DIR/evaluations.jsonl.
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of one protocol.

    Raises:
        Failure: an unknown option or value.
    """
    common, labels = _common(), _labels()
    parser = OneLineParser(
        prog="eval.py", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="name", required=True)
    knn = commands.add_parser("knn", parents=[common, labels], help="weighted nearest neighbours, nothing is trained")
    knn.add_argument("--k", type=positive, help="neighbours that vote (default: 200, or 20 below 10,000 images)")
    knn.add_argument("--temperature", type=float, help="of the votes (default: 0.1)")

    linear = commands.add_parser("linear", parents=[common, labels], help="a linear classifier on frozen features")
    linear.add_argument(
        "--settings", default="msvq", metavar="NAME", help="published settings: " + ", ".join(LINEAR)
        + ", or 'published', the row of the run's method and data (default: %(default)s, the same for all)",
    )  # fmt: skip
    rates = linear.add_mutually_exclusive_group()
    rates.add_argument("--lr", type=numbers, metavar="A,B,...", help="peak learning rates; several are a sweep")
    rates.add_argument(
        "--sweep", dest="lr", action="store_const", const=SWEEP, help=f"the rates {','.join(f'{r:g}' for r in SWEEP)}"
    )
    linear.add_argument("--augment", action="store_true", default=None, help="random crops and flips in every epoch")
    linear.add_argument("--epochs", type=positive, help="over the features (default: that of the settings)")
    linear.add_argument("--batch-size", type=positive, help="samples of a step (default: that of the settings)")

    finetune = commands.add_parser("finetune", parents=[common, labels], help="the whole network, end to end")
    finetune.add_argument("--lr-backbone", type=float, help="peak learning rate of the backbone (default: 0.005)")
    finetune.add_argument("--lr-head", type=float, help="peak learning rate of the classifier (default: 0.02)")
    finetune.add_argument("--epochs", type=positive, help="over the labelled images (default: 70)")
    finetune.add_argument("--batch-size", type=positive, help="images of a step, over all processes (default: 256)")

    retrieve = commands.add_parser("retrieve", parents=[common], help="recall and mean average precision")
    retrieve.add_argument("--k", type=whole_numbers, metavar="A,B,...", help="of recall@k (default: 1,5,10)")
    return _checked(parser.parse_args(arguments))


def _common() -> OneLineParser:
    common = OneLineParser(add_help=False)
    source = common.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, metavar="DIR", help="a run of train.py")
    source.add_argument(
        "--weights", type=Path, metavar="FILE", help="a backbone as .safetensors, as tools.export writes"
    )
    add = common.add_argument
    add("--data", required=True, metavar="PATH", help="labelled images to learn from, converted")
    add("--val-data", required=True, metavar="PATH", help="labelled images to classify, converted")
    add(
        "--checkpoint", choices=CHECKPOINTS,
        help="of the run: its newest, its best by the kNN monitor, or both side by side (default: both)",
    )  # fmt: skip
    add("--baselines", action="store_true", help="rows for the untrained network and for raw pixels")
    add("--per-class", action="store_true", help="print a table of the classes, which the file always holds")
    add("--seeds", type=whole_numbers, metavar="A,B,...", help="several: mean, deviation and interval over them")
    add("--seed", type=int, default=0, help="where --seeds is not given (default: %(default)s)")
    add("--images", type=positive, default=512, help="images of a forward pass (default: %(default)s)")
    add("--loader", choices=LOADERS, default="auto", help="data path (default: %(default)s)")
    add(
        "--verify", choices=CHECKS, default="sample", help="images compared with checksums first (default: %(default)s)"
    )
    add("--precision", choices=("fp32", "bf16"), help="of the network (default: fp32; fine-tuning bf16)")
    add("--threads", type=positive, help="of each process (default: its share of the cores)")
    add("--device", help="cpu or cuda (default: cuda where there is one)")
    add("--stem", help="with --weights: imagenet, small or small_pool, where the file does not say")
    add("--image-size", type=positive, help="with --weights: side of the views in pixels, the same")
    for name in ("--mean", "--std"):
        add(name, type=numbers, metavar="R,G,B", help="with --weights: of the channels, on the scale 0 to 1, the same")
    return common


def _labels() -> OneLineParser:
    labels = OneLineParser(add_help=False)
    which = labels.add_mutually_exclusive_group()
    which.add_argument(
        "--labels",
        default="all",
        metavar="SHARE",
        help="1%%, 10%%, ... of each class, drawn by the seed (default: all)",
    )
    which.add_argument("--label-list", type=Path, metavar="FILE", help="names of the images whose labels are used")
    return labels


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    try:
        options.share = parse_share(getattr(options, "labels", "all"))
    except ValueError as error:
        raise Failure(str(error)) from None
    options.seeds = options.seeds or (options.seed,)
    if len(set(options.seeds)) < len(options.seeds):
        raise Failure(f"--seeds {','.join(map(str, options.seeds))} names a seed twice")
    for name in ("temperature", "lr_backbone", "lr_head", "lr"):
        value = getattr(options, name, None)
        rates = value if isinstance(value, tuple) else (value,)
        if not all(rate is None or 0 < rate < math.inf for rate in rates):  # nan is neither
            given = ",".join(f"{rate:g}" for rate in rates)
            what = "numbers" if isinstance(value, tuple) else "a number"
            raise Failure(f"--{name.replace('_', '-')} is {given}; give {what} above 0")
    if options.name == "retrieve" and options.k and min(options.k) < 1:
        raise Failure(f"--k is {','.join(map(str, options.k))}; give whole numbers above 0, such as 1,5,10")
    for name in ("stem", "image_size", "mean", "std") if options.run else ("checkpoint",):
        if getattr(options, name) is not None:
            source = "--weights" if options.run else "--run"
            raise Failure(f"--{name.replace('_', '-')} goes with {source} alone; leave it out")
    options.checkpoint = options.checkpoint or "both"
    return options


def protocol_of(options: argparse.Namespace, bank_size: int, run: dict[str, str], labels: str) -> Protocol:
    """The usual protocol for a bank of this size with what the command line changes; a change shows in its id.

    Args:
        run: "method" and "recipe" of the run, as far as they are known.
        labels: what is used of them, in the protocol's words.

    Raises:
        Failure: there are no such settings.
    """
    usual = _usual(options, bank_size, run)
    own = {field.name for field in fields(usual)}
    given = {name: getattr(options, name, None) for name in CHANGES if name in own} | {"labels": labels}
    return replace(usual, **{name: value for name, value in given.items() if value is not None})


def _usual(options: argparse.Namespace, bank_size: int, run: dict[str, str]) -> Protocol:
    if options.name == "knn":
        return KnnProtocol.for_bank(bank_size)
    if options.name == "finetune":
        return FinetuneProtocol()
    if options.name == "retrieve":
        return RetrieveProtocol()
    name = options.settings
    if name == "published":
        if not run:
            raise Failure(f"--settings published needs a --run; with --weights take one of {', '.join(LINEAR)}")
        name = published(run["method"], run["recipe"])
    if name not in LINEAR:
        raise Failure(f"--settings is '{name}'; take published, or one of {', '.join(LINEAR)}")
    usual: LinearProtocol = LINEAR[name]
    return usual


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def whole_numbers(text: str) -> tuple[int, ...]:
    found = tuple(int(part) for part in text.split(","))
    if min(found) < 0:
        raise ValueError
    return found
