"""The networks of an evaluation: the encoder, the run's best checkpoint beside it, and the baselines."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from models.evaluation.protocol import Protocol
from models.storage.encoder import Encoder, EncoderError, RawPixels, from_run, from_weights
from tools.evaluation.options import EvaluationOptions


def load_encoders(options: EvaluationOptions) -> dict[str, Encoder]:
    """Return the encoder as "newest", and as "best" the run's best one if it was asked for and there is one.

    Raises:
        EncoderError: the run or the file cannot be used, or --checkpoint best names none.
    """
    if options.weights:
        weights = from_weights(
            options.weights, options.stem, options.image_size, options.mean, options.std, options.resize
        )
        return {"newest": weights}
    assert options.run is not None
    encoders = {"newest": from_run(options.run)}
    if options.checkpoint == "best":
        encoders["best"] = from_run(options.run, "best")
    elif options.checkpoint == "both":
        with contextlib.suppress(EncoderError):  # no kNN was measured at a step whose checkpoint is kept
            encoders["best"] = from_run(options.run, "best")
    return encoders


def networks(
    options: EvaluationOptions, encoders: Mapping[str, Encoder], protocol: Protocol
) -> list[tuple[str, nn.Module, Protocol]]:
    """Return (name of the table's row, network, its protocol) of everything to measure; the first row is the result."""
    newest, best = encoders["newest"], encoders.get("best")
    rows: list[tuple[str, nn.Module, Protocol]] = []
    if options.checkpoint != "best" or best is None:
        rows.append(("trained", newest.backbone, protocol))
    if best is not None and (not rows or best.step != newest.step):
        rows.append(("best", best.backbone, replace(protocol, checkpoint="best")))
    if options.baselines:
        rows.append(("untrained network", newest.untrained(), replace(protocol, checkpoint="untrained")))
        if protocol.takes_pixels:
            rows.append(("raw pixels", RawPixels(), replace(protocol, encoder="pixels", checkpoint="newest")))
    return rows
