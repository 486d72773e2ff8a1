"""Checkpoints: all comes back, and whatever goes wrong leaves a whole one."""

import json
import os
import resource
import shutil
import signal

import numpy as np
import pytest
import torch

from models.storage import checkpoint
from models.training.optim import build_optimizer
from pipelines.plan.pairing import Pairing
from tests.support.toy_checkpoints import Toy, made, names, save


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_a_restored_method_goes_on_bit_for_bit(name, tmp_path):
    method, optimizer = made(name)
    pairing = Pairing(
        np.arange(7, dtype=np.int32), np.array([0, 3, 3], np.int64), np.array([3, 0, 4], np.int32), 0.8, 0.3
    )
    method.pairing = pairing
    state = {"step": 3, "loss": 0.1 + 0.2, "knn_top1": None, "recipe": {"resolutions": [16, 12]}}
    path = checkpoint.save(tmp_path, method, optimizer, state)

    found = checkpoint.load(path)
    assert {key: found.state[key] for key in state} == state
    other, its_optimizer = made(name, seed=1, steps=0)
    found.apply(other, its_optimizer)
    for key in ("pool", "start", "count"):
        array, expected = getattr(other.pairing, key), getattr(pairing, key)
        assert array.dtype == expected.dtype and np.array_equal(array, expected)
    assert (other.pairing.mix_probability, other.pairing.mix_alpha) == (0.8, 0.3)
    for step in range(3, 6):
        method.train_step(optimizer, step)
        other.train_step(its_optimizer, step)
    assert int(other.queue.pointer) == 18 % 8
    expected = method.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in other.state_dict().items())


def test_tensors_are_safetensors_and_nothing_can_run_code(tmp_path):
    path = save(tmp_path, 1)
    assert names(path) == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    for file in ("manifest.json", "state.json"):
        json.loads((path / file).read_text())
    for file in path.glob("*.safetensors"):
        length = int.from_bytes(file.read_bytes()[:8], "little")
        json.loads(file.read_bytes()[8 : 8 + length])  # the format's header, and no pickle
    assert names(tmp_path) == ["step-00000001"]


def test_the_newest_few_are_kept(tmp_path):
    for step in (2, 4, 10):
        save(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-00000004", "step-00000010"]
    save(tmp_path, 11, keep=1)
    assert names(tmp_path) == ["step-00000011"]
    found, notes = checkpoint.newest(tmp_path)
    assert found.state["step"] == 11 and notes == []


def test_the_best_is_the_highest_accuracy_of_a_checkpoint_s_own_weights(tmp_path):
    measured = ((1, 50.0, 1), (2, 50.0, 2), (3, 90.0, 2), (4, None, None), (5, 40.0, 5))
    for step, top1, knn_step in measured:  # step 3 carries a number that belongs to other weights
        save(tmp_path, step, keep=9, knn_top1=top1, knn_step=knn_step)
    assert checkpoint.best(tmp_path).state["step"] == 2  # the newest of equals
    (tmp_path / "step-00000002" / "model.safetensors").write_bytes(b"")
    assert checkpoint.best(tmp_path).state["step"] == 1  # one that loads
    assert checkpoint.best(tmp_path / "no") is None


def test_the_best_is_kept_beside_the_newest(tmp_path):
    for step, top1 in enumerate((30.0, 60.0, 50.0, 40.0, 55.0), 1):
        save(tmp_path, step, keep=2, knn_top1=top1, knn_step=step)
    assert names(tmp_path) == ["step-00000002", "step-00000004", "step-00000005"]
    save(tmp_path, 6, keep=2, knn_top1=61.0, knn_step=6)
    assert names(tmp_path) == ["step-00000005", "step-00000006"]  # today's best is among the newest


def test_nothing_there_is_no_checkpoint(tmp_path):
    assert checkpoint.newest(tmp_path) == (None, []) == checkpoint.newest(tmp_path / "no")


FILES = ("manifest.json", "model.safetensors", "optimizer.safetensors", "pairing.safetensors", "state.json")


def test_one_flipped_bit_anywhere_is_noticed(tmp_path):
    """A hundred places of each file, a thousand of the manifest: skipped, and named with the file."""
    method, optimizer = made(steps=2)
    method.pairing = Pairing(np.arange(7, dtype=np.int32), np.zeros(3, np.int64), np.full(3, 7, np.int32), 0.8, 0.3)
    path = checkpoint.save(tmp_path, method, optimizer, {"step": 2})
    assert names(path) == list(FILES) and checkpoint.newest(tmp_path)[1] == []
    rng = np.random.default_rng(0)
    for name in FILES:
        whole = (path / name).read_bytes()
        places = rng.integers(0, 8 * len(whole), 1000 if name == FILES[0] else 100)
        for place in places:
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << int(place % 8)
            (path / name).write_bytes(damaged)
            found, notes = checkpoint.newest(tmp_path)
            assert found is None and "is damaged and was skipped" in notes[0], (name, place)
            assert "\n" not in notes[0] and (name in notes[0] or name == FILES[0])
        (path / name).write_bytes(whole)
    assert checkpoint.newest(tmp_path)[0].state["step"] == 2


def test_files_have_the_mode_that_the_users_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        path = save(tmp_path, 1)
    finally:
        os.umask(before)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == {
        file: "0o640" for file in FILES if not file.startswith("pairing")
    }
    assert path.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("file", ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_a_damaged_checkpoint_is_skipped_and_named(file, damage, tmp_path):
    save(tmp_path, 2)
    path = save(tmp_path, 4) / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 100 if damage == "cut" else 0])
    found, (note,) = checkpoint.newest(tmp_path)
    assert found.state["step"] == 2
    assert note.startswith("step-00000004 is damaged and was skipped (") and "\n" not in note


