"""The section of a report about CGH's hypercolumn branch: its maps of a few images, from the stages to the neck.

B images, C channels, H x W positions, M = B * H * W positions of all images.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.evaluation.features import evaluating
from models.methods.cgh import Cgh
from models.storage import checkpoint
from pipelines import Dataset, make_loader
from pipelines.plan.views import evaluation
from tools.pictures.contact_sheet import CELL, Cell, class_of, pictures, sheet
from tools.reporting.page import Section, as_picture
from tools.run.record import RunRecord, method_of

_IMAGES = 6


def hypercolumn_section(record: RunRecord, dataset: Dataset, seed: int) -> Section | None:
    """Draw maps of a few training images by the newest checkpoint; return None for methods without hypercolumns."""
    if record.config["method"] != "cgh":
        return None
    found, _ = checkpoint.newest(record.path / "checkpoints")
    if found is None:
        return Section("Hypercolumns", "Left out: the run has no checkpoint.")
    method = method_of(record.config)
    assert isinstance(method, Cgh)
    method.load_state_dict(found.model)
    count = min(_IMAGES, dataset.number)
    chosen = np.sort(np.random.default_rng(seed).choice(dataset.number, count, replace=False)).astype(np.int64)
    recipe = record.config["recipe"]
    view = evaluation(int(recipe["image_size"]), float(recipe["crop_ratio"]), recipe.get("resize", "area"))
    with make_loader(dataset, [view], count, subset=chosen, shuffle=False, drop_last=False) as loader:
        images = next(iter(loader.epoch(0))).views[0]
    student = method.student
    with evaluating(student), torch.no_grad():
        maps = student.backbone(images).maps
        column = student.neck.hypercolumn(maps)
        mixed = student.neck.mixed(column)
    stages = student.neck.stages
    columns = [
        *(_strength(maps[stage].float().norm(dim=1)) for stage in stages),
        _principal(column.float()),
        _strength(mixed.float().mean(1)),
    ]
    rows = [
        [Cell(image, None, class_of(dataset, number)), *(Cell(drawn[n]) for drawn in columns)]
        for n, (image, number) in enumerate(zip(pictures(dataset, view, chosen), chosen.tolist(), strict=True))
    ]
    sides = [f"{stage} ({maps[stage].shape[-1]} x {maps[stage].shape[-1]})" for stage in stages]
    drawn = sheet(rows, ["image", *sides, "hypercolumn", "after 1x1 conv"])
    text = (
        f"The student at step {found.state['step']:,}. {' and '.join(stages)}: the norm of the feature vector at each "
        "position. Hypercolumn: all stages resized to the size of the last; the first three principal components over "
        "these images are shown as red, green and blue, so that equal colours mean equal content. After the 1x1 "
        "convolution: the mean of its channels, which the branch averages over all positions. Brightness runs from the "
        "1st to the 99th percentile of each picture."
    )
    return Section("Hypercolumns", text, (as_picture("hypercolumns.png", drawn, "Maps of training images."),))


def _strength(map_BHW: Tensor) -> list[Image.Image]:
    """Draw each map in grey, small values dark and large values bright."""
    return [_enlarged(torch.stack([_scaled(one_HW)] * 3, -1)) for one_HW in map_BHW]


def _principal(column_BCHW: Tensor) -> list[Image.Image]:
    """Draw the first three principal components of all positions as colours, on a scale common to all images."""
    batch, _, height, width = column_BCHW.shape
    position_MC = column_BCHW.permute(0, 2, 3, 1).flatten(0, 2)
    position_MC = position_MC - position_MC.mean(0)
    direction_C3 = torch.linalg.svd(position_MC.double(), full_matrices=False).Vh[:3].T
    color_M3 = position_MC.double() @ direction_C3
    if color_M3.shape[1] < 3:
        color_M3 = torch.nn.functional.pad(color_M3, (0, 3 - color_M3.shape[1]))
    color_M3 = torch.stack([_scaled(one_M) for one_M in color_M3.unbind(1)], 1)
    return [_enlarged(one_HW3) for one_HW3 in color_M3.view(batch, height, width, 3)]


def _scaled(values: Tensor) -> Tensor:
    """Scale values to 0..1 from their 1st to their 99th percentile, so that one outlier does not hide the others."""
    low, high = values.flatten().float().quantile(values.new_tensor([0.01, 0.99], dtype=torch.float32))
    scaled: Tensor = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return scaled


def _enlarged(color_HW3: Tensor) -> Image.Image:
    pixels = (color_HW3 * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.NEAREST)
