"""models/README.md names what exists: files, methods with their recipes, imported names, sources of rows."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

from models.methods.registry import REGISTRY

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "models" / "README.md").read_text()
METHODS = re.findall(r"^\| `(\w+)` \| \[\d{4}\.\d{5}\].*\| ([\w, ]+) \|$", TEXT, re.MULTILINE)


def test_every_method_stands_with_its_recipes() -> None:
    assert {name: recipes.split(", ") for name, recipes in METHODS} == {
        name: list(entry.rows) for name, entry in REGISTRY.items()
    }
    assert "eleven methods" in TEXT and len(REGISTRY) == 11


SOURCES = {
    "code": "cgh imagenet, clim imagenet, iccl imagenet, iccl imagenet_vit, iccl imagenette, mncl cifar10_224, "
    "byol imagenet, simclr imagenet, simsiam imagenet, moco imagenet, msvq cifar10, msvq photos",
    "sibling": "moco cifar10, moco tiny_imagenet, ressl cifar10, ressl photos, ressl imagenet, byol cifar10, "
    "simclr cifar100, nnclr tiny_imagenet",
    "inferred": "cgh cifar10, moco stl10, ressl stl10, byol stl10, nnclr imagenet",
}


@pytest.mark.parametrize("source", SOURCES)
def test_most_values_of_a_row_have_the_source_that_the_table_names(source: str) -> None:
    for method, recipe in (row.split() for row in SOURCES[source].split(", ")):
        counts = Counter(value.source for value in REGISTRY[method].rows[recipe].values())
        assert counts.most_common(1)[0][0] == source, f"{method} {recipe}: {counts}"


def test_files_exist() -> None:
    """Those that the text names with their folder, from models/ or from the root; NEW is what a reader writes."""
    named = [name for name in re.findall(r"[\w/]+/\w+\.py", TEXT) if "NEW" not in name and "NAME" not in name]
    assert len(named) > 10
    folders = (ROOT, ROOT / "models", ROOT / "models" / "evaluation")
    missing = [name for name in named if not any((folder / name).is_file() for folder in folders)]
    assert missing in ([], ["tests/models/methods/test_contract.py"])


def test_names_for_outsiders_exist() -> None:
    for module, names in re.findall(r"`models\.(\w+)`\s+\(([^)]*)\)", TEXT):
        found = importlib.import_module(f"models.{module}")
        assert all(hasattr(found, name) for name in re.findall(r"`(\w+)`", names)), module
