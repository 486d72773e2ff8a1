"""Checksums: of one image, of a data set's content, of what describes a file."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

DIGEST_SIZE = 16  # bytes of blake2b
SAMPLED = 64  # images of a data set that are compared whenever it is opened


def hexadecimal(data: bytes) -> str:
    """Checksum of a few bytes, as the card writes it."""
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).hexdigest()


def image_digest(data: bytes | memoryview) -> bytes:
    """16 bytes that stand for an image's encoded bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_SIZE).digest()


def content_checksum(digests: bytes, labels: NDArray[np.int64]) -> str:
    """Checksum of a data set from its images' digests, joined in index order, and its labels [N].

    It does not depend on the files that hold the images.
    """
    rows = np.zeros(len(labels), dtype=[("digest", "u1", DIGEST_SIZE), ("label", "<i8")])
    rows["digest"] = np.frombuffer(digests, dtype=np.uint8).reshape(len(labels), DIGEST_SIZE)
    rows["label"] = labels
    return hexadecimal(rows.tobytes())


def sampled_numbers(images: int) -> list[int]:
    """The images that stand for all at opening: the first, the last, and those between at equal distance."""
    return sorted({int(number) for number in np.linspace(0, images - 1, SAMPLED)})


def sample_checksum(digests: bytes) -> str:
    """Checksum of the sampled images, from the digests of all (or of only those), joined in index order."""
    numbers = sampled_numbers(len(digests) // DIGEST_SIZE)
    return hexadecimal(b"".join(digests[number * DIGEST_SIZE : (number + 1) * DIGEST_SIZE] for number in numbers))
