"""Channels that do not vary, such as red and blue where one green fluorescence was recorded: their floor and name."""

from __future__ import annotations

from collections.abc import Sequence

NAMES = ("red", "green", "blue")
#: The smallest deviation that pixels are divided by, on the scale 0 to 1: four levels of 255. Smaller ones are those of
#: a channel with hardly any content, whose few stray pixels the division would make larger than all the others.
FLOOR = 4 / 255


def floored(std: Sequence[float]) -> tuple[float, float, float]:
    """Return the deviations that pixels are divided by."""
    red, green, blue = (max(float(value), FLOOR) for value in std)
    return red, green, blue


def uniform_channels(mean: Sequence[float], std: Sequence[float]) -> list[str]:
    """Return a line about each channel whose deviation is below the floor; one for all three where they are alike."""
    found = [
        (name, f"{255 * centre:.1f}, deviation {255 * deviation:.2g} of 255")
        for name, centre, deviation in zip(NAMES, mean, std, strict=True)
        if deviation < FLOOR
    ]
    division = f"normalisation divides it by {255 * FLOOR:.0f} levels"
    if len(found) == len(NAMES) and len({what for _, what in found}) == 1:
        return [f"the images hardly vary (mean {found[0][1]}); {division}"]
    return [f"the {name} channel hardly varies (mean {what}); {division}" for name, what in found]
