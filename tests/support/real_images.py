"""Real images of 32 pixels with labels: CIFAR-10 where the development images are, else scikit-learn's digits."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.images import encoded, write

UNPACK = Path(__file__).resolve().parents[3] / "shared" / "data" / "unpack_cifar10.py"
SIDE = 32


@dataclass(frozen=True)
class Split:
    """Images [N, 32, 32, 3] of uint8 and their classes [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def first(self, number: int) -> Split:
        return Split(self.images[:number], self.labels[:number])

    def save(self, folder: Path) -> None:
        """Write the images as PNG files in class folders."""
        for number, (image, label) in enumerate(zip(self.images, self.labels, strict=True)):
            write(folder / f"class{label}" / f"{number:05d}.png", encoded(image, "PNG"))


def cifar10(folder: Path, train: int, test: int) -> tuple[Split, Split]:
    """Return the first images of CIFAR-10's training and test sets, which are in a mixed order."""
    subprocess.run([sys.executable, str(UNPACK), str(folder)], check=True, stdout=subprocess.DEVNULL)

    def read(name: str) -> Split:
        batch = pickle.loads((folder / "cifar-10-batches-py" / name).read_bytes(), encoding="bytes")
        images = batch[b"data"].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        return Split(np.ascontiguousarray(images), np.array(batch[b"labels"]))

    return read("data_batch_1").first(train), read("test_batch").first(test)


def digits() -> tuple[Split, Split]:
    """Return 1,400 and 397 handwritten digits, enlarged from 8 pixels."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    small = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    enlarged = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for image in small]
    images = np.repeat(np.stack(enlarged)[..., None], 3, axis=3)
    return Split(images[:1400], loaded.target[:1400]), Split(images[1400:], loaded.target[1400:])
