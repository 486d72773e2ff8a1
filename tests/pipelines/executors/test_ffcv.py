"""The FFCV executor against Pillow and OpenCV, in any order, with any number of threads, and with damaged files."""

import gc
import io

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
import cv2

from pipelines import View
from pipelines.executors.damage import DecodeError
from pipelines.executors.ffcv import FfcvExecutor
from pipelines.plan.plan import Plan
from pipelines.plan.views import contrastive, evaluation
from tests.support.datasets import photos

VIEWS = (View(48), View(24, (0.05, 0.3)), View(48, flip=1.0), evaluation(32))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("jpeg"))


@pytest.fixture
def executor(dataset):
    running = FfcvExecutor(dataset, VIEWS, threads=2)
    yield running
    running.close()


def plan_of(dataset, batch_size=24, **keywords):
    return Plan(dataset.heights, dataset.widths, VIEWS, batch_size, **keywords)


def decoded(dataset, number):
    table = dataset.table
    stored = dataset.path.read_bytes()[table.offset[number] : table.offset[number] + table.size[number]]
    return np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"))


def test_views_are_the_planned_boxes_resized_by_area(dataset, executor):
    batch = plan_of(dataset).batch(0, 0)
    views = executor.start(batch)()
    for v, view in enumerate(VIEWS):
        assert views[v].shape == (24, 3, view.size, view.size) and views[v].dtype == torch.uint8
        for sample, number in enumerate(batch.source_S):
            top, left, height, width = batch.crop_VS4[v, sample]
            crop = decoded(dataset, number)[top : top + height, left : left + width]
            expected = cv2.resize(crop, (view.size, view.size), interpolation=cv2.INTER_AREA)
            if batch.flip_VS[v, sample]:
                expected = expected[:, ::-1]
            difference = np.abs(views[v][sample].permute(1, 2, 0).numpy().astype(int) - expected)
            # libjpeg-turbo's fast transform, which FFCV asks for, and Pillow's exact one differ by a few levels.
            assert difference.max() <= 8 and difference.mean() < 1.5


def test_hundreds_of_executors_take_no_memory(dataset):
    """FFCV's decoder keeps 10 KB for every thread that ever used it: they must not be new ones each time."""
    batch = plan_of(dataset, batch_size=8).batch(0, 0)

    def grown(times):
        for _ in range(times):
            running = FfcvExecutor(dataset, VIEWS, threads=4)
            running.start(batch)()
            running.close()
        gc.collect()
        return psutil.Process().memory_info().rss

    before = grown(100)
    assert grown(400) - before < 4 * 2**20  # would be 14 MiB


def test_pixels_do_not_depend_on_order_or_threads(dataset, executor):
    plan = plan_of(dataset)
    expected = executor.start(plan.batch(0, 0))()
    order = np.argsort(plan.batch(0, 0).source_S)
    for threads in (1, 3):
        other = FfcvExecutor(dataset, VIEWS, threads)
        for step in np.random.default_rng(threads).permutation(6):
            small = plan_of(dataset, batch_size=4).batch(0, int(step))
            views = other.start(small)()
            rows = order[small.source_S]
            assert all(torch.equal(view, whole[rows]) for view, whole in zip(views, expected, strict=True))
        other.close()


def test_output_is_owned_by_the_caller(dataset, executor):
    plan = plan_of(dataset, batch_size=4)
    held = executor.start(plan.batch(0, 0))()
    copies = [view.clone() for view in held]
    following = [executor.start(plan.batch(0, step))() for step in (1, 2, 3, 4)]
    for views in following:
        for view in views:
            view.fill_(7)
    assert all(torch.equal(view, copy) for view, copy in zip(held, copies, strict=True))


def test_views_of_one_size_share_one_block(dataset, executor):
    views = executor.start(plan_of(dataset, batch_size=4).batch(0, 0))()
    assert views[2].data_ptr() - views[0].data_ptr() == views[0].numel()
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in views)


def test_any_order_of_samples_with_repetitions(dataset, executor):
    plan = plan_of(dataset, batch_size=4)
    batch = plan.batch(0, 0)
    batch.source_S[:] = [5, 5, 0, 5]
    batch.crop_VS4[:] = batch.crop_VS4[:, :1] * 0 + [0, 0, 40, 40]
    batch.flip_VS[:] = False
    for view in executor.start(batch)():
        assert torch.equal(view[0], view[1]) and torch.equal(view[0], view[3])


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_a_damaged_image_is_replaced_and_a_batch_of_them_is_refused(tmp_path, damage, capsys):
    dataset = photos(tmp_path)
    number = 5
    with open(dataset.path, "r+b") as file:
        size = int(dataset.table.size[number])
        file.seek(int(dataset.table.offset[number]) + (size // 2 if damage == "cut" else 0))
        file.write(bytes(size // 2))
    executor = FfcvExecutor(dataset, VIEWS, threads=2)
    try:
        batch = plan_of(dataset).batch(0, 0)
        for view in executor.start(batch)():
            grey = [bool((picture == 128).all()) for picture in view]
            assert grey == (batch.source_S == number).tolist()
        assert executor.damage.numbers == {5}
        error = capsys.readouterr().err
        assert f"{dataset.path}: image 5 is damaged" in error and error.count("\n") == 1
        batch.source_S[:] = number
        with pytest.raises(DecodeError, match=r"image 5 is damaged.*convert the data set again") as refused:
            executor.start(batch)()
        assert str(dataset.path) in str(refused.value) and "\n" not in str(refused.value)
    finally:
        executor.close()


def test_raw_images_are_cut_without_decoding(tmp_path):
    dataset = photos(tmp_path, classes=2, each=3, kind="PNG")
    assert set(dataset.table.mode) <= {0, 1}
    views = (contrastive(16), evaluation(16))
    plan = Plan(dataset.heights, dataset.widths, views, 6)
    executor = FfcvExecutor(dataset, views, threads=1)
    assert all(view.float().std() > 1 for view in executor.start(plan.batch(0, 0))())
    executor.close()
