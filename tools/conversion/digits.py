"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8 pixels that need no download."""

from __future__ import annotations

import numpy as np

from tools.conversion.byte_locations import Item
from tools.conversion.source import TRAIN, Source
from tools.conversion.tree import SourceError

TEST_EVERY = 5  # every fifth sample of each class is a test sample


def digits() -> Source:
    """The digits, 0..16 scaled to 0..255, in their order; the split is balanced over the classes and always the same.

    Raises:
        SourceError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SourceError("digits needs scikit-learn; install it with: pip install 'likeness[digits]'") from None
    loaded = load_digits()
    grey = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    splits: dict[str, list[Item]] = {TRAIN: [], "test": []}
    seen = [0] * 10
    for index, (image, label) in enumerate(zip(grey, loaded.target.tolist(), strict=True)):
        seen[label] += 1
        split = "test" if seen[label] % TEST_EVERY == 0 else TRAIN
        splits[split].append(Item(f"digits#{index}", label, np.repeat(image[:, :, None], 3, axis=2)))
    return Source("digits", "scikit-learn digits", tuple("0123456789"), splits)
