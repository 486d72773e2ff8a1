"""The model card beside exported weights: what they are, how to load them, measured results, and limits.

It is Markdown; everything that comes from a data set, a path or a file is escaped.
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


#: Lines that resize the centred square `crop` to `square` [size, size, 3]. A row of `weights` holds the overlap of one
#: output pixel with every input pixel, so that the products are the area average.
_AREA = (
    "edges, pixel = np.arange(size + 1) * side / size, np.arange(side)",
    "weights = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)",
    "weights = weights.clip(0, 1) * size / side",
    'square = np.einsum("sh,hwc,tw->stc", weights, np.asarray(crop, dtype=float), weights).round()',
)
_RESIZE = {
    "area": ("area average", _AREA),
    "bilinear": ("Pillow's bilinear filter", ("square = np.asarray(crop.resize((size, size), Image.BILINEAR))",)),
    "bicubic": ("Pillow's bicubic filter", ("square = np.asarray(crop.resize((size, size), Image.BICUBIC))",)),
}


@dataclass(frozen=True)
class Card:
    """The facts that a card is written from.

    Attributes:
        weights, onnx: names of the files; `onnx` may be empty.
        layout: the library whose keys the weights have.
        stock: the lines of Python that make that library's network.
        config: the run's config.json.
        results: the measured metrics.
        data: the name of the training images.
        compared: the name of the images on which features were compared.
        commit: the commit of the code that trained the run; empty if it is not recorded.
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
        """Return the page."""
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
        encoder = self.encoder
        yield "## How to load it\n"
        if why_not := missing_class(self.layout, encoder.architecture):
            yield f"The keys are {self.layout}'s, but {why_not}: no class there holds these weights.\n"
        else:
            yield f"With {self.layout} alone:\n"
            yield _python(
                *self.stock,
                "from safetensors.torch import load_file",
                "",
                f"model.load_state_dict(load_file({self.weights!r}))",
                "model.eval()",
            )
            if encoder.architecture["stem"] != "imagenet":
                yield f"The lines that replace a layer give {self.layout}'s network this one's small-image stem.\n"
        if self.onnx:
            yield "With onnxruntime alone; any batch size, `images` as below:\n"
            yield _python(
                "import onnxruntime",
                "",
                f"session = onnxruntime.InferenceSession({self.onnx!r})",
                '(features,) = session.run(["features"], {"images": images.numpy()})',
            )
        yield from self._preprocessing()
        yield "### With Likeness, preprocessing included\n"
        yield _python(
            "from PIL import Image",
            "from models import load_encoder",
            "",
            f"encoder = load_encoder({self.weights!r})",
            f'features = encoder(encoder.preprocess(Image.open("photo.jpg")))    # [1, {encoder.backbone.dim}]',
        )
        yield (
            "Likeness is an application that is run from its checkout, not an installed package: `from models import "
            "load_encoder` needs the checkout on Python's path (run in it, or set `PYTHONPATH`), and fails in a folder "
            "that has a `models` of its own.\n"
        )

    def _preprocessing(self) -> Iterator[str]:
        encoder = self.encoder
        ratio = "" if encoder.crop_ratio == 1 else f"{encoder.crop_ratio:g} of "
        mean, std = (tuple(round(value, 4) for value in triple or ()) for triple in (encoder.mean, encoder.std))
        resize, resize_lines = _RESIZE[encoder.resize]
        yield "### Preprocessing\n"
        yield (
            f"RGB; the centred square of {ratio}the shorter side, resized to {encoder.image_size} x "
            f"{encoder.image_size} px ({resize}); (pixel / 255 - mean) / std with mean "
            f"{', '.join(map(str, mean))} and std {', '.join(map(str, std))}. In NumPy and Pillow:\n"
        )
        yield _python(
            "import numpy as np",
            "import torch",
            "from PIL import Image, ImageOps",
            "",
            f"size, crop_ratio = {encoder.image_size}, {encoder.crop_ratio:g}",
            f"mean, std = {mean}, {std}",
            'image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")',
            "side = round(crop_ratio * min(image.size))",
            "left, top = round((image.width - side) / 2), round((image.height - side) / 2)",
            "crop = image.crop((left, top, left + side, top + side))",
            *resize_lines,
            "images = torch.tensor((square / 255 - mean) / std, dtype=torch.float32).permute(2, 0, 1)[None]",
        )

    def _results(self) -> Iterator[str]:
        yield "## What was measured\n"
        if not self.results:
            yield "Nothing: the run had not been evaluated.\n"
            return
        names = titles(self.results)
        rows = [
            (
                code(result.protocol) + escaped(names[result.key].removeprefix(result.protocol)),
                escaped(name),
                _with_interval(value, result.intervals.get(name)),
                f"{result.images or 0:,} of {escaped(result.data)}",
                _step(result.step, self),
            )
            for result in self.results
            for name, value in result.values.items()
        ]
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
            (escaped(check.what), escaped(check.why_not), "")
            if check.difference is None
            else (escaped(check.what), f"{check.difference:.1e}", f"{check.limit:g}")
            for check in self.checks
        ]
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
