"""Checksums: of one image, of all images of a data set, and of the bytes that describe a file (BLAKE2b, 128 bits)."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

DIGEST_SIZE = 16  # bytes
SAMPLED = 64  # images that are compared with the card whenever a data set is opened


def hexadecimal(data: bytes) -> str:
    """Return the checksum of some bytes as the card writes it: 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).hexdigest()


def image_digest(data: bytes | memoryview) -> bytes:
    """Return the 16-byte digest of one image's encoded bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).digest()


def content_checksum(digests: bytes, labels: NDArray[np.int64]) -> str:
    """Return the checksum of a data set's content, which does not depend on the files that hold the images.

    Args:
        digests: the digests of all N images, joined in index order.
        labels: [N].
    """
    rows = np.zeros(len(labels), dtype=[("digest", "u1", DIGEST_SIZE), ("label", "<i8")])
    rows["digest"] = np.frombuffer(digests, dtype=np.uint8).reshape(len(labels), DIGEST_SIZE)
    rows["label"] = labels
    return hexadecimal(rows.tobytes())


def sampled_numbers(images: int) -> list[int]:
    """Return the indices of the images that opening compares: first, last, and evenly spaced ones between."""
    return sorted({int(number) for number in np.linspace(0, images - 1, SAMPLED)})


def sample_checksum(digests: bytes) -> str:
    """Return the checksum of the sampled images.

    Args:
        digests: of all images, or of the sampled ones only, joined in index order.
    """
    numbers = sampled_numbers(len(digests) // DIGEST_SIZE)
    return hexadecimal(b"".join(digests[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE] for number in numbers))
