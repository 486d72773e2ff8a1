"""The curves of a run: loss, learning rate, kNN, what the monitors saw, partners, speed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

from tools.reporting.figures import COLORS, figure, finished, looked
from tools.reporting.page import Picture, Section, Table
from tools.run.record import RunRecord

#: What the monitors' names mean; names ending in _2 are of a method's second queue.
MEANING = {
    "feature_spread": "standard deviation of unit features times the root of their width: 1 even, 0 collapsed",
    "feature_rank": "RankMe, the effective rank of the features: from 1 to their width (arXiv 2210.02885)",
    "alignment": "mean squared distance of unit features of two crops of an image: 0 alike (arXiv 2005.10242)",
    "uniformity": "log mean Gaussian potential of pairs of images: about -4 even, 0 collapsed (arXiv 2005.10242)",
    "queue_age": "steps that the oldest key of the queue has waited",
    "teacher_entropy": "entropy of the teacher's soft labels over its queue, in nats: 0 names one key",
    "teacher_entropy_2": "the same for the second queue",
}
_PARTNERS = {
    "partner_selected": "selected partners",
    "partner_neighbors": "all neighbours",
    "partner_chance": "chance",
}
_PLACE = {"step", "epoch", "samples_seen", "first_step_s", "replaced_images"}
_PLAIN = {"loss", "lr", "samples_per_s", "wait_share", "knn_top1", *MEANING}
_WIDTH, _HEIGHT, _COLUMNS = 5.4, 2.7, 2
_FEW = 30  # points that are marked one by one

Panel = tuple[str, dict[str, str]]  # title, and for each field the name of its line


def curve_sections(record: RunRecord) -> list[Section]:
    """Sections with everything numeric that the run logged."""
    known = _PLACE | _PLAIN | set(_PARTNERS) | {"partner_paired"}
    parts = sorted({name for row in record.rows if "loss" in row for name in row} - known)
    batch: list[Panel] = [("loss", {"loss": ""}), ("learning rate", {"lr": ""})]
    batch += [(name.replace("_", " "), {name: ""}) for name in parts]
    sections = [Section("Training", "", _pictures(record, "training", batch, "Every logged step, not smoothed."))]
    protocol = record.last("knn_protocol")
    if protocol is None:
        sections.append(Section("kNN accuracy", "Left out: the run had no labelled images to classify."))
    else:
        panels: list[Panel] = [(f"kNN top-1 in %, {protocol}", {"knn_top1": "top-1"})]
        caption = f"Held-out images, protocol {protocol}; at step 0 the untrained network."
        sections.append(Section("kNN accuracy", "", _pictures(record, "knn", panels, caption)))
    sections += _quality(record)
    if record.last("partner_chance") is not None:
        panels = [
            ("share of partners with their anchor's class", dict(_PARTNERS)),
            ("share of anchors that have a partner", {"partner_paired": "paired"}),
        ]
        text = "Labels are used for these curves only, never in training."
        made = _pictures(record, "purity", panels, "At each selection.")
        sections.append(Section("Purity of the partners", text, made))
    speed: list[Panel] = [
        ("images per second", {"samples_per_s": "images/s"}),
        ("share of time waiting for data", {"wait_share": "waiting"}),
    ]
    sections.append(Section("Speed", "", _pictures(record, "speed", speed, "Between two logged steps.")))
    return sections


def _quality(record: RunRecord) -> list[Section]:
    names = [name for name in MEANING if record.last(name) is not None]
    if not names:
        return [Section("Quality of the features", "Left out: the run logged no quality monitors.")]
    protocol = record.last("quality_protocol")
    second = "teacher_entropy_2"
    panels: list[Panel] = [
        (f"{name}, {protocol}" if name.startswith(("feature", "align", "unif")) else name.replace("_", " "),
         {name: "first queue"} | ({second: "second queue"} if name == "teacher_entropy" and second in names else {}))
        for name in names if name != second
    ]  # fmt: skip
    rows = []
    for name in names:
        values = record.series(name)[1]
        rows.append((name, f"{values[0]:.4g}", f"{values[-1]:.4g}", MEANING[name]))
    text = f"Measured without labels on the same training images and crops each time ({protocol})."
    table = Table(("monitor", "first", "last", "what it is"), tuple(rows))
    return [Section("Quality of the features", text, _pictures(record, "quality", panels, text), (table,))]


def _pictures(record: RunRecord, name: str, panels: Sequence[Panel], caption: str) -> tuple[Picture, ...]:
    """One picture of all panels that have a number to show."""
    shown = [
        (title, {field: line for field, line in lines.items() if record.series(field)[0]}) for title, lines in panels
    ]
    shown = [(title, lines) for title, lines in shown if lines]
    if not shown:
        return ()
    rows = math.ceil(len(shown) / _COLUMNS)
    drawn = figure(_WIDTH * min(len(shown), _COLUMNS), _HEIGHT * rows)
    with looked():
        for place, (title, lines) in enumerate(shown, 1):
            axes = drawn.add_subplot(rows, min(len(shown), _COLUMNS), place)
            for color, (field, line) in zip(COLORS * (len(lines) // len(COLORS) + 1), lines.items(), strict=False):
                steps, values = record.series(field)
                marker = "o" if len(steps) < _FEW else ""
                axes.plot(steps, values, color=color, lw=1.4, marker=marker, ms=3.5, label=line or field)
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if len(lines) > 1:
                axes.legend(frameon=False, fontsize=8.5)
    return (finished(drawn, f"{name}.png", caption),)
