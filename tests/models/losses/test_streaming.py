"""One pass over the queue in chunks against the whole matrix in float64; how it compiles; what memory it needs."""

import math
import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.losses import streaming
from models.losses.streaming import attend, nearest
from models.methods.msvq import three_soft_labels
from models.queue import KeyQueue
from models.relations import info_nce, nearest_keys, soft_label_cross_entropy
from pipelines.compiled import compile_hot_path
from tools.benchmarks.measure import peak_memory

D = 16


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative(value: Tensor, reference: Tensor) -> float:
    return ((value.double() - reference).norm() / reference.norm()).item()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(streaming.CHUNK, "cpu", 32)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
@pytest.mark.parametrize(("rows", "keys"), [(6, 96), (6, 100), (6, 20), (1, 96), (1, 1), (5, 33)])
def test_chunks_equal_the_whole_matrix(rows: int, keys: int, temperature: float) -> None:
    query, queue, other = normalize(random(rows, D)) / temperature, random(keys, D, seed=1), random(keys, D, seed=2)
    query.requires_grad_()
    logits = query @ normalize(queue).T
    expected = torch.logsumexp(logits, 1)
    share = torch.softmax(logits, 1).detach()
    (gradient,) = torch.autograd.grad((expected * torch.arange(1, rows + 1)).sum(), query)

    single = query.detach().float().requires_grad_()
    value, mean = attend(single, queue.float())
    (value * torch.arange(1, rows + 1)).sum().backward()
    assert value.dtype == mean.dtype == torch.float32 and not mean.requires_grad
    # A logit of temperature 0.01 has the rounding of a cosine a hundred times over, in its share of the softmax.
    tolerance = 1e-6 * max(1, 0.1 / temperature)
    assert relative(value, expected) < 1e-6
    assert relative(mean, share @ normalize(queue)) < tolerance
    assert relative(single.grad, gradient) < tolerance
    _, mean = attend(single, queue.float(), other.float())
    assert relative(mean, share @ normalize(other)) < tolerance
    assert torch.equal(nearest(single.detach(), queue.float()), logits.argmax(1))
    torch.testing.assert_close(attend(query, queue)[0], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("small_chunks")
def test_large_logits_do_not_overflow() -> None:
    """The largest logit of a row comes in the first chunk, in the last, and a thousand times over in between."""
    queue = random(100, D).float()
    rows = 1e4 * normalize(queue[[0, 99, 40]]).requires_grad_()
    value, mean = attend(rows, queue)
    torch.testing.assert_close(value, torch.full((3,), 1e4))
    torch.testing.assert_close(mean, normalize(queue[[0, 99, 40]]))


@pytest.mark.usefixtures("small_chunks")
def test_the_first_of_equal_keys_is_the_nearest() -> None:
    queue = random(100, D)
    queue[[3, 50, 99]] = queue[70].clone()
    assert nearest(queue[70:71], queue).item() == 3


def test_what_is_not_a_number_is_seen() -> None:
    query, queue = random(2, D).requires_grad_(), random(40, D)
    queue[7, 3] = math.nan
    assert attend(query, queue)[0].isnan().all()


@pytest.mark.usefixtures("small_chunks")
def test_a_push_before_backward_changes_no_gradient() -> None:
    gradients = []
    for pushed in (False, True):
        queue, student = KeyQueue(40, D), random(4, D).float().requires_grad_()
        told = random(4, D, seed=1).float()
        loss = soft_label_cross_entropy(student, told, queue.live(), 0.1, 0.04).sum()
        loss = loss + info_nce(student, told, queue.live(), 0.1).sum()
        if pushed:
            queue.push(random(40, D, seed=2))
        loss.backward()
        gradients.append(student.grad)
    assert torch.equal(*gradients)


@pytest.mark.usefixtures("small_chunks")
def test_several_students_and_teachers_equal_one_at_a_time() -> None:
    students, teachers = random(3, 5, D).requires_grad_(), random(2, 5, D, seed=1)
    queue, other = random(50, D, seed=2), random(50, D, seed=3)
    for aligned in (None, other):
        together = soft_label_cross_entropy(students[:, None], teachers, queue, 0.1, 0.04, aligned)
        alone = [[soft_label_cross_entropy(s, t, queue, 0.1, 0.04, aligned) for t in teachers] for s in students]
        torch.testing.assert_close(together, torch.stack([torch.stack(row) for row in alone]))
    together = info_nce(students[:, None], teachers, queue, 0.2)
    alone = [[info_nce(s, t, queue, 0.2) for t in teachers] for s in students]
    expected = torch.stack([torch.stack(row) for row in alone])
    torch.testing.assert_close(together, expected)
    weight = random(*expected.shape, seed=4)
    gradients = [torch.autograd.grad((weight * losses).sum(), students)[0] for losses in (together, expected)]
    torch.testing.assert_close(*gradients)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept between runs of the tests: the first one compiles for a while."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"likeness-tests-{os.getuid()}"))


def epoch(queue: KeyQueue, batches: tuple[int, ...], graphs: list[int]) -> list[Tensor]:
    """Every hot function once for each batch, in the shapes of MSVQ, CGH, CLIM and NNCLR."""
    found = []
    for seed, batch in enumerate(batches):
        student = random(batch, D, seed=seed).float().requires_grad_()
        told = random(3, batch, D, seed=seed + 50).float()
        losses = [
            *three_soft_labels(student, (told[0], told[1]), told[2], queue.live(0), queue.live(1), 0.1, 0.04),
            soft_label_cross_entropy(student, told[0], queue.live(0), 0.1, 0.04, queue.live(1)),
            info_nce(student, told[0], queue.live(0), 0.2),
        ]
        (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), student)
        found += [*losses, gradient, nearest_keys(told[0], queue.live(0))[0]]
        queue.push(told[0], told[1])
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    return [*found, queue.keys(0)]


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks", "cache")
def test_compiles_without_breaks_and_never_again(capsys: pytest.CaptureFixture[str]) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    graphs: list[int] = []
    expected = epoch(KeyQueue(72, D, 2), (8, 8, 5), [])
    try:
        compile_hot_path(True)
        found = epoch(KeyQueue(72, D, 2), (8, 8, 5), graphs)
        epoch(KeyQueue(72, D, 2, seed=1), (8, 8, 5), graphs)
        epoch(KeyQueue(200, D, 2), (12, 3), graphs)
    finally:
        compile_hot_path(False)
    torch.testing.assert_close(found, expected)
    assert graphs[0] == 4  # attend to keys, attend to other values, nearest, push
    assert graphs == [4] * len(graphs)  # neither for a short batch, nor for another queue
    assert not torch._dynamo.utils.counters["graph_break"]
    assert capsys.readouterr().err == ""  # nothing fell back


