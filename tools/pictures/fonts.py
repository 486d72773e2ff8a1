"""Text of any script on a contact sheet: by Pillow's own font, by a larger one of this system, or else escaped."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from PIL import ImageFont

from pipelines.printable import printable

#: Fonts of systems that hold Chinese, Japanese and Korean, and much else.
_LARGE = (
    "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "unifont.otf",
    "DejaVuSans.ttf", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf",
)  # fmt: skip
_SIZE = 10
_NO_CHARACTER = "\U0010ffff"  # drawn as what the font draws for whatever it lacks

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def fitting(text: str) -> tuple[str, Font]:
    """One line of text and a font that can draw it; characters that no font here has are escaped."""
    line = " ".join(printable(" ".join(text.split())).split())
    font = max(_fonts(), key=lambda font: sum(_has(font, character) for character in line))  # the first of equals
    return "".join(c if _has(font, c) else ascii(c)[1:-1] for c in line), font


@cache
def _fonts() -> tuple[Font, ...]:
    found: list[Font] = [ImageFont.load_default(_SIZE)]
    for name in _LARGE:
        with suppress(OSError):  # not of this system
            found.append(ImageFont.truetype(name, _SIZE))
    return tuple(found)


@cache
def _has(font: Font, character: str) -> bool:
    if character == " ":
        return True
    drawn, nothing = font.getmask(character), font.getmask(_NO_CHARACTER)
    return (drawn.size, bytes(drawn)) != (nothing.size, bytes(nothing))
