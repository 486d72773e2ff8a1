"""Selection and the kNN monitor on two and four gloo processes against one, with parts of unequal length."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.distributed import all_gather, world
from models.methods.clim import Settings, select
from models.methods.clim_selection import Candidates
from models.methods.clim_selection import select as candidates
from models.search import nearest
from models.search.sharded_features import LocalFeatures, all_gather_rows, iter_chunks
from tests.support import gloo

NUMBER = 601  # divides by neither 2 nor 4
CASES = [("paper", 8), ("paper", 0), ("snapshot", 8)]


def features(number: int = NUMBER) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(12, 16, generator=generator) * 2
    return centre[torch.randint(12, (number,), generator=generator)] + torch.randn(number, 16, generator=generator)


def part_of(rows_ND: Tensor, spread: str = "strided") -> LocalFeatures:
    """This process's samples: every W-th, or a stretch; the last process has fewer, or none."""
    rank, processes = world()
    every = torch.arange(len(rows_ND))
    length = -(-len(rows_ND) // processes) + 3
    own = every[rank::processes] if spread == "strided" else every[rank * length : (rank + 1) * length]
    return LocalFeatures(own, rows_ND[own], len(rows_ND))


def fields(found: Candidates) -> list[Tensor]:
    return [found.pool, found.start_N, found.count_N, found.neighbors_Nk]


def everything() -> dict[str, Any]:
    nearest.CHUNK, nearest.ROWS = 70, 32  # several pieces of each process
    import models.methods.clim_selection

    models.methods.clim_selection.CHUNK = 70
    result: dict[str, Any] = {}
    for rule, components in CASES:
        for spread in ("strided", "stretch"):
            found = candidates(part_of(features(), spread), rule, components, 7, 15, 20)
            result[f"{rule} {components} {spread}"] = fields(found)
    few = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))  # with four processes the last has none
    result["few"] = fields(candidates(part_of(few, "stretch"), "paper", 0, 3, 4, 5))
    result["empty"] = fields(candidates(part_of(features(60)), "paper", 0, 3, 40, 5))  # two directions, one sample

    local = part_of(features(), "stretch")
    result["pieces"] = [(number_P, rows_PD) for number_P, rows_PD in iter_chunks(local, 70)]
    result["rows"] = all_gather_rows(local.number_M, local.features_MD)
    result["everyones"] = all_gather(torch.tensor([world()[0], 7]))
    refused = []
    for wrong in ((NUMBER, 5), (7, NUMBER + 1)):
        with pytest.raises(ValueError, match="take 1 to") as caught:
            candidates(local, "paper", 0, *wrong, 2)
        refused.append(str(caught.value))
    result["refused"] = refused
    return result


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    before = nearest.CHUNK, nearest.ROWS
    try:
        return everything()
    finally:
        import models.methods.clim_selection

        nearest.CHUNK, nearest.ROWS = before
        models.methods.clim_selection.CHUNK = before[0]


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return gloo.run(everything, request.param)


SELECTIONS = [f"{rule} {components} {spread}" for rule, components in CASES for spread in ("strided", "stretch")]


@pytest.mark.processes
@pytest.mark.parametrize("what", [*SELECTIONS, "few", "empty"])
def test_ranks_select_what_one_process_does(alone: dict[str, Any], ranks: list[dict[str, Any]], what: str) -> None:
    for rank in ranks:
        for own, other, expected in zip(rank[what], ranks[0][what], alone[what], strict=True):
            assert torch.equal(own, other) and torch.equal(own, expected)
    pool, _, count, _ = alone[what]
    assert len(pool) > 0 and count.max() > 0


@pytest.mark.processes
def test_every_row_passes_by_once(alone: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        number = torch.cat([number_P for number_P, _ in rank["pieces"]])
        assert torch.equal(number.sort().values, torch.arange(NUMBER))
        assert torch.equal(torch.cat([rows_PD for _, rows_PD in rank["pieces"]]), features()[number])
        assert max(len(number_P) for number_P, _ in rank["pieces"]) == 70
        assert torch.equal(rank["rows"][0], torch.arange(NUMBER)) and torch.equal(rank["rows"][1], features())
        assert rank["everyones"].tolist() == [[number, 7] for number in range(len(ranks))]


@pytest.mark.processes
def test_every_rank_refuses_what_one_refuses(alone: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    assert all(rank["refused"] == alone["refused"] for rank in ranks)
    assert alone["refused"][0].startswith("601 neighbours") and alone["refused"][1].startswith("602 clusters")


def test_the_rule_is_the_papers() -> None:
    """The pairing of the method, from the equations in float64, one sample at a time."""
    space = normalize(features().double())
    pairing = select(
        LocalFeatures.single_process(features()), Settings(whiten=0, neighbors=7, clusters=15, kmeans_iterations=200)
    )
    from models.neighbors import kmeans

    centroids, assignment = kmeans(space.float(), 15, 200)
    similarity = (space @ space.T).fill_diagonal_(-2)
    for n in range(NUMBER):
        near = similarity[n].topk(7).indices.tolist()
        centre = centroids[assignment[n]].double()
        distance = (space - centre).square().sum(1)
        expected = {m for m in near if distance[m] <= distance[n]}
        assert set(pairing.pool[pairing.start[n] :][: pairing.count[n]].tolist()) == expected


# ---- the monitor ---------------------------------------------------------------------------------------------------


class Colour(nn.Module):
    """Features that no batch size rounds: a few pixels as they are."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW[:, :, 2::5, 3::5].flatten(1)


def measured(train: str, held_out: str) -> tuple[list[float], list[int]]:
    from models.evaluation.features import extract_local
    from models.evaluation.knn_monitor import KnnMonitor
    from pipelines import open_dataset
    from pipelines.plan.views import evaluation

    rank, processes = world()
    bank, queries = open_dataset(train), open_dataset(held_out)
    few = replace(queries, labels=np.where(np.arange(queries.number) % 7 < 3, queries.labels, -1))
    found, held = [], []
    for held_out_set, size in ((queries, 1000), (queries, 11), (few, 1000)):
        monitor = KnnMonitor(bank, held_out_set, evaluation(16), size, 12, rank=rank, world=processes, threads=1)
        found.append(monitor.measure(Colour()))
        held.append(len(extract_local(Colour(), monitor._loaders[0]).number_M))
        monitor.close()
    return found, held


@pytest.mark.processes
def test_processes_share_the_monitors_work(tmp_path: Any) -> None:
    pytest.importorskip("tests.support.ffcv_installed", reason="ffcv is not installed")
    from tests.support.datasets import photos

    paths = str(photos(tmp_path / "train", each=16).path), str(photos(tmp_path / "held_out", each=7).path)
    expected, whole = measured(*paths)
    assert len(set(expected)) > 1 and whole == [48, 11, 48]
    for rank in (ranks := gloo.run(measured, 2, *paths)):
        assert rank[0] == pytest.approx(expected, abs=1e-9)
    assert [sum(parts) for parts in zip(*(rank[1] for rank in ranks), strict=True)] == whole
    assert max(ranks[0][1]) <= 24
