"""How a global batch divides over micro-batches, processes and batch-norm groups. All checks of it are here."""

from __future__ import annotations


def check_global_batch(batch_size: int, *, micro_batches: int = 1, processes: int = 1, norm_groups: int = 1) -> None:
    """Refuse a global batch that does not divide evenly.

    Args:
        batch_size: number of images of one optimizer step, over all processes.
        micro_batches: number of passes over which a step accumulates its gradient (`--accumulate`).
        processes: number of processes that share each micro-batch.
        norm_groups: number of groups of a micro-batch with separate batch statistics (`--bn-splits`).

    Raises:
        ValueError: two of the numbers do not divide; the message names them.
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
    """Refuse a data set that does not fill one global batch.

    Raises:
        ValueError: there are fewer images; the message names both numbers.
    """
    if images < batch_size:
        raise ValueError(
            f"the data set has {images} images, fewer than one batch of {batch_size}; lower the batch size"
        )