def test_damaged_ones_do_not_push_out_what_is_saved_after_them(tmp_path):
    for step in (6, 8):
        (save(tmp_path, step) / "model.safetensors").write_bytes(b"")
    assert checkpoint.newest(tmp_path)[0] is None
    save(tmp_path, 1, keep=1)  # the run starts again
    assert names(tmp_path) == ["step-00000001"]


def test_what_a_killed_writer_left_is_never_loaded_and_goes_with_the_next_save(tmp_path):
    path = save(tmp_path, 3)
    shutil.copytree(path, tmp_path / ".step-00000005.partial")
    assert checkpoint.newest(tmp_path)[0].state["step"] == 3
    save(tmp_path, 4)
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


def test_an_error_leaves_the_earlier_checkpoint_and_nothing_half_written(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(tensors, path):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001"]


def test_a_disk_that_refuses_is_an_os_error_with_the_file_in_it(tmp_path):
    save(tmp_path, 1)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))  # files of at most 500 bytes: a write really fails
        with pytest.raises(OSError, match=r"cannot write .*model.safetensors"):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == ["step-00000001"]


def test_a_step_that_is_saved_again_is_never_missing(tmp_path, monkeypatch):
    save(tmp_path, 5, seed=1, keep=1)

    def killed(self, target):
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        real(self, target)

    real = type(tmp_path).rename
    monkeypatch.setattr(type(tmp_path), "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 5, keep=1)
    assert checkpoint.newest(tmp_path)[0].state["step"] == 5
    monkeypatch.setattr(type(tmp_path), "rename", real)
    save(tmp_path, 5, keep=1)
    assert names(tmp_path) == ["step-00000005"]


def test_another_network_is_refused(tmp_path):
    path = save(tmp_path, 1)
    method = Toy(width=7)
    with pytest.raises(RuntimeError, match="size mismatch"):
        checkpoint.load(path).apply(method, build_optimizer(method.named_parameters(), "sgd", 0.1))


def test_a_folder_of_another_name_is_neither_loaded_nor_removed(tmp_path):
    for name in ("step-best", "step-00000003-mine"):
        shutil.copytree(save(tmp_path, 3), tmp_path / name)
    for step in (4, 5):
        save(tmp_path, step, keep=1)
    assert checkpoint.newest(tmp_path)[0].state["step"] == 5
    assert names(tmp_path) == ["step-00000003-mine", "step-00000005", "step-best"]
