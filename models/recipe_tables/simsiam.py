"""SimSiam's recipes (arXiv 2011.10566): views and heads of the CIFAR-10 experiment in its appendix D.

That experiment has no blur, a projector of two layers to 2048, a predictor with hidden width 512; lr 0.03 times
batch / 256, weight decay 5e-4, batch 512, 800 epochs without warm-up. The rows replace optimizer, batch and epochs by
those of the other baselines (`small.py`).
"""

from __future__ import annotations

from models.recipe_tables import small
from models.recipe_tables.sources import Row, ours, paper

_METHOD: Row = {
    "crop_scale": paper(0.2),
    "flip": paper(0.5),
    "jitter": paper((0.4, 0.4, 0.4, 0.1)),
    "jitter_p": paper((0.8,)),
    "grayscale": paper(0.2),
    "blur": paper((0.0,)),
    "layers": paper(2),
    "hidden": paper(2048),
    "dim": paper(2048),
    "predictor_hidden": paper(512),
}

ROWS: dict[str, Row] = small.rows(
    _METHOD,
    medium={"blur": ours((0.5,)), "layers": ours(3)},
    digits={"hidden": ours(256), "dim": ours(256), "predictor_hidden": ours(64)},
)
