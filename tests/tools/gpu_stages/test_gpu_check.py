"""A GPU check keeps its time, writes every result at once, and says how each stage ended. Stages are small scripts."""

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tools import gpu_check
from tools.gpu_stages import cuda_tests, registry, result_file, supervisor
from tools.gpu_stages.registry import Stage
from tools.gpu_stages.result_file import DONE, FAILED, NOT_RUN, STOPPED

GOOD = "write({'benchmarks': {name: [{'case': 'one'}]}}); print('measured')"
ENDLESS = "write({'benchmarks': {name: [{'case': 'first'}]}}); print('begun', flush=True); import time; time.sleep(60)"
BROKEN = "print('a line'); raise ValueError('the reason')"
SCRIPTS = {"good": GOOD, "endless": ENDLESS, "broken": BROKEN, "late": GOOD}
HEAD = "import json, sys; name, path = sys.argv[1:3]; write = lambda what: json.dump(what, open(path, 'w'))\n"


@pytest.fixture
def check(tmp_path, monkeypatch):
    """A check of the stages above; returns its exit code and its summary."""
    stages = {name: Stage(name, f"the stage {name}", "none", seconds=1) for name in SCRIPTS}
    stages["late"] = Stage("late", "a stage that takes an hour", "none", seconds=3600)
    monkeypatch.setattr(gpu_check, "STAGES", stages)
    monkeypatch.setattr(gpu_check, "gpu_is_here", lambda: True)
    monkeypatch.setitem(gpu_check.LIMIT, "cuda", 1.5)
    real = supervisor.supervise

    def scripted(words, *rest):
        name = words[words.index("tools.gpu_stages.child") + 1]
        return real([sys.executable, "-c", HEAD + SCRIPTS[name], *words[3:]], *rest)

    monkeypatch.setattr(gpu_check, "supervise", scripted)

    def run(*words):
        code = gpu_check.main([*words, "--out", str(tmp_path)])
        return code, json.loads((tmp_path / "gpu-check.json").read_text())

    return run


@pytest.mark.processes
def test_every_stage_ends_in_its_own_way_and_the_others_go_on(check, tmp_path, capfd):
    code, summary = check()
    states = {name: stage["state"] for name, stage in summary["stages"].items()}
    assert states == {"good": DONE, "endless": STOPPED, "broken": FAILED, "late": NOT_RUN}
    assert code == 1 and not summary["rehearsal"]
    written = {name: result_file.read(tmp_path / f"{name}.json") for name in SCRIPTS}
    assert written["good"]["benchmarks"] == {"good": [{"case": "one"}]} and written["good"]["state"] == DONE
    assert written["endless"]["benchmarks"] == {"endless": [{"case": "first"}]}  # what it had until then
    assert written["endless"]["limit_s"] == 1.5 and written["endless"]["seconds"] < 10
    assert written["broken"]["last_lines"][-1] == "ValueError: the reason" and written["late"] == {}
    shown = capfd.readouterr().out
    assert "measured" in shown and "begun" in shown and "gpu_check:     ValueError: the reason" in shown
    assert "late: not run" in shown and "it takes about 3600 s" in shown


@pytest.mark.processes
def test_the_exit_code_tells(check):
    assert check("good")[0] == 0
    assert check("good", "late")[0] == 3
    assert check("endless")[0] == 3


@pytest.mark.processes
def test_the_time_of_all_is_kept(check):
    code, summary = check("good", "endless", "--minutes", "0.01")
    assert code == 3 and summary["stages"]["endless"]["state"] == NOT_RUN


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["step"], "there is no stage 'step'; take tests, step-msvq,"),
        (["--minutes", "0"], "--minutes is 0; give more than 0"),
        (["--minutes", "inf"], "--minutes is inf; give more than 0"),
    ],
)
def test_mistakes_are_one_line(words, line, capsys):
    assert gpu_check.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tools.gpu_check: {line}") and error.count("\n") == 1


@pytest.mark.processes
def test_a_rehearsal_of_one_stage(tmp_path, capfd, monkeypatch):
    """The complete way, with the real process of a stage."""
    monkeypatch.setattr(gpu_check, "gpu_is_here", lambda: False)
    assert gpu_check.main(["checkpoint", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "checkpoint.json").read_text())
    assert written["rehearsal"] and written["machine"]["cores"] and written["versions"]["torch"]
    assert written["benchmarks"]["checkpoint"][0]["contenders"]
    assert "a REHEARSAL on the CPU at tiny sizes, no CUDA device is found here: its numbers" in capfd.readouterr().out


@pytest.mark.processes
def test_nothing_outlives_the_check(tmp_path):
    """SIGTERM ends the stage and its children too."""
    marker = tmp_path / "pid"
    child = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    stage = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    body = (
        "from pathlib import Path; from tools import gpu_check; from tools.gpu_stages.supervisor import *;"
        "stack = contextlib.ExitStack(); stack.enter_context(gpu_check.exit_at_signals());"
        f"supervise([sys.executable, '-c', {stage!r}], Path({str(tmp_path / 'log')!r}), 60, dict(os.environ))"
    )
    process = subprocess.Popen([sys.executable, "-c", body], cwd=gpu_check.ROOT)
    end = time.monotonic() + 60
    while not (marker.exists() and marker.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    killed = int(marker.read_text())
    end = time.monotonic() + 10
    while psutil.pid_exists(killed) and psutil.Process(killed).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end


def test_a_terminal_that_is_gone_ends_nothing(tmp_path, monkeypatch):
    class Gone:
        @property
        def buffer(self):
            raise BrokenPipeError

    log = tmp_path / "log"
    log.write_bytes(b"a line\n")
    monkeypatch.setattr(supervisor.sys, "stdout", Gone())
    with log.open("rb") as file:
        supervisor._copy(file)
        assert file.read() == b""


def test_every_stage_has_a_module_with_rows():
    from importlib import import_module

    assert list(registry.STAGES)[:2] == ["tests", "step-msvq"]
    for stage in registry.STAGES.values():
        assert callable(import_module(f"tools.gpu_stages.{stage.module}").rows)
        assert stage.summary and 0 < stage.seconds <= gpu_check.LIMIT["cuda"]
    assert sum(stage.seconds for stage in registry.STAGES.values()) <= 10 * 60


def test_the_outcomes_of_pytest_are_counted(tmp_path):
    report = tmp_path / "tests.xml"
    cases = ['<testcase classname="a" name="passes"/>', '<testcase classname="a" name="s"><skipped/></testcase>']
    cases.append('<testcase classname="a" name="fails"><failure message="x"/></testcase>')
    report.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    assert cuda_tests.outcomes(report) == {"passed": 1, "skipped": 1, "failed": ["a.fails"]}
