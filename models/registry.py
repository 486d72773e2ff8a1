"""Every method by its name: its class, its settings, its recipes. A new method is one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from models import clim
from models.backbones import Backbone
from models.method import Method
from models.sources import Row
from models.tables import clim as clim_rows


class Entry(NamedTuple):
    """What is known of a method before it is built.

    Attributes:
        make: (backbone, settings) to the method.
        settings: the frozen dataclass of its options.
        rows: its recipes by data set.
    """

    make: Callable[[Backbone, Any], Method]
    settings: type
    rows: Mapping[str, Row]


REGISTRY: dict[str, Entry] = {
    "clim": Entry(clim.Clim, clim.Settings, clim_rows.ROWS),
}
