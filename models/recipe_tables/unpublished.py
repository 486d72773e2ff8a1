"""Changes to every method's recipe for data that nothing was published on, always this project's choice."""

from __future__ import annotations

from models.recipe_tables.sources import Row, ours

#: Normalisation by the training images' own means and deviations.
STATISTICS: Row = {"mean": ours(()), "std": ours(())}
#: Thousands of photographs of any size.
PHOTOS: Row = {
    "stem": ours("imagenet"),
    "image_size": ours(128),
    "crop_ratio": ours(128 / 144),
    "crop_size": ours(128),
}
#: 1,442 training images of 8 x 8 pixels: a narrow network, no mirrored digits, no blur that removes strokes.
DIGITS: Row = {
    "width": ours(16),
    "image_size": ours(16),
    "crop_size": ours(16),
    "crop_scale": ours(0.5),
    "flip": ours(0.0),
    "blur": ours((0.0,)),
    "batch_size": ours(64),
    "epochs": ours(60),
    "warmup_epochs": ours(2.0),
}
