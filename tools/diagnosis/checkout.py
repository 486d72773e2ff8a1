"""Whether Python imports this checkout's packages, and not others of the same names.

Likeness is run from its checkout and is usually not installed, so `models` may be a folder of somebody else's: the one
in the current folder, or an older checkout on the path. This file imports nothing of the project.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("models", "pipelines", "tools")


def package_folder(name: str) -> Path | None:
    """Return the folder that Python imports a package from, or None if it finds none."""
    spec = find_spec(name)
    locations = list(spec.submodule_search_locations or ()) if spec else []
    return Path(locations[0]).resolve() if locations else None


def foreign_packages() -> str:
    """Return one line about the packages that are imported from elsewhere, with the fix; empty if there are none."""
    found = {name: package_folder(name) for name in PACKAGES}
    foreign = [f"{name} is {folder}" for name, folder in found.items() if folder != ROOT / name]
    return f"{', '.join(foreign)}, not of this checkout: cd {ROOT} and run it there" if foreign else ""


def require_own_packages(program: str) -> None:
    """End the program with one line if a package is imported from elsewhere; call it before importing the packages."""
    if problem := foreign_packages():
        print(f"{program}: {problem}", file=sys.stderr)
        sys.exit(2)
