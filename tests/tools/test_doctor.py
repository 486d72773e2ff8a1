"""The doctor names the stage that limits and a remedy, and checks what is installed."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.plan.views import View, contrastive
from tools import doctor
from tools.diagnosis import bottleneck, checkout, installation, stage_speeds
from tools.diagnosis.bottleneck import InUse, verdict
from tools.diagnosis.installation import Check
from tools.diagnosis.stage_speeds import Speeds, in_turns

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def images(side, number=1000):
    sides = np.full(number, side, dtype=np.int32)
    return SimpleNamespace(heights=sides, widths=sides, number=number, path="x.beton", format="beton")


def used(device, loader="resident", precision="bf16", compile=True, threads=4):
    return InUse(device, loader, precision, compile, threads)


def judged(monkeypatch, speeds, using, side=64):
    monkeypatch.setattr(bottleneck, "forecast", lambda dataset, device: (2.0 if device.type == "cuda" else 0.1, ""))
    monkeypatch.setattr(bottleneck, "usable_cores", lambda: 4)
    return verdict(speeds, images(side), (View(224),), using)


@pytest.mark.parametrize(
    ("speeds", "side", "device", "loader", "stage", "remedy"),
    [
        (Speeds(900, 800, 100, 97), 64, CPU, "ffcv", "the network", "nothing in the data path"),
        (Speeds(900, 800, 100, 80), 64, CPU, "ffcv", "the cores", "more cores"),
        (Speeds(120, 110, 100, 60), 64, CPU, "ffcv", "decoding and cropping", "--loader resident"),
        (Speeds(120, 110, 100, 60), 512, CPU, "resident", "decoding and cropping", "--max-size 336"),
        (Speeds(900, 110, 100, 60), 64, CPU, "resident", "the augmentation", "more cores"),
        (Speeds(120, 110, 100, 60), 64, CUDA, "ffcv", "decoding and cropping", "--loader dali"),
    ],
)
def test_the_limit_and_its_remedy(speeds, side, device, loader, stage, remedy, monkeypatch):
    found = judged(monkeypatch, speeds, used(device, loader), side)
    assert found.stage == stage
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("speeds", "without", "with_it", "remedy"),
    [
        (Speeds(900, 800, 100, 97), {"precision": "fp32"}, {"precision": "bf16"}, "--precision bf16"),
        (Speeds(900, 800, 100, 97), {"compile": False}, {"compile": True}, "--compile"),
        (Speeds(120, 110, 100, 60), {"loader": "ffcv"}, {"loader": "dali"}, "--loader dali"),
        (Speeds(900, 110, 100, 60), {"threads": 2}, {"threads": 4}, "--threads 4"),
    ],
)
def test_no_advice_asks_for_what_is_set(speeds, without, with_it, remedy, monkeypatch):
    monkeypatch.setattr(bottleneck, "find_spec", lambda name: object())
    assert remedy in judged(monkeypatch, speeds, used(CUDA, **without)).remedy
    assert remedy not in judged(monkeypatch, speeds, used(CUDA, **with_it)).remedy


@pytest.mark.parametrize(("found", "remedy"), [(None, "pip install triton"), (object(), "more cores")])
def test_triton_is_advised_where_it_is_missing(found, remedy, monkeypatch):
    monkeypatch.setattr(bottleneck, "find_spec", lambda name: found)
    assert remedy in judged(monkeypatch, Speeds(900, 110, 100, 60), used(CUDA)).remedy


def test_bfloat16_is_not_advised_where_it_is_emulated(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert "bf16" not in judged(monkeypatch, Speeds(900, 800, 100, 97), used(CPU, precision="fp32")).remedy


def stages(**measured):
    """Stages that return these samples/s one after the other, the first time while they warm up."""
    return {name: partial(lambda values, _: next(values), iter(values)) for name, values in measured.items()}


def test_stages_are_warmed_up_and_take_turns():
    order, steady = [], {"cut": 900, "loaded": 800, "trained": 100}
    runs = {
        name: lambda seconds, name=name, speed=speed: (order.append((name, seconds)), speed)[1]
        for name, speed in (steady | {"together": 90}).items()
    }
    speeds = in_turns(runs, 36)
    assert [name for name, _ in order] == ["cut", "loaded", "trained", "together"] * 4
    assert [seconds for _, seconds in order] == [0.0] * 4 + [3.0] * 12
    assert (speeds.trained, speeds.together, speeds.spread["together"]) == (100, 90, 0)


def test_what_cannot_be_is_measured_again(monkeypatch):
    """A step of 10 samples/s while the loader filled its queue, and 37 from that queue: 374 %, seen on 9,025 photos."""
    same = {"cut": [900] * 7, "loaded": [800] * 7}
    once = in_turns(stages(**same, trained=[2, 10, 9.9, 9.8, 38, 40, 39], together=[5, 37, 37, 37, 36, 37, 38]), 1)
    assert (once.trained, once.together) == (39, 37) and once.possible
    assert once.spread["trained"] == pytest.approx(2 / 39)
    still = in_turns(stages(**same, trained=[2, *[10] * 3, *[9.9] * 3], together=[5, *[37] * 3, *[37] * 3]), 1)
    assert not still.possible
    found = judged(monkeypatch, still, used(CPU))
    assert found.stage == "unknown" and "374% of the step alone, which cannot be" in found.reason
    assert "--precision" not in found.remedy and "--seconds" in found.remedy


def test_crops_stay_when_colours_go():
    view = contrastive(32)
    assert view.without_colours() == replace(view, jitter_p=0, grayscale_p=0, blur_p=0)


def test_every_check_answers():
    found = list(installation.checks())
    assert {check.name for check in found} >= {"GPU", "ffcv", "DALI", "C++ compiler", "threads", "shared memory"}
    assert all(check.found and check.state in ("ok", "slow", "missing") for check in found)
    assert all(check.remedy for check in found if check.state == "missing")


def test_the_packages_of_this_checkout_are_found():
    assert checkout.foreign_packages() == ""
    check = installation.own_packages()
    assert check.state == "ok" and check.found == f"models, pipelines, tools of {checkout.ROOT}"


def test_packages_of_another_checkout_are_named_with_the_fix(monkeypatch, tmp_path):
    monkeypatch.setattr(checkout, "ROOT", tmp_path)
    check = installation.own_packages()
    assert check.state == "missing" and check.remedy == f"cd {tmp_path} and run it there"
    assert f"models is {installation.ROOT / 'models'}, pipelines is" in check.found and "\n" not in check.found


@pytest.mark.processes
@pytest.mark.parametrize("name", ["models", "pipelines"])
def test_a_package_of_the_same_name_in_the_current_folder_is_one_line(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    environment = os.environ | {"PYTHONPATH": str(checkout.ROOT)}
    line = [sys.executable, "-m", "tools.doctor"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    expected = f"{name} is {tmp_path / name}, not of this checkout: cd {checkout.ROOT} and run it there"
    assert done.stderr == f"tools.doctor: {expected}\n"


def test_what_is_absent_is_told_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert installation.compiler() == Check(
        "C++ compiler", "none; the hot path runs uncompiled", "slow", "apt-get install g++"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    assert installation.threads().state == "slow"
    monkeypatch.setattr(installation, "SHARED_MEMORY", tmp_path / "none")
    assert installation.shared_memory().state == "slow"
    (tmp_path / "x").write_bytes(b"x" * 1024)
    monkeypatch.setattr(installation, "_meminfo", lambda name: 1024)
    assert installation.file_cache(tmp_path).state == "slow"


def test_a_probe_of_real_data(data, capsys, monkeypatch):
    taken, endless = {}, stage_speeds.endless

    def counted(loader):
        for batch in endless(loader):
            taken[id(loader)] = taken.get(id(loader), 0) + 1
            yield batch

    monkeypatch.setattr(stage_speeds, "endless", counted)
    words = ["--method", "moco", "--recipe", "cifar10", "--width", "4", "--batch-size", "16", "--bn-splits", "1"]
    words += ["--queue-size", "32", "--threads", "1", "--no-compile", "--precision", "fp32"]
    assert doctor.main(["--data", str(data.train), "--seconds", "0.4", "--", *words]) == 0
    text = capsys.readouterr().out
    assert "limit: " in text
    assert "to fix: " in text
    assert "training from the loader" in text and "spread" in text
    assert len(taken) == 2 and min(taken.values()) >= 4 * 5  # crops alone, and the complete loader


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nothing.beton"], "there is no data set nothing.beton"),
        (["--data", "nothing.beton", "--seconds", "0"], "--seconds is 0"),
        (["--seconds", "nan"], "--seconds is nan; give more than 0"),
        (["--seconds", "soon"], "argument --seconds: invalid float value: 'soon'"),
        (["--data", "nothing.beton", "--", "--method", "magic"], "magic"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert doctor.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_is_found_is_shown_as_it_is(capsys):
    doctor.show([Check("cache [x]", "/data/[bold]a\udcff", "ok", "mv [/]")], doctor.Console(width=100))
    line = next(line for line in capsys.readouterr().out.splitlines() if "cache" in line)
    assert "cache [x]" in line and r"/data/[bold]a\udcff" in line and "mv [/]" in line


def test_every_image_is_compared(tmp_path, capsys, monkeypatch):
    from tests.support.datasets import converted
    from tests.support.images import class_folder

    monkeypatch.setattr(doctor, "examine", lambda *words: (None, None, None))
    monkeypatch.setattr(doctor, "report", lambda *words: None)
    dataset = converted(class_folder(tmp_path / "photos", each=50), tmp_path / "p.beton")
    assert doctor.main(["--data", str(dataset.path), "--verify"]) != 2
    assert "all 100 images" in capsys.readouterr().out
    with open(dataset.path, "r+b") as file:
        file.seek(int(dataset.table.offset[2]) + 300)  # not among those that are compared at opening
        file.write(b"\0\1\2")
    assert doctor.main(["--data", str(dataset.path), "--verify"]) == 2
    assert "are damaged (content checksum" in capsys.readouterr().err
    assert doctor.main(["--verify"]) == 2


def test_a_channel_that_does_not_vary_is_named(tmp_path, capsys, monkeypatch):
    from tests.support.datasets import converted
    from tests.support.images import encoded, write

    monkeypatch.setattr(doctor, "examine", lambda *words: (None, None, None))
    monkeypatch.setattr(doctor, "report", lambda *words: None)
    pixels = np.zeros((30, 30, 3), np.uint8)
    pixels[..., 1] = np.arange(30)
    write(tmp_path / "gfp" / "x" / "0.png", encoded(pixels, "PNG"))
    dataset = converted(tmp_path / "gfp", tmp_path / "gfp.beton")
    check = installation.channels(dataset)
    assert check.state == "slow" and check.remedy
    assert "the red channel hardly varies" in check.found and "the blue channel" in check.found
    assert "green" not in check.found
    assert doctor.main(["--data", str(dataset.path)]) != 2
    assert "the red channel" in " ".join(capsys.readouterr().out.split())
