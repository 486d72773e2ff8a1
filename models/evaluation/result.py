"""The result of an evaluation for every test image, and the metrics that summarise it.

Every protocol ends in the same form: named values from 0 to 1 for each image, such as "top1" (1 where the first guess
was right) or "map" (its average precision). A metric is 100 times their mean; the table of classes and the intervals
over images come from the same values.

Shapes: N test images, C classes, K guesses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from models.evaluation.intervals import normal, over_seeds, wilson


@dataclass(frozen=True)
class EvaluationResult:
    """The values of every test image, measured with one seed.

    Attributes:
        labels_N: classes of the test images.
        values: [N] float each, by name; protocols are compared by the first.
        facts: whatever else a reader needs to know, as JSON.
    """

    labels_N: Tensor
    values: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


def classified(scores_NC: Tensor, labels_N: Tensor, facts: Mapping[str, Any] | None = None) -> EvaluationResult:
    """Return top-1 and top-5 of a classifier's scores; fewer than five classes are all among the first five."""
    best_NK = scores_NC.topk(min(5, scores_NC.shape[1]), 1).indices
    right_NK = (best_NK == labels_N.to(best_NK.device)[:, None]).double().cpu()
    return EvaluationResult(labels_N.cpu(), {"top1": right_NK[:, 0], "top5": right_NK.sum(1)}, facts or {})


def metrics(results: Sequence[EvaluationResult], seeds: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    """Summarise the results of one or more seeds, in percent, as JSON.

    Returns:
        the mean of each value; "interval" with its kind and [low, high] of each value; "per_class", one row each, over
        all seeds; "seeds" with each seed's own metrics, where there are several; and the facts.
    """
    names = list(results[0].values)
    each = [{name: _percent(result.values[name].mean()) for name in names} for result in results]
    summary: dict[str, Any] = {}
    for name in names:
        summary[name] = round(sum(row[name] for row in each) / len(each), 4)
    if len(results) > 1:
        spread = {name: over_seeds([row[name] for row in each]) for name in names}
        summary["std"] = {name: round(deviation, 4) for name, (_, deviation, _, _) in spread.items()}
        bounds = {name: _possible(low, high) for name, (_, _, low, high) in spread.items()}
        summary["interval"] = {"kind": f"95 %, Student's t over {len(results)} seeds", **bounds}
        measured = zip(seeds, each, results, strict=True)
        summary["seeds"] = [{"seed": seed, **row, **result.facts} for seed, row, result in measured]
    else:
        summary["interval"] = _over_images(results[0])
        summary |= results[0].facts
    summary["per_class"] = _per_class(results, classes)
    return summary


def _over_images(result: EvaluationResult) -> dict[str, Any]:
    """Return intervals of one result, in which only the sample of test images is random."""
    number = len(result.labels_N)
    bounds: dict[str, list[float]] = {}
    for name, value_N in result.values.items():
        if bool(((value_N == 0) | (value_N == 1)).all()):
            low, high = wilson(float(value_N.sum()), number)
        else:
            low, high = normal(float(value_N.mean()), float(value_N.std()) if number > 1 else 0.0, number)
        bounds[name] = _possible(100 * low, 100 * high)
    return {"kind": f"95 %, over the {number:,} test images (Wilson; normal for a mean of no hits)", **bounds}


def _possible(low: float, high: float) -> list[float]:
    """Return bounds in percent, limited to what a share can be."""
    return [round(max(0.0, low), 4), round(min(100.0, high), 4)]


def _per_class(results: Sequence[EvaluationResult], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for every class: its number of test images, and their mean values, None without images."""
    labels_N = results[0].labels_N
    count_C = torch.bincount(labels_N, minlength=len(classes))
    rows: list[dict[str, Any]] = [
        {"class": name, "images": int(count)} for name, count in zip(classes, count_C, strict=True)
    ]
    for name in results[0].values:
        value_N = torch.stack([result.values[name].double() for result in results]).mean(0)
        total_C = torch.zeros(len(classes), dtype=torch.float64).index_add_(0, labels_N, value_N)
        for row, total in zip(rows, total_C, strict=True):
            row[name] = _percent(total / row["images"]) if row["images"] else None
    return rows


def _percent(share: Tensor) -> float:
    return round(100 * float(share), 4)
