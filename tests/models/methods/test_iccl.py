"""ICCL's step against the specification written out, its ramp, and its traps.

Traps and where they are tested: 1 L_uni over processes: test_methods_distributed_heads.py. 2 integer epochs, 3 no
similarity after the ramp, 4 the two similarities, 5 pairing, 8 float32, 9 the teacher, 14 views, 16: here.
6 normalisation before both softmaxes, 7 no centring, 12 rotation: the naive references here and in test_clustering.py;
12 on several processes: as 1. 10, 11 LARS: test_optim.py (exclusion goes by shape, not by name). 13 smaller last
batches: the loader drops them, so parts are equal; test_loader.py. 15 kNN: this project measures accuracy on held-out
images; test_knn.py.
"""

import copy

import pytest
import torch
from torch import nn

from models import build, resolve
from models.methods.iccl import Settings
from pipelines.batch import Batch
from tests.support.small_methods import PAPER

SMALL = {"width": 8, "crop_size": 16, "batch_size": 16, "hidden": 32, "dim": 24}
PLAIN = {"variant": "plain", "adaptive": True, "pca": 24, "uniformity": 1.0}
KINDS = {"momentum": {}, "plain": PLAIN, "momentum adaptive": {"adaptive": True}, "plain fixed": {"variant": "plain"}}


def method_of(epoch=0, epochs=20, **overrides):
    torch.manual_seed(0)
    method = build("iccl", "cifar10", **(SMALL | overrides))
    if method.teacher is not None:
        with torch.no_grad():
            for parameter in method.teacher.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    method.begin(epoch * 5, steps_per_epoch=5, epochs=epochs)
    return method


def batch_of(count=16, size=16):
    generator = torch.Generator().manual_seed(0)
    views = tuple(torch.randn(count, 3, size, size, generator=generator) for _ in range(2))
    return Batch(views, torch.arange(count), torch.arange(count), 0)


def l2(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def naive_parts(method, batch):
    """(L_sim, L_uni, L_ce) by the specification's pseudo-code, in the dtype of the method."""
    s, dtype = method.settings, next(method.parameters()).dtype
    z = [method.student(view.to(dtype)) for view in batch.views]
    p = [method.predictor(rows) for rows in z]
    q = [rows.detach() for rows in z] if s.variant == "plain" else [method.teacher(v.to(dtype)) for v in batch.views]
    if s.variant == "plain":
        similarity = -0.5 * sum((l2(p[i]) * l2(q[1 - i])).sum(1).mean() for i in (0, 1))
    else:
        similarity = sum((l2(p[i]) - l2(q[1 - i])).square().sum(1).mean() for i in (0, 1))
    if s.pca:
        fit = l2(torch.cat(q))
        values, vectors = torch.linalg.eigh(torch.cov(fit.T, correction=0))
        basis = vectors[:, values.argsort(descending=True)[: s.pca]]
        basis = basis * torch.sign(basis.gather(0, basis.abs().argmax(0, keepdim=True)))
        p, q = ([l2((l2(rows) - fit.mean(0)) @ basis) for rows in pair] for pair in (p, q))
    m = [torch.softmax(l2(rows) / s.teacher_temperature, 1) for rows in q]
    tau = [s.student_temperature] * 2
    if s.adaptive:
        tau = [m[1].norm(dim=1, keepdim=True), m[0].norm(dim=1, keepdim=True)]
        tau = [t.clamp(max=s.student_temperature) for t in tau] if s.variant == "momentum" else tau
    student = [torch.softmax(l2(p[i]) / tau[i], 1) for i in (0, 1)]
    mean = torch.cat(student).mean(0)
    uniform = -(torch.tensor(float(s.dim if not s.pca else s.pca)).log() + mean.log().mean())
    cross = -0.5 * sum((m[i] * student[1 - i].log()).sum(1).mean() for i in (0, 1))
    return similarity, uniform, cross


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("epoch", "weight"), [(0, 0.0), (10, 0.0), (11, 0.5), (12, 1.0), (19, 1.0)])
def test_loss_and_gradient_equal_the_specification(kind, epoch, weight):
    method, batch = method_of(epoch, **KINDS[kind]).double(), batch_of()
    reference = copy.deepcopy(method)
    similarity, uniform, cross = naive_parts(reference, batch)
    expected = (1 - weight) * similarity + weight * (method.settings.uniformity * uniform + cross)
    losses = method(Batch(tuple(view.double() for view in batch.views), batch.index, batch.label, 0))
    assert method.schedule(method.step)["clustering_weight"] == pytest.approx(weight)
    torch.testing.assert_close(losses.total, expected, rtol=1e-6, atol=1e-9)
    assert losses.terms.keys() == ({"similarity"} if weight == 0 else {"similarity", "cross_entropy", "uniformity"})
    losses.total.backward()
    expected.backward()
    for (name, own), other in zip(method.named_parameters(), reference.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None), name
        if own.grad is not None:
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-5, atol=1e-9, msg=name)


