"""Damages images, data sets and checkpoints in every way that is known, and checks that nothing breaks.

    python -m tools.fuzz images --number 10000 --seed 1        # through conversion and through each loader
    python -m tools.fuzz containers --number 2000 --seed 1     # data sets of every format, card, names, checkpoints
    python -m tools.fuzz images --seed 1 --case 137            # one case again, in a child process as before

The cases run in child processes, each case with a limit on memory and time. Its outcome is one of these:

    refused               in one line
    replaced              the image is shown as grey, and counted
    accepted unchanged    the damage touched nothing that counts
    accepted, as told     other content, where checking was turned off or the card was edited to fit
    CRASH HANG MEMORY     as the names say
    WRONG                 accepted as sound although it is not
    LEAK                  memory or the number of open files grew from case to case

Exit code 1 if an outcome in capitals occurred. The damaged files are then kept, and the command that repeats the case
is printed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tools.command_line import OneLineParser, guarded_main
from tools.fuzzing.campaign import Campaign


def main(words: list[str] | None = None) -> int:
    return guarded_main("tools.fuzz", lambda: fuzz(parse(words)))


def fuzz(options: argparse.Namespace) -> int:
    """Run all cases, print what became of them, and keep the files of the findings; return the exit code."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        campaign = Campaign(options, Path(folder))
        campaign.run()
        seconds = time.monotonic() - began
        print(
            f"{campaign.cases:,} mutated {options.subject} (seed {options.seed}, loaders {options.loaders}) "
            f"in {seconds:.0f} s; memory grew by {campaign.growth:.0f} MiB at most"
        )
        for stage, counter in sorted(campaign.counts.items()):
            print(f"  {stage}: " + ", ".join(f"{count:,} {outcome}" for outcome, count in counter.most_common()))
        for case, stage, outcome, details in campaign.findings[:20]:
            print(f"{outcome} in {stage}, case {case}: {details}")
            print(f"  kept in {keep(options, case, Path(folder) / 'kept')}; again with:")
            print(f"  python -m tools.fuzz {options.subject} --seed {options.seed} --case {case}")
    return int(bool(campaign.findings))


def keep(options: argparse.Namespace, case: int, scratch: Path) -> Path:
    """Write the files of a case into the folder of findings, and return their folder."""
    from tools.fuzzing.child import cases

    kept: Path = options.keep / f"{options.subject}-{options.seed}-{case}"
    scratch.mkdir(exist_ok=True)
    for name, data in cases(options.subject, scratch, options.seed, ()).case(case):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(data)
    return kept


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="tools.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=["images", "containers"], help="what is damaged")
    parser.add_argument(
        "--number", type=int, default=1000, metavar="N", help="the number of cases (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the seed from which all cases follow (default: %(default)s)"
    )
    parser.add_argument("--case", type=int, metavar="N", help="the only case to run (default: all)")
    parser.add_argument(
        "--seconds", type=float, default=0, metavar="X", help="the time after which to stop (default: when all is done)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="the number of child processes (default: %(default)s)"
    )
    parser.add_argument(
        "--memory",
        type=int,
        default=3072,
        metavar="MIB",
        help="the memory that a case may take beyond its libraries (default: %(default)s)",
    )
    parser.add_argument(
        "--case-seconds",
        type=float,
        default=30,
        metavar="X",
        help="the time after which a case counts as hanging (default: %(default)s)",
    )
    parser.add_argument(
        "--loaders",
        default=_installed(),
        metavar="A,B",
        help="the loaders that read the damaged images (default: the installed ones, here %(default)s)",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("fuzz-findings"),
        metavar="DIR",
        help="the folder for the files of findings (default: %(default)s)",
    )
    options = parser.parse_args(words)
    options.start, options.stop = (0, options.number) if options.case is None else (options.case, options.case + 1)
    return options


def _installed() -> str:
    """Return the names of the loaders whose libraries are installed."""
    from pipelines.executors.choose import EXECUTORS  # here, because it imports torch

    return ",".join(spec.name for spec in EXECUTORS.values() if spec.installed())


if __name__ == "__main__":
    sys.exit(main())
