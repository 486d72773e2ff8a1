"""Photograph-like JPEGs for measuring: random phases under the 1/f spectrum that natural images have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

_KINDS = 64  # different pictures; a JPEG's cost depends on its detail, not on which picture it is


def write_jpegs(folder: Path, number: int, side: int, quality: int = 90) -> None:
    """Writes `number` JPEGs of side x side pixels into a flat folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(side)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    for kind in range(min(_KINDS, number)):
        spectrum = np.exp(2j * np.pi * rng.random((3, *frequency.shape))) / frequency
        spectrum[:, 0, 0] = 0
        pixels = np.fft.irfft2(spectrum, s=(side, side))
        pixels = 128 + 50 * pixels / pixels.std()
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
        first = folder / f"{kind:06d}.jpg"
        picture.save(first, quality=quality)
        for copy in range(kind + _KINDS, number, _KINDS):
            (folder / f"{copy:06d}.jpg").write_bytes(first.read_bytes())