def test_float32_equals_float64():
    method, batch = method_of(12), batch_of()
    similarity, uniform, cross = naive_parts(copy.deepcopy(method).double(), batch)
    losses = method(batch)
    assert losses.terms["similarity"].item() == pytest.approx(similarity.item(), rel=1e-5)
    assert losses.terms["uniformity"].item() == pytest.approx(uniform.item(), rel=1e-4)
    assert losses.terms["cross_entropy"].item() == pytest.approx(cross.item(), rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert method(batch).total.dtype == torch.float32


def test_without_clustering_it_is_byol():
    batch, method = batch_of(), method_of()
    byol = build("byol", "cifar10", width=8, crop_size=16, batch_size=16, **PAPER["byol"])
    byol.student, byol.predictor, byol.teacher = (
        copy.deepcopy(getattr(method, n)) for n in ("student", "predictor", "teacher")
    )
    assert torch.equal(method(batch).total, byol(batch).total)
    plain = method_of(variant="plain")
    simsiam = build("simsiam", "cifar10", width=8, crop_size=16, batch_size=16)
    simsiam.student, simsiam.predictor = copy.deepcopy(plain.student), copy.deepcopy(plain.predictor)
    assert torch.equal(plain(batch).total, simsiam(batch).total)


def test_the_weight_follows_the_integer_epoch():
    method = method_of(epochs=300)
    for step, expected in ((0, 0), (150 * 5 + 4, 0), (151 * 5, 1 / 30), (151 * 5 + 4, 1 / 30), (180 * 5, 1), (1499, 1)):
        method.step = step
        assert method.schedule(method.step)["clustering_weight"] == pytest.approx(expected, abs=1e-12)
    only = method_of(0, ramp_start=1.0, ramp_end=1.0)
    only.step = 99
    assert only.schedule(only.step)["clustering_weight"] == 0
    assert method_of(0, ramp_start=0.0, ramp_end=0.0).schedule(0)["clustering_weight"] == 1
    fresh = build("iccl", "cifar10", **SMALL)
    assert fresh.schedule(fresh.step)["clustering_weight"] == 0  # before `begin`


def test_the_teacher_starts_as_a_copy_in_train_mode_and_follows_after_the_step():
    method = build("iccl", "cifar10", **SMALL)
    before = [p.clone() for p in method.teacher.parameters()]
    for own, other in zip(before, method.student.parameters(), strict=True):
        assert torch.equal(own, other)
    method.train()
    assert all(module.training for module in method.teacher.modules())
    method.begin(0, 5, 2)
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1)
    method.after_step(4)  # half of ten steps: 1 - 0.01 * 0.5
    for old, now, student in zip(before, method.teacher.parameters(), method.student.parameters(), strict=True):
        torch.testing.assert_close(now, 0.995 * old + 0.005 * student)


