"""A sweep trains, evaluates and tabulates; called again, it only reads; after an interruption, it goes on."""

import json
import os
import signal
import threading
import time
from argparse import Namespace

import pytest

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

import eval as evaluation
import train
from tests.support import runs
from tools import sweep
from tools.command_line import Failure
from tools.run.process_start import STOPPED, WATCHED

TINY = ["--width", "4", "--crop-size", "16", "--image-size", "16", "--batch-size", "16", "--bn-splits", "1",
        "--warmup-epochs", "0", "--queue-size", "32", "--threads", "1", "--precision", "fp32"]  # fmt: skip


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in WATCHED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


PROGRAM = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(pathlib.Path(sys.argv[1], "stopped").write_text("well")))
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(60)
"""


@pytest.mark.processes
def test_a_signal_is_passed_on_and_waited_for(tmp_path, monkeypatch, capsys):
    (tmp_path / "train.py").write_text(PROGRAM)
    monkeypatch.setattr(sweep, "ROOT", tmp_path)
    signal.signal(signal.SIGTERM, sweep._stop)

    def send():
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    with pytest.raises(SystemExit) as ended:
        sweep.call(["train.py", str(tmp_path)])
    assert ended.value.code == STOPPED and (tmp_path / "stopped").read_text() == "well"
    assert capsys.readouterr().err == "tools.sweep: stopped by a signal; call it again to go on\n"


@pytest.mark.whole_run
def test_a_sweep_goes_on_where_it_stopped(data, tmp_path, monkeypatch, capsys):
    """Its programs run in this process, which has imported them; that `call` starts them is tested above."""

    def call(command):
        program = {"train.py": train, "eval.py": evaluation}[command[0]]
        assert runs.in_process(program, monkeypatch, *command[1:]) == 0

    monkeypatch.setattr(sweep, "call", call)
    out = tmp_path / "sweep"
    command = ["--data", str(data.train), "--val-data", str(data.held_out), "--out", str(out), "--methods", "moco"]
    command += ["--set", "moco:recipe=cifar10", "--", *TINY]
    assert sweep.main([*command, "--max-steps", "2"]) == 0
    row = json.loads((out / "sweep.json").read_text())["rows"][0]
    assert (row["method"], row["steps"], row["images_seen"]) == ("moco", 2, 32)
    measured = ("knn", "linear", "knn_untrained", "knn_pixels", "linear_untrained", "linear_pixels")
    assert all(0 <= row[name] <= 100 for name in measured)
    assert row["rank"] >= 1
    assert row["spread"] > 0
    assert "moco" in capsys.readouterr().out

    before = {path: path.stat().st_mtime_ns for path in (out / "moco").rglob("*.json*")}
    assert sweep.main([*command, "--max-steps", "2"]) == 0  # nothing is left to do
    assert before == {path: path.stat().st_mtime_ns for path in (out / "moco").rglob("*.json*")}

    for name in ("summary.json", "eval-knn.json", "eval-linear.json"):
        (out / "moco" / name).unlink()  # as if it had been interrupted after its second step
    assert sweep.main([*command, "--max-steps", "3"]) == 0
    rows = [json.loads(line) for line in (out / "moco" / "metrics.jsonl").read_text().splitlines()]
    assert json.loads((out / "sweep.json").read_text())["rows"][0]["steps"] == 3
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)


def test_an_evaluation_without_baselines_is_made_anew(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(sweep, "call", lambda command: called.append(command[:2]))
    run = tmp_path / "moco"
    run.mkdir()
    monkeypatch.setattr(sweep, "describe_data", lambda path: {"checksum": f"{path}{path}"})
    images = {"data": {"checksum": "aa"}, "val_data": {"checksum": "bb"}}
    baselines = {"baselines": {"untrained network": {}, "raw pixels": {}}}
    (run / "summary.json").write_text("{}")
    (run / "config.json").write_text('{"data": {"checksum": "aa"}}')
    (run / "eval-knn.json").write_text(json.dumps(images | baselines))
    (run / "eval-linear.json").write_text(json.dumps(images))
    sweep.train("moco", Namespace(out=tmp_path, data="a", val_data="b"), [])
    assert called == [["eval.py", "linear"]]


def test_a_run_and_evaluations_of_other_images_are_not_taken_for_ours(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(sweep, "call", lambda command: called.append(command[:2]))
    monkeypatch.setattr(sweep, "describe_data", lambda path: {"checksum": f"{path}{path}"})
    run = tmp_path / "moco"
    run.mkdir()
    (run / "summary.json").write_text("{}")
    (run / "config.json").write_text('{"data": {"checksum": "aa"}}')
    for name, queries in (("knn", "bb"), ("linear", "other")):
        images = {"data": {"checksum": "aa"}, "val_data": {"checksum": queries}}
        result = images | {"baselines": {"untrained network": {}, "raw pixels": {}}}
        (run / f"eval-{name}.json").write_text(json.dumps(result))
    sweep.train("moco", Namespace(out=tmp_path, data="a", val_data="b"), [])
    assert called == [["eval.py", "linear"]]
    with pytest.raises(Failure, match="was trained on other images"):
        sweep.train("moco", Namespace(out=tmp_path, data="c", val_data="b"), [])


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--methods", "magic"], "unknown method 'magic'"), (["--methods", "moco", "--set", "x=1"], "--set x=1 is not")],
)
def test_mistakes_are_one_line(options, message, tmp_path, capsys):
    assert sweep.main(["--data", "a", "--val-data", "b", "--out", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
