"""Mutated images through conversion and through every executor; one case is one image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.executors.choose import EXECUTORS
from pipelines.executors.decode import decoder
from pipelines.formats.beton_format import file_facts
from pipelines.formats.beton_writer import BetonWriter, page_size_for
from pipelines.formats.card import write_card
from pipelines.formats.digests import image_digest
from pipelines.formats.format import Sample
from pipelines.formats.image_table import JPEG
from pipelines.formats.inspection import jpeg_sides
from pipelines.formats.opening import open_dataset
from tools.conversion.byte_locations import ByteRange, Item
from tools.conversion.encode import Settings
from tools.conversion.encoding_pool import encode_chunk
from tools.conversion.split_statistics import describe
from tools.fuzzing.mutations import IMAGES, harmed
from tools.fuzzing.read_all import Cut, cut, wrong

VICTIM, GOOD = 1, 3  # the harmed image's number, and how many sound ones lie around it
Outcome = tuple[str, str, str]  # stage, outcome, detail


def picture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Smooth colours with some noise [height, width, 3]."""
    coarse = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    return (smooth + rng.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sound_images(rng: np.random.Generator) -> list[tuple[bytes, int, int]]:
    """Files of every kind that decoders have a path of their own for, with their sides; JPEGs half of them."""
    made = []
    exif = Image.Exif()
    exif[0x0112] = 6
    jpegs: list[tuple[str, dict[str, Any]]] = [
        ("RGB", {"quality": 90}),
        ("RGB", {"quality": 60, "progressive": True}),
        ("RGB", {"quality": 85, "subsampling": 0, "restart_marker_blocks": 2}),
        ("L", {"quality": 80}),
        ("CMYK", {"quality": 80}),
        ("RGB", {"quality": 75, "exif": exif.tobytes(), "optimize": True}),
    ]
    kinds: list[tuple[str, str, dict[str, Any]]] = [("JPEG", mode, options) for mode, options in jpegs * 2]
    kinds += [("PNG", mode, {}) for mode in ("RGB", "P", "L", "RGBA", "1", "I;16")]
    kinds += [("PPM", "RGB", {}), ("PPM", "L", {}), ("GIF", "P", {}), ("BMP", "RGB", {}), ("TIFF", "RGB", {})]
    kinds += [("TIFF", "RGB", {"compression": "tiff_lzw"}), ("WEBP", "RGB", {"quality": 80})]
    for kind, mode, options in kinds:
        height, width = (int(side) for side in rng.integers(16, 72, 2))
        pixels = picture(rng, height, width)
        if mode == "I;16":
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        else:
            image = Image.fromarray(pixels).convert(mode)
        made.append((encoded(image, kind, **options), height, width))
    return made


class Images:
    """The cases of one seed. Each child process makes its own from the same numbers.

    Args:
        folder: an empty folder to work in.
        loaders: names of the executors to try; those that take long to start are tried on one case of ten.
    """

    def __init__(self, folder: Path, seed: int, loaders: tuple[str, ...]) -> None:
        self.folder, self.seed, self.loaders = folder, seed, loaders
        self.sound = sound_images(np.random.default_rng(seed))
        self._decode = decoder()
        self._untouched: dict[tuple[str, int, int], dict[int, NDArray[np.uint8]]] = {}

    def case(self, number: int) -> list[tuple[str, bytes]]:
        """The harmed image, under the name of its file."""
        data, _, _ = self._base(number)
        rng = np.random.default_rng([self.seed, number])
        other, _, _ = self.sound[int(rng.integers(len(self.sound)))]
        return [("image", harmed(rng, data, other, IMAGES))]

    def run(self, number: int) -> list[Outcome]:
        """What becomes of a case, stage by stage."""
        ((_, data),) = self.case(number)
        return [self._converted(data), *self._cut(number, data)]

    def _base(self, number: int) -> tuple[bytes, int, int]:
        return self.sound[number % len(self.sound)]

    def _converted(self, data: bytes) -> Outcome:
        path = self.folder / "image.jpg"
        path.write_bytes(data)
        (made,) = encode_chunk(([Item("image", 0, ByteRange(str(path)))], Settings())).images
        if isinstance(made, str):
            if made == "cannot be decoded: MemoryError":
                return "conversion", "MEMORY", made
            return "conversion", "refused" if "\n" not in made else "WRONG", made
        if made.mode == JPEG:
            sides = jpeg_sides(memoryview(made.data))
            if sides != (made.height, made.width):
                return "conversion", "WRONG", f"stored as {made.height} x {made.width}, its header says {sides}"
            if problem := self._undecoded(made.data, made.height, made.width):
                return "conversion", "WRONG", problem
        return "conversion", "accepted", ""

    def _undecoded(self, data: bytes, height: int, width: int) -> str:
        """What training would make of a stored JPEG: every pixel must come from it."""
        encoded = np.frombuffer(data, dtype=np.uint8)
        black, white = (np.full((height, width, 3), value, dtype=np.uint8) for value in (0, 255))
        if not (self._decode(encoded, black) and self._decode(encoded, white)):
            return "what was stored does not decode"
        return "" if np.array_equal(black, white) else "the decoder leaves pixels unwritten"

    def _cut(self, number: int, data: bytes) -> list[Outcome]:
        """The image as one of a .beton, with the sides that the sound one had."""
        _, height, width = self._base(number)
        if not data:
            return []
        found = []
        for loader in self.loaders:
            if EXECUTORS[loader].slow_start and number % 10:
                continue
            path = self._dataset(data, height, width)
            untouched = self._expected(loader, height, width)
            made, again = (cut(open_dataset(path), loader) for _ in range(2))
            problem = wrong(made, again, untouched)
            outcome = "WRONG" if problem else "replaced" if VICTIM in made.replaced else "accepted"
            if made.replaced - {VICTIM}:
                outcome, problem = "WRONG", f"replaced {made.replaced} too"
            found.append((loader, outcome, problem))
        return found

    def _expected(self, loader: str, height: int, width: int) -> dict[int, NDArray[np.uint8]]:
        key = (loader, height, width)
        if key not in self._untouched:
            sound = encoded(Image.fromarray(picture(np.random.default_rng(0), height, width)), "JPEG")
            made: Cut = cut(open_dataset(self._dataset(sound, height, width)), loader)
            assert made.views is not None and not made.replaced
            self._untouched[key] = {row: made.views[row] for row in range(GOOD + 1) if row != VICTIM}
            self._dataset(sound, height, width)
        return self._untouched[key]

    def _dataset(self, data: bytes, height: int, width: int) -> Path:
        path = self.folder / "case.beton"
        pictures = [picture(np.random.default_rng(number), 40, 50) for number in range(GOOD)]
        rows = [(JPEG, 40, 50, encoded(Image.fromarray(pixels), "JPEG")) for pixels in pictures]
        rows.insert(VICTIM, (JPEG, height, width, data))
        with BetonWriter(path, len(rows), page_size_for(len(data))) as writer:
            for position, (mode, high, wide, content) in enumerate(rows):
                writer.add(Sample(mode, high, wide, 0, content, image_digest(content), position))
        heights, widths = (np.array([row[column] for row in rows], dtype=np.int32) for column in (1, 2))
        digests = b"".join(image_digest(row[3]) for row in rows)
        labels, moments = np.zeros(len(rows), dtype=np.int64), np.full((len(rows), 6), 0.3)
        card = describe("fuzz", "fuzz", ("one",), heights, widths, labels, digests, moments)
        write_card(path, card | {"file": file_facts(path)})
        return path