def test_lambda_zero_leaves_one_cluster_free():
    """Without L_uni nothing in the loss holds against naming one cluster for everything; with it, that is the worst."""
    one = torch.zeros(16, 24)
    one[:, 0] = 1
    totals = {}
    for weight in (0.0, 5.0):
        method = method_of(12, uniformity=weight)
        out = method.outputs(batch_of())
        collapsed, spread = (method._clustering(type(out)(*[rows] * 4)) for rows in (one, torch.eye(16, 24)))
        totals[weight] = [cross + weight * uniform for cross, uniform in (collapsed, spread)]
        assert collapsed[1] > spread[1] + 1
    assert totals[0.0][0].item() == pytest.approx(totals[0.0][1].item(), rel=1e-4)
    assert totals[5.0][0] > totals[5.0][1]


def test_networks_are_those_of_the_configurations():
    method = build("iccl", "cifar10", width=8)
    linear = [layer for layer in (*method.student.head, *method.predictor) if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [
        (64, 2048), (2048, 2048), (2048, 512), (512, 2048), (2048, 512),
    ]  # fmt: skip
    assert all(layer.bias is None for layer in linear)
    assert [layer.weight.std().item() * layer.in_features**0.5 for layer in linear] == pytest.approx([1] * 5, rel=0.02)
    assert isinstance(method.student.head[-1], nn.Linear)
    plain = build("iccl", "imagenette", width=8, crop_size=32)
    assert plain.teacher is None
    assert isinstance(plain.student.head[-1], nn.BatchNorm1d) and not plain.student.head[-1].affine
    assert [layer.bias is not None for layer in plain.predictor if isinstance(layer, nn.Linear)] == [False, True]
    vit = build("iccl", "imagenet_vit", width=8)
    blocks = vit.student.backbone.blocks
    assert {block.attn.heads for block in blocks} == {12} and blocks[0].attn.qkv.bias is None
    assert isinstance(vit.student.backbone.norm, nn.Identity) and {block.norm1.eps for block in blocks} == {1e-5}
    assert vit.student.backbone.pos_embed.std().item() == pytest.approx(48**-0.5, rel=0.1)
    frozen = {name for name, p in vit.student.named_parameters() if not p.requires_grad}
    assert frozen == {"backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias"}


def test_views_are_those_of_the_configurations():
    first, second = build("iccl", "imagenette", width=4).views
    assert (first.size, first.scale, first.jitter, first.permute_p) == (128, (0.08, 1.0), (0.4, 0.4, 0.2, 0.1), 0.8)
    assert (first.blur_p, first.solarize_p, first.jitter_p) == (1.0, 0.0, 0.8)
    assert (second.blur_p, second.solarize_p, second.jitter_p) == (0.1, 0.2, 1.0)
    assert second.permute_p == 0.8 and second.grayscale_p == 0.2 and second.flip == 0.5
    small = build("iccl", "cifar10", width=4).views
    assert small[1].jitter_p == 0.8
    assert small[0].blur_sigma == pytest.approx((0.1 / 7, 2 / 7)) and first.blur_sigma == (0.1, 2.0)  # 224 = 7 x 32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"variant": "rcc"}, "--variant is 'rcc'; take one of momentum, plain"),
        ({"student_temperature": 0.0}, r"--student-temperature is 0\.0"),
        ({"ramp_start": 0.7}, r"the ramp ends at 0\.6, before it starts"),
        ({"pca": 600}, "pca is 600; give 0 .none. to the embedding's 512"),
        ({"uniformity": -1.0}, "uniformity is -1"),
        ({"ema": 2.0}, "ema is 2"),
    ],
)
def test_bad_settings_are_one_line(values, message):
    with pytest.raises(ValueError, match=message):
        Settings(**values)


def test_a_rotation_needs_as_many_targets_as_directions():
    with pytest.raises(ValueError, match="pca of 512 directions from the 128 targets of a batch"):
        resolve("iccl", "imagenette", batch_size=64)
