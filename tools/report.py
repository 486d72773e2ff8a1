"""Draws a run: PNG files, and one HTML page that contains them all and needs nothing else.

    python -m tools.report runs/clim-photos                              into runs/clim-photos/report
    python -m tools.report runs/clim-photos --data photos.beton --out clim-report
    python -m tools.report compare runs/clim-photos runs/msvq-photos     one table of several runs

The report shows curves of everything that was logged, a map of the features, nearest neighbours and the confusion of
classes; for CLIM also its partners, for CGH its hypercolumns. Labels are optional: instead of a section that needs them
there is a sentence that says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipelines import Dataset
from pipelines.printable import printable
from tools.command_line import Failure, OneLineParser, guarded_main
from tools.reporting.features import RunFeatures, extract_features, held_out_images, spread_over, training_images
from tools.reporting.folder import PAGE, check_own, publish
from tools.reporting.result_tables import number_sections
from tools.run.accelerator import device_of
from tools.run.record import RunRecord, read_run

if TYPE_CHECKING:
    from tools.reporting.page import Section


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["compare"]:
        from tools.reporting.compare_runs import compare_runs

        return guarded_main("tools.report compare", lambda: compare_runs(given[1:]))
    return guarded_main("tools.report", lambda: report(given))


def report(given: Sequence[str]) -> None:
    """Draw the report of a run and write it."""
    for package, name in (("matplotlib", "matplotlib"), ("sklearn", "scikit-learn")):
        if find_spec(package) is None:
            raise Failure(f"pictures need {name}: pip install {name}")
    options = parse(given)
    out = options.out or options.run / "report"
    check_own(out)
    record = read_run(options.run)
    train = training_images(record, options.data)
    held_out = held_out_images(record, train, options.val_data)
    for note in held_out.notes:
        print(printable(note))
    files = draw_files(record, train, held_out.dataset, options)
    publish(out, files)
    size = len(files[PAGE]) / 1e6
    print(f"{printable(str(out / PAGE))}: {size:.1f} MB, and {len(files) - 1} pictures beside it")


def draw_files(
    record: RunRecord, train: Dataset, held_out: Dataset | None, options: argparse.Namespace
) -> dict[str, bytes]:
    """Return the contents of the report's files, by name."""
    from tools.reporting.page import page

    features = extract_features(record, train, held_out, options.bank, options.bank, device_of(options.device))
    chapters = list(sections(record, train, features, options))
    config = record.config
    title = f"{config['method']} on {train.name}"
    step, seen = record.rows[-1]["step"], record.rows[-1].get("samples_seen", 0)
    subtitle = f"{record.path.name}: recipe {config['recipe_name']}, step {step:,}, {seen:,} images seen"
    files = {picture.name: picture.png for section in chapters for picture in section.pictures}
    return files | {PAGE: page(title, subtitle, chapters).encode()}


def sections(
    record: RunRecord, train: Dataset, features: RunFeatures | None, options: argparse.Namespace
) -> Iterator[Section]:
    """Yield the sections of the page, in order.

    Args:
        train: the run's training images.
        features: None if the run has no checkpoint yet.
    """
    from tools.reporting.curves import curve_sections
    from tools.reporting.embedding_map import map_section
    from tools.reporting.hypercolumns import hypercolumn_section
    from tools.reporting.neighbors import confusion_section, gallery_section
    from tools.reporting.page import Section
    from tools.reporting.partners import partners_section

    yield from number_sections(record)
    yield from curve_sections(record)
    if features is None:
        yield Section("Features", "Left out, with everything that needs features: the run has no checkpoint yet.")
        return
    seen = features.held_out or features.bank
    rows_N = spread_over(torch.arange(len(seen.number_N)).numpy(), options.images)
    yield map_section(seen.dataset, seen.number_N[rows_N], seen.features_ND[rows_N].numpy(), options.seed)
    yield gallery_section(features, options.queries, options.seed)
    yield confusion_section(features)
    for section in (partners_section(record, train, options.seed), hypercolumn_section(record, train, options.seed)):
        if section is not None:
            yield section


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="tools.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run of train.py")
    parser.add_argument(
        "--data", metavar="FILE", help="the run's training images (default: the file that the run was trained on)"
    )
    parser.add_argument(
        "--val-data",
        metavar="FILE",
        help="the held-out images (default: those of the run, or the -val or -test file beside the training images)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder of the report (default: RUN/report)")
    parser.add_argument(
        "--images", type=_positive, default=2000, metavar="N", help="the number of images of the map (default: 2000)"
    )
    parser.add_argument(
        "--bank",
        type=_positive,
        default=10_000,
        metavar="N",
        help="the largest number of training images, and of held-out images, whose features are used (default: 10000)",
    )
    parser.add_argument(
        "--queries",
        type=_positive,
        default=10,
        metavar="N",
        help="the number of rows of the nearest-neighbour gallery (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the seed of every random choice (default: %(default)s)"
    )
    parser.add_argument(
        "--device", metavar="NAME", help="the device to compute on, cpu or cuda (default: a GPU, if there is one)"
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "positive int"  # what argparse calls it in an error message


if __name__ == "__main__":
    sys.exit(main())
