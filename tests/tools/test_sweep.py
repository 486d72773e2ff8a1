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
from tools.sweeping import evaluations, programs, table
from tools.sweeping.time_left import Budget, TimeLeft, as_text

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
def test_a_program_is_asked_to_stop_in_time(tmp_path, monkeypatch):
    """It ends as a run does that a signal stops: with exit code 143, after its checkpoint."""
    (tmp_path / "train.py").write_text(PROGRAM.replace('.write_text("well")', '.write_text("well") and 143'))
    monkeypatch.setattr(programs, "ROOT", tmp_path)
    looks = []
    assert programs.call(["train.py", str(tmp_path)], 2.5, lambda: looks.append(1)) is False
    assert (tmp_path / "stopped").read_text() == "well" and looks


@pytest.mark.processes
def test_a_signal_is_passed_on_and_waited_for(tmp_path, monkeypatch, capsys):
    (tmp_path / "train.py").write_text(PROGRAM)
    monkeypatch.setattr(programs, "ROOT", tmp_path)
    signal.signal(signal.SIGTERM, sweep._stop)

    def send():
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    with pytest.raises(SystemExit) as ended:
        programs.call(["train.py", str(tmp_path)])
    assert ended.value.code == STOPPED and (tmp_path / "stopped").read_text() == "well"
    assert capsys.readouterr().err == "tools.sweep: stopped by a signal; call it again to go on\n"


@pytest.mark.whole_run
def test_a_sweep_goes_on_where_it_stopped(data, tmp_path, monkeypatch, capsys):
    """Its programs run in this process, which has imported them; that `call` starts them is tested above."""

    def call(command, *_):
        program = {"train.py": train, "eval.py": evaluation}[command[0]]
        assert runs.in_process(program, monkeypatch, *command[1:]) == 0
        return True

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


@pytest.mark.whole_run
def test_a_lease_of_minutes_and_the_published_evaluations(data, tmp_path, monkeypatch, capsys):
    """The first call stops training after two steps; the second goes on, and measures the last checkpoint again."""
    stops = [2, None]
    commands = []

    def call(command, *_):
        commands.append(command)
        at = stops.pop(0) if command[0] == "train.py" else None
        words = [*command[1:], *(["--max-steps", "2"] if at else [])]
        words += ["--epochs", "2"] if command[:2] == ["eval.py", "linear"] else []
        words = ["5" if words[place - 1] == "--k" else word for place, word in enumerate(words)]  # of 48 images
        program = {"train.py": train, "eval.py": evaluation}[command[0]]
        assert runs.in_process(program, monkeypatch, *words) == 0
        if at:
            (out / "moco" / "summary.json").unlink()  # as a signal leaves it
            config = out / "moco" / "config.json"
            config.write_text(config.read_text().replace('"max_steps": 2', '"max_steps": 0'))
        return not at

    monkeypatch.setattr(sweep, "call", call)
    out = tmp_path / "sweep"
    command = ["--data", str(data.train), "--val-data", str(data.held_out), "--out", str(out), "--methods", "moco,byol"]
    command += ["--published", "--minutes", "9", "--set", "moco:queue-size=32", "--", "--recipe", "cifar10"]
    command += [word for place, word in enumerate(TINY) if "--queue-size" not in TINY[max(0, place - 1) : place + 1]]
    assert sweep.main([*command, "--epochs", "2"]) == 0
    (row,) = json.loads((out / "sweep.json").read_text())["rows"]
    assert (row["method"], row["recipe"], row["steps"], row["of_steps"]) == ("moco", "cifar10", 2, 6)
    assert row["published"]["linear"] == 86.18
    assert row["difference"]["linear"] == pytest.approx(row["linear_best_epoch"] - 86.18, abs=0.01)
    assert row["linear_protocol"].startswith("linear-augmented-")
    assert row["linear_best_epoch_protocol"] == f"{row['linear_protocol']}-best-epoch"
    assert row["linear_best_epoch"] >= row["linear"]
    assert [words[:2] for words in commands[1:]] == [["eval.py", "knn"], ["eval.py", "linear"]]
    assert {"--augment", "--best-epoch", "published"} <= set(commands[2]) and {"200", "0.1"} <= set(commands[1])
    told = capsys.readouterr().out
    assert "the 9 minutes are over; call it again to go on" in told and "(-52.85)" in told

    commands.clear()
    again = [word.replace("moco,byol", "moco") for word in command]
    assert sweep.main([*again, "--epochs", "2"]) == 0
    assert "--resume" in commands[0] and len(commands) == 3  # both evaluations again, of the last step
    (row,) = json.loads((out / "sweep.json").read_text())["rows"]
    assert row["steps"] == row["of_steps"] == 6


