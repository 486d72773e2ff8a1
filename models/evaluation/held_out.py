"""The held-out images of a run: those that were named, or the split that was converted with the training images."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

from pipelines import Dataset, open_dataset
from pipelines.formats.conversion_mark import are_siblings, split_path

SPLITS = ("val", "test")  # in the order in which they are taken


@dataclass(frozen=True)
class HeldOut:
    """Held-out images and how they were found.

    Attributes:
        dataset: None if there are none.
        notes: lines for the user: what was taken, and what lies beside the training images and was not.
    """

    dataset: Dataset | None
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any] | None:
        """What a run records of them: where they are, and which they are."""
        if self.dataset is None:
            return None
        number = int((self.dataset.labels >= 0).sum())
        path, name, checksum = str(self.dataset.path), self.dataset.name, self.dataset.checksum
        return {"path": path, "source": name, "number": number, "checksum": checksum}


def find_held_out(train: Dataset, given: str | PathLike[str] | None = None, check: str = "sample") -> HeldOut:
    """Open the held-out images of a run.

    A file that was not named is taken from beside the training images, as NAME-val.beton or NAME-test.beton, if it
    comes from the same conversion and has the same classes and labels. If both files are older than marks, their names
    have to do, and a note says so.

    Args:
        given: the path that the user named, or None.
        check: how many images are verified, as in `open_dataset`.

    Raises:
        DatasetError: the data set cannot be used.
    """
    if given is not None:
        return _taken(open_dataset(given, check), [])
    notes: list[str] = []
    for split in SPLITS:
        path = split_path(train.path, split)
        if not path.exists() or not (train.labels >= 0).any():
            continue
        found = open_dataset(path, check)
        siblings = are_siblings(train.card, found.card, split)
        if siblings is False:
            notes.append(
                f"{path} is not from the conversion of {train.path.name} (sources {found.name} and {train.name}) and "
                "is not taken; name it with --val-data, or convert both together"
            )
        elif not (found.labels >= 0).any():
            notes.append(f"{path} is not taken, as its images have no labels")
        elif found.classes != train.classes:
            notes.append(
                f"{path} is not taken, as it has other classes ({len(found.classes)}) than {train.path.name} "
                f"({len(train.classes)}); convert both together"
            )
        else:
            if siblings is None:
                notes.append(
                    f"{path} is taken by its name alone: it and {train.path.name} were converted before files said "
                    f"where they belong (sources {found.name} and {train.name})"
                )
            return _taken(found, notes)
    return HeldOut(None, tuple(notes))


def _taken(dataset: Dataset, notes: list[str]) -> HeldOut:
    number = int((dataset.labels >= 0).sum())
    line = f"held-out images: {dataset.path}, {number:,} labelled, checksum {dataset.checksum}"
    return HeldOut(dataset, (line, *notes))
