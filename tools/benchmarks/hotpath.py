"""The losses over a queue, forward and backward: ours compiled, ours not compiled, and the plain formula.

    MSVQ   three soft labels: one student, three teachers, two queues (B = 256, D = 128)
    CGH    two students and two teachers over two aligned queues, swapped (B = 256, D = 512)
    CLIM   queries of two resolutions, two keys each, two queues (B = 256, D = 128)

The plain formula is a direct transcription of the papers: each loss on its own, with its matrix of all similarities
and autograd. As in training, the queues hold normalised keys, and queues and teachers get no gradient. Before anything
is timed, losses and gradients are compared with those of the plain formula.

B batch, K queue, D dimensions, R resolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.methods.cgh import Context, relate
from models.methods.msvq import three_soft_labels
from models.relations import info_nce
from pipelines.compiled import compile_hot_path
from tools.benchmarks.measure import Case, Settings, milliseconds, peak_memory, take_turns

BATCH = 256
QUEUES = (4096, 65536, 131072)

Loss = Callable[[], Tensor]
#: The students' embeddings, and two functions that compute the same loss of them: ours and the plain formula.
Problem = tuple[list[Tensor], Loss, Loss]


def cases(settings: Settings, queues: Sequence[int] = QUEUES) -> Iterator[Case]:
    """Measure each method's losses over queues of the given sizes."""
    try:
        for method in (msvq, cgh, clim):
            for size in queues:
                yield measure(f"{method.__name__.upper()}, K = {size:,}", *method(size, settings.device), settings)
    finally:
        compile_hot_path(False)


def measure(name: str, students: list[Tensor], ours: Loss, plain: Loss, settings: Settings) -> Case:
    """Compare the contenders' results, then measure their time and memory."""
    contenders = {
        "ours": training(ours, students, compile=True),
        "ours, not compiled": training(ours, students, compile=False),
        "plain formula": training(plain, students, compile=False),
    }
    expected = contenders["plain formula"]()
    for contender, run in contenders.items():  # the first call compiles
        for found, value in zip(run(), expected, strict=True):
            if not (found - value).norm() <= 1e-5 * value.norm():
                raise ValueError(f"{name}: {contender} and the plain formula disagree; the benchmark is meaningless")
    peak = {contender: peak_memory(run, settings.device) for contender, run in contenders.items()}
    times = {contender: milliseconds(run, settings.device) for contender, run in contenders.items()}
    return Case(name, "ms", take_turns(times, settings.repeats), peak)


def training(loss: Loss, students: list[Tensor], *, compile: bool) -> Callable[[], list[Tensor]]:
    """Return a contender that computes the loss and the students' gradients."""

    def run() -> list[Tensor]:
        compile_hot_path(compile)
        value = loss()
        return [value.detach(), *torch.autograd.grad(value, students)]

    return run


def rows(count: int, width: int, device: str, seed: int, *, trained: bool = False) -> Tensor:
    """Return random rows [count, width]; those of a student are `trained`."""
    random = torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).to(device)
    return random.requires_grad_(trained)


def queue(size: int, width: int, device: str, seed: int) -> Tensor:
    """Return a queue of random normalised keys."""
    return F.normalize(rows(size, width, device, seed), dim=1)


def msvq(size: int, device: str) -> Problem:
    student = rows(BATCH, 128, device, 1, trained=True)
    second, third, fourth = (rows(BATCH, 128, device, seed) for seed in (2, 3, 4))
    first_queue, second_queue = (queue(size, 128, device, seed) for seed in (5, 6))

    def ours() -> Tensor:
        losses = three_soft_labels(student, (second, third), fourth, first_queue, second_queue, 0.1, 0.04)
        return torch.stack(losses).mean()

    def plain() -> Tensor:
        pairs = ((second, first_queue), (third, first_queue), (fourth, second_queue))
        return torch.stack([plain_soft_label(student, key, keys, 0.1, 0.04, keys) for key, keys in pairs]).mean()

    return [student], ours, plain


def cgh(size: int, device: str) -> Problem:
    image, hyper = (
        Context(
            rows(BATCH, 512, device, seed, trained=True),
            rows(BATCH, 512, device, seed + 1),
            queue(size, 512, device, seed + 2),
            student_tau,
            teacher_tau,
        )
        for seed, student_tau, teacher_tau in ((1, 0.1, 0.04), (4, 0.08, 0.08))
    )

    def ours() -> Tensor:
        return 0.5 * (relate(image, hyper).mean() + relate(hyper, image).mean())

    def plain() -> Tensor:
        losses = [
            plain_soft_label(
                learner.student_BD,
                teacher.key_BD,
                learner.queue_KD,
                learner.student_temperature,
                teacher.teacher_temperature,
                teacher.queue_KD,
            )
            for learner, teacher in ((image, hyper), (hyper, image))
        ]
        return torch.stack(losses).mean()

    return [image.student_BD, hyper.student_BD], ours, plain


def clim(size: int, device: str) -> Problem:
    queries = [rows(BATCH, 128, device, seed, trained=True) for seed in (1, 2)]
    keys = [[rows(BATCH, 128, device, 10 * seed + number) for number in (0, 1)] for seed in (1, 2)]
    queues = [queue(size, 128, device, seed) for seed in (3, 4)]

    def ours() -> Tensor:
        query_R1BD = torch.stack(queries)[:, None]
        pairs = zip(keys, queues, strict=True)
        return torch.stack([info_nce(query_R1BD, torch.stack(own), queue, 0.2) for own, queue in pairs]).mean()

    def plain() -> Tensor:
        return torch.stack(
            [
                plain_info_nce(query, key, queue, 0.2)
                for query in queries
                for own, queue in zip(keys, queues, strict=True)
                for key in own
            ]
        ).mean()

    return queries, ours, plain


def plain_soft_label(
    student: Tensor, teacher: Tensor, queue: Tensor, student_tau: float, teacher_tau: float, teacher_queue: Tensor
) -> Tensor:
    """Return the soft-label cross-entropy [B], computed from two B x K matrices of similarities."""
    logits = F.normalize(student, dim=1) @ queue.T / student_tau
    target = F.softmax(F.normalize(teacher, dim=1) @ teacher_queue.T / teacher_tau, dim=1)
    return -(target * F.log_softmax(logits, dim=1)).sum(1)


def plain_info_nce(query: Tensor, key: Tensor, queue: Tensor, tau: float) -> Tensor:
    """Return InfoNCE [B] as in MoCo: cross-entropy with label 0 over one positive and K negatives."""
    query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], dim=1) / tau
    labels = torch.zeros(len(query), dtype=torch.long, device=query.device)
    return F.cross_entropy(logits, labels, reduction="none")
