"""Evaluation: extracting features beside the forward pass alone, and kNN beside scikit-learn's brute force.

extraction   `FeatureExtractor.local_features` as eval.py calls it, loading included, beside the same network on batches
             that are ready; the ratio "ours is better" of the latter is the efficiency of the extraction. ResNet-18 at
             32 px, in bfloat16 and float32, over the first 2,048 images on a CPU and 50,000 on a GPU.
             `--data FILE --sizes 60000` measures one pass of that length, in bfloat16 only, where the network is
             fastest and the loader has the least time.
kNN          10,000 queries, 512-d features, k = 200, banks of `--sizes` images. scikit-learn's weighted
             KNeighborsClassifier takes part up to 50,000 images and must find the same top-1.

    python -m tools.benchmark evaluation --data cifar10.beton --json tools/results/2-cores-evaluation.json

B queries, N images of a bank, C classes, D features.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.evaluation.feature_extractor import FeatureExtractor
from models.evaluation.features import evaluating
from models.evaluation.knn import knn_predict, topk_accuracy
from models.networks.backbones import build_backbone
from pipelines import Dataset, make_loader, open_dataset
from pipelines.plan.views import evaluation
from tools.benchmarks.loader import Images, converted
from tools.benchmarks.measure import Case, Settings, milliseconds, peak_memory, synchronize, take_turns

K, TEMPERATURE, CLASSES = 200, 0.1, 10
COMPARED = 50_000  # the largest bank with which scikit-learn takes part


@dataclass(frozen=True)
class Sizes:
    """The sizes of one run."""

    width: int = 64
    images: int = 2048
    batch_size: int = 512
    queries: int = 10_000
    dimensions: int = 512


def cases(settings: Settings) -> Iterator[Case]:
    sizes = Sizes() if settings.device == "cpu" else Sizes(images=50_000)
    precisions: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float32)
    if settings.sizes != Settings.sizes:
        sizes, precisions = Sizes(images=settings.sizes[0]), (torch.bfloat16,)
    with tempfile.TemporaryDirectory() as folder:
        if settings.data is None:
            dataset = converted(Images("", 32, min(sizes.images, 12_000), 256, ()), Path(folder))
        else:
            dataset = open_dataset(settings.data)
        for dtype in precisions:
            yield extraction(dataset, dtype, sizes, settings)
    for number in settings.sizes:
        yield neighbors(number, sizes, settings)


def extraction(dataset: Dataset, dtype: torch.dtype, sizes: Sizes, settings: Settings) -> Case:
    """Measure the images per second of extraction, with the loader and on batches that are ready."""
    torch.manual_seed(0)
    network = build_backbone("resnet18", width=sizes.width, stem="small")
    # torch's stub lacks memory_format beside a device
    network.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    number_N = np.arange(min(sizes.images, dataset.number))
    view = evaluation(32)
    loading: dict[str, Any] = {"device": settings.device, "dtype": dtype, "threads": settings.threads}
    with make_loader(
        dataset, [view], sizes.batch_size, subset=number_N, shuffle=False, drop_last=False, **loading
    ) as loader:
        ready = [batch.views[0] for batch in loader.epoch(0)]
    passes = FeatureExtractor(view, sizes.batch_size, loading)
    contenders: dict[str, Callable[[], object]] = {
        "loading included": lambda: passes.local_features(network, dataset, number_N),
        "batches already there": lambda: forward(network, ready),
    }
    forward(network, ready[:1])
    values = take_turns(
        {name: _rate(run, len(number_N), settings.device) for name, run in contenders.items()}, settings.repeats
    )
    precision = str(dtype).removeprefix("torch.")
    case = Case(f"features of {len(number_N):,} images, {precision}", "images/s", values)
    facts = {"efficiency": round(case.ratio("batches already there"), 3), "network": f"ResNet-18, width {sizes.width}"}
    return Case(case.name, case.unit, values, facts=facts)


@torch.no_grad()
def forward(network: nn.Module, ready: list[Tensor]) -> list[Tensor]:
    """Return the features of batches that are on the device."""
    found = []
    with evaluating(network):
        for images in ready:
            with torch.autocast(images.device.type, images.dtype, enabled=images.dtype != torch.float32):
                found.append(network(images).pooled.float())
    return found


def neighbors(number: int, sizes: Sizes, settings: Settings) -> Case:
    """Measure the seconds that classifying all queries takes."""
    (bank_ND, labels_N), (query_BD, labels_B) = (
        clouds(count, sizes.dimensions, seed, settings.device) for seed, count in enumerate((number, sizes.queries))
    )
    top1: dict[str, float] = {}

    def ours() -> None:
        scores_BC = knn_predict(query_BD, bank_ND, labels_N, K, TEMPERATURE, CLASSES)
        top1["ours"] = round(topk_accuracy(scores_BC, labels_B, 1), 3)

    contenders: dict[str, Callable[[], object]] = {"ours": ours}
    if number <= COMPARED and settings.device == "cpu":
        try:
            from sklearn.neighbors import KNeighborsClassifier
            from threadpoolctl import threadpool_limits

            def brute_force() -> None:
                with threadpool_limits(settings.threads):
                    classifier = KNeighborsClassifier(
                        K, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / TEMPERATURE)
                    )
                    classifier.fit(bank_ND.numpy(), labels_N.numpy())
                    top1["scikit-learn"] = round(100 * classifier.score(query_BD.numpy(), labels_B.numpy()), 3)

            contenders["scikit-learn"] = brute_force
        except ModuleNotFoundError as error:
            print(f"scikit-learn is left out: {error}", file=sys.stderr)
    peaks = {name: peak_memory(run, settings.device) for name, run in contenders.items()}
    timed = {name: _seconds(milliseconds(run, settings.device)) for name, run in contenders.items()}
    values = take_turns(timed, settings.repeats)
    name = f"kNN of {sizes.queries:,} in {number:,} images, {sizes.dimensions}-d"
    return Case(name, "seconds", values, peaks, {"k": K, "top-1": top1})


def clouds(number: int, dimensions: int, seed: int, device: str) -> tuple[Tensor, Tensor]:
    """Return random features [N, D] in `CLASSES` overlapping clouds, and their classes [N]."""
    generator = torch.Generator().manual_seed(seed)
    centre_CD = torch.randn(CLASSES, dimensions, generator=torch.Generator().manual_seed(9))
    label_N = torch.randint(CLASSES, (number,), generator=generator)
    features_ND = 0.12 * centre_CD[label_N] + torch.randn(number, dimensions, generator=generator)
    return features_ND.to(device), label_N.to(device)


def _rate(run: Callable[[], object], images: int, device: str) -> Callable[[], float]:
    """Return a contender that reports images per second."""

    def measure() -> float:
        synchronize(device)
        started = time.perf_counter()
        run()
        synchronize(device)
        return images / (time.perf_counter() - started)

    return measure


def _seconds(run: Callable[[], float]) -> Callable[[], float]:
    return lambda: run() / 1000
