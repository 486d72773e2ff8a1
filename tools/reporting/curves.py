"""The sections of a report with curves: loss, learning rate, kNN, feature quality, purity of partners, speed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

from tools.reporting.figures import COLORS, as_png, figure, style
from tools.reporting.page import Picture, Section, Table
from tools.run.record import RunRecord

#: The meaning of each quality metric; a name that ends in _2 is that of a method's second queue.
MEANING = {
    "feature_spread": "standard deviation of unit features times the root of their width: 1 uniform, 0 collapsed",
    "feature_rank": "RankMe, the effective rank of the features, from 1 to their width (arXiv 2210.02885)",
    "alignment": "mean squared distance between unit features of two crops of an image: 0 if equal (arXiv 2005.10242)",
    "uniformity": "log mean Gaussian potential of pairs of images: about -4 uniform, 0 collapsed (arXiv 2005.10242)",
    "queue_age": "age of the oldest key in the queue, in steps",
    "teacher_entropy": "entropy of the teacher's soft labels over its queue, in nats: 0 if all weight is on one key",
    "teacher_entropy_2": "the same for the second queue",
}
_PARTNERS = {
    "partner_selected": "selected partners",
    "partner_neighbors": "all neighbours",
    "partner_chance": "chance",
}
_NOT_DRAWN = {"step", "epoch", "samples_seen", "first_step_s", "replaced_images"}
_DRAWN_BY_NAME = {"loss", "lr", "samples_per_s", "wait_share", "knn_top1", *MEANING}  # others are terms of the loss
_WIDTH, _HEIGHT, _COLUMNS = 5.4, 2.7, 2  # size of a panel in inches, and panels side by side
_FEW = 30  # a line with fewer points gets a marker for each of them

Panel = tuple[str, dict[str, str]]  # a title, and the label of the line of each field


def curve_sections(record: RunRecord) -> list[Section]:
    """Return sections with every number that the run logged."""
    known = _NOT_DRAWN | _DRAWN_BY_NAME | set(_PARTNERS) | {"partner_paired"}
    terms = sorted({name for row in record.rows if "loss" in row for name in row} - known)
    training: list[Panel] = [("loss", {"loss": ""}), ("learning rate", {"lr": ""})]
    training += [(name.replace("_", " "), {name: ""}) for name in terms]
    sections = [Section("Training", "", _pictures(record, "training", training, "Every logged step, not smoothed."))]
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
        drawn = _pictures(record, "purity", panels, "At each selection of partners.")
        sections.append(Section("Purity of the partners", text, drawn))
    speed: list[Panel] = [
        ("images per second", {"samples_per_s": "images/s"}),
        ("share of time waiting for data", {"wait_share": "waiting"}),
    ]
    sections.append(Section("Speed", "", _pictures(record, "speed", speed, "Between two logged steps.")))
    return sections


def _quality(record: RunRecord) -> list[Section]:
    """Return the section with the curves, first and last values of the quality metrics."""
    names = [name for name in MEANING if record.last(name) is not None]
    if not names:
        return [Section("Quality of the features", "Left out: the run logged no quality metrics.")]
    protocol = record.last("quality_protocol")
    second = "teacher_entropy_2"  # drawn together with teacher_entropy
    panels: list[Panel] = []
    for name in names:
        if name == second:
            continue
        of_features = name.startswith(("feature", "align", "unif"))
        lines = {name: "first queue"}
        if name == "teacher_entropy" and second in names:
            lines[second] = "second queue"
        panels.append((f"{name}, {protocol}" if of_features else name.replace("_", " "), lines))
    rows = []
    for name in names:
        values = record.series(name)[1]
        rows.append((name, f"{values[0]:.4g}", f"{values[-1]:.4g}", MEANING[name]))
    text = f"Measured without labels on the same training images and crops each time ({protocol})."
    table = Table(("metric", "first", "last", "meaning"), tuple(rows))
    return [Section("Quality of the features", text, _pictures(record, "quality", panels, text), (table,))]


def _pictures(record: RunRecord, name: str, panels: Sequence[Panel], caption: str) -> tuple[Picture, ...]:
    """Draw all panels that have a number to show as one picture; return none if no panel has."""
    shown = [
        (title, {field: line for field, line in lines.items() if record.series(field)[0]}) for title, lines in panels
    ]
    shown = [(title, lines) for title, lines in shown if lines]
    if not shown:
        return ()
    rows = math.ceil(len(shown) / _COLUMNS)
    drawn = figure(_WIDTH * min(len(shown), _COLUMNS), _HEIGHT * rows)
    with style():
        for number, (title, lines) in enumerate(shown, 1):
            axes = drawn.add_subplot(rows, min(len(shown), _COLUMNS), number)
            for color, (field, line) in zip(COLORS * (len(lines) // len(COLORS) + 1), lines.items(), strict=False):
                steps, values = record.series(field)
                marker = "o" if len(steps) < _FEW else ""
                axes.plot(steps, values, color=color, lw=1.4, marker=marker, ms=3.5, label=line or field)
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if len(lines) > 1:
                axes.legend(frameon=False, fontsize=8.5)
    return (as_png(drawn, f"{name}.png", caption),)