def test_what_is_left_is_said_after_the_second_epoch(tmp_path, monkeypatch, capsys):
    config = {"recipe": {"batch_size": 8, "epochs": 20}, "data": {"number": 83}, "options": {"max_steps": 0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    clock = iter([100.0, 160.0, 160.0])
    monkeypatch.setattr("tools.sweeping.time_left.time.monotonic", lambda: next(clock))
    left = TimeLeft("msvq", tmp_path, 0, 2)
    rows = [{"step": step, "epoch": step // 10, "loss": 1.0} for step in (5, 10, 15, 20)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:3]) + '{"step": 20, "ep')
    left()
    assert capsys.readouterr().out == ""
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    left()  # 20 steps in a minute; 180 are left, and twice 200
    left()
    assert capsys.readouterr().out == (
        "tools.sweep: msvq is at step 20 of 200; about 9 min of training left, and 20 min for 2 more methods, "
        "if they are as fast\n"
    )
    assert [as_text(seconds) for seconds in (1, 90 * 60, 3600 * 25)] == ["1 min", "1 h 30 min", "25 h 00 min"]


def test_a_budget_keeps_time_for_the_evaluations(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("tools.sweeping.time_left.time.monotonic", lambda: clock[0])
    budget = Budget(10, _started=0.0)
    assert (budget.left, budget.training) == (600, 450)  # a quarter, as long as nothing was measured
    clock[0], budget.evaluation = 60.0, 100.0
    assert budget.training == pytest.approx(540 - 120)
    assert Budget().training == float("inf")


def test_a_result_of_another_checkpoint_or_protocol_is_not_the_one(tmp_path):
    augmented = {"step": 6, "protocol": {"augment": True, "best_epoch": True}, "baselines": {"a": {}, "b": {}}}
    (tmp_path / "eval-linear.json").write_text(json.dumps(augmented))
    assert evaluations.is_done(tmp_path, "linear", True, 6) and evaluations.is_done(tmp_path, "linear", False, 6)
    assert not evaluations.is_done(tmp_path, "linear", True, 8) and not evaluations.is_done(tmp_path, "knn", True, 6)
    (tmp_path / "eval-linear.json").write_text('{"step": 6, "baselines": {}}')
    assert not evaluations.is_done(tmp_path, "linear", True, 6)
    for neighbors, expected in ((20, False), (200, True)):
        found = {"step": 6, "protocol": {"k": neighbors, "temperature": 0.1}}
        (tmp_path / "eval-knn.json").write_text(json.dumps(found))
        assert evaluations.is_done(tmp_path, "knn", True, 6) == expected


def test_figures_stand_beside_the_published_ones():
    row = {"method": "mncl", "recipe": "cifar10_224", "knn": 80.0}
    found = table.compared(row, {"protocol": "p", "epoch": 3, "top1": 90.0})
    assert found["difference"] == {"linear": -0.18} and found["published"]["document"] == "MNCLGLF's README"
    assert table.beside(row | found, "linear", 90.0) == "90.00 (-0.18)" and table.beside(row, "knn", 80.0) == "80.00"
    assert table.compared(row | {"recipe": "cifar10"}, None) == {}


def test_an_evaluation_without_baselines_is_made_anew(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(sweep, "call", lambda command, *_: called.append(command[:2]))
    run = tmp_path / "moco"
    run.mkdir()
    monkeypatch.setattr(sweep, "describe_data", lambda path: {"checksum": f"{path}{path}"})
    images = {"data": {"checksum": "aa"}, "val_data": {"checksum": "bb"}}
    baselines = {"baselines": {"untrained network": {}, "raw pixels": {}}}
    (run / "summary.json").write_text("{}")
    (run / "config.json").write_text('{"data": {"checksum": "aa"}}')
    (run / "eval-knn.json").write_text(json.dumps(images | baselines))
    (run / "eval-linear.json").write_text(json.dumps(images))
    sweep.train("moco", Namespace(out=tmp_path, data="a", val_data="b", published=False), [], Budget())
    assert called == [["eval.py", "linear"]]


def test_a_run_and_evaluations_of_other_images_are_not_taken_for_ours(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(sweep, "call", lambda command, *_: called.append(command[:2]))
    monkeypatch.setattr(sweep, "describe_data", lambda path: {"checksum": f"{path}{path}"})
    run = tmp_path / "moco"
    run.mkdir()
    (run / "summary.json").write_text("{}")
    (run / "config.json").write_text('{"data": {"checksum": "aa"}}')
    for name, queries in (("knn", "bb"), ("linear", "other")):
        images = {"data": {"checksum": "aa"}, "val_data": {"checksum": queries}}
        result = images | {"baselines": {"untrained network": {}, "raw pixels": {}}}
        (run / f"eval-{name}.json").write_text(json.dumps(result))
    sweep.train("moco", Namespace(out=tmp_path, data="a", val_data="b", published=False), [], Budget())
    assert called == [["eval.py", "linear"]]
    with pytest.raises(Failure, match="was trained on other images"):
        sweep.train("moco", Namespace(out=tmp_path, data="c", val_data="b", published=False), [], Budget())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "magic"], "unknown method 'magic'"),
        (["--methods", "moco", "--set", "x=1"], "--set x=1 is not"),
        (["--minutes", "-1"], "--minutes is -1; give a number of minutes"),
        (["--minutes", "nan"], "--minutes is nan; give a number of minutes"),
    ],
)
def test_mistakes_are_one_line(options, message, tmp_path, capsys):
    assert sweep.main(["--data", "a", "--val-data", "b", "--out", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
