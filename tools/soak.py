"""Trains for a long time and watches whether anything grows or slows down: memory, threads, open files, throughput.

    python -m tools.soak --minutes 30 --out /tmp/soak -- --method clim --data data/cifar10.beton --width 8

What follows `--` are options of train.py; the run goes on for the time given, over as many epochs as that takes, and is
then stopped as a scheduler stops it. Prints slopes (least squares) after the warm-up, and the throughput of the first
and of the last five minutes after it, from the logged rows; the samples go into OUT/soak.json. Exit code 0: memory grew
by less than --grow MiB an hour, threads and files by less than one an hour, and the throughput of the last part is
within 5 % of the first's. 1: not so. 2: the run failed.
"""

from __future__ import annotations

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
from tools.run.process_start import STOPPED

ROOT = Path(__file__).resolve().parent.parent
PART_S = 300.0  # of the throughput at both ends
_SLOWER = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    return guarded_main("tools.soak", lambda: soak(arguments))


def soak(arguments: Sequence[str] | None) -> int:
    own, passed_on = own_and_passed_on(arguments)
    parser = OneLineParser(prog="tools.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30, help="of training (default: %(default)s)")
    parser.add_argument("--warm-up", type=float, default=3, help="minutes that do not count (default: %(default)s)")
    parser.add_argument("--every", type=float, default=2, help="seconds between samples (default: %(default)s)")
    parser.add_argument("--grow", type=float, default=60, help="MiB an hour that pass as flat (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run and the samples")
    options = parser.parse_args(own)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no run is left behind
    options.out.mkdir(parents=True, exist_ok=True)
    run, log = options.out / "run", options.out / "run.txt"
    line = [sys.executable, str(ROOT / "train.py"), *passed_on, "--output", str(run), "--epochs", "100000"]
    with log.open("wb") as output:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(line, env=environment, stdout=output, stderr=output)
    try:
        samples = watch(process, run, 60 * options.minutes, options.every)
        process.send_signal(signal.SIGTERM)
        code = process.wait(300)
    finally:
        process.kill()
        process.wait()
    if code != STOPPED:
        raise Failure(f"the run ended with exit code {code}; see {log}")
    result = judge(samples, read_rates(run), 60 * options.warm_up, options.grow)
    (options.out / "soak.json").write_text(json.dumps(result | {"samples": samples}) + "\n")
    for name, value in result.items():
        print(f"{name.replace('_', ' ')}: {value}")
    return int(not result["flat"])


def watch(process: subprocess.Popen[bytes], run: Path, seconds: float, every: float) -> list[dict[str, float]]:
    """Samples of a process from its first row of metrics on; ends early with the process."""
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
    """Resident MiB, threads and open files of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {
        "rss_mib": round(int(status["VmRSS"].split()[0]) / 1024, 2),
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


def read_rates(run: Path) -> list[tuple[float, float]]:
    """(seconds of training until a logged row, samples) of each of them: a row's window is as long as its rate says."""
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
    """Slopes an hour after the warm-up, and the throughput of its first and last part (five minutes, or a third)."""
    kept = [sample for sample in samples if sample["at_s"] >= warm_up]
    if len(kept) < 3:
        raise ValueError(f"{len(kept)} samples after the warm-up; let it run longer")
    hours = np.array([sample["at_s"] for sample in kept]) / 3600
    slopes = {
        name: float(np.polyfit(hours, np.array([sample[name] for sample in kept]), 1)[0])
        for name in ("rss_mib", "threads", "files")
    }
    end = rates[-1][0]
    part = min(PART_S, (end - warm_up) / 3)
    first = throughput(rates, warm_up, warm_up + part)
    last = throughput(rates, end - part, end)
    steady = bool(abs(last / first - 1) <= _SLOWER)
    flat = steady and slopes["rss_mib"] < grow and max(slopes["threads"], slopes["files"]) < 1
    return {
        "flat": flat, "minutes": round(samples[-1]["at_s"] / 60, 1),
        **{f"{name}_per_hour": round(slope, 3) for name, slope in slopes.items()},
        "rss_mib_last": kept[-1]["rss_mib"], "threads_last": kept[-1]["threads"], "files_last": kept[-1]["files"],
        "samples_per_s_first": round(first, 1), "samples_per_s_last": round(last, 1),
        "last_to_first": round(last / first, 4),
    }  # fmt: skip


def throughput(rates: list[tuple[float, float]], start: float, stop: float) -> float:
    """Samples per second of the rows between two moments of training."""
    inside = [(clock, count) for clock, count in rates if start < clock <= stop]
    before = max((clock for clock, _ in rates if clock <= start), default=0.0)
    return sum(count for _, count in inside) / (inside[-1][0] - before) if inside else float("nan")


if __name__ == "__main__":
    sys.exit(main())
