"""A run in pictures: PNG files, and one HTML page that holds them all and needs nothing else.

    python -m tools.report runs/clim-photos                              into runs/clim-photos/report
    python -m tools.report runs/clim-photos --data photos.beton --out clim-report
    python -m tools.report compare runs/clim-photos runs/msvq-photos     one table of several runs

Curves of everything that was logged, a map of the features, nearest neighbours, confusion of classes; for CLIM its
partners, for CGH its hypercolumns. Labels are optional: what takes them is left out with a sentence.
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
    """Draws the report of a run and puts it in its folder."""
    for package, name in (("matplotlib", "matplotlib"), ("sklearn", "scikit-learn")):
        if find_spec(package) is None:
            raise Failure(f"pictures need {name}: pip install {name}")
    options = parse(given)
    out = options.out or options.run / "report"
    check_own(out)
    record = read_run(options.run)
    train = training_images(record, options.data)
    held_out = held_out_images(record, train, options.val_data)
    files = make(record, train, held_out, options)
    publish(out, files)
    size = len(files[PAGE]) / 1e6
    print(f"{printable(str(out / PAGE))}: {size:.1f} MB, and {len(files) - 1} pictures beside it")


def make(record: RunRecord, train: Dataset, held_out: Dataset | None, options: argparse.Namespace) -> dict[str, bytes]:
    """The files of the report, by name."""
    from tools.reporting.page import page

    features = extract_features(record, train, held_out, options.bank, options.bank, device_of(options.device))
    made = list(sections(record, train, features, options))
    config = record.config
    title = f"{config['method']} on {train.name}"
    step, seen = record.rows[-1]["step"], record.rows[-1].get("samples_seen", 0)
    subtitle = f"{record.path.name}: recipe {config['recipe_name']}, step {step:,}, {seen:,} images seen"
    files = {picture.name: picture.png for section in made for picture in section.pictures}
    return files | {PAGE: page(title, subtitle, made).encode()}


def sections(
    record: RunRecord, train: Dataset, features: RunFeatures | None, options: argparse.Namespace
) -> Iterator[Section]:
    """The chapters of the page, in its order."""
    from tools.reporting.curves import curve_sections
    from tools.reporting.hypercolumns import hypercolumn_section
    from tools.reporting.map import map_section
    from tools.reporting.neighbors import confusion_section, gallery_section
    from tools.reporting.page import Section
    from tools.reporting.partners import partners_section

    yield from number_sections(record)
    yield from curve_sections(record)
    if features is None:
        yield Section("Features", "Left out with all that needs them: the run has no checkpoint yet.")
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
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run of train.py")
    parser.add_argument("--data", metavar="FILE", help="the run's training images (default: where they were)")
    parser.add_argument("--val-data", metavar="FILE", help="held-out images (default: the run's, or a split beside)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report (default: RUN/report)")
    parser.add_argument("--images", type=_positive, default=2000, help="images of the map (default: %(default)s)")
    parser.add_argument(
        "--bank",
        type=_positive,
        default=10_000,
        help="training, and held-out images looked at (default: %(default)s)",
    )
    parser.add_argument("--queries", type=_positive, default=10, help="rows of the gallery (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn at random (default: %(default)s)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main())
