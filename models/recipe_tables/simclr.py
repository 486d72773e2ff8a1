"""SimCLR's recipes (arXiv 2002.05709): views, head and temperature of the CIFAR-10 experiment in its appendix B.9.

That experiment has colour strength 0.5, no blur, temperature 0.5, a projection to 128; LARS, batches of 512 and more,
up to 1000 epochs. The rows replace optimizer, batch and epochs by those of the other baselines (`small.py`).
"""

from __future__ import annotations

from models.recipe_tables import small
from models.recipe_tables.sources import Row, ours, paper

_METHOD: Row = {
    "crop_scale": paper(0.08),
    "flip": paper(0.5),
    "jitter": paper((0.4, 0.4, 0.4, 0.1)),
    "jitter_p": paper((0.8,)),
    "grayscale": paper(0.2),
    "blur": paper((0.0,)),
    "hidden": paper(512),
    "dim": paper(128),
    "temperature": paper(0.5),
}

ROWS: dict[str, Row] = small.rows(
    _METHOD,
    medium={"blur": ours((0.5,))},
    digits={"hidden": ours(128), "dim": ours(64)},
)
