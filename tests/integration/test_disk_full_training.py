"""A disk that is full for a while: training goes on, loudly, and no whole checkpoint and no row is lost."""

import errno
import json

import pytest

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from models.storage import checkpoint
from tests.support import runs
from tests.support.runs import LAST
from tools.run.folder import RunFolder


def test_a_checkpoint_that_does_not_fit_costs_no_step(whole, data, tmp_path, monkeypatch, capfd):
    run, real = tmp_path / "run", checkpoint.save_file

    def full(tensors, path):
        if "step-00000010" in str(path):
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert runs.in_process(train, monkeypatch, *runs.options(data, run)) == 0
    output = capfd.readouterr().out
    assert output.count("WARNING: the checkpoint of step 10 could not be written ([Errno 28] No space left") == 1
    rows = runs.rows(run, "loss")
    assert [row.pop("failed_checkpoints", 0) for row in rows] == [0] * 10 + [1] * (LAST - 10)  # told from the next on
    assert rows == runs.rows(whole[0], "loss")
    assert runs.checkpoints(run) == runs.checkpoints(whole[0])


def size_of(folder):
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.rglob("*"))


def test_a_run_on_a_disk_with_room_for_one_checkpoint(whole, data, small_disk, monkeypatch, capfd):
    one = size_of(whole[0] / "checkpoints" / f"step-{LAST:08d}")
    run = small_disk(int(1.6 * one)) / "run"
    words = runs.options(data, run, keep=1, knn_every=0)
    assert runs.in_process(train, monkeypatch, *words) == 2
    told = capfd.readouterr()
    assert told.err.count("\n") == 1 and told.err.startswith(
        "train.py: the last checkpoint is missing: WARNING: the che"
    )
    assert "No space left on device" in told.err and told.err.endswith("go on with --resume\n")
    assert told.out.count("could not be written") == LAST // 5 - 2  # of 5 it fits, that of 60 is in the line above
    assert runs.checkpoints(run) == ["step-00000005"]
    assert checkpoint.newest(run / "checkpoints")[1] == []
    assert len(runs.rows(run, "loss")) == LAST

    small_disk(8 * one, "remount")
    assert runs.in_process(train, monkeypatch, *words, "--resume") == 0
    assert runs.rows(run, "loss") == runs.rows(whole[0], "loss")
    assert json.loads((run / "summary.json").read_text())["step"] == LAST


def test_rows_wait_for_room(small_disk):
    disk = small_disk(64 * 1024)
    folder = RunFolder(disk / "run", False, True)
    folder.log({"step": 0})
    (disk / "others").write_bytes(bytes(64 * 1024 - 3 * 4096 + 4096 - 4096))
    while not folder.warnings:
        folder.log({"step": folder.rows, "filler": "x" * 1000})
    folder.log({"step": folder.rows})
    (line,) = folder.warnings
    assert line.startswith(f"WARNING: {disk}/run/metrics.jsonl cannot be written; 2 rows wait in memory")
    written = (disk / "run/metrics.jsonl").read_text()
    assert written.endswith("\n") and [json.loads(row)["step"] for row in written.splitlines()] == list(
        range(folder.rows - 2)
    )
    with pytest.raises(OSError, match="No space left"):
        folder.write_summary({})
    (disk / "others").unlink()
    folder.log({"step": folder.rows})
    assert [row["step"] for row in runs.rows(disk / "run")] == list(range(folder.rows)) and folder.warnings == []
    folder.close()
