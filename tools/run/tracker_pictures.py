"""The pictures that a tracker gets every few epochs: the method's views, and nearest neighbours by its features."""

from __future__ import annotations

import numpy as np

from models.evaluation.quality_monitor import QualityMonitor
from models.method import Method
from pipelines import Dataset
from tools.pictures.gallery import gallery_sheet, neighbors_among
from tools.pictures.view_sheets import views_sheet
from tools.run.tracker import Tracker

_ROWS, _NEIGHBORS = 8, 7  # rows of both pictures, and neighbours in a row


def show_pictures(
    tracker: Tracker, dataset: Dataset, method: Method, quality: QualityMonitor, step: int, main: bool
) -> None:
    """Send the pictures `views` and `neighbors` to the tracker. Every process must call it; the main one draws.

    Neighbours are searched among the images of the quality monitor. Cost: one pass over these images, and two sheets.
    """
    if tracker.kind is None:
        return
    features_ND = quality.features(method.encoder())[0]
    if not main:
        return
    rows_Q = np.linspace(0, len(features_ND) - 1, min(_ROWS, len(features_ND))).round().astype(np.int64)
    similarity_Qk, row_Qk = neighbors_among(features_ND.cpu(), rows_Q, _NEIGHBORS)
    chosen_N = quality.chosen_N
    neighbors = gallery_sheet(dataset, chosen_N[rows_Q], dataset, chosen_N[row_Qk.numpy()], similarity_Qk.numpy())
    views = views_sheet(dataset, method.views, min(_ROWS, dataset.number), seed=0, epoch=step)
    tracker.pictures(step, views=views, neighbors=neighbors)
