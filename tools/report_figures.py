"""What the report's matplotlib figures share: one look, no display, text as it is (a class may be named "$x$")."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from tools.report_page import Picture

#: Colours that stay apart for most eyes (Okabe and Ito).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#b8a800")
_LOOK: dict[str, Any] = {
    "text.parse_math": False, "font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e6e6e6", "axes.axisbelow": True, "axes.titlesize": 10,
    "axes.titlelocation": "left",
}  # fmt: skip


def figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    with matplotlib.rc_context(_LOOK):
        return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def looked() -> Any:
    """The context in which axes are added and drawn on."""
    return matplotlib.rc_context(_LOOK)


def finished(drawn: Figure, name: str, caption: str) -> Picture:
    """The figure as a picture."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_LOOK):
        drawn.savefig(buffer, format="png", dpi=100)
    return Picture(name, buffer.getvalue(), caption)
