"""Converts images to the files that training reads:

    python -m tools.convert SOURCE OUT.beton                        one file, for FFCV
    python -m tools.convert SOURCE OUT --format shards              a folder of WebDataset tars, for DALI
    python -m tools.convert SOURCE OUT --format shards --shard 1/4  the first quarter of it, on one machine of four
    python -m tools.convert --merge OUT                             joins the quarters when all are there

A source with several splits gives one result for each: OUT.beton for training and OUT-test.beton, OUT-val.beton beside
it. Each has its card: OUT.beton.json, or OUT/card.json. Either all of them are written or none; what a killed
conversion leaves behind is removed by the next one to the same OUT.

SOURCE may also be a converted data set, a .beton or a folder of shards: its images are copied byte for byte, none is
encoded again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.decoding.image_file import MAX_PIXELS
from pipelines.decoding.value_range import ValueRange, value_range
from pipelines.formats.image_table import PIXEL_BOUND
from pipelines.formats.registry import FORMATS
from pipelines.printable import printable
from pipelines.threads import usable_cores
from tools.command_line import Failure, OneLineParser
from tools.conversion.encode import DEFAULT_QUALITY, RAW_LIMIT
from tools.conversion.folder_layout import LAYOUTS
from tools.conversion.shard_parts import Part

AUTO = "auto"


def _integer(low: int, high: int) -> Any:
    """Return a parser of whole numbers in a range."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return parse


def _part(text: str) -> Part:
    number, slash, of = text.partition("/")
    if not (slash and all(word.isascii() and word.isdigit() for word in (number, of))):
        raise argparse.ArgumentTypeError(f"{text!r} is no part; give one such as 1/4")
    if not 1 <= int(number) <= int(of) <= 999_999:
        raise argparse.ArgumentTypeError(
            f"there is no part {number} of {of}; parts are counted from 1/{of} to {of}/{of}"
        )
    return Part(int(number), int(of))


def _range(text: str) -> ValueRange | str:
    if text == AUTO:
        return AUTO
    try:
        return value_range([float(word) for word in text.split(",")])
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no range of values; give the smaller one first, such as 0,4095, or {AUTO}"
        ) from None


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options of a conversion or a merge.

    Raises:
        Failure: an unknown option, a wrong value, or options that do not go together.
    """
    arguments = _parser().parse_args(argv)
    _check_usage(arguments)
    return arguments


def _parser() -> OneLineParser:
    made = OneLineParser(
        prog="tools.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="an image folder (class folders, or flat = unlabelled; with or without splits), a zip or tar of one, "
        "WebDataset tars or a pattern such as web-{000000..000127}.tar, tars of classes, parquet files, a table of "
        "paths and labels, MNIST's idx files, CIFAR-10/100 batches, STL-10 binaries, Tiny-ImageNet, a .beton, a folder "
        "of shards, or digits (scikit-learn's, no download); tools/conversion/README.md shows all",
    )
    made.add_argument(
        "out",
        metavar="OUT",
        type=Path,
        nargs="?",
        help="what to write: data/photos.beton, or the folder data/photos-shards",
    )
    summaries = "; ".join(f"{form.name}: {form.summary}" for form in FORMATS.values())
    made.add_argument(
        "--format", choices=list(FORMATS), default=next(iter(FORMATS)), help=f"{summaries} (default: %(default)s)"
    )
    made.add_argument(
        "--shard-size",
        type=_integer(1, 1 << 20),
        default=512,
        metavar="MIB",
        help="bound of one shard in MiB (default: %(default)s)",
    )
    made.add_argument(
        "--shard",
        type=_part,
        metavar="I/N",
        help="convert the I-th of N parts, counted from 1, of each split into OUT.part-I-of-N (shards only); give each "
        "machine the same SOURCE and options",
    )
    made.add_argument(
        "--merge",
        type=Path,
        metavar="OUT",
        help="join the parts of OUT, when all are there and complete, and remove them",
    )
    made.add_argument(
        "--max-size",
        type=_integer(1, 65535),
        metavar="N",
        help="reduce images whose longer side has more than N pixels (default: keep their size)",
    )
    made.add_argument(
        "--quality",
        type=_integer(1, 100),
        metavar="N",
        help=f"JPEG quality 1 to 100 of images that must be encoded again (default: {DEFAULT_QUALITY}, and raw without "
        f"loss up to {RAW_LIMIT // 1024} KiB of pixels); JPEGs that need no change are kept byte for byte",
    )
    made.add_argument(
        "--workers",
        type=_integer(1, 1024),
        default=usable_cores(),
        metavar="N",
        help="processes (default: %(default)s)",
    )
    made.add_argument("--force", action="store_true", help="replace files that exist")
    made.add_argument(
        "--follow-links", action="store_true", help="take links that lead out of a source folder (default: bad files)"
    )
    made.add_argument(
        "--folder",
        default="",
        metavar="PATH",
        help="one folder inside SOURCE, also inside an archive, to convert alone, such as one split",
    )
    readings = "; ".join(f"{name}: {meaning}" for name, meaning in LAYOUTS.items())
    made.add_argument(
        "--layout",
        choices=list(LAYOUTS),
        default="auto",
        help=f"meaning of the folders of an image folder; {readings} (default: %(default)s)",
    )
    made.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="list of the labels of images that lie in no class folder: CSV of name,label with or without a header, "
        "lines of name and label, or one number a line in the order of the images' names",
    )
    made.add_argument(
        "--classes",
        choices=("train", "union"),
        default="train",
        help="classes of all splits: those of the training split, which must have every class of the others, or the "
        "union of all (default: %(default)s)",
    )
    made.add_argument(
        "--max-pixels",
        type=_integer(1, PIXEL_BOUND),
        default=MAX_PIXELS,
        metavar="N",
        help="images of more pixels are bad files, known from their header before they are decoded; half as many for "
        "WebP, a quarter for JPEG 2000, whose decoders hold more (default: %(default)s, which takes up to 1.2 GB in "
        "each process)",
    )
    made.add_argument(
        "--range",
        type=_range,
        metavar="LO,HI",
        help="values in the files that become black and white, such as 0,4095 for 12 bits stored in 16; auto = the "
        "smallest and largest value of all files; --range=-9,9 for a negative one (default: all values of 8 or 16 "
        "bits; 32-bit integers only from 0 to 255, floats not at all)",
    )
    made.add_argument("--skip-bad", action="store_true", help="leave out files that cannot be converted, and list them")
    return made


def _check_usage(arguments: argparse.Namespace) -> None:
    if arguments.merge is not None:
        if arguments.source is not None or arguments.shard:
            raise Failure("--merge OUT takes no SOURCE and no --shard: it reads the parts beside OUT")
        return
    if arguments.source is None or arguments.out is None:
        raise Failure("give SOURCE and OUT, or --merge OUT")
    if arguments.shard and arguments.range == AUTO:
        raise Failure("--range auto needs all images, and --shard has a part of them; give --range LO,HI")
    form, out = FORMATS[arguments.format], arguments.out
    for other in FORMATS.values():
        if other is not form and other.suffix and out.suffix == other.suffix:
            raise Failure(
                f"{printable(out.name)} is a name for --format {other.name}; for --format {form.name} give OUT without "
                f"{other.suffix}, such as {printable(str(out.with_suffix('')))}-{form.name}{form.suffix}"
            )
    if arguments.shard and not form.splittable:
        able = " or ".join(other.name for other in FORMATS.values() if other.splittable)
        raise Failure(
            f"--shard needs --format {able}; {form.name} can be made of the merged result without encoding again"
        )
