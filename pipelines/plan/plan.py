"""The plan: every random decision of the data path as a pure function of (seed, epoch, sample, view).

Nothing here keeps random state or opens a file. Every executor gets the same plan, so all cut the same boxes; a resumed
run asks for the same step and gets the same batch; N processes ask for their shares of the batch that one process would
see.

Cost of one batch: a few hundred hashes a sample and view, in NumPy. An epoch's order is a permutation that can be read
at any position, so memory does not grow with the data set.
S = samples to decode (anchors, then their partners), B = anchors, V = views, P = photometric numbers, K = samples of
views that have something in common.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.plan import crops
from pipelines.plan.global_batch import check_enough_images, check_global_batch
from pipelines.plan.pairing import Pairing
from pipelines.plan.photometric import NUMBERS, photometric_numbers
from pipelines.plan.random_numbers import key, permute, uniform
from pipelines.plan.views import View

_ORDER, _VIEW, _PARTNER, _MIX, _BATCH = range(5)  # first integer of a key, so that no two decisions share numbers


@dataclass(frozen=True)
class BatchPlan:
    """All that an executor needs to know about one batch of this process.

    Attributes:
        source_S: [S] int64, indices of the images to decode: the B anchors, then (where the step mixes) their partners.
        count: B.
        seed: a number of this global batch, for random numbers that a method draws itself.
        crop_VS4: [V, S, 4] int32 boxes (top, left, height, width).
        flip_VS: [V, S] bool.
        photometric_VSP: [V, S, P] float32, columns as in `photometric.py`.
        box_B4: [B, 4] float32 CutMix rectangles (top, left, bottom, right) in shares of the side, with area 0 for an
            anchor without a partner; None where the step mixes nothing.
    """

    source_S: NDArray[np.int64]
    count: int
    seed: int
    crop_VS4: NDArray[np.int32]
    flip_VS: NDArray[np.bool_]
    photometric_VSP: NDArray[np.float32]
    box_B4: NDArray[np.float32] | None


class Plan:
    """The batches of every epoch, for one process of `world`.

    Args:
        heights, widths: [N] sides of the stored images, in pixels.
        views: descriptions of the views of each sample.
        batch_size: number of samples of a *global* batch, over all processes.
        seed: together with the epoch it fixes every random number.
        subset: indices of the images to draw from; None = all.
        rank, world: this process takes positions rank, rank + world, ... of each global batch.
        shuffle: whether each epoch has a new order; else the data set's own.
        drop_last: whether the last samples, which do not fill a batch, are left out.
        fill_to: with a number, no sample is left out: an epoch is filled up to a multiple of that many samples, itself
            a multiple of the batch, with the epoch's first samples in new views. 0 = no filling.

    Raises:
        ValueError: the batch does not divide over the processes, or is larger than the data.
    """

    def __init__(
        self,
        heights: NDArray[np.integer],
        widths: NDArray[np.integer],
        views: Sequence[View],
        batch_size: int,
        *,
        seed: int = 0,
        subset: NDArray[np.int64] | None = None,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        drop_last: bool = True,
        fill_to: int = 0,
    ) -> None:
        self.heights, self.widths = heights.astype(np.int64), widths.astype(np.int64)
        self.views, self.seed, self.subset = tuple(views), seed, subset
        # What views have in common is drawn for all of them together, which takes half the time.
        self._same_crops = _alike(self.views, [(view.scale, view.ratio, view.center, view.flip) for view in self.views])
        self._same_colours = _alike(self.views, self.views)
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.shuffle = shuffle
        self.size = len(heights) if subset is None else len(subset)
        if not self.views:
            raise ValueError("no view is asked for; give at least one")
        if batch_size < 1 or not 0 <= rank < world:
            raise ValueError(
                f"batch size {batch_size}, rank {rank} of {world}: give a batch of 1 or more and rank < world"
            )
        if drop_last:
            check_global_batch(batch_size, processes=world)
            check_enough_images(self.size, batch_size)
        #: Number of positions of an epoch; those from `size` on repeat the first ones.
        self.positions = -(-self.size // fill_to) * fill_to if fill_to else self.size
        self.steps = self.positions // batch_size if drop_last else -(-self.positions // batch_size)
        if self.steps == 0:
            raise ValueError("there are no images to make batches of")

    def order(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices in the data set at the given positions of an epoch."""
        positions = positions % self.size
        if self.shuffle:
            positions = permute(key(self.seed, _ORDER, epoch), positions, self.size)
        return positions if self.subset is None else self.subset[positions]

    def batch(self, epoch: int, step: int, pairing: Pairing | None = None) -> BatchPlan:
        """Return this process's share of global batch `step` of an epoch.

        Args:
            pairing: the candidates for partners; None = no step mixes.
        """
        start = step * self.batch_size
        stop = min(start + self.batch_size, self.positions)
        position_B = np.arange(start + self.rank, stop, self.world, dtype=np.int64)
        anchor_B = self.order(epoch, position_B)
        # A sample that fills up the last batch gets other views than those it had before in the epoch.
        again_B = position_B // self.size * (len(self.heights) + 1)
        source_S, salt_S, box_B4 = anchor_B, again_B, None
        mix = None if pairing is None else self._mix_box(epoch, step, pairing)
        if pairing is not None and mix is not None:
            partner_B, alone_B = self._partners(epoch, anchor_B, pairing)
            box_B4 = np.where(alone_B[:, None], np.float32(0), mix)
            source_S = np.concatenate([anchor_B, partner_B])
            # A partner gets other views for each anchor: its key holds the anchor's index as well.
            salt_S = np.concatenate([again_B, again_B + anchor_B + 1])
        sample_S = key(self.seed, _VIEW, epoch, source_S, salt_S)
        shape = len(self.views), len(source_S)
        crop_VS4, flip_VS = np.empty((*shape, 4), np.int32), np.empty(shape, np.bool_)
        photometric_VSP = np.empty((*shape, NUMBERS), np.float32)
        key_VS = key(sample_S, np.arange(shape[0])[:, None])
        for view, numbers in self._same_crops:
            key_K = key_VS[numbers].ravel()
            height_K, width_K = (np.tile(sides[source_S], len(numbers)) for sides in (self.heights, self.widths))
            crop_VS4[numbers] = crops.boxes(view, key_K, height_K, width_K).reshape(len(numbers), shape[1], 4)
            flip_VS[numbers] = crops.flips(view, key_K).reshape(len(numbers), shape[1])
        for view, numbers in self._same_colours:
            drawn = photometric_numbers(view, key_VS[numbers].ravel())
            photometric_VSP[numbers] = drawn.reshape(len(numbers), shape[1], NUMBERS)
        seed = int(key(self.seed, _BATCH, epoch, step)) >> 1  # 63 bits: a torch generator takes it
        return BatchPlan(source_S, len(anchor_B), seed, crop_VS4, flip_VS, photometric_VSP, box_B4)

    def _partners(
        self, epoch: int, anchor_B: NDArray[np.int64], pairing: Pairing
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Draw a partner [B] uniformly from each anchor's candidates; an anchor without any is its own partner.

        Also return which anchors are their own partners: bool [B].
        """
        count_B = pairing.count[anchor_B]
        draw_B = uniform(key(self.seed, _PARTNER, epoch, anchor_B), 1)[:, 0]
        index_B = pairing.start[anchor_B] + (draw_B * count_B).astype(np.int64)
        partner_B = np.where(count_B > 0, pairing.pool.take(index_B, mode="clip"), anchor_B).astype(np.int64)
        return partner_B, partner_B == anchor_B

    def _mix_box(self, epoch: int, step: int, pairing: Pairing) -> NDArray[np.float32] | None:
        """Draw the CutMix rectangle of a global batch (arXiv 1905.04899), or return None where the step does not mix.

        Returns:
            float32 [4], (top, left, bottom, right) in shares of the side, clipped to 0 to 1.
        """
        step_key = key(self.seed, _MIX, epoch, step)
        mixes, top, left = uniform(step_key, 3).reshape(3)
        if mixes >= pairing.mix_probability:
            return None
        kept = np.random.Generator(np.random.Philox(key=int(step_key))).beta(pairing.mix_alpha, pairing.mix_alpha)
        half = np.sqrt(1 - kept) / 2
        box = np.array([top - half, left - half, top + half, left + half])
        clipped: NDArray[np.float32] = np.clip(box, 0, 1).astype(np.float32)
        return clipped


def _alike(views: Sequence[View], kinds: Sequence[Hashable]) -> list[tuple[View, NDArray[np.int64]]]:
    """Return for each kind a view that is of it, and the numbers of all views that are."""
    groups = {kind: np.flatnonzero([own == kind for own in kinds]) for kind in kinds}
    return [(views[numbers[0]], numbers) for numbers in groups.values()]
