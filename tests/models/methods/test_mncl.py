"""MNCL's step against the specification written out, its sanity values, and its traps.

Traps and where they are tested: 4 the teacher's start, 5 no gradient to it: test_contract.py. 1 both modes, 6 the
teacher's order, 7 random gains, 9 and 10 pairs in feature space and blocks (also test_patches.py, with 8), 11
statistics of the quarters, 12 the queue, 13 the predictor's rate, 15: here. 2 the weights' sweep needs training runs,
not a test. 3 the flat curve: the sanity values here. 14 best-on-test selection belongs to the linear protocol, which
reports the last epoch; test_linear_probe.py.
Several processes (e, 8): test_methods_distributed_heads.py.
"""

import copy
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from models import build, resolve
from models.methods.mncl import Settings
from models.relations import nt_xent
from models.training.optim import build_optimizer, set_learning_rate
from pipelines.batch import Batch

SMALL = {
    "width": 8, "crop_size": 16, "batch_size": 8, "hidden": 32, "dim": 32, "predictor_hidden": 16, "queue_size": 20,
}  # fmt: skip


def method_of(**overrides):
    torch.manual_seed(0)
    method = build("mncl", "cifar10", **(SMALL | overrides))
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return method


def batch_of(count=8, size=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    views = tuple(torch.randn(count, 3, size, size, generator=generator).to(dtype) for _ in range(3))
    return Batch(views, torch.arange(count), torch.arange(count), 0)


def naive_parts(method, batch):
    """(L_loc, L_glob) by the specification's pseudo-code, one sample at a time where it tells."""
    s, count = method.settings, len(batch.index)
    p = [normalize(method.predictor(method.student(view))) for view in batch.views]

    def local(x):
        half = x.shape[-1] // 2
        cuts = [x[:, :, i : i + half, j : j + half] for j in (0, half) for i in (0, half)]
        h = method.student.backbone(torch.cat(cuts)).pooled.view(4, count, -1)
        pairs = torch.cat(
            [torch.stack([(h[a, n] + h[b, n]) / 2 for n in range(count)]) for a, b in combinations(range(4), 2)]
        )
        return normalize(method.student.head(pairs)).view(6, count, -1)

    def nearest(rows, bank):
        picked = [max(range(len(bank)), key=lambda k: (row @ bank[k] / bank[k].norm()).item()) for row in rows]
        return normalize(bank[picked])

    with torch.no_grad():
        c1, c2 = local(batch.views[0]), local(batch.views[1])
        bank = method.queue.keys()
        j1 = nearest(method.teacher(batch.views[0]), bank)
        j3 = nearest(method.teacher(batch.views[2]), bank)

    def ntx(a, b):
        rows = torch.cat([a, b])
        losses = []
        for i in range(2 * count):
            others = [rows[i] @ rows[k] / s.global_temperature for k in range(2 * count) if k != i]
            losses.append(
                torch.stack(others).exp().sum().log() - rows[i] @ rows[(i + count) % (2 * count)] / s.global_temperature
            )
        return torch.stack(losses).mean()

    q1, q2 = (p[0].detach(), p[1].detach()) if s.mode == "released" else (p[0], p[1])
    blocks = [cross_entropy(q2 @ c1[b].T / s.local_temperature, torch.arange(count)) for b in range(6)]
    blocks += [cross_entropy(q1 @ c2[b].T / s.local_temperature, torch.arange(count)) for b in range(6)]
    return sum(blocks) / 12, (ntx(j3, p[0]) + ntx(j1, p[2])) / 2


@pytest.mark.parametrize("mode", ["figure", "released"])
def test_loss_and_gradient_equal_the_specification(mode):
    method, batch = method_of(mode=mode).double(), batch_of(dtype=torch.float64)
    reference = copy.deepcopy(method)
    local, shared = naive_parts(reference, batch)
    losses = method(batch)
    torch.testing.assert_close(losses.terms["local"], local.detach())
    torch.testing.assert_close(losses.terms["global"], shared.detach())
    torch.testing.assert_close(losses.total, (local + 6 * shared).detach(), check_dtype=False)
    losses.total.backward()
    (local + 6 * shared).backward()
    for (name, own), other in zip(method.named_parameters(), reference.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None), name
        if own.grad is not None:
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-7, atol=1e-10, msg=name)


def test_float32_equals_float64():
    method, batch = method_of(), batch_of()
    local, shared = naive_parts(copy.deepcopy(method).double(), batch_of(dtype=torch.float64))
    losses = method(batch)
    assert losses.total.dtype == torch.float32
    assert losses.total.item() == pytest.approx((local + 6 * shared).item(), rel=1e-5)


def gradients(method, batch, **weights):
    method.settings = Settings(**(vars(method.settings) | weights))
    method.zero_grad()
    method(batch).total.backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def test_released_mode_has_the_gradient_of_the_global_loss_alone():
    batch = batch_of()
    both = gradients(method_of(mode="released"), batch)
    alone = gradients(method_of(mode="released"), batch, local_weight=0.0)
    for name in both:
        assert torch.equal(both[name], alone[name]), name


def test_figure_mode_trains_backbone_projector_and_predictor_with_the_local_loss():
    own = gradients(method_of(mode="figure"), batch_of(), global_weight=0.0)
    for part in ("student.backbone.", "student.head.", "predictor."):
        assert sum(g.abs().sum() for name, g in own.items() if name.startswith(part)) > 0
    nothing = method_of(mode="released")
    nothing.settings = Settings(**(vars(nothing.settings) | {"global_weight": 0.0}))
    nothing(batch_of()).total.backward()  # a graph is there, through a weight of 0
    assert all(p.grad is None or not p.grad.any() for p in nothing.parameters())


