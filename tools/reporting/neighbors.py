"""The sections of a report about held-out images: their nearest training images, and the classes that kNN confuses.

Q queries, k neighbours, C classes, D features, R rows of a table.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from models.evaluation.knn import hits, nearest, vote
from models.evaluation.protocols.knn import KnnProtocol
from tools.pictures.gallery import gallery_sheet, neighbors_among
from tools.reporting.features import RunFeatures
from tools.reporting.figures import as_png, figure, label, style
from tools.reporting.page import Section, Table, as_picture

_NEIGHBORS = 8
_LEGIBLE = 25  # the largest number of classes whose names and numbers are legible in one picture
_LISTED = 10  # the number of confusions in the list


def gallery_section(features: RunFeatures, queries: int, seed: int) -> Section:
    """Draw randomly chosen queries beside their nearest training images."""
    source = features.held_out or features.bank
    count = min(queries, len(source.number_N))
    rows_Q = np.sort(np.random.default_rng(seed).choice(len(source.number_N), count, replace=False))
    if features.held_out is None:
        similarity_Qk, row_Qk = neighbors_among(source.features_ND, rows_Q, _NEIGHBORS)
        origin = "Queries are training images too, because no held-out ones are known."
    else:
        query_QD = source.features_ND[torch.from_numpy(rows_Q)]
        similarity_Qk, row_Qk = nearest(
            query_QD, features.bank.features_ND, min(_NEIGHBORS, len(features.bank.number_N))
        )
        origin = f"Queries are held-out images of {source.dataset.path.name}, drawn at random."
    drawn = gallery_sheet(
        source.dataset,
        source.number_N[rows_Q],
        features.bank.dataset,
        features.bank.number_N[row_Qk.numpy()],
        similarity_Qk.numpy(),
    )
    text = (
        f"{origin} Beside each, the nearest of {len(features.bank.number_N):,} training images by the cosine of the "
        f"student's pooled features at step {features.step:,}; the number under a picture is that cosine."
    )
    if (source.label_N >= 0).any():
        text += " A green frame means the query's class, a red one another class."
    return Section("Nearest neighbours", text, (as_picture("neighbors.png", drawn, "Queries and their neighbours."),))


def confusion_section(features: RunFeatures) -> Section:
    """Draw how often kNN takes each class for each other one, over the labelled held-out images."""
    title = "Confusion of classes"
    held_out, bank = features.held_out, features.bank
    classes = bank.dataset.classes
    if held_out is None or not classes or not (held_out.label_N >= 0).any() or not (bank.label_N >= 0).any():
        return Section(title, "Left out: it needs labels of both the training and the held-out images.")
    known_Q = held_out.label_N >= 0
    protocol = KnnProtocol.for_bank(len(bank.number_N))
    k = min(protocol.k, len(bank.number_N))
    similarity_Qk, row_Qk = nearest(held_out.features_ND[known_Q], bank.features_ND, k)
    scores_QC = vote(similarity_Qk, bank.label_N[row_Qk], protocol.temperature, len(classes))
    label_Q = held_out.label_N[known_Q]
    count_CC = confusion(label_Q, scores_QC.argmax(1), len(classes))
    right = 100 * float(hits(scores_QC, label_Q, 1).float().mean())
    share_CC = count_CC / count_CC.sum(1, keepdims=True).clip(1)
    voting = f"{len(bank.number_N):,} training images vote, in float32"
    of = f"{len(label_Q):,} held-out images, {voting}, step {features.step:,}"
    text = f"kNN top-1 {right:.2f} % ({protocol.id}; {of}). Rows are the true classes, columns are what kNN predicts."
    wrong_CC = count_CC.copy()
    np.fill_diagonal(wrong_CC, 0)
    chosen = most_confused(wrong_CC, _LEGIBLE)
    drawn_CC = 100 * share_CC[np.ix_(chosen, chosen)]
    names = columns = [label(classes[c], 18) for c in chosen]
    if len(chosen) < len(classes):
        text += f" Drawn are the {len(chosen)} of {len(classes)} classes that are confused most."
        drawn_CC, columns = np.column_stack([drawn_CC, 100 - drawn_CC.sum(1)]), [*columns, "another class"]
    picture = as_png(_table(drawn_CC, names, columns), "confusion.png", f"Shares in per cent, {protocol.id}.")
    order = np.argsort(wrong_CC, axis=None, kind="stable")[::-1][:_LISTED]
    pairs = [np.unravel_index(index, wrong_CC.shape) for index in order if wrong_CC.flat[index]]
    rows = tuple((classes[i], classes[j], f"{wrong_CC[i, j]:,}", f"{100 * share_CC[i, j]:.1f} %") for i, j in pairs)
    table = Table(("class", "taken for", "images", "share of the class"), rows, "The most frequent confusions")
    return Section(title, text, (picture,), (table,) if rows else ())


def most_confused(wrong_CC: np.ndarray, most: int) -> list[int]:
    """Return the `most` classes with the most mistakes, as true or as predicted class, in ascending order."""
    mistakes_C = wrong_CC.sum(0) + wrong_CC.sum(1)
    return sorted(np.argsort(-mistakes_C, kind="stable")[:most].tolist())


def _table(percent_RC: np.ndarray, rows: list[str], columns: list[str]) -> Figure:
    """Draw percentages as numbers on squares, the bluer the larger."""
    side = 2.6 + 0.42 * len(rows)
    drawn = figure(side + 1.2, side)
    with style():
        axes = drawn.add_subplot()
        image = axes.imshow(percent_RC, cmap="Blues", vmin=0, vmax=100)
        axes.grid(False)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        drawn.colorbar(image, ax=axes, label="% of the row", shrink=0.7)
        axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows)
        for (row, column), value in np.ndenumerate(percent_RC):
            ink = "white" if value > 55 else "#333333" if value >= 0.5 else "#bbbbbb"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=ink)
    return drawn


def confusion(label_Q: torch.Tensor, predicted_Q: torch.Tensor, classes: int) -> np.ndarray:
    """Return counts [C, C]; rows are the true classes, columns the predicted ones."""
    return torch.bincount(label_Q * classes + predicted_Q, minlength=classes**2).view(classes, classes).numpy()
