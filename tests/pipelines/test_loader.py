"""The loader: same batches for the same epoch, errors that arrive, epochs that can be left."""

import gc
import re
import threading

import numpy as np
import psutil
import pytest
import torch

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from pipelines import View, make_loader
from pipelines.executors.damage import DecodeError
from pipelines.plan.pairing import Pairing
from pipelines.plan.views import contrastive, evaluation
from tests.support.datasets import photos

VIEWS = (contrastive(32), contrastive(32), View(24))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return photos(tmp_path_factory.mktemp("loader"))


def epoch_of(dataset, epoch=0, start_step=0, pairing=None, batch_size=6, **keywords):
    with make_loader(dataset, VIEWS, batch_size, threads=2, **keywords) as loader:
        return list(loader.epoch(epoch, start_step, pairing))


def damage(dataset, numbers):
    with open(dataset.path, "r+b") as file:
        for number in numbers:
            file.seek(int(dataset.table.offset[number]))
            file.write(bytes(200))


def same(first, second):
    return torch.equal(first.index, second.index) and all(map(torch.equal, first.views, second.views))


def test_batches_are_normalised_views_with_index_and_label(dataset):
    batches = epoch_of(dataset)
    assert len(batches) == 4
    for batch in batches:
        assert [tuple(view.shape) for view in batch.views] == [(6, 3, 32, 32), (6, 3, 32, 32), (6, 3, 24, 24)]
        assert all(view.is_contiguous(memory_format=torch.channels_last) for view in batch.views)
        assert batch.label.tolist() == dataset.labels[batch.index.numpy()].tolist()
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(24))
    pixels = torch.cat([batch.views[2].flatten() for batch in batches])
    assert abs(pixels.mean()) < 0.6 and 0.3 < pixels.std() < 1.5


def test_an_evaluation_view_is_the_stored_picture(dataset):
    with make_loader(dataset, [evaluation(16)], 24, shuffle=False) as loader:
        batch = next(iter(loader.epoch(0)))
    assert batch.index.tolist() == list(range(24))
    mean, std = torch.tensor(dataset.mean)[:, None, None], torch.tensor(dataset.std)[:, None, None]
    pixels = (batch.views[0] * std + mean) * 255
    assert ((pixels - pixels.round()).abs() < 1e-2).all() and pixels.min() > -0.1 and pixels.max() < 255.1


def test_an_epoch_is_the_same_each_time_and_can_start_late(dataset):
    whole, again, late = epoch_of(dataset, 3), epoch_of(dataset, 3), epoch_of(dataset, 3, start_step=2)
    assert all(map(same, whole, again)) and all(map(same, whole[2:], late)) and len(late) == 2
    assert not same(whole[0], epoch_of(dataset, 4)[0])


