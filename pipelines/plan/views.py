"""What a view is: the geometry and the photometric numbers that a method asks the data path for.

A `View` is only a description. `plan.py` draws boxes and factors for a given sample, the executors cut the boxes, and
`augmentation/augment.py` applies the factors. Definitions follow torchvision's transforms of the same names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# The filters that resize a crop: OpenCV's INTER_AREA, and Pillow's filters, which torchvision's transforms use.
RESIZE = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class View:
    """One augmented picture of a sample.

    Attributes:
        size: side of the square output, in pixels.
        scale: range of the crop's share of the image area (RandomResizedCrop); None = a centre crop.
        ratio: range of the crop's aspect ratio, width / height.
        center: share of the shorter side that a centre crop keeps; 224 / 256 is the usual evaluation crop. Used only
            where `scale` is None.
        resize: the filter that resizes the crop, one of `RESIZE`.
        flip: probability of a horizontal flip.
        jitter: strengths (brightness, contrast, saturation, hue) of ColorJitter, applied in random order.
        jitter_p, grayscale_p, blur_p, solarize_p, permute_p: probability of each operation.
        blur_sigma: range of the Gaussian's standard deviation, in pixels of the view.
        solarize_threshold: values at or above it are inverted, 0 to 255.

    Raises:
        ValueError: a value is out of its range; one line that names it.
    """

    size: int
    scale: tuple[float, float] | None = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    center: float = 1.0
    resize: str = "area"
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.0
    grayscale_p: float = 0.0
    blur_p: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_p: float = 0.0
    solarize_threshold: float = 128.0
    permute_p: float = 0.0

    def __post_init__(self) -> None:
        probabilities = (self.flip, *self.photometric_probabilities)
        if self.size < 1:
            raise ValueError(f"view size is {self.size}; give at least 1 pixel")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"crop scale is {self.scale}; give two shares of the area, 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"crop ratio is {self.ratio}; give 0 < low <= high")
        if not 0 < self.center <= 1:
            raise ValueError(f"centre crop keeps {self.center} of the shorter side; give a share above 0, at most 1")
        if self.resize not in RESIZE:
            raise ValueError(f"resize is '{self.resize}'; take one of {', '.join(RESIZE)}")
        if not all(0 <= p <= 1 for p in probabilities):
            raise ValueError(f"a probability of the view is outside 0 to 1: {probabilities}")
        if not all(0 <= s <= 1 for s in self.jitter[:3]) or not 0 <= self.jitter[3] <= 0.5:
            raise ValueError(f"jitter strengths are {self.jitter}; give 0 to 1 each, hue at most 0.5")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur sigma is {self.blur_sigma}; give 0 < low <= high, in pixels")

    @property
    def photometric_probabilities(self) -> tuple[float, ...]:
        """The probability of every photometric operation; where all are 0, the view is cropped, flipped, normalised."""
        return self.jitter_p, self.grayscale_p, self.blur_p, self.solarize_p, self.permute_p

    def without_colours(self) -> View:
        """Return a view with the same crops and flips, and no photometric operation."""
        return replace(self, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0, solarize_p=0.0, permute_p=0.0)


def contrastive(size: int, scale: tuple[float, float] = (0.2, 1.0)) -> View:
    """Return the view of MoCo v2 (arXiv 2003.04297): crop, jitter, grey, blur, flip."""
    return View(size, scale, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grayscale_p=0.2, blur_p=0.5)


def evaluation(size: int, keep: float = 1.0, resize: str = "area") -> View:
    """Return a centre crop of the shorter side, or of its share `keep`, without any random number."""
    return View(size, scale=None, center=keep, resize=resize, flip=0.0)