def test_losses_and_push_are_traced_whole_without_reading_a_value() -> None:
    """`fullgraph` refuses graph breaks, and with them every `.item()`, `nonzero` and branch on a tensor's value."""
    queue, rows = KeyQueue(72, D, 2), random(6, D).float()
    for function, arguments in (
        (soft_label_cross_entropy, (rows, rows, queue.live(), 0.1, 0.04, queue.live(1))),
        (info_nce, (rows, rows, queue.live(), 0.2)),
        (nearest_keys, (rows, queue.live())),
        (queue.push, (rows, rows)),
    ):
        torch._dynamo.reset()
        torch.compile(function, fullgraph=True, backend="eager")(*arguments)
        assert torch._dynamo.explain(function)(*arguments).graph_break_count == 0


# The plain formula must keep two B x K matrices of each loss for backward, the label and the student's logits, and has
# more of them while it computes. What these alone would take is what ours is held against.
def matrices_mib(losses: int, batch: int, keys: int) -> float:
    return losses * 2 * batch * keys * 4 / 2**20


def test_memory_of_msvq_is_less_than_a_quarter_of_the_plain_formulas_matrices() -> None:
    student, *told = (torch.randn(256, 128) for _ in range(4))
    first, second = (torch.randn(65536, 128) for _ in range(2))
    student.requires_grad_()

    def step() -> None:
        torch.stack(three_soft_labels(student, (told[0], told[1]), told[2], first, second, 0.1, 0.04)).mean().backward()

    assert peak_memory(step) <= matrices_mib(3, 256, 65536) / 4


def test_memory_of_cgh_is_less_than_a_fifth_of_the_plain_formulas_matrices() -> None:
    student, teacher = torch.randn(128, 512, requires_grad=True), torch.randn(128, 512)
    queue, other = (torch.rand(131072, 512).sub_(0.5) for _ in range(2))
    peak = peak_memory(lambda: soft_label_cross_entropy(student, teacher, queue, 0.1, 0.04, other).mean().backward())
    assert peak <= matrices_mib(1, 128, 131072) / 5


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compile", [False, True])
def test_cuda_agrees_with_the_cpu(compile: bool) -> None:
    rows, told, queue = random(6, 64), random(6, 64, seed=1), random(40000, 64, seed=2)
    results = []
    for device, kind in (("cpu", torch.float64), ("cuda", torch.float32)):
        student = rows.to(device, kind).detach().clone().requires_grad_()
        compile_hot_path(compile and device == "cuda")
        loss = soft_label_cross_entropy(student, told.to(device, kind), queue.to(device, kind), 0.1, 0.04)
        loss.sum().backward()
        results.append((loss.detach().double().cpu(), student.grad.double().cpu()))
    compile_hot_path(False)
    for found, expected in zip(*reversed(results), strict=True):
        assert relative(found, expected) < 1e-5
