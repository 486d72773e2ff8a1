"""Crops resized by Pillow and OpenCV, which the executors must equal."""

import cv2
import numpy as np
from PIL import Image


def resized(crop, size, resize):
    """Return a Pillow image as uint8 [size, size, 3].

    Pillow resizes the rows first here, as all its versions before 13 do; 13 chooses the order by its cost.
    """
    if resize == "area":
        return cv2.resize(np.asarray(crop), (size, size), interpolation=cv2.INTER_AREA)
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[resize]
    return np.asarray(crop.resize((size, crop.height), resample).resize((size, size), resample))
