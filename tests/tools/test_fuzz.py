"""Fuzzing notices what it is there for, and finds nothing in a few cases of each kind."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tools import fuzz
from tools.fuzzing.campaign import Campaign
from tools.fuzzing.mutations import IMAGES, edit_json, harmed


def options(tmp_path: Path, subject: str, number: int, **changes: object) -> argparse.Namespace:
    made = fuzz.parse(["images", "--number", str(number), "--keep", str(tmp_path / "kept")])
    for name, value in {"subject": subject, **changes}.items():
        setattr(made, name, value)
    return made


@pytest.mark.processes
def test_it_notices_everything(tmp_path: Path) -> None:
    chosen = options(tmp_path, "tests.support.fuzz_canary:Canary", 10, memory=256, case_seconds=2)
    campaign = Campaign(chosen, tmp_path)
    campaign.run()
    found = {number: (stage, outcome) for number, stage, outcome, _ in campaign.findings}
    assert found == {
        1: ("process", "CRASH"), 3: ("process", "HANG"), 5: ("python", "MEMORY"), 7: ("python", "CRASH"),
        8: ("canary", "WRONG"), 9: ("process", "CRASH"),
    }  # fmt: skip
    assert campaign.cases == 10 and campaign.counts["canary"]["refused"] == 4
    details = {number: detail for number, _, _, detail in campaign.findings}
    assert "exit code -11" in details[1] and "KeyError: 'unexpected'" in details[7]
    kept = fuzz.keep(chosen, 7, tmp_path / "scratch")
    assert (kept / "case").read_bytes() == b"7"


@pytest.mark.processes
def test_it_notices_leaks(tmp_path: Path) -> None:
    campaign = Campaign(options(tmp_path, "tests.support.fuzz_canary:Leak", 60), tmp_path)
    campaign.run()
    assert [outcome for _, _, outcome, _ in campaign.findings] == ["LEAK"]


@pytest.mark.processes
@pytest.mark.parametrize("subject", ["images", "containers"])
def test_a_few_cases(subject: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
    words = [subject, "--number", "48", "--seed", "11", "--loaders", "ffcv,resident", "--keep", str(tmp_path)]
    assert fuzz.main(words) == 0, capsys.readouterr().out
    text = capsys.readouterr().out
    assert text.startswith(f"48 mutated {subject} (seed 11, ")
    assert "refused" in text and "accepted" in text and (subject == "containers" or "replaced" in text)


@pytest.mark.processes
@pytest.mark.parametrize("parser", ["pickle", "index"])
def test_guided(parser: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed")
    words = [sys.executable, "-m", "tools.fuzz_guided", parser, "--number", "5000", "--keep", str(tmp_path)]
    found = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr[-2000:]
    assert "stat::number_of_executed_units" in found.stderr and "no interesting inputs" not in found.stderr
    assert not list(tmp_path.iterdir())


def test_harm_is_drawn_by_its_seed_alone() -> None:
    data = [bytes(range(256)) * 8, b"\xff\xd8" + bytes(500)]
    first, second = (
        [harmed(np.random.default_rng([1, i]), *data, IMAGES) for i in range(200)] for _ in range(2)
    )  # fmt: skip
    assert first == second and len(set(first)) > 150
    edits = {edit_json(np.random.default_rng(i), b'{"a": {"b": [1, 2]}, "c": "text"}', b"") for i in range(100)}
    assert len(edits) > 30
