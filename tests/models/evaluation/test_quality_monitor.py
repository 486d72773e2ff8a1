"""The quality monitor: the numbers of the features, on sets without labels, on one and on several processes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import gloo

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from models.distributed import world
from models.evaluation.collapse import effective_rank, feature_spread
from models.evaluation.feature_metrics import alignment, uniformity
from models.evaluation.features import NotFinite
from models.evaluation.quality_monitor import QualityMonitor
from pipelines import make_loader, open_dataset
from pipelines.plan.views import contrastive, evaluation
from tests.support.datasets import photos
from tests.support.small_methods import small

WHOLE, CROP = evaluation(16), contrastive(16)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("quality"), each=9).path


def measured(path, name, count):
    """What each process gets, after `count` batches of 8 went through the method."""
    rank, processes = world()
    dataset = open_dataset(path)
    method = small(name)
    for step in range(count):
        method.queue.push(*torch.randn(method.queue.count, 8, 8, generator=torch.Generator().manual_seed(step)))
    monitor = QualityMonitor(dataset, WHOLE, CROP, 10, rank=rank, world=processes, threads=1, seed=3)
    try:
        return monitor.measure(method, 8)
    finally:
        monitor.close()


def test_it_measures_whole_images_and_two_crops(path):
    dataset = replace(open_dataset(path), labels=np.full(27, -1), classes=())  # nothing reads a label
    method = small("moco")
    monitor = QualityMonitor(dataset, WHOLE, CROP, 10, threads=1, seed=3)
    row = monitor.measure(method, 8)
    again = monitor.measure(method, 8)
    monitor.close()
    assert row == again  # the same crops each time
    features = []
    with make_loader(dataset, [WHOLE, CROP, CROP], 27, shuffle=False, seed=3, threads=1) as loader:
        method.encoder().eval()
        for batch in loader.epoch(0):
            features = [method.encoder()(view).pooled.detach() for view in batch.views]
    assert row["feature_spread"] == pytest.approx(feature_spread(features[0]), abs=2e-5)
    assert row["feature_rank"] == pytest.approx(effective_rank(features[0]), abs=2e-3)
    assert row["uniformity"] == pytest.approx(uniformity(features[0]), abs=2e-5)
    assert row["alignment"] == pytest.approx(alignment(*features[1:]), abs=2e-5) and row["alignment"] > 1e-4
    assert row["quality_protocol"] == "quality-n27-student" and row["queue_age"] == 0
    assert "teacher_entropy" not in row  # MoCo has no soft labels


def test_weights_that_are_not_finite_are_one_line(path):
    """And another precision is in the id."""
    method = small("moco")
    torch.nn.init.constant_(method.encoder().conv1.weight, float("nan"))
    monitor = QualityMonitor(open_dataset(path), WHOLE, CROP, 10, threads=1, dtype=torch.bfloat16)
    with pytest.raises(NotFinite, match="the features of 27 of 27 images are not finite"):
        monitor.measure(method, 8)
    monitor.close()
    assert monitor.protocol == "quality-n27-student-bf16"


@pytest.mark.parametrize(("name", "entropies"), [("ressl", 1), ("msvq", 2), ("cgh", 2), ("nnclr", 0)])
def test_queue_and_teacher(path, name, entropies):
    row = measured(path, name, 3)
    assert row["queue_age"] == 3
    found = [value for key, value in row.items() if key.startswith("teacher_entropy")]
    assert len(found) == entropies and all(0 < value < np.log(40) for value in found)


def test_a_large_set_is_sampled_evenly(path):
    dataset = open_dataset(path)
    many = replace(dataset, number=100_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.evaluation.quality_monitor.make_loader", lambda *args, **kwargs: None)
        for number, expected in ((100, 100), (1442, 256), (50_000, 2000), (1_281_167, 2048)):
            chosen = QualityMonitor(replace(many, number=number), WHOLE, CROP).chosen_N
            assert len(np.unique(chosen)) == expected and chosen[0] == 0 and chosen[-1] == number - 1


@pytest.mark.processes
def test_several_processes_get_what_one_does(path):
    alone = measured(path, "cgh", 4)
    for row in gloo.run(measured, 2, path, "cgh", 4):
        assert row.keys() == alone.keys()
        assert all(
            value == pytest.approx(alone[key], rel=1e-4, abs=1e-4)
            for key, value in row.items()
            if key != "quality_protocol"
        )
