"""The quality monitor: label-free measures of a run's features, queue and teacher while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from models.evaluation.collapse import effective_rank, feature_spread
from models.evaluation.feature_metrics import alignment, queue_age, teacher_entropy, uniformity
from models.evaluation.features import extract
from models.evaluation.input_settings import input_settings
from models.method import Method
from models.queue import KeyQueue
from pipelines import Batch, Dataset, View, make_loader
from pipelines.loader import Loader

IMAGES, FEWEST, SHARE = 2048, 256, 25  # at most; at least; otherwise one of 25: a few per cent of an epoch's work


class QualityMonitor:
    """Measures the student's pooled features on the same training images and the same crops each time.

    Spread, effective rank and uniformity are of centred squares; alignment is between two crops by the method's own
    first view. Cost of a measurement: three forward passes of `number` images, and a singular value decomposition of
    their features. Every process must call it and gets the same values, up to the rounding of its batches.

    Args:
        train: the training images; some of them, spread evenly over the file, are measured.
        centred: the evaluation view.
        augmented: the view whose two draws should have similar features.
        batch_size: images of a forward pass, over all processes.
        loading: keyword arguments of `make_loader` (device, rank, world, threads, seed ...).

    Attributes:
        chosen_N: the numbers of the measured images in the data set, ascending.
        protocol: the id that stands beside the numbers.
    """

    def __init__(
        self, train: Dataset, centred: View, augmented: View, batch_size: int = 512, **loading: object
    ) -> None:
        number = min(train.number, IMAGES, max(FEWEST, train.number // SHARE))
        self.chosen_N = np.linspace(0, train.number - 1, number).round().astype(np.int64)
        inputs = input_settings(centred, **loading)  # type: ignore[arg-type]  # passed on as they are
        self.protocol = f"quality-n{number}-student{inputs.in_id}"
        crop = replace(augmented, size=centred.size)
        self._loader = make_loader(
            train,
            [centred, crop, crop],
            batch_size,
            subset=self.chosen_N,
            shuffle=False,
            drop_last=False,
            **loading,  # type: ignore[arg-type]  # passed on as they are
        )

    def measure(self, method: Method, batch_size: int) -> dict[str, float | str]:
        """Return the measures for a row of metrics.

        Args:
            batch_size: the training's batch size, for the age of the queue.

        Returns:
            `feature_spread`, `feature_rank`, `uniformity`, `alignment` and `quality_protocol`; with a queue
            `queue_age`; with soft labels `teacher_entropy`, and `teacher_entropy_2` of a second queue.
        """
        centred_ND, first_ND, second_ND = self.features(method.encoder())
        row: dict[str, float | str] = {
            "feature_spread": round(feature_spread(centred_ND), 5),
            "feature_rank": round(effective_rank(centred_ND), 3),
            "alignment": round(alignment(first_ND, second_ND), 5),
            "uniformity": round(uniformity(centred_ND), 5),
            "quality_protocol": self.protocol,
        }
        for queue in (module for module in method.modules() if isinstance(module, KeyQueue)):
            row["queue_age"] = queue_age(queue, batch_size)
            for number, temperature in enumerate(method.soft_label_temperatures):
                name = "teacher_entropy" if number == 0 else f"teacher_entropy_{number + 1}"
                row[name] = round(teacher_entropy(queue, temperature, number), 5)
        return row

    def features(self, backbone: nn.Module) -> tuple[Tensor, ...]:
        """Return features [N, D] of the chosen images, ascending: of the centred square and of both crops."""
        return extract(_EachView(backbone), _Stacked(self._loader), len(self.chosen_N)).chunk(3, 1)

    def close(self) -> None:
        """Release the loader."""
        self._loader.close()


class _Stacked:
    """A loader's batches with all V views as one [B, 3 V, s, s]: one pass over the images serves all of them."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def epoch(self, epoch: int) -> Iterator[Batch]:
        for batch in self._loader.epoch(epoch):
            yield replace(batch, views=(torch.cat(batch.views, 1),))


class _EachView(nn.Module):
    """The backbone on each view of a stack: [B, 3 V, s, s] to features [B, V D], side by side."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, stacked: Tensor) -> Tensor:
        return torch.cat([self.backbone(view).pooled for view in stacked.chunk(stacked.shape[1] // 3, 1)], 1)
