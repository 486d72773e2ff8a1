"""NNCLR's recipes (arXiv 2104.14548): its heads (2048, 2048, 256; predictor 4096) and temperature.

The paper trains on ImageNet only (queue 98,304, LARS, batch 4096); queue, views and rates here are those of the
project's other baselines on small images (`small.py`).
"""

from __future__ import annotations

from models.recipe_tables import small
from models.recipe_tables.sources import Row, ours, paper

_METHOD: Row = {
    "crop_scale": ours(0.2),
    "flip": paper(0.5),
    "jitter": ours((0.4, 0.4, 0.4, 0.1)),
    "jitter_p": paper((0.8,)),
    "grayscale": paper(0.2),
    "blur": ours((0.5,)),
    "hidden": paper(2048),
    "dim": paper(256),
    "predictor_hidden": paper(4096),
    "temperature": paper(0.1),
    "queue_size": ours(4096),
}

ROWS: dict[str, Row] = small.rows(
    _METHOD,
    medium={"queue_size": ours(16384)},
    digits={"hidden": ours(256), "dim": ours(64), "predictor_hidden": ours(256), "queue_size": ours(1024)},
)
