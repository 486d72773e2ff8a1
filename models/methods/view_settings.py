"""The augmentation options of the methods that compare views of whole images: a base of their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from models.options import check_options, option
from pipelines.plan.views import View


@dataclass(frozen=True)
class ViewSettings:
    """Base of a method's settings; the defaults are MoCo v2's augmentation (arXiv 2003.04297).

    Options of several numbers take one for every view, or a single one for all views.

    Class attributes:
        view_count: the number of views that these options describe.
    """

    view_count: ClassVar[int] = 2

    crop_size: int = option(224, "side of the views, in pixels", at_least=8)
    crop_scale: float = option(0.2, "smallest share of the image that a crop covers")
    flip: float = option(0.5, "probability of mirroring a view")
    jitter: tuple[float, ...] = option((0.4, 0.4, 0.4, 0.1), "strengths of brightness, contrast, saturation and hue")
    jitter_p: tuple[float, ...] = option((0.8,), "probability of colour jitter, one for all views or one each")
    grayscale: float = option(0.2, "probability of a grey view")
    blur: tuple[float, ...] = option((0.5,), "probability of blur, one for all views or one each")
    blur_sigma: tuple[float, ...] = option(
        (0.1, 2.0), "smallest and largest standard deviation of the blur, in pixels of the view", above=0
    )
    solarize: tuple[float, ...] = option((0.0,), "probability of solarising at 128, one for all views or one each")
    permute: float = option(0.0, "probability of permuting the colour channels")

    def __post_init__(self) -> None:
        check_options(self)
        if len(self.jitter) != 4:
            raise ValueError(f"jitter has {len(self.jitter)} strengths; give 4: brightness, contrast, saturation, hue")
        if len(self.blur_sigma) != 2:
            raise ValueError(f"blur_sigma has {len(self.blur_sigma)} numbers; give 2: the smallest and the largest")
        self.views(self.view_count)  # View refuses what is out of range

    def views(self, count: int) -> tuple[View, ...]:
        """Return the descriptions of `count` views.

        Raises:
            ValueError: an option has neither one number nor one for each view, or a number is out of range.
        """
        brightness, contrast, saturation, hue = self.jitter
        jitter_p, blur, solarize = (self._each(name, count) for name in ("jitter_p", "blur", "solarize"))
        return tuple(
            View(
                self.crop_size,
                (self.crop_scale, 1.0),
                flip=self.flip,
                jitter=(brightness, contrast, saturation, hue),
                jitter_p=jitter_p[number],
                grayscale_p=self.grayscale,
                blur_p=blur[number],
                blur_sigma=(self.blur_sigma[0], self.blur_sigma[1]),
                solarize_p=solarize[number],
                permute_p=self.permute,
            )
            for number in range(count)
        )

    def _each(self, name: str, count: int) -> tuple[float, ...]:
        """Return the numbers of an option for `count` views."""
        given: tuple[float, ...] = getattr(self, name)
        if len(given) not in (1, count):
            raise ValueError(f"{name} has {len(given)} numbers for {count} views; give one, or one for each")
        return given * (count // len(given))
