"""One image as a person sees it: colours as RGB, grey values through their window. For looking, not for measuring."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from domain.image import Image
from domain.instance import Header
from volume.image_format import MOST_BYTES
from volume.images import read_image

Picture = npt.NDArray[np.uint8]

TRIMMED = (0.5, 99.5)
"""Percentiles that become black and white where the header names no window."""
WHOLE = (0.0, 100.0)


def read_picture(header: Header, path: Path, frame: int = 1, *, most_bytes: int = MOST_BYTES) -> Picture:
    """Return one frame for display; shape ``(rows, columns, 3)``. Only the frame asked for is decoded.

    Parameters
    ----------
    frame
        From 1, as DICOM counts (PS3.3 C.7.6.6).

    Raises
    ------
    AssemblyError, StorageError
        As ``volume.images.read_image``.
    """
    return shown(read_image(header, path, frame=frame, most_bytes=most_bytes))


def shown(image: Image, frame: int = 0, *, percentiles: tuple[float, float] = TRIMMED) -> Picture:
    """Return a frame, from 0, as RGB of shape ``(rows, columns, 3)``.

    Grey values go through the first VOI LUT, or else the first window (PS3.3 C.11.2); where the header has neither,
    ``percentiles`` of the values become black and white. MONOCHROME1 is inverted, since here the values are shown and
    not used: bright stays bright. Padding is black.
    """
    values = image.pixels[frame]
    if image.is_colour:
        return np.asarray(values, np.uint8)
    grey = _grey(image, np.asarray(values, np.float64), percentiles)
    if image.padding_value is not None:
        grey[values == image.padding_value] = 0
    return np.repeat(grey[:, :, None], 3, axis=2)


def _grey(image: Image, values: npt.NDArray[np.float64], percentiles: tuple[float, float]) -> Picture:
    is_inverse = image.photometric_interpretation == "MONOCHROME1"
    if image.voi_lut is None and image.window is None:
        return _stretched(-values if is_inverse else values, percentiles)
    if image.voi_lut is not None:
        table = image.voi_lut.table.astype(np.float64)
        index = (values - image.voi_lut.first).clip(0, len(table) - 1).astype(np.int64)
        share = (table[index] - table.min()) / (float(np.ptp(table)) or 1.0)
    else:
        share = _windowed(values, image.window or (0.0, 1.0), image.window_function)
    scaled: npt.NDArray[np.float64] = 255 * (1 - share if is_inverse else share)
    return np.rint(scaled).astype(np.uint8)


def _windowed(values: npt.NDArray[np.float64], window: tuple[float, float], function: str) -> npt.NDArray[np.float64]:
    """Return 0 to 1 (PS3.3 C.11.2.1.2.1, C.11.2.1.3)."""
    centre, width = window
    if function == "SIGMOID":
        share: npt.NDArray[np.float64] = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
        return share
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, math.ulp(1.0))
    linear: npt.NDArray[np.float64] = ((values - centre) / width + 0.5).clip(0, 1)
    return linear


def _stretched(values: npt.NDArray[np.float64], percentiles: tuple[float, float]) -> Picture:
    low, high = np.percentile(values, percentiles)
    scaled = (values - low) * (255 / (float(high - low) or 1.0))
    shown_values: Picture = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return shown_values