def test_sanity_values_of_the_losses():
    """At B = 256 and temperature 1, NT-Xent goes from log 511 to log(1 + 510 / e), the local loss from 5.55 to 4.55."""
    rows = torch.eye(256, 2048)
    assert nt_xent(rows, rows, 1.0).item() == pytest.approx(5.24, abs=0.005)
    many = torch.randn(512, 20000, generator=torch.Generator().manual_seed(0))
    assert nt_xent(many[:256], many[256:], 1.0).item() == pytest.approx(6.24, abs=0.005)
    method = build("mncl", "cifar10_224", width=4, crop_size=16)
    assert method._match(rows, rows[:, None].expand(-1, 6, -1)).item() == pytest.approx(4.55, abs=0.005)
    apart = torch.eye(2048)[256:512, None].expand(-1, 6, -1)
    assert method._match(rows, apart).item() == pytest.approx(5.55, abs=0.005)


def test_local_embeddings_keep_samples_apart():
    """A sample's six embeddings do not change when the others do, in evaluation mode: blocks are not mixed up."""
    method, batch = method_of().eval(), batch_of()
    before = method.local(batch.views[:1])[0]
    assert before.shape == (8, 6, 32) and not before.requires_grad
    changed = batch.views[0].clone()
    changed[3] += 1
    after = method.local([changed])[0]
    same = [torch.allclose(before[n], after[n], atol=1e-5) for n in range(8)]
    assert same == [n != 3 for n in range(8)]


def test_quarters_move_the_running_statistics_only_where_they_should():
    for kept, updates in ((True, 5), (False, 3)):  # three views, two batches of quarters
        method = method_of(patch_statistics=kept)
        method(batch_of())
        assert int(method.student.backbone.bn1.num_batches_tracked) == updates
        assert int(method.student.head[1].num_batches_tracked) == updates
        assert int(method.teacher.network.backbone.bn1.num_batches_tracked) == 2


def test_only_raw_keys_of_view_three_enter_the_queue_after_both_look_ups():
    method, batch = method_of(), batch_of()
    reference = copy.deepcopy(method)
    method(batch)
    reference.teacher(batch.views[0])
    keys = reference.teacher(batch.views[2])
    assert torch.allclose(method.queue.keys()[:8], keys, atol=1e-5)
    assert not torch.allclose(keys.norm(dim=1), torch.ones(8), atol=0.1)  # raw
    assert torch.equal(method.queue.keys()[8:], reference.queue.keys()[8:])
    assert {"queue.rows", "queue.pointer"} <= method.state_dict().keys()  # in the checkpoint
    for _ in range(3):  # 32 keys through a queue of 20
        method(batch)
    assert int(method.queue.pointer) == 12


def test_a_neighbor_is_never_of_the_current_batch():
    """With a queue that forgets all but the batch, the first look-up still sees only what was there before."""
    method, batch = method_of(queue_size=8), batch_of()
    before = method.queue.keys()
    reference = copy.deepcopy(method)
    _, shared = naive_parts(reference, batch)
    assert torch.equal(reference.queue.keys(), before)
    assert method(batch).terms["global"].item() == pytest.approx(shared.item(), rel=1e-5)
    assert not torch.equal(method.queue.keys(), before)


def test_the_predictors_learning_rate_stays():
    method = method_of()
    optimizer = build_optimizer(method.named_parameters(), "sgd", 0.1, constant=method.constant_lr)
    set_learning_rate(optimizer, 0.01)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in method.predictor.parameters()} == {0.1}
    assert {rates[id(p)] for p in method.student.parameters()} == {0.01}
    assert all(id(p) not in rates for p in method.teacher.parameters())


def test_the_reproduction_preset():
    method = build("mncl", "cifar10_224", width=8)
    assert method.settings.mode == "released"
    assert (method.settings.global_temperature, method.settings.local_temperature) == (1.0, 1.0)
    assert [view.size for view in method.views] == [224] * 3
    heads = [method.student.head, method.predictor]
    gains = torch.cat([m.weight for head in heads for m in head if isinstance(m, nn.BatchNorm1d)]).detach()
    assert gains.mean().item() == pytest.approx(0.5, abs=0.02) and gains.min() >= 0 and gains.max() <= 1
    linear = [layer for head in heads for layer in head if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [
        (64, 2048), (2048, 2048), (2048, 2048), (2048, 512), (512, 2048),
    ]  # fmt: skip
    assert all(layer.bias is not None for layer in linear)
    training = resolve("mncl", "cifar10_224").training
    assert (training.lr, training.weight_decay, training.clip_norm, training.stem) == (0.1, 1e-4, 1.0, "imagenet")
    ordinary = build("mncl", "cifar10", **SMALL)
    assert ordinary.settings.mode == "figure" and (ordinary.student.head[1].weight == 1).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "paper"}, "--mode is 'paper'; take one of figure, released"),
        ({"local_temperature": 0.0}, r"--local-temperature is 0\.0"),
        ({"crop_size": 33}, "crop size is 33; mncl cuts views into quarters"),
        ({"ema": -0.1}, "ema is -0.1"),
        ({"local_weight": -1.0}, "--local-weight is -1.0; give 0 or more"),
    ],
)
def test_bad_settings_are_one_line(values, message):
    with pytest.raises(ValueError, match=message):
        Settings(**values)


def test_a_queue_smaller_than_the_batch_is_refused():
    with pytest.raises(ValueError, match="queue_size is 100, less than a batch of 256"):
        resolve("mncl", "cifar10", queue_size=100)
