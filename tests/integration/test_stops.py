"""How a run ends before its end: each signal, several processes together, and a process that fails on its own."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from tests.support import runs
from tests.support.runs import LAST, assert_same_run
from tools.run.process_start import STOPPED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_step_with_a_checkpoint_and_the_same_code(number, whole, data, tmp_path, monkeypatch, capsys):
    """Sent inside a step, in this process; SIGTERM from outside, to the program itself, is in test_train.py."""
    run, real = tmp_path / "run", train.Trainer.train_on

    def signalled(self, batch):
        if self.state.step == 7:
            os.kill(os.getpid(), number)
            while not self.stop.asked():
                time.sleep(0.001)
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "train_on", signalled)
        assert runs.in_process(train, monkeypatch, *runs.options(data, run, checkpoint_every=LAST)) == STOPPED
    assert "stopped by a signal at step 8" in capsys.readouterr().out
    assert runs.checkpoints(run) == ["step-00000008"] and runs.last_step(run) == 8  # the step that it came in
    assert runs.in_process(train, monkeypatch, *runs.options(data, run), "--resume") == 0
    assert_same_run(whole[0], run)


def test_a_signal_ends_whatever_looks_at_the_network_and_the_resumed_run_does_it(whole, data, tmp_path, monkeypatch):
    """At the start, at an epoch's end, while partners are renewed, and at the very end, where no step is left."""
    run, moments = tmp_path / "run", [("measure", 0), ("measure", 30), ("refresh_partners", 42), ("measure", LAST)]
    left = list(moments)

    def signalled(name):
        real = getattr(train.Trainer, name)

        def call(self, *words):
            if left and left[0] == (name, self.state.step):
                left.pop(0)
                os.kill(os.getpid(), signal.SIGTERM)
                while not self.stop.asked():
                    time.sleep(0.001)
            return real(self, *words)

        monkeypatch.setattr(train.Trainer, name, call)

    signalled("measure")
    signalled("refresh_partners")
    words = runs.options(data, run, checkpoint_every=7)
    for number, (_, step) in enumerate(moments):
        assert runs.in_process(train, monkeypatch, *words, *["--resume"][:number]) == STOPPED
        assert runs.checkpoints(run)[-1] == f"step-{step:08d}" and not (run / "summary.json").exists()
        assert step not in [row["step"] for row in runs.rows(run, "knn_top1")]  # it was left, not waited for
    assert runs.in_process(train, monkeypatch, *words, "--resume") == 0
    assert_same_run(whole[0], run)


def started(words, tmp_path, program="train.py"):
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", program, *words]
    with open(tmp_path / "words.txt", "w") as output:
        return subprocess.Popen(line, cwd=runs.ROOT, env=runs.environment(), stdout=output, stderr=output)


def test_two_processes_stop_within_a_step_of_a_signal_to_one(data, tmp_path):
    """Neither rows nor checkpoints are due when it comes: agreement waits for none of them."""
    run = tmp_path / "run"
    words = runs.options(data, run, epochs=3000, refresh_epochs=3000, lr=0.01, knn_every=0, checkpoint_every=0)
    words[words.index("--log-every") + 1] = "10"
    words[words.index("--checkpoint-every") + 1] = "100000"
    process = started(words, tmp_path)
    try:
        deadline = time.monotonic() + 120
        while runs.last_step(run) < 10:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.002)
        os.kill(runs.workers(process.pid)[1], signal.SIGUSR1)
        before = runs.last_step(run)
        assert process.wait(timeout=120) != 0
    finally:
        runs.kill(process)
    said = (tmp_path / "words.txt").read_text()
    step = int(said.split("stopped by a signal at step ")[1].split(";")[0])
    assert runs.checkpoints(run) == [f"step-{step:08d}"] and f"exitcode  : {STOPPED}" in said
    assert "lost contact" not in said and 'Traceback (most recent call last):\n  File "/work' not in said
    assert step >= before
    state = json.loads((run / "checkpoints" / f"step-{step:08d}" / "state.json").read_text())
    assert state["samples_seen"] == 16 * step


FAILING = """
import sys
import train
real = train.Trainer.train_on
def train_on(self, batch):
    if self.accelerator.process_index == 1 and self.state.step == 4:
        raise ZeroDivisionError("an error of one process")
    return real(self, batch)
train.Trainer.train_on = train_on
sys.exit(train.main())
"""


def test_the_error_of_one_process_is_shown_and_ends_the_others(data, tmp_path):
    """Within a minute here, on a busy machine; its traceback is there, and the other one says whom it lost."""
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    words = runs.options(data, tmp_path / "run", epochs=2000, refresh_epochs=2000, lr=0.01, knn_every=0)
    process = started(words, tmp_path, str(program))
    begun = time.monotonic()
    try:
        assert process.wait(timeout=120) == 1
    finally:
        runs.kill(process)
    said = (tmp_path / "words.txt").read_text()
    assert "ZeroDivisionError: an error of one process" in said and "in train_on" in said
    assert runs.last_step(tmp_path / "run") == 4 and time.monotonic() - begun < 100
