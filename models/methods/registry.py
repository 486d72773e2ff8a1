"""Every method by its name: its class, its settings, its recipes. A new method adds its imports and one entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from models.method import Method
from models.methods import byol, cgh, clim, iccl, mncl, moco, msvq, nnclr, ressl, simclr, simsiam
from models.networks.backbone import Backbone
from models.recipe_tables import byol as byol_rows
from models.recipe_tables import cgh as cgh_rows
from models.recipe_tables import clim as clim_rows
from models.recipe_tables import iccl as iccl_rows
from models.recipe_tables import mncl as mncl_rows
from models.recipe_tables import moco as moco_rows
from models.recipe_tables import msvq as msvq_rows
from models.recipe_tables import nnclr as nnclr_rows
from models.recipe_tables import ressl as ressl_rows
from models.recipe_tables import simclr as simclr_rows
from models.recipe_tables import simsiam as simsiam_rows
from models.recipe_tables.sources import Row


class Entry(NamedTuple):
    """The class, the settings and the recipes of a method.

    Attributes:
        make: builds the method from a backbone and its settings.
        settings: the frozen dataclass of its options.
        rows: its recipes by data set.
    """

    make: Callable[[Backbone, Any], Method]
    settings: type
    rows: Mapping[str, Row]


REGISTRY: dict[str, Entry] = {
    "cgh": Entry(cgh.Cgh, cgh.Settings, cgh_rows.ROWS),
    "moco": Entry(moco.Moco, moco.Settings, moco_rows.ROWS),
    "msvq": Entry(msvq.Msvq, msvq.Settings, msvq_rows.ROWS),
    "ressl": Entry(ressl.Ressl, ressl.Settings, ressl_rows.ROWS),
    "clim": Entry(clim.Clim, clim.Settings, clim_rows.ROWS),
    "byol": Entry(byol.Byol, byol.Settings, byol_rows.ROWS),
    "iccl": Entry(iccl.Iccl, iccl.Settings, iccl_rows.ROWS),
    "mncl": Entry(mncl.Mncl, mncl.Settings, mncl_rows.ROWS),
    "nnclr": Entry(nnclr.Nnclr, nnclr.Settings, nnclr_rows.ROWS),
    "simclr": Entry(simclr.SimClr, simclr.Settings, simclr_rows.ROWS),
    "simsiam": Entry(simsiam.SimSiam, simsiam.Settings, simsiam_rows.ROWS),
}
