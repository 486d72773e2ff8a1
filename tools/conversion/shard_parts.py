"""One conversion split over machines: which images a part has, and what it says of itself.

    photos-shards.part-1-of-2/    shards and index as in the finished data set, names, and instead of the card
                                  part.json (what was asked for, and which part this is) and moments.npy [N, 6]

A part's keys are the images' numbers in the complete source, so that the merge need not change a tar.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from tools.conversion.encode import Settings
from tools.conversion.source import Source
from tools.conversion.split_statistics import created_by

MOMENTS = "moments.npy"
PART_FORMAT = "likeness-part"
# What is compared between parts, in the order in which a difference is reported, and its name in the message.
JOB = {
    "source": "source",
    "layout": "layout of the source",
    "number": "number of images in the source",
    "images": "list of images",
    "classes": "classes",
    "splits": "splits",
    "max_size": "--max-size",
    "quality": "--quality",
    "range": "--range",
    "skip_bad": "--skip-bad",
    "created_by": "version of the program",
    "ignored": "number of files ignored",
    "card": "source",
    "conversion": "source",
    "all_images": "list of images of all splits",
}
OF_A_SPLIT = ("number", "images", "card")  # may differ between the splits of one conversion


class Part(NamedTuple):
    """The `number`-th of `of` parts, counted from 1."""

    number: int
    of: int

    def range(self, images: int) -> range:
        """Return the numbers of this part's images, among the images of the split."""
        return range((self.number - 1) * images // self.of, self.number * images // self.of)

    def path(self, target: Path) -> Path:
        """Return the folder of this part of the data set `target`."""
        return target.with_name(f"{target.name}.part-{self.number}-of-{self.of}")


def found_parts(target: Path) -> dict[Part, Path]:
    """Return the folders beside the target whose names are those of its parts."""
    pattern = re.compile(re.escape(target.name) + r"\.part-([0-9]{1,6})-of-([0-9]{1,6})", re.DOTALL)
    matches = [(pattern.fullmatch(path.name), path) for path in target.parent.iterdir()]
    return dict(sorted((Part(int(match[1]), int(match[2])), path) for match, path in matches if match))


def job(source: Source, split: str, settings: Settings, skip_bad: bool) -> dict[str, Any]:
    """Return what was asked for: equal for all parts of one conversion, on any machine and under any path."""
    return {
        "source": source.name,
        "layout": source.kind,
        "number": len(source.splits[split]),
        "images": source.fingerprints[split],
        "classes": list(source.classes),
        "splits": list(source.splits),
        "max_size": settings.max_size,
        "quality": settings.quality,
        "range": None if settings.scale is None else list(settings.scale),
        "skip_bad": skip_bad,
        "created_by": created_by(),
        "ignored": len(source.ignored),
        "card": source.card,
        "conversion": source.conversion,
        "all_images": list(source.fingerprints.values()),
    }
