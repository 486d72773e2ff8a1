"""Checkpoints on disks that are not what they should be: damage, files that cannot be read, names, power cuts."""

import os

import pytest

from models.storage import checkpoint, manifest
from tests.support.toy_checkpoints import names, save


def harmed(path):
    """One bit of the weights turned, as a bad disk does it."""
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return path


def unreadable(path):
    """A file that the disk does not give away: reading there is an input/output error, whoever reads."""
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to("/proc/self/mem")
    return path


def test_a_folder_whose_name_is_no_text(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    saved = save(folder, 3)
    found, notes = checkpoint.newest(folder)
    assert found.path == saved and notes == []
    save(folder, 4, keep=1)
    assert names(folder) == ["step-00000004"]


def test_damaged_ones_do_not_count_among_those_that_are_kept(tmp_path):
    save(tmp_path, 1)
    harmed(save(tmp_path, 2))
    save(tmp_path, 3, keep=2)
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


def test_a_damaged_best_does_not_push_out_the_best_that_loads(tmp_path):
    for step, top1 in enumerate((60.0, 90.0, 10.0, 10.0), 1):
        path = save(tmp_path, step, keep=4, knn_top1=top1, knn_step=step)
        if step == 2:
            harmed(path)
    save(tmp_path, 5, keep=1)
    assert names(tmp_path) == ["step-00000001", "step-00000005"]
    assert checkpoint.best(tmp_path).state["step"] == 1


@pytest.mark.parametrize("top1", ["99", float("nan"), 10**400, -1.0, True, [99]])
def test_an_accuracy_that_is_none_is_nobodys_best(top1, tmp_path):
    save(tmp_path, 1, knn_top1=50.0, knn_step=1)
    save(tmp_path, 2, knn_top1=top1, knn_step=2)
    assert checkpoint.best(tmp_path).state["step"] == 1


def test_what_is_known_to_be_whole_is_not_read_again(tmp_path, monkeypatch):
    for step in (1, 2):
        save(tmp_path, step, keep=9)
    monkeypatch.setattr(manifest, "_known", {})  # another process, which resumes
    assert checkpoint.newest(tmp_path)[0].state["step"] == 2
    read, real = [], manifest._digest
    monkeypatch.setattr(manifest, "_digest", lambda path: read.append(path) or real(path))
    written = ["model.safetensors", "optimizer.safetensors", "state.json"]
    save(tmp_path, 3, keep=9)
    assert [path.name for path in read] == written * 2  # those of step 3 for its manifest, and step 1 once
    assert {path.parent.name for path in read[3:]} == {"step-00000001"}
    read.clear()
    save(tmp_path, 4, keep=9)
    assert [path.name for path in read] == written


def test_a_checkpoint_that_the_disk_does_not_give_away_is_neither_skipped_nor_removed(tmp_path):
    path = unreadable(save(tmp_path, 2, knn_top1=50.0, knn_step=2))
    save(tmp_path, 1)
    for ask in (checkpoint.newest, checkpoint.best):
        with pytest.raises(OSError, match=r"step-00000002/model.safetensors cannot be read \(Input/output error\)$"):
            ask(tmp_path)
    for step in (3, 4, 5):
        save(tmp_path, step, keep=1)
    assert names(tmp_path) == ["step-00000002", "step-00000005"]
    assert os.readlink(path / "model.safetensors") == "/proc/self/mem"


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path):
    (tmp_path / "checkpoints").symlink_to(tmp_path / "checkpoints")
    for ask in (checkpoint.newest, checkpoint.best, checkpoint.list_checkpoints):
        with pytest.raises(OSError, match=r"checkpoints cannot be read \(Too many levels of symbolic links\)"):
            ask(tmp_path / "checkpoints")


def test_a_manifest_must_list_what_is_there(tmp_path):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    (path / "pairing.safetensors").write_bytes((path / "model.safetensors").read_bytes())
    found, (note,) = checkpoint.newest(tmp_path)
    assert found.state["step"] == 1
    assert note == "step-00000002 is damaged and was skipped (manifest.json does not list the files that are there)"


def test_a_step_is_newer_by_its_number(tmp_path):
    for step in (99_999_999, 100_000_000):
        save(tmp_path, step)
    assert checkpoint.newest(tmp_path)[0].state["step"] == 100_000_000
    assert names(tmp_path) == ["step-100000000", "step-99999999"]


def test_contents_are_on_the_disk_before_names_and_new_folders_in_their_parents(tmp_path, monkeypatch):
    done, sync, rename = [], os.fsync, type(tmp_path).rename

    def synced(handle):
        done.append(os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), tmp_path))
        sync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(type(tmp_path), "rename", lambda path, to: (done.append("rename"), rename(path, to)))
    save(tmp_path / "run" / "checkpoints", 1)
    partial = "run/checkpoints/.step-00000001.partial"
    files = [f"{partial}/{name}" for name in names(tmp_path / "run/checkpoints/step-00000001")]
    at = done.index("rename")
    assert sorted(done[:2]) == [".", "run"]  # which hold run/ and checkpoints/, both new
    assert sorted(done[2 : at - 1]) == files and done[at - 1] == partial
    assert done[at + 1 :] == ["run/checkpoints"]
