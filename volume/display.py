"""An image as a person sees it: grey through its window, MONOCHROME1 inverted. For looking, not for measuring."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from domain.image import Image

Picture = npt.NDArray[np.uint8]

_DARKEST, _BRIGHTEST = 0.5, 99.5
"""Percentiles that become black and white where the header names no window."""


def displayed(image: Image, frame: int = 0) -> Picture:
    """Return one frame for display; shape ``(rows, columns, 3)``, RGB.

    Grey goes through the image's first window by the linear function (PS3.3 C.11.2.1.2.1), else from the 0.5th to the
    99.5th percentile; MONOCHROME1 is inverted afterwards, since its window too is about stored values (C.7.6.3.1.2).

    Parameters
    ----------
    frame
        From 0.
    """
    values = image.pixels[frame]
    if image.is_colour:
        return np.ascontiguousarray(values, np.uint8)
    grey = _stretched(np.asarray(values, np.float64), image.window)
    if image.photometric_interpretation == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey[:, :, None], 3, axis=2)


def _stretched(values: npt.NDArray[np.float64], window: tuple[float, float] | None) -> Picture:
    if window is not None and window[1] >= 1:
        centre, width = window
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    else:
        low, high = np.percentile(values, (_DARKEST, _BRIGHTEST))
    if high <= low:
        return np.where(values > low, 255, 0).astype(np.uint8)
    scaled = (values - low) * (255 / (high - low))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)
