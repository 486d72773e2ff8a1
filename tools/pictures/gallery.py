"""Nearest-neighbour galleries: queries beside the images that a network finds most similar to them.

Q queries, N images of the bank, D features, k neighbours.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.search.nearest import Nearest
from pipelines import Dataset
from pipelines.plan.views import evaluation
from tools.pictures.contact_sheet import CELL, Cell, class_of, frame, pictures, sheet


def neighbors_among(features_ND: Tensor, rows_Q: NDArray[np.int64], k: int) -> tuple[Tensor, Tensor]:
    """Find the k nearest neighbours of some rows among all other rows: similarities [Q, k] and rows [Q, k]."""
    row_Q = torch.from_numpy(rows_Q).to(features_ND.device)
    search = Nearest(features_ND[row_Q], min(k, len(features_ND) - 1), own_N=row_Q)
    search.update(torch.arange(len(features_ND), device=features_ND.device), features_ND)
    return search.similarity_Nk, search.number_Nk


def gallery_sheet(
    queries: Dataset,
    query_Q: NDArray[np.int64],
    bank: Dataset,
    neighbor_Qk: NDArray[np.int64],
    similarity_Qk: NDArray[np.floating],
) -> Image.Image:
    """Draw one row per query: the query, then its neighbours, nearest first, with their cosines and known classes.

    Args:
        query_Q: the queries' numbers in the data set `queries`, ascending.
        neighbor_Qk: the neighbours' numbers in the data set `bank`.
        similarity_Qk: the cosines between query and neighbour.
    """
    shown = pictures(queries, evaluation(CELL), query_Q)
    found = dict(zip(np.unique(neighbor_Qk).tolist(), pictures(bank, evaluation(CELL), neighbor_Qk), strict=True))
    rows: list[list[Cell | None]] = []
    for n, query in enumerate(query_Q.tolist()):
        row: list[Cell | None] = [Cell(shown[n], None, class_of(queries, query))]
        for neighbor, similarity in zip(neighbor_Qk[n].tolist(), similarity_Qk[n], strict=True):
            colour = frame(queries.labels[query], bank.labels[neighbor])
            row.append(Cell(found[neighbor], colour, f"{similarity:.2f} {class_of(bank, neighbor)}"))
        rows.append(row)
    return sheet(rows, ["query", *(f"neighbour {n + 1}" for n in range(neighbor_Qk.shape[1]))])
