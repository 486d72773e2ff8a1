"""The weighted kNN accuracy of Wu et al. (arXiv 1805.01978) in plain torch, for `reference_trainer`."""

import torch
from torch.nn import functional as F

from tests.support.reference_trainer import normalised


@torch.no_grad()
def accuracy(network, fitted, held_out, budget, mean, std, temperature=0.1):
    """Return the weighted kNN accuracy in percent of the backbone's features of whole images."""
    network.eval()
    bank, queries = (
        F.normalize(torch.cat([network.backbone(x) for x in normalised(split.images, mean, std).split(500)]))
        for split in (fitted, held_out)
    )
    similarity, row = (queries @ bank.T).topk(budget.neighbors)
    one_hot = F.one_hot(torch.from_numpy(fitted.labels)).float()
    votes = (one_hot[row] * (similarity / temperature).exp()[..., None]).sum(1)
    return 100 * (votes.argmax(1).numpy() == held_out.labels).mean()
