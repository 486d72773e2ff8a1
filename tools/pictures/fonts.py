"""Chooses a font for text of any script: Pillow's own, or one of the system; characters in none of them are escaped."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from PIL import ImageFont

from pipelines.printable import printable

#: Fonts with many scripts (Chinese, Japanese and Korean among them) that a system may have.
_SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "unifont.otf",
    "DejaVuSans.ttf",
    "msyh.ttc",
    "PingFang.ttc",
    "Arial Unicode.ttf",
)
_SIZE = 10
_NO_CHARACTER = "\U0010ffff"  # never assigned: a font draws its glyph for missing characters

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def fitting(text: str) -> tuple[str, Font]:
    """Return text as one line, and the font that has most of its characters; the others are escaped."""
    line = " ".join(printable(" ".join(text.split())).split())
    # Among equals max takes the first, which is Pillow's own font.
    font = max(_fonts(), key=lambda font: sum(_has(font, character) for character in line))
    return "".join(c if _has(font, c) else ascii(c)[1:-1] for c in line), font


@cache
def _fonts() -> tuple[Font, ...]:
    found: list[Font] = [ImageFont.load_default(_SIZE)]
    for name in _SYSTEM_FONTS:
        with suppress(OSError):  # not installed
            found.append(ImageFont.truetype(name, _SIZE))
    return tuple(found)


@cache
def _has(font: Font, character: str) -> bool:
    """Return whether a font has a glyph for a character."""
    if character == " ":
        return True
    glyph, missing = font.getmask(character), font.getmask(_NO_CHARACTER)
    return (glyph.size, bytes(glyph)) != (missing.size, bytes(missing))
