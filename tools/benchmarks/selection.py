"""CLIM's selection: 10 nearest neighbours, 1,000 clusters, the centre-wise rule, for a mixture of Gaussians in 128-d.

Beside it faiss (flat index, k-means) and scikit-learn (brute force, Lloyd) with as many iterations of k-means, on unit
vectors; the rule is ours for all. They take part up to 50,000 samples; above, ours runs alone, and once where one run
takes minutes. The peak is that of the process that needs most.

    python -m tools.benchmark selection --sizes 50000,100000,1000000
    torchrun --nproc_per_node 2 -m tools.benchmark selection --sizes 1000000 --threads 1      ours by two processes

N samples, M of this process, D dimensions.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.distributed import everyones, world
from models.neighbors import center_wise
from models.part import Part
from models.selection import select
from tools.benchmarks.measure import Case, Settings, milliseconds, peak_memory, take_turns

NEIGHBORS, CLUSTERS, ITERATIONS = 10, 1000, 10
DIMENSIONS, GROUPS, NOISE = 128, 300, 1.5  # fewer groups than clusters: k-means takes more iterations to settle
COMPARED = 50_000  # samples up to which the others take part
REPEATED = 100_000  # samples up to which a contender runs more than once
_CHUNK = 4096  # samples that are drawn together


def cases(settings: Settings) -> Iterator[Case]:
    before: Case | None = None
    for number in settings.sizes:
        case = measure(number, settings, before)
        yield case
        before = case


def measure(number: int, settings: Settings, before: Case | None) -> Case:
    """Seconds of every contender at one size; `before` is the case of the size that ran last."""
    part = mixture(number, settings.device)
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: select(part, "paper", 0, NEIGHBORS, CLUSTERS, ITERATIONS)
    }
    if number <= COMPARED and world()[1] == 1 and settings.device == "cpu":
        contenders |= others(part.features_MD, settings.threads)
    timed = {name: _seconds(milliseconds(run, settings.device)) for name, run in contenders.items()}
    first: dict[str, float] = {}  # seconds of the run whose memory is watched
    peaks = {name: _largest(peak_memory(_keep(first, name, run), settings.device)) for name, run in timed.items()}
    values = take_turns(timed, settings.repeats) if number <= REPEATED else {name: [first[name]] for name in first}
    facts: dict[str, object] = {
        "samples": number, "processes": world()[1], "features_mib": round(part.features_MD.nbytes / 2**20, 1),
    }  # fmt: skip
    if before is not None:
        ratio = statistics.median(values["ours"]) / before.median("ours")
        size = number / int(before.facts["samples"])
        facts["growth"] = f"{ratio:.2f} times the time for {size:g} times the samples (N^{math.log(ratio, size):.2f})"
    return Case(f"{number:,} samples, {DIMENSIONS}-d", "seconds", values, peaks, facts)


def mixture(number: int, device: str) -> Part:
    """This process's part of a mixture that is the same for any number of processes: every W-th chunk."""
    centre = torch.randn(GROUPS, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    rank, processes = world()
    numbers, rows = [], []
    for chunk in range(rank, -(-number // _CHUNK), processes):
        generator = torch.Generator().manual_seed(1 + chunk)
        own = torch.arange(chunk * _CHUNK, min(number, (chunk + 1) * _CHUNK))
        group = torch.randint(GROUPS, (len(own),), generator=generator)
        noise = NOISE * torch.randn(len(own), DIMENSIONS, generator=generator)
        numbers.append(own)
        rows.append(normalize(centre[group] + noise))
    return Part(torch.cat(numbers).to(device), torch.cat(rows).to(device), number)


def others(features_ND: Tensor, threads: int) -> dict[str, Callable[[], object]]:
    """faiss and scikit-learn, where they are installed."""
    rows = features_ND.numpy()
    found: dict[str, Callable[[], object]] = {}

    def rule(neighbors: np.ndarray, centroids: np.ndarray, assignment: np.ndarray) -> Tensor:
        found = (torch.from_numpy(np.ascontiguousarray(array)) for array in (neighbors, centroids, assignment))
        neighbors_Nk, centroids_CD, assignment_N = found
        return center_wise(features_ND, neighbors_Nk.long(), centroids_CD, assignment_N.long())

    try:
        import faiss

        def with_faiss() -> Tensor:
            faiss.omp_set_num_threads(threads)
            index = faiss.IndexFlatIP(DIMENSIONS)
            index.add(rows)
            _, neighbors = index.search(rows, NEIGHBORS + 1)  # the first one is the sample itself
            clusters = faiss.Kmeans(DIMENSIONS, CLUSTERS, niter=ITERATIONS, seed=1, max_points_per_centroid=len(rows))
            clusters.train(rows)
            _, assignment = clusters.index.search(rows, 1)
            return rule(neighbors[:, 1:], np.asarray(clusters.centroids), assignment[:, 0])

        found["faiss"] = with_faiss
    except ModuleNotFoundError as error:
        print(f"faiss is left out: {error}", file=sys.stderr)
    try:
        from sklearn.cluster import KMeans
        from sklearn.neighbors import NearestNeighbors
        from threadpoolctl import threadpool_limits

        def with_sklearn() -> Tensor:
            with threadpool_limits(threads):
                search = NearestNeighbors(n_neighbors=NEIGHBORS, algorithm="brute").fit(rows)
                neighbors = search.kneighbors(return_distance=False)
                start = rows[np.random.default_rng(0).choice(len(rows), CLUSTERS, replace=False)]
                clusters = KMeans(CLUSTERS, init=start, n_init=1, max_iter=ITERATIONS, tol=0).fit(rows)
            return rule(neighbors, clusters.cluster_centers_, clusters.labels_)

        found["scikit-learn"] = with_sklearn
    except ModuleNotFoundError as error:
        print(f"scikit-learn is left out: {error}", file=sys.stderr)
    return found


def _seconds(run: Callable[[], float]) -> Callable[[], float]:
    """A contender in seconds: of the slowest process."""
    return lambda: _largest(run() / 1000)


def _largest(value: float) -> float:
    """The largest of all processes' values."""
    return float(everyones(torch.tensor(value, dtype=torch.float64)).max())


def _keep(values: dict[str, float], name: str, run: Callable[[], float]) -> Callable[[], None]:
    """`run`, which leaves what it returns in `values`."""

    def keep() -> None:
        values[name] = run()

    return keep
