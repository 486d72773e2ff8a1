"""The kill test itself: it passes on a run that is killed, and sees one changed bit."""

import json
import shutil
import signal

import pytest
from safetensors.torch import load_file, save_file

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from models.storage.checkpoint import write_manifest
from tests.support import runs
from tools.kill_test import main
from tools.reliability.run_differences import differences


@pytest.fixture(autouse=True)
def term():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.processes
def test_a_kill_leaves_the_same_run(data, tmp_path, capsys):
    """With this seed it waits for a checkpoint that is half written."""
    words = runs.options(data, None, checkpoint_every=1, epochs=8, knn_every=0, val_data=None)
    assert main(["--kills", "1", "--seed", "3", "--out", str(tmp_path), "--", *words]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("1 process(es), 1 times SIGKILL, ") and last.endswith("the undisturbed run, bit for bit")
    assert main(["--out", str(tmp_path), "--", *words]) == 2
    assert capsys.readouterr().err == f"tools.kill_test: {tmp_path} holds runs already; give another --out\n"


@pytest.mark.processes
def test_a_run_that_cannot_start_is_told(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--", "--method", "nonsense"]) == 2
    assert "the run ended with exit code 2; see " in capsys.readouterr().err
    assert "invalid choice: 'nonsense'" in (tmp_path / "undisturbed.txt").read_text()


def test_one_changed_bit_one_lost_and_one_changed_row_are_seen(whole, tmp_path):
    run = shutil.copytree(whole[0], tmp_path / "run")
    assert differences(whole[0], run) == []
    folder = run / "checkpoints" / runs.checkpoints(run)[-1]
    weights = load_file(folder / "model.safetensors")
    weights["queue.rows"].view(-1).view(dtype=weights["queue.pointer"].dtype)[3] ^= 1
    save_file(weights, folder / "model.safetensors")
    write_manifest(folder)
    assert differences(whole[0], run) == ["model: queue.rows"]
    lines = (run / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows[5]["loss"], rows[6]["samples_per_s"] = -1.0, -1.0
    (run / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows[:-1]) + "\n")
    found = differences(whole[0], run)
    assert found[1] == f"{len(lines)} and {len(lines) - 1} rows of metrics.jsonl"
    assert len(found) == 3 and found[2].startswith("row 5: {'step': ")
