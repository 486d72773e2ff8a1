"""Several launchers on this machine: a lost process ends the others, the run goes on, and unlike starts are refused."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import train
from tests.support import gloo, runs
from tests.support.states import run_state
from tools.run import process_group as peers
from tools.run.process_group import LOST, LostContact, detect_lost_peers, requested_processes, run_facts

PEER_TIMEOUT = 8  # seconds
SLACK = 40  # seconds for the launchers to notice and end, on a busy machine


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def two_launchers(words, tmp_path, prefixes=((), ()), address="127.0.0.1"):
    """torchrun as on two machines: one process each. Yields them; whatever is left of them is killed."""
    port, started = free_port(), []
    for node in range(2):
        line = [
            *prefixes[node], sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", node,
            "--nproc_per_node", "1", "--master_addr", address, "--master_port", port, "train.py", *words[node],
        ]  # fmt: skip
        with open(tmp_path / f"node{node}.txt", "w") as output:
            launcher = subprocess.Popen(
                list(map(str, line)), cwd=runs.ROOT, env=runs.environment(), stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        started.append(launcher)
    try:
        yield started
    finally:
        for launcher in started:
            runs.kill(launcher)


def signalled(pid, number):
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_for_step(run, step):
    deadline = time.monotonic() + 90
    while runs.last_step(run) < step:
        assert time.monotonic() < deadline, f"step {step} never came"
        time.sleep(0.05)


def train_lines(text):
    return [line for line in text.splitlines() if line.startswith("train.py: ")]


def lines(tmp_path, node):
    return train_lines((tmp_path / f"node{node}.txt").read_text())


def long_run(data, run):
    return runs.options(data, run, epochs=2000, refresh_epochs=500, knn_every=0, peer_timeout=PEER_TIMEOUT, lr=0.01)


# ---- a lost process -------------------------------------------------------------------------------------------------


def test_a_killed_machine_ends_the_others_and_the_run_goes_on_with_one_process(data, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    with two_launchers([long_run(data, run)] * 2, tmp_path) as launchers:
        wait_for_step(run, 12)
        victims = [*runs.workers(launchers[1].pid), launchers[1].pid]
        for pid in victims:
            signalled(pid, signal.SIGKILL)
        started = time.monotonic()
        assert launchers[0].wait(timeout=PEER_TIMEOUT + SLACK) != 0
        assert time.monotonic() - started < PEER_TIMEOUT + SLACK
    (line,) = lines(tmp_path, 0)
    assert line.startswith("train.py: process 0 of 2 lost contact with another after step ")
    assert line.endswith("(gone, or silent for 8 s); start all of them again with --resume")
    assert f"exitcode  : {LOST}" in (tmp_path / "node0.txt").read_text()
    assert not (run / "summary.json").exists()
    newest = int(runs.checkpoints(run)[-1].removeprefix("step-"))
    assert newest >= 10

    kept = shutil.copytree(run, tmp_path / "kept")
    words = [*long_run(data, run), "--resume", "--max-steps", str(newest + 5)]
    assert runs.in_process(train, monkeypatch, *words) == 0
    assert "resumed from" in capsys.readouterr().out
    steps = [row["step"] for row in runs.rows(run, "loss")]
    assert steps == list(range(1, newest + 6))

    # The same steps by two processes again, from the same checkpoint: the batches are those of one process.
    launcher = "-m torch.distributed.run --standalone --nproc_per_node 2 train.py"
    words = [*long_run(data, kept), "--resume", "--max-steps", str(newest + 5)]
    done = runs.command(launcher, *words)
    assert done.returncode == 0, done.stderr
    alone, together = runs.rows(run, "loss")[newest:], runs.rows(kept, "loss")[newest:]
    assert len(alone) == len(together) == 5
    for first, second in zip(alone, together, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-3)  # seen: 1e-6


def test_a_silent_process_ends_the_run_after_the_timeout(data, tmp_path):
    run = tmp_path / "run"
    with two_launchers([long_run(data, run)] * 2, tmp_path) as launchers:
        wait_for_step(run, 3)
        (silent,) = runs.workers(launchers[1].pid)
        signalled(silent, signal.SIGSTOP)
        started = time.monotonic()
        assert launchers[0].wait(timeout=PEER_TIMEOUT + SLACK) != 0
        assert time.monotonic() - started > PEER_TIMEOUT - 2
    (line,) = lines(tmp_path, 0)
    assert "lost contact with another" in line


def test_errors_of_ones_own_are_not_blamed_on_others(monkeypatch):
    with pytest.raises(RuntimeError, match="out of memory"), detect_lost_peers(run_state(step=3), 5):
        raise RuntimeError("out of memory")
    gone = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:1] Connection closed by peer")
    with pytest.raises(RuntimeError, match="closed by peer"), detect_lost_peers(run_state(step=3), 5):
        raise gone  # one process has no peers
    monkeypatch.setattr(peers, "world", lambda: (1, 4))
    expected = "process 1 of 4 lost contact with another after step 3"
    with pytest.raises(LostContact, match=expected), detect_lost_peers(run_state(step=3), 5):
        raise gone


# ---- unlike starts --------------------------------------------------------------------------------------------------


def refused(words, name, difference):
    """Both processes of a run say in one line of what kind their difference is."""
    for done in gloo.run_program("train", *words):
        assert done.returncode == 2
        (line,) = train_lines(done.stderr)
        assert line.startswith(f"train.py: process 1 differs from process 0 in {name} ({difference}")
        assert line.endswith(peers._REMEDIES[name])


def test_processes_that_differ_are_refused_in_one_line(data, tmp_path):
    """Other data on the second machine; other options."""
    own = runs.options(data, tmp_path / "run", max_steps=2, peer_timeout=PEER_TIMEOUT)
    for name, changed in (("data", {"data": data.held_out}), ("options", {"lr": 0.5})):
        other = runs.options(data, tmp_path / "run", **{"max_steps": 2, "peer_timeout": PEER_TIMEOUT, **changed})
        refused([own, other], name, "")
        assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_not_shared_is_noticed(whole, data, tmp_path):
    """The second machine does not see the checkpoints that the first one goes on from."""
    run = shutil.copytree(whole[0], tmp_path / "run")
    words = [[*runs.options(data, folder), "--resume"] for folder in (run, tmp_path / "elsewhere")]
    refused(words, "checkpoint", "step 0, not step 60)")
    assert json.loads((run / "summary.json").read_text())["step"] == 60  # nothing is lost


def test_paths_and_threads_may_differ(data, tmp_path):
    from tools.run.options import parse

    facts = []
    for changed in ({}, {"threads": 2, "output": "elsewhere"}, {"seed": 1}):
        options, _ = parse(runs.options(data, tmp_path / "run", **changed))
        dataset = type("Card", (), {"checksum": "c"})
        facts.append(run_facts(options, ("recipe",), dataset))
    assert facts[0] == facts[1] != facts[2]


# ---- what accelerate does not start ---------------------------------------------------------------------------------


def test_the_banner_says_when_accelerate_started_fewer_processes(data, tmp_path):
    launcher = "-m accelerate.commands.launch --cpu --num_processes 2 train.py"
    done = runs.command(launcher, *runs.options(data, tmp_path / "run", max_steps=1, knn_every=0))
    assert done.returncode == 0, done.stderr
    assert "world size 1" in done.stdout
    assert "2 processes were asked for and one was started" in done.stdout
    assert "torchrun --nproc_per_node 2" in done.stdout
    assert requested_processes() == 1  # the parent of this process is no accelerate


# ---- two machines in network namespaces -----------------------------------------------------------------------------


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@pytest.fixture
def namespaces():
    """Two network namespaces with a cable between them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"likeness{os.getpid()}{letter}" for letter in "ab"]
    made = [ip("netns", "add", name) for name in names]
    try:
        ends = ("lk-a", "lk-b")
        made.append(ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", ends[1], "netns", names[1]))
        for number, (name, end) in enumerate(zip(names, ends, strict=True)):
            made.append(ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", end))
            made.append(ip("-n", name, "link", "set", end, "up"))
            made.append(ip("-n", name, "link", "set", "lo", "up"))
        if failed := [step.stderr.strip() for step in made if step.returncode]:
            pytest.skip(f"network namespaces do not work here: {failed[0]}")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


def test_two_hosts_lose_their_cable(namespaces, data, tmp_path, monkeypatch):
    """Packets just stop, as when a machine loses power: only the timeout can tell."""
    run = tmp_path / "run"
    prefixes = [
        ("ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={end}")
        for name, end in zip(namespaces, ("lk-a", "lk-b"), strict=True)
    ]
    with two_launchers([long_run(data, run)] * 2, tmp_path, prefixes, "10.77.0.1") as launchers:
        wait_for_step(run, 12)
        assert ip("-n", namespaces[1], "link", "set", "lk-b", "down").returncode == 0
        assert launchers[0].wait(timeout=PEER_TIMEOUT + SLACK) != 0
    (line,) = lines(tmp_path, 0)
    assert "process 0 of 2 lost contact with another" in line
    newest = int(runs.checkpoints(run)[-1].removeprefix("step-"))
    words = [*long_run(data, run), "--resume", "--max-steps", str(newest + 2)]
    assert runs.in_process(train, monkeypatch, *words) == 0
