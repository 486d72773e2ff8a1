"""Candidate partners of every sample, and how pairs are mixed: what CLIM's selection hands to the plan.

N = images, M = entries of the pool of candidates, k = neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pairing:
    """Candidates of every sample: sample i draws its partner uniformly from `pool[start[i] : start[i] + count[i]]`.

    Memory: N x 12 bytes, and 4 bytes for each entry of the pool (at most N x k for k neighbours).

    Attributes:
        pool: [M] int32, indices in the data set.
        start: [N] int64, where a sample's candidates begin in the pool; ranges of samples may overlap.
        count: [N] int32, number of candidates; 0 = the sample has no partner.
        mix_probability: probability that a step mixes; other steps are plain.
        mix_alpha: CutMix's lambda is drawn from Beta(alpha, alpha), once a step (arXiv 1905.04899).
        neighbors: [N, k] int32, the local neighbours before selection; only the monitor reads them.
    """

    pool: NDArray[np.int32]
    start: NDArray[np.int64]
    count: NDArray[np.int32]
    mix_probability: float
    mix_alpha: float
    neighbors: NDArray[np.int32] | None = None


def same_class_rates(pairing: Pairing, labels_N: NDArray[np.integer]) -> dict[str, float]:
    """Return how often a drawn partner has its anchor's class: a monitor for labelled data, not used in training.

    Args:
        labels_N: [N] classes, -1 = unlabelled. Pairs with an unlabelled side are left out.

    Returns:
        rates from 0 to 1: `selected`, the mean over the anchors that have candidates; `neighbors`, the same for all k
        neighbours before selection, where the pairing holds them; `chance`, for a random other sample; `paired`, the
        share of all samples that have candidates, labelled or not.
    """
    labelled = labels_N >= 0
    anchor_M = np.repeat(np.arange(len(labels_N)), pairing.count)
    offset_M = np.arange(len(anchor_M)) - np.repeat(np.cumsum(pairing.count) - pairing.count, pairing.count)
    partner_M = pairing.pool[pairing.start[anchor_M] + offset_M]
    known_M = labelled[anchor_M] & labelled[partner_M]
    anchor_M, partner_M = anchor_M[known_M], partner_M[known_M]
    same_M = labels_N[anchor_M] == labels_N[partner_M]
    partners_N = np.bincount(anchor_M, minlength=len(labels_N))  # labelled ones of labelled anchors
    counts = np.bincount(labels_N[labelled]).astype(np.float64)
    total = counts.sum()
    rates = {
        "selected": float((same_M / partners_N[anchor_M]).sum() / max((partners_N > 0).sum(), 1)),
        "chance": float((counts * (counts - 1)).sum() / max(total * (total - 1), 1)),
        "paired": float((pairing.count > 0).mean()),
    }
    if pairing.neighbors is not None:
        label_Nk = labels_N[pairing.neighbors]
        known_Nk = labelled[:, None] & (label_Nk >= 0)
        same_Nk = (label_Nk == labels_N[:, None]) & known_Nk
        rates["neighbors"] = float(same_Nk.sum() / max(known_Nk.sum(), 1))
    return rates
