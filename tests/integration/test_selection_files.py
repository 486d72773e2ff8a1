"""CLIM's partners do not depend on the order of the files: renamed pictures, the same pairs."""

import numpy as np
import pytest
import torch

pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")

from models import build
from models.evaluation.features import extract_local
from models.methods.clim import select
from pipelines import make_loader
from pipelines.plan.views import evaluation
from tests.support.datasets import converted
from tests.support.images import encoded, smooth, write


def partners_of_pictures(folder, order):
    """For each picture, by what it shows, the pictures that it may be paired with."""
    for place, picture in enumerate(order):
        write(folder / f"{place:04d}.png", encoded(smooth(20, 20, int(picture)), "PNG"))
    dataset = converted(folder, folder.with_suffix(".beton"))
    torch.manual_seed(0)
    method = build("clim", "cifar10", width=8, neighbors=6, clusters=8, whiten=16)
    with make_loader(dataset, [evaluation(16)], 32, shuffle=False, drop_last=False) as loader:
        pairing = select(extract_local(method.student.backbone, loader), method.settings)
    return {
        int(order[i]): {int(order[j]) for j in pairing.pool[start : start + count]}
        for i, (start, count) in enumerate(zip(pairing.start, pairing.count, strict=True))
    }


def test_renamed_files_give_the_same_partners(tmp_path):
    pictures = np.arange(120)
    straight = partners_of_pictures(tmp_path / "straight", pictures)
    shuffled = partners_of_pictures(tmp_path / "shuffled", np.random.default_rng(1).permutation(pictures))
    assert 0 < sum(map(len, straight.values())) < 120 * 6
    assert straight == shuffled
