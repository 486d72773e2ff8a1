"""Losses on similarities: what a query's similarities to keys are, and how far they are from a target.

All functions are pure: they gather nothing, hold nothing, and compute in float32 whatever the autocast type (in float64
where the query or student is float64). All rows are L2-normalised inside. No gradient reaches teachers, keys or queues.
Queues are streamed (models/losses/streaming.py): no B x K matrix is built, and the backward pass does not need the
queue.

Students, teachers, queries and keys may have dimensions before B, which broadcast as in arithmetic: two teachers
[2, B, D] of one student [B, D] give losses [2, B]. One pass over the queue serves all their rows.

Shapes: B samples, K keys of a queue, D features, N samples of the global batch, M rows of all leading dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.losses.streaming import attend, nearest


def _unit(rows_BD: Tensor, trained_BD: Tensor) -> Tensor:
    """Return L2-normalised rows in float32, or in float64 where the trained side is float64."""
    return F.normalize(rows_BD.to(torch.float64 if trained_BD.dtype == torch.float64 else torch.float32), dim=-1)


def _check_temperature(*temperatures: float) -> None:
    if min(temperatures) <= 0:
        raise ValueError(f"temperature is {min(temperatures)}; give more than 0")


def info_nce(query_BD: Tensor, key_BD: Tensor, queue_KD: Tensor, temperature: float) -> Tensor:
    """Return MoCo's loss (arXiv 1911.05722, equation 1): find the query's own key among those of a queue.

        loss = -log( exp(q.k / t) / (exp(q.k / t) + sum over the queue of exp(q.n / t)) )

    Keys of the batch are not negatives of one another. Gradient flows to the query only.

    Returns:
        [B] float32, the loss of each sample, in nats.

    Raises:
        ValueError: the temperature is not above 0.
    """
    _check_temperature(temperature)
    with torch.autocast(query_BD.device.type, enabled=False):
        scaled_BD, key_BD = _unit(query_BD, query_BD) / temperature, _unit(key_BD.detach(), query_BD)
        negative_B = attend(scaled_BD.flatten(0, -2), queue_KD)[0].view(query_BD.shape[:-1])
        positive_B = (scaled_BD * key_BD).sum(-1)
        return F.softplus(negative_B - positive_B)  # -log of the softmax's first column, without building the row


def soft_label_cross_entropy(
    student_BD: Tensor,
    teacher_BD: Tensor,
    queue_KD: Tensor,
    student_temperature: float,
    teacher_temperature: float,
    teacher_queue_KD: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of a student's relations to a queue against its teacher's (ReSSL, arXiv 2107.09282).

        p = softmax(teacher . queue / t_t), s = softmax(student . queue / t_s), loss = -sum over K of p log s

    There is no column for the sample's own key: its identity enters through the teacher's relations. MSVQ averages
    three of these losses; in CGH the teacher relates to another, aligned queue. Gradient flows to the student only.

    Args:
        teacher_queue_KD: the queue of the teacher's relations, if it is another one: row j of both from the same
            sample.

    Returns:
        [B] float32, the loss of each sample, in nats.

    Raises:
        ValueError: a temperature is not above 0, or the queues have different lengths.
    """
    _check_temperature(student_temperature, teacher_temperature)
    if teacher_queue_KD is not None and len(teacher_queue_KD) != len(queue_KD):
        raise ValueError(f"aligned queues must be of one length; got {len(queue_KD)} and {len(teacher_queue_KD)}")
    with torch.autocast(student_BD.device.type, enabled=False):
        student_BD = _unit(student_BD, student_BD) / student_temperature
        teacher_BD = _unit(teacher_BD.detach(), student_BD) / teacher_temperature
        student_MD, teacher_MD = student_BD.flatten(0, -2), teacher_BD.flatten(0, -2)
        if teacher_queue_KD is None:
            normalizer_M, mean_key_MD = attend(torch.cat([student_MD, teacher_MD]), queue_KD)
            normalizer_M, mean_key_MD = normalizer_M[: len(student_MD)], mean_key_MD[len(student_MD) :]
        else:
            normalizer_M, _ = attend(student_MD, queue_KD)
            _, mean_key_MD = attend(teacher_MD, teacher_queue_KD, queue_KD)
        # The targets of a row sum to one, so the log of the student's normaliser leaves the sum; and the mean of the
        # student's logits under the targets is its logit for the mean key.
        return normalizer_M.view(student_BD.shape[:-1]) - (student_BD * mean_key_MD.view_as(teacher_BD)).sum(-1)


def nt_xent(
    first_BD: Tensor,
    second_BD: Tensor,
    temperature: float,
    all_first_ND: Tensor | None = None,
    all_second_ND: Tensor | None = None,
    position_B: Tensor | None = None,
) -> Tensor:
    """Return SimCLR's loss (arXiv 2002.05709, equation 1): each of 2B rows must find the other view of its image.

    With several processes the 2N - 1 columns come from all of them: pass both views gathered with gradient
    (`distributed.gather_with_gradient`), and the positions of this process's rows in them (`distributed.positions`).
    The mean over processes of the result, and of its gradients, is then that of one process with the whole batch.

    Args:
        first_BD, second_BD: two views of the same images, rows of this process.
        all_first_ND, all_second_ND: both views of the global batch; give these and `position_B`, or none of the three.
        position_B: the positions in the global batch of this process's rows.

    Returns:
        The mean over the 2B rows, a scalar in nats.

    Raises:
        ValueError: the temperature is not above 0, or only some of the three are given.
    """
    _check_temperature(temperature)
    if all_first_ND is None and all_second_ND is None and position_B is None:
        all_first_ND, all_second_ND = first_BD, second_BD
        position_B = torch.arange(len(first_BD), device=first_BD.device)
    if all_first_ND is None or all_second_ND is None or position_B is None:
        raise ValueError("NT-Xent over several processes needs both views of the global batch and the rows' positions")
    with torch.autocast(first_BD.device.type, enabled=False):
        columns_ND = torch.cat([_unit(all_first_ND, first_BD), _unit(all_second_ND, first_BD)])
        rows_BD = torch.cat([_unit(first_BD, first_BD), _unit(second_BD, first_BD)])
        itself_B = torch.cat([position_B, position_B + len(all_first_ND)])
        other_B = torch.cat([position_B + len(all_first_ND), position_B])
        logits_BN = (rows_BD @ columns_ND.T / temperature).scatter(1, itself_B[:, None], float("-inf"))
        return F.cross_entropy(logits_BN, other_B)


@torch.no_grad()
def nearest_keys(query_BD: Tensor, queue_KD: Tensor) -> tuple[Tensor, Tensor]:
    """Return the key of the queue with the largest cosine to each query (NNCLR, arXiv 2104.14548), without gradient.

    Returns:
        [B, D] unit keys, and [B] their rows in the queue.
    """
    row_B = nearest(_unit(query_BD, query_BD), queue_KD)
    return _unit(queue_KD.index_select(0, row_B), query_BD), row_B