def test_two_processes_share_the_batches_of_one(dataset):
    whole, parts = epoch_of(dataset), [epoch_of(dataset, rank=rank, world=2) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        for rank in (0, 1):
            part = parts[rank][step]
            assert torch.equal(part.index, batch.index[rank::2])
            for own, all_views in zip(part.views, batch.views, strict=True):
                assert torch.allclose(own, all_views[rank::2], atol=1e-5)


def test_a_held_batch_is_never_overwritten(dataset):
    with make_loader(dataset, VIEWS, 4, threads=2) as loader:
        held, copies = [], []
        for batch in loader.epoch(0):
            held.append(batch)
            copies.append([view.clone() for view in batch.views])
    for batch, copy in zip(held, copies, strict=True):
        assert all(map(torch.equal, batch.views, copy))


def test_partners_come_with_their_own_views(dataset):
    candidates = ((np.arange(24) + 1) % 24).astype(np.int32)
    counts = np.ones(24, np.int32)
    counts[3] = 0
    pairing = Pairing(candidates, np.arange(24, dtype=np.int64), counts, 1.0, 1.0)
    for batch in epoch_of(dataset, pairing=pairing):
        expected = torch.where(batch.index == 3, batch.index, (batch.index + 1) % 24)
        assert torch.equal(batch.partner.index, expected)
        assert batch.partner.views[0].shape == batch.views[0].shape and batch.partner.partner is None
        assert (batch.box[batch.index == 3] == 0).all() and batch.box.dtype == torch.float32


def test_an_error_in_the_thread_reaches_the_consumer(tmp_path):
    dataset = photos(tmp_path)
    damage(dataset, range(24))
    with make_loader(dataset, VIEWS, 6) as loader:
        for _ in range(2):  # the loader survives it
            with pytest.raises(DecodeError, match="nor can any other of its batch of 6"):
                list(loader.epoch(0))


@pytest.mark.parametrize("name", ["ffcv", "dali", "resident"])
def test_a_damaged_image_becomes_a_grey_one_is_named_once_and_counted(tmp_path, name, capsys):
    if name == "dali":
        pytest.importorskip("nvidia.dali", reason="nvidia-dali is not installed")
    dataset = photos(tmp_path)
    whole = epoch_of(dataset, loader=name)
    damage(dataset, [5, 11])
    with make_loader(dataset, VIEWS, 6, threads=2, loader=name) as loader:
        assert loader.replaced == 0 and loader.counts == {}
        for epoch in (0, 0):
            broken = list(loader.epoch(epoch))
            assert loader.replaced == 2 and loader.counts == {"replaced_images": 2}
    told = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert len(told) == 1 and re.search(r"image (5|11) is damaged.*convert the data set again", told[0])
    mean, std = torch.tensor(dataset.mean)[:, None, None], torch.tensor(dataset.std)[:, None, None]
    for before, after in zip(whole, broken, strict=True):
        assert torch.equal(before.index, after.index) and torch.equal(before.label, after.label)
        lost = torch.isin(after.index, torch.tensor([5, 11]))
        assert torch.equal(before.views[2][~lost], after.views[2][~lost])
        grey = (after.views[2][lost] * std + mean) * 255
        assert torch.allclose(grey, torch.full_like(grey, 128), atol=1e-3)


@pytest.mark.slow
def test_two_hundred_early_exits_leave_no_thread_and_no_memory(dataset):
    process = psutil.Process()

    def leave_early(times):
        for number in range(times):
            with make_loader(dataset, VIEWS, 6, threads=2) as loader:
                next(iter(loader.epoch(number)))
                for batch in loader.epoch(number):
                    assert len(batch.index) == 6
                    break
        gc.collect()
        return threading.active_count(), process.num_threads(), process.memory_info().rss

    before = leave_early(40)
    after = leave_early(160)
    assert after[:2] == before[:2]
    assert after[2] - before[2] < 20 * 2**20  # 0.13 MiB a time would be a leak of two batches


def test_closing_a_loader_ends_a_running_epoch(dataset):
    loader = make_loader(dataset, VIEWS, 6)
    running = loader.epoch(0)
    next(running)
    loader.close()
    with pytest.raises(RuntimeError, match="loader was closed"):
        list(running)
    lasting = "likeness-decode"  # of the process, not of a loader
    assert not any(
        thread.name.startswith("likeness") and not thread.name.startswith(lasting) for thread in threading.enumerate()
    )


def test_two_loaders_run_at_once(dataset):
    with make_loader(dataset, VIEWS, 6) as first, make_loader(dataset, VIEWS, 6) as second:
        pairs = list(zip(first.epoch(0), second.epoch(0), strict=True))
    assert all(same(*pair) for pair in pairs)


def test_unknown_loader_and_missing_ffcv_are_one_line(dataset, monkeypatch):
    with pytest.raises(ValueError, match="unknown loader 'tape'"):
        make_loader(dataset, VIEWS, 6, loader="tape")


@pytest.mark.processes
def test_importing_the_project_needs_neither_ffcv_nor_dali():
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['ffcv'] = None; sys.modules['nvidia.dali'] = None\n"
        "import pipelines, pipelines.loader, models, train, eval, tools.convert, tools.preview"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
