"""Label-free measures of features, queues and soft labels, to watch while a method trains.

    alignment    mean of |u - v|^2 over unit features u, v of two views of one image: 0 where both views coincide
    uniformity   log of the mean of e^(-2 |u - v|^2) over pairs of different images: 0 collapsed, -4 spread evenly
    entropy      of a teacher's soft label over its queue, in nats: 0 selects one key, log K selects none
    queue age    steps that the oldest key has waited

Spread and effective rank are in `collapse.py`. All functions are pure: the state belongs to the method.

Shapes: N samples, D features, B queries, K keys of a queue, C keys and R rows of a chunk, P chunks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.queue import KeyQueue

_ROWS = 512  # rows of a chunk of pairs: at 2,048 images 8 MiB in float64
_KEYS = 4096  # keys of a chunk of a queue: with 64 queries 1 MiB of logits
_QUERIES = 64  # keys whose soft labels are recomputed: enough to know the mean entropy to a few per cent


def alignment(first_ND: Tensor, second_ND: Tensor) -> float:
    """Return the mean squared distance of the unit features of two views of the same images, from 0 to 4.

    Wang & Isola, arXiv 2005.10242, equation for l_align with alpha = 2.
    """
    return float((normalize(first_ND.double()) - normalize(second_ND.double())).square().sum(1).mean())


def uniformity(features_ND: Tensor) -> float:
    """Return the log of the mean Gaussian potential of pairs of different rows, from about -4 (even) to 0 (one point).

    Wang & Isola, arXiv 2005.10242, l_uniform with t = 2. Memory: one chunk of pairs.

    Raises:
        ValueError: fewer than two rows.
    """
    count = len(features_ND)
    if count < 2:
        raise ValueError(f"uniformity of {count} rows; give at least 2")
    unit_ND = normalize(features_ND.double())
    # |u - v|^2 = 2 - 2 u.v; the pair of a row with itself, e^0, is subtracted from the sum.
    sums = [(4 * (rows_RD @ unit_ND.T) - 4).exp().sum() for rows_RD in torch.split(unit_ND, _ROWS)]
    total = float(torch.stack(sums).sum()) - count
    return math.log(max(total, torch.finfo(torch.float64).tiny) / (count * (count - 1)))


def soft_label_entropy(teacher_BD: Tensor, blocks: Sequence[Tensor], temperature: float) -> Tensor:
    """Return the entropy of softmax(teacher . queue / temperature) in nats, computed chunk by chunk of the queue.

        H = log Z - sum_k p_k l_k,  Z = sum_k e^(l_k)        l the logits; each chunk has a Z and a mean logit

    Args:
        teacher_BD: L2-normalised inside.
        blocks: the queue's keys [K_i, D], in any number of blocks; L2-normalised inside.

    Returns:
        [B] float32.

    Raises:
        ValueError: the temperature is not above 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; give more than 0")
    rows_BD = normalize(teacher_BD.detach().float()) / temperature
    normalizers, logits = [], []
    for keys_CD in (keys_CD for keys_KD in blocks for keys_CD in torch.split(keys_KD, _KEYS) if len(keys_CD)):
        logit_BC = rows_BD @ normalize(keys_CD.float()).T
        normalizers.append(logit_BC.logsumexp(1))
        logits.append((logit_BC.softmax(1) * logit_BC).sum(1))
    normalizer_PB = torch.stack(normalizers)
    return normalizer_PB.logsumexp(0) - (normalizer_PB.softmax(0) * torch.stack(logits)).sum(0)


def teacher_entropy(queue: KeyQueue, temperature: float, number: int = 0) -> float:
    """Return the mean entropy of a teacher's latest soft labels, in nats, computed from queue `number` alone.

    The newest keys are the teacher's embeddings of the latest images, and the keys before them are what they were
    compared with. So their soft labels can be recomputed, except for the keys that they have pushed out, without any
    image, and every process gets the same value.
    """
    keys_KD = queue.live(number)
    count = min(_QUERIES, len(keys_KD) // 2)
    first = int(queue.pointer) - count  # row of the first of the newest keys; negative where they wrap around
    newest_BD = keys_KD[torch.arange(first, first + count, device=keys_KD.device) % len(keys_KD)]
    older = [keys_KD[:first], keys_KD[first + count :]] if first >= 0 else [keys_KD[first + count : first]]
    return float(soft_label_entropy(newest_BD, older, temperature).mean())


def queue_age(queue: KeyQueue, batch_size: int) -> int:
    """Return the steps that the oldest key has waited, at `batch_size` keys a step; random keys do not count."""
    return math.ceil(int(queue.filled) / batch_size)
