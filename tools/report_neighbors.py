"""What the features say of held-out images: their nearest training images, and the classes that kNN takes for others.

Q queries, k neighbours, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.ticker import FixedLocator

from models.knn import hits, nearest, vote
from models.protocols import KnnProtocol
from tools.gallery import gallery_sheet, neighbors_among
from tools.report_figures import figure, finished, looked
from tools.report_looks import Looks
from tools.report_page import Section, Table, as_picture

_NEIGHBORS = 8
_LEGIBLE = 25  # classes whose names and numbers can be read on the axes
_LISTED = 10


def gallery_section(looks: Looks, queries: int, seed: int) -> Section:
    """Queries and their nearest training images."""
    source = looks.held_out or looks.bank
    count = min(queries, len(source.number_N))
    rows_Q = np.sort(np.random.default_rng(seed).choice(len(source.number_N), count, replace=False))
    if looks.held_out is None:
        similarity_Qk, row_Qk = neighbors_among(source.features_ND, rows_Q, _NEIGHBORS)
        origin = "Queries are training images too: no held-out ones are known."
    else:
        query_QD = source.features_ND[torch.from_numpy(rows_Q)]
        similarity_Qk, row_Qk = nearest(query_QD, looks.bank.features_ND, min(_NEIGHBORS, len(looks.bank.number_N)))
        origin = f"Queries are held-out images of {source.dataset.path.name}, drawn at random."
    drawn = gallery_sheet(
        source.dataset, source.number_N[rows_Q], looks.bank.dataset, looks.bank.number_N[row_Qk.numpy()],
        similarity_Qk.numpy(),
    )  # fmt: skip
    text = (
        f"{origin} Beside each, the nearest of {len(looks.bank.number_N):,} training images by the cosine of the "
        f"student's pooled features at step {looks.step:,}; the number under a picture is that cosine."
    )
    if (source.label_N >= 0).any():
        text += " A green frame: the query's class, a red one: another."
    return Section("Nearest neighbours", text, (as_picture("neighbors.png", drawn, "Queries and their neighbours."),))


def confusion_section(looks: Looks) -> Section:
    """Which classes kNN takes for which, over the held-out images."""
    title = "Confusion of classes"
    held_out, bank = looks.held_out, looks.bank
    classes = bank.dataset.classes
    if held_out is None or not classes or not (held_out.label_N >= 0).any() or not (bank.label_N >= 0).any():
        return Section(title, "Left out: it takes labels in both the training and the held-out images.")
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
    of = f"{len(label_Q):,} held-out images, {voting}, step {looks.step:,}"
    text = f"kNN top-1 {right:.2f} % ({protocol.id}; {of}). A row is a class, its columns what kNN takes it for."

    readable = len(classes) <= _LEGIBLE
    side = 2.6 + 0.42 * len(classes) if readable else 8.0
    drawn = figure(side + 1.2, side)
    with looked():
        axes = drawn.add_subplot()
        image = axes.imshow(100 * share_CC, cmap="Blues", vmin=0, vmax=100)
        axes.grid(False)
        axes.set_xlabel("kNN says")
        axes.set_ylabel("class")
        drawn.colorbar(image, ax=axes, label="% of the row", shrink=0.7)
        if readable:
            names = [name if len(name) <= 18 else f"{name[:17]}..." for name in classes]
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(FixedLocator(list(range(len(classes)))))
            axes.set_xticklabels(names, rotation=45, ha="right", rotation_mode="anchor")
            axes.set_yticklabels(names)
            for row, column in np.ndindex(*share_CC.shape):
                value = 100 * share_CC[row, column]
                ink = "white" if value > 55 else "#333333" if value >= 0.5 else "#bbbbbb"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=ink)
    wrong_CC = count_CC.copy()
    np.fill_diagonal(wrong_CC, 0)
    order = np.argsort(wrong_CC, axis=None, kind="stable")[::-1][:_LISTED]
    pairs = [np.unravel_index(place, wrong_CC.shape) for place in order if wrong_CC.flat[place]]
    rows = tuple((classes[i], classes[j], f"{wrong_CC[i, j]:,}", f"{100 * share_CC[i, j]:.1f} %") for i, j in pairs)
    table = Table(("class", "taken for", "images", "of the class"), rows, "The most frequent confusions")
    picture = finished(drawn, "confusion.png", f"Shares of each class in per cent, {protocol.id}.")
    return Section(title, text, (picture,), (table,) if rows else ())


def confusion(label_Q: torch.Tensor, said_Q: torch.Tensor, classes: int) -> np.ndarray:
    """[C, C] counts: rows are the true classes, columns what was said."""
    return torch.bincount(label_Q * classes + said_Q, minlength=classes**2).view(classes, classes).numpy()
