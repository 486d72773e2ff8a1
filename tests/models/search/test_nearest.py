"""The coarse search against all pairs in float64: exact with and without bfloat16, in any pieces, in little memory."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import normalize

from models.search import nearest
from models.search.nearest import Nearest
from tests.support.runs import ROOT

TYPES = [torch.bfloat16, torch.float32]


def rows(number, width=32, groups=20, noise=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(groups, width, generator=generator)
    label = torch.randint(groups, (number,), generator=generator)
    return centre[label] + noise * torch.randn(number, width, generator=generator)


def search(query, bank, k, own=None, piece=150, chunk=64):
    found = Nearest(query, k, own, chunk)
    number = torch.arange(len(bank)) * 3  # any ascending numbers
    for first in range(0, len(bank), piece):
        found.update(number[first : first + piece], bank[first : first + piece])
    return found.similarity_Nk, found.number_Nk // 3


def all_pairs(query, bank):
    return normalize(query.double()) @ normalize(bank.double()).T


@pytest.fixture(params=TYPES, ids=str)
def coarse(request, monkeypatch):
    """Both ways on any processor: bfloat16 is slow on some, and right on all."""
    monkeypatch.setattr(nearest, "_coarse_type", lambda device: request.param)
    return request.param


@pytest.mark.parametrize("noise", [1.0, 0.1, 0.01])
@pytest.mark.parametrize(("k", "piece"), [(1, 1000), (10, 1000), (10, 333), (60, 150), (200, 101)])
def test_it_equals_all_pairs_in_float64(coarse, noise, k, piece):
    query, bank = rows(130, noise=noise, seed=1), rows(1000, noise=noise)
    similarity, place = search(query, bank, k, piece=piece)
    every = all_pairs(query, bank)
    expected = every.topk(k, 1).values
    assert torch.allclose(similarity.double(), expected, atol=1e-6)
    assert torch.allclose(every.gather(1, place), expected, atol=1e-6)
    assert all(len(set(row.tolist())) == k for row in place)


def test_rows_without_a_proof_are_searched_again(monkeypatch):
    """Groups so tight that bfloat16 cannot tell their members apart; loose ones need no second search."""
    monkeypatch.setattr(nearest, "_coarse_type", lambda device: torch.bfloat16)
    passes, plain = [], nearest._search

    def counted(query, own, piece, *before):
        passes.append((piece.coarse_PD.dtype, len(query)))
        return plain(query, own, piece, *before)

    monkeypatch.setattr(nearest, "_search", counted)
    tight, loose = rows(600, groups=2, noise=1e-3), rows(600, groups=600, noise=1.0)
    _, place = search(tight, tight, 5, torch.arange(600) * 3, piece=600)
    every = all_pairs(tight, tight).fill_diagonal_(-2)
    assert torch.allclose(every.gather(1, place), every.topk(5, 1).values, atol=1e-6)
    assert passes[:2] == [(torch.bfloat16, 64), (torch.float32, 64)]
    assert all(kind == torch.float32 for kind, _ in passes[2:])  # the coarse pass was given up
    passes.clear()
    search(loose, loose, 5, torch.arange(600) * 3, piece=600)
    again = sum(count for kind, count in passes if kind == torch.float32)
    assert again < 0.2 * sum(count for kind, count in passes if kind == torch.bfloat16)


def test_the_type_of_the_coarse_pass_changes_no_bit(monkeypatch):
    found = []
    for kind in TYPES:
        monkeypatch.setattr(nearest, "_coarse_type", lambda device, kind=kind: kind)
        found.append(search(rows(200, seed=1), rows(900), 10))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_the_bound_holds_for_every_pair(monkeypatch):
    """The proof rests on it: no true similarity is above what its coarse score allows."""
    seen, plain = [], nearest._best

    def kept(score, count):
        seen.append(score.clone())
        return plain(score, count)

    monkeypatch.setattr(nearest, "_coarse_type", lambda device: torch.bfloat16)
    monkeypatch.setattr(nearest, "_best", kept)
    query, bank = rows(64, 128, seed=1), rows(512, 128)
    search(query, bank, 3, piece=512)
    error = (all_pairs(query, bank) - seen[0].double()).abs()
    lost = [(normalize(x) - normalize(x).bfloat16()).norm(dim=1) for x in (query, bank)]
    bound = lost[0][:, None] + 1.01 * lost[1].max() + 128 * 2.0**-23 + 1.01 * 2.0**-8 * seen[0].abs()
    assert (error <= bound).all() and error.max() > 0.2 * bound.max()


def test_queries_of_the_bank_leave_themselves_out(coarse):
    bank = rows(300)
    _, place = search(bank, bank, 7, torch.arange(300) * 3)
    assert (place != torch.arange(300)[:, None]).all()
    same = torch.ones(40, 8)
    similarity, place = search(same, same, 39, torch.arange(40) * 3)
    assert torch.allclose(similarity, torch.ones(40, 39))
    assert all(sorted([*row.tolist(), number]) == list(range(40)) for number, row in enumerate(place))


def test_autocast_and_a_lower_precision_of_products_change_nothing(coarse):
    query, bank = rows(100, seed=1), rows(400)
    expected = search(query, bank, 5)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            found = search(query, bank, 5)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


MEMORY = """
import os, re, sys, torch
from pathlib import Path
from models.search import nearest
from models.neighbors import nearest_neighbors, kmeans, center_wise
nearest.ROWS, nearest.CHUNK = 64, 2048  # so that a small number of samples has many chunks
torch.set_num_threads(1)
def resident(what):
    return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
def select(number):
    features = torch.nn.functional.normalize(torch.randn(number, 32))
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    _, neighbors = nearest_neighbors(features, 4)
    center_wise(features, neighbors, *kmeans(features, 20, 2))
    return resident("VmHWM") - before
select(2048)  # what is loaded and allocated once
for number in sys.argv[1:]:
    if os.fork() == 0:  # so that neither finds memory that the other left
        print(select(int(number)), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.mark.processes
def test_memory_grows_with_the_samples_and_not_with_their_square():
    line = [sys.executable, "-c", MEMORY, "6000", "24000"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peaks = [float(peak) for peak in done.stdout.split()]
    # 18,000 more samples with 4 neighbours: 3 MiB of results; a matrix of pairs would be 2,060 MiB more.
    assert peaks[1] - peaks[0] < 24, peaks
