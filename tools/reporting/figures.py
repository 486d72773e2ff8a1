"""What the report's matplotlib figures share: one look, no display, text as it is (a class may be named "$x$")."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from pipelines.printable import printable
from tools.reporting.page import Picture

#: Colours that stay apart for most eyes (Okabe and Ito).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#b8a800")
_LOOK: dict[str, Any] = {
    "text.parse_math": False, "font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e6e6e6", "axes.axisbelow": True, "axes.titlesize": 10,
    "axes.titlelocation": "left",
}  # fmt: skip
#: Families of Chinese, Japanese and Korean, of which a system may have some.
_LARGE = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "Droid Sans Fallback", "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Arial Unicode MS", "Unifont",
)  # fmt: skip


def figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    with looked():
        return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def looked() -> Any:
    """The context in which axes are added and drawn on."""
    return matplotlib.rc_context(_LOOK | {"font.family": _families()})


def label(name: str, most: int = 24) -> str:
    """A name on one line of at most so many characters; those that no font here can draw are escaped."""
    line = "".join(c if ord(c) in _drawable() else ascii(c)[1:-1] for c in printable(name))
    return line if len(line) <= most else f"{line[: most - 3]}..."


@cache
def _families() -> list[str]:
    there = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _LARGE if name in there)]


@cache
def _drawable() -> frozenset[int]:
    files = [font_manager.findfont(name) for name in _families()]
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())


def finished(drawn: Figure, name: str, caption: str) -> Picture:
    """The figure as a picture."""
    buffer = io.BytesIO()
    with looked():
        drawn.savefig(buffer, format="png", dpi=100)
    return Picture(name, buffer.getvalue(), caption)
