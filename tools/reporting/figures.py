"""The style of the report's matplotlib figures: no display, fonts for many scripts, and literal text.

A class may be named "$x$", which matplotlib would take for a formula.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from pipelines.printable import printable
from tools.reporting.page import Picture

#: Colours that most people with colour-vision deficiency can tell apart (Okabe and Ito).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#b8a800")
_STYLE: dict[str, Any] = {
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}
#: Font families with Chinese, Japanese and Korean that a system may have.
_SYSTEM_FAMILIES = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
    "Unifont",
)


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches."""
    with style():
        return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def style() -> Any:
    """Return the context manager within which axes must be added and drawn on."""
    return matplotlib.rc_context(_STYLE | {"font.family": _families()})


def label(name: str, most: int = 24) -> str:
    """Return a name as one line of at most `most` characters; those that no font can draw are escaped."""
    line = "".join(c if ord(c) in _drawable() else ascii(c)[1:-1] for c in printable(name))
    return line if len(line) <= most else f"{line[: most - 3]}..."


@cache
def _families() -> list[str]:
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _SYSTEM_FAMILIES if name in installed)]


@cache
def _drawable() -> frozenset[int]:
    """Return the code points of all characters that the fonts have."""
    files = [font_manager.findfont(name) for name in _families()]
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())


def as_png(drawn: Figure, name: str, caption: str) -> Picture:
    """Render a figure as a picture of the report."""
    buffer = io.BytesIO()
    with style():
        drawn.savefig(buffer, format="png", dpi=100)
    return Picture(name, buffer.getvalue(), caption)
