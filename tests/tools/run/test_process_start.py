"""The first moments of a program: signals before there is a run, a launcher that is gone, words that nobody reads."""

import ast
import os
import platform
import select
import signal
import subprocess
import sys

import pytest

from tests.support import runs
from tools.run.process_start import LossyStream

WAITING = """\
import os, time
from tools.run.process_start import start
start(); print(os.getpid(), flush=True); time.sleep(60)
"""


def started(words, **more):
    return subprocess.Popen(words, cwd=runs.ROOT, env=runs.environment(), stdout=subprocess.PIPE, text=True, **more)


def test_train_py_starts_before_anything_heavy_is_imported():
    body = ast.parse((runs.ROOT / "train.py").read_text()).body
    first = next(number for number, node in enumerate(body) if isinstance(node, ast.If))
    assert ast.unparse(body[first].body[0]) == "start()"
    before = [node.module for node in body[:first] if isinstance(node, ast.ImportFrom)]
    assert before == ["__future__", "tools.run.process_start"]
    assert not any(isinstance(node, ast.Import) for node in body[:first])


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_before_there_is_a_run_is_one_line_and_the_same_code(number):
    with started([sys.executable, "-c", WAITING], stderr=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.send_signal(number)
        error = process.communicate(timeout=20)[1]
    assert process.returncode == 143
    assert error == f"-c: stopped by a signal ({number.name}) while nothing was being trained\n"


PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {WAITING!r}])
time.sleep(60)
"""


@pytest.mark.processes
@pytest.mark.parametrize("name", ["torchrun", "shell"])
def test_a_program_ends_with_its_launcher_and_lives_on_without_its_shell(name, tmp_path):
    (tmp_path / name).write_text(PARENT)
    with started([sys.executable, tmp_path / name], stderr=subprocess.DEVNULL) as process:
        child = int(process.stdout.readline())
        try:
            process.kill()
            # The end of its words is the end of the child, which holds the pipe.
            ended = bool(select.select([process.stdout], [], [], 20 if name == "torchrun" else 0.5)[0])
            assert ended == (name == "torchrun")
        finally:
            if name == "shell" or not ended:
                os.kill(child, signal.SIGKILL)


def test_words_that_nobody_reads_cost_nothing_and_are_told_once(capfd):
    reading, writing = os.pipe()
    os.close(reading)
    for number in (writing, os.open("/dev/full", os.O_WRONLY)):
        with LossyStream(os.fdopen(number, "wb"), line_buffering=True) as stream:
            for _ in range(3):
                print("a line", file=stream, flush=True)
    broken, full = capfd.readouterr().err.splitlines()
    assert "cannot be written (Broken pipe); the program goes on without it" in broken
    assert "cannot be written (No space left on device); the program goes on without it" in full


CLOSED = """
import os, sys
from tools.run.process_start import start
start()
print("nobody reads this")
sys.exit(open("/dev/null").fileno() < 3)
"""


@pytest.mark.processes
def test_closed_streams_are_no_other_file():
    command = ["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, CLOSED]
    assert subprocess.run(command, cwd=runs.ROOT, env=runs.environment(), timeout=30).returncode == 0


HEAPS = """
import ctypes, sys, threading
from tools.run.process_start import start
start()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fdopen.restype = ctypes.c_void_p, ctypes.c_void_p
together = threading.Barrier(12)
def allocate():
    together.wait()
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(12)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
stream = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stream), libc.fflush(stream)
"""


@pytest.mark.processes
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such heaps")
@pytest.mark.parametrize("chosen", [None, "5"])
def test_threads_share_two_heaps_unless_the_caller_chose(chosen):
    environment = {name: value for name, value in runs.environment().items() if name != "MALLOC_ARENA_MAX"}
    environment |= {"MALLOC_ARENA_MAX": chosen} if chosen else {}
    line = [sys.executable, "-c", HEAPS]
    words = subprocess.run(line, cwd=runs.ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert words.count("<heap nr=") == int(chosen or 2)
