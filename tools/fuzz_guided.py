"""Fuzzes one of the project's own parsers, guided by coverage: inputs that reach new lines of code are mutated further.

    python -m tools.fuzz_guided pickle --seconds 60        # or card, beton, index, names, tar, zip, jpeg

A parser may accept its input or refuse it in one line. Any other exception ends the run with exit code 77, and the
input is kept as crash-... in the folder that --keep names. `tools.fuzz` damages complete files, without guidance.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tools.command_line import Failure, OneLineParser, guarded_main

Parser = Callable[[bytes], None]


def _bytes(read: Callable[[bytes], object]) -> Parser:
    """Return the fuzz target of a parser of bytes."""

    def parse(data: bytes) -> None:
        try:
            read(data)
        except ValueError as error:
            _one_line(error)

    return parse


def _file(name: str, read: Callable[[Path], object]) -> Parser:
    """Return the fuzz target of a parser of files: each input is first written to a file of this name."""
    path = Path(tempfile.mkdtemp(prefix="guided-")) / name

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(path)
        except ValueError as error:
            _one_line(error)

    return parse


def _one_line(error: ValueError) -> None:
    """Require that the message with which an input was refused is one printable line."""
    if not str(error).isprintable():
        raise RuntimeError(f"more than one printable line: {error!r}")


def parser_of(name: str) -> Parser:
    """Return the fuzz target of a name."""
    from pipelines.formats.beton_format import read_table
    from pipelines.formats.card import check_card, read_card, read_names
    from pipelines.formats.inspection import jpeg_sides
    from pipelines.formats.shard_format import INDEX, read_index
    from tools.conversion.cifar_pickle import read
    from tools.conversion.open_source import open_tree

    def card(path: Path) -> None:
        try:
            check_card(read_card(path.with_name("x")))
        except KeyError:  # a value is missing: `open_dataset` names it
            return

    def archive(path: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            open_tree(path, Path(scratch))

    parsers: dict[str, Callable[[], Parser]] = {
        "pickle": lambda: _bytes(read),
        "jpeg": lambda: _bytes(lambda data: jpeg_sides(memoryview(data))),
        "card": lambda: _file("x.json", card),
        "beton": lambda: _file("x.beton", read_table),
        "index": lambda: _file(INDEX, read_index),
        "names": lambda: _file("x.names", lambda path: read_names(path.with_name("x"))),
        "tar": lambda: _file("x.tar", archive),
        "zip": lambda: _file("x.zip", archive),
    }
    return parsers[name]()


NAMES = ("pickle", "jpeg", "card", "beton", "index", "names", "tar", "zip")


def seeds(name: str) -> list[bytes]:
    """Return valid inputs, from which fuzzing starts."""
    from PIL import Image

    from pipelines.formats.beton_writer import BetonWriter
    from pipelines.formats.card import CARD_FORMAT, CARD_VERSION, write_card
    from pipelines.formats.format import Sample
    from pipelines.formats.image_table import RAW
    from pipelines.formats.shard_format import RECORD, index_bytes

    picture = io.BytesIO()
    Image.new("RGB", (9, 7)).save(picture, "JPEG")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        if name == "pickle":
            batch = {b"data": np.zeros((2, 12), dtype=np.uint8), b"labels": [0, 1], b"filenames": [b"a", b"b"]}
            return [pickle.dumps(batch, protocol) for protocol in (2, 4, 5)]
        if name == "jpeg":
            return [picture.getvalue()]
        if name == "card":
            card = {
                "format": CARD_FORMAT,
                "version": CARD_VERSION,
                "number": 1,
                "classes": ["a"],
                "checksum": "0" * 32,
                "mean": [0.5] * 3,
                "std": [0.2] * 3,
                "source": "s",
                "file": {"bytes": 1},
            }
            write_card(path, card)
            return [Path(f"{path}.json").read_bytes()]
        if name == "beton":
            with BetonWriter(path, 3, 1 << 12) as writer:
                for label in range(3):
                    writer.add(Sample(RAW, 2, 2, label, bytes(12), bytes(16), label))
            return [path.read_bytes()]
        if name == "index":
            return [index_bytes(np.zeros(3, dtype=RECORD), 1)]
        if name == "names":
            return [b"a/0.jpg\nb\\n/1.jpg\n\xff\n"]
        if name == "tar":
            with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
                for member in ("a/0.jpg", "b/\xe9" + "n" * 120 + ".jpg"):
                    info = tarfile.TarInfo(member)
                    info.size = len(picture.getvalue())
                    archive.addfile(info, io.BytesIO(picture.getvalue()))
            return [path.read_bytes()]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("a/0.jpg", picture.getvalue())
        return [path.read_bytes()]


def main() -> int:
    return guarded_main("tools.fuzz_guided", fuzz)


def fuzz() -> None:
    """Fuzz the parser that the command line names until the time or the number of inputs is used up."""
    parser = OneLineParser(
        prog="tools.fuzz_guided", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parser", choices=NAMES, help="the parser to fuzz")
    parser.add_argument(
        "--seconds", type=int, default=60, metavar="N", help="the time after which to stop (default: %(default)s)"
    )
    parser.add_argument(
        "--number",
        type=int,
        default=-1,
        metavar="N",
        help="the number of inputs after which to stop (default: none)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="the seed of the mutations (default: %(default)s)"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("fuzz-findings"),
        metavar="DIR",
        help="the folder for inputs that crash the parser (default: %(default)s)",
    )
    options = parser.parse_args()
    if find_spec("atheris") is None:
        raise Failure("atheris is not installed (it has no build for every Python): pip install atheris")
    atheris: Any = import_module("atheris")
    with atheris.instrument_imports(include=["pipelines", "tools", "tarfile", "zipfile", "pickletools"]):
        parse = parser_of(options.parser)
    options.keep.mkdir(parents=True, exist_ok=True)
    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, data in enumerate(seeds(options.parser)):
        (corpus / str(number)).write_bytes(data)
    libfuzzer_options = [
        f"-max_total_time={options.seconds}",
        f"-runs={options.number}",
        f"-seed={options.seed}",
        "-rss_limit_mb=2048",
        "-timeout=20",
        f"-artifact_prefix={options.keep}{os.sep}",
        "-max_len=20000",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *libfuzzer_options], parse)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
