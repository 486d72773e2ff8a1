"""A block that takes too long is ended from another thread; a program starts again with further options."""

import subprocess
import sys
import time

import pytest

from tests.support import runs
from tools.run.time_limit import time_limit

HANGS = """
import sys, time
from tools.run.time_limit import restart, time_limit
if "--no-record" in sys.argv:
    print("started again with", sys.argv[1:], flush=True)
    sys.exit(7)
with time_limit(0.2, lambda: restart("it took too long", ["--no-record"])):
    time.sleep(60)
"""


def test_a_block_in_time_is_left_alone():
    late = []
    with time_limit(0.05, lambda: late.append(1)):
        pass
    time.sleep(0.1)
    assert late == []
    with time_limit(0.05, lambda: late.append(1)):
        time.sleep(0.2)
    assert late == [1]
    with time_limit(None, lambda: late.append(2)):
        pass
    assert late == [1]


@pytest.mark.processes
def test_a_program_that_hangs_starts_again_in_its_process(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(HANGS)
    done = subprocess.run(
        [sys.executable, str(program), "--method", "clim"],
        env=runs.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 7 and done.stderr == "it took too long\n"
    assert done.stdout == "started again with ['--method', 'clim', '--no-record']\n"
