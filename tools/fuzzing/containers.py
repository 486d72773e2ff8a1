"""Mutated data sets and checkpoints through opening and reading; one case is one file or two of one.

Half of the cases of a data set's own files get a card that fits the harmed file, as somebody who edits both would write
it: only then are the tables themselves tried. Half of all data sets are opened with `check="none"`, so that the
executors meet what the check of 64 images would have refused.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from models import build
from models.storage import checkpoint
from models.training.optim import build_optimizer
from pipelines.executors.choose import EXECUTORS
from pipelines.formats import shard_format
from pipelines.formats.card import DatasetError, card_path, names_path, sealed
from pipelines.formats.dataset import Dataset, image_names
from pipelines.formats.opening import open_dataset, read_digests
from pipelines.formats.registry import FORMATS
from pipelines.formats.shard_format import INDEX, index_bytes
from tools.conversion.convert import convert
from tools.conversion.options import parse
from tools.fuzzing.images import Outcome, encoded, picture
from tools.fuzzing.mutations import BYTES, edit_json, harmed
from tools.fuzzing.read_all import cut, wrong

KINDS = (*FORMATS, "card", "names", "checkpoint")
_SETS = {f"photos{form.suffix or '-' + form.name}": form for form in FORMATS.values()}  # name of a data set -> format
_IMAGES = 12  # fewer than the check at opening compares, so it must not accept any image that differs


class Containers:
    """The cases of one seed; see `tools.fuzzing.images.Images`."""

    def __init__(self, folder: Path, seed: int, loaders: tuple[str, ...], kinds: tuple[str, ...] = KINDS) -> None:
        self.folder, self.seed, self.loaders, self.kinds = folder, seed, loaders, kinds
        for name in ("one", "two"):
            _make(folder / name, seed + (name == "two"))
        self._sound = {name: open_dataset(folder / "one" / name) for name in _SETS}
        self._digests = read_digests(next(iter(self._sound.values())), threads=1)  # the same for every format
        self._views = {
            (name, loader): cut(dataset, loader).views for name, dataset in self._sound.items() for loader in loaders
        }
        if "checkpoint" in kinds:
            for name in ("one", "two"):
                _save(folder / name / "checkpoints", seed + (name == "two"))
            found, _ = checkpoint.newest(folder / "one" / "checkpoints")
            assert found is not None
            self._checkpoint = found

    def case(self, number: int) -> list[tuple[str, bytes]]:
        """(path below a folder like `one`, its bytes) of what is harmed."""
        rng = np.random.default_rng([self.seed, number])
        kind = self.kinds[number % len(self.kinds)]
        names = self._files(kind)
        name = names[int(rng.integers(len(names)))]
        data, other = ((self.folder / side / name).read_bytes() for side in ("one", "two"))
        ways = (*BYTES, *[edit_json] * len(BYTES)) if name.endswith(".json") else BYTES
        data = harmed(rng, data, other, ways)
        if Path(name).name == INDEX and rng.random() < 0.5:
            data = _resealed(data)
        made = [(name, data)]
        if kind in FORMATS and rng.random() < 0.5:
            made += self._fitting_card(name, data)
        return made

    def _files(self, kind: str) -> list[str]:
        """The files that a kind of case may harm, relative to the folder `one`."""
        one = self.folder / "one"
        if kind == "checkpoint":
            paths = list(one.glob("checkpoints/*/*"))
        elif kind == "card":
            paths = [card_path(one / name) for name in _SETS]
        elif kind == "names":
            paths = [names_path(one / name) for name in _SETS]
        else:
            path = next(one / name for name, form in _SETS.items() if form.name == kind)
            companions = (card_path(path), names_path(path))
            paths = [file for file in path.iterdir() if file not in companions] if path.is_dir() else [path]
        return sorted(str(path.relative_to(one)) for path in paths)

    def run(self, number: int) -> list[Outcome]:
        """What becomes of a case."""
        work, kind, files = self.folder / "case", self.kinds[number % len(self.kinds)], self.case(number)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self.folder / "one", work)
        for name, data in files:
            (work / name).write_bytes(data)
        if kind == "checkpoint":
            return [(kind, *self._loaded(work / "checkpoints"))]
        form = _set_of(files[0][0])
        check = "none" if number // len(self.kinds) % 2 else "sample"
        try:
            dataset = open_dataset(work / form, check)
            names = image_names(dataset)
            return [(kind, *self._read(dataset, names, form, check, number, edited=len(files) > 1))]
        except ValueError as error:  # which DatasetError is
            line = str(error)
            said = "\n" not in line and str(work / form) in line and (isinstance(error, DatasetError) or "GiB" in line)
            return [(kind, "refused" if said else "WRONG", line[:300])]

    def _read(
        self, dataset: Dataset, names: list[str], form: str, check: str, number: int, edited: bool
    ) -> tuple[str, str]:
        sound = self._sound[form]
        same = _said(dataset) == _said(sound)
        if not (same or edited):
            return "WRONG", "opened as another data set"
        if names not in ([], image_names(sound)) and not edited:
            return "WRONG", f"other names: {names[:3]}"
        changed = set(range(dataset.number))
        if same:
            found = np.frombuffer(read_digests(dataset, threads=1), dtype="V16")
            changed = set(np.flatnonzero(found != np.frombuffer(self._digests, dtype="V16")).tolist())
        if changed and check == "sample" and not edited:
            return "WRONG", f"opened with other bytes in the images {sorted(changed)}"
        replaced: set[int] = set()
        for loader in self.loaders:
            if EXECUTORS[loader].slow_start and number % 10:
                continue
            views = self._views[form, loader]
            untouched: dict[int, NDArray[np.uint8]] = {}
            if same and views is not None:
                untouched = {row: views[row] for row in set(range(dataset.number)) - changed}
            made, again = cut(dataset, loader), cut(dataset, loader)
            if edited:  # by who gave a sound image another digest
                untouched = {row: pixels for row, pixels in untouched.items() if row not in made.replaced}
            if problem := wrong(made, again, untouched):
                return "WRONG", f"{loader}: {problem}"
            replaced |= made.replaced
        if replaced:
            return "replaced", ""
        return ("accepted unchanged", "") if same and not changed else ("accepted as told", "")

    def _fitting_card(self, name: str, data: bytes) -> list[tuple[str, bytes]]:
        """The card that would be written for a harmed file; none where it cannot be described."""
        work, form = self.folder / "fitting", _set_of(name)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self.folder / "one", work)
        (work / name).write_bytes(data)
        card = json.loads(card_path(work / form).read_text())
        try:
            card["file"] = _SETS[form].file_facts(work / form)
        except (ValueError, OSError):
            return []
        with contextlib.suppress(ValueError):  # a table that is refused in any case
            card["number"] = len(_SETS[form].checked_table(work / form, card["file"]))
        del card["sample_checksum"]
        return [(str(card_path(work / form).relative_to(work)), json.dumps(sealed(card)).encode())]

    def _loaded(self, folder: Path) -> tuple[str, str]:
        found, skipped = checkpoint.newest(folder)
        if found is None:
            one_line = len(skipped) == 1 and "\n" not in skipped[0] and "is damaged and was skipped" in skipped[0]
            return ("refused" if one_line else "WRONG"), str(skipped)[:300]
        sound = self._checkpoint
        same = found.state == sound.state and _equal(found.model, sound.model)
        same = same and _equal(found.optimizer, sound.optimizer)
        return ("accepted unchanged", "") if same else ("WRONG", "loaded another state")


def _set_of(name: str) -> str:
    """The data set that a file belongs to, by its path relative to the folder `one`."""
    return next(made for made in _SETS if name == made or name.startswith((f"{made}.", f"{made}/")))


def _said(dataset: Dataset) -> tuple[Any, ...]:
    """What a data set says of itself, but for the places of its images."""
    facts = (dataset.number, dataset.classes, dataset.mean, dataset.std, dataset.checksum, dataset.name)
    arrays = (dataset.heights, dataset.widths, dataset.labels, dataset.table.mode)
    return (*facts, *(array.tobytes() for array in arrays))


def _equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def _resealed(data: bytes) -> bytes:
    """An index whose own checksum fits."""
    header = shard_format.HEADER.itemsize
    if len(data) < header + shard_format.RECORD.itemsize:
        return data
    records = (len(data) - header) // shard_format.RECORD.itemsize
    return index_bytes(np.frombuffer(data, shard_format.RECORD, records, header), 1)


def _make(folder: Path, seed: int) -> None:
    """A data set in each format of the same images: JPEGs, and some small PNGs, which are stored raw."""
    rng = np.random.default_rng(seed)
    for number in range(_IMAGES):
        image = Image.fromarray(picture(rng, *(int(side) for side in rng.integers(16, 60, 2))))
        path = folder / "source" / f"class{number % 3}" / f"{number}.{'png' if number % 4 == 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image, "PNG" if number % 4 == 3 else "JPEG"))
    with contextlib.redirect_stdout(io.StringIO()):
        for name, form in _SETS.items():
            words = [str(folder / "source"), str(folder / name), "--workers", "1", "--force", "--format", form.name]
            convert(parse(words))
            assert names_path(folder / name).is_file()
    shutil.rmtree(folder / "source")


def _save(folder: Path, seed: int) -> None:
    """A checkpoint of a small method, after one step of its optimizer."""
    torch.manual_seed(seed)
    method = build("simclr", "cifar10", width=4, crop_size=16, hidden=16, dim=8, batch_size=8)
    optimizer = build_optimizer(method.named_parameters(), "sgd", 0.1, 0.9, 0.0, exclude_norm_and_bias=True)
    for parameter in method.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    checkpoint.save(folder, method, optimizer, {"step": 7, "samples_seen": 56, "knn_top1": None, "knn_step": None})
