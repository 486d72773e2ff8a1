"""The section of a report with a map of the features: t-SNE places images that the network finds similar side by side.

N images, D features, C classes, M points of one class.
"""

from __future__ import annotations

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.manifold import TSNE

from pipelines import Dataset
from pipelines.plan.views import evaluation
from tools.pictures.contact_sheet import pictures
from tools.reporting.figures import as_png, figure, label, style
from tools.reporting.page import Picture, Section, as_picture

_SIDE, _THUMB, _EDGE = 1100, 40, 30  # pixels of the canvas, of a thumbnail and of the margin
_NAMED = 18  # classes with a colour of their own: those of tab20 without its greys, which are for other images


def map_section(dataset: Dataset, number_N: NDArray[np.int64], features_ND: NDArray[np.float32], seed: int) -> Section:
    """Draw the map with thumbnails and, if there are labels, again with a colour for each class.

    Args:
        number_N: the images' numbers in the data set.
        seed: the seed of t-SNE and of the choice of thumbnails.
    """
    if len(number_N) < 5:
        return Section("Map of the features", f"Left out: {len(number_N)} images are too few for a map.")
    position_N2 = tsne(features_ND, seed)
    text = (
        f"t-SNE of the unit features of {len(number_N):,} images of {dataset.path.name}, spread evenly over the file. "
        "Only neighbourhoods have a meaning; distances between groups, and the sizes of groups, have none."
    )
    drawn = [_thumbnails(dataset, number_N, position_N2, seed)]
    label_N = dataset.labels[number_N]
    if (label_N >= 0).any():
        drawn.append(_classes(dataset, label_N, position_N2))
    else:
        text += " Colours by class are left out: the images have no labels."
    return Section("Map of the features", text, tuple(drawn))


def tsne(features_ND: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Return the positions [N, 2] of the features, normalised to unit length, in the unit square."""
    unit_ND = features_ND / np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12)
    flat = np.ptp(unit_ND) == 0  # all features are equal, so that PCA, from which t-SNE starts, is undefined
    perplexity = min(30.0, (len(unit_ND) - 1) / 3)
    solver = TSNE(perplexity=perplexity, init="random" if flat else "pca", random_state=seed)
    position_N2 = np.asarray(solver.fit_transform(unit_ND.astype(np.float32)), dtype=np.float64)
    low, high = position_N2.min(0), position_N2.max(0)
    unit_N2: NDArray[np.float64] = (position_N2 - low) / np.maximum(high - low, 1e-12)
    return unit_N2


def _thumbnails(dataset: Dataset, number_N: NDArray[np.int64], position_N2: NDArray[np.float64], seed: int) -> Picture:
    """Draw as many images as fit without overlap at their positions, and points for the others."""
    corner_N2 = (_EDGE + position_N2 * (_SIDE - 2 * _EDGE - _THUMB)).round().astype(int)
    kept: list[int] = []
    for n in np.random.default_rng(seed).permutation(len(number_N)):
        if not kept or (np.abs(corner_N2[kept] - corner_N2[n]).max(1) > _THUMB).all():
            kept.append(int(n))
    kept.sort()
    canvas = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(canvas)
    for x, y in corner_N2 + _THUMB // 2:
        draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(200, 204, 210))
    for n, thumb in zip(kept, pictures(dataset, evaluation(_THUMB), number_N[kept], _THUMB), strict=True):
        canvas.paste(thumb, (int(corner_N2[n, 0]), int(corner_N2[n, 1])))
    return as_picture("map.png", canvas, f"{len(kept)} of the images at their positions; grey points are the others.")


def _classes(dataset: Dataset, label_N: NDArray[np.int64], position_N2: NDArray[np.float64]) -> Picture:
    count_C = np.bincount(label_N[label_N >= 0], minlength=len(dataset.classes))
    named = sorted(np.argsort(-count_C, kind="stable")[:_NAMED].tolist())
    names = {-1: "no label"} | {c: label(dataset.classes[c]) for c in named}
    others = int((count_C > 0).sum()) - int((count_C[named] > 0).sum())
    drawn = figure(9.2, 7.4)
    with style():
        axes = drawn.add_subplot()
        axes.set_axis_off()
        greys = (14, 15)
        tab20 = [matplotlib.colormaps["tab20"](n) for n in range(20) if n not in greys]
        colors = tab20 if len(named) > 10 else [matplotlib.colormaps["tab10"](n) for n in range(10)]
        grey_N = ~np.isin(label_N, named)
        axes.scatter(*_points(position_N2[grey_N & (label_N >= 0)]), s=7, color="#d9dce0", linewidths=0)
        for index, (number, name) in enumerate(names.items()):
            own_N = label_N == number
            if own_N.any():  # the space before the name: matplotlib leaves labels that start with _ out
                color = "#c4c8ce" if number < 0 else colors[index - 1]
                axes.scatter(*_points(position_N2[own_N]), s=9, color=color, linewidths=0, label=f" {name}")
        drawn.legend(frameon=False, loc="outside right center", markerscale=2.5)
    caption = "The same map with a colour for each class. Training did not use the labels."
    if others:
        caption = (
            f"The same map with a colour for each of the {_NAMED} classes with the most images here; images of the "
            f"{others} other classes are pale. Training did not use the labels."
        )
    return as_png(drawn, "map-classes.png", caption)


def _points(position_M2: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return position_M2[:, 0], 1 - position_M2[:, 1]
