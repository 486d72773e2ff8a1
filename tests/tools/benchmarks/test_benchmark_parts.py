"""How benchmarks measure, and the parts of the benchmarks of views, augmentation and step, on tiny sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from models.networks.norm import SplitBatchNorm2d
from pipelines.plan.views import View, contrastive
from tools.benchmarks import augment, measure, step, views
from tools.benchmarks.measure import Case, Settings, milliseconds, peak_memory, take_turns
from tools.benchmarks.paper_msvq import PaperMsvq, ReshapedBatchNorm
from tools.benchmarks.pillow_views import PillowViews, jitter, pictures_of, pillow_loader, random_box, transform

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_ratio_is_how_many_times_better_ours_is() -> None:
    faster = Case("", "samples/s", {"ours": [30.0, 10.0, 20.0], "other": [5.0]})
    assert faster.ratio("other") == 4  # of medians
    assert Case("", "ms", {"ours": [2.0], "other": [8.0]}).ratio("other") == 4
    assert Case("", "ms", {"ours": [8.0], "other": [2.0]}).ratio("other") == 0.25
    assert faster.spread("ours") == 1
    row = faster.row()["contenders"]
    assert row["ours"]["noisy"] and not row["other"]["noisy"]
    assert row["other"]["ours_is_better"] == 4


def test_contenders_take_turns() -> None:
    order: list[str] = []
    contenders = {name: lambda name=name: float(len(order)) for name in "ab"}
    logged = {name: lambda name=name, run=run: (order.append(name), run())[1] for name, run in contenders.items()}
    values = take_turns(logged, 3)
    assert order == list("ababab")
    assert values == {"a": [1, 3, 5], "b": [2, 4, 6]}


def test_milliseconds_are_of_one_call() -> None:
    calls: list[int] = []
    assert milliseconds(lambda: calls.append(1), times=7)() >= 0
    assert len(calls) == 7


def test_peak_memory_sees_what_is_freed_again() -> None:
    def allocate() -> None:
        torch.ones(64 * 2**18)  # 64 MiB, written

    assert 60 < peak_memory(allocate) < 100
    assert peak_memory(lambda: None) < 10
    assert measure.load_average() >= 0


def test_pillow_transforms_have_the_view_s_operations() -> None:
    picture = Image.fromarray(PHOTO)
    view = View(16, flip=0.0)
    for _ in range(20):
        left, top, width, height = random_box(60, 40, view)
        assert 0 <= left <= 60 - width and 0 <= top <= 40 - height
        assert 0.15 < width * height / 2400 <= 1
    assert transform(picture, contrastive(16)).size == (16, 16)
    grey = np.array(transform(picture, replace(view, grayscale_p=1.0)))
    assert (grey == grey[..., :1]).all()
    blurred = replace(view, scale=(1, 1), blur_sigma=(1.0, 2.0))  # a deviation near 0.1 would change nothing
    sharp, soft = (np.array(transform(picture, replace(blurred, blur_p=p))).std() for p in (0.0, 1.0))
    assert soft < sharp
    assert np.array(jitter(picture, (0, 0, 0, 0))).tolist() == PHOTO.tolist()
    assert np.array(jitter(picture, (0.4, 0.4, 0.4, 0.1))).tolist() != PHOTO.tolist()


def test_pillow_loader_s_epochs() -> None:
    data = PillowViews([PHOTO] * 5, (View(16), View(8)), (0.5,) * 3, (0.5,) * 3)
    batches = list(pillow_loader(data, 4, 2, workers=1))
    assert [[tuple(view.shape) for view in batch] for batch in batches] == [[(4, 3, 16, 16), (4, 3, 8, 8)]] * 2
    assert batches[0][0].min() >= -1 and batches[0][0].max() <= 1


def test_plain_split_batch_norm_equals_ours() -> None:
    x = torch.randn(8, 3, 4, 4)
    plain, ours = ReshapedBatchNorm(3, 4), SplitBatchNorm2d(3, 4)
    torch.testing.assert_close(plain(x), ours(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.running_var, ours.running_var)


def test_plain_step_learns() -> None:
    torch.manual_seed(0)
    plain = PaperMsvq(width=2, splits=2, hidden=8, dim=8, queue_size=32)
    before = [p.clone() for p in plain.student.parameters()]
    queue = plain.queues[1].clone()
    loss = plain.step([torch.randn(8, 3, 16, 16) for _ in range(4)])
    assert loss.isfinite() and plain.pointer == 8
    moved = zip(before, plain.student.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in moved)
    assert not torch.equal(queue[:, :8], plain.queues[1][:, :8]) and torch.equal(queue[:, 8:], plain.queues[1][:, 8:])


def test_augment_case_names_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'kornia'")

    monkeypatch.setattr(augment, "_kornia", missing)
    monkeypatch.setattr(augment, "_torchvision", missing)
    case = augment.measure(16, 8, Settings(repeats=2))
    assert list(case.values) == ["ours"] and len(case.values["ours"]) == 2
    assert "kornia (No module named" in case.facts["left out"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> views.Dataset:
    pytest.importorskip("numba")
    sizes = views.Images("", 32, 64, 16, ())
    return views.converted(sizes, tmp_path_factory.mktemp("images"))


def test_views_case(images: views.Dataset) -> None:
    assert len(pictures_of(images, decoded=False)) == 64
    sizes = views.Sizes("tiny", 32, 64, 16, 2, (contrastive(16), View(16)))
    case = views.measure(sizes, images, Settings(repeats=1))
    assert len(case.values) == 3 and min(min(values) for values in case.values.values()) > 0


@pytest.mark.parametrize("method", ["msvq", "clim"])
def test_efficiency_case(images: views.Dataset, method: str) -> None:
    case = step.efficiency(method, images, step.Sizes(width=2, batch_size=16, steps=1), Settings(repeats=1))
    assert list(case.values) == ["data included", "batch already there"]
    assert case.facts["pipeline efficiency"] == pytest.approx(case.ratio("batch already there"), abs=1e-3)


def test_whole_step_case(images: views.Dataset, tmp_path: Path) -> None:
    case = step.against_plain_code(images, step.Sizes(width=2, batch_size=16, steps=2), Settings(repeats=1))
    assert len(case.values) == 3
    trained = step.prepared(step.recipe_of("msvq", step.Sizes(width=2)), Settings())
    assert isinstance(trained.method, nn.Module) and not trained.recorded
