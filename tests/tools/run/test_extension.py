"""More epochs: the learning rate before and after, what is refused, and what is recorded."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from models.training.config import Training
from tests.support.small_methods import small
from tools.command_line import Failure
from tools.run.extension import check_method, extensions_of, line, rate_at, recorded
from tools.run.optimizer import learning_rate

FOLDER = Path("runs/moco")


def test_the_rates_before_stay_and_those_after_are_half_a_cosine() -> None:
    short, long = Training(epochs=4, warmup_epochs=1, lr=0.5), Training(epochs=10, warmup_epochs=1, lr=0.5)
    extensions = [{"from_epoch": 4, "lr": 0.2}, {"from_epoch": 6, "lr": 0.1}]
    for step in range(0, 40):
        assert rate_at(long, 10, step, extensions) == learning_rate(short, 10, step)
    for step in range(20):
        assert rate_at(long, 10, 40 + step, extensions) == pytest.approx(0.1 * (1 + math.cos(math.pi * step / 20)))
    for step in range(40):
        assert rate_at(long, 10, 60 + step, extensions) == pytest.approx(0.05 * (1 + math.cos(math.pi * step / 40)))
    assert rate_at(long, 10, 7, []) == learning_rate(long, 10, 7)
    epochwise = Training(epochs=6, lr=0.5, lr_per_epoch=True)
    assert {rate_at(epochwise, 10, step, extensions[:1]) for step in range(40, 50)} == {0.2}


def test_more_epochs_need_a_learning_rate_and_the_refusal_names_both_ways() -> None:
    saved = {"recipe": {"epochs": 200}}
    with pytest.raises(Failure, match=r"started with epochs 200, not 400.*--extend LR adds.*--init runs/moco with"):
        extensions_of(saved, 400, None, FOLDER)
    assert extensions_of(saved, 400, 0.01, FOLDER) == [{"from_epoch": 200, "lr": 0.01}]
    assert extensions_of(saved, 200, None, FOLDER) == []
    with pytest.raises(Failure, match="--extend adds epochs to a run of 200; give --epochs with more"):
        extensions_of(saved, 200, 0.01, FOLDER)


def test_an_extended_run_resumes_with_or_without_the_option_and_can_be_extended_again() -> None:
    saved = {"recipe": {"epochs": 400}, "extensions": [{"from_epoch": 200, "lr": 0.01}]}
    for rate in (None, 0.01):
        assert extensions_of(saved, 400, rate, FOLDER) == saved["extensions"]
    with pytest.raises(Failure, match="--extend adds epochs"):
        extensions_of(saved, 400, 0.02, FOLDER)
    both = extensions_of(saved, 500, 0.002, FOLDER)
    assert recorded(both, 500) == [
        {"from_epoch": 200, "lr": 0.01, "to_epoch": 400, "schedule": "half a cosine from lr to 0"},
        {"from_epoch": 400, "lr": 0.002, "to_epoch": 500, "schedule": "half a cosine from lr to 0"},
    ]
    told = line(both, Training(epochs=500), ("predictor.",))
    assert (
        "epochs 400 to 500 are an extension: learning rate from 0.002 to 0" in told and "predictor keeps 0.06" in told
    )


def test_a_method_whose_own_schedule_ended_with_the_run_is_refused() -> None:
    with pytest.raises(Failure, match=r"teacher_share of this method follows the length.*--init runs/moco"):
        check_method(small("byol", ema_rises=True), 10, 2, 4, FOLDER)
    for name in ("moco", "clim", "simsiam"):
        check_method(small(name), 10, 2, 4, FOLDER)
