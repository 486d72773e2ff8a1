"""BYOL's recipes (arXiv 2006.07733): its heads (4096, 256), its two different views, and its momentum.

The paper starts the momentum at 0.996 for 1000 epochs and at 0.99 for 300; these rows start it at 0.99 for 200.
Optimizer and rates are those of the project's other baselines (`small.py`); the paper trains on ImageNet only, with
LARS.
"""

from __future__ import annotations

from models.recipe_tables import small
from models.recipe_tables.sources import Row, ours, paper

_METHOD: Row = {
    "crop_scale": paper(0.08),
    "flip": paper(0.5),
    "jitter": paper((0.4, 0.4, 0.2, 0.1)),
    "jitter_p": paper((0.8,)),
    "grayscale": paper(0.2),
    "blur": paper((1.0, 0.1)),
    "solarize": paper((0.0, 0.2)),
    "hidden": paper(4096),
    "dim": paper(256),
    "ema": paper(0.99),
}

ROWS: dict[str, Row] = small.rows(
    _METHOD,
    medium={"ema": ours(0.996)},
    digits={"hidden": ours(256), "dim": ours(64)},
)
