"""The page that lies beside exported weights: what they are, how to load them, what was measured, and their limits.

Markdown; whatever comes from a data set, a path or a file is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from models.storage.encoder import Encoder
from tools.exporting.parity_check import Checked
from tools.exporting.reference_models import missing_class
from tools.markdown import code, escaped, table
from tools.run.evaluations import Measured, titles

_SOURCES = (
    "A value's source: *paper* is the publication's text, *code* its authors' code, *sibling* other code of the same "
    "group, *inferred* what both imply, *ours* a choice where nothing was published, *command line* this run's own."
)


@dataclass(frozen=True)
class Card:
    """What a card is written from.

    Attributes:
        weights, onnx: names of the files; onnx may be "".
        layout, stock: whose keys they have, and the lines of Python that make its network.
        config: of the run.
        results: what was measured.
        data: the name, and `images` how many images; of `compared` the name of the set that features were compared on.
    """

    weights: str
    onnx: str
    layout: str
    stock: Sequence[str]
    encoder: Encoder
    config: dict[str, Any]
    results: Sequence[Measured]
    data: str
    compared: str
    checks: Sequence[Checked]
    commit: str

    def text(self) -> str:
        """The whole page."""
        return "\n".join([*self._head(), *self._loading(), *self._results(), *self._recipe(), *self._checks(), _LIMITS])

    def _head(self) -> Iterator[str]:
        config, encoder = self.config, self.encoder
        architecture, data = encoder.architecture, config["data"]
        weights = sum(parameter.numel() for parameter in encoder.backbone.parameters())
        yield f"# {escaped(self.weights.removesuffix('.safetensors'))}\n"
        yield (
            f"An image encoder that was trained without labels: {escaped(architecture['name'])}, "
            f"{weights:,} weights, from images to {encoder.backbone.dim} features.\n"
        )
        size = f"{architecture['width']} channels in the first stage, stem {code(architecture['stem'])}"
        if not architecture["name"].startswith("resnet"):
            size = f"{encoder.backbone.dim} channels, patches of 16 px at {encoder.image_size} px"
        classes = f" of {len(data['classes'])} classes, whose labels were not used" if data.get("classes") else ""
        rows = [
            ("method", code(config["method"])),
            ("network", f"{escaped(architecture['name'])}, {size}"),
            ("keys", f"{self.layout}'s"),
            ("data", f"{escaped(self.data)}: {data.get('number', 0):,} images{classes}"),
            ("data checksum", code(data.get("checksum"))),
            ("trained", f"{encoder.samples_seen or 0:,} images seen in {encoder.step or 0:,} steps"),
            ("seed", escaped(config.get("options", {}).get("seed"))),
            ("commit", code(self.commit) if self.commit else "not recorded"),
            ("versions", escaped(", ".join(f"{name} {found}" for name, found in config.get("versions", {}).items()))),
        ]
        yield table(("", ""), rows)

    def _loading(self) -> Iterator[str]:
        encoder, name = self.encoder, self.weights
        yield "## How to load it\n"
        yield "With Likeness, preprocessing included:\n"
        yield _python(
            "from PIL import Image",
            "from models import load_encoder",
            "",
            f"encoder = load_encoder({name!r})",
            f'features = encoder(encoder.preprocess(Image.open("photo.jpg")))    # [1, {encoder.backbone.dim}]',
        )
        if why_not := missing_class(self.layout, encoder.architecture):
            yield f"The keys are {self.layout}'s, but {why_not}: no class there holds these weights.\n"
        else:
            yield f"With {self.layout} alone:\n"
            yield _python(
                *self.stock, "from safetensors.torch import load_file", "",
                f"model.load_state_dict(load_file({name!r}))", "model.eval()",
            )  # fmt: skip
            if encoder.architecture["stem"] != "imagenet":
                yield f"The lines that replace a layer give {self.layout}'s network this one's small-image stem.\n"
        if self.onnx:
            yield f"{code(self.onnx)} is the same network as ONNX: input `images`, output `features`, any batch size.\n"
        yield "## Preprocessing\n"
        keep = "whole" if encoder.crop_ratio == 1 else f"{encoder.crop_ratio:g} of the"
        mean, std = (", ".join(f"{v:.4f}" for v in triple or ()) for triple in (encoder.mean, encoder.std))
        yield (
            f"RGB; the centred square of the {keep} shorter side, resized to {encoder.image_size} x "
            f"{encoder.image_size} px (area average); (pixel / 255 - mean) / std with mean {mean} and std {std}.\n"
        )

    def _results(self) -> Iterator[str]:
        yield "## What was measured\n"
        if not self.results:
            yield "Nothing: the run had not been evaluated.\n"
            return
        names = titles(self.results)
        rows = [
            (
                code(result.protocol) + escaped(names[result.key].removeprefix(result.protocol)), escaped(name),
                _with_interval(value, result.intervals.get(name)),
                f"{result.images or 0:,} of {escaped(result.data)}", _step(result.step, self),
            )
            for result in self.results
            for name, value in result.values.items()
        ]  # fmt: skip
        yield table(("protocol", "measure", "%", "images", "step"), rows)
        yield "Of one pretraining. Compare these only with numbers of the same protocol on the same images.\n"

    def _recipe(self) -> Iterator[str]:
        sources = self.config.get("sources", {})
        yield "## Recipe\n"
        rows = [
            (code(name), escaped(_value(value)), escaped(sources.get(name, "")))
            for name, value in self.config["recipe"].items()
        ]
        yield table(("", "value", "source"), rows)
        yield _SOURCES + "\n"

    def _checks(self) -> Iterator[str]:
        yield "## Checked at export\n"
        yield (
            f"Features of images of {escaped(self.compared)} against those of the run's own network: the largest "
            "difference over the largest feature.\n"
        )
        rows = [
            (escaped(check.what), escaped(check.why_not) if check.difference is None else f"{check.difference:.1e}",
             "" if check.difference is None else f"{check.limit:g}")
            for check in self.checks
        ]  # fmt: skip
        yield table(("", "difference", "limit"), rows)


_LIMITS = """\
## Limits

- A backbone only: it gives features and classifies nothing until something is trained on them.
- It knows what its training images showed. On other kinds of images, other sizes or other normalisation, measure first.
- Nobody has examined which biases of the training images are in the features. Do not use them to judge people.
- The licence of the training images may bind what is made of them; this file does not settle that.
"""


def _python(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```\n"])


def _with_interval(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.2f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")


def _step(step: int | None, card: Card) -> str:
    if step is None or step == card.encoder.step:
        return "" if step is None else f"{step:,}"
    return f"{step:,} (not of these weights)"


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
