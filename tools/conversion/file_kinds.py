"""What a file is by its name: an image, a picture that is not decoded here, a companion of images, or a text."""

from __future__ import annotations

import os
import re

from pipelines.decoding.image_file import SUFFIXES

# Companions of images wherever they lie; other files that are no images are refused inside a class folder.
_COMPANION = re.compile(
    r"(readme|licen[cs]e|source|copying|notice|authors|citation|changelog)\b.*|.*\.md|.*_boxes\.txt", re.IGNORECASE
)
_TEXTS = ".txt .json .jsonl .csv .tsv .xml .html .yaml .yml .pdf .md .log .sh .py .mat .npy .npz .pkl"
TEXTS = frozenset(_TEXTS.split(" "))
# Pictures that nothing here decodes: their name, by the ending of the file.
_FOREIGN = {
    "HEIC": ".heic .heif .hif",
    "JPEG XL": ".jxl",
    "camera raw": ".dng .cr2 .cr3 .nef .arw .orf .rw2 .raf",
    "SVG": ".svg .svgz",
    "Photoshop": ".psd .psb",
    "PostScript": ".eps .ps",
    "OpenEXR": ".exr",
    "Radiance HDR": ".hdr",
    "DICOM": ".dcm",
}
FOREIGN = {ending: name for name, endings in _FOREIGN.items() for ending in endings.split()}
# Brands in the first box of a file. "mif1" and "msf1" say only that pictures follow, and an AVIF may say so, too.
_HEIC = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}
_LONGEST_BOX = 1024  # bytes; ten brands are many

IMAGE_ENDINGS = ", ".join(sorted(SUFFIXES))  # for messages


def ending(name: str) -> str:
    """Return the ending of a file's name in small letters, with its dot."""
    return os.path.splitext(name)[1].lower()


def is_image(name: str) -> bool:
    """Whether a file is one that is decoded here, by its ending in any case of letters."""
    return ending(name) in SUFFIXES


def is_text(name: str) -> bool:
    return ending(name) in TEXTS


def is_companion(name: str) -> bool:
    return _COMPANION.fullmatch(name) is not None


def no_image(name: str) -> str:
    """Return why a file cannot be converted, for a message: "is not an image (ends in .doc)"."""
    kind = FOREIGN.get(ending(name))
    if kind:
        return foreign(kind)
    return f"is not an image (ends in {os.path.splitext(name)[1]})" if ending(name) else "is not an image"


def foreign_kind(data: bytes) -> str | None:
    """Return the name of a kind of picture that is not decoded here, by its first bytes; None for other bytes."""
    if data[4:8] == b"ftyp":  # a box: its size, this name, the major brand, a version, the compatible brands
        end = min(int.from_bytes(data[:4], "big"), len(data), _LONGEST_BOX)
        brands = {data[at : at + 4] for at in (8, *range(16, end, 4))}
        if brands & _HEIC and not brands & _AVIF:
            return "HEIC"
    starts = {b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"8BPS": "Photoshop", b"%!PS": "PostScript"}
    starts |= {b"v/1\x01": "OpenEXR", b"#?RADIANCE": "Radiance HDR", b"<svg": "SVG"}
    return next((kind for start, kind in starts.items() if data.startswith(start)), None)


def foreign(kind: str) -> str:
    """Return what to do with a picture of a kind that is not decoded here."""
    way = "heif-convert IN OUT.jpg, or on macOS sips -s format jpeg IN --out OUT.jpg" if kind == "HEIC" else ""
    way = way or "magick IN OUT.png"
    return f"is a {kind} picture, which is not decoded here; save it as JPEG or PNG, for instance with: {way}"
