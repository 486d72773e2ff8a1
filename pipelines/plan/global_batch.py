"""How a global batch divides: over micro-batches, processes and batch-norm groups. Every check of it is here."""

from __future__ import annotations


def check_global_batch(batch_size: int, *, micro_batches: int = 1, processes: int = 1, norm_groups: int = 1) -> None:
    """Refuses a global batch that does not divide evenly.

    Args:
        batch_size: images of one optimizer step, over all processes.
        micro_batches: passes that a step accumulates its gradient over (`--accumulate`).
        processes: that share each micro-batch.
        norm_groups: groups of a micro-batch, each with batch statistics of its own (`--bn-splits`).

    Raises:
        ValueError: names the numbers that do not go together.
    """
    if batch_size % micro_batches:
        raise ValueError(f"--batch-size {batch_size} does not divide into --accumulate {micro_batches} micro-batches")
    each = batch_size // micro_batches
    micro = "" if micro_batches == 1 else "micro-"
    if each % norm_groups:
        raise ValueError(
            f"a {micro}batch of {each} does not split into {norm_groups} batch-norm groups (bn_splits); "
            f"give a multiple of {norm_groups}"
        )
    if each % processes:
        raise ValueError(
            f"a {micro}batch of {each} does not divide over {processes} processes; take a multiple of {processes}"
        )
    if norm_groups > 1 and norm_groups % processes:
        raise ValueError(
            f"{norm_groups} batch-norm groups (bn_splits) do not divide over {processes} processes; "
            f"give a multiple of {processes}"
        )


def check_enough_images(images: int, batch_size: int) -> None:
    """Refuses a data set that does not fill one global batch.

    Raises:
        ValueError: names both numbers.
    """
    if images < batch_size:
        raise ValueError(
            f"the data set has {images} images, fewer than one batch of {batch_size}; lower the batch size"
        )
