"""The command line of eval.py: a command for each registered protocol, with the options that its class declares."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.evaluation.label_split import parse_share
from models.evaluation.protocol import Protocol
from models.evaluation.protocols.registry import PROTOCOLS
from models.networks.backbones import STEMS
from models.options import Option, check_options, describe, option
from pipelines.executors.choose import LOADERS
from pipelines.formats.opening import CHECKS
from pipelines.plan.views import RESIZE
from tools.command_line import Failure, OneLineParser, add_option

_DESCRIPTION = """\
Measure an encoder on labelled images, by protocols that have names.

    python eval.py knn      --run runs/clim-photos --data photos.beton --val-data photos-val.beton --baselines
    python eval.py linear   --run runs/clim-photos --data photos.beton --val-data photos-val.beton --sweep
    python eval.py finetune --run runs/clim-photos --data photos.beton --val-data photos-val.beton --labels 10%
    python eval.py retrieve --run runs/clim-photos --data photos.beton --val-data photos-val.beton
    torchrun --nproc_per_node 2 -- eval.py ...         several processes give the same numbers (torchrun needs the --)

--data is what is learned from (the bank, the labelled training images); --val-data is what is classified or searched
for. Any labelled images will do, also of other classes than the encoder was trained on: they are normalised as in
training. Prints a table, writes DIR/eval-NAME.json (or FILE.eval-NAME.json beside a file of weights), and keeps every
result as a line of DIR/evaluations.jsonl.
"""
_LABEL_OPTIONS = ("labels", "label_list")


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of one evaluation.

    Attributes:
        protocol: the class of the protocol.
        given: the values of the protocol's fields that the command line gives.
    """

    protocol: type[Protocol]
    given: Mapping[str, Any]
    run: Path | None = option(None, "the folder of a run of train.py", metavar="DIR")
    weights: Path | None = option(
        None, "the file of a backbone, such as the .safetensors of tools.export", metavar="FILE", instead_of="run"
    )
    data: str = option("", "the converted labelled images to learn from (required)", metavar="PATH")
    val_data: str = option("", "the converted labelled images to classify or to search for (required)", metavar="PATH")
    checkpoint: str | None = option(
        None,
        "the checkpoints of the run to measure: both, newest, best (by its kNN monitor; default: both)",
        choices=(None, "both", "newest", "best"),
    )
    baselines: bool = option(False, "rows for the untrained network and for raw pixels")
    per_class: bool = option(False, "a printed table of the classes, which the file always holds")
    seeds: tuple[int, ...] = option(
        (), "seeds, for the mean, deviation and interval over them (default: that of --seed)", at_least=0
    )
    seed: int = option(0, "the seed where --seeds is not given", at_least=0)
    images: int = option(512, "images of a forward pass, over all processes", at_least=1)
    loader: str = option("auto", "the data path", choices=LOADERS)
    verify: str = option("sample", "how many images are compared with their checksums first", choices=CHECKS)
    threads: int | None = option(None, "threads of each process (default: its share of the cores)", at_least=1)
    device: str | None = option(None, "the device, cpu or cuda (default: cuda where there is one)")
    labels: str = option("all", "the share of each class, such as 1%, that the seed draws", metavar="SHARE")
    label_list: Path | None = option(
        None, "a file of names of the images whose labels are used", metavar="FILE", instead_of="labels"
    )
    stem: str | None = option(None, f"the stem of --weights that do not name it: {', '.join(STEMS)}")
    image_size: int | None = option(
        None, "the side of the views in pixels, of --weights that do not name it", at_least=1
    )
    mean: tuple[float, ...] | None = option(
        None, "the mean of the channels, on the scale 0 to 1, of --weights that do not name it", metavar="R,G,B"
    )
    std: tuple[float, ...] | None = option(
        None, "the deviation of the channels, on the scale 0 to 1, of --weights that do not name it", metavar="R,G,B"
    )

    resize: str | None = option(
        None,
        "the filter that resizes the images, of --weights that do not name it (default: area)",
        choices=(None, *RESIZE),
    )

    @property
    def share(self) -> float:
        """The share of each class whose labels are used, above 0 and at most 1."""
        return parse_share(self.labels)

    def result_file(self, name: str) -> Path:
        """Return the path of a file of results: in the run's folder, or beside the file of weights."""
        return self.run / name if self.run else Path(f"{self.weights}.{name}")


def parse(arguments: Sequence[str] | None = None) -> EvaluationOptions:
    """Return the options of one protocol.

    Raises:
        Failure: an unknown option, a value that it may not have, or options that exclude each other.
    """
    parser = OneLineParser(
        prog="eval.py", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="protocol", required=True)
    for name, protocol in PROTOCOLS.items():
        command = commands.add_parser(name, help=protocol.summary)
        add_options(command, [*common_options(protocol), *describe(protocol)])
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    protocol = PROTOCOLS[given.pop("protocol")]
    own = {item.name: given.pop(item.name) for item in describe(protocol) if item.name in given}
    options = EvaluationOptions(protocol, own, **given)
    try:
        check_options(options)
        check_options(protocol(**own))
        check_combination(options)
    except ValueError as error:
        raise Failure(str(error)) from None
    return replace(options, seeds=options.seeds or (options.seed,), checkpoint=options.checkpoint or "both")


def common_options(protocol: type[Protocol]) -> list[Option]:
    """Return the options of every protocol, but for those of labels where the protocol does not take them."""
    return [item for item in describe(EvaluationOptions) if protocol.takes_labels or item.name not in _LABEL_OPTIONS]


def add_options(parser: OneLineParser, items: Sequence[Option]) -> None:
    """Add options to a parser, those that exclude each other in a group. What is not given is None in the result."""
    others = {item.instead_of: parser.add_mutually_exclusive_group() for item in items if item.instead_of}
    for item in items:
        group = others.get(item.instead_of or item.name, parser)
        if item.shortcut:
            group = parser.add_mutually_exclusive_group()
        add_option(group, item, item.help_with(item.default))


def check_combination(options: EvaluationOptions) -> None:
    """Refuse options that are missing, or that do not go together.

    Raises:
        ValueError: names the options.
    """
    if options.run is None and options.weights is None:
        raise ValueError("give --run DIR or --weights FILE; --help explains them")
    if not options.data or not options.val_data:
        raise ValueError("give --data PATH and --val-data PATH; --help explains them")
    parse_share(options.labels)
    if len(set(options.seeds)) < len(options.seeds):
        raise ValueError(f"--seeds {','.join(map(str, options.seeds))} names a seed twice")
    for name in ("stem", "image_size", "mean", "std", "resize") if options.run else ("checkpoint",):
        if getattr(options, name) is not None:
            source = "--weights" if options.run else "--run"
            raise ValueError(f"--{name.replace('_', '-')} goes with {source} alone; leave it out")
