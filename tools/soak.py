"""Trains for a long time and watches whether memory, threads or open files grow, or training slows down.

    python -m tools.soak --minutes 30 --out /tmp/soak -- --method clim --data data/cifar10.beton --width 8

Options after `--` are those of train.py, without --epochs: the run lasts as long as --minutes says and is then stopped
with SIGTERM, as by a scheduler. Prints the growth per hour after the warm-up (slopes of least-squares lines), and the
throughput of the first and of the last five minutes after it. All samples are written to OUT/soak.json.

Exit code 0: memory grew by less than --grow MiB an hour, threads and open files by less than one an hour, and the
throughput of the last part is within 5 % of the first part's. 1: one of these does not hold. 2: the run failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools.command_line import Failure, OneLineParser, guarded_main, own_and_passed_on
from tools.reliability.training_process import log_of, training
from tools.run.process_start import STOPPED

ENDS_S = 300.0  # length of the first and of the last part, whose throughputs are compared
_SLOWER = 0.05  # relative change of the throughput that is accepted


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.soak", lambda: soak(arguments))


def soak(arguments: Sequence[str] | None) -> int:
    """Train for the given time while sampling the process; return the exit code."""
    own, passed_on = own_and_passed_on(arguments)
    options = parse(own)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that no child is left running
    run = options.out / "run"
    with training([*passed_on, "--epochs", "100000"], run) as process:
        samples = watch(process, run, 60 * options.minutes, options.every)
        process.send_signal(signal.SIGTERM)
        code = process.wait(300)
    if code != STOPPED:
        raise Failure(f"the run ended with exit code {code}; see {log_of(run)}")
    result = judge(samples, read_rates(run), 60 * options.warm_up, options.grow)
    (options.out / "soak.json").write_text(json.dumps(result | {"samples": samples}) + "\n")
    for name, value in result.items():
        print(f"{name.replace('_', ' ')}: {value}")
    return int(not result["flat"])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(prog="tools.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=30, metavar="X", help="the duration of training (default: %(default)s)"
    )
    parser.add_argument(
        "--warm-up",
        type=float,
        default=3,
        metavar="X",
        help="the first minutes, which are not judged (default: %(default)s)",
    )
    parser.add_argument(
        "--every", type=float, default=2, metavar="X", help="the seconds between two samples (default: %(default)s)"
    )
    parser.add_argument(
        "--grow",
        type=float,
        default=60,
        metavar="X",
        help="the growth of memory in MiB an hour that still counts as flat (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder of the run and the samples")
    return parser.parse_args(arguments)


def watch(process: subprocess.Popen[bytes], run: Path, seconds: float, every: float) -> list[dict[str, float]]:
    """Sample a process from its first row of metrics on, until the time is up or the process ends.

    Args:
        seconds: how long to watch.
        every: seconds between two samples.
    """
    samples: list[dict[str, float]] = []
    start: float | None = None
    while process.poll() is None:
        now = time.monotonic()
        if start is None and (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size:
            start = now
        if start is not None:
            if now - start > seconds:
                break
            samples.append({"at_s": round(now - start, 1), **sample(process.pid)})
        time.sleep(every)
    return samples


def sample(pid: int) -> dict[str, float]:
    """Return the resident memory in MiB, the number of threads and the number of open files of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {
        "rss_mib": round(int(status["VmRSS"].split()[0]) / 1024, 2),
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


def read_rates(run: Path) -> list[tuple[float, float]]:
    """Return (seconds of training up to a logged row, samples since the row before) for each logged row.

    Rows carry no time; the seconds between two rows are their samples divided by the row's samples per second.
    """
    rates: list[tuple[float, float]] = []
    seen = clock = 0.0
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "samples_per_s" in row and row["samples_seen"] > seen:
            clock += (row["samples_seen"] - seen) / max(row["samples_per_s"], 1e-9)
            rates.append((clock, row["samples_seen"] - seen))
            seen = row["samples_seen"]
    return rates


def judge(
    samples: list[dict[str, float]], rates: list[tuple[float, float]], warm_up: float, grow: float
) -> dict[str, Any]:
    """Return the growth per hour after the warm-up, the throughput at both ends, and whether all of it is flat.

    Each end is five minutes long, or a third of the time after the warm-up if that is shorter.

    Args:
        samples: what `watch` returned.
        rates: what `read_rates` returned.
        warm_up: seconds that are not judged.
        grow: MiB an hour from which on memory is not flat.

    Raises:
        ValueError: too few samples are left after the warm-up.
    """
    kept = [sample for sample in samples if sample["at_s"] >= warm_up]
    if len(kept) < 3:
        raise ValueError(f"{len(kept)} samples after the warm-up are too few; let it run longer")
    hours = np.array([sample["at_s"] for sample in kept]) / 3600
    slopes = {
        name: float(np.polyfit(hours, np.array([sample[name] for sample in kept]), 1)[0])
        for name in ("rss_mib", "threads", "files")
    }
    end = rates[-1][0]
    length = min(ENDS_S, (end - warm_up) / 3)
    first = throughput(rates, warm_up, warm_up + length)
    last = throughput(rates, end - length, end)
    steady = bool(abs(last / first - 1) <= _SLOWER)
    flat = steady and slopes["rss_mib"] < grow and max(slopes["threads"], slopes["files"]) < 1
    return {
        "flat": flat,
        "minutes": round(samples[-1]["at_s"] / 60, 1),
        **{f"{name}_per_hour": round(slope, 3) for name, slope in slopes.items()},
        "rss_mib_last": kept[-1]["rss_mib"],
        "threads_last": kept[-1]["threads"],
        "files_last": kept[-1]["files"],
        "samples_per_s_first": round(first, 1),
        "samples_per_s_last": round(last, 1),
        "last_to_first": round(last / first, 4),
    }


def throughput(rates: list[tuple[float, float]], start: float, stop: float) -> float:
    """Return the samples per second of the rows between two moments, in seconds of training; NaN without rows."""
    inside = [(clock, count) for clock, count in rates if start < clock <= stop]
    before = max((clock for clock, _ in rates if clock <= start), default=0.0)
    return sum(count for _, count in inside) / (inside[-1][0] - before) if inside else float("nan")


if __name__ == "__main__":
    sys.exit(main())
