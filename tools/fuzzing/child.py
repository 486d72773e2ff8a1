"""A child process of `tools.fuzz`: runs cases one by one, and says what became of each, until it ends or is ended.

    python -m tools.fuzzing.child SUBJECT FOLDER SEED START STOP STEP MEGABYTES LOADERS

It writes one JSON object a line: {"begin": n}, then {"end": n, "outcomes": [[stage, outcome, detail], ...]}, and at the
end {"memory": MiB that it grew by since its first cases, "handles": files that it left open}.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

SUBJECTS = {"images": "tools.fuzzing.images:Images", "containers": "tools.fuzzing.containers:Containers"}
WARM = 30  # cases before memory and handles are counted


def main() -> int:
    subject, folder, seed, start, stop, step, megabytes, loaders = sys.argv[1:]
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes with the errors
    warnings.simplefilter("ignore")
    subjects = cases(subject, Path(folder), int(seed), tuple(loaders.split(",")))
    sys.stderr.flush()

    def say(**what: Any) -> None:
        report.write(json.dumps(what) + "\n")

    say(ready=True)
    limit = (_status("VmSize") << 10) + (int(megabytes) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = None
    for done, number in enumerate(range(int(start), int(stop), int(step))):
        if done == WARM:
            before = _status("VmRSS"), len(os.listdir("/proc/self/fd"))
        say(begin=number)
        try:
            outcomes = subjects.run(number)
        except MemoryError:
            outcomes = [("python", "MEMORY", traceback.format_exc()[-1500:])]
        except Exception:  # a user would see this traceback
            outcomes = [("python", "CRASH", traceback.format_exc()[-1500:])]
        say(end=number, outcomes=outcomes)
    if before is not None:
        say(memory=(_status("VmRSS") - before[0]) / 1024, handles=len(os.listdir("/proc/self/fd")) - before[1])
    report.flush()
    os._exit(0)  # without waiting for threads of libraries


def cases(subject: str, folder: Path, seed: int, loaders: tuple[str, ...]) -> Any:
    """The cases of a subject: one of ours, or the class of any module, as module:Class."""
    module, _, name = SUBJECTS.get(subject, subject).partition(":")
    return getattr(import_module(module), name)(folder, seed, loaders)


def _status(key: str) -> int:
    """A number of /proc/self/status, KiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


if __name__ == "__main__":
    sys.exit(main())
