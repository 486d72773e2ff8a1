"""What an evaluation finds for every test image, and the figures that are made of it.

Every protocol ends in the same form: named values of 0 to 1 for each image, such as "top1" (1 where the first guess was
right) or "map" (its average precision). A figure is 100 times their mean; the table of classes, and intervals over
images, come from the same numbers. Shapes: N test images, C classes.
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
    """Attributes:
    labels_N: classes of the test images.
    values: [N] float each, by name; the first is what protocols are compared by.
    facts: whatever else a reader needs to know, as JSON.
    """

    labels_N: Tensor
    values: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


def classified(scores_NC: Tensor, labels_N: Tensor, facts: Mapping[str, Any] | None = None) -> EvaluationResult:
    """Top-1 and top-5 of a classifier's scores; with fewer than five classes, all are among the first five."""
    best_NK = scores_NC.topk(min(5, scores_NC.shape[1]), 1).indices
    right_NK = (best_NK == labels_N.to(best_NK.device)[:, None]).double().cpu()
    return EvaluationResult(labels_N.cpu(), {"top1": right_NK[:, 0], "top5": right_NK.sum(1)}, facts or {})


def metrics(outcomes: Sequence[EvaluationResult], seeds: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    """Figures in percent of the outcomes of one or more seeds, as JSON.

    Returns:
        each value's mean; "interval": what kind, and [low, high] of each; "per_class": a row each, over all seeds;
        "seeds": each one's own figures, where there are several; and the facts.
    """
    names = list(outcomes[0].values)
    each = [{name: _percent(outcome.values[name].mean()) for name in names} for outcome in outcomes]
    result: dict[str, Any] = {}
    for name in names:
        result[name] = round(sum(row[name] for row in each) / len(each), 4)
    if len(outcomes) > 1:
        spread = {name: over_seeds([row[name] for row in each]) for name in names}
        result["std"] = {name: round(found[1], 4) for name, found in spread.items()}
        bounds = {name: _possible(found[2], found[3]) for name, found in spread.items()}
        result["interval"] = {"kind": f"95 %, Student's t over {len(outcomes)} seeds", **bounds}
        result["seeds"] = [{"seed": seed, **row, **o.facts} for seed, row, o in zip(seeds, each, outcomes, strict=True)]
    else:
        result["interval"] = _over_images(outcomes[0])
        result |= outcomes[0].facts
    result["per_class"] = _per_class(outcomes, classes)
    return result


def _over_images(outcome: EvaluationResult) -> dict[str, Any]:
    """Intervals of one outcome, whose only chance is which images were drawn for the test."""
    number = len(outcome.labels_N)
    bounds: dict[str, list[float]] = {}
    for name, value_N in outcome.values.items():
        if bool(((value_N == 0) | (value_N == 1)).all()):
            low, high = wilson(float(value_N.sum()), number)
        else:
            low, high = normal(float(value_N.mean()), float(value_N.std()) if number > 1 else 0.0, number)
        bounds[name] = _possible(100 * low, 100 * high)
    return {"kind": f"95 %, over the {number:,} test images (Wilson; normal for a mean of no hits)", **bounds}


def _possible(low: float, high: float) -> list[float]:
    """Bounds in percent, none of them beyond what a share can be."""
    return [round(max(0.0, low), 4), round(min(100.0, high), 4)]


def _per_class(outcomes: Sequence[EvaluationResult], classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row for every class: its test images, and their mean values over all seeds; none for a class without images."""
    labels_N = outcomes[0].labels_N
    count_C = torch.bincount(labels_N, minlength=len(classes))
    rows: list[dict[str, Any]] = [
        {"class": name, "images": int(count)} for name, count in zip(classes, count_C, strict=True)
    ]
    for name in outcomes[0].values:
        value_N = torch.stack([outcome.values[name].double() for outcome in outcomes]).mean(0)
        total_C = torch.zeros(len(classes), dtype=torch.float64).index_add_(0, labels_N, value_N)
        for row, total in zip(rows, total_C, strict=True):
            row[name] = _percent(total / row["images"]) if row["images"] else None
    return rows


def _percent(share: Tensor) -> float:
    return round(100 * float(share), 4)
